"""The watch over a real state database and a real file router."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from tasks.alerts.incidents import open_incidents, read_incident
from tasks.alerts.outbox import messages
from tasks.errors import FencedError, FrozenError, RefusedError, RolloutError, StateError
from tasks.mix.freeze import active_freezes, thaw
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, require_production
from tasks.policy import Policy
from tasks.rollout.change import promote, roll_back
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.file import FileRouter
from tasks.rollout.watch.act import act
from tasks.rollout.watch.look import Looked, last_good, look
from tasks.rollout.watch.memory import Sample
from tasks.rollout.watch.store import (
    OWNER,
    blind_key,
    close,
    incident_key,
    inputs_key,
    read_watch,
    restart,
    restored_key,
    stop,
    write_watch,
)
from tasks.rollout.watch.window import assert_may_return, stretches
from tasks.state import State

POLICY = Policy()
SHOP = "shop"


class Source(Protocol):
    pace: float
    rates: dict[str, float]
    lag: timedelta
    error: str
    inputs: Any
    windows: list[tuple[datetime, datetime]]
    name: str

    def read(self, *args: Any) -> Any: ...


class Clock:
    def __init__(self, start: datetime) -> None:
        self.now = start

    def after(self, **delta: float) -> datetime:
        self.now += timedelta(**delta)
        return self.now


@pytest.fixture
def clock(released: State) -> Clock:
    """Begins when the present production began."""
    return Clock(datetime.fromisoformat(require_production(released, SHOP).changed_at))


@pytest.fixture
def released(shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix) -> State:
    """Summer serves since just now, winter before it."""
    promote(shop, router, SHOP, summer, actor="test", reason="gate", run_id=None)
    return shop


def minutes(state: State, source: Source, clock: Clock, count: int, **more: Any) -> Looked:
    """Look every minute."""
    looked = None
    for _ in range(count):
        looked = look(state, SHOP, POLICY, [source], clock.after(minutes=1), **more)
        if looked.watch.status == "alarm":
            break
    assert looked is not None
    return looked


def serving(state: State, router: FileRouter) -> tuple[str, str | None]:
    shown = router.read(SHOP)
    return require_production(state, SHOP).mix_digest, shown and shown.mix_digest


def test_every_image_is_counted_once(released: State, source: Source, clock: Clock) -> None:
    source.lag = timedelta(seconds=45)
    looked = minutes(released, source, clock, 60)
    assert looked.watch.status == "watching"
    for (_, end), (start, _) in zip(source.windows, source.windows[1:], strict=False):
        assert start == end
    assert looked.watch.memory.images == pytest.approx(40 * 60, abs=40)


def test_a_bad_mix_is_rolled_back_told_and_promotions_are_frozen(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    minutes(released, source, clock, 30)
    source.rates = {summer.digest: 0.05}
    looked = minutes(released, source, clock, 60)
    assert looked.watch.status == "alarm"
    # Stored before anything is done: a process killed here is finished by the next.
    stored = read_watch(released, SHOP)
    assert stored is not None
    assert stored.memory.alarm is not None
    assert stored.memory.alarm.target == winter.digest
    assert not messages(released)

    done = act(released, router, SHOP, clock.now)
    assert done is not None
    assert done.what == "rolled_back"
    assert serving(released, router) == (winter.digest, winter.digest)
    told = read_incident(released, incident_key(SHOP))
    assert told is not None
    assert told.severity == "page"
    assert "winter" in told.title
    with pytest.raises(FrozenError, match="watch close"):
        promote(released, router, SHOP, summer, actor="ann", reason="again", now=clock.now)
    assert act(released, router, SHOP, clock.now) is None

    # Winter is watched now, from the moment it serves.
    looked = minutes(released, source, clock, 20)
    assert looked.watch.status == "watching"
    assert looked.watch.mix_digest == winter.digest
    assert looked.watch.memory.past[-1].how == "alarm"

    close(released, SHOP, POLICY, actor="ann", why="provider fixed", now=clock.now)
    assert not active_freezes(released, SHOP, clock.now)
    assert not open_incidents(released)
    promote(released, router, SHOP, summer, actor="ann", reason="fixed", now=clock.now)


def test_the_alert_is_written_only_after_the_router_was_read_back(
    released: State, router: FileRouter, source: Source, clock: Clock, summer: ResolvedMix
) -> None:
    events: list[str] = []

    class Slow(FileRouter):
        def read(self, product: str) -> RouterState | None:
            shown = super().read(product)
            told = "told" if messages(released) else "silent"
            events.append(f"{told} {shown.epoch if shown else None}")
            return shown

    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    act(released, Slow(router.path, lock_timeout_s=0.2), SHOP, clock.now)
    assert events[-1] == "silent 3"
    assert messages(released)


class Down:
    """A router that cannot be changed, until it can."""

    def __init__(self, router: FileRouter) -> None:
        self.router, self.down = router, True

    def read(self, product: str) -> RouterState | None:
        return self.router.read(product)

    def apply(self, desired: Desired) -> None:
        if self.down:
            raise RolloutError("connection refused")
        self.router.apply(desired)

    def probe(self) -> None:
        self.router.probe()


def test_a_router_that_is_down_is_told_and_tried_again(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    down = Down(router)
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    failed = act(released, down, SHOP, clock.now)
    assert failed is not None
    assert failed.what == "failed"
    told = read_incident(released, incident_key(SHOP))
    assert told is not None
    assert told.title.startswith("ROLLBACK FAILED")
    assert [f.owner for f in active_freezes(released, SHOP, clock.now)] == [OWNER]
    down.down = False
    look(released, SHOP, POLICY, [source], clock.after(minutes=1))
    done = act(released, down, SHOP, clock.now)
    assert done is not None
    assert done.what == "rolled_back"
    assert serving(released, router) == (winter.digest, winter.digest)


def test_a_router_that_fences_the_rollback_off_is_tried_again(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    class Fenced(Down):
        def apply(self, desired: Desired) -> None:
            if self.down:
                raise FencedError("a later epoch is there")
            self.router.apply(desired)

    fenced = Fenced(router)
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    for _ in range(2):
        failed = act(released, fenced, SHOP, clock.now)
        assert failed is not None
        assert failed.what == "failed"
    fenced.down = False
    done = act(released, fenced, SHOP, clock.now)
    assert done is not None
    assert done.what == "rolled_back"
    assert serving(released, router) == (winter.digest, winter.digest)


def test_a_stopped_watch_rolls_nothing_back(
    released: State, router: FileRouter, source: Source, clock: Clock, summer: ResolvedMix
) -> None:
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    stop(released, SHOP, actor="ann", why="I am at it", now=clock.now)
    assert act(released, router, SHOP, clock.now) is None
    assert serving(released, router) == (summer.digest, summer.digest)


def test_killed_after_the_rollback_the_next_look_finishes(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.rollout.watch.act.raise_alarm", killed)
        with pytest.raises(KeyboardInterrupt):
            act(released, router, SHOP, clock.now)
    assert serving(released, router) == (winter.digest, winter.digest)
    assert not messages(released)
    look(released, SHOP, POLICY, [source], clock.after(minutes=1))
    done = act(released, router, SHOP, clock.now)
    assert done is not None
    assert done.what == "rolled_back"
    assert len([m for m in messages(released) if m.kind == "open"]) == 1
    rollbacks = [c for c in journal_of(released, SHOP) if c.kind == "rollback"]
    assert len(rollbacks) == 1


def test_a_restored_mix_that_is_bad_too_is_not_rolled_back_again(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    """A provider that is ill spoils every mix; walking back through history heals nothing."""
    source.rates = {summer.digest: 0.12, winter.digest: 0.12}
    minutes(released, source, clock, 60)
    act(released, router, SHOP, clock.now)
    looked = minutes(released, source, clock, 60)
    assert looked.watch.status == "alarm"
    done = act(released, router, SHOP, clock.now)
    assert done is not None
    assert done.what == "told"
    assert serving(released, router) == (winter.digest, winter.digest)
    told = read_incident(released, restored_key(SHOP))
    assert told is not None
    assert told.title.startswith("NOT ROLLED BACK")
    assert act(released, router, SHOP, clock.now) is None
    after = close(released, SHOP, POLICY, actor="ann", why="provider well", now=clock.now)
    assert after.status == "watching"
    assert after.memory.images == 0
    assert not open_incidents(released)


def test_the_first_mix_has_nothing_to_go_back_to(
    shop: State, router: FileRouter, source: Source, winter: ResolvedMix
) -> None:
    clock = Clock(datetime.fromisoformat(require_production(shop, SHOP).changed_at))
    source.rates = {winter.digest: 0.12}
    minutes(shop, source, clock, 60)
    done = act(shop, router, SHOP, clock.now)
    assert done is not None
    assert done.what == "told"
    assert "no earlier mix" in done.sentence
    assert serving(shop, router) == (winter.digest, winter.digest)


def test_a_person_who_moves_production_first_is_not_overruled(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    promote(released, router, SHOP, autumn, actor="ann", reason="hotfix", now=clock.now)
    done = act(released, router, SHOP, clock.now)
    assert done is not None
    assert done.what == "told"
    assert serving(released, router) == (autumn.digest, autumn.digest)


def test_a_mix_that_the_watch_found_bad_is_no_target(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    # A person promotes a third mix over the bad one, instead of rolling it back.
    promote(released, router, SHOP, autumn, actor="ann", reason="hotfix", now=clock.now)
    looked = minutes(released, source, clock, 5)
    with released.begin() as connection:
        assert last_good(connection, SHOP, looked.watch.memory) == winter.digest


def test_a_canary_ends_with_the_rollback(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    from tasks.rollout.change import set_share

    set_share(released, router, SHOP, autumn, 0.05, actor="test", reason="canary")
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    act(released, router, SHOP, clock.now)
    shown = router.read(SHOP)
    assert shown is not None
    assert dict(shown.weights) == {winter.digest: 1.0}


# ── blindness ────────────────────────────────────────────────────────────────────────────────────


def test_traffic_that_stops_pages_and_is_closed_by_traffic(
    released: State, router: FileRouter, source: Source, clock: Clock
) -> None:
    minutes(released, source, clock, 5)
    source.pace = 0
    looked = minutes(released, source, clock, 40)
    assert looked.watch.status == "blind"
    told = read_incident(released, blind_key(SHOP))
    assert told is not None
    assert (told.status, told.severity, told.count) == ("open", "page", 1)
    assert act(released, router, SHOP, clock.now) is None
    source.pace = 40
    assert minutes(released, source, clock, 2).watch.status == "watching"
    told = read_incident(released, blind_key(SHOP))
    assert told is not None
    assert told.status == "resolved"


def test_a_source_that_is_down_loses_no_window(
    released: State, source: Source, clock: Clock
) -> None:
    minutes(released, source, clock, 5)
    source.error = "connection refused"
    looked = minutes(released, source, clock, 40)
    assert looked.watch.status == "blind"
    assert "connection refused" in looked.watch.reason
    told = read_incident(released, blind_key(SHOP))
    assert told is not None
    assert told.severity == "warning"
    source.error = ""
    looked = minutes(released, source, clock, 1)
    assert looked.watch.status == "watching"
    assert looked.watch.memory.images == pytest.approx(46 * 40, abs=5)


def test_after_a_pause_everything_is_read_and_nobody_is_called_blind(
    released: State, source: Source, clock: Clock
) -> None:
    minutes(released, source, clock, 5)
    source.lag = timedelta(seconds=30)
    looked = look(released, SHOP, POLICY, [source], clock.after(hours=20))
    assert looked.watch.status == "watching"
    assert looked.watch.memory.images == pytest.approx(40 * (20 * 60 + 5), abs=60)
    assert max(end - start for start, end in source.windows) <= timedelta(hours=6)
    # After days, the last one is read.
    looked = look(released, SHOP, POLICY, [source], clock.after(days=5))
    assert looked.watch.status == "watching"
    assert any("were not looked at" in note for note in looked.notes)


def test_an_alarm_in_the_past_of_a_pause_is_found(
    released: State, source: Source, clock: Clock, summer: ResolvedMix
) -> None:
    minutes(released, source, clock, 5)
    source.rates = {summer.digest: 0.05}
    assert look(released, SHOP, POLICY, [source], clock.after(hours=20)).watch.status == "alarm"


def test_no_source_at_all_is_blindness(released: State, clock: Clock) -> None:
    looked = look(released, SHOP, POLICY, [], clock.after(minutes=31))
    assert looked.watch.status == "blind"
    assert "name one under 'outcomes'" in looked.watch.reason


def test_a_clock_that_jumps_counts_nothing_twice(
    released: State, source: Source, clock: Clock
) -> None:
    minutes(released, source, clock, 10)
    back = look(released, SHOP, POLICY, [source], clock.after(hours=-2))
    assert back.watch.status == "blind"
    assert "clock went back" in back.watch.reason
    counted = back.watch.memory.images
    assert minutes(released, source, clock, 30).watch.memory.images == counted
    # Right again, it goes on where it was.
    again = look(released, SHOP, POLICY, [source], clock.after(hours=2))
    assert again.watch.status == "watching"
    for (_, end), (start, _) in zip(source.windows, source.windows[1:], strict=False):
        assert start == end


# ── the row ──────────────────────────────────────────────────────────────────────────────────────


def test_two_watches_at_once_count_once(released: State, source: Source, clock: Clock) -> None:
    minutes(released, source, clock, 3)
    seen = read_watch(released, SHOP)
    assert seen is not None
    minutes(released, source, clock, 1)
    with released.begin() as connection, pytest.raises(FencedError, match="same time"):
        write_watch(connection, replace(seen, reason="mine"), seen)


def test_a_damaged_row_is_an_error_until_a_person_restarts(
    released: State, source: Source, clock: Clock, home: Path
) -> None:
    minutes(released, source, clock, 3)
    with sqlite3.connect(home / "state.db") as database:
        database.execute("UPDATE watches SET state = '{}'")
    database.close()
    with pytest.raises(StateError, match="watch restart --product shop"):
        look(released, SHOP, POLICY, [source], clock.after(minutes=1))
    restart(released, SHOP, POLICY, now=clock.now)
    assert minutes(released, source, clock, 2).watch.status == "watching"


def test_a_stopped_watch_looks_at_nothing(released: State, source: Source, clock: Clock) -> None:
    minutes(released, source, clock, 3)
    stop(released, SHOP, actor="ann", why="maintenance", now=clock.now)
    before = len(source.windows)
    looked = minutes(released, source, clock, 3)
    assert looked.watch.status == "stopped"
    assert len(source.windows) == before
    restart(released, SHOP, POLICY, now=clock.now)
    assert minutes(released, source, clock, 1).watch.status == "watching"


def test_the_watchdog_knows_who_should_be_looking(
    released: State, source: Source, clock: Clock
) -> None:
    from tasks.watchdog.facts import _watches

    minutes(released, source, clock, 3)
    (fact,) = _watches(released)
    assert fact.product == SHOP
    assert abs(fact.looked_at - clock.now) < timedelta(milliseconds=1)
    stop(released, SHOP, actor="ann", why="maintenance", now=clock.now)
    assert _watches(released) == ()


def test_closing_what_is_not_open_is_refused(released: State, clock: Clock) -> None:
    with pytest.raises(RefusedError, match="no open incident"):
        close(released, SHOP, POLICY, actor="ann", why="x", now=clock.now)


def test_a_person_may_thaw_what_the_watch_froze(
    released: State, router: FileRouter, source: Source, clock: Clock, summer: ResolvedMix
) -> None:
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    act(released, router, SHOP, clock.now)
    thaw(released, SHOP, actor="ann", now=clock.now)
    minutes(released, source, clock, 3)
    assert act(released, router, SHOP, clock.now) is None
    assert not active_freezes(released, SHOP, clock.now)


def test_new_locales_are_told_once(released: State, source: Source, clock: Clock) -> None:
    source.inputs = {("creative", "de"): 30, ("creative", "th"): 10}
    sample = Sample("run-1", ("creative",), ("de",))
    asked: list[str] = []

    def samples(digest: str) -> Sample:
        asked.append(digest)
        return sample

    minutes(released, source, clock, 30, samples=samples)
    told = read_incident(released, inputs_key(SHOP))
    assert told is not None
    assert (told.severity, told.count) == ("warning", 1)
    assert len(asked) == 1
    opened = next(m for m in messages(released) if m.kind == "open")
    assert "locale th (25.0 %)" in json.dumps(opened.payload)


# ── the rollback window ──────────────────────────────────────────────────────────────────────────


def test_when_which_mix_served(
    released: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    roll_back(released, router, SHOP, None, actor="ann", reason="outage")
    served = stretches(journal_of(released, SHOP))
    assert [s.mix_digest for s in served] == [winter.digest, summer.digest, winter.digest]
    assert [s.ended is None for s in served] == [False, False, True]
    assert served[0].ended <= served[1].began <= served[1].ended <= served[2].began  # type: ignore[operator]


def test_what_the_watch_found_bad_returns_only_when_a_person_clears_it(
    released: State,
    router: FileRouter,
    source: Source,
    clock: Clock,
    summer: ResolvedMix,
) -> None:
    source.rates = {summer.digest: 0.12}
    minutes(released, source, clock, 60)
    act(released, router, SHOP, clock.now)
    minutes(released, source, clock, 2)
    with pytest.raises(RefusedError, match="open incident"):
        assert_may_return(released, SHOP, summer.digest, POLICY, clock.now)
    close(released, SHOP, POLICY, actor="ann", why="x", cleared=True, now=clock.now)
    assert "summer served until" in assert_may_return(
        released, SHOP, summer.digest, POLICY, clock.now
    )


def test_what_a_person_rolled_back_may_return_within_the_window(
    released: State, router: FileRouter, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    roll_back(released, router, SHOP, None, actor="ann", reason="outage")
    now = datetime.now(UTC)
    assert assert_may_return(released, SHOP, summer.digest, POLICY, now)
    with pytest.raises(RefusedError, match="longer ago"):
        assert_may_return(released, SHOP, summer.digest, POLICY, now + timedelta(days=15))
    from tasks.mix.production import keep_mix

    keep_mix(released, autumn)
    with pytest.raises(RefusedError, match="never served"):
        assert_may_return(released, SHOP, autumn.digest, POLICY, now)
