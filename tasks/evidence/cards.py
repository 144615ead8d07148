"""The headline figures of the report as cards: before, after, what was spent and saved."""

from __future__ import annotations

import math
from typing import Any

from tasks.evidence import charts
from tasks.evidence.present import limits_on, money, percent, seconds
from tasks.evidence.view import ARMS, ReportView
from tasks.records import Rate, usd


def cards(view: ReportView) -> list[dict[str, Any]]:
    """Return the headline figures, before and after."""
    before, after = view.metrics.baseline, view.metrics.candidate
    rule = view.plan.policy.failure
    pairs: list[tuple[str, str, float | None, float | None]] = [
        (
            "Effective cost per 1,000 usable images",
            "effective_cost_per_1k_usd",
            before.effective_cost_per_1k_usd,
            after.effective_cost_per_1k_usd,
        ),
        ("p95 latency", "latency_p95_s", before.latency_p95_s, after.latency_p95_s),
    ]
    failure, tone = _points(before.failure_rate, after.failure_rate)
    found = [
        {
            "title": "Failure rate",
            "wide": True,
            "before": percent(before.failure_rate),
            "after": percent(after.failure_rate),
            "delta": failure,
            "tone": tone,
            "chart": charts.rate_chart(
                [("baseline", before.failure_rate), ("candidate", after.failure_rate)],
                sorted({("promote", rule.promote_below), ("fail", rule.limit)}),
            ),
            "note": "",
            "limits": _limit_words(rule.limit, rule.promote_below),
            "detail": [
                ("Baseline", charts.rate_words(before.failure_rate)),
                ("Candidate", charts.rate_words(after.failure_rate)),
            ],
            "paired": _paired(view),
        }
    ]
    for title, measure, old, new in pairs:
        show = seconds if measure.endswith("_s") else money
        delta, tone = _relative(old, new)
        lines = limits_on(view, measure)
        found.append(
            {
                "title": title,
                "before": show(old),
                "after": show(new),
                "delta": delta,
                "tone": tone,
                "chart": charts.value_bars([("baseline", old), ("candidate", new)], lines),
                "note": ", ".join(f"limit {show(value)}" for _, value in lines) or "no limit set",
            }
        )
    return [*found, _forecast(view), _spend(view), *_saved(view)]


def _paired(view: ReportView) -> list[tuple[str, str, int]]:
    """Return in how many cases only one arm failed: where the candidate is worse, and better."""
    paired = view.metrics.paired
    if paired is None or not paired.pairs:
        return []
    return [
        ("new", "only the candidate fails", paired.candidate_only),
        ("fixed", "only the baseline fails", paired.baseline_only),
    ]


def _points(before: Rate, after: Rate) -> tuple[str, str]:
    if before.estimate is None or after.estimate is None:
        return "", "flat"
    change = 100 * (after.estimate - before.estimate)
    if abs(change) < 0.005:
        return "unchanged", "flat"
    sign = "−" if change < 0 else "+"
    return f"{sign}{abs(change):.1f} points", "good" if change < 0 else "bad"


def _limit_words(fail_above: float, promote_below: float) -> list[tuple[str, str]]:
    words = [("fail", f"rolled back above {charts.round_percent(fail_above)}")]
    if promote_below == fail_above:
        return [("fail", f"{words[0][1]}, promoted below it")]
    return [*words, ("promote", f"promoted below {charts.round_percent(promote_below)}")]


def _forecast(view: ReportView) -> dict[str, Any]:
    old = view.metrics.baseline_forecast_usd_per_month
    new = view.metrics.forecast_usd_per_month
    delta, tone = _relative(old, new)
    return {
        "title": "Cost forecast a month",
        "before": money(old, 0),
        "after": money(new, 0),
        "delta": delta,
        "tone": tone,
        "chart": charts.value_bars([("baseline", old), ("candidate", new)], []),
        "note": f"at {view.plan.policy.expected_images_per_month:,} images a month",
    }


def _spend(view: ReportView) -> dict[str, Any]:
    spent = {arm: view.arm(arm).spend_usd for arm in ARMS}
    counted = math.fsum(spent.values())
    whole = counted if view.spent_usd is None else view.spent_usd
    budget = usd(view.plan.budget_microusd)
    note = (
        f"cap {money(budget)}; baseline {money(spent['baseline'])}, "
        f"candidate {money(spent['candidate'])}"
    )
    if whole - counted >= 0.005:
        note += f", {money(whole - counted)} on cases that do not count"
    return {
        "title": "Spent by this run",
        "single": money(whole),
        "chart": charts.part_of([*spent.items(), ("uncounted", max(0.0, whole - counted))], budget),
        "note": note,
    }


def _saved(view: ReportView) -> list[dict[str, Any]]:
    """Return the card of what an early decision saved, where there was one."""
    saved = view.verdict.savings
    if saved is None:
        return []
    more = max(0, saved.used - saved.decided)
    also = f", {more:,} more were generated by then" if more else ""
    return [
        {
            "title": "Saved by deciding early",
            "strip": True,
            "single": money(saved.usd),
            "beside": f"{saved.images:,} images of both mixes not generated",
            "chart": charts.part_of(
                [("candidate", saved.decided), ("uncounted", more)],
                max(1, saved.planned, saved.used),
            ),
            "note": f"{saved.decided:,} of {saved.planned:,} planned cases decided it{also}",
        }
    ]


def _relative(before: float | None, after: float | None) -> tuple[str, str]:
    """Return the change in words and whether less of it is good."""
    if before is None or after is None or not before or not math.isfinite(after / before):
        return "", "flat"
    change = after / before - 1
    if abs(change) < 0.005:
        return "unchanged", "flat"
    sign = "−" if change < 0 else "+"
    return f"{sign}{abs(change) * 100:.0f} %", "good" if change < 0 else "bad"
