"""Tests of a failure rate that may be looked at whenever one likes.

The engine is in ``betting``, the confidence sequence in ``limits``; here are the test of a rate
against two thresholds and the forecast of the images that are still needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.betting import (
    Bets,
    Wealth,
    bounded_fail_bets,
    bounded_pass_bets,
    fail_bets,
    log_e,
    log_e_counts,
    pass_bets,
    whole,
)
from tasks.verdict.limits import lower_limit, upper_limit

__all__ = [
    "Bets",
    "Decision",
    "FailureTest",
    "Mode",
    "Wealth",
    "bounded_fail_bets",
    "bounded_pass_bets",
    "check_rule",
    "fail_bets",
    "first_pass",
    "images_needed",
    "last_fail",
    "log_e",
    "log_e_counts",
    "lower_limit",
    "pass_bets",
    "upper_limit",
    "whole",
]

Decision = Literal["PROMOTE", "ROLLBACK"]
Mode = Literal["anytime", "calibrated"]
Ints = NDArray[np.int64]

#: Up to so many failures a test looks its decision up instead of working the evidence out.
TABULATED = 4096
#: A forecast beyond this many images is none: nobody draws them for one gate.
FORESEEABLE = 1_000_000


class FailureTest:
    """Says whether a failure rate is above ``limit``, below ``promote_below``, or neither yet.

    Two e-processes run beside each other (``betting``): one against "the rate is ``limit`` or
    less", one against "the rate is ``promote_below`` or more". The first that reaches its
    threshold decides, and the decision stays.

    Mode ``anytime`` compares with 1/alpha and 1/beta: the risks hold at any number of looks and
    images, also beyond ``n_max``, which is a plan only (Ville's inequality). Mode ``calibrated``
    uses the lower thresholds whose exact risk, looking after every image up to ``n_max``, is the
    promised one: fewer images on average, and beyond ``n_max`` nothing is decided any more.

    Args:
        limit: ROLLBACK when the rate is above this; wrong with risk ``alpha`` at most.
        promote_below: PROMOTE when the rate is below this; wrong with risk ``beta`` at most.
        alpha: Risk of a ROLLBACK though the true rate is at the limit or below.
        beta: Risk of a PROMOTE though the true rate is at ``promote_below`` or above.
        n_max: Most images that the plan foresees.
        mode: ``anytime`` or ``calibrated``.

    Raises:
        ValueError: A threshold or a risk makes no sense.
    """

    def __init__(
        self,
        limit: float = 0.02,
        promote_below: float = 0.03,
        alpha: float = 0.05,
        beta: float = 0.05,
        n_max: int = 5000,
        mode: Mode = "anytime",
    ) -> None:
        check_rule(limit, promote_below, alpha, beta)
        self.n_max = whole("n_max", n_max)
        if self.n_max < 1:
            raise ValueError(f"n_max must be 1 or more; got {n_max}")
        if mode not in ("anytime", "calibrated"):
            raise ValueError(f"mode {mode!r} is unknown (known: anytime, calibrated)")
        self.limit, self.promote_below = limit, promote_below
        self.alpha, self.beta = alpha, beta
        self.mode: Mode = mode
        self.failures = self.images = 0
        self.decision: Decision | None = None
        self._pass, self._fail = pass_bets(promote_below), fail_bets(limit)
        self.pass_at, self.fail_at = -math.log(beta), -math.log(alpha)
        if mode == "calibrated":
            from tasks.verdict.calibration import calibrate

            self.pass_at, self.fail_at = calibrate(limit, promote_below, alpha, beta, self.n_max)

    def update(self, failures: int, images: int) -> Decision | None:
        """Take in new images and look at all of them.

        Args:
            failures: Failures among the new images.
            images: The new images. No images are no look.

        Returns:
            ROLLBACK, PROMOTE or ``None`` for not enough evidence; the first decision stays
            whatever comes later. Where one look gives both, it is a ROLLBACK.

        Raises:
            ValueError: Impossible counts; nothing is taken in then.
        """
        new_failures, new_images = whole("failures", failures), whole("images", images)
        if not 0 <= new_failures <= new_images:
            raise ValueError(
                f"failures must be 0 to {new_images}, the new images; got {new_failures}"
            )
        self.failures += new_failures
        self.images += new_images
        if new_images and self.decision is None and not self._over:
            if self._fails():
                self.decision = "ROLLBACK"
            elif self._passes():
                self.decision = "PROMOTE"
        return self.decision

    def _fails(self) -> bool:
        if self.failures < TABULATED and self.images < FORESEEABLE:
            return self.images <= _turns(_fail_turns, self._fail_key, self.failures)
        return self.log_e_fail >= self.fail_at

    def _passes(self) -> bool:
        if self.failures < TABULATED and self.images < FORESEEABLE:
            return self.images >= _turns(_pass_turns, self._pass_key, self.failures)
        return self.log_e_pass >= self.pass_at

    @property
    def _fail_key(self) -> tuple[float, float]:
        return self.limit, self.fail_at

    @property
    def _pass_key(self) -> tuple[float, float]:
        return self.promote_below, self.pass_at

    @property
    def _over(self) -> bool:
        return self.mode == "calibrated" and self.images > self.n_max

    @property
    def log_e_pass(self) -> float:
        """Evidence that the rate is below ``promote_below``, as a natural logarithm."""
        return float(log_e(self._pass, self.images, self.failures))

    @property
    def log_e_fail(self) -> float:
        """Evidence that the rate is above ``limit``, as a natural logarithm."""
        return float(log_e(self._fail, self.images, self.failures))

    def interval(self) -> tuple[float, float]:
        """Return the lower limit at confidence 1 - alpha and the upper limit at 1 - beta.

        Both hold at every look at once (a confidence sequence), in either mode.
        """
        return (
            float(lower_limit(self.failures, self.images, self.alpha)),
            float(upper_limit(self.failures, self.images, self.beta)),
        )


def check_rule(limit: float, promote_below: float, alpha: float, beta: float) -> None:
    """Raise ``ValueError`` unless thresholds and risks make sense."""
    if not 0 < limit <= promote_below < 1:
        raise ValueError(
            "thresholds must satisfy 0 < limit <= promote_below < 1; "
            f"got limit {limit} and promote_below {promote_below}"
        )
    if not (0 < alpha < 1 and 0 < beta < 1):
        raise ValueError(f"risks must be between 0 and 1; got alpha {alpha} and beta {beta}")


def first_pass(bets: Bets, log_threshold: float, failures: Ints, most: int) -> Ints:
    """Return, by number of failures, the fewest images at which the PASS evidence is enough.

    With the failures fixed the evidence grows with the images, so at more images it is enough too.

    Args:
        bets: ``pass_bets``.
        log_threshold: Evidence that is enough.
        failures: Numbers of failures, shape (F,), each ``most`` at most.
        most: Most images considered.

    Returns:
        Numbers of images, shape (F,); ``most + 1`` where ``most`` are not enough.
    """
    low, high = failures - 1, np.full_like(failures, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = log_e(bets, np.maximum(middle, failures), failures) >= log_threshold
        enough |= middle >= high
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def last_fail(bets: Bets, log_threshold: float, failures: Ints, most: int) -> Ints:
    """Return, by number of failures, the most images at which the FAIL evidence is enough.

    With the failures fixed the evidence falls with the images, so at fewer images it is enough too.

    Args:
        bets: ``fail_bets``.
        log_threshold: Evidence that is enough.
        failures: Numbers of failures, shape (F,), each ``most`` at most.
        most: Most images considered.

    Returns:
        Numbers of images, shape (F,); ``failures - 1`` where that many failures are never enough.
    """
    low, high = failures - 1, np.full_like(failures, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = log_e(bets, np.maximum(middle, failures), failures) >= log_threshold
        enough &= middle > low
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return low


def images_needed(
    failures: int,
    images: int,
    *,
    below: float,
    log_threshold: float,
    rate: float | None = None,
) -> int | None:
    """Return how many more images would prove a rate below ``below``, at the rate shown.

    Of k more images as many are taken to fail as the rate says, rounded: the first failure comes
    after half the images that give one on average.

    Args:
        failures: Failures so far.
        images: Images so far.
        below: The rate to be below.
        log_threshold: Evidence that is the proof.
        rate: Rate of the images to come. By default the observed one, shrunk towards half of
            ``below`` as if 1/``below`` more images had been seen with half a failure:
            (failures + 1/2) / (images + 1/below).

    Returns:
        0 when the proof is there, ``None`` when it never comes at that rate (or takes more than
        a million images).

    Raises:
        ValueError: Impossible counts, rates or threshold.
    """
    bets = pass_bets(below)
    failures, images = whole("failures", failures), whole("images", images)
    if rate is None:
        rate = (failures + 0.5) / (images + 1 / below)
    if not 0 <= rate <= 1 or math.isnan(log_threshold):
        raise ValueError(f"rate must be 0 to 1; got {rate}, evidence {log_threshold}")
    if log_e(bets, images, failures) >= log_threshold:
        return 0
    if rate > 0 and not _grows(bets, rate):
        return None
    most = images + FORESEEABLE
    # The highest numbers of failures that a foreseeable run can have, in growing pieces.
    start, size, last = 0, 64, math.ceil(rate * FORESEEABLE)
    while start <= last:
        more = np.arange(start, start + size, dtype=np.int64)
        if failures + int(more[-1]) > most:
            more = more[more <= most - failures]
        needed = first_pass(bets, log_threshold, failures + more, most) - images
        fits = (needed <= FORESEEABLE) & (rate * needed < more + 0.5)
        if fits.any():
            return int(needed[np.argmax(fits)])
        if more.size < size or (needed > FORESEEABLE).all():
            return None
        start, size = start + size, size * 2
    return None


def _grows(bets: Bets, rate: float) -> bool:
    """Tell whether any bet grows in the long run when failures come at this rate."""
    good = np.log1p(-bets.lambdas * bets.mean)
    with np.errstate(divide="ignore"):
        bad = np.log1p(bets.lambdas * (1 - bets.mean))
    return bool(np.max((1 - rate) * good + rate * bad) > 0)


def _turns(table: Callable[[float, float, int], Ints], key: tuple[float, float], at: int) -> int:
    """Return the entry of a table that grows by doubling, so that short runs pay for short ones."""
    size = 64
    while size <= at:
        size *= 2
    return int(table(*key, size)[at])


@lru_cache(maxsize=64)
def _pass_turns(below: float, log_threshold: float, size: int) -> Ints:
    """Return the fewest images that PASS, by failures from 0 to ``size`` - 1."""
    return first_pass(pass_bets(below), log_threshold, np.arange(size, dtype=np.int64), FORESEEABLE)


@lru_cache(maxsize=64)
def _fail_turns(limit: float, log_threshold: float, size: int) -> Ints:
    """Return the most images that FAIL, by failures from 0 to ``size`` - 1."""
    return last_fail(fail_bets(limit), log_threshold, np.arange(size, dtype=np.int64), FORESEEABLE)
