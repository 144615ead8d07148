"""Decisions of the watchdog, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.watchdog import check
from tasks.watchdog.check import look
from tasks.watchdog.model import (
    AlertsFact,
    DriftFact,
    Facts,
    Fault,
    Limits,
    PoolFact,
    ResumeFact,
    ScheduleFact,
    Trouble,
    WatchFact,
)
from tests.watchdog.conftest import FLOW, NOW, a_flow, a_run, ago


def facts(**changes: Any) -> Facts:
    known: dict[str, Any] = {"now": NOW, "host": "here", "prefect": "up"} | changes
    return Facts(**known)


def one(found: list[Trouble]) -> Trouble:
    (trouble,) = found
    return trouble


def test_a_healthy_house_is_quiet() -> None:
    alive = a_run(driven=True, heartbeat_at=ago(seconds=4))
    pool = PoolFact("gates", "worker", False, ("w",), ago(seconds=5), ())
    assert look(facts(runs=(alive,), flows=(a_flow(),), pools=(pool,))) == []


def test_a_dead_run_pages_and_is_resumed_against_what_was_seen() -> None:
    trouble = one(look(facts(runs=(a_run(),), flows=(a_flow(),))))
    assert trouble.key == f"run:{a_run().run_id}"
    assert trouble.severity == "page"
    assert trouble.title.startswith("GATE FAILED for storefront: found dead, resumed")
    assert trouble.action is not None
    assert trouble.action.kind == "resume"
    assert (trouble.action.target, trouble.action.count) == (FLOW, 0)
    assert trouble.action.driver == "token"
    assert trouble.event == f"dead:{FLOW}:0"


def test_a_living_worker_is_given_time_to_report_the_death_itself() -> None:
    fresh = a_run(heartbeat_at=ago(seconds=6))
    assert look(facts(runs=(fresh,), flows=(a_flow(),))) == []
    # It reports twice, the second time after its hooks: told at once, resumed when that is over.
    reported = a_flow(state="CRASHED", message="Process exited: -9", since=ago(seconds=12))
    told = one(look(facts(runs=(fresh,), flows=(reported,))))
    assert told.action is None
    assert told.event == f"dead:{FLOW}:0"
    settled = replace(reported, since=ago(seconds=40))
    resumed = one(look(facts(runs=(fresh,), flows=(settled,))))
    assert resumed.action is not None
    assert resumed.event == told.event


def test_a_server_that_is_away_for_a_moment_makes_no_alarm_of_a_dead_run() -> None:
    away = {"prefect": "down", "faults": (Fault("prefect", "timeout"),)}
    assert look(facts(runs=(a_run(),), prefect_seen_at=ago(seconds=20), **away)) == []
    told = look(facts(runs=(a_run(),), prefect_seen_at=ago(seconds=70), **away))
    assert "while Prefect does not answer" in one(told).title


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELLING"])
def test_what_a_person_cancelled_is_never_resumed_and_wakes_nobody(state: str) -> None:
    flow = a_flow(state=state, since=ago(minutes=30))
    trouble = one(look(facts(runs=(a_run(),), flows=(flow,))))
    assert not trouble.alarm
    assert trouble.action is not None
    assert trouble.action.kind == "cancelled"
    # While Prefect's own cancellation may still be at work, nothing is done.
    young = a_flow(state="CANCELLING", since=ago(seconds=20))
    assert look(facts(runs=(a_run(),), flows=(young,))) == []


def test_after_three_resumes_a_person_is_asked_in_a_message_of_its_own() -> None:
    resumed = {FLOW: ResumeFact(3, ago(minutes=10))}
    trouble = one(look(facts(runs=(a_run(),), flows=(a_flow(),), resumes=resumed)))
    assert trouble.action is None
    assert "given up after 3 resumes" in trouble.title
    assert "imagegate run --resume" in " ".join(trouble.asked)
    assert not trouble.event.startswith("dead:")


def test_a_resume_under_way_is_not_repeated_and_tells_nothing_new() -> None:
    resumed = {FLOW: ResumeFact(1, ago(seconds=20))}
    stopped = a_run(status="stopped", driver=None)
    for flow in (
        a_flow(state="SCHEDULED", state_name="AwaitingRetry", since=ago(seconds=19)),
        a_flow(state="PENDING", state_name="Pending", since=ago(seconds=5)),
        a_flow(since=ago(seconds=2), starts=2),
        a_flow(),  # Claimed, and the watchdog has not told Prefect yet.
    ):
        trouble = one(look(facts(runs=(stopped,), flows=(flow,), resumes=resumed)))
        assert trouble.action is None, flow.state
        assert trouble.event == f"dead:{FLOW}:0"


def test_a_resume_that_was_claimed_and_never_done_is_done_again() -> None:
    """The watchdog that claimed it was killed before it told Prefect."""
    resumed = {FLOW: ResumeFact(1, ago(seconds=90))}
    stopped = a_run(status="stopped", driver=None)
    trouble = one(look(facts(runs=(stopped,), flows=(a_flow(),), resumes=resumed)))
    assert trouble.action is not None
    assert (trouble.action.kind, trouble.action.count) == ("resume", 1)


def test_a_run_that_its_worker_reported_as_crashed_is_resumed() -> None:
    """SIGTERM by a scheduler: the flow booked its run as failed, Prefect says Crashed."""
    ended = a_run(status="failed")
    crashed = a_flow(state="CRASHED", message="Process exited with status code: -15")
    trouble = one(look(facts(runs=(ended,), flows=(crashed,))))
    assert trouble.action is not None
    assert trouble.action.kind == "resume"


def test_a_run_of_the_command_line_is_told_with_the_command_and_not_resumed() -> None:
    flow = a_flow(deployment=None, pool=None)
    trouble = one(look(facts(runs=(a_run(),), flows=(flow,))))
    assert trouble.action is not None
    assert trouble.action.kind == "crash"
    assert f"imagegate run --resume {a_run().run_id}" in trouble.asked[0]
    nowhere = one(look(facts(runs=(a_run(),), prefect="none")))
    assert nowhere.action is None
    assert nowhere.severity == "page"
    old = a_run(started_at=ago(days=3), heartbeat_at=ago(days=3))
    assert one(look(facts(runs=(old,), prefect="none"))).severity == "warning"


def test_a_run_that_died_long_ago_is_told_and_not_resumed() -> None:
    old = a_run(started_at=ago(days=3), heartbeat_at=ago(days=3))
    trouble = one(look(facts(runs=(old,), flows=(a_flow(),))))
    assert trouble.action is None
    assert trouble.severity == "warning"


def test_a_run_that_a_later_one_overtook_is_over() -> None:
    assert look(facts(runs=(a_run(overtaken_by="later"),), flows=(a_flow(),))) == []


@pytest.mark.parametrize(
    ("message", "name", "severity"),
    [
        ("Flow run encountered an exception: StateError: disk full", "Failed", "page"),
        ("Flow run encountered an exception: ConfigError: no such file", "Failed", "warning"),
        ("preflight refuses", "Refused", "warning"),
        (
            "Validation of flow parameters failed with error: ParameterTypeError: bad",
            "Failed",
            "warning",
        ),
    ],
)
def test_a_broken_gate_pages_and_a_refused_one_does_not(
    message: str, name: str, severity: str
) -> None:
    flow = a_flow(state="FAILED", state_name=name, message=message)
    trouble = one(look(facts(flows=(flow,))))
    assert trouble.severity == severity
    assert trouble.action is None
    # A later good run of the deployment ends it.
    good = a_flow(id="other", state="COMPLETED", since=ago(minutes=1))
    assert look(facts(flows=(flow, good))) == []


def test_a_gate_that_died_before_it_booked_a_run() -> None:
    silent = a_flow(beat_at=ago(minutes=4))
    trouble = one(look(facts(flows=(silent,))))
    assert trouble.key == f"gate:{FLOW}"
    assert trouble.action is not None
    assert trouble.action.kind == "resume"
    # A sign of life protects it, also when it belongs to another state database.
    assert look(facts(flows=(a_flow(beat_at=ago(seconds=20)),))) == []
    # Without any sign ever, nobody can tell: it is said and left alone.
    unknown = one(look(facts(flows=(a_flow(),))))
    assert unknown.action is None
    assert unknown.severity == "warning"


def test_pending_without_a_process() -> None:
    stuck = a_flow(state="PENDING", state_name="Pending", since=ago(minutes=4))
    assert one(look(facts(flows=(stuck,)))).action is not None
    pulling = replace(stuck, state_name="InfrastructurePending")
    assert look(facts(flows=(pulling,))) == []


def test_a_finished_run_whose_flow_run_hangs_only_frees_its_slot() -> None:
    hangs = a_flow(beat_at=ago(minutes=4))
    trouble = one(look(facts(flows=(hangs,), booked={FLOW: "finished"})))
    assert not trouble.alarm
    assert trouble.action is not None
    assert trouble.action.kind == "crash"


def test_watches_that_go_wrong_are_one_trouble_until_one_ends_well() -> None:
    def watch(key: str, state: str, minutes: float) -> Any:
        name = "production-watch/imagegate"
        return a_flow(
            id=key,
            flow="production-watch",
            deployment=name,
            state=state,
            since=ago(minutes=minutes),
        )

    crashed = [watch("1", "CRASHED", 3), watch("2", "CRASHED", 2)]
    assert one(look(facts(flows=tuple(crashed)))).key == "flow:production-watch/imagegate"
    assert look(facts(flows=(*crashed, watch("3", "COMPLETED", 1)))) == []


def test_missed_schedule() -> None:
    nightly = ScheduleFact(
        "release-gate/storefront", "storefront", "0 2 * * *", "UTC", ago(days=30), ago(days=1)
    )
    trouble = one(look(facts(schedules=(nightly,))))
    assert trouble.key == "schedule:release-gate/storefront:2026-11-25T02:00Z"
    assert "2026-11-25 02:00 UTC" in trouble.title
    # A flow run that started counts, whatever came of it; one that started before does not.
    started = a_flow(state="FAILED", state_name="Refused", started_at=ago(minutes=58))
    keys = [t.key for t in look(facts(schedules=(nightly,), flows=(started,)))]
    assert not any(key.startswith("schedule:") for key in keys)
    early = a_flow(state="COMPLETED", started_at=ago(hours=5), since=ago(minutes=30))
    assert one(look(facts(schedules=(nightly,), flows=(early,)))).kind == "schedule"


def test_nobody_takes_runs() -> None:
    late = (a_flow(state="SCHEDULED", state_name="Late", expected_at=ago(minutes=9)),)
    seen = ago(minutes=20)
    dead = PoolFact("gates", "worker", False, (), seen, late)
    trouble = one(look(facts(pools=(dead,))))
    assert trouble.title.startswith("NOBODY TAKES RUNS: work pool gates")
    assert "prefect worker start --pool gates" in trouble.asked[0]
    busy = replace(dead, online=("w",))
    assert one(look(facts(pools=(busy,)))).key == "workers:gates:late"
    assert look(facts(pools=(replace(dead, paused=True), replace(dead, late=())))) == []


def test_a_server_that_is_away_is_told_after_two_minutes_and_only_when_it_was_there() -> None:
    down = {"prefect": "down", "prefect_error": "refused", "prefect_url": "http://p/api"}
    fault = (Fault("prefect", "refused"),)
    assert look(facts(**down, faults=fault, prefect_seen_at=None)) == []
    assert look(facts(**down, faults=fault, prefect_seen_at=ago(seconds=100))) == []
    assert one(look(facts(**down, faults=fault, prefect_seen_at=ago(minutes=3)))).kind == "prefect"


def test_undelivered_alerts_page_and_drift_is_mended_after_a_change_had_its_time() -> None:
    waiting = AlertsFact(3, ago(minutes=30), "channel_not_found", ("gate:1:started",))
    assert one(look(facts(alerts=waiting))).severity == "page"
    drift = DriftFact("storefront", "sha256:a (epoch 3)", "nothing", ago(minutes=5))
    trouble = one(look(facts(drifts=(drift,))))
    assert trouble.action is not None
    assert trouble.action.kind == "mend_router"
    assert look(facts(drifts=(replace(drift, changed_at=ago(seconds=10)),))) == []


def test_what_cannot_be_read_is_a_trouble_and_so_is_a_check_that_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_facts: Facts, _limits: Limits) -> list[Trouble]:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(check, "_undelivered", broken)
    found = look(facts(faults=(Fault("router", "PermissionError: no"),), runs=(a_run(),)))
    keys = {trouble.key for trouble in found}
    assert keys == {"watchdog:check:broken@here", "watchdog:router@here", f"run:{a_run().run_id}"}


def test_a_schedule_that_cannot_be_read_keeps_no_other_check_from_being_made() -> None:
    wrong = ScheduleFact("x", None, "99 * * * *", "UTC", datetime(2026, 1, 1, tzinfo=UTC), None)
    found = look(facts(schedules=(wrong,), runs=(a_run(),)))
    assert {t.kind for t in found} == {"gate", "watchdog"}


def test_a_watch_over_what_serves_that_stopped_to_look_is_told() -> None:
    looked = WatchFact("storefront", ago(seconds=590))
    assert look(facts(watches=(looked,))) == []
    dead = replace(looked, looked_at=ago(minutes=11))
    trouble = one(look(facts(watches=(dead,))))
    assert trouble.key == "unwatched:storefront"
    assert trouble.title == "Nobody watches what storefront serves"
    ahead = replace(looked, looked_at=ago(minutes=-11))
    assert one(look(facts(watches=(ahead,)))).kind == "unwatched"
