"""Changing production: persist the decision, apply it, read the router back, record.

Killed at any instruction, production is on exactly one routing, the one in the state database, and
the next call for the product (or :func:`reconcile`) finishes what was left. The steps themselves
are in :mod:`tasks.rollout.steps`; a canary's share is set by :mod:`tasks.rollout.shares`.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from tasks.approval.store import assert_stands, withdraw
from tasks.errors import FencedError
from tasks.mix.freeze import assert_may_change
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import keep_mix, kept_mix, read_production
from tasks.rollout.decision import RolloutResult, alone, check_product, free_epoch
from tasks.rollout.faults import fault
from tasks.rollout.guards import (
    assert_walks,
    canary_on,
    expect,
    no_other_canary,
    not_ended,
    not_rolled_back_since,
    rollback_target,
    run_of_canary,
)
from tasks.rollout.readback import shown_by
from tasks.rollout.routers.base import Router
from tasks.rollout.shares import set_share
from tasks.rollout.steps import Tell, Why, carry_out, decide, shares_of, wanted_now
from tasks.runs import assert_drives
from tasks.state import State

__all__ = ["RolloutResult", "free_epoch", "promote", "reconcile", "roll_back", "set_share"]


def promote(
    state: State,
    router: Router,
    product: str,
    mix: ResolvedMix,
    *,
    actor: str,
    reason: str,
    expected_epoch: int | None = None,
    expected_mixes: Collection[str] = (),
    run_id: str | None = None,
    driver: str | None = None,
    canary_id: str | None = None,
    now: datetime | None = None,
    trigger: float | None = None,
    tell: Tell | None = None,
) -> RolloutResult:
    """Make a mix the production of a product; the freeze of the run ends with it.

    A canary of the mix ends with it, too: the mix serves everything.

    Promoting what is production already changes nothing and verifies the router, so a run that
    was killed here can simply come again.

    Args:
        state: The database.
        router: Where the change takes effect.
        product: Name of the product.
        mix: The mix to serve.
        actor: Who does it.
        reason: Why.
        expected_epoch: Epoch of production that the decision was made about. Read when the run
            begins, not when it ends: it tells whether somebody moved production in between.
        expected_mixes: Digests that production may be on for the decision to hold.
        run_id: The run; its own freeze lets it pass.
        driver: Token of the process that drives the canary, or the run when there is none; one that
            lost it changes nothing.
        canary_id: The canary that ends by this; it must be under way, and the freeze of its gate
            run is its own.
        now: The present moment, for the freeze; the system's clock by default.
        trigger: ``time.monotonic()`` of the decision; the start of this call by default.
        tell: Puts the message to people into the transaction that records the change as verified.

    Raises:
        RefusedError: The product has no production mix, the mix is of another product, or another
            candidate has a share of the traffic, or the canary has ended.
        FrozenError: Somebody else's freeze is in force.
        FencedError: Production is not what the decision was made about, somebody rolled it back
            since the run began, or the run asked for a person's approval and has none that stands.
        TakenOverError: Another process drives the run or the canary by now.
        RolloutError: The router did not take the change; :func:`reconcile` tries again.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    check_product(mix, product)
    router.probe()
    fault("router probed")
    before = read_production(state, product)
    shown = router.read(product)
    fault("router read")
    with state.begin() as connection:
        fault("decision begun")
        current, _ = wanted_now(connection, product, shown, state.last_good)
        changed = current.mix_digest != mix.digest
        if canary_id is not None:
            # Its freeze is that of its gate run, which ended long ago.
            run_id = run_of_canary(connection, canary_id) or run_id
            if changed:
                assert_walks(connection, canary_id, driver)
        elif run_id is not None and driver is not None:
            assert_drives(connection, run_id, driver)
        if changed:
            expect(connection, current, expected_epoch, expected_mixes)
            no_other_canary(connection, current, mix.digest, canary_id)
            not_ended(connection, product, canary_id)
            if run_id is not None and not assert_stands(connection, run_id, product):
                not_rolled_back_since(connection, run_id, product)
            assert_may_change(connection, product, now=now, run_id=run_id)
            keep_mix(connection, mix)
            fault("mix kept")
        # What serves already stays as it is, with the share of a later canary if one is on.
        shares = alone(mix) if changed else shares_of(connection, current)
        why = Why(actor, reason, run_id, canary_id)
        decision = decide(connection, "promote", current, shares, before, shown, why)
    return carry_out(state, router, decision, now, started, tell)


def roll_back(
    state: State,
    router: Router,
    product: str,
    to_digest: str | None,
    *,
    actor: str,
    reason: str,
    expected_epoch: int | None = None,
    expected_mixes: Collection[str] = (),
    run_id: str | None = None,
    canary_id: str | None = None,
    once_in: timedelta | None = None,
    now: datetime | None = None,
    trigger: float | None = None,
    tell: Tell | None = None,
) -> RolloutResult:
    """Put an earlier mix back; no freeze and no open approval stands in its way.

    A canary that is on ends: its candidate has no traffic any more.

    What waits for a person's approval of a promotion loses its ground, and is closed.

    When production is on that mix already it is applied and read back once more.

    Args:
        state: The database.
        router: Where the change takes effect.
        product: Name of the product.
        to_digest: The mix; ``None`` for the production mix alone while a canary is on, else for
            the one that served before the present one. A rollback without a name that was cut
            short is finished first, instead of going one further.
        actor: Who does it.
        reason: Why.
        expected_epoch: When given, a production that moved since, and that is not on
            ``to_digest``, is left alone: a run must not undo what a person did meanwhile.
        expected_mixes: The same by the digests that production may be on.
        run_id: The run that decided it.
        canary_id: When given, another canary that is on by now is left alone.
        once_in: How long a rollback without a name is not repeated: of two people who call it at
            the same time the second one verifies the first one's, and goes no further back.
        now: The present moment; the system's clock by default.
        trigger: ``time.monotonic()`` of the decision; the start of this call by default.
        tell: Puts the message to people into the transaction that records the change as verified.

    Raises:
        RefusedError: There is no production, no earlier mix, or no such mix.
        FencedError: Production is not what the decision was made about.
        RolloutError: The router did not take the change; calling again tries again.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    before = read_production(state, product)
    shown = shown_by(router, product)
    fault("router read")
    with state.begin() as connection:
        fault("decision begun")
        current, put_back = wanted_now(connection, product, shown, state.last_good)
        if to_digest is None:
            # Somebody rolled back at the router before; this finishes it, and goes no further.
            to_digest = (
                current.mix_digest
                if put_back
                else rollback_target(connection, current, now, once_in)
            )
        mix = kept_mix(connection, to_digest)
        check_product(mix, product)
        if current.mix_digest != mix.digest:
            expect(connection, current, expected_epoch, expected_mixes)
        on = canary_on(connection, current)
        if None not in (canary_id, on) and on != canary_id:
            raise FencedError(
                f"production of {product!r} is in canary {on} by now, this rollback was decided "
                f"for canary {canary_id}. Nothing was changed; see `imagegate canary status`"
            )
        why = Why(actor, reason, run_id, canary_id)
        decision = decide(connection, "rollback", current, alone(mix), before, shown, why)
        # What a person was asked about is not what serves any more.
        void = f"production was rolled back by {actor}: {reason}"
        withdraw(connection, product=product, via="rollback", by=actor, reason=void, now=now)
        fault("open approvals closed")
    return carry_out(state, router, decision, now, started, tell)


def reconcile(
    state: State,
    router: Router,
    product: str,
    *,
    actor: str = "imagegate",
    reason: str = "the router did not show the production mix",
    now: datetime | None = None,
    trigger: float | None = None,
    tell: Tell | None = None,
) -> RolloutResult:
    """Make the router show what the database says; finishes whatever a crash left.

    A router that was rolled back while the database was not to be had is ahead of it, on an
    earlier mix: that is taken over (:func:`tasks.rollout.decision.put_back_outside`).

    Raises:
        RefusedError: The product has no production mix.
        FencedError: Another controller moved production at the same time.
        RolloutError: The router did not take the change.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    before = read_production(state, product)
    shown = shown_by(router, product)
    fault("router read")
    with state.begin() as connection:
        fault("decision begun")
        current, _ = wanted_now(connection, product, shown, state.last_good)
        shares = shares_of(connection, current)
        why = Why(actor, reason)
        decision = decide(connection, "reconcile", current, shares, before, shown, why)
    return carry_out(state, router, decision, now, started, tell)
