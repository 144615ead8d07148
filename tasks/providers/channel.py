"""How the adapters reach a provider: key, exchange, foreign addresses, and the record of both.

Everything that must be right once for all is here: the key goes to the adapter's own address only
and stands in no text, and nothing is followed that was not checked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import httpx
from pydantic import SecretStr

from tasks.errors import ConfigError
from tasks.providers import assets
from tasks.providers.answers import KEPT_HEADERS, Answer, Asset, Meaning
from tasks.providers.assets import ForeignAddressError
from tasks.providers.base import Adapter, AttemptResult, GenerationRequest
from tasks.providers.cost import worst_case
from tasks.providers.message import Message, checked_url
from tasks.providers.secrets import Redactor
from tasks.providers.wire import MOST_BODY, NoAnswer, Trip, WireClock, exchange, phases
from tasks.records import Attempt, FailureClass, Usage, digest_bytes

#: A finished picture is fetched so often before it is given up: it is paid for. Seconds between.
_FETCHES = 3
_FETCH_PAUSE_S = 0.3
#: Statuses that say nothing about what was asked for: asking again may help.
LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class Channel(Adapter):
    """The way to one provider.

    Args:
        base_url: Address of the server.
        key: Sent to ``base_url`` and ``api_hosts`` and nowhere else; ``None`` for none.
        most_body: Most bytes of an answer.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The address or the key cannot be used in an HTTP request.
    """

    #: Header of the key and the word before it; "" for the key alone.
    key_header: ClassVar[str] = "Authorization"
    key_scheme: ClassVar[str] = "Bearer"
    #: Response headers worth keeping besides :data:`tasks.providers.answers.KEPT_HEADERS`.
    kept_headers: ClassVar[frozenset[str]] = frozenset()
    #: Other hosts of the provider that may be sent the key: where jobs are looked at.
    api_hosts: ClassVar[tuple[str, ...]] = ()
    #: Hosts that finished pictures may be fetched from; a catalog entry's own list comes first.
    asset_hosts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        base_url: str,
        key: SecretStr | None,
        *,
        most_body: int = MOST_BODY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = checked_url(base_url)
        self._most_body = most_body
        self._clock = clock
        self._key = ""
        if key is not None:
            secret = key.get_secret_value()
            if not secret.isascii() or not secret.isprintable() or not secret.strip():
                raise ConfigError(
                    f"the key for {self.base_url} is empty or holds characters that an HTTP header "
                    "cannot carry (allowed: printable ASCII); copy it again without line ends"
                )
            self._key = secret.strip()
        self._redactor = Redactor(self.secrets())
        #: Gives the addresses of a host.
        self.resolver: assets.Resolve = assets.resolve

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"{type(self).__name__}({self.base_url!r})"

    def authorize(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """Return the headers that show who asks."""
        if not self._key:
            return {}
        return {self.key_header: f"{self.key_scheme} {self._key}".strip()}

    def secrets(self) -> tuple[str, ...]:
        """Return the values that may stand in no text."""
        return (self._key,) if self._key else ()

    def allowed_assets(self, request: GenerationRequest) -> tuple[str, ...]:
        """Return the hosts that finished pictures may be fetched from."""
        return request.model.asset_hosts or self.asset_hosts

    def redact(self, text: str, limit: int = 300) -> str:
        """Return provider text for the record: one line, without the key, cut to a limit."""
        return self._redactor.text(text, limit)

    async def _send(
        self,
        client: httpx.AsyncClient,
        message: Message,
        trip: Trip,
        timeout_s: float,
        *,
        most_body: int | None = None,
    ) -> Answer | NoAnswer:
        """Send a message with the key and return what came back."""
        clock = WireClock(self._clock)
        timeout_s = max(0.001, timeout_s)
        try:
            url = self._url(message.path)
            built = self._build(client, message, url, clock, timeout_s)
        except (ForeignAddressError, httpx.InvalidURL, UnicodeError, ValueError) as error:
            return NoAnswer(f"the request cannot be sent: {error}", sent=False, ours=True)
        answer = await exchange(client, built, clock, timeout_s, most_body or self._most_body)
        trip.note(clock)
        return (
            replace(answer, seconds=trip.wire_seconds()) if isinstance(answer, Answer) else answer
        )

    def _url(self, path: str) -> str:
        """Return the whole address of a message.

        Raises:
            ForeignAddressError: It may not be sent the key.
        """
        if path.startswith("/"):
            return self.base_url + path
        url, base = assets.parse_url(path), httpx.URL(self.base_url)
        named = url.scheme == "https" and assets.host_allowed(url.host, self.api_hosts)
        if assets.origin(url) == assets.origin(base) or (named and url.port in (None, 443)):
            return path
        raise ForeignAddressError(f"{url.host!r}, which is not the provider's; the key stays here")

    def _build(
        self,
        client: httpx.AsyncClient,
        message: Message,
        url: str,
        clock: WireClock,
        timeout_s: float,
    ) -> httpx.Request:
        """Return the HTTP request."""
        headers = {
            "Accept": message.accept,
            # A compressed body could unpack to any size; pictures are compressed already.
            "Accept-Encoding": "identity",
            "User-Agent": "imagegate",
        } | dict(message.headers)
        content: dict[str, Any] = {}
        if message.json is not None:
            # ASCII escapes carry every prompt, lone surrogates included.
            headers["Content-Type"] = "application/json"
            content["content"] = json.dumps(message.json, allow_nan=False).encode("ascii")
        elif message.multipart:
            fields = [(name, (None, value)) for name, value in (message.form or {}).items()]
            content["files"] = [*fields, *message.files]
        elif message.form is not None or message.files:
            content["data"] = dict(message.form or {})
            content["files"] = list(message.files) or None
        timeout = phases(timeout_s)
        built = client.build_request(
            message.method,
            url,
            params=dict(message.params) or None,
            headers=headers,
            extensions={"trace": clock.trace, "timeout": timeout.as_dict()},
            **content,
        )
        body = built.read() if content.get("files") is None else b""
        built.headers.update(self.authorize(message.method, str(built.url), body))
        return built

    async def _fetch(
        self, client: httpx.AsyncClient, request: GenerationRequest, trip: Trip, asset: Asset
    ) -> Answer | str:
        """Return the answer with the finished picture, or why it cannot be fetched."""
        # A picture that is paid for gets some seconds also when the time is up.
        until = self._clock() + max(5.0, trip.left(request.model.limits.timeout_s))
        why = "no time was left to fetch the finished picture"
        for number in range(_FETCHES):
            await asyncio.sleep(_FETCH_PAUSE_S * number)
            left = until - self._clock()
            if left <= 0:
                break
            try:
                answer = await self._fetch_once(client, request, trip, asset, left)
            except ForeignAddressError as error:
                return f"the provider's picture is at {error}"
            except (OSError, TimeoutError) as error:
                why = f"the host of the finished picture cannot be found: {error}"
                continue
            if isinstance(answer, NoAnswer):
                why = f"the finished picture: {answer.message}"
                if answer.ours:
                    break
            elif answer.broken is not None and answer.broken[0] is FailureClass.TRANSPORT:
                why = f"the finished picture: {answer.broken[1]}"
            elif answer.status in LATER:
                why = f"HTTP {answer.status} for the finished picture"
            else:
                return answer
        return why

    async def _fetch_once(
        self,
        client: httpx.AsyncClient,
        request: GenerationRequest,
        trip: Trip,
        asset: Asset,
        timeout_s: float,
    ) -> Answer | NoAnswer:
        """Fetch a picture from the provider's own address with the key, from another without.

        Raises:
            ForeignAddressError: It must not be fetched.
            OSError: Its host cannot be found.
        """
        if asset.own:
            return await self._send(
                client, Message("GET", asset.url, accept="image/*"), trip, timeout_s
            )
        return await self._send_bare(client, request, asset.url, trip, timeout_s)

    async def _send_bare(
        self,
        client: httpx.AsyncClient,
        request: GenerationRequest,
        text: str,
        trip: Trip,
        timeout_s: float,
    ) -> Answer | NoAnswer:
        """Fetch a foreign address without key or cookies.

        Raises:
            ForeignAddressError: It must not be fetched.
            OSError: Its host cannot be found.
        """
        url = assets.check_url(text, self.base_url, self.allowed_assets(request))
        target, headers, extensions = await assets.pinned(url, self.base_url, self.resolver)
        clock = WireClock(self._clock)
        built = httpx.Request(
            "GET",
            target,
            headers=headers
            | {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "imagegate"},
            extensions=extensions | {"trace": clock.trace, "timeout": phases(timeout_s).as_dict()},
        )
        answer = await exchange(client, built, clock, timeout_s, self._most_body)
        trip.note(clock)
        return (
            replace(answer, seconds=trip.wire_seconds()) if isinstance(answer, Answer) else answer
        )

    def _common(self, request: GenerationRequest, trip: Trip) -> dict[str, Any]:
        """Return the fields of every attempt."""
        return {
            "stage": request.stage,
            "number": request.attempt,
            "model": request.model.name,
            "started_at": trip.started_at,
            "queued_s": request.queued_s,
            "ttfb_s": trip.ttfb(),
            "total_s": trip.seconds(),
            "idempotency_key": request.idempotency_key,
        }

    def _unanswered(
        self,
        request: GenerationRequest,
        trip: Trip,
        answer: NoAnswer,
        failure: FailureClass | None = None,
    ) -> AttemptResult:
        """Return the attempt that nobody answered."""
        usual = FailureClass.BAD_REQUEST if answer.ours else FailureClass.TRANSPORT
        worst = worst_case(request.model, request.prompt, *self.asked_size(request)) or 0
        return AttemptResult(
            Attempt(
                **self._common(request, trip),
                failure=failure or usual,
                message=self.redact(answer.message),
                # A request that went out may have been worked on and billed before it was lost.
                billed="unknown" if answer.sent else "no",
                cost_microusd=worst if answer.sent else 0,
                cost_source="list",
            )
        )

    def _answered(self, answer: Answer, meaning: Meaning) -> dict[str, Any]:
        """Return the fields of an attempt that the provider answered."""
        kept = KEPT_HEADERS | self.kept_headers
        headers = {n: self.redact(v, 200) for n, v in answer.headers.items() if n in kept}
        facts = meaning.facts
        request_id = self._said(facts.request_id, 200) or headers.get("x-request-id") or None
        return {
            "http_status": answer.status,
            "failure": meaning.failure,
            "message": self.redact(str(meaning.message)),
            "retry_after_s": meaning.retry_after_s,
            "billed": meaning.billed,
            "cost_microusd": meaning.cost_microusd,
            "cost_source": meaning.cost_source,
            "provider_request_id": request_id,
            "model_reported": self._said(facts.model_reported, 200) or None,
            "declared_mime": self._said(meaning.declared_mime, 100),
            "sniffed_mime": meaning.sniffed_mime,
            "finish_reason": self._said(meaning.finish_reason, 60),
            "body_digest": digest_bytes(answer.body) if answer.body else None,
            "body_bytes": len(answer.body),
            "headers": headers,
            "seed_used": facts.seed_used,
            "usage": self._usage(facts.usage),
            "pin": meaning.pin,
        }

    def _said(self, text: str | None, limit: int) -> str | None:
        # An adapter passes on what it found; hostile JSON has other things than texts there.
        return None if text is None else self.redact(str(text), limit)

    def _usage(self, usage: Usage | None) -> Usage | None:
        """Return the usage without secrets in the provider's own words."""
        if usage is None:
            return None
        return usage.model_copy(update={"raw": self._redactor.value(usage.raw)})
