from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tasks.errors import (
    FencedError,
    FrozenError,
    RefusedError,
    RolloutError,
    StateError,
    TakenOverError,
)
from tasks.mix.freeze import acquire_for_run, active_freeze, freeze
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt, journal_of, keep_mix, require_production
from tasks.rollout.change import RolloutResult, free_epoch, promote, reconcile, roll_back
from tasks.rollout.decision import alone, split
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.file import FileRouter
from tasks.runs import begin_run, end_run
from tasks.state import State
from tasks.tables import mixes, production

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
Promote = Callable[..., RolloutResult]


@pytest.fixture
def put(shop: State, router: FileRouter) -> Promote:
    def call(mix: ResolvedMix, **more: object) -> RolloutResult:
        fields: dict[str, object] = {"actor": "ann", "reason": "better", "now": NOW}
        return promote(shop, router, "shop", mix, **(fields | more))  # type: ignore[arg-type]

    return call


@pytest.fixture
def back(shop: State, router: FileRouter) -> Promote:
    def call(digest: str | None = None, **more: object) -> RolloutResult:
        fields: dict[str, object] = {"actor": "on-call", "reason": "worse", "now": NOW}
        return roll_back(shop, router, "shop", digest, **(fields | more))  # type: ignore[arg-type]

    return call


def served(router: FileRouter) -> RouterState:
    found = router.read("shop")
    assert found is not None
    return found


def kinds(state: State) -> list[tuple[str, int]]:
    return [(line.kind, line.epoch) for line in journal_of(state, "shop")]


def test_a_promotion_is_decided_applied_read_back_and_recorded(
    shop: State, router: FileRouter, put: Promote, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    result = put(summer, expected_epoch=1, run_id="run-1")
    assert (result.kind, result.epoch, result.changed) == ("promote", 2, True)
    assert (result.from_digest, result.to_digest) == (winter.digest, summer.digest)
    assert result.mix_name == "summer"
    assert result.seconds >= 0
    pointer = require_production(shop, "shop")
    assert (pointer.mix_digest, pointer.epoch, pointer.settled) == (summer.digest, 2, True)
    assert served(router) == RouterState("shop", summer.digest, 2, {summer.digest: 1.0})
    last = journal_of(shop, "shop")[-2]
    assert (last.kind, last.actor, last.reason, last.run_id) == (
        "promote",
        "ann",
        "better",
        "run-1",
    )


def test_promoting_what_serves_already_changes_nothing(
    shop: State, router: FileRouter, put: Promote, summer: ResolvedMix
) -> None:
    put(summer, expected_epoch=1)
    before = kinds(shop)
    again = put(summer, expected_epoch=1)
    assert (again.epoch, again.changed) == (2, False)
    assert kinds(shop) == before


def test_a_second_controller_is_fenced_by_the_epoch(
    shop: State, router: FileRouter, put: Promote, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    put(summer, expected_epoch=1, reason="first come")
    with pytest.raises(FencedError, match=r"epoch 2.*decided for epoch 1.*first come"):
        put(autumn, expected_epoch=1)
    assert served(router).mix_digest == summer.digest
    assert kinds(shop)[-2:] == [("promote", 2), ("verified", 2)]


def test_of_two_promotions_at_once_exactly_one_wins(
    shop: State, home: Path, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    start = threading.Barrier(2)
    ends: list[str] = []

    def contend(mix: ResolvedMix) -> None:
        database = State(f"sqlite:///{home / 'state.db'}")
        start.wait()
        try:
            promote(
                database,
                FileRouter(home / "routing.json"),
                "shop",
                mix,
                expected_epoch=1,
                actor="race",
                reason="race",
                now=NOW,
            )
            ends.append(mix.digest)
        except FencedError:
            ends.append("fenced")
        finally:
            database.close()

    threads = [threading.Thread(target=contend, args=(mix,)) for mix in (summer, autumn)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [end for end in ends if end != "fenced"]
    assert len(ends) == 2
    assert len(winners) == 1
    assert require_production(shop, "shop").mix_digest == winners[0]
    assert served(FileRouter(home / "routing.json")).mix_digest == winners[0]


def test_a_freeze_stops_a_promotion_but_no_rollback(
    shop: State, router: FileRouter, put: Promote, back: Promote, summer: ResolvedMix
) -> None:
    put(summer)
    freeze(shop, "shop", owner="mia", reason="launch week", days=2, now=NOW)
    with pytest.raises(FrozenError, match=r"mia until 2026-09-16T12:00.*launch week.*thaw"):
        put(require_mix(shop, "winter"), expected_epoch=2)
    assert served(router).mix_digest == summer.digest
    assert back().epoch == 3
    assert active_freeze(shop, "shop", NOW) is not None


def require_mix(state: State, name: str) -> ResolvedMix:
    with state.begin() as connection:
        text = connection.execute(
            sa.select(mixes.c.manifest).where(mixes.c.name == name)
        ).scalar_one()
    return ResolvedMix.model_validate_json(text)


def test_a_run_passes_its_own_freeze_and_ends_it(
    shop: State, put: Promote, summer: ResolvedMix
) -> None:
    acquire_for_run(shop, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)
    with pytest.raises(FrozenError, match="imagegate run --resume run-1"):
        put(summer, expected_epoch=1, run_id="run-2")
    put(summer, expected_epoch=1, run_id="run-1")
    assert active_freeze(shop, "shop", NOW) is None


def test_a_persons_freeze_that_came_during_the_run_stops_its_promotion(
    shop: State, router: FileRouter, put: Promote, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    acquire_for_run(shop, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)
    freeze(shop, "shop", owner="mia", reason="incident", days=1, now=NOW)
    with pytest.raises(FrozenError, match="incident"):
        put(summer, expected_epoch=1, run_id="run-1")
    assert served(router).mix_digest == winter.digest


def test_a_rollback_keeps_the_freeze_of_its_run(
    shop: State, back: Promote, winter: ResolvedMix
) -> None:
    acquire_for_run(shop, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)
    back(winter.digest, run_id="run-1")
    assert active_freeze(shop, "shop", NOW) is not None
    assert active_freeze(shop, "shop", NOW + timedelta(days=15)) is None


def test_rolling_back_to_what_serves_is_verified_and_told_once_a_run(
    shop: State, router: FileRouter, back: Promote, winter: ResolvedMix
) -> None:
    result = back(winter.digest, run_id="run-1")
    assert (result.epoch, result.changed) == (1, False)
    back(winter.digest, run_id="run-1")
    assert kinds(shop) == [("adopt", 1), ("verified", 1), ("rollback", 1), ("verified", 1)]


def test_unnamed_rollbacks_go_further_back_and_end_at_the_first_mix(
    put: Promote,
    back: Promote,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    put(autumn)
    assert back().to_digest == summer.digest
    assert back().to_digest == winter.digest
    with pytest.raises(RefusedError, match=r"first mix .*--to DIGEST.*autumn \w{12}, summer"):
        back()


def test_an_unnamed_rollback_skips_what_was_rolled_back_before(
    put: Promote, back: Promote, winter: ResolvedMix, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    put(summer)
    back()
    put(autumn)
    assert back().to_digest == winter.digest


def test_a_run_does_not_undo_what_a_person_rolled_back_to(
    shop: State,
    router: FileRouter,
    put: Promote,
    back: Promote,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)  # the run's baseline
    keep_mix(shop, autumn)
    back(winter.digest, reason="summer burns")
    with pytest.raises(FencedError, match="summer burns"):
        back(summer.digest, expected_mixes=(summer.digest, autumn.digest), run_id="run-1")
    with pytest.raises(FencedError, match="summer burns"):
        put(autumn, expected_mixes=(summer.digest, autumn.digest), run_id="run-1")
    with pytest.raises(FencedError):
        back(summer.digest, expected_epoch=2, run_id="run-1")
    assert served(router).mix_digest == winter.digest


def test_a_rollback_from_a_served_candidate_is_expected(
    put: Promote, back: Promote, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    put(summer)
    back(winter.digest, expected_mixes=(winter.digest, summer.digest), run_id="run-1")
    assert served(router).mix_digest == winter.digest


@pytest.mark.parametrize("damage", [b"", b"not json", b'{"schema_version": 1, "products": 7}'])
def test_a_rollback_goes_through_a_damaged_routing_file(
    router: FileRouter,
    put: Promote,
    back: Promote,
    winter: ResolvedMix,
    summer: ResolvedMix,
    damage: bytes,
) -> None:
    put(summer)
    router.path.write_bytes(damage)
    with pytest.raises(RolloutError, match="damaged"):
        put(winter)
    back()
    assert served(router).mix_digest == winter.digest
    kept = list(router.path.parent.glob("routing.json.damaged-*"))
    assert [path.read_bytes() for path in kept] == [damage]


def test_a_lost_routing_file_is_written_anew(
    shop: State, router: FileRouter, put: Promote, summer: ResolvedMix
) -> None:
    put(summer)
    router.path.unlink()
    result = reconcile(shop, router, "shop", now=NOW)
    assert (result.kind, result.epoch, result.changed) == ("reconcile", 2, False)
    assert served(router).mix_digest == summer.digest


def test_a_database_restored_from_a_backup_gets_ahead_of_the_router_again(
    shop: State, router: FileRouter, put: Promote, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    put(summer)
    with shop.begin() as connection:
        connection.execute(
            sa.update(production).values(mix_digest=winter.digest, epoch=1, applied_epoch=1)
        )
    result = reconcile(shop, router, "shop", now=NOW)
    assert (result.to_digest, result.epoch) == (winter.digest, 3)
    assert served(router) == RouterState("shop", winter.digest, 3, {winter.digest: 1.0})
    assert kinds(shop)[-2:] == [("reconcile", 3), ("verified", 3)]


def test_weights_edited_by_hand_are_put_right_under_a_new_epoch(
    shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    split = Desired("shop", 9, (Share(winter, 0.75), Share(summer, 0.25)))
    router.apply(split)
    roll_back(shop, router, "shop", winter.digest, actor="a", reason="r", now=NOW)
    assert served(router) == RouterState("shop", winter.digest, 10, {winter.digest: 1.0})


def test_reconcile_of_what_is_well_changes_nothing(shop: State, router: FileRouter) -> None:
    before = router.path.read_bytes()
    result = reconcile(shop, router, "shop", now=NOW)
    assert result.epoch == 1
    assert router.path.read_bytes() == before
    assert kinds(shop) == [("adopt", 1), ("verified", 1)]


class Broken(FileRouter):
    """A router that cannot take a change."""

    def apply(self, desired: Desired) -> None:
        raise RolloutError("the gateway answers 503")


class Deaf(FileRouter):
    """A router that says yes and does nothing."""

    def apply(self, desired: Desired) -> None:
        """Do nothing."""


@pytest.mark.parametrize(("kind", "text"), [(Broken, "503"), (Deaf, "read back it shows")])
def test_what_the_router_did_not_do_is_no_success_and_is_finished_later(
    shop: State,
    router: FileRouter,
    winter: ResolvedMix,
    summer: ResolvedMix,
    kind: type[FileRouter],
    text: str,
) -> None:
    acquire_for_run(shop, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)
    with pytest.raises(RolloutError, match=text):
        promote(
            shop,
            kind(router.path),
            "shop",
            summer,
            actor="ci",
            reason="better",
            run_id="run-1",
            now=NOW,
        )
    assert not require_production(shop, "shop").settled
    assert served(router).mix_digest == winter.digest
    assert active_freeze(shop, "shop", NOW) is not None
    reconcile(shop, router, "shop", now=NOW)
    assert require_production(shop, "shop").settled
    assert served(router).mix_digest == summer.digest
    assert active_freeze(shop, "shop", NOW) is None


def test_an_unwritable_router_stops_a_promotion_before_the_decision(
    shop: State, home: Path, summer: ResolvedMix, winter: ResolvedMix
) -> None:
    blocked = home / "a-file"
    blocked.write_text("")
    with pytest.raises(RolloutError, match="cannot be locked"):
        promote(
            shop,
            FileRouter(blocked / "routing.json"),
            "shop",
            summer,
            actor="ann",
            reason="better",
            now=NOW,
        )
    assert require_production(shop, "shop").mix_digest == winter.digest


class Overtaken(FileRouter):
    """A router whose reader sees that somebody else was faster."""

    def read(self, product: str) -> RouterState | None:
        found = super().read(product)
        if found is None or found.epoch < 2:
            return found
        return RouterState(product, found.mix_digest, found.epoch + 5, found.weights)


def test_a_change_overtaken_at_the_router_is_fenced(
    shop: State, router: FileRouter, summer: ResolvedMix
) -> None:
    with pytest.raises(FencedError, match="epoch 7"):
        promote(shop, Overtaken(router.path), "shop", summer, actor="a", reason="r", now=NOW)


class Intruder(FileRouter):
    """Somebody else moves production between the applying and the recording."""

    def __init__(self, path: Path, state: State) -> None:
        super().__init__(path)
        self.state = state

    def apply(self, desired: Desired) -> None:
        super().apply(desired)
        with self.state.begin() as connection:
            connection.execute(sa.update(production).values(epoch=8))


def test_a_change_overtaken_before_the_record_is_fenced(
    shop: State, router: FileRouter, summer: ResolvedMix
) -> None:
    with pytest.raises(FencedError, match="epoch 8"):
        promote(shop, Intruder(router.path, shop), "shop", summer, actor="a", reason="r", now=NOW)
    assert not require_production(shop, "shop").settled


def test_what_is_not_there_is_refused_with_what_is(
    state: State, router: FileRouter, winter: ResolvedMix, make_mix: Callable[..., ResolvedMix]
) -> None:
    with pytest.raises(RefusedError, match="'shop' has no production mix"):
        reconcile(state, router, "shop", now=NOW)
    adopt(state, winter, "test", "first")
    with pytest.raises(RefusedError, match=r"sha256:0.*winter sha256:"):
        roll_back(state, router, "shop", "sha256:0", actor="a", reason="r", now=NOW)
    foreign = make_mix("foreign", "folio-9", product="other")
    with pytest.raises(RefusedError, match="cannot serve 'shop'"):
        promote(state, router, "shop", foreign, actor="a", reason="r", now=NOW)
    keep_mix(state, foreign)
    with pytest.raises(RefusedError, match="cannot serve 'shop'"):
        roll_back(state, router, "shop", foreign.digest, actor="a", reason="r", now=NOW)


def test_an_altered_manifest_is_never_served(
    shop: State, router: FileRouter, back: Promote, put: Promote, summer: ResolvedMix
) -> None:
    put(summer)
    with shop.begin() as connection:
        connection.execute(
            sa.update(mixes)
            .where(mixes.c.name == "winter")
            .values(manifest=summer.model_dump_json())
        )
    with pytest.raises(StateError, match="was altered"):
        back()
    assert served(router).mix_digest == summer.digest


def test_free_epoch_never_gives_one_epoch_two_contents(
    winter: ResolvedMix, summer: ResolvedMix
) -> None:
    whole = {winter.digest: 1.0}
    cold, warm = (Desired("shop", 4, alone(mix)) for mix in (winter, summer))
    assert free_epoch(cold, None) == 4
    assert free_epoch(cold, RouterState("shop", winter.digest, 3, whole)) == 4
    assert free_epoch(cold, RouterState("shop", winter.digest, 4, whole)) == 4
    assert free_epoch(warm, RouterState("shop", winter.digest, 4, whole)) == 5
    assert free_epoch(cold, RouterState("shop", winter.digest, 9, whole)) == 10
    half = {winter.digest: 0.5, summer.digest: 0.5}
    assert free_epoch(cold, RouterState("shop", winter.digest, 4, half)) == 5
    mixed = Desired("shop", 4, split(winter, summer, 0.5))
    assert free_epoch(mixed, RouterState("shop", winter.digest, 4, half)) == 4
    assert free_epoch(mixed, RouterState("shop", winter.digest, 4, whole)) == 5


# --- a run that comes again -------------------------------------------------------------------


def test_a_run_that_comes_again_does_not_undo_a_persons_rollback(
    shop: State,
    router: FileRouter,
    put: Promote,
    back: Promote,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    """Killed after its promotion, rolled back by on-call, resumed: the rollback stands."""
    begin_run(shop, "run-1", "shop", summer.digest, winter.digest, driver="one")
    both = (winter.digest, summer.digest)
    put(summer, expected_mixes=both, run_id="run-1", driver="one")
    back()
    begin_run(shop, "run-1", "shop", summer.digest, winter.digest, driver="two")
    with pytest.raises(FencedError, match="rolled back by on-call"):
        put(summer, expected_mixes=both, run_id="run-1", driver="two")
    assert served(router).weights == {winter.digest: 1.0}
    begin_run(shop, "run-2", "shop", summer.digest, winter.digest, driver="three")
    put(summer, expected_mixes=both, run_id="run-2", driver="three")
    assert served(router).weights == {summer.digest: 1.0}, "a new run judges anew"


def test_a_process_that_lost_its_run_promotes_nothing(
    shop: State, router: FileRouter, put: Promote, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    begin_run(shop, "run-1", "shop", summer.digest, winter.digest, driver="one")
    begin_run(shop, "run-1", "shop", summer.digest, winter.digest, driver="two")
    with pytest.raises(TakenOverError, match="driven by another process"):
        put(summer, run_id="run-1", driver="one")
    end_run(shop, "run-1", "stopped")
    with pytest.raises(TakenOverError):
        put(summer, run_id="run-1", driver="two")
    assert served(router).weights == {winter.digest: 1.0}
