"""The same message for a terminal: plain text that moves no cursor and sets no colour."""

from __future__ import annotations

from tasks.alerts.summary import (
    MOST_FAILURES,
    MOST_REASONS,
    GateSummary,
    asked_of,
    done_of,
    felt,
    headline,
    table_rows,
)
from tasks.alerts.text import clean, clip

#: Characters of one line that comes from outside.
_LINE = 600


def render(summary: GateSummary) -> str:
    """Return what a gate tells people, in lines."""
    lines = [headline(summary), "", "Users", f"  - {clip(clean(felt(summary)), _LINE)}", ""]
    lines += _list("Why", summary.reasons)
    lines += _list("Done", done_of(summary))
    lines += _list("Asked of on-call", asked_of(summary))
    lines += _list("Failing most", [f.sentence for f in summary.top_failures[:MOST_FAILURES]])
    lines += _list("Warnings", summary.warnings)
    if summary.figures:
        names = f"{clean(summary.baseline_name)} → {clean(summary.candidate_name)}"
        lines += [f"Before → after ({names})"]
        lines += [f"  {row}".rstrip() for row in table_rows(summary)]
        lines += [""]
    if summary.since:
        decided = f", decided {clean(summary.decided)}" if summary.decided else ""
        lines.append(f"Since   {clean(summary.since)}{decided}")
    if summary.spend_usd is not None:
        saved = f", saved {clip(clean(summary.saved), _LINE)}" if summary.saved else ""
        lines.append(f"Spent   ${summary.spend_usd:,.2f}{saved}")
    lines.append(f"Run     {clean(summary.run_id)}")
    if summary.report:
        lines.append(f"Report  {clean(summary.report)}")
    if summary.run_page:
        lines.append(f"Prefect {clean(summary.run_page)}")
    if summary.rollback:
        lines.append(f"Undo    {clean(summary.rollback)}")
    return "\n".join(lines)


def _list(title: str, sentences: tuple[str, ...] | list[str]) -> list[str]:
    shown = [f"  - {clip(clean(text), _LINE)}" for text in sentences[:MOST_REASONS]]
    if len(sentences) > MOST_REASONS:
        shown.append(f"  - and {len(sentences) - MOST_REASONS} more in the report")
    return [title, *shown, ""] if shown else []
