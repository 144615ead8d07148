"""A gate that was refused because another one of its product runs: say which one.

Prefect cancels it with the words "Deployment concurrency limit reached."; the person who started it
wants to know by whom, and what to do.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from deployments.registry import TAG
from tasks.settings import prefect_api_url

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

#: What Prefect's server writes into the state of such a run.
LIMIT_REACHED = "Deployment concurrency limit reached."
#: The name of the state that says why.
REFUSED = "Refused"


def explain_refusals(client: SyncPrefectClient, *, most: int = 50) -> list[str]:
    """Give refused gates a state that names the run in the way; return a sentence for each.

    Safe to call at any time and from several processes: a run that was explained is not again.
    """
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateName,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Cancelled

    refused = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[TAG, "gate"]),
            state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Cancelled"])),
        ),
        sort=FlowRunSort.END_TIME_DESC,
        limit=most,
    )
    told = []
    for run in refused:
        if run.state is None or run.state.message != LIMIT_REACHED or run.deployment_id is None:
            continue
        text = _sentence(_in_the_way(client, run, run.state.timestamp))
        client.set_flow_run_state(run.id, Cancelled(name=REFUSED, message=text), force=True)
        told.append(f"{run.name}: {text}")
    return told


def explain_now() -> list[str]:
    """Explain the refusals of the configured server; none without one, or while it is away."""
    if prefect_api_url() is None:
        return []
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            return explain_refusals(client)
    except (httpx.HTTPError, PrefectHTTPStatusError):
        return []  # The next look explains them.


def _in_the_way(client: SyncPrefectClient, refused: FlowRun, at: datetime) -> FlowRun | None:
    """Return the run of the same deployment that held the slot at that moment."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    assert refused.deployment_id is not None  # noqa: S101 - checked by the caller
    # Not scheduled ones: what waits has no slot.
    kinds = [kind for kind in StateType if kind != StateType.SCHEDULED]
    others = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[refused.deployment_id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=50,
    )
    for other in others:
        if other.id != refused.id and _held_slot(other, at):
            return other
    return None


def _held_slot(run: FlowRun, at: datetime) -> bool:
    """Tell whether a run was active at a moment; one that never ran never held a slot."""
    if run.state is None or (run.start_time is not None and run.start_time > at):
        return False
    if run.state.is_final():
        return run.run_count > 0 and run.end_time is not None and run.end_time >= at
    return True


def _sentence(other: FlowRun | None) -> str:
    """Return why a run was refused, and what to do."""
    again = "Start it again when that run has ended; nothing was spent."
    if other is None:
        return f"Another gate of this product was active. {again}"
    since = other.start_time or other.expected_start_time
    when = f", since {since:%Y-%m-%d %H:%M} UTC" if since is not None else ""
    return f"Another gate of this product was active: {other.name!r} ({other.id}){when}. {again}"
