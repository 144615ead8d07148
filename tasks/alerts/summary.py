"""What a gate tells people, in plain values and words; how it is drawn stands elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.alerts.kit import MOST_SENTENCES
from tasks.alerts.text import clean, clip
from tasks.records import Metrics, Rate, VerdictName

#: Failing checks shown in a message; the report has them all.
MOST_FAILURES = 5
#: Further reasons, warnings, deeds and duties shown in a message, each.
MOST_REASONS = MOST_SENTENCES
#: Names the command to roll back where nothing calls for it.
IF_YOU_MUST = "If you must: roll back production"
NO_REASON = "no reason was given"
EMOJI: dict[VerdictName, str] = {"PROMOTE": "✅", "ROLLBACK": "⛔", "HOLD": "⏸️"}


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
    #: What an early decision saved, in a few words; empty when the whole plan was run.
    saved: str = ""
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
    #: True when users had the candidate already and were taken off it.
    rolled_back: bool = False
    #: True when a HOLD waits for a person's word: its first message says so.
    waiting: bool = False
    #: What production serves now; the candidate or the baseline by the verdict when empty.
    serves: str = ""
    #: True when the candidate served before this run, which then only confirms it.
    confirms: bool = False


def headline(summary: GateSummary) -> str:
    """Return the verdict and what it is about, in foreign characters made harmless."""
    return (
        f"{EMOJI[summary.verdict]} {summary.verdict}: {clean(summary.candidate_name)} "
        f"for {clean(summary.product)}"
    )


def felt(summary: GateSummary) -> str:
    """Return what users feel, or would have felt, in one sentence."""
    by_verdict = summary.candidate_name if summary.verdict == "PROMOTE" else summary.baseline_name
    serves = summary.serves or by_verdict
    rate = summary.failure
    share = None if rate is None or rate.estimate is None else _people(rate.estimate)
    if summary.verdict == "PROMOTE":
        now = "" if share is None else f"; {share} is expected to get a broken image"
        before = summary.baseline_failure
        if now and before is not None and before.estimate is not None:
            now += f", {'by the mix before' if summary.confirms else 'before'} it was "
            now += _people(before.estimate)
        if summary.confirms:
            return f"nothing changes for users, they go on with {serves}{now}"
        if serves != summary.candidate_name:
            return f"users go on with {serves}; {summary.candidate_name} begins as a canary{now}"
        return f"all users get {serves} now{now}"
    safe = f"production is unaffected, they get {serves}"
    if summary.rolled_back:
        safe = f"production was rolled back, they get {serves} again"
    if summary.verdict == "HOLD" or share is None:
        return safe
    return f"{share} would have got a broken image; {safe}"


def brief(summary: GateSummary) -> str:
    """Return what a lock screen shows: verdict, what users feel, the figure, in this order."""
    product, candidate = _short(summary.product), _short(summary.candidate_name)
    users = f"{product} production is unaffected"
    if summary.verdict == "PROMOTE":
        users = f"{product} users {'go on with' if summary.confirms else 'get'} {candidate}"
        users += "" if summary.confirms else " now"
        if summary.serves not in ("", summary.candidate_name):
            users = f"{product}: {candidate} begins as a canary"
    elif summary.rolled_back:
        users = f"{product} users are back on {_short(summary.baseline_name)}"
    rate = summary.failure
    if rate is None or rate.estimate is None:
        return f"{summary.verdict}: {users}; {summary.reasons[0] if summary.reasons else NO_REASON}"
    return (
        f"{summary.verdict}: {users}; {rate.estimate:.1%} of {rate.n:,} images of {candidate} "
        "failed"
    )


def _short(name: str) -> str:
    return clip(clean(name), 24)


def done_of(summary: GateSummary) -> tuple[str, ...]:
    """Return what was done."""
    return summary.done or ("nothing changed",)


def asked_of(summary: GateSummary) -> tuple[str, ...]:
    """Return what is asked of on-call; after a rollback that went by itself nothing that wakes."""
    if summary.asked:
        return summary.asked
    if summary.verdict == "ROLLBACK":
        return ("nothing now; read the report in the morning",)
    return ("nothing",)


def _people(share: float) -> str:
    """Return a share as people picture it, e.g. ``1 of 8 users``."""
    if share <= 0:
        return "no user"
    if share > 0.5:
        return f"{round(share * 10)} of 10 users" if share < 0.95 else "nearly every user"
    return f"1 of {round(1 / share):,} users"


def times(summary: GateSummary) -> Iterable[str]:
    """Yield since when, and when it was decided."""
    if summary.since:
        yield f"Since: {summary.since}" + (
            f", decided {summary.decided}" if summary.decided else ""
        )


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
