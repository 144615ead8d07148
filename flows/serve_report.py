"""What ``imagegate serve`` says of the runs it starts: a line when a gate starts or ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectHTTPStatusError

from deployments.collisions import LIMIT_REACHED, REFUSED, explain_refusals

#: How far back a look goes: longer than any gate takes.
BACK = timedelta(days=2)


class Reporter:
    """Tells what happened to flow runs since the last look.

    Args:
        names: The deployments that are served, by id.
        say: Takes a line.
    """

    def __init__(self, names: Mapping[UUID, str], say: Callable[[str], None]) -> None:
        self._names = dict(names)
        self._say = say
        self._told: dict[UUID, str] = {}
        self._since = datetime.now(UTC)

    def look(self) -> None:
        """Say what is new; a server that is away for a moment is asked again next time."""
        try:
            with get_client(sync_client=True) as client:
                explain_refusals(client)
                self._look(client)
        except (httpx.HTTPError, PrefectHTTPStatusError):
            return

    def _look(self, client: SyncPrefectClient) -> None:
        after = max(self._since, datetime.now(UTC) - BACK)
        found = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[*self._names])),
            flow_run_filter=FlowRunFilter(
                start_time=FlowRunFilterStartTime(after_=after, is_null_=False)
            ),
            sort=FlowRunSort.START_TIME_DESC,
            limit=100,
        )
        for run in reversed(found):
            line = self._line(run)
            if line is not None and self._told.get(run.id) != line:
                self._told[run.id] = line
                self._say(line)

    def _line(self, run: FlowRun) -> str | None:
        """Return what to say of a run now; watches are told of only when they go wrong."""
        state = run.state
        if state is None or run.deployment_id is None:
            return None
        name = self._names[run.deployment_id]
        gate = name.startswith("release-gate/")
        if not state.is_final():
            return f"started: {name} {run.name}" if gate and state.is_running() else None
        # A watch that came while another one looked has nothing to add.
        if not gate and (state.is_completed() or state.message == LIMIT_REACHED):
            return None
        lines = (state.message or "").strip().splitlines()
        # The message of a verdict starts with the verdict.
        first = lines[0].removeprefix(f"{state.name}: ") if lines else ""
        if state.is_cancelled() and state.name == REFUSED:
            return f"refused: {name} {run.name}: {first}"
        return f"ended: {name} {run.name}: {state.name}" + (f": {first}" if first else "")
