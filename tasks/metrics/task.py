"""Prefect task: from pictures and findings to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from tasks.plan import Drawn, RunPlan
from tasks.records import Arm, Case, Finding, Generation, ImageReport, Metrics, Outcome
from tasks.telemetry import stage

ARMS: tuple[Arm, Arm] = ("baseline", "candidate")


class Measured:
    """Everything that was measured in a run.

    A plain class on purpose: Prefect walks through models and dataclasses among a task's
    arguments, and these hold every finding of the run.

    Args:
        generations: The cases that count, of both arms.
        reports: What the checks found, by arm and case.
        outcomes: How every case that counts ended.
        metrics: The figures.
        tables: The tables of the evidence, by name.
        drawn: Cases of an arm that should have an outcome.
    """

    def __init__(
        self,
        generations: tuple[Generation, ...],
        reports: Mapping[tuple[Arm, str], ImageReport],
        outcomes: tuple[Outcome, ...],
        metrics: Metrics,
        tables: Mapping[str, pd.DataFrame],
        drawn: int,
    ) -> None:
        self.generations = generations
        self.reports = reports
        self.outcomes = outcomes
        self.metrics = metrics
        self.tables = tables
        self.drawn = drawn

    def finished(self, arm: Arm) -> int:
        """Return how many of the drawn cases of an arm came to an end."""
        return sum(1 for o in self.outcomes if o.arm == arm)


class Judged:
    """Outcomes of some cases, with what they rest on.

    Args:
        outcomes: Both arms, in the order of the cases.
        generations: The generations behind them.
        reports: What the checks found, near-duplicates included.
    """

    def __init__(
        self,
        outcomes: list[Outcome],
        generations: list[Generation],
        reports: dict[tuple[Arm, str], ImageReport],
    ) -> None:
        self.outcomes = outcomes
        self.generations = generations
        self.reports = reports


def judge_cases(
    context: RunContext,
    cases: Sequence[Case],
    generations: Mapping[tuple[Arm, str], Generation],
    reports: Mapping[tuple[Arm, str], ImageReport],
) -> Judged:
    """Judge what was generated for the cases; those that are not finished are left out."""
    outcomes: list[Outcome] = []
    kept: list[Generation] = []
    complete: dict[tuple[Arm, str], ImageReport] = {}
    for arm in ARMS:
        done = [generations[arm, c.case_id] for c in cases if (arm, c.case_id) in generations]
        copies = _duplicates(arm, cases, done, reports)
        by_id = {case.case_id: case for case in cases}
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
    return Judged(outcomes, kept, complete)


def metrics_of(
    plan: RunPlan, cases: Sequence[Case], outcomes: Sequence[Outcome], drawn: Drawn
) -> Metrics:
    """Return the figures of the cases that count."""
    return compute(
        cases,
        outcomes,
        plan.policy,
        baseline_digest=plan.baseline.digest,
        candidate_digest=plan.candidate.digest,
        extra={case_id: name for case_id, name in drawn.items() if name is not None},
    )


@task(name="compute_metrics", task_run_name="compute_metrics", cache_policy=NO_CACHE)
@stage
def compute_metrics(context: RunContext, plan: RunPlan, drawn: Drawn) -> Measured:
    """Judge the cases that count and compute the figures of both arms.

    Args:
        context: The run.
        plan: Its plan.
        drawn: The cases that count: all that were drawn until the evidence decided. What was
            generated besides is kept and paid, and judges nobody.
    """
    journal = Journal(context.state, context.run_id)
    generations = journal.generations()
    reports = {key: report for key, report in journal.reports().items() if key in generations}
    # The order of the plan, with the extra cases of slices that looked bad behind it.
    cases = [case for case_id, case in plan.by_id.items() if case_id in drawn]
    judged = judge_cases(context, cases, generations, reports)
    metrics = metrics_of(plan, cases, judged.outcomes, drawn)
    counted = {(g.arm, g.case_id) for g in judged.generations}
    rest = [g for key, g in generations.items() if key not in counted]
    tables = {
        "cases": cases_frame(cases),
        "generations": generations_frame([*judged.generations, *rest]),
        "attempts": attempts_frame([*judged.generations, *rest]),
        "findings": findings_frame(
            (context.run_id, arm, case_id, finding)
            for (arm, case_id), report in judged.reports.items()
            for finding in report.findings
        ),
        "outcomes": outcomes_frame(judged.outcomes),
        "metrics": pd.DataFrame(
            [{"measure": name, "value": value} for name, value in measures(metrics).items()]
        ).astype({"measure": "string", "value": "float64"}),
    }
    return Measured(
        tuple(judged.generations),
        judged.reports,
        tuple(judged.outcomes),
        metrics,
        tables,
        len(cases),
    )


def _is_kept(context: RunContext, generation: Generation) -> bool:
    """Return whether the picture still lies in the store, whole by its size."""
    path = context.images.path(str(generation.image_digest))
    try:
        return path.stat().st_size == generation.image_bytes
    except OSError:
        return False


def _duplicates(
    arm: Arm,
    cases: Sequence[Case],
    generations: list[Generation],
    reports: Mapping[tuple[Arm, str], ImageReport],
) -> dict[str, Finding]:
    """Return the near-duplicates of an arm among different prompts, by case.

    Edits are left out: two edits of one upload are meant to look alike.
    """
    prompts = {case.case_id: case.prompt for case in cases if case.subtask != "edit"}
    return find_duplicates(
        [
            (g.case_id, prompts[g.case_id], report.fingerprint)
            for g in generations
            if g.case_id in prompts and (report := reports.get((arm, g.case_id))) is not None
        ]
    )
