"""What is known and kept about clicks: the facts behind a button, and what became of a press."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.interactive.decide import Click, Facts, RunFact
from tasks.mix.production import (
    CHANGES,
    Production,
    journal_of,
    previous_digest,
    read_production,
)
from tasks.records import utc_now
from tasks.state import State
from tasks.tables import alert_threads, heartbeats, incidents, runs, slack_clicks

Outcome = Literal["done", "refused", "failed"]

#: Name of the listener's sign of life.
LISTENER = "slack-listener"


def take(state: State, click: Click) -> bool:
    """Book a click before it is acted on; ``False`` when another delivery of it was booked."""
    with state.begin() as connection:
        known = sa.select(slack_clicks.c.click).where(slack_clicks.c.click == click.key)
        if connection.execute(known).first() is not None:
            return False
        try:
            with connection.begin_nested():
                connection.execute(
                    sa.insert(slack_clicks).values(
                        click=click.key,
                        action=click.action_id.removeprefix("imagegate_"),
                        user_id=click.user_id,
                        about=click.value,
                        at=utc_now(),
                        status="taken",
                    )
                )
        except sa.exc.IntegrityError:
            return False  # Another listener got the same delivery at the same moment.
    return True


def book(state: State, click: Click, outcome: Outcome, sentence: str) -> None:
    """Keep what became of a click."""
    with state.begin() as connection:
        connection.execute(
            sa.update(slack_clicks)
            .where(slack_clicks.c.click == click.key)
            .values(status=outcome, outcome=sentence)
        )


def facts_of(state: State, click: Click) -> Facts:
    """Return what our records say about the run, alarm, thread and production of a click."""
    about = click.about
    with state.begin() as connection:
        run = _run(connection, about.run_id)
        incident = connection.execute(
            sa.select(incidents.c.product).where(incidents.c.key == about.key)
        ).first()
        thread = connection.execute(
            sa.select(alert_threads.c.thread).where(
                alert_threads.c.channel == click.channel, alert_threads.c.ts == click.thread_ts
            )
        ).scalar()
        product = run.product if run else about.product or (incident and incident.product) or ""
        pointer = read_production(connection, product)
        journal = journal_of(connection, product) if pointer else ()
        return Facts(
            run=run,
            incident=incident is not None,
            incident_product=incident.product if incident else None,
            thread=thread or "",
            serves=pointer.mix_digest if pointer else None,
            before=_before(connection, pointer),
            served=frozenset(change.to_digest for change in journal if change.kind in CHANGES),
            epoch=pointer.epoch if pointer else 0,
            changed_at=_seconds(pointer.changed_at) if pointer else 0.0,
        )


def _before(connection: Connection, pointer: Production | None) -> str | None:
    """Return what a rollback without a name means: while a canary is on, production alone."""
    if pointer is None:
        return None
    if pointer.candidate_digest is not None:
        return pointer.mix_digest
    return previous_digest(connection, pointer.product)


def beat(state: State, detail: str) -> None:
    """Note that the listener lives and is connected."""
    values = {"at": utc_now(), "detail": detail}
    with state.begin() as connection:
        found = connection.execute(
            sa.update(heartbeats).where(heartbeats.c.name == LISTENER).values(**values)
        )
        if found.rowcount == 0:
            connection.execute(sa.insert(heartbeats).values(name=LISTENER, **values))


def leave(state: State, detail: str) -> None:
    """Take the sign of life away: a listener that was stopped on purpose is not missed."""
    with state.begin() as connection:
        # Only its own: another listener may have taken over.
        connection.execute(
            sa.delete(heartbeats).where(
                heartbeats.c.name == LISTENER, heartbeats.c.detail == detail
            )
        )


def _run(connection: Connection, run_id: str) -> RunFact | None:
    row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None:
        return None
    return RunFact(row.product, row.candidate_digest, row.baseline_digest)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
