"""Opening the sources that the rollout file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import SecretStr

from tasks.errors import ConfigError, known
from tasks.rollout.outcomes.base import Clock, OutcomeSource, now_utc
from tasks.rollout.outcomes.config import (
    HaproxyConfig,
    LogsConfig,
    PrometheusConfig,
    ShadowConfig,
    SourceSection,
    SqlConfig,
    TicketsApiConfig,
    TicketsConfig,
    TicketsCsvConfig,
)
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.rollout.outcomes.logs import LogSource


def open_sources(
    config: Sequence[SourceSection], settings: Settings, clock: Clock = now_utc
) -> list[OutcomeSource]:
    """Return the sources of live outcomes, in the order of the file.

    Args:
        config: The section ``outcomes``.
        settings: Where things lie, and the secrets that the section names.
        clock: Gives the moment.

    Raises:
        ConfigError: A source needs what is not configured, or a secret that is not set; or two have
            one name.
    """
    names = [section.name or section.kind for section in config]
    for name in names:
        # Their files beside the state are told apart by it, and what they say as well.
        if names.count(name) > 1:
            raise ConfigError(f"the rollout file: a source of outcomes named {name!r} stands twice")
    logs = {
        section.name or "logs": section for section in config if isinstance(section, LogsConfig)
    }
    return [_open(section, logs, settings, clock) for section in config]


def _open(
    section: SourceSection, logs: Mapping[str, LogsConfig], settings: Settings, clock: Clock
) -> OutcomeSource:
    if isinstance(section, LogsConfig):
        from tasks.rollout.outcomes.logs import LogSource

        return LogSource(section, clock)
    if isinstance(section, PrometheusConfig):
        return _prometheus(section, settings, clock)
    if isinstance(section, SqlConfig):
        from tasks.rollout.outcomes.sql import SqlInputs, SqlSource

        made = SqlSource if section.inputs_query is None else SqlInputs
        return made(section, secret(settings, section.url_env, section.kind), clock)
    if isinstance(section, TicketsConfig):
        return _tickets(section, logs, settings, clock)
    if isinstance(section, ShadowConfig):
        from tasks.rollout.outcomes.shadow import ShadowSource

        requests = _logs(section.requests, logs, clock)
        return ShadowSource(section, requests, settings.home / "outcomes", clock=clock)
    return _haproxy(section, settings, clock)


def _logs(name: str, logs: Mapping[str, LogsConfig], clock: Clock) -> LogSource:
    """Return the log of requests that another source names.

    Raises:
        ConfigError: There is none of that name.
    """
    from tasks.rollout.outcomes.logs import LogSource

    if name not in logs:
        raise ConfigError(
            f"the rollout file: 'requests' names {name!r}, and no source of kind 'logs' has that "
            f"name {known(logs)}"
        )
    return LogSource(logs[name], clock)


def _tickets(
    section: TicketsCsvConfig | TicketsApiConfig,
    logs: Mapping[str, LogsConfig],
    settings: Settings,
    clock: Clock,
) -> OutcomeSource:
    from tasks.rollout.outcomes.api import JsonApi
    from tasks.rollout.outcomes.tickets import CsvDesk, Desk, TicketSource, ZendeskDesk, basic

    requests = None if section.requests is None else _logs(section.requests, logs, clock)
    desk: Desk
    if isinstance(section, TicketsApiConfig):
        token = secret(settings, section.token_env, section.kind)
        header = (
            SecretStr(f"Bearer {token.get_secret_value()}")
            if section.user is None
            else basic(section.user, token)
        )
        api = JsonApi(section.url, {"Authorization": header}, section.timeout_s)
        desk = ZendeskDesk(section, api, clock)
    else:
        desk = CsvDesk(section)
    return TicketSource(section, desk, settings.home / "outcomes", requests, clock)


def _prometheus(section: PrometheusConfig, settings: Settings, clock: Clock) -> OutcomeSource:
    from tasks.rollout.outcomes.api import JsonApi
    from tasks.rollout.outcomes.prometheus import PrometheusInputs, PrometheusSource

    headers = {}
    if section.token_env is not None:
        token = secret(settings, section.token_env, "prometheus").get_secret_value()
        headers["Authorization"] = SecretStr(f"Bearer {token}")
    if section.tenant is not None:
        headers["X-Scope-OrgID"] = SecretStr(section.tenant)
    api = JsonApi(section.url, headers, section.timeout_s)
    made = PrometheusInputs if section.inputs is not None else PrometheusSource
    return made(section, api, clock)


def secret(settings: Settings, name: str, kind: str) -> SecretStr:
    """Return a secret from the environment.

    Raises:
        ConfigError: It is not set.
    """
    found = settings.key(name)
    if found is None:
        raise ConfigError(
            f"the rollout file: outcomes of kind {kind!r} take a secret from the environment "
            f"variable {name}, which is not set"
        )
    return found


def _haproxy(section: HaproxyConfig, settings: Settings, clock: Clock) -> OutcomeSource:
    from tasks.rollout.config import load_rollout
    from tasks.rollout.outcomes.counters import SampleFiles
    from tasks.rollout.outcomes.haproxy import HaproxySource
    from tasks.rollout.routers.config import HaproxyRouterConfig
    from tasks.rollout.routers.haproxy import HaproxyRouter
    from tasks.rollout.routers.haproxy_runtime import Runtime

    router = load_rollout(settings).router
    if not isinstance(router, HaproxyRouterConfig):
        raise ConfigError(
            "the rollout file: outcomes of kind 'haproxy' need a router of kind 'haproxy', got "
            f"{router.kind!r}"
        )
    return HaproxySource(
        section,
        [Runtime(instance.socket, router.timeout_s) for instance in router.instances],
        HaproxyRouter(router),
        lambda product: SampleFiles(settings.home / "outcomes", f"haproxy-{product}"),
        clock,
        {
            name: frozenset(backend.name for backend in product.backends)
            for name, product in router.products.items()
        },
    )
