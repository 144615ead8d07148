"""A moment, a state database, and a Prefect that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.watchdog.model import FlowFact, Limits, RunFact
from tasks.watchdog.prefect_side import PrefectSide, Seen

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
FLOW = "11111111-2222-3333-4444-555555555555"


def ago(**delta: float) -> datetime:
    return NOW - timedelta(**delta)


def a_run(**changes: Any) -> RunFact:
    """A run whose process died a minute ago."""
    dead = RunFact(
        run_id="20261125-025500-candidate-ab12",
        product="storefront",
        status="running",
        verdict=None,
        started_at=ago(minutes=5),
        heartbeat_at=ago(minutes=1),
        host="worker-a",
        pid=4711,
        driver="token",
        flow_run_id=FLOW,
        driven=False,
    )
    return replace(dead, **changes)


def a_flow(**changes: Any) -> FlowFact:
    """Its flow run, which Prefect believes to run."""
    believed = FlowFact(
        id=FLOW,
        name="judge candidate",
        flow="release-gate",
        deployment="release-gate/storefront",
        pool="gates",
        state="RUNNING",
        state_name="Running",
        message="",
        since=ago(minutes=5),
        expected_at=ago(minutes=5),
        starts=1,
        started_at=ago(minutes=5),
    )
    return replace(believed, **changes)


@dataclass
class FakePrefect(PrefectSide):
    """Answers from memory; what it is told becomes the state."""

    flow_state: str = "RUNNING"
    calls: list[str] = field(default_factory=list)
    flows: tuple[FlowFact, ...] = ()
    error: Exception | None = None
    shown: str = "http://prefect.test/api"

    def look(self, now: datetime, limits: Limits) -> Seen:
        if self.error is not None:
            raise self.error
        return Seen(self.flows)

    def flows_by_id(self, ids: Any) -> tuple[FlowFact, ...]:
        return ()

    def state_of(self, flow_run_id: str) -> str:
        return self.flow_state

    def crash(self, flow_run_id: str, why: str) -> None:
        self.calls.append("crash")
        self.flow_state = "CRASHED"

    def cancelled(self, flow_run_id: str, why: str) -> None:
        self.calls.append("cancelled")
        self.flow_state = "CANCELLED"

    def start_again(self, flow_run_id: str, why: str) -> bool:
        assert self.flow_state in ("CRASHED", "FAILED")
        self.calls.append("start_again")
        self.flow_state = "SCHEDULED"
        return True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"IMAGEGATE_HOME": str(tmp_path)})


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    database = State(settings.state_url.get_secret_value())
    yield database
    database.close()


@pytest.fixture
def booked(state: State) -> Callable[..., None]:
    """Book a run as its dead process left it."""

    def book(**changes: Any) -> None:
        import sqlalchemy as sa

        from tasks.mix.freeze import stamp
        from tasks.tables import runs

        fact = a_run()
        values = {
            "run_id": fact.run_id,
            "product": fact.product,
            "status": "running",
            "candidate_digest": "sha256:c",
            "baseline_digest": "sha256:b",
            "started_at": stamp(fact.started_at),
            "host": "another-machine",
            "pid": fact.pid,
            "flow_run_id": fact.flow_run_id,
            "driver": fact.driver,
            "heartbeat_at": stamp(ago(minutes=1)),
        } | changes
        with state.begin() as connection:
            connection.execute(sa.insert(runs).values(**values))

    return book
