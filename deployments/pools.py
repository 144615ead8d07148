"""Work pools: what runs the deployments on other machines, in containers or in a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from tasks.errors import ConfigError, known
from tasks.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PoolType = Literal["process", "docker", "kubernetes"]
POOL_TYPES: tuple[PoolType, ...] = ("process", "docker", "kubernetes")
#: The distribution that brings the worker of a type; the process worker is Prefect's own.
WORKER_PACKAGES = {"docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}
#: A container has its own disk; this is the folder that ``deployments/Dockerfile`` makes for it.
CONTAINER_HOME = "/var/lib/imagegate"
#: What a run in a pool gets besides imagegate's own settings.
USUAL = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    # Signs of life, by which Prefect's server sees that a run died; 30 s is the shortest.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def ensure_pool(client: SyncPrefectClient, name: str, kind: PoolType) -> str:
    """Create the work pool when it is missing; return ``created`` or ``there``.

    Raises:
        ConfigError: The pool is of another type, or the server has no template for the type.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = base_job_template(client, kind)
        wanted = WorkPoolCreate(
            name=name,
            type=kind,
            base_job_template=template,
            description="Runs the gates of imagegate.",
        )
        try:
            client.create_work_pool(wanted)
        except PrefectHTTPStatusError as error:
            raise ConfigError(f"--pool {name}: Prefect's server refuses it: {error}") from None
        return "created"
    if pool.type != kind:
        raise ConfigError(
            f"--pool {name}: this work pool is of type {pool.type!r}, not {kind!r}; give "
            f"--type {pool.type} or another name"
        )
    return "there"


def base_job_template(client: SyncPrefectClient, kind: PoolType) -> dict[str, Any]:
    """Return the template of a pool type, from this machine or from the server's collection.

    Raises:
        ConfigError: Neither has it.
    """
    if kind == "process":
        from prefect.workers.process import ProcessWorker

        return ProcessWorker.get_default_base_job_template()
    import httpx

    try:
        metadata = client.read_worker_metadata()
    except httpx.HTTPError:
        metadata = {}
    templates = {
        worker.get("type"): worker.get("default_base_job_configuration")
        for collection in metadata.values()
        for worker in collection.values()
    }
    template = templates.get(kind)
    if not isinstance(template, dict):
        package = WORKER_PACKAGES[kind]
        raise ConfigError(
            f"--type {kind}: Prefect's server knows no template for work pools of this type "
            f"{known(str(name) for name in templates)}; on a machine with {package} installed run "
            f"`prefect work-pool get-default-base-job-template --type {kind} --file template.json` "
            f"and `prefect work-pool create --type {kind} --base-job-template template.json POOL`, "
            "then deploy again"
        )
    return template


def job_variables(
    settings: Settings,
    kind: PoolType,
    *,
    image: str | None,
    home: str | None,
    extra: Mapping[str, str],
) -> dict[str, Any]:
    """Return what a job of the pool is given. No secrets: workers have them in their environment.

    Args:
        settings: Of the machine that deploys.
        kind: Type of the pool.
        image: Container image with imagegate installed.
        home: ``IMAGEGATE_HOME`` of the runs; ``"worker"`` leaves it to the worker's environment;
            ``None``: this machine's for processes, :data:`CONTAINER_HOME` for containers.
        extra: More environment variables.

    Raises:
        ConfigError: A container pool without an image, an image for a process pool, or a variable
            that looks like a secret.
    """
    if kind == "process" and image is not None:
        raise ConfigError("--image is for pools of type docker or kubernetes; leave it out")
    if kind != "process" and image is None:
        raise ConfigError(
            f"--type {kind} needs --image, an image with imagegate installed (deployments/"
            "Dockerfile makes one)"
        )
    environment: dict[str, str] = dict(USUAL)
    if home != "worker":
        own = str(settings.home) if kind == "process" else CONTAINER_HOME
        environment["IMAGEGATE_HOME"] = home or own
    told = {
        "IMAGEGATE_SLACK_CHANNEL": settings.slack_channel,
        "IMAGEGATE_MAIL_FROM": settings.mail_from,
        "IMAGEGATE_MAIL_TO": ",".join(settings.mail_to),
        "IMAGEGATE_EVIDENCE_URL": settings.evidence_url or "",
        "IMAGEGATE_REPORT_URL": settings.report_base_url or "",
    }
    environment |= {name: value for name, value in told.items() if value}
    environment |= extra
    for name, value in environment.items():
        _refuse_secret(name, value)
    variables: dict[str, Any] = {"env": environment}
    if image is not None:
        variables["image"] = image
    return variables


_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|_KEY$|WEBHOOK|SMTP_URL|STATE_URL", re.IGNORECASE)
#: ``scheme://user:password@host``
_SECRET_VALUE = re.compile(r"://[^/\s@]*:[^/\s@]+@|xox[a-z]-|xapp-")


def _refuse_secret(name: str, value: str) -> None:
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
        raise ConfigError(
            f"{name} looks like a secret; everybody who sees the deployment would see it. Put it "
            "into the environment of the workers (or a Kubernetes secret) instead"
        )


def worker_hint(pool: str, kind: PoolType) -> str:
    """Return how to start a worker for the pool."""
    package = WORKER_PACKAGES.get(kind)
    install = f" (pip install {package})" if package else ""
    return (
        f"Start a worker where the gates shall run{install}:\n"
        f"  prefect worker start --pool {pool} --type {kind}\n"
        "with PREFECT_API_URL, IMAGEGATE_STATE_URL and the keys of Slack and of the models in its "
        "environment."
    )
