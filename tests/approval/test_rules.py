from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.approval.rules import (
    Approval,
    decided,
    is_whole,
    may_decide,
    needed,
    outcome,
    person,
    sentence,
    unasked,
    waits,
)
from tasks.mix.freeze import stamp
from tasks.policy import ApprovalRule, Policy
from tasks.records import Accounts, ArmMetrics, Metrics, Rate, Verdict, VerdictName
from tests.approval.conftest import NOW, PROMOTE, RUN

HOLD = Verdict(verdict="HOLD", reasons=("Not proven.",), warnings=("Look.",))
ROLLBACK = Verdict(verdict="ROLLBACK", reasons=("9 % failed.",))
RATE = Rate(estimate=0.0, lower=0.0, upper=0.1, n=40, failures=0)


def arm(name: Any, cost: float | None) -> ArmMetrics:
    return ArmMetrics(
        arm=name,
        mix_digest="sha256:0",
        images=40,
        failure_rate=RATE,
        accounts=Accounts(defect=0, refused=0, undelivered=0, unmeasured=0),
        right_refusals=0,
        text_unjudged=0,
        text_cases=0,
        spend_usd=1.0,
        cost_per_1k_usd=cost,
        effective_cost_per_1k_usd=cost,
        latency_p50_s=1.0,
        latency_p95_s=1.0,
        latency_p99_s=1.0,
        ttfb_p50_s=None,
        ttfb_p95_s=None,
        retries_per_image=0.0,
    )


def costs(before: float | None, after: float | None) -> Metrics:
    return Metrics(
        candidate=arm("candidate", after),
        baseline=arm("baseline", before),
        slices=(),
        forecast_usd_per_month=None,
        baseline_forecast_usd_per_month=None,
    )


def approval(**changes: Any) -> Approval:
    fields: dict[str, Any] = {
        "run_id": RUN,
        "product": "shop",
        "status": "pending",
        "asked_because": "The policy asks.",
        "requester": "Ada@laptop",
        "requested_at": stamp(NOW),
        "expires_at": stamp(NOW + timedelta(hours=24)),
        "verdict": PROMOTE,
        "rules": ApprovalRule(require=("always",)),
    }
    return Approval(**(fields | changes))


def answered(status: str, **changes: Any) -> Approval:
    fields = {
        "status": status,
        "decided_by": "Grace",
        "decided_at": stamp(NOW),
        "decided_via": "command",
        "reason": "seen with the brand team",
    }
    return approval(**(fields | changes))


REQUIRE = st.lists(st.sampled_from(["always", "hold", "cost_rise"]), unique=True).map(tuple)
COST = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(require=REQUIRE, before=COST, after=COST, complete=st.booleans())
def test_a_rollback_never_waits(
    require: Any, before: float | None, after: float | None, complete: bool
) -> None:
    rule = ApprovalRule(require=require)
    assert needed(rule, ROLLBACK, costs(before, after), complete=complete) is None


@given(complete=st.booleans(), verdict=st.sampled_from([PROMOTE, HOLD]))
def test_by_default_nobody_is_asked(complete: bool, verdict: Verdict) -> None:
    assert needed(ApprovalRule(), verdict, costs(None, None), complete=complete) is None


@given(require=REQUIRE, before=COST, after=COST)
def test_a_hold_that_is_not_whole_is_nobodys_to_wave_through(
    require: Any, before: float | None, after: float | None
) -> None:
    rule = ApprovalRule(require=require)
    assert needed(rule, HOLD, costs(before, after), complete=False) is None
    asked = needed(rule, HOLD, costs(before, after), complete=True)
    assert (asked is not None) == ("hold" in require)


@given(require=REQUIRE)
def test_always_means_every_promotion(require: Any) -> None:
    asked = needed(ApprovalRule(require=require), PROMOTE, costs(10.0, 1.0), complete=True)
    assert (asked is not None) == ("always" in require)


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        (40.0, 44.0, False),
        (40.0, 44.01, True),
        (40.0, 20.0, False),
        (0.0, 0.0, False),
        (0.0, 0.01, True),
        (None, 20.0, True),
        (40.0, None, True),
        (math.nan, 20.0, True),
        (40.0, math.nan, True),
        (math.inf, 20.0, True),
        (40.0, -1.0, True),
        (-1.0, 0.0, True),
    ],
)
def test_a_rise_in_cost_asks_and_an_unknown_cost_has_risen(
    before: float | None, after: float | None, asked: bool
) -> None:
    rule = ApprovalRule(require=("cost_rise",), cost_rise=0.10)
    found = needed(rule, PROMOTE, costs(before, after), complete=True)
    assert (found is not None) == asked
    if asked and before == 40.0 and after == 44.01:
        assert found is not None
        assert "$40.00 to $44.01" in found
        assert "10 %" in found


@pytest.mark.parametrize(
    "gap",
    [
        {"planned": 0, "finished": 0, "baseline_finished": 0},
        {"finished": 11},
        {"baseline_finished": 11},
        {"stopped": "the cap is reached"},
        {"unmeasured": 1},
        {"unanswered": 1},
    ],
)
def test_one_gap_makes_a_run_not_whole(gap: dict[str, Any]) -> None:
    whole: dict[str, Any] = {
        "planned": 12,
        "finished": 12,
        "baseline_finished": 12,
        "stopped": None,
        "unmeasured": 0,
        "unanswered": 0,
    }
    assert is_whole(**whole)
    assert not is_whole(**(whole | gap))


def test_a_hold_says_why_nobody_is_asked() -> None:
    told = unasked(ApprovalRule(require=("hold",)), HOLD)
    assert "not whole" in told.warnings[-1]
    assert unasked(ApprovalRule(), HOLD) == HOLD
    assert unasked(ApprovalRule(require=("hold",)), ROLLBACK) == ROLLBACK


@pytest.mark.parametrize(
    "name",
    ["ada", "Ada", " ADA ", "ada@host", "Ada@host.example", "@ada", "ＡＤＡ", "a\u200bda", "Ada\n"],
)
def test_one_person_by_many_names(name: str) -> None:
    assert person(name) == "ada"


@pytest.mark.parametrize(
    "name",
    [
        "ada \x1b lovelace",
        "ada\u2060 lovelace",
        "ada\ufe0f lovelace",
        "a\u034fda lovelace",
        "Ada\u00a0Lovelace\u3164",
        "ada \r\x85 lovelace@host",
        "\U000e0041ada lovelace",
    ],
)
def test_what_nobody_sees_makes_no_second_person(name: str) -> None:
    assert person(name) == "ada lovelace"


def test_other_names_are_other_people() -> None:
    assert (
        len({person(n) for n in ("ada", "ada lovelace", "grace", "adah", "straße", "strasse")}) == 5
    )
    assert person("Ada  Lovelace@x") == person("ada lovelace")
    for nothing in ("", " ", "@", "\u200b", "@@host"):
        assert person(nothing) in ("", "host")


@given(name=st.text(max_size=30), host=st.text(max_size=10))
def test_a_host_makes_no_other_person(name: str, host: str) -> None:
    plain = person(name)
    assert person(plain) == plain
    assert person(person(name.upper())) == person(name.upper())
    if plain:
        assert person(f"{plain}@{host}") == plain


@given(
    by=st.sampled_from(["Ada", "ada@elsewhere", "@ADA"]),
    own=st.booleans(),
)
def test_the_requester_may_approve_only_when_the_policy_says_so(by: str, own: bool) -> None:
    asked = approval(rules=ApprovalRule(require=("always",), requester_may_approve=own))
    refusal = may_decide(asked, decision="approved", by=by, reason="fine", now=NOW)
    assert (refusal is None) == own
    if refusal is not None:
        assert "second person" in refusal
        assert "2026-11-26 12:00 UTC" in refusal
    # Withdrawing one's own run is always possible.
    assert may_decide(asked, decision="rejected", by=by, reason="no", now=NOW) is None


def test_only_those_in_the_list_may_decide() -> None:
    rules = ApprovalRule(require=("always",), approvers=("Grace", "Ada"))
    asked = approval(rules=rules)
    assert may_decide(asked, decision="approved", by="grace@x", reason="ok", now=NOW) is None
    refusal = may_decide(asked, decision="approved", by="linus", reason="ok", now=NOW)
    assert refusal is not None
    # Ada asked for the run: she is in the list and still may not.
    assert "Grace" in refusal
    assert "Ada" not in refusal.replace(RUN, "")
    assert may_decide(asked, decision="rejected", by="linus", reason="ok", now=NOW) is not None
    assert may_decide(asked, decision="approved", by="ada", reason="ok", now=NOW) is not None
    alone = approval(rules=ApprovalRule(require=("always",), approvers=("Ada",)))
    refusal = may_decide(alone, decision="approved", by="ada", reason="ok", now=NOW)
    assert refusal is not None
    assert "Nobody else" in refusal


@pytest.mark.parametrize(("by", "reason"), [("", "ok"), (" @ ", "ok"), ("grace", " "), ("", "")])
def test_an_answer_without_name_or_reason_is_none(by: str, reason: str) -> None:
    assert may_decide(approval(), decision="approved", by=by, reason=reason, now=NOW) is not None


def test_the_last_moment_is_too_late() -> None:
    end = NOW + timedelta(hours=24)
    early = end - timedelta(milliseconds=1)
    assert may_decide(approval(), decision="approved", by="grace", reason="ok", now=early) is None
    late = may_decide(approval(), decision="approved", by="grace", reason="ok", now=end)
    assert late is not None
    assert "expired at 2026-11-26 12:00 UTC" in late


@pytest.mark.parametrize("status", ["approved", "rejected", "expired"])
def test_what_is_decided_stays(status: str) -> None:
    refusal = may_decide(answered(status), decision="approved", by="kim", reason="x", now=NOW)
    assert refusal is not None
    assert "decided already" in refusal
    assert "seen with the brand team" in refusal


def test_while_it_waits_it_is_a_hold_with_the_commands() -> None:
    made = decided(PROMOTE, approval())
    assert made.verdict == "HOLD"
    assert f"imagegate approve {RUN}" in made.reasons[0]
    assert f"imagegate reject {RUN}" in made.reasons[0]
    assert made.reasons[1:] == PROMOTE.reasons
    assert waits(approval())
    assert not waits(answered("approved"))
    assert not waits(None)


def test_an_approval_promotes_and_stands_in_the_reasons() -> None:
    made = decided(PROMOTE, answered("approved"))
    assert made.verdict == "PROMOTE"
    assert made.reasons[0] == PROMOTE.reasons[0]
    assert "Approved by Grace" in made.reasons[-1]
    assert "seen with the brand team" in made.reasons[-1]


def test_a_hold_overruled_says_so_first_and_keeps_the_machines_reasons() -> None:
    made = decided(HOLD, answered("approved", verdict=HOLD))
    assert made.verdict == "PROMOTE"
    assert made.reasons[0].startswith("Approved by Grace")
    assert "although the machine holds: Not proven." in made.reasons[0]
    assert "Not proven." in made.reasons[1:]
    assert made.warnings == HOLD.warnings


@pytest.mark.parametrize("status", ["rejected", "expired"])
@pytest.mark.parametrize("verdict", [PROMOTE, HOLD])
def test_no_and_silence_promote_nothing(status: str, verdict: Verdict) -> None:
    made = decided(verdict, answered(status, verdict=verdict))
    assert made.verdict == "HOLD"
    assert made.reasons[0].startswith("Not promoted: ")
    assert "seen with the brand team" in made.reasons[0]


@pytest.mark.parametrize(("about", "now"), [(PROMOTE, HOLD), (HOLD, PROMOTE)])
def test_an_approval_counts_for_the_verdict_it_was_about(about: Verdict, now: Verdict) -> None:
    made = decided(now, answered("approved", verdict=about))
    assert made.verdict == "HOLD"
    assert "that was about" in made.reasons[0]


NAMES: list[VerdictName] = ["PROMOTE", "HOLD"]


@given(
    status=st.sampled_from(["pending", "approved", "rejected", "expired"]),
    about=st.sampled_from(NAMES),
    now=st.sampled_from(NAMES),
)
def test_only_an_approval_of_the_same_verdict_promotes(
    status: str, about: VerdictName, now: VerdictName
) -> None:
    asked = answered(status, verdict=Verdict(verdict=about, reasons=("a",)))
    made = decided(Verdict(verdict=now, reasons=("a",)), asked)
    assert (made.verdict == "PROMOTE") == (status == "approved" and about == now)


def test_the_report_tells_question_and_answer() -> None:
    told = sentence(answered("rejected"))
    for word in ("The policy asks.", "PROMOTE", "Ada@laptop", "rejected by Grace", "brand team"):
        assert word in told
    assert "waits for a person" in sentence(approval())
    silent = answered("expired", decided_via="expiry", reason="nobody decided.")
    assert "not approved" in sentence(silent)
    assert "Grace" not in outcome(silent)


@pytest.mark.parametrize(
    "text",
    [
        {"require": ["sometimes"]},
        {"cost_rise": -0.1},
        {"cost_rise": math.nan},
        {"expires_hours": 0},
        {"expires_hours": 24 * 91},
        {"approvers": ["ada", " "]},
        {"approver": ["ada"]},
    ],
)
def test_a_wrong_rule_is_refused(text: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApprovalRule(**text)


def test_a_policy_that_asks_nobody_keeps_the_digest_it_had() -> None:
    # Taken before policies had the section: old evidence names this digest.
    assert Policy().digest == (
        "sha256:9bd4cdf548d1e12c3b70f31d1d854654dee1c129e62e2755f6c13e21be67c6af"
    )
    asks = Policy(approval=ApprovalRule(require=("always",)))
    assert asks.digest != Policy().digest
    assert Policy.model_validate_json(asks.model_dump_json()) == asks
    assert Policy.model_validate_json(Policy().model_dump_json()) == Policy()
