"""The surroundings of a gate: a new run or a resumed one, and the servers it starts itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flows.request import GateRequest
from flows.watcher import Watcher
from tasks.context import RunContext
from tasks.inputs.task import draw_sample
from tasks.mix.catalog import EMBEDDED
from tasks.mix.selection import Selection, select, selection_of
from tasks.mix.task import abandon
from tasks.plan import RunPlan
from tasks.runs import check_resumable, new_run_id
from tasks.settings import load_settings
from tasks.state import State


@contextmanager
def open_run(request: GateRequest, watcher: Watcher) -> Iterator[tuple[RunContext, Selection]]:
    """Yield the surroundings of a new or a resumed run; a run that breaks is booked as failed.

    Raises:
        ConfigError: A file of the request is missing or wrong, or the run cannot be resumed.
    """
    settings = load_settings()
    state = State(settings.state_url.get_secret_value())
    try:
        if request.resume is not None:
            check_resumable(state, request.resume)
            context = RunContext(settings, state, request.resume, watcher.stop)
            selection = selection_of(context.folder.load_plan())
        else:
            selection = select(
                state, request.candidate, request.baseline, request.policy, request.catalog
            )
            run_id = new_run_id(selection.candidate.mix.name)
            context = RunContext(settings, state, run_id, watcher.stop)
        try:
            yield context, selection
        except BaseException:
            abandon(context, selection.product)
            raise
    finally:
        state.close()


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
    if request.resume is not None:
        return context.folder.load_plan()
    return draw_sample(
        context,
        selection,
        inputs=request.inputs,
        cases=request.cases,
        seed=request.seed,
        budget_usd=request.budget_usd,
    )
