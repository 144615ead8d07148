"""What people hear of a rollback, in the transaction that records it as verified."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from tasks.alerts.messages import change_message
from tasks.alerts.outbox import enqueue
from tasks.mix.production import MOVES, journal_of
from tasks.rollout.decision import RolloutResult


def tell_rollback(connection: Connection, done: RolloutResult) -> None:
    """Queue the message about a rollback that the router has shown; once for each epoch.

    By the journal, so that it does not matter who finishes a rollback: the one who asked for it,
    or a reconcile after their process was killed. What a gate's run did is told in its own thread.
    """
    lines = [c for c in journal_of(connection, done.product) if c.kind in MOVES]
    if not lines or lines[-1].kind != "rollback" or lines[-1].run_id is not None:
        return
    line = lines[-1]
    message = change_message(
        title="Rollback",
        product=done.product,
        mix_name=done.mix_name,
        actor=line.actor,
        reason=line.reason,
        epoch=done.epoch,
        seconds=done.seconds,
    )
    enqueue(
        connection,
        f"rollback:{done.product}:{done.epoch}",
        None,
        message.payload(),
        thread=f"change:{done.product}:{done.epoch}",
        product=done.product,
        severity="warning",
        topic="change.rollback",
    )
