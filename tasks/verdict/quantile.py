"""Percentiles of latency, looked at as often as one likes, against a limit and the baseline.

"The 95th percentile is at most T" says that at most 5 % of the images take longer than T. So a
latency test is the failure test on the indicator X > T with the limit 1 - p, and a percentile's
confidence sequence is that test inverted over the order statistics (Howard and Ramdas, Bernoulli
28, 2022, do it with other bounds). An image that was never delivered took longer than any T where
a proof for the candidate is asked for, and not longer where one against it is.

Percentiles are in percent, from 50 to below 100; latencies and limits in seconds, or any one unit.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.sequential import fail_bets, log_e, pass_bets


def pass_evidence_latency(
    latencies: Sequence[float | None], limit_s: float, percentile: float = 95
) -> float:
    """Return the log evidence that the percentile is at most the limit.

    Its null is P(X > limit) >= 1 - p; an undelivered image counts as above the limit.

    Args:
        latencies: One an image, ``None`` or NaN where it was never delivered.
        limit_s: The limit; an image that takes exactly that long keeps it.
        percentile: Of the latency, in percent.

    Raises:
        ValueError: Negative or infinite latencies, a limit that is not positive, a percentile that
            is none.
    """
    images, above = _exceeding(_known(latencies), limit_s, undelivered_above=True)
    return float(log_e(pass_bets(_tail(percentile)), images, above))


def fail_evidence_latency(
    latencies: Sequence[float | None], limit_s: float, percentile: float = 95
) -> float:
    """Return the log evidence that the percentile is above the limit.

    Its null is P(X > limit) <= 1 - p; an undelivered image counts as not above the limit: that
    it is missing is for the failure rate to judge. Args and errors as
    :func:`pass_evidence_latency`.
    """
    images, above = _exceeding(_known(latencies), limit_s, undelivered_above=False)
    return float(log_e(fail_bets(_tail(percentile)), images, above))


def latency_interval(
    latencies: Sequence[float | None],
    percentile: float = 95,
    *,
    alpha: float = 0.05,
    beta: float = 0.05,
) -> tuple[float, float]:
    """Return a confidence sequence of a percentile, for display.

    Both ends hold at every look at once: the lower is above the true percentile with risk
    ``alpha`` at most, the upper below it with risk ``beta``. Each is the edge of the limits that
    the FAIL and the PASS test reject, so it agrees with them.

    Returns:
        The ends in the unit of the latencies; 0 and infinity where nothing is proven yet.

    Raises:
        ValueError: As the tests, or a risk that is none.
    """
    known = _known(latencies)
    return _lower(known, percentile, alpha), _upper(known, percentile, beta)


@dataclass(frozen=True)
class LatencyEvidence:
    """Comparison of a percentile with the baseline's; logarithms are natural ones."""

    #: Evidence, and what it must reach: half of the risk is spent on the bound of the baseline.
    log_e_pass: float
    pass_at: float
    log_e_fail: float
    fail_at: float
    #: What the candidate was compared with: ``ratio`` times a bound of the baseline's percentile.
    #: Infinite or 0 while the baseline has too few images for a bound; nothing is proven then.
    pass_limit_s: float
    fail_limit_s: float


def latency_against_baseline(
    candidate: Sequence[float | None],
    baseline: Sequence[float | None],
    *,
    ratio: float,
    percentile: float = 95,
    alpha: float = 0.05,
    beta: float = 0.05,
) -> LatencyEvidence:
    """Return the evidence on "the candidate's percentile is at most ratio times the baseline's".

    One half of each risk bounds the baseline's percentile, from above for FAIL and from below for
    PASS; the other half tests the candidate against ratio times the bound. The bound may move from
    look to look: while it is on the right side of the true percentile, the candidate has no more
    evidence against the moved limit than against the true one (evidence is monotone in the limit),
    so the halves add up to the risk, whatever binds the two arms to each other.

    Args:
        candidate: Latencies, ``None`` or NaN where the image was never delivered.
        baseline: The same; the number of images may differ.
        ratio: What the candidate's percentile may be, in baseline's ones.
        percentile: In percent.
        alpha: Whole risk of the evidence against the candidate.
        beta: Whole risk of the evidence for it.

    Raises:
        ValueError: As the tests, or a ratio that is not positive.
    """
    if not (ratio > 0 and math.isfinite(ratio)):
        raise ValueError(f"ratio must be a positive number; got {ratio}")
    _risk(alpha)
    _risk(beta)
    theirs, ours, tail = _known(baseline), _known(candidate), _tail(percentile)
    fastest = ratio * _lower(theirs, percentile, beta / 2)
    slowest = ratio * _upper(theirs, percentile, alpha / 2)
    log_e_pass = log_e_fail = 0.0
    if fastest > 0:
        log_e_pass = float(
            log_e(pass_bets(tail), *_exceeding(ours, fastest, undelivered_above=True))
        )
    if math.isfinite(slowest) and slowest > 0:
        log_e_fail = float(
            log_e(fail_bets(tail), *_exceeding(ours, slowest, undelivered_above=False))
        )
    return LatencyEvidence(
        log_e_pass, -math.log(beta / 2), log_e_fail, -math.log(alpha / 2), fastest, slowest
    )


def _lower(known: NDArray[np.float64], percentile: float, risk: float) -> float:
    """Return the time-uniform lower bound: the largest latency that enough images exceed.

    Enough is the fewest images k with E_fail(n, k) >= 1/risk, so the bound is the k-th largest
    latency. Undelivered images exceed nothing here.
    """
    _risk(risk)
    bets, n = fail_bets(_tail(percentile)), known.size
    few, enough = -1, n + 1
    while enough - few > 1:
        middle = (few + enough) // 2
        if middle <= n and float(log_e(bets, n, middle)) >= -math.log(risk):
            enough = middle
        else:
            few = middle
    delivered = np.sort(known[~np.isnan(known)])
    return float(delivered[-enough]) if enough <= delivered.size else 0.0


def _upper(known: NDArray[np.float64], percentile: float, risk: float) -> float:
    """Return the time-uniform upper bound: the smallest latency that few enough images exceed.

    Few enough is the most images k with E_pass(n, k) >= 1/risk. Undelivered images exceed
    everything here.
    """
    _risk(risk)
    bets, n = pass_bets(_tail(percentile)), known.size
    few, many = -1, n
    while many - few > 1:
        middle = (few + many) // 2
        if float(log_e(bets, n, middle)) >= -math.log(risk):
            few = middle
        else:
            many = middle
    if few < 0:
        return math.inf
    # NaN, the undelivered ones, are sorted last: right where infinitely long ones belong.
    latency = float(np.sort(known)[n - few - 1])
    return math.inf if math.isnan(latency) else latency


def _exceeding(
    known: NDArray[np.float64], limit: float, *, undelivered_above: bool
) -> tuple[int, int]:
    """Return all images and those above the limit."""
    if not (limit > 0 and math.isfinite(limit)):
        raise ValueError(f"the limit of a latency must be a positive number; got {limit}")
    above = int((known > limit).sum())
    if undelivered_above:
        above += int(np.isnan(known).sum())
    return known.size, above


def _known(latencies: Sequence[float | None]) -> NDArray[np.float64]:
    """Return latencies as numbers, NaN where the image was never delivered."""
    try:
        known = np.asarray(latencies, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"latencies must be numbers or None; got {reprlib.repr(latencies)}"
        ) from error
    if known.ndim != 1 or (known < 0).any() or np.isinf(known).any():
        raise ValueError(
            "latencies must be one sequence of finite numbers, 0 or more, or None for an image "
            f"that was never delivered; got shape {known.shape}, smallest "
            f"{np.nanmin(known) if known.size else None}, largest "
            f"{np.nanmax(known) if known.size else None}"
        )
    return known


def _tail(percentile: float) -> float:
    """Return the share of images that may be above a percentile."""
    if not 50 <= percentile < 100:
        raise ValueError(
            f"the percentile must be from 50 to below 100, in percent; got {percentile}"
        )
    return (100 - percentile) / 100


def _risk(risk: float) -> None:
    if not 0 < risk < 1:
        raise ValueError(f"a risk must be between 0 and 1; got {risk}")
