"""Prefect task: validate the policy's expectations with Great Expectations."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.context import RunContext
from tasks.expectations.groups import group_results
from tasks.expectations.validate import validate
from tasks.metrics.task import Measured
from tasks.plan import RunPlan
from tasks.records import ExpectationResult
from tasks.telemetry import stage


@task(name="validate_expectations", task_run_name="validate_expectations", cache_policy=NO_CACHE)
@stage
def validate_expectations(
    context: RunContext, plan: RunPlan, measured: Measured
) -> tuple[ExpectationResult, ...]:
    """Return every expectation with its result; the Data Docs lie in the run's folder.

    What pictures that are judged together count as comes last; it is no matter of the Data Docs.
    """
    found = validate(
        plan.policy, measured.metrics, measured.tables["outcomes"], context.folder.path
    )
    return (*found, *group_results(plan.policy.checks.consistency, measured.reports))
