"""Latency percentiles: exact risks by the counts, risks against the baseline by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.verdict.quantile import (
    fail_evidence_latency,
    latency_against_baseline,
    latency_interval,
    pass_evidence_latency,
)
from tasks.verdict.sequential import fail_bets, log_e, lower_limit, pass_bets, upper_limit

LATENCIES = st.lists(st.one_of(st.none(), st.integers(1, 60).map(float)), max_size=300)


def exact_risk(side: str, tail: float, images: int, threshold: float) -> float:
    """Probability that a stream at the limit ever crosses, looked at after every image."""
    bets = pass_bets(tail) if side == "pass" else fail_bets(tail)
    alive = np.zeros(images + 1)
    alive[0] = 1.0
    crossed = 0.0
    for n in range(1, images + 1):
        alive[1 : n + 1] = alive[1 : n + 1] * (1 - tail) + alive[:n] * tail
        alive[0] *= 1 - tail
        over = log_e(bets, n, np.arange(n + 1)) >= threshold
        crossed += float(alive[: n + 1][over].sum())
        alive[: n + 1][over] = 0.0
    return crossed


@pytest.mark.parametrize("percentile", [50, 95, 99])
def test_exact_risks_at_the_limit(percentile: float) -> None:
    tail = (100 - percentile) / 100
    for side in ("pass", "fail"):
        assert exact_risk(side, tail, 1500, math.log(20)) <= 0.05


@settings(deadline=None)
@given(LATENCIES, st.integers(1, 60), st.sampled_from([50.0, 90.0, 95.0, 99.0]))
def test_evidence_is_the_failure_test_on_the_indicator(
    latencies: list[float | None], limit: int, percentile: float
) -> None:
    tail = (100 - percentile) / 100
    above = sum(x is not None and x > limit for x in latencies)
    missing = latencies.count(None)
    assert pass_evidence_latency(latencies, limit, percentile) == log_e(
        pass_bets(tail), len(latencies), above + missing
    )
    assert fail_evidence_latency(latencies, limit, percentile) == log_e(
        fail_bets(tail), len(latencies), above
    )
    as_nan = [math.nan if x is None else x for x in latencies]
    assert pass_evidence_latency(as_nan, limit, percentile) == pass_evidence_latency(
        latencies, limit, percentile
    )


@settings(deadline=None, max_examples=60)
@given(LATENCIES, st.sampled_from([50.0, 95.0]), st.sampled_from([0.05, 0.01]))
def test_interval_is_the_edge_of_the_tests(
    latencies: list[float | None], percentile: float, risk: float
) -> None:
    lower, upper = latency_interval(latencies, percentile, alpha=risk, beta=risk)
    assert 0 <= lower <= upper <= math.inf
    for limit in (0.5, *range(1, 61)):
        passed = pass_evidence_latency(latencies, limit, percentile) >= -math.log(risk)
        failed = fail_evidence_latency(latencies, limit, percentile) >= -math.log(risk)
        assert passed == (limit >= upper)
        assert failed == (limit < lower)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), st.integers(0, 400))
def test_interval_agrees_with_the_limits_of_the_rate(images: int, slow: int) -> None:
    """``latency <= T`` is proven exactly when the rate above T is proven below 5 %."""
    slow = min(slow, images)
    latencies = [1.0] * (images - slow) + [9.0] * slow
    lower, upper = latency_interval(latencies)
    assert (upper <= 5) == (upper_limit(slow, images, 0.05) <= (100 - 95) / 100)
    assert (lower > 5) == (lower_limit(slow, images, 0.05) > (100 - 95) / 100)


@settings(deadline=None, max_examples=60)
@given(LATENCIES, st.integers(0, 299), st.sampled_from([None, 1.0, 100.0]))
def test_losing_an_image_never_helps(
    latencies: list[float | None], place: int, before: float | None
) -> None:
    if place >= len(latencies):
        return
    known, lost = list(latencies), list(latencies)
    known[place], lost[place] = before, None
    assert pass_evidence_latency(lost, 20) <= pass_evidence_latency(known, 20)
    assert fail_evidence_latency(lost, 20) <= fail_evidence_latency(known, 20)


def test_nothing_is_proven_of_nothing() -> None:
    assert pass_evidence_latency([], 5.0) == pytest.approx(0.0)
    assert fail_evidence_latency([], 5.0) == pytest.approx(0.0)
    assert latency_interval([]) == (0.0, math.inf)
    assert latency_interval([None] * 500) == (0.0, math.inf)
    empty = latency_against_baseline([1.0] * 500, [], ratio=1.2)
    assert (empty.log_e_pass, empty.log_e_fail) == (0.0, 0.0)
    assert (empty.pass_limit_s, empty.fail_limit_s) == (0.0, math.inf)


def test_decisions_against_the_baseline() -> None:
    rng = np.random.default_rng(5)
    baseline = rng.lognormal(1.0, 0.4, 2000).tolist()
    same = latency_against_baseline(rng.lognormal(1.0, 0.4, 600), baseline, ratio=1.3)
    assert same.log_e_pass >= same.pass_at == pytest.approx(math.log(40))
    assert same.log_e_fail < same.fail_at
    slow = latency_against_baseline(rng.lognormal(1.7, 0.4, 120), baseline, ratio=1.3)
    assert slow.log_e_fail >= slow.fail_at
    assert slow.log_e_pass < slow.pass_at
    gone = latency_against_baseline([None] * 600, baseline, ratio=1.3)
    assert gone.log_e_pass < gone.pass_at
    assert gone.log_e_fail < gone.fail_at


def quick_edges(
    sorted_baseline: NDArray[np.float64], n: int, tail: float, risk: float
) -> tuple[float, float]:
    counts = np.arange(n + 1)
    few = np.flatnonzero(log_e(pass_bets(tail), n, counts) >= -math.log(risk))
    many = np.flatnonzero(log_e(fail_bets(tail), n, counts) >= -math.log(risk))
    upper = sorted_baseline[n - few[-1] - 1] if few.size and few[-1] < n else math.inf
    lower = sorted_baseline[n - many[0]] if many.size else 0.0
    return lower, upper


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_risks_against_a_baseline_that_is_estimated(correlation: float) -> None:
    """The candidate's percentile is exactly ratio times the baseline's; both arms grow together.

    Looked at after every 25 pairs up to 500, 4,000 runs; both errors stay far below 5 %, since the
    baseline's bound must fail and the candidate's test too.
    """
    rng = np.random.default_rng(9)
    runs, images, tail = 4000, 500, (100 - 90) / 100
    z = rng.standard_normal((2, runs, images))
    baseline = np.exp(z[0])
    candidate = 1.2 * np.exp(correlation * z[0] + math.sqrt(1 - correlation**2) * z[1])
    promoted = rolled_back = np.zeros(runs, bool)
    for n in range(25, images + 1, 25):
        seen = np.sort(baseline[:, :n], axis=1)
        few = np.flatnonzero(log_e(pass_bets(tail), n, np.arange(n + 1)) >= math.log(40))
        many = np.flatnonzero(log_e(fail_bets(tail), n, np.arange(n + 1)) >= math.log(40))
        if few.size:
            above = (candidate[:, :n] > 1.2 * seen[:, n - few[-1] - 1, None]).sum(axis=1)
            rolled_back = rolled_back | (log_e(fail_bets(tail), n, above) >= math.log(40))
        if many.size:
            above = (candidate[:, :n] > 1.2 * seen[:, n - many[0], None]).sum(axis=1)
            promoted = promoted | (log_e(pass_bets(tail), n, above) >= math.log(40))
    assert promoted.mean() <= 0.05
    assert rolled_back.mean() <= 0.05


def test_the_simulated_rule_is_the_shipped_one() -> None:
    rng = np.random.default_rng(13)
    for n in (60, 300, 900):
        baseline, candidate = rng.lognormal(0, 1, n), rng.lognormal(0.2, 1, n)
        shipped = latency_against_baseline(candidate, baseline, ratio=1.2, percentile=90)
        lower, upper = quick_edges(np.sort(baseline), n, 0.1, 0.025)
        assert (shipped.pass_limit_s, shipped.fail_limit_s) == (1.2 * lower, 1.2 * upper)
        if lower > 0:
            above = int((candidate > 1.2 * lower).sum())
            assert shipped.log_e_pass == log_e(pass_bets(0.1), n, above)
        if upper < math.inf:
            above = int((candidate > 1.2 * upper).sum())
            assert shipped.log_e_fail == log_e(fail_bets(0.1), n, above)


@pytest.mark.parametrize(
    "wrong", [[-1.0], [math.inf], ["soon"], [[1.0]], [1.0, -math.inf], [object()]]
)
def test_impossible_latencies_are_refused(wrong: list[float]) -> None:
    for function in (pass_evidence_latency, fail_evidence_latency):
        with pytest.raises(ValueError, match="latencies must be"):
            function(wrong, 5.0)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_impossible_limits_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        pass_evidence_latency([1.0], limit)
    with pytest.raises(ValueError, match="ratio"):
        latency_against_baseline([1.0], [1.0], ratio=limit)


@pytest.mark.parametrize("percentile", [0.95, 0, 100, 101, math.nan])
def test_percentiles_are_in_percent(percentile: float) -> None:
    with pytest.raises(ValueError, match="in percent"):
        fail_evidence_latency([1.0], 5.0, percentile)
    with pytest.raises(ValueError, match="in percent"):
        latency_interval([1.0], percentile)


@pytest.mark.parametrize("risk", [0.0, 1.0, math.nan])
def test_impossible_risks_are_refused(risk: float) -> None:
    with pytest.raises(ValueError, match="risk"):
        latency_interval([1.0], alpha=risk)
    with pytest.raises(ValueError, match="risk"):
        latency_against_baseline([1.0], [1.0], ratio=1.0, beta=risk)
