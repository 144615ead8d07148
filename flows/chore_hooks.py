"""A small flow that runs every few minutes and breaks is told once, and that it works again too.

Not the hooks of a gate: those tell each failed run, and this would be one page every five minutes.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flows.refusal import REFUSED
from tasks.alerts.delivery import deliver_all
from tasks.alerts.incidents import raise_alarm, resolve_alarm
from tasks.settings import load_settings
from tasks.state import State
from tasks.watchdog.words import one_line

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.objects import State as FlowState

#: Seconds that a hook tries to deliver: the process is about to end, others go on.
DELIVERY_S = 5.0


def on_broken(flow: Flow[..., Any], flow_run: FlowRun, state: FlowState[Any]) -> None:
    """Tell that a flow failed or crashed; its repetitions are counted in the same thread."""
    if state.name == REFUSED:
        return  # The flow itself has told what to mend.
    settings = load_settings()
    with closing(State(settings.state_url.get_secret_value())) as database:
        raise_alarm(
            database,
            _key(flow.name),
            title=f"{flow.name} broke: it looks at nothing until it is mended",
            severity="warning",
            lines=(f"Flow run {flow_run.name!r}.", one_line(state.message or "no message")),
            asked=("Read the run's log in Prefect and mend the cause; the next run closes this.",),
        )
        deliver_all(database, settings, DELIVERY_S)


def note_works(state: State, name: str, now: datetime) -> None:
    """Close the alarm about a flow that has done its work again."""
    resolve_alarm(state, _key(name), how=f"{name} does its work again.", now=now)


def _key(name: str) -> str:
    return f"flow:{name}"
