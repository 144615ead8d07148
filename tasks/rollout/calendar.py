"""Freeze windows: when production must not change, by calendar. Pure functions.

The section ``calendar`` of the rollout file. A rollback never asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tasks.errors import FrozenError
from tasks.policy import Strict

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Windows that touch are followed so far to say when they end.
_FURTHEST = timedelta(days=366)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(
            "unknown time zone; use a name of the IANA list, e.g. 'Europe/Berlin'"
        ) from None
    return name


def _moment(value: Any) -> Any:
    """Return a date of YAML as the text it was, so that one rule reads all of them."""
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise ValueError("give the local time without a zone; the window has its own time_zone")
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return value


def _local(text: str) -> str:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a day or local time; e.g. 2026-12-24 or 2026-12-24T18:00") from None
    if parsed.tzinfo is not None:
        raise ValueError("give the local time without a zone; the window has its own time_zone")
    return text


def _month_day(text: str) -> str:
    try:
        datetime.strptime(f"2024-{text}", "%Y-%m-%d")  # noqa: DTZ007 - a day of any year
    except ValueError:
        raise ValueError("not a day of the year; e.g. '12-20'") from None
    return text


def _clock(text: str) -> str:
    try:
        time.fromisoformat(text)
    except ValueError:
        raise ValueError("not a time of day; e.g. '16:00'") from None
    return text


#: A day (from its start, or to its end) or a local time.
Moment = Annotated[str, BeforeValidator(_moment), AfterValidator(_local)]
MonthDay = Annotated[str, AfterValidator(_month_day)]
Clock = Annotated[str, AfterValidator(_clock)]


class Weekly(Strict):
    """From a time of one day of the week to a time of another, every week."""

    from_day: Day
    from_time: Clock = "00:00"
    until_day: Day
    until_time: Clock = "00:00"


class Yearly(Strict):
    """Whole days of every year, the last one included; may reach over New Year."""

    first: MonthDay
    last: MonthDay


class Except(Strict):
    """A time in a window in which production may change after all."""

    from_: Moment = Field(alias="from")
    until: Moment
    why: str = Field(min_length=1, max_length=500)
    #: Who allowed it.
    by: str = Field(min_length=1, max_length=200)


class FreezeWindow(Strict):
    """A time in which production must not change."""

    name: str = Field(min_length=1, max_length=120)
    #: Products that it is for; all by default.
    products: tuple[str, ...] = ()
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    from_: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    weekly: Weekly | None = None
    yearly: Yearly | None = None
    except_: tuple[Except, ...] = Field(default=(), alias="except")
    #: Who may allow a change all the same, by adding an exception.
    lift: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_kind(self) -> FreezeWindow:
        once = self.from_ is not None or self.until is not None
        if [once, self.weekly is not None, self.yearly is not None].count(True) != 1:
            raise ValueError("give one of: from and until, weekly, yearly")
        if once and (self.from_ is None or self.until is None):
            raise ValueError("from and until come together")
        for what, start, end in (
            ("the window", self.from_, self.until),
            *(("an exception", e.from_, e.until) for e in self.except_),
        ):
            if start is not None and end is not None:
                zone = ZoneInfo(self.time_zone)
                if _end(end, zone) <= _start(start, zone):
                    raise ValueError(f"{what} from {start} until {end} ends before it begins")
        if any(not name.strip() for name in self.lift):
            raise ValueError("lift needs names; remove the empty entry")
        return self

    def concerns(self, product: str) -> bool:
        """Tell whether the window is for a product."""
        return not self.products or product in self.products


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, in UTC; the end is not in it."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Tell whether a moment lies in it."""
        return self.start <= at < self.end


@dataclass(frozen=True, slots=True)
class Frozen:
    """A window that is in force."""

    window: FreezeWindow
    #: First moment at which it does not hold any more, exceptions taken into account.
    until: datetime


def in_force(calendar: Sequence[FreezeWindow], product: str, now: datetime) -> tuple[Frozen, ...]:
    """Return the windows that forbid a change of a product now, those that end last first."""
    found = []
    for window in calendar:
        if window.concerns(product):
            spans = _without(_spans(window, now), _exceptions(window))
            at = next((span for span in spans if span.holds(now)), None)
            if at is not None:
                found.append(Frozen(window, at.end))
    return tuple(sorted(found, key=lambda frozen: frozen.until, reverse=True))


def opens_at(calendar: Sequence[FreezeWindow], product: str, now: datetime) -> datetime | None:
    """Return when production may change again.

    Returns:
        ``now`` when it may change now, ``None`` when not within a year.
    """
    at = now
    while at - now <= _FURTHEST:
        held = in_force(calendar, product, at)
        if not held:
            return at
        at = held[0].until
    return None


def assert_may_change(calendar: Sequence[FreezeWindow], product: str, now: datetime) -> None:
    """Pass when no window forbids to change production now.

    Raises:
        FrozenError: Says which window, until when, and who may lift it.
    """
    held = in_force(calendar, product, now)
    if not held:
        return
    opens = opens_at(calendar, product, now)
    until = "not within a year" if opens is None else f"from {_shown(opens, held[0].window)}"
    names = "; ".join(explain(frozen) for frozen in held)
    raise FrozenError(
        f"production of {product!r} must not change now: freeze window {names}. Changes are "
        f"possible again {until}; a rollback always is. To change it before, one of those named "
        "adds an exception to the window under `calendar` in the rollout file"
    )


def explain(held: Frozen) -> str:
    """Return the name of a window, when it ends by its own clock, and who may lift it."""
    return (
        f"{held.window.name!r} until {_shown(held.until, held.window)}, "
        f"lifted by {' or '.join(held.window.lift)}"
    )


def _shown(at: datetime, window: FreezeWindow) -> str:
    local = at.astimezone(ZoneInfo(window.time_zone))
    return f"{local:%Y-%m-%d %H:%M} {window.time_zone}"


def _exceptions(window: FreezeWindow) -> list[Span]:
    zone = ZoneInfo(window.time_zone)
    return [Span(_start(e.from_, zone), _end(e.until, zone)) for e in window.except_]


def _spans(window: FreezeWindow, now: datetime) -> Iterator[Span]:
    """Yield the stretches of a window around a moment, by its own clock."""
    zone = ZoneInfo(window.time_zone)
    if window.from_ is not None and window.until is not None:
        yield Span(_start(window.from_, zone), _end(window.until, zone))
    elif window.weekly is not None:
        yield from _weeks(window.weekly, zone, now)
    elif window.yearly is not None:
        yield from _years(window.yearly, zone, now)


def _weeks(weekly: Weekly, zone: ZoneInfo, now: datetime) -> Iterator[Span]:
    today = now.astimezone(zone).date()
    monday = today - timedelta(days=today.weekday())
    begin, end = DAYS.index(weekly.from_day), DAYS.index(weekly.until_day)
    opens, closes = time.fromisoformat(weekly.from_time), time.fromisoformat(weekly.until_time)
    over = (end, closes) <= (begin, opens)
    for week in (-1, 0, 1):
        first = monday + timedelta(weeks=week, days=begin)
        last = monday + timedelta(weeks=week + over, days=end)
        yield Span(
            _utc(datetime.combine(first, opens), zone), _utc(datetime.combine(last, closes), zone)
        )


def _years(yearly: Yearly, zone: ZoneInfo, now: datetime) -> Iterator[Span]:
    year = now.astimezone(zone).year
    over = yearly.last < yearly.first
    for first_year in (year - 1, year, year + 1):
        first = _day(first_year, yearly.first)
        last = _day(first_year + over, yearly.last)
        midnight = datetime.combine(last + timedelta(days=1), time())
        yield Span(_utc(datetime.combine(first, time()), zone), _utc(midnight, zone))


def _day(year: int, month_day: str) -> date:
    month, day = (int(part) for part in month_day.split("-"))
    if (month, day) == (2, 29) and not (year % 4 == 0 and (year % 100 or year % 400 == 0)):
        return date(year, 2, 28)
    return date(year, month, day)


def _without(spans: Iterator[Span], holes: Sequence[Span]) -> Iterator[Span]:
    """Yield what is left of stretches after the holes were cut out."""
    for span in spans:
        left = [span]
        for hole in holes:
            left = [piece for part in left for piece in _cut(part, hole)]
        yield from left


def _cut(span: Span, hole: Span) -> Iterator[Span]:
    if hole.end <= span.start or span.end <= hole.start:
        yield span
        return
    if span.start < hole.start:
        yield Span(span.start, hole.start)
    if hole.end < span.end:
        yield Span(hole.end, span.end)


def _start(text: str, zone: ZoneInfo) -> datetime:
    """Return the moment that a day begins, or the moment itself, in UTC."""
    return _utc(datetime.fromisoformat(text), zone)


def _end(text: str, zone: ZoneInfo) -> datetime:
    """Return the moment after a day, or the moment itself, in UTC."""
    parsed = datetime.fromisoformat(text)
    return _utc(parsed + timedelta(days=1) if len(text) == len("2026-12-24") else parsed, zone)


def _utc(local: datetime, zone: ZoneInfo) -> datetime:
    """Return a local time in UTC; of an hour that comes twice, the first one.

    A time that a clock skips is as far after the jump as it says.
    """
    return local.replace(tzinfo=zone).astimezone(UTC)
