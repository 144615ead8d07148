"""What the messages of a run's thread have in common: their keys, and the first message."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from tasks.alerts.messages import Notice, SlackMessage, notice_message
from tasks.alerts.outbox import Kind, enqueue
from tasks.alerts.threads import has_root, run_thread


def put(
    connection: Connection,
    run_id: str,
    what: str,
    kind: Kind,
    message: SlackMessage,
    notice: Notice,
    topic: str,
    *,
    sheet: str | None = None,
) -> bool:
    """Queue a message for the thread of a run; ``False`` when it was told before.

    Args:
        connection: An open transaction.
        run_id: The run.
        what: Names what is told.
        kind: ``open``, ``reply`` or ``update``.
        message: The message.
        notice: Its product and severity.
        topic: For the routing.
        sheet: Path of the contact sheet.
    """
    return enqueue(
        connection,
        key(run_id, what),
        run_id,
        message.payload(sheet),
        kind=kind,
        thread=run_thread(run_id),
        product=notice.product,
        severity=notice.severity,
        topic=topic,
    )


def put_notice(
    connection: Connection, run_id: str, what: str, kind: Kind, notice: Notice, topic: str
) -> bool:
    """Queue a notice for the thread of a run; ``False`` when it was told before."""
    return put(connection, run_id, what, kind, notice_message(notice), notice, topic)


def show_on_root(connection: Connection, run_id: str, what: str, root: Notice, topic: str) -> bool:
    """Let the first message of a run show how it stands; where there is none, open with it.

    Args:
        connection: An open transaction.
        run_id: The run.
        what: Names what is told by it; the same is shown once.
        root: What it shows now.
        topic: For the routing.
    """
    if has_root(connection, run_thread(run_id)):
        return put_notice(connection, run_id, f"{what}:root", "update", root, topic)
    return put_notice(connection, run_id, "started", "open", root, topic)


def about(root: Notice | None) -> str:
    """Return what a first message is about, e.g. ``summer for shop``; empty when unknown."""
    return "" if root is None else root.title.partition(": ")[2]


def key(run_id: str, what: str) -> str:
    """Return the key of a message of a run's thread."""
    return f"gate:{run_id}:{what}"
