from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, FrozenError, RefusedError
from tasks.mix.freeze import (
    Freeze,
    acquire_for_run,
    active_freeze,
    active_freezes,
    assert_may_change,
    end_of,
    freeze,
    release_for_run,
    stamp,
    thaw,
)
from tasks.mix.manifest import ResolvedMix
from tasks.runs import process_alive
from tasks.state import State
from tasks.tables import freezes, production, runs

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)


def book(state: State, run_id: str, status: str = "running", host: str = "here") -> None:
    with state.begin() as connection:
        connection.execute(
            sa.insert(runs).values(
                run_id=run_id,
                product="shop",
                status=status,
                candidate_digest="c",
                baseline_digest="b",
                started_at=stamp(NOW),
                host=host,
                pid=4711,
            )
        )


def by_run(state: State, run_id: str, now: datetime = NOW, alive: bool = False) -> Freeze:
    return acquire_for_run(
        state,
        "shop",
        run_id=run_id,
        owner="ci",
        reason="release gate",
        days=14,
        now=now,
        host="here",
        alive=lambda _pid: alive,
    )


def test_a_freeze_names_owner_reason_mix_and_end(shop: State, winter: ResolvedMix) -> None:
    held = freeze(shop, "shop", owner=" mia ", reason="launch", days=14, now=NOW)
    assert held.owner == "mia"
    assert held.mix_digest == winter.digest
    assert (held.from_at, held.until_at) == (
        "2026-09-14T12:00:00.000Z",
        "2026-09-28T12:00:00.000Z",
    )
    assert active_freeze(shop, "shop", NOW) == held
    assert active_freeze(shop, "other", NOW) is None


def test_a_freeze_ends_at_its_end_and_not_before(shop: State) -> None:
    freeze(shop, "shop", owner="mia", reason="launch", days=1, now=NOW)
    end = NOW + timedelta(days=1)
    assert active_freeze(shop, "shop", end - timedelta(milliseconds=1)) is not None
    assert active_freeze(shop, "shop", end) is None
    assert_may_change(shop, "shop", now=end)


def test_a_clock_that_went_back_does_not_open_production(shop: State) -> None:
    freeze(shop, "shop", owner="mia", reason="launch", days=1, now=NOW)
    assert active_freeze(shop, "shop", NOW - timedelta(days=400)) is not None


def test_a_frozen_product_says_who_why_until_when_and_how_to_lift_it(shop: State) -> None:
    freeze(shop, "shop", owner="mia", reason="launch week", days=2, now=NOW)
    with pytest.raises(FrozenError) as caught:
        assert_may_change(shop, "shop", now=NOW)
    for part in ("'shop'", "mia", "launch week", "2026-09-16T12:00:00.000Z", "imagegate thaw"):
        assert part in str(caught.value)
    with pytest.raises(FrozenError, match="mia"):
        assert_may_change(shop, "shop", now=NOW, run_id="run-1")
    with pytest.raises(FrozenError, match="mia"):
        freeze(shop, "shop", owner="tom", reason="me too", days=1, now=NOW)


@pytest.mark.parametrize("days", [0, -1, 365.5, 1e9, float("nan"), float("inf")])
def test_a_freeze_of_impossible_length_is_refused(shop: State, days: float) -> None:
    with pytest.raises(ConfigError, match="days is not possible"):
        freeze(shop, "shop", owner="mia", reason="x", days=days, now=NOW)
    assert active_freeze(shop, "shop", NOW) is None


@given(st.floats(min_value=1e-3, max_value=365))
def test_every_possible_length_ends_later_than_it_begins(days: float) -> None:
    assert NOW < end_of(NOW, days) <= NOW + timedelta(days=365)


@pytest.mark.parametrize(("owner", "reason"), [("", "launch"), ("mia", " \n")])
def test_a_freeze_needs_an_owner_and_a_reason(shop: State, owner: str, reason: str) -> None:
    with pytest.raises(ConfigError, match="needs its"):
        freeze(shop, "shop", owner=owner, reason=reason, days=1, now=NOW)


def test_a_time_without_zone_is_a_mistake_of_the_caller(shop: State) -> None:
    with pytest.raises(ValueError, match="time zone"):
        freeze(shop, "shop", owner="m", reason="r", days=1, now=NOW.replace(tzinfo=None))


def test_what_has_no_production_cannot_be_frozen(shop: State) -> None:
    with pytest.raises(RefusedError, match=r"'cards' has no production mix \(known: shop\)"):
        freeze(shop, "cards", owner="mia", reason="x", days=1, now=NOW)


def test_thaw_lifts_every_freeze_and_keeps_their_history(shop: State) -> None:
    book(shop, "run-1")
    by_run(shop, "run-1")
    freeze(shop, "shop", owner="mia", reason="launch", days=2, now=NOW)
    lifted = thaw(shop, "shop", actor="tom", now=NOW + timedelta(hours=1))
    assert [held.run_id for held in lifted] == [None, "run-1"]
    assert active_freezes(shop, "shop", NOW) == ()
    with shop.begin() as connection:
        rows = connection.execute(sa.select(freezes.c.released_at, freezes.c.released_by)).all()
    assert {tuple(row) for row in rows} == {("2026-09-14T13:00:00.000Z", "tom")}
    with pytest.raises(RefusedError, match="not frozen"):
        thaw(shop, "shop", actor="tom", now=NOW)


def test_a_run_passes_its_own_freeze_only(shop: State) -> None:
    by_run(shop, "run-1")
    assert_may_change(shop, "shop", now=NOW, run_id="run-1")
    with pytest.raises(FrozenError, match="--resume run-1"):
        assert_may_change(shop, "shop", now=NOW, run_id="run-2")
    with pytest.raises(FrozenError, match="run 'run-1' of ci"):
        assert_may_change(shop, "shop", now=NOW)


def test_a_resumed_run_gets_its_own_freeze_back(shop: State) -> None:
    first = by_run(shop, "run-1")
    assert by_run(shop, "run-1", now=NOW + timedelta(days=1)) == first
    assert len(active_freezes(shop, "shop", NOW)) == 1


def test_a_run_whose_baseline_moved_freezes_the_mix_that_serves_now(
    shop: State, summer: ResolvedMix
) -> None:
    by_run(shop, "run-1")
    with shop.begin() as connection:
        connection.execute(sa.update(production).values(mix_digest=summer.digest, epoch=2))
    assert by_run(shop, "run-1").mix_digest == summer.digest
    assert len(active_freezes(shop, "shop", NOW)) == 1


def test_a_run_is_refused_by_a_persons_freeze(shop: State) -> None:
    freeze(shop, "shop", owner="mia", reason="launch", days=2, now=NOW)
    with pytest.raises(FrozenError, match="mia"):
        by_run(shop, "run-1")
    assert [held.owner for held in active_freezes(shop, "shop", NOW)] == ["mia"]


def test_a_run_is_refused_by_a_run_that_goes_on(shop: State) -> None:
    book(shop, "run-1")
    by_run(shop, "run-1")
    with pytest.raises(FrozenError, match="imagegate run --resume run-1"):
        by_run(shop, "run-2", alive=True)


def test_a_run_that_waits_for_a_person_keeps_its_freeze(shop: State) -> None:
    book(shop, "run-1", "waiting")
    by_run(shop, "run-1")
    with pytest.raises(FrozenError, match="run-1"):
        by_run(shop, "run-2", alive=False)


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
def test_a_run_takes_over_from_one_that_ended(shop: State, status: str) -> None:
    book(shop, "run-1", status)
    by_run(shop, "run-1")
    by_run(shop, "run-2", alive=True)
    assert [held.run_id for held in active_freezes(shop, "shop", NOW)] == ["run-2"]


def test_a_run_takes_over_from_one_whose_process_is_dead(shop: State) -> None:
    book(shop, "run-1")
    by_run(shop, "run-1")
    by_run(shop, "run-2", alive=False)
    assert [held.run_id for held in active_freezes(shop, "shop", NOW)] == ["run-2"]


def test_a_process_of_another_machine_is_never_taken_for_dead(shop: State) -> None:
    book(shop, "run-1", host="elsewhere")
    by_run(shop, "run-1")
    with pytest.raises(FrozenError, match="run-1"):
        by_run(shop, "run-2", alive=False)


def test_a_person_may_freeze_while_a_run_holds_and_comes_first(shop: State) -> None:
    by_run(shop, "run-1")
    freeze(shop, "shop", owner="mia", reason="incident", days=1, now=NOW)
    first = active_freeze(shop, "shop", NOW)
    assert first is not None
    assert first.owner == "mia"
    with pytest.raises(FrozenError, match="incident"):
        assert_may_change(shop, "shop", now=NOW, run_id="run-1")


def test_releasing_for_a_run_leaves_other_freezes(shop: State) -> None:
    by_run(shop, "run-1")
    freeze(shop, "shop", owner="mia", reason="incident", days=1, now=NOW)
    with shop.begin() as connection:
        release_for_run(connection, "shop", run_id="run-2", now=NOW)
        assert len(active_freezes(connection, "shop", NOW)) == 2
        release_for_run(connection, "shop", run_id="run-1", now=NOW)
    assert [held.owner for held in active_freezes(shop, "shop", NOW)] == ["mia"]


def test_living_and_dead_processes_are_told_apart() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_alive(os.getpid())
    assert not process_alive(child.pid)
    assert process_alive(1), "a process of another user lives too"
    assert process_alive(0), "0 would ask for the whole process group"


def test_the_default_is_this_machine_and_its_processes(shop: State) -> None:
    with shop.begin() as connection:
        connection.execute(
            sa.insert(runs).values(
                run_id="run-1",
                product="shop",
                status="running",
                candidate_digest="c",
                baseline_digest="b",
                started_at=stamp(NOW),
                host=socket.gethostname(),
                pid=os.getpid(),
            )
        )
    by_run(shop, "run-1")
    with pytest.raises(FrozenError, match="run-1"):
        acquire_for_run(shop, "shop", run_id="run-2", owner="c", reason="r", days=1, now=NOW)
