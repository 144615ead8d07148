"""What a gate will need before it decides: images and odds of each verdict, exactly.

Nothing here is simulated: :func:`tasks.verdict.calibration.course` follows the probability of
every count of failures from look to look. The boundaries are the gate's own, from
:func:`tasks.verdict.boundaries.boundaries`, so that a plan and a gate cannot disagree: where
planted defects say how well the checks see, PASS is tested against as much less as in the gate, and
a true failure rate becomes the rate of flags that such checks show on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from tasks.policy import Policy
from tasks.records import PriorRun
from tasks.verdict.boundaries import PERFECT, Boundaries, Sees, boundaries, left_by
from tasks.verdict.calibration import Course, course
from tasks.verdict.checkers import Sensitivity
from tasks.verdict.sequential import log_e, pass_bets

#: More images than this are not planned: the exact course would take minutes.
MOST_IMAGES = 20_000
#: True rates of the table, in limits and in the threshold of PROMOTE.
_OF_LIMIT, _OF_PROMOTE = (0.0, 0.05, 0.25, 0.5, 0.75, 1.0), (1.0, 5 / 3, 4.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """The headline test of a gate, as far as its odds go.

    ``limit`` and ``promote_below`` are the rates of flags that FAIL and PASS are tested against;
    with checks that err the second may be the lower one. ``log_pass`` is infinite where nothing is
    a proof. ``images`` is the cap; ``every`` is the number of images between two looks.
    """

    limit: float
    promote_below: float
    log_fail: float
    log_pass: float
    images: int
    every: int = 1
    #: What becomes of a true failure rate when the checks look at it.
    sees: Sees = PERFECT

    def __post_init__(self) -> None:
        for name in ("limit", "promote_below"):
            if not 0 < (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be between 0 and 1; got {value}")
        if not 1 <= self.images <= MOST_IMAGES:
            raise ValueError(f"images must be 1 to {MOST_IMAGES}; got {self.images}")
        if self.every < 1:
            raise ValueError(f"a look needs 1 image or more; got {self.every}")

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of images at which the gate looks; the last one is the cap."""
        return look_ends(self.images, self.every)


def plan_of(
    policy: Policy,
    images: int,
    every: int,
    *,
    left: float | None = None,
    checks: Sequence[Sensitivity] = (),
    alarms: Sensitivity | None = None,
) -> Plan:
    """Return the headline test of a gate by its policy.

    Args:
        policy: Thresholds, risks, mode.
        images: Cap of the run.
        every: Images between two looks.
        left: Risk of a wrong PROMOTE that earlier tests left; the policy's by default.
        checks: What planted defects say of the checks; none for perfect ones.
        alarms: Good pictures that any of the checks called bad.

    Raises:
        ValueError: A count or a risk is impossible.
    """
    sampling = policy.sampling.model_copy(update={"cases": images})
    policy = policy.model_copy(update={"sampling": sampling})
    # Slices and guards take nothing from the headline.
    edges = boundaries(policy, (), 0, left=left, checks=checks, alarms=alarms)
    return headline_plan(edges, images, every)


def headline_plan(edges: Boundaries, images: int, every: int) -> Plan:
    """Return the headline test that these boundaries are of; arguments as in :func:`plan_of`."""
    log_pass = edges.pass_at if edges.promotes else math.inf
    return Plan(edges.at.limit, edges.below, edges.at.fail_at, log_pass, images, every, edges.sees)


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
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be 0 to 1; got {rate}")
    found = followed(plan, plan.sees.flagged(rate))
    promote, rollback = float(found.promote.sum()), float(found.rollback.sum())
    ended = np.cumsum(found.promote + found.rollback)
    p10, median, p90 = (_quantile(ended, share, plan.images) for share in (0.1, 0.5, 0.9))
    return Row(rate, found.mean_images, p10, median, p90, promote, rollback, found.undecided)


@lru_cache(maxsize=256)
def followed(plan: Plan, flagged: float) -> Course:
    """Return the exact course of the headline test at a rate of flags.

    Raises:
        ValueError: The rate is not between 0 and 1.
    """
    if not 0 <= flagged <= 1:
        raise ValueError(f"rate of flags must be 0 to 1; got {flagged}")
    return course(
        flagged,
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

    These are without a flag, and with nothing but flags. ``None`` stands for never within the cap.
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


def retest(
    policy: Policy,
    held: Plan,
    second: Plan,
    failures: int,
    rate: float,
    *,
    checks: Sequence[Sensitivity] = (),
    alarms: Sensitivity | None = None,
) -> Retest:
    """Return what a second run of a held build may still risk, and how long it takes.

    Args:
        policy: The policy.
        held: The first run; it went to its cap.
        second: The second run but for its evidence for PROMOTE.
        failures: Failures that the first run showed; taken as the fewest that are no PROMOTE where
            they would have been one.
        rate: True failure rate.
        checks: What planted defects say of the checks, as for both plans.
        alarms: Good pictures that any of the checks called bad.
    """
    bets = pass_bets(held.promote_below)
    while failures < held.images and log_e(bets, held.images, failures) >= held.log_pass:
        failures += 1
    prior = [PriorRun(run_id="first", images=held.images, failures=failures)]
    left = left_by(policy, prior, checks, held.images)
    if not left:
        return Retest(held.images, failures, 0.0, None)
    again = plan_of(policy, second.images, second.every, left=left, checks=checks, alarms=alarms)
    return Retest(held.images, failures, left, expect(again, rate))
