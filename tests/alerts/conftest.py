"""The fake Slack, a state database, and one summary that says a little of everything."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks.alerts.blocks import Figure, GateSummary, TopFailure
from tasks.state import State

_spec = importlib.util.spec_from_file_location(
    "imagegate_fake_slack", Path(__file__).parent.parent / "fakes" / "slack_server.py"
)
assert _spec is not None
assert _spec.loader is not None
_slack = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_slack)


@pytest.fixture
def fake() -> ModuleType:
    """The module of the fake Slack, for its rules on messages."""
    return _slack


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[Any]:
    with _slack.SlackServer(log=tmp_path / "slack.jsonl") as server:
        yield server


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


@pytest.fixture
def summary() -> GateSummary:
    return GateSummary(
        verdict="ROLLBACK",
        product="shop",
        candidate_name="summer",
        baseline_name="winter",
        run_id="run-1",
        reasons=("failure rate 12.1% is above 2%", "slice locale=th fails"),
        warnings=("5 images were not measured",),
        top_failures=(TopFailure("typography.legible_text", "locale=th", 12, 40),),
        figures=(
            Figure("Failure rate", "0.4% (0.0% to 1.2%)", "12.1% (9.0% to 15.8%)"),
            Figure("Effective cost / 1,000", "$19.11", "not measured"),
        ),
        done=("production serves 'winter' (unchanged)",),
        asked=("look at `imagegate report run-1`",),
        report="https://ci.example/report.html?run=1&tab=2",
        spend_usd=3.5,
    )
