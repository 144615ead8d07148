"""Looks of a canary on the file router with outcomes from a request log."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import tasks.rollout.canary.look as look_module
import tasks.rollout.shares as shares_module
import tasks.rollout.steps as steps_module
from tasks.alerts.incidents import open_incidents
from tasks.alerts.outbox import messages
from tasks.canary_rules import CanaryRule, CanaryStep
from tasks.errors import FrozenError, RefusedError, RolloutError, StateError, TakenOverError
from tasks.mix.freeze import freeze, thaw
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, keep_mix, require_production
from tasks.rollout.canary import store
from tasks.rollout.canary.begin import begin_canary
from tasks.rollout.canary.look import Surroundings, look
from tasks.rollout.canary.progress import sums
from tasks.rollout.canary.store import Canary
from tasks.rollout.canary.walk import walk
from tasks.rollout.change import promote, roll_back
from tasks.rollout.outcomes.base import OutcomeError
from tasks.rollout.outcomes.config import LogsConfig
from tasks.rollout.outcomes.logs import LogSource
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.file import FileRouter
from tasks.runs import begin_run, end_run
from tasks.state import State

START = datetime(2026, 11, 29, 12, tzinfo=UTC)
RULE = CanaryRule(
    steps=(
        CanaryStep(weight=0.05, soak_minutes=1, images=50, promote_below=0.10),
        CanaryStep(weight=0.5, soak_minutes=1, images=100, promote_below=0.03),
    ),
    query_errors=1,
    every_seconds=0.02,
)


class World:
    """A shop, its clock, its log, and the process that drives its canary."""

    def __init__(
        self, state: State, router: FileRouter, home: Path, old: ResolvedMix, new: ResolvedMix
    ) -> None:
        self.state, self.router, self.home, self.old, self.new = state, router, home, old, new
        self.now = START
        self.log = home / "requests.jsonl"
        self.log.touch()
        self.lag = 0.0
        self.sources: list[Any] = [self.log_source()]
        keep_mix(state, new)

    def log_source(self) -> LogSource:
        config = LogsConfig(kind="logs", files=self.log, lag_s=self.lag)
        return LogSource(config, lambda: self.now)

    def start(self, rule: CanaryRule = RULE) -> Canary:
        canary = begin_canary(
            self.state, self.new, rule, "sha256:0", actor="ann", now=self.now, without_gate="test"
        )
        self.around = self.process()
        return store.claim(self.state, canary.id, self.around.driver)

    def process(self, state: State | None = None) -> Surroundings:
        return Surroundings(
            state or self.state, self.router, self.sources, store.new_driver(), lambda: self.now
        )

    def serve(self, new: tuple[int, int], old: tuple[int, int] = (400, 2)) -> None:
        """One minute of traffic: (requests, failures) by mix, spread over the minute."""
        with self.log.open("a") as file:
            for mix, (count, failures) in ((self.new, new), (self.old, old)):
                for i in range(count):
                    at = self.now + timedelta(seconds=60 * (i + 0.5) / count)
                    row = {
                        "time": at.isoformat(),
                        "product": "shop",
                        "mix": mix.digest,
                        "ok": i >= failures,
                    }
                    file.write(json.dumps(row) + "\n")
        self.now += timedelta(minutes=1)

    def look(self) -> Canary:
        return look(self.around, self.canary.id)

    @property
    def canary(self) -> Canary:
        found = store.newest_of(self.state, "shop")
        assert found is not None
        return found

    def weights(self) -> dict[str, float]:
        shown = self.router.read("shop")
        assert shown is not None
        return {
            name: shown.weights[mix.digest]
            for name, mix in (("old", self.old), ("new", self.new))
            if mix.digest in shown.weights
        }

    def told(self) -> list[str]:
        """Keys of the canary's messages, without its name."""
        start = f"canary:{self.canary.id}:"
        return [m.dedup_key[len(start) :] for m in messages(self.state) if start in m.dedup_key]

    def counted(self) -> int:
        return sums(self.canary.progress.tallies)["candidate"].images


@pytest.fixture
def world(
    shop: State, router: FileRouter, home: Path, winter: ResolvedMix, summer: ResolvedMix
) -> World:
    return World(shop, router, home, winter, summer)


def alarms(world: World) -> list[tuple[str, str]]:
    return [(i.key.rpartition(":")[2], i.severity) for i in open_incidents(world.state)]


def test_a_good_candidate_walks_into_production_by_itself(world: World) -> None:
    world.start()
    assert world.weights() == {"old": 1.0}
    assert world.look().status == "running"
    assert world.weights() == {"old": 0.95, "new": 0.05}
    for _ in range(3):
        world.serve((30, 0))
        world.look()
    assert (world.canary.step, world.weights()) == (1, {"old": 0.5, "new": 0.5})
    for _ in range(4):
        world.serve((150, 1))
        world.look()
    assert world.canary.status == "promoted"
    assert world.weights() == {"new": 1.0}
    assert require_production(world.state, "shop").mix_digest == world.new.digest
    assert world.counted() == _in_log(
        world, world.new, datetime.fromisoformat(world.canary.progress.counted_until)
    )
    assert world.told() == ["started", "step:0", "step:1", "ended:promoted"]
    kinds = [(t.kind, t.weight) for t in journal_of(world.state, "shop")]
    assert kinds[2:] == [
        ("canary", 0.05), ("verified", 0.05), ("canary", 0.5), ("verified", 0.5),
        ("promote", None), ("verified", None),
    ]  # fmt: skip
    assert alarms(world) == []
    with pytest.raises(RefusedError, match="is over: promoted"):
        store.claim(world.state, world.canary.id, "x")


class Witness(FileRouter):
    """A router that remembers what people had been told when it was changed and read."""

    world: World
    seen: list[list[str]]

    def apply(self, desired: Desired) -> None:
        self.seen.append(self.world.told())
        super().apply(desired)

    def read(self, product: str) -> RouterState | None:
        self.seen.append(self.world.told())
        return super().read(product)


def test_a_bad_candidate_is_rolled_back_and_told_after_the_router_was_read_back(
    world: World,
) -> None:
    world.start()
    world.look()
    witness = Witness(world.router.path)
    witness.world, witness.seen = world, []
    world.router = witness
    world.around = Surroundings(
        world.state, witness, world.sources, world.around.driver, lambda: world.now
    )
    for _ in range(5):
        world.serve((30, 6))
        if not world.look().live:
            break
    assert witness.seen
    assert not any("ended:rolled_back" in told for told in witness.seen)
    assert world.canary.status == "rolled_back"
    assert world.weights() == {"old": 1.0}
    assert "fails more often than 2 %" in str(world.canary.reason)
    assert world.told()[-1] == "ended:rolled_back"
    page = messages(world.state)[-1]
    assert (page.severity, page.topic) == ("page", "canary.rolled_back")
    assert "Users get pictures of winter only." in json.dumps(page.payload)


class KilledError(BaseException):
    """Stands for kill -9 in this process: nothing after the point runs, nothing is cleaned up."""


def points(monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    passed: list[str] = []

    def fault(name: str) -> None:
        passed.append(name)
        if len(passed) == at:
            raise KilledError(name)

    for module in (look_module, steps_module, shares_module):
        monkeypatch.setattr(module, "fault", fault)
    return passed


def drive_killed(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int, failures: int
) -> list[str]:
    """Drive to the end; the ``at``-th fault point kills the driver, a new one goes on."""
    passed = points(monkeypatch, at)
    for _ in range(40):
        try:
            canary = world.look()
        except KilledError:
            # Legal at every moment: the baseline alone, a step's split, or the candidate alone.
            assert world.weights() in (
                {"old": 1.0}, {"old": 0.95, "new": 0.05}, {"old": 0.5, "new": 0.5}, {"new": 1.0},
            )  # fmt: skip
            store.let_go(world.state, world.canary.id, world.around.driver)
            world.around = world.process()
            canary = world.canary
            if canary.live:
                store.claim(world.state, canary.id, world.around.driver)
                continue
        if not canary.live:
            return list(passed)
        world.serve((60, failures if canary.step == 1 else 0))
    pytest.fail("the canary did not end")


def shop_again(home: Path, old: ResolvedMix) -> tuple[State, FileRouter]:
    from tasks.mix.production import adopt
    from tasks.rollout.change import reconcile

    home.mkdir()
    state = State(f"sqlite:///{home / 'state.db'}")
    router = FileRouter(home / "routing.json")
    adopt(state, old, "test", "first")
    reconcile(state, router, "shop")
    return state, router


@pytest.mark.parametrize(("failures", "end"), [(0, "promoted"), (12, "rolled_back")])
def test_killed_at_any_point_a_canary_goes_on_and_counts_each_image_once(
    tmp_path: Path,
    winter: ResolvedMix,
    summer: ResolvedMix,
    monkeypatch: pytest.MonkeyPatch,
    failures: int,
    end: str,
) -> None:
    def walked(at: int) -> list[str]:
        home = tmp_path / f"{end}-{at}"
        state, router = shop_again(home, winter)
        world = World(state, router, home, winter, summer)
        world.start()
        passed = drive_killed(world, monkeypatch, at, failures)
        killed = passed[at - 1] if at else "never"
        canary = world.canary
        assert canary.status == end, killed
        assert world.weights() == ({"new": 1.0} if end == "promoted" else {"old": 1.0}), killed
        assert world.told()[-1] == f"ended:{end}", killed
        assert len(set(world.told())) == len(world.told()), killed
        # What was counted is what the log holds up to there, each row once.
        total = sums(canary.progress.tallies)
        until = datetime.fromisoformat(canary.progress.counted_until)
        assert total["candidate"].images == _in_log(world, summer, until), killed
        assert total["baseline"].images == _in_log(world, winter, until), killed
        state.close()
        return passed

    undisturbed = walked(0)
    ours = ("share verified", "step kept", "look kept", "end verified", "end kept")
    assert set(ours) <= set(undisturbed)
    # Every point of the looks; those of the change itself have tests of their own, so a few.
    for at, name in enumerate(undisturbed, 1):
        if name in ours or at % 7 == 0:
            walked(at)


def _in_log(world: World, mix: ResolvedMix, until: datetime) -> int:
    rows = [json.loads(line) for line in world.log.read_text().splitlines()]
    return sum(
        1
        for row in rows
        if row["mix"] == mix.digest and datetime.fromisoformat(row["time"]) < until
    )


def test_a_second_process_is_refused_while_the_first_lives_and_replaces_it_when_dead(
    world: World,
) -> None:
    canary = world.start()
    with pytest.raises(RefusedError, match="is driven already"):
        store.claim(world.state, canary.id, store.new_driver())
    store.let_go(world.state, canary.id, world.around.driver)
    second = world.process()
    store.claim(world.state, canary.id, second.driver)
    with pytest.raises(TakenOverError, match="another process"):
        world.look()
    assert world.weights() == {"old": 1.0}
    assert look(second, canary.id).status == "running"


def test_two_that_look_at_once_count_once(world: World) -> None:
    world.start()
    world.look()
    world.serve((40, 0))
    thief = world.process()

    class Slow(LogSource):
        """Another process takes the canary over while this one reads."""

        def read(self, *arguments: Any) -> Any:
            seen = super().read(*arguments)
            store.let_go(world.state, world.canary.id, world.around.driver)
            store.claim(world.state, world.canary.id, thief.driver)
            look(thief, world.canary.id)
            return seen

    slow = Slow(LogsConfig(kind="logs", files=world.log, lag_s=0), lambda: world.now)
    world.around = Surroundings(
        world.state, world.router, [slow], world.around.driver, lambda: world.now
    )
    with pytest.raises(TakenOverError):
        world.look()
    assert world.counted() == 40


def test_pause_keeps_judging_and_resume_goes_on(world: World) -> None:
    canary = world.start()
    world.look()
    store.ask(world.state, canary.id, "pause", by="mia", reason="demo at noon")
    for _ in range(4):
        world.serve((50, 0))
        assert world.look().status == "paused"
    assert world.canary.reason == "paused by mia: demo at noon"
    assert (world.canary.step, world.counted()) == (0, 200)
    store.ask(world.state, canary.id, "resume", by="mia", reason="demo over")
    assert world.look().step == 1
    store.ask(world.state, canary.id, "pause", by="mia", reason="again")
    world.serve((200, 60))
    assert world.look().status == "rolled_back"


def test_skip_passes_a_step_without_its_proof_but_not_a_bad_one(world: World) -> None:
    canary = world.start()
    world.look()
    world.serve((3, 0))
    store.ask(world.state, canary.id, "skip", by="mia", reason="seen by the brand team")
    assert world.look().step == 1
    assert world.canary.progress.skipped == (
        "step 1 was passed without its proof by mia: seen by the brand team",
    )
    assert world.weights() == {"old": 0.5, "new": 0.5}
    world.serve((200, 60))
    store.ask(world.state, canary.id, "skip", by="mia", reason="hurry")
    assert world.look().status == "rolled_back"
    assert world.weights() == {"old": 1.0}


def test_abort_takes_the_share_away_at_once_and_names_who(world: World) -> None:
    canary = world.start()
    world.look()
    store.ask(world.state, canary.id, "abort", by="mia", reason="wrong build")
    # The last word does not undo an abort.
    store.ask(world.state, canary.id, "skip", by="tom", reason="no")
    assert world.look().status == "aborted"
    assert world.weights() == {"old": 1.0}
    assert world.canary.reason == "aborted by mia: wrong build"
    assert journal_of(world.state, "shop")[-2].actor == "mia"
    assert "By: mia" in json.dumps(messages(world.state)[-1].payload)
    with pytest.raises(RefusedError, match=r"is over \(aborted\)"):
        store.ask(world.state, canary.id, "resume", by="mia", reason="")


def test_resume_of_what_is_not_paused_is_refused(world: World) -> None:
    canary = world.start()
    with pytest.raises(RefusedError, match="not paused"):
        store.ask(world.state, canary.id, "resume", by="mia", reason="")


class Blind:
    name = "prometheus"

    def read(self, *_: Any) -> Any:
        raise OutcomeError("prometheus answers 503")


def test_a_source_that_fails_holds_with_an_alarm_and_loses_nothing(world: World) -> None:
    world.start()
    world.look()
    seeing = world.sources[:]
    world.sources[:] = [Blind()]
    for expected in ("running", "holding", "holding"):
        world.serve((60, 0))
        assert world.look().status == expected
    assert "503" in str(world.canary.reason)
    assert alarms(world) == [("hold", "warning")]
    assert world.weights() == {"old": 0.95, "new": 0.05}
    world.sources[:] = seeing
    assert world.look().step == 1
    assert world.canary.status == "running"
    assert world.counted() == 180
    assert alarms(world) == []


class Down(FileRouter):
    down = True

    def apply(self, desired: Desired) -> None:
        if self.down:
            raise RolloutError("the gateway answers 503")
        super().apply(desired)


def test_a_rollback_that_the_router_does_not_take_pages_and_is_tried_again(world: World) -> None:
    world.start()
    world.look()
    down = Down(world.router.path)
    world.router = down
    world.around = Surroundings(
        world.state, down, world.sources, world.around.driver, lambda: world.now
    )
    world.serve((100, 40))
    assert world.look().status == "holding"
    assert alarms(world) == [("router", "page")]
    assert "ended:rolled_back" not in world.told()
    world.serve((100, 40))
    assert world.look().live
    down.down = False
    assert world.look().status == "rolled_back"
    assert world.weights() == {"old": 1.0}
    assert alarms(world) == []
    assert world.told()[-1] != "started"
    assert "ended:rolled_back" in world.told()


def test_a_router_that_is_down_does_not_stop_the_judging(world: World) -> None:
    world.start()
    world.look()
    world.serve((100, 0))
    down = Down(world.router.path)
    world.router = down
    world.around = Surroundings(
        world.state, down, world.sources, world.around.driver, lambda: world.now
    )
    assert world.look().status == "holding"
    assert (world.canary.step, world.canary.progress.applied) == (1, False)
    # The share could not be raised, and the candidate breaks meanwhile.
    world.serve((100, 50))
    down.down = False
    assert world.look().status == "rolled_back"
    assert world.weights() == {"old": 1.0}


def test_a_freeze_holds_the_share_and_the_judging_goes_on(world: World) -> None:
    world.start()
    world.look()
    freeze(world.state, "shop", owner="mia", reason="launch", days=1, now=world.now)
    for _ in range(3):
        world.serve((60, 0))
        assert world.look().status == "holding" or world.canary.step == 0
    assert "launch" in str(world.canary.reason)
    assert world.weights() == {"old": 0.95, "new": 0.05}
    assert alarms(world) == [("hold", "warning")]
    counted = world.counted()
    world.serve((60, 0))
    world.look()
    assert world.counted() == counted + 60
    thaw(world.state, "shop", actor="mia", now=world.now)
    assert world.look().status == "running"
    assert world.weights() == {"old": 0.5, "new": 0.5}
    assert alarms(world) == []


def test_a_freeze_before_the_last_step_keeps_the_candidate_judged(world: World) -> None:
    world.start()
    world.look()
    world.serve((100, 0))
    world.look()
    freeze(world.state, "shop", owner="mia", reason="launch", days=1, now=world.now)
    for _ in range(4):
        world.serve((150, 0))
        world.look()
    assert (world.canary.status, world.canary.progress.order) == ("holding", None)
    world.serve((300, 90))
    assert world.look().status == "rolled_back"


def test_a_canary_is_not_started_while_frozen_or_without_a_gate(world: World) -> None:
    freeze(world.state, "shop", owner="mia", reason="launch", days=1, now=world.now)
    with pytest.raises(FrozenError, match="launch"):
        world.start()
    thaw(world.state, "shop", actor="mia", now=world.now)
    begin = {"actor": "ann", "now": world.now}
    with pytest.raises(RefusedError, match="may not meet users: no gate"):
        begin_canary(world.state, world.new, RULE, "p", **begin)  # type: ignore[arg-type]
    begin_run(world.state, "run-1", "shop", world.new.digest, world.old.digest)
    end_run(world.state, "run-1", "finished", "HOLD")
    with pytest.raises(RefusedError, match=r"run-1 is of 'shop'.*HOLD"):
        begin_canary(world.state, world.new, RULE, "p", run_id="run-1", **begin)  # type: ignore[arg-type]
    end_run(world.state, "run-1", "finished", "PROMOTE")
    canary = begin_canary(world.state, world.new, RULE, "p", **begin)  # type: ignore[arg-type]
    assert canary.plan.run_id == "run-1"
    with pytest.raises(RefusedError, match="is under way"):
        world.start()


def test_a_person_who_rolls_back_ends_the_canary(world: World) -> None:
    world.start()
    world.look()
    roll_back(world.state, world.router, "shop", None, actor="tom", reason="saw it", now=world.now)
    world.serve((60, 0))
    assert world.look().status == "aborted"
    assert "rollback of tom: saw it" in str(world.canary.reason)
    assert world.weights() == {"old": 1.0}


def test_a_share_edited_by_hand_is_put_right(world: World) -> None:
    world.start()
    world.look()
    shown = world.router.read("shop")
    assert shown is not None
    world.router.apply(
        Desired("shop", shown.epoch + 3, (Share(world.old, 0.2), Share(world.new, 0.8)))
    )
    world.serve((10, 0))
    world.look()
    assert world.weights() == {"old": 0.95, "new": 0.05}
    assert "reconcile" in [t.kind for t in journal_of(world.state, "shop")]


def test_a_rollback_made_at_the_router_ends_the_canary(world: World) -> None:
    world.start()
    world.look()
    shown = world.router.read("shop")
    assert shown is not None
    world.router.apply(Desired("shop", shown.epoch + 1, (Share(world.old, 1.0),)))
    world.serve((60, 0))
    assert world.look().status == "aborted"
    assert world.weights() == {"old": 1.0}


def test_a_clock_that_jumps_counts_nothing_twice(world: World) -> None:
    world.start()
    world.look()
    world.serve((60, 0))
    world.look()
    step, counted = world.canary.step, world.counted()
    there = world.now
    world.now = there - timedelta(hours=3)
    world.look()
    assert (world.canary.step, world.counted()) == (step, counted)
    world.now = there + timedelta(hours=5)
    world.look()
    assert (world.canary.step, world.counted()) == (step, counted)


def test_what_comes_late_is_counted_for_the_share_it_had(world: World) -> None:
    world.lag = 30.0
    world.sources[:] = [world.log_source()]
    world.start()
    world.look()
    for _ in range(2):
        world.serve((60, 0))
        world.look()
    # Half a minute of the first step is not complete when the second one begins.
    assert world.canary.step == 1
    assert world.counted() == 90
    world.serve((200, 0))
    world.look()
    assert [t.candidate.images for t in world.canary.progress.tallies] == [120, 100]


def test_the_loop_outlives_a_database_that_is_away(world: World) -> None:
    canary = world.start()
    errors: list[str] = []
    stop = threading.Event()
    looks = iter(range(100))

    class Away:
        """Sources of a look during which the database goes away, twice."""

        name = "logs"

        def read(self, *arguments: Any) -> Any:
            if next(looks) < 2:
                raise StateError("the state database failed: gone")
            world.serve((100, 50))
            return world.log_source().read(*arguments)

    def clock() -> datetime:
        world.now += timedelta(seconds=1)
        return world.now

    around = Surroundings(world.state, world.router, [Away()], world.around.driver, clock)

    def told(text: str) -> None:
        errors.append(text)

    ended = walk(around, canary, stop, on_error=told)
    assert ended.status == "rolled_back"
    assert errors == ["the state database failed: gone"] * 2
    assert world.weights() == {"old": 1.0}


def test_a_stopped_loop_leaves_the_canary_for_the_next_one(world: World) -> None:
    canary = world.start()
    stop = threading.Event()
    left = walk(world.around, canary, stop, on_look=lambda _: stop.set())
    assert left.live
    assert world.canary.driver is None
    assert store.claim(world.state, canary.id, store.new_driver()).status == "running"


def test_a_promotion_by_a_person_ends_the_canary(world: World, autumn: ResolvedMix) -> None:
    world.start()
    world.look()
    roll_back(world.state, world.router, "shop", None, actor="tom", reason="x", now=world.now)
    promote(world.state, world.router, "shop", autumn, actor="tom", reason="hot fix", now=world.now)
    assert world.look().status == "aborted"
    assert "promote of tom: hot fix" in str(world.canary.reason)
    shown = world.router.read("shop")
    assert shown is not None
    assert dict(shown.weights) == {autumn.digest: 1.0}
