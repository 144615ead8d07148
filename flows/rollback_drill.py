"""The rehearsal of rollbacks as a Prefect flow: each product, told when one would not go."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as FlowState
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.chore_hooks import note_works, on_broken
from flows.live_round import DELIVERY_S, watched_products
from flows.refusal import refusals_as_states
from flows.rehearsal import drill_json, drill_with
from tasks.alerts.delivery import deliver_all
from tasks.rollout.drill import Drill
from tasks.settings import Settings, load_settings
from tasks.state import State


class DrillRequest(BaseModel):
    """Parameters of a rehearsal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: str | None = Field(
        default=None,
        max_length=120,
        title="Product",
        description="Only this product; empty: every product that serves.",
    )
    dry: bool = Field(
        default=False,
        title="Dry",
        description="Change nothing at all, also not the shadow route of the rollout file.",
    )


#: What a schedule asks for.
EVERYTHING = DrillRequest()


@task(name="rehearse", task_run_name="rehearse {product}", cache_policy=NO_CACHE)
def rehearse(state: State, settings: Settings, product: str, dry: bool) -> Drill:
    """Rehearse the rollback of a product, with no effect on users."""
    return drill_with(state, settings, product, "schedule", dry=dry)


@flow(
    name="rollback-drill",
    description="Rehearse a rollback on production's router with no effect on users, and time it.",
    persist_result=False,
    on_failure=[on_broken],
    on_crashed=[on_broken],
)
@refusals_as_states
def rollback_drill(request: DrillRequest = EVERYTHING) -> FlowState[dict[str, Any]]:
    """Return a completed state that says whether rollbacks would go, with all steps as data."""
    settings, now = load_settings(), datetime.now(UTC)
    logger = get_run_logger()
    with closing(State(settings.state_url.get_secret_value(), home=settings.home)) as state:
        wanted = () if request.product is None else (request.product,)
        done = [
            rehearse(state, settings, product, request.dry)
            for product in watched_products(state, wanted)
        ]
        note_works(state, "rollback-drill", now)
        sent = deliver_all(state, settings, DELIVERY_S)
        logger.info("delivered %d messages, %d wait", len(sent.delivered), sent.left)
    create_table_artifact(
        [
            {
                "product": one.product,
                "router": one.router,
                "step": step.name,
                "went": "yes" if step.ok else "NO",
                "seconds": f"{step.seconds:.3f}",
                "found": step.said,
            }
            for one in done
            for step in one.steps
        ],
        key="rollback-drill",
        description="What a rollback needs, tried out with no effect on users",
    )
    bad = [one.product for one in done if not one.ok]
    return Completed(
        name="Would not go" if bad else "Rehearsed",
        message=f"a rollback would not go: {', '.join(bad)}"
        if bad
        else f"{len(done)} products, slowest {max((d.seconds for d in done), default=0):.2f} s",
        data={"drills": [drill_json(one, now) for one in done]},
    )
