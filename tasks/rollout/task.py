"""Prefect tasks: promote the candidate, or put production back on the baseline."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.context import RunContext
from tasks.mix.production import require_production
from tasks.plan import RunPlan
from tasks.rollout.calendar import assert_may_change
from tasks.rollout.canary.store import Canary, newest_of
from tasks.rollout.change import RolloutResult, reconcile
from tasks.rollout.change import promote as promote_now
from tasks.rollout.change import roll_back as roll_back_now
from tasks.rollout.config import load_rollout, open_router
from tasks.telemetry import stage


@task(name="settle_production", task_run_name="settle_production", cache_policy=NO_CACHE)
@stage
def settle_production(context: RunContext, product: str) -> RolloutResult:
    """Make the router show production as it is: after its adoption, or after a crash.

    Raises:
        RolloutError: The router does not show it.
    """
    return settle_now(context, product)


def settle_now(context: RunContext, product: str) -> RolloutResult:
    """Do what :func:`settle_production` says, inside another task."""
    return reconcile(
        context.state,
        open_router(context.settings),
        product,
        now=datetime.now(UTC),
        actor=f"run {context.run_id}",
    )


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE)
@stage
def promote(context: RunContext, plan: RunPlan, reason: str) -> RolloutResult:
    """Make the candidate production, verified at the router.

    Raises:
        FrozenError: Somebody froze production meanwhile, or the calendar does.
        FencedError: Somebody changed production meanwhile.
        TakenOverError: Another process drives the run by now.
        RolloutError: The router does not show the change.
    """
    now = datetime.now(UTC)
    assert_may_change(load_rollout(context.settings).calendar, plan.product, now)
    return promote_now(
        context.state,
        open_router(context.settings),
        plan.product,
        plan.candidate,
        # Somebody may have rolled back to a third mix while the run went on: that stands.
        expected_mixes=(plan.baseline.digest, plan.candidate.digest),
        actor=f"run {plan.run_id}",
        reason=reason,
        run_id=plan.run_id,
        driver=context.driver,
        now=now,
    )


@task(name="start_canary", task_run_name="start_canary", cache_policy=NO_CACHE)
@stage
def start_canary(context: RunContext, plan: RunPlan) -> Canary:
    """Book a canary of the candidate; a run that comes again finds the one that it started.

    Raises:
        FrozenError: Somebody froze production meanwhile, or the calendar does.
        RefusedError: A canary of the product is under way, or production moved meanwhile.
        TakenOverError: Another process drives the run by now.
    """
    from tasks.rollout.canary.begin import begin_canary

    before = newest_of(context.state, plan.product)
    if before is not None and before.plan.run_id == plan.run_id:
        return before
    context.check_driver()
    return begin_canary(
        context.state,
        plan.candidate,
        plan.policy.canary,
        plan.policy.digest,
        actor=f"run {plan.run_id}",
        now=datetime.now(UTC),
        run_id=plan.run_id,
        by_gate=True,
        calendar=load_rollout(context.settings).calendar,
    )


@task(name="roll_back", task_run_name="roll_back", cache_policy=NO_CACHE)
@stage
def roll_back(context: RunContext, plan: RunPlan, reason: str) -> RolloutResult:
    """Put production on the baseline, or show that it is there, verified at the router.

    A canary of another candidate is none of this run's business and goes on.

    Raises:
        FencedError: Somebody put a third mix into production meanwhile; it stays.
        RolloutError: The router does not show it.
    """
    serves = require_production(context.state, plan.product)
    walks = serves.candidate_digest
    if serves.mix_digest == plan.baseline.digest and walks not in (None, plan.candidate.digest):
        return settle_now(context, plan.product)
    return roll_back_now(
        context.state,
        open_router(context.settings),
        plan.product,
        plan.baseline.digest,
        expected_mixes=(plan.baseline.digest, plan.candidate.digest),
        actor=f"run {plan.run_id}",
        reason=reason,
        run_id=plan.run_id,
        now=datetime.now(UTC),
    )
