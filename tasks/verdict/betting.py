"""The one engine of the sequential tests: wealth of a mixture of fixed bets against a mean.

    E_n = sum_k w_k prod_t (1 + lambda_k (Z_t - m))

Under the null hypothesis E_n is a supermartingale that starts at 1, so it reaches 1/eps at any
time, however often one looks, with probability eps at most (Ville 1939). Betting against a bounded
mean: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B
2024); the mixture over a grid is their method of mixtures, with a discrete prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Evidence that failures are rarer than b: the rates bet on are (1 - theta) b.
PASS_THETAS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
PASS_WEIGHTS = (4.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0)
#: Evidence that failures are more frequent than g: the rates bet on, as multiples of g.
FAIL_RATIOS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0)
FAIL_WEIGHTS = (1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.5, 1.0, 0.5)
#: No bet on a failure rate beyond this one, so that one good image never takes all wealth.
HIGHEST_RATE = 0.95
#: Shares of the largest safe bet, for any bounded observation that is no indicator.
BOUNDED_THETAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 0.98)

#: A factor below this is a lost bet and counts as 0: it is 0 but for rounding (1 - q/q).
_LOST = 1e-12
#: Values folded at a time; they stay in the cache of the processor.
_CHUNK = 32_768


@dataclass(frozen=True, eq=False)
class Bets:
    """A grid of bets against one null hypothesis about the mean of a bounded observation.

    Attributes:
        lambdas: The stakes, shape (K,): negative ones bet on a lower mean, positive on a higher.
        log_weights: Logarithms of the starting wealth of each, shape (K,); the wealth sums to 1.
        mean: The boundary m of the null hypothesis.
        lo: Smallest possible observation.
        hi: Largest possible observation.
    """

    lambdas: Floats
    log_weights: Floats
    mean: float
    lo: float
    hi: float


def _bets(lambdas: Floats, weights: Sequence[float], mean: float, lo: float, hi: float) -> Bets:
    shares = np.asarray(weights, dtype=np.float64)
    log_weights = np.log(shares / shares.sum())
    lambdas.flags.writeable = log_weights.flags.writeable = False
    return Bets(lambdas, log_weights, mean, lo, hi)


def pass_bets(below: float) -> Bets:
    """Return the bets that failures (indicators 0, 1) are rarer than ``below``.

    The factors are likelihood ratios of the rates (1 - theta) ``below`` against ``below``.

    Raises:
        ValueError: ``below`` is not between 0 and 1.
    """
    if not 0 < below < 1:
        raise ValueError(f"the failure rate to be below must be between 0 and 1; got {below!r}")
    return _bets(pass_lambdas(below), PASS_WEIGHTS, float(below), 0.0, 1.0)


def fail_bets(limit: float) -> Bets:
    """Return the bets that failures (indicators 0, 1) are more frequent than ``limit``.

    The factors are likelihood ratios of the rates ratio x ``limit``, capped at 0.95, against
    ``limit``. A limit of 0.95 or more leaves nothing to bet on: the wealth stays 1.

    Raises:
        ValueError: ``limit`` is not between 0 and 1.
    """
    if not 0 < limit < 1:
        raise ValueError(f"the limit of the failure rate must be between 0 and 1; got {limit!r}")
    return _bets(fail_lambdas(limit), FAIL_WEIGHTS, float(limit), 0.0, 1.0)


def pass_lambdas(below: ArrayLike) -> Floats:
    """Return the stakes of ``pass_bets``, for one boundary or many: shape (..., K)."""
    edge = np.asarray(below, dtype=np.float64)[..., None]
    out: Floats = -np.asarray(PASS_THETAS) / (1 - edge)
    return out


def fail_lambdas(limit: ArrayLike) -> Floats:
    """Return the stakes of ``fail_bets``, for one boundary or many: shape (..., K)."""
    edge = np.asarray(limit, dtype=np.float64)[..., None]
    rates = np.maximum(np.minimum(np.asarray(FAIL_RATIOS) * edge, HIGHEST_RATE), edge)
    out: Floats = (rates - edge) / ((1 - edge) * edge)
    return out


def bounded_pass_bets(mean: float, lo: float, hi: float) -> Bets:
    """Return the bets that the mean of observations in [``lo``, ``hi``] is below ``mean``.

    Raises:
        ValueError: Not ``lo < mean < hi``, or one of them is not finite.
    """
    mean, lo, hi = _checked_range(mean, lo, hi)
    thetas = np.asarray(BOUNDED_THETAS)
    return _bets(-thetas / (hi - mean), np.ones_like(thetas).tolist(), mean, lo, hi)


def bounded_fail_bets(mean: float, lo: float, hi: float) -> Bets:
    """Return the bets that the mean of observations in [``lo``, ``hi``] is above ``mean``.

    Raises:
        ValueError: Not ``lo < mean < hi``, or one of them is not finite.
    """
    mean, lo, hi = _checked_range(mean, lo, hi)
    thetas = np.asarray(BOUNDED_THETAS)
    return _bets(thetas / (mean - lo), np.ones_like(thetas).tolist(), mean, lo, hi)


def _checked_range(mean: float, lo: float, hi: float) -> tuple[float, float, float]:
    if not (np.isfinite([mean, lo, hi]).all() and lo < mean < hi):
        raise ValueError(
            "the boundary mean must lie inside the range of the observations, all finite; "
            f"got mean {mean!r} in [{lo!r}, {hi!r}]"
        )
    return float(mean), float(lo), float(hi)


def log_factors(bets: Bets, values: ArrayLike) -> Floats:
    """Return log(1 + lambda_k (z - m)), shape of ``values`` + (K,); -inf for a lost bet."""
    seen = np.asarray(values, dtype=np.float64)[..., None]
    return _log_gains(bets.lambdas * (seen - bets.mean))


def _log_gains(gains: Floats) -> Floats:
    gains = np.where(gains < _LOST - 1, -1.0, gains)
    with np.errstate(divide="ignore"):
        return np.log1p(gains)


def log_mixture(bets: Bets, log_wealth: Floats) -> Floats:
    """Return log of the mixture for logarithms of wealth by bet, shape (..., K) -> (...)."""
    return _mixed(bets.log_weights, log_wealth)


def _mixed(log_weights: Floats, log_wealth: Floats) -> Floats:
    terms = log_wealth + log_weights
    top = terms.max(axis=-1)
    # With all bets lost the top is -inf, and -inf - -inf would be NaN.
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        out: Floats = safe + np.log(np.exp(terms - safe[..., None]).sum(axis=-1))
    return out


def _times(counts: Floats, logs: Floats) -> Floats:
    """Return counts x logs, with 0 x -inf = 0: a bet not made is not lost."""
    counts = counts[..., None]
    with np.errstate(invalid="ignore"):
        return np.where(counts == 0, 0.0, counts * logs)


def log_e(bets: Bets, images: ArrayLike, failures: ArrayLike) -> Any:
    """Return log E after ``images`` indicators with ``failures`` ones, in any order.

    Args:
        bets: Bets on an indicator: ``pass_bets`` or ``fail_bets``.
        images: Number of observations; a number or an array.
        failures: Failures among them; broadcasts with ``images``.

    Returns:
        A float for two numbers, else an array of the common shape. Never NaN.

    Raises:
        ValueError: A count is not a number or is negative, or there are more failures than images.
    """
    n, f = checked_counts(images, failures)
    out = log_e_at(bets.mean, bets.lambdas, bets.log_weights, n, f)
    return float(out) if out.ndim == 0 else out


def log_e_at(
    mean: ArrayLike, lambdas: Floats, log_weights: Floats, images: Floats, failures: Floats
) -> Floats:
    """Return log E of indicators against one boundary or many.

    Args:
        mean: The boundaries, shape (...).
        lambdas: Stakes for each, shape (..., K).
        log_weights: Logarithms of the starting wealth, shape (K,).
        images: Numbers of observations; broadcast with ``mean``.
        failures: Failures among them.
    """
    edge = np.asarray(mean, dtype=np.float64)[..., None]
    good, bad = _log_gains(lambdas * (0.0 - edge)), _log_gains(lambdas * (1.0 - edge))
    return _mixed(log_weights, _times(images - failures, good) + _times(failures, bad))


def checked_counts(images: ArrayLike, failures: ArrayLike) -> tuple[Floats, Floats]:
    """Return images and failures as float arrays of one shape.

    Raises:
        ValueError: A count is not a number or is negative, or there are more failures than images.
    """
    n = np.asarray(images, dtype=np.float64)
    f = np.asarray(failures, dtype=np.float64)
    n, f = np.broadcast_arrays(n, f)
    wrong = ~((f >= 0) & (f <= n) & np.isfinite(n))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            "failures must be 0 to images, both finite; "
            f"got {f.flat[at]:g} failures of {n.flat[at]:g} images"
        )
    return n, f


def log_e_counts(bets: Bets, values: Sequence[float], counts: Sequence[int]) -> float:
    """Return log E after observations that take few different values (e.g. -1, 0, 1).

    Args:
        bets: The bets.
        values: The different values, each in [lo, hi].
        counts: How often each was observed.

    Raises:
        ValueError: A value outside the range, a negative count, or lists of different lengths.
    """
    seen = checked_values(bets, values)
    times = np.asarray(counts, dtype=np.float64)
    if times.shape != seen.shape:
        raise ValueError(f"{seen.size} values need as many counts; got {times.size}")
    if not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(f"counts must be 0 or more; got {list(counts)}")
    return float(log_mixture(bets, _times(times, log_factors(bets, seen)).sum(axis=0)))


def whole(name: str, value: Any) -> int:
    """Return a count as an int.

    Raises:
        ValueError: It is not a whole number (a fraction, NaN, text).
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a whole number; got {value!r}") from None
    if number != value:
        raise ValueError(f"{name} must be a whole number; got {value!r}")
    return number


def checked_values(bets: Bets, values: ArrayLike) -> Floats:
    """Return the observations as a 1-D array of floats.

    Raises:
        ValueError: One is no number or outside [lo, hi]; the message names the first such.
    """
    try:
        out = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except TypeError as error:
        raise ValueError(f"observations must be numbers: {error}") from None
    if out.ndim != 1:
        raise ValueError(f"observations must be a number or a list; got {out.ndim} dimensions")
    # A NaN makes both comparisons false.
    if out.size and not (out.min() >= bets.lo and out.max() <= bets.hi):
        at = int(np.argmin((out >= bets.lo) & (out <= bets.hi)))
        raise ValueError(
            f"observation {at} is {float(out[at])!r}; "
            f"allowed is {bets.lo:g} to {bets.hi:g}, the range that was promised"
        )
    return out


class Wealth:
    """The wealth of the bets over a stream of observations, in logarithms by bet.

    Factors are multiplied in short blocks and one logarithm is taken of each, which is what makes
    10 million observations fold in under a second; a block is so short that its product neither
    overflows nor vanishes. A bet that lost everything (log wealth -inf) stays lost.
    """

    def __init__(self, bets: Bets) -> None:
        self.bets = bets
        self.n = 0
        self._log = np.zeros_like(bets.lambdas)
        ends = 1 + bets.lambdas * (np.array([[bets.lo], [bets.hi]]) - bets.mean)
        #: Bets that some observation can take everything from.
        self._can_lose = ends.min(axis=0) < _LOST
        logs = np.abs(np.log(ends, where=ends >= _LOST, out=np.full_like(ends, np.log(_LOST))))
        # exp(+-600) is well inside the range of floats.
        self._block = int(min(32, max(1, 600 // max(logs.max(), 1e-9))))

    def update(self, values: ArrayLike) -> None:
        """Fold in observations.

        Args:
            values: One number, or a 1-D array of any length.

        Raises:
            ValueError: One is not finite or outside [lo, hi]; nothing is folded in then.
        """
        seen = checked_values(self.bets, values)
        if seen.size < self._block:
            self._log = self._log + log_factors(self.bets, seen).sum(axis=0)
        else:
            for start in range(0, seen.size, _CHUNK):
                self._log = self._log + self._folded(seen[start : start + _CHUNK])
        self.n += seen.size

    def _folded(self, values: Floats) -> Floats:
        """Return the sums of logarithms of the factors, shape (K,)."""
        whole = values.size // self._block * self._block
        out: Floats = log_factors(self.bets, values[whole:]).sum(axis=0)
        centred = (values[:whole] - self.bets.mean).reshape(self._block, -1)
        factors = np.empty_like(centred)
        for k, stake in enumerate(self.bets.lambdas):
            np.multiply(centred, stake, out=factors)
            factors += 1
            if self._can_lose[k]:
                factors[factors < _LOST] = 0.0
            with np.errstate(divide="ignore"):
                out[k] += np.log(np.multiply.reduce(factors, axis=0)).sum()
        return out

    @property
    def log_e(self) -> float:
        """Logarithm of E; never NaN."""
        return float(log_mixture(self.bets, self._log))
