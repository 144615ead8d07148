"""The freeze: while it holds, only a rollback may change production.

A person freezes a product for a launch or a holiday. A run freezes it for itself, so that the
baseline it measures is still production when it decides; the run's own promotion passes its own
freeze, and nobody else's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.errors import ConfigError, FrozenError, RefusedError
from tasks.mix.production import require_production
from tasks.runs import is_driven
from tasks.state import State, within
from tasks.tables import approvals, canaries, freezes, runs

#: A freeze longer than this is a mistake, not a plan.
MOST_DAYS = 365


@dataclass(frozen=True, slots=True)
class Freeze:
    """One lock on the production of a product."""

    id: int
    product: str
    mix_digest: str
    owner: str
    reason: str
    #: The run that holds it, ``None`` for a person's freeze.
    run_id: str | None
    from_at: str
    until_at: str
    released_at: str | None = None
    released_by: str | None = None

    def holds(self, now: datetime) -> bool:
        """Tell whether the freeze is in force.

        A start in the future is no excuse: a clock that went back must not open production.
        """
        return self.released_at is None and _aware(now) < datetime.fromisoformat(self.until_at)


def _aware(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError("now must have a time zone; pass datetime.now(UTC)")
    return now


def stamp(moment: datetime) -> str:
    """Return a moment as UTC ISO-8601 with milliseconds and ``Z``."""
    text = _aware(moment).astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def end_of(now: datetime, days: float) -> datetime:
    """Return the end of a freeze of so many days.

    Raises:
        ConfigError: ``days`` is not a number above 0 and up to 365.
    """
    if not (math.isfinite(days) and 0 < days <= MOST_DAYS):
        raise ConfigError(
            f"a freeze of {days:g} days is not possible; give more than 0 and at most {MOST_DAYS}"
        )
    return _aware(now) + timedelta(days=days)


def active_freezes(where: State | Connection, product: str, now: datetime) -> tuple[Freeze, ...]:
    """Return the freezes in force: people's before runs', older before newer."""
    query = (
        sa.select(freezes)
        .where(freezes.c.product == product, freezes.c.released_at.is_(None))
        .order_by(freezes.c.id)
    )
    with within(where) as connection:
        rows = [Freeze(**row) for row in connection.execute(query).mappings()]
    return tuple(sorted((f for f in rows if f.holds(now)), key=lambda f: f.run_id is not None))


def active_freeze(where: State | Connection, product: str, now: datetime) -> Freeze | None:
    """Return the freeze in force, a person's before a run's, or ``None``."""
    found = active_freezes(where, product, now)
    return found[0] if found else None


def freeze(
    state: State, product: str, *, owner: str, reason: str, days: float, now: datetime
) -> Freeze:
    """Freeze a product for a person; a run's freeze may stand beside it.

    Raises:
        ConfigError: Owner or reason is empty, or ``days`` is out of range.
        RefusedError: The product has no production mix.
        FrozenError: A person froze it already.
    """
    with state.begin() as connection:
        held = active_freeze(connection, product, now)
        if held is not None and held.run_id is None:
            raise FrozenError(explain(held))
        return _insert(
            connection, product, owner=owner, reason=reason, days=days, run_id=None, now=now
        )


def thaw(state: State, product: str, *, actor: str, now: datetime) -> tuple[Freeze, ...]:
    """Lift every freeze in force, people's and runs', and return them.

    Raises:
        RefusedError: The product is not frozen.
    """
    with state.begin() as connection:
        held = active_freezes(connection, product, now)
        if not held:
            raise RefusedError(f"production of {product!r} is not frozen; nothing to thaw")
        for one in held:
            _release(connection, one, by=actor, now=now)
        return held


def assert_may_change(
    where: State | Connection, product: str, *, now: datetime, run_id: str | None = None
) -> None:
    """Pass when nothing but the freeze of ``run_id`` itself is in force.

    A rollback does not ask: it is always allowed.

    Raises:
        FrozenError: Saying who froze production, why, until when, and how to lift it.
    """
    for held in active_freezes(where, product, now):
        if held.run_id is None or held.run_id != run_id:
            raise FrozenError(explain(held))


def explain(held: Freeze) -> str:
    """Return who froze production, why, until when, and how to lift it."""
    who = f"run {held.run_id!r} of {held.owner}" if held.run_id else held.owner
    lift = "lift it with `imagegate thaw`"
    if held.run_id:
        lift = f"finish that run with `imagegate run --resume {held.run_id}`, or {lift}"
    return (
        f"production of {held.product!r} is frozen on mix {held.mix_digest} by {who} until "
        f"{held.until_at} (since {held.from_at}, reason: {held.reason}); only a rollback may "
        f"change it. To change it otherwise, {lift}"
    )


def acquire_for_run(
    state: State,
    product: str,
    *,
    run_id: str,
    owner: str,
    reason: str,
    days: float,
    now: datetime,
    host: str | None = None,
    alive: Callable[[int], bool] | None = None,
) -> Freeze:
    """Freeze a product for a run, taking over what an ended run left.

    The freeze is on the mix that production names now, whatever the run took for its baseline.
    The row of the run in table ``runs`` must be there before, so that others can see it live.

    Args:
        state: The database.
        product: Name of the product.
        run_id: The run; when it holds a freeze already (it resumes), that one comes back.
        owner: Who started the run.
        reason: Why, for those whom the freeze stops.
        days: How long, in days.
        now: The present moment.
        host: This machine's name, to tell whether another run's process can be looked at.
        alive: Tells whether a process of this machine lives.

    Raises:
        ConfigError: Owner or reason is empty, or ``days`` is out of range.
        RefusedError: The product has no production mix.
        FrozenError: A person froze it, or another run that still goes on.
    """
    with state.begin() as connection:
        serving = require_production(connection, product, lock=True)
        own: Freeze | None = None
        others: list[Freeze] = []
        for held in active_freezes(connection, product, now):
            if held.run_id == run_id and held.mix_digest == serving.mix_digest:
                own = held
            elif held.run_id == run_id:
                _release(connection, held, by=f"run {run_id}, on another mix now", now=now)
            elif held.run_id is None or _goes_on(connection, held.run_id, now, host, alive):
                others.append(held)
            elif _walks(connection, held.run_id):
                raise FrozenError(
                    f"the canary of run {held.run_id} is under way in {product!r}; one change at a "
                    "time: let it come to its end, or end it with `imagegate canary abort "
                    f"--product {product}`"
                )
            else:
                _release(connection, held, by=f"taken over by run {run_id}", now=now)
        # A run that asked a person has measured everything and only comes to its end; what it
        # may still change is asked for when it changes it.
        if others and not _has_asked(connection, run_id):
            raise FrozenError(explain(others[0]))
        if own is None and others:
            return others[0]
        return own or _insert(
            connection, product, owner=owner, reason=reason, days=days, run_id=run_id, now=now
        )


def release_for_run(connection: Connection, product: str, *, run_id: str, now: datetime) -> None:
    """Lift the freeze that a run holds, if it holds one; its promotion is done."""
    for held in active_freezes(connection, product, now):
        if held.run_id == run_id:
            _release(connection, held, by=f"run {run_id}", now=now)


def _goes_on(
    connection: Connection,
    run_id: str,
    now: datetime,
    here: str | None,
    alive: Callable[[int], bool] | None,
) -> bool:
    """Tell whether a run may still act: it waits for a person, or runs and is not known dead."""
    row = connection.execute(
        sa.select(runs.c.status, runs.c.host, runs.c.pid, runs.c.heartbeat_at).where(
            runs.c.run_id == run_id
        )
    ).first()
    if row is not None and row.status == "waiting":
        return _still_waits(connection, run_id, now)
    if row is None or row.status != "running":
        return False
    return is_driven(row.host, row.pid, row.heartbeat_at, now=now, here=here, alive=alive)


def _walks(connection: Connection, run_id: str) -> bool:
    """Tell whether a run's candidate is walking into production."""
    live = canaries.c.status.in_(("running", "paused", "holding"))
    query = sa.select(canaries.c.canary_id).where(canaries.c.run_id == run_id, live)
    return connection.execute(query).first() is not None


def _still_waits(connection: Connection, run_id: str, now: datetime) -> bool:
    """Tell whether a waiting run may still promote: nobody said no and its time is not over."""
    asked = connection.execute(
        sa.select(approvals.c.status, approvals.c.expires_at).where(approvals.c.run_id == run_id)
    ).first()
    if asked is None or asked.status == "approved":
        return True
    return asked.status == "pending" and _aware(now) < datetime.fromisoformat(asked.expires_at)


def _has_asked(connection: Connection, run_id: str) -> bool:
    query = sa.select(approvals.c.run_id).where(approvals.c.run_id == run_id)
    return connection.execute(query).first() is not None


def _insert(
    connection: Connection,
    product: str,
    *,
    owner: str,
    reason: str,
    days: float,
    run_id: str | None,
    now: datetime,
) -> Freeze:
    for name, value in (("owner", owner), ("reason", reason)):
        if not value.strip():
            raise ConfigError(f"a freeze needs its {name}, so that others know whom to ask and why")
    values = {
        "product": product,
        "mix_digest": require_production(connection, product).mix_digest,
        "owner": owner.strip()[:200],
        "reason": reason.strip(),
        "run_id": run_id,
        "from_at": stamp(now),
        "until_at": stamp(end_of(now, days)),
    }
    row = connection.execute(sa.insert(freezes).values(**values).returning(freezes))
    return Freeze(**row.mappings().one())


def _release(connection: Connection, held: Freeze, *, by: str, now: datetime) -> None:
    connection.execute(
        sa.update(freezes)
        .where(freezes.c.id == held.id, freezes.c.released_at.is_(None))
        .values(released_at=stamp(now), released_by=by[:200])
    )
