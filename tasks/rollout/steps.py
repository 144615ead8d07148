"""The three steps of every change: write the decision, carry it out, record that it shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.errors import FencedError, RolloutError
from tasks.mix.freeze import release_for_run
from tasks.mix.production import (
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
from tasks.rollout.routers.base import Desired, Router, RouterState, Share
from tasks.state import State
from tasks.tables import production


@dataclass(frozen=True, slots=True)
class Why:
    """Who changes production, why, and on whose behalf."""

    actor: str
    reason: str
    run_id: str | None = None
    canary_id: str | None = None


def shown_by(router: Router, product: str) -> RouterState | None:
    """Read the router for a change that must go through even when the router is damaged."""
    try:
        return router.read(product)
    except RolloutError:
        return None


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


def take_over(
    connection: Connection, current: Production, shown: RouterState | None
) -> tuple[Production, bool]:
    """Take a rollback over that was made at the router while the database was not to be had.

    Returns:
        Production as it is wanted from now on, and whether that is news.
    """
    order = serving_order(journal_of(connection, current.product))
    if shown is None or not put_back_outside(current, order, shown):
        return current, False
    _want(connection, current.product, alone(kept_mix(connection, shown.mix_digest)), shown.epoch)
    append_transition(
        connection,
        product=current.product,
        epoch=shown.epoch,
        kind="rollback",
        from_digest=_left(current, shown.mix_digest),
        to_digest=shown.mix_digest,
        actor="router",
        reason=(
            f"the router was at epoch {shown.epoch}, ahead of the state database "
            f"({current.epoch}), on an earlier mix: taken over as a rollback made while the "
            "database was not to be had"
        ),
        run_id=None,
        canary_id=canary_on(connection, current),
    )
    fault("rollback at the router taken over")
    return require_production(connection, current.product, lock=True), True


def decide(
    connection: Connection,
    kind: ChangeKind,
    current: Production,
    shares: Sequence[Share],
    shown: RouterState | None,
    why: Why,
) -> Decision:
    """Write the wanted routing and its line in the journal, in the caller's transaction."""
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
    told = moved or (
        kind == "rollback" and not told_before(connection, product, epoch, digest, why.run_id)
    )
    decision = Decision(
        kind, desired, from_digest, why.actor, why.reason, why.run_id, canary_id, changed, told
    )
    if told:
        append_transition(
            connection,
            product=product,
            epoch=epoch,
            # A change that finds its routing wanted but the router astray only mends the router.
            kind=kind if changed or kind == "rollback" else "reconcile",
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
    state: State, router: Router, decision: Decision, now: datetime, started: float
) -> RolloutResult:
    """Apply a decision, read the router back and record that it shows."""
    fault("decision kept")
    desired = decision.desired
    router.apply(desired)
    fault("router told")
    confirm(router, desired)
    seconds = time.monotonic() - started
    fault("router read back")
    with state.begin() as connection:
        fault("record begun")
        _record(connection, decision, now)
        fault("record written")
    fault("record kept")
    return RolloutResult(
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
    )


def confirm(router: Router, desired: Desired) -> None:
    """Pass when the router shows exactly this routing.

    Raises:
        FencedError: It is ahead: another controller was faster.
        RolloutError: It shows something else, or cannot be read.
    """
    shown = router.read(desired.product)
    if shown is not None and shown.shows(desired):
        return
    has = "nothing" if shown is None else f"mix {shown.mix_digest} at epoch {shown.epoch}"
    error = FencedError if shown and shown.epoch > desired.epoch else RolloutError
    raise error(
        f"the router was told to serve {desired.product!r} by mix {desired.mix_digest} at "
        f"epoch {desired.epoch} with weights {desired.weights}, read back it shows {has} with "
        f"weights {dict(shown.weights) if shown else {}}; run `imagegate status`, then try again"
    )


def _record(connection: Connection, decision: Decision, now: datetime) -> None:
    """Record that the router showed the decision, and end the freezes that a promotion ends."""
    current = require_production(connection, decision.product, lock=True)
    expect(connection, current, decision.epoch)
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
            run_id=decision.run_id,
            weight=decision.weight,
            canary_id=decision.canary_id,
        )
        fault("line of the check written")
    promoted = {decision.run_id} if decision.kind == "promote" else set()
    # Finishing for a run that was killed: its promotion is done now.
    promoted |= {
        change.run_id
        for change in journal_of(connection, decision.product)
        if change.kind == "promote" and change.epoch == decision.epoch
    }
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
