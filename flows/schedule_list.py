"""``imagegate schedules``: what runs next, what ran last, what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from deployments.schedule_book import missed, registered_at
from deployments.schedule_file import ScheduleFile, Timing, fires, load_schedules
from tasks.settings import Settings, prefect_api_url, without_login
from tasks.state import State

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

#: How far back missed runs are looked for.
BACK = timedelta(days=7)


def timings(file: ScheduleFile) -> dict[str, Timing | None]:
    """Return the schedule of each deployment by its full name; ``None``: on demand."""
    gates: dict[str, Timing | None] = {
        f"release-gate/{product}": plan.gate for product, plan in file.products.items()
    }
    return gates | {
        "production-watch/imagegate": file.production_watch,
        "budget-alarm/imagegate": file.budget_alarm,
        "freeze-reminder/imagegate": file.freeze_reminder,
        "live-watch/imagegate": file.live_watch,
        "rollback-drill/imagegate": file.rollback_drill,
    }


def next_run(timing: Timing | None, timezone: str, now: datetime) -> str | None:
    """Return when a schedule fires next, in its own time zone, for people; ``None``: never."""
    if timing is None:
        return None
    moment = next(fires(timing, timezone, now)).astimezone(ZoneInfo(timezone))
    return f"{moment:%Y-%m-%d %H:%M:%S} {timezone}"


def list_schedules(settings: Settings, now: datetime | None = None) -> dict[str, Any]:
    """Return each schedule with its next and last run; with a server also the missed ones.

    Raises:
        ConfigError: The schedules are wrong.
    """
    file = load_schedules(settings.schedules_file)
    moment = now or datetime.now(UTC)
    state = State(settings.state_url.get_secret_value())
    try:
        since = {name: registered_at(state, name) for name in timings(file)}
    finally:
        state.close()
    rows: list[dict[str, Any]] = []
    runs = _last_runs(list(since), moment)
    for name, timing in timings(file).items():
        zone = file.timezone if timing is None else file.zone(timing)
        known = None if runs is None else runs.get(name)
        rows.append(
            {
                "name": name,
                "schedule": None if timing is None else timing.text(),
                "timezone": zone,
                "registered_at": _text(since[name]),
                "next": next_run(timing, zone, moment),
                "active": None if known is None else known["active"],
                "last": None if known is None else known["last"],
                "missed": _missed(timing, zone, since[name], known, moment),
            }
        )
    url = prefect_api_url()
    return {
        "schedules": rows,
        "server": None if url is None else without_login(url),
        "file": str(settings.schedules_file),
    }


def _missed(
    timing: Timing | None,
    zone: str,
    since: datetime | None,
    known: dict[str, Any] | None,
    now: datetime,
) -> list[str] | None:
    """Return the moments without a run; ``None`` when that cannot be told."""
    if timing is None or since is None or known is None:
        return None
    first = max(since, now - BACK)
    return [
        f"{at:%Y-%m-%dT%H:%M:%SZ}"
        for at in missed(timing, zone, since=first, now=now, started=known["started"])
    ]


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _last_runs(names: list[str], now: datetime) -> dict[str, dict[str, Any]] | None:
    """Return by name what Prefect's server knows; ``None`` without a server."""
    if prefect_api_url() is None:
        return None
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    from tasks.errors import GateError

    found = {}
    try:
        with get_client(sync_client=True) as client:
            for name in names:
                try:
                    found[name] = _runs_of(client, name, now)
                except ObjectNotFound:
                    continue
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise GateError(
            f"PREFECT_API_URL: Prefect's server does not answer: {error}; unset the variable to "
            "list the schedules without their runs"
        ) from None
    return found


def _runs_of(client: SyncPrefectClient, name: str, now: datetime) -> dict[str, Any]:
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterStartTime,
    )
    from prefect.client.schemas.sorting import FlowRunSort

    deployment = client.read_deployment_by_name(name)
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(
            start_time=FlowRunFilterStartTime(after_=now - BACK - timedelta(days=1), is_null_=False)
        ),
        sort=FlowRunSort.START_TIME_DESC,
        limit=200,
    )
    last = runs[0] if runs else None
    return {
        "active": not deployment.paused and any(s.active for s in deployment.schedules),
        "started": [run.start_time for run in runs if run.start_time and run.auto_scheduled],
        "last": None
        if last is None
        else {
            "name": last.name,
            "started_at": _text(last.start_time),
            "state": None if last.state is None else last.state.name,
        },
    }


def render_schedules(shown: dict[str, Any]) -> str:
    """Return the list in lines."""
    lines = [f"Schedules of {shown['file']}"]
    for row in shown["schedules"]:
        when = row["schedule"] or "on demand"
        lines.append(f"{row['name']:<28} {when:<14} {row['timezone']}")
        paused = "" if row["active"] is not False or not row["schedule"] else "  (paused)"
        if row["next"]:
            lines.append(f"    next    {row['next']}{paused}")
        last = row["last"]
        if last:
            lines.append(f"    last    {last['started_at']}  {last['state']}  {last['name']}")
        lines += [f"    MISSED  {at}  no run started" for at in row["missed"] or ()]
    if shown["server"] is None:
        lines.append("Set PREFECT_API_URL to see last and missed runs too.")
    return "\n".join(lines)
