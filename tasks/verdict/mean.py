"""Mean cost of an image, looked at as often as one likes: absolute, per usable image, relative.

All are the bounded betting test of :mod:`tasks.verdict.sequential` on a suitable Z. Evidence that
a mean is above a limit needs a lower end of Z only (the bets are on high values, and one very dear
image may prove much); evidence that it is below needs the worst price there can be, ``hi``,
because a few dear images that were not seen yet could still move the mean.

Money is in whole micro-dollars. A cost that nobody knows is ``None``: the worst price where a
proof for the candidate is asked for, nothing where one against it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.sequential import bounded_fail_bets, bounded_pass_bets, log_e_counts

_HALVINGS = 60


def fail_evidence_mean(costs: Sequence[int | None], limit: float) -> float:
    """Return the log evidence that the mean cost is above the limit; the null is mean <= limit.

    Args:
        costs: Micro-dollars, one number an image, all attempts of it together.
        limit: Micro-dollars an image.

    Raises:
        ValueError: Costs that are no whole numbers of 0 or more, or a limit that is not positive.
    """
    _positive("limit", limit)
    return _log_e_fail(_counted(_money("costs", costs, unknown=0)), limit, 0.0)


def pass_evidence_mean(costs: Sequence[int | None], below: float, hi: int) -> float:
    """Return the log evidence that the mean cost is below ``below``; the null is mean >= below.

    Args:
        costs: As :func:`fail_evidence_mean`.
        below: Micro-dollars an image.
        hi: The most that one image can cost, all its attempts together.

    Raises:
        ValueError: As :func:`fail_evidence_mean`; a cost above ``hi``.
    """
    _positive("below", below)
    return _log_e_pass(_counted(_money("costs", costs, unknown=hi, hi=hi)), below, float(hi))


def fail_evidence_effective(
    costs: Sequence[int | None], usable: Sequence[bool | None], limit_per_image: float
) -> float:
    """Return the log evidence that a usable image costs more than the limit.

    Effective cost is E[cost] / E[usable]. It is above L exactly when Z = cost - L * usable has a
    mean above 0, so no ratio of averages has to be tested.

    Args:
        costs: As :func:`fail_evidence_mean`, of all images, the unusable ones too.
        usable: Whether a user can use it; ``None`` where nobody knows, which counts as usable.
        limit_per_image: Micro-dollars a usable image.

    Raises:
        ValueError: As :func:`fail_evidence_mean`; different numbers of costs and images.
    """
    _positive("limit_per_image", limit_per_image)
    paid = _money("costs", costs, unknown=0)
    z = paid - limit_per_image * _truths(usable, paid.size, unknown=True)
    return _log_e_fail(_counted(z), 0.0, -limit_per_image)


def pass_evidence_effective(
    costs: Sequence[int | None], usable: Sequence[bool | None], below: float, hi: int
) -> float:
    """Return the log evidence that a usable image costs less than ``below``.

    An image of which nobody knows whether it is usable is not. Args and errors as
    :func:`fail_evidence_effective` and :func:`pass_evidence_mean`.
    """
    _positive("below", below)
    paid = _money("costs", costs, unknown=hi, hi=hi)
    z = paid - below * _truths(usable, paid.size, unknown=False)
    return _log_e_pass(_counted(z), 0.0, float(hi))


def fail_evidence_cost_ratio(
    candidate: Sequence[int | None],
    baseline: Sequence[int | None],
    ratio: float,
    baseline_hi: int,
) -> float:
    """Return the log evidence that the candidate costs more than ratio times the baseline.

    Tested on the same cases by Z = candidate - ratio * baseline, whose mean is above 0 exactly
    when the mean costs are in a higher ratio.

    Args:
        candidate: Micro-dollars by case.
        baseline: The same of the baseline, in the same order.
        ratio: What the candidate may cost, in baselines.
        baseline_hi: The most that one image of the baseline can cost.

    Raises:
        ValueError: As :func:`fail_evidence_mean`; different numbers of cases; a cost above its
            worst price.
    """
    _positive("ratio", ratio)
    theirs = _money("baseline costs", baseline, unknown=baseline_hi, hi=baseline_hi)
    ours = _money("candidate costs", candidate, unknown=0)
    return _log_e_fail(_counted(_less(ours, ratio, theirs)), 0.0, -ratio * baseline_hi)


def pass_evidence_cost_ratio(
    candidate: Sequence[int | None], baseline: Sequence[int | None], ratio: float, hi: int
) -> float:
    """Return the log evidence that the candidate costs less than ratio times the baseline.

    Args:
        candidate: Micro-dollars by case.
        baseline: The same of the baseline, in the same order.
        ratio: What the candidate may cost, in baselines.
        hi: The most that one image of the candidate can cost.

    Raises:
        ValueError: As :func:`fail_evidence_cost_ratio`.
    """
    _positive("ratio", ratio)
    theirs = _money("baseline costs", baseline, unknown=0)
    ours = _money("candidate costs", candidate, unknown=hi, hi=hi)
    return _log_e_pass(_counted(_less(ours, ratio, theirs)), 0.0, float(hi))


def cost_interval(
    costs: Sequence[int | None], hi: int, alpha: float = 0.05, beta: float = 0.05
) -> tuple[float, float]:
    """Return a confidence sequence of the mean cost in micro-dollars, for display.

    Both ends hold at every look at once: the lower is too high with risk ``alpha`` at most, the
    upper too low with risk ``beta``. They are the edges of the limits that
    :func:`fail_evidence_mean` and :func:`pass_evidence_mean` reject (the evidence is monotone in
    the limit).

    Raises:
        ValueError: As those; a risk that is none.
    """
    if not (0 < alpha < 1 and 0 < beta < 1):
        raise ValueError(f"risks must be between 0 and 1; got alpha {alpha} and beta {beta}")
    least = _counted(_money("costs", costs, unknown=0, hi=hi))
    most = _counted(_money("costs", costs, unknown=hi, hi=hi))
    lower = _edge(0.0, hi, lambda m: _log_e_fail(least, m, 0.0) < -math.log(alpha))
    upper = _edge(hi, 0.0, lambda m: _log_e_pass(most, m, float(hi)) < -math.log(beta))
    return lower, upper


def _edge(gone: float, kept: float, keeps: Callable[[float], bool]) -> float:
    """Return the edge, on its rejected side, of the means that a test keeps."""
    for _ in range(_HALVINGS):
        middle = (gone + kept) / 2
        if middle in (gone, kept):
            break
        gone, kept = (gone, middle) if keeps(middle) else (middle, kept)
    return gone


@dataclass(frozen=True)
class _Sample:
    """What was observed and how often: there are few different prices."""

    values: list[float]
    counts: list[int]


def _counted(z: NDArray[np.float64]) -> _Sample:
    values, counts = np.unique(z, return_counts=True)
    return _Sample(values.tolist(), counts.tolist())


def _log_e_fail(z: _Sample, mean: float, lo: float) -> float:
    """Return the evidence that the mean of Z is above ``mean``; nothing lies below ``lo``."""
    # The upper end has no part in these bets; it only has to be above the mean.
    hi = max([*z.values[-1:], mean + (mean - lo)])
    return log_e_counts(bounded_fail_bets(mean, lo, hi), z.values, z.counts)


def _log_e_pass(z: _Sample, mean: float, hi: float) -> float:
    """Return the evidence that the mean of Z is below ``mean``; nothing lies above ``hi``."""
    # A threshold that the worst price keeps anyway is kept; the test on the wider range says so
    # after a few images and never before the first. The lower end has no part in these bets.
    lo = min([*z.values[:1], mean - max(abs(mean), 1.0)])
    bets = bounded_pass_bets(mean, lo, hi if hi > mean else 2 * mean)
    return log_e_counts(bets, z.values, z.counts)


def _less(
    ours: NDArray[np.float64], ratio: float, theirs: NDArray[np.float64]
) -> NDArray[np.float64]:
    if ours.size != theirs.size:
        raise ValueError(
            f"both arms need a cost for each case; got {ours.size} of the candidate and "
            f"{theirs.size} of the baseline"
        )
    return ours - ratio * theirs


def _money(
    name: str, costs: Sequence[int | None], *, unknown: int, hi: int | None = None
) -> NDArray[np.float64]:
    """Return costs as numbers (exact: a float holds whole micro-dollars up to 9 billion dollars).

    Raises:
        ValueError: Anything but whole numbers from 0 to ``hi``.
    """
    if hi is not None and not (isinstance(hi, int | np.integer) and hi > 0):
        raise ValueError(f"the worst price must be whole micro-dollars above 0; got {hi!r}")
    paid = np.empty(len(costs), dtype=np.float64)
    for place, cost in enumerate(costs):
        if cost is None:
            paid[place] = unknown
            continue
        if isinstance(cost, bool) or not isinstance(cost, int | np.integer) or cost < 0:
            raise ValueError(
                f"{name}[{place}] must be whole micro-dollars, 0 or more, or None; got {cost!r}"
            )
        if hi is not None and cost > hi:
            raise ValueError(
                f"{name}[{place}] is {cost} micro-dollars, above the worst price {hi}; give the "
                "most that one image can cost with all its attempts"
            )
        paid[place] = cost
    return paid


def _truths(usable: Sequence[bool | None], size: int, *, unknown: bool) -> NDArray[np.float64]:
    if len(usable) != size:
        raise ValueError(f"usable must have one entry a cost, {size}; got {len(usable)}")
    for place, value in enumerate(usable):
        if value is not None and not isinstance(value, bool | np.bool_):
            raise ValueError(f"usable[{place}] must be True, False or None; got {value!r}")
    return np.array([unknown if v is None else bool(v) for v in usable], dtype=np.float64)


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive number; got {value!r}")
