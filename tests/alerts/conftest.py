"""The fake Slack, a state database, and one summary that says a little of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks.alerts.blocks import Figure, GateSummary, TopFailure
from tasks.records import Rate
from tasks.settings import Settings, load_settings
from tasks.state import State
from tests.fakes import slack_server


@pytest.fixture(scope="session")
def fake() -> ModuleType:
    """The module of the fake Slack, for its rules on messages."""
    return slack_server


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[Any]:
    with slack_server.SlackServer(log=tmp_path / "slack.jsonl") as server:
        yield server


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with a routing file of their own; further environment by keyword."""

    def make(routing: str = "schema_version: 1\n", **environ: str) -> Settings:
        file = tmp_path / "alerts.yaml"
        file.write_text(routing, encoding="utf-8")
        return load_settings(
            {
                "IMAGEGATE_HOME": str(tmp_path),
                "IMAGEGATE_ALERTS_FILE": str(file),
                "IMAGEGATE_REPORT_URL": "https://reports.example",
                **environ,
            }
        )

    return make


@pytest.fixture
def in_slack(slack: Any, make_settings: Callable[..., Settings]) -> Callable[..., Settings]:
    """Settings that reach the fake Slack."""

    def make(routing: str = "schema_version: 1\n", **environ: str) -> Settings:
        return make_settings(
            routing,
            SLACK_BOT_TOKEN=slack_server.TOKEN,
            IMAGEGATE_SLACK_CHANNEL=slack_server.CHANNEL,
            IMAGEGATE_SLACK_URL=slack.base_url,
            **environ,
        )

    return make


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
        failure=Rate(estimate=0.121, lower=0.09, upper=0.158, n=240, failures=29),
        since="2026-09-14 01:58 UTC",
        decided="2026-09-14 02:13 UTC",
        rollback="imagegate rollback --product shop --to 7cc1a0b2c3d4",
        baseline_digest="sha256:7cc1a0b2c3d4",
    )
