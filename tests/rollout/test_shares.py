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
    keep_mix,
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
