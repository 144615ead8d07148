"""JSON from an HTTP server that is ours or a supplier's: bounded, without redirects or secrets."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx
from pydantic import SecretStr

from tasks.providers.assets import is_loopback
from tasks.rollout.outcomes.base import OutcomeError
from tasks.settings import without_login

#: Most bytes of one answer.
MOST_BYTES: Final = 64 << 20
_TOLD: Final = 300


class JsonApi:
    """A server that answers with JSON.

    Args:
        base_url: Its address.
        headers: Sent with every request; their values are secret.
        timeout_s: Seconds for one answer, from the connection to its end.
        transport: Another transport for the tests.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, SecretStr],
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers, self._timeout_s, self._transport = headers, timeout_s, transport

    def __repr__(self) -> str:
        return f"JsonApi({without_login(self.base_url)!r})"

    def ask(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Return status and JSON of an answer; with a form it is a POST, else a GET.

        Raises:
            OutcomeError: The server cannot be reached, takes too long, sends too much, or no JSON.
        """
        where = f"{without_login(self.base_url)}{path}"
        headers = {name: value.get_secret_value() for name, value in self._headers.items()}
        deadline = time.monotonic() + self._timeout_s
        try:
            with (
                httpx.Client(
                    timeout=self._timeout_s,
                    transport=self._transport,
                    trust_env=not is_loopback(httpx.URL(self.base_url)),
                ) as client,
                client.stream(
                    "GET" if form is None else "POST",
                    f"{self.base_url}{path}",
                    data=form,
                    params=query,
                    headers=headers,
                ) as answer,
            ):
                body = bytearray()
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise OutcomeError(f"{where}: an answer above {MOST_BYTES:,} bytes")
                    if time.monotonic() > deadline:
                        raise OutcomeError(f"{where}: no whole answer in {self._timeout_s:g} s")
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # The error's own text may repeat the address with its query.
            raise OutcomeError(f"{where}: cannot be reached ({type(error).__name__})") from None
        try:
            return status, json.loads(body)
        except (ValueError, RecursionError):
            raise OutcomeError(
                f"{where}: answered {status} with {len(body):,} bytes that are not JSON"
            ) from None

    def told(self, text: object) -> str:
        """Return what a server said, short and without our secrets, for an error."""
        said = " ".join(str(text).split())
        for secret in self._headers.values():
            for part in secret.get_secret_value().split():
                if len(part) > 5:
                    said = said.replace(part, "***")
        return said[:_TOLD]
