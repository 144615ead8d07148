"""Prefect's server as the watchdog needs it: what runs, who takes runs, and three changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from tasks.settings import without_login
from tasks.watchdog.model import OUR_FLOWS, FlowFact, Limits, PoolFact
from tasks.watchdog.prefect_query import read_filtered

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import DeploymentResponse

#: Seconds that one request to the server may take: a look must not hang on it.
TIMEOUT_S = 10.0
#: Flow runs of one kind that are read at the most.
MOST = 200

_ACTIVE = ("RUNNING", "PENDING", "CANCELLING")
_BROKEN = ("CRASHED", "FAILED")
_ENDED = ("COMPLETED", "CRASHED", "FAILED", "CANCELLED")
#: Waits on purpose, for a slot of its deployment.
_WAITS_FOR_SLOT = "AwaitingConcurrencySlot"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the server found."""

    flows: tuple[FlowFact, ...] = ()
    pools: tuple[PoolFact, ...] = ()


class PrefectSide:
    """Reads and changes flow runs of imagegate's flows on one server.

    Args:
        url: Address of the server's API; the credentials are Prefect's own settings.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        #: The address without a user in it.
        self.shown = without_login(url)

    @contextmanager
    def _client(self) -> Iterator[SyncPrefectClient]:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        # Prefect's client would try again for a minute; the next look comes sooner.
        quick = {PREFECT_API_URL: self.url, PREFECT_CLIENT_MAX_RETRIES: 0}
        with (
            temporary_settings(quick),
            get_client(httpx_settings={"timeout": TIMEOUT_S}, sync_client=True) as client,
        ):
            yield client

    def look(self, now: datetime, limits: Limits) -> Seen:
        """Return the flow runs that matter now, and who takes runs.

        Raises:
            Exception: The server does not answer, or not as expected.
        """
        with self._client() as client:
            ours = _OurFlows(client)
            flows = {
                run.id: run
                for run in (
                    *ours.active(),
                    *ours.waiting(now - timedelta(seconds=limits.late_s)),
                    *ours.broken(now - timedelta(seconds=limits.tell_s)),
                    *ours.last_ended(),
                )
            }
            silent = [
                run.id
                for run in flows.values()
                if run.state == "RUNNING" and (now - run.since).total_seconds() > limits.start_s / 2
            ]
            beats = ours.beats(silent, now)
            found = tuple(replace(run, beat_at=beats.get(run.id)) for run in flows.values())
            return Seen(found, ours.pools(found, now, limits))

    def flows_by_id(self, ids: Iterable[str]) -> tuple[FlowFact, ...]:
        """Return flow runs by id; those that this server does not know are left out."""
        wanted = [UUID(text) for text in ids][:MOST]
        if not wanted:
            return ()
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
        from prefect.client.schemas.objects import FlowRun

        with self._client() as client:
            ours = _OurFlows(client)
            wanted_ids = FlowRunFilter(id=FlowRunFilterId(any_=wanted))
            runs = read_filtered(client, "/flow_runs/filter", FlowRun, flow_runs=wanted_ids)
            return tuple(ours.fact(run) for run in runs)

    def state_of(self, flow_run_id: str) -> str:
        """Return the type of a flow run's state now, e.g. ``RUNNING``."""
        with self._client() as client:
            run = client.read_flow_run(UUID(flow_run_id))
            return "NONE" if run.state_type is None else run.state_type.value

    def crash(self, flow_run_id: str, why: str) -> None:
        """Book a flow run as crashed, which frees the slot of its deployment."""
        from prefect.states import Crashed

        with self._client() as client:
            # Forced: Prefect's rules are for a process that reports, and there is none.
            client.set_flow_run_state(UUID(flow_run_id), Crashed(message=why), force=True)

    def cancelled(self, flow_run_id: str, why: str) -> None:
        """Book a flow run as cancelled when the process that should do so is gone."""
        from prefect.states import Cancelled

        with self._client() as client:
            client.set_flow_run_state(UUID(flow_run_id), Cancelled(message=why), force=True)

    def start_again(self, flow_run_id: str, why: str) -> bool:
        """Let a worker take a flow run again; ``False`` when Prefect's rules refuse it."""
        from prefect.client.schemas.responses import SetStateStatus
        from prefect.states import AwaitingRetry

        with self._client() as client:
            state: State[Any] = AwaitingRetry(scheduled_time=datetime.now(UTC), message=why)
            done = client.set_flow_run_state(UUID(flow_run_id), state)
            return done.status == SetStateStatus.ACCEPT


class _OurFlows:
    """Queries about imagegate's flows, on an open client."""

    def __init__(self, client: SyncPrefectClient) -> None:
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName
        from prefect.client.schemas.objects import Flow
        from prefect.client.schemas.responses import DeploymentResponse

        self._client = client
        self._filter = FlowFilter(name=FlowFilterName(any_=list(OUR_FLOWS)))
        found = read_filtered(client, "/flows/filter", Flow, flows=self._filter)
        self._flows = {flow.id: flow.name for flow in found}
        self._deployments: dict[UUID, DeploymentResponse] = {}
        if self._flows:
            deployed = read_filtered(
                client, "/deployments/filter", DeploymentResponse, flows=self._filter
            )
            self._deployments = {deployment.id: deployment for deployment in deployed}

    def fact(self, run: FlowRun) -> FlowFact:
        """Return a flow run as a fact."""
        deployment = self._deployments.get(run.deployment_id) if run.deployment_id else None
        flow = self._flows.get(run.flow_id, "unknown flow")
        state = run.state
        return FlowFact(
            id=str(run.id),
            name=run.name,
            flow=flow,
            deployment=None if deployment is None else f"{flow}/{deployment.name}",
            pool=None if deployment is None else deployment.work_pool_name,
            state="NONE" if state is None else state.type.value,
            state_name="" if state is None else state.name or "",
            message="" if state is None else state.message or "",
            since=_aware(
                state.timestamp if state is not None else run.created or datetime.now(UTC)
            ),
            expected_at=None
            if run.next_scheduled_start_time is None
            else _aware(run.next_scheduled_start_time),
            starts=run.run_count,
            started_at=None if run.start_time is None else _aware(run.start_time),
        )

    def _read(
        self, states: tuple[str, ...], *, most: int = MOST, sort: str | None = None, **more: Any
    ) -> list[FlowFact]:
        from prefect.client.schemas.filters import (
            FlowRunFilter,
            FlowRunFilterState,
            FlowRunFilterStateType,
        )
        from prefect.client.schemas.objects import FlowRun, StateType

        if not self._flows:
            return []
        wanted = FlowRunFilterStateType(any_=[StateType(name) for name in states])
        runs = read_filtered(
            self._client,
            "/flow_runs/filter",
            FlowRun,
            limit=most,
            flows=self._filter,
            flow_runs=FlowRunFilter(state=FlowRunFilterState(type=wanted), **more),
            sort=sort,
        )
        return [self.fact(run) for run in runs]

    def active(self) -> list[FlowFact]:
        """Flow runs that should have a process."""
        return self._read(_ACTIVE)

    def waiting(self, before: datetime) -> list[FlowFact]:
        """Flow runs that a worker should have taken by now, and those that are to be resumed."""
        from prefect.client.schemas.filters import FlowRunFilterExpectedStartTime

        due = FlowRunFilterExpectedStartTime(before_=before)
        return self._read(("SCHEDULED",), expected_start_time=due)

    def broken(self, after: datetime) -> list[FlowFact]:
        """Flow runs that crashed or failed since then, newest first."""
        from prefect.client.schemas.filters import FlowRunFilterEndTime

        ended = FlowRunFilterEndTime(after_=after)
        return self._read(_BROKEN, end_time=ended, sort="END_TIME_DESC")

    def last_ended(self) -> list[FlowFact]:
        """The newest flow run of each deployment that came to an end."""
        from prefect.client.schemas.filters import FlowRunFilterDeploymentId

        found = []
        for deployment in self._deployments:
            of_it = FlowRunFilterDeploymentId(any_=[deployment])
            found += self._read(_ENDED, most=1, sort="END_TIME_DESC", deployment_id=of_it)
        return found

    def beats(self, ids: list[str], now: datetime) -> dict[str, datetime]:
        """Return when each of these flow runs last gave Prefect's sign of life, if ever."""
        from prefect.events.filters import (
            EventFilter,
            EventNameFilter,
            EventOccurredFilter,
            EventOrder,
            EventResourceFilter,
        )

        found = {}
        for flow_run_id in ids[:MOST]:
            page = self._client.read_events(
                filter=EventFilter(
                    event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
                    resource=EventResourceFilter(id=[f"prefect.flow-run.{flow_run_id}"]),
                    occurred=EventOccurredFilter(since=now - timedelta(days=1), until=now),
                    order=EventOrder.DESC,
                ),
                limit=1,
            )
            if page.events:
                found[flow_run_id] = _aware(page.events[0].occurred)
        return found

    def pools(
        self, flows: tuple[FlowFact, ...], now: datetime, limits: Limits
    ) -> tuple[PoolFact, ...]:
        """Return who takes the runs of the deployments."""
        late: dict[str | None, list[FlowFact]] = {}
        limit = now - timedelta(seconds=limits.late_s)
        for flow in flows:
            waits = flow.state == "SCHEDULED" and flow.state_name != _WAITS_FOR_SLOT
            if waits and flow.deployment and flow.expected_at and flow.expected_at < limit:
                late.setdefault(flow.pool, []).append(flow)
        names = {found.work_pool_name for found in self._deployments.values()}
        found = [self._pool(name, late.get(name, ()), now, limits) for name in names if name]
        if None in names:
            found.append(self._server(late.get(None, ())))
        return tuple(sorted(found, key=lambda pool: pool.name))

    def _pool(self, name: str, late: Iterable[FlowFact], now: datetime, limits: Limits) -> PoolFact:
        from prefect.client.schemas.objects import Worker

        pool = self._client.read_work_pool(name)
        online, last = [], None
        path = f"/work_pools/{quote(name, safe='')}/workers/filter"
        for worker in read_filtered(self._client, path, Worker):
            if worker.last_heartbeat_time is None:
                continue
            at = _aware(worker.last_heartbeat_time)
            last = at if last is None else max(last, at)
            patience = limits.worker_heartbeats * (worker.heartbeat_interval_seconds or 30)
            if (now - at).total_seconds() <= patience:
                online.append(worker.name)
        return PoolFact(name, "worker", pool.is_paused, tuple(sorted(online)), last, tuple(late))

    def _server(self, late: Iterable[FlowFact]) -> PoolFact:
        """Deployments without a pool belong to a process that serves them and polls."""
        served = [d for d in self._deployments.values() if d.work_pool_name is None]
        polled = [_aware(d.last_polled) for d in served if d.last_polled is not None]
        ready = tuple(d.name for d in served if d.status is not None and d.status.value == "READY")
        return PoolFact(
            "imagegate serve",
            "server",
            all(d.paused for d in served),
            ready,
            max(polled, default=None),
            tuple(late),
        )


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
