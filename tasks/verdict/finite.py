"""The test of a frozen finite set, whose cases are drawn in random order without replacement.

A stress set is no sample of anything larger: the question is how many of its cases fail. What was
drawn already tells about what is left, so fewer images decide than for an endless stream, and the
whole set decides for sure.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.verdict.betting import (
    FAIL_RATIOS,
    FAIL_WEIGHTS,
    HIGHEST_RATE,
    PASS_THETAS,
    PASS_WEIGHTS,
    Floats,
)
from tasks.verdict.sequential import Decision, Ints, check_rule, whole

#: log E of what is certain, so that it can be written as JSON, which knows no infinity.
CERTAIN = 1e6
#: Rates are compared with numbers of cases; this is for 0.07 x 100 = 7.000000000000001.
_FUZZ = 1e-9


class FiniteTest:
    """Says whether more than ``limit`` of a finite set fails, less than ``promote_below``, or open.

    The evidence is a mixture of likelihood ratios: the probability of what was drawn when M_k
    cases of the set fail, over that when M cases fail, M being the boundary. Drawing without
    replacement, a case fails with probability (M - failures) / (size - images), so each factor is
    a bet with the moving conditional mean (Waudby-Smith and Ramdas, "Confidence sequences for
    sampling without replacement", NeurIPS 2020), and Ville's inequality holds at every look. The
    M_k are the rates of the endless test, rounded to whole cases.

    Args:
        size: Cases of the set; each has one fixed end, failure or not.
        limit: ROLLBACK when more than this share of the set fails; wrong with risk ``alpha``.
        promote_below: PROMOTE when less than this share fails; wrong with risk ``beta``.
        alpha: Risk of a ROLLBACK though the share is at the limit or below.
        beta: Risk of a PROMOTE though the share is at ``promote_below`` or above.

    Raises:
        ValueError: A threshold, a risk or the size makes no sense.
    """

    def __init__(
        self,
        size: int,
        limit: float = 0.02,
        promote_below: float = 0.03,
        alpha: float = 0.05,
        beta: float = 0.05,
    ) -> None:
        check_rule(limit, promote_below, alpha, beta)
        self.size = whole("size", size)
        if self.size < 1:
            raise ValueError(f"a set needs at least one case; got {size}")
        self.limit, self.promote_below = limit, promote_below
        self.alpha, self.beta = alpha, beta
        #: Most failures of a set that is at the limit or below, fewest of one that is not good.
        self.at_limit = math.floor(limit * self.size + _FUZZ)
        self.not_below = math.ceil(promote_below * self.size - _FUZZ)
        self.pass_at, self.fail_at = -math.log(beta), -math.log(alpha)
        self.failures = self.images = 0
        self.decision: Decision | None = None

    def update(self, failures: int, images: int) -> Decision | None:
        """Take in newly drawn cases and look at all that were drawn.

        Args:
            failures: Failures among them.
            images: The newly drawn cases. None are no look.

        Returns:
            ROLLBACK, PROMOTE or ``None`` for not enough evidence; the first decision stays. Once
            the whole set was drawn the share is known, and ``None`` is left only where ``limit``
            and ``promote_below`` are the same and exactly that share fails: it is neither above
            nor below.

        Raises:
            ValueError: Impossible counts, or more cases than the set has; nothing is taken in.
        """
        new_failures, new_images = whole("failures", failures), whole("images", images)
        if not 0 <= new_failures <= new_images:
            raise ValueError(
                f"failures must be 0 to {new_images}, the new images; got {new_failures}"
            )
        if self.images + new_images > self.size:
            raise ValueError(
                f"{self.images + new_images} images are more than the set has, {self.size} cases; "
                "it is drawn without replacement"
            )
        self.failures += new_failures
        self.images += new_images
        if new_images and self.decision is None:
            if self.log_e_fail >= self.fail_at:
                self.decision = "ROLLBACK"
            elif self.log_e_pass >= self.pass_at:
                self.decision = "PROMOTE"
        return self.decision

    @property
    def log_e_pass(self) -> float:
        """Evidence that less than ``promote_below`` of the set fails; a natural logarithm."""
        return float(finite_log_e_pass(self.size, self.not_below, self.images, self.failures))

    @property
    def log_e_fail(self) -> float:
        """Evidence that more than ``limit`` of the set fails; a natural logarithm."""
        return float(finite_log_e_fail(self.size, self.at_limit, self.images, self.failures))

    def interval(self) -> tuple[float, float]:
        """Return limits for the share of the set that fails, valid at every look at once.

        The lower one at confidence 1 - alpha, the upper one at 1 - beta: the ends of the numbers
        of failing cases that the FAIL test, the PASS test, did not reject.
        """
        every = np.arange(self.size + 1)
        high = finite_log_e_pass(self.size, every, self.images, self.failures) < self.pass_at
        low = finite_log_e_fail(self.size, every, self.images, self.failures) < self.fail_at
        # What was drawn is certain, so at least one number is left by each.
        return int(np.argmax(low)) / self.size, int(self.size - np.argmax(high[::-1])) / self.size


def finite_log_e_pass(
    size: int, boundary: ArrayLike, images: ArrayLike, failures: ArrayLike
) -> Any:
    """Return log E against "``boundary`` or more cases of the set fail".

    Args:
        size: Cases of the set.
        boundary: Fewest failing cases under the null hypothesis, 0 to ``size``.
        images: Cases drawn.
        failures: Failures among them. All three broadcast.

    Returns:
        Natural logarithms of the common shape, -1e6 to 1e6: the ends stand for certainty.
    """
    shares = 1 - np.asarray(PASS_THETAS)
    edge = np.asarray(boundary, dtype=np.int64)
    rates = np.minimum(np.rint(edge[..., None] * shares), edge[..., None] - 1)
    n, f = _checked_counts(size, images, failures)
    # So many good ones were drawn that fewer than ``edge`` cases are left to fail.
    certain = n - f > size - edge
    return _log_e(size, edge, rates, PASS_WEIGHTS, n, f, certain)


def finite_log_e_fail(
    size: int, boundary: ArrayLike, images: ArrayLike, failures: ArrayLike
) -> Any:
    """Return log E against "``boundary`` or fewer cases of the set fail".

    Args:
        size: Cases of the set.
        boundary: Most failing cases under the null hypothesis, 0 to ``size``.
        images: Cases drawn.
        failures: Failures among them. All three broadcast.

    Returns:
        Natural logarithms of the common shape, -1e6 to 1e6: the ends stand for certainty.
    """
    edge = np.asarray(boundary, dtype=np.int64)
    bets = np.rint(np.minimum(edge[..., None] * np.asarray(FAIL_RATIOS), HIGHEST_RATE * size))
    bets = np.maximum(bets, edge[..., None] + 1)
    n, f = _checked_counts(size, images, failures)
    return _log_e(size, edge, bets, FAIL_WEIGHTS, n, f, f > edge)


def _checked_counts(size: int, images: ArrayLike, failures: ArrayLike) -> tuple[Ints, Ints]:
    n, f = np.asarray(images, dtype=np.int64), np.asarray(failures, dtype=np.int64)
    if not (np.all(f >= 0) and np.all(f <= n) and np.all(n <= size)):
        raise ValueError(f"counts must be 0 <= failures <= images <= {size}, the cases of the set")
    return n, f


def _log_e(
    size: int,
    edge: Ints,
    bets: Floats,
    weights: tuple[float, ...],
    images: Ints,
    failures: Ints,
    certain: NDArray[np.bool_],
) -> Any:
    """Return the mixture over ``bets``, numbers of failing cases, shape (..., K), against ``edge``.

    The probability of one order of draws is [M]_f [size - M]_s / [size]_n, with falling factorials.
    """
    f, s = failures[..., None], (images - failures)[..., None]
    null = edge[..., None]
    # No set is smaller than empty or fuller than full: such a bet is not made, its wealth stays.
    made = (bets >= 0) & (bets <= size)
    which = np.where(made, bets, 0).astype(np.int64)
    possible = (f <= which) & (s <= size - which) & (f <= null) & (s <= size - null)
    logs = (
        _log_falling(size, which, f)
        + _log_falling(size, size - which, s)
        - _log_falling(size, null, f)
        - _log_falling(size, size - null, s)
    )
    terms = np.where(made, np.where(possible, logs, -CERTAIN), 0.0)
    shares = np.asarray(weights) / sum(weights)
    top = terms.max(axis=-1)
    mixed = top + np.log((shares * np.exp(terms - top[..., None])).sum(axis=-1))
    out = np.where(certain, CERTAIN, np.maximum(mixed, -CERTAIN))
    return float(out) if out.ndim == 0 else out


def _log_falling(size: int, start: Ints, count: Ints) -> Floats:
    """Return log of start x (start - 1) x ..., ``count`` factors; of no meaning beyond start."""
    table = _log_factorials(size)
    left: Floats = table[start] - table[np.maximum(start - count, 0)]
    return left


@lru_cache(maxsize=8)
def _log_factorials(size: int) -> Floats:
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, size + 1)))))
