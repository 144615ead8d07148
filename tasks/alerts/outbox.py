"""The outbox: a message is stored with what it tells, and delivered when Slack is there.

Delivery is at least once: a process killed between sending and marking leaves a claim, and when
the claim is old the message is sent again. Every message carries its key, so that the second copy
can be told from a second event.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.config import Severity
from tasks.errors import ImagegateError
from tasks.mix.freeze import stamp
from tasks.records import digest_bytes, utc_now
from tasks.state import State, outbox, within

Kind = Literal["open", "reply", "update"]

#: A claim older than this belongs to a process that died, in seconds.
CLAIM_S = 60.0
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
    #: ``pending``, ``sending`` or ``delivered``.
    status: str
    attempts: int
    last_error: str | None
    created_at: str
    claimed_at: str | None
    delivered_at: str | None
    #: What the receiver gave as the address of the message.
    receipt: str | None
    #: ``open``, ``reply`` or ``update``.
    kind: str = "open"
    thread: str | None = None
    product: str | None = None
    severity: str = "info"
    not_before: str | None = None
    topic: str = ""


class Sender(Protocol):
    """Whatever carries a message to people."""

    def send(self, message: Message) -> str:
        """Send it and return the receipt.

        Raises:
            Exception: It was not sent; the text is kept with the message, secrets removed.
        """
        ...


@dataclass(slots=True)
class DeliveryReport:
    """What one delivery did."""

    delivered: list[str] = field(default_factory=list)
    #: Error by key of the message.
    failed: dict[str, str] = field(default_factory=dict)
    #: Messages that are still to be sent, the failed ones among them.
    left: int = 0
    #: True when the time ran out while a message was on its way; it may still arrive.
    late: bool = False


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


def deliver(
    state: State,
    sender: Sender,
    *,
    now: datetime | None = None,
    limit: int = 20,
    deadline_s: float = 10.0,
    claim_s: float = CLAIM_S,
) -> DeliveryReport:
    """Send what is pending, and come back within ``deadline_s`` seconds whatever Slack does.

    Messages that failed least often go first, so that one that can never be sent holds up none.
    Each is tried once a call. The sending goes on in a thread of its own: when the time is over
    that thread is left to finish or to fail alone, and its message stays claimed until then.

    Args:
        state: The database.
        sender: Carries the messages.
        now: The present moment; the system's clock by default.
        limit: Messages to send at the most.
        deadline_s: Seconds until the call returns at the latest.
        claim_s: Claims older than this are taken over, in seconds.
    """
    clock = now or datetime.now(UTC)
    stale = clock - timedelta(seconds=claim_s)
    until = time.monotonic() + deadline_s
    work = _Delivery(state, sender, now=clock, stale=stale, limit=limit, until=until)
    thread = threading.Thread(target=work.run, name="imagegate-alerts", daemon=True)
    thread.start()
    thread.join(deadline_s)
    report = work.leave()
    report.left = len(pending(state))
    return report


class _Delivery:
    """One delivery, run in its own thread."""

    def __init__(
        self,
        state: State,
        sender: Sender,
        *,
        now: datetime,
        stale: datetime,
        limit: int,
        until: float,
    ) -> None:
        self._state, self._sender = state, sender
        self._now, self._stale = now, stale
        self._limit, self._until = limit, until
        self._report = DeliveryReport()
        self._lock = threading.Lock()
        self._busy = True

    def run(self) -> None:
        """Claim, send and mark one message after the other until nothing or no time is left."""
        tried: set[int] = set()
        try:
            while len(tried) < self._limit and time.monotonic() < self._until:
                message = _claim(self._state, self._now, self._stale, tried)
                if message is None:
                    break
                tried.add(message.id)
                self._send(message)
        except ImagegateError as error:
            with self._lock:
                self._report.failed["outbox"] = redact(str(error))
        finally:
            with self._lock:
                self._busy = False

    def leave(self) -> DeliveryReport:
        """Return the report as it stands; what comes later is only in the database."""
        with self._lock:
            return DeliveryReport(
                list(self._report.delivered), dict(self._report.failed), late=self._busy
            )

    def _send(self, message: Message) -> None:
        try:
            receipt = self._sender.send(message)
        except Exception as error:  # noqa: BLE001 - whatever a sender does, the next one is sent
            text = redact(f"{type(error).__name__}: {error}")
            _mark(self._state, message, status="pending", claimed_at=None, last_error=text)
            with self._lock:
                self._report.failed[message.dedup_key] = text
        else:
            _mark(
                self._state,
                message,
                status="delivered",
                delivered_at=utc_now(),
                last_error=None,
                receipt=receipt,
            )
            with self._lock:
                self._report.delivered.append(message.dedup_key)


def redact(text: str) -> str:
    """Return an error's text without what looks like a token, cut to a readable length."""
    return _TOKEN.sub("(redacted)", text)[:_ERROR_CHARS]


def _claim(state: State, now: datetime, stale: datetime, tried: set[int]) -> Message | None:
    """Take the next message, so that no other process sends it at the same time."""
    free = sa.or_(
        outbox.c.status == "pending",
        sa.and_(outbox.c.status == "sending", outbox.c.claimed_at < stamp(stale)),
    )
    query = (
        sa.select(outbox)
        .where(free, outbox.c.id.not_in(tried))
        .order_by(outbox.c.attempts, outbox.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    with state.begin() as connection:
        row = connection.execute(query).mappings().first()
        if row is None:
            return None
        claim = {"status": "sending", "claimed_at": stamp(now), "attempts": row["attempts"] + 1}
        connection.execute(sa.update(outbox).where(outbox.c.id == row["id"]).values(**claim))
        return _message(dict(row) | claim)


def _mark(state: State, message: Message, **values: str | None) -> None:
    """Record the end of a sending; one that another process took over meanwhile is left to it."""
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox)
            .where(
                outbox.c.id == message.id,
                # Delivered is delivered, also when the claim had grown old over it.
                outbox.c.attempts == message.attempts
                if values["status"] == "pending"
                else outbox.c.status != "delivered",
            )
            .values(**values)
        )


def _messages(where: State | Connection, rule: sa.ColumnElement[bool]) -> tuple[Message, ...]:
    query = sa.select(outbox).where(rule).order_by(outbox.c.id)
    with within(where) as connection:
        return tuple(_message(dict(row)) for row in connection.execute(query).mappings())


def _message(row: Mapping[str, Any]) -> Message:
    return Message(**{**row, "payload": json.loads(row["payload"])})
