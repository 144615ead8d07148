"""Prefect task: tell on-call; the message is kept first and sent afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.alerts.blocks import GateSummary, TopFailure, metric_figures
from tasks.alerts.contact_sheet import contact_sheet
from tasks.alerts.delivery import deliver_pending
from tasks.alerts.incidents import shown_time
from tasks.alerts.links import prefect_run, rollback_command
from tasks.alerts.run_thread import run_ended, run_started
from tasks.alerts.terminal import render
from tasks.approval.rules import commands, waits
from tasks.approval.store import read as read_approval
from tasks.context import RunContext
from tasks.harness.task import spent_usd
from tasks.metrics.task import Measured
from tasks.mix.production import journal_of, production_mix
from tasks.plan import RunPlan
from tasks.records import Metrics, Verdict, usd, utc_now
from tasks.settings import prefect_api_url
from tasks.tables import runs
from tasks.telemetry import stage

#: Pictures on the contact sheet.
MOST_PICTURES = 12


@dataclass(frozen=True, slots=True)
class Told:
    """What people were told."""

    #: The message as a terminal shows it.
    text: str
    #: One sentence on where the message is.
    action: str
    #: True when Slack has it.
    delivered: bool


@task(name="notify", task_run_name="notify", cache_policy=NO_CACHE)
@stage
def notify(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    verdict: Verdict,
    actions: Sequence[str],
) -> Told:
    """Put the message into the outbox and try to deliver it, for seconds at the most."""
    began, page = run_facts(context, plan)
    metrics = measured.metrics
    waiting = waits(read_approval(context.state, plan.run_id))
    summary = GateSummary(
        verdict=verdict.verdict,
        product=plan.product,
        candidate_name=plan.candidate.mix.name,
        baseline_name=plan.baseline.mix.name,
        run_id=plan.run_id,
        reasons=verdict.reasons,
        warnings=verdict.warnings,
        top_failures=top_failures(metrics),
        figures=metric_figures(metrics),
        done=tuple(actions),
        asked=asked_of_oncall(verdict, plan, metrics, waiting=waiting),
        report=str(context.folder.path / "report.html"),
        spend_usd=spent_usd(context, plan),
        saved=saved_of(verdict),
        failure=metrics.candidate.failure_rate,
        baseline_failure=metrics.baseline.failure_rate,
        since=shown_time(began),
        decided=shown_time(utc_now()),
        run_page=page,
        rollback=rollback_command(plan.product, plan.baseline.digest),
        baseline_digest=plan.baseline.digest,
        waiting=waiting and verdict.verdict == "HOLD",
        serves=production_mix(context.state, plan.product).mix.name,
        confirms=not _promoted_here(context, plan),
    )
    # A resumed run that comes to another verdict has something new to tell.
    sheet = failing_pictures(context, measured)
    key = run_ended(context.state, context.settings, summary, contact_sheet=sheet)
    action, delivered = deliver_pending(context.state, context.settings, key)
    return Told(render(summary), action, delivered)


@task(name="announce", task_run_name="announce", cache_policy=NO_CACHE)
@stage
def announce(context: RunContext, plan: RunPlan, requester: str) -> None:
    """Open the run's thread: quiet, and only queued. A run that goes on has its thread already."""
    run_started(
        context.state,
        context.settings,
        run_id=plan.run_id,
        product=plan.product,
        candidate=plan.candidate.mix.name,
        baseline=production_mix(context.state, plan.product).mix.name,
        requester=requester,
        cases=len(plan.cases),
        budget_usd=usd(plan.budget_microusd),
    )


def _promoted_here(context: RunContext, plan: RunPlan) -> bool:
    """Tell whether this run put its candidate into production, in this life or an earlier one."""
    return any(
        change.kind == "promote" and change.run_id == plan.run_id
        for change in journal_of(context.state, plan.product)
    )


def run_facts(context: RunContext, plan: RunPlan) -> tuple[str, str]:
    """Return when a run began, and its page in Prefect's UI or nothing."""
    with context.state.begin() as connection:
        row = connection.execute(
            sa.select(runs.c.started_at, runs.c.flow_run_id).where(runs.c.run_id == plan.run_id)
        ).first()
    if row is None:
        return plan.created_at, ""
    return row.started_at, prefect_run(row.flow_run_id, prefect_api_url()) or ""


def top_failures(metrics: Metrics) -> tuple[TopFailure, ...]:
    """Return the checks that failed most often for the candidate, over all its cases."""
    rows = [s for s in metrics.slices if s.arm == "candidate" and s.dimension == "check"]
    rows = sorted((s for s in rows if s.rate.failures), key=lambda s: -s.rate.failures)
    return tuple(TopFailure(s.value, "", s.rate.failures, s.rate.n) for s in rows)


def saved_of(verdict: Verdict) -> str:
    """Return what an early decision saved in a few words, or nothing."""
    saved = verdict.savings
    if saved is None:
        return ""
    return f"${saved.usd:,.2f} by deciding on {saved.decided:,} of {saved.planned:,} planned cases"


def asked_of_oncall(
    verdict: Verdict, plan: RunPlan, metrics: Metrics, *, waiting: bool = False
) -> tuple[str, ...]:
    """Return what a person has to do now; nothing after a promotion or a rollback."""
    if verdict.verdict != "HOLD":
        return ()
    if waiting:
        approve, reject = commands(plan.run_id)
        return (f"nothing is on fire, production is as it was; decide: `{approve}` or `{reject}`",)
    finished = min(metrics.candidate.images, metrics.baseline.images)
    # What its evidence decided early is a whole run, also when people held it afterwards.
    if verdict.savings is None and finished < len(plan.cases):
        then = f"mend the cause, then `imagegate run --resume {plan.run_id}`"
    else:
        then = "see why the evidence is not enough, then a new run, perhaps with more --cases"
    return (f"nothing is on fire, production is as it was; {then}",)


def failing_pictures(context: RunContext, measured: Measured) -> Path | None:
    """Draw the candidate's first failing pictures with their reasons on one sheet."""
    digests = {g.case_id: g.image_digest for g in measured.generations if g.arm == "candidate"}
    items = [
        (context.images.path(digest), f"{o.subtask} {o.locale}: {', '.join(o.reasons)}")
        for o in measured.outcomes
        if o.arm == "candidate" and o.failed and (digest := digests.get(o.case_id)) is not None
    ]
    return contact_sheet(items[:MOST_PICTURES], context.folder.path / "contact-sheet.png")
