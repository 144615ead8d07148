"""Alarms are told once, counted while they last, and closed when their cause is gone."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tasks.alerts.incidents import open_incidents, read_incident
from tasks.budget.alarm import FILE_KEY, Told, tell, tell_damaged
from tasks.budget.check import findings, standings
from tasks.budget.spend import read_facts
from tasks.budget.windows import local_day
from tasks.state import State
from tasks.tables import outbox
from tests.budget.rows import add_row, add_run, budgets, moment

SHOP = {"month_usd": {"soft": 10, "hard": 20}}


@pytest.fixture
def shop(state: State) -> State:
    add_run(state, "a", "shop", "2026-11-24T00:00Z")
    return state


def look(state: State, at: str, product: str | None = None, **file: Any) -> Told:
    rules, now = budgets(**({"products": {"shop": SHOP}} | file)), moment(at)
    stands = standings(rules, read_facts(state, rules, now), product)
    today = local_day(now, rules.zone)
    found = [finding for one in stands for finding in findings(one, today)]
    return tell(state, stands, found, now=now, product=product)


def queued(state: State) -> list[tuple[str, str, str]]:
    with state.begin() as connection:
        rows = connection.execute(sa.select(outbox).order_by(outbox.c.id)).all()
    return [(row.kind, row.severity, row.payload) for row in rows if row.kind != "update"]


def keys(state: State) -> list[str]:
    return [incident.key for incident in open_incidents(state)]


def test_soft_warns_once_and_hard_pages(shop: State) -> None:
    add_row(shop, "a", "2026-11-25T10:00Z", 12)
    assert len(look(shop, "2026-11-25T11:00Z").opened) == 1
    again = look(shop, "2026-11-25T11:05Z")
    assert (again.opened, again.lasting, again.resolved) == ((), 1, ())
    assert read_incident(shop, "budget:shop:month:soft").count == 2
    add_row(shop, "a", "2026-11-25T11:06Z", 8)
    assert look(shop, "2026-11-25T11:10Z").opened == (
        "BUDGET ALARM: hard limit of the month reached for product 'shop'",
    )
    told = queued(shop)
    assert [(kind, severity) for kind, severity, _ in told] == [
        ("open", "warning"),
        ("open", "page"),
    ]
    assert "$20.00 of $20.00" in told[1][2]
    assert (
        "*Users:* not affected; production serves as before. New gates are refused." in told[1][2]
    )
    assert (
        "BUDGET ALARM: users are not affected, new gates refused; shop spent $20.00 of $20.00 "
        "this month"
    ) in told[1][2]
    assert "Dana (#releases)" in told[1][2]
    assert keys(shop) == ["budget:shop:month:soft", "budget:shop:month:hard"]


def test_the_turn_of_the_window_closes_and_a_full_new_window_is_a_new_alarm(shop: State) -> None:
    add_row(shop, "a", "2026-11-25T10:00Z", 12)
    look(shop, "2026-11-30T23:59Z")
    # Between two looks the month turned, and the new one is over its soft limit already.
    add_row(shop, "a", "2026-12-01T00:01Z", 15)
    told = look(shop, "2026-12-01T00:02Z")
    assert told.resolved == ("budget:shop:month:soft",)
    assert len(told.opened) == 1
    assert read_incident(shop, "budget:shop:month:soft").number == 2
    assert [kind for kind, _, _ in queued(shop)] == ["open", "reply", "open"]
    assert "A new month began: December 2026" in queued(shop)[1][2]
    assert look(shop, "2027-01-01T00:00Z").resolved == ("budget:shop:month:soft",)
    assert keys(shop) == []


@pytest.mark.parametrize(
    ("file", "how"),
    [
        (
            {"products": {"shop": {"month_usd": {"soft": 50, "hard": 90}}}},
            "; the limit is $90.00.",
        ),
        ({"products": {"shop": {"month_usd": {"soft": 50}}}}, "no such limit any more"),
        ({"products": {}}, "no limit on the month of shop any more"),
    ],
)
def test_a_raised_or_removed_limit_closes_its_alarms(
    file: dict[str, Any], how: str, shop: State
) -> None:
    add_row(shop, "a", "2026-11-25T10:00Z", 20)
    assert len(look(shop, "2026-11-25T11:00Z").opened) == 2
    told = look(shop, "2026-11-25T11:05Z", **file)
    assert set(told.resolved) == {"budget:shop:month:soft", "budget:shop:month:hard"}
    assert any(how in payload for kind, _, payload in queued(shop) if kind == "reply")


def test_a_forecast_gives_way_to_the_limit(shop: State) -> None:
    add_run(shop, "old", "shop", "2026-11-01T00:00Z")
    for day in range(17, 25):
        add_row(shop, "a", f"2026-11-{day}T10:00Z", 1.1)
    assert look(shop, "2026-11-25T11:00Z").opened == ()
    told = look(
        shop, "2026-11-25T11:00Z", products={"shop": {"month_usd": {"soft": 9.5, "hard": 10}}}
    )
    assert told.opened == (
        "BUDGET FORECAST: the month's hard limit of product 'shop' will likely be reached",
    )
    add_row(shop, "a", "2026-11-25T11:01Z", 0.9)
    told = look(
        shop, "2026-11-25T11:05Z", products={"shop": {"month_usd": {"soft": 9.5, "hard": 10}}}
    )
    assert told.resolved == ("budget:shop:month:forecast",)
    assert keys(shop) == ["budget:shop:month:hard", "budget:shop:month:soft"]


def test_a_look_at_one_product_leaves_the_alarms_of_others(shop: State) -> None:
    add_run(shop, "b", "blog", "2026-11-24T00:00Z")
    add_row(shop, "b", "2026-11-25T10:00Z", 6)
    both = {"products": {"shop": SHOP, "blog": {"day_usd": {"soft": 5}}}}
    look(shop, "2026-11-25T11:00Z", **both)
    assert look(shop, "2026-11-26T11:00Z", "shop", **both).resolved == ()
    assert keys(shop) == ["budget:blog:day:soft"]
    assert look(shop, "2026-11-26T11:00Z", "blog", **both).resolved == ("budget:blog:day:soft",)


def test_a_damaged_file_pages_until_it_is_mended(shop: State) -> None:
    now = moment("2026-11-25T11:00Z")
    tell_damaged(shop, "budgets.yaml: no such file", now=now)
    tell_damaged(shop, "budgets.yaml: no such file", now=now)
    assert [(kind, severity) for kind, severity, _ in queued(shop)] == [("open", "page")]
    assert look(shop, "2026-11-25T11:05Z").resolved == (FILE_KEY,)
    assert keys(shop) == []


def test_alarms_of_others_are_left_alone(shop: State) -> None:
    from tasks.alerts.incidents import raise_alarm

    raise_alarm(shop, "watchdog:dead", title="a run is dead", severity="page")
    assert look(shop, "2026-11-25T11:05Z").resolved == ()
    assert keys(shop) == ["watchdog:dead"]
