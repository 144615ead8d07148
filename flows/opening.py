"""The surroundings of a gate: a new run or a resumed one, and the servers it starts itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.fit import scaled_down
from flows.prefect_keys import with_block_keys
from flows.request import GateRequest
from flows.supervise import supervises, untrue
from flows.watcher import Watcher
from tasks.budget.task import (
    refuse_over_budget,
    refuse_resume_over_budget,
    rest_of_budget,
    run_budget,
)
from tasks.context import RunContext
from tasks.inputs.task import draw_sample
from tasks.mix.catalog import EMBEDDED
from tasks.mix.selection import Selection, select, selection_of
from tasks.mix.task import abandon
from tasks.plan import RunPlan
from tasks.runs import check_resumable, new_run_id, note_scheduled_start, run_of_flow
from tasks.settings import load_settings
from tasks.state import State
from tasks.telemetry import tracing


@contextmanager
def open_run(
    request: GateRequest,
    watcher: Watcher,
    flow_run_id: str | None = None,
    deployment: str | None = None,
) -> Iterator[tuple[RunContext, Selection]]:
    """Yield the surroundings of a new or a resumed run; a run that breaks is booked as failed.

    A flow run that Prefect starts again, after a crash or when a person has decided, goes on with
    the run that it drove before: nothing is paid twice.

    Args:
        request: What to judge.
        watcher: Hears of every step.
        flow_run_id: Prefect's flow run that this is.
        deployment: The deployment that it comes from, as ``flow/deployment``.

    Raises:
        ConfigError: A file of the request is missing or wrong, or the run cannot be resumed.
        RefusedError: A hard limit on spend is reached.
        TakenOverError: Another process drives the run by now.
    """
    settings = load_settings()
    state = State(settings.state_url.get_secret_value(), home=settings.home)
    try:
        before = request.resume
        if before is None and flow_run_id is not None:
            before = run_of_flow(state, flow_run_id)
        if before is not None:
            check_resumable(state, before)
        elif deployment is not None:
            note_scheduled_start(state, deployment)
        run_id = before or new_run_id(Path(request.candidate).stem)
        context = RunContext(settings, state, run_id, watcher.stop, flow_run_id)
        # A run that was killed before it had a plan has nothing to go on with: it starts over.
        if request.resume is not None or context.folder.has_plan():
            context.resumes = True
            plan = context.folder.load_plan()
            selection = selection_of(plan)
            room = refuse_resume_over_budget(state, settings, plan)
            asked = rest_of_budget(state, plan)
        else:
            selection = select(
                state, request.candidate, request.baseline, request.policy, request.catalog
            )
            room = refuse_over_budget(state, settings, selection.product)
            asked = run_budget(selection.policy, request.budget_usd)
        models = (*selection.baseline.models, *selection.candidate.models)
        context.settings = with_block_keys(settings, {model.key_env for model in models})
        if supervises(selection.baseline, selection.candidate):
            context.supervise = untrue
        context.scale = scaled_down
        capped = room.caps(asked)
        if capped is not None:
            watcher.step("budget", capped)
        try:
            with tracing("release-gate", settings, _lost_spans(watcher)) as root:
                root.set({"imagegate.run_id": run_id, "imagegate.product": selection.product})
                yield context, selection
            context.check_driver()
        except BaseException:
            abandon(context, selection.product)
            raise
        finally:
            context.end_heartbeat()
    finally:
        state.close()


def _lost_spans(watcher: Watcher) -> Callable[[str], None]:
    return lambda text: watcher.message("Tracing", text)


@contextmanager
def serving(context: RunContext, selection: Selection) -> Iterator[dict[str, str]]:
    """Yield the addresses of the servers that this run has to start itself, by endpoint name."""
    models = (*selection.baseline.models, *selection.candidate.models)
    with ExitStack() as stack:
        endpoints = {}
        if any(model.endpoint == EMBEDDED for model in models):
            from tasks.providers.embedded.process import EmbeddedServer

            server = stack.enter_context(EmbeddedServer(log=context.folder.server_log))
            endpoints[EMBEDDED] = server.base_url
        yield endpoints


def plan_of(context: RunContext, selection: Selection, request: GateRequest) -> RunPlan:
    """Return the plan: the one that a resumed run has, or a new one."""
    if context.resumes:
        return context.folder.load_plan()
    return draw_sample(
        context,
        selection,
        inputs=request.inputs,
        cases=request.cases,
        seed=request.seed,
        budget_usd=request.budget_usd,
    )
