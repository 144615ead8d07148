"""Prefect tasks: keep the evidence before production changes, publish the report afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.approval.store import read as read_approval
from tasks.checks.live import read_planted
from tasks.context import RunContext
from tasks.evidence.bundle import known_secrets, seal, write_bundle
from tasks.evidence.provenance import provenance
from tasks.evidence.report import write_report
from tasks.evidence.sharing import push_run
from tasks.evidence.view import ReportView
from tasks.harness.task import spent_usd
from tasks.metrics.task import Measured
from tasks.plan import RunPlan
from tasks.records import ExpectationResult, Verdict, utc_now
from tasks.telemetry import stage


@task(name="record_evidence", task_run_name="record_evidence", cache_policy=NO_CACHE)
@stage
def record_evidence(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: Sequence[ExpectationResult],
    verdict: Verdict,
    actions: Sequence[str] = (),
) -> None:
    """Write tables, figures and verdict durably.

    Raises:
        EvidenceError: The disk is full; nothing may be promoted on evidence that is not kept.
    """
    write_bundle(
        context.folder,
        plan=plan,
        tables=measured.tables,
        metrics=measured.metrics,
        expectations=expectations,
        verdict=verdict,
        actions=actions,
        finished_at=utc_now(),
        secrets=known_secrets(context.settings, plan),
        approval=read_approval(context.state, plan.run_id),
    )


@task(name="share_evidence", task_run_name="share_evidence", cache_policy=NO_CACHE)
@stage
def share_evidence(context: RunContext) -> str:
    """Push what the run's folder holds to the shared store; return where it lies, in words.

    Raises:
        EvidenceError: The store cannot be reached. Nothing may be promoted on evidence that only
            one machine has; anything else is pushed later by ``imagegate evidence push``.
    """
    if context.remote is None:
        return str(context.folder.path)
    shared = push_run(context.remote, context.folder)
    return f"{shared.files} files in {context.remote.url}/runs/{shared.run_id}"


@task(name="publish_evidence", task_run_name="publish_evidence", cache_policy=NO_CACHE)
@stage
def publish_evidence(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: Sequence[ExpectationResult],
    verdict: Verdict,
    actions: Sequence[str],
) -> tuple[ReportView, Path]:
    """Write the report, seal the evidence, and return the view and the report's path."""
    record_evidence.fn(context, plan, measured, expectations, verdict, actions)
    view = ReportView(
        plan=plan,
        metrics=measured.metrics,
        verdict=verdict,
        expectations=expectations,
        outcomes=measured.outcomes,
        generations=measured.generations,
        reports=measured.reports,
        actions=actions,
        approval=read_approval(context.state, plan.run_id),
        planted=read_planted(context.folder),
        finished_at=utc_now(),
        spent_usd=spent_usd(context, plan),
        provenance=provenance(),
    )
    report = write_report(context.folder, view, context.images)
    seal(context.folder, known_secrets(context.settings, plan))
    return view, report
