"""Plans: thresholds that share the risk, and odds that are exactly those of the test itself."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.policy import FailureRule, Limit, Policy, Sampling
from tasks.verdict.boundaries import headline_thresholds, thresholds
from tasks.verdict.calibration import calibrate
from tasks.verdict.planning import (
    Plan,
    curve,
    expect,
    fewest_images,
    followed,
    grid,
    look_ends,
    retest,
)
from tasks.verdict.sequential import FailureTest, log_e, pass_bets

RULES = [(0.02, 0.02), (0.02, 0.03), (0.01, 0.02)]


def a_plan(limit: float = 0.02, below: float = 0.03, images: int = 1200, every: int = 40) -> Plan:
    fail, passes = headline_thresholds(limit, below, 0.025, 0.05, "anytime", images)
    return Plan(limit, below, fail, passes, images, every)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.001, 0.4),
    st.floats(0.001, 0.4),
    st.integers(0, 60),
    st.integers(0, 6),
)
def test_the_whole_of_alpha_is_shared_and_no_more(
    alpha: float, beta: float, slices: int, guards: int
) -> None:
    policy = Policy(failure=FailureRule(alpha=alpha, beta=beta))
    marks = thresholds(policy, [f"locale={n}" for n in range(slices)], guards)
    # The paired test has a share as well.
    assert marks.alpha_headline + marks.share * (slices + guards + 1) == pytest.approx(alpha)
    assert marks.alpha_headline == pytest.approx(alpha / 2)
    assert math.exp(-marks.fail_at) == pytest.approx(alpha / 2)
    assert math.exp(-marks.shared_fail_at) == pytest.approx(marks.share)
    assert math.exp(-marks.amber_at) == pytest.approx(alpha)
    assert marks.amber_at <= marks.fail_at <= marks.shared_fail_at
    assert math.exp(-marks.pass_at) == pytest.approx(beta) == math.exp(-marks.critical_pass_at)


def test_a_calibrated_policy_lowers_the_headline_and_nothing_else() -> None:
    sampling = Sampling(cases=400)
    plain = thresholds(Policy(sampling=sampling), ["locale=th"], 1)
    lowered = thresholds(
        Policy(failure=FailureRule(mode="calibrated"), sampling=sampling), ["locale=th"], 1
    )
    assert (lowered.pass_at, lowered.fail_at) == calibrate(0.02, 0.03, 0.025, 0.05, 400)
    assert lowered.pass_at < plain.pass_at
    assert lowered.fail_at < plain.fail_at
    assert lowered.shared_fail_at == plain.shared_fail_at
    assert lowered.critical_pass_at == plain.critical_pass_at


def test_earlier_runs_make_promotion_dearer_and_rollback_not() -> None:
    policy = Policy()
    first, second = thresholds(policy, [], 0), thresholds(policy, [], 0, beta=0.01)
    assert second.pass_at > first.pass_at
    assert second.critical_pass_at > first.critical_pass_at
    assert second.fail_at == first.fail_at


@pytest.mark.parametrize(
    ("slices", "guards", "beta"),
    [(["a=b", "a=b"], 0, None), ([], -1, None), ([], 0, 0.0), ([], 0, 1.0), ([], 0, math.nan)],
)
def test_impossible_thresholds_are_refused(
    slices: list[str], guards: int, beta: float | None
) -> None:
    with pytest.raises(ValueError, match=r"got|twice"):
        thresholds(Policy(limits=(Limit(measure="images", min=1),)), slices, guards, beta=beta)


@pytest.mark.parametrize(("limit", "below"), [(0.3, 0.3), (0.2, 0.6)])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.7])
def test_the_odds_are_those_of_the_test_over_all_possible_runs(
    limit: float, below: float, every: int, rate: float
) -> None:
    """Every run of 9 images, one by one, through the test that the gate uses."""
    images = 9
    odds = {"PROMOTE": 0.0, "ROLLBACK": 0.0, None: 0.0}
    mean = 0.0
    for run in itertools.product((0, 1), repeat=images):
        test = FailureTest(limit, below, 0.25, 0.25, n_max=images)
        used, start = images, 0
        for end in look_ends(images, every):
            if test.update(sum(run[start:end]), end - start):
                used = end
                break
            start = end
        chance = math.prod(rate if failed else 1 - rate for failed in run)
        odds[test.decision] += chance
        mean += chance * used
    fail, passes = headline_thresholds(limit, below, 0.25, 0.25, "anytime", images)
    row = expect(Plan(limit, below, fail, passes, images, every), rate)
    assert row.promote == pytest.approx(odds["PROMOTE"], abs=1e-12)
    assert row.rollback == pytest.approx(odds["ROLLBACK"], abs=1e-12)
    assert row.hold == pytest.approx(odds[None], abs=1e-12)
    assert row.images == pytest.approx(mean)


@pytest.mark.parametrize(("limit", "below"), RULES)
@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
def test_a_planned_gate_keeps_its_risks(limit: float, below: float, mode: str) -> None:
    images = 2000
    fail, passes = headline_thresholds(
        limit, below, 0.025, 0.05, "calibrated" if mode == "calibrated" else "anytime", images
    )
    plan = Plan(limit, below, fail, passes, images, 1)
    assert expect(plan, limit).rollback <= 0.025
    assert expect(plan, below).promote <= 0.05


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(RULES), st.floats(0, 1), st.integers(1, 900), st.integers(1, 80))
def test_a_row_is_whole(rule: tuple[float, float], rate: float, images: int, every: int) -> None:
    plan = a_plan(*rule, images=images, every=every)
    row = expect(plan, rate)
    assert row.promote + row.rollback + row.hold == pytest.approx(1)
    assert 0 < row.p10 <= row.median <= row.p90 <= images
    assert {row.p10, row.median, row.p90} <= set(plan.looks)
    assert row.p10 * 0.9 <= row.images <= images + 1e-9
    ended = followed(plan, rate).promote + followed(plan, rate).rollback
    assert ended[: row.p90 + 1].sum() >= 0.9 - 1e-9 or row.p90 == images
    assert ended[: row.p90].sum() < 0.9


def test_fewer_looks_need_more_images() -> None:
    means = [expect(a_plan(every=every), 0.01).images for every in (1, 8, 24, 40, 120)]
    assert means == sorted(means)


@settings(deadline=None, max_examples=200)
@given(
    st.floats(0.0005, 0.6),
    st.floats(1.0, 3.0),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_the_grid_shows_both_thresholds_and_the_expected_rate(
    limit: float, times: float, also: float | None
) -> None:
    below = min(0.99, limit * times)
    rates = grid(limit, below, also)
    assert list(rates) == sorted(set(rates))
    assert rates[0] >= 0
    assert rates[-1] <= 1
    assert {limit, below} <= {*rates}
    assert also is None or also in rates
    assert 5 <= len(rates) <= 13
    drawn = curve(limit, below)
    assert list(drawn) == sorted(set(drawn))
    assert {limit, below} <= {*drawn}
    assert drawn[0] > 0


@pytest.mark.parametrize("every", [1, 40])
def test_the_fewest_images_are_those_of_runs_without_and_with_nothing_but_failures(
    every: int,
) -> None:
    plan = a_plan(every=every)
    for failed, number, decision in ((0, 0, "PROMOTE"), (1, 1, "ROLLBACK")):
        test = FailureTest(alpha=0.025)
        count = next(
            n for n in range(1, 500) if test.update(failed, 1) == decision and n % every == 0
        )
        assert fewest_images(plan)[number] == count
    assert fewest_images(a_plan(images=60))[0] is None


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60), st.sampled_from([0.0, 0.01, 0.02]))
def test_a_second_run_has_at_most_the_risk_and_the_speed_of_the_first(
    failures: int, rate: float
) -> None:
    rule = FailureRule()
    held, second = a_plan(images=240), a_plan(images=3000)
    found = retest(Policy(), held, second, failures, rate)
    assert 0 <= found.left <= rule.beta
    assert found.held_failures >= failures
    # What is said to be held was not promoted.
    assert log_e(pass_bets(0.03), 240, found.held_failures) < held.log_pass
    assert (found.row is None) == (found.left == 0)
    assert found.row is None or found.row.promote <= expect(second, rate).promote + 1e-12
    assert expect(a_plan(images=3000), 0.03).promote <= rule.beta


def test_a_calibrated_run_that_was_held_leaves_nothing() -> None:
    policy = Policy(failure=FailureRule(mode="calibrated"))
    fail, passes = headline_thresholds(0.02, 0.03, 0.025, 0.05, "calibrated", 240)
    held = Plan(0.02, 0.03, fail, passes, 240, 24)
    assert retest(policy, held, held, 4, 0.01).row is None


@pytest.mark.parametrize(
    "bad",
    [
        {"images": 0},
        {"images": 20_001},
        {"every": 0},
        {"limit": 0.0},
        {"limit": 1.0},
        {"promote_below": 1.0},
    ],
)
def test_impossible_plans_are_refused(bad: dict[str, float]) -> None:
    good = {
        "limit": 0.02,
        "promote_below": 0.03,
        "log_fail": 3.0,
        "log_pass": 3.0,
        "images": 100,
        "every": 10,
    }
    with pytest.raises(ValueError, match=r"got"):
        Plan(**good | bad)
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="0 to 1"):
            expect(a_plan(), rate)
