"""The summary: markdown that shows what was said and obeys nothing of it."""

from dataclasses import replace
from types import ModuleType

import pytest

from tasks.evidence.summary import markdown_summary, metrics_rows
from tasks.evidence.view import ReportView
from tasks.records import Verdict


@pytest.fixture(scope="module")
def view(builders: ModuleType) -> ReportView:
    return builders.a_view(cases=120, candidate=builders.BROKEN)


def test_it_opens_with_the_verdict_and_tells_the_figures(view: ReportView) -> None:
    text = markdown_summary(view)
    assert text.splitlines()[0] == "# ✅ PROMOTE: summer → storefront"
    assert "## Before → after" in text
    assert "## Worst slices of the candidate" in text
    assert "## What failed most" in text
    assert "## Expectations: 3 of 4 kept" in text
    assert view.plan.run_id in text
    assert markdown_summary(view) == text


def test_every_table_has_rows_of_one_width(view: ReportView) -> None:
    hostile = Verdict(verdict="HOLD", reasons=("a | b\n| c |", "[x](javascript:alert(1)) <img>"))
    block: list[int] = []
    for line in [*markdown_summary(replace(view, verdict=hostile)).splitlines(), ""]:
        if line.startswith("|"):
            block.append(line.replace("\\|", "").count("|"))
        elif block:
            assert len(set(block)) == 1
            block = []


def test_text_of_the_run_makes_no_markup(view: ReportView) -> None:
    hostile = Verdict(verdict="ROLLBACK", reasons=("[x](javascript:alert(1)) <img src=x> `a`",))
    text = markdown_summary(replace(view, verdict=hostile, actions=("# not a heading",)))
    assert "<img" not in text
    assert "[x](" not in text
    assert "\n# not" not in text
    assert text.count("\n# ") == 0


def test_a_perfect_run_lists_no_failures(builders: ModuleType) -> None:
    perfect = builders.Quality(0.0, 0.01, 1.0, ("text",))
    text = markdown_summary(builders.a_view(cases=20, candidate=perfect))
    assert "What failed most" not in text
    assert "Worst slices" not in text


def test_rows_for_the_table_are_plain_text(view: ReportView) -> None:
    rows = metrics_rows(view)
    assert rows[0]["figure"] == "Failure rate"
    assert {frozenset(row) for row in rows} == {frozenset({"figure", "baseline", "candidate"})}
    assert all(isinstance(value, str) and value for row in rows for value in row.values())
