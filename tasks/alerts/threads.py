"""Threads of messages: where the first one lies, and what it last said or will say."""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.messages import Notice
from tasks.alerts.outbox import bounded
from tasks.tables import outbox


def run_thread(run_id: str) -> str:
    """Return the name of a run's thread."""
    return bounded(f"run:{run_id}")


def has_root(connection: Connection, thread: str) -> bool:
    """Tell whether a thread was opened, sent or not."""
    query = sa.select(outbox.c.id).where(
        outbox.c.thread == bounded(thread), outbox.c.kind == "open"
    )
    return connection.execute(query.limit(1)).first() is not None


def root_notice(connection: Connection, thread: str) -> Notice | None:
    """Return what a thread's first message says, updates that still wait included."""
    query = (
        sa.select(outbox.c.payload)
        .where(outbox.c.thread == bounded(thread), outbox.c.kind.in_(("open", "update")))
        .order_by(outbox.c.id.desc())
        .limit(1)
    )
    payload = connection.execute(query).scalar()
    kept = None if payload is None else json.loads(payload).get("notice")
    return None if kept is None else Notice.from_dict(kept)
