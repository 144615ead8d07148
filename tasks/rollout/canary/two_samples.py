"""Evidence that the candidate's rate is above what the baseline's allows, in the same windows.

The null hypothesis is: in every window, candidate <= ratio x baseline + margin, whatever the two
rates are and however they move from window to window. An incident that hits both arms is no
evidence against the candidate.

For one alternative (b*, c*) a window of n_c and n_b images has the e-value

    prod_candidate p(z | c*) / p(z | c0)  x  prod_baseline p(z | b*) / p(z | b0)

where (b0, c0) is the point of the null nearest to (b*, c*) in Kullback-Leibler divergence, weighted
by n_b and n_c: the reverse information projection, after Turner, Ly and Grünwald, "Generic
E-variables for exact sequential k-sample tests that allow for optional stopping" (2024). Its
expectation is E_c(c)^n_c E_b(b)^n_b with E linear in the rates, so its logarithm is concave over
the null, which is convex, is 0 at (b0, c0), and by the choice of that point has no direction in
which it grows: at most 1 on all of the null. By the inequality of the means the same holds when
rates move within a window, as long as their averages keep the null.

For amounts in [0, hi] (costs) z / hi stands for an indicator: the factors are linear in z and
their logarithm is concave, so with the sum alone known, as many images at hi as the sum needs and
the others at 0 give the least product there can be: a valid, cautious bound.

b* is the baseline's rate as earlier windows showed it; the c* are a mixture over a fixed grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.betting import FAIL_RATIOS, FAIL_WEIGHTS, HIGHEST_RATE

Floats = NDArray[np.float64]

#: Bets of the mixture.
GRID = len(FAIL_RATIOS)
LOG_WEIGHTS: Floats = np.log(np.asarray(FAIL_WEIGHTS) / np.sum(FAIL_WEIGHTS))
_HALVINGS = 60
#: No rate is taken for lower, none for higher.
_LEAST, _MOST = 1e-6, 1 - 1e-6


@dataclass(frozen=True, slots=True)
class Side:
    """Images of one arm in a window, and those of them that are bad; may be fractions.

    Raises:
        ValueError: A number that is negative or none, or more bad images than images.
    """

    images: float
    bad: float

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.images < np.inf:
            raise ValueError(
                f"bad images must be 0 to images, both finite; got {self.bad} of {self.images}"
            )


def log_gains(
    candidate: Side, baseline: Side, *, expected: float, ratio: float = 1.0, margin: float = 0.0
) -> Floats:
    """Return the logarithms of a window's e-values, one for each bet, shape (``GRID``,).

    Args:
        candidate: The candidate's images.
        baseline: The baseline's images in the same window.
        expected: The baseline's rate as known before the window; see :func:`expected_rate`.
        ratio: The null is candidate <= ratio x baseline + margin.
        margin: See ``ratio``.

    Returns:
        Zeros where one of the arms has no image: nothing can be compared.

    Raises:
        ValueError: A ratio below 1, a margin below 0, or an expectation that is no rate.
    """
    if not (0 < expected < 1 and ratio >= 1 and 0 <= margin < 1):
        raise ValueError(
            "a comparison needs 0 < expected < 1, ratio >= 1 and 0 <= margin < 1; got "
            f"{expected}, {ratio} and {margin}"
        )
    n_c, n_b = candidate.images, baseline.images
    if n_c == 0 or n_b == 0:
        return np.zeros(GRID)
    b_bet = min(max(expected, _LEAST), _MOST)
    edge = min(ratio * b_bet + margin, HIGHEST_RATE)
    c_bet = np.minimum(np.asarray(FAIL_RATIOS) * edge, HIGHEST_RATE)
    # A bet that does not lie outside the null is none.
    open_ = c_bet > ratio * b_bet + margin + 1e-12
    b_null = _projected(np.where(open_, c_bet, HIGHEST_RATE), b_bet, n_c, n_b, ratio, margin)
    c_null = np.clip(ratio * b_null + margin, _LEAST, _MOST)
    out = (
        candidate.bad * np.log(c_bet / c_null)
        + (n_c - candidate.bad) * np.log((1 - c_bet) / (1 - c_null))
        + baseline.bad * np.log(b_bet / b_null)
        + (n_b - baseline.bad) * np.log((1 - b_bet) / (1 - b_null))
    )
    return np.where(open_, out, 0.0)


def _projected(
    c_bet: Floats, b_bet: float, n_c: float, n_b: float, ratio: float, margin: float
) -> Floats:
    """Return the baseline's rate of the null's point nearest to each bet, by halving.

    It lies on the null's edge c = ratio b + margin, between b* and where the edge reaches c*; the
    divergence is convex along the edge, so its slope changes its sign once.
    """
    low = np.full_like(c_bet, b_bet)
    high = np.clip((c_bet - margin) / ratio, b_bet, _MOST)
    for _ in range(_HALVINGS):
        b = (low + high) / 2
        c = np.clip(ratio * b + margin, _LEAST, _MOST)
        slope = n_c * ratio * (c - c_bet) / (c * (1 - c)) + n_b * (b - b_bet) / (b * (1 - b))
        rising = slope > 0
        high, low = np.where(rising, b, high), np.where(rising, low, b)
    return (low + high) / 2


def expected_rate(seen: Side, prior: float) -> float:
    """Return the baseline's rate to bet on, from what earlier windows showed.

    Args:
        seen: The baseline's images before the window.
        prior: Rate that is expected without any, weighing as much as 100 images.
    """
    rate = (seen.bad + 100 * prior) / (seen.images + 100)
    return min(max(rate, _LEAST), _MOST)
