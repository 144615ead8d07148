"""Figures as words and tables: nothing invented where nothing was measured."""

from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evidence import appendix, present
from tasks.evidence.view import ReportView


@pytest.fixture(scope="module")
def view(builders: ModuleType) -> ReportView:
    return builders.a_view(cases=200, candidate=builders.BROKEN)


@pytest.mark.parametrize(
    ("value", "money", "seconds"),
    [
        (None, "–", "–"),
        (float("nan"), "–", "–"),
        (float("inf"), "–", "–"),
        (0.0, "$0.00", "0.000 s"),
        (1234.5, "$1,234.50", "1234.50 s"),
    ],
)
def test_missing_figures_are_dashes(value: float | None, money: str, seconds: str) -> None:
    assert present.money(value) == money
    assert present.seconds(value) == seconds


@pytest.mark.parametrize(
    ("iso", "text"),
    [
        ("2026-09-14T10:01:30.000Z", "2026-09-14 10:01:30 UTC"),
        ("2026-09-14T10:01:30+00:00", "2026-09-14 10:01:30 UTC"),
        ("2026-09-14T10:01:30+02:00", "2026-09-14T10:01:30+02:00"),
        ("soon", "soon"),
    ],
)
def test_moments_read_well(iso: str, text: str) -> None:
    assert present.moment(iso) == text


def test_accounts_add_up_to_the_cases(view: ReportView) -> None:
    for row in present.accounts(view):
        assert sum(count for _, count in row["parts"]) == row["images"] == 200


def test_checks_count_what_the_outcomes_blame(view: ReportView) -> None:
    rows = {row["name"]: row for row in present.checks(view)}
    for arm in ("baseline", "candidate"):
        blamed: dict[str, int] = {}
        for outcome in view.outcomes:
            if outcome.arm == arm:
                for reason in outcome.reasons:
                    blamed[reason] = blamed.get(reason, 0) + 1
        for name, count in blamed.items():
            assert rows[name]["arms"][arm]["fail"] == count, (arm, name)
    assert sum(row["arms"]["candidate"]["fault"] for row in rows.values()) == sum(
        1 for o in view.outcomes if o.arm == "candidate" and o.outcome == "unmeasured"
    )


def test_slices_come_worst_first(view: ReportView) -> None:
    lower = [row["candidate"]["lower"] for row in present.slices(view)]
    assert lower == sorted(lower, reverse=True)
    critical = [row for row in present.slices(view) if row["critical"]]
    assert [(row["dimension"], row["value"]) for row in critical] == [("subtask", "typography")]


def test_breaches_stand_before_what_was_kept(view: ReportView) -> None:
    first = view.expectations[0]
    rows = present.expectations(
        [first, first.model_copy(update={"success": False}), view.expectations[3]]
    )
    assert [row["state"] for row in rows] == ["breached", "unmeasured", "kept"]


def test_a_model_that_answered_as_another_is_marked(view: ReportView) -> None:
    assert not any(row["drift"] for row in appendix.models(view))
    first = view.generations[0]
    other = first.attempts[0].model_copy(update={"model_reported": "other-version"})
    drifted = replace(
        view, generations=[first.model_copy(update={"attempts": (other,)}), *view.generations[1:]]
    )
    rows = [row for row in appendix.models(drifted) if row["drift"]]
    assert [row["name"] for row in rows] == [other.model]
    assert "other-version" in rows[0]["reported"]


def test_commands_quote_what_a_shell_would_run(view: ReportView) -> None:
    plan = view.plan.model_copy(update={"inputs": "x; rm -rf / #", "run_id": "$(id)"})
    shown = dict(appendix.commands(replace(view, plan=plan)))
    assert "--inputs 'x; rm -rf / #'" in shown["Run the gate again on the same inputs"]
    assert shown["Find this report again"] == "imagegate report '$(id)'"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            SCALARS,
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(st.text(max_size=5), inner, max_size=4)
            ),
            max_leaves=12,
        ),
        max_size=6,
    )
)
def test_notes_of_any_shape_become_tables(notes: dict[str, object]) -> None:
    tables = appendix.facts(notes)
    for table in tables:
        widths = {len(row) for row in table["rows"]}
        assert len(widths) <= 1
        assert not table["head"] or widths == {len(table["head"])}
        assert all(isinstance(cell, str) for row in table["rows"] for cell in row)
    named = [t for t in tables if t["title"]]
    plain = [t for t in tables if not t["title"]]
    assert len(named) + sum(len(t["rows"]) for t in plain) >= len(notes) - 1
