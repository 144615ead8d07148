"""Prefect task: draw the cases and fix the plan before anything is spent."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.context import RunContext
from tasks.inputs.draw import draw_sample as draw
from tasks.mix.selection import Selection
from tasks.plan import RunPlan
from tasks.records import PriorRun, microusd, utc_now
from tasks.retests import prior_runs
from tasks.settings import DATASETS
from tasks.telemetry import stage


def build_plan(
    run_id: str,
    selection: Selection,
    *,
    inputs: str | None,
    cases: int | None,
    seed: int | None,
    budget_usd: float | None,
    prior: tuple[PriorRun, ...] = (),
) -> RunPlan:
    """Return the plan of a run; ``None`` leaves a choice to the policy.

    Args:
        run_id: The run.
        selection: Product, mixes and policy.
        inputs: The production log.
        cases: Number of cases of the headline sample.
        seed: The draw.
        budget_usd: Most that the run may spend.
        prior: Earlier tests of the candidate, see :func:`tasks.retests.prior_runs`.

    Raises:
        ConfigError: The inputs cannot be read or hold nothing.
    """
    policy = selection.policy
    chosen = policy.sampling.seed if seed is None else seed
    drawn, coverage, reserve = draw(inputs, policy.sampling, cases, chosen, DATASETS, policy.slices)
    return RunPlan(
        run_id=run_id,
        product=selection.product,
        created_at=utc_now(),
        baseline=selection.baseline,
        candidate=selection.candidate,
        policy=policy,
        seed=chosen,
        budget_microusd=microusd(policy.budget.run_usd if budget_usd is None else budget_usd),
        day_budget_microusd=microusd(policy.budget.day_usd),
        inputs=str(coverage["source"]),
        cases=drawn,
        coverage=coverage,
        reserve=reserve,
        prior=prior,
    )


@task(name="draw_sample", task_run_name="draw_sample", cache_policy=NO_CACHE)
@stage
def draw_sample(
    context: RunContext,
    selection: Selection,
    *,
    inputs: str | None,
    cases: int | None,
    seed: int | None,
    budget_usd: float | None,
) -> RunPlan:
    """Draw the cases and write the plan of the run."""
    plan = build_plan(
        context.run_id,
        selection,
        inputs=inputs,
        cases=cases,
        seed=seed,
        budget_usd=budget_usd,
        prior=prior_runs(
            context.state, selection.product, selection.candidate.digest, but=context.run_id
        ),
    )
    context.folder.write_plan(plan)
    return plan
