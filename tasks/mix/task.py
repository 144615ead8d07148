"""Prefect tasks: freeze production and refuse what must not be tried."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.context import RunContext
from tasks.mix.freeze import acquire_for_run, active_freeze, release_for_run
from tasks.mix.preflight import Served, check_preflight
from tasks.mix.production import adopt, forget_adoption, keep_mix
from tasks.mix.selection import Selection
from tasks.runs import begin_run, drives, end_run
from tasks.telemetry import stage


@task(name="freeze_mix", task_run_name="freeze_mix", cache_policy=NO_CACHE)
@stage
def freeze_mix(context: RunContext, selection: Selection, owner: str) -> str:
    """Lock production for this run and return until when, as UTC ISO-8601.

    Raises:
        FrozenError: A person or a living run holds production.
    """
    state, product = context.state, selection.product
    adopt(state, selection.baseline, owner, "first mix of the product")
    keep_mix(state, selection.candidate)
    begin_run(
        state,
        context.run_id,
        product,
        selection.candidate.digest,
        selection.baseline.digest,
        driver=context.driver,
        requester=owner,
        flow_run_id=context.flow_run_id,
    )
    context.begin_heartbeat()
    frozen = acquire_for_run(
        state,
        product,
        run_id=context.run_id,
        owner=owner,
        reason=f"release gate judges {selection.candidate.mix.name!r}",
        days=selection.policy.freeze.days,
        now=datetime.now(UTC),
    )
    return frozen.until_at


@task(name="preflight", task_run_name="preflight", cache_policy=NO_CACHE)
@stage
def preflight(context: RunContext, selection: Selection, served: Mapping[str, Served]) -> int:
    """Refuse the run before it spends; return how many models were looked at.

    Raises:
        PreflightError: With every problem found.
    """
    now = datetime.now(UTC)
    held = active_freeze(context.state, selection.product, now)
    until = datetime.fromisoformat(held.until_at) if held else now
    mixes = (selection.baseline, selection.candidate)
    check_preflight(
        mixes,
        served=served,
        has_key=lambda name: context.settings.key(name) is not None,
        today=now.date(),
        frozen_until=until.date(),
    )
    return len({name for mix in mixes for name in mix.mix.model_names})


def abandon(context: RunContext, product: str) -> None:
    """Book a run that broke; production is frozen by it no longer when nothing was spent yet.

    A run that waits for a person, or that another process drives by now, is left as it is.
    """
    if not drives(context.state, context.run_id, context.driver):
        return
    now = datetime.now(UTC)
    with context.state.begin() as connection:
        if not context.folder.has_plan():
            release_for_run(connection, product, run_id=context.run_id, now=now)
            forget_adoption(connection, product)
    end_run(context.state, context.run_id, "failed", driver=context.driver)
