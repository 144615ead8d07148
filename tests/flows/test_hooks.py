"""Hooks of the flows: what people are told when a gate ends without a verdict, and told once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from flows import hooks
from tasks.alerts.incidents import open_incidents, read_incident
from tasks.alerts.outbox import messages
from tasks.mix.freeze import stamp
from tasks.runs import begin_run, end_run
from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.tables import runs
from tasks.watchdog import loop
from tasks.watchdog.model import FlowFact, Limits
from tasks.watchdog.prefect_side import PrefectSide, Seen

RUN = "20261125-020000-candidate-ab12"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("IMAGEGATE_HOME", str(tmp_path))
    for name in ("SLACK_BOT_TOKEN", "IMAGEGATE_SLACK_WEBHOOK", "IMAGEGATE_SMTP_URL"):
        monkeypatch.delenv(name, raising=False)
    return load_settings()


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    database = State(settings.state_url.get_secret_value())
    yield database
    database.close()


class Ended:
    """A flow run that came to its end, with what Prefect gives a hook."""

    def __init__(self, name: str, message: str, *, deployed: bool = True) -> None:
        deployment = uuid4() if deployed else None
        self.flow: Any = SimpleNamespace(name="release-gate")
        self.run: Any = SimpleNamespace(id=uuid4(), name="judge", deployment_id=deployment)
        self.state: Any = SimpleNamespace(name=name, message=message)

    def book(self, state: State, status: Any = "failed") -> None:
        begin_run(state, RUN, "storefront", "sha256:c", "sha256:b", flow_run_id=str(self.run.id))
        if status != "running":
            end_run(state, RUN, status)

    def fact(self, kind: str) -> FlowFact:
        now = datetime.now(UTC)
        return FlowFact(
            id=str(self.run.id),
            name="judge",
            flow="release-gate",
            deployment="release-gate/storefront",
            pool="gates",
            state=kind,
            state_name=self.state.name,
            message=self.state.message,
            since=now - timedelta(seconds=2),
            expected_at=now,
            starts=1,
        )


class OneFlow(PrefectSide):
    """A server that knows one flow run."""

    def __init__(self, fact: FlowFact) -> None:
        super().__init__("http://prefect.test/api")
        self.fact = fact

    def look(self, now: datetime, limits: Limits) -> Seen:
        return Seen((self.fact,))


@pytest.mark.parametrize(
    ("hook", "name", "kind"),
    [(hooks.on_failure, "Failed", "FAILED"), (hooks.on_crashed, "Crashed", "CRASHED")],
)
def test_hook_and_watchdog_tell_one_failure_once_between_them(
    settings: Settings,
    state: State,
    monkeypatch: pytest.MonkeyPatch,
    hook: Any,
    name: str,
    kind: str,
) -> None:
    ended = Ended(name, "Flow run encountered an exception: StateError: the disk is full")
    ended.book(state)
    hook(ended.flow, ended.run, ended.state)
    told = [m.dedup_key for m in messages(state)]
    incident = read_incident(state, f"run:{RUN}")
    assert incident is not None
    assert incident.severity == "page"
    assert any("the disk is full" in str(m.payload) for m in messages(state))

    monkeypatch.setattr(loop, "prefect_side", lambda: OneFlow(ended.fact(kind)))
    looked = loop.run_once(settings)
    assert [t.run_id for t in looked.standing] == [RUN]
    assert looked.told == []
    assert [m.dedup_key for m in messages(state)] == told
    hook(ended.flow, ended.run, ended.state)
    assert [m.dedup_key for m in messages(state)] == told


def test_a_refused_gate_is_told_without_a_page_and_only_when_nobody_sits_there(
    settings: Settings, state: State
) -> None:
    typed = Ended("Refused", "mixes/x.yaml: no such file", deployed=False)
    hooks.on_failure(typed.flow, typed.run, typed.state)
    assert messages(state) == ()
    scheduled = Ended("Refused", "mixes/x.yaml: no such file")
    hooks.on_failure(scheduled.flow, scheduled.run, scheduled.state)
    (incident,) = open_incidents(state)
    assert incident.key == f"gate:{scheduled.run.id}"
    assert incident.severity == "warning"
    assert "no such file" in str(messages(state)[0].payload)


def test_a_gate_that_crashed_before_it_had_a_run_is_told(settings: Settings, state: State) -> None:
    early = Ended("Crashed", "Process exited with status code: -9")
    hooks.on_crashed(early.flow, early.run, early.state)
    assert [i.key for i in open_incidents(state)] == [f"gate:{early.run.id}"]


def test_a_cancelled_run_is_booked_and_nobody_is_told(settings: Settings, state: State) -> None:
    cancelled = Ended("Cancelling", "")
    cancelled.book(state, "running")
    hooks.on_cancellation(cancelled.flow, cancelled.run, cancelled.state)
    with state.begin() as connection:
        row = connection.execute(sa.select(runs.c.status, runs.c.ended_at)).one()
    assert row.status == "stopped"
    assert row.ended_at <= stamp(datetime.now(UTC))
    assert messages(state) == ()


def test_the_gate_has_its_hooks() -> None:
    from flows.release_gate import release_gate

    assert hooks.on_failure in (release_gate.on_failure_hooks or [])
    assert hooks.on_crashed in (release_gate.on_crashed_hooks or [])
    assert hooks.on_cancellation in (release_gate.on_cancellation_hooks or [])
