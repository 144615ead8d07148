"""An HTTP request in the words of a protocol, and what adapters build one from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tasks.errors import ConfigError
from tasks.providers.sniff import sniff_mime


@dataclass(frozen=True, slots=True)
class Message:
    """An HTTP request in the words of a protocol."""

    method: str
    #: Below the base address, beginning with ``/``; or a whole address that the provider gave,
    #: which must lie at the base address or at one of ``api_hosts``.
    path: str
    #: Sent as JSON.
    json: Any = None
    #: Fields of a form; with ``files`` or ``multipart`` a multipart one.
    form: Mapping[str, str | bytes] | None = None
    #: Files of a form: field, then file name, bytes and media type.
    files: Sequence[tuple[str, tuple[str, bytes, str]]] = ()
    #: A multipart form also without files.
    multipart: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    accept: str = "application/json"


def checked_url(base_url: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        ConfigError: It is not an http(s) address, or holds a password.
    """
    try:
        url = httpx.URL(base_url)
        host = url.host  # decoding an international name can fail as late as here
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ConfigError(f"endpoint {base_url!r} is not an address: {error}") from None
    port_fits = url.port is None or 0 < url.port < 65_536
    if url.scheme not in ("http", "https") or not host or url.userinfo or not port_fits:
        raise ConfigError(
            f"endpoint {url.copy_with(userinfo=b'')!s} must read http(s)://host[:port][/path] "
            "without user name and password"
        )
    return base_url.rstrip("/")


def form_fields(fields: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Return values as form fields, JSON where they are no texts; ``None`` is left out."""
    form: dict[str, str | bytes] = {}
    for name, value in fields.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        # A form is UTF-8 and has no escapes: half a surrogate pair cannot travel in it.
        form[name] = text.encode("utf-8", "replace")
    return form


def file_part(name: str, data: bytes | None) -> tuple[str, tuple[str, bytes, str]]:
    """Return the file part of a form with the media type that its bytes show."""
    content = data or b""
    mime = sniff_mime(content) or "application/octet-stream"
    return name, (name, content, mime)
