"""When a schedule should have fired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.watchdog.cron import missed_fire, previous_fire
from tasks.watchdog.model import ScheduleFact


def schedule(cron: str = "0 2 * * *", timezone: str = "UTC", **more: datetime) -> ScheduleFact:
    return ScheduleFact(
        name="release-gate/storefront",
        product="storefront",
        cron=cron,
        timezone=timezone,
        registered_at=more.get("registered_at", datetime(2026, 1, 1, tzinfo=UTC)),
        started_at=more.get("started_at"),
    )


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_a_night_without_a_run_is_missed_after_the_grace_and_not_before() -> None:
    due = utc(2026, 11, 25, 2)
    ran = schedule(started_at=utc(2026, 11, 24, 2, 0, 3))
    assert missed_fire(ran, due + timedelta(seconds=600), 600) is None
    assert missed_fire(ran, due + timedelta(seconds=601), 600) == due
    # It stays missed until the next one is due and gone as well.
    assert missed_fire(ran, utc(2026, 11, 26, 2, 5), 600) == due


def test_a_run_that_started_ends_it() -> None:
    now = utc(2026, 11, 25, 3)
    assert missed_fire(schedule(started_at=utc(2026, 11, 25, 2, 0, 1)), now, 600) is None
    assert missed_fire(schedule(started_at=utc(2026, 11, 25, 2, 40)), now, 600) is None


def test_nothing_is_missed_before_it_was_registered() -> None:
    new = schedule(registered_at=utc(2026, 11, 25, 2, 30))
    assert missed_fire(new, utc(2026, 11, 25, 12), 600) is None
    assert missed_fire(new, utc(2026, 11, 26, 2, 11), 600) == utc(2026, 11, 26, 2)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        # Summer: 02:00 in Berlin is 00:00 UTC; winter: 01:00.
        (utc(2026, 7, 1, 12), utc(2026, 7, 1, 0)),
        (utc(2026, 12, 1, 12), utc(2026, 12, 1, 1)),
        # The day after each change of the clocks.
        (utc(2026, 3, 30, 12), utc(2026, 3, 30, 0)),
        (utc(2026, 10, 26, 12), utc(2026, 10, 26, 1)),
    ],
)
def test_times_follow_the_clocks_of_the_zone(now: datetime, due: datetime) -> None:
    found = previous_fire("0 2 * * *", "Europe/Berlin", now)
    assert found is not None
    assert found.astimezone(UTC) == due


def test_a_time_that_the_clocks_skip_gets_an_hour_more() -> None:
    """02:30 does not exist in Berlin on 29 March 2026: schedulers say 03:00 or 03:30."""
    nightly = schedule("30 2 * * *", "Europe/Berlin", started_at=utc(2026, 3, 28, 1, 30))
    assert missed_fire(nightly, utc(2026, 3, 29, 1, 45), 600) is None
    missed = missed_fire(nightly, utc(2026, 3, 29, 3), 600)
    assert missed is not None
    assert missed.astimezone(UTC) == utc(2026, 3, 29, 1)


@pytest.mark.parametrize(("cron", "zone"), [("61 * * * *", "UTC"), ("0 2 * * *", "Mars/Base")])
def test_a_wrong_schedule_is_an_error(cron: str, zone: str) -> None:
    with pytest.raises(Exception, match=r"Bad|zone|key"):
        previous_fire(cron, zone, utc(2026, 1, 1))
