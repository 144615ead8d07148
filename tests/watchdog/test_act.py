"""What the watchdog does, on a real state database and a Prefect that only remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from tasks.alerts.incidents import open_incidents
from tasks.alerts.outbox import messages
from tasks.mix.freeze import stamp
from tasks.runs import beat
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import outbox, runs, schedules
from tasks.watchdog import loop
from tasks.watchdog.act import claim
from tasks.watchdog.facts import read_beats, read_facts
from tasks.watchdog.loop import Aside, run_forever, run_once
from tasks.watchdog.model import Action, Limits
from tests.watchdog.conftest import FLOW, NOW, FakePrefect, a_flow, a_run, ago


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> FakePrefect:
    fake = FakePrefect(flows=(a_flow(),))
    monkeypatch.setattr(loop, "prefect_side", lambda: fake)
    return fake


@pytest.fixture
def no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "prefect_side", lambda: None)


def status(state: State) -> tuple[str, str | None]:
    with state.begin() as connection:
        row = connection.execute(sa.select(runs.c.status, runs.c.driver)).one()
    return row.status, row.driver


def titles(state: State) -> list[str]:
    return [str(m.payload["text"]) for m in messages(state) if m.payload.get("text")]


def test_a_dead_run_is_told_once_claimed_crashed_and_started_again(
    settings: Settings, state: State, booked: Callable[..., None], prefect: FakePrefect
) -> None:
    booked()
    first = run_once(settings, NOW)
    assert prefect.calls == ["crash", "start_again"]
    assert status(state) == ("stopped", None)
    assert any("GATE FAILED" in text for text in first.told)
    told = len(messages(state))

    prefect.flows = (a_flow(state="SCHEDULED", state_name="AwaitingRetry", since=NOW),)
    for seconds in (2, 30, 120):
        again = run_once(settings, NOW + timedelta(seconds=seconds))
        assert again.told == []
        assert again.done == []
    assert prefect.calls == ["crash", "start_again"]
    assert len(messages(state)) == told
    assert [i.key for i in open_incidents(state)] == [f"run:{a_run().run_id}"]

    # The worker's new process has it: the incident is over, in the thread of the run.
    with state.begin() as connection:
        connection.execute(
            sa.update(runs).values(
                status="running", driver="new", heartbeat_at=stamp(NOW + timedelta(seconds=125))
            )
        )
    prefect.flows = (a_flow(since=NOW + timedelta(seconds=121), starts=2),)
    over = run_once(settings, NOW + timedelta(seconds=130))
    assert over.closed
    assert open_incidents(state) == ()


def test_the_dead_driver_that_wakes_up_finds_itself_replaced(
    settings: Settings, state: State, booked: Callable[..., None], prefect: FakePrefect
) -> None:
    booked()
    assert beat(state, a_run().run_id, "token")
    with state.begin() as connection:
        connection.execute(sa.update(runs).values(heartbeat_at=stamp(ago(minutes=1))))
    run_once(settings, NOW)
    assert not beat(state, a_run().run_id, "token")


def test_of_two_watchdogs_one_resumes(
    settings: Settings, state: State, booked: Callable[..., None]
) -> None:
    booked()
    action = Action("resume", FLOW, 0, "token", "dead", a_run().run_id)
    ready, won = threading.Barrier(4), []

    def race() -> None:
        own = State(settings.state_url.get_secret_value())
        try:
            ready.wait()
            if claim(own, action, NOW):
                won.append(1)
        finally:
            own.close()

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]


def test_a_run_that_got_a_new_driver_meanwhile_is_left_alone(
    state: State, booked: Callable[..., None]
) -> None:
    booked(driver="new")
    assert not claim(state, Action("resume", FLOW, 0, "token", "", a_run().run_id), NOW)
    assert status(state) == ("running", "new")


def test_cancelled_between_the_look_and_the_act_is_not_resumed(
    settings: Settings, state: State, booked: Callable[..., None], prefect: FakePrefect
) -> None:
    booked()
    prefect.flow_state = "CANCELLED"
    run_once(settings, NOW)
    assert prefect.calls == []
    assert status(state) == ("running", "token")


def test_a_cancelled_run_is_booked_as_stopped_without_a_word(
    settings: Settings, state: State, booked: Callable[..., None], prefect: FakePrefect
) -> None:
    booked()
    prefect.flows = (a_flow(state="CANCELLED"),)
    run_once(settings, NOW)
    assert status(state)[0] == "stopped"
    assert messages(state) == ()


def test_a_missed_schedule_is_told_once_a_fire_time_and_closed_by_a_run(
    settings: Settings, state: State, no_prefect: None
) -> None:
    with state.begin() as connection:
        connection.execute(
            sa.insert(schedules).values(
                name="release-gate/storefront",
                product="storefront",
                cron="0 2 * * *",
                timezone="UTC",
                registered_at=stamp(ago(days=9)),
            )
        )
    assert len(run_once(settings, NOW).told) == 1
    assert run_once(settings, NOW + timedelta(minutes=5)).told == []
    # The next night is missed as well: told again, and the first is not left open.
    second = run_once(settings, NOW + timedelta(days=1))
    assert len(second.told) == len(second.closed) == 1
    with state.begin() as connection:
        started = stamp(NOW + timedelta(days=1, minutes=1))
        connection.execute(sa.update(schedules).values(started_at=started))
    assert len(run_once(settings, NOW + timedelta(days=1, minutes=2)).closed) == 1
    assert open_incidents(state) == ()


def test_what_could_not_be_seen_is_not_called_over(
    settings: Settings, state: State, prefect: FakePrefect
) -> None:
    failed = a_flow(state="FAILED", message="Flow run encountered an exception: StateError: x")
    prefect.flows = (failed,)
    run_once(settings, NOW)
    (incident,) = open_incidents(state)
    prefect.error = ConnectionError("https://kim:secret@prefect.test refused, Bearer abc")
    later = run_once(settings, NOW + timedelta(minutes=5))
    assert incident.key in [i.key for i in open_incidents(state)]
    assert "prefect:down" in [i.key for i in open_incidents(state)]
    shown = str(later.to_dict())
    assert "secret" not in shown
    assert "abc" not in shown
    prefect.error, prefect.flows = None, ()
    run_once(settings, NOW + timedelta(minutes=6))
    assert open_incidents(state) == ()


def test_a_watchdog_without_a_server_closes_nothing_of_one_with_a_server(
    settings: Settings, state: State, prefect: FakePrefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect.flows = (a_flow(state="FAILED", message="encountered an exception: StateError: x"),)
    run_once(settings, NOW)
    monkeypatch.setattr(loop, "prefect_side", lambda: None)
    assert run_once(settings, NOW).closed == []


def test_undelivered_alerts_page_once_and_a_message_that_waits_on_purpose_does_not(
    settings: Settings, state: State, no_prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.alerts.incidents import raise_alarm

    monkeypatch.setattr(loop, "_deliver", lambda *_: None)
    told = settings.model_copy(update={"slack_webhook": SecretStr("https://hooks.test/x")})
    raise_alarm(state, "budget:x", title="old", severity="info", now=ago(hours=1))
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox).values(
                created_at=stamp(ago(hours=1)), not_before=stamp(NOW + timedelta(hours=4))
            )
        )
    assert run_once(told, NOW).standing == []
    with state.begin() as connection:
        connection.execute(sa.update(outbox).values(not_before=None))
    (trouble,) = run_once(told, NOW).standing
    assert trouble.key == "alerts:undelivered"
    assert run_once(told, NOW + timedelta(seconds=10)).told == []
    # Without any channel nobody expects to be told.
    assert run_once(settings, NOW).standing == []


def test_an_approval_that_cannot_be_carried_out_is_told_and_delivers_the_rest(
    settings: Settings, state: State, no_prefect: None
) -> None:
    def broken(_state: State, _settings: Settings) -> list[str]:
        raise RuntimeError("no such run")

    result = run_once(settings, NOW, carry_out=broken)
    assert [f.source for f in result.faults] == ["act:approvals"]
    assert any("approvals" in text for text in result.told)
    assert run_once(settings, NOW, carry_out=lambda _s, _t: ["resumed"]).done == ["resumed"]
    assert open_incidents(state) == ()


def test_a_router_that_lost_production_is_mended(
    settings: Settings, state: State, no_prefect: None, tmp_path: Path
) -> None:
    from datetime import UTC, datetime

    from tasks.mix.production import adopt
    from tasks.rollout.routers.file import FileRouter
    from tests.fakes.mixes import PRODUCT, mix

    one = mix("one")
    adopt(state, one, "kim", "first")
    now = datetime.now(UTC) + timedelta(minutes=5)
    found = run_once(settings, now)
    assert [t.kind for t in found.standing] == ["router"]
    shown = FileRouter(settings.routing_file).read(PRODUCT)
    assert shown is not None
    assert shown.mix_digest == one.digest
    assert run_once(settings, now).closed
    assert open_incidents(state) == ()


def test_the_loop_beats_survives_a_broken_pass_and_ends_at_once(
    settings: Settings, no_prefect: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, seen, errors = threading.Event(), [], []
    really = loop.run_once

    def flaky(*args: Any, **kwargs: Any) -> Any:
        if not errors:
            raise OSError("the database is away")
        return really(*args, **kwargs)

    def enough(result: Any) -> None:
        seen.append(result)
        stop.set()

    monkeypatch.setattr(loop, "run_once", flaky)
    run_forever(settings, stop, 0.01, on_pass=enough, on_error=errors.append)
    assert len(errors) == len(seen) == 1
    assert "the database is away" in errors[0]
    state = State(settings.state_url.get_secret_value())
    names = list(read_beats(state))
    state.close()
    assert [name.startswith("watchdog:") for name in names] == [True]


def test_approvals_are_carried_out_beside_the_watch(settings: Settings, state: State) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_state: State, _settings: Settings) -> list[str]:
        begun.set()
        assert go_on.wait(20)
        return ["done"]

    aside = Aside(slow)
    assert list(aside(state, settings)) == []
    assert begun.wait(20)
    assert list(aside(state, settings)) == []  # Still at it: nothing is started twice.
    go_on.set()
    assert aside._thread is not None
    aside._thread.join(20)
    assert list(aside(state, settings)) == ["done"]
    aside._thread.join(20)


def test_runs_of_this_machine_are_dead_when_their_process_is(
    settings: Settings, state: State, booked: Callable[..., None]
) -> None:
    import os
    import socket

    booked(host=socket.gethostname(), pid=os.getpid(), heartbeat_at=stamp(NOW))
    (alive,) = read_facts(state, settings, NOW, None, Limits()).runs
    assert alive.driven
    with state.begin() as connection:
        connection.execute(sa.update(runs).values(pid=2**22 + 1))
    (dead,) = read_facts(state, settings, NOW, None, Limits()).runs
    assert not dead.driven
