"""Has a rate risen above its limit, and since when? A mixture Shiryaev-Roberts e-detector. Pure.

    M_n = L_n (M_{n-1} + 1),  L_n = 1 + lambda (Z_n - m),  M = sum_k w_k M_k

Each M_k adds up the e-processes (:mod:`tasks.verdict.betting`) that started at every image so far,
so a change is found soon whenever it comes. While the mean is at its limit or below, M_n - n is a
supermartingale, so E[images until M >= c] >= c: the average run length between false alarms is the
threshold. Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection" (New England Journal of Statistics in Data Science, 2024); the recursion is Shiryaev's
(1963) and Roberts' (1966).

Live outcomes come as counts of a window whose order nobody knows. A window of n images is folded as
M = L (M + n) with the product L over its images, which no order changes: n starts at the window's
first image instead of one at each. M minus the images seen is a supermartingale still, so the
promise holds in images at any size of windows, as long as no window is cut by what is in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tasks.verdict.betting import (
    FAIL_RATIOS,
    Bets,
    Floats,
    checked_counts,
    fail_bets,
    log_factors,
    log_mixture,
)


def nothing_seen(bets: Bets, shape: tuple[int, ...] = ()) -> Floats:
    """Return log M of each bet before the first image, shape ``shape`` + (K,): M is 0."""
    return np.full((*shape, bets.lambdas.size), -np.inf)


def fold(bets: Bets, log_m: Floats, images: ArrayLike, failures: ArrayLike) -> Floats:
    """Return log M of each bet after one more window, shape (..., K).

    Args:
        bets: ``fail_bets``: bets that a rate is above its limit.
        log_m: log M of each bet before, shape (..., K).
        images: Images of the window, shape (...). A window without images changes nothing.
        failures: Failures among them; may be fractions, see :mod:`tasks.rollout.watch.signals`.

    Raises:
        ValueError: Impossible counts.
    """
    n, f = checked_counts(images, failures)
    good, bad = log_factors(bets, [0.0, 1.0])
    gained = (n - f)[..., None] * good + f[..., None] * bad
    with np.errstate(divide="ignore"):
        started = np.logaddexp(log_m, np.log(n)[..., None])
    out: Floats = np.where(n[..., None] > 0, started + gained, log_m)
    return out


def log_evidence(bets: Bets, log_m: Floats) -> Any:
    """Return log M of the mixture, shape (..., K) -> (...); -inf before the first image."""
    out = log_mixture(bets, log_m)
    return float(out) if out.ndim == 0 else out


def longest_delay(limit: float, rate: float, run_length: float) -> float:
    """Return an upper limit of the mean delay in images until a change to ``rate`` is found.

    M is at least w_k times the e-process of bet k that started at the change. By Wald's equation
    that one takes at most (ln(run_length / w_k) + its largest step) / its mean step images; the
    best bet counts. It holds whatever was before the change, for looks after every image.

    Args:
        limit: The limit of the rate.
        rate: The rate after the change.
        run_length: The threshold: images between false alarms.

    Returns:
        Images; infinite where no bet gains at that rate.
    """
    bets = fail_bets(limit)
    good, bad = log_factors(bets, [0.0, 1.0])
    step = (1 - rate) * good + rate * bad
    needed = math.log(run_length) - bets.log_weights + bad
    with np.errstate(divide="ignore"):
        return float(np.where(step > 0, needed / np.maximum(step, 1e-300), np.inf).min())


#: The bet whose cumulative sum says since when a rate is high: twice the limit.
_TWICE = FAIL_RATIOS.index(2.0)


@dataclass(frozen=True, slots=True)
class Rise:
    """The images since the likeliest moment of a change: the last time that Page's sum was 0.

    For people, who are told a rate and since when; the alarm does not go by it. Page, "Continuous
    inspection schemes" (Biometrika 1954).
    """

    #: Logarithm of the evidence for twice the limit, from the images of the rise.
    cusum: float = 0.0
    images: float = 0.0
    failures: float = 0.0
    #: Start of the window in which it began, as it was given.
    since: str = ""

    def then(self, gain: float, images: float, failures: float, at: str) -> Rise:
        """Return the rise with one more window in it, or none when the window undid it."""
        if self.cusum + gain <= 0:
            return Rise()
        return Rise(
            self.cusum + gain,
            self.images + images,
            self.failures + failures,
            self.since or at,
        )


@dataclass(frozen=True, slots=True)
class Detector:
    """One watched rate: what it was told, and the evidence that it is above its limit now.

    Attributes:
        limit: The rate that is still good.
        run_length: Images between false alarms, on average at least.
        log_m: log M of each bet; empty before the first image.
        images: Images so far.
        failures: Failures among them.
        rise: The images since the rate is high, as far as it is.
    """

    limit: float
    run_length: float
    log_m: tuple[float, ...] = ()
    images: float = 0.0
    failures: float = 0.0
    rise: Rise = Rise()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.run_length) and self.run_length >= 1):
            raise ValueError(f"run_length must be 1 or more images; got {self.run_length!r}")
        if self.log_m and (
            len(self.log_m) != self.bets.lambdas.size or any(math.isnan(x) for x in self.log_m)
        ):
            raise ValueError(f"log_m needs {self.bets.lambdas.size} numbers; got {self.log_m}")

    @property
    def bets(self) -> Bets:
        """The bets that the rate is above the limit."""
        return fail_bets(self.limit)

    def seen(self, images: float, failures: float, at: str = "") -> Detector:
        """Return the detector after one more window of counts.

        Args:
            images: Images of the window.
            failures: Failures among them.
            at: When the window began, for people.

        Raises:
            ValueError: Impossible counts.
        """
        bets = self.bets
        before = np.asarray(self.log_m) if self.log_m else nothing_seen(bets)
        after = fold(bets, before, images, failures)
        good, bad = log_factors(bets, [0.0, 1.0])[:, _TWICE]
        gain = float((images - failures) * good + failures * bad)
        return Detector(
            self.limit,
            self.run_length,
            tuple(float(x) for x in after),
            self.images + images,
            self.failures + failures,
            self.rise.then(gain, images, failures, at),
        )

    @property
    def evidence(self) -> float:
        """M relative to its threshold, as a logarithm: 0 or more is an alarm."""
        if not self.log_m:
            return -math.inf
        return float(log_evidence(self.bets, np.asarray(self.log_m))) - math.log(self.run_length)

    @property
    def alarm(self) -> bool:
        """Tell whether the rate is above its limit, by the promised run length."""
        return self.evidence >= 0

    @property
    def rate(self) -> float | None:
        """The rate over all images, ``None`` before the first."""
        return self.failures / self.images if self.images else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON; :meth:`from_dict` reads it. -inf becomes ``None``."""
        return {
            "limit": self.limit,
            "run_length": self.run_length,
            "log_m": [None if math.isinf(x) else x for x in self.log_m],
            "images": self.images,
            "failures": self.failures,
            "rise": {name: getattr(self.rise, name) for name in Rise.__dataclass_fields__},
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Detector:
        """Return the detector that :meth:`to_dict` wrote.

        Raises:
            ValueError: It was not, or was damaged.
        """
        try:
            log_m = tuple(-math.inf if x is None else float(x) for x in value["log_m"])
            return cls(
                float(value["limit"]),
                float(value["run_length"]),
                log_m,
                float(value["images"]),
                float(value["failures"]),
                Rise(**value["rise"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no stored detector: {error!r}") from None
