"""What Kayenta's default judge says about two series of failure shares, for many runs at once.

Built after reading the public source of spinnaker/kayenta (``NetflixACAJudge``,
``MannWhitneyClassifier``, ``MannWhitney``, ``BrentSolver``), in our own words. For one metric:

- HIGH when the lower end of the 98 % Mann-Whitney interval for the shift candidate - baseline is
  above ``tolerance * |estimated shift|`` (tolerance 0.25) and the candidate's mean is at least the
  baseline's (not asked when a mean is 0). Two series of the same values pass.
- The ends and the estimate are where the continuity-corrected z, as a function of the shift, meets
  +-2.326 and 0; Kayenta finds them by Brent's method to 1e-4, and so do we, step by step: on
  counts z is a staircase, so where the search stops can decide. (Compared once with Kayenta's own
  solver on 8,000 such roots: the same to the last bit.)
- One metric scores 100 when it passes and 0 when it is HIGH, so 95 (pass) and 75 (marginal) never
  come into play: HIGH fails the canary.

Our choice, as Kayenta judges time series and not images: a point is the share of failures among 64
images (one shard), the metric's direction is ``increase`` (its default, ``either``, would also fail
a better build), and one judgement looks at 50 points, the least that its documentation asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.98
TOLERANCE = 0.25
ALLOWED_INCREASE = 1.0
POINTS = 50
POINT_IMAGES = 64
ROOT_TOLERANCE = 1e-4

Floats = NDArray[np.float64]


class Staircase:
    """The z of the Mann-Whitney test as a function of the shift, for each run.

    Counts of failures make it a step function: one value at each whole number of failures that
    the series is shifted by and one between each two, so all of them are worked out beforehand.
    """

    def __init__(self, candidate: NDArray[np.int64], baseline: NDArray[np.int64], size: int):
        """Take counts of failures, shape (runs, points) each, out of ``size`` images a point."""
        self.size = size
        self.runs, n = candidate.shape
        m = baseline.shape[1]
        self.most = most = max(int(candidate.max()), int(baseline.max()), 1)
        x = _histogram(candidate, most)
        y = _histogram(baseline, most)
        equal = np.empty((self.runs, 2 * most + 1))
        ties = np.empty_like(equal)
        own = _cubes(x).sum(1)
        for shift in range(-most, most + 1):
            moved = np.zeros_like(x)
            if shift >= 0:
                moved[:, : most + 1 - shift] = x[:, shift:]
            else:
                moved[:, -shift:] = x[:, : most + 1 + shift]
            outside = own - _cubes(moved).sum(1)
            equal[:, shift + most] = (moved * y).sum(1)
            ties[:, shift + most] = _cubes(moved + y).sum(1) + outside
        above = equal[:, ::-1].cumsum(1)[:, ::-1] - equal
        apart = own + _cubes(y).sum(1)
        self.z = np.empty((self.runs, 4 * most + 2))
        self.z[:, 0::2] = _z(above + equal / 2, ties, n, m)
        self.z[:, 1::2] = _z(above, apart[:, None], n, m)
        self.lowest = (candidate.min(1) - baseline.max(1)) / size
        self.highest = (candidate.max(1) - baseline.min(1)) / size

    def at(self, shift: Floats) -> Floats:
        """Return z of each run at a shift in shares, shape (runs,)."""
        steps = shift * self.size
        whole = np.floor(steps)
        place = 2 * (whole.astype(np.int64) + self.most) + (steps != whole)
        return self.z[np.arange(self.runs), place]

    def root(self, quantile: float) -> Floats:
        """Return the shift where z meets ``quantile``, or the end of the range beyond it."""
        first, last = self.at(self.lowest) - quantile, self.at(self.highest) - quantile
        found = brent(lambda shift: self.at(shift) - quantile, self.lowest, self.highest)
        return np.where(first <= 0, self.lowest, np.where(last >= 0, self.highest, found))


def _histogram(counts: NDArray[np.int64], most: int) -> Floats:
    runs = counts.shape[0]
    flat = (counts + (most + 1) * np.arange(runs)[:, None]).ravel()
    return np.bincount(flat, minlength=runs * (most + 1)).reshape(runs, most + 1).astype(float)


def _cubes(ties: Floats) -> Floats:
    return (ties * ties - 1) * ties  # ten times as fast as a power


def _z(wins: Floats, ties: Floats, n: int, m: int) -> Floats:
    """Mann-Whitney's z with the corrections for ties and for continuity."""
    off = wins - n * m / 2
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    spread = np.sqrt(np.maximum(variance, 0))
    # All values tied: Kayenta's metric ends in an error, and errors do not lower the score.
    return np.divide(off - np.sign(off) / 2, spread, out=np.zeros_like(off), where=spread > 0)


def brent(function: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Find a root of each run's function by Brent's method (Brent 1973, chapter 4, ``zero``)."""
    a, b = low.copy(), high.copy()
    fa, fb = function(a), function(b)
    c, fc = a.copy(), fa.copy()
    done = fa == 0
    answer = np.where(done, a, b)
    for _ in range(200):
        before = b - a
        swap = np.abs(fc) < np.abs(fb)
        a, b, c = np.where(swap, b, a), np.where(swap, c, b), np.where(swap, b, c)
        fa, fb, fc = np.where(swap, fb, fa), np.where(swap, fc, fb), np.where(swap, fb, fc)
        near = 2 * np.finfo(float).eps * np.abs(b) + ROOT_TOLERANCE / 2
        step = (c - b) / 2
        ends = ~done & ((np.abs(step) <= near) | (fb == 0))
        answer[ends] = b[ends]
        done |= ends
        if done.all():
            break
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            secant = a == c
            s, t, u = fb / fa, fa / fc, fb / fc
            p = np.where(secant, (c - b) * s, s * ((c - b) * t * (t - u) - (b - a) * (u - 1)))
            q = np.where(secant, 1 - s, (t - 1) * (u - 1) * (s - 1))
            q = np.where(p > 0, -q, q)
            p = np.abs(p)
            fits = (
                (np.abs(before) >= near)
                & (np.abs(fa) > np.abs(fb))
                & (p < 0.75 * (c - b) * q - np.abs(near * q) / 2)
                & (p < np.abs(before * q / 2))
            )
            step = np.where(fits, p / q, step)
        step = np.where(np.abs(step) < near, np.where(step > 0, near, -near), step)
        step = np.where(done, 0.0, step)
        a, fa = b, fb
        b = b + step
        fb = function(b)
        same = ((fb > 0) & (fc > 0)) | ((fb < 0) & (fc < 0))
        c, fc = np.where(same, a, c), np.where(same, fa, fc)
    return answer


def fails(
    candidate: NDArray[np.int64], baseline: NDArray[np.int64], size: int = POINT_IMAGES
) -> NDArray[np.bool_]:
    """Return for each run whether the judge fails the candidate.

    Args:
        candidate: Failures of each point, shape (runs, points).
        baseline: The same of the baseline.
        size: Images a point.
    """
    stairs = Staircase(candidate, baseline, size)
    quantile = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    lower = stairs.root(quantile)
    estimate = stairs.root(0.0)
    mine, theirs = candidate.mean(1), baseline.mean(1)
    no_ratio = (mine == 0) | (theirs == 0)
    higher = no_ratio | (mine >= ALLOWED_INCREASE * theirs)
    alike = (np.sort(candidate, 1) == np.sort(baseline, 1)).all(1)
    return (lower > TOLERANCE * np.abs(estimate)) & higher & ~alike
