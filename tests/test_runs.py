"""The book of runs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from tasks.errors import ConfigError
from tasks.runs import (
    beat,
    begin_run,
    check_resumable,
    end_run,
    is_driven,
    new_run_id,
    note_scheduled_start,
    process_alive,
    run_of_flow,
)
from tasks.state import State
from tasks.tables import runs, schedules


@pytest.fixture
def state(tmp_path: Path):
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def drive(state: State, run_id: str, pid: int) -> None:
    begin_run(state, run_id, "shop", "sha256:c", "sha256:b")
    with state.begin() as connection:
        connection.execute(sa.update(runs).where(runs.c.run_id == run_id).values(pid=pid))


def test_a_run_id_is_a_safe_folder_name_and_new_each_time() -> None:
    ids = {new_run_id("../Émile's <b>mix</b>") for _ in range(50)}
    assert len(ids) == 50
    for run_id in ids:
        assert "/" not in run_id
        assert ".." not in run_id
        assert re.fullmatch(r"\d{8}-\d{6}-[\w-]+-[0-9a-f]{4}", run_id)


def test_only_an_unfinished_dead_run_can_be_resumed(state: State) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with pytest.raises(ConfigError, match="no such run"):
        check_resumable(state, "r1")
    drive(state, "r1", dead.pid)
    check_resumable(state, "r1")
    drive(state, "r2", os.getppid())
    with pytest.raises(ConfigError, match="still drives"):
        check_resumable(state, "r2")
    end_run(state, "r2", "finished", "HOLD")
    check_resumable(state, "r2")
    end_run(state, "r2", "finished", "PROMOTE")
    with pytest.raises(ConfigError, match="ended with PROMOTE"):
        check_resumable(state, "r2")


def test_a_zombie_drives_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_alive(child.pid)
    child.wait()
    child.stdout.close()


def test_on_another_host_nothing_is_known() -> None:
    assert is_driven("elsewhere.example", 1, None)


def test_a_driver_is_dead_when_its_process_is_gone_or_silent() -> None:
    now = datetime(2026, 11, 25, 2, 0, 30, tzinfo=UTC)
    fresh, old = "2026-11-25T02:00:10.000Z", "2026-11-25T01:59:59.000Z"
    here = socket.gethostname()
    assert is_driven("elsewhere.example", 1, fresh, now=now)
    assert not is_driven("elsewhere.example", 1, old, now=now)
    assert is_driven(here, os.getppid(), fresh, now=now)
    assert not is_driven(here, os.getppid(), old, now=now), "a number that another process got"
    assert not is_driven(here, 1, fresh, now=now, alive=lambda _: False)


def test_a_driver_whose_run_was_taken_over_learns_it_by_its_heartbeat(state: State) -> None:
    begin_run(state, "r1", "shop", "sha256:c", "sha256:b", driver="one", flow_run_id="f1")
    assert beat(state, "r1", "one")
    begin_run(state, "r1", "shop", "sha256:c", "sha256:b", driver="two")
    assert not beat(state, "r1", "one")
    assert beat(state, "r1", "two")
    assert run_of_flow(state, "f1") == "r1"
    assert run_of_flow(state, "f2") is None


def test_a_start_is_noted_for_its_schedule_only(state: State) -> None:
    with state.begin() as connection:
        for name in ("release-gate/shop", "release-gate/other"):
            connection.execute(
                sa.insert(schedules).values(
                    name=name, cron="0 2 * * *", timezone="UTC", registered_at="2026-11-01"
                )
            )
    note_scheduled_start(state, "release-gate/shop")
    note_scheduled_start(state, "release-gate/unknown")
    with state.begin() as connection:
        rows = dict(connection.execute(sa.select(schedules.c.name, schedules.c.started_at)).all())
    assert rows["release-gate/shop"] > "2026"
    assert rows["release-gate/other"] is None
