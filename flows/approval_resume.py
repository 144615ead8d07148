"""What follows an answer: the run that waited for it goes on, wherever it waits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import sqlalchemy as sa

from flows.approval_words import tell
from tasks.alerts.links import prefect_run
from tasks.approval import store
from tasks.approval.rules import Approval
from tasks.evidence.remote import folder_of
from tasks.runs import is_driven
from tasks.settings import Settings, prefect_api_url, without_login
from tasks.state import State
from tasks.tables import runs

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

#: ``prefect``: its flow run was resumed; ``here``: the caller has to resume the run itself;
#: ``going``: somebody does already; ``later``: not possible now; ``over``: the run has ended.
Way = Literal["prefect", "here", "going", "later", "over"]

#: Times that a flow run which is about to suspend itself is looked at again, and seconds between.
_LOOKS, _BETWEEN_S = 20, 0.5
#: Seconds that Prefect's server is given for an answer, and how often a busy one is asked again.
_TIMEOUT_S, _TRIES = 10.0, 3
#: Longest time of a run that only comes to its end.
_LONGEST_S = 1800
#: The command that decides ends the run itself; it gets this time to take the run upon itself.
COMMAND_S = 120.0


@dataclass(frozen=True, slots=True)
class CarriedOn:
    """How a run goes on after the answer."""

    run_id: str
    way: Way
    #: One sentence for people.
    sentence: str


def carry_on(state: State, settings: Settings, approval: Approval) -> CarriedOn:
    """Let a run go on whose approval is decided: resume it in Prefect, or say who has to.

    Safe to call again, and by several processes at once.
    """
    run_id = approval.run_id
    with state.begin() as connection:
        row = connection.execute(sa.select(runs).where(runs.c.run_id == run_id)).first()
    if row is None:
        return CarriedOn(run_id, "over", f"Run {run_id} is not in this state database.")
    if row.status == "finished":
        return CarriedOn(run_id, "over", f"Run {run_id} has ended with {row.verdict}.")
    if row.status == "running" and is_driven(row.host, row.pid, row.heartbeat_at):
        return CarriedOn(
            run_id, "going", f"Run {run_id} is under way on {row.host} and finds the decision."
        )
    url = prefect_api_url()
    if approval.flow_run_id is None:
        return _here(settings, run_id, f"Run {run_id} goes on in this process.")
    if url is None:
        return CarriedOn(
            run_id,
            "later",
            f"Run {run_id} waits as flow run {approval.flow_run_id} of a Prefect server; set "
            "PREFECT_API_URL and call again, or the watchdog resumes it.",
        )
    carried = _in_prefect(approval, url)
    return _here(settings, run_id, carried.sentence) if carried.way == "here" else carried


def _here(settings: Settings, run_id: str, sentence: str) -> CarriedOn:
    if folder_of(settings, run_id).has_plan():
        return CarriedOn(run_id, "here", sentence)
    return CarriedOn(
        run_id,
        "later",
        f"Run {run_id} lies on another machine, or its folder is gone from {settings.runs}; "
        f"`imagegate run --resume {run_id}` where it lies ends it.",
    )


def _in_prefect(approval: Approval, url: str) -> CarriedOn:
    """Resume the suspended flow run."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    run_id, flow_run_id = approval.run_id, str(approval.flow_run_id)
    page = prefect_run(flow_run_id, url)
    try:
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: _TRIES}),
            get_client(httpx_settings={"timeout": _TIMEOUT_S}, sync_client=True) as client,
        ):
            return _resumed(client, approval, flow_run_id, page or flow_run_id)
    except ObjectNotFound:
        return CarriedOn(
            run_id, "here", f"Prefect knows flow run {flow_run_id} no more; run {run_id} goes on."
        )
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError, OSError) as error:
        return CarriedOn(
            run_id,
            "later",
            f"Prefect's server at {without_login(url)} does not resume run {run_id} now "
            f"({type(error).__name__}); the decision is kept, and the watchdog resumes the run "
            "when the server answers. Calling this again does, too.",
        )


def _resumed(
    client: SyncPrefectClient, approval: Approval, flow_run_id: str, page: str
) -> CarriedOn:
    from flows.approval_form import answer

    run_id = approval.run_id
    for _ in range(_LOOKS):
        found = client.read_flow_run(UUID(flow_run_id)).state
        if found is None or not found.is_running():
            break
        # It is between asking the person and suspending itself.
        Event().wait(_BETWEEN_S)
    if found is not None and found.is_paused():
        done = client.resume_flow_run(UUID(flow_run_id), run_input=answer(approval))
        if done.status.value == "ACCEPT":
            return CarriedOn(run_id, "prefect", f"Run {run_id} was resumed in Prefect: {page}")
        found = client.read_flow_run(UUID(flow_run_id)).state
    if found is not None and not found.is_final() and not found.is_paused():
        return CarriedOn(run_id, "going", f"Run {run_id} is resumed already in Prefect: {page}")
    if found is not None and found.is_paused():
        return CarriedOn(
            run_id, "later", f"Prefect refuses to resume run {run_id}; look at it there: {page}"
        )
    name = "without a state" if found is None else found.name
    return CarriedOn(
        run_id, "here", f"Its flow run is {name} in Prefect; run {run_id} goes on without it."
    )


def resume_decided(state: State, settings: Settings) -> tuple[CarriedOn, ...]:
    """Close what has expired and resume every waiting run that has its answer; for the watchdog.

    A run that waits in Prefect is resumed there. One that ended as HOLD is resumed by a process
    of its own, when its folder lies on this machine.

    Returns:
        One entry for each run that was looked at.
    """
    for run_id in store.expire_due(state):
        closed = store.read(state, run_id)
        if closed is not None:
            tell(state, settings, closed)
    done = []
    for approval in store.closed_waiting(state):
        carried = carry_on(state, settings, approval)
        if carried.way == "here":
            carried = _left_to_command(approval) or _by_itself(carried)
        done.append(carried)
    return tuple(done)


def _left_to_command(approval: Approval) -> CarriedOn | None:
    """Return that a command has just decided and ends the run, ``None`` when none has."""
    if approval.decided_via != "command" or approval.decided_at is None:
        return None
    age = datetime.now(UTC) - datetime.fromisoformat(approval.decided_at)
    if age.total_seconds() > COMMAND_S:
        return None
    sentence = f"Run {approval.run_id} is ended by the command that {approval.decided_by} gave."
    return CarriedOn(approval.run_id, "going", sentence)


def _by_itself(carried: CarriedOn) -> CarriedOn:
    """Resume a run in a process of its own: it brings servers and takes signals."""
    run_id = carried.run_id
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "flows", "run", "--resume", run_id, "--json"],
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return CarriedOn(run_id, "later", f"Run {run_id} did not end within {_LONGEST_S} s.")
    if ended.returncode in (0, 1, 3):
        return CarriedOn(run_id, "here", f"Run {run_id} ended with exit code {ended.returncode}.")
    last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    return CarriedOn(run_id, "later", f"Run {run_id} could not go on: {last[:300]}")
