"""The tests behind a verdict: who needs which proof, and what each rests on."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy.stats import binom

from tasks.check_rules import CheckRules
from tasks.policy import FailureRule, Limit, PairedRule, Policy, SliceRule
from tasks.records import (
    Accounts,
)
from tasks.verdict import decide
from tasks.verdict.boundaries import HEADLINE_SHARE, raised
from tasks.verdict.calibration import fail_error
from tasks.verdict.checkers import Sensitivity
from tests.verdict.test_decide import (
    CALIBRATED,
    STRICT_PAIRS,
    answer,
    gate,
    guard,
    named,
    paired,
    piece,
    said,
)

#: Allows for false alarms of the checks.
WARY = CheckRules(false_alarms="allow")


def test_the_margin_to_the_baseline_rolls_back_and_any_difference_is_a_warning() -> None:
    def verdict(worse: int, better: int = 0) -> tuple[str, tuple[str, ...]]:
        found = decide(gate(metrics=paired(worse, better)))
        return found.verdict, found.warnings

    assert verdict(0) == ("PROMOTE", ())
    assert verdict(5, 5) == ("PROMOTE", ())
    name, (warning,) = verdict(10)
    assert name == "PROMOTE"
    assert warning == (
        "The candidate is worse than the baseline: 10 of 240 paired cases failed only with the "
        "candidate, 0 only with the baseline."
    )
    assert verdict(40)[0] == "ROLLBACK"
    assert "more than 2 points above the baseline's: 40 of 240" in said(gate(metrics=paired(40)))


def test_pairs_that_were_lost_prove_nothing() -> None:
    """Were they left out, a broken check could hide where the candidate is worse."""
    lost = {"accounts": Accounts(defect=1, refused=0, undelivered=0, unmeasured=30)}
    whole = gate(metrics=paired(0), policy=STRICT_PAIRS, n=600)
    torn = gate(metrics=paired(0, 0, 570), policy=STRICT_PAIRS, n=600, candidate=lost)
    assert named(whole) == "PROMOTE"
    assert named(torn) == "HOLD"
    assert decide(torn).tests[1].images == 600
    against = gate(metrics=paired(40, 0, 210), candidate=lost)
    assert named(gate(metrics=paired(40, 0, 210))) == "ROLLBACK"
    assert named(against) == "PROMOTE"  # Thirty lost pairs might have been better ones.


def test_a_required_comparison_that_was_not_made_holds() -> None:
    assert named(gate()) == "PROMOTE"
    assert said(gate(policy=STRICT_PAIRS)).startswith(
        "HOLD\nIt is not proven that the candidate's failure rate is less than 2 points above the "
        "baseline's: no pair was judged."
    )


def test_guarded_limits_need_proof_for_a_rollback_and_others_the_end_of_the_plan() -> None:
    broken = answer("limits[0]", on_breach="rollback", success=False)
    policy = Policy(limits=(Limit(measure="latency_p95_s", max=2, on_breach="rollback"),))

    def verdict(**state: Any) -> str:
        return named(gate(policy=policy, expectations=(answer(), broken), **state))

    # One guard, one paired test: a quarter of alpha each, so log 80.
    at = math.log(4 / 0.05)
    assert verdict(guards=(guard(at - 1e-9),)) == "HOLD"
    assert verdict(guards=(guard(at + 1e-9),)) == "ROLLBACK"
    assert verdict(guards=(guard(at + 1e-9),), final=False) == "ROLLBACK"
    assert verdict(guards=(guard(math.nan),)) == "HOLD"
    # Not even where nobody brought the evidence is the figure a proof.
    assert verdict() == "HOLD"
    guarded_by_none = Limit(measure="latency_p95_ratio", max=2, on_breach="rollback")
    policy = Policy(limits=(guarded_by_none,))
    assert verdict() == "ROLLBACK"
    assert verdict(final=False) == "HOLD"
    # Cut short, the figure rests on however few images there were.
    assert verdict(stopped="Ctrl-C") == "HOLD"
    assert verdict(finished_cases=239) == "HOLD"
    text = said(gate(policy=policy, expectations=(answer(), broken), guards=(guard(9.0),)))
    assert "limits[0] is as it is; proven over 240 images, however often one looks." in text


def test_without_risk_left_nothing_is_promoted_and_bad_builds_are_rolled_back() -> None:
    critical = Policy(slices=SliceRule(critical=("locale=th",)), paired=PairedRule(required=True))
    state = {"beta_left": 0.0, "policy": critical, "metrics": paired(0, 0, 5000)}
    for slices in ((), (piece("locale=th", 0, 500),)):
        text = said(gate(0, 5000, slices=slices, **state))
        assert text.startswith("HOLD\nEarlier tests of this build used up the risk of a wrong PRO")
        assert "would decide" not in text
        assert "only known" not in text
        assert named(gate(0, 5000, slices=slices, **(state | {"policy": CALIBRATED}))) == "HOLD"
    assert named(gate(29, beta_left=0.0)) == "ROLLBACK"


def test_less_risk_left_needs_more_images_and_is_told() -> None:
    assert named(gate(1)) == "PROMOTE"
    text = said(gate(1, beta_left=0.012))
    assert text.startswith("HOLD")
    assert "with 98.8 % confidence it is only known that fewer than 3.6 % fail" in text
    promoted = said(gate(1, 1000, beta_left=0.012))
    assert "with 98.8 % confidence fewer than" in promoted
    for wrong in (-0.01, 0.06, math.nan):
        with pytest.raises(ValueError, match=r"beta must be 0 to 0\.05"):
            decide(gate(beta_left=wrong))


@pytest.mark.parametrize(("found", "planted"), [(0, 0), (0, 300), (10, 40), (8, 8 * 2)])
def test_a_check_that_misses_what_was_planted_holds(found: int, planted: int) -> None:
    checks = (Sensitivity("layout.box", 299, 300), Sensitivity("typography.text", found, planted))
    text = said(gate(0, 5000, checks=checks))
    assert text.startswith(f"HOLD\nCheck typography.text is blind: it found {found} of {planted} ")
    assert "would decide" not in text
    assert "layout.box" not in text
    assert named(gate(29, checks=checks)) == "ROLLBACK"


def test_every_proof_for_promote_is_about_what_the_checks_can_see() -> None:
    checks = (Sensitivity("typography.text", 240, 300),)
    policy = Policy(
        slices=SliceRule(critical=("locale=th",)), paired=PairedRule(required=True, margin=0.05)
    )

    def tests(**state: Any) -> list[Any]:
        slices = (piece("locale=th", 0, 40),)
        return list(
            decide(
                gate(0, 400, slices=slices, policy=policy, metrics=paired(0, 0, 400), **state)
            ).tests
        )

    for seeing, plain in zip(tests(checks=checks), tests(), strict=True):
        assert 0.7 < seeing.below / plain.below < 0.8
        assert seeing.pass_at > plain.pass_at
        assert seeing.log_e_pass < plain.log_e_pass
        assert plain.upper < seeing.upper < 1
        # Evidence against the candidate is that of flags that are there.
        assert (seeing.log_e_fail, seeing.fail_at) == (plain.log_e_fail, plain.fail_at)
    # The end that is told and the proof agree.
    for n in range(100, 260, 3):
        headline = decide(gate(0, n, checks=checks)).tests[0]
        assert headline.passed == (headline.upper <= 0.03)


def test_false_alarms_raise_every_limit_on_what_the_checks_say_and_no_other() -> None:
    """2 of 300 good pictures flagged: a measured rate just above the limit is no proof."""
    alarms = Sensitivity("any check", 0, 0, 2, 300)
    policy = Policy(
        slices=SliceRule(critical=("locale=th",)),
        paired=PairedRule(required=True, margin=0.05),
        checks=WARY,
    )
    state = {"slices": (piece("locale=th", 6, 40),), "metrics": paired(3, 0, 400)}
    state |= {"policy": policy, "judged": ("locale=th",)}
    plain, wary = (
        {t.name: t for t in decide(gate(30, 400, **state, **more)).tests}
        for more in ({}, {"alarms": alarms})
    )
    bound = alarms.alarms_upper(0.05 / 10)
    headline, of_slice = wary["failure_rate"], wary["locale=th"]
    assert headline.limit == pytest.approx(0.02 + 0.98 * bound)
    assert of_slice.limit == pytest.approx(0.10 + 0.90 * bound)
    for name in ("failure_rate", "locale=th"):
        assert wary[name].log_e_fail < plain[name].log_e_fail
        assert wary[name].fail_at > plain[name].fail_at
        # What is promoted is proven as before.
        assert (wary[name].below, wary[name].log_e_pass) == (
            plain[name].below,
            plain[name].log_e_pass,
        )
    # Both arms have the same false alarms: their difference needs no allowance.
    assert wary["paired"].limit == plain["paired"].limit
    assert wary["paired"].log_e_fail == plain["paired"].log_e_fail
    assert headline.lower < plain["failure_rate"].lower


def test_a_rollback_tells_of_true_failures_at_the_risk_of_test_and_bound() -> None:
    alarms = Sensitivity("any check", 0, 0, 10, 1000)
    for failures in range(8, 60):
        verdict = decide(gate(failures, 240, policy=Policy(checks=WARY), alarms=alarms))
        headline = verdict.tests[0]
        # The end that is told and the proof agree.
        assert headline.failed == (headline.lower >= 0.02)
        if headline.failed:
            assert "fail with 97.25 % confidence" in verdict.reasons[0]
    wary = Policy(checks=WARY)
    assert named(gate(60, 240, policy=wary, alarms=alarms)) == "ROLLBACK"
    # Without good pictures shown to the checks, flags prove nothing.
    none = Sensitivity("any check", 0, 0)
    assert named(gate(240, 240, policy=wary, alarms=none)) == "HOLD"


def test_the_policy_says_whether_the_worst_check_sets_the_boundary() -> None:
    checks = (Sensitivity("text", 19, 20), Sensitivity("layout", 990, 1000))
    below = [
        decide(gate(0, 240, policy=Policy(checks=CheckRules(sensitivity=kind)), checks=checks))
        .tests[0]
        .below
        for kind in ("mixed", "worst")
    ]
    assert below[1] < 0.75 * 0.03 < 0.95 * 0.03 < below[0] < 0.03


def test_by_default_flags_count_as_they_stand() -> None:
    for failures in range(0, 60, 3):
        plain, told = (
            decide(gate(failures, 240, alarms=alarms))
            for alarms in (None, Sensitivity("any check", 0, 0, 30, 100))
        )
        assert plain == told
    assert Policy().model_dump() == Policy(checks=CheckRules(false_alarms="confirm")).model_dump()
    assert "checks" not in Policy().model_dump()
    assert Policy(checks=WARY).model_dump()["checks"]["false_alarms"] == "allow"


def test_limits_that_are_raised_above_promote_below_are_no_error() -> None:
    alarms = Sensitivity("any check", 0, 0, 10, 200)
    checks = (Sensitivity("layout.box", 299, 300),)
    for mode in ("anytime", "calibrated"):
        policy = Policy(failure=FailureRule(limit=0.03, promote_below=0.03, mode=mode), checks=WARY)
        assert named(gate(0, 240, policy=policy, checks=checks, alarms=alarms)) == "PROMOTE"
        assert named(gate(60, 240, policy=policy, checks=checks, alarms=alarms)) == "ROLLBACK"


def test_what_is_not_known_of_the_checks_holds_what_would_be_promoted() -> None:
    why = "2 of 10 drawings were not judged: the check process died by signal 9"
    text = said(gate(0, 5000, unseen=why))
    assert text.startswith(f"HOLD\nIt is not known what the checks see today: {why}. Resume the")
    assert "would decide" not in text
    assert named(gate(60, unseen=why)) == "ROLLBACK"


@pytest.mark.parametrize("alarms", [0.0, 0.004, 0.02])
@pytest.mark.parametrize("clean", [100, 1000])
def test_a_build_at_the_limit_is_rolled_back_at_the_promised_risk(
    alarms: float, clean: int
) -> None:
    """Exact, over what the good pictures may show and over all looks at 400 images."""
    limit, alpha, most = 0.02, 0.05, 400
    flagged = limit + (1 - limit) * alarms
    risk = 0.0
    for seen in range(clean + 1):
        chance = binom.pmf(seen, clean, alarms)
        if chance < 1e-7:
            continue
        policy, _ = raised(Policy(checks=WARY), Sensitivity("any check", 0, 0, seen, clean))
        at = -math.log(policy.failure.alpha * HEADLINE_SHARE)
        risk += chance * fail_error(policy.failure.limit, at, most, flagged)
    assert risk <= alpha * HEADLINE_SHARE + alpha / 10
