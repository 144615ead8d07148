"""Replicate: predictions of hosted models, pinned by the 64 digits of a container's version.

``POST /v1/predictions`` with ``Prefer: wait`` holds the answer back while the model runs; whatever
it says, the prediction's own address is asked until the state is final, because only then metrics
and logs are whole. ``Cancel-After`` bounds what a stuck prediction can cost. A model that Replicate
maintains is asked for by ``owner/name`` and is an alias. ``options``: see
:mod:`tasks.providers.hosted`.

Sources: the Python SDK 1.0.7, https://replicate.com/docs/reference/http,
https://replicate.com/docs/topics/predictions/lifecycle and …/rate-limits,
https://replicate.com/docs/reference/error-codes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from tasks.mix.catalog import Model
from tasks.providers import hosted
from tasks.providers.answers import REFUSAL_TYPES, Answer, Facts, Meaning
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.http import HttpAdapter
from tasks.providers.meanings import (
    broken,
    departure,
    drift,
    failed,
    http_error,
    malformed,
    refusal,
    server,
    throttled,
)
from tasks.providers.message import Message
from tasks.providers.usage import amount, seed_of, usage_of
from tasks.records import Billed, FailureClass

#: Longest wait that ``Prefer`` can ask for, and shortest deadline of ``Cancel-After``. Seconds.
MOST_WAIT_S = 60
LEAST_DEADLINE_S = 5
_VERSION = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*\Z")
_ID = re.compile(r"[0-9A-Za-z_-]{1,128}\Z")
_SEED = re.compile(r"^using seed:?\s+(-?\d{1,19})\s*$", re.IGNORECASE | re.MULTILINE)
_RESETS = re.compile(r"resets in ~?(\d{1,6})s")
_GOING = ("starting", "processing")
#: Of an answer that cannot be read: the prediction may run all the same.
_UNREAD = Facts(billed="unknown")
#: Words of failed predictions. The models themselves write these texts; there is no code for most.
_REFUSED = re.compile(
    r"nsfw|e005|flagged|content polic|moderat|safety (check|filter|system)|sensitive content",
    re.IGNORECASE,
)
_FULL = re.compile(r"e003|high demand|at capacity|queue is full|too many requests", re.IGNORECASE)
_INPUT = re.compile(r"e006|invalid input|validation error", re.IGNORECASE)


class ReplicateProvider(HttpAdapter):
    """Adapter of Replicate's HTTP API."""

    asset_hosts = ("replicate.delivery", ".replicate.delivery")

    def capabilities(self, model: Model) -> Capabilities:
        """Return what the catalog says of a hosted model."""
        return hosted.capabilities(model, "immutable" if _VERSION.match(model.version) else "alias")

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that comes of a request."""
        return hosted.asked_size(request, self.capabilities(request.model))

    def message(self, request: GenerationRequest) -> Message:
        """Return the prediction to make.

        Raises:
            CannotAsk: The version is neither a pin nor a name, or the inputs cannot be told.
        """
        limit = request.model.limits.timeout_s
        given = hosted.fields(request, "image", self.capabilities(request.model))
        return Message(
            "POST",
            "/v1/predictions",
            json={"version": _version(request.model), "input": given},
            headers={
                # Half of the time at the most: what is left is for the looks that follow.
                "Prefer": f"wait={max(1, min(MOST_WAIT_S, int(limit / 2)))}",
                "Cancel-After": f"{max(LEAST_DEADLINE_S, math.ceil(limit))}s",
            },
        )

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return the job of a prediction, or what it means that there is none."""
        if not 200 <= answer.status < 300:
            return _refused(answer, request)
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        number = value.get("id") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(number, str) or not _ID.match(number):
            why = "expected JSON with a prediction's id, got none"
            return malformed(answer, request, why, _UNREAD)
        if value.get("status") in _GOING:
            return _job(answer, request, number, value.get("urls"))
        return _finished(answer, request, value)

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return what a look at a prediction shows."""
        if not 200 <= answer.status < 300:
            return self.job_error(answer, request)
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        if not isinstance(value, dict) or not isinstance(value.get("status"), str):
            why = "expected JSON with a prediction's status, got none"
            return malformed(answer, request, why, _UNREAD)
        return job if value["status"] in _GOING else _finished(answer, request, value)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return which of the versions and names Replicate serves.

        Raises:
            GateError: Replicate does not answer, or refuses the key.
        """
        if not models:
            await self.ask(client, "/v1/account")
            return {}
        found: dict[str, ServedModel] = {}
        for model in models:
            if model.id is None or not _NAME.match(model.id):
                # A version alone is enough to be run, and has no address to be asked at.
                found[model.name] = ServedModel(model.name, None, known=False)
                continue
            pinned = _VERSION.match(model.version) is not None
            path = f"/v1/models/{model.id}" + (f"/versions/{model.version}" if pinned else "")
            value = await self.ask(client, path, missing_ok=True)
            if isinstance(value, dict):
                version = value.get("id") if pinned else model.version
                said = version if isinstance(version, str) else None
                found[model.name] = ServedModel(model.name, said)
        return found


def _version(model: Model) -> str:
    """Return the version to run.

    Raises:
        CannotAsk: It is neither 64 hexadecimal digits nor, for an alias, ``owner/name``.
    """
    if _VERSION.match(model.version):
        return model.version
    if model.pin == "alias" and _NAME.match(model.model_id):
        return model.model_id
    raise CannotAsk(
        f"model {model.name!r}: version {model.version!r} pins nothing at Replicate; give the 64 "
        "hexadecimal digits of a version, or pin: alias with 'owner/name' as id"
    )


def _job(answer: Answer, request: GenerationRequest, number: str, urls: object) -> Meaning | Job:
    """Return the job of a prediction; whether its addresses are Replicate's is checked later."""
    places = urls if isinstance(urls, dict) else {}
    get, cancel = places.get("get"), places.get("cancel")
    if not isinstance(get, str):
        why = "the prediction has no address to be looked at"
        return malformed(answer, request, why, replace(_UNREAD, request_id=number))
    stop = cancel if isinstance(cancel, str) else None
    return Job(id=number, poll=get, cancel=stop, request_id=number)


def _finished(answer: Answer, request: GenerationRequest, value: dict[str, Any]) -> Meaning:
    """Return what a prediction means that goes on no more."""
    facts = _facts(request, value)
    status, said = value.get("status"), value.get("error")
    words = said if isinstance(said, str) and said.strip() else "no reason given"
    if status == "succeeded":
        return hosted.picture_at(answer, request, hosted.place_of(value.get("output")), facts)
    if status not in ("failed", "canceled", "aborted"):
        return malformed(answer, request, f"a prediction in the state {status!r:.60}", facts)
    if wrong := departure(request, facts):
        return drift(answer, request, wrong, facts)
    if status == "failed":
        return _failed(answer, request, words, facts)
    when = "before it ran" if status == "aborted" else "while it ran"
    text = f"the prediction was {status} {when}: {words}"
    return server(answer, request, text, _charged(request, facts, str(status)))


def _failed(answer: Answer, request: GenerationRequest, words: str, facts: Facts) -> Meaning:
    """Return what a failed prediction means by the words of its model."""
    charged = _charged(request, facts, "failed")
    if _REFUSED.search(words):
        return refusal(answer, request, words, charged)
    if _FULL.search(words):
        return throttled(answer, request, words, facts)
    if _INPUT.search(words):
        return failed(FailureClass.BAD_REQUEST, answer, request, words, charged)
    return server(answer, request, f"the prediction failed: {words}", charged)


def _facts(request: GenerationRequest, value: dict[str, Any]) -> Facts:
    """Return what a prediction says beside its output."""
    pinned = _VERSION.match(request.model.version) is not None
    reported = value.get("version" if pinned else "model")
    metrics, logs = value.get("metrics"), value.get("logs")
    told = metrics if isinstance(metrics, dict) else {}
    line = _SEED.search(logs[:20_000]) if isinstance(logs, str) else None
    # Models that draw a seed of their own say so in the log; of others nothing is known.
    used = seed_of(line[1]) if line is not None else None
    asked = hosted.seed_asked(request)
    return Facts(
        model_reported=reported if isinstance(reported, str) else None,
        seed_used=used,
        seed_asked=used if asked is None else asked,
        usage=usage_of(told, gpu_seconds=told.get("predict_time")),
        request_id=value.get("id") if isinstance(value.get("id"), str) else None,
    )


def _charged(request: GenerationRequest, facts: Facts, status: str) -> Facts:
    """Return the facts with what Replicate charges for a prediction without a picture.

    An aborted one never ran and is free; others cost the seconds that they ran, where seconds are
    what is paid for.
    """
    price, usage = request.model.price, facts.usage
    timed = price is not None and price.per == "gpu_second"
    ran = usage is not None and usage.gpu_seconds is not None
    billed: Billed = "no" if status == "aborted" else "yes" if timed and ran else "unknown"
    return replace(facts, billed=billed)


def _refused(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an error means; it comes in the form of RFC 7807."""
    value = answer.json()
    told = value if isinstance(value, dict) else {}
    title, detail = (str(told.get(name) or "") for name in ("title", "detail"))
    text = ": ".join(part.strip() for part in (title, detail) if part.strip())
    if not text:
        text = answer.body.decode("utf-8", "replace")
    if answer.status == 422 and title.startswith("Invalid version"):
        return failed(FailureClass.RETIRED, answer, request, f"HTTP 422: {text}")
    types = REFUSAL_TYPES if answer.status < 429 and _REFUSED.search(text) else frozenset[str]()
    wait = amount(told.get("retry_after"))
    if wait is None and (soon := _RESETS.search(detail)):
        wait = float(soon[1])
    if "retry-after" in answer.headers:
        wait = None
    return http_error(answer, request, types=types, message=text, wait_s=wait)


ADAPTER = ReplicateProvider
