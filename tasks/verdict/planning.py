"""What a gate will need before it decides: images and odds of each verdict, exactly.

Nothing here is simulated: :func:`tasks.verdict.calibration.course` follows the probability of
every count of failures from look to look. The thresholds are the gate's own, from
:func:`thresholds`, so that a plan and a gate cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from tasks.policy import FailureRule, Policy
from tasks.records import PriorRun
from tasks.verdict.calibration import Course, calibrate, course
from tasks.verdict.retest import remaining_beta
from tasks.verdict.sequential import Mode, log_e, pass_bets

#: Share of ``alpha`` that the headline failure rate has for itself.
HEADLINE_SHARE = 0.5
#: More images than this are not planned: the exact course would take minutes.
MOST_IMAGES = 20_000
#: True rates of the table, in limits and in the threshold of PROMOTE.
_OF_LIMIT, _OF_PROMOTE = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0), (1.0, 5 / 3, 4.0)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What each test of a gate has to reach; all logarithms are natural ones."""

    limit: float
    promote_below: float
    mode: Mode
    #: Risk of the headline's FAIL test and of every PASS test.
    alpha_headline: float
    beta: float
    #: Evidence of the headline that proves FAIL, and PASS.
    fail_at: float
    pass_at: float
    #: Risk of each of the other FAIL tests (slices, guards, the paired test), and its evidence.
    share: float
    shared_fail_at: float
    #: Evidence of a slice that looks bad: its FAIL test without any correction.
    amber_at: float
    #: Evidence that proves a critical slice.
    critical_pass_at: float


def thresholds(
    policy: Policy, slices: Sequence[str], guards: int, *, beta: float | None = None
) -> Thresholds:
    """Return the thresholds of a gate by its policy.

    Half of ``alpha`` is for the headline failure rate. The other half goes in equal parts to the
    slices that are judged, the guards (limits whose breach means ROLLBACK) and the paired test
    (Bonferroni). PROMOTE needs all its proofs at once, so each may use the whole of ``beta``.

    Args:
        policy: The policy.
        slices: Names of the slices that are judged, fixed before the first image.
        guards: Number of limits whose breach means ROLLBACK.
        beta: Risk that earlier runs of the same build left; the policy's by default.

    Raises:
        ValueError: ``guards`` is negative, a slice is named twice, or ``beta`` is no risk.
    """
    rule = policy.failure
    if guards < 0:
        raise ValueError(f"guards must be 0 or more; got {guards}")
    if len(set(slices)) != len(slices):
        raise ValueError(f"a slice is named twice among {', '.join(slices)}")
    left = rule.beta if beta is None else beta
    headline = rule.alpha * HEADLINE_SHARE
    fail_at, pass_at = headline_thresholds(
        rule.limit, rule.promote_below, headline, left, rule.mode, policy.sampling.cases
    )
    share = rule.alpha * (1 - HEADLINE_SHARE) / (len(slices) + guards + 1)
    return Thresholds(
        limit=rule.limit,
        promote_below=rule.promote_below,
        mode=rule.mode,
        alpha_headline=headline,
        beta=left,
        fail_at=fail_at,
        pass_at=pass_at,
        share=share,
        shared_fail_at=-math.log(share),
        amber_at=-math.log(rule.alpha),
        critical_pass_at=-math.log(left),
    )


def headline_thresholds(
    limit: float, promote_below: float, alpha: float, beta: float, mode: Mode, n_max: int
) -> tuple[float, float]:
    """Return the log evidence that proves FAIL and PASS of the headline rate.

    Args:
        limit: ROLLBACK above.
        promote_below: PROMOTE below.
        alpha: Risk of the FAIL test alone.
        beta: Risk of the PASS test.
        mode: ``anytime``: 1/risk (Ville's inequality); ``calibrated``: the exact risk by ``n_max``.
        n_max: Most images of the headline sample.

    Raises:
        ValueError: A risk is not between 0 and 1, or the mode is unknown.
    """
    for name, risk in (("alpha", alpha), ("beta", beta)):
        if not 0 < risk < 1:
            raise ValueError(f"{name} must be between 0 and 1; got {risk}")
    if mode == "anytime":
        return -math.log(alpha), -math.log(beta)
    if mode == "calibrated":
        log_pass, log_fail = calibrate(limit, promote_below, alpha, beta, n_max)
        return log_fail, log_pass
    raise ValueError(f"mode {mode!r} is unknown (known: anytime, calibrated)")


@dataclass(frozen=True, slots=True)
class Plan:
    """The headline test of a gate, as far as its odds go.

    ``images`` is the cap; ``every`` is the number of images between two looks.
    """

    limit: float
    promote_below: float
    log_fail: float
    log_pass: float
    images: int
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.limit <= self.promote_below < 1:
            raise ValueError(
                "thresholds must satisfy 0 < limit <= promote_below < 1; "
                f"got limit {self.limit} and promote_below {self.promote_below}"
            )
        if not 1 <= self.images <= MOST_IMAGES:
            raise ValueError(f"images must be 1 to {MOST_IMAGES}; got {self.images}")
        if self.every < 1:
            raise ValueError(f"a look needs 1 image or more; got {self.every}")

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of images at which the gate looks; the last one is the cap."""
        return look_ends(self.images, self.every)


def look_ends(images: int, every: int) -> tuple[int, ...]:
    """Return the numbers of images after each shard of ``every``; the last one is ``images``."""
    return (*range(every, images, every), images)


@dataclass(frozen=True, slots=True)
class Row:
    """What to expect at one true failure rate. Images are the candidate's; odds sum to 1."""

    rate: float
    #: Mean images until the decision; a run that is held counts with all its images.
    images: float
    #: Images by which 1 in 10, half, and 9 in 10 runs have ended.
    p10: int
    median: int
    p90: int
    promote: float
    rollback: float
    hold: float


def expect(plan: Plan, rate: float) -> Row:
    """Return what to expect at a true failure rate.

    Raises:
        ValueError: The rate is not between 0 and 1.
    """
    found = followed(plan, rate)
    promote, rollback = float(found.promote.sum()), float(found.rollback.sum())
    ended = np.cumsum(found.promote + found.rollback)
    p10, median, p90 = (_quantile(ended, share, plan.images) for share in (0.1, 0.5, 0.9))
    return Row(rate, found.mean_images, p10, median, p90, promote, rollback, found.undecided)


@lru_cache(maxsize=256)
def followed(plan: Plan, rate: float) -> Course:
    """Return the exact course of the headline test at a true failure rate.

    Raises:
        ValueError: The rate is not between 0 and 1.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be 0 to 1; got {rate}")
    return course(
        rate,
        limit=plan.limit,
        promote_below=plan.promote_below,
        log_pass=plan.log_pass,
        log_fail=plan.log_fail,
        n_max=plan.images,
        looks=plan.looks,
    )


def _quantile(ended: np.ndarray, share: float, cap: int) -> int:
    """Return the images by which ``share`` of the runs have ended; the cap ends all others."""
    # Sums of probabilities fall short of a round share by some 1e-16.
    reached = int(np.searchsorted(ended, share - 1e-12))
    return min(reached, cap)


def grid(limit: float, promote_below: float, also: float | None = None) -> tuple[float, ...]:
    """Return the true rates that a plan shows, rising; ``also`` is one of them when given.

    From no failure at all to far above both thresholds, with two digits each, so that a reader
    sees where promotion is quick, where nothing can be decided, and where rollback is.
    """
    rates = {_two_digits(limit * factor) for factor in _OF_LIMIT}
    rates |= {_two_digits(min(0.95, promote_below * factor)) for factor in _OF_PROMOTE}
    rates |= {limit, promote_below, _two_digits((limit + promote_below) / 2)}
    if also is not None:
        rates.add(also)
    ordered = sorted(rates)
    # Rounding may put a rate beside a threshold that says the same.
    twins = {
        one if one not in (limit, promote_below, also) else other
        for one, other in pairwise(ordered)
        if other - one < 0.02 * other and {one, other} - {limit, promote_below, also}
    }
    return tuple(rate for rate in ordered if rate not in twins)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def curve(limit: float, promote_below: float) -> tuple[float, ...]:
    """Return true rates for a drawing, rising, on a logarithmic axis, with both thresholds.

    They reach from a 40th of the limit to 6 times the threshold of PROMOTE (95 % at most, or that
    threshold where it is higher), and are closer together where the odds turn.
    """
    top = min(max(0.95, promote_below), promote_below * 6)
    wide = np.geomspace(limit / 40, top, 31)
    near = np.geomspace(limit / 1.6, min(top, promote_below * 1.6), 25)
    return tuple(sorted({*map(float, wide), *map(float, near), limit, promote_below}))


def fewest_images(plan: Plan) -> tuple[int | None, int | None]:
    """Return the fewest images that can end as PROMOTE, and as ROLLBACK.

    ``None`` stands for never within the cap.
    """
    promoted = np.flatnonzero(followed(plan, 0.0).promote > 0)
    failed = np.flatnonzero(followed(plan, 1.0).rollback > 0)
    return (
        int(promoted[0]) if promoted.size else None,
        int(failed[0]) if failed.size else None,
    )


@dataclass(frozen=True, slots=True)
class Retest:
    """A second run of a build whose first run was held."""

    held_images: int
    held_failures: int
    #: Risk of a wrong PROMOTE that the first run left.
    left: float
    #: What to expect of the second run; ``None`` when it cannot promote.
    row: Row | None


def retest(rule: FailureRule, held: Plan, second: Plan, failures: int, rate: float) -> Retest:
    """Return what a second run of a held build may still risk, and how long it takes.

    Args:
        rule: The policy's rule of the failure rate.
        held: The first run; it went to its cap.
        second: The second run but for its evidence for PROMOTE.
        failures: Failures of the first run; taken as the fewest that are no PROMOTE where they
            would have been one.
        rate: True failure rate.
    """
    bets = pass_bets(rule.promote_below)
    while failures < held.images and log_e(bets, held.images, failures) >= held.log_pass:
        failures += 1
    left = remaining_beta(
        [PriorRun(run_id="first", images=held.images, failures=failures)],
        promote_below=rule.promote_below,
        beta=rule.beta,
        mode=rule.mode,
        n_max=held.images,
    )
    if not left:
        return Retest(held.images, failures, 0.0, None)
    log_fail, log_pass = headline_thresholds(
        rule.limit,
        rule.promote_below,
        rule.alpha * HEADLINE_SHARE,
        left,
        rule.mode,
        second.images,
    )
    again = Plan(rule.limit, rule.promote_below, log_fail, log_pass, second.images, second.every)
    return Retest(held.images, failures, left, expect(again, rate))
