"""From what was measured and done to the one object that a gate returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.request import GateResult
from tasks.approval.rules import Approval
from tasks.plan import RunPlan
from tasks.records import Metrics, Verdict
from tasks.rollout.canary.store import Canary
from tasks.rollout.change import RolloutResult


def build_result(
    plan: RunPlan,
    metrics: Metrics,
    verdict: Verdict,
    *,
    production: str,
    actions: Sequence[str],
    evidence: Path,
    report: Path,
    seconds: float,
    spend_usd: float,
    approval: Approval | None = None,
) -> GateResult:
    """Return the result of a gate.

    Args:
        plan: What was planned.
        metrics: The figures.
        verdict: The decision.
        production: Name of the mix that serves now.
        actions: What was done, one sentence each.
        evidence: Folder of the run.
        report: The HTML report.
        seconds: Wall-clock time of the gate.
        spend_usd: What the ledger counts for the run.
        approval: What a person was asked and answered, if one was.
    """
    after, before = metrics.candidate, metrics.baseline
    return GateResult(
        run_id=plan.run_id,
        verdict=verdict.verdict,
        reasons=verdict.reasons,
        warnings=verdict.warnings,
        product=plan.product,
        candidate=plan.candidate.mix.name,
        baseline=plan.baseline.mix.name,
        production=production,
        images=after.images,
        incomplete=verdict.savings is None and min(after.images, before.images) < len(plan.cases),
        failure_rate=after.failure_rate,
        baseline_failure_rate=before.failure_rate,
        cost_per_1k_usd=after.cost_per_1k_usd,
        effective_cost_per_1k_usd=after.effective_cost_per_1k_usd,
        baseline_effective_cost_per_1k_usd=before.effective_cost_per_1k_usd,
        spend_usd=spend_usd,
        savings=verdict.savings,
        looks=len(verdict.looks),
        latency_s={
            "p50": after.latency_p50_s,
            "p95": after.latency_p95_s,
            "p99": after.latency_p99_s,
        },
        accounts=after.accounts,
        slices=metrics.slices,
        actions=tuple(actions),
        approval=approval,
        evidence=str(evidence),
        report=str(report),
        seconds=round(seconds, 1),
    )


def rate_sentence(metrics: Metrics) -> str:
    """Return the failure rates before → after in a few words."""

    def percent(value: float | None) -> str:
        return "unknown" if value is None else f"{100 * value:.1f} %"

    before, after = metrics.baseline.failure_rate, metrics.candidate.failure_rate
    return f"failures {percent(before.estimate)} before, {percent(after.estimate)} after"


def canary_sentence(begun: Canary) -> str:
    """Return that a candidate walks into production, and who drives it."""
    plan = begun.plan
    first = 100 * plan.rule.steps[0].weight
    return (
        f"Production of {plan.product} stays {plan.baseline_name}; canary {begun.id} of "
        f"{plan.candidate_name} begins with {first:g} % of the traffic. Drive it with `imagegate "
        f"canary run --product {plan.product}` or the deployment canary/{plan.product}; the watch "
        "looks after it meanwhile."
    )


def production_sentence(done: RolloutResult) -> str:
    """Return what serves now and how soon that was verified."""
    now = "is now" if done.changed else "stays"
    return (
        f"Production of {done.product} {now} {done.mix_name}, verified at the router "
        f"in {done.seconds:.2f} s."
    )
