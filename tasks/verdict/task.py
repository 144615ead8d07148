"""Prefect task: the decision."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.metrics.task import Measured
from tasks.plan import RunPlan
from tasks.records import ExpectationResult, Verdict
from tasks.telemetry import stage
from tasks.verdict.decide import GateState
from tasks.verdict.decide import decide as decide_purely


@task(name="decide", task_run_name="decide", cache_policy=NO_CACHE)
@stage
def decide(
    plan: RunPlan,
    measured: Measured,
    expectations: tuple[ExpectationResult, ...],
    stopped: str | None,
) -> Verdict:
    """Return PROMOTE, ROLLBACK or HOLD with its reasons."""
    return decide_purely(
        GateState(
            policy=plan.policy,
            metrics=measured.metrics,
            expectations=expectations,
            planned_cases=len(plan.cases),
            finished_cases=measured.finished("candidate"),
            baseline_finished=measured.finished("baseline"),
            stopped=stopped,
            checker_faults=measured.checker_faults,
        )
    )
