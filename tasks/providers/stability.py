"""Stability's image API, version 2 beta: ``generate/sd3`` and the three upscalers.

Requests are multipart forms, also without a file. A picture comes as bytes with the headers
``finish-reason`` and ``seed``; ``CONTENT_FILTERED`` means that it was blurred, under HTTP 200. The
creative upscaler answers with a job. Models have no versions: a name is all there is to pin, and
the old ``sd3-…`` names are served by newer models, so they are not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from tasks.errors import GateError, known
from tasks.mix.catalog import Model
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
    picture,
    picture_base64,
    refusal,
    server,
)
from tasks.providers.message import Message, file_part, form_fields
from tasks.providers.params import Number, Rule, Text, chosen
from tasks.providers.sniff import picture_size
from tasks.providers.usage import seed_of
from tasks.records import FailureClass, Operation

MODELS = ("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium")
UPSCALERS = ("fast", "conservative", "creative")
ASPECTS = ((21, 9), (16, 9), (3, 2), (5, 4), (1, 1), (4, 5), (2, 3), (9, 16), (9, 21))
#: Seeds run from 0 to this; 0 asks for a random one.
MOST_SEED = 4_294_967_294
#: How much an edit may change its picture where the mix does not say: 0 nothing, 1 everything.
STRENGTH = 0.6
#: Seconds between two looks at a job: "errors may occur if you poll more than once every 10".
LOOK_S = 10.0
#: A 429 names no time; it stands for more than 150 requests within so many seconds.
WINDOW_S = 10.0
_MEGAPIXEL = 1024 * 1024
_FOUR_MEGAPIXELS = 4 * _MEGAPIXEL
_MOST_REQUEST = 10 * 1024 * 1024
_MOST_PROMPT = 10_000
_JOB = re.compile(r"[0-9A-Za-z_-]{1,128}\Z")

_STYLE_NAMES = (
    "3d-model analog-film anime cinematic comic-book digital-art enhance fantasy-art isometric "
    "line-art low-poly modeling-compound neon-punk origami photographic pixel-art tile-texture"
)
_STYLES = Text(choices=tuple(_STYLE_NAMES.split()))
_RULES: dict[str, Mapping[str, Rule]] = {
    "generate": {
        "negative_prompt": Text(),
        "cfg_scale": Number(1, 10),
        "style_preset": _STYLES,
        "output_format": Text(choices=("png", "jpeg")),
    },
    "fast": {"output_format": Text(choices=("png", "jpeg", "webp"))},
    "conservative": {
        "negative_prompt": Text(),
        "creativity": Number(0.2, 0.5),
        "output_format": Text(choices=("png", "jpeg", "webp")),
    },
    "creative": {
        "negative_prompt": Text(),
        "creativity": Number(0.1, 0.5),
        "style_preset": _STYLES,
        "output_format": Text(choices=("png", "jpeg", "webp")),
    },
}
_RULES["edit"] = {**_RULES["generate"], "strength": Number(0, 1)}


class StabilityProvider(HttpAdapter):
    """Adapter of Stability's API."""

    kept_headers = frozenset({"finish-reason", "seed"})

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model; about a megapixel, chosen by its aspect ratio."""
        if model.model_id in UPSCALERS:
            return Capabilities(
                operations=("upscale",),
                seed=model.model_id != "fast",
                most_upload=_MOST_REQUEST,
                most_prompt=_MOST_PROMPT,
                pin="alias",
            )
        operations: tuple[Operation, ...] = ("generate", "edit")
        return Capabilities(
            operations=operations if model.model_id in MODELS else (),
            aspects=ASPECTS,
            multiple_of=64,
            least_side=640,
            most_side=1536,
            most_pixels=_MEGAPIXEL,
            most_upload=_MOST_REQUEST,
            most_prompt=_MOST_PROMPT,
            pin="alias",
        )

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that comes: it follows from the aspect ratio alone."""
        name = request.model.model_id
        if name in UPSCALERS:
            wide, high = picture_size(request.image or b"") or (request.width, request.height)
            most = 16 * _MEGAPIXEL if name == "fast" else _FOUR_MEGAPIXELS
            scale = (most / (wide * high)) ** 0.5
            scale = min(4.0, scale) if name == "fast" else scale
            return round(wide * scale), round(high * scale)
        if request.operation == "edit":
            source = picture_size(request.image or b"")
            ratio = source[0] / source[1] if source else request.width / request.height
        else:
            wide, high = map(int, self._aspect(request).split(":"))
            ratio = wide / high
        sides = ((_MEGAPIXEL * r) ** 0.5 for r in (ratio, 1 / ratio))
        across, down = (max(64, round(side / 64) * 64) for side in sides)
        return across, down

    def message(self, request: GenerationRequest) -> Message:
        """Return the form.

        Raises:
            CannotAsk: Stability has no such model, operation or parameter.
        """
        name, operation = request.model.model_id, request.operation
        can = self.capabilities(request.model).operations
        if name not in (*MODELS, *UPSCALERS) or operation not in can:
            raise CannotAsk(
                f"model {request.model.name!r}: Stability's {name!r} cannot {operation!r} "
                f"{known(can or (*MODELS, *UPSCALERS))}"
            )
        if name in UPSCALERS:
            fields, path = self._upscale(request), f"/v2beta/stable-image/upscale/{name}"
        else:
            fields, path = self._generation(request), "/v2beta/stable-image/generate/sd3"
        files = [] if operation == "generate" else [file_part("image", request.image)]
        return Message(
            "POST",
            path,
            form=form_fields(fields),
            files=files,
            multipart=True,
            # A job is announced in JSON whatever is accepted.
            accept="application/json" if name == "creative" else "image/*",
        )

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what an answer means: a picture, or the job of a creative upscale."""
        if request.model.model_id != "creative" or not answer.ok:
            return _picture(answer, request)
        value = answer.json()
        number = value.get("id") if isinstance(value, dict) else None
        if not isinstance(number, str) or not _JOB.match(number):
            return malformed(answer, request, "expected JSON with the id of a job, got none")
        return Job(id=number, poll=f"/v2beta/results/{number}", wait_s=LOOK_S)

    def look(self, job: Job, request: GenerationRequest) -> Message:
        """Return how to look at a job: the finished picture comes as bytes."""
        return Message("GET", job.poll, accept="*/*")

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        """Return what a look at a job shows; results are kept for 24 hours."""
        if answer.status == 202:
            return replace(job, wait_s=LOOK_S)
        if answer.status < 300:
            return _picture(answer, request)
        types, said = _error(answer)
        facts = Facts(billed=None if types & REFUSAL_TYPES else "unknown")
        if answer.status in (404, 410):
            return server(answer, request, f"HTTP {answer.status}: the job is gone: {said}", facts)
        return http_error(answer, request, facts, types=types, message=said)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return the models that this adapter knows; Stability lists none of them.

        Raises:
            GateError: Stability does not answer, refuses the key, or has too few credits left for
                one request.
        """
        value = await self.ask(client, "/v1/user/balance")
        left = value.get("credits") if isinstance(value, dict) else None
        if isinstance(left, bool) or not isinstance(left, int | float):
            raise GateError(
                f"{self.base_url}/v1/user/balance: expected JSON with 'credits', got something else"
            )
        for model in models:
            needed = model.price.credits if model.price is not None else None
            if needed is not None and left < needed:
                raise GateError(
                    f"{self.base_url}: the account has {left:g} credits left, one request to "
                    f"{model.name!r} takes {needed:g}; buy credits"
                )
        return {
            model.name: ServedModel(name=model.name, version=None, known=False)
            for model in models
            if model.model_id in (*MODELS, *UPSCALERS)
        }

    def _aspect(self, request: GenerationRequest) -> str:
        return self.capabilities(request.model).aspect_for(request.width, request.height)

    def _generation(self, request: GenerationRequest) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "prompt": request.prompt,
            "model": request.model.model_id,
            "seed": seed_for(request.seed),
            "output_format": "png",
        }
        if request.operation == "edit":
            fields |= {"mode": "image-to-image", "strength": STRENGTH}
            return fields | chosen(request, _RULES["edit"])
        fields |= {"mode": "text-to-image", "aspect_ratio": self._aspect(request)}
        # One catalog entry serves both; text to image has no strength.
        return fields | chosen(request, _RULES["generate"], frozenset({"strength"}))

    def _upscale(self, request: GenerationRequest) -> dict[str, Any]:
        name = request.model.model_id
        across, down = self.asked_size(request)
        if across < request.width * 0.99 or down < request.height * 0.99:
            raise CannotAsk(
                f"model {request.model.name!r}: upscale {name!r} brings about {across}x{down} "
                f"pixels of this picture, {request.width}x{request.height} are wanted; lower "
                "params.scale or the size of the cases"
            )
        fields: dict[str, Any] = {"output_format": "png"} | chosen(request, _RULES[name])
        if name == "fast":
            return fields
        return {"prompt": request.prompt, "seed": seed_for(request.seed)} | fields


def seed_for(seed: int) -> int:
    """Return the seed to ask for: the same where Stability takes it, never 0 (a random one)."""
    return seed if 1 <= seed <= MOST_SEED else (seed - 1) % MOST_SEED + 1


def _picture(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an answer means that is no job."""
    if not 200 <= answer.status < 300:
        return _refused(answer, request)
    if answer.broken is not None:
        return broken(answer, request)
    inside = _inside(answer)
    finish = (answer.headers if inside is None else inside).get(
        "finish-reason" if inside is None else "finish_reason"
    )
    stated = (answer.headers if inside is None else inside).get("seed")
    seed = seed_of(stated)
    facts = Facts(
        finish_reason=finish if isinstance(finish, str) else None,
        seed_used=seed,
        # The fast upscaler takes no seed, and tells one all the same.
        seed_asked=seed if request.model.model_id == "fast" else seed_for(request.seed),
    )
    wrong = departure(request, facts)
    if stated is not None and seed is None:
        wrong = wrong or f"seed {facts.seed_asked} was asked for, {stated!r} was used"
    if wrong:
        return drift(answer, request, wrong, facts)
    return _finished(answer, request, inside, facts)


def _finished(
    answer: Answer, request: GenerationRequest, inside: dict[str, Any] | None, facts: Facts
) -> Meaning:
    """Return what a whole answer means by its finish reason."""
    reason = (facts.finish_reason or "").strip().upper()
    if reason == "CONTENT_FILTERED":
        why = "the picture was blurred by Stability's content filter (CONTENT_FILTERED)"
        return refusal(answer, request, why, facts)
    if reason == "ERROR":
        return server(answer, request, "Stability could not finish the picture (ERROR)", facts)
    if inside is not None:
        declared = answer.headers.get("content-type", "").partition("type=")[2] or None
        meaning = picture_base64(answer, request, inside.get("image"), facts, declared=declared)
    else:
        meaning = picture(answer, request, answer.body, facts, is_body=True)
    if meaning.delivered and reason != "SUCCESS":
        # Without the reason, a blurred picture would pass for a good one.
        why = f"a picture with the finish reason {facts.finish_reason!r} (needed: SUCCESS)"
        return malformed(answer, request, why, facts)
    return meaning


def _refused(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an error means; the name in its body decides between its causes."""
    types, said = _error(answer)
    if answer.status == 400 and any(each.startswith("model:") for each in said.split("; ")):
        return failed(FailureClass.RETIRED, answer, request, f"HTTP 400: {said}")
    wait = WINDOW_S if answer.status == 429 and "retry-after" not in answer.headers else None
    return http_error(answer, request, types=types, message=said, wait_s=wait)


def _inside(answer: Answer) -> dict[str, Any] | None:
    """Return the JSON of an answer that carries its picture as base64, ``None`` for another."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return None
    value = answer.json()
    return value if isinstance(value, dict) and "image" in value else None


def _error(answer: Answer) -> tuple[frozenset[str], str]:
    """Return the name and the words of an error body ``{"id", "name", "errors": []}``."""
    value = answer.json()
    if not isinstance(value, dict):
        return frozenset(), answer.body.decode("utf-8", "replace")
    name, errors = value.get("name"), value.get("errors")
    said = [e for e in errors if isinstance(e, str)] if isinstance(errors, list) else []
    types = frozenset({name}) if isinstance(name, str) else frozenset[str]()
    return types, "; ".join(said) or (name if isinstance(name, str) else "")


ADAPTER = StabilityProvider
