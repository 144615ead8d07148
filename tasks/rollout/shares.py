"""A canary's share: give a candidate a part of the traffic, change it, verify it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from tasks.approval.store import assert_stands
from tasks.errors import RefusedError
from tasks.mix.freeze import assert_may_change
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import keep_mix, kept_mix, read_production
from tasks.rollout.decision import RolloutResult, check_product, check_weight, split
from tasks.rollout.faults import fault
from tasks.rollout.guards import (
    assert_walks,
    expect,
    no_other_canary,
    not_ended,
    not_rolled_back_since,
    run_of_canary,
)
from tasks.rollout.routers.base import Router
from tasks.rollout.steps import Tell, Why, carry_out, decide, wanted_now
from tasks.state import State


def set_share(
    state: State,
    router: Router,
    product: str,
    candidate: ResolvedMix,
    weight: float,
    *,
    actor: str,
    reason: str,
    expected_epoch: int | None = None,
    canary_id: str | None = None,
    driver: str | None = None,
    run_id: str | None = None,
    now: datetime | None = None,
    trigger: float | None = None,
    tell: Tell | None = None,
) -> RolloutResult:
    """Give a candidate a share of the traffic of a product, beside its production mix.

    The same share again changes nothing and verifies the router, so a canary that was killed here
    can simply come again. A smaller share is as free as a rollback: no freeze stands in its way.

    Args:
        state: The database.
        router: Where the change takes effect.
        product: Name of the product.
        candidate: The mix that gets the share.
        weight: Its share of the traffic, above 0 and below 1.
        actor: Who does it.
        reason: Why.
        expected_epoch: Epoch of production that the decision was made about.
        canary_id: The canary; it must be under way, and the freeze of its gate run is its own.
        driver: Token of the process that drives the canary; one that lost it changes nothing.
        run_id: The gate run that allowed it, when no canary names it.
        now: The present moment, for the freeze; the system's clock by default.
        trigger: ``time.monotonic()`` of the decision; the start of this call by default.
        tell: Puts the message to people into the transaction that records the change as verified.

    Raises:
        RefusedError: The share is out of range, the product has no production mix, the candidate
            serves everything already or is another product's, another candidate has a share, or
            the canary has ended.
        FrozenError: Somebody else's freeze is in force.
        FencedError: Production is not what the decision was made about, somebody took the
            canary's share away, or the run asked for a person's approval and has none that stands.
        TakenOverError: Another process drives the canary by now.
        RolloutError: The router did not take the change; :func:`tasks.rollout.change.reconcile`
            tries again.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    check_weight(weight)
    check_product(candidate, product)
    router.probe()
    fault("router probed")
    before = read_production(state, product)
    shown = router.read(product)
    fault("router read")
    with state.begin() as connection:
        fault("decision begun")
        current, _ = wanted_now(connection, product, shown, state.last_good)
        if canary_id is not None:
            assert_walks(connection, canary_id, driver)
            run_id = run_of_canary(connection, canary_id) or run_id
        if current.mix_digest == candidate.digest:
            raise RefusedError(
                f"mix {candidate.mix.name!r} ({candidate.digest}) is the production of "
                f"{product!r}; it has all of the traffic, a canary of it has nothing to show"
            )
        no_other_canary(connection, current, candidate.digest, canary_id)
        not_ended(connection, product, canary_id)
        wanted = current.weights.get(candidate.digest, 0.0)
        if weight != wanted:
            expect(connection, current, expected_epoch)
        if weight > wanted:
            if run_id is not None and not assert_stands(connection, run_id, product):
                not_rolled_back_since(connection, run_id, product)
            assert_may_change(connection, product, now=now, run_id=run_id)
        keep_mix(connection, candidate)
        fault("mix kept")
        shares = split(kept_mix(connection, current.mix_digest), candidate, float(weight))
        why = Why(actor, reason, run_id, canary_id)
        decision = decide(connection, "canary", current, shares, before, shown, why)
    return carry_out(state, router, decision, now, started, tell)
