"""What happens in the process when a flow run fails, crashes or is cancelled: people are told.

The hooks queue the alert in the state database and try to deliver it for a few seconds. They run
in the flow's own process, or, when that is gone, in the runner that started it; a machine that is
gone runs none of them, which is what the watchdog is for. Both tell the same failure once.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from tasks.alerts.delivery import deliver_all
from tasks.alerts.incidents import raise_alarm
from tasks.alerts.run_thread import run_failed
from tasks.runs import run_of_flow
from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.tables import resumes, runs
from tasks.watchdog.failure import is_refusal
from tasks.watchdog.gates import death_event, failure_event, failure_words
from tasks.watchdog.words import one_line

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.objects import State as FlowState

#: Seconds that a hook tries to deliver: the process is about to end, the watchdog goes on.
DELIVERY_S = 5.0


def on_failure(flow: Flow[..., Any], flow_run: FlowRun, state: FlowState[Any]) -> None:
    """Tell that a gate broke by an error, or that it was refused, which wakes nobody."""
    _tell(flow, flow_run, state, crashed=False)


def on_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: FlowState[Any]) -> None:
    """Tell that a gate's process ended without an answer."""
    _tell(flow, flow_run, state, crashed=True)


def on_cancellation(flow: Flow[..., Any], flow_run: FlowRun, state: FlowState[Any]) -> None:
    """Book the run of a cancelled flow run as stopped: nobody is alarmed, nothing resumes it."""
    import sqlalchemy as sa

    from tasks.records import utc_now

    settings = load_settings()
    of_it = (runs.c.flow_run_id == str(flow_run.id)) & runs.c.status.in_(("running", "waiting"))
    ended = {"status": "stopped", "driver": None, "ended_at": utc_now()}
    with (
        closing(State(settings.state_url.get_secret_value())) as database,
        database.begin() as connection,
    ):
        connection.execute(sa.update(runs).where(of_it).values(**ended))


def _tell(flow: Flow[..., Any], flow_run: FlowRun, state: FlowState[Any], *, crashed: bool) -> None:
    settings = load_settings()
    message = state.message or ""
    refused = not crashed and is_refusal(message, state.name or "")
    if refused and flow_run.deployment_id is None:
        return  # The person at the command line reads the sentence there.
    with closing(State(settings.state_url.get_secret_value())) as database:
        tell_failure(
            database,
            settings,
            flow_run_id=str(flow_run.id),
            shown=f"{flow.name}, flow run {flow_run.name!r}",
            message=message,
            refused=refused,
            crashed=crashed,
        )
        deliver_all(database, settings, DELIVERY_S)


def tell_failure(
    database: State,
    settings: Settings,
    *,
    flow_run_id: str,
    shown: str,
    message: str,
    refused: bool,
    crashed: bool,
) -> bool:
    """Queue what people are told of a gate that ended without a verdict.

    Returns:
        ``False`` when this failure was told before, by the watchdog or by another hook.
    """
    run_id, product, count = _run(database, flow_run_id)
    severity, title, asked = failure_words(product, refused)
    lines = tuple(line for line in (f"{shown}.", one_line(message)) if line)
    if run_id is None or product is None or refused:
        return raise_alarm(
            database,
            f"gate:{flow_run_id}",
            title=title,
            severity=severity,
            product=product,
            lines=lines,
            asked=asked,
        )
    event = death_event(flow_run_id, count) if crashed else failure_event(flow_run_id, count)
    if crashed:
        asked = ("Nothing yet: the watchdog resumes it, and says so here if it does not.",)
    return run_failed(
        database,
        settings,
        run_id=run_id,
        product=product,
        what="its process ended without a verdict" if crashed else title.partition(": ")[2],
        event=event,
        lines=lines,
        asked=asked,
    )


def _run(database: State, flow_run_id: str) -> tuple[str | None, str | None, int]:
    """Return the gate run of a flow run, its product, and how often it was resumed."""
    import sqlalchemy as sa

    run_id = run_of_flow(database, flow_run_id)
    with database.begin() as connection:
        product = connection.execute(
            sa.select(runs.c.product).where(runs.c.run_id == run_id)
        ).scalar()
        count = connection.execute(
            sa.select(resumes.c["count"]).where(resumes.c.key == flow_run_id)
        ).scalar()
    return run_id, product, count or 0
