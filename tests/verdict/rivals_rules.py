"""The rules that the table compares, each as boundaries over the number of failures.

Those of fixed size are sized alike: a build at GOOD is to be promoted, and one at BAD rolled back,
with probability POWER.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.sequential import FailureTest, Mode, fail_bets, log_e, pass_bets

LIMIT, PROMOTE_BELOW = 0.02, 0.03
ALPHA = BETA = 0.05
GOOD, BAD = 0.01, 0.05
POWER = 0.80
CAP = 5000
SHARD = 64
NEVER = np.int16(np.iinfo(np.int16).max)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """What a rule does with the failures among the images at each of its looks.

    Attributes:
        name: Its name in the table.
        looks: After how many images it looks, rising, shape (L,). After the last one it holds.
        promote: Most failures that are a PROMOTE at each look; -1 for none.
        rollback: Fewest failures that are a ROLLBACK at each look; NEVER for none.
    """

    name: str
    looks: Ints
    promote: NDArray[np.int16]
    rollback: NDArray[np.int16]


def every_image(last: int = CAP, first: int = 1) -> Ints:
    """Return looks after each image."""
    return np.arange(first, last + 1)


def every_shard(last: int = CAP) -> Ints:
    """Return looks after each shard, the last one shorter where need be."""
    looks = np.arange(SHARD, last + 1, SHARD)
    return looks if looks[-1] == last else np.append(looks, last)


def ours(mode: Mode, looks: Ints, name: str) -> Rule:
    """Return our rule's boundaries, found by halving: evidence is monotone in the failures."""
    test = FailureTest(LIMIT, PROMOTE_BELOW, ALPHA, BETA, n_max=CAP, mode=mode)
    passing, failing = pass_bets(PROMOTE_BELOW), fail_bets(LIMIT)
    promote = _most(looks, lambda k: log_e(passing, looks, k) >= test.pass_at)
    rollback = _most(looks, lambda k: log_e(failing, looks, k) < test.fail_at) + 1
    return Rule(name, looks, _small(promote), _small(rollback))


def _most(looks: Ints, holds: Callable[[Ints], NDArray[np.bool_]]) -> Ints:
    """Return the most failures, up to all images, for which it holds; -1 when for none."""
    low, high = np.full(len(looks), -1), looks + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        # Neighbours are settled: ask about a possible number and keep what is known.
        open_ = high - low > 1
        yes = holds(np.clip(middle, 0, looks)) & open_
        low, high = np.where(yes, middle, low), np.where(yes | ~open_, high, middle)
    return low


def _small(numbers: Ints) -> NDArray[np.int16]:
    return np.minimum(numbers, NEVER).astype(np.int16)


def clopper_pearson(n: int | None = None) -> Rule:
    """Return exact one-sided bounds at one number of images (Clopper and Pearson 1934).

    Args:
        n: Images; by default the fewest with which a build at GOOD is promoted and one at BAD is
            rolled back with POWER.
    """
    n = fixed_size() if n is None else n
    return clopper_pearson_at(np.array([n]), f"Clopper-Pearson at n = {n}")


def clopper_pearson_at(looks: Ints, name: str) -> Rule:
    """Return the same bounds at every look, as if each were the only one."""
    promote, rollback = _exact_bounds(looks)
    return Rule(name, looks, _small(promote), _small(rollback))


def _exact_bounds(n: Ints) -> tuple[Ints, Ints]:
    """Return most failures with upper bound < b, and fewest with lower bound > g, at each n."""
    from scipy.stats import binom

    promote = binom.ppf(BETA, n, PROMOTE_BELOW).astype(int)
    promote = np.where(binom.cdf(promote, n, PROMOTE_BELOW) < BETA, promote, promote - 1)
    # P(X >= k) < alpha first at k = ppf(1 - alpha) + 1, unless it only just equals alpha.
    rollback = binom.ppf(1 - ALPHA, n, LIMIT).astype(int) + 1
    rollback = np.where(binom.sf(rollback - 1, n, LIMIT) < ALPHA, rollback, rollback + 1)
    return promote, rollback


@lru_cache
def fixed_size() -> int:
    """Return the least n with both powers; they saw, so some n above have less again."""
    from scipy.stats import binom

    n = np.arange(1, CAP + 1)
    promote, rollback = _exact_bounds(n)
    good = binom.cdf(promote, n, GOOD) >= POWER
    bad = binom.sf(rollback - 1, n, BAD) >= POWER
    return int(n[good & bad][0])


def point_estimate(looks: Ints, name: str) -> Rule:
    """Return the rule of thumb: ROLLBACK at any look above 2 %, PROMOTE if the last is not."""
    most = np.floor(LIMIT * looks + 1e-9).astype(int)
    promote = np.full(len(looks), -1)
    promote[-1] = most[-1]
    return Rule(name, looks, _small(promote), _small(most + 1))


def wald(p0: float, p1: float) -> Rule:
    """Return Wald's SPRT of p0 against p1 with his approximate thresholds (Wald 1945)."""
    looks = every_image()
    up = math.log(p1 * (1 - p0) / (p0 * (1 - p1)))  # what a failure adds beyond a success
    drift = looks * math.log((1 - p1) / (1 - p0))
    promote = np.floor((math.log(BETA / (1 - ALPHA)) - drift) / up + 1e-12)
    rollback = np.ceil((math.log((1 - BETA) / ALPHA) - drift) / up - 1e-12)
    name = f"Wald's SPRT, {100 * p0:g} % against {100 * p1:g} %"
    return Rule(name, looks, _small(np.maximum(promote, -1).astype(int)), _small(rollback))


def obrien_fleming(looks: int = 5) -> Rule:
    """Return a group-sequential design: z at look j against C sqrt(looks / j), both ways.

    O'Brien and Fleming 1979; z from the normal approximation at the boundary rate, as in
    Jennison and Turnbull 2000, chapters 2.3 and 12.1. Sized as ``clopper_pearson``, times the
    design's inflation.
    """
    constant = boundary_constant(looks, ALPHA)
    last = math.ceil(fixed_size() * inflation(looks, ALPHA, POWER) / looks) * looks
    n = np.arange(1, looks + 1) * last // looks
    edge = constant * np.sqrt(looks / np.arange(1, looks + 1))
    rollback = np.ceil(n * LIMIT + edge * np.sqrt(n * LIMIT * (1 - LIMIT)))
    below = np.sqrt(n * PROMOTE_BELOW * (1 - PROMOTE_BELOW))
    promote = np.maximum(np.floor(n * PROMOTE_BELOW - edge * below), -1)
    name = f"O'Brien-Fleming, {looks} looks to {last}"
    return Rule(name, n, _small(promote.astype(int)), _small(rollback.astype(int)))


def crossing(constant: float, looks: int, drift: float = 0.0) -> float:
    """Return the probability that a walk of ``looks`` N(drift, 1) steps reaches C sqrt(looks).

    By the recursion of Armitage, McPherson and Rowe 1969 on Gauss-Legendre points.
    """
    edge = constant * math.sqrt(looks)
    nodes, weights = _gauss_legendre(200)
    low = -9.0 * math.sqrt(looks)
    places, weights = (edge - low) / 2 * nodes + (edge + low) / 2, (edge - low) / 2 * weights

    def bell(x: Floats) -> Floats:
        return np.exp(-((x - drift) ** 2) / 2) / math.sqrt(2 * math.pi)

    step = bell(places[:, None] - places[None, :])
    alive = bell(places)
    for _ in range(looks - 1):
        alive = step @ (weights * alive)
    return 1 - float(weights @ alive)


@lru_cache
def _gauss_legendre(points: int) -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(points)


@lru_cache
def boundary_constant(looks: int, alpha: float) -> float:
    """Return O'Brien and Fleming's one-sided C for that many looks."""
    from scipy.optimize import brentq

    return float(brentq(lambda c: crossing(c, looks) - alpha, 0.5, 6, xtol=1e-10))


def inflation(looks: int, alpha: float, power: float) -> float:
    """Return largest sample of the design over the fixed sample of the same power."""
    from scipy.optimize import brentq

    constant = boundary_constant(looks, alpha)
    drift = brentq(lambda d: crossing(constant, looks, d) - power, 0.0, 6, xtol=1e-10)
    normal = NormalDist()
    fixed = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return looks * float(drift) ** 2 / fixed**2


def rules() -> list[Rule]:
    """Return ours and the rivals that are boundaries, in the table's order."""
    n = fixed_size()
    return [
        ours("anytime", every_image(), "imagegate anytime, each image"),
        ours("calibrated", every_image(), "imagegate calibrated, each image"),
        ours("anytime", every_shard(), f"imagegate anytime, shards of {SHARD}"),
        clopper_pearson(),
        point_estimate(np.array([n]), f"over 2 %, one look at {n}"),
        point_estimate(every_shard(n), f"over 2 %, shards of {SHARD} to {n}"),
        point_estimate(every_image(n, 50), f"over 2 %, each image, 50 to {n}"),
        wald(GOOD, PROMOTE_BELOW),
        wald(LIMIT, PROMOTE_BELOW),
        obrien_fleming(),
    ]
