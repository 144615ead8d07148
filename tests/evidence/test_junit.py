"""JUnit XML: every verdict reads as what it is, in a reader of JUnit, whatever is written in it."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from tasks.evidence.ci_cases import CiCase, CiFacts, broken, ci_cases
from tasks.evidence.junit import gate_junit, junit_xml
from tasks.metrics.rates import rate
from tasks.policy import FailureRule, Policy, SliceRule
from tasks.records import (
    Accounts,
    Arm,
    ArmMetrics,
    ExpectationResult,
    Metrics,
    Paired,
    Savings,
    Slice,
    Verdict,
    VerdictName,
)
from tasks.verdict.decide import GateState, decide
from tasks.verdict.drawing import slices_of_plan
from tasks.verdict.guards import GuardEvidence

AT = "2026-09-14T10:01:30.000Z"


def facts_of_view(view: object, **changes: object) -> CiFacts:
    """Return what CI is told of a view of the builders."""
    plan, metrics = view.plan, view.metrics  # type: ignore[attr-defined]
    findings: dict[str, dict[str, int]] = {}
    for (arm, _), report in view.reports.items():  # type: ignore[attr-defined]
        for finding in report.findings:
            if arm == "candidate":
                counts = findings.setdefault(finding.check, {})
                counts[finding.verdict] = counts.get(finding.verdict, 0) + 1
    facts = CiFacts(
        run_id=plan.run_id,
        product=plan.product,
        candidate=plan.candidate.mix.name,
        baseline=plan.baseline.mix.name,
        policy=plan.policy,
        metrics=metrics,
        verdict=view.verdict,  # type: ignore[attr-defined]
        expectations=view.expectations,  # type: ignore[attr-defined]
        findings=findings,
        incomplete=False,
        spend_usd=3.25,
        seconds=61.5,
        digests={"policy": "sha256:ab", "candidate": "sha256:cd"},
        report="/runs/x/report.html",
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def judged(view: object) -> CiFacts:
    """Return the facts with the verdict that the real decision gives to the view's figures."""
    facts = facts_of_view(view)
    places = (f"limits[{max(0, i - 1)}]" for i in range(len(facts.expectations)))
    answered = [
        e.model_copy(update={"source": s}) for e, s in zip(facts.expectations, places, strict=False)
    ]
    facts = replace(facts, expectations=answered)
    verdict = decide(
        GateState(
            policy=facts.policy,
            metrics=facts.metrics,
            expectations=tuple(facts.expectations),
            planned_cases=facts.metrics.candidate.images,
            drawn_cases=facts.metrics.candidate.images,
            finished_cases=facts.metrics.candidate.images,
            baseline_finished=facts.metrics.baseline.images,
            judged=slices_of_plan(view.plan),  # type: ignore[attr-defined]
        )
    )
    return replace(facts, verdict=verdict)


def read(document: bytes) -> JUnitXml:
    """Read the document and check that every count is what its cases say."""
    found = JUnitXml.fromstring(document)
    assert isinstance(found, JUnitXml)
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    names = set()
    for suite in found:
        assert isinstance(suite, TestSuite)
        counted = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        seconds = 0.0
        for case in suite:
            assert (case.classname, case.name) not in names
            names.add((case.classname, case.name))
            counted["tests"] += 1
            seconds += case.time
            assert len(case.result) <= 1
            for result in case.result:
                counted[
                    {Failure: "failures", Error: "errors", Skipped: "skipped"}[type(result)]
                ] += 1
        for name, count in counted.items():
            assert getattr(suite, name) == count, (suite.name, name)
            total[name] += count
        assert suite.time == pytest.approx(seconds)
    for name, count in total.items():
        assert getattr(found, name) == count
    return found


def outcomes(found: JUnitXml) -> tuple[int, int]:
    return found.failures, found.errors


def test_a_rollback_has_failures_with_figures(builders: ModuleType) -> None:
    facts = judged(builders.a_view(cases=240, candidate=builders.BROKEN))
    assert facts.verdict.verdict == "ROLLBACK"
    found = read(gate_junit(facts, AT))
    assert found.failures >= 2
    by_name = {case.name: case for suite in found for case in suite}
    headline = by_name["failure rate"].result[0]
    assert isinstance(headline, Failure)
    assert " of 240" in headline.message
    assert " to " in headline.message
    assert "baseline:" in headline.text
    slices = [c for suite in found for c in suite if suite.name == "imagegate.slices"]
    assert {c.name for c in slices} == {
        f"{p.dimension}={p.value}"
        for p in facts.metrics.slices
        if p.dimension != "check" and p.arm == "candidate"
    }
    checks = {c.name for suite in found for c in suite if suite.name == "imagegate.checks"}
    assert {"typography.glyphs", "colour.cast", "delivery.refused"} & checks
    assert set(facts.findings) <= checks
    suite = next(iter(found))
    told = {p.name: p.value for p in suite.properties()}
    assert told["verdict"] == "ROLLBACK"
    assert told["digest.policy"] == "sha256:ab"
    assert told["spend_usd"] == "3.250000"
    assert suite.timestamp == AT[:19]


def test_a_promotion_is_green_and_keeps_its_warnings(builders: ModuleType) -> None:
    # 600 cases: below 3 % is proven, and a slice of text is too.
    facts = judged(builders.a_view(cases=600))
    assert facts.verdict.verdict == "PROMOTE", facts.verdict.reasons
    found = read(gate_junit(facts, AT))
    assert outcomes(found) == (0, 0)
    warned = next(c for s in found for c in s if c.name.startswith("text_unjudged_rate"))
    assert isinstance(warned.result[0], Skipped)
    assert "warning only" in warned.result[0].message


def test_a_hold_is_red_by_its_missing_proofs(builders: ModuleType) -> None:
    facts = judged(builders.a_view(cases=30))
    assert facts.verdict.verdict == "HOLD", facts.verdict.reasons
    found = read(gate_junit(replace(facts, incomplete=True), AT))
    assert found.failures == 0
    named = {c.name for s in found for c in s if any(isinstance(r, Error) for r in c.result)}
    assert {"verdict", "failure rate", "all cases finished", "subtask=typography"} <= named
    few = [c for s in found for c in s if any(r.type == "too_few_images" for r in c.result)]
    assert few


def test_a_promotion_that_people_stopped_is_a_hold(builders: ModuleType) -> None:
    facts = judged(builders.a_view(cases=600))
    frozen = Verdict(verdict="HOLD", reasons=("The figures allow it, but it is frozen.",))
    found = read(gate_junit(replace(facts, verdict=frozen), AT))
    assert outcomes(found) == (0, 1)


def test_a_gate_that_broke_is_one_error() -> None:
    cases = broken("the disk is full; free space", "EvidenceError")
    found = read(junit_xml(cases, properties={}, seconds=1.5, timestamp=AT))
    assert outcomes(found) == (0, 1)
    (case,) = [case for suite in found for case in suite]
    assert case.result[0].type == "EvidenceError"
    assert "free space" in case.result[0].message


def test_a_checker_fault_is_an_error_unless_the_policy_let_it_pass(builders: ModuleType) -> None:
    facts = facts_of_view(builders.a_view(cases=60))
    facts = replace(facts, findings={"typography.text": {"fault": 2, "pass": 40}})
    name = "typography.text"

    def of(verdict: Verdict) -> CiCase:
        found = ci_cases(replace(facts, verdict=verdict))
        return next(c for c in found if c.name == name and c.suite == "checks")

    held = of(Verdict(verdict="HOLD", reasons=("too little",)))
    assert (held.outcome, held.kind) == ("error", "checker_fault")
    promoted = of(Verdict(verdict="PROMOTE", reasons=("good",)))
    assert promoted.outcome == "passed"
    assert "broke on 2" in promoted.sentence


def test_a_critical_slice_without_a_case_is_an_error(builders: ModuleType) -> None:
    facts = facts_of_view(builders.a_view(cases=60))
    policy = facts.policy.model_copy(update={"slices": SliceRule(critical=("locale=th",))})
    facts = replace(facts, policy=policy, verdict=Verdict(verdict="HOLD", reasons=("no case",)))
    found = {c.name: c for c in ci_cases(facts) if c.suite == "slices"}
    assert found["locale=th"].outcome == "error"
    assert found["locale=th"].kind == "not_covered"


@pytest.mark.parametrize(
    "text", ["\x00\x07\x1b[31m", "]]>", "\ud800", "\uffff\ufffe", "\u202e", "\x85"]
)
def test_hostile_text_stays_xml_and_text(text: str, builders: ModuleType) -> None:
    evil = f"{text}</failure><testcase name='x'/>&lt;"
    facts = facts_of_view(builders.a_view(cases=20), candidate=evil, product=evil)
    verdict = Verdict(verdict="ROLLBACK", reasons=(evil,), warnings=(evil,))
    facts = replace(facts, verdict=verdict, findings={evil: {"fault": 1}}, digests={evil: evil})
    document = gate_junit(facts, AT)
    found = read(document)
    assert {s.name for s in found} <= {
        f"imagegate.{n}" for n in ("verdict", "slices", "checks", "expectations")
    }
    assert "</failure>" in next(iter(next(iter(found)))).result[0].message
    assert "\x1b" not in document.decode()


@given(st.text(max_size=60))
def test_any_text_is_read_back(text: str) -> None:
    document = junit_xml(broken(text, "x"), properties={text: text}, seconds=0, timestamp=AT)
    root = ET.fromstring(document)  # noqa: S314 - our own document
    assert root.get("errors") == "1"
    assert len(root.findall(".//testcase")) == 1


def arm(name: Arm, failures: int, n: int, unmeasured: int) -> ArmMetrics:
    return ArmMetrics(
        arm=name,
        mix_digest="sha256:x",
        images=n,
        failure_rate=rate(failures, n, unmeasured=unmeasured),
        accounts=Accounts(defect=failures, refused=0, undelivered=0, unmeasured=unmeasured),
        right_refusals=0,
        text_unjudged=0,
        text_cases=n,
        spend_usd=1.0,
        cost_per_1k_usd=17.0,
        effective_cost_per_1k_usd=17.5,
        latency_p50_s=0.5,
        latency_p95_s=1.0,
        latency_p99_s=1.5,
        ttfb_p50_s=0.3,
        ttfb_p95_s=0.6,
        retries_per_image=0.0,
    )


@st.composite
def gates(draw: st.DrawFn) -> tuple[GateState, dict[str, dict[str, int]]]:
    """Draw what a gate can have measured, from nothing to much, good and bad, early and late."""
    n = draw(st.integers(0, 400))
    failures = draw(st.integers(0, n // draw(st.sampled_from([1, 10, 60]))))
    unmeasured = draw(st.integers(0, min(3, n - failures)))
    pieces = []
    for dimension, value in (("subtask", "typography"), ("locale", "th"), ("check", "colour.cast")):
        size = draw(st.integers(0, n))
        bad = draw(st.integers(0, size // draw(st.sampled_from([1, 20]))))
        pieces.append(
            Slice(arm="candidate", dimension=dimension, value=value, rate=rate(bad, size))
        )
    results = tuple(
        ExpectationResult(
            name="n",
            source=f"limits[{i}]",
            on_breach=breach,
            success=ok and not unknown,
            unmeasured=unknown,
            sentence="It is so.",
        )
        for i, (breach, ok, unknown) in enumerate(
            draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(["rollback", "hold", "warn"]),
                        st.sampled_from([True, True, True, False]),
                        st.sampled_from([False, False, True]),
                    ),
                    min_size=1,
                    max_size=3,
                )
            )
        )
    )
    policy = Policy(
        name="p",
        failure=FailureRule(limit=0.02, promote_below=0.05),
        slices=SliceRule(critical=draw(st.sampled_from([(), ("subtask=typography",)]))),
    )
    early = draw(st.booleans())
    saved = Savings(planned=n + 48, decided=n, used=n + 24, images=72, usd=1.5)
    state = GateState(
        policy=policy,
        metrics=Metrics(
            candidate=arm("candidate", failures, n, unmeasured),
            baseline=arm("baseline", 0, n, 0),
            slices=tuple(pieces),
            paired=Paired(
                pairs=n - unmeasured,
                candidate_only=draw(st.integers(0, failures)),
                baseline_only=0,
            ),
            forecast_usd_per_month=1.0,
            baseline_forecast_usd_per_month=1.0,
        ),
        expectations=results,
        planned_cases=max(1, n) + 48 * early,
        drawn_cases=n,
        finished_cases=n,
        baseline_finished=n,
        final=not early,
        judged=draw(st.sampled_from([(), ("locale=th",), ("locale=th", "subtask=typography")])),
        guards=draw(
            st.sampled_from(
                [
                    (),
                    *(
                        (GuardEvidence(source="limits[0]", limit=1.0, images=n, log_e_fail=e),)
                        for e in (0.0, 9.0)
                    ),
                ]
            )
        ),
        savings=saved if early else None,
    )
    return state, {"colour.cast": {"fault": draw(st.integers(0, 2))}}


def cases_of(
    state: GateState, findings: dict[str, dict[str, int]], verdict: Verdict
) -> tuple[CiCase, ...]:
    return ci_cases(
        CiFacts(
            run_id="r",
            product="p",
            candidate="c",
            baseline="b",
            policy=state.policy,
            metrics=state.metrics,
            verdict=verdict,
            expectations=state.expectations,
            findings=findings,
            incomplete=False,
            spend_usd=0.0,
            seconds=0.0,
        )
    )


@given(gates())
def test_the_file_is_green_exactly_when_the_gate_promotes(
    drawn: tuple[GateState, dict[str, dict[str, int]]],
) -> None:
    state, findings = drawn
    verdict = decide(state)
    cases = cases_of(state, findings, verdict)
    failures = sum(case.outcome == "failure" for case in cases)
    errors = sum(case.outcome == "error" for case in cases)
    if verdict.verdict == "PROMOTE":
        assert (failures, errors) == (0, 0)
    elif verdict.verdict == "ROLLBACK":
        # The verdict's own case aside, something that was measured says why.
        assert failures >= 2
    else:
        assert failures == 0
        assert errors >= 1


@given(gates(), st.sampled_from(["PROMOTE", "HOLD"]))
def test_a_person_who_overrules_the_machine_is_not_contradicted(
    drawn: tuple[GateState, dict[str, dict[str, int]]], said: VerdictName
) -> None:
    state, findings = drawn
    verdict = decide(state).model_copy(update={"verdict": said})
    outcomes = [case.outcome for case in cases_of(state, findings, verdict)]
    if said == "PROMOTE":
        assert not {"failure", "error"} & set(outcomes)
    else:
        assert "failure" not in outcomes
        assert "error" in outcomes
