"""What goes wrong around a rollout ends in a safe state, with an alarm that says what it is.

The alarms are the watchdog's: it looks at the database and the router as it does in service.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from tasks.alerts.incidents import open_incidents
from tasks.errors import FencedError, RefusedError, RolloutError, StateError
from tasks.mix import production as production_module
from tasks.mix.freeze import active_freeze, freeze
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import MOVES, journal_of, keep_mix, require_production
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.decision import alone
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.file import FileRouter, read_routing
from tasks.runs import begin_run
from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.tables import outbox, runs
from tasks.watchdog import act as act_module
from tasks.watchdog import facts as facts_module
from tasks.watchdog import loop
from tasks.watchdog.loop import Pass, run_once

WHO = {"actor": "kim", "reason": "a reason"}


class Down(FileRouter):
    """A router that answers nothing."""

    def read(self, product: str) -> RouterState | None:
        raise RolloutError("the router does not answer: connection refused")

    def apply(self, desired: Desired) -> None:
        raise RolloutError("the router does not answer: connection refused")

    def probe(self) -> None:
        raise RolloutError("the router does not answer: connection refused")


class Lying(FileRouter):
    """A router that says yes to everything and goes on as before."""

    def apply(self, desired: Desired) -> None:
        """Say yes."""


class Echo(FileRouter):
    """A router that takes the epoch, and forgets the weights."""

    def apply(self, desired: Desired) -> None:
        super().apply(Desired(desired.product, desired.epoch, alone(desired.shares[0].mix)))


@pytest.fixture
def settings(home: Path) -> Settings:
    return load_settings({"IMAGEGATE_HOME": str(home)})


@pytest.fixture
def watchdog(
    settings: Settings, shop: State, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Pass]:
    """Let the watchdog look, five minutes from now, at a router of a kind."""
    monkeypatch.setattr(loop, "prefect_side", lambda: None)

    def look(kind: type[FileRouter] = FileRouter, **later: float) -> Pass:
        def opened(settings: Settings) -> FileRouter:
            return kind(settings.routing_file)

        monkeypatch.setattr(facts_module, "open_router", opened)
        monkeypatch.setattr(act_module, "open_router", opened)
        return run_once(settings, datetime.now(UTC) + timedelta(**(later or {"minutes": 5})))

    return look


def weights(router: FileRouter) -> dict[str, float]:
    found = router.read("shop")
    assert found is not None
    return dict(found.weights)


def alarms(state: State) -> list[str]:
    return [incident.title for incident in open_incidents(state)]


def said(state: State) -> str:
    with state.begin() as connection:
        return "\n".join(connection.execute(sa.select(outbox.c.payload)).scalars())


# --- the router is down -------------------------------------------------------------------------


def test_router_down_stops_what_would_expose_more(
    shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    down = Down(router.path)
    for change in (
        lambda: promote(shop, down, "shop", summer, **WHO),
        lambda: set_share(shop, down, "shop", summer, 0.05, **WHO),
    ):
        with pytest.raises(RolloutError, match="does not answer"):
            change()
    assert require_production(shop, "shop").epoch == 1, "nothing was decided"
    assert weights(router) == {winter.digest: 1.0}


def test_router_down_keeps_the_rollback_pages_and_finishes_when_it_is_back(
    shop: State,
    router: FileRouter,
    watchdog: Callable[..., Pass],
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    set_share(shop, router, "shop", summer, 0.25, **WHO)
    with pytest.raises(RolloutError, match="does not answer"):
        roll_back(shop, Down(router.path), "shop", None, **WHO)
    pointer = require_production(shop, "shop")
    assert (pointer.candidate_digest, pointer.settled) == (None, False), "decided, not yet true"
    assert weights(router)[summer.digest] == 0.25

    found = watchdog(Down)
    assert "The router does not show production of shop" in alarms(shop)
    assert any("connection refused" in fault.error for fault in found.faults)
    assert "connection refused" in said(shop)
    assert "Rollback: shop serves" not in said(shop), "people hear of it when it is true"

    assert any("shows production of shop again" in done for done in watchdog().done)
    assert weights(router) == {winter.digest: 1.0}
    assert "Rollback: shop serves winter" in said(shop)
    watchdog()
    assert alarms(shop) == []


# --- the router lies ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lying, Echo])
def test_a_lying_router_is_no_success_and_pages(
    shop: State,
    router: FileRouter,
    watchdog: Callable[..., Pass],
    winter: ResolvedMix,
    summer: ResolvedMix,
    kind: type[FileRouter],
) -> None:
    with pytest.raises(RolloutError, match="read back it shows"):
        set_share(shop, kind(router.path), "shop", summer, 0.25, **WHO)
    assert weights(router) == {winter.digest: 1.0}, "users stay on the mix that was good"
    assert not require_production(shop, "shop").settled
    found = watchdog(kind)
    assert "The router does not show production of shop" in alarms(shop)
    assert any("read back it shows" in fault.error for fault in found.faults)
    assert weights(router) == {winter.digest: 1.0}
    # A person gives up on the canary; a liar cannot be told that either, an honest router can.
    done = roll_back(shop, router, "shop", None, **WHO)
    assert done.to_digest == winter.digest
    watchdog()
    assert alarms(shop) == []


def test_a_router_that_lies_about_a_rollback_never_counts_as_rolled_back(
    shop: State, router: FileRouter, summer: ResolvedMix
) -> None:
    promote(shop, router, "shop", summer, **WHO)
    told: list[str] = []
    with pytest.raises(RolloutError, match="read back it shows"):
        roll_back(
            shop,
            Lying(router.path),
            "shop",
            None,
            **WHO,
            tell=lambda _connection, done: told.append(done.mix_name),
        )
    assert told == []
    assert [c.kind for c in journal_of(shop, "shop")][-1] == "rollback", "and no line of a check"


# --- somebody changes the router behind our back ------------------------------------------------


def by_hand(router: FileRouter, change: Callable[[dict[str, object]], None]) -> None:
    routing = json.loads(router.path.read_text())
    change(routing["products"]["shop"])
    router.path.write_text(json.dumps(routing))


def test_shares_moved_by_hand_page_and_are_put_back(
    shop: State,
    router: FileRouter,
    watchdog: Callable[..., Pass],
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    set_share(shop, router, "shop", summer, 0.05, **WHO)

    def more(entry: dict[str, object]) -> None:
        entry["weights"] = {winter.digest: 0.2, summer.digest: 0.8}

    by_hand(router, more)
    watchdog()
    assert "The router does not show production of shop" in alarms(shop)
    assert f"80 % {summer.digest}" in said(shop), "what was found is told"
    assert weights(router) == {winter.digest: 0.95, summer.digest: 0.05}
    last = [c for c in journal_of(shop, "shop") if c.kind in MOVES][-1]
    assert (last.kind, last.actor, last.epoch, last.weight) == ("reconcile", "watchdog", 3, 0.05)
    watchdog()
    assert alarms(shop) == []


def test_a_routing_that_was_deleted_pages_and_is_made_again(
    shop: State, router: FileRouter, watchdog: Callable[..., Pass], winter: ResolvedMix
) -> None:
    router.path.unlink()
    watchdog()
    assert "The router does not show production of shop" in alarms(shop)
    assert weights(router) == {winter.digest: 1.0}
    lines = [(c.kind, c.actor) for c in journal_of(shop, "shop")][-2:]
    assert lines == [("reconcile", "watchdog"), ("verified", "watchdog")]
    watchdog()
    assert alarms(shop) == []
    assert len(journal_of(shop, "shop")) == 4, "told once"


def test_a_candidate_that_was_put_there_by_hand_goes_again(
    shop: State,
    router: FileRouter,
    watchdog: Callable[..., Pass],
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    router.apply(Desired("shop", 40, alone(summer)))
    watchdog()
    assert weights(router) == {winter.digest: 1.0}
    assert require_production(shop, "shop").epoch == 41


# --- the database is down -----------------------------------------------------------------------


def test_a_database_that_goes_away_in_the_middle_leaves_one_routing_and_is_finished(
    shop: State,
    router: FileRouter,
    home: Path,
    winter: ResolvedMix,
    summer: ResolvedMix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cutting(FileRouter):
        """The database goes away while the router is told."""

        def apply(self, desired: Desired) -> None:
            super().apply(desired)
            monkeypatch.setattr(State, "begin", gone)

    def gone(_state: State) -> Iterator[None]:
        raise StateError("the state database failed: server closed the connection")

    with pytest.raises(StateError):
        promote(shop, Cutting(router.path), "shop", summer, **WHO)
    monkeypatch.undo()
    assert weights(router) == {summer.digest: 1.0}, "decided, applied, not recorded"
    assert not require_production(shop, "shop").settled
    assert reconcile(shop, router, "shop").epoch == 2
    assert require_production(shop, "shop").settled


def test_without_the_database_nothing_but_a_rollback_goes(
    home: Path, router: FileRouter, shop: State, summer: ResolvedMix
) -> None:
    shop.close()
    for left in home.glob("state.db*"):
        left.unlink()
    (home / "state.db").write_bytes(b"this is no database " * 400)
    with pytest.raises(StateError, match="not a database"):
        State(f"sqlite:///{home / 'state.db'}")


# --- Slack is down ------------------------------------------------------------------------------


def test_slack_down_keeps_no_rollback_back_and_loses_no_message(
    shop: State, router: FileRouter, settings: Settings, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    from flows.operate import rollback

    promote(shop, router, "shop", summer, **WHO)
    deaf = settings.model_copy(
        update={
            "slack_token": SecretStr("xoxb-none"),
            "slack_channel": "C1",
            "slack_base_url": "http://127.0.0.1:9/",
        }
    )
    done = rollback(deaf, "shop", None, "kim", "garbled text")
    assert (done["mix_name"], done["warning"]) == ("winter", "")
    assert weights(router) == {winter.digest: 1.0}
    with shop.begin() as connection:
        message = connection.execute(sa.select(outbox)).one()
    assert (message.dedup_key, message.status) == ("rollback:shop:3", "pending")


# --- the clock jumps ----------------------------------------------------------------------------


def test_a_clock_that_was_put_back_does_not_hide_a_rollback_from_a_run(
    shop: State,
    router: FileRouter,
    winter: ResolvedMix,
    summer: ResolvedMix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promote(shop, router, "shop", summer, **WHO)
    begin_run(shop, "run-1", "shop", winter.digest, summer.digest, driver="one")
    with shop.begin() as connection:
        began = connection.execute(sa.select(runs.c.started_at)).scalar_one()
    early = datetime.fromisoformat(began) - timedelta(hours=3)
    monkeypatch.setattr(production_module, "utc_now", early.isoformat)
    roll_back(shop, router, "shop", None, actor="on-call", reason="it burns")
    promote(shop, router, "shop", summer, **WHO)
    monkeypatch.undo()
    with pytest.raises(FencedError, match="it burns"):
        promote(
            shop,
            router,
            "shop",
            winter,
            **WHO,
            run_id="run-1",
            driver="one",
            expected_mixes=(winter.digest, summer.digest),
        )
    assert weights(router) == {summer.digest: 1.0}


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
def test_a_clock_that_jumped_keeps_no_rollback_back(
    shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix, jump: timedelta
) -> None:
    now = datetime.now(UTC)
    set_share(shop, router, "shop", summer, 0.25, **WHO, now=now)
    freeze(shop, "shop", owner="mia", reason="launch", days=2, now=now)
    done = roll_back(
        shop, router, "shop", None, **WHO, now=now + jump, once_in=timedelta(minutes=10)
    )
    assert done.to_digest == winter.digest
    assert weights(router) == {winter.digest: 1.0}
    # A freeze from the future holds; only its end lets go of it.
    assert (active_freeze(shop, "shop", now + jump) is not None) is (jump < timedelta(0))


def test_a_clock_that_was_put_back_does_not_stop_the_watchdog(
    shop: State, router: FileRouter, watchdog: Callable[..., Pass], winter: ResolvedMix
) -> None:
    router.path.unlink()
    watchdog(hours=-3)
    assert "The router does not show production of shop" in alarms(shop)
    assert weights(router) == {winter.digest: 1.0}


# --- two controllers ----------------------------------------------------------------------------


def test_many_controllers_at_once_leave_one_routing_and_one_story(
    shop: State,
    home: Path,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    """Four controllers fight for it while a reader looks at every moment."""
    for mix in (summer, autumn):
        keep_mix(shop, mix)
    turns = 8
    start, over = threading.Barrier(5), threading.Event()
    unexpected: list[BaseException] = []
    fenced: list[str] = []
    seen: list[tuple[int, dict[str, float]]] = []

    def controller(number: int) -> None:
        state = State(f"sqlite:///{home / 'state.db'}")
        router = FileRouter(home / "routing.json")
        moves: tuple[Callable[[], object], ...] = (
            lambda: promote(state, router, "shop", summer, **WHO),
            lambda: roll_back(state, router, "shop", winter.digest, **WHO),
            lambda: set_share(state, router, "shop", autumn, 0.25, **WHO),
            lambda: reconcile(state, router, "shop"),
        )
        start.wait()
        try:
            for turn in range(turns):
                try:
                    moves[(number + turn) % len(moves)]()
                except (FencedError, RefusedError, RolloutError) as error:
                    fenced.append(type(error).__name__)
        except BaseException as error:  # noqa: BLE001 - told by the test
            unexpected.append(error)
        finally:
            state.close()

    def reader() -> None:
        start.wait()
        try:
            while not over.is_set():
                entry = read_routing(home / "routing.json").products["shop"]
                seen.append((entry.epoch, dict(entry.weights)))
        except BaseException as error:  # noqa: BLE001 - told by the test
            unexpected.append(error)

    threads = [threading.Thread(target=controller, args=(n,)) for n in range(4)]
    watching = threading.Thread(target=reader)
    for thread in (*threads, watching):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    watching.join()
    assert unexpected == []

    # What readers saw: whole routings, epochs that never went back, one content an epoch.
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(seen))
    content: dict[int, dict[str, float]] = {}
    for epoch, found in seen:
        assert content.setdefault(epoch, found) == found
        assert abs(sum(found.values()) - 1) < 1e-9
    # The journal tells of every epoch that was seen, once.
    decided = [
        c.epoch for c in journal_of(shop, "shop") if c.kind in MOVES and c.kind != "rollback"
    ]
    assert len(decided) == len(set(decided))
    told = {c.epoch for c in journal_of(shop, "shop") if c.kind in MOVES}
    assert set(content) <= told
    reconcile(shop, FileRouter(home / "routing.json"), "shop")
    pointer = require_production(shop, "shop")
    assert pointer.settled
    assert weights(FileRouter(home / "routing.json")) == pointer.weights
