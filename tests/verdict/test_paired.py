"""The comparison with the baseline: risks and images needed, exact where the counts allow it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.verdict.betting import Wealth, bounded_fail_bets, bounded_pass_bets
from tasks.verdict.paired import (
    PairedCounts,
    PairedTest,
    count_pairs,
    paired_evidence,
    paired_interval,
    paired_log_e,
)
from tests.verdict.pair_runs import MARGIN, exact_course, joint, kl_inf, simulated

RATES = (0.002, 0.01, 0.02, 0.05, 0.12)
CORRELATIONS = (0.0, 0.5)

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3000)).map(
    lambda c: PairedCounts(sum(c), c[0], c[1])
)


def pairs_to_pass(rate: float, correlation: float, share: float, eps: float) -> tuple[float, float]:
    """Mean pairs until PASS with a candidate at ``share`` of the baseline's rate, and the bound."""
    worse, better, _ = joint(rate, share * rate, correlation)
    odds = [1 - worse - better, better, worse]
    bound = -math.log(eps) / kl_inf([0.0, -1.0, 1.0], odds, MARGIN, 1.0)
    if (worse + better) * bound < 50:
        decided, mean = exact_course("pass", eps, worse, better, int(12 * bound))
    else:
        bets = bounded_pass_bets(MARGIN, -1, 1)
        decided, mean = simulated(bets, [0.0, -1.0, 1.0], odds, eps, int(30 * bound))
    assert decided > 0.9999
    return mean, bound


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("rate", RATES)
def test_exact_risks_at_the_margin(rate: float, correlation: float) -> None:
    worse, better, _ = joint(rate, rate + MARGIN, correlation)
    assert worse - better == pytest.approx(MARGIN)
    for eps, most in ((0.05, 1500), (0.01, 700)):
        for side in ("pass", "fail"):
            decided, _ = exact_course(side, eps, worse, better, most)
            assert decided <= eps, (side, eps)


@pytest.mark.parametrize("rate", [0.02, 0.12])
def test_equal_arms_are_not_rolled_back(rate: float) -> None:
    worse, better, _ = joint(rate, rate, 0.5)
    assert exact_course("fail", 0.05, worse, better, 1500)[0] <= 0.05


def test_pairs_needed_against_the_best_possible_bet() -> None:
    ratios = []
    for rate in RATES:
        for correlation in CORRELATIONS:
            for share in (1.0, 0.5):
                mean, bound = pairs_to_pass(rate, correlation, share, 0.05)
                ratios.append(mean / bound)

    assert np.mean(ratios) <= 1.40
    assert np.mean(ratios[::2]) <= 1.40  # candidate = baseline alone
    assert max(ratios) <= 1.60


def test_exact_and_simulated_courses_agree() -> None:
    worse, better, _ = joint(0.02, 0.02, 0.0)
    exact = exact_course("pass", 0.05, worse, better, 6000)
    odds = [1 - worse - better, better, worse]
    simulation = simulated(bounded_pass_bets(MARGIN, -1, 1), [0.0, -1.0, 1.0], odds, 0.05, 6000)
    assert simulation == (pytest.approx(exact[0], abs=0.002), pytest.approx(exact[1], rel=0.02))


@given(st.lists(st.sampled_from([-1, 0, 0, 0, 1]), max_size=300), st.sampled_from([0.0, 0.02, 0.1]))
def test_evidence_of_counts_is_that_of_the_stream(stream: list[int], margin: float) -> None:
    counts = (stream.count(1), stream.count(-1), len(stream))
    for side, make in (("pass", bounded_pass_bets), ("fail", bounded_fail_bets)):
        wealth = Wealth(make(margin, -1, 1))
        for value in stream:
            wealth.update(value)
        assert paired_log_e(*counts, margin, side=side) == pytest.approx(wealth.log_e, abs=1e-8)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60), st.integers(0, 60))
def test_order_and_shards_do_not_matter(stream: list[int], cut: int) -> None:
    whole, parts = PairedTest(), PairedTest()
    whole.update(sorted(stream))
    parts.update(stream[:cut])
    parts.update(np.array(stream[cut:], dtype=np.int8))
    assert whole.counts == parts.counts
    assert whole.log_e_pass == parts.log_e_pass
    assert whole.log_e_fail == parts.log_e_fail


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.sampled_from([0.0, 0.02, 0.1]))
def test_interval_agrees_with_the_tests(counts: PairedCounts, margin: float) -> None:
    lower, upper = paired_interval(counts)
    evidence = paired_evidence(counts, margin=margin)
    assert -1 <= lower < upper <= 1
    assert (evidence.log_e_pass >= math.log(20)) == (upper <= margin)
    assert (evidence.log_e_fail >= math.log(20)) == (lower >= margin)
    if counts.difference is not None:
        assert lower < counts.difference < upper or abs(counts.difference) == 1


@given(COUNTS)
def test_one_more_failure_never_helps(counts: PairedCounts) -> None:
    if counts.worse + counts.better == counts.pairs:
        return
    worse = PairedCounts(counts.pairs, counts.worse + 1, counts.better)
    before, after = paired_evidence(counts), paired_evidence(worse)
    assert after.log_e_pass <= before.log_e_pass
    assert after.log_e_fail >= before.log_e_fail
    assert before.log_e_zero >= before.log_e_fail  # what exceeds the margin exceeds 0


def test_decisions_and_the_warning_stay() -> None:
    test = PairedTest()
    assert test.update([]) is None
    assert test.interval() == (-1.0, 1.0)
    assert test.update([0] * 400) == "PROMOTE"
    assert not test.warning
    # 8 more failures among 400: not more than the margin, but proven to be more than none.
    other = PairedTest()
    other.update([0] * 390 + [1] * 10)
    assert (other.decision, other.warning) == (None, True)
    assert other.update([-1] * 10) is None
    assert other.warning
    assert test.update([1] * 200) == "PROMOTE"
    assert PairedTest().update([1] * 20) == "ROLLBACK"


@pytest.mark.parametrize(
    "wrong",
    [[2], [0.0], [float("nan")], ["1"], [None], [[0, 1]], 1, [True], [0, 10**30], "101"],
)
def test_anything_but_differences_is_refused(wrong: object) -> None:
    test = PairedTest()
    with pytest.raises(ValueError):
        test.update(wrong)  # type: ignore[arg-type]  # wrong on purpose
    assert test.counts.pairs == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": -0.01},
        {"margin": 1.0},
        {"margin": float("nan")},
        {"alpha": 0.0},
        {"beta": float("nan")},
    ],
)
def test_senseless_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        PairedTest(**wrong)
    with pytest.raises(ValueError):
        paired_log_e(1, 1, 1, 0.02)
    with pytest.raises(ValueError):
        PairedCounts(5, -1, 0)
    with pytest.raises(ValueError, match="side"):
        paired_log_e(1, 1, 2, 0.02, side="both")  # type: ignore[arg-type]  # wrong on purpose


def test_unmeasured_cases_count_against_each_proof() -> None:
    outcomes = (True, False, None)
    candidate = {f"{c}{b}": c for c in outcomes for b in outcomes}
    baseline = {f"{c}{b}": b for c in outcomes for b in outcomes} | {"not drawn": True}

    for_pass, for_fail = count_pairs(candidate, baseline)

    # PASS: candidate T T T F F F T T T (None is T), baseline T F F T F F T F F (None is F)
    assert for_pass == PairedCounts(9, worse=4, better=1)
    assert for_fail == PairedCounts(9, worse=1, better=4)
    with pytest.raises(ValueError, match="'not drawn'"):
        count_pairs(baseline, candidate)
