"""The forecast: by hand on small figures, and what must hold for any."""

from __future__ import annotations

import math
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.budget.forecast import MOST_DAYS, Forecast, forecast, pace_of
from tasks.budget.windows import window_of

UTC_ZONE = ZoneInfo("UTC")
NOVEMBER = window_of("month", date(2026, 11, 1), UTC_ZONE)
USD = 1_000_000


def in_november(limit: int, spent: int, today_usd: int, day: int, days: list[int]):
    pace = pace_of([n * USD for n in days])
    return forecast(limit * USD, spent * USD, today_usd * USD, date(2026, 11, day), NOVEMBER, pace)


def test_a_steady_pace_is_exact() -> None:
    # $50 until the evening of the 5th at $10 a day; $100 is reached on the 10th.
    assert in_november(100, 50, 0, 6, [10] * 5) == Forecast(date(2026, 11, 10), date(2026, 11, 10))
    # What today has cost already is part of today, not more.
    assert in_november(100, 56, 6, 6, [10] * 5).likely == date(2026, 11, 10)
    # An expensive today counts as it is.
    assert in_november(100, 90, 40, 6, [10] * 5).likely == date(2026, 11, 7)


def test_uneven_days_give_an_earlier_earliest_day() -> None:
    days = [0, 20, 0, 20, 0, 20, 0, 20]
    found = in_november(200, 80, 0, 9, days)
    assert found.likely == date(2026, 11, 20)  # 12 days of $10
    # n days cost at most 10n + 1.645 · 10.69 · √(n + n²/8) in 95 of 100 cases: 120 at the 7th.
    spread = math.sqrt(8 * 100 / 7)
    need = [10 * n + 1.645 * spread * math.sqrt(n + n * n / 8) for n in (6, 7)]
    assert need[0] < 120 <= need[1]
    assert found.earliest == date(2026, 11, 15)


def test_not_in_this_window_and_nothing_from_too_few_days() -> None:
    assert in_november(1000, 50, 0, 6, [10] * 5) == Forecast(None, None)
    assert in_november(100, 50, 0, 6, [10, 10]) is None
    assert in_november(100, 50, 0, 6, []) is None
    assert in_november(100, 0, 0, 6, [0] * 14) == Forecast(None, None)
    # Reached is reached, known pace or not.
    assert in_november(100, 100, 0, 6, []) == Forecast(date(2026, 11, 6), date(2026, 11, 6))


def test_only_the_last_two_weeks_count() -> None:
    pace = pace_of([10**12] + [5] * MOST_DAYS)
    assert (pace.mean, pace.spread, pace.days) == (5, 0, MOST_DAYS)


def test_the_last_day_of_a_window_can_be_the_day() -> None:
    assert in_november(100, 90, 0, 30, [10] * 5).likely == date(2026, 11, 30)
    assert in_november(101, 90, 0, 30, [10] * 5).likely is None


money = st.integers(0, 10**13)
histories = st.lists(money, min_size=0, max_size=20)


@st.composite
def cases(draw: st.DrawFn):
    kind = draw(st.sampled_from(("day", "week", "month")))
    today = draw(st.dates(date(2020, 1, 1), date(2035, 1, 1)))
    spent_today = draw(money)
    return {
        "limit": draw(money),
        "spent": spent_today + draw(money),
        "spent_today": spent_today,
        "today": today,
        "window": window_of(kind, today, UTC_ZONE),
        "pace": pace_of(draw(histories)),
    }


def late(day: date | None) -> date:
    return day or date.max


@given(cases())
def test_days_are_in_the_window_and_in_order(case) -> None:
    found = forecast(**case)
    if found is None:
        assert case["pace"] is None
        return
    for day in (found.earliest, found.likely):
        assert day is None or case["today"] <= day < case["window"].after
    assert late(found.earliest) <= late(found.likely)
    assert (found.likely == case["today"]) or case["spent"] < case["limit"]


@given(cases(), money, money)
def test_more_room_is_later_and_more_spend_is_sooner(case, room: int, more: int) -> None:
    found = forecast(**case)
    assume(found is not None)
    roomy = forecast(**case | {"limit": case["limit"] + room})
    assume(roomy is not None)
    assert late(roomy.likely) >= late(found.likely)
    assert late(roomy.earliest) >= late(found.earliest)
    # Spent earlier in the window, or today: both bring the day nearer.
    for spend in (
        {"spent": case["spent"] + more},
        {"spent": case["spent"] + more, "spent_today": case["spent_today"] + more},
    ):
        sooner = forecast(**case | spend)
        assert late(sooner.likely) <= late(found.likely)
        assert late(sooner.earliest) <= late(found.earliest)


@given(st.lists(money, min_size=3, max_size=14), st.integers(0, 31))
def test_the_pace_is_a_number_and_grows_with_the_days(days: list[int], ahead: int) -> None:
    pace = pace_of(days)
    for at_most in (False, True):
        costs = [pace.cost(n, at_most=at_most) for n in (ahead, ahead + 1)]
        assert all(math.isfinite(cost) and cost >= 0 for cost in costs)
        assert costs[0] <= costs[1]
    assert pace.cost(ahead, at_most=False) <= pace.cost(ahead, at_most=True)
    assert min(days) * (1 - 1e-9) <= pace.mean <= max(days) * (1 + 1e-9)


@pytest.mark.parametrize("days", [3, 14])
def test_a_larger_day_in_the_past_does_not_make_the_likely_day_later(days: int) -> None:
    today = date(2026, 11, 20)
    for extra in (0, 1, 5, 50):
        slow = pace_of([USD] * days)
        fast = pace_of([USD] * (days - 1) + [USD * (1 + extra)])
        a, b = (forecast(15 * USD, 5 * USD, 0, today, NOVEMBER, p) for p in (slow, fast))
        assert late(b.likely) <= late(a.likely)
    assert NOVEMBER.after - timedelta(days=1) == date(2026, 11, 30)
