"""Changing production: persist the decision, apply it, read the router back, record.

Killed at any instruction, production is on exactly one mix, the one in the state database, and
the next call for the product (or :func:`reconcile`) finishes what was left.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.approval.store import assert_stands, withdraw
from tasks.errors import FencedError, RefusedError, RolloutError, known
from tasks.mix.freeze import assert_may_change, release_for_run
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import (
    CHANGES,
    Production,
    append_transition,
    journal_of,
    keep_mix,
    kept_mix,
    previous_digest,
    require_production,
)
from tasks.records import SCHEMA_VERSION, Record, utc_now
from tasks.rollout.routers.base import Desired, Router, RouterState, Share
from tasks.runs import assert_drives
from tasks.state import State
from tasks.tables import production, runs

ChangeKind = Literal["promote", "rollback", "reconcile"]


class RolloutResult(Record):
    """One change of production that was read back from the router."""

    schema_version: int = SCHEMA_VERSION
    product: str
    kind: ChangeKind
    from_digest: str
    to_digest: str
    mix_name: str
    epoch: int
    #: False when production was on this mix already.
    changed: bool
    #: Seconds from the trigger until the router was read back to serve this mix alone.
    seconds: float
    verified_at: str


@dataclass(frozen=True, slots=True)
class _Decision:
    """A decision that the database holds: what must be true of the router when it is done."""

    product: str
    kind: ChangeKind
    from_digest: str
    mix: ResolvedMix
    epoch: int
    actor: str
    reason: str
    run_id: str | None
    changed: bool
    #: True when the journal got a line for this decision, so it also gets one for its end.
    told: bool


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
    now: datetime | None = None,
    trigger: float | None = None,
) -> RolloutResult:
    """Make a mix the production of a product; the freeze of the run ends with it.

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
        driver: Token of the process that drives the run; one that lost the run changes nothing.
        now: The present moment, for the freeze; the system's clock by default.
        trigger: ``time.monotonic()`` of the decision; the start of this call by default.

    Raises:
        RefusedError: The product has no production mix, or the mix is of another product.
        FrozenError: Somebody else's freeze is in force.
        FencedError: Production is not what the decision was made about, somebody rolled it back
            since the run began, or the run asked for a person's approval and has none that stands.
        TakenOverError: Another process drives the run by now.
        RolloutError: The router did not take the change; :func:`reconcile` tries again.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    if mix.mix.product != product:
        raise RefusedError(
            f"mix {mix.mix.name!r} is of product {mix.mix.product!r}; it cannot serve {product!r}"
        )
    router.probe()
    shown = router.read(product)
    with state.begin() as connection:
        current = require_production(connection, product, lock=True)
        changed = current.mix_digest != mix.digest
        if run_id is not None and driver is not None:
            assert_drives(connection, run_id, driver)
        if changed:
            _expect(connection, current, expected_epoch, expected_mixes)
            if run_id is not None and not assert_stands(connection, run_id, product):
                _not_rolled_back_since(connection, run_id, product)
            assert_may_change(connection, product, now=now, run_id=run_id)
            keep_mix(connection, mix)
        decision = _decide(
            connection, "promote", current, mix, shown, actor=actor, reason=reason, run_id=run_id
        )
    return _carry_out(state, router, decision, now, started)


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
    now: datetime | None = None,
    trigger: float | None = None,
) -> RolloutResult:
    """Put an earlier mix back; no freeze and no open approval stands in its way.

    What waits for a person's approval of a promotion loses its ground, and is closed.

    When production is on that mix already it is applied and read back once more.

    Args:
        state: The database.
        router: Where the change takes effect.
        product: Name of the product.
        to_digest: The mix; ``None`` for the one that served before the present one. A rollback
            without a name that was cut short is finished first, instead of going one further.
        actor: Who does it.
        reason: Why.
        expected_epoch: When given, a production that moved since, and that is not on
            ``to_digest``, is left alone: a run must not undo what a person did meanwhile.
        expected_mixes: The same by the digests that production may be on.
        run_id: The run that decided it.
        now: The present moment; the system's clock by default.
        trigger: ``time.monotonic()`` of the decision; the start of this call by default.

    Raises:
        RefusedError: There is no production, no earlier mix, or no such mix.
        FencedError: Production is not what the decision was made about.
        RolloutError: The router did not take the change; calling again tries again.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    shown = _shown(router, product)
    with state.begin() as connection:
        current = require_production(connection, product, lock=True)
        mix = kept_mix(connection, to_digest or _target(connection, current))
        if mix.mix.product != product:
            raise RefusedError(
                f"mix {mix.mix.name!r} is of product {mix.mix.product!r}; it cannot serve "
                f"{product!r}"
            )
        if current.mix_digest != mix.digest:
            _expect(connection, current, expected_epoch, expected_mixes)
        decision = _decide(
            connection, "rollback", current, mix, shown, actor=actor, reason=reason, run_id=run_id
        )
        # What a person was asked about is not what serves any more.
        void = f"production was rolled back by {actor}: {reason}"
        withdraw(connection, product=product, via="rollback", by=actor, reason=void, now=now)
    return _carry_out(state, router, decision, now, started)


def reconcile(
    state: State,
    router: Router,
    product: str,
    *,
    actor: str = "imagegate",
    reason: str = "the router did not show the production mix",
    now: datetime | None = None,
    trigger: float | None = None,
) -> RolloutResult:
    """Make the router show what the database says; finishes whatever a crash left.

    Raises:
        RefusedError: The product has no production mix.
        FencedError: Another controller moved production at the same time.
        RolloutError: The router did not take the change.
    """
    started = time.monotonic() if trigger is None else trigger
    now = now or datetime.now(UTC)
    shown = _shown(router, product)
    with state.begin() as connection:
        current = require_production(connection, product, lock=True)
        mix = kept_mix(connection, current.mix_digest)
        decision = _decide(
            connection, "reconcile", current, mix, shown, actor=actor, reason=reason, run_id=None
        )
    return _carry_out(state, router, decision, now, started)


def free_epoch(epoch: int, mix: ResolvedMix, product: str, shown: RouterState | None) -> int:
    """Return the epoch to write a mix under: ``epoch``, unless the router has used it up.

    The router is ahead of the database, or has something else under the same epoch, after the
    database was restored from a backup or somebody edited the routing by hand. One epoch never
    gets two contents, so that every reader can tell which is later.
    """
    if shown is None or shown.epoch < epoch or shown.shows(_desired(product, epoch, mix)):
        return epoch
    return shown.epoch + 1


def _decide(
    connection: Connection,
    kind: ChangeKind,
    current: Production,
    mix: ResolvedMix,
    shown: RouterState | None,
    *,
    actor: str,
    reason: str,
    run_id: str | None,
) -> _Decision:
    """Write the wanted state and its line in the journal, in the caller's transaction."""
    product, digest = current.product, mix.digest
    changed = current.mix_digest != digest
    epoch = free_epoch(current.epoch + changed, mix, product, shown)
    moved = epoch != current.epoch
    if moved:
        connection.execute(
            sa.update(production)
            .where(production.c.product == product)
            .values(mix_digest=digest, epoch=epoch, changed_at=utc_now())
        )
    told = moved or (
        kind == "rollback" and not _told_before(connection, product, epoch, digest, run_id)
    )
    if told:
        append_transition(
            connection,
            product=product,
            epoch=epoch,
            # A promotion that finds its mix in place but the router astray only mends the router.
            kind=kind if changed or kind == "rollback" else "reconcile",
            from_digest=current.mix_digest,
            to_digest=digest,
            actor=actor,
            reason=reason,
            run_id=run_id,
        )
    return _Decision(
        product, kind, current.mix_digest, mix, epoch, actor, reason, run_id, changed, told
    )


def _carry_out(
    state: State, router: Router, decision: _Decision, now: datetime, started: float
) -> RolloutResult:
    """Apply a decision, read the router back and record that it shows."""
    desired = _desired(decision.product, decision.epoch, decision.mix)
    router.apply(desired)
    shown = router.read(decision.product)
    if shown is None or not shown.shows(desired):
        has = "nothing" if shown is None else f"mix {shown.mix_digest} at epoch {shown.epoch}"
        error = FencedError if shown and shown.epoch > decision.epoch else RolloutError
        raise error(
            f"the router was told to serve {decision.product!r} by mix {desired.mix_digest} at "
            f"epoch {decision.epoch}, read back it shows {has} with weights "
            f"{dict(shown.weights) if shown else {}}; run `imagegate status`, then try again"
        )
    seconds = time.monotonic() - started
    with state.begin() as connection:
        _record(connection, decision, now)
    return RolloutResult(
        product=decision.product,
        kind=decision.kind,
        from_digest=decision.from_digest,
        to_digest=desired.mix_digest,
        mix_name=decision.mix.mix.name,
        epoch=decision.epoch,
        changed=decision.changed,
        seconds=seconds,
        verified_at=utc_now(),
    )


def _record(connection: Connection, decision: _Decision, now: datetime) -> None:
    """Record that the router showed the decision, and end the freezes that a promotion ends."""
    current = require_production(connection, decision.product, lock=True)
    _expect(connection, current, decision.epoch)
    if decision.told or not current.settled:
        connection.execute(
            sa.update(production)
            .where(production.c.product == decision.product)
            .values(applied_epoch=decision.epoch)
        )
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
        )
    promoted = {decision.run_id} if decision.kind == "promote" else set()
    # Finishing for a run that was killed: its promotion is done now.
    promoted |= {
        change.run_id
        for change in journal_of(connection, decision.product)
        if change.kind == "promote" and change.epoch == decision.epoch
    }
    for run_id in promoted - {None}:
        release_for_run(connection, decision.product, run_id=str(run_id), now=now)


def _desired(product: str, epoch: int, mix: ResolvedMix) -> Desired:
    return Desired(product, epoch, (Share(mix, 1.0),))


def _shown(router: Router, product: str) -> RouterState | None:
    """Read the router for a change that must go through even when the router is damaged."""
    try:
        return router.read(product)
    except RolloutError:
        return None


def _target(connection: Connection, current: Production) -> str:
    """Return the mix that a rollback without a name means."""
    if not current.settled:
        changes = [c for c in journal_of(connection, current.product) if c.kind in CHANGES]
        if changes and changes[-1].kind == "rollback":
            return current.mix_digest
    before = previous_digest(connection, current.product)
    if before is None:
        served = {c.to_digest for c in journal_of(connection, current.product)}
        others = sorted(served - {current.mix_digest})
        raise RefusedError(
            f"production of {current.product!r} is on the first mix of its line already "
            f"({current.mix_digest[:19]}…); "
            + (
                "name the one you mean with `imagegate rollback --to DIGEST` "
                + known(
                    f"{kept_mix(connection, d).mix.name} {d.removeprefix('sha256:')[:12]}"
                    for d in others
                )
                if others
                else "it never served another mix"
            )
        )
    return before


def _told_before(
    connection: Connection, product: str, epoch: int, digest: str, run_id: str | None
) -> bool:
    """Tell whether the journal has this rollback: a resumed run must not tell it twice."""
    return any(
        change.kind == "rollback" and change.to_digest == digest and change.run_id == run_id
        for change in journal_of(connection, product)
        if change.epoch == epoch
    )


def _not_rolled_back_since(connection: Connection, run_id: str, product: str) -> None:
    """Pass when nobody put production back since the run began: a resumed run must not undo that.

    Raises:
        FencedError: Somebody did; says who, when and why.
    """
    began = connection.execute(sa.select(runs.c.started_at).where(runs.c.run_id == run_id)).scalar()
    if began is None:
        return
    for change in reversed(journal_of(connection, product)):
        if change.at < began:
            return
        if change.kind == "rollback" and change.run_id != run_id:
            raise FencedError(
                f"production of {product!r} was rolled back by {change.actor} at {change.at} "
                f"({change.reason}), after run {run_id} began at {began}. Nothing was changed; "
                "judge again with a new run"
            )


def _expect(
    connection: Connection,
    current: Production,
    epoch: int | None,
    mixes: Collection[str] = (),
) -> None:
    """Pass when production is at the epoch, and on one of the mixes, that the caller knows.

    Raises:
        FencedError: It is not; says who moved it.
    """
    if (epoch is None or current.epoch == epoch) and (not mixes or current.mix_digest in mixes):
        return
    changes = [c for c in journal_of(connection, current.product) if c.kind in CHANGES]
    last = changes[-1] if changes else None
    by = f" by {last.kind} of {last.actor} at {last.at} ({last.reason})" if last else ""
    wanted = f"epoch {epoch}" if epoch is not None else " or ".join(sorted(mixes))
    raise FencedError(
        f"production of {current.product!r} is at epoch {current.epoch} on mix "
        f"{current.mix_digest}, this change was decided for {wanted}: somebody moved production "
        f"meanwhile{by}. Nothing was changed; judge again against what serves now"
    )
