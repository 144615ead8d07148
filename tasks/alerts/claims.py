"""The outbox from the side of who sends: claim, mark, and how well each way works."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.config import AlertsConfig
from tasks.alerts.outbox import UNDELIVERED, Message, as_message, pending, redact
from tasks.alerts.parcel import AlertError, Anchor, Receipt
from tasks.alerts.queue import Waiting, plan
from tasks.errors import ImagegateError
from tasks.mix.freeze import stamp
from tasks.records import utc_now
from tasks.state import State
from tasks.tables import alert_channels, alert_threads, outbox

#: A claim older than this belongs to a process that died, in seconds.
CLAIM_S = 60.0
#: A claim is renewed so often while its message is on its way, and so many times at the most.
RENEW_S = 20.0
MOST_RENEWALS = 12
#: A message that was refused so often is given up on; people see it in ``imagegate alerts``.
MOST_REFUSALS = 5
#: Failures in a row after which a way gets a pause, and the longest pause in seconds.
PAUSE_AFTER = 3
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """How well one way to people works."""

    failures: int = 0
    failing_since: datetime | None = None
    not_before: datetime | None = None
    #: The pause is the receiver's wish.
    limited: bool = False
    last_error: str | None = None

    def held(self, now: datetime, *, force: bool = False) -> bool:
        """Tell whether nothing may be sent now; ``force`` overrules all but a receiver's wish."""
        if self.not_before is None or self.not_before <= now:
            return False
        return self.limited or not force


def waiting_rows(state: State) -> tuple[list[Waiting], dict[str, str]]:
    """Return the undelivered messages, and when the first message of each thread was written."""
    columns = [outbox.c[name] for name in Waiting.__dataclass_fields__]
    with state.begin() as connection:
        rows = connection.execute(
            sa.select(*columns).where(outbox.c.status.in_(UNDELIVERED)).order_by(outbox.c.id)
        )
        waiting = [Waiting(**row) for row in rows.mappings()]
        threads = {row.thread for row in waiting if row.thread is not None}
        updated: dict[str, str] = {}
        if threads:
            open_threads = sa.select(outbox.c.thread).where(outbox.c.status.in_(UNDELIVERED))
            found = connection.execute(
                sa.select(
                    alert_threads.c.thread,
                    sa.func.coalesce(alert_threads.c.updated_at, alert_threads.c.opened_at),
                ).where(alert_threads.c.thread.in_(open_threads))
            )
            updated = {str(thread): str(at) for thread, at in found}
    return waiting, updated


def overdue(
    state: State, config: AlertsConfig, *, now: datetime, age: timedelta
) -> tuple[Message, ...]:
    """Return the messages that wait for longer than they should, oldest first.

    One that quiet hours held back, or that is not tried again yet, is given its time anew.

    Args:
        state: The database.
        config: The routing.
        now: The present moment.
        age: How long a message may wait.
    """
    rows, updated = waiting_rows(state)
    before = now - age
    held: set[int] = set()
    for moment in (before, now):
        held |= plan(rows, config, updated, now=moment, stale=moment).on_purpose
    return tuple(
        message
        for message in pending(state)
        if message.id not in held
        and max(message.created_at, message.not_before or "") <= stamp(before)
    )


def claim(
    state: State, message_id: int, *, now: datetime, stale: datetime
) -> tuple[Message, Anchor | None] | None:
    """Take a message, so that no other process sends it at the same time.

    A first message or an update takes over what the newest waiting update of its thread says:
    people see the state of now at once, and older states are not sent.

    Returns:
        The message and where its thread begins; ``None`` when another process has it, or an
        earlier message of its thread is not delivered yet.
    """
    with state.begin() as connection:
        row = (
            connection.execute(sa.select(outbox).where(outbox.c.id == message_id))
            .mappings()
            .first()
        )
        if row is None or not _free(row, stale) or not _is_head(connection, row):
            return None
        values: dict[str, Any] = {
            "status": "sending",
            "claimed_at": stamp(now),
            "attempts": row["attempts"] + 1,
        }
        if row["kind"] in ("open", "update") and row["thread"] is not None:
            newer = _fold_updates(connection, row)
            if newer is not None:
                values["payload"] = newer
        connection.execute(sa.update(outbox).where(outbox.c.id == message_id).values(**values))
        message = as_message(dict(row) | values)
        return message, _anchor(connection, message.thread)


def _free(row: sa.RowMapping, stale: datetime) -> bool:
    if row["status"] == "sending":
        return bool((row["claimed_at"] or "") < stamp(stale))
    return bool(row["status"] == "pending")


def _is_head(connection: Connection, row: sa.RowMapping) -> bool:
    if row["thread"] is None:
        return True
    earlier = sa.select(outbox.c.id).where(
        outbox.c.thread == row["thread"],
        outbox.c.id < row["id"],
        outbox.c.status.in_(("pending", "sending")),
    )
    return connection.execute(earlier.limit(1)).first() is None


def _fold_updates(connection: Connection, row: sa.RowMapping) -> str | None:
    """Drop the waiting updates of the thread; return what the newest one says."""
    waiting = sa.and_(
        outbox.c.thread == row["thread"],
        outbox.c.id > row["id"],
        outbox.c.kind == "update",
        outbox.c.status == "pending",
    )
    newest = connection.execute(
        sa.select(outbox.c.payload).where(waiting).order_by(outbox.c.id.desc()).limit(1)
    ).scalar()
    if newest is not None:
        connection.execute(sa.update(outbox).where(waiting).values(status="superseded"))
    return newest


def _anchor(connection: Connection, thread: str | None) -> Anchor | None:
    if thread is None:
        return None
    found = connection.execute(
        sa.select(alert_threads.c.channel, alert_threads.c.ts).where(
            alert_threads.c.thread == thread
        )
    ).first()
    return None if found is None else Anchor(found.channel, found.ts)


@contextmanager
def kept(state: State, message: Message) -> Iterator[None]:
    """Renew the claim while the message is on its way, so that no other process takes it over."""
    done = threading.Event()

    def renew() -> None:
        for _ in range(MOST_RENEWALS):
            if done.wait(RENEW_S):
                return
            try:
                with state.begin() as connection:
                    connection.execute(
                        sa.update(outbox)
                        .where(
                            outbox.c.id == message.id,
                            outbox.c.status == "sending",
                            outbox.c.attempts == message.attempts,
                        )
                        .values(claimed_at=utc_now())
                    )
            except ImagegateError:
                return  # At worst the message is sent twice.

    keeper = threading.Thread(target=renew, name="imagegate-alert-claim", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()


def mark_delivered(state: State, message: Message, receipt: Receipt) -> None:
    """Record that a message arrived; true also when the claim had grown old over it."""
    at = utc_now()
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox)
            .where(outbox.c.id == message.id, outbox.c.status != "delivered")
            .values(
                status="delivered",
                delivered_at=at,
                last_error=None,
                receipt=json.dumps(receipt.to_dict(), sort_keys=True),
            )
        )
        if receipt.anchor is None or message.thread is None:
            return
        place = {"channel": receipt.anchor.channel[:80], "ts": receipt.anchor.ts[:40]}
        found = connection.execute(
            sa.update(alert_threads)
            .where(alert_threads.c.thread == message.thread)
            .values(**place, updated_at=at)
        )
        if found.rowcount == 0:
            connection.execute(
                sa.insert(alert_threads).values(
                    thread=message.thread, **place, opened_at=at, updated_at=at
                )
            )


def mark_failed(state: State, message: Message, error: AlertError, now: datetime) -> str:
    """Give a message back with its error; one that is refused again and again is given up on.

    Returns:
        The error as it is kept.
    """
    text = redact(f"{type(error).__name__}: {error}")
    values: dict[str, Any] = {"status": "pending", "claimed_at": None, "last_error": text}
    if error.trouble == "message":
        # Only refusals count: tries while nobody could be reached say nothing of the message.
        refusals = message.refusals + 1
        wait = min(600, 5 * 2**refusals)
        values |= {"refusals": refusals, "not_before": stamp(now + timedelta(seconds=wait))}
        if refusals >= MOST_REFUSALS:
            values["status"] = "refused"
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox)
            .where(
                outbox.c.id == message.id,
                outbox.c.status == "sending",
                outbox.c.attempts == message.attempts,
            )
            .values(**values)
        )
    return text


def mark_muted(state: State, ids: Sequence[int]) -> None:
    """Record that messages are below what the routing sends."""
    if ids:
        with state.begin() as connection:
            connection.execute(
                sa.update(outbox)
                .where(outbox.c.id.in_(ids), outbox.c.status == "pending")
                .values(status="muted")
            )


def retry_refused(state: State) -> None:
    """Let messages that were given up on be tried again: a person asks for it."""
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox)
            .where(outbox.c.status == "refused")
            .values(status="pending", attempts=0, refusals=0, not_before=None)
        )
        connection.execute(
            sa.update(outbox).where(outbox.c.status == "pending").values(not_before=None)
        )


def read_health(state: State) -> dict[str, Health]:
    """Return how well each way works, by its name."""
    with state.begin() as connection:
        rows = connection.execute(sa.select(alert_channels)).mappings().all()
    return {
        row["name"]: Health(
            row["failures"],
            _moment(row["failing_since"]),
            _moment(row["not_before"]),
            bool(row["limited"]),
            row["last_error"],
        )
        for row in rows
    }


def note_success(state: State, name: str) -> None:
    """Record that a way works."""
    with state.begin() as connection:
        connection.execute(sa.delete(alert_channels).where(alert_channels.c.name == name))


def note_failure(state: State, name: str, error: AlertError, now: datetime) -> Health:
    """Record that a way failed; after several failures, or when it asks for it, it gets a pause."""
    with state.begin() as connection:
        row = (
            connection.execute(sa.select(alert_channels).where(alert_channels.c.name == name))
            .mappings()
            .first()
        )
        failures = 1 if row is None else row["failures"] + 1
        since = stamp(now) if row is None else row["failing_since"]
        pause = None
        limited = error.trouble == "limited"
        if limited:
            pause = timedelta(seconds=error.retry_after or 1.0)
        elif failures >= PAUSE_AFTER:
            pause = timedelta(seconds=min(LONGEST_PAUSE_S, 2.0 ** (failures - 1)))
        until = None if pause is None else stamp(now + pause)
        values = {
            "failures": failures,
            "failing_since": since,
            "not_before": until,
            "limited": limited,
            "last_error": redact(str(error)),
        }
        if row is None:
            connection.execute(sa.insert(alert_channels).values(name=name, **values))
        else:
            connection.execute(
                sa.update(alert_channels).where(alert_channels.c.name == name).values(**values)
            )
    return Health(failures, _moment(since), _moment(until), limited, str(error))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
