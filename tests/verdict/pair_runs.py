"""Courses of the comparison with the baseline: exact over the counts, or simulated."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from tasks.verdict.betting import (
    Bets,
    bounded_fail_bets,
    bounded_pass_bets,
    log_factors,
    log_mixture,
)

MARGIN = 0.02
RUNS = 20_000


def joint(baseline: float, candidate: float, correlation: float) -> tuple[float, float, float]:
    """Probabilities of worse, better and both; the correlation is lowered to a feasible one."""
    spread = math.sqrt(baseline * (1 - baseline) * candidate * (1 - candidate))
    both = min(baseline * candidate + correlation * spread, baseline, candidate)
    return candidate - both, baseline - both, both


def cells_log_e(bets: Bets, values: list[float], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log E of counts of the values, shape (..., V) -> (...)."""
    # A bet lost for good is -inf, which a matrix product would turn into NaN where the count is 0.
    return log_mixture(bets, counts @ np.maximum(log_factors(bets, values), -1e9))


def crossings(side: str, eps: float, shape: tuple[int, int], most: int) -> NDArray[np.int64]:
    """By worse and better: the fewest pairs that PASS there, or the most pairs that FAIL there."""
    worse, better = np.indices(shape)
    bets = (bounded_pass_bets if side == "pass" else bounded_fail_bets)(MARGIN, -1, 1)
    low, high = worse + better - 1, np.full(shape, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        pairs = np.maximum(middle, worse + better)
        counts = np.stack([better, pairs - worse - better, worse], axis=-1)
        enough = cells_log_e(bets, [-1.0, 0.0, 1.0], counts) >= -math.log(eps)
        up = enough if side == "pass" else ~enough
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    return high if side == "pass" else low


def exact_course(
    side: str, eps: float, worse: float, better: float, most: int
) -> tuple[float, float]:
    """Probability of a decision within so many pairs, and the mean pairs to it or the end.

    Every pair is a look. The state is the two counts; what leaves the table counts as decided in
    the probability and as never decided in the mean, and is next to nothing.
    """

    def reach(rate: float, pairs: int) -> int:
        return int(rate * pairs + 8 * math.sqrt(rate * pairs) + 12)

    shape = (reach(worse, most) + 2, reach(better, most) + 2)
    edge = crossings(side, eps, shape, most)
    alive = np.zeros(shape)
    alive[0, 0] = 1.0
    decided, mean = 0.0, 0.0
    for n in range(1, most + 1):
        mean += (total := alive.sum())
        if total < 1e-9:
            break
        rows, columns = reach(worse, n) + 1, reach(better, n) + 1
        part = alive[:rows, :columns]
        new = part * (1 - worse - better)
        new[1:] += part[:-1] * worse
        new[:, 1:] += part[:, :-1] * better
        stop = n >= edge[:rows, :columns] if side == "pass" else n <= edge[:rows, :columns]
        new[stop] = 0.0
        decided += total - new.sum()
        alive[:rows, :columns] = new
    return decided, mean


def simulated(
    bets: Bets, values: list[float], odds: list[float], eps: float, most: int, *, runs: int = RUNS
) -> tuple[float, float]:
    """Share of runs decided within so many observations, and the mean observations to that.

    The first value is the quiet one: it moves PASS evidence up and FAIL evidence down, so runs of
    it are leapt over and the look of the crossing is found by halving. Nothing is rounded.
    """
    rng = np.random.default_rng(20_260_914)
    loud = np.array(odds[1:])
    upward = bets.lambdas[0] < 0
    n = np.zeros(runs, np.int64)
    counts = np.zeros((runs, len(values)), np.int64)
    ends: list[NDArray[np.int64]] = []
    while n.size:
        quiet = np.minimum(rng.geometric(loud.sum(), n.size) - 1, most - n)
        if upward:
            after = counts.copy()
            after[:, 0] += quiet
            done = cells_log_e(bets, values, after) >= -math.log(eps)
            low, high, before = np.zeros(done.sum(), np.int64), quiet[done], counts[done]
            while (high - low > 1).any():
                middle = (low + high) // 2
                probe = before.copy()
                probe[:, 0] += middle
                enough = cells_log_e(bets, values, probe) >= -math.log(eps)
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
            ends.append(n[done] + high)
            n, counts, quiet = n[~done], counts[~done], quiet[~done]
        more = n + quiet < most
        n, counts = n[more] + quiet[more] + 1, counts[more]
        counts[:, 0] += quiet[more]
        kind = rng.choice(len(loud), size=n.size, p=loud / loud.sum()) + 1
        counts[np.arange(n.size), kind] += 1
        done = cells_log_e(bets, values, counts) >= -math.log(eps)
        ends.append(n[done])
        n, counts = n[~done], counts[~done]
    found = np.concatenate(ends)
    return found.size / runs, (found.sum() + (runs - found.size) * most) / runs


def kl_inf(values: list[float], odds: list[float], mean: float, hi: float) -> float:
    """Most evidence that a bet on a lower mean can win per observation (Honda, Takemura 2010)."""
    z, p = np.array(values), np.array(odds)
    best = minimize_scalar(
        lambda theta: -(p * np.log1p(-theta * (z - mean) / (hi - mean))).sum(),
        bounds=(0, 1 - 1e-12),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return -float(best.fun)
