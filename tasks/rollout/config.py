"""The rollout file: the router, where live outcomes come from, when production must not change.

``IMAGEGATE_ROLLOUT_FILE`` names it; without one the routing is a file and nothing is known of
live traffic. It holds no secret: where one is needed it names an environment variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SecretStr

from tasks.errors import ConfigError
from tasks.policy import Strict, parse_strict, read_yaml
from tasks.rollout.calendar import FreezeWindow
from tasks.rollout.outcomes.config import SourceSection
from tasks.rollout.routers.base import Router
from tasks.rollout.routers.config import FileRouterConfig, RouterConfig
from tasks.settings import Settings


class RolloutConfig(Strict):
    """The rollout file."""

    schema_version: Literal[1] = 1
    router: RouterConfig = Field(default_factory=FileRouterConfig)
    #: Where live outcomes come from, best first: of two that count the same the first one is heard.
    outcomes: tuple[SourceSection, ...] = ()
    #: When production must not change; a rollback always may.
    calendar: tuple[FreezeWindow, ...] = ()
    #: Routes of this router that no user is sent to, by product: `imagegate drill` rehearses there.
    shadows: Mapping[str, str] = {}


def load_rollout(settings: Settings) -> RolloutConfig:
    """Read the rollout file, or return what holds without one.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    path = settings.rollout_file
    if path is None:
        return RolloutConfig()
    value = read_yaml(path)
    if value is None:
        raise ConfigError(
            f"{path}: the file is empty; write at least `schema_version: 1`, or start from "
            "deployments/rollout.example.yaml"
        )
    return parse_strict(RolloutConfig, value, path)


def open_router(settings: Settings) -> Router:
    """Return the router that the rollout file names.

    Nothing is connected to before the router is used.

    Raises:
        ConfigError: The rollout file is wrong, or a secret that it names is not set.
    """
    return _built(load_rollout(settings).router, settings)


def _built(config: RouterConfig, settings: Settings) -> Router:
    if config.kind == "haproxy":
        from tasks.rollout.routers.haproxy import HaproxyRouter

        return HaproxyRouter(config)
    if config.kind == "nginx":
        from tasks.rollout.routers.nginx import NginxRouter

        return NginxRouter(config)
    if config.kind == "gateway-api":
        from tasks.rollout.routers.gateway_api import GatewayRouter

        return GatewayRouter(config)
    if config.kind == "litellm":
        from tasks.rollout.routers.litellm import LitellmRouter

        return LitellmRouter(config, _secret(config.key_env, settings))
    if config.kind == "webhook":
        from tasks.rollout.routers.webhook import WebhookRouter

        return WebhookRouter(config, _secret(config.key_env, settings))
    from tasks.rollout.routers.file import FileRouter

    return FileRouter(config.path or settings.routing_file)


def _secret(name: str, settings: Settings) -> SecretStr:
    key = settings.key(name)
    if key is None:
        raise ConfigError(
            f"{settings.rollout_file}: router.key_env names {name!r}, an environment variable that "
            "is not set; without it the router cannot be changed"
        )
    return key
