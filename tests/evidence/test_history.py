"""History: runs with what they changed, and what people changed without a run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from flows.operate import render_history
from tasks.errors import ConfigError
from tasks.evidence.history import history
from tasks.state import State
from tasks.tables import mixes, runs, transitions

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def add_run(state: State, run_id: str, hour: int, **more: object) -> None:
    row = {
        "run_id": run_id,
        "product": "storefront",
        "status": "finished",
        "verdict": "PROMOTE",
        "candidate_digest": NEW,
        "baseline_digest": OLD,
        "started_at": f"2026-09-14T{hour:02d}:00:00.000Z",
        "ended_at": f"2026-09-14T{hour:02d}:01:30.500Z",
        "host": "host",
        "pid": 1,
        "result": json.dumps(
            {
                "failure_rate": {"estimate": 0.004},
                "baseline_failure_rate": {"estimate": 0.12},
                "spend_usd": 12.5,
                "report": "runs/x/report.html",
            }
        ),
    }
    with state.begin() as connection:
        connection.execute(sa.insert(runs).values(row | more))


def add_change(state: State, hour: int, run_id: str | None, **more: object) -> None:
    row = {
        "product": "storefront",
        "epoch": 2,
        "kind": "promote",
        "from_digest": OLD,
        "to_digest": NEW,
        "actor": "ada",
        "reason": "PROMOTE",
        "run_id": run_id,
        "at": f"2026-09-14T{hour:02d}:02:00.000Z",
    }
    with state.begin() as connection:
        connection.execute(sa.insert(transitions).values(row | more))


def test_an_empty_database_has_no_history(state: State) -> None:
    assert history(state) == []


def test_a_run_tells_its_figures_and_what_it_changed(state: State) -> None:
    with state.begin() as connection:
        connection.execute(
            sa.insert(mixes).values(digest=NEW, name="summer", manifest="{}", added_at="2026")
        )
    add_run(state, "r1", 10)
    add_change(state, 10, "r1")
    (row,) = history(state)
    assert (row.kind, row.verdict, row.seconds) == ("run", "PROMOTE", 90.5)
    assert (row.failure_rate, row.baseline_failure_rate, row.spend_usd) == (0.004, 0.12, 12.5)
    assert row.candidate == "summer (bbbbbbbbbbbb)"
    assert row.baseline == "aaaaaaaaaaaa"
    assert row.report == "runs/x/report.html"
    assert [(c.kind, c.actor) for c in row.changes] == [("promote", "ada")]
    assert json.loads(json.dumps(row.to_dict()))["changes"][0]["to_mix"] == row.candidate


def test_changes_without_a_run_stand_in_their_place(state: State) -> None:
    add_run(state, "r1", 8)
    add_run(state, "r3", 12)
    add_change(state, 10, None, kind="rollback", from_digest=NEW, to_digest=OLD)
    add_change(state, 11, "deleted-run", kind="adopt", from_digest=None)
    rows = history(state)
    assert [(r.kind, r.status) for r in rows] == [
        ("run", "finished"),
        ("change", "adopt"),
        ("change", "rollback"),
        ("run", "finished"),
    ]
    assert rows[1].baseline == ""
    assert rows[2].candidate == "aaaaaaaaaaaa"


def test_a_canarys_step_tells_its_share(state: State) -> None:
    add_change(state, 10, None, kind="canary", weight=0.05, canary_id="c1")
    (row,) = history(state)
    assert (row.status, row.changes[0].weight) == ("canary", 0.05)
    assert "canary 5 %" in render_history([row.to_dict()])


def test_product_and_limit_narrow_it(state: State) -> None:
    for number in range(5):
        add_run(state, f"r{number}", number, product="storefront" if number % 2 else "editor")
    add_change(state, 9, None, product="editor")
    assert {r.product for r in history(state, "editor")} == {"editor"}
    assert [r.run_id for r in history(state, limit=2)] == [None, "r4"]
    assert len(history(state, limit=100)) == 6
    with pytest.raises(ConfigError, match="got 0"):
        history(state, limit=0)


@pytest.mark.parametrize("result", [None, "", "not json", "[]", '{"failure_rate": true}'])
def test_a_damaged_result_costs_the_figures_only(state: State, result: str | None) -> None:
    add_run(state, "r1", 10, result=result, ended_at=None, verdict=None, status="running")
    (row,) = history(state)
    assert (row.failure_rate, row.spend_usd, row.report, row.seconds) == (None, None, None, None)
    assert row.status == "running"


def test_a_damaged_time_costs_the_duration_only(state: State) -> None:
    add_run(state, "r1", 10, ended_at="yesterday")
    assert history(state)[0].seconds is None
