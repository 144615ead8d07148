"""What was spent when, from the ledger; I/O.

The ledger writes moments as UTC texts of one length, so spans of time are compared as texts on
every database. ``day`` is the UTC day of ``at`` and narrows a query by its index.

Sums of the present windows are kept in ``spend_windows`` in the transaction of the rows, so that a
reservation costs the same at the first request and at the hundred-thousandth. A kept sum names its
own span, and a row changes every kept sum whose span holds it: sums stay right whatever time zone
and limits the process that writes knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.budget.check import Facts
from tasks.budget.forecast import MOST_DAYS
from tasks.budget.limits import ALL, Budgets
from tasks.budget.money import Spent
from tasks.budget.windows import (
    KINDS,
    Window,
    WindowKind,
    day_start,
    local_day,
    stamp,
    window_at,
)
from tasks.state import State, within
from tasks.tables import ledger, runs, spend_windows

RESERVED, BOOKED, UNKNOWN = "reserved", "booked", "unknown"

#: What a ledger row counts with: its cost, or what it may cost while that is not known.
AMOUNT = sa.case(
    (ledger.c.status == BOOKED, sa.func.coalesce(ledger.c.booked_microusd, 0)),
    else_=ledger.c.reserved_microusd,
)

#: All products together, in ``spend_windows``; no product can be called so.
EVERYTHING = "*"
#: Longer than any window: bounds the look for the windows that hold a moment.
_LONGEST = timedelta(days=33)


def spent_in(where: State | Connection, window: Window) -> dict[str | None, Spent]:
    """Return what each product spent in a window, in one query.

    The key ``None`` is spend of runs that are not in the book of runs; it counts for all products
    together.
    """
    query = (
        sa.select(runs.c.product, ledger.c.status, sa.func.sum(AMOUNT))
        .select_from(ledger.outerjoin(runs, runs.c.run_id == ledger.c.run_id))
        .where(_within(window.start_at, window.end_at))
        .group_by(runs.c.product, ledger.c.status)
    )
    found: dict[str | None, Spent] = {}
    with within(where) as connection:
        for product, status, total in connection.execute(query):
            # A status that is not known here counts as the worst that it can be.
            name = status if status in (BOOKED, RESERVED) else UNKNOWN
            found[product] = found.get(product, Spent()) + Spent(**{name: int(total)})
    return found


def daily(
    where: State | Connection, first: date, after: date, zone: ZoneInfo
) -> dict[str | None, dict[date, int]]:
    """Return micro-dollars by product and local day, in one query; days without spend are left out.

    Args:
        where: The database or an open transaction.
        first: First local day.
        after: First local day that is not asked for.
        zone: Whose days.
    """
    # Databases do not agree on time zones; all know texts. Offsets from UTC are whole minutes.
    minute = sa.func.substr(ledger.c.at, 1, 16)
    query = (
        sa.select(runs.c.product, minute, sa.func.sum(AMOUNT))
        .select_from(ledger.outerjoin(runs, runs.c.run_id == ledger.c.run_id))
        .where(_within(stamp(day_start(first, zone)), stamp(day_start(after, zone))))
        .group_by(runs.c.product, minute)
    )
    found: dict[str | None, dict[date, int]] = {}
    with within(where) as connection:
        for product, text, total in connection.execute(query):
            day = local_day(datetime.fromisoformat(text).replace(tzinfo=UTC), zone)
            days = found.setdefault(product, {})
            days[day] = days.get(day, 0) + int(total)
    return found


def first_runs(where: State | Connection) -> dict[str, str]:
    """Return when the first run of each product started, UTC ISO-8601."""
    query = sa.select(runs.c.product, sa.func.min(runs.c.started_at)).group_by(runs.c.product)
    with within(where) as connection:
        return {str(product): str(at) for product, at in connection.execute(query)}


def read_facts(where: State | Connection, budgets: Budgets, now: datetime) -> Facts:
    """Return what the ledger says about the present windows and the days before, in one reading."""
    zone = budgets.zone
    today = local_day(now, zone)
    since = today - timedelta(days=MOST_DAYS)
    with within(where) as connection:
        spent: dict[tuple[str, WindowKind], Spent] = {}
        for kind in KINDS:
            for product, amount in spent_in(connection, window_at(kind, now, zone)).items():
                for who in {ALL, product or ALL}:
                    spent[who, kind] = spent.get((who, kind), Spent()) + amount
        cost = by_scope(daily(connection, since, today, zone))
        first = {
            product: local_day(datetime.fromisoformat(at), zone)
            for product, at in first_runs(connection).items()
        }
    if first:
        first[ALL] = min(first.values())
    return Facts(
        now=now,
        spent=spent,
        days={
            who: tuple(
                cost.get(who, {}).get(start + timedelta(days=n), 0)
                for n in range((today - start).days)
            )
            for who, day in first.items()
            if (start := max(day, since)) <= today
        },
    )


def by_scope(days: Mapping[str | None, Mapping[date, int]]) -> dict[str, dict[date, int]]:
    """Return the days of each product, and of all together as ``all``."""
    found: dict[str, dict[date, int]] = {}
    for product, costs in days.items():
        for who in {ALL, product or ALL}:
            total = found.setdefault(who, {})
            for day, cost in costs.items():
                total[day] = total.get(day, 0) + cost
    return found


def kept_totals(
    connection: Connection, wanted: Iterable[tuple[str, Window]]
) -> Mapping[tuple[str, Window], int]:
    """Return the sums of windows; one that is not kept yet is made from the rows.

    Args:
        connection: A transaction that holds the ledger's lock.
        wanted: Product (or :data:`EVERYTHING`) and window.
    """
    pairs = list(wanted)
    if not pairs:
        return {}
    rows = connection.execute(
        sa.select(spend_windows).where(
            spend_windows.c.who.in_({who for who, _ in pairs}),
            spend_windows.c.start_at.in_({window.start_at for _, window in pairs}),
        )
    )
    kept = {(row.who, row.start_at, row.end_at): int(row.microusd) for row in rows}
    totals = {}
    for who, window in pairs:
        key = (who, window.start_at, window.end_at)
        if key not in kept:
            kept[key] = _keep(connection, *key)
        totals[who, window] = kept[key]
    return totals


def count_again(connection: Connection, days: Iterable[str]) -> None:
    """Forget the kept sums that touch one of the UTC days; they are made from the rows anew.

    Args:
        connection: A transaction that holds the ledger's lock.
        days: ``YYYY-MM-DD``.
    """
    for day in days:
        connection.execute(
            sa.delete(spend_windows).where(
                spend_windows.c.start_at <= f"{day}T99", spend_windows.c.end_at > day
            )
        )


def add_to_windows(connection: Connection, product: str | None, at: str, change: int) -> None:
    """Change every kept sum that holds a row; a window that is not kept yet needs nothing.

    Args:
        connection: The transaction of the row; it holds the ledger's lock.
        product: The product of the row's run.
        at: The row's moment, UTC ISO-8601.
        change: Micro-dollars more, or less.
    """
    if not change:
        return
    earliest = stamp(datetime.fromisoformat(at) - _LONGEST)
    connection.execute(
        sa.update(spend_windows)
        .where(
            spend_windows.c.who.in_({EVERYTHING, product or EVERYTHING}),
            spend_windows.c.start_at > earliest,
            spend_windows.c.start_at <= at,
            spend_windows.c.end_at > at,
        )
        .values(microusd=spend_windows.c.microusd + change)
    )


def _within(start_at: str, end_at: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        ledger.c.day >= start_at[:10],
        ledger.c.day <= end_at[:10],
        ledger.c.at >= start_at,
        ledger.c.at < end_at,
    )


def _keep(connection: Connection, who: str, start_at: str, end_at: str) -> int:
    query = sa.select(sa.func.coalesce(sa.func.sum(AMOUNT), 0)).where(_within(start_at, end_at))
    if who != EVERYTHING:
        query = query.join_from(ledger, runs, runs.c.run_id == ledger.c.run_id).where(
            runs.c.product == who
        )
    total = int(connection.execute(query).scalar_one())
    connection.execute(
        sa.insert(spend_windows).values(who=who, start_at=start_at, end_at=end_at, microusd=total)
    )
    return total
