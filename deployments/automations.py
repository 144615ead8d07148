"""imagegate's automations on Prefect's own server, made from code and found again by name.

    imagegate: dead flow run        heartbeat and then silence → Crashed
    imagegate: gate broke           release-gate Crashed or Failed → production-watch at once
    imagegate: watch stands still   no production-watch for 15 minutes → a message by webhook
    imagegate: nobody takes runs    a work pool of ours is not ready → a message by webhook

They are the second pair of eyes: the server acts on them when all of imagegate's processes are
gone. The last two speak by the incoming webhook alone, for the outbox may be what is broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tasks.errors import ConfigError
from tasks.settings import Settings, load_settings
from tasks.watchdog.model import GATE_FLOW, OUR_FLOWS
from tasks.watchdog.prefect_query import read_filtered

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

PREFIX = "imagegate: "
#: All automations of this version; others with the prefix are of an older one.
NAMES = tuple(
    PREFIX + name
    for name in ("dead flow run", "gate broke", "watch stands still", "nobody takes runs")
)
TAG = "imagegate"
WATCH = "production-watch"
#: Name of the block that holds the webhook's address on Prefect's server.
BLOCK = "imagegate-oncall"
_SLACK = re.compile(r"https://hooks\.slack(-gov)?\.com/")


@dataclass(frozen=True, slots=True)
class Times:
    """How long each automation waits; Prefect sends a heartbeat every 30 s at the shortest."""

    silence: timedelta = timedelta(seconds=90)
    watch: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Row:
    """One automation, and what became of it."""

    name: str
    what: str
    #: ``created``, ``updated``, ``unchanged``, ``removed``, ``enabled`` or ``disabled``.
    state: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What ``apply`` did."""

    automations: tuple[Row, ...]
    #: Why an automation was not made, one sentence each.
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        rows = [{"name": r.name, "what": r.what, "state": r.state} for r in self.automations]
        return {"automations": rows, "left_out": list(self.left_out)}


def apply(
    client: SyncPrefectClient, settings: Settings | None = None, times: Times | None = None
) -> Applied:
    """Create or update the automations; a second call changes nothing.

    Args:
        client: An open client of the server.
        settings: Holds the incoming webhook, if there is one; by default the environment's.
        times: How long each waits.
    """
    wanted, left_out = planned(client, settings or load_settings(), times or Times())
    rows = [_put(client, automation) for automation in wanted]
    for found in _ours(client):
        # One that is only left out here stays: another machine may know the webhook.
        if found.name not in NAMES:
            client.delete_automation(found.id)
            rows.append(Row(found.name, found.description, "removed"))
    return Applied(tuple(rows), tuple(left_out))


def planned(
    client: SyncPrefectClient, settings: Settings, times: Times
) -> tuple[list[AutomationCore], list[str]]:
    """Return the automations that this server can have, and why others cannot be."""
    wanted, left_out = [_dead_run(times)], []
    watch = _deployment_id(client, f"{WATCH}/{TAG}")
    if watch is None:
        left_out.append(
            f"automation {PREFIX}gate broke was not made: {WATCH}/{TAG} is not registered; run "
            "`imagegate deploy` or `imagegate serve` first"
        )
    else:
        wanted.append(_gate_broke(watch))
    if settings.slack_webhook is None:
        left_out += [
            f"automation {PREFIX}{name} was not made: IMAGEGATE_SLACK_WEBHOOK is not set, and "
            "Prefect's server needs a channel of its own"
            for name in ("watch stands still", "nobody takes runs")
        ]
        return wanted, left_out
    block = _webhook_block(settings.slack_webhook.get_secret_value())
    wanted.append(_watch_stands_still(times, block))
    pools = _pools(client)
    if pools:
        wanted.append(_nobody_takes_runs(pools, block))
    else:
        left_out.append(
            f"automation {PREFIX}nobody takes runs was not made: no deployment uses a work pool, "
            "so nothing waits for workers"
        )
    return wanted, left_out


def _of_flows(names: Sequence[str]) -> dict[str, str | list[str]]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": list(names)}


def _dead_run(times: Times) -> AutomationCore:
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=f"{PREFIX}dead flow run",
        description="A flow run gave signs of life, then none: its process is gone. Booked as "
        "crashed, it frees its slot and is resumed by the watchdog.",
        tags=[TAG],
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            # Not only heartbeats: an ended run is named after its verdict, e.g. PROMOTE.
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_flows(OUR_FLOWS),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=times.silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message="no sign of life any more: booked as crashed by Prefect's automation "
                f"{PREFIX}dead flow run",
            )
        ],
    )


def _gate_broke(watch: UUID) -> AutomationCore:
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=f"{PREFIX}gate broke",
        description="A gate crashed or failed: the watch looks at once instead of within a minute.",
        tags=[TAG],
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed", "prefect.flow-run.Failed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_flows([GATE_FLOW]),
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[RunDeployment(deployment_id=watch)],
    )


def _watch_stands_still(times: Times, block: UUID) -> AutomationCore:
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    minutes = times.watch.total_seconds() / 60
    return AutomationCore(
        name=f"{PREFIX}watch stands still",
        description=f"{WATCH} did not come to its end for {minutes:g} minutes.",
        tags=[TAG],
        trigger=EventTrigger(
            # What the flow calls its completed states, see flows/watch.py.
            expect={f"prefect.flow-run.{name}" for name in ("Quiet", "Troubled", "Completed")},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_of_flows([WATCH]),
            posture=Posture.Proactive,
            threshold=1,
            within=times.watch,
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject=f"{PREFIX}nobody watches production",
                body=f"{WATCH} did not come to its end for {minutes:g} minutes. Dead gates and "
                "missed schedules are not seen until it does. Asked of you: see whether a worker "
                "is up (`imagegate serve`, or `prefect worker start`), then "
                "`imagegate watchdog --once`.",
            )
        ],
    )


def _nobody_takes_runs(pools: Sequence[str], block: UUID) -> AutomationCore:
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=f"{PREFIX}nobody takes runs",
        description="A work pool of imagegate's deployments has no living worker.",
        tags=[TAG],
        trigger=EventTrigger(
            expect={"prefect.work-pool.not-ready"},
            match={
                "prefect.resource.id": "prefect.work-pool.*",
                "prefect.resource.name": list(pools),
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block,
                subject=f"{PREFIX}no worker",
                body="Work pool {{ event.resource.name }} has no living worker: no gate starts. "
                "Asked of you: `prefect worker start --pool {{ event.resource.name }}`.",
            )
        ],
    )


def _webhook_block(url: str) -> UUID:
    """Keep the webhook's address as a secret of Prefect's server and return the block's id."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
    from pydantic import SecretStr

    block: Any
    if _SLACK.match(url):
        block = SlackWebhook(url=SecretStr(url))
    else:
        # Prefect's block knows Slack's own hosts only; others speak the same language.
        block = CustomWebhookNotificationBlock.model_validate(
            {
                "name": BLOCK,
                "method": "POST",
                "url": "{{address}}",
                "json_data": {"text": "*{{subject}}*\n{{body}}"},
                "secrets": {"address": url},
            }
        )
    found: Any = block.save(BLOCK if _SLACK.match(url) else f"{BLOCK}-webhook", overwrite=True)
    return UUID(str(found))


def _deployment_id(client: SyncPrefectClient, name: str) -> UUID | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        return None


def _pools(client: SyncPrefectClient) -> list[str]:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.responses import DeploymentResponse

    ours = FlowFilter(name=FlowFilterName(any_=list(OUR_FLOWS)))
    found = read_filtered(client, "/deployments/filter", DeploymentResponse, flows=ours)
    return sorted({d.work_pool_name for d in found if d.work_pool_name is not None})


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> Row:
    """Create it, or bring the one of this name up to date; a person's pause of it stays."""
    same_name = client.read_automations_by_name(wanted.name)
    for extra in same_name[1:]:
        # Two installations may have registered at the same moment.
        client.delete_automation(extra.id)
    if not same_name:
        client.create_automation(wanted)
        return Row(wanted.name, wanted.description, "created")
    found = same_name[0]
    paused = wanted.model_copy(update={"enabled": found.enabled})
    if _content(found) == _content(paused):
        return Row(wanted.name, wanted.description, "unchanged")
    client.update_automation(found.id, paused)
    return Row(wanted.name, wanted.description, "updated")


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What an automation does, without what the server adds to it."""
    dumped = automation.model_dump(
        mode="json", include={"name", "description", "enabled", "tags", "trigger", "actions"}
    )
    return _sorted(dumped)  # type: ignore[no-any-return]


def _sorted(value: Any) -> Any:
    """Return the value with lists of words in order: sets come back from the server anyhow."""
    if isinstance(value, dict):
        return {k: _sorted(v) for k, v in value.items() if k != "id"}
    if isinstance(value, list):
        inner = [_sorted(v) for v in value]
        return sorted(inner) if all(isinstance(v, str) for v in inner) else inner
    return value


def _ours(client: SyncPrefectClient) -> list[Any]:
    from prefect.events.schemas.automations import Automation

    every = read_filtered(client, "/automations/filter", Automation)
    return [found for found in every if found.name.startswith(PREFIX)]


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    import httpx
    from prefect.client.orchestration import get_client

    from tasks.settings import prefect_api_url

    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        raise ConfigError(
            f"{prefect_api_url()}: Prefect's server does not answer ({error}); start it, or mend "
            "PREFECT_API_URL"
        ) from None


def applied(settings: Settings) -> dict[str, Any]:
    """Apply them on the configured server and return what was done."""
    with _client() as client:
        return apply(client, settings).to_dict()


def listed() -> dict[str, Any]:
    """Return imagegate's automations on the configured server."""
    with _client() as client:
        rows = [
            Row(found.name, found.description, "enabled" if found.enabled else "disabled")
            for found in _ours(client)
        ]
    return Applied(tuple(rows), ()).to_dict()


def removed() -> dict[str, Any]:
    """Remove imagegate's automations from the configured server."""
    rows = []
    with _client() as client:
        for found in _ours(client):
            client.delete_automation(found.id)
            rows.append(Row(found.name, found.description, "removed"))
    return Applied(tuple(rows), ()).to_dict()
