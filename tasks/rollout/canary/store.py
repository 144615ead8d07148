"""Canaries in the state database: one row a walk, changed only by the process that drives it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Connection, RowMapping

from tasks.errors import ConfigError, RefusedError, StateError, TakenOverError, known
from tasks.mix.production import MOVES, journal_of, require_production
from tasks.records import utc_now
from tasks.rollout.canary.progress import CanaryPlan, Progress
from tasks.runs import is_driven
from tasks.state import State, within
from tasks.tables import canaries

Status = Literal["running", "paused", "holding", "promoted", "rolled_back", "aborted", "failed"]
Control = Literal["pause", "resume", "skip", "abort"]

#: A canary in one of these is not over.
LIVE: tuple[Status, ...] = ("running", "paused", "holding")
CONTROLS: tuple[Control, ...] = get_args(Control)


@dataclass(frozen=True, slots=True)
class Canary:
    """One walk of a candidate."""

    plan: CanaryPlan
    progress: Progress
    status: Status
    step: int
    #: When the router was read back to show the share of the step.
    step_started_at: str | None
    control: Control | None
    control_by: str | None
    control_reason: str | None
    actor: str
    started_at: str
    ended_at: str | None
    #: Why it ended, holds or waits.
    reason: str | None
    driver: str | None
    heartbeat_at: str | None
    flow_run_id: str | None

    @property
    def id(self) -> str:
        """Name of the walk."""
        return self.plan.canary_id

    @property
    def live(self) -> bool:
        """Whether it is not over."""
        return self.status in LIVE

    @property
    def weight(self) -> float:
        """Share of the traffic that the present step has."""
        return self.plan.rule.steps[self.step].weight

    @property
    def driven(self) -> bool:
        """Whether a process that may still act drives it."""
        if self.driver is None:
            return False
        host, pid = _place(self.driver)
        return is_driven(host, pid, self.heartbeat_at)


def new_driver() -> str:
    """Return a token of this process; it says where to look whether the process lives."""
    # 40 characters is the column.
    host = _short_host()
    return f"{secrets.token_hex(4)}/{os.getpid()}/{host}"


def _short_host() -> str:
    return socket.gethostname()[:20]


def _place(driver: str) -> tuple[str, int]:
    """Return host and process of a token; a foreign one belongs to no machine we know."""
    _, pid, host = [*driver.split("/", 2), "", ""][:3]
    ours = host == _short_host() and pid.isdecimal()
    return (socket.gethostname(), int(pid)) if ours else (f"not {socket.gethostname()}", 0)


def new_canary_id(candidate: str) -> str:
    """Return a name that sorts by time and says what walks, safe as a key."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    safe = (c if (c.isascii() and c.isalnum()) or c in "-_" else "-" for c in candidate.lower())
    return f"canary-{moment}-{''.join(safe)[:30]}-{secrets.token_hex(2)}"


def last_line(connection: Connection, product: str) -> int:
    """Return the id of the newest line in a product's journal, 0 when there is none."""
    journal = journal_of(connection, product)
    return journal[-1].id if journal else 0


def begin(connection: Connection, plan: CanaryPlan, *, actor: str, now: datetime) -> None:
    """Book a new canary, which has no share yet.

    Raises:
        RefusedError: The product has a canary that is not over, or is not on the baseline.
    """
    other = live_of(connection, plan.product)
    if other is not None:
        raise RefusedError(
            f"canary {other.id} of {other.plan.candidate_name!r} is under way for "
            f"{plan.product!r} ({other.status}, step {other.step + 1}); let it come to its end, or "
            f"end it with `imagegate canary abort --product {plan.product}`"
        )
    current = require_production(connection, plan.product, lock=True)
    if current.mix_digest != plan.baseline_digest:
        raise RefusedError(
            f"production of {plan.product!r} is on {current.mix_digest}, this canary was to be "
            f"compared with {plan.baseline_digest}; start it again"
        )
    connection.execute(
        sa.insert(canaries).values(
            canary_id=plan.canary_id,
            product=plan.product,
            candidate_digest=plan.candidate_digest,
            baseline_digest=plan.baseline_digest,
            run_id=plan.run_id,
            status="running",
            step=0,
            plan=plan.model_dump_json(),
            progress=Progress(counted_until=now.isoformat()).model_dump_json(),
            actor=actor[:200],
            started_at=utc_now(),
        )
    )


def read(where: State | Connection, canary_id: str) -> Canary:
    """Return a canary.

    Raises:
        ConfigError: There is none of this name.
        StateError: What is kept of it cannot be read.
    """
    with within(where) as connection:
        row = _row(connection, canary_id)
        if row is None:
            names = connection.execute(
                sa.select(canaries.c.canary_id).order_by(canaries.c.started_at.desc()).limit(8)
            ).scalars()
            raise ConfigError(f"there is no canary {canary_id!r} {known(list(names))}")
    return _canary(row)


def live_of(where: State | Connection, product: str) -> Canary | None:
    """Return the canary of a product that is not over, if any."""
    rule = (canaries.c.product == product, canaries.c.status.in_(LIVE))
    found = _all(where, *rule)
    return found[-1] if found else None


def newest_of(where: State | Connection, product: str) -> Canary | None:
    """Return the newest canary of a product, over or not."""
    found = _all(where, canaries.c.product == product)
    return found[-1] if found else None


def all_live(where: State | Connection) -> tuple[Canary, ...]:
    """Return every canary that is not over, oldest first."""
    return _all(where, canaries.c.status.in_(LIVE))


def of_flow(where: State | Connection, flow_run_id: str) -> Canary | None:
    """Return the canary that a Prefect flow run drove before it was started again."""
    found = _all(where, canaries.c.flow_run_id == flow_run_id)
    return found[-1] if found else None


def claim(state: State, canary_id: str, driver: str, *, flow_run_id: str | None = None) -> Canary:
    """Take a canary upon this process and return it.

    Raises:
        RefusedError: It is over, or a living process drives it.
    """
    with state.begin() as connection:
        canary = read(connection, canary_id)
        if not canary.live:
            raise RefusedError(f"canary {canary_id} is over: {canary.status}, {canary.reason}")
        if canary.driver != driver and canary.driven:
            raise RefusedError(
                f"canary {canary_id} is driven already, by {canary.driver}; "
                "`imagegate canary status` shows how far it is"
            )
        values: dict[str, Any] = {"driver": driver, "heartbeat_at": utc_now()}
        if flow_run_id is not None:
            values["flow_run_id"] = flow_run_id
        _update(connection, canary_id, **values)
        return read(connection, canary_id)


def beat(state: State, canary_id: str, driver: str) -> bool:
    """Give a sign of life; ``False`` when another process drives the canary by now."""
    with state.begin() as connection:
        done = connection.execute(
            sa.update(canaries)
            .where(canaries.c.canary_id == canary_id, canaries.c.driver == driver)
            .values(heartbeat_at=utc_now())
        )
    return done.rowcount == 1


def let_go(state: State, canary_id: str, driver: str) -> None:
    """Stop driving: another process may go on at once."""
    with state.begin() as connection:
        connection.execute(
            sa.update(canaries)
            .where(canaries.c.canary_id == canary_id, canaries.c.driver == driver)
            .values(driver=None)
        )


def keep(connection: Connection, canary: Canary, driver: str, **values: Any) -> Canary:
    """Write what became of a canary, and return it; only its driver may.

    Args:
        connection: An open transaction.
        canary: The canary as it was read.
        driver: Token of this process.
        **values: Columns; ``progress`` as a record.

    Raises:
        TakenOverError: Another process drives it, or it is over.
    """
    row = _row(connection, canary.id)
    if row is None or row["driver"] != driver or row["status"] not in LIVE:
        raise TakenOverError(
            f"canary {canary.id} is driven by another process since this one was silent for too "
            "long, or is over; this process ends here. See `imagegate canary status`"
        )
    if "progress" in values:
        values["progress"] = values["progress"].model_dump_json()
    _update(connection, canary.id, **values)
    return read(connection, canary.id)


def ask(state: State, canary_id: str, control: Control, *, by: str, reason: str) -> Canary:
    """Leave what a person wants for the driver, and return the canary.

    The last word counts, but an abort that was asked for stands.

    Raises:
        RefusedError: The canary is over, or there is nothing to resume.
    """
    with state.begin() as connection:
        canary = read(connection, canary_id)
        if not canary.live:
            raise RefusedError(
                f"canary {canary_id} is over ({canary.status}): {canary.reason}; there is nothing "
                f"to {control}"
            )
        if control == "resume" and canary.status != "paused" and canary.control != "pause":
            raise RefusedError(
                f"canary {canary_id} is not paused ({canary.status}); a canary that holds goes on "
                "by itself when its cause is gone, or by `imagegate canary skip`"
            )
        if canary.control != "abort":
            _update(
                connection,
                canary_id,
                control=control,
                control_by=by[:200],
                control_reason=reason,
            )
        return read(connection, canary_id)


def moved_by_others(connection: Connection, canary: Canary) -> str | None:
    """Return who ended a canary's share by changing production, as a sentence; ``None`` for nobody.

    Only a share that the router was told of can be ended by others.
    """
    current = require_production(connection, canary.plan.product)
    on_baseline = current.mix_digest == canary.plan.baseline_digest
    has_share = current.candidate_digest == canary.plan.candidate_digest
    never_had = canary.step == 0 and not canary.progress.applied
    if on_baseline and (has_share or (never_had and current.candidate_digest is None)):
        return None
    changes = [
        c
        for c in journal_of(connection, canary.plan.product)
        if c.kind in MOVES and c.id > canary.plan.journal_id
    ]
    if not changes:
        return f"production of {canary.plan.product!r} is not what the canary began with"
    last = changes[-1]
    return f"production was changed by {last.kind} of {last.actor}: {last.reason}"


def _all(where: State | Connection, *rule: sa.ColumnElement[bool]) -> tuple[Canary, ...]:
    query = sa.select(canaries).where(*rule).order_by(canaries.c.started_at, canaries.c.canary_id)
    with within(where) as connection:
        rows: Sequence[RowMapping] = connection.execute(query).mappings().all()
    return tuple(_canary(row) for row in rows)


def _row(connection: Connection, canary_id: str) -> RowMapping | None:
    query = sa.select(canaries).where(canaries.c.canary_id == canary_id).with_for_update()
    return connection.execute(query).mappings().one_or_none()


def _update(connection: Connection, canary_id: str, **values: Any) -> None:
    connection.execute(
        sa.update(canaries).where(canaries.c.canary_id == canary_id).values(**values)
    )


def _canary(row: RowMapping) -> Canary:
    try:
        plan = CanaryPlan.model_validate_json(row["plan"])
        progress = Progress.model_validate_json(row["progress"])
    except ValidationError as error:
        raise StateError(
            f"what is kept of canary {row['canary_id']} cannot be read "
            f"({error.error_count()} problems); roll back with `imagegate rollback`, and restore "
            "the state database from a backup"
        ) from None
    names = set(Canary.__slots__) - {"plan", "progress"}
    return Canary(plan=plan, progress=progress, **{name: row[name] for name in names})
