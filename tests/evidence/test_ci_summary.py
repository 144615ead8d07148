"""The job summary and the annotations: the verdict first, and nothing foreign is obeyed."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evidence.ci_cases import CiFacts, ci_cases
from tasks.evidence.ci_summary import (
    MOST_ANNOTATIONS,
    broken_annotation,
    broken_summary,
    command,
    job_summary,
    plain,
    workflow_commands,
)
from tasks.records import ExpectationResult, Verdict

EVIL = (
    "\n::error::owned\r\n##[add-mask]x\n<img src=x onerror=alert(1)> [x](javascript:alert(1)) "
    "| cell | https://evil.example www.evil.example @channel `code`"
)
REASON = "12.1 % of 240 images failed; the policy rolls back above 2 %."


def unescaped(text: str) -> str:
    """Return what the runner makes of the escapes."""
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


@pytest.fixture(scope="module")
def facts(builders: ModuleType) -> CiFacts:
    view = builders.a_view(cases=240, candidate=builders.BROKEN)
    return CiFacts(
        run_id="20260914-100000-summer",
        product="storefront",
        candidate="summer",
        baseline="spring",
        policy=view.plan.policy,
        metrics=view.metrics,
        verdict=Verdict(
            verdict="ROLLBACK", reasons=(REASON, "colour.cast failed 9."), warnings=("few images",)
        ),
        expectations=view.expectations,
        findings={},
        incomplete=False,
        spend_usd=3.25,
        seconds=61.5,
        actions=("Production of storefront stays spring.",),
        report="https://gates.example/runs/x/report.html",
        candidate_file="deployments/mixes/summer.yaml",
    )


def test_the_summary_says_verdict_change_culprits_and_what_to_do(facts: CiFacts) -> None:
    text = job_summary(facts)
    assert text.splitlines()[0] == "## ⛔ ROLLBACK: summer for storefront"
    assert "| | before (spring) | after (summer) |" in text
    assert "### What speaks against it" in text
    told = [c for c in ci_cases(facts) if c.suite != "verdict"]
    failed = sum(c.outcome == "failure" for c in told)
    assert failed >= 1
    assert text.count("| ⛔ failed | ") == failed
    assert text.count("| ⏸️ not proven | ") == sum(c.outcome == "error" for c in told)
    assert "### What to do" in text
    assert "`imagegate report 20260914-100000-summer --open`" in text
    assert "(https://gates.example/runs/x/report.html)" in text
    assert "Production of storefront stays spring." in text
    assert "\\$3.25 spent" in text


@pytest.mark.parametrize(
    ("verdict", "asked"),
    [("PROMOTE", "imagegate rollback --product"), ("HOLD", "imagegate run --resume")],
)
def test_each_verdict_has_its_next_step(facts: CiFacts, verdict: str, asked: str) -> None:
    other = replace(facts, verdict=Verdict(verdict=verdict, reasons=("so",)), incomplete=True)
    assert asked in job_summary(other).partition("### What to do")[2]


def test_foreign_text_marks_nothing_up(facts: CiFacts) -> None:
    breach = ExpectationResult(
        name=EVIL, source="limits[0]", on_breach="rollback", success=False, sentence=EVIL
    )
    evil = replace(
        facts,
        candidate=EVIL,
        product=EVIL,
        baseline=EVIL,
        verdict=Verdict(verdict="ROLLBACK", reasons=(EVIL,), warnings=(EVIL,)),
        expectations=(breach,),
        actions=(EVIL,),
        report=EVIL,
    )
    text = job_summary(evil)
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "<img" not in outside
    assert "[x](" not in outside
    assert not re.search(r"(?<!;)//evil|www\.evil|@channel", outside)
    assert not any(line.startswith(("::", "##[")) for line in text.splitlines())
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 4
    # Shown as it is: what a reader sees is the text that was there.
    assert html.unescape(plain("a://b @c")).replace("<!-- -->", "") == "a://b @c"


def test_annotations_name_the_file_and_the_worst_first(facts: CiFacts) -> None:
    lines = workflow_commands(facts)
    assert lines[0].startswith(
        "::error file=deployments/mixes/summer.yaml,title=imagegate ROLLBACK::12.1 %25 of 240"
    )
    levels = [line[2:].partition(" ")[0] for line in lines]
    assert levels.count("error") <= MOST_ANNOTATIONS
    assert levels.count("warning") <= MOST_ANNOTATIONS
    assert lines[-1].endswith("::few images") or "more" in lines[-1]
    promoted = replace(facts, verdict=Verdict(verdict="PROMOTE", reasons=("fine",)))
    assert workflow_commands(promoted)[0].startswith("::notice ")


def test_too_many_annotations_are_counted(facts: CiFacts) -> None:
    many = tuple(f"warning {n}" for n in range(40))
    lines = workflow_commands(
        replace(facts, verdict=facts.verdict.model_copy(update={"warnings": many}))
    )
    warnings = [line for line in lines if line.startswith("::warning ")]
    assert len(warnings) == MOST_ANNOTATIONS
    shown = sum(1 for line in lines if "::warning " in line and "more:" not in line)
    cases = ci_cases(facts)
    errors = sum(1 for c in cases if c.suite != "verdict" and c.outcome == "error")
    assert f"::{errors + 40 - shown} more:" in warnings[-1]


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=40))
def test_a_command_is_one_line_whatever_it_says(title: str, message: str, file: str) -> None:
    line = command("error", title, message, file)
    assert not re.search(r"[\r\n]", line)
    head, _, data = line[2:].partition("::")
    fields = head.partition(" ")[2].split(",")
    assert [f.partition("=")[0] for f in fields] == (["file", "title"] if file else ["title"])
    assert not re.search(r"[\r\n]", data)
    if message.isascii() and message.isprintable():
        assert unescaped(data) == message


def test_a_gate_without_a_verdict_says_what_happened() -> None:
    text = broken_summary(f"preflight refuses:\n  - {EVIL}", "PreflightError")
    assert text.startswith("## ❗ No verdict: refused, nothing was spent")
    assert "> preflight refuses:" in text
    assert "<img" not in text
    line = broken_annotation(EVIL, "PreflightError")
    assert line.startswith("::error title=imagegate%3A no verdict (PreflightError)::")
    assert "\n" not in line
