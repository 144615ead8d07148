"""Black Forest Labs: a task is put in, looked at under the address that comes back, and fetched.

The address may lie at another of their hosts (``api.us1.bfl.ai``); it is checked before the key
goes there. The finished picture lies at a signed address for ten minutes and is fetched without a
key. Answers state their cost in credits of one cent. Models are names without versions.

Sources: https://docs.bfl.ai/api_integration/integration_guidelines, …/errors,
https://docs.bfl.ai/quick_start/pricing and https://api.bfl.ai/openapi.json.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from tasks.errors import GateError
from tasks.mix.catalog import Model
from tasks.providers import hosted
from tasks.providers.answers import Answer, Facts, Meaning
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.http import HttpAdapter
from tasks.providers.meanings import (
    broken,
    http_error,
    malformed,
    refusal,
    server,
)
from tasks.providers.message import Message
from tasks.providers.params import Flag, Number, Rule, Text, chosen
from tasks.providers.usage import amount, seed_of, usage_of

#: Dollars of one credit.
CREDIT_USD = 0.01
#: Models that are told an aspect ratio and not a size.
BY_ASPECT = ("flux-kontext-pro", "flux-kontext-max", "flux-pro-1.1-ultra")
ASPECTS = ((21, 9), (16, 9), (3, 2), (4, 3), (1, 1), (3, 4), (2, 3), (9, 16), (9, 21))
#: States of a task that end it without a picture and are a refusal.
REFUSED = ("Request Moderated", "Content Moderated")
_MODEL = re.compile(r"flux-[a-z0-9.-]{1,60}\Z")
_ID = re.compile(r"[0-9A-Za-z_-]{1,128}\Z")
_MEGAPIXEL = 1024 * 1024
_RULES: Mapping[str, Rule] = {
    "safety_tolerance": Number(0, 6, whole=True),
    "output_format": Text(choices=("jpeg", "png", "webp")),
    "prompt_upsampling": Flag(),
    "disable_pup": Flag(),
    "guidance": Number(1.5, 10),
    "steps": Number(1, 50, whole=True),
    "raw": Flag(),
}


class BflProvider(HttpAdapter):
    """Adapter of Black Forest Labs' API."""

    key_header = "x-key"
    key_scheme = ""
    api_hosts = (".bfl.ai",)
    asset_hosts = (".bfl.ai",)

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model."""
        if model.model_id in BY_ASPECT:
            return Capabilities(
                operations=model.operations,
                aspects=ASPECTS,
                multiple_of=16,
                most_pixels=(4 if model.model_id.endswith("ultra") else 1) * _MEGAPIXEL,
                pin="alias",
            )
        old = model.model_id.startswith("flux-pro")
        return Capabilities(
            operations=model.operations,
            multiple_of=32 if old else 16,
            least_side=256 if old else 64,
            most_side=1440 if old else 4096,
            most_pixels=1440 * 1440 if old else 4 * _MEGAPIXEL,
            most_upload=20 * 1024 * 1024,
            pin="alias",
        )

    def message(self, request: GenerationRequest) -> Message:
        """Return the task.

        Raises:
            CannotAsk: The id is no model, or the model cannot do this.
        """
        model = request.model
        if not _MODEL.match(model.model_id):
            raise CannotAsk(
                f"model {model.name!r}: id {model.model_id!r} is no model of Black Forest Labs "
                "(needed: flux-…)"
            )
        if request.operation == "upscale" or request.mask is not None:
            raise CannotAsk(
                f"model {model.name!r}: {model.model_id!r} takes neither upscales nor masks"
            )
        return Message("POST", f"/v1/{model.model_id}", json=self._fields(request))

    def _fields(self, request: GenerationRequest) -> dict[str, Any]:
        can = self.capabilities(request.model)
        fields: dict[str, Any] = {
            "prompt": request.prompt,
            "seed": hosted.seed_for(request.seed),
            "output_format": "png",
        }
        if can.aspects:
            fields["aspect_ratio"] = can.aspect_for(request.width, request.height)
        else:
            fields["width"], fields["height"] = can.size_for(request.width, request.height)
        if request.operation == "edit":
            if request.image is None:
                raise CannotAsk(f"model {request.model.name!r}: an edit without a picture")
            fields["input_image"] = base64.b64encode(request.image).decode("ascii")
        return fields | chosen(request, _RULES)

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return the job of a task, or what it means that there is none."""
        if not 200 <= answer.status < 300:
            return _refused(answer, request)
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        told = value if isinstance(value, dict) else {}
        number, url = told.get("id"), told.get("polling_url")
        if not isinstance(number, str) or not _ID.match(number) or not isinstance(url, str):
            why = "expected JSON with id and polling_url, got less"
            return malformed(answer, request, why, Facts(billed="unknown"))
        kept = {name: told[name] for name in ("cost", "input_mp", "output_mp") if name in told}
        return Job(id=number, poll=url, data=kept, request_id=number)

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return what a look at a task shows."""
        value = answer.json() if answer.broken is None else None
        told = value if isinstance(value, dict) else {}
        state, facts = told.get("status"), _facts(request, told, job)
        lost = replace(facts, cost_usd=None, billed="unknown")
        if answer.broken is not None:
            return broken(answer, request, lost)
        if state == "Task not found" or answer.status in (404, 410):
            text = f"HTTP {answer.status}: the task is gone (Task not found)"
            return server(answer, request, text, lost)
        if not 200 <= answer.status < 300:
            return http_error(answer, request, lost, message=_words(told))
        return job if state == "Pending" else _ended(answer, request, told, facts, lost)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return which models stand in the description of the API.

        Raises:
            GateError: They do not answer, refuse the key, or the account has too few credits left
                for one request.
        """
        value = await self.ask(client, "/v1/credits")
        left = amount(value.get("credits")) if isinstance(value, dict) else None
        if left is None:
            raise GateError(
                f"{self.base_url}/v1/credits: expected JSON with 'credits', got something else"
            )
        if models and left <= 0:
            raise GateError(f"{self.base_url}: the account has {left:g} credits left; buy credits")
        described = await self.ask(client, "/openapi.json", missing_ok=True) if models else None
        paths = described.get("paths") if isinstance(described, dict) else None
        if not isinstance(paths, dict):
            return {m.name: ServedModel(m.name, None, known=False) for m in models}
        return {
            model.name: ServedModel(model.name, None)
            for model in models
            if f"/v1/{model.model_id}" in paths
        }


def _ended(
    answer: Answer, request: GenerationRequest, told: dict[str, Any], facts: Facts, lost: Facts
) -> Meaning:
    """Return what a task means that goes on no more."""
    state = told.get("status")
    if state in REFUSED:
        text = f"{state}: {_words(told)}"
        return refusal(answer, request, text, replace(facts, finish_reason=str(state)))
    if state == "Error":
        return server(answer, request, f"the task ended with an error: {_words(told)}", lost)
    if state != "Ready":
        return malformed(answer, request, f"a task in the state {state!r:.60}", facts)
    result = told.get("result")
    place = result.get("sample") if isinstance(result, dict) else None
    return hosted.picture_at(answer, request, place, facts)


def _facts(request: GenerationRequest, told: dict[str, Any], job: Job) -> Facts:
    """Return what the answers to a task say beside its picture."""
    result = told.get("result")
    seed = seed_of(result.get("seed")) if isinstance(result, dict) else None
    return Facts(
        seed_used=seed,
        seed_asked=hosted.seed_for(request.seed),
        usage=usage_of(dict(job.data), megapixels=job.data.get("output_mp")),
        cost_usd=_dollars(job.data.get("cost")),
        request_id=job.id,
    )


def _dollars(cost: object) -> str | None:
    """Return the dollars of an untrusted number of credits as text, ``None`` when none is given."""
    if cost is None:
        return None
    if isinstance(cost, bool) or not isinstance(cost, int | float) or abs(cost) > 1e15:
        return f"{cost!r:.60}"
    return repr(cost * CREDIT_USD)


def _words(told: dict[str, Any]) -> str:
    """Return the words of an error: ``detail``, or the reasons under ``details``."""
    _, said = hosted.details_of(told)
    details = told.get("details")
    if not said and isinstance(details, dict):
        said = "; ".join(f"{name}: {value!s:.120}" for name, value in list(details.items())[:5])
    return said or "no reason given"


def _refused(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an error means."""
    value = answer.json()
    told = value if isinstance(value, dict) else {}
    said = _words(told) if told else None
    if told.get("status") in REFUSED:
        return refusal(answer, request, f"HTTP {answer.status}: {told['status']}: {said}")
    return http_error(answer, request, message=said)


ADAPTER = BflProvider
