"""Registering the deployments on a work pool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from deployments.pools import PoolType, ensure_pool, job_variables, worker_hint
from deployments.schedule_file import load_schedules
from flows.prefect_env import prefect_defaults
from tasks.errors import GateError
from tasks.records import utc_now
from tasks.settings import Settings, prefect_api_url

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def deploy_to_pool(
    settings: Settings,
    *,
    pool: str,
    kind: str,
    image: str | None,
    home: str | None,
    extra: Mapping[str, str],
) -> dict[str, Any]:
    """Register all deployments, automations and schedules; return what changed.

    Doing it again changes only what changed in between.

    Raises:
        ConfigError: The schedules or the flags are wrong, or the server refuses something.
    """
    file = load_schedules(settings.schedules_file)
    of_type = cast("PoolType", kind)
    variables = job_variables(settings, of_type, image=image, home=home, extra=extra)
    environ = os.environ  # noqa: TID251 - Prefect reads its settings from the environment
    environ |= prefect_defaults(environ, settings.home)
    check_server(prefect_api_url() or "")

    from prefect.client.orchestration import get_client

    from deployments.registry import build_deployments, code_version, register, retire
    from deployments.schedule_book import book_schedules
    from tasks.state import State

    state = State(settings.state_url.get_secret_value())
    try:
        with get_client(sync_client=True) as client:
            made = ensure_pool(client, pool, of_type)
            planned = build_deployments(file, version=code_version())
            registered = register(client, planned, pool=pool, job_variables=variables)
            gone = retire(client, file)
            remarks = set_automations(client, settings)
        book_schedules(state, file, utc_now())
    finally:
        state.close()
    return {
        "pool": made,
        "deployments": [
            {"name": one.name, "id": str(one.id), "change": one.change} for one in registered
        ],
        "unscheduled": gone,
        "remarks": remarks,
        "job_variables": variables,
        "worker": worker_hint(pool, of_type),
    }


def set_automations(client: SyncPrefectClient, settings: Settings) -> list[str]:
    """Create or update the automations; return what could not be made, in sentences.

    A server without them still runs gates, and the watchdog sees what they would have seen.
    """
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    from deployments.automations import apply

    try:
        return list(apply(client, settings).left_out)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        first = str(error).splitlines()[0][:300]
        return [f"automations were not made, only the watchdog sees dead runs: {first}"]


def check_server(url: str) -> None:
    """Refuse to go on with a server that does not answer.

    Raises:
        GateError: With the address and what came back.
    """
    import httpx

    try:
        answer = httpx.get(f"{url}/health", timeout=20, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise GateError(
            f"PREFECT_API_URL: no Prefect server answers at {url}: {error}; start it, or unset "
            "the variable and let `imagegate serve` start one"
        ) from None
