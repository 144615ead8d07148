"""When a schedule should have fired: cron in its own time zone, summer time included."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from tasks.watchdog.model import ScheduleFact


def previous_fire(cron: str, timezone: str, now: datetime) -> datetime | None:
    """Return the last moment before ``now`` at which a schedule fires, in its time zone.

    Raises:
        ValueError: The expression or the zone is invalid.
    """
    here = now.astimezone(ZoneInfo(timezone))
    try:
        return next(CronSim(cron, here, reverse=True))
    except StopIteration:
        return None


def missed_fire(schedule: ScheduleFact, now: datetime, grace_s: float) -> datetime | None:
    """Return the fire time that passed without a run, ``None`` when there is none.

    Args:
        schedule: The schedule; a fire time before it was registered is nobody's fault.
        now: The present moment.
        grace_s: Seconds that a run may take to start.

    Raises:
        ValueError: The expression or the zone is invalid.
    """
    # What is still within its grace is not missed yet; the one before may be.
    due = previous_fire(schedule.cron, schedule.timezone, now - timedelta(seconds=grace_s))
    if due is None or due <= schedule.registered_at:
        return None
    # Schedulers disagree by up to an hour about a time that the clocks skip or repeat.
    day = timedelta(days=1)
    if due.utcoffset() != (due - day).utcoffset() or due.utcoffset() != (due + day).utcoffset():
        due_again = now - due < timedelta(hours=1, seconds=grace_s)
        if due_again:
            return None
    if schedule.started_at is not None and schedule.started_at >= due - timedelta(seconds=60):
        return None
    return due
