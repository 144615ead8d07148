"""How the evidence grew, look by look, and what each test shows at the end: words and tables.

Everything is read off the verdict: nothing is tested again here. Evidence is told as a share of the
proof that the policy asks for, on the scale on which it grows evenly with the images (logarithms):
100 % is a complete proof, 0 % says nothing, and what speaks for the contrary is 0 % too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tasks.evidence import charts
from tasks.evidence.growth_chart import Point, growth_chart
from tasks.evidence.text import visible
from tasks.evidence.view import ReportView
from tasks.records import Look, Rate, Savings, SequentialResult, Verdict

NONE = "–"

#: What an interval of the report means, in one sentence.
INTERVALS = (
    "Every interval is a 95 % confidence sequence: it holds at every look at once, so it holds "
    "although the run ended just when its evidence was strong enough. A proof needs one end only, "
    "at a risk of its own, so it can be complete while the interval still touches the limit."
)


def proven(evidence: float | None, needed: float | None) -> float | None:
    """Return evidence as a share of the proof, 0 at the least; ``None`` where none is asked for."""
    if evidence is None or needed is None or needed <= 0:
        return None
    return max(0.0, evidence / needed)


def share_words(share: float | None) -> str:
    """Return a share of a proof in words; one that is nearly complete is not called complete."""
    if share is None:
        return NONE
    if share >= 1:
        return "proven"
    return "none" if share < 0.005 else f"{min(99, round(100 * share))} % of the proof"


def images_words(images: int, planned: int) -> str:
    """Return how many cases count, e.g. ``72 of 600 planned cases``."""
    if images == planned:
        return f"{images:,} cases"
    return f"{images:,} of {planned:,} planned cases"


def decided_words(verdict: Verdict, images: int, planned: int, extra: int = 0) -> str:
    """Return how many cases the verdict rests on, and why these are not all of the plan.

    Args:
        verdict: The verdict.
        images: Cases of the headline sample that count.
        planned: Cases of the plan.
        extra: Extra cases of slices that looked bad.
    """
    words = images_words(images, planned)
    if verdict.savings is not None:
        words += ", decided early"
    return f"{words}, and {extra:,} extra of slices that looked bad" if extra else words


def saved_words(savings: Savings | None) -> str:
    """Return what an early decision saved in a few words, or nothing."""
    if savings is None:
        return ""
    return (
        f"${savings.usd:,.2f} and {savings.images:,} images saved: "
        f"{savings.decided:,} of {savings.planned:,} planned cases decided it"
    )


def growth(view: ReportView) -> dict[str, Any]:
    """Return the chart of the looks with its table, and the tests at the end."""
    rows = [_test(view, test) for test in view.verdict.tests]
    first = [row for row in rows if row["first"]]
    looks = _looks(view.verdict)
    points = _points(view.verdict)
    return {
        "chart": growth_chart(points, _in_words(view.verdict, points)) if points else Markup(""),
        "looks": looks,
        "amber": any(p.amber for p in points),
        "extra": any(p.after_extra for p in points),
        "tests": sorted(first, key=lambda row: row["order"]),
        "more": sorted((row for row in rows if not row["first"]), key=lambda row: row["order"]),
        "decider": _decider(view),
        "intervals": INTERVALS,
        "notes": _notes(view),
    }


def _headline(verdict: Verdict) -> SequentialResult | None:
    return next((test for test in verdict.tests if test.kind == "headline"), None)


def _shares(look: Look, test: SequentialResult) -> tuple[float, float]:
    """Return a look's evidence for rolling back and for promoting, as shares of the proofs."""
    return (
        proven(look.log_e_fail, test.fail_at) or 0.0,
        proven(look.log_e_pass, test.pass_at) or 0.0,
    )


def _points(verdict: Verdict) -> list[Point]:
    test = _headline(verdict)
    if test is None:
        return []
    points, before = [], 0
    for number, look in enumerate(verdict.looks, 1):
        against, favour = _shares(look, test)
        last = number == len(verdict.looks)
        settled = last and look.verdict != "HOLD"
        told = f"look {look.shards}: {look.failures:,} of {look.images:,} failed"
        if look.amber:
            told += f"; {', '.join(map(visible, look.amber))} looked bad"
        points.append(
            Point(
                images=look.images,
                against=against,
                favour=favour,
                title=told,
                amber=bool(look.amber),
                after_extra=look.images == before and number > 1,
                decided=f"decided: {look.verdict}" if settled else "",
            )
        )
        before = look.images
    return points


def _looks(verdict: Verdict) -> list[dict[str, Any]]:
    """Return the looks as rows."""
    test = _headline(verdict)
    rows, before = [], -1
    for look in verdict.looks:
        against, favour = (None, None) if test is None else _shares(look, test)
        notes = [f"{visible(name)} looked bad" for name in look.amber]
        if look.images == before:
            notes.insert(0, "after extra cases")
        rows.append(
            {
                "number": look.shards,
                "images": f"{look.images:,}",
                "failures": f"{look.failures:,}",
                "against": share_words(against),
                "favour": share_words(favour),
                "note": "; ".join(notes) or NONE,
                "verdict": "went on" if look.verdict == "HOLD" else look.verdict,
            }
        )
        before = look.images
    return rows


def _in_words(verdict: Verdict, points: Sequence[Point]) -> str:
    """Return the chart for whoever cannot see it."""
    last = points[-1]
    count = f"{len(points)} look" + ("" if len(points) == 1 else "s")
    troubled = sum(p.amber for p in points)
    amber = f"; slices looked bad at {troubled} of them" if troubled else ""
    end = last.decided or "no look decided it"
    return (
        f"Evidence over images in {count}{amber}. At the last, after {last.images:,} images: "
        f"for rolling back {share_words(last.against)}, for promoting "
        f"{share_words(last.favour)}; {end}. The table of looks below has every figure."
    )


def _decider(view: ReportView) -> str:
    """Return what a reader wonders about when the lines of the headline did not decide."""
    verdict = view.verdict
    test = _headline(verdict)
    if test is None:
        return "This verdict keeps no sequential tests."
    if not verdict.looks:
        return "The data were looked at once, at the end of the plan."
    failed = [_name(view, t) for t in verdict.tests if t.failed and t.kind != "headline"]
    if failed and not test.failed:
        return f"The failure rate alone did not decide; what did: {'; '.join(failed)}."
    if verdict.verdict == "HOLD" and test.passed:
        return "The failure rate is good enough; something else is missing, see Why."
    return ""


def _notes(view: ReportView) -> list[str]:
    """Return what else a reader must know about what was counted."""
    verdict, candidate = view.verdict, view.metrics.candidate
    notes = []
    if verdict.savings is not None:
        saved = verdict.savings
        under_way = saved.used - saved.decided - candidate.extra_images
        more = (
            f" {under_way:,} more were under way at that moment; they are paid and count nowhere."
            if under_way > 0
            else ""
        )
        notes.append(
            f"Every figure here is of the {saved.decided:,} cases that decided it, of "
            f"{saved.planned:,} planned.{more}"
        )
    if candidate.extra_images:
        notes.append(
            f"{candidate.extra_images:,} extra cases were drawn because their slice looked bad. "
            "They count in that slice, in the checks, in the gallery and in the spend; never in "
            "the failure rate, in other slices, in costs, latencies and accounts."
        )
    return notes


def _name(view: ReportView, test: SequentialResult) -> str:
    """Return what a test is about, as people call it."""
    if test.kind == "headline":
        return "Failure rate"
    if test.kind == "paired":
        return "Against the baseline"
    if test.kind == "slice":
        return visible(test.name)
    limits = view.plan.policy.limits
    for place, limit in enumerate(limits):
        if f"limits[{place}]" == test.name:
            return f"{limit.measure.replace('_', ' ')} at most {limit.max:g}"
    return visible(test.name)


def _test(view: ReportView, test: SequentialResult) -> dict[str, Any]:
    """Return one test as a row."""
    against = proven(test.log_e_fail, test.fail_at)
    favour = proven(test.log_e_pass, test.pass_at) if test.below is not None else None
    critical = test.kind == "slice" and test.below is not None
    looks_bad = test.amber and not test.failed
    kinds = ("headline", "paired", "guard", "slice")
    return {
        "name": _name(view, test),
        "tags": [w for w, said in (("critical", critical), ("looks bad", looks_bad)) if said],
        "limits": _limits(view, test),
        "images": f"{test.images:,}",
        "failures": _failures(view, test),
        "interval": _interval(view, test),
        "against": share_words(against),
        "against_state": "breached" if test.failed else "",
        "favour": share_words(favour),
        "favour_state": "kept" if test.passed else "",
        "needed": _needed(test),
        "first": test.kind != "slice" or critical or test.amber or test.failed,
        "order": (
            kinds.index(test.kind),
            not test.failed,
            not test.amber,
            -(against or 0.0),
            test.name,
        ),
    }


def _limits(view: ReportView, test: SequentialResult) -> str:
    """Return what is to be proven, in short."""
    if test.kind == "guard" or test.limit is None:
        return ""
    policy = view.plan.policy
    if test.kind == "paired":
        above = f"rolled back when worse by {charts.round_percent(test.limit)}"
        return above if test.below is None else f"{above}, promoted when proven not to be"
    limit = policy.slices.limit if test.kind == "slice" else policy.failure.limit
    above = f"rolled back above {charts.round_percent(limit)}"
    if test.limit > limit + 1e-9:
        above += (
            f" (proven on {charts.percent(test.limit)}, since checks accuse some good pictures)"
        )
    if test.below is None:
        return above
    asked = policy.failure.promote_below
    if test.kind == "slice":
        asked = policy.slices.critical_below
    words = f"{above}, promoted below {charts.round_percent(asked)}"
    if test.below < asked - 1e-9:
        words += f" (proven on {charts.percent(test.below)}, since the checks miss some defects)"
    return words


def _failures(view: ReportView, test: SequentialResult) -> str:
    paired = view.metrics.paired
    if test.kind == "paired" and paired is not None:
        return f"{paired.candidate_only} new, {paired.baseline_only} mended"
    return NONE if test.kind == "guard" or test.failures is None else f"{test.failures:,}"


def _interval(view: ReportView, test: SequentialResult) -> str:
    """Return the interval of a test; where it keeps none, the one of the figures."""
    if test.lower is not None and test.upper is not None:
        if test.kind == "paired":
            return f"{100 * test.lower:+.1f} to {100 * test.upper:+.1f} points".replace("-", "−")
        return f"{charts.percent(test.lower)} to {charts.percent(test.upper)}"
    rate = _slice_rate(view, test.name) if test.kind == "slice" else None
    if rate is None or not rate.n:
        return NONE
    return f"{charts.percent(rate.lower)} to {charts.percent(rate.upper)}"


def _slice_rate(view: ReportView, name: str) -> Rate | None:
    for piece in view.metrics.slices:
        if piece.arm == "candidate" and f"{piece.dimension}={piece.value}" == name:
            return piece.rate
    return None


def _needed(test: SequentialResult) -> str:
    """Return what the proof that PROMOTE asks for still needs."""
    if test.below is None:
        return NONE
    if test.passed:
        return "nothing"
    if test.failed:
        return "cannot be proven any more"
    if test.images_needed is None:
        return "not to be proven at this rate"
    return f"about {test.images_needed:,} more images"
