"""Prefect task: one shard of the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.context import RunContext
from tasks.harness.ledger import SpendLedger
from tasks.harness.progress import HarnessEvent
from tasks.harness.run import ShardResult, run_shard
from tasks.plan import RunPlan, Shard
from tasks.records import Arm, usd
from tasks.telemetry import stage


@task(name="recover_spend", task_run_name="recover_spend", cache_policy=NO_CACHE)
@stage
def recover_spend(context: RunContext, plan: RunPlan) -> int:
    """Count what a killed process had in flight, and return how many requests that was."""
    ledger = SpendLedger(context.state, plan.run_id, plan.budget_microusd, plan.day_budget_microusd)
    return ledger.recover()


def spent_usd(context: RunContext, plan: RunPlan) -> float:
    """Return the dollars that the ledger counts for a run, unfinished cases included."""
    ledger = SpendLedger(context.state, plan.run_id, plan.budget_microusd, plan.day_budget_microusd)
    return usd(ledger.spent_microusd())


@task(
    name="run_harness",
    task_run_name="run_harness {arm} {shard.number}",
    cache_policy=NO_CACHE,
)
@stage
def run_harness(
    context: RunContext,
    arm: Arm,
    shard: Shard,
    endpoints: Mapping[str, str],
    parallel: int,
    on_progress: Callable[[HarnessEvent], None],
) -> ShardResult:
    """Generate the pictures of one shard; what is in the journal already is not done again."""
    result = run_shard(
        context.folder.load_plan(),
        context.folder,
        context.state,
        context.settings,
        arm,
        shard,
        endpoints,
        parallel=parallel,
        stop=context.halt,
        on_progress=on_progress,
        images=context.images,
        supervise=context.supervise,
        scale=context.scale,
        driver=context.driver,
    )
    if result.held and not context.halt.is_set():
        # What holds this shard holds the others: no request of theirs is started either.
        context.hold(result.reason)
    return result
