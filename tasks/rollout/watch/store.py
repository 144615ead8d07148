"""The row of a watch in the state database, and what a person does about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.incidents import resolve_alarm
from tasks.errors import FencedError, RefusedError
from tasks.mix.freeze import stamp
from tasks.mix.production import require_production
from tasks.policy import Policy
from tasks.rollout.watch.memory import Memory, begin, memory_from
from tasks.state import State, within
from tasks.tables import freezes, watches

WatchStatus = Literal["watching", "alarm", "blind", "stopped"]
#: Who freezes promotions after an alarm.
OWNER = "imagegate watch"
#: Days that such a freeze lasts when no person closes the incident.
FREEZE_DAYS = 365


@dataclass(frozen=True, slots=True)
class Watch:
    """The watch over a product."""

    product: str
    mix_digest: str
    policy_digest: str
    memory: Memory
    #: No outcome before this is counted again.
    counted_until: datetime
    status: WatchStatus
    #: Why the status is not ``watching``, as a sentence.
    reason: str
    since: str
    updated_at: str


def incident_key(product: str) -> str:
    """Return the key of the incident about a mix that was found bad."""
    return f"watch:{product}"


def restored_key(product: str) -> str:
    """Return the key of the incident about a restored mix that is bad as well."""
    return f"watch-restored:{product}"


def blind_key(product: str) -> str:
    """Return the key of the alarm that nothing is seen."""
    return f"watch-blind:{product}"


def inputs_key(product: str) -> str:
    """Return the key of the alarm that the gate's cases do not cover production."""
    return f"watch-inputs:{product}"


def read_watch(where: State | Connection, product: str, *, lock: bool = False) -> Watch | None:
    """Return the watch over a product, ``None`` when it was never watched.

    Raises:
        StateError: What it remembers cannot be read.
    """
    query = sa.select(watches).where(watches.c.product == product)
    with within(where) as connection:
        row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        return None
    memory = memory_from(row["state"], product)
    until = row["counted_until"]
    return Watch(
        product=product,
        mix_digest=row["mix_digest"],
        policy_digest=row["policy_digest"],
        memory=memory,
        counted_until=memory.began if until is None else datetime.fromisoformat(until),
        status=row["status"],
        reason=row["reason"] or "",
        since=row["since"],
        updated_at=row["updated_at"],
    )


def write_watch(connection: Connection, watch: Watch, before: Watch | None) -> None:
    """Store a watch that was made from ``before``.

    Raises:
        FencedError: Another process stored one meanwhile; its counts stand, these are dropped.
    """
    values = {
        "mix_digest": watch.mix_digest,
        "policy_digest": watch.policy_digest,
        "state": watch.memory.to_json(),
        "counted_until": precise(watch.counted_until),
        "status": watch.status,
        "reason": watch.reason or None,
        "since": watch.since,
        "updated_at": watch.updated_at,
    }
    fenced = FencedError(
        f"another process looked at {watch.product!r} at the same time; its look stands and "
        "this one is dropped. One watch a product is enough"
    )
    if read_watch(connection, watch.product, lock=True) != before:
        raise fenced
    if before is None:
        try:
            connection.execute(sa.insert(watches).values(product=watch.product, **values))
        except sa.exc.IntegrityError:  # a row that is not there yet cannot be locked
            raise fenced from None
    else:
        connection.execute(
            sa.update(watches).where(watches.c.product == watch.product).values(**values)
        )


def precise(moment: datetime) -> str:
    """Return a moment as UTC ISO-8601 with microseconds: a window must begin where one ended."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def freeze_promotions(
    connection: Connection, product: str, mix_digest: str, reason: str, now: datetime
) -> None:
    """Let nothing but a rollback change production until a person closes the incident.

    A person's own freeze may stand beside it; it can end before the incident does.
    """
    held = sa.select(freezes.c.id).where(
        freezes.c.product == product,
        freezes.c.owner == OWNER,
        freezes.c.released_at.is_(None),
    )
    if connection.execute(held).first() is not None:
        return
    from tasks.mix.freeze import end_of

    connection.execute(
        sa.insert(freezes).values(
            product=product,
            mix_digest=mix_digest,
            owner=OWNER,
            reason=f"{reason}; a person closes the incident with `imagegate watch close "
            f"--product {product} --why '…'`, which lifts this",
            run_id=None,
            from_at=stamp(now),
            until_at=stamp(end_of(now, FREEZE_DAYS)),
        )
    )


def close(
    state: State,
    product: str,
    policy: Policy,
    *,
    actor: str,
    why: str,
    cleared: bool = False,
    now: datetime,
) -> Watch:
    """Close the incident of a watch for a person: promotions are possible again.

    Args:
        state: The database.
        product: Name of the product.
        policy: The limits; a mix that still serves is watched anew by them.
        actor: Who closes it.
        why: Why.
        cleared: The mix was not to blame; within the window it may return without a full gate.
        now: The present moment.

    Raises:
        RefusedError: No incident is open.
    """
    with state.begin() as connection:
        watch = read_watch(connection, product, lock=True)
        if watch is None or watch.memory.alarm is None:
            raise RefusedError(
                f"the watch of {product!r} has no open incident; see `imagegate watch status`"
            )
        bad = watch.memory.alarm.mix_digest
        memory = replace(
            watch.memory,
            alarm=None,
            past=tuple(
                replace(past, how="cleared")
                if cleared and past.mix_digest == bad and past.how == "alarm"
                else past
                for past in watch.memory.past
            ),
        )
        if watch.status == "alarm":
            fresh = begin(policy, now)
            memory = replace(memory, detectors=fresh.detectors, whole=fresh.whole)
        after = replace(
            watch,
            memory=memory,
            status="watching" if watch.status == "alarm" else watch.status,
            reason="" if watch.status == "alarm" else watch.reason,
            since=stamp(now) if watch.status == "alarm" else watch.since,
            updated_at=stamp(now),
        )
        write_watch(connection, after, watch)
        connection.execute(
            sa.update(freezes)
            .where(
                freezes.c.product == product,
                freezes.c.owner == OWNER,
                freezes.c.released_at.is_(None),
            )
            .values(released_at=stamp(now), released_by=actor[:200])
        )
        for key in (incident_key(product), restored_key(product)):
            resolve_alarm(connection, key, how=f"Closed by {actor}: {why}", now=now)
    return after


def stop(state: State, product: str, *, actor: str, why: str, now: datetime) -> Watch:
    """Stop watching a product for a person; `restart` begins again.

    Raises:
        RefusedError: It is not watched.
    """
    with state.begin() as connection:
        watch = read_watch(connection, product, lock=True)
        if watch is None:
            raise RefusedError(f"product {product!r} is not watched; nothing to stop")
        after = replace(
            watch,
            status="stopped",
            reason=f"stopped by {actor}: {why}",
            since=stamp(now),
            updated_at=stamp(now),
        )
        write_watch(connection, after, watch)
        resolve_alarm(connection, blind_key(product), how=after.reason, now=now)
    return after


def restart(state: State, product: str, policy: Policy, *, now: datetime) -> None:
    """Forget what the detectors know and begin anew at ``now``; an open incident stays open.

    This also mends a memory that cannot be read; what it held of the past is lost then.

    Raises:
        RefusedError: The product has no production mix.
    """
    from tasks.errors import StateError

    with state.begin() as connection:
        serving = require_production(connection, product, lock=True)
        try:
            before = read_watch(connection, product, lock=True)
        except StateError:
            connection.execute(sa.delete(watches).where(watches.c.product == product))
            before = None
        memory = begin(policy, now)
        if before is not None:
            memory = replace(
                memory,
                alarm=before.memory.alarm,
                past=before.memory.past,
                sample=before.memory.sample,
            )
        write_watch(
            connection,
            Watch(
                product=product,
                mix_digest=serving.mix_digest,
                policy_digest=policy.digest,
                memory=memory,
                counted_until=now,
                status="watching",
                reason="",
                since=stamp(now),
                updated_at=stamp(now),
            ),
            before,
        )
