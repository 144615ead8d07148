"""Signs of life of a run's driver, and the end of one that another process replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tasks.context import RunContext
from tasks.errors import TakenOverError
from tasks.heartbeat import Heartbeat
from tasks.mix.task import abandon
from tasks.runs import begin_run
from tasks.settings import load_settings
from tasks.state import State
from tasks.tables import runs


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def context_of(state: State, tmp_path: Path, run_id: str = "r1") -> RunContext:
    return RunContext(load_settings({}, tmp_path), state, run_id, threading.Event(), "flow-1")


def begin(state: State, driver: str) -> None:
    begin_run(state, "r1", "shop", "sha256:c", "sha256:b", driver=driver)


def row(state: State) -> sa.Row:
    with state.begin() as connection:
        return connection.execute(sa.select(runs)).one()


def set_row(state: State, **values: object) -> None:
    with state.begin() as connection:
        connection.execute(sa.update(runs).values(**values))


def test_a_living_driver_is_seen_to_live(state: State) -> None:
    begin(state, "one")
    set_row(state, heartbeat_at="2020-01-01T00:00:00.000Z")
    beating = Heartbeat(state, "r1", "one", lambda: None, every_s=0.001)
    seen = threading.Event()

    def watch() -> None:
        while row(state).heartbeat_at < "2026":
            pass
        seen.set()

    beating.start()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert seen.wait(20)
    beating.stop()
    assert not beating._thread.is_alive()


def test_the_loser_of_a_takeover_is_told_and_may_not_act(state: State, tmp_path: Path) -> None:
    context = context_of(state, tmp_path)
    begin(state, context.driver)
    context.check_driver()
    begin(state, "another")
    lost = threading.Event()
    beating = Heartbeat(
        state, "r1", context.driver, lambda: (context._on_lost(), lost.set()), every_s=0.001
    )
    beating.start()
    assert lost.wait(20)
    beating.stop()
    assert context.stop.is_set()
    with pytest.raises(TakenOverError, match="driven by another process"):
        context.check_driver()


def test_a_run_that_another_process_drives_is_not_booked_as_failed(
    state: State, tmp_path: Path
) -> None:
    context = context_of(state, tmp_path)
    begin(state, "another")
    abandon(context, "shop")
    assert row(state).status == "running"


def test_a_run_that_waits_for_a_person_is_not_booked_as_failed(
    state: State, tmp_path: Path
) -> None:
    context = context_of(state, tmp_path)
    begin(state, context.driver)
    set_row(state, status="waiting")
    abandon(context, "shop")
    assert row(state).status == "waiting"


def test_a_database_that_fails_for_a_while_does_not_end_the_beating(
    state: State, tmp_path: Path
) -> None:
    begin(state, "one")
    lost = threading.Event()
    beating = Heartbeat(state, "r1", "one", lost.set, every_s=0.001)
    with state.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE runs RENAME TO elsewhere")
    beating.start()
    with state.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO runs")
    begin(state, "another")
    assert lost.wait(20), "it went on and noticed the takeover"
    beating.stop()


def test_no_error_of_the_database_ends_the_beating(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(state, "one")
    lost, broken = threading.Event(), threading.Event()

    def beat(*_: object) -> bool:
        if not broken.is_set():
            broken.set()
            raise sa.exc.TimeoutError("no connection was free")
        return False

    monkeypatch.setattr("tasks.heartbeat.beat", beat)
    beating = Heartbeat(state, "r1", "one", lost.set, every_s=0.001)
    beating.start()
    assert lost.wait(20)
    beating.stop()
