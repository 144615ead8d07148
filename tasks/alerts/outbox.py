"""The outbox: a message is stored with what it tells, and delivered when somebody can be reached.

Delivery is at least once: a process killed between sending and marking leaves a claim, and when
the claim is old the message is sent again. Every message carries its key, so that the second copy
can be told from a second event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.config import Severity
from tasks.records import digest_bytes, utc_now
from tasks.state import State, within
from tasks.tables import outbox

Kind = Literal["open", "reply", "update"]

#: A message in one of these is still owed to people.
UNDELIVERED = ("pending", "sending", "refused")
#: Characters of a key, by its column.
_KEY_CHARS = 200
#: Characters of an error that are kept.
_ERROR_CHARS = 500
_TOKEN = re.compile(r"xox[a-z]*-[A-Za-z0-9-]+|xapp-[A-Za-z0-9-]+|(?i:bearer)\s+\S+")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the outbox."""

    id: int
    dedup_key: str
    run_id: str | None
    channel: str
    payload: Mapping[str, Any]
    #: ``pending``, ``sending``, ``refused`` (given up on), ``delivered``, ``muted`` (below what
    #: the routing sends) or ``superseded`` (a newer update said more).
    status: str
    attempts: int
    last_error: str | None
    created_at: str
    claimed_at: str | None
    delivered_at: str | None
    #: JSON: by which way it went, and where it lies.
    receipt: str | None
    #: ``open``, ``reply`` or ``update``.
    kind: str = "open"
    thread: str | None = None
    product: str | None = None
    severity: str = "info"
    not_before: str | None = None
    topic: str = ""
    refusals: int = 0


def enqueue(
    where: State | Connection,
    dedup_key: str,
    run_id: str | None,
    payload: Mapping[str, Any],
    *,
    kind: Kind = "open",
    thread: str | None = None,
    product: str | None = None,
    severity: Severity = "info",
    topic: str = "",
    channel: str = "slack",
) -> bool:
    """Store a message, best in the transaction of what it tells.

    Args:
        where: The database, or an open transaction on it.
        dedup_key: Names what is told; the same key is told once.
        run_id: The run it is about, if any.
        payload: ``text`` and ``blocks``; see :meth:`tasks.alerts.messages.SlackMessage.payload`.
        kind: ``open`` starts a thread, ``reply`` goes into it, ``update`` rewrites its first
            message (an earlier ``update`` that nobody has seen is dropped for it).
        thread: Name of the thread; messages of one thread are sent in order.
        product: The product it is about, for routing.
        severity: How urgent it is.
        topic: What it is about in a word, e.g. ``gate.hold``; the routing can change its severity.
        channel: The first way to people.

    Returns:
        ``False`` when a message with this key is there already: a resumed run tells nothing twice.
    """
    key = bounded(dedup_key)
    with within(where) as connection:
        known = sa.select(outbox.c.id).where(outbox.c.dedup_key == key)
        if connection.execute(known).first() is not None:
            return False
        if kind == "update" and thread is not None:
            connection.execute(
                sa.update(outbox)
                .where(
                    outbox.c.thread == bounded(thread),
                    outbox.c.kind == "update",
                    outbox.c.status == "pending",
                )
                .values(status="superseded")
            )
        connection.execute(
            sa.insert(outbox).values(
                dedup_key=key,
                run_id=run_id,
                channel=channel,
                payload=packed(payload),
                status="pending",
                attempts=0,
                created_at=utc_now(),
                kind=kind,
                thread=None if thread is None else bounded(thread),
                product=product,
                severity=severity,
                topic=topic[:80],
            )
        )
        return True


def packed(payload: Mapping[str, Any]) -> str:
    """Return a payload as the outbox keeps it."""
    # ASCII only: a lone surrogate that came in by a prompt must not stop an alert.
    return json.dumps(payload, sort_keys=True, allow_nan=False)


def bounded(name: str) -> str:
    """Return a key that fits its column: a long one is cut and told apart by its digest."""
    if len(name) <= _KEY_CHARS:
        return name
    return f"{name[: _KEY_CHARS - 20]}~{digest_bytes(name.encode('utf-8', 'replace'))[7:26]}"


def pending(where: State | Connection) -> tuple[Message, ...]:
    """Return the messages that are not delivered, oldest first."""
    return _messages(where, outbox.c.status.in_(UNDELIVERED))


def messages(where: State | Connection, run_id: str | None = None) -> tuple[Message, ...]:
    """Return all messages, or those of a run, oldest first."""
    return _messages(where, sa.true() if run_id is None else outbox.c.run_id == run_id)


def redact(text: str) -> str:
    """Return an error's text without what looks like a token, cut to a readable length."""
    return _TOKEN.sub("(redacted)", text)[:_ERROR_CHARS]


def _messages(where: State | Connection, rule: sa.ColumnElement[bool]) -> tuple[Message, ...]:
    query = sa.select(outbox).where(rule).order_by(outbox.c.id)
    with within(where) as connection:
        return tuple(as_message(dict(row)) for row in connection.execute(query).mappings())


def as_message(row: Mapping[str, Any]) -> Message:
    """Return a row of the outbox as a message."""
    return Message(**{**row, "payload": json.loads(row["payload"])})
