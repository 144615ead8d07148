"""Opening the sources that the rollout file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pydantic import SecretStr

from tasks.errors import ConfigError, known
from tasks.rollout.outcomes.base import Clock, OutcomeSource, now_utc
from tasks.rollout.outcomes.config import (
    HaproxyConfig,
    LogsConfig,
    PrometheusConfig,
    SourceSection,
    SqlConfig,
    TicketsApiConfig,
    TicketsConfig,
    TicketsCsvConfig,
)
from tasks.settings import Settings


def open_sources(
    config: Sequence[SourceSection], settings: Settings, clock: Clock = now_utc
) -> list[OutcomeSource]:
    """Return the sources of live outcomes, in the order of the file.

    Args:
        config: The section ``outcomes``.
        settings: Where things lie, and the secrets that the section names.
        clock: Gives the moment.

    Raises:
        ConfigError: A source needs what is not configured, or a secret that is not set.
    """
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
    return _haproxy(section, settings, clock)


def _tickets(
    section: TicketsCsvConfig | TicketsApiConfig,
    logs: Mapping[str, LogsConfig],
    settings: Settings,
    clock: Clock,
) -> OutcomeSource:
    from tasks.rollout.outcomes.api import JsonApi
    from tasks.rollout.outcomes.logs import LogSource
    from tasks.rollout.outcomes.tickets import CsvDesk, Desk, TicketSource, ZendeskDesk, basic

    requests = None
    if section.requests is not None:
        if section.requests not in logs:
            raise ConfigError(
                f"the rollout file: tickets take requests from {section.requests!r}, and no source "
                f"of kind 'logs' has that name {known(logs)}"
            )
        requests = LogSource(logs[section.requests], clock)
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
        lambda product: SampleFiles(
            settings.home / "outcomes", f"haproxy-{quote(product, safe='')}"
        ),
        clock,
    )
