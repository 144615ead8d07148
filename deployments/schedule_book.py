"""The schedules that were registered, in the state database: what should have run, and when."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile

import sqlalchemy as sa

from deployments.schedule_file import ScheduleFile, Timing, fires
from tasks.state import State
from tasks.tables import schedules

#: A run that starts later than this after its time counts as missed.
GRACE = timedelta(minutes=10)


def book_schedules(state: State, file: ScheduleFile, now: str) -> None:
    """Book the cron schedules of all gates; one that did not change keeps its date.

    A gate that runs every so many seconds is not booked: nobody misses one run of it.

    Args:
        state: The database.
        file: What is registered now; gates that are not in it are forgotten.
        now: UTC ISO-8601.
    """
    wanted = {
        f"release-gate/{product}": (product, plan.gate.cron, file.zone(plan.gate))
        for product, plan in file.products.items()
        if plan.gate is not None and plan.gate.cron is not None
    }
    with state.begin() as connection:
        known = {row.name: row for row in connection.execute(sa.select(schedules))}
        for name in known.keys() - wanted.keys():
            connection.execute(sa.delete(schedules).where(schedules.c.name == name))
        for name, (product, cron, zone) in wanted.items():
            row = known.get(name)
            if row is None:
                connection.execute(
                    sa.insert(schedules).values(
                        name=name, product=product, cron=cron, timezone=zone, registered_at=now
                    )
                )
            elif (row.product, row.cron, row.timezone) != (product, cron, zone):
                connection.execute(
                    sa.update(schedules)
                    .where(schedules.c.name == name)
                    .values(product=product, cron=cron, timezone=zone, registered_at=now)
                )


def registered_at(state: State, name: str) -> datetime | None:
    """Return since when a schedule is what it is, or ``None`` when it is not booked."""
    query = sa.select(schedules.c.registered_at).where(schedules.c.name == name)
    with state.begin() as connection:
        value = connection.execute(query).scalar()
    return None if value is None else datetime.fromisoformat(value)


def missed(
    timing: Timing,
    timezone: str,
    *,
    since: datetime,
    now: datetime,
    started: list[datetime],
    grace: timedelta = GRACE,
) -> list[datetime]:
    """Return the moments at which a run should have started and none did, oldest first.

    Args:
        timing: The schedule.
        timezone: Its time zone.
        since: Nothing was expected before.
        now: The present moment.
        started: When runs of the schedule started.
        grace: How late a run may start.
    """
    due = takewhile(lambda moment: moment + grace <= now, fires(timing, timezone, since))
    return [
        moment
        for moment in due
        if not any(moment - timedelta(seconds=1) <= run <= moment + grace for run in started)
    ]
