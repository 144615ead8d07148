"""The ``raw`` protocol: a prompt goes in, the bytes of one picture come out.

``POST /generate`` takes JSON; ``POST /edit`` and ``POST /upscale`` take a multipart form with the
picture in ``image``. The embedded image server and self-hosted servers speak it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from tasks.errors import ConfigError, GateError
from tasks.providers.answers import (
    KEPT_HEADERS,
    Answer,
    Meaning,
    clean,
    declared_mime,
    interpret,
    list_price,
)
from tasks.providers.base import AttemptResult, GenerationRequest, ServedModel
from tasks.providers.sniff import parse_json, sniff_mime
from tasks.providers.wire import MOST_BODY, NoAnswer, WireClock, exchange, phases
from tasks.records import Attempt, FailureClass, digest_bytes, utc_now

#: Seconds to wait for the list of served models.
SERVED_TIMEOUT_S = 20.0
_MOST_SERVED_BODY = 4 * 1024 * 1024


class RawProvider:
    """Adapter of the ``raw`` protocol.

    Args:
        base_url: Address of the server, without ``/generate``.
        key: Sent as a bearer token to ``base_url`` and nowhere else; ``None`` for none.
        most_body: Most bytes of a picture.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The address or the key cannot be used in an HTTP request.
    """

    def __init__(
        self,
        base_url: str,
        key: SecretStr | None,
        *,
        most_body: int = MOST_BODY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self._key = key
        self._most_body = most_body
        self._clock = clock
        self._auth: dict[str, str] = {}
        if key is not None:
            secret = key.get_secret_value()
            if not secret.isascii() or not secret.isprintable() or not secret.strip():
                raise ConfigError(
                    f"the key for {self.base_url} is empty or holds characters that an HTTP header "
                    "cannot carry (allowed: printable ASCII); copy it again without line ends"
                )
            self._auth["Authorization"] = f"Bearer {secret.strip()}"

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"RawProvider({self.base_url!r})"

    async def submit(self, client: httpx.AsyncClient, request: GenerationRequest) -> AttemptResult:
        """Send one request and return what came of it, failures classified."""
        clock = WireClock(self._clock)
        started_at = utc_now()
        timeout_s = request.model.limits.timeout_s
        message = self._message(client, request, clock)
        answer = await exchange(client, message, clock, timeout_s, self._most_body)
        total_s, ttfb_s = clock.total(), clock.ttfb()
        common = {
            "stage": request.stage,
            "number": request.attempt,
            "model": request.model.name,
            "started_at": started_at,
            "queued_s": request.queued_s,
            "ttfb_s": ttfb_s,
            "total_s": total_s,
            "idempotency_key": request.idempotency_key,
        }
        if isinstance(answer, NoAnswer):
            return AttemptResult(Attempt(**common, **self._unanswered(request, answer)))
        meaning = interpret(answer, request.model, request.seed, datetime.now(UTC))
        attempt = Attempt(**common, **self._answered(answer, meaning))
        return AttemptResult(attempt, answer.body if meaning.delivered else None)

    async def served(self, client: httpx.AsyncClient) -> dict[str, ServedModel]:
        """Return the models that the server says it serves, by name.

        Raises:
            GateError: The server does not answer, or its answer is not a list of models.
        """
        clock = WireClock(self._clock)
        message = client.build_request(
            "GET",
            f"{self.base_url}/models",
            headers=self._auth | {"Accept": "application/json", "Accept-Encoding": "identity"},
            extensions={"trace": clock.trace, "timeout": phases(SERVED_TIMEOUT_S).as_dict()},
        )
        answer = await exchange(client, message, clock, SERVED_TIMEOUT_S, _MOST_SERVED_BODY)
        where = f"{self.base_url}/models"
        if isinstance(answer, NoAnswer):
            raise GateError(f"{where}: {self._redact(answer.message)}; is the server running?")
        if answer.status != 200 or answer.broken is not None:
            why = answer.broken[1] if answer.broken else f"HTTP {answer.status}"
            raise GateError(f"{where}: expected HTTP 200 with the served models, got {why}")
        value = parse_json(answer.body)
        entries = value.get("models") if isinstance(value, dict) else None
        if not isinstance(entries, list):
            raise GateError(f"{where}: expected JSON with a list 'models', got something else")
        return {model.name: model for model in (_served(entry, where) for entry in entries)}

    def _message(
        self, client: httpx.AsyncClient, request: GenerationRequest, clock: WireClock
    ) -> httpx.Request:
        """Return the HTTP request."""
        fields: dict[str, Any] = {
            "prompt": request.prompt,
            "size": f"{request.width}x{request.height}",
            "model": request.model.name,
            "seed": request.seed,
            "brand": request.brand,
            "locale": request.locale,
            "safety": request.safety,
            "params": request.params,
        }
        headers = self._auth | {
            "Accept": "image/*, application/json",
            # A compressed body could unpack to any size; pictures are compressed already.
            "Accept-Encoding": "identity",
            "Idempotency-Key": request.idempotency_key,
            "X-Retry-Count": str(request.attempt - 1),
            "User-Agent": "imagegate",
        }
        content: dict[str, Any]
        if request.operation == "generate":
            # ASCII escapes carry every prompt, lone surrogates included.
            headers["Content-Type"] = "application/json"
            content = {"content": json.dumps(fields, allow_nan=False).encode("ascii")}
        else:
            content = {"data": _form(fields), "files": {"image": _upload(request.image)}}
        timeout = phases(request.model.limits.timeout_s)
        return client.build_request(
            "POST",
            f"{self.base_url}/{request.operation}",
            headers=headers,
            extensions={"trace": clock.trace, "timeout": timeout.as_dict()},
            **content,
        )

    def _unanswered(self, request: GenerationRequest, answer: NoAnswer) -> dict[str, Any]:
        """Return the fields of an attempt that nobody answered."""
        return {
            "failure": FailureClass.BAD_REQUEST if answer.ours else FailureClass.TRANSPORT,
            "message": self._redact(answer.message),
            # A request that went out may have been worked on and billed before it was lost.
            "billed": "unknown" if answer.sent else "no",
            "cost_microusd": list_price(request.model) if answer.sent else 0,
            "cost_source": "list",
        }

    def _answered(self, answer: Answer, meaning: Meaning) -> dict[str, Any]:
        """Return the fields of an attempt that the provider answered."""
        headers = {
            name: self._redact(value, 200)
            for name, value in answer.headers.items()
            if name in KEPT_HEADERS
        }
        return {
            "http_status": answer.status,
            "failure": meaning.failure,
            "message": self._redact(meaning.message),
            "retry_after_s": meaning.retry_after_s,
            "billed": meaning.billed,
            "cost_microusd": meaning.cost_microusd,
            "cost_source": meaning.cost_source,
            "provider_request_id": headers.get("x-request-id") or None,
            "model_reported": headers.get("x-model-version") or None,
            "declared_mime": declared_mime(answer.headers),
            "sniffed_mime": meaning.sniffed_mime,
            "finish_reason": None
            if meaning.finish_reason is None
            else self._redact(meaning.finish_reason, 60),
            "body_digest": digest_bytes(answer.body) if answer.body else None,
            "body_bytes": len(answer.body),
            "headers": headers,
        }

    def _redact(self, text: str, limit: int = 300) -> str:
        """Return provider text for the record: providers quote the key that they reject."""
        if self._key is not None:
            text = text.replace(self._key.get_secret_value().strip(), "***")
        return clean(text, limit)


def _checked_url(base_url: str) -> str:
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


def _form(fields: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Return the fields as form fields; a missing brand is left out."""
    form: dict[str, str | bytes] = {}
    for name, value in fields.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        # A form is UTF-8 and has no escapes: half a surrogate pair cannot travel in it.
        form[name] = text.encode("utf-8", "replace")
    return form


def _upload(image: bytes | None) -> tuple[str, bytes, str]:
    """Return the file part of a form."""
    data = image or b""
    mime = sniff_mime(data) or "application/octet-stream"
    return "image", data, mime


def _served(entry: object, where: str) -> ServedModel:
    """Return one entry of the list of served models.

    Raises:
        GateError: The entry has no name or no version.
    """
    if not isinstance(entry, dict):
        raise GateError(f"{where}: expected an object for each model, got {type(entry).__name__}")
    name, version = entry.get("name"), entry.get("version")
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        raise GateError(f"{where}: a served model needs a name and a version, got {entry!r:.120}")
    price, safety, retires = entry.get("price_usd"), entry.get("safety"), entry.get("retires")
    return ServedModel(
        name=clean(name, 100),
        version=clean(version, 200),
        safety=clean(safety, 40) if isinstance(safety, str) else None,
        price_usd=float(price)
        if isinstance(price, int | float) and not isinstance(price, bool) and 0 <= price < 1e6
        else None,
        retires=clean(retires, 40) if isinstance(retires, str) else None,
    )
