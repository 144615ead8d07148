"""A real gate meets a hard limit while it runs; the sums of the windows in a real PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tasks.state import State
from tests.budget import test_alarm, test_spend
from tests.conftest import Command
from tests.harness import test_ledger_budgets

pytestmark = pytest.mark.real


@pytest.fixture
def state(postgres_url: str) -> Iterator[State]:
    opened = State(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def shop(state: State) -> State:
    test_alarm.add_run(state, "a", "shop", "2026-11-24T00:00Z")
    return state


# The same tests once more: what they promise must not depend on SQLite.
for module in (test_spend, test_ledger_budgets, test_alarm):
    for name, value in vars(module).items():
        if name.startswith("test_"):
            globals()[f"test_postgres__{name.removeprefix('test_')}"] = value


def limits(path: Path, hard: float) -> dict[str, str]:
    value = {
        "raised_by": {"name": "Dana", "contact": "#releases"},
        "least_run_usd": 0.05,
        "all": {"month_usd": {"hard": hard}},
    }
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return {"IMAGEGATE_BUDGETS_FILE": str(path)}


def test_a_gate_stops_at_the_hard_limit_and_goes_on_when_it_is_raised(
    imagegate: Command, tmp_path: Path
) -> None:
    env = limits(tmp_path / "budgets.yaml", hard=0.30)
    done = imagegate("run", "--cases", "12", "--json", **env)
    assert done.code == 3, done.err
    result = done.json
    assert result["verdict"] == "HOLD"
    assert result["incomplete"]
    assert 0.20 < result["spend_usd"] <= 0.30
    assert any("hard limit of all products" in reason for reason in result["reasons"])
    assert "may spend $0.30 of the $40.00" in " ".join(done.err.split())

    # Less than the least is left: refused before Prefect starts a flow run, and nothing is booked.
    before = booked(imagegate)
    refused = imagegate("run", "--resume", result["run_id"], **env)
    assert refused.code == 2, refused.err
    assert "over budget, nothing was spent" in " ".join(refused.err.split())
    assert booked(imagegate) == before

    limits(tmp_path / "budgets.yaml", hard=20)
    again = imagegate("run", "--resume", result["run_id"], "--json", **env)
    assert again.code == 3, again.err  # too few cases for a verdict, but all of them
    assert not again.json["incomplete"]
    assert again.json["images"] == 12
    rows = booked(imagegate)
    assert before.items() <= rows.items(), "a request was paid twice"
    assert len(rows) > len(before)
    # Kept and summed sums agree after a stop, a refusal and a resume.
    shown = imagegate("budget", "--json", **env).json["windows"][0]
    assert round(shown["spent_usd"], 4) == round(again.json["spend_usd"], 4)


def booked(imagegate: Command) -> dict[str, int]:
    """Return what is known to be paid, by request; one cut off at the stop may come again."""
    with sqlite3.connect(imagegate.home / "state.db") as database:
        rows = database.execute(
            "SELECT idempotency_key, booked_microusd FROM ledger WHERE status = 'booked'"
        )
        found = dict(rows)
    database.close()
    return found
