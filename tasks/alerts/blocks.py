"""What a message says, as Slack blocks. Pure: plain values in, JSON out.

Slack's limits hold by construction: 50 blocks a message, 3,000 characters a section, 150 a
header. Limits: https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from tasks.alerts.text import clean, clip, mrkdwn, units
from tasks.records import Metrics, Rate, VerdictName

MAX_BLOCKS = 50
MAX_SECTION = 3000
MAX_HEADER = 150
#: Failing checks shown in a message; the report has them all.
MOST_FAILURES = 5
#: Further reasons, warnings, deeds and duties shown in a message, each.
MOST_REASONS = 8
#: Characters of one sentence in a list.
_SENTENCE = 280
_EMOJI: dict[VerdictName, str] = {"PROMOTE": "✅", "ROLLBACK": "⛔", "HOLD": "⏸️"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table before → after, ready to be read."""

    label: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TopFailure:
    """One check that failed in one slice; ``where`` is e.g. ``locale=th``, or empty for all."""

    check: str
    where: str
    failures: int
    images: int

    @property
    def sentence(self) -> str:
        """The failure in words."""
        where = f" in {self.where}" if self.where else ""
        return f"{self.check}{where}: {self.failures} of {self.images} images"


@dataclass(frozen=True, slots=True)
class GateSummary:
    """What a gate tells people."""

    verdict: VerdictName
    product: str
    candidate_name: str
    baseline_name: str
    run_id: str
    #: Sentences, the most important first.
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    top_failures: tuple[TopFailure, ...] = ()
    figures: tuple[Figure, ...] = ()
    #: What was done, and what serves now: "production serves 'summer' (unchanged)".
    done: tuple[str, ...] = ()
    #: What is asked of on-call; empty means nothing.
    asked: tuple[str, ...] = ()
    #: ``https://`` address of the report, or its path.
    report: str = ""
    spend_usd: float | None = None


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """A message: blocks, and the plain text of notifications and of clients without blocks."""

    text: str
    blocks: tuple[dict[str, Any], ...]

    def payload(self, contact_sheet: str | None = None) -> dict[str, Any]:
        """Return what goes into the outbox, with the path of the contact sheet, if any."""
        return {"text": self.text, "blocks": list(self.blocks), "contact_sheet": contact_sheet}


def headline(summary: GateSummary) -> str:
    """Return the verdict and what it is about, in foreign characters made harmless."""
    return (
        f"{_EMOJI[summary.verdict]} {summary.verdict}: {clean(summary.candidate_name)} "
        f"for {clean(summary.product)}"
    )


def gate_message(summary: GateSummary) -> SlackMessage:
    """Return the message that a gate sends when it has decided."""
    why = summary.reasons[0] if summary.reasons else "no reason was given"
    blocks = [
        _header(headline(summary)),
        _section(f"*Why:* {mrkdwn(why, 1500)}"),
        _section(_duties(summary)),
    ]
    if summary.figures:
        blocks.append(_section(_table(summary)))
    blocks += _bullets("Failing most", [f.sentence for f in summary.top_failures[:MOST_FAILURES]])
    blocks += _bullets("Also", _few(summary.reasons[1:]))
    blocks += _bullets("Warnings", _few(summary.warnings))
    blocks.append(_context(_footer(summary)))
    fallback = f"{headline(summary)}. {why}"
    return SlackMessage(mrkdwn(fallback, MAX_SECTION), tuple(blocks[:MAX_BLOCKS]))


def change_message(
    *,
    title: str,
    product: str,
    mix_name: str,
    actor: str,
    reason: str,
    epoch: int,
    seconds: float,
) -> SlackMessage:
    """Return the message about a change of production made by a person.

    Args:
        title: What happened, e.g. ``Rollback``.
        product: Name of the product.
        mix_name: The mix that serves now.
        actor: Who did it.
        reason: Why.
        epoch: Epoch of production after the change.
        seconds: From the trigger until the router was read back.
    """
    head = f"↩️ {clean(title)}: {clean(product)} serves {clean(mix_name)}"
    body = (
        f"*By:* {mrkdwn(actor, 200)}\n*Why:* {mrkdwn(reason, 1500)}\n"
        f"*Verified:* {seconds:.1f} s after the command (epoch {epoch})"
    )
    text = mrkdwn(f"{head}. {reason}", MAX_SECTION)
    return SlackMessage(text, (_header(head), _section(body)))


def metric_figures(metrics: Metrics) -> tuple[Figure, ...]:
    """Return the rows that on-call looks at first: failures, money, latency."""
    before, after = metrics.baseline, metrics.candidate
    return (
        Figure("Failure rate", _rate(before.failure_rate), _rate(after.failure_rate)),
        Figure(
            "Effective cost / 1,000",
            _dollars(before.effective_cost_per_1k_usd),
            _dollars(after.effective_cost_per_1k_usd),
        ),
        Figure("p95 latency", _seconds(before.latency_p95_s), _seconds(after.latency_p95_s)),
    )


def _rate(rate: Rate) -> str:
    if rate.estimate is None:
        return "not measured"
    return f"{rate.estimate:.1%} ({rate.lower:.1%} to {rate.upper:.1%})"


def _dollars(value: float | None) -> str:
    return "not measured" if value is None else f"${value:,.2f}"


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} s"


def table_rows(summary: GateSummary) -> list[str]:
    """Return the table before → after in lines of a monospaced font."""
    rows = [("", "before", "after")]
    rows += [(f.label, f.before, f.after) for f in summary.figures]
    cells = [[clip(clean(cell), 40) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return [
        f"{label:<{widths[0]}}  {before:>{widths[1]}}  {'→' if after != 'after' else ' '}  {after}"
        for label, before, after in cells
    ]


def _few(sentences: Sequence[str]) -> list[str]:
    shown = list(sentences[:MOST_REASONS])
    if len(sentences) > len(shown):
        shown.append(f"and {len(sentences) - len(shown)} more in the report")
    return shown


def _duties(summary: GateSummary) -> str:
    done = _few(summary.done) or ["nothing changed"]
    asked = _few(summary.asked) or ["nothing"]
    half = MAX_SECTION // 2 - 40
    return (
        f"*Done:* {_within('; '.join(mrkdwn(text, _SENTENCE) for text in done), half)}\n"
        f"*Asked of on-call:* {_within('; '.join(mrkdwn(text, _SENTENCE) for text in asked), half)}"
    )


def _within(text: str, room: int) -> str:
    """Cut escaped text between two sentences, so that no escape is cut in two."""
    if units(text) <= room:
        return text
    kept = text.split("; ")
    while kept and units("; ".join([*kept, "…"])) > room:
        kept.pop()
    return "; ".join([*kept, "…"])


def _table(summary: GateSummary) -> str:
    names = f"{mrkdwn(summary.baseline_name, 80)} → {mrkdwn(summary.candidate_name, 80)}"
    # Each line on its own: escaping must not eat the line breaks or shift the columns.
    lines = [mrkdwn_code(row) for row in table_rows(summary)]
    head, tail = f"*Before → after* ({names})\n```\n", "\n```"
    while units(head + "\n".join(lines) + tail) > MAX_SECTION:
        lines.pop()
    return head + "\n".join(lines) + tail


def mrkdwn_code(line: str) -> str:
    """Return a line for a code block: escaped, spaces kept, no backtick that could close it."""
    return "".join(
        {"&": "&amp;", "<": "&lt;", ">": "&gt;", "`": "ʼ"}.get(char, char) for char in line
    ).rstrip()


def _footer(summary: GateSummary) -> list[str]:
    parts = [f"Run {mrkdwn(summary.run_id, 120)}"]
    if summary.report:
        parts.append(_link(summary.report, "Report"))
    if summary.spend_usd is not None:
        parts.append(f"Spent ${summary.spend_usd:,.2f}")
    return parts


def _link(target: str, label: str) -> str:
    """Return a link for a web address; a path is only shown, since Slack cannot open it."""
    if _is_web(target):
        safe = quote(clean(target), safe="/:?=#%+,;@[]~!$()*'&-._")
        if len(safe) <= 1500:
            return f"<{safe.replace('&', '&amp;')}|{label}>"
    return f"{label}: {mrkdwn(target, 600)}"


def _is_web(target: str) -> bool:
    try:
        parts = urlsplit(target)
    except ValueError:  # e.g. a bracket that is never closed
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _header(text: str) -> dict[str, Any]:
    return {
        "type": "header",
        "text": {"type": "plain_text", "text": mrkdwn(text, MAX_HEADER), "emoji": False},
    }


def _section(text: str) -> dict[str, Any]:
    # ``verbatim`` keeps Slack from making links, channels and mentions out of plain words.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _bullets(title: str, sentences: Iterable[str]) -> list[dict[str, Any]]:
    lines = [f"• {mrkdwn(sentence, _SENTENCE)}" for sentence in sentences]
    return [_section(f"*{title}*\n" + "\n".join(lines))] if lines else []


def _context(parts: Iterable[str]) -> dict[str, Any]:
    return {
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": part, "verbatim": True} for part in parts],
    }
