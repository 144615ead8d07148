"""The watch over what serves as a Prefect flow: look → roll back, freeze, tell → deliver.

The same round as ``imagegate watch``, for a server whose workers are there anyway.
"""

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
from flows.live_round import (
    DELIVERY_S,
    NO_SOURCES,
    POLICY,
    Seen,
    has_sources,
    look_at,
    policy_of,
    watched_products,
)
from flows.refusal import refusals_as_states
from tasks.alerts.delivery import deliver_all
from tasks.policy import Policy
from tasks.settings import Settings, load_settings
from tasks.state import State


class LiveWatchRequest(BaseModel):
    """Parameters of one look at what serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: str | None = Field(
        default=None,
        max_length=120,
        title="Product",
        description="Only this product; empty: every product that serves.",
    )
    policy: str = Field(
        default=POLICY,
        title="Policy",
        description="File whose section `watch` has the limits.",
    )


#: What a schedule asks for.
EVERYTHING = LiveWatchRequest()


@task(name="watch", task_run_name="watch {product}", cache_policy=NO_CACHE)
def watch(state: State, settings: Settings, product: str, policy: Policy, now: datetime) -> Seen:
    """Look at a product; what is above its limits is rolled back, verified and told."""
    return look_at(state, settings, product, policy, now)


@flow(
    name="live-watch",
    description="Watch what serves: failures, defects, latency, cost, tickets, and new inputs.",
    persist_result=False,
    on_failure=[on_broken],
    on_crashed=[on_broken],
)
@refusals_as_states
def live_watch(request: LiveWatchRequest = EVERYTHING) -> FlowState[dict[str, Any]]:
    """Return a completed state named after the worst that was seen, with all products as data."""
    settings, now = load_settings(), datetime.now(UTC)
    logger = get_run_logger()
    policy = policy_of(request.policy)
    if not has_sources(settings):
        return Completed(name="Not configured", message=NO_SOURCES, data={"products": []})
    with closing(State(settings.state_url.get_secret_value(), home=settings.home)) as state:
        wanted = () if request.product is None else (request.product,)
        seen = [
            watch(state, settings, product, policy, now)
            for product in watched_products(state, wanted)
        ]
        note_works(state, "live-watch", now)
        sent = deliver_all(state, settings, DELIVERY_S)
        logger.info("delivered %d messages, %d wait", len(sent.delivered), sent.left)
    for one in seen:
        if one.status != "watching":
            logger.warning("%s: %s: %s", one.product, one.status, one.reason)
    create_table_artifact(
        [row(one) for one in seen], key="live-watch", description="What serves, and how it does"
    )
    return Completed(
        name=_name({one.status for one in seen}),
        message="; ".join(f"{one.product}: {one.reason or one.status}" for one in seen)
        or "no product serves yet",
        data={"products": [one.to_dict() for one in seen]},
    )


def row(seen: Seen) -> dict[str, Any]:
    """Return a product as a row of the artifact."""
    memory = None if seen.watch is None else seen.watch.memory
    failures = None if memory is None else memory.detectors["failures"]
    return {
        "product": seen.product,
        "mix": seen.mix_name,
        "status": seen.status,
        "why": seen.reason,
        "images": "–" if memory is None else f"{memory.images:,}",
        "failures": "–"
        if failures is None or failures.rate is None
        else f"{100 * failures.rate:.2f} %",
        "new inputs": seen.warning,
        "done": "" if seen.acted is None else seen.acted.sentence,
    }


def _name(statuses: set[str]) -> str:
    for status, name in (("alarm", "Alarm"), ("fault", "Broken"), ("blind", "Blind")):
        if status in statuses:
            return name
    return "Watching"
