"""Which freezes people must be reminded of, and with which command; pure decisions, one reading."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from tasks.mix.freeze import Freeze, stamp
from tasks.runs import is_driven
from tasks.state import State
from tasks.tables import freezes, runs

ReminderKind = Literal["ends", "ended", "left"]
#: An end is told once, however late the reminder comes, up to so many days after it.
LOOK_BACK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class HeldFreeze:
    """A freeze that nobody lifted, and the run that holds it, if any."""

    freeze: Freeze
    #: Status and verdict in the book of runs; ``None`` for a person's freeze or a lost run.
    status: str | None = None
    verdict: str | None = None
    #: Whether the run's process may still act, or the run waits for a person.
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Reminder:
    """What the owner of a freeze is told."""

    kind: ReminderKind
    freeze: Freeze
    title: str
    lines: tuple[str, ...]
    #: Commands, each with what it does.
    asked: tuple[str, ...]
    #: Told once per key.
    key: str


def read_freezes(state: State, now: datetime) -> tuple[HeldFreeze, ...]:
    """Return the freezes that nobody lifted and that end in the future or ended lately."""
    query = (
        sa.select(freezes, runs.c.status, runs.c.verdict, runs.c.host, runs.c.pid)
        .add_columns(runs.c.heartbeat_at)
        .select_from(freezes.outerjoin(runs, runs.c.run_id == freezes.c.run_id))
        .where(freezes.c.released_at.is_(None), freezes.c.until_at > stamp(now - LOOK_BACK))
        .order_by(freezes.c.until_at, freezes.c.id)
    )
    names = [column.name for column in freezes.columns]
    found = []
    with state.begin() as connection:
        for row in connection.execute(query).mappings():
            alive = row["status"] == "waiting" or (
                row["status"] == "running"
                and is_driven(row["host"], row["pid"], row["heartbeat_at"], now=now)
            )
            held = Freeze(**{name: row[name] for name in names})
            found.append(HeldFreeze(held, row["status"], row["verdict"], alive))
    return tuple(found)


def reminders(held: Iterable[HeldFreeze], now: datetime, days_ahead: int) -> tuple[Reminder, ...]:
    """Return what people must be told today.

    A freeze that ends soon, and one that a run left behind, is told once a UTC day; one that has
    ended is told once.

    Args:
        held: Freezes that nobody lifted.
        now: The present moment.
        days_ahead: How early to tell of an end, in days.
    """
    today = stamp(now)[:10]
    found = []
    for one in held:
        frozen = one.freeze
        if not frozen.holds(now):
            # A run's freeze that ran out holds nothing up and nobody planned with it.
            if frozen.run_id is None:
                found.append(_ended(frozen))
        elif frozen.run_id is not None:
            if not one.goes_on:
                found.append(_left(one, today))
        elif datetime.fromisoformat(frozen.until_at) <= now + timedelta(days=days_ahead):
            found.append(_ends(frozen, now, today))
    return tuple(found)


def _ends(frozen: Freeze, now: datetime, today: str) -> Reminder:
    left = datetime.fromisoformat(frozen.until_at) - now
    hours = int(left.total_seconds() // 3600)
    when = f"in {hours // 24} days" if hours >= 48 else f"in {hours} hours"
    if hours < 1:
        when = "within the hour"
    return Reminder(
        kind="ends",
        freeze=frozen,
        title=f"The freeze of {frozen.product} ends {when}",
        lines=(
            f"{frozen.owner} froze it: {frozen.reason}",
            f"Until: {shown(frozen.until_at)}. After that a gate may promote again.",
        ),
        asked=(
            f"{frozen.owner}: let it end, or prolong it: `{_thaw(frozen)} && {_freeze(frozen)}`",
            f"to lift it now: `{_thaw(frozen)}`",
        ),
        key=f"freeze:{frozen.id}:ends:{today}",
    )


def _ended(frozen: Freeze) -> Reminder:
    return Reminder(
        kind="ended",
        freeze=frozen,
        title=f"The freeze of {frozen.product} has ended",
        lines=(
            f"{frozen.owner} froze it: {frozen.reason}",
            f"It ended {shown(frozen.until_at)}; a gate may promote again.",
        ),
        asked=(f"{frozen.owner}: if it is still needed, freeze again: `{_freeze(frozen)}`",),
        key=f"freeze:{frozen.id}:ended",
    )


def _left(one: HeldFreeze, today: str) -> Reminder:
    frozen = one.freeze
    asked = [
        f"to let people change production: `{_thaw(frozen)}`; the next gate takes the freeze over"
    ]
    if one.status is None:
        what = "is not in the book of runs"
    elif one.status == "running":
        what = "has died"
    elif one.verdict is not None:
        what = f"ended with {one.verdict}"
    else:
        what = f"ended as {one.status}"
    # What a person could still get a verdict from is gone on with first.
    if one.status in ("running", "failed", "stopped") or one.verdict == "HOLD":
        resume = f"imagegate run --resume {shlex.quote(str(frozen.run_id))}"
        asked.insert(0, f"to go on with that run: `{resume}`")
    return Reminder(
        kind="left",
        freeze=frozen,
        title=f"{frozen.product} is frozen by a run that {what}",
        lines=(
            f"Run {frozen.run_id} of {frozen.owner} {what} and left production frozen: people "
            "and other tools cannot change it.",
            f"Until: {shown(frozen.until_at)}.",
        ),
        asked=tuple(asked),
        key=f"freeze:{frozen.id}:left:{today}",
    )


def shown(moment: str) -> str:
    """Return a stored moment as people read it, to the minute."""
    return f"{moment[:10]} {moment[11:16]} UTC"


def _thaw(frozen: Freeze) -> str:
    return f"imagegate thaw --product {shlex.quote(frozen.product)}"


def _freeze(frozen: Freeze) -> str:
    return f"imagegate freeze --product {shlex.quote(frozen.product)} --days 14 --reason '…'"
