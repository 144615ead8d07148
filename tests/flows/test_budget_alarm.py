"""The flows of the budget alarm and the freeze reminder, against a real Prefect server and a Slack
on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import yaml

from tasks.budget.windows import stamp
from tasks.mix.freeze import freeze
from tasks.mix.production import adopt
from tasks.state import State
from tasks.tables import freezes
from tests.budget.rows import add_row, add_run
from tests.conftest import ROOT, Command
from tests.fakes import mixes, slack_server

#: Runs a flow and prints its state; the home and Prefect's server come from the environment.
CODE = """
import importlib, json, sys
from flows.prefect_env import prepare_prefect
from tasks.settings import load_settings
prepare_prefect(load_settings().home, lambda text: None)
for module, name, request in json.loads(sys.argv[1]):
    flow = getattr(importlib.import_module(module), name)
    state = flow(request, return_state=True)
    data = state.result(raise_on_failure=False)
    print(json.dumps({"name": state.name, "message": state.message,
                      "data": data if isinstance(data, dict) else str(data)}))
"""
ALARM = ("flows.budget_alarm", "budget_alarm")
REMINDER = ("flows.freeze_reminder", "freeze_reminder")


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[Any]:
    with slack_server.SlackServer(log=tmp_path / "slack.jsonl") as server:
        yield server


@pytest.fixture
def state(imagegate: Command) -> Iterator[State]:
    database = State(f"sqlite:///{imagegate.home / 'state.db'}")
    yield database
    database.close()


def run_flows(
    imagegate: Command, slack: Any, limits: Path, *calls: tuple[str, str, dict[str, Any]]
) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=ROOT,
        env=imagegate.env
        | {
            "IMAGEGATE_BUDGETS_FILE": str(limits),
            "SLACK_BOT_TOKEN": slack_server.TOKEN,
            "IMAGEGATE_SLACK_CHANNEL": slack_server.CHANNEL,
            "IMAGEGATE_SLACK_URL": slack.base_url,
        },
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def posted(slack: Any) -> list[str]:
    """Return the texts of the messages that Slack took, without updates."""
    lines = [json.loads(line) for line in slack.log.read_text(encoding="utf-8").splitlines()]
    return [
        json.dumps(line, ensure_ascii=False)
        for line in lines
        if line["method"] == "chat.postMessage"
    ]


def artifact(server: str, key: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{server}/artifacts/{key}/latest", timeout=30, trust_env=False).json()
    assert found["type"] == "table"
    return json.loads(found["data"])


def test_spend_is_told_once_and_shown_as_a_table(
    imagegate: Command, slack: Any, state: State, tmp_path: Path, prefect_server: str
) -> None:
    limits = tmp_path / "budgets.yaml"
    limits.write_text(
        yaml.safe_dump(
            {
                "raised_by": {"name": "Dana <!channel>", "contact": "#releases"},
                "all": {"month_usd": {"soft": 10, "hard": 5000}},
                "products": {"shop": {"week_usd": {"hard": 20}}},
            }
        ),
        encoding="utf-8",
    )
    now = stamp(datetime.now(UTC))
    add_run(state, "a", "shop", now)
    add_row(state, "a", now, 12, reserved_usd=15)
    add_row(state, "a", now, 8, "unknown")
    first, again = run_flows(imagegate, slack, limits, (*ALARM, {}), (*ALARM, {"product": "shop"}))
    assert first["name"] == again["name"] == "Hard limit reached"
    assert "shop week" in first["message"]
    assert "2 new alarms" in first["message"]
    assert "0 new alarms, 2 lasting" in again["message"]
    texts = posted(slack)
    assert len(texts) == 2
    hard = next(text for text in texts if "hard limit of the week reached" in text)
    assert "$20.00 (of it $8.00 feared: nobody knows whether it was billed) of $20.00" in hard
    assert "<!channel>" not in hard
    assert "&lt;!channel&gt;" in hard
    rows = {(row["scope"], row["window"]): row for row in artifact(prefect_server, "budget-alarm")}
    row = next(row for (scope, _), row in rows.items() if scope == "shop")
    assert (row["spent"], row["not yet known"], row["hard"]) == ("$20.00", "$8.00", "$20.00")
    assert (row["share"], row["reached"], row["forecast"]) == ("100 %", "hard", "reached")
    # The file is lost: runs are refused, and on-call is paged before the flow says so itself.
    limits.unlink()
    (damaged,) = run_flows(imagegate, slack, limits, (*ALARM, {}))
    assert damaged["name"] == "Refused"
    assert "no such file" in damaged["message"]
    assert "the file of limits cannot be read" in posted(slack)[-1]


def test_owners_are_reminded_once_a_day(
    imagegate: Command, slack: Any, state: State, tmp_path: Path, prefect_server: str
) -> None:
    now = datetime.now(UTC)
    adopt(state, mixes.mix("winter", "folio-1"), "test", "first")
    freeze(state, "shop", owner="dana@host", reason="launch <!here>", days=2.5, now=now)
    soon, again, later = run_flows(
        imagegate,
        slack,
        tmp_path / "not asked",
        (*REMINDER, {}),
        (*REMINDER, {"days_ahead": 10}),
        (*REMINDER, {"days_ahead": 1}),
    )
    assert (soon["name"], again["name"], later["name"]) == (
        "Reminded",
        "Nothing new",
        "Nothing new",
    )
    assert soon["data"]["new"] == 1
    assert "0 freezes" in later["message"]
    (text,) = posted(slack)
    assert "The freeze of shop ends in 2 days" in text
    assert "dana" in text
    assert "imagegate thaw --product shop" in text
    assert "<!here>" not in text
    shown = artifact(prefect_server, "freeze-reminder")
    assert shown == []  # of the last look, one day ahead
    assert stamp(now + timedelta(days=2.5)) == soon["data"]["freezes"][0]["until"]


def test_a_flow_that_breaks_is_told_once_and_closed_when_it_works(
    imagegate: Command, slack: Any, state: State, tmp_path: Path
) -> None:
    adopt(state, mixes.mix("winter", "folio-1"), "test", "first")
    freeze(state, "shop", owner="dana", reason="launch", days=30, now=datetime.now(UTC))

    def until(text: str) -> None:
        with state.begin() as connection:
            connection.execute(sa.update(freezes).values(until_at=text))

    until("9999-damaged")
    broken = run_flows(imagegate, slack, tmp_path, (*REMINDER, {}), (*REMINDER, {}))
    assert [one["name"] for one in broken] == ["Failed", "Failed"]
    assert len(posted(slack)) == 1
    assert "freeze-reminder broke" in posted(slack)[0]
    until("2099-01-01T00:00:00.000Z")
    (mended,) = run_flows(imagegate, slack, tmp_path, (*REMINDER, {}))
    assert mended["name"] == "Nothing new"
    assert "does its work again" in posted(slack)[-1]
