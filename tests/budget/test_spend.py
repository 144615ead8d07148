"""Sums by product and window, right to the moment; the same on PostgreSQL in tests/real."""

from __future__ import annotations

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from tasks.budget.money import Spent
from tasks.budget.spend import (
    EVERYTHING,
    add_to_windows,
    by_scope,
    count_again,
    daily,
    kept_totals,
    read_facts,
    spent_in,
)
from tasks.budget.windows import window_at
from tasks.state import State
from tests.budget.rows import add_row, add_run, budgets, moment

BERLIN = ZoneInfo("Europe/Berlin")
USD = 1_000_000


def sums(state: State, kind: Any, at: str, zone: ZoneInfo = BERLIN) -> dict[str | None, float]:
    found = spent_in(state, window_at(kind, moment(at), zone))
    return {product: spent.total / USD for product, spent in found.items()}


def test_rows_count_by_what_is_known_of_them(state: State) -> None:
    add_run(state, "a", "shop", "2026-11-02T00:00Z")
    add_row(state, "a", "2026-11-02T10:00Z", 1, reserved_usd=9)
    add_row(state, "a", "2026-11-02T10:01Z", 2, "reserved")
    add_row(state, "a", "2026-11-02T10:02Z", 4, "unknown")
    add_row(state, "a", "2026-11-02T10:03Z", 0, reserved_usd=9)
    found = spent_in(state, window_at("month", moment("2026-11-25T00:00Z"), BERLIN))
    assert found == {"shop": Spent(booked=1 * USD, reserved=2 * USD, unknown=4 * USD)}
    assert found["shop"].words == (
        "$7.00 (of it $2.00 reserved by requests under way, $4.00 feared: nobody knows whether it "
        "was billed)"
    )


def test_windows_hold_their_first_moment_and_not_the_one_after(state: State) -> None:
    add_run(state, "a", "shop", "2026-10-01T00:00Z")
    # Berlin's November begins at 23:00 UTC, after the end of summer time.
    add_row(state, "a", "2026-10-31T22:59:59.999Z", 1)
    add_row(state, "a", "2026-10-31T23:00:00.000Z", 2)
    add_row(state, "a", "2026-11-30T22:59:59.999Z", 4)
    add_row(state, "a", "2026-11-30T23:00:00.000Z", 8)
    assert sums(state, "month", "2026-11-15T00:00Z") == {"shop": 6}
    assert sums(state, "month", "2026-10-15T00:00Z") == {"shop": 1}
    assert sums(state, "month", "2026-11-15T00:00Z", ZoneInfo("UTC")) == {"shop": 12}
    assert sums(state, "day", "2026-10-31T23:30Z") == {"shop": 2}
    assert sums(state, "day", "2026-11-05T00:00Z") == {}


def test_the_25_hours_of_a_day_are_all_counted(state: State) -> None:
    add_run(state, "a", "shop", "2026-10-01T00:00Z")
    for hour in range(24):
        add_row(state, "a", f"2026-10-25T{hour:02}:30Z", 1)
    add_row(state, "a", "2026-10-24T21:30Z", 100)  # still the 24th
    add_row(state, "a", "2026-10-24T22:30Z", 1)  # 00:30 of the 25th
    add_row(state, "a", "2026-10-24T23:30Z", 1)
    assert sums(state, "day", "2026-10-25T12:00Z") == {"shop": 25}
    days = daily(state, date(2026, 10, 24), date(2026, 10, 27), BERLIN)["shop"]
    assert {day.day: amount / USD for day, amount in days.items()} == {24: 100, 25: 25, 26: 1}


def test_products_are_apart_and_what_belongs_to_none_counts_for_all(state: State) -> None:
    add_run(state, "a", "shop", "2026-11-01T00:00Z")
    add_run(state, "b", "blog", "2026-11-20T00:00Z")
    add_row(state, "a", "2026-11-24T10:00Z", 1)
    add_row(state, "b", "2026-11-24T10:00Z", 2)
    add_row(state, "lost", "2026-11-24T10:00Z", 4)
    add_row(state, "a", "2026-11-25T10:00Z", 8)
    assert sums(state, "month", "2026-11-25T11:00Z") == {"shop": 9, "blog": 2, None: 4}
    facts = read_facts(state, budgets(timezone="Europe/Berlin"), moment("2026-11-25T11:00Z"))
    spent = {key: value.total / USD for key, value in facts.spent.items()}
    assert spent["all", "month"] == 15
    assert spent["shop", "day"] == spent["all", "day"] == 8
    assert ("blog", "day") not in spent
    # Whole days since a product's first run, the last two weeks at the most; today is none.
    assert [n / USD for n in facts.days["blog"]] == [0, 0, 0, 0, 2]
    assert [n / USD for n in facts.days["shop"]] == [0] * 13 + [1]
    assert [n / USD for n in facts.days["all"]] == [0] * 13 + [7]
    assert by_scope({None: {date(2026, 11, 1): 3}}) == {"all": {date(2026, 11, 1): 3}}


def test_an_empty_ledger_is_no_spend(state: State) -> None:
    facts = read_facts(state, budgets(), moment("2026-11-25T11:00Z"))
    assert (facts.spent, facts.days) == ({}, {})
    assert daily(state, date(2026, 1, 1), date(2026, 2, 1), BERLIN) == {}


def test_the_first_day_of_a_product_has_no_whole_day(state: State) -> None:
    add_run(state, "a", "shop", "2026-11-25T09:00Z")
    facts = read_facts(state, budgets(), moment("2026-11-25T11:00Z"))
    assert facts.days == {"shop": (), "all": ()}


def test_kept_sums_follow_every_window_that_holds_a_row(state: State) -> None:
    add_run(state, "a", "shop", "2026-11-01T00:00Z")
    add_row(state, "a", "2026-11-25T10:00Z", 1)
    now = moment("2026-11-25T11:00Z")
    month, day = window_at("month", now, BERLIN), window_at("day", now, BERLIN)
    other = window_at("month", now, ZoneInfo("UTC"))
    pairs = [("shop", month), ("shop", day), (EVERYTHING, month), ("blog", month), ("shop", other)]
    with state.begin() as connection:
        first = kept_totals(connection, pairs)
        assert [first[pair] / USD for pair in pairs] == [1, 1, 1, 0, 1]
        # A row of yesterday evening changes the months, of both time zones, and not the day.
        add_to_windows(connection, "shop", "2026-11-24T10:00:00.000Z", 5 * USD)
        add_to_windows(connection, None, "2026-11-25T10:00:00.000Z", 3 * USD)
        add_to_windows(connection, "shop", "2026-12-01T10:00:00.000Z", 9 * USD)
        second = kept_totals(connection, pairs)
        assert [second[pair] / USD for pair in pairs] == [6, 1, 9, 0, 6]
        # The rows decide when the sums are made anew.
        count_again(connection, ["2026-11-30"])
        assert kept_totals(connection, pairs)["shop", month] == 1 * USD
        assert kept_totals(connection, []) == {}


def test_a_window_is_one_query(state: State) -> None:
    add_run(state, "a", "shop", "2026-11-01T00:00Z")
    add_row(state, "a", "2026-11-25T10:00Z", 1)
    asked: list[str] = []
    sa.event.listen(state.engine, "before_cursor_execute", lambda *args: asked.append(str(args[2])))
    sums(state, "month", "2026-11-25T10:00Z")
    daily(state, date(2026, 11, 1), date(2026, 12, 1), BERLIN)
    assert sum("FROM ledger" in statement for statement in asked) == 2
