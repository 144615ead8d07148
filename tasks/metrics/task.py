"""Prefect task: from pictures and findings to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.check_rules import GROUP_KINDS, CheckRules
from tasks.checks.groups import group_findings
from tasks.checks.unrequested import extra_text
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
    reports_frame,
)
from tasks.plan import Drawn, RunPlan
from tasks.records import Arm, Case, Generation, ImageReport, Metrics, Outcome
from tasks.telemetry import stage

ARMS: tuple[Arm, Arm] = ("baseline", "candidate")
#: Of a policy that asks for nothing beside the checks.
DEFAULT = CheckRules()


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
    rules: CheckRules = DEFAULT,
    *,
    told: bool = True,
) -> Judged:
    """Judge what was generated for the cases; those that are not finished are left out.

    Args:
        context: The run.
        cases: The cases that count.
        generations: What they got.
        reports: What the checks found on it.
        rules: What the policy asks of the checks.
        told: Whether what is only told is looked for too; the outcomes are the same without.
    """
    done = {
        (arm, case.case_id): generations[arm, case.case_id]
        for arm in ARMS
        for case in cases
        if (arm, case.case_id) in generations
    }
    own = {
        key: report
        for key, generation in done.items()
        # What was found on a picture that nobody can look at any more proves nothing.
        if (report := reports.get(key)) is not None
        and (generation.image_digest is None or _is_kept(context, generation))
    }
    told_only = rules.consistency.told_only
    kinds = [kind for kind in GROUP_KINDS if told or f"consistency.{kind}" not in told_only]
    together = group_findings(cases, own, rules.consistency, kinds)
    by_id = {case.case_id: case for case in cases}
    outcomes: list[Outcome] = []
    complete: dict[tuple[Arm, str], ImageReport] = {}
    for key, generation in done.items():
        case, report = by_id[generation.case_id], own.get(key)
        more = together.get(key, ())
        if report is not None:
            more = (*extra_text(case.expected_text, report, rules), *more)
            findings = (*report.findings, *more)
            complete[key] = report.model_copy(update={"findings": findings})
        outcomes.append(judge(context.run_id, case, generation, report, more, told_only))
    return Judged(outcomes, list(done.values()), complete)


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
    judged = judge_cases(context, cases, generations, reports, plan.policy.checks)
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
        "reports": reports_frame(
            (context.run_id, arm, case_id, report)
            for (arm, case_id), report in judged.reports.items()
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
