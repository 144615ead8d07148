"""Alarms that may repeat: told once, counted while they last, closed when the cause is gone.

Nothing here sends: messages are put into the outbox in the transaction of what they tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.config import RANK, Severity, as_severity
from tasks.alerts.kit import Button
from tasks.alerts.messages import Notice, notice_message, with_status
from tasks.alerts.outbox import bounded, enqueue, packed
from tasks.alerts.threads import root_notice
from tasks.mix.freeze import stamp
from tasks.state import State, within
from tasks.tables import incidents, outbox

#: Topic of the update that shows how often an alarm came; it is sent only so often.
REPEATED = "incident.repeated"


@dataclass(frozen=True, slots=True)
class Incident:
    """One alarm that lasts or lasted."""

    key: str
    number: int
    product: str | None
    severity: str
    title: str
    #: ``open`` or ``resolved``.
    status: str
    count: int
    opened_at: str
    last_at: str
    resolved_at: str | None
    acknowledged_by: str | None
    acknowledged_at: str | None

    @property
    def thread(self) -> str:
        """Name of its thread; a run's alarm lives in the run's own thread."""
        if self.key.startswith("run:"):
            return self.key
        return f"incident:{self.key}#{self.number}"


def raise_alarm(
    state: State | Connection,
    key: str,
    *,
    title: str,
    severity: Severity,
    product: str | None = None,
    lines: Sequence[str] = (),
    asked: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
    brief: str = "",
    now: datetime | None = None,
) -> bool:
    """Open an incident, or count a repetition of the one that is open.

    Args:
        state: The database, or an open transaction on it.
        key: Names the cause, e.g. ``budget:storefront:month:hard``; the same cause, the same key.
        title: What is the matter.
        severity: ``page`` wakes on-call.
        product: The product, for routing.
        lines: What users feel, since when, what was done already.
        asked: What is asked of on-call, with exact commands in backticks.
        links: Words and where they lead: web addresses, paths or commands.
        brief: What a lock screen shows: what is the matter, what users feel, the figure; by
            default the title and the first line.
        now: The present moment; the system's clock by default.

    Returns:
        ``True`` when people are told: the incident is new, or became more severe. A repetition
        only shows as a count in the first message, at most once in the routing's repeat window.
    """
    key, moment = bounded(key), stamp(now or datetime.now(UTC))
    with within(state) as connection:
        before = read_incident(connection, key)
        lasting = before is not None and before.status == "open"
        since = before.opened_at if before is not None and lasting else moment
        notice = Notice(
            title=title,
            severity=severity,
            product=product,
            lines=(*lines, f"Since: {shown_time(since)}"),
            asked=tuple(asked),
            links=tuple(links),
            brief=brief,
            buttons=(Button("acknowledge", product=product, key=key),),
        )
        if before is None or not lasting:
            opened = _open(connection, key, before, notice, moment)
            _tell(connection, opened, "opened", "open", notice)
            return True
        worse = RANK[severity] > RANK.get(before.severity, 0)
        counted = replace(
            before,
            count=before.count + 1,
            last_at=moment,
            severity=severity if worse else before.severity,
            title=title if worse else before.title,
        )
        _write(
            connection,
            key,
            count=counted.count,
            last_at=moment,
            severity=counted.severity,
            title=counted.title,
        )
        if worse:
            _tell(connection, counted, f"worse:{severity}", "reply", notice)
            _tell(connection, counted, f"worse:{severity}:root", "update", notice)
            return True
        _show_count(connection, counted)
        return False


def resolve_alarm(
    state: State | Connection, key: str, *, how: str, now: datetime | None = None
) -> bool:
    """Close an incident and tell so in its thread; ``False`` when none is open.

    Args:
        state: The database, or an open transaction on it.
        key: Key of the incident.
        how: What ended it, as a sentence.
        now: The present moment; the system's clock by default.
    """
    key, moment = bounded(key), stamp(now or datetime.now(UTC))
    with within(state) as connection:
        incident = read_incident(connection, key)
        if incident is None or incident.status != "open":
            return False
        _write(connection, key, status="resolved", resolved_at=moment)
        reply = Notice(
            title=f"RESOLVED: {incident.title}",
            severity=as_severity(incident.severity),
            product=incident.product,
            emoji="✅",
            lines=(how, f"Lasted: {shown_time(incident.opened_at)} to {shown_time(moment)}"),
            mention=False,
        )
        _tell(connection, incident, "resolved", "reply", reply)
        root = root_notice(connection, incident.thread)
        if root is not None and not incident.key.startswith("run:"):
            final = with_status(
                root,
                (f"Resolved {shown_time(moment)}", how, *_count(incident)),
                title=f"RESOLVED: {incident.title}",
                emoji="✅",
                asked=(),
                buttons=(),
                mention=False,
            )
            _tell(connection, incident, "resolved:root", "update", final)
        return True


def acknowledge(
    state: State | Connection, key: str, by: str, *, now: datetime | None = None
) -> bool:
    """Note that a person takes care, and tell so in the thread.

    Args:
        state: The database, or an open transaction on it.
        key: Key of the incident; ``run:<run_id>`` for a run that paged.
        by: Who.
        now: The present moment; the system's clock by default.

    Returns:
        ``False`` when no incident of this key is open, or somebody acknowledged it before.
    """
    key, moment = bounded(key), stamp(now or datetime.now(UTC))
    with within(state) as connection:
        incident = read_incident(connection, key)
        if incident is None or incident.status != "open" or incident.acknowledged_by is not None:
            return False
        _write(connection, key, acknowledged_by=by[:200], acknowledged_at=moment)
        incident = replace(incident, acknowledged_by=by[:200], acknowledged_at=moment)
        reply = Notice(
            title=f"Acknowledged by {by}",
            severity=as_severity(incident.severity),
            product=incident.product,
            emoji="👀",
            lines=(f"At: {shown_time(moment)}",),
            mention=False,
        )
        _tell(connection, incident, "acknowledged", "reply", reply)
        root = root_notice(connection, incident.thread)
        if root is not None:
            kept = root.status if incident.key.startswith("run:") else _count(incident)
            seen = with_status(
                root,
                (*kept, *_acknowledged(incident)),
                buttons=tuple(b for b in root.buttons if b.name != "acknowledge"),
                mention=False,
            )
            _tell(connection, incident, "acknowledged:root", "update", seen)
        return True


def open_incidents(where: State | Connection) -> tuple[Incident, ...]:
    """Return the incidents that are open, oldest first."""
    query = sa.select(incidents).where(incidents.c.status == "open").order_by(incidents.c.opened_at)
    with within(where) as connection:
        return tuple(Incident(**row) for row in connection.execute(query).mappings())


def read_incident(where: State | Connection, key: str) -> Incident | None:
    """Return the newest incident of a key, ``None`` when there never was one."""
    with within(where) as connection:
        query = sa.select(incidents).where(incidents.c.key == bounded(key))
        row = connection.execute(query).mappings().first()
        return None if row is None else Incident(**row)


def book_incident(
    connection: Connection, key: str, notice: Notice, *, now: datetime | None = None
) -> None:
    """Open an incident whose message another module queues (a run that pages); it stays one."""
    key = bounded(key)
    before = read_incident(connection, key)
    if before is None or before.status != "open":
        _open(connection, key, before, notice, stamp(now or datetime.now(UTC)))


def close_incident(connection: Connection, key: str, *, now: datetime | None = None) -> None:
    """Close an incident without a word; whoever closes it tells why."""
    moment = stamp(now or datetime.now(UTC))
    connection.execute(
        sa.update(incidents)
        .where(incidents.c.key == bounded(key), incidents.c.status == "open")
        .values(status="resolved", resolved_at=moment)
    )


def shown_time(moment: str) -> str:
    """Return a stored moment as people read it, to the minute, in UTC."""
    return f"{moment[:10]} {moment[11:16]} UTC"


def _open(
    connection: Connection, key: str, before: Incident | None, notice: Notice, moment: str
) -> Incident:
    values: dict[str, Any] = {
        "number": 1 if before is None else before.number + 1,
        "product": notice.product,
        "severity": notice.severity,
        "title": notice.title,
        "status": "open",
        "count": 1,
        "opened_at": moment,
        "last_at": moment,
        "resolved_at": None,
        "acknowledged_by": None,
        "acknowledged_at": None,
    }
    if before is None:
        connection.execute(sa.insert(incidents).values(key=key, **values))
    else:
        _write(connection, key, **values)
    return Incident(key=key, **values)


def _write(connection: Connection, key: str, **values: Any) -> None:
    connection.execute(sa.update(incidents).where(incidents.c.key == key).values(**values))


def _tell(connection: Connection, incident: Incident, what: str, kind: Any, notice: Notice) -> None:
    enqueue(
        connection,
        f"incident:{incident.key}#{incident.number}:{what}",
        None,
        notice_message(notice).payload(),
        kind=kind,
        thread=incident.thread,
        product=incident.product,
        severity=notice.severity,
        topic=f"incident.{incident.key}",
    )


def _show_count(connection: Connection, incident: Incident) -> None:
    """Let the first message show the count; one update waits at a time, with the newest count."""
    root = root_notice(connection, incident.thread)
    if root is None:
        return
    notice = with_status(root, (*_count(incident), *_acknowledged(incident)))
    payload = notice_message(notice).payload()
    waiting = connection.execute(
        sa.update(outbox)
        .where(
            outbox.c.thread == bounded(incident.thread),
            outbox.c.kind == "update",
            outbox.c.status == "pending",
        )
        .values(payload=packed(payload))
    )
    if waiting.rowcount == 0:
        enqueue(
            connection,
            f"incident:{incident.key}#{incident.number}:count:{incident.count}",
            None,
            payload,
            kind="update",
            thread=incident.thread,
            product=incident.product,
            severity="info",
            topic=REPEATED,
        )


def _count(incident: Incident) -> tuple[str, ...]:
    if incident.count == 1:
        return ()
    return (f"Came {incident.count:,} times, last {shown_time(incident.last_at)}",)


def _acknowledged(incident: Incident) -> tuple[str, ...]:
    if incident.acknowledged_by is None or incident.acknowledged_at is None:
        return ()
    return (f"Acknowledged by {incident.acknowledged_by} {shown_time(incident.acknowledged_at)}",)
