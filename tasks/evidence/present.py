"""The figures of a run as the words, tables and drawings of the report."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from tasks.evidence import charts
from tasks.evidence.text import visible
from tasks.evidence.view import ARMS, ReportView
from tasks.records import Arm, ArmMetrics, ExpectationResult, Rate

NONE = "–"


def money(dollars: float | None, digits: int = 2) -> str:
    """Return dollars as text, ``–`` for a missing figure."""
    if dollars is None or not math.isfinite(dollars):
        return NONE
    return f"${dollars:,.{digits}f}"


def seconds(value: float | None) -> str:
    """Return seconds as text, ``–`` for a missing figure."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"


def moment(iso: str) -> str:
    """Return a UTC timestamp as people read it; anything else as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)", iso)
    return f"{found[1]} {found[2]} UTC" if found else visible(iso)


def percent(rate: Rate) -> str:
    """Return the estimate of a rate as text."""
    return NONE if rate.estimate is None else charts.percent(rate.estimate)


def limits_on(view: ReportView, measure: str) -> list[tuple[str, float]]:
    """Return the policy's upper limits on a measure as lines for a drawing."""
    return [
        ("warn" if limit.on_breach == "warn" else "fail", limit.max)
        for limit in view.plan.policy.limits
        if limit.measure == measure and limit.max is not None
    ]


def accounts(view: ReportView) -> list[dict[str, Any]]:
    """Return where the cases of each arm went: the four accounts and what ended well."""
    rows = []
    for arm in ARMS:
        metrics = view.arm(arm)
        bad = metrics.accounts
        well = max(0, metrics.images - bad.defect - bad.refused - bad.undelivered - bad.unmeasured)
        parts = [
            ("ok", well),
            ("defect", bad.defect),
            ("refused", bad.refused),
            ("undelivered", bad.undelivered),
            ("unmeasured", bad.unmeasured),
        ]
        words = ", ".join(f"{name} {count}" for name, count in parts)
        rows.append(
            {
                "arm": arm,
                "images": metrics.images,
                "parts": parts,
                "right_refusals": metrics.right_refusals,
                "text_unjudged": metrics.text_unjudged,
                "text_cases": metrics.text_cases,
                "chart": charts.stacked(parts, f"{arm}: {words}"),
            }
        )
    return rows


def expectations(results: Sequence[ExpectationResult]) -> list[dict[str, Any]]:
    """Return the policy's expectations, breached first, then unmeasured, then kept."""
    order = {"breached": 0, "unmeasured": 1, "kept": 2}
    rows = [
        {
            "state": "unmeasured" if r.unmeasured else "kept" if r.success else "breached",
            "name": visible(r.name),
            "source": visible(r.source),
            "on_breach": r.on_breach,
            "sentence": visible(r.sentence),
            "observed": _observed(r.observed),
            # What holds in every sound run is folded away, so that the policy's own rules show.
            "routine": r.success and r.source.startswith("structure."),
        }
        for r in results
    ]
    return sorted(rows, key=lambda row: order[str(row["state"])])


def _observed(value: float | str | None) -> str:
    if value is None:
        return NONE
    return visible(value) if isinstance(value, str) else f"{value:,.6g}"


def slices(view: ReportView) -> list[dict[str, Any]]:
    """Return the slices of both arms side by side, worst first."""
    paired: dict[tuple[str, str], dict[Arm, Rate]] = {}
    for part in view.metrics.slices:
        if part.dimension != "check":
            paired.setdefault((part.dimension, part.value), {})[part.arm] = part.rate
    rule = view.plan.policy.slices
    tests = {t.name: t for t in view.verdict.tests if t.kind == "slice"}
    rows = []
    for (dimension, value), rates in paired.items():
        baseline, candidate = rates.get("baseline"), rates.get("candidate")
        test = tests.get(f"{dimension}={value}")
        rows.append(
            {
                "dimension": dimension,
                "value": visible(value),
                "n": max(r.n for r in rates.values()),
                "baseline": _cell(baseline),
                "candidate": _cell(candidate),
                "filter": {dimension: value},
                "critical": f"{dimension}={value}" in rule.critical,
                "judged": test is not None,
                "over": test is not None and test.failed,
                "amber": test is not None and test.amber and not test.failed,
                "chart": charts.slice_bar(baseline, candidate, rule.limit),
            }
        )
    return sorted(
        rows,
        key=lambda r: (
            -r["candidate"]["lower"],
            -r["candidate"]["share"],
            -r["baseline"]["lower"],
            -r["n"],
            r["dimension"],
            r["value"],
        ),
    )


def _cell(rate: Rate | None) -> dict[str, Any]:
    if rate is None or rate.estimate is None:
        return {"text": NONE, "counts": "", "share": -1.0, "lower": -1.0, "interval": ""}
    return {
        "text": percent(rate),
        "counts": f"{rate.failures} of {rate.n}",
        "share": rate.estimate,
        "lower": rate.lower,
        "interval": f"{charts.percent(rate.lower)} to {charts.percent(rate.upper)}",
    }


def checks(view: ReportView) -> list[dict[str, Any]]:
    """Return how often each check failed, passed, did not apply or broke, in both arms."""
    counts: dict[str, dict[Arm, Counter[str]]] = {}
    versions: dict[str, set[str]] = {}

    def of(name: str, arm: Arm) -> Counter[str]:
        return counts.setdefault(name, {a: Counter() for a in ARMS})[arm]

    for (arm, _), report in view.reports.items():
        for finding in report.findings:
            versions.setdefault(finding.check, set()).add(finding.version)
            of(finding.check, arm)[finding.verdict] += 1
    for outcome in view.outcomes:
        seen = view.reports.get((outcome.arm, outcome.case_id))
        told = {f.check for f in seen.findings if f.verdict == "fail"} if seen else set()
        for reason in outcome.reasons:
            # What the delivery says has no finding on a picture: count the outcome itself.
            if reason not in told:
                of(reason, outcome.arm)["fail"] += 1
    totals = Counter(outcome.arm for outcome in view.outcomes)
    told_only = view.plan.policy.checks.consistency.told_only
    rows = []
    for name, arms in counts.items():
        shares: dict[Arm, float | None] = {}
        for arm in ARMS:
            judged = arms[arm]["pass"] + arms[arm]["fail"] if name in versions else totals[arm]
            shares[arm] = arms[arm]["fail"] / judged if judged else None
        rows.append(
            {
                "name": visible(name),
                "version": ", ".join(sorted(versions.get(name, ()))),
                # By the policy it fails no picture: no case of the gallery stands behind it.
                "told": name in told_only,
                "arms": {
                    arm: {
                        "fail": arms[arm]["fail"],
                        "pass": arms[arm]["pass"] if name in versions else NONE,
                        "skip": arms[arm]["skip"] if name in versions else NONE,
                        "fault": arms[arm]["fault"],
                        "share": NONE if shares[arm] is None else charts.percent(shares[arm] or 0),
                    }
                    for arm in ARMS
                },
                "chart": charts.share_bars([(arm, shares[arm]) for arm in ARMS]),
            }
        )
    return sorted(
        rows,
        key=lambda r: (
            -r["arms"]["candidate"]["fail"],
            -r["arms"]["baseline"]["fail"],
            r["name"],
        ),
    )


def latency(view: ReportView) -> dict[str, Any]:
    """Return the latencies of both arms, drawn and in figures."""
    samples: dict[Arm, list[float]] = {arm: [] for arm in ARMS}
    extra = {case.case_id for case in view.plan.reserve}
    for generation in view.generations:
        if generation.case_id in extra:
            continue
        if generation.image_digest is not None and math.isfinite(generation.latency_s):
            samples[generation.arm].append(generation.latency_s)
    limit = min((value for _, value in limits_on(view, "latency_p95_s")), default=None)
    rows: list[tuple[str, list[str]]] = []
    fields = (
        ("p50", "latency_p50_s"),
        ("p95", "latency_p95_s"),
        ("p99", "latency_p99_s"),
        ("first byte p50", "ttfb_p50_s"),
        ("first byte p95", "ttfb_p95_s"),
    )
    for label, field in fields:
        rows.append((label, [seconds(getattr(view.arm(arm), field)) for arm in ARMS]))
    rows.append(("retries a case", [f"{view.arm(arm).retries_per_image:.3f}" for arm in ARMS]))
    return {
        "chart": charts.ecdf_chart(list(samples.items()), limit),
        "limit": None if limit is None else seconds(limit),
        "rows": rows,
    }


def arm_rows(view: ReportView) -> list[tuple[str, str, str]]:
    """Return the figures of both arms as label, before, after: for tables in plain text."""

    def row(label: str, show: Any, field: str) -> tuple[str, str, str]:
        before, after = (show(getattr(view.arm(arm), field)) for arm in ARMS)
        return label, before, after

    def account(name: str) -> tuple[str, str, str]:
        before, after = (str(getattr(view.arm(arm).accounts, name)) for arm in ARMS)
        return name.capitalize(), before, after

    def rate(metrics: ArmMetrics) -> str:
        return charts.rate_words(metrics.failure_rate)

    return [
        ("Failure rate", rate(view.metrics.baseline), rate(view.metrics.candidate)),
        row("Effective cost per 1,000 usable images", money, "effective_cost_per_1k_usd"),
        row("Cost per 1,000 cases", money, "cost_per_1k_usd"),
        row("Spent on the cases that count", money, "spend_usd"),
        row("p50 latency", seconds, "latency_p50_s"),
        row("p95 latency", seconds, "latency_p95_s"),
        row("p99 latency", seconds, "latency_p99_s"),
        account("defect"),
        account("refused"),
        account("undelivered"),
        account("unmeasured"),
        (
            "Cost forecast a month",
            money(view.metrics.baseline_forecast_usd_per_month, 0),
            money(view.metrics.forecast_usd_per_month, 0),
        ),
    ]


def legend() -> Markup:
    """Return the legend of the two arms, the same everywhere."""
    return Markup(
        '<span class="key baseline">baseline</span> <span class="key candidate">candidate</span>'
    )
