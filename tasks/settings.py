"""Settings, read once at the edge; nothing below reads the environment.

Secrets are ``SecretStr``: their ``repr`` is stars, and they reach neither logs nor evidence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

#: The checkout: holds ``datasets/`` and ``deployments/`` beside the code.
PROJECT_ROOT = Path(__file__).resolve().parent.parent
DATASETS = PROJECT_ROOT / "datasets"
DEPLOYMENTS = PROJECT_ROOT / "deployments"


class Settings(BaseModel):
    """Where things lie and whom to tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Folder of everything that imagegate writes: state database, runs, images, Prefect's files.
    home: Path
    state_url: SecretStr
    slack_token: SecretStr | None = None
    slack_channel: str = ""
    slack_base_url: str = "https://slack.com/api/"
    #: Where the file router writes which mix serves; applications watch this file.
    routing_file: Path
    #: Values of the environment variables that the catalog names as keys, by name.
    environment: Mapping[str, SecretStr] = {}

    @property
    def runs(self) -> Path:
        """Folder of the runs' evidence."""
        return self.home / "runs"

    @property
    def images(self) -> Path:
        """Folder of the image store."""
        return self.home / "images"

    def key(self, name: str) -> SecretStr | None:
        """Return the secret in the environment variable ``name``, ``None`` when unset or empty."""
        return self.environment.get(name)


def load_settings(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Settings:
    """Read the settings from the environment.

    Args:
        environ: The environment; the process's own by default.
        home: Overrides ``IMAGEGATE_HOME`` (default: ``.imagegate`` in the current folder).
    """
    env = os.environ if environ is None else environ
    root = (home or Path(env.get("IMAGEGATE_HOME") or ".imagegate")).expanduser().resolve()
    token = env.get("SLACK_BOT_TOKEN") or env.get("IMAGEGATE_SLACK_TOKEN")
    return Settings(
        home=root,
        state_url=SecretStr(env.get("IMAGEGATE_STATE_URL") or f"sqlite:///{root / 'state.db'}"),
        slack_token=SecretStr(token) if token else None,
        slack_channel=env.get("IMAGEGATE_SLACK_CHANNEL", ""),
        slack_base_url=env.get("IMAGEGATE_SLACK_URL") or "https://slack.com/api/",
        routing_file=Path(env.get("IMAGEGATE_ROUTING_FILE") or root / "routing.json").resolve(),
        environment={k: SecretStr(v) for k, v in env.items() if v},
    )


def prefect_api_url() -> str | None:
    """Return the address of Prefect's server from the environment, ``None`` without one."""
    return os.environ.get("PREFECT_API_URL") or None
