"""What a gate tells people, as Slack blocks. Pure: plain values in, JSON out."""

from __future__ import annotations

from typing import Any

from tasks.alerts.kit import (
    MAX_SECTION,
    MAX_STORED,
    MAX_TEXT,
    Button,
    bullets,
    context,
    few,
    fields,
    header,
    is_web,
    joined,
    link,
    section,
)
from tasks.alerts.messages import Notice, SlackMessage, change_message
from tasks.alerts.summary import (
    EMOJI,
    IF_YOU_MUST,
    MOST_FAILURES,
    MOST_REASONS,
    NO_REASON,
    Figure,
    GateSummary,
    TopFailure,
    asked_of,
    brief,
    done_of,
    felt,
    headline,
    metric_figures,
    table_rows,
    times,
)
from tasks.alerts.terminal import render
from tasks.alerts.text import code, mrkdwn, prose

__all__ = [
    "MOST_FAILURES",
    "MOST_REASONS",
    "Figure",
    "GateSummary",
    "SlackMessage",
    "TopFailure",
    "change_message",
    "felt",
    "gate_message",
    "gate_root",
    "headline",
    "metric_figures",
    "table_rows",
]


def gate_message(summary: GateSummary) -> SlackMessage:
    """Return the message that a gate sends when it has decided."""
    blocks = [
        header(headline(summary)),
        section(_users(summary)),
        section(_duties(summary)),
        section(f"*Why:* {prose(_why(summary), 1500)}"),
    ]
    if summary.figures:
        blocks += _table(summary)
    blocks += bullets("Failing most", [f.sentence for f in summary.top_failures[:MOST_FAILURES]])
    blocks += bullets("Also", summary.reasons[1:])
    blocks += bullets("Warnings", summary.warnings)
    if summary.rollback and summary.verdict == "PROMOTE":
        blocks.append(section(f"*Undo:* {code(summary.rollback)}"))
    blocks.append(context(_footer(summary)))
    return SlackMessage(
        mrkdwn(f"{EMOJI[summary.verdict]} {brief(summary)}", MAX_TEXT),
        tuple(blocks[:MAX_STORED]),
        # A button in a reply stays for ever; the first message drops it when it is used up. Only
        # what stands in the channel by itself carries the button too: a page.
        buttons=_buttons(summary) if summary.verdict == "ROLLBACK" else (),
        plain=render(summary),
        call="" if summary.asked else "paged for your knowledge; nothing is asked of you now.",
    )


def gate_root(summary: GateSummary) -> Notice:
    """Return what the first message of the run's thread shows at the end; it calls nobody."""
    moved = summary.verdict == "PROMOTE"
    return Notice(
        title=f"{summary.verdict}: {summary.candidate_name} for {summary.product}",
        severity="info",
        product=summary.product,
        emoji=EMOJI[summary.verdict],
        lines=(
            f"Users: {felt(summary)}.",
            *times(summary),
            f"Done: {_flat(done_of(summary))}",
            f"Asked of you: {_flat(asked_of(summary))}",
            f"Why: {_why(summary)}",
            *((f"Undo: `{summary.rollback}`",) if moved and summary.rollback else ()),
        ),
        links=_links(summary),
        run_id=summary.run_id,
        buttons=_buttons(summary),
        mention=False,
        brief=brief(summary),
    )


def _why(summary: GateSummary) -> str:
    return summary.reasons[0] if summary.reasons else NO_REASON


def _flat(sentences: tuple[str, ...]) -> str:
    return "; ".join(few(sentences))


def _buttons(summary: GateSummary) -> tuple[Button, ...]:
    run_id, product = summary.run_id, summary.product
    if summary.verdict == "ROLLBACK":
        return (Button("acknowledge", run_id=run_id, product=product, key=f"run:{run_id}"),)
    if summary.verdict == "PROMOTE":
        to, mix = summary.baseline_digest or None, summary.baseline_name
        return (Button("roll_back", run_id=run_id, product=product, to=to, mix=mix),)
    return ()


def _users(summary: GateSummary) -> str:
    since = [f"*Since:* {prose(line.removeprefix('Since: '), 200)}" for line in times(summary)]
    return "\n".join([f"*Users:* {prose(felt(summary), 600)}.", *since])


def _duties(summary: GateSummary) -> str:
    half = MAX_SECTION // 2 - 40
    return (
        f"*Done:* {joined(done_of(summary), half)}\n"
        f"*Asked of you:* {joined(asked_of(summary), half)}"
    )


def _table(summary: GateSummary) -> list[dict[str, Any]]:
    """Return before and after of each figure beside each other; a phone breaks no line of it."""
    names = f"{mrkdwn(summary.baseline_name, 80)} → {mrkdwn(summary.candidate_name, 80)}"
    shown = [
        f"*{mrkdwn(figure.label, 80) or '…'}*\n{_cell(figure.before)}\n→ *{_cell(figure.after)}*"
        for figure in summary.figures
    ]
    return [section(f"*Before → after* ({names})"), fields(shown)]


def _cell(value: str) -> str:
    """Return a value whose interval stays together when a phone breaks the line before it."""
    return mrkdwn(value, 80).replace(" to ", "\u00a0to\u00a0") or "…"


def _links(summary: GateSummary) -> tuple[tuple[str, str], ...]:
    links = [("Report", summary.report), ("Run in Prefect", summary.run_page)]
    if summary.verdict != "PROMOTE":
        links += [(IF_YOU_MUST, summary.rollback)]
    return tuple((word, target) for word, target in links if target)


def _footer(summary: GateSummary) -> list[str]:
    parts = [f"Run {mrkdwn(summary.run_id, 120)}"]
    if summary.spend_usd is not None:
        saved = f", saved {mrkdwn(summary.saved, 120)}" if summary.saved else ""
        parts.append(f"Spent ${summary.spend_usd:,.2f}{saved}")
    shown = [(word, to) for word, to in _links(summary) if to != summary.run_page or is_web(to)]
    return parts + [link(to, word) for word, to in shown]
