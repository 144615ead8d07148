"""What a gate tells people, as Slack blocks. Pure: plain values in, JSON out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.alerts.kit import (
    MAX_SECTION,
    MAX_STORED,
    MAX_TEXT,
    MOST_SENTENCES,
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
from tasks.alerts.text import clean, clip, code, mrkdwn, mrkdwn_code, prose, units
from tasks.records import Metrics, Rate, VerdictName

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

#: Failing checks shown in a message; the report has them all.
MOST_FAILURES = 5
#: Further reasons, warnings, deeds and duties shown in a message, each.
MOST_REASONS = MOST_SENTENCES
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
    #: Failure rates, for what users would have felt.
    failure: Rate | None = None
    baseline_failure: Rate | None = None
    #: When the run began and when it decided, as people read it.
    since: str = ""
    decided: str = ""
    #: The run in Prefect's UI.
    run_page: str = ""
    #: The command that puts the baseline back.
    rollback: str = ""
    #: Digest of the baseline, for the button that rolls back.
    baseline_digest: str = ""


def headline(summary: GateSummary) -> str:
    """Return the verdict and what it is about, in foreign characters made harmless."""
    return (
        f"{_EMOJI[summary.verdict]} {summary.verdict}: {clean(summary.candidate_name)} "
        f"for {clean(summary.product)}"
    )


def felt(summary: GateSummary) -> str:
    """Return what users feel, or would have felt, in one sentence."""
    serves = summary.candidate_name if summary.verdict == "PROMOTE" else summary.baseline_name
    rate = summary.failure
    share = None if rate is None or rate.estimate is None else _people(rate.estimate)
    if summary.verdict == "PROMOTE":
        now = "" if share is None else f"; {share} is expected to get a broken image"
        before = summary.baseline_failure
        if now and before is not None and before.estimate is not None:
            now += f", before it was {_people(before.estimate)}"
        return f"all users get {serves} now{now}"
    safe = f"production is unaffected, they get {serves}"
    if summary.verdict == "HOLD" or share is None:
        return safe
    return f"{share} would have got a broken image; {safe}"


def _people(share: float) -> str:
    """Return a share as people picture it, e.g. ``1 of 8 users``."""
    if share <= 0:
        return "no user"
    if share > 0.5:
        return f"{round(share * 10)} of 10 users" if share < 0.95 else "nearly every user"
    return f"1 of {round(1 / share):,} users"


def gate_message(summary: GateSummary) -> SlackMessage:
    """Return the message that a gate sends when it has decided."""
    why = summary.reasons[0] if summary.reasons else "no reason was given"
    blocks = [
        header(headline(summary)),
        section(f"*Users:* {prose(felt(summary), 600)}"),
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
    from tasks.alerts.terminal import render

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
        emoji=_EMOJI[summary.verdict],
        lines=(f"Users: {felt(summary)}.", f"Why: {why}", *_times(summary)),
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


def _duties(summary: GateSummary) -> str:
    done = few(summary.done) or ["nothing changed"]
    asked = few(summary.asked) or ["nothing"]
    half = MAX_SECTION // 2 - 140
    times = " ".join(_times(summary))
    return (
        f"{prose(times, 200)}\n" if times else ""
    ) + f"*Done:* {joined(done, half)}\n*Asked of you:* {joined(asked, half)}"


def _times(summary: GateSummary) -> Iterable[str]:
    if summary.since:
        yield f"Since: {summary.since}" + (
            f", decided {summary.decided}" if summary.decided else ""
        )


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
