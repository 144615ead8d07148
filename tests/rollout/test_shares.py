"""A canary's share of the traffic: set, changed, ended, finished after a crash."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tasks.errors import FencedError, FrozenError, RefusedError, RolloutError, TakenOverError
from tasks.mix.freeze import acquire_for_run, active_freeze, freeze
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import (
    journal_of,
    previous_digest,
    require_production,
    serving_order,
)
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.decision import RolloutResult
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tasks.tables import canaries

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
Change = Callable[..., RolloutResult]


@pytest.fixture
def share(shop: State, router: FileRouter) -> Change:
    def call(mix: ResolvedMix, weight: float, **more: object) -> RolloutResult:
        fields: dict[str, object] = {"actor": "canary", "reason": "next step", "now": NOW}
        return set_share(shop, router, "shop", mix, weight, **(fields | more))  # type: ignore[arg-type]

    return call


@pytest.fixture
def put(shop: State, router: FileRouter) -> Change:
    def call(mix: ResolvedMix, **more: object) -> RolloutResult:
        fields: dict[str, object] = {"actor": "ann", "reason": "better", "now": NOW}
        return promote(shop, router, "shop", mix, **(fields | more))  # type: ignore[arg-type]

    return call


@pytest.fixture
def back(shop: State, router: FileRouter) -> Change:
    def call(digest: str | None = None, **more: object) -> RolloutResult:
        fields: dict[str, object] = {"actor": "on-call", "reason": "worse", "now": NOW}
        return roll_back(shop, router, "shop", digest, **(fields | more))  # type: ignore[arg-type]

    return call


def served(router: FileRouter) -> RouterState:
    found = router.read("shop")
    assert found is not None
    return found


def lines(state: State) -> list[tuple[str, int, float | None]]:
    return [(line.kind, line.epoch, line.weight) for line in journal_of(state, "shop")]


def begin_canary(state: State, mix: ResolvedMix, name: str = "canary-1", **more: object) -> None:
    values: dict[str, object] = {
        "canary_id": name,
        "product": "shop",
        "candidate_digest": mix.digest,
        "baseline_digest": require_production(state, "shop").mix_digest,
        "status": "running",
        "step": 0,
        "plan": "{}",
        "progress": "{}",
        "actor": "ann",
        "started_at": "2026-09-14T12:00:00.000Z",
        "driver": "one",
    }
    with state.begin() as connection:
        connection.execute(sa.insert(canaries).values(values | more))


def test_a_canary_walks_up_and_becomes_production(
    shop: State,
    router: FileRouter,
    share: Change,
    put: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    begin_canary(shop, summer)
    for epoch, weight in enumerate((0.01, 0.05, 0.25, 0.5), start=2):
        done = share(summer, weight, canary_id="canary-1", driver="one", expected_epoch=epoch - 1)
        assert (done.kind, done.epoch, done.changed, done.weight) == ("canary", epoch, True, weight)
        assert (done.from_digest, done.to_digest) == (winter.digest, summer.digest)
        assert (done.mix_name, done.canary_id) == ("summer", "canary-1")
        shown = served(router)
        assert (shown.mix_digest, shown.epoch) == (winter.digest, epoch)
        assert shown.weights == {winter.digest: 1.0 - weight, summer.digest: weight}
        pointer = require_production(shop, "shop")
        assert (pointer.mix_digest, pointer.settled) == (winter.digest, True)
        assert (pointer.candidate_digest, pointer.candidate_weight) == (summer.digest, weight)
        assert pointer.weights == shown.weights
    done = put(summer, canary_id="canary-1", driver="one", expected_epoch=5)
    assert (done.epoch, done.weight, done.from_digest) == (6, None, winter.digest)
    assert served(router).weights == {summer.digest: 1.0}
    pointer = require_production(shop, "shop")
    assert (pointer.candidate_digest, pointer.candidate_weight) == (None, None)
    assert lines(shop)[2:] == [
        *(
            line
            for n, weight in enumerate((0.01, 0.05, 0.25, 0.5), start=2)
            for line in (("canary", n, weight), ("verified", n, weight))
        ),
        ("promote", 6, None),
        ("verified", 6, None),
    ]
    assert {line.canary_id for line in journal_of(shop, "shop")[2:]} == {"canary-1"}
    assert previous_digest(shop, "shop") == winter.digest


def test_the_same_share_again_changes_nothing_and_verifies(
    shop: State, share: Change, summer: ResolvedMix, router: FileRouter
) -> None:
    share(summer, 0.05, expected_epoch=1)
    before = lines(shop)
    again = share(summer, 0.05, expected_epoch=1)
    assert (again.changed, again.epoch) == (False, 2)
    assert lines(shop) == before
    router.path.unlink()
    share(summer, 0.05)
    assert served(router).weights[summer.digest] == 0.05


def test_a_canary_never_becomes_part_of_the_line_of_production(
    shop: State, share: Change, back: Change, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    share(summer, 0.25)
    assert serving_order(journal_of(shop, "shop")) == (winter.digest,)
    back()
    assert serving_order(journal_of(shop, "shop")) == (winter.digest,)


def test_a_rollback_without_a_name_ends_the_canary_and_goes_no_further(
    shop: State,
    router: FileRouter,
    put: Change,
    share: Change,
    back: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    begin_canary(shop, autumn)
    share(autumn, 0.05, canary_id="canary-1", driver="one")
    done = back()
    assert (done.to_digest, done.from_digest) == (summer.digest, autumn.digest)
    assert (done.changed, done.weight) == (True, None)
    assert served(router).weights == {summer.digest: 1.0}
    last = journal_of(shop, "shop")[-2:]
    assert [(c.kind, c.weight, c.canary_id) for c in last] == [
        ("rollback", None, "canary-1"),
        ("verified", None, "canary-1"),
    ]
    assert last[0].from_digest == autumn.digest, "the journal says what was taken away"
    assert back().to_digest == winter.digest, "without a canary it goes one further"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0, 1, -0.1, 1.5, float("nan"), float("inf"), "half", True])
def test_a_share_that_is_none_is_refused(
    shop: State, share: Change, summer: ResolvedMix, weight: float
) -> None:
    with pytest.raises(RefusedError, match="above 0 and below 1"):
        share(summer, weight)
    assert lines(shop) == [("adopt", 1, None), ("verified", 1, None)]


def test_a_mix_that_serves_or_is_of_another_product_gets_no_share(
    share: Change, winter: ResolvedMix, make_mix: Callable[..., ResolvedMix]
) -> None:
    with pytest.raises(RefusedError, match=r"is the production of 'shop'"):
        share(winter, 0.5)
    with pytest.raises(RefusedError, match="cannot serve 'shop'"):
        share(make_mix("foreign", "folio-9", product="other"), 0.5)


def test_only_one_candidate_at_a_time_has_a_share(
    shop: State,
    router: FileRouter,
    share: Change,
    put: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
    winter: ResolvedMix,
) -> None:
    begin_canary(shop, summer)
    begin_canary(shop, summer, "canary-2")
    share(summer, 0.05, canary_id="canary-1", driver="one")
    with pytest.raises(RefusedError, match=r"canary of 'summer' \(canary-1\) has 5 %.*abort"):
        share(autumn, 0.05)
    with pytest.raises(RefusedError, match="canary-1"):
        share(summer, 0.25, canary_id="canary-2", driver="one")
    with pytest.raises(RefusedError, match=r"canary of 'summer'"):
        put(autumn)
    assert served(router).weights == {winter.digest: 0.95, summer.digest: 0.05}


def test_a_canary_that_ended_or_was_never_there_changes_nothing(
    shop: State, share: Change, put: Change, summer: ResolvedMix
) -> None:
    with pytest.raises(RefusedError, match=r"no canary 'canary-1' \(known: none\)"):
        share(summer, 0.05, canary_id="canary-1")
    begin_canary(shop, summer, status="aborted")
    with pytest.raises(RefusedError, match=r"canary canary-1 has ended \(aborted\)"):
        share(summer, 0.05, canary_id="canary-1", driver="one")
    with pytest.raises(RefusedError, match=r"has ended \(aborted\)"):
        put(summer, canary_id="canary-1", driver="one")


def test_a_process_that_lost_the_canary_changes_nothing(
    shop: State, router: FileRouter, share: Change, put: Change, summer: ResolvedMix
) -> None:
    begin_canary(shop, summer)
    share(summer, 0.05, canary_id="canary-1", driver="one")
    with shop.begin() as connection:
        connection.execute(sa.update(canaries).values(driver="two"))
    with pytest.raises(TakenOverError, match="canary-1 is driven by another process"):
        share(summer, 0.25, canary_id="canary-1", driver="one")
    with pytest.raises(TakenOverError):
        put(summer, canary_id="canary-1", driver="one")
    assert served(router).weights[summer.digest] == 0.05
    share(summer, 0.25, canary_id="canary-1", driver="two")


def test_a_step_that_was_decided_about_something_else_is_fenced(
    shop: State, router: FileRouter, share: Change, summer: ResolvedMix
) -> None:
    share(summer, 0.05, expected_epoch=1)
    with pytest.raises(FencedError, match=r"epoch 2.*decided for epoch 1"):
        share(summer, 0.25, expected_epoch=1)
    assert served(router).weights[summer.digest] == 0.05


def test_a_canary_does_not_take_back_what_a_person_took_away(
    shop: State,
    router: FileRouter,
    share: Change,
    put: Change,
    back: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    """Without an expected epoch, and whatever the clocks say."""
    begin_canary(shop, summer)
    share(summer, 0.05, canary_id="canary-1", driver="one")
    back(reason="garbled text")
    with pytest.raises(FencedError, match=r"ended by rollback of on-call.*garbled text"):
        share(summer, 0.25, canary_id="canary-1", driver="one")
    with pytest.raises(FencedError, match="garbled text"):
        put(summer, canary_id="canary-1", driver="one")
    assert served(router).weights == {winter.digest: 1.0}
    begin_canary(shop, summer, "canary-2")
    share(summer, 0.05, canary_id="canary-2", driver="one")


def test_a_rollback_decided_for_one_canary_leaves_the_next_one_alone(
    shop: State, share: Change, back: Change, summer: ResolvedMix, winter: ResolvedMix
) -> None:
    for name in ("canary-1", "canary-2"):
        begin_canary(shop, summer, name)
    share(summer, 0.05, canary_id="canary-1", driver="one")
    back(winter.digest)
    share(summer, 0.05, canary_id="canary-2", driver="one")
    with pytest.raises(FencedError, match="in canary canary-2 by now"):
        back(winter.digest, canary_id="canary-1")
    assert back(winter.digest, canary_id="canary-2").changed


# --- freezes ------------------------------------------------------------------------------------


def test_a_freeze_stops_the_next_step_but_not_a_smaller_share(
    shop: State, router: FileRouter, share: Change, summer: ResolvedMix
) -> None:
    share(summer, 0.25)
    freeze(shop, "shop", owner="mia", reason="launch week", days=2, now=NOW)
    with pytest.raises(FrozenError, match="launch week"):
        share(summer, 0.5)
    share(summer, 0.25)
    assert share(summer, 0.05).changed
    assert served(router).weights[summer.digest] == 0.05


def test_a_canary_passes_the_freeze_of_its_gate_run_and_lifts_it_at_the_end(
    shop: State, share: Change, put: Change, summer: ResolvedMix
) -> None:
    acquire_for_run(shop, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)
    with pytest.raises(FrozenError):
        share(summer, 0.05)
    begin_canary(shop, summer, run_id="run-1")
    share(summer, 0.05, canary_id="canary-1", driver="one")
    assert active_freeze(shop, "shop", NOW) is not None
    put(summer, canary_id="canary-1", driver="one")
    assert active_freeze(shop, "shop", NOW) is None
    assert journal_of(shop, "shop")[-1].run_id == "run-1"


# --- finishing, mending -------------------------------------------------------------------------


class Broken(FileRouter):
    def apply(self, desired: Desired) -> None:
        raise RolloutError("the gateway answers 503")


def test_a_share_that_the_router_did_not_take_is_finished_by_reconcile(
    shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    with pytest.raises(RolloutError, match="503"):
        set_share(shop, Broken(router.path), "shop", summer, 0.25, actor="a", reason="r", now=NOW)
    assert not require_production(shop, "shop").settled
    done = reconcile(shop, router, "shop", now=NOW)
    assert (done.kind, done.epoch, done.weight) == ("reconcile", 2, 0.25)
    assert done.to_digest == winter.digest
    assert served(router).weights == {winter.digest: 0.75, summer.digest: 0.25}
    assert lines(shop)[2:] == [("canary", 2, 0.25), ("verified", 2, 0.25)]


def test_shares_edited_by_hand_are_put_right_under_a_new_epoch(
    shop: State, router: FileRouter, share: Change, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    share(summer, 0.05)
    text = router.path.read_text().replace("0.05", "0.55").replace("0.95", "0.45")
    router.path.write_text(text)
    assert served(router).weights[summer.digest] == 0.55
    done = reconcile(shop, router, "shop", now=NOW)
    assert (done.epoch, done.changed) == (3, False)
    assert served(router).weights == {winter.digest: 0.95, summer.digest: 0.05}
    assert [line.kind for line in journal_of(shop, "shop")[-2:]] == ["reconcile", "verified"]


def test_a_gate_that_comes_again_does_not_end_the_canary_of_the_next_mix(
    shop: State,
    router: FileRouter,
    put: Change,
    share: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer, run_id="run-1")
    share(autumn, 0.05)
    again = put(summer, run_id="run-1")
    assert (again.changed, again.weight) == (False, 0.05)
    assert served(router).weights == {summer.digest: 0.95, autumn.digest: 0.05}


def test_a_rollback_to_another_mix_ends_the_canary_too(
    shop: State,
    router: FileRouter,
    put: Change,
    share: Change,
    back: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    share(autumn, 0.25)
    done = back(winter.digest)
    assert (done.from_digest, done.to_digest) == (summer.digest, winter.digest)
    assert served(router).weights == {winter.digest: 1.0}
    assert require_production(shop, "shop").candidate_digest is None


def test_a_killed_rollback_of_a_canary_is_finished_and_goes_no_further(
    shop: State,
    router: FileRouter,
    put: Change,
    share: Change,
    back: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    share(autumn, 0.25)
    with pytest.raises(RolloutError):
        roll_back(shop, Broken(router.path), "shop", None, actor="a", reason="r", now=NOW)
    assert served(router).weights[autumn.digest] == 0.25
    assert back().to_digest == summer.digest
    assert served(router).weights == {summer.digest: 1.0}


def test_a_rollback_without_a_name_is_not_repeated_at_once(
    shop: State,
    put: Change,
    back: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    put(autumn)
    now, within = datetime.now(UTC), timedelta(minutes=10)
    assert back(once_in=within, now=now).to_digest == summer.digest
    again = back(once_in=within, now=now)
    assert (again.to_digest, again.changed) == (summer.digest, False)
    assert back(once_in=within, now=now + timedelta(hours=1)).to_digest == winter.digest


def test_a_gates_confirmation_of_its_baseline_does_not_stand_for_a_rollback(
    shop: State, put: Change, back: Change, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    put(summer)
    back(summer.digest, run_id="run-1")
    now = datetime.now(UTC)
    assert back(once_in=timedelta(minutes=10), now=now).to_digest == winter.digest
