"""Group findings and unrequested text: what they count as, and again from the stored tables."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from tasks.check_rules import CheckRules, ConsistencyRules
from tasks.checks.base import Expected
from tasks.checks.suite import check_picture
from tasks.context import RunContext
from tasks.expectations.groups import group_results
from tasks.metrics.stored import judged_again, reports_of
from tasks.metrics.tables import findings_frame, reports_frame
from tasks.metrics.task import Judged, judge_cases
from tasks.policy import Policy
from tasks.records import Arm, Case, Generation, ImageReport
from tests.checks.drawing import encoded, poster, scene
from tests.checks.test_groups import tinted

TEXTS = ("Fresh Bread", "Every Day", "Good Coffee")
CASES = [
    Case(case_id=t, prompt=t, subtask="typography", campaign="summer", expected_text=(t,))
    for t in TEXTS
]
CASES += [
    Case(case_id="odd", prompt="odd", subtask="typography", campaign="summer"),
    Case(case_id="wordy", prompt="wordy", subtask="typography", expected_text=("Good",)),
]


def pictures() -> dict[str, ImageReport]:
    images = {t: poster(t) for t in TEXTS}
    images["odd"] = tinted(poster("Closed"), 0.3, 0.5, 1.0)
    images["wordy"] = poster("Good", "Riddance")
    return {
        c.case_id: check_picture(
            encoded(images[c.case_id]), Expected(c.expected_text, grouped=c.campaign is not None)
        )
        for c in CASES
    }


@pytest.fixture(scope="module")
def reports() -> dict[tuple[Arm, str], ImageReport]:
    return {("candidate", case_id): report for case_id, report in pictures().items()}


GENERATIONS: dict[tuple[Arm, str], Generation] = {
    ("candidate", c.case_id): Generation(
        run_id="r", arm="candidate", mix_digest="d", case_id=c.case_id, seed=1, models=("m",),
        status="ok",
    )
    for c in CASES
}  # fmt: skip


def judged(reports: Any, rules: CheckRules, **how: bool) -> Judged:
    # Without pictures in a store nothing else of the run is looked at.
    context = cast("RunContext", SimpleNamespace(run_id="r"))
    return judge_cases(context, CASES, GENERATIONS, reports, rules, **how)


def ends(found: Judged) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {o.case_id: (o.outcome, o.reasons) for o in found.outcomes}


def rules(campaign: str = "warn", extra: str = "report") -> CheckRules:
    return CheckRules.model_validate({"consistency": {"campaign": campaign}, "extra_text": extra})


def test_severity_and_unrequested_text_are_kept(reports: Any) -> None:
    wordy = reports["candidate", "wordy"]
    assert (wordy.text_severity, wordy.extra_text) == (("exact",), ("Riddance",))
    assert len(wordy.extra_regions) == 1
    assert reports["candidate", "Every Day"].extra_text == ()


def test_by_default_a_stray_of_a_campaign_is_told_and_fails_nothing(reports: Any) -> None:
    found = judged(reports, CheckRules())
    assert set(ends(found).values()) == {("ok", ())}
    [told] = group_results(ConsistencyRules(), found.reports)
    assert (told.source, told.on_breach, told.success) == (
        "checks.consistency.campaign", "warn", False,
    )  # fmt: skip
    assert "1 of the candidate's 4 pictures stray from their campaign" in told.sentence
    assert "'odd'" in told.sentence
    assert ends(judged(reports, CheckRules(), told=False)) == ends(found)


def test_a_policy_can_hold_or_fail_the_picture_but_never_both(reports: Any) -> None:
    held = judged(reports, rules("hold"))
    assert ends(held)["odd"] == ("ok", ())
    assert [r.on_breach for r in group_results(rules("hold").consistency, held.reports)] == ["hold"]
    failed = judged(reports, rules("failure"), told=False)
    assert ends(failed)["odd"] == ("defect", ("consistency.campaign",))
    assert ends(failed)["Every Day"] == ("ok", ())
    assert list(group_results(rules("failure").consistency, failed.reports)) == []


def test_unrequested_text_fails_only_where_the_policy_says_so(reports: Any) -> None:
    assert ends(judged(reports, rules()))["wordy"] == ("ok", ())
    found = judged(reports, rules(extra="failure"))
    assert ends(found)["wordy"] == ("defect", ("typography.extra",))
    assert ends(found)["odd"] == ("ok", ())
    [finding] = [
        f for f in found.reports["candidate", "wordy"].findings if f.check == "typography.extra"
    ]
    assert finding.message == "text that nobody asked for: 'Riddance'"
    assert finding.region is not None


def test_a_policy_without_these_rules_has_the_digest_that_it_had() -> None:
    # As the first release computed it.
    assert "checks" not in Policy().model_dump()
    old = CheckRules.model_validate({"plugins": [{"name": "acme"}]})
    assert set(old.model_dump(mode="json")) == {
        "provenance", "trusted_signers", "signed_by", "plugins", "onnx",
    }  # fmt: skip
    assert CheckRules.model_validate(rules("hold", "failure").model_dump()) == rules(
        "hold", "failure"
    )


def through_parquet(frame: pd.DataFrame) -> pd.DataFrame:
    file = io.BytesIO()
    frame.to_parquet(file)
    return pd.read_parquet(file)


def test_stored_tables_give_the_findings_again_also_by_another_policy(reports: Any) -> None:
    first = judged(reports, rules("failure", "failure"))
    findings = findings_frame(
        ("r", *key, f) for key, report in first.reports.items() for f in report.findings
    )
    stored = reports_frame(("r", *key, report) for key, report in first.reports.items())
    back = reports_of(through_parquet(stored), through_parquet(findings))
    assert back == first.reports
    assert judged_again(CASES, back, rules("failure", "failure")) == first.reports
    by_default = judged_again(CASES, back, CheckRules())
    assert by_default == judged(reports, CheckRules()).reports
    with pytest.raises(ValueError, match="has findings and no report"):
        reports_of(stored.iloc[:0], findings)


def test_one_picture_for_many_prompts_is_a_defect_unless_the_policy_only_tells_it() -> None:
    same = check_picture(encoded(scene(seed=3)), Expected())
    twins: Any = {("candidate", c.case_id): same for c in CASES[:1]}
    twins |= {("candidate", "wordy"): same}
    assert ends(judged(twins, CheckRules()))["wordy"][1] == ("consistency.near_duplicate",)
    told = CheckRules(consistency=ConsistencyRules(near_duplicate="warn"))
    assert ends(judged(twins, told))["wordy"] == ("ok", ())
