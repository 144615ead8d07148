"""Runs are refused before they spend; one that has all its pictures goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from tasks.budget.task import refuse_over_budget, refuse_resume_over_budget, rest_of_budget
from tasks.errors import ConfigError, RefusedError
from tasks.state import State
from tasks.tables import journal
from tests.budget.rows import add_row, add_run, moment

NOW = moment("2026-11-25T11:00Z")
USD = 1_000_000


def settings(tmp_path: Path, **scopes: Any) -> Any:
    path = tmp_path / "budgets.yaml"
    value = {"raised_by": {"name": "Dana", "contact": "#r"}, "all": {"month_usd": {"hard": 100}}}
    path.write_text(yaml.safe_dump(value | scopes), encoding="utf-8")
    return SimpleNamespace(budgets_file=path, runs=tmp_path / "runs")


def plan(cases: int = 2) -> Any:
    return SimpleNamespace(
        run_id="a", product="shop", cases=("c",) * cases, budget_microusd=25 * USD
    )


def finish(state: State, *names: tuple[str, str]) -> None:
    with state.begin() as connection:
        for arm, case in names:
            connection.execute(
                sa.insert(journal).values(run_id="a", arm=arm, case_id=case, generation="{}")
            )


def test_the_sums_of_the_present_windows_decide(state: State, tmp_path: Path) -> None:
    file = settings(tmp_path, products={"shop": {"day_usd": {"hard": 30}}})
    add_run(state, "a", "shop", "2026-11-01T00:00Z")
    add_run(state, "b", "blog", "2026-11-01T00:00Z")
    add_row(state, "a", "2026-10-31T23:00Z", 500)  # last month
    add_row(state, "a", "2026-11-24T23:00Z", 29)  # yesterday
    add_row(state, "b", "2026-11-25T01:00Z", 50)
    left = refuse_over_budget(state, file, "shop", now=NOW)
    assert left.left == 21 * USD
    add_row(state, "a", "2026-11-25T01:00Z", 20, "reserved")
    assert refuse_over_budget(state, file, "shop", now=NOW).left == 1 * USD
    add_row(state, "lost", "2026-11-25T01:00Z", 1, "unknown")
    with pytest.raises(RefusedError, match=r"\$100\.00 of \$100\.00.*Dana \(#r\)") as caught:
        refuse_over_budget(state, file, "shop", now=NOW)
    assert caught.value.exit_code == 2
    with pytest.raises(RefusedError):
        refuse_over_budget(state, file, "a product without limits of its own", now=NOW)
    assert refuse_over_budget(state, file, "shop", now=moment("2026-12-01T00:00Z")).left == 30 * USD


def test_without_the_file_nothing_is_spent(state: State, tmp_path: Path) -> None:
    file = settings(tmp_path)
    file.budgets_file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="nothing may be spent"):
        refuse_over_budget(state, file, "shop")
    file.budgets_file.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        refuse_over_budget(state, file, "shop")
    with pytest.raises(ConfigError, match="no such file"):
        refuse_resume_over_budget(state, file, plan())


def test_a_resumed_run_is_refused_while_cases_are_left(state: State, tmp_path: Path) -> None:
    file = settings(tmp_path)
    add_run(state, "a", "shop", "2026-11-01T00:00Z")
    add_row(state, "a", "2026-11-25T01:00Z", 100)
    finish(state, ("baseline", "1"), ("baseline", "2"), ("candidate", "1"))
    with pytest.raises(RefusedError):
        refuse_resume_over_budget(state, file, plan(), now=NOW)
    # Decided by fewer pictures than planned, it needs none either.
    evidence = file.runs / "a" / "verdict.json"
    evidence.parent.mkdir(parents=True)
    evidence.write_text('{"verdict": "HOLD", "savings": null}', encoding="utf-8")
    with pytest.raises(RefusedError):
        refuse_resume_over_budget(state, file, plan(), now=NOW)
    evidence.write_text('{"verdict": "PROMOTE", "savings": {"images": 9}}', encoding="utf-8")
    assert refuse_resume_over_budget(state, file, plan(), now=NOW).left is None
    evidence.unlink()
    # With all pictures made it spends nothing: its verdict does not wait for money.
    finish(state, ("candidate", "2"))
    assert refuse_resume_over_budget(state, file, plan(), now=NOW).left is None


def test_what_a_run_has_spent_is_gone_from_its_own_budget(state: State) -> None:
    add_run(state, "a", "shop", "2026-11-01T00:00Z")
    assert rest_of_budget(state, plan()) == 25 * USD
    add_row(state, "a", "2026-10-25T01:00Z", 20)
    add_row(state, "a", "2026-11-25T01:00Z", 3, "unknown")
    assert rest_of_budget(state, plan()) == 2 * USD
    add_row(state, "a", "2026-11-25T01:00Z", 3)
    assert rest_of_budget(state, plan()) == 0
