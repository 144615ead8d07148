"""HTTP to a router's administration: one request, one whole answer, errors in our own words."""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tasks.errors import RolloutError
from tasks.settings import without_login

#: Most bytes of an answer.
_MOST = 16 * 1024 * 1024


class LostError(RolloutError):
    """No whole answer came: whether the router did what it was asked is not known."""


@functools.cache
def trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return what TLS trusts; reading the certificates once saves a tenth of a second a request."""
    return (
        httpx.create_ssl_context()
        if ca_file is None
        else ssl.create_default_context(cafile=str(ca_file))
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    where: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body.

        Raises:
            RolloutError: It is no JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise RolloutError(
                f"{self.where} answers HTTP {self.status} with what is no JSON: {self.shown}"
            ) from None

    @property
    def shown(self) -> str:
        """The beginning of the body, for a message."""
        text = self.body[:300].decode("utf-8", "replace")
        return "".join(sign if sign.isprintable() else " " for sign in text).strip() or "(nothing)"


class Link:
    """Requests to one server; redirects are not followed, the environment's proxies not used.

    Args:
        timeout_s: Seconds to connect, and to wait for each piece of the answer.
        headers: Sent with every request; may hold a key.
        ca_file: Certificates to trust instead of the usual ones.
    """

    def __init__(
        self,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._timeout_s, self._ca_file = timeout_s, ca_file
        self._headers = dict(headers or {})

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Send a request and return the answer, whatever its status.

        Raises:
            LostError: There was none, or not a whole one.
        """
        where = f"{method} {without_login(url).partition('?')[0]}"
        try:
            with (
                httpx.Client(
                    timeout=self._timeout_s, trust_env=False, verify=trust(self._ca_file)
                ) as client,
                client.stream(
                    method, url, headers=self._headers | dict(headers or {}), content=content
                ) as reply,
            ):
                body = bytearray()
                for piece in reply.iter_bytes():
                    body += piece
                    if len(body) > _MOST:
                        raise LostError(f"{where}: the answer has more than {_MOST:,} bytes")
                return Answer(where, reply.status_code, reply.headers, bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LostError(f"{where}: no answer ({type(error).__name__})") from None
        except (OSError, ssl.SSLError) as error:
            raise RolloutError(f"{where}: the certificates cannot be read: {error}") from None
