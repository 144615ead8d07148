"""The deployments of imagegate, made from code and ``schedules.yaml``.

    release-gate/<product>        judges a candidate: scheduled, and on demand from the form
    canary/<product>              lets a candidate walk into production: on demand from the form
    production-watch/imagegate    dead runs, missed schedules, undelivered alerts
    budget-alarm/imagegate        spend against the limits
    freeze-reminder/imagegate     freezes that end soon
    live-watch/imagegate          what serves: failures, latency, cost, tickets, new inputs
    rollback-drill/imagegate      the rehearsal of rollbacks

Registering them again changes what changed and nothing else: same ids, same schedules.
"""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.schedule_file import ANCHOR, ProductSchedule, ScheduleFile, Timing
from flows.form import canary_form, gate_form, request_form
from tasks.errors import ConfigError, GateError
from tasks.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.deployments.runner import RunnerDeployment

GATE = "release-gate"
#: Every deployment that is registered here has this tag; others are left alone.
TAG = "imagegate"
#: Names the schedule that comes from the file; others were made by people in the UI.
SLUG = "file"
#: How the flows that keep watch are called, where they live, and their field of the file.
WATCHES = {
    "production-watch": ("flows.watch", "production_watch"),
    "budget-alarm": ("flows.budget_alarm", "budget_alarm"),
    "freeze-reminder": ("flows.freeze_reminder", "freeze_reminder"),
    "live-watch": ("flows.live_watch", "live_watch"),
    "rollback-drill": ("flows.rollback_drill", "rollback_drill"),
}

GATE_TEXT = """\
Judges a candidate mix of **{product}** against what serves production, and acts on the verdict:
freeze → sample → run both mixes → check every picture → measure → validate → decide.

| verdict | what it means | what happens |
| --- | --- | --- |
| `PROMOTE` | failures are shown to be below the policy's limit and nothing else objects | the \
candidate serves production |
| `ROLLBACK` | the failure rate, or one slice, is above its limit with confidence | production \
stays on, or goes back to, the baseline; on-call is told |
| `HOLD` | too little evidence, a cap was reached, or the run was stopped | nothing changes; the \
report says what is missing |

A run that ends as `Refused` spent nothing: its message says what to mend. `Failed` and `Crashed`
are no verdicts either: the gate itself broke.

**What it costs.** One picture of the candidate for each case, and one of the baseline unless it is
kept from an earlier gate; never more than the budget. Before: `imagegate run --dry-run`.

**Two gates of {product} never run at once.** A second one {collision}.

Scheduled: {schedule}.
"""
CANARY_TEXT = """\
Lets a candidate of **{product}** walk into production: each step of the policy's section `canary`
gives it a share of the traffic, and live outcomes decide whether it goes on, holds, or is rolled
back.

| action | what it does |
| --- | --- |
| `walk` | starts the canary of the product, or goes on with the one that is under way |
| `pause`, `resume` | stays on the step and judges on; goes on |
| `skip` | passes the step without its proof, unless it is proven to be bad |
| `abort` | takes the candidate's share away at once |

Suspending the flow run of a walk pauses its canary, resuming it goes on. Cancelling it aborts the
canary: production is back on the baseline. A process that dies loses nothing: the watch takes
looks, and another `walk` goes on with the same step.
"""
WATCH_TEXTS = {
    "production-watch": "Looks for gates that died or stand still, scheduled runs that did not "
    "start, alerts that were not delivered and approvals that ran out; tells on-call, and delivers "
    "what waits in the outbox. Spends nothing.",
    "budget-alarm": "Compares the spend of the day, the week and the month with the limits of "
    "`budgets.yaml` and tells people before a limit is reached. Spends nothing.",
    "freeze-reminder": "Reminds the owners of freezes that end soon. Spends nothing.",
    "live-watch": "Watches what serves, by the sources of outcomes of the rollout file. A mix that "
    "is proven to be above the policy's limits is rolled back, verified at the router and told; "
    "promotions are frozen until a person closes the incident. Traffic that stops is an alarm "
    "too. Spends nothing.",
    "rollback-drill": "Rehearses a rollback of each product on production's router with no effect "
    "on users, times it, and tells people when it would not go. Spends nothing.",
}
COLLISIONS = {
    "wait": "waits in state `AwaitingConcurrencySlot` until the first has ended",
    "refuse": "is cancelled, and says which run is in the way",
}


def code_version() -> str:
    """Return what the deployments are versions of: the git commit, or the package's version.

    ``+dirty`` says that the working tree differs from the commit.
    """
    from importlib.metadata import version

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip()

    try:
        # A checkout inside somebody else's repository is not ours to name.
        if git("rev-parse", "--show-prefix"):
            return version("imagegate")
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return version("imagegate")
    return f"{commit}+dirty" if changed else commit


def build_deployments(file: ScheduleFile, *, version: str) -> list[RunnerDeployment]:
    """Return all deployments of the installation, not registered yet.

    Args:
        file: Products and schedules.
        version: What the deployments are versions of.
    """
    gates = [_gate(product, schedule, file, version) for product, schedule in file.products.items()]
    canaries = [_canary(name, plan, version) for name, plan in file.products.items()]
    return [*gates, *canaries, *(_watch(name, file, version) for name in WATCHES)]


def _gate(
    product: str, schedule: ProductSchedule, file: ScheduleFile, version: str
) -> RunnerDeployment:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    from flows.release_gate import release_gate

    strategy = (
        ConcurrencyLimitStrategy.CANCEL_NEW
        if schedule.collision == "refuse"
        else ConcurrencyLimitStrategy.ENQUEUE
    )
    given = schedule.parameters.given()
    timing = schedule.gate
    when = "on demand only" if timing is None else _when(timing, file)
    planned = _deployment(
        release_gate,
        product,
        tags=[TAG, product, "gate"],
        description=GATE_TEXT.format(
            product=product, collision=COLLISIONS[schedule.collision], schedule=when
        ),
        version=version,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
        # Who asks is left out: a person who fills the form has to say it.
        parameters={"request": given},
        schedules=[]
        if timing is None
        else [
            _schedule(timing, file, {"request": given | {"owner": f"schedule ({schedule.owner})"}})
        ],
    )
    _set_form(planned, gate_form(_form_of(planned), product, given))
    return planned


def _canary(product: str, schedule: ProductSchedule, version: str) -> RunnerDeployment:
    from flows.canary import canary

    given = schedule.parameters
    planned = _deployment(
        canary,
        product,
        tags=[TAG, product, "canary"],
        description=CANARY_TEXT.format(product=product),
        version=version,
        # No limit on runs at one time: a pause must reach a walk that is under way, and a second
        # walk of a product is refused by the canary itself.
        parameters={"request": {"product": product, "catalog": given.catalog}},
    )
    _set_form(planned, canary_form(_form_of(planned), product, given.given()))
    return planned


def _watch(name: str, file: ScheduleFile, version: str) -> RunnerDeployment:
    module, field = WATCHES[name]
    timing: Timing = getattr(file, field)
    planned = _deployment(
        find_flow(module, name),
        TAG,
        tags=[TAG, "watch"],
        description=f"{WATCH_TEXTS[name]}\n\nScheduled: {_when(timing, file)}.",
        version=version,
        # A watch that takes long must not pile up behind itself.
        concurrency_limit=_one_at_a_time(),
        parameters={"request": {}},
        schedules=[_schedule(timing, file, {})],
    )
    title = name.replace("-", " ").capitalize()
    _set_form(planned, request_form(_form_of(planned), title=title, description=WATCH_TEXTS[name]))
    return planned


def _one_at_a_time() -> Any:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy

    return ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def find_flow(module: str, name: str) -> Flow[..., Any]:
    """Return the flow called ``name`` of a module, so that its function may be called anything."""
    from prefect import Flow

    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, Flow) and value.name == name:
            return value
    raise GateError(f"{module} has no flow named {name!r}; this is a mistake in imagegate")


def _deployment(flow: Flow[..., Any], name: str, **options: Any) -> RunnerDeployment:
    """Return a deployment that any machine with imagegate installed can run: no paths, no code."""
    from prefect._internal.versioning import VersionType
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    return RunnerDeployment.from_flow(
        flow,
        name=name,
        entrypoint_type=EntrypointType.MODULE_PATH,
        enforce_parameter_schema=True,
        # The version is ours; Prefect would ask git about the current folder.
        version_type=VersionType.SIMPLE,
        **options,
    )


def _form_of(planned: RunnerDeployment) -> Mapping[str, Any]:
    return planned._parameter_openapi_schema.model_dump(exclude_unset=True)


def _set_form(planned: RunnerDeployment, form: Mapping[str, Any]) -> None:
    from prefect.utilities.callables import ParameterSchema

    planned._parameter_openapi_schema = ParameterSchema.model_validate(form)


def _when(timing: Timing, file: ScheduleFile) -> str:
    zone = "" if timing.cron is None else f" ({file.zone(timing)})"
    return f"`{timing.text()}`{zone}"


def _schedule(
    timing: Timing, file: ScheduleFile, parameters: Mapping[str, Any]
) -> DeploymentScheduleCreate:
    """Return a schedule by name; ``active`` is left open, so a pause made in the UI is kept."""
    from datetime import timedelta

    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    plan: CronSchedule | IntervalSchedule
    if timing.every_seconds is not None:
        plan = IntervalSchedule(
            interval=timedelta(seconds=timing.every_seconds), anchor_date=ANCHOR, timezone="UTC"
        )
    else:
        try:
            plan = CronSchedule(cron=timing.cron or "", timezone=file.zone(timing))
        except ValueError as error:
            raise ConfigError(f"schedule {timing.cron!r}: Prefect refuses it: {error}") from None
    return DeploymentScheduleCreate(schedule=plan, slug=SLUG, parameters=dict(parameters))


@dataclass(frozen=True, slots=True)
class Registered:
    """A deployment that Prefect's server knows now."""

    #: ``flow/deployment``
    name: str
    id: UUID
    #: ``created``, ``unchanged``, or what changed.
    change: str


def register(
    client: SyncPrefectClient,
    deployments: Iterable[RunnerDeployment],
    *,
    pool: str | None = None,
    job_variables: Mapping[str, Any] | None = None,
    apply: Callable[[RunnerDeployment], object] | None = None,
) -> list[Registered]:
    """Register deployments; what the server has already is updated in place.

    Args:
        client: Of Prefect's server.
        deployments: What :func:`build_deployments` returned.
        pool: The work pool that runs them; ``None``: the process that serves them.
        job_variables: What the pool's jobs are given, without secrets.
        apply: Sends one deployment to the server; a runner that serves them takes part here.

    Raises:
        ConfigError: The server refuses a deployment, with its reason.
    """
    from prefect.deployments.runner import DeploymentApplyError
    from prefect.exceptions import PrefectHTTPStatusError

    done = []
    for planned in deployments:
        # Set in any case, so that a deployment moves from a pool to a process and back.
        planned.work_pool_name = pool
        planned.work_queue_name = None
        planned.job_variables = dict(job_variables or {}) if pool else {}
        before = _read(client, planned.full_name)
        try:
            (apply or _apply)(planned)
        except (DeploymentApplyError, PrefectHTTPStatusError) as error:
            raise ConfigError(
                f"deployment {planned.full_name}: Prefect's server refuses it: {error}"
            ) from None
        after = _read(client, planned.full_name)
        assert after is not None  # noqa: S101 - it was applied just now
        _drop_schedules(client, planned, after)
        done.append(Registered(planned.full_name, after.id, _difference(before, after)))
    return done


def _apply(planned: RunnerDeployment) -> None:
    planned.apply()


def _read(client: SyncPrefectClient, full_name: str) -> DeploymentResponse | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None


def _drop_schedules(
    client: SyncPrefectClient, planned: RunnerDeployment, after: DeploymentResponse
) -> None:
    """Remove the schedule that the file had once; Prefect's update keeps it."""
    if not planned.schedules:
        for schedule in after.schedules:
            if schedule.slug == SLUG:
                client.delete_deployment_schedule(after.id, schedule.id)


#: What people see of a deployment, by the field that holds it.
COMPARED = {
    "version": "version",
    "description": "description",
    "tags": "tags",
    "parameters": "parameters",
    "parameter_openapi_schema": "form",
    "entrypoint": "entrypoint",
    "work_pool_name": "work pool",
    "job_variables": "job variables",
    "concurrency_options": "collision strategy",
}


def _difference(before: DeploymentResponse | None, after: DeploymentResponse) -> str:
    """Return in words what registering changed."""
    if before is None:
        return "created"
    changed = [
        label
        for field, label in COMPARED.items()
        if getattr(before, field, None) != getattr(after, field, None)
    ]
    if _plans(before) != _plans(after):
        changed.append("schedule")
    return "changed: " + ", ".join(changed) if changed else "unchanged"


def _plans(deployment: DeploymentResponse) -> list[str]:
    return sorted(
        f"{s.slug} {s.active} {s.schedule!r} {s.parameters!r}" for s in deployment.schedules
    )


def retire(client: SyncPrefectClient, file: ScheduleFile) -> list[str]:
    """Unschedule gates of products that the file does not have any more; return their names.

    They are not deleted: their runs and their history stay.
    """
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.client.schemas.sorting import DeploymentSort

    found = client.read_deployments(
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG, "gate"])),
        # Both have defaults in the signature that the server refuses.
        limit=200,
        sort=DeploymentSort.NAME_ASC,
    )
    gone = []
    for deployment in found:
        if deployment.name in file.products or not deployment.schedules:
            continue
        for schedule in deployment.schedules:
            client.delete_deployment_schedule(deployment.id, schedule.id)
        gone.append(f"{GATE}/{deployment.name}")
    return gone
