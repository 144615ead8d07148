"""The three steps of every change: write the decision, carry it out, record that it shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.mix.freeze import release_for_run
from tasks.mix.production import (
    MOVES,
    Production,
    append_transition,
    journal_of,
    kept_mix,
    require_production,
    serving_order,
)
from tasks.records import utc_now
from tasks.rollout.decision import (
    ChangeKind,
    Decision,
    RolloutResult,
    alone,
    free_epoch,
    put_back_outside,
    split,
    wants,
    weight_of,
)
from tasks.rollout.faults import fault
from tasks.rollout.guards import canary_on, expect, told_before
from tasks.rollout.last_good import keep_last_good, put_back_by
from tasks.rollout.readback import confirm
from tasks.rollout.routers.base import Desired, Router, RouterState, Share
from tasks.state import State
from tasks.tables import production

#: Writes what people are to hear of a verified change, in the transaction that records it.
Tell = Callable[[Connection, RolloutResult], None]


@dataclass(frozen=True, slots=True)
class Why:
    """Who changes production, why, and on whose behalf."""

    actor: str
    reason: str
    run_id: str | None = None
    canary_id: str | None = None


def shares_of(connection: Connection, current: Production) -> tuple[Share, ...]:
    """Return the routing that the database wants.

    Raises:
        RefusedError: A mix of it was never kept.
        StateError: A manifest is damaged.
    """
    mix = kept_mix(connection, current.mix_digest)
    if current.candidate_digest is None or current.candidate_weight is None:
        return alone(mix)
    candidate = kept_mix(connection, current.candidate_digest)
    return split(mix, candidate, current.candidate_weight)


def wanted_now(
    connection: Connection, product: str, shown: RouterState | None, last_good: Path | None
) -> tuple[Production, bool]:
    """Return what production should be, locked until the transaction ends.

    A rollback that was made at the router while the database was not to be had is taken over.

    Args:
        connection: The transaction of the decision.
        product: Name of the product.
        shown: What the router showed before the transaction began.
        last_good: Folder of the files that say who rolled back, if it was on this machine.

    Returns:
        The pointer, and whether a rollback was taken over just now.

    Raises:
        RefusedError: The product has no production mix yet.
        StateError: The manifest of a mix is damaged.
    """
    current = require_production(connection, product, lock=True)
    order = serving_order(journal_of(connection, current.product))
    if shown is None or not put_back_outside(current, order, shown):
        return current, False
    _want(connection, current.product, alone(kept_mix(connection, shown.mix_digest)), shown.epoch)
    made_by = put_back_by(last_good, current.product, shown)
    append_transition(
        connection,
        product=current.product,
        epoch=shown.epoch,
        kind="rollback",
        from_digest=_left(current, shown.mix_digest),
        to_digest=shown.mix_digest,
        actor="router" if made_by is None else made_by.actor,
        reason=(
            f"the router was at epoch {shown.epoch}, ahead of the state database "
            f"({current.epoch}), on an earlier mix: taken over as a rollback made without the "
            "database"
            if made_by is None
            else f"{made_by.reason} (made at {made_by.at} without the state database)"
        ),
        run_id=None,
        canary_id=canary_on(connection, current),
    )
    fault("rollback at the router taken over")
    return require_production(connection, product, lock=True), True


def decide(
    connection: Connection,
    kind: ChangeKind,
    current: Production,
    shares: Sequence[Share],
    before: Production | None,
    shown: RouterState | None,
    why: Why,
) -> Decision:
    """Write the wanted routing and its line in the journal, in the caller's transaction.

    Args:
        connection: The transaction, which holds the lock on the pointer.
        kind: What is done.
        current: What production should be.
        shares: What it shall be.
        before: The pointer as it was before the router was read.
        shown: What the router showed, before the transaction began.
        why: Who does it, and why.
    """
    product, shares = current.product, tuple(shares)
    digest = shares[0].mix.digest
    changed = not wants(current, shares)
    epoch = free_epoch(Desired(product, current.epoch + changed, shares), shown)
    desired = Desired(product, epoch, shares)
    moved = epoch != current.epoch
    canary_id = why.canary_id or canary_on(connection, current)
    from_digest = _left(current, digest) if kind == "rollback" else current.mix_digest
    if moved:
        _want(connection, product, shares, epoch)
        fault("wanted routing written")
    # The router lost what it had shown: recorded before it was read, for another controller may
    # have finished its change since. Known to be unsettled, this is told once, however often it
    # takes to put it right.
    recorded = before is not None and before.settled and before.epoch == current.epoch
    lost = shown is None or not shown.shows(desired)
    astray = current.settled and not moved and recorded and lost
    if astray:
        connection.execute(
            sa.update(production).where(production.c.product == product).values(applied_epoch=0)
        )
    news = kind == "rollback" and not told_before(connection, product, epoch, digest, why.run_id)
    told = moved or astray or news
    decision = Decision(
        kind, desired, from_digest, why.actor, why.reason, why.run_id, canary_id, changed, told
    )
    if told:
        append_transition(
            connection,
            product=product,
            epoch=epoch,
            # A change that finds its routing wanted but the router astray only mends the router.
            kind=kind if changed or news else "reconcile",
            from_digest=from_digest,
            to_digest=decision.about.digest if changed else digest,
            actor=why.actor,
            reason=why.reason,
            run_id=why.run_id,
            weight=weight_of(desired),
            canary_id=canary_id,
        )
        fault("line of the decision written")
    return decision


def carry_out(
    state: State,
    router: Router,
    decision: Decision,
    now: datetime,
    started: float,
    tell: Tell | None = None,
) -> RolloutResult:
    """Apply a decision, read the router back and record that it shows.

    Args:
        state: The database.
        router: Where the change takes effect.
        decision: What the database holds.
        now: The present moment, for the freezes that end.
        started: ``time.monotonic()`` of the trigger.
        tell: Puts the message to people into the transaction of the record: they hear of a change
            when the router has shown it, never before, and never not.
    """
    fault("decision kept")
    router.apply(decision.desired)
    fault("router told")
    confirm(router, decision.desired)
    seconds = time.monotonic() - started
    fault("router read back")
    with state.begin() as connection:
        fault("record begun")
        _record(connection, decision, now)
        fault("record written")
        warning = ""
        if state.last_good is not None:
            warning = keep_last_good(connection, state.last_good, decision.product)
        result = RolloutResult(
            product=decision.product,
            kind=decision.kind,
            from_digest=decision.from_digest,
            to_digest=decision.about.digest,
            mix_name=decision.about.mix.name,
            epoch=decision.epoch,
            changed=decision.changed,
            seconds=seconds,
            verified_at=utc_now(),
            weight=decision.weight,
            canary_id=decision.canary_id if decision.weight is not None else None,
            warning=warning,
        )
        if tell is not None:
            tell(connection, result)
            fault("message put into the outbox")
    fault("record kept")
    return result


def _record(connection: Connection, decision: Decision, now: datetime) -> None:
    """Record that the router showed the decision, and end the freezes that a promotion ends."""
    current = require_production(connection, decision.product, lock=True)
    expect(connection, current, decision.epoch)
    journal = journal_of(connection, decision.product)
    # Whoever finishes it for a process that was killed, the check belongs to what was decided.
    made = [c for c in journal if c.kind in MOVES and c.epoch == decision.epoch]
    if decision.told or not current.settled:
        connection.execute(
            sa.update(production)
            .where(production.c.product == decision.product)
            .values(applied_epoch=decision.epoch)
        )
        fault("epoch of the router written")
        append_transition(
            connection,
            product=decision.product,
            epoch=decision.epoch,
            kind="verified",
            from_digest=decision.from_digest,
            to_digest=current.mix_digest,
            actor=decision.actor,
            reason=decision.reason,
            run_id=decision.run_id or (made[-1].run_id if made else None),
            weight=decision.weight,
            canary_id=decision.canary_id or (made[-1].canary_id if made else None),
        )
        fault("line of the check written")
    promoted = {decision.run_id} if decision.kind == "promote" else set()
    # Finishing for a run that was killed: its promotion is done now.
    promoted |= {change.run_id for change in made if change.kind == "promote"}
    for run_id in promoted - {None}:
        release_for_run(connection, decision.product, run_id=str(run_id), now=now)
        fault("freeze of the run lifted")


def _want(connection: Connection, product: str, shares: Sequence[Share], epoch: int) -> None:
    """Write the wanted routing."""
    candidate = shares[1] if len(shares) > 1 else None
    connection.execute(
        sa.update(production)
        .where(production.c.product == product)
        .values(
            mix_digest=shares[0].mix.digest,
            candidate_digest=candidate.mix.digest if candidate else None,
            candidate_weight=candidate.weight if candidate else None,
            epoch=epoch,
            changed_at=utc_now(),
        )
    )


def _left(current: Production, digest: str) -> str:
    """Return the mix that a rollback takes away: a candidate when the production mix stays."""
    if current.mix_digest == digest and current.candidate_digest is not None:
        return current.candidate_digest
    return current.mix_digest
