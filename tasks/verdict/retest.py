"""What earlier tests of the same build left of the risk of a wrong PROMOTE. Pure functions.

The promise is about the build, not about the run: a build whose failure rate is
``promote_below`` or more is promoted with probability beta at most, in all its runs together.

**anytime.** Let E_k be the PASS evidence at the end of run k, and R_k the product of min(1, E_1)
to min(1, E_k). Run k + 1 decides at E >= 1 / (beta R_k), that is with the risk beta R_k. Proof: bet
1 at the first image of the first run; the wealth of run k + 1 starts at R_k and is R_k E while it
goes on. At its end all wealth above R_k is thrown away. Under the null hypothesis E is a
supermartingale from 1 whatever came before, and throwing wealth away makes no fair game
favourable, so the wealth of all runs, one after the other, is a nonnegative supermartingale from
1. By Ville's inequality it ever reaches 1 / beta with probability beta at most, and every PROMOTE
is such a moment.

Good runs give no credit (min(1, ...), although a plain product would be valid for new cases),
because a second run may draw the cases of the first: the same log, set and seed give the same. As
R never rises, a run that repeats an earlier one image by image decides at no lower evidence than
that one, which did not reach it: it can be left out of the proof. Runs that repeat some of the
cases are between the two; for them the proof is for new cases only.

The price is steep where it should be: at b = 3 %, a run of 240 with 7 failures leaves a fifth of
the risk, one with 31 failures a five-thousandth.

**calibrated.** The thresholds are lowered so that all of beta is used by the planned images, and
the wealth above is not what decides. What is left then is the exact conditional error: the
probability, at the boundary rate, that the run would still have been promoted by its planned end,
given what it showed (Müller and Schäfer, "A general statistical principle for changing a design
any time during the course of a trial", Statistics in Medicine 2004). It is a martingale that
starts at the run's own risk, so whatever the reason for ending a run, the run and its retests
together keep that risk. beta minus the error spent by as many images would not do: a run ends
early *because* it looks bad, and the restart would come with nearly all of beta.
A run that went to its planned end has used everything up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from tasks.records import PriorRun
from tasks.verdict.betting import Floats, log_e, pass_bets
from tasks.verdict.calibration import calibrate
from tasks.verdict.sequential import first_pass

#: With less risk left than this, testing again cannot promote any more.
FLOOR = 1e-6
#: Runs that the sentence names.
_NAMED = 3


def remaining_beta(
    prior: Sequence[PriorRun],
    *,
    promote_below: float,
    beta: float,
    mode: Literal["anytime", "calibrated"],
    n_max: int,
) -> float:
    """Return the risk of a wrong PROMOTE that the next run may take.

    Args:
        prior: Earlier tests, oldest first. They are judged by today's rule, whatever theirs was.
        promote_below: Failure rate that a PROMOTE proves to be below.
        beta: Risk of all runs together.
        mode: How the evidence becomes a decision.
        n_max: Planned images; in calibrated mode earlier runs of which the plan is not known
            are taken to have been planned with as many.

    Returns:
        ``beta`` without earlier tests, never more; 0.0 when less than :data:`FLOOR` is left.

    Raises:
        ValueError: A rate, risk or count is out of range.
    """
    if not 0 < beta < 0.5:
        raise ValueError(f"beta must be above 0 and below 0.5; got {beta}")
    if n_max < 1:
        raise ValueError(f"n_max must be 1 or more; got {n_max}")
    bets = pass_bets(promote_below)
    left = beta
    for run in prior:
        # Refuses impossible counts in both modes; without an image it is 0.
        evidence = log_e(bets, run.images, run.failures)
        if mode == "anytime":
            left *= math.exp(min(0.0, evidence))
        elif run.images:
            planned = run.planned or n_max
            left = min(left, conditional_error(run, promote_below, left, planned))
        if left < FLOOR:
            return 0.0
    return left


def conditional_error(run: PriorRun, promote_below: float, beta: float, n_max: int) -> float:
    """Return how likely a run was to be promoted yet, at the rate ``promote_below``.

    Args:
        run: The run as it ended.
        promote_below: Boundary of its PASS test, calibrated to the risk ``beta`` by ``n_max``.
        beta: Its risk.
        n_max: Its planned images, looking after every one.

    Returns:
        A probability; 1.0 for a run whose last look was a PROMOTE.
    """
    if run.images >= n_max:
        return 0.0
    bets = pass_bets(promote_below)
    log_pass = _log_pass(promote_below, beta, n_max)
    # By failures from the run's own upwards: the first image at which so many PROMOTE. Beyond
    # the last count that ever does, nothing can happen any more.
    failures = np.arange(run.failures, n_max + 1, dtype=np.int64)
    needed = first_pass(bets, log_pass, failures, n_max)
    needed = needed[needed <= n_max]
    alive, before, error = np.ones(1), run.images, 0.0
    for index, image in enumerate(needed):
        if image <= run.images:
            return 1.0
        alive = np.convolve(alive, _binomial(int(image) - before, promote_below))
        alive = alive[: needed.size - index]
        error += float(alive[0])
        alive, before = alive[1:], int(image)
    return min(1.0, error)


@lru_cache(maxsize=64)
def _log_pass(promote_below: float, beta: float, n_max: int) -> float:
    # Each threshold is calibrated by itself, so the other side's figures do not matter.
    return calibrate(promote_below, promote_below, beta, beta, n_max)[0]


def _binomial(trials: int, rate: float) -> Floats:
    """Return the probabilities of 0 to ``trials`` failures, shape (trials + 1,)."""
    k = np.arange(trials + 1, dtype=np.float64)
    factorials = np.concatenate(([0.0], np.cumsum(np.log(k[1:]))))
    choose = factorials[-1] - factorials - factorials[::-1]
    out: Floats = np.exp(choose + k * math.log(rate) + (trials - k) * math.log1p(-rate))
    return out


def sentence(prior: Sequence[PriorRun], beta: float, remaining: float) -> str | None:
    """Return what a release engineer is told about earlier tests; ``None`` without any.

    Args:
        prior: Earlier tests, oldest first.
        beta: Risk of all runs together.
        remaining: What :func:`remaining_beta` returned.
    """
    if not prior:
        return None
    named = ", ".join(
        f"run {run.run_id}: {run.failures} of {run.images} failed or were not judged"
        for run in prior[-_NAMED:]
    )
    times = "" if len(prior) == 1 else f" {len(prior)} times"
    latest = "the latest are " if len(prior) > _NAMED else ""
    start = f"This build was tested{times} before ({latest}{named})"
    if remaining < FLOOR:
        return (
            f"{start}; nothing is left of the {_percent(beta)} risk of a wrong PROMOTE, so testing "
            "it again cannot promote it any more: change the build"
        )
    if remaining >= beta:
        return f"{start}; all of the {_percent(beta)} risk of a wrong PROMOTE is left"
    return (
        f"{start}; {_percent(remaining)} of the {_percent(beta)} risk of a wrong PROMOTE is left, "
        "so a PROMOTE needs more evidence than the first time"
    )


def _percent(share: float) -> str:
    """Return a share in percent with two digits that count, e.g. ``5 %``, ``0.43 %``."""
    percent = share * 100
    digits = max(0, 1 - math.floor(math.log10(percent)))
    text = f"{percent:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"
