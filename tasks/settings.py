"""Settings, read once at the edge; nothing below reads the environment.

Secrets are ``SecretStr``: their ``repr`` is stars, and they reach neither logs nor evidence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tasks.errors import ConfigError

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
    #: App-level token of Socket Mode, for the buttons in messages.
    slack_app_token: SecretStr | None = None
    #: Incoming webhook that is used when the bot token fails; its address is a secret.
    slack_webhook: SecretStr | None = None
    #: ``smtp://user:password@host:port`` (or ``smtps://``), used when Slack fails altogether.
    smtp_url: SecretStr | None = None
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    #: Routing, on-call, quiet hours and authority by product.
    alerts_file: Path = DEPLOYMENTS / "alerts.yaml"
    #: Hard and soft limits on spend.
    budgets_file: Path = DEPLOYMENTS / "budgets.yaml"
    #: Which gates run when.
    schedules_file: Path = DEPLOYMENTS / "schedules.yaml"
    #: What is known of the checks before a run: counts of planted defects. Used while it is of the
    #: version of the checks here; else this machine measures them once.
    planted_file: Path = DATASETS / "planted.json"
    #: Drawings in which each run plants defects.
    planted_drawings: int = Field(default=10, ge=1, le=1_000)
    #: Where relative paths of models and trust lists in a policy start.
    plugins: Path = DEPLOYMENTS / "plugins"
    #: ``s3://bucket/prefix`` (any fsspec address) that holds the evidence for all workers.
    evidence_url: str | None = None
    #: Address of an S3 server that is not Amazon's; credentials come by AWS's own variables.
    s3_endpoint: str | None = None
    #: ``https://`` address under which people open ``runs/<run>/report.html``.
    report_base_url: str | None = None
    #: File of GitHub's job summary, and whether its runner reads our output for annotations.
    github_step_summary: Path | None = None
    github_actions: bool = False
    #: Where the file router writes which mix serves; applications watch this file.
    routing_file: Path
    #: Router, live outcomes and calendar of the rollout; unset: the file router alone.
    rollout_file: Path | None = None
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
        slack_app_token=_secret(env, "SLACK_APP_TOKEN"),
        slack_webhook=_secret(env, "IMAGEGATE_SLACK_WEBHOOK"),
        smtp_url=_secret(env, "IMAGEGATE_SMTP_URL"),
        mail_from=env.get("IMAGEGATE_MAIL_FROM", ""),
        mail_to=tuple(
            address.strip() for address in env.get("IMAGEGATE_MAIL_TO", "").split(",") if address
        ),
        alerts_file=_file(env, "IMAGEGATE_ALERTS_FILE", "alerts.yaml"),
        budgets_file=_file(env, "IMAGEGATE_BUDGETS_FILE", "budgets.yaml"),
        schedules_file=_file(env, "IMAGEGATE_SCHEDULES_FILE", "schedules.yaml"),
        planted_file=_file(env, "IMAGEGATE_PLANTED_FILE", DATASETS / "planted.json"),
        planted_drawings=_count(env, "IMAGEGATE_PLANTED_DRAWINGS", 10, most=1_000),
        plugins=_file(env, "IMAGEGATE_PLUGINS", "plugins"),
        evidence_url=env.get("IMAGEGATE_EVIDENCE_URL") or None,
        s3_endpoint=env.get("IMAGEGATE_S3_ENDPOINT") or env.get("AWS_ENDPOINT_URL") or None,
        report_base_url=env.get("IMAGEGATE_REPORT_URL") or None,
        github_step_summary=(
            Path(env["GITHUB_STEP_SUMMARY"]) if env.get("GITHUB_STEP_SUMMARY") else None
        ),
        github_actions=env.get("GITHUB_ACTIONS") == "true",
        routing_file=Path(env.get("IMAGEGATE_ROUTING_FILE") or root / "routing.json").resolve(),
        rollout_file=(
            _file(env, "IMAGEGATE_ROLLOUT_FILE", "") if env.get("IMAGEGATE_ROLLOUT_FILE") else None
        ),
        environment={k: SecretStr(v) for k, v in env.items() if v},
    )


def _secret(env: Mapping[str, str], name: str) -> SecretStr | None:
    value = env.get(name)
    return SecretStr(value) if value else None


def _count(env: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    """Return the whole number from 1 that a variable holds.

    Raises:
        ConfigError: It holds something else.
    """
    given = env.get(name)
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= most):
        raise ConfigError(f"{name}={given!r}: expected a whole number from 1 to {most:,}")
    return int(given)


def _file(env: Mapping[str, str], name: str, default: str | Path) -> Path:
    """Return the file that a variable names, or the one of the project."""
    given = env.get(name)
    return Path(given).expanduser().resolve() if given else DEPLOYMENTS / default


def without_login(address: str) -> str:
    """Return an address as people may see it: without the user and password it may carry."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def prefect_api_url() -> str | None:
    """Return the address of Prefect's server from the environment, ``None`` without one."""
    return os.environ.get("PREFECT_API_URL") or None


def armed_fault() -> tuple[str, str] | None:
    """Return what a test wants at the fault points of a rollout, ``None`` outside of tests.

    Returns:
        ``("kill", N)`` to die at the N-th point passed, ``("trace", FILE)`` to list them.

    Raises:
        ConfigError: ``IMAGEGATE_TEST_FAULT`` is something else.
    """
    given = os.environ.get("IMAGEGATE_TEST_FAULT")
    if not given:
        return None
    kind, _, value = given.partition(":")
    if (kind == "kill" and value.isascii() and value.isdigit()) or (kind == "trace" and value):
        return kind, value
    raise ConfigError(
        f"IMAGEGATE_TEST_FAULT={given!r}: expected kill:N or trace:FILE; unset it outside of tests"
    )
