"""``imagegate watchdog`` and ``imagegate automations`` as real processes."""

from __future__ import annotations

import signal
import subprocess

import pytest
from pydantic import ValidationError

from tests.conftest import Command


def test_one_look_at_a_quiet_house(light_imagegate: Command) -> None:
    done = light_imagegate("watchdog", "--once", "--json")
    assert done.code == 0, done.err
    assert done.json["troubles"] == []
    assert done.json["prefect"] == "none"
    assert "nothing is wrong" in light_imagegate("watchdog", "--once").out


def test_the_watch_gives_signs_of_life_and_ends_cleanly(light_imagegate: Command) -> None:
    process = light_imagegate.start("watchdog", "--every", "1", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert '"troubles": []' in first
    process.send_signal(signal.SIGTERM)
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, err
    assert "Traceback" not in err


def test_a_dead_run_of_the_command_line_is_told_with_its_command(
    light_imagegate: Command,
) -> None:
    from tasks.runs import begin_run
    from tasks.state import State

    light_imagegate.home.mkdir()
    state = State(f"sqlite:///{light_imagegate.home / 'state.db'}")
    dead = subprocess.Popen(["true"])
    dead.wait()
    begin_run(state, "run-1", "storefront", "sha256:c", "sha256:b", driver="x")
    import sqlalchemy as sa

    from tasks.tables import runs

    with state.begin() as connection:
        connection.execute(sa.update(runs).values(pid=dead.pid))
    state.close()
    done = light_imagegate("watchdog", "--once")
    assert done.code == 4, done.err
    assert "GATE FAILED for storefront" in done.out
    assert "imagegate run --resume run-1" in done.out


def test_automations_need_a_server(light_imagegate: Command) -> None:
    refused = light_imagegate("automations", "apply")
    assert refused.code == 2
    assert "PREFECT_API_URL" in refused.err
    unknown = light_imagegate("automations", "destroy")
    assert unknown.code == 2
    assert "known: apply, list, remove" in " ".join(unknown.err.split())
    away = light_imagegate("automations", "list", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert away.code == 2, away.err
    assert "does not answer" in " ".join(away.err.split())


def test_what_the_form_of_the_watch_takes() -> None:
    from flows.watch import WatchRequest

    assert WatchRequest().limits.resumes == 3
    assert WatchRequest(resume=False).limits.resumes == 0
    assert WatchRequest(grace_minutes=5).limits.schedule_grace_s == 300
    for wrong in ({"resumes": -1}, {"grace_minutes": 0}, {"alert_minutes": "x"}, {"more": 1}):
        with pytest.raises(ValidationError):
            WatchRequest.model_validate(wrong)
