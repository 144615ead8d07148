"""Health checks of the containers: ``python -m deployments.health …``, exit code 0 or 1.

``http URL`` asks for an address, ``stores`` reaches for the database and the Redis of Prefect's
server, ``beat NAME SECONDS`` wants a sign of life of a long-running part in the state database that
is not older, and ``bucket`` makes the bucket of ``IMAGEGATE_EVIDENCE_URL`` when it is missing.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from tasks.errors import ImagegateError
from tasks.settings import Settings, load_settings

#: Seconds for one look.
TIMEOUT_S = 5.0
#: Settings of Prefect's server that name its stores, with the port that an address may leave out.
STORES = {
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": 5432,
    "PREFECT_SERVER_DOCKET_URL": 6379,
}


def http(url: str) -> str | None:
    """Return what is wrong with an address, ``None`` when it answers with 200."""
    import httpx

    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        return f"{url}: {type(error).__name__}"
    return None if answer.status_code == 200 else f"{url}: {answer.status_code}"


def stores(environ: Mapping[str, str]) -> str | None:
    """Return which store of Prefect's server cannot be reached; addresses without passwords."""
    for name, port in STORES.items():
        try:
            parts = urlsplit(environ.get(name, ""))
            host, at = parts.hostname or "", parts.port or port
        except ValueError:
            return f"{name} is no address"
        if not host:
            return f"{name} is not set"
        try:
            socket.create_connection((host, at), TIMEOUT_S).close()
        except OSError as error:
            return f"{host}:{at}: {error}"
    return None


def beat(
    settings: Settings, name: str, seconds: float, *, now: datetime | None = None
) -> str | None:
    """Return what is wrong with a long-running part of imagegate on this host.

    Args:
        settings: Names the database.
        name: ``watchdog``, or the row of another part. Rows of parts that run on many hosts are
            called ``<name>:<host>:<process>``; only this host's count.
        seconds: A sign of life may be that old.
        now: The present moment; the system's clock by default.
    """
    import sqlalchemy as sa

    from tasks.state import State
    from tasks.tables import heartbeats

    state = State(settings.state_url.get_secret_value())
    try:
        with state.begin() as connection:
            here = heartbeats.c.name.startswith(f"{name}:{socket.gethostname()}:", autoescape=True)
            query = sa.select(sa.func.max(heartbeats.c.at)).where(
                sa.or_(heartbeats.c.name == name, here)
            )
            last = connection.execute(query).scalar()
    finally:
        state.close()
    if last is None:
        return f"{name}: no sign of life yet"
    age = ((now or datetime.now(UTC)) - datetime.fromisoformat(last)).total_seconds()
    return None if age <= seconds else f"{name}: silent for {age:.0f} s"


def bucket(settings: Settings) -> str | None:
    """Make the bucket of the shared evidence; return what is wrong."""
    url = settings.evidence_url or ""
    if not url.startswith("s3://"):
        return None
    import s3fs  # type: ignore[import-untyped]

    from tasks.evidence.remote import s3_options

    name = url.removeprefix("s3://").partition("/")[0]
    fs = s3fs.S3FileSystem(**s3_options(settings.s3_endpoint))
    fs.retries = 1  # botocore repeats already, and the job is started again
    try:
        # Amazon wants every region named but its first.
        region = os.environ.get("AWS_DEFAULT_REGION", "")  # noqa: TID251 - AWS's own
        fs.mkdir(name, region_name="" if region == "us-east-1" else region)
    except FileExistsError:
        return None
    except Exception as error:  # noqa: BLE001 - botocore and aiohttp have no common base
        return f"bucket {name}: {type(error).__name__}: {error}"
    return None


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit code."""
    try:
        match list(arguments):
            case ["http", url]:
                wrong = http(url)
            case ["stores"]:
                wrong = stores(os.environ)  # noqa: TID251 - Prefect's settings, not ours
            case ["beat", name, seconds]:
                wrong = beat(load_settings(), name, float(seconds))
            case ["bucket"]:
                wrong = bucket(load_settings())
            case _:
                wrong = __doc__
    except ImagegateError as error:
        wrong = str(error)
    if wrong:
        sys.stderr.write(f"{wrong}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
