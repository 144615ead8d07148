"""fal's queue: a request is put in, looked at under the addresses that come back, and fetched.

fal repeats failed requests by itself and lets another endpoint answer when one is ill; both are
switched off, because the gate counts attempts itself and must know what answered. The address of a
request names the application that serves it, which is checked. Applications have no versions.
``options``: see :mod:`tasks.providers.hosted`.

Sources: the Python client 1.0.3, https://fal.ai/docs/documentation/model-apis/inference/queue,
…/inference/reliability, …/common-parameters, …/errors and …/request-errors. fal's pages spell the
header against fallbacks in three ways; all three are sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from tasks.mix.catalog import Model
from tasks.providers import assets, hosted
from tasks.providers.answers import REFUSAL_TYPES, Answer, Facts, Meaning
from tasks.providers.base import (
    AttemptResult,
    CannotAsk,
    Capabilities,
    GenerationRequest,
    Job,
    ServedModel,
)
from tasks.providers.http import HttpAdapter
from tasks.providers.meanings import (
    broken,
    departure,
    drift,
    empty,
    failed,
    http_error,
    malformed,
    refusal,
    server,
    throttled,
)
from tasks.providers.message import Message
from tasks.providers.usage import seed_of, usage_of
from tasks.records import FailureClass

#: Headers that keep a request to the application that was asked; see above.
FALLBACKS_OFF = (
    "x-app-fal-disable-fallback",
    "x-app-fal-disable-fallbacks",
    "x-fal-disable-fallbacks",
)
#: Seconds that fal keeps the finished picture; it is fetched at once.
KEPT_S = 3600
#: No part begins with a dot: two of them would climb out of the path.
_APP = re.compile(r"\w[\w.-]*(/\w[\w.-]*){1,5}\Z", re.ASCII)
_ID = re.compile(r"[0-9A-Za-z_-]{1,128}\Z")
#: First parts of an application's path that are no owner.
_NAMESPACES = ("workflows", "comfy")
_GOING = ("IN_QUEUE", "IN_PROGRESS")
#: Of an answer that cannot be read: the request may run all the same.
_UNREAD = Facts(billed="unknown")
#: ``error_type`` of a request that no runner took: the capacity is used up.
_FULL = frozenset({"runner_scheduling_failure"})
#: ``error_type`` of a mistake in the request.
_OURS = frozenset({"bad_request"})
#: ``type`` of a model that ran and made nothing.
_NOTHING = frozenset({"no_media_generated"})


class FalProvider(HttpAdapter):
    """Adapter of fal's queue."""

    key_scheme = "Key"
    kept_headers = frozenset(
        {"x-fal-request-id", "x-fal-error-type", "x-fal-retryable", "x-fal-billable-units"}
    )
    asset_hosts = ("fal.media", ".fal.media")
    cancel_method = "PUT"

    def capabilities(self, model: Model) -> Capabilities:
        """Return what the catalog says of an application."""
        return hosted.capabilities(model, "alias")

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that comes of a request."""
        return hosted.asked_size(request, self.capabilities(request.model))

    def message(self, request: GenerationRequest) -> Message:
        """Return the request for the queue.

        Raises:
            CannotAsk: The id is no application, or its inputs cannot be told.
        """
        app = request.model.model_id
        if not _APP.match(app):
            raise CannotAsk(
                f"model {request.model.name!r}: id {app!r} is no application of fal (needed: "
                "owner/application[/path])"
            )
        keep = {"expiration_duration_seconds": KEPT_S}
        return Message(
            "POST",
            f"/{app}",
            json=hosted.fields(request, "image_url", self.capabilities(request.model)),
            headers={
                "X-Fal-No-Retry": "1",
                # To start later than this is of no use.
                "X-Fal-Request-Timeout": str(max(1, math.ceil(request.model.limits.timeout_s))),
                "X-Fal-Object-Lifecycle-Preference": json.dumps(keep),
            }
            | dict.fromkeys(FALLBACKS_OFF, "true"),
        )

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return the job of a request, or what it means that there is none."""
        if not 200 <= answer.status < 300:
            return _refused(answer, request)
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        number = value.get("request_id") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(number, str) or not _ID.match(number):
            why = "expected JSON with a request_id, got none"
            return malformed(answer, request, why, _UNREAD)
        return _job(answer, request, number, value)

    async def poll(
        self, client: httpx.AsyncClient, request: GenerationRequest, job: Job
    ) -> AttemptResult | Job:
        """Look at a request once; when it is done, its result is fetched without a pause."""
        told = await super().poll(client, request, job)
        if isinstance(told, Job) and told.poll != job.poll:
            return await super().poll(client, request, told)
        return told

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return what a look at a request or the fetch of its result shows."""
        if answer.broken is not None:
            return broken(answer, request)
        if job.data["fetch"]:
            return _result(answer, request, job, self.asked_size(request))
        if not 200 <= answer.status < 300:
            return self.job_error(answer, request)
        value = answer.json()
        told = value if isinstance(value, dict) else {}
        return job if told.get("status") in _GOING else _looked(answer, request, told, job)

    def passing(self, answer: Answer, job: Job) -> bool:
        """Return whether an answer to a look says nothing about the request.

        The error of a finished request comes with its own status, 503 too; fal's doors answer
        without a type.
        """
        own = job.data["fetch"] and (
            "x-fal-error-type" in answer.headers or bool(hosted.details_of(answer.json())[0])
        )
        return super().passing(answer, job) and not own

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return that nobody knows: the queue cannot be asked which applications it serves."""
        return {
            model.name: ServedModel(model.name, None, known=False)
            for model in models
            if _APP.match(model.model_id)
        }


def _job(
    answer: Answer, request: GenerationRequest, number: str, value: dict[str, Any]
) -> Meaning | Job:
    """Return the job of a request that the application asked serves."""
    facts = replace(_UNREAD, request_id=number)
    urls = [value.get(name) for name in ("status_url", "response_url", "cancel_url")]
    for url in urls:
        if not isinstance(url, str):
            why = "the request has no addresses to be looked at, fetched and cancelled"
            return malformed(answer, request, why, facts)
        if wrong := _other_app(url, request.model):
            return drift(answer, request, wrong, facts)
    status, response, cancel = map(str, urls)
    kept = {"response": response, "fetch": False}
    return Job(id=number, poll=status, cancel=cancel, data=kept, request_id=number)


def _application(path: str) -> tuple[str, ...]:
    """Return owner and application of a path, with the namespace where there is one."""
    parts = path.strip("/").split("/")
    return tuple(parts[: 3 if parts[0] in _NAMESPACES else 2])


def _other_app(url: str, model: Model) -> str:
    """Return that another application than the one asked serves a request, "" when it does not.

    What is no address at all, or a foreign one, is found out before it is looked at.
    """
    try:
        serves = _application(assets.parse_url(url).path)
    except assets.ForeignAddressError:
        return ""
    asked = _application(model.model_id)
    if asked == serves:
        return ""
    return f"application {'/'.join(asked)!r} was asked, {'/'.join(serves)!r} serves"


def _refused(answer: Answer, request: GenerationRequest, facts: Facts | None = None) -> Meaning:
    """Return what an error means, at the door or in place of a result; none of them is billed."""
    value = answer.json()
    types, said = hosted.details_of(value)
    facts = facts or Facts()
    kind = answer.headers.get("x-fal-error-type")
    if kind is None and isinstance(value, dict) and isinstance(value.get("error_type"), str):
        kind = value["error_type"]
    if kind is not None and not types:
        return _machinery(answer, request, kind, said or kind, facts)
    text = f"HTTP {answer.status}: {said or ', '.join(sorted(types))}"
    again = answer.headers.get("x-fal-retryable", "").strip().lower()
    if types & REFUSAL_TYPES:
        return refusal(answer, request, text, facts)
    if types & _NOTHING:
        return failed(FailureClass.EMPTY, answer, request, text, facts)
    if types and again == "true":
        return server(answer, request, text, facts)
    if types and again == "false" and answer.status not in (401, 402, 403, 404, 429):
        # Also a 500: fal says that the same request would end the same way.
        return failed(FailureClass.BAD_REQUEST, answer, request, text, facts)
    return http_error(answer, request, facts, types=types, message=said or None)


def _machinery(
    answer: Answer, request: GenerationRequest, kind: str, said: str, facts: Facts
) -> Meaning:
    """Return what an error of fal's own machinery means; it charges for none of them."""
    facts = replace(facts, billed="no")
    text = f"{kind}: {said}"
    if kind in _FULL:
        return throttled(answer, request, text, facts)
    if kind in _OURS:
        return failed(FailureClass.BAD_REQUEST, answer, request, text, facts)
    return server(answer, request, text, facts)


def _looked(
    answer: Answer, request: GenerationRequest, told: dict[str, Any], job: Job
) -> Meaning | Job:
    """Return what a request means that goes on no more; its result is the next thing to look at."""
    state, kind = told.get("status"), told.get("error_type")
    if state != "COMPLETED":
        return malformed(answer, request, f"a request in the state {state!r:.60}", _UNREAD)
    if isinstance(kind, str):
        said = str(told.get("error") or "no reason given")
        return _machinery(answer, request, kind, said, Facts(request_id=job.id))
    kept = dict(job.data) | {"fetch": True, "metrics": told.get("metrics")}
    return replace(job, poll=job.data["response"], data=kept)


def _result(
    answer: Answer, request: GenerationRequest, job: Job, asked: tuple[int, int]
) -> Meaning:
    """Return what the result of a finished request means."""
    metrics = job.data.get("metrics")
    told: Mapping[str, Any] = metrics if isinstance(metrics, dict) else {}
    facts = Facts(
        request_id=job.id,
        usage=usage_of(
            {"metrics": dict(told), "units": answer.headers.get("x-fal-billable-units")},
            gpu_seconds=told.get("inference_time"),
            megapixels=hosted.megapixels(request, asked),
        ),
    )
    if answer.status in (404, 410):
        return server(answer, request, f"HTTP {answer.status}: the request is gone", facts)
    if not 200 <= answer.status < 300:
        return _refused(answer, request, facts)
    value = answer.json()
    if not isinstance(value, dict):
        why = "expected JSON with the result, got something else"
        return malformed(answer, request, why, facts)
    return _made(answer, request, value, facts)


def _made(
    answer: Answer, request: GenerationRequest, value: dict[str, Any], facts: Facts
) -> Meaning:
    """Return what a result that is JSON means."""
    asked, used = hosted.seed_asked(request), seed_of(value.get("seed"))
    facts = replace(facts, seed_used=used, seed_asked=used if asked is None else asked)
    if wrong := departure(request, facts):
        return drift(answer, request, wrong, facts)
    flags = value.get("has_nsfw_concepts")
    if isinstance(flags, list) and any(flag is True for flag in flags):
        why = "the safety checker flagged the picture and blackened it (has_nsfw_concepts)"
        return refusal(answer, request, why, replace(facts, finish_reason="nsfw"))
    if value.get("images") == []:
        return empty(answer, request, "the result holds no pictures", facts)
    place = hosted.place_of(value)
    return hosted.picture_at(answer, request, place, facts, declared=_declared(value))


def _declared(value: dict[str, Any]) -> str | None:
    """Return the media type that a result states for its picture."""
    output: object = value.get("images", value.get("image"))
    entry = output[-1] if isinstance(output, list) and output else output
    said = entry.get("content_type") if isinstance(entry, dict) else None
    return said if isinstance(said, str) else None


ADAPTER = FalProvider
