"""Runs of a gate with many slices, thousands at once, and exact chances of crossing a boundary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.verdict.sequential import Bets, log_e

LIMIT = 0.02
ALPHA = 0.05
SLICES = 20


def table(bets: Bets, images: int, failures: int) -> np.ndarray:
    """log E by (images, failures); where failures exceed images it is never read."""
    n = np.arange(images + 1)[:, None]
    f = np.minimum(np.arange(failures + 1)[None, :], n)
    return np.asarray(log_e(bets, n, f))


def alarm_boundary(bets: Bets, log_at: float, images: int) -> np.ndarray:
    """Fewest failures that are an alarm, by images; images + 1 where none is.

    Failures raise the evidence and images lower it, so the boundary rises by one at most.
    """
    boundary = np.empty(images + 1, dtype=np.int64)
    failures = 0
    for n in range(images + 1):
        while failures <= n and float(log_e(bets, n, failures)) < log_at:
            failures += 1
        boundary[n] = failures
    return boundary


def chance_of_alarm(rate: float, boundary: np.ndarray) -> float:
    """Exact chance that the failures reach the boundary at any look, looking at every image."""
    alive = np.zeros(int(boundary.max()) + 2)
    alive[0], crossed = 1.0, 0.0
    for n in range(1, len(boundary)):
        alive[1:] = alive[1:] * (1 - rate) + alive[:-1] * rate
        alive[0] *= 1 - rate
        crossed += alive[boundary[n] :].sum()
        alive[boundary[n] :] = 0.0
    return float(crossed)


@dataclass(frozen=True)
class Runs:
    """What came of each run; -1 and ``images`` where nothing did."""

    #: The first slice that failed, and all images paid by then.
    slice: np.ndarray
    slice_at: np.ndarray
    #: Images paid when the headline was rolled back.
    headline_at: np.ndarray
    #: Images paid when the headline's PASS test was through, and when it was with no slice amber.
    pass_at: np.ndarray
    clear_at: np.ndarray
    #: Slices that failed by the end when failed ones hand on their share.
    failed: np.ndarray
    #: Extra images drawn.
    extra: np.ndarray

    def any_rollback(self, images: int) -> float:
        return float(((self.slice_at <= images) | (self.headline_at <= images)).mean())

    def any_slice(self, images: int) -> float:
        return float((self.slice_at <= images).mean())


def play(
    rates: np.ndarray,
    *,
    runs: int,
    images: int,
    fail: Bets,
    passing: Bets,
    reserve: int = 0,
    go_on: bool = False,
    seed: int = 20_260_914,
) -> Runs:
    """Play ``runs`` runs with a look after every image.

    Images come from slices at random; while a slice is amber and has reserve cases the next
    image is one of those, of the amber slice with the most evidence. The headline counts planned
    images only.

    Args:
        rates: True failure rate by slice.
        runs: How many.
        images: Images that a run pays for, extra ones too.
        fail: FAIL bets of slices and headline.
        passing: PASS bets of the headline.
        reserve: Extra cases by slice.
        go_on: Go on after the first alarm, with Holm's shares; otherwise a run ends there.
        seed: Of the simulation.
    """
    random = np.random.default_rng(seed)
    count = len(rates)
    # Beyond so many failures every FAIL test is an alarm and no PASS test is through.
    most = 200
    evidence = table(fail, images, most)
    proof = table(passing, images, most)
    first, second = np.log(1 / (ALPHA / 2)), np.log(1 / ALPHA)
    # At the first alarm all shares are whole; later W falls with the number of failed slices.
    at = np.log((count - np.arange(count + 1).clip(max=count - 1)) / (ALPHA / 2))
    flat_n = np.zeros(runs * count, dtype=np.int32)
    flat_f = np.zeros(runs * count, dtype=np.int32)
    log_e_now = np.zeros((runs, count))
    left = np.full((runs, count), reserve, dtype=np.int32)
    failed, amber = np.zeros((runs, count), dtype=bool), np.zeros((runs, count), dtype=bool)
    ambers = np.zeros(runs, dtype=np.int32)
    planned, planned_failures = np.zeros(runs, dtype=np.int32), np.zeros(runs, dtype=np.int32)
    extra = np.zeros(runs, dtype=np.int32)
    never = images + 1
    found = np.full(runs, -1)
    slice_at, headline_at, pass_at, clear_at = (np.full(runs, never) for _ in range(4))
    live = np.arange(runs)
    for paid in range(1, images + 1):
        chosen = random.integers(count, size=len(live))
        topped = np.zeros(len(live), dtype=bool)
        if reserve:
            wanting = np.flatnonzero(ambers[live])
            now = np.where(amber[live[wanting]], log_e_now[live[wanting]], -np.inf)
            now[left[live[wanting]] <= 0] = -np.inf
            best = now.argmax(axis=1)
            open_ = np.isfinite(now[np.arange(len(wanting)), best])
            topped[wanting[open_]] = True
            chosen[topped] = best[open_]
            left[live[topped], chosen[topped]] -= 1
            extra[live[topped]] += 1
        bad = random.random(len(live)) < rates[chosen]
        cell = live * count + chosen
        flat_n[cell] += 1
        flat_f[cell] += bad
        value = evidence[flat_n[cell], flat_f[cell].clip(max=most)]
        log_e_now[live, chosen] = value
        alarm = value >= at[failed[live].sum(axis=1)] if go_on else value >= at[0]
        alarm &= ~failed[live, chosen]
        hit = live[alarm]
        failed[hit, chosen[alarm]] = True
        fresh = slice_at[hit] == never
        found[hit[fresh]] = chosen[alarm][fresh]
        slice_at[hit[fresh]] = paid
        if go_on and len(hit):  # A lower threshold may be met by slices that were waiting.
            _hand_on(failed, log_e_now, at, hit)
            amber[hit] &= ~failed[hit]
            ambers[hit] = amber[hit].sum(axis=1)
        amber_now = (value >= second) & ~failed[live, chosen]
        ambers[live] += amber_now.astype(np.int32) - amber[live, chosen]
        amber[live, chosen] = amber_now
        plain = live[~topped]
        planned[plain] += 1
        planned_failures[plain] += bad[~topped]
        where = planned[plain], planned_failures[plain].clip(max=most)
        _stamp(headline_at, plain[evidence[where] >= first], paid)
        passing_now = proof[planned[live], planned_failures[live].clip(max=most)] >= second
        _stamp(pass_at, live[passing_now], paid)
        _stamp(clear_at, live[passing_now & (ambers[live] == 0)], paid)
        if not go_on:
            live = live[(slice_at[live] == never) & (headline_at[live] == never)]
    return Runs(found, slice_at, headline_at, pass_at, clear_at, failed, extra)


def _stamp(times: np.ndarray, runs: np.ndarray, now: int) -> None:
    """Note the first time only."""
    times[runs] = np.minimum(times[runs], now)


def _hand_on(failed: np.ndarray, evidence: np.ndarray, at: np.ndarray, runs: np.ndarray) -> None:
    """Fail waiting slices of some runs until no threshold is met any more."""
    while len(runs):
        met = evidence[runs] >= at[failed[runs].sum(axis=1)][:, None]
        met &= ~failed[runs]
        more = met.any(axis=1)
        failed[runs] |= met
        runs = runs[more]
