"""Exact operating characteristics of the failure test, and thresholds lowered to spend all risk.

Everything here is exact: the probability of every count of failures is followed from image to
image (forward dynamic programming), with what crossed a boundary taken out. No simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.betting import Bets, Floats, fail_bets, log_e, pass_bets
from tasks.verdict.sequential import Ints, check_rule, first_pass, last_fail, whole

#: Thresholds are found to this in log E; the rest is left unspent, so no rounding of log E in
#: another place can push an error above its risk.
_TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class Course:
    """What becomes of a test at one true rate.

    Attributes:
        promote: Probability of a PROMOTE at exactly n images, shape (n_max + 1,).
        rollback: Probability of a ROLLBACK at exactly n images, shape (n_max + 1,).
        undecided: Probability of neither by the end.
        mean_images: Mean images drawn; an undecided run draws ``n_max``.
    """

    promote: NDArray[np.float64]
    rollback: NDArray[np.float64]
    undecided: float
    mean_images: float


def course(
    rate: float,
    *,
    limit: float,
    promote_below: float,
    log_pass: float,
    log_fail: float,
    n_max: int,
    looks: Iterable[int] | None = None,
) -> Course:
    """Return the exact course of a test with both boundaries.

    Args:
        rate: The true failure rate.
        limit: Boundary of the FAIL test.
        promote_below: Boundary of the PASS test; below ``limit`` where checks that miss defects
            lowered it. Where both tests decide, it is a ROLLBACK.
        log_pass: log E at which the PASS test decides; infinite for never.
        log_fail: log E at which the FAIL test decides; infinite for never.
        n_max: Images after which the run ends.
        looks: Numbers of images at which one looks; every image by default. The run goes on to
            ``n_max`` after the last look.

    Raises:
        ValueError: A rate, a threshold or a look is out of range.
    """
    check_rule(limit, limit, 0.5, 0.5)
    check_rule(promote_below, promote_below, 0.5, 0.5)
    most = _checked(rate, n_max)
    for name, value in (("log_pass", log_pass), ("log_fail", log_fail)):
        if math.isnan(value):
            raise ValueError(f"{name} must be a number; got {value}")
    times = range(1, most + 1) if looks is None else sorted({whole("look", n) for n in looks})
    if times and not 1 <= times[0] <= times[-1] <= most:
        raise ValueError(f"looks must be 1 to {most} images; got {times[0]} to {times[-1]}")
    needed = _pass_boundary(pass_bets(promote_below), log_pass, most)
    enough = _fail_boundary(fail_bets(limit), log_fail, most)
    # By number of images: the most failures that PROMOTE, the fewest that ROLLBACK.
    images = np.arange(most + 1)
    good = np.searchsorted(needed, images, side="right") - 1
    bad = np.searchsorted(enough, images, side="left")

    promote, rollback = np.zeros(most + 1), np.zeros(most + 1)
    first, alive, before = 0, np.ones(1), 0
    for n in times:
        alive = np.convolve(alive, _binomial(n - before, rate))
        before = n
        top, bottom = int(bad[n]) - first, int(good[n]) + 1 - first
        if top < alive.size:
            top = max(top, 0)
            rollback[n] = alive[top:].sum()
            alive = alive[:top]
        if bottom > 0:
            promote[n] = alive[:bottom].sum()
            alive, first = alive[bottom:], first + bottom
        if not alive.size:
            break
    undecided = float(alive.sum())
    mean = float((images * (promote + rollback)).sum()) + most * undecided
    return Course(promote, rollback, undecided, mean)


@lru_cache(maxsize=256)
def calibrate(
    limit: float, promote_below: float, alpha: float, beta: float, n_max: int
) -> tuple[float, float]:
    """Return the lowest thresholds (log_pass, log_fail) that keep the risks up to ``n_max``.

    With them, looking after every image, the exact probability of a PROMOTE by ``n_max`` at the
    rate ``promote_below`` is the largest one not above ``beta``, and that of a ROLLBACK at the
    rate ``limit`` the largest not above ``alpha``; each is computed without the other boundary.
    Fewer looks, the other boundary, and a rate on the far side of the boundary only lower them.
    The thresholds are never above the anytime ones, 1/beta and 1/alpha.

    Raises:
        ValueError: A threshold, a risk or ``n_max`` makes no sense.
    """
    check_rule(limit, promote_below, alpha, beta)
    most = _checked(limit, n_max)
    log_pass = _lowest(lambda at: pass_error(promote_below, at, most) <= beta, -math.log(beta))
    log_fail = _lowest(lambda at: fail_error(limit, at, most) <= alpha, -math.log(alpha))
    return log_pass, log_fail


def _lowest(safe: Callable[[float], bool], high: float) -> float:
    """Return the lowest safe threshold in (0, high]; ``high`` is safe by Ville's inequality."""
    low = 0.0
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if safe(middle) else (middle, high)
    return high


def pass_error(
    promote_below: float, log_pass: float, images: int, rate: float | None = None
) -> float:
    """Return the exact probability that the PASS test alone decides by ``images`` images.

    Args:
        promote_below: Boundary of the PASS test.
        log_pass: log E at which it decides.
        images: Images by which it decides, looking after every one.
        rate: True failure rate; by default the boundary, where this is the false PROMOTE.
    """
    rate = promote_below if rate is None else rate
    most = _checked(rate, images)
    needed = _pass_boundary(pass_bets(promote_below), log_pass, most)
    # Until f failures are enough nothing happens to the runs with f; at that very image the runs
    # that still have f PROMOTE, and nobody comes to f afterwards. So only those images matter.
    alive, before, error = np.ones(1), 0, 0.0
    for f, n in enumerate(needed):
        # Index 0 is f failures here. Runs beyond the last f that ever decides are lost for good.
        alive = np.convolve(alive, _binomial(int(n) - before, rate))[: needed.size - f]
        error += float(alive[0])
        alive, before = alive[1:], int(n)
    return error


def fail_error(limit: float, log_fail: float, images: int, rate: float | None = None) -> float:
    """Return the exact probability that the FAIL test alone decides by ``images`` images.

    Args:
        limit: Boundary of the FAIL test.
        log_fail: log E at which it decides.
        images: Images by which it decides, looking after every one.
        rate: True failure rate; by default the boundary, where this is the false ROLLBACK.
    """
    rate = limit if rate is None else rate
    most = _checked(rate, images)
    enough = _fail_boundary(fail_bets(limit), log_fail, most)
    # Failures never become fewer: a run crossed by N(f), the last image at which f failures are
    # enough, exactly when it has f there or had crossed before. So only those images matter.
    alive, before, error = np.ones(1), 0, 0.0
    for f, n in enumerate(enough):
        if n < 0:
            continue
        alive = np.convolve(alive, _binomial(int(n) - before, rate))
        error += float(alive[f:].sum())
        alive, before = alive[:f], int(n)
    # The last boundary reaches to the end: f failures are enough whatever the images.
    alive = np.convolve(alive, _binomial(most - before, rate))
    return error + float(alive[enough.size :].sum())


def spent(promote_below: float, images: int, log_pass: float) -> float:
    """Return how much of the risk beta a plan of ``images`` images uses up.

    That is the exact probability of a false PROMOTE, at the boundary rate, by that many images
    with a look after every one. It is not what a run that ended early has used: why it ended
    matters, see :mod:`tasks.verdict.retest`.

    Raises:
        ValueError: A rate or a count is out of range.
    """
    return pass_error(promote_below, log_pass, images) if images else 0.0


def _checked(rate: float, images: int) -> int:
    most = whole("images", images)
    if most < 1:
        raise ValueError(f"images must be 1 or more; got {images}")
    if not 0 <= rate <= 1:
        raise ValueError(f"the failure rate must be 0 to 1; got {rate}")
    return most


def _pass_boundary(bets: Bets, log_pass: float, most: int) -> Ints:
    """Return, for f = 0, 1, ..., the fewest images at which f failures PROMOTE; increasing.

    Ends before the first f for which ``most`` images are not enough.
    """
    low, high = -1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if log_e(bets, most, middle) >= log_pass else (low, middle)
    return first_pass(bets, log_pass, np.arange(high, dtype=np.int64), most)


def _fail_boundary(bets: Bets, log_fail: float, most: int) -> Ints:
    """Return, for f = 0, 1, ..., the most images at which f failures ROLLBACK; not decreasing.

    Ends before the first f that is enough at ``most`` images too; a value below f means never.
    """
    low, high = -1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if log_e(bets, most, middle) >= log_fail else (middle, high)
    found = last_fail(bets, log_fail, np.arange(high, dtype=np.int64), most)
    return np.where(found < np.arange(high), -1, found)


@lru_cache(maxsize=512)
def _binomial(images: int, rate: float) -> Floats:
    """Return the probabilities of 0 to ``images`` failures; only sums and products, so exact."""
    if images == 0:
        return np.ones(1)
    if images == 1:
        return np.array([1 - rate, rate])
    half = _binomial(images // 2, rate)
    whole_ = np.convolve(half, half)
    return np.convolve(whole_, _binomial(1, rate)) if images % 2 else whole_
