"""What an approval may still change after people changed production while the run waited."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tasks.approval import store
from tasks.errors import FencedError, FrozenError, RefusedError
from tasks.mix.freeze import Freeze, acquire_for_run, active_freezes, freeze
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import require_production
from tasks.rollout.change import RolloutResult, promote, roll_back
from tasks.rollout.routers.file import FileRouter
from tasks.runs import begin_run, requester_of, run_of_flow
from tasks.state import State
from tests.approval.conftest import NOW, RUN, Ask
from tests.fakes import mixes

SHOP = mixes.PRODUCT
HOUR = timedelta(hours=1)
OTHER = "20261125-150000-autumn-0002"


def put(state: State, router: FileRouter, mix: ResolvedMix, run_id: str = RUN) -> RolloutResult:
    return promote(
        state, router, SHOP, mix, actor=f"run {run_id}", reason="better", run_id=run_id, now=NOW
    )


def approve(state: State) -> None:
    store.decide(
        state, RUN, decision="approved", by="grace", reason="ok", via="command", now=NOW + HOUR
    )


def freeze_for(state: State, run_id: str, hours: float = 2) -> Freeze:
    return acquire_for_run(
        state,
        SHOP,
        run_id=run_id,
        owner="kim",
        reason="judges",
        days=14,
        now=NOW + timedelta(hours=hours),
    )


def test_an_approved_run_promotes(
    shop: State, ask: Ask, router: FileRouter, summer: ResolvedMix
) -> None:
    ask()
    approve(shop)
    assert put(shop, router, summer).changed
    # A run that was killed here comes again.
    assert not put(shop, router, summer).changed


@pytest.mark.parametrize("answer", ["pending", "rejected", "expired"])
def test_nothing_but_an_approval_lets_a_run_promote_that_asked(
    shop: State, ask: Ask, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix, answer: str
) -> None:
    ask()
    if answer == "rejected":
        store.decide(shop, RUN, decision="rejected", by="grace", reason="no", via="x", now=NOW)
    if answer == "expired":
        store.expire_due(shop, NOW + 24 * HOUR)
    with pytest.raises(FencedError, match=f"is {answer}, not approved"):
        put(shop, router, summer)
    assert require_production(shop, SHOP).mix_digest == winter.digest


def test_a_run_that_asked_nobody_needs_nobody(
    shop: State, router: FileRouter, summer: ResolvedMix
) -> None:
    assert put(shop, router, summer, OTHER).changed


def test_a_rollback_waits_for_nobody_and_voids_what_waits(
    shop: State, ask: Ask, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    ask()
    done = roll_back(shop, router, SHOP, winter.digest, actor="kim", reason="garbled", now=NOW)
    # Production was on the baseline all the time: nothing moved, and still somebody said no.
    assert not done.changed
    with pytest.raises(RefusedError, match="production was rolled back by kim: garbled"):
        approve(shop)
    with pytest.raises(FencedError, match="expired"):
        put(shop, router, summer)


def test_a_rollback_after_the_approval_takes_its_ground_away(
    shop: State, ask: Ask, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    ask()
    approve(shop)
    roll_back(shop, router, SHOP, winter.digest, actor="kim", reason="garbled", now=NOW)
    with pytest.raises(FencedError, match=r"rolled back by kim .*garbled.* no longer counts"):
        put(shop, router, summer)
    assert require_production(shop, SHOP).mix_digest == winter.digest


def test_a_rollback_before_the_question_is_no_objection(
    shop: State, ask: Ask, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    roll_back(shop, router, SHOP, winter.digest, actor="kim", reason="a drill", now=NOW)
    ask()
    approve(shop)
    assert put(shop, router, summer).changed


def test_another_products_rollback_is_no_objection(
    shop: State, ask: Ask, router: FileRouter, winter: ResolvedMix
) -> None:
    ask(product="another shop")
    roll_back(shop, router, SHOP, winter.digest, actor="kim", reason="garbled", now=NOW)
    assert [found.status for found in store.pending(shop)] == ["pending"]


def test_production_stays_locked_while_the_run_waits(shop: State, ask: Ask) -> None:
    freeze_for(shop, RUN, hours=0)
    ask(hours=24)
    begin_run(shop, OTHER, SHOP, "sha256:a", "sha256:b")
    with pytest.raises(FrozenError, match=RUN):
        freeze_for(shop, OTHER)
    approve(shop)
    with pytest.raises(FrozenError, match=RUN):
        freeze_for(shop, OTHER, hours=48)


@pytest.mark.parametrize("why", ["overdue", "rejected", "rolled back"])
def test_a_run_that_can_promote_no_more_locks_nothing(
    shop: State, ask: Ask, router: FileRouter, winter: ResolvedMix, why: str
) -> None:
    freeze_for(shop, RUN, hours=0)
    ask(hours=24)
    hours = 2.0
    if why == "overdue":
        hours = 24.0
    elif why == "rejected":
        store.decide(shop, RUN, decision="rejected", by="grace", reason="no", via="x", now=NOW)
    else:
        roll_back(shop, router, SHOP, winter.digest, actor="kim", reason="garbled", now=NOW)
    begin_run(shop, OTHER, SHOP, "sha256:a", "sha256:b")
    assert freeze_for(shop, OTHER, hours=hours).run_id == OTHER


def test_a_run_that_asked_comes_to_its_end_beside_a_persons_freeze(
    shop: State, ask: Ask, router: FileRouter, summer: ResolvedMix
) -> None:
    own = freeze_for(shop, RUN, hours=0)
    ask()
    freeze(shop, SHOP, owner="kim", reason="holiday", days=3, now=NOW)
    assert freeze_for(shop, RUN).id == own.id
    approve(shop)
    with pytest.raises(FrozenError, match="holiday"):
        put(shop, router, summer)


def test_a_run_that_lost_its_lock_does_not_lock_out_the_next(shop: State, ask: Ask) -> None:
    freeze_for(shop, RUN, hours=0)
    ask(hours=1)
    begin_run(shop, OTHER, SHOP, "sha256:a", "sha256:b")
    taken = freeze_for(shop, OTHER, hours=2)
    begin_run(shop, RUN, SHOP, "sha256:c", "sha256:b")
    assert freeze_for(shop, RUN, hours=3).id == taken.id
    held = active_freezes(shop, SHOP, NOW + 4 * HOUR)
    assert [found.run_id for found in held] == [OTHER]


def test_a_suspended_flow_run_finds_its_run_though_another_drove_it_since(
    shop: State, ask: Ask
) -> None:
    ask()
    store.suspended_in(shop, RUN, "flow-1")
    begin_run(shop, RUN, SHOP, "sha256:c", "sha256:b", flow_run_id="flow-2")
    assert run_of_flow(shop, "flow-1") == RUN
    assert run_of_flow(shop, "flow-2") == RUN
    assert run_of_flow(shop, "flow-3") is None
    assert requester_of(shop, RUN) == "Ada@laptop"
    assert requester_of(shop, "none") is None
