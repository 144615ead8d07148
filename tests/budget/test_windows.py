"""Windows follow each other without gap or overlap, whatever the clocks of a zone do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.budget.windows import KINDS, WindowKind, local_day, stamp, window_at, window_of

BERLIN = ZoneInfo("Europe/Berlin")
#: Zones with changes at midnight, over midnight, of half an hour, and a whole day left out.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
)
#: Of which zones know the rules; hypothesis wants its bounds without a zone.
MOMENTS = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001
    datetime(2037, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@pytest.mark.parametrize(
    ("kind", "at", "start", "end", "name"),
    [
        # The day on which Berlin's clocks go forward has 23 hours, the one they go back 25.
        ("day", "2026-03-29T10:00Z", "2026-03-28T23:00", "2026-03-29T22:00", "2026-03-29"),
        ("day", "2026-10-25T10:00Z", "2026-10-24T22:00", "2026-10-25T23:00", "2026-10-25"),
        # 23:30 UTC is the next day, and the next month, in Berlin.
        ("month", "2026-10-31T23:30Z", "2026-10-31T23:00", "2026-11-30T23:00", "November 2026"),
        ("month", "2026-10-31T22:30Z", "2026-09-30T22:00", "2026-10-31T23:00", "October 2026"),
        ("month", "2028-02-29T12:00Z", "2028-01-31T23:00", "2028-02-29T23:00", "February 2028"),
        # Week 53 of 2026 begins on Monday, December 28, and ends in January.
        ("week", "2027-01-01T12:00Z", "2026-12-27T23:00", "2027-01-03T23:00", "week 53 of 2026"),
        ("week", "2026-03-29T21:59Z", "2026-03-22T23:00", "2026-03-29T22:00", "week 13 of 2026"),
    ],
)
def test_windows_of_berlin(kind: WindowKind, at: str, start: str, end: str, name: str) -> None:
    window = window_at(kind, datetime.fromisoformat(at), BERLIN)
    assert (window.start_at, window.end_at) == (f"{start}:00.000Z", f"{end}:00.000Z")
    assert window.name == name


def test_the_end_is_said_in_the_zone() -> None:
    window = window_at("month", datetime(2026, 11, 25, tzinfo=UTC), BERLIN)
    assert window.ends == "2026-12-01 00:00 (Europe/Berlin)"


@given(
    moment=MOMENTS,
    zone=st.sampled_from(ZONES),
    kind=st.sampled_from(KINDS),
)
def test_each_moment_is_in_one_window_and_the_next_begins_where_it_ends(
    moment: datetime, zone: str, kind: WindowKind
) -> None:
    place = ZoneInfo(zone)
    window = window_at(kind, moment, place)
    assert window.start <= moment < window.end
    assert window_at(kind, window.start, place) == window
    last = window.end - timedelta(microseconds=1)
    assert window_at(kind, last, place) == window
    assert window_at(kind, window.end, place).start == window.end
    assert window.first <= local_day(moment, place) < window.after


@given(day=st.dates(date(1990, 1, 1), date(2037, 1, 1)), zone=st.sampled_from(ZONES))
def test_days_fill_weeks_and_months(day: date, zone: str) -> None:
    place = ZoneInfo(zone)
    for kind in ("week", "month"):
        window = window_of(kind, day, place)
        days = [
            window_of("day", window.first + timedelta(days=n), place) for n in range(window.days)
        ]
        assert (days[0].start, days[-1].end) == (window.start, window.end)
        assert all(a.end == b.start for a, b in pairwise(days))
    assert window_of("week", day, place).first.isoweekday() == 1


def test_moments_need_a_zone_and_sort_as_texts() -> None:
    with pytest.raises(ValueError, match="time zone"):
        stamp(datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=7 * n) for n in range(300)]
    texts = [stamp(moment) for moment in moments]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {24}
