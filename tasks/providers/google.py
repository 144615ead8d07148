"""What the adapters of Google's models share: address, key and errors.

Two services speak the same protocols. The Gemini API, for instance
``https://generativelanguage.googleapis.com/v1beta``, takes an API key. Vertex, for instance
``https://us-central1-aiplatform.googleapis.com/v1/projects/P/locations/us-central1/publishers/google``,
takes a bearer token: such tokens live about an hour, so a run must be shorter or be resumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Meaning
from tasks.providers.base import GenerationRequest, ServedModel
from tasks.providers.http import HttpAdapter
from tasks.providers.meanings import failed, http_error, refusal, server, throttled
from tasks.records import FailureClass

#: Seeds are 32-bit numbers with a sign, and not negative here.
MOST_SEED = 2**31 - 1

#: Reasons of ErrorInfo that are about key, account or billing, whatever the status.
_ACCOUNT = re.compile(
    r"API_KEY|ACCESS_TOKEN|BILLING|SERVICE_DISABLED|CONSUMER|ACCOUNT|CREDENTIALS|USER_PROJECT"
)
_CAPACITY = "MODEL_CAPACITY_EXHAUSTED"
_UNSAFE = re.compile(r"UNSAFE|SAFETY|PROHIBITED")
#: A quota of a day or a month, a limit of nothing, and money that is used up.
_LONG_QUOTA = re.compile(r"per[ _]?(day|month)", re.IGNORECASE)
_USED_UP = re.compile(
    r"limit: 0(?![\d.])|credits are depleted|spending cap|spend limit", re.IGNORECASE
)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s\Z")
_VERTEX = re.compile(r"(?P<version>/v[^/]+)/projects/[^/]+/locations/[^/]+(?P<rest>/.*)\Z")


@dataclass(frozen=True, slots=True)
class GoogleError:
    """An error body of Google's, read."""

    status: str = ""
    message: str = ""
    #: ``reason`` of its ErrorInfo.
    reason: str = ""
    #: Names of the quotas that were exceeded.
    quotas: tuple[str, ...] = ()
    #: Seconds that its RetryInfo asks for.
    wait_s: float | None = None

    @property
    def lasting(self) -> bool:
        """Whether the quota is not refilled by waiting minutes."""
        return any(map(_LONG_QUOTA.search, self.quotas)) or bool(_USED_UP.search(self.message))


class GoogleProvider(HttpAdapter):
    """Base of the adapters of Google's models."""

    key_header = "x-goog-api-key"
    key_scheme = ""
    kept_headers = frozenset({"server-timing", "x-gemini-service-tier"})

    def __init__(self, base_url: str, key: SecretStr | None, **more: Any) -> None:
        super().__init__(base_url, key, **more)
        #: Whether the address is one of Vertex, which takes a bearer token.
        self.vertex = "/projects/" in self.base_url

    def authorize(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """Return the API key's header, or the bearer token's for Vertex."""
        if self.vertex and self._key:
            return {"Authorization": f"Bearer {self._key}"}
        return super().authorize(method, url, body)

    def path(self, model: Model, method: str) -> str:
        """Return the path of a method of a model."""
        return f"/models/{quote(model.model_id, safe='')}:{method}"

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return which of the models are served: each is asked for by its name.

        The name of a stable model is its version; what the list calls a version is not what an
        answer reports.

        Raises:
            GateError: The service does not answer, or refuses the key.
        """
        lister = self._lister()
        if not models:
            await lister.ask(client, "/models")
        found: dict[str, ServedModel] = {}
        for model in models:
            path = f"/models/{quote(model.model_id, safe='')}"
            if await lister.ask(client, path, missing_ok=True) is not None:
                version = model.version if model.model_id == model.version else None
                found[model.name] = ServedModel(name=model.name, version=version)
        return found

    def _lister(self) -> GoogleProvider:
        """Return the adapter of the address that tells about models: Vertex has them elsewhere."""
        url = httpx.URL(self.base_url)
        match = _VERTEX.search(url.path)
        if match is None:
            return self
        lister = copy(self)
        lister.base_url = str(url.copy_with(path=match["version"] + match["rest"]))
        return lister


def refused(answer: Answer, request: GenerationRequest, refusals: re.Pattern[str]) -> Meaning:
    """Return what an answer of Google's with an error status means.

    Args:
        answer: The answer.
        request: What was asked.
        refusals: Finds the messages under 400 with which the model refuses.
    """
    said = error_of(answer)
    status = answer.status
    words = f"{said.status}: {said.message}" if said.status else said.message
    text = f"HTTP {status}: {words}"
    if status == 429 or said.status == "RESOURCE_EXHAUSTED":
        quota = said.reason != _CAPACITY and said.lasting
        return throttled(answer, request, text, wait_s=said.wait_s, quota=quota)
    if status == 499:
        return server(answer, request, text, wait_s=said.wait_s)
    if _ACCOUNT.search(said.reason) or (status == 400 and said.status == "FAILED_PRECONDITION"):
        # A wrong key comes under 400, and so does a country that is not served.
        return failed(FailureClass.AUTH, answer, request, text)
    if status in (400, 403) and (_UNSAFE.search(said.reason) or refusals.search(said.message)):
        return refusal(answer, request, text)
    return http_error(
        answer, request, types=frozenset(), message=words, wait_s=said.wait_s, quota=False
    )


def error_of(answer: Answer) -> GoogleError:
    """Return what an error body says; it may lie in a list of one element."""
    value = answer.json()
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, str):
        return GoogleError(message=error)
    if not isinstance(error, dict):
        return GoogleError(message=answer.body.decode("utf-8", "replace"))
    details = error.get("details")
    status, message = error.get("status"), error.get("message")
    reason, quotas, wait = "", [], None
    for detail in details if isinstance(details, list) else []:
        if not isinstance(detail, dict):
            continue
        kind = str(detail.get("@type", "")).rpartition(".")[2]
        if kind == "ErrorInfo":
            reason = reason or str(detail.get("reason", ""))
            quotas += _texts([detail.get("metadata")], ("quota_limit", "quota_unit"))
        elif kind == "QuotaFailure":
            quotas += _texts(detail.get("violations"), ("quotaId", "quotaMetric"))
        elif kind == "RetryInfo":
            wait = seconds_of(detail.get("retryDelay"))
    return GoogleError(
        status=status if isinstance(status, str) else "",
        message=message if isinstance(message, str) else "",
        reason=reason,
        quotas=tuple(quotas),
        wait_s=wait,
    )


def seconds_of(value: object) -> float | None:
    """Return the seconds of a duration such as ``17.837906927s``, ``None`` when it is none."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    return float(match[1]) if match else None


def _texts(entries: object, names: Sequence[str]) -> list[str]:
    """Return the texts under these names in a list of objects."""
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping):
            found += [v for n in names if isinstance(v := entry.get(n), str)]
    return found


def tokens(details: object) -> dict[str, Any]:
    """Return the counts of a list of ``{modality, tokenCount}`` by modality."""
    counted: dict[str, Any] = {}
    for entry in details if isinstance(details, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("modality"), str):
            counted[entry["modality"]] = entry.get("tokenCount", 0)
    return counted
