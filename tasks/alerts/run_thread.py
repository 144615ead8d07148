"""The thread of one gate run: a quiet first message, few replies, and the end of it.

The first message always shows how the run stands. Keys keep a resumed run from telling anything
twice; another verdict tells anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.blocks import GateSummary, gate_message, gate_root
from tasks.alerts.config import Severity
from tasks.alerts.incidents import book_incident, close_incident, shown_time
from tasks.alerts.kit import Button, is_web
from tasks.alerts.links import rollback_command, run_links, word
from tasks.alerts.messages import Notice, with_status
from tasks.alerts.run_parts import key, put, put_notice, show_on_root
from tasks.alerts.threads import has_root, root_notice, run_thread
from tasks.mix.freeze import stamp
from tasks.settings import Settings
from tasks.state import State, within
from tasks.tables import mixes, runs, transitions


def run_started(
    state: State | Connection,
    settings: Settings,
    *,
    run_id: str,
    product: str,
    candidate: str,
    baseline: str = "",
    requester: str = "",
    cases: int | None = None,
    budget_usd: float | None = None,
    now: datetime | None = None,
) -> bool:
    """Open the thread of a run with a quiet message; ``False`` when it is open already.

    Args:
        state: The database, or an open transaction on it.
        settings: Where reports are served.
        run_id: The run.
        product: The product whose production is at stake.
        candidate: Name of the mix that asks to serve.
        baseline: Name of the mix that serves.
        requester: Who asked for the run.
        cases: How many cases are judged.
        budget_usd: What the run may spend at the most.
        now: The present moment; the system's clock by default.
    """
    since = shown_time(stamp(now or datetime.now(UTC)))
    lines = [f"Users: nothing changes for them while the gate runs; they get {baseline}."]
    if not baseline:
        lines = ["Users: nothing changes for them while the gate runs."]
    lines.append(f"Since: {since}" + (f", asked by {requester}" if requester else ""))
    if cases is not None or budget_usd is not None:
        size = [f"{cases:,} cases"] if cases is not None else []
        size += [f"at most ${budget_usd:,.2f}"] if budget_usd is not None else []
        lines.append("Plan: " + ", ".join(size))
    with within(state) as connection:
        notice = Notice(
            title=f"CHECKING: {candidate} for {product}",
            severity="info",
            product=product,
            emoji="🔎",
            lines=tuple(lines),
            links=run_links(connection, settings, run_id, report=False),
            run_id=run_id,
        )
        return put_notice(connection, run_id, "started", "open", notice, "gate.started")


def run_progress(
    state: State | Connection,
    run_id: str,
    *,
    product: str,
    step: str,
    title: str,
    lines: Sequence[str] = (),
    asked: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
    severity: Severity = "info",
    buttons: Sequence[Button] = (),
    status: str | None = None,
) -> bool:
    """Put a reply into the thread of a run; each ``step`` of a run is told once.

    Args:
        state: The database, or an open transaction on it.
        run_id: The run.
        product: Its product, for routing.
        step: Names what is told, e.g. ``harness``.
        title: What is new; its first word is seen first.
        lines: What there is to know.
        asked: What is asked of people.
        links: Words and where they lead.
        severity: ``page`` only for what wakes people.
        buttons: What can be done by a press, e.g. ``Button("approve", run_id=run_id)``.
        status: How the run stands now, for the first message; unchanged without it.

    Returns:
        ``False`` when this step was told before.
    """
    notice = Notice(
        title=title,
        severity=severity,
        product=product,
        lines=tuple(lines),
        asked=tuple(asked),
        links=tuple(links),
        run_id=run_id,
        buttons=tuple(buttons),
    )
    with within(state) as connection:
        told = put_notice(connection, run_id, f"step:{step}", "reply", notice, "gate.progress")
        root = root_notice(connection, run_thread(run_id))
        if told and status and root is not None:
            now = replace(with_status(root, (status,)), severity="info")
            show_on_root(connection, run_id, f"step:{step}", now, "gate.progress")
        return told


def run_ended(
    state: State | Connection,
    settings: Settings,
    summary: GateSummary,
    *,
    contact_sheet: Path | None = None,
) -> str:
    """Tell the verdict as a reply, and let the first message show it.

    Args:
        state: The database, or an open transaction on it.
        settings: Where reports are served.
        summary: What is told.
        contact_sheet: Picture of the pictures that failed.

    Returns:
        The key of the reply, to see whether it went.
    """
    run_id, verdict = summary.run_id, summary.verdict
    sheet = None if contact_sheet is None else str(contact_sheet)
    severity: Severity = {"ROLLBACK": "page", "HOLD": "warning", "PROMOTE": "info"}[verdict]  # type: ignore[assignment]
    topic = f"gate.{verdict.lower()}"
    # The HOLD that only waits for an answer is not the end: the one after a rejection is told too.
    what = f"end:{verdict}:waiting" if summary.waiting else f"end:{verdict}"
    with within(state) as connection:
        summary = replace(
            _with_links(connection, settings, summary),
            rolled_back=summary.rolled_back or _changed(connection, run_id, "rollback"),
        )
        root = gate_root(summary)
        opened = not has_root(connection, run_thread(run_id))
        if opened:
            show_on_root(connection, run_id, what, root, topic)
        told = put(
            connection,
            run_id,
            what,
            "reply",
            gate_message(summary),
            Notice(title=verdict, severity=severity, product=summary.product),
            topic,
            sheet=sheet,
        )
        if told:
            # While it waits the first message says so, and holds the buttons.
            if not opened and not summary.waiting:
                show_on_root(connection, run_id, what, root, topic)
            close_incident(connection, f"run:{run_id}")
            if severity == "page":
                alarm = Notice(
                    title=f"ROLLBACK: {summary.candidate_name} for {summary.product}",
                    severity="page",
                    product=summary.product,
                )
                book_incident(connection, f"run:{run_id}", alarm)
    return key(run_id, what)


def run_failed(
    state: State | Connection,
    settings: Settings,
    *,
    run_id: str,
    product: str,
    what: str,
    event: str = "failed",
    candidate: str = "",
    lines: Sequence[str] = (),
    asked: Sequence[str] = (),
    resumable: bool = True,
    now: datetime | None = None,
) -> bool:
    """Page that the gate itself broke; no verdict, so nothing is known of the candidate.

    Args:
        state: The database, or an open transaction on it.
        settings: Where reports are served.
        run_id: The run.
        product: Its product.
        what: What broke, as a sentence; foreign text.
        event: Tells one failure of a run from another; the same one is told once.
        candidate: Name of the mix that was judged.
        lines: What else there is to know.
        asked: What is asked of on-call; by default to look, and to go on with the run.
        resumable: Whether ``imagegate run --resume`` can go on.
        now: The present moment; the system's clock by default.

    Returns:
        ``False`` when this failure was told before.
    """
    since = shown_time(stamp(now or datetime.now(UTC)))
    about = f"{candidate} for {product}" if candidate else product
    with within(state) as connection:
        promoted = _changed(connection, run_id, "promote")
        before = _before(connection, run_id)
        undo = rollback_command(product, before[0]) if promoted and before else ""
        duties = tuple(asked) or (
            f"see what serves: `imagegate status --product {word(product)}`",
            *((f"then go on: `imagegate run --resume {word(run_id)}`",) if resumable else ()),
        )
        buttons = [Button("acknowledge", run_id=run_id, product=product, key=f"run:{run_id}")]
        if undo and before:
            duties = (f"if users get broken images, roll production back: `{undo}`", *duties)
            to, mix = before
            buttons.append(Button("roll_back", run_id=run_id, product=product, to=to, mix=mix))
        users = "production is unaffected; they get what served before this run"
        felt = "production is unaffected"
        if promoted:
            users = "this run promoted its candidate before it broke; they may get broken images"
            felt = "users may get broken images"
        notice = Notice(
            title=f"GATE FAILED: {about}",
            severity="page",
            product=product,
            emoji="🚨",
            lines=(f"Users: {users}.", f"What broke: {what}", f"Since: {since}", *lines),
            asked=duties,
            links=run_links(connection, settings, run_id, report=False, rollback=not promoted),
            run_id=run_id,
            buttons=tuple(buttons),
            brief=f"GATE FAILED: {product[:24]} {felt}; {what}",
        )
        # The first message shows the state and wakes nobody; the reply does.
        quiet = replace(notice, mention=False, severity="info")
        opened = not has_root(connection, run_thread(run_id))
        if opened:
            show_on_root(connection, run_id, event, quiet, "gate.failed")
        told = put_notice(connection, run_id, event, "reply", notice, "gate.failed")
        if told:
            if not opened:
                show_on_root(connection, run_id, event, quiet, "gate.failed")
            book_incident(connection, f"run:{run_id}", notice)
        return told


def _before(connection: Connection, run_id: str) -> tuple[str, str | None] | None:
    """Return digest and name of the mix that served before a run, ``None`` for an unknown run."""
    row = connection.execute(
        sa.select(runs.c.baseline_digest, mixes.c.name)
        .outerjoin(mixes, runs.c.baseline_digest == mixes.c.digest)
        .where(runs.c.run_id == run_id)
    ).first()
    return None if row is None or not row.baseline_digest else (row.baseline_digest, row.name)


def _changed(connection: Connection, run_id: str, kind: str) -> bool:
    """Tell whether a run moved production to another mix."""
    moved = sa.select(transitions.c.id).where(
        transitions.c.run_id == run_id,
        transitions.c.kind == kind,
        transitions.c.from_digest != transitions.c.to_digest,
    )
    return connection.execute(moved.limit(1)).first() is not None


def _with_links(connection: Connection, settings: Settings, summary: GateSummary) -> GateSummary:
    """Fill in where to read more; a report that is served beats its path."""
    links = dict(run_links(connection, settings, summary.run_id))
    page = summary.run_page or links.get("Run in Prefect", "")
    if is_web(summary.report):
        return replace(summary, run_page=page)
    return replace(summary, run_page=page, report=links["Report"])
