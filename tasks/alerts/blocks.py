"""What a gate tells people, as Slack blocks. Pure: plain values in, JSON out."""

from __future__ import annotations

from tasks.alerts.kit import (
    MAX_SECTION,
    MAX_STORED,
    MAX_TEXT,
    Button,
    bullets,
    context,
    few,
    header,
    is_web,
    joined,
    link,
    section,
)
from tasks.alerts.messages import Notice, SlackMessage, change_message
from tasks.alerts.summary import (
    EMOJI,
    MOST_FAILURES,
    MOST_REASONS,
    Figure,
    GateSummary,
    TopFailure,
    felt,
    headline,
    metric_figures,
    table_rows,
    times,
)
from tasks.alerts.terminal import render
from tasks.alerts.text import code, mrkdwn, mrkdwn_code, prose, units

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
    why = summary.reasons[0] if summary.reasons else "no reason was given"
    blocks = [
        header(headline(summary)),
        section(_users(summary)),
        section(f"*Why:* {prose(why, 1500)}"),
        section(_duties(summary)),
    ]
    if summary.figures:
        blocks.append(section(_table(summary)))
    blocks += bullets("Failing most", [f.sentence for f in summary.top_failures[:MOST_FAILURES]])
    blocks += bullets("Also", summary.reasons[1:])
    blocks += bullets("Warnings", summary.warnings)
    if summary.rollback:
        words = "Undo" if summary.verdict == "PROMOTE" else "Put the baseline back again"
        blocks.append(section(f"*{words}:* {code(summary.rollback)}"))
    blocks.append(context(_footer(summary)))
    fallback = f"{headline(summary)}. {why}"
    return SlackMessage(
        mrkdwn(fallback, MAX_TEXT),
        tuple(blocks[:MAX_STORED]),
        buttons=_buttons(summary),
        plain=render(summary),
    )


def gate_root(summary: GateSummary) -> Notice:
    """Return what the first message of the run's thread shows at the end; it calls nobody."""
    why = summary.reasons[0] if summary.reasons else "no reason was given"
    return Notice(
        title=f"{summary.verdict}: {summary.candidate_name} for {summary.product}",
        severity="info",
        product=summary.product,
        emoji=EMOJI[summary.verdict],
        lines=(f"Users: {felt(summary)}.", f"Why: {why}", *times(summary)),
        asked=summary.asked,
        links=_links(summary),
        run_id=summary.run_id,
        buttons=_buttons(summary),
        mention=False,
    )


def _buttons(summary: GateSummary) -> tuple[Button, ...]:
    run_id, product = summary.run_id, summary.product
    if summary.verdict == "ROLLBACK":
        return (Button("acknowledge", run_id=run_id, product=product, key=f"run:{run_id}"),)
    if summary.verdict == "PROMOTE":
        to = summary.baseline_digest or None
        return (Button("roll_back", run_id=run_id, product=product, to=to),)
    return ()


def _users(summary: GateSummary) -> str:
    return "\n".join(
        [f"*Users:* {prose(felt(summary), 600)}", *(prose(line, 200) for line in times(summary))]
    )


def _duties(summary: GateSummary) -> str:
    done = few(summary.done) or ["nothing changed"]
    asked = few(summary.asked) or ["nothing"]
    half = MAX_SECTION // 2 - 40
    return f"*Done:* {joined(done, half)}\n*Asked of you:* {joined(asked, half)}"


def _table(summary: GateSummary) -> str:
    names = f"{mrkdwn(summary.baseline_name, 80)} → {mrkdwn(summary.candidate_name, 80)}"
    # Each line on its own: escaping must not eat the line breaks or shift the columns.
    lines = [mrkdwn_code(row) for row in table_rows(summary)]
    head, tail = f"*Before → after* ({names})\n```\n", "\n```"
    while units(head + "\n".join(lines) + tail) > MAX_SECTION:
        lines.pop()
    return head + "\n".join(lines) + tail


def _links(summary: GateSummary) -> tuple[tuple[str, str], ...]:
    links = [("Report", summary.report), ("Run in Prefect", summary.run_page)]
    links += [("Rollback", summary.rollback)]
    return tuple((word, target) for word, target in links if target)


def _footer(summary: GateSummary) -> list[str]:
    parts = [f"Run {mrkdwn(summary.run_id, 120)}"]
    if summary.report:
        parts.append(link(summary.report, "Report"))
    if is_web(summary.run_page):
        parts.append(link(summary.run_page, "Run in Prefect"))
    if summary.spend_usd is not None:
        parts.append(f"Spent ${summary.spend_usd:,.2f}")
    return parts
