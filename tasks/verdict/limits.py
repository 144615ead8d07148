"""The confidence sequence of a failure rate: limits that hold at every look at once.

A limit is where the test of the rate turns: the rates that the tests reject are the ones outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.verdict.betting import (
    FAIL_WEIGHTS,
    PASS_WEIGHTS,
    Floats,
    checked_counts,
    fail_lambdas,
    log_e_at,
    pass_lambdas,
)

_PASS_LOG_WEIGHTS = np.log(np.asarray(PASS_WEIGHTS) / np.sum(PASS_WEIGHTS))
_FAIL_LOG_WEIGHTS = np.log(np.asarray(FAIL_WEIGHTS) / np.sum(FAIL_WEIGHTS))
#: Towards 0 the floats lie ever closer; no rate of interest is below this one.
_TINY = 1e-18


def upper_limit(failures: ArrayLike, images: ArrayLike, beta: float) -> Any:
    """Return the upper end of the confidence sequence for the rate.

    It is the lowest b at which the PASS test has E >= 1/beta, so the true rate is above it at any
    look with probability beta at most. E grows with b (both factors of every bet do), so halving
    finds that end exactly; 1 where no b is rejected.

    Args:
        failures: Failures so far; a number or an array (one entry a slice).
        images: Images so far; broadcasts with ``failures``.
        beta: The risk.

    Returns:
        A float for two numbers, else an array.

    Raises:
        ValueError: Impossible counts or risk.
    """
    n, f = checked_counts(images, failures)
    enough = _evidence(beta)

    def rejected(rates: Floats) -> NDArray[np.bool_]:
        return log_e_at(rates, pass_lambdas(rates), _PASS_LOG_WEIGHTS, n, f) >= enough

    _, upper = _turn(rejected, np.zeros(n.shape), np.ones(n.shape))
    return float(upper) if upper.ndim == 0 else upper


def lower_limit(failures: ArrayLike, images: ArrayLike, alpha: float) -> Any:
    """Return the lower end of the confidence sequence for the rate.

    It is the highest g at which the FAIL test has E >= 1/alpha. Below the observed rate E falls
    with g; above it no bet wins. 0 where no g is rejected: one failure among however many images
    does not exclude a rate near 0.

    Args:
        failures: Failures so far; a number or an array (one entry a slice).
        images: Images so far; broadcasts with ``failures``.
        alpha: The risk.

    Returns:
        A float for two numbers, else an array.

    Raises:
        ValueError: Impossible counts or risk.
    """
    n, f = checked_counts(images, failures)
    enough = _evidence(alpha)

    def kept(rates: Floats) -> NDArray[np.bool_]:
        return log_e_at(rates, fail_lambdas(rates), _FAIL_LOG_WEIGHTS, n, f) < enough

    lower, _ = _turn(kept, np.zeros(n.shape), f / np.maximum(n, 1))
    return float(lower) if lower.ndim == 0 else lower


def _evidence(risk: float) -> float:
    if not 0 < risk < 1:
        raise ValueError(f"the risk must be between 0 and 1; got {risk}")
    return -math.log(risk)


def _turn(
    true_at: Callable[[Floats], NDArray[np.bool_]], low: Floats, high: Floats
) -> tuple[Floats, Floats]:
    """Return neighbouring floats: false at the first or ``low``, true at the other or ``high``.

    ``true_at`` must be false up to some point and true from there on. The ends are not tried.
    """
    while True:
        middle = (low + high) / 2
        open_ = (low < middle) & (middle < high) & (high > _TINY)
        if not open_.any():
            return low, high
        true = true_at(np.where(open_, middle, 0.5))
        low = np.where(open_ & ~true, middle, low)
        high = np.where(open_ & true, middle, high)
