"""The thread of one gate run: a quiet first message, few replies, and the end of it.

The first message always shows how the run stands. Keys keep a resumed run from telling anything
twice; another verdict tells anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.blocks import GateSummary, gate_message, gate_root
from tasks.alerts.config import Severity
from tasks.alerts.incidents import book_incident, close_incident, shown_time
from tasks.alerts.kit import Button, is_web
from tasks.alerts.links import run_links, word
from tasks.alerts.messages import Notice, SlackMessage, notice_message, with_status
from tasks.alerts.outbox import enqueue
from tasks.alerts.threads import has_root, root_notice, run_thread
from tasks.mix.freeze import stamp
from tasks.settings import Settings
from tasks.state import State, transitions, within


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
        return _put(
            connection, run_id, "started", "open", notice_message(notice), notice, "gate.started"
        )


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
        step: Names what is told, e.g. ``harness`` or ``approval``.
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
    topic = "gate.waiting" if step == "approval" else "gate.progress"
    with within(state) as connection:
        told = _put(
            connection, run_id, f"step:{step}", "reply", notice_message(notice), notice, topic
        )
        root = root_notice(connection, run_thread(run_id))
        if told and status and root is not None:
            now = with_status(root, (status,))
            _put(
                connection,
                run_id,
                f"step:{step}:root",
                "update",
                notice_message(now),
                replace(notice, severity="info"),
                topic,
            )
        return told


def run_waits(
    state: State | Connection,
    run_id: str,
    *,
    product: str,
    because: str,
    until: str,
    links: Sequence[tuple[str, str]] = (),
) -> bool:
    """Tell that a run waits for a person, with both commands and buttons.

    Args:
        state: The database, or an open transaction on it.
        run_id: The run.
        product: Its product.
        because: Why a person is asked, as a sentence.
        until: When the wait ends without a promotion, UTC ISO-8601.
        links: Where to decide, e.g. the form in Prefect's UI.
    """
    return run_progress(
        state,
        run_id,
        product=product,
        step="approval",
        title=f"WAITING for approval: {product}",
        lines=(
            "Users: nothing changes for them until somebody decides.",
            because,
            f"Without an answer it is not promoted after {shown_time(until)}.",
        ),
        asked=(
            f"`imagegate approve {word(run_id)} --why 'seen and good'` or "
            f"`imagegate reject {word(run_id)} --why 'what is wrong'`",
        ),
        links=links,
        severity="warning",
        buttons=(
            Button("approve", run_id=run_id, product=product),
            Button("reject", run_id=run_id, product=product),
        ),
        status=f"Waits for approval until {shown_time(until)}",
    )


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
    with within(state) as connection:
        summary = replace(
            _with_links(connection, settings, summary),
            rolled_back=summary.rolled_back or _changed(connection, run_id, "rollback"),
        )
        opened = _ensure_root(connection, run_id, gate_root(summary), summary.product, topic)
        told = _put(
            connection,
            run_id,
            f"end:{verdict}",
            "reply",
            gate_message(summary),
            Notice(title=verdict, severity=severity, product=summary.product),
            topic,
            sheet=sheet,
        )
        if told:
            if not opened:
                root = gate_root(summary)
                _put(
                    connection,
                    run_id,
                    f"end:{verdict}:root",
                    "update",
                    notice_message(root),
                    replace(root, severity="info"),
                    topic,
                )
            close_incident(connection, f"run:{run_id}")
            if severity == "page":
                alarm = Notice(
                    title=f"ROLLBACK: {summary.candidate_name} for {summary.product}",
                    severity="page",
                    product=summary.product,
                )
                book_incident(connection, f"run:{run_id}", alarm)
    return _key(run_id, f"end:{verdict}")


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
    duties = tuple(asked) or (
        f"see what serves: `imagegate status --product {word(product)}`",
        *((f"then go on: `imagegate run --resume {word(run_id)}`",) if resumable else ()),
    )
    with within(state) as connection:
        notice = Notice(
            title=f"GATE FAILED: {about}",
            severity="page",
            product=product,
            emoji="🚨",
            lines=(
                _left_behind(connection, run_id),
                f"What broke: {what}",
                f"Since: {since}",
                *lines,
            ),
            asked=duties,
            links=run_links(connection, settings, run_id, report=False, rollback=True),
            run_id=run_id,
            buttons=(Button("acknowledge", run_id=run_id, product=product, key=f"run:{run_id}"),),
        )
        # The first message shows the state and wakes nobody; the reply does.
        quiet = replace(notice, mention=False)
        opened = _ensure_root(connection, run_id, quiet, product, "gate.failed")
        told = _put(
            connection, run_id, event, "reply", notice_message(notice), notice, "gate.failed"
        )
        if told:
            if not opened:
                _put(
                    connection,
                    run_id,
                    f"{event}:root",
                    "update",
                    notice_message(quiet),
                    replace(quiet, severity="info"),
                    "gate.failed",
                )
            book_incident(connection, f"run:{run_id}", notice)
        return told


def _left_behind(connection: Connection, run_id: str) -> str:
    """Return what users get after a run that broke; it may have promoted before that."""
    if not _changed(connection, run_id, "promote"):
        return "Users: nothing was promoted by this run; they get what served before."
    return "Users: this run promoted its candidate before it broke; they may get it already."


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


def _ensure_root(
    connection: Connection, run_id: str, root: Notice, product: str, topic: str
) -> bool:
    """Open the thread when nobody has; ``True`` when it was opened here."""
    if has_root(connection, run_thread(run_id)):
        return False
    quiet = replace(root, severity="info", product=product)
    return _put(connection, run_id, "started", "open", notice_message(root), quiet, topic)


def _put(
    connection: Connection,
    run_id: str,
    what: str,
    kind: Any,
    message: SlackMessage,
    notice: Notice,
    topic: str,
    *,
    sheet: str | None = None,
) -> bool:
    return enqueue(
        connection,
        _key(run_id, what),
        run_id,
        message.payload(sheet),
        kind=kind,
        thread=run_thread(run_id),
        product=notice.product,
        severity=notice.severity,
        topic=topic,
    )


def _key(run_id: str, what: str) -> str:
    return f"gate:{run_id}:{what}"
