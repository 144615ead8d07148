"""A plan, a simulation and the gate test the same thing, also with checks that miss and accuse."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.check_rules import CheckRules
from tasks.policy import FailureRule, Limit, Policy, Sampling, SliceRule
from tasks.records import PriorRun, SequentialResult
from tasks.verdict import decide
from tasks.verdict.boundaries import PERFECT, Sees, boundaries, left_by, sees
from tasks.verdict.checkers import Sensitivity, true_rate
from tasks.verdict.guards import guarded
from tasks.verdict.planning import Plan, expect, fewest_images, plan_of, retest
from tasks.verdict.simulate import (
    HOLD,
    PROMOTE,
    ROLLBACK,
    prepare,
    simulate,
)
from tasks.verdict.traffic import SliceSpec, traffic
from tests.verdict.test_decide import gate, guard, piece

IMAGES, EVERY = 240, 24
#: Five standard errors of a share: a test with a fixed seed must not be a matter of luck.
SIGMAS = 5.0


def planted(share: float, most: int, name: str = "geometry.size") -> Sensitivity:
    return Sensitivity(name, round(share * most), most)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    limit = draw(st.floats(0.01, 0.2))
    rule = FailureRule(
        limit=limit,
        promote_below=limit * draw(st.sampled_from([1.0, 1.2, 2.0])),
        alpha=draw(st.sampled_from([0.05, 0.1, 0.3])),
        beta=draw(st.sampled_from([0.05, 0.1, 0.3])),
        mode=draw(st.sampled_from(["anytime", "calibrated"])),
    )
    return Policy(
        failure=rule,
        sampling=Sampling(cases=IMAGES, shard_size=EVERY),
        slices=SliceRule(critical=("locale=th",)),
        limits=(
            # Only the first is a test with a share of alpha.
            Limit(measure="refusal_rate", max=0.5, on_breach="rollback"),
            Limit(measure="images", min=1, on_breach="rollback"),
        ),
        checks=CheckRules(
            sensitivity=draw(st.sampled_from(["mixed", "worst"])),
            false_alarms=draw(st.sampled_from(["confirm", "allow"])),
        ),
    )


RECORDS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]), st.sampled_from([0, 12, 90, 400])),
    max_size=3,
).map(lambda counts: tuple(planted(*one, f"check.n{n}") for n, one in enumerate(counts)))
ALARMS = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 12), st.just(300)).map(lambda c: Sensitivity("any", 0, 0, *c)),
)


def judged_by(
    policy: Policy,
    images: int,
    bad: int,
    checks: tuple[Sensitivity, ...],
    alarms: Sensitivity | None,
    beta: float | None = None,
) -> tuple[str, tuple[SequentialResult, ...]]:
    """What the gate's decision makes of these counts; the slice has all of the images."""
    verdict = decide(
        gate(
            bad,
            images,
            policy=policy,
            planned_cases=IMAGES,
            slices=(piece("locale=th", bad, images),),
            guards=tuple(guard(0.0, place) for place in guarded(policy)),
            checks=checks,
            alarms=alarms,
            beta_left=beta,
        ),
        bounds=False,
    )
    return verdict.verdict, verdict.tests


@settings(deadline=None, max_examples=40)
@given(policies(), RECORDS, ALARMS, st.integers(1, IMAGES), st.floats(0, 1))
def test_plan_simulation_and_gate_test_the_same(
    policy: Policy,
    checks: tuple[Sensitivity, ...],
    alarms: Sensitivity | None,
    images: int,
    share: float,
) -> None:
    plan = plan_of(policy, IMAGES, EVERY, checks=checks, alarms=alarms)
    rules = prepare(policy, traffic(0.1, [SliceSpec("locale=th", 1.0)]), checks, alarms)
    # At the counts that decide and beside them, where a difference would show.
    good = (rules.passes[images], rules.slice_pass[images])
    bad_ones = (rules.fail[images], rules.slice_fail[images], rules.slice_amber[images])
    edges = {*good, *(g + 1 for g in good), *bad_ones, *(b - 1 for b in bad_ones)}
    for bad in {round(share * images), *(int(e) for e in edges if 0 <= e <= images)}:
        name, found = judged_by(policy, images, bad, checks, alarms)
        headline, slice_ = found[0], found[-1]
        assert (headline.kind, slice_.kind) == ("headline", "slice")
        assert (plan.limit, plan.log_fail) == (headline.limit, headline.fail_at)
        assert plan.promote_below == headline.below
        assert (bad >= rules.fail[images]) == headline.failed
        assert (bad >= rules.slice_fail[images]) == slice_.failed
        assert slice_.failed or (bad >= rules.slice_amber[images]) == slice_.amber
        if math.isinf(plan.log_pass):
            # A blind check, or one that found nothing: the decision never promotes.
            assert name != "PROMOTE"
            assert (rules.passes < 0).all()
        else:
            assert plan.log_pass == headline.pass_at
            assert (bad <= rules.passes[images]) == headline.passed
            assert (bad <= rules.slice_pass[images]) == slice_.passed


@settings(deadline=None, max_examples=60)
@given(policies(), RECORDS, st.integers(0, 40), ALARMS)
def test_a_second_run_is_planned_as_the_gate_tests_it(
    policy: Policy, checks: tuple[Sensitivity, ...], failures: int, alarms: Sensitivity | None
) -> None:
    held = plan_of(policy, IMAGES, EVERY, checks=checks, alarms=alarms)
    found = retest(policy, held, held, failures, 0.01, checks=checks, alarms=alarms)
    prior = [PriorRun(run_id="a", images=IMAGES, failures=found.held_failures)]
    left = left_by(policy, prior, checks, IMAGES)
    assert found.left == left
    assert (found.row is None) == (left == 0)
    _, tests = judged_by(policy, IMAGES, 1, checks, alarms, beta=left)
    if found.row is None:
        assert not tests[0].passed
        return
    again = plan_of(policy, IMAGES, EVERY, left=left, checks=checks, alarms=alarms)
    assert again.promote_below == tests[0].below
    assert math.isinf(again.log_pass) or again.log_pass == tests[0].pass_at
    assert found.row == expect(again, 0.01)


def test_without_a_record_nothing_changes() -> None:
    policy = Policy()
    edges = boundaries(policy, ("a=b",), 2)
    assert (edges.below, edges.critical_below) == (0.03, policy.slices.critical_below)
    assert edges.pass_at == edges.at.pass_at
    assert edges.promotes
    assert edges.sees == PERFECT
    assert PERFECT.flagged(0.123) == 0.123


@given(
    st.floats(0, 1),
    st.integers(600, 1_000),
    st.integers(0, 100),
)
def test_what_is_flagged_and_what_is_true_are_inverse(rate: float, found: int, alarms: int) -> None:
    """Rogan and Gladen's estimate, which the report shows, leads back to the true rate."""
    check = Sensitivity("all", found, 1_000, alarms, 1_000)
    eyes = sees([check], check)
    flagged = eyes.flagged(rate)
    assert 0 <= flagged <= 1
    assert true_rate(flagged, check) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(("limit", "below"), [(0.02, 0.02), (0.02, 0.03), (0.05, 0.08)])
@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
@pytest.mark.parametrize("rule", ["mixed", "worst"])
def test_a_bad_build_is_promoted_no_more_often_than_the_test_may(
    limit: float,
    below: float,
    mode: Literal["anytime", "calibrated"],
    rule: Literal["mixed", "worst"],
) -> None:
    """Exactly, at ``promote_below`` truly, seen no better than the bound says; also strict."""
    failure = FailureRule(limit=limit, promote_below=below, mode=mode)
    policy = Policy(failure=failure, checks=CheckRules(sensitivity=rule))
    checks = (planted(0.9, 300), planted(1.0, 500, "a.b"))
    edges = boundaries(policy, (), 0, checks=checks)
    plan = plan_of(policy, 3_000, 1, checks=checks)
    assert plan.promote_below < below
    seen = Plan(
        *(plan.limit, plan.promote_below, plan.log_fail, plan.log_pass, 3_000, 1),
        Sees(edges.sight.share, 0.0),
    )
    assert 0.2 * edges.sight.risk < expect(seen, below).promote <= edges.sight.risk
    # With false alarms on top it is promoted less often still.
    accused = Plan(
        *(plan.limit, plan.promote_below, plan.log_fail, plan.log_pass, 3_000, 1),
        Sees(edges.sight.share, 0.01),
    )
    assert expect(accused, below).promote < expect(seen, below).promote


@pytest.mark.parametrize("allow", [False, True])
def test_a_policy_that_allows_for_false_alarms_keeps_its_risk_and_others_do_not(
    allow: bool,
) -> None:
    alarms = Sensitivity("any", 0, 0, 12, 1_000)
    checks = (planted(0.99, 5_000),)
    policy = Policy(checks=CheckRules(false_alarms="allow" if allow else "confirm"))
    plan = plan_of(policy, 3_000, 12, checks=checks, alarms=alarms)
    back = expect(plan, policy.failure.limit).rollback
    assert (back <= policy.failure.alpha / 2) == allow
    assert (plan.limit > policy.failure.limit) == allow


def test_a_blind_check_lets_nothing_be_promised() -> None:
    policy = Policy(sampling=Sampling(cases=600, shard_size=40))
    checks = (planted(1.0, 5_000), planted(0.4, 60, "composition.logo"))
    plan = plan_of(policy, 600, 40, checks=checks)
    row = expect(plan, 0.001)
    assert row.promote == 0
    assert row.images == pytest.approx(600)
    assert fewest_images(plan)[0] is None
    played = simulate(prepare(policy, traffic(0.001), checks), 300, seed=1)
    assert played.count(HOLD) == 300


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.08])
@pytest.mark.parametrize("rule", ["confirm", "allow"])
def test_gates_played_with_the_decision_itself_agree_with_the_exact_plan(
    rate: float, rule: Literal["confirm", "allow"]
) -> None:
    """Pictures truly fail, checks miss and accuse them one by one, and ``decide`` decides."""
    checks, alarms = (planted(0.9, 300),), Sensitivity("any", 0, 0, 9, 1_000)
    policy = Policy(
        failure=FailureRule(limit=0.02, promote_below=0.04),
        sampling=Sampling(cases=IMAGES, shard_size=EVERY),
        checks=CheckRules(false_alarms=rule),
    )

    @cache
    def verdict(images: int, bad: int) -> str:
        return decide(
            gate(
                bad,
                images,
                policy=policy,
                planned_cases=IMAGES,
                checks=checks,
                alarms=alarms,
                final=False,
            ),
            bounds=False,
        ).verdict

    plan = plan_of(policy, IMAGES, EVERY, checks=checks, alarms=alarms)
    rng = np.random.default_rng(5)
    runs = 6_000
    truth = rng.random((runs, IMAGES)) < rate
    flagged = rng.random((runs, IMAGES)) < np.where(truth, 0.9, 0.009)
    ends = dict.fromkeys(("PROMOTE", "ROLLBACK", "HOLD"), 0)
    used = []
    for counts in np.cumsum(flagged, axis=1)[:, EVERY - 1 :: EVERY]:
        name = "HOLD"
        for look, bad in enumerate(counts, start=1):
            name = verdict(look * EVERY, int(bad))
            if name != "HOLD":
                break
        ends[name] += 1
        used.append(look * EVERY)
    row = expect(plan, rate)
    for name, odds in (("PROMOTE", row.promote), ("ROLLBACK", row.rollback), ("HOLD", row.hold)):
        error = math.sqrt(max(odds * (1 - odds), 1 / runs) / runs)
        assert abs(ends[name] / runs - odds) <= SIGMAS * error, name
    assert abs(np.mean(used) - row.images) <= SIGMAS * max(np.std(used) / math.sqrt(runs), 1e-9)


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.05])
@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
def test_simulated_gates_with_checks_that_err_agree_with_the_exact_plan(
    rate: float, mode: Literal["anytime", "calibrated"]
) -> None:
    checks, alarms = (planted(0.93, 300),), Sensitivity("any", 0, 0, 6, 1_000)
    policy = Policy(failure=FailureRule(mode=mode), sampling=Sampling(cases=600, shard_size=40))
    played = simulate(prepare(policy, traffic(rate), checks, alarms), 20_000, seed=2)
    row = expect(plan_of(policy, 600, 40, checks=checks, alarms=alarms), rate)
    for code, odds in ((PROMOTE, row.promote), (ROLLBACK, row.rollback), (HOLD, row.hold)):
        error = math.sqrt(max(odds * (1 - odds), 1 / played.runs) / played.runs)
        assert abs(played.count(code) / played.runs - odds) <= SIGMAS * error
    assert abs(played.images.mean() - row.images) <= SIGMAS * played.images.std() / math.sqrt(
        20_000
    )


def test_checks_that_err_make_a_promotion_dearer() -> None:
    policy = Policy()
    perfect = expect(plan_of(policy, 5_000, 12), 0.01).images
    missing = (planted(0.95, 2_000),)
    dearer = expect(plan_of(policy, 5_000, 12, checks=missing), 0.01).images
    accused = plan_of(policy, 5_000, 12, checks=missing, alarms=Sensitivity("any", 0, 0, 8, 1_700))
    assert perfect < dearer < expect(accused, 0.01).images
