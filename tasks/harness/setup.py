"""What a shard needs before its first request: client, adapters and uploads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal
from urllib.request import getproxies  # noqa: TID251 - reads the environment, sends nothing

import httpx

from tasks.errors import ConfigError, DataError
from tasks.harness.route import Step
from tasks.inputs.brands import load_brand
from tasks.mix.catalog import FOLDER, Model
from tasks.providers.base import Provider, ProviderFactory
from tasks.providers.transport import Transport
from tasks.records import Case
from tasks.settings import Settings

#: Idle connections are dropped before servers drop them (uvicorn: 5 s): a request on a connection
#: that the server just closed is lost, and perhaps billed. Seconds.
KEEPALIVE_S = 2.0
#: Largest picture to edit, in bytes.
MOST_UPLOAD = 64 * 1024 * 1024


def open_client(connections: int) -> httpx.AsyncClient:
    """Return the HTTP client of a shard; loopback never goes through a proxy.

    Where the environment names a proxy, other hosts are reached by httpx's own transport, which
    knows how to speak to one.
    """
    ours = Transport(connections, KEEPALIVE_S)
    # What httpx itself asks; the word "no" is the list of hosts without one.
    if not set(getproxies()) & {"http", "https", "all"}:
        return httpx.AsyncClient(transport=ours, follow_redirects=False)
    return httpx.AsyncClient(
        limits=httpx.Limits(
            max_connections=max(1, connections),
            max_keepalive_connections=max(1, connections),
            keepalive_expiry=KEEPALIVE_S,
        ),
        follow_redirects=False,
        mounts={"all://127.0.0.1": ours, "all://localhost": ours},
    )


def adapter(
    model: Model, settings: Settings, endpoints: Mapping[str, str], factory: ProviderFactory
) -> Provider:
    """Return the adapter for a model at its address.

    Raises:
        ConfigError: The address is not known or the key is missing.
    """
    address = endpoints.get(model.endpoint, model.endpoint)
    if not address.startswith(("http://", "https://", FOLDER)):
        raise ConfigError(
            f"model {model.name!r}: endpoint {model.endpoint!r} has no address in this run; is its "
            "server started?"
        )
    key = None if model.key_env is None else settings.key(model.key_env)
    if model.key_env is not None and key is None:
        raise ConfigError(
            f"model {model.name!r} needs a key: set the environment variable {model.key_env}"
        )
    return factory(model, address, key)


def read_upload(case: Case, datasets: Path, field: Literal["upload", "mask"] = "upload") -> bytes:
    """Return the picture that a case wants to have edited, or the mask of that edit.

    Raises:
        DataError: The case names none, or one that is not below ``datasets`` or unreadable.
    """
    where, name = f"case {case.case_id!r}", case.upload if field == "upload" else case.mask
    if not name:
        raise DataError(where, None, field, "an edit needs a picture; name one or drop the case")
    root = datasets.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise DataError(where, None, field, f"{name!r} lies outside {root}")
    try:
        if path.stat().st_size > MOST_UPLOAD:
            raise DataError(where, None, field, f"{path} has more than {MOST_UPLOAD:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataError(where, None, field, f"{path} cannot be read: {error}") from None


def brand_tokens(case: Case, route: Iterable[Step], datasets: Path) -> dict[str, str]:
    """Return what the tokens of the route's prompt templates stand for, as far as they are used.

    Raises:
        ConfigError: A template asks for the palette of a brand whose kit cannot be read.
    """
    if case.brand is None:
        return {}
    tokens = {"brand": case.brand}
    templates = [way.call.prompt_template for step in route for way in step.ways]
    if any("{palette}" in template for template in templates):
        tokens["palette"] = ", ".join(load_brand(case.brand, datasets).palette)
    return tokens
