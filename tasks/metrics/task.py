"""Prefect task: from pictures and findings to figures."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.checks.duplicates import find_duplicates
from tasks.context import RunContext
from tasks.harness.journal import Journal
from tasks.metrics.compute import compute_metrics as compute
from tasks.metrics.measures import measures
from tasks.metrics.outcomes import judge
from tasks.metrics.tables import (
    attempts_frame,
    cases_frame,
    findings_frame,
    generations_frame,
    outcomes_frame,
)
from tasks.plan import RunPlan
from tasks.records import Arm, Finding, Generation, ImageReport, Metrics, Outcome
from tasks.telemetry import stage

ARMS: tuple[Arm, Arm] = ("baseline", "candidate")


class Measured:
    """Everything that was measured in a run.

    A plain class on purpose: Prefect walks through models and dataclasses among a task's
    arguments, and these hold every finding of the run.

    Args:
        generations: Finished cases of both arms.
        reports: What the checks found, by arm and case.
        outcomes: How every finished case ended.
        metrics: The figures.
        tables: The tables of the evidence, by name.
    """

    def __init__(
        self,
        generations: tuple[Generation, ...],
        reports: Mapping[tuple[Arm, str], ImageReport],
        outcomes: tuple[Outcome, ...],
        metrics: Metrics,
        tables: Mapping[str, pd.DataFrame],
    ) -> None:
        self.generations = generations
        self.reports = reports
        self.outcomes = outcomes
        self.metrics = metrics
        self.tables = tables

    def finished(self, arm: Arm) -> int:
        """Return how many cases of an arm came to an end."""
        return sum(1 for o in self.outcomes if o.arm == arm)

    @property
    def checker_faults(self) -> int:
        """Pictures of the candidate on which a check itself broke."""
        return sum(1 for o in self.outcomes if o.arm == "candidate" and o.outcome == "unmeasured")


@task(name="compute_metrics", task_run_name="compute_metrics", cache_policy=NO_CACHE)
@stage
def compute_metrics(context: RunContext, plan: RunPlan) -> Measured:
    """Judge every finished case and compute the figures of both arms."""
    journal = Journal(context.state, context.run_id)
    generations = journal.generations()
    reports = {key: report for key, report in journal.reports().items() if key in generations}
    order = {case.case_id: position for position, case in enumerate(plan.cases)}
    by_id = {case.case_id: case for case in plan.cases}
    outcomes: list[Outcome] = []
    kept: list[Generation] = []
    complete: dict[tuple[Arm, str], ImageReport] = {}
    for arm in ARMS:
        done = sorted(
            (g for (a, c), g in generations.items() if a == arm and c in order),
            key=lambda g: order[g.case_id],
        )
        copies = _duplicates(arm, plan, done, reports)
        for generation in done:
            key = (arm, generation.case_id)
            report, copy = reports.get(key), copies.get(generation.case_id)
            if generation.image_digest is not None and not _is_kept(context, generation):
                # What was found on a picture that nobody can look at any more proves nothing.
                report, copy = None, None
            outcomes.append(
                judge(context.run_id, by_id[generation.case_id], generation, report, copy)
            )
            if report is not None:
                findings = (*report.findings, copy) if copy is not None else report.findings
                complete[key] = report.model_copy(update={"findings": findings})
        kept += done
    metrics = compute(
        plan.cases,
        outcomes,
        plan.policy,
        baseline_digest=plan.baseline.digest,
        candidate_digest=plan.candidate.digest,
    )
    tables = {
        "cases": cases_frame(plan.cases),
        "generations": generations_frame(kept),
        "attempts": attempts_frame(kept),
        "findings": findings_frame(
            (context.run_id, arm, case_id, finding)
            for (arm, case_id), report in complete.items()
            for finding in report.findings
        ),
        "outcomes": outcomes_frame(outcomes),
        "metrics": pd.DataFrame(
            [{"measure": name, "value": value} for name, value in measures(metrics).items()]
        ).astype({"measure": "string", "value": "float64"}),
    }
    return Measured(tuple(kept), complete, tuple(outcomes), metrics, tables)


def _is_kept(context: RunContext, generation: Generation) -> bool:
    """Return whether the picture still lies in the store, whole by its size."""
    path = context.images.path(str(generation.image_digest))
    try:
        return path.stat().st_size == generation.image_bytes
    except OSError:
        return False


def _duplicates(
    arm: Arm,
    plan: RunPlan,
    generations: list[Generation],
    reports: Mapping[tuple[Arm, str], ImageReport],
) -> dict[str, Finding]:
    """Return the near-duplicates of an arm among different prompts, by case.

    Edits are left out: two edits of one upload are meant to look alike.
    """
    prompts = {case.case_id: case.prompt for case in plan.cases if case.subtask != "edit"}
    return find_duplicates(
        [
            (g.case_id, prompts[g.case_id], report.fingerprint)
            for g in generations
            if g.case_id in prompts and (report := reports.get((arm, g.case_id))) is not None
        ]
    )
