"""Which freezes people are reminded of, with commands that a shell takes as they are meant."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tasks.mix.freeze import Freeze, acquire_for_run, freeze, stamp, thaw
from tasks.mix.reminders import HeldFreeze, Reminder, read_freezes, reminders
from tasks.runs import begin_run, end_run
from tasks.state import State
from tasks.tables import runs

NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)


def held(until: timedelta, run_id: str | None = None, **more: object) -> HeldFreeze:
    frozen = Freeze(
        id=7,
        product="shop",
        mix_digest="sha256:1",
        owner="dana@host",
        reason="holiday season",
        run_id=run_id,
        from_at=stamp(NOW - timedelta(days=10)),
        until_at=stamp(NOW + until),
    )
    return HeldFreeze(frozen, **more)


def only(one: HeldFreeze, days: int = 3) -> Reminder | None:
    found = reminders([one], NOW, days)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("until", "days", "title"),
    [
        (timedelta(days=3), 3, "ends in 3 days"),
        (timedelta(days=3, seconds=1), 3, None),
        (timedelta(days=3, seconds=1), 4, "ends in 3 days"),
        (timedelta(hours=30), 3, "ends in 30 hours"),
        (timedelta(minutes=5), 3, "ends within the hour"),
        (timedelta(minutes=5), 0, None),
        (timedelta(0), 3, "has ended"),
        (timedelta(days=-6), 3, "has ended"),
    ],
)
def test_a_persons_freeze(until: timedelta, days: int, title: str | None) -> None:
    found = only(held(until), days)
    if title is None:
        assert found is None
        return
    assert found is not None
    assert title in found.title
    assert "holiday season" in found.lines[0]
    assert "dana@host" in found.lines[0]
    assert "imagegate freeze --product shop --days 14" in " ".join(found.asked)
    assert ("imagegate thaw --product shop" in " ".join(found.asked)) == ("ended" not in title)


def test_an_end_that_comes_is_told_daily_and_one_that_was_once() -> None:
    coming, gone = held(timedelta(days=2)), held(timedelta(days=-1))
    tomorrow = NOW + timedelta(days=1)
    first = [only(coming).key, only(gone).key]
    then = [found.key for found in reminders([coming, gone], tomorrow, 3)]
    assert first == ["freeze:7:ends:2026-11-25", "freeze:7:ended"]
    assert then == ["freeze:7:ends:2026-11-26", "freeze:7:ended"]


@pytest.mark.parametrize(
    ("status", "verdict", "what", "resumes"),
    [
        ("running", None, "has died", True),
        ("failed", None, "ended as failed", True),
        ("stopped", None, "ended as stopped", True),
        ("finished", "HOLD", "ended with HOLD", True),
        ("finished", "ROLLBACK", "ended with ROLLBACK", False),
        (None, None, "is not in the book of runs", False),
    ],
)
def test_a_freeze_left_by_a_run(
    status: str | None, verdict: str | None, what: str, resumes: bool
) -> None:
    left = held(timedelta(days=9), "run-1", status=status, verdict=verdict)
    found = only(left)
    assert found is not None
    assert found.kind == "left"
    assert found.title == f"shop is frozen by a run that {what}"
    asked = " ".join(found.asked)
    assert "imagegate thaw --product shop" in asked
    assert ("imagegate run --resume run-1" in asked) == resumes
    # Alive, or waiting for a person: it is still needed. Run out: it holds nothing up.
    assert only(replace(left, goes_on=True)) is None
    assert only(held(timedelta(days=-1), "run-1", status=status, verdict=verdict)) is None


def test_commands_are_safe_to_paste() -> None:
    nasty = held(timedelta(days=9), "run; rm -rf /", status="failed")
    found = only(replace(nasty, freeze=replace(nasty.freeze, product="a b;$(id)")))
    assert found is not None
    words = [shlex.split(command) for command in re.findall(r"`([^`]+)`", " ".join(found.asked))]
    assert ["imagegate", "run", "--resume", "run; rm -rf /"] in words
    assert ["imagegate", "thaw", "--product", "a b;$(id)"] in words


# --- read from the database ------------------------------------------------------------------


def told(state: State, now: datetime = NOW) -> list[str]:
    return [found.title for found in reminders(read_freezes(state, now), now, 3)]


def begin(state: State, run_id: str, pid: int) -> None:
    begin_run(state, run_id, "shop", "c", "b")
    acquire_for_run(
        state, "shop", run_id=run_id, owner="o", reason="judges", days=14, now=NOW, host="other"
    )
    with state.begin() as connection:
        connection.execute(sa.update(runs).values(pid=pid, heartbeat_at=stamp(NOW)))


def test_a_lifted_freeze_is_forgotten_and_an_old_end_too(shop: State) -> None:
    freeze(shop, "shop", owner="dana", reason="launch", days=2, now=NOW)
    assert told(shop) == ["The freeze of shop ends in 2 days"]
    assert told(shop, NOW + timedelta(days=3)) == ["The freeze of shop has ended"]
    assert told(shop, NOW + timedelta(days=10)) == []
    thaw(shop, "shop", actor="dana", now=NOW)
    assert told(shop) == []


def test_a_living_run_is_left_alone_and_a_silent_one_told(shop: State) -> None:
    import os

    begin(shop, "run-1", os.getpid())
    assert told(shop) == []
    # Silent for longer than a driver may be: dead, wherever it ran.
    assert told(shop, NOW + timedelta(seconds=31)) == ["shop is frozen by a run that has died"]
    with shop.begin() as connection:
        connection.execute(sa.update(runs).values(status="waiting"))
    assert told(shop, NOW + timedelta(days=1)) == []
    end_run(shop, "run-1", "finished", "HOLD")
    assert told(shop) == ["shop is frozen by a run that ended with HOLD"]
