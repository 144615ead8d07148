"""Whole gates played many times: how often a policy promotes, rolls back and holds.

One run here is one gate: shards of cases in a fixed order, a look after each, the headline test
with its half of alpha, the slices with their shares, the proofs that critical slices need, extra
cases of slices that look bad, and the end at the cap. All runs go forward at once, so that
20,000 gates of 600 cases take seconds.

The boundaries are the gate's own, from :func:`tasks.verdict.boundaries.boundaries`. Where planted
defects say how well the checks see, the simulated checks miss and accuse as often as they did on
record; in a slice they are taken to see as well as everywhere.

Decisions do not evaluate evidence: it rises with every failure (FAIL) or falls (PASS), so each
test is a table of the count of failures that decides at each number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.policy import Policy
from tasks.verdict.boundaries import Boundaries, boundaries
from tasks.verdict.checkers import Sensitivity
from tasks.verdict.guards import guarded
from tasks.verdict.sequential import Bets, fail_bets, log_e, pass_bets
from tasks.verdict.traffic import Traffic

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Runs that go forward together; a progress bar moves after each such block.
BLOCK = 2_000
#: Codes of the verdicts in arrays.
PROMOTE, ROLLBACK, HOLD = 1, 2, 3


def failures_that_fail(bets: Bets, log_at: float, images: int) -> Ints:
    """Return the fewest failures among 0 to ``images`` images that give the evidence for FAIL.

    Where no count does, the number is one more than the images. Shape: (images + 1,).
    """
    n = np.arange(images + 1, dtype=np.int64)
    low, high = np.zeros_like(n), n + 1
    while bool((low < high).any()):
        middle = (low + high) // 2
        reached = np.asarray(log_e(bets, n, np.minimum(middle, n))) >= log_at
        reached |= middle > n
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle + 1)
    return high


def failures_that_pass(bets: Bets, log_at: float, images: int) -> Ints:
    """Return the most failures among 0 to ``images`` images that still give evidence for PASS.

    Where even no failure is not enough, the number is -1. Shape: (images + 1,).
    """
    n = np.arange(images + 1, dtype=np.int64)
    low, high = np.full_like(n, -1), n.copy()
    while bool((low < high).any()):
        middle = (low + high + 1) // 2
        reached = np.asarray(log_e(bets, n, np.maximum(middle, 0))) >= log_at
        low = np.where(reached, middle, low)
        high = np.where(reached, high, middle - 1)
    return low


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy made ready for the simulation: tables of deciding counts, sizes and caps."""

    policy: Policy
    #: What every test is tested against.
    edges: Boundaries
    traffic: Traffic
    #: Share of the pictures of each kind of cases that the checks flag, shape (kinds,).
    flagged: Floats
    #: Slices that are judged, and those that need a proof of their own, as columns of the traffic.
    judged: tuple[int, ...]
    critical: tuple[int, ...]
    #: Names of critical slices that no case is in: such a gate never promotes.
    uncovered: tuple[str, ...]
    #: Extra cases that may be drawn, in all.
    reserve: int
    #: A PROMOTE needs at least so many headline images (limits on ``images``).
    fewest: int
    fail: Ints = field(repr=False)
    passes: Ints = field(repr=False)
    slice_fail: Ints = field(repr=False)
    slice_amber: Ints = field(repr=False)
    slice_pass: Ints = field(repr=False)
    slice_bets: Bets = field(repr=False)


def prepare(
    policy: Policy,
    made_of: Traffic,
    checks: Sequence[Sensitivity] = (),
    alarms: Sensitivity | None = None,
) -> Rules:
    """Return the rules of a policy for a traffic.

    Slices that fewer cases than ``min_images`` of the plan are in, or that are of a dimension the
    policy does not judge (names without ``=`` are always judged), are not judged.

    Args:
        policy: The policy.
        made_of: The traffic with its true failure rates.
        checks: What planted defects say of the checks; none for perfect ones.
        alarms: Good pictures that any of the checks called bad.

    Raises:
        ValueError: Two risks cannot be met, e.g. a slice is named twice.
    """
    rule, cases = policy.slices, policy.sampling.cases
    expected = [round(made_of.slice_share(n) * cases) for n in range(len(made_of.names))]
    judged = tuple(
        number
        for number, name in enumerate(made_of.names)
        if expected[number] >= rule.min_images
        and ("=" not in name or name.partition("=")[0] in (*rule.dimensions, "slice"))
    )
    critical = tuple(made_of.names.index(n) for n in rule.critical if n in made_of.names)
    edges = boundaries(
        policy,
        [made_of.names[n] for n in judged],
        len(guarded(policy)),
        checks=checks,
        alarms=alarms,
    )
    at = edges.at
    reserve = int(rule.top_up * cases) if judged else 0
    most = cases + reserve
    above, below = fail_bets(edges.policy.slices.limit), pass_bets(edges.critical_below)
    # Where nothing is a proof, no count of failures passes.
    pass_at = edges.pass_at if edges.promotes else math.inf
    floors = [limit.min for limit in policy.limits if limit.measure == "images" and limit.min]
    return Rules(
        policy=policy,
        edges=edges,
        traffic=made_of,
        flagged=np.array([edges.sees.flagged(float(rate)) for rate in made_of.rates]),
        judged=judged,
        critical=critical,
        uncovered=tuple(n for n in rule.critical if n not in made_of.names),
        reserve=reserve,
        fewest=math.ceil(max(floors, default=0)),
        fail=failures_that_fail(fail_bets(at.limit), at.fail_at, cases),
        passes=failures_that_pass(pass_bets(edges.below), pass_at, cases),
        slice_fail=failures_that_fail(above, at.shared_fail_at, most),
        slice_amber=failures_that_fail(above, at.amber_at, most),
        slice_pass=failures_that_pass(below, -math.log(edges.sight.risk), most),
        slice_bets=above,
    )


@dataclass(frozen=True, slots=True)
class Played:
    """What became of the runs; all arrays by run.

    ``verdict`` holds the codes of this module, ``images`` all images of the candidate and
    ``extra`` those among them that were drawn for a slice that looked bad. ``headline_failed`` and
    ``slice_failed`` (runs, slices) say which tests proved a ROLLBACK.
    """

    verdict: Ints
    images: Ints
    extra: Ints
    headline_failed: NDArray[np.bool_]
    slice_failed: NDArray[np.bool_]

    @property
    def runs(self) -> int:
        """Number of runs."""
        return int(self.verdict.size)

    def count(self, code: int) -> int:
        """Return how many runs ended with a verdict."""
        return int((self.verdict == code).sum())

    def quantiles(self, shares: Sequence[float] = (0.1, 0.5, 0.9)) -> tuple[int, ...]:
        """Return the images by which these shares of the runs have ended."""
        found = np.quantile(self.images, shares, method="inverted_cdf")
        return tuple(int(value) for value in found)


def simulate(
    rules: Rules, runs: int, seed: int, advance: Callable[[int], None] = lambda _: None
) -> Played:
    """Play a number of gates; the same seed gives the same runs.

    Args:
        rules: From :func:`prepare`.
        runs: How many gates.
        seed: Seed of the draws.
        advance: Hears how many more runs have ended.

    Raises:
        ValueError: ``runs`` is below 1 or the seed negative.
    """
    if runs < 1:
        raise ValueError(f"runs must be 1 or more; got {runs}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more; got {seed}")
    blocks = []
    for number, size in enumerate(_blocks(runs)):
        # A stream of its own for each block: what came before does not shift what comes after.
        blocks.append(_play(rules, size, np.random.default_rng([seed, number])))
        advance(size)
    return Played(
        *(
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("verdict", "images", "extra", "headline_failed", "slice_failed")
        )
    )


def _blocks(runs: int) -> Iterator[int]:
    while runs > 0:
        yield min(BLOCK, runs)
        runs -= BLOCK


class _State:
    """Counts of the runs of one block that still go on."""

    def __init__(self, runs: int, slices: int) -> None:
        self.run = np.arange(runs)
        self.n, self.f, self.extra = (np.zeros(runs, dtype=np.int64) for _ in range(3))
        self.slice_n, self.slice_f = (np.zeros((runs, slices), dtype=np.int64) for _ in range(2))
        #: Slice that the next shard is drawn for; -1 for the headline sample.
        self.next = np.full(runs, -1)

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Go on with some of the runs."""
        for name in ("run", "n", "f", "extra", "slice_n", "slice_f", "next"):
            setattr(self, name, getattr(self, name)[which])


def _play(rules: Rules, runs: int, rng: np.random.Generator) -> Played:
    slices = len(rules.traffic.names)
    done = Played(
        verdict=np.full(runs, HOLD),
        images=np.zeros(runs, dtype=np.int64),
        extra=np.zeros(runs, dtype=np.int64),
        headline_failed=np.zeros(runs, dtype=np.bool_),
        slice_failed=np.zeros((runs, slices), dtype=np.bool_),
    )
    state = _State(runs, slices)
    while state.run.size:
        _draw(rules, state, rng)
        headline, pieces = _failed(rules, state)
        ended = state.n >= rules.policy.sampling.cases
        looked = ended if not rules.policy.sampling.stop_early else np.ones_like(ended)
        rollback = (headline | pieces.any(axis=1)) & looked
        promote = _promoted(rules, state) & ~rollback & looked
        state.next = next_slice(rules, state.slice_n, state.slice_f, state.extra)
        held = ended & (state.next < 0) & ~rollback & ~promote
        out = rollback | promote | held
        where = state.run[out]
        done.verdict[where] = np.select([rollback[out], promote[out]], [ROLLBACK, PROMOTE], HOLD)
        done.images[where] = (state.n + state.extra)[out]
        done.extra[where] = state.extra[out]
        done.headline_failed[where] = (headline & rollback)[out]
        done.slice_failed[where] = (pieces & rollback[:, None])[out]
        state.keep(~out)
    return done


def _draw(rules: Rules, state: _State, rng: np.random.Generator) -> None:
    """Add one shard to every run: of the headline sample, or of the slice that comes next."""
    sampling, made_of = rules.policy.sampling, rules.traffic
    for number in np.unique(state.next):
        at = np.flatnonzero(state.next == number)
        if number < 0:
            size = np.minimum(sampling.shard_size, sampling.cases - state.n[at])
            shares = made_of.shares
        else:
            size = np.minimum(sampling.shard_size, rules.reserve - state.extra[at])
            shares = made_of.shares * made_of.inside[:, number]
            shares = shares / shares.sum()
        kinds = rng.multinomial(size, shares)
        failed = rng.binomial(kinds, rules.flagged)
        if number < 0:
            state.n[at] += size
            state.f[at] += failed.sum(axis=1)
            state.slice_n[at] += kinds @ made_of.inside
            state.slice_f[at] += failed @ made_of.inside
        else:
            # Extra cases count for the slice that they are drawn for, and nowhere else.
            state.extra[at] += size
            state.slice_n[at, number] += size
            state.slice_f[at, number] += failed.sum(axis=1)


def _failed(rules: Rules, state: _State) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which runs the headline proves bad, and which slices (runs, slices)."""
    pieces = np.zeros(state.slice_n.shape, dtype=np.bool_)
    judged = list(rules.judged)
    pieces[:, judged] = state.slice_f[:, judged] >= rules.slice_fail[state.slice_n[:, judged]]
    return state.f >= rules.fail[state.n], pieces


def _promoted(rules: Rules, state: _State) -> NDArray[np.bool_]:
    """Return which runs have every proof that a PROMOTE needs."""
    proven = (state.f <= rules.passes[state.n]) & (state.n >= rules.fewest)
    if rules.uncovered:
        return np.zeros_like(proven)
    for number in rules.critical:
        proven &= state.slice_f[:, number] <= rules.slice_pass[state.slice_n[:, number]]
    return proven


def next_slice(rules: Rules, images: Ints, failures: Ints, extra: Ints) -> Ints:
    """Return the slice that the next shard is drawn for: of the amber ones, the nearest to FAIL.

    Args:
        rules: From :func:`prepare`.
        images: Images of each slice, shape (runs, slices).
        failures: Failures among them, the same shape.
        extra: Extra cases that were drawn already, shape (runs,).

    Returns:
        Columns of the slices, -1 for the headline sample; shape (runs,).
    """
    found = np.full(len(extra), -1)
    if not rules.judged or not rules.reserve:
        return found
    judged = np.array(rules.judged)
    n, f = images[:, judged], failures[:, judged]
    amber = (f >= rules.slice_amber[n]) & (extra < rules.reserve)[:, None]
    evidence = np.full(n.shape, -np.inf)
    evidence[amber] = log_e(rules.slice_bets, n[amber], f[amber])
    return np.where(amber.any(axis=1), judged[evidence.argmax(axis=1)], found)
