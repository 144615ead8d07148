"""Has the whole failure rate risen: requests without an image, and images with a defect? Pure.

Users feel both. Of all requests one knows which got no image (u), of a sample of the images which
have a defect (d); good is u + (1 - u) d <= limit, that is (1 - u) (1 - d) >= 1 - limit, a convex
set of (u, d). For one alternative (u*, d*) a window of n requests and m judged images has the
e-value

    prod p(z | u*) / p(z | u0)  x  prod p(x | d*) / p(x | d0)

with (u0, d0) the point of the null nearest to (u*, d*) in Kullback-Leibler divergence, weighted by
n and m. As in :mod:`tasks.rollout.canary.two_samples` (Turner, Ly and Grünwald 2024) its
expectation is at most 1 on all of the null. The e-detector around it is that of
:mod:`tasks.rollout.watch.detector`; it counts its promise in requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.verdict.betting import FAIL_RATIOS, FAIL_WEIGHTS, HIGHEST_RATE, Floats, checked_counts

#: Parts of the risen rate that are defects, in the bets.
PARTS = (0.1, 0.5, 0.9)
BETS = len(FAIL_RATIOS) * len(PARTS)
_LOG_WEIGHTS: Floats = np.log(
    np.repeat(FAIL_WEIGHTS, len(PARTS)) / (sum(FAIL_WEIGHTS) * len(PARTS))
)
#: The bet whose cumulative sum says since when the rate is high: twice the limit, half of each.
_TWICE = FAIL_RATIOS.index(2.0) * len(PARTS) + PARTS.index(0.5)
_HALVINGS = 60


def alternatives(limit: float) -> tuple[Floats, Floats]:
    """Return the rates (u*, d*) that are bet on, shape (BETS,) each."""
    rates = np.maximum(np.minimum(np.asarray(FAIL_RATIOS) * limit, HIGHEST_RATE), limit)
    # In logarithms of what survives, parts add up exactly.
    lost = np.repeat(-np.log1p(-rates), len(PARTS))
    part = np.tile(np.asarray(PARTS), len(FAIL_RATIOS))
    return -np.expm1(-lost * (1 - part)), -np.expm1(-lost * part)


def nearest(limit: float, u: Floats, d: Floats, n: float, m: float) -> tuple[Floats, Floats]:
    """Return the points of the null's edge nearest to alternatives, by halving.

    Along the edge, in s = ln(1 - u0), the weighted likelihood is concave: its slope changes sign
    once, between d0 = 0 and u0 = 0.
    """
    edge = math.log1p(-limit)
    low, high = np.full_like(u, edge), np.zeros_like(u)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_HALVINGS):
            s = (low + high) / 2
            a, b = np.exp(s), np.exp(edge - s)
            slope = n * ((1 - u) - u * a / (1 - a)) - m * ((1 - d) - d * b / (1 - b))
            rising = slope > 0
            low, high = np.where(rising, s, low), np.where(rising, high, s)
    s = (low + high) / 2
    return -np.expm1(s), -np.expm1(edge - s)


def log_gains(limit: float, n: float, f: float, m: float, x: float) -> Floats:
    """Return the logarithms of a window's e-values, one a bet, shape (BETS,).

    Args:
        limit: The rate that is still good.
        n: Requests.
        f: Those without an image.
        m: Judged images.
        x: Those with a defect.

    Raises:
        ValueError: Impossible counts.
    """
    checked_counts(n, f)
    checked_counts(m, x)
    u, d = alternatives(limit)
    if n + m == 0:
        return np.zeros(BETS)
    u0, d0 = nearest(limit, u, d, n, m)
    return _ratio(u, u0, n, f) + _ratio(d, d0, m, x)


def _ratio(one: Floats, null: Floats, n: float, bad: float) -> Floats:
    if n == 0:
        return np.zeros_like(one)
    out = (n - bad) * (np.log1p(-one) - np.log1p(-null))
    return out + bad * (np.log(one) - np.log(null)) if bad else out


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts of both: requests, those without an image, judged images, those with a defect."""

    requests: float = 0.0
    failures: float = 0.0
    judged: float = 0.0
    defects: float = 0.0

    def plus(self, n: float, f: float, m: float, x: float) -> Seen:
        """Return the counts with one more window."""
        return Seen(self.requests + n, self.failures + f, self.judged + m, self.defects + x)

    @property
    def rate(self) -> float | None:
        """The whole failure rate, ``None`` while nothing was counted."""
        if not self.requests and not self.judged:
            return None
        u = self.failures / self.requests if self.requests else 0.0
        d = self.defects / self.judged if self.judged else 0.0
        return u + (1 - u) * d


@dataclass(frozen=True, slots=True)
class WholeDetector:
    """The e-detector of the whole failure rate.

    Attributes:
        limit: The rate that is still good.
        run_length: Requests between false alarms, on average at least.
        log_m: log M of each bet; empty before the first window.
        seen: Everything so far.
        rise: What was counted since the rate is high, as far as it is; for people.
        cusum: Page's sum of the rise.
        since: When the rise began, as it was given.
    """

    limit: float
    run_length: float
    log_m: tuple[float, ...] = ()
    seen: Seen = Seen()
    rise: Seen = Seen()
    cusum: float = 0.0
    since: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.limit < 1:
            raise ValueError(f"the limit must be between 0 and 1; got {self.limit!r}")
        if not (math.isfinite(self.run_length) and self.run_length >= 1):
            raise ValueError(f"run_length must be 1 or more requests; got {self.run_length!r}")
        if self.log_m and (len(self.log_m) != BETS or any(math.isnan(x) for x in self.log_m)):
            raise ValueError(f"log_m needs {BETS} numbers; got {self.log_m}")

    def then(self, n: float, f: float, m: float, x: float, at: str = "") -> WholeDetector:
        """Return the detector after one more window.

        Args:
            n: Requests.
            f: Those without an image.
            m: Judged images.
            x: Those with a defect.
            at: When the window began, for people.

        Raises:
            ValueError: Impossible counts.
        """
        gains = log_gains(self.limit, n, f, m, x)
        if n + m == 0:
            return self
        before = np.asarray(self.log_m) if self.log_m else np.full(BETS, -np.inf)
        started = np.logaddexp(before, math.log(n)) if n else before
        cusum = self.cusum + float(gains[_TWICE])
        rises = cusum > 0
        return WholeDetector(
            self.limit,
            self.run_length,
            tuple(float(v) for v in started + gains),
            self.seen.plus(n, f, m, x),
            self.rise.plus(n, f, m, x) if rises else Seen(),
            cusum if rises else 0.0,
            (self.since or at) if rises else "",
        )

    @property
    def evidence(self) -> float:
        """M relative to its threshold, as a logarithm: 0 or more is an alarm."""
        if not self.log_m:
            return -math.inf
        log_m = float(np.logaddexp.reduce(np.asarray(self.log_m) + _LOG_WEIGHTS))
        return log_m - math.log(self.run_length)

    @property
    def alarm(self) -> bool:
        """Tell whether the whole failure rate is above its limit, by the promised run length."""
        return self.evidence >= 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON; :meth:`from_dict` reads it. -inf becomes ``None``."""
        return {
            "limit": self.limit,
            "run_length": self.run_length,
            "log_m": [None if math.isinf(v) else v for v in self.log_m],
            "seen": _plain(self.seen),
            "rise": _plain(self.rise),
            "cusum": self.cusum,
            "since": self.since,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> WholeDetector:
        """Return the detector that :meth:`to_dict` wrote.

        Raises:
            ValueError: It was not, or was damaged.
        """
        try:
            return cls(
                float(value["limit"]),
                float(value["run_length"]),
                tuple(-math.inf if v is None else float(v) for v in value["log_m"]),
                Seen(**value["seen"]),
                Seen(**value["rise"]),
                float(value["cusum"]),
                str(value["since"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no stored detector: {error!r}") from None


def _plain(seen: Seen) -> dict[str, float]:
    return {name: getattr(seen, name) for name in Seen.__dataclass_fields__}
