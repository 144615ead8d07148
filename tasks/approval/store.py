"""The questions to people and their answers, in the state database; one answer wins."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.approval.rules import Approval, Decision, may_decide, moment
from tasks.errors import FencedError, RefusedError, StateError, known
from tasks.mix.freeze import stamp
from tasks.policy import ApprovalRule
from tasks.records import Verdict, canonical_json
from tasks.state import State, within
from tasks.tables import approvals, runs, transitions

#: Longest name and reason that are kept.
MOST_NAME = 200
MOST_REASON = 2_000


def request(
    state: State,
    run_id: str,
    product: str,
    requester: str,
    because: str,
    expires_at: datetime,
    *,
    rules: ApprovalRule,
    verdict: Verdict,
    now: datetime | None = None,
) -> Approval:
    """Ask a person about a run and return the question; asked again, it is the one there was.

    Args:
        state: The database.
        run_id: The run.
        product: The product whose production is at stake.
        requester: Who asked for the run.
        because: Why a person is asked, as a sentence.
        expires_at: Without an answer by then the candidate is not promoted.
        rules: Who may answer.
        verdict: The machine's own verdict.
        now: The present moment; the system's clock by default.
    """
    with state.begin() as connection:
        found = _read(connection, run_id)
        if found is not None:
            return found
        last = connection.execute(
            sa.select(sa.func.max(transitions.c.id)).where(transitions.c.product == product)
        ).scalar()
        connection.execute(
            sa.insert(approvals).values(
                run_id=run_id,
                product=product,
                status="pending",
                asked_because=because,
                requester=_line(requester, MOST_NAME) or "unknown",
                requested_at=stamp(now or datetime.now(UTC)),
                expires_at=stamp(expires_at),
                verdict=canonical_json(verdict.model_dump(mode="json")),
                rules=canonical_json(rules.model_dump(mode="json")),
                journal_id=last or 0,
            )
        )
        return _require(connection, run_id)


def suspended_in(state: State, run_id: str, flow_run_id: str | None) -> None:
    """Note which of Prefect's flow runs is suspended for the answer."""
    with state.begin() as connection:
        connection.execute(
            sa.update(approvals).where(approvals.c.run_id == run_id).values(flow_run_id=flow_run_id)
        )


def decide(
    state: State,
    run_id: str,
    *,
    decision: Decision,
    by: str,
    reason: str,
    via: str,
    now: datetime | None = None,
) -> Approval:
    """Decide about a run, once and for all, and return the decided approval.

    Args:
        state: The database.
        run_id: The run.
        decision: ``approved`` or ``rejected``.
        by: Who decides; a claim, unless the way it came by knows people.
        reason: Why.
        via: The way: ``command``, ``prefect`` or ``slack``.
        now: The present moment; the system's clock by default.

    Raises:
        RefusedError: The run asks for nothing, was decided, has expired, or this person may not.
    """
    now = now or datetime.now(UTC)
    by, reason = _line(by, MOST_NAME), reason.strip()[:MOST_REASON]
    with state.begin() as connection:
        found = _require(connection, run_id, lock=True)
        refusal = may_decide(found, decision=decision, by=by, reason=reason, now=now)
        if refusal is None:
            won = _close(connection, run_id, decision, by=by, via=via, reason=reason, now=now)
            if not won:
                # Somebody was faster between the look and the write.
                found = _require(connection, run_id)
                refusal = may_decide(found, decision=decision, by=by, reason=reason, now=now)
        elif found.overdue(now):
            _expire(connection, found, now)
        if refusal is None:
            return _require(connection, run_id)
    # After the transaction: that an approval has expired is kept, whoever finds it out.
    raise RefusedError(refusal)


def read(state: State, run_id: str) -> Approval | None:
    """Return what a run asks of people, ``None`` when it asks nothing."""
    with state.begin() as connection:
        return _read(connection, run_id)


def pending(state: State, product: str | None = None) -> tuple[Approval, ...]:
    """Return the questions without an answer, oldest first."""
    query = (
        sa.select(approvals)
        .where(approvals.c.status == "pending")
        .order_by(approvals.c.requested_at, approvals.c.run_id)
    )
    if product is not None:
        query = query.where(approvals.c.product == product)
    with state.begin() as connection:
        return tuple(_of(row) for row in connection.execute(query).mappings())


def closed_waiting(state: State, product: str | None = None) -> tuple[Approval, ...]:
    """Return the answered questions whose runs still wait to come to their end, oldest first."""
    query = (
        sa.select(approvals)
        .join(runs, runs.c.run_id == approvals.c.run_id)
        .where(runs.c.status == "waiting", approvals.c.status != "pending")
        .order_by(approvals.c.decided_at, approvals.c.run_id)
    )
    if product is not None:
        query = query.where(approvals.c.product == product)
    with state.begin() as connection:
        return tuple(_of(row) for row in connection.execute(query).mappings())


def expire_due(state: State, now: datetime | None = None) -> tuple[str, ...]:
    """Close every question whose time is over; return the runs that were closed by this call."""
    now = now or datetime.now(UTC)
    closed = []
    with state.begin() as connection:
        query = sa.select(approvals).where(approvals.c.status == "pending").with_for_update()
        for row in connection.execute(query).mappings().all():
            found = _of(row)
            if found.overdue(now) and _expire(connection, found, now):
                closed.append(found.run_id)
    return tuple(closed)


def withdraw(
    where: State | Connection,
    *,
    via: str,
    reason: str,
    by: str,
    run_id: str | None = None,
    product: str | None = None,
    now: datetime | None = None,
) -> tuple[str, ...]:
    """Close the pending questions of a run or a product without an answer; return the runs.

    Args:
        where: The database, or an open transaction on it.
        via: ``rollback`` or ``run``.
        reason: Why there is nothing to decide any more, as a sentence.
        by: Who brought that about.
        run_id: The run; or
        product: the product whose questions lose their ground.
        now: The present moment; the system's clock by default.
    """
    rule = approvals.c.run_id == run_id if run_id else approvals.c.product == product
    with within(where) as connection:
        query = sa.select(approvals.c.run_id).where(approvals.c.status == "pending", rule)
        found = list(connection.execute(query.with_for_update()).scalars())
        at = now or datetime.now(UTC)
        return tuple(
            run
            for run in found
            if _close(connection, run, "expired", by=by, via=via, reason=reason, now=at)
        )


def assert_stands(connection: Connection, run_id: str, product: str) -> bool:
    """Pass when a person's word, if the run asked for one, allows its promotion now.

    Called in the transaction that changes production, so that nothing comes in between.

    Returns:
        Whether a person was asked, who then knew of every rollback before the question.

    Raises:
        FencedError: Nobody approved the run, or production was rolled back since it asked.
    """
    found = _read(connection, run_id)
    if found is None:
        return False
    if found.status != "approved":
        raise FencedError(f"run {run_id} asked a person and is {found.status}, not approved")
    later = connection.execute(
        sa.select(transitions)
        .where(
            transitions.c.product == product,
            transitions.c.kind == "rollback",
            transitions.c.id > found.journal_id,
        )
        .order_by(transitions.c.id.desc())
        .limit(1)
    ).first()
    if later is not None:
        raise FencedError(
            f"production of {product!r} was rolled back by {later.actor} at {moment(later.at)} "
            f"({later.reason}) after the approval was asked for, so it no longer counts. Nothing "
            "was changed; judge again against what serves now"
        )
    return True


def _line(text: str, most: int) -> str:
    return " ".join(text.split())[:most]


def _expire(connection: Connection, found: Approval, now: datetime) -> bool:
    return _close(
        connection,
        found.run_id,
        "expired",
        by="imagegate",
        via="expiry",
        reason=f"nobody decided until {moment(found.expires_at)}.",
        now=now,
    )


def _close(
    connection: Connection,
    run_id: str,
    status: str,
    *,
    by: str,
    via: str,
    reason: str,
    now: datetime,
) -> bool:
    """Answer a pending question; ``False`` when it has its answer."""
    changed = connection.execute(
        sa.update(approvals)
        .where(approvals.c.run_id == run_id, approvals.c.status == "pending")
        .values(status=status, decided_by=by, decided_via=via, reason=reason, decided_at=stamp(now))
    )
    return changed.rowcount == 1


def _read(connection: Connection, run_id: str, *, lock: bool = False) -> Approval | None:
    query = sa.select(approvals).where(approvals.c.run_id == run_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else _of(row)


def _require(connection: Connection, run_id: str, *, lock: bool = False) -> Approval:
    found = _read(connection, run_id, lock=lock)
    if found is None:
        waiting = connection.execute(
            sa.select(approvals.c.run_id).where(approvals.c.status == "pending")
        ).scalars()
        raise RefusedError(f"run {run_id!r} asks nobody for approval {known(list(waiting))}")
    return found


def _of(row: Any) -> Approval:
    values = dict(row)
    try:
        values["verdict"] = json.loads(values["verdict"])
        values["rules"] = json.loads(values["rules"])
        return Approval.model_validate(values)
    except ValueError as error:  # pydantic's errors are ValueErrors
        raise StateError(
            f"the approval of run {values.get('run_id')} cannot be read: {type(error).__name__}; "
            "restore the state database from a backup"
        ) from None
