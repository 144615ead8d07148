"""The canary as a Prefect flow: begin or go on → one task a step → promoted, or rolled back.

A person starts it from Prefect's UI, and tells a canary that is under way something by starting
it with another action. Suspending the flow run there pauses the canary, resuming it goes on;
cancelling the flow run aborts the canary.

A flow run whose process died leaves its canary as it is: the watch takes looks at it until
somebody drives it again, and this flow, started anew, goes on with the same step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import httpx
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State as FlowState
from prefect.exceptions import Pause, PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows import canary_deeds as deeds
from flows.artifacts import artifact_key
from flows.canary_words import markdown
from flows.refusal import refusals_as_states
from flows.watcher import LoggedWatcher, current_watcher
from tasks.alerts.worker import OutboxWorker
from tasks.rollout.canary import store
from tasks.rollout.canary.look import Surroundings, look
from tasks.rollout.canary.store import Canary, Control
from tasks.rollout.canary.walk import walk
from tasks.settings import Settings, load_settings
from tasks.state import State

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun

#: Who pauses a canary whose flow run is suspended.
SUSPENDED = "Prefect (suspended flow run)"
#: Seconds between two versions of the artifact that says how far it is.
SHOWN_S = 30.0
#: Names of the flow run's last state.
ENDS = {
    "promoted": "PROMOTE",
    "rolled_back": "ROLLBACK",
    "aborted": "ABORTED",
    "failed": "FAILED",
}

Action = Literal["walk", "pause", "resume", "skip", "abort"]


class CanaryRequest(BaseModel):
    """Parameters of a canary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action = Field(
        default="walk",
        title="Action",
        description="`walk` starts the product's canary or goes on with it; the others are told "
        "to the one that is under way.",
    )
    product: str = Field(default="storefront", min_length=1, max_length=120, title="Product")
    candidate: str | None = Field(
        default=None,
        title="Candidate mix",
        description="File of the mix that is to walk; empty: the one of the gate run.",
    )
    run: str | None = Field(
        default=None,
        title="Gate run",
        description="The run that promoted the candidate; empty: the newest one of the mix.",
    )
    policy: str | None = Field(
        default=None,
        title="Policy",
        description="File with a section `canary`; empty: the gate run's own.",
    )
    catalog: str = Field(default="deployments/catalog.yaml", title="Catalog")
    without_gate: str | None = Field(
        default=None,
        min_length=1,
        title="Without a gate",
        description="Why the candidate may meet users though no gate promoted it; kept.",
    )
    owner: str = Field(default="imagegate", title="Who asks", description="Kept in the journal.")
    reason: str = Field(
        default="asked in Prefect", title="Reason", description="Kept with pause, skip and abort."
    )


def flow_run_name() -> str:
    """Return what Prefect's UI calls the run."""
    request = CanaryRequest.model_validate(flow_run.parameters["request"])
    return f"{request.action} {request.product}"


def on_cancellation(flow: Flow[..., Any], flow_run: FlowRun, state: FlowState[Any]) -> None:
    """Abort the canary of a cancelled flow run: its candidate loses its share."""
    settings = load_settings()
    with closing(State(settings.state_url.get_secret_value(), home=settings.home)) as database:
        canary = store.of_flow(database, str(flow_run.id))
        if canary is None or not canary.live:
            return
        by = "Prefect (cancelled flow run)"
        store.ask(database, canary.id, "abort", by=by, reason=f"{flow.name} {flow_run.name}")
        if canary.driver is not None:
            # Its process was ended by the cancellation.
            store.let_go(database, canary.id, canary.driver)
        deeds.look_once(database, settings, canary)
        deeds.deliver(database, settings)


@flow(
    name="canary",
    description="Let a candidate walk into production step by step; roll it back when it is worse.",
    flow_run_name=flow_run_name,
    persist_result=False,
    on_cancellation=[on_cancellation],
)
@refusals_as_states
def canary(request: CanaryRequest) -> FlowState[dict[str, Any]]:
    """Return a completed state named after how the canary ended, with its figures as data."""
    settings = load_settings()
    if request.action != "walk":
        return told(settings, request, request.action)
    logger = get_run_logger()
    watcher = LoggedWatcher(current_watcher(), logger)
    with (
        watcher.signals(),
        closing(State(settings.state_url.get_secret_value(), home=settings.home)) as state,
    ):
        around = deeds.surroundings(state, settings)
        walking = begin_or_go_on(around, settings, request, _flow_run_id())
        watcher.step("begin", deeds.sentence(walking))
        with OutboxWorker(state, settings) as outbox:
            while walking.live and not watcher.stop.is_set():
                name = f"step {100 * walking.weight:g} %"
                step = walk_step.with_options(task_run_name=name)
                try:
                    walking = step(around, walking, watcher.stop, outbox.wake)
                    if walking.live and (suspended := _suspended()) is not None:
                        raise Pause(state=suspended)
                except Pause:
                    # Prefect raises it, too, where a task ends after somebody suspended the run.
                    _pause(around, walking)
                    raise
                watcher.step(name, deeds.sentence(walking))
        deeds.deliver(state, settings)
        show(walking)
    name = ENDS.get(walking.status, "HOLD")
    return Completed(name=name, message=deeds.sentence(walking), data=deeds.as_json(walking))


def told(settings: Settings, request: CanaryRequest, control: Control) -> FlowState[dict[str, Any]]:
    """Tell the canary that is under way something."""
    found, how = deeds.ask(
        settings, request.product, control, by=request.owner, reason=request.reason
    )
    get_run_logger().info("%s: %s", control, how)
    message = f"{how}; {deeds.sentence(found)}"
    return Completed(name="Asked", message=message, data=deeds.as_json(found))


def begin_or_go_on(
    around: Surroundings, settings: Settings, request: CanaryRequest, flow_run_id: str | None
) -> Canary:
    """Return the canary that this flow run drives from now on.

    Raises:
        RefusedError: It may not begin, or a living process drives it.
    """
    state = around.state
    before = None if flow_run_id is None else store.of_flow(state, flow_run_id)
    before = before or store.live_of(state, request.product)
    if before is None:
        wanted = deeds.Wanted(
            actor=request.owner,
            candidate=request.candidate,
            run_id=request.run,
            policy=request.policy,
            catalog=request.catalog,
            without_gate=request.without_gate,
        )
        before = deeds.start(state, settings, wanted)
    if not before.live:
        return before
    claimed = store.claim(state, before.id, around.driver, flow_run_id=flow_run_id)
    if claimed.status == "paused" and claimed.control_by == SUSPENDED:
        claimed = store.ask(state, claimed.id, "resume", by="Prefect", reason="flow run resumed")
    return claimed


@task(name="walk_step", task_run_name="walk_step", cache_policy=NO_CACHE)
def walk_step(
    around: Surroundings, walking: Canary, stop: threading.Event, wake: Callable[[], None]
) -> Canary:
    """Drive the canary until its step is passed, it is over, or the flow run is suspended."""
    logger = get_run_logger()
    step, shown_at, said = walking.step, 0.0, ""

    def looked(seen: Canary) -> None:
        nonlocal shown_at, said
        wake()
        text = deeds.sentence(seen)
        if text != said:
            logger.info("%s", text)
            said = text
        if time.monotonic() - shown_at >= SHOWN_S or seen.step != step or not seen.live:
            show(seen)
            shown_at = time.monotonic()

    return walk(
        around,
        walking,
        stop,
        on_look=looked,
        on_error=partial(logger.warning, "%s"),
        until=lambda seen: seen.step != step or _suspended() is not None,
    )


def show(canary: Canary) -> None:
    """Give Prefect's UI how far the canary is."""
    create_markdown_artifact(
        markdown(canary),
        key=artifact_key("canary", canary.id),
        description=f"{canary.plan.candidate_name} in {canary.plan.product}: {canary.status}",
    )


def _pause(around: Surroundings, walking: Canary) -> None:
    """Pause the canary of a flow run that a person suspended; the watch judges it on."""
    walking = store.read(around.state, walking.id)
    if walking.live and walking.status != "paused":
        store.ask(
            around.state, walking.id, "pause", by=SUSPENDED, reason="suspended in Prefect's UI"
        )
        look(around, walking.id)
    store.let_go(around.state, walking.id, around.driver)


def _flow_run_id() -> str | None:
    return str(flow_run.id) if flow_run.id else None


def _suspended() -> FlowState[Any] | None:
    """Return the state of this flow run if a person suspended it in Prefect's UI."""
    run_id = flow_run.id
    if not run_id:
        return None
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(run_id).state
    except (httpx.HTTPError, PrefectHTTPStatusError, OSError):
        # A canary does not need Prefect's server to be up.
        return None
    return found if found is not None and found.is_paused() else None
