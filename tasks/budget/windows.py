"""Days, weeks and months of a time zone as spans of UTC; pure.

The windows of a kind follow each other without gap or overlap, across changes of the clock too: a
day has 23, 24 or 25 hours, and a midnight that does not exist is the moment of the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

WindowKind = Literal["day", "week", "month"]
KINDS: tuple[WindowKind, ...] = get_args(WindowKind)


@dataclass(frozen=True, slots=True)
class Window:
    """One day, week (from Monday) or month of a time zone."""

    kind: WindowKind
    #: First local day.
    first: date
    #: First local day of the window after it.
    after: date
    #: First moment, in UTC.
    start: datetime
    #: First moment of the window after it, in UTC.
    end: datetime
    timezone: str

    @property
    def start_at(self) -> str:
        """``start`` as the ledger writes moments."""
        return stamp(self.start)

    @property
    def end_at(self) -> str:
        """``end`` as the ledger writes moments."""
        return stamp(self.end)

    @property
    def days(self) -> int:
        """Number of local days."""
        return (self.after - self.first).days

    @property
    def name(self) -> str:
        """The window as people say it: ``2026-11-25``, ``week 48 of 2026``, ``November 2026``."""
        if self.kind == "day":
            return self.first.isoformat()
        if self.kind == "week":
            year, week, _ = self.first.isocalendar()
            return f"week {week} of {year}"
        return f"{_MONTHS[self.first.month - 1]} {self.first.year}"

    @property
    def ends(self) -> str:
        """When it ends, in its own time zone and in words: ``2026-12-01 00:00 (Europe/Berlin)``."""
        local = self.end.astimezone(ZoneInfo(self.timezone))
        return f"{local:%Y-%m-%d %H:%M} ({self.timezone})"


# Not strftime: a process's locale must not change what a message says.
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def stamp(moment: datetime) -> str:
    """Return a moment as the ledger writes it: UTC, milliseconds, ``Z``; texts sort by time."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs its time zone; pass datetime.now(UTC)")
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment of a local day, in UTC."""
    # fold=0: a midnight that does not exist takes the offset before the change, which gives the
    # moment of the change; one that exists twice is the first of both.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def local_day(moment: datetime, zone: ZoneInfo) -> date:
    """Return the local day whose window holds a moment."""
    day = moment.astimezone(zone).date()
    # A clock that goes back over midnight shows yesterday's date again; today has begun all the
    # same.
    while moment >= day_start(day + timedelta(days=1), zone):
        day += timedelta(days=1)
    while moment < day_start(day, zone):
        day -= timedelta(days=1)
    return day


def window_at(kind: WindowKind, moment: datetime, zone: ZoneInfo) -> Window:
    """Return the window of a kind that holds a moment."""
    return window_of(kind, local_day(moment, zone), zone)


def window_of(kind: WindowKind, day: date, zone: ZoneInfo) -> Window:
    """Return the window of a kind that holds a local day."""
    if kind == "day":
        first, after = day, day + timedelta(days=1)
    elif kind == "week":
        first = day - timedelta(days=day.weekday())
        after = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return Window(
        kind=kind,
        first=first,
        after=after,
        start=day_start(first, zone),
        end=day_start(after, zone),
        timezone=zone.key,
    )
