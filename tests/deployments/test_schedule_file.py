from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.schedule_book import book_schedules, missed, registered_at
from deployments.schedule_file import ScheduleFile, Timing, fires, load_schedules
from tasks.errors import ConfigError
from tasks.settings import DEPLOYMENTS
from tasks.state import State


def write(path: Path, value: Any) -> Path:
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def test_the_shipped_file_is_valid_and_runs_the_gate_every_night() -> None:
    file = load_schedules(DEPLOYMENTS / "schedules.yaml")
    gate = file.products["storefront"].gate
    assert gate is not None
    night = list(islice(fires(gate, file.zone(gate), datetime(2026, 11, 25, tzinfo=UTC)), 2))
    assert night[1] - night[0] == timedelta(days=1)


@pytest.mark.parametrize(
    ("gate", "field", "word"),
    [
        ({"cron": "61 * * * *"}, "gate.cron", "minute"),
        ({"cron": "* * * *"}, "gate.cron", "five fields"),
        ({"cron": "* * * * * *"}, "gate.cron", "five fields"),
        ({"cron": "0 0 31 2 *"}, "gate.cron", "day-of-month"),
        ({"cron": "0 2 * * *", "timezone": "Mars/Olympus"}, "gate.timezone", "Europe/Berlin"),
        ({"cron": "0 2 * * *", "timezone": "../zone"}, "gate.timezone", "IANA"),
        ({"cron": "0 2 * * *", "every_seconds": 5}, "gate", "either cron or every_seconds"),
        ({}, "gate", "either cron or every_seconds"),
        ({"every_seconds": 0}, "gate.every_seconds", "greater than or equal to 1"),
        ({"every_seconds": 5, "timezone": "UTC"}, "gate", "needs no timezone"),
        ({"cron": "0 2 * * *", "zone": "UTC"}, "gate.zone", "unknown field"),
    ],
)
def test_a_wrong_timing_is_refused_with_file_field_and_fix(
    tmp_path: Path, gate: dict[str, Any], field: str, word: str
) -> None:
    path = write(tmp_path / "s.yaml", {"products": {"shop": {"gate": gate}}})
    with pytest.raises(ConfigError) as caught:
        load_schedules(path)
    assert f"{path}: field 'products.shop.{field}'" in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"products": {}}, "products"),
        ({"products": {"a b": {}}}, "a b"),
        ({"products": {"shop": {"collision": "both"}}}, "'wait' or 'refuse'"),
        ({"products": {"shop": {"parameters": {"cases": 0}}}}, "cases"),
        ({"products": {"shop": {"parameters": {"case": 5}}}}, "unknown field"),
        ({"products": {"shop": {}}, "budget_alarm": {"every_seconds": 86400}}, "at most 3600"),
        ({"products": {"shop": {}}, "timezone": "Nowhere"}, "time zone"),
        ({}, "empty"),
        ([], "empty"),
        ([1], "mapping"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, value: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load_schedules(write(tmp_path / "s.yaml", value))


def test_a_nightly_run_stays_at_its_hour_when_the_clocks_change() -> None:
    timing = Timing(cron="30 3 * * *")
    found = list(islice(fires(timing, "Europe/Berlin", datetime(2026, 3, 28, tzinfo=UTC)), 2))
    assert [f"{at:%d %H:%M}" for at in found] == ["28 02:30", "29 01:30"]


def test_an_interval_counts_from_a_fixed_moment_so_that_a_restart_does_not_move_it() -> None:
    timing = Timing(every_seconds=40)
    first = next(fires(timing, "UTC", datetime(2026, 11, 25, 10, 0, 3, tzinfo=UTC)))
    again = next(fires(timing, "UTC", datetime(2026, 11, 25, 10, 0, 29, tzinfo=UTC)))
    assert first == again
    assert first > datetime(2026, 11, 25, 10, 0, 29, tzinfo=UTC)


def test_missed_runs_are_those_that_nobody_started_in_time() -> None:
    timing = Timing(cron="0 2 * * *")
    since = datetime(2026, 11, 20, tzinfo=UTC)
    now = datetime(2026, 11, 23, 2, 5, tzinfo=UTC)
    started = [
        datetime(2026, 11, 20, 2, 0, 4, tzinfo=UTC),
        datetime(2026, 11, 22, 9, 0, tzinfo=UTC),  # by hand, hours later
    ]
    found = missed(timing, "UTC", since=since, now=now, started=started)
    # That of the 23rd may still start within the grace.
    assert [f"{at:%d %H:%M}" for at in found] == ["21 02:00", "22 02:00"]


def test_the_book_keeps_since_when_a_schedule_is_what_it_is(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    nightly = ScheduleFile.model_validate(
        {
            "products": {
                "shop": {"gate": {"cron": "0 2 * * *"}},
                "demo": {"gate": {"cron": "0 3 * * *"}},
            }
        }
    )
    later = ScheduleFile.model_validate(
        {
            "products": {
                "shop": {"gate": {"cron": "0 4 * * *"}},
                "fast": {"gate": {"every_seconds": 9}},
            }
        }
    )
    monday, tuesday = "2026-11-23T00:00:00.000Z", "2026-11-24T00:00:00.000Z"
    book_schedules(state, nightly, monday)
    book_schedules(state, nightly, tuesday)
    assert registered_at(state, "release-gate/shop") == datetime(2026, 11, 23, tzinfo=UTC)
    book_schedules(state, later, tuesday)
    assert registered_at(state, "release-gate/shop") == datetime(2026, 11, 24, tzinfo=UTC)
    assert registered_at(state, "release-gate/demo") is None
    assert registered_at(state, "release-gate/fast") is None
    state.close()
