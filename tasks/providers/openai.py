"""OpenAI's Images API, and the servers that are compatible with it.

``/images/generations`` takes JSON, ``/images/edits`` a multipart form. The address in the catalog
ends with ``/v1``. Two dialects, by ``options.dialect`` of the catalog entry: ``openai`` (the
default for api.openai.com: GPT image models, no seed, no ``response_format``, unknown parameters
are errors) and ``compatible`` (the default elsewhere: vLLM-Omni, SGLang, LocalAI, LiteLLM's proxy,
NIM: a seed, diffusion parameters, a picture as base64 or as an address). A LiteLLM proxy before
GPT image models speaks ``openai``.

Options of a catalog entry: ``dialect``; ``response_format`` (``b64_json`` unless said, ``url``, or
``none`` to leave it out) and ``multiple_of`` for the sides of a picture (compatible servers);
``least_pixels`` (OpenAI); and parameters such as ``quality``, which a stage's params overrule.

An answer names no model: OpenAI's models are pinned by the name of a snapshot. A proxy that fell
back to another model, or a size or quality that is not the one asked for, is drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from tasks.errors import GateError, known
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Asset, Facts, Meaning, clean, declared_mime
from tasks.providers.assets import ForeignAddressError, origin, parse_url
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.http import HttpAdapter
from tasks.providers.masks import transparent
from tasks.providers.meanings import (
    broken,
    departure,
    drift,
    empty,
    malformed,
    picture,
    picture_base64,
)
from tasks.providers.message import Message, file_part, form_fields
from tasks.providers.openai_answers import error_under_200, facts_of, refused, stated_cost
from tasks.providers.params import Number, Rule, Text, chosen
from tasks.providers.sniff import sniff_mime
from tasks.providers.usage import whole

Dialect = Literal["openai", "compatible"]
DIALECTS: tuple[Dialect, ...] = ("openai", "compatible")
_HOST = "api.openai.com"

#: Smallest picture of gpt-image-2 and later, in pixels; smaller ones are asked for as large as
#: this, in the same shape. 8,294,400 is 3840 x 2160.
LEAST_PIXELS = 655_360
MOST_PIXELS = 8_294_400
#: What the models before gpt-image-2 draw, and nothing else.
OLD_SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))
_OLD = ("gpt-image-1", "chatgpt-image-")
_MOST_RATIO = 3.0
_STEP = 16
_MOST_PROMPT = 32_000
_MOST_UPLOAD = 50 * 1024 * 1024

_FORMAT = Text(choices=("png", "jpeg", "webp"))
_LEVELS = ("low", "medium", "high")
_GPT: dict[str, Rule] = {
    "quality": Text(choices=("auto", *_LEVELS, "xhigh", "max")),
    "background": Text(choices=("auto", "opaque", "transparent")),
    "complexity": Text(choices=_LEVELS),
    "output_format": _FORMAT,
    "output_compression": Number(0, 100, whole=True),
}
_DIFFUSION: dict[str, Rule] = {
    "negative_prompt": Text(),
    "num_inference_steps": Number(1, 200, whole=True),
    "steps": Number(1, 200, whole=True),
    "step": Number(1, 200, whole=True),
    "guidance_scale": Number(0, 30),
    "true_cfg_scale": Number(0, 30),
    "cfg_scale": Number(0, 30),
    "flow_shift": Number(0, 100),
    "strength": Number(0, 1),
    "quality": Text(100),
    "style": Text(100),
    "background": Text(100),
    "output_format": _FORMAT,
}
_RULES: dict[tuple[str, str], Mapping[str, Rule]] = {
    ("openai", "generate"): _GPT,
    ("openai", "edit"): {**_GPT, "input_fidelity": Text(choices=("low", "high"))},
    ("compatible", "generate"): _DIFFUSION,
    ("compatible", "edit"): _DIFFUSION,
}
#: Options of a catalog entry that are no parameters.
_ASIDE = frozenset({"dialect", "response_format", "multiple_of", "least_pixels"})
#: Parameters whose value an answer repeats; another value means that ours was ignored.
_REPEATED = ("size", "quality", "background", "output_format")


class OpenAIProvider(HttpAdapter):
    """Adapter of OpenAI's Images API."""

    kept_headers = frozenset(
        {
            "openai-processing-ms",
            "retry-after-ms",
            "x-should-retry",
            "x-litellm-attempted-fallbacks",
            "x-litellm-call-id",
            "x-litellm-model-group",
            "x-litellm-model-id",
            "x-litellm-response-cost",
        }
    )

    def dialect(self, model: Model) -> Dialect:
        """Return which dialect the server of a model speaks.

        Raises:
            CannotAsk: The catalog names one that there is not.
        """
        said = model.options.get("dialect", "openai" if self._is_gpt(model) else "compatible")
        for dialect in DIALECTS:
            if said == dialect:
                return dialect
        raise CannotAsk(
            f"model {model.name!r}: options in the catalog: 'dialect' {said!r:.80} is unknown "
            f"{known(DIALECTS)}"
        )

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model."""
        if not self._is_gpt(model):
            step = whole(model.options.get("multiple_of")) or 1
            return Capabilities(operations=("generate", "edit"), multiple_of=step, pin=model.pin)
        return Capabilities(
            operations=("generate", "edit"),
            sizes=OLD_SIZES if model.model_id.startswith(_OLD) else (),
            multiple_of=_STEP,
            most_side=3840,
            most_pixels=MOST_PIXELS,
            seed=False,
            mask=True,
            most_upload=_MOST_UPLOAD,
            most_prompt=_MOST_PROMPT,
        )

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that is asked for."""
        wide, high = request.width, request.height
        if self._is_gpt(request.model):
            least = whole(request.model.options.get("least_pixels")) or LEAST_PIXELS
            wide, high = large_enough(wide, high, least)
        return self.capabilities(request.model).size_for(wide, high)

    def message(self, request: GenerationRequest) -> Message:
        """Return the request: JSON, or a form when a picture goes with it.

        Raises:
            CannotAsk: The dialect has no such operation or parameter.
        """
        fields = self._fields(request)
        # Finds the request at OpenAI when no answer came.
        headers = {"X-Client-Request-Id": request.idempotency_key}
        if request.operation == "generate":
            return Message("POST", "/images/generations", json=fields, headers=headers)
        if not request.image:
            raise CannotAsk(f"model {request.model.name!r}: an edit needs a picture, got none")
        files = [_file("image", request.image)]
        if request.mask is not None and self._is_gpt(request.model):
            files.append(_file("mask", transparent(request.mask)))
        return Message(
            "POST", "/images/edits", form=form_fields(fields), files=files, headers=headers
        )

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what an answer means."""
        if not 200 <= answer.status < 300:
            return refused(answer, request)
        if answer.broken is not None:
            return broken(answer, request, Facts(cost_usd=stated_cost(answer, request.model)))
        value = answer.json()
        if not isinstance(value, dict):
            return malformed(answer, request, f"{_kind(answer)} under HTTP {answer.status}")
        return self._whole(answer, request, value)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return which models the server lists, with the day of their shutdown.

        A server that has no list cannot be asked, which the answer says.

        Raises:
            GateError: The server does not answer, refuses the key, or its list is none.
        """
        value = await self.ask(client, "/models", missing_ok=True)
        if value is None:
            return {m.name: ServedModel(name=m.name, version=None, known=False) for m in models}
        entries = value.get("data") if isinstance(value, dict) else None
        if not isinstance(entries, list):
            raise GateError(
                f"{self.base_url}/models: expected JSON with a list 'data', got something else"
            )
        ids = {
            entry["id"]: entry
            for entry in entries
            if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        }
        return {
            model.name: _served(model, ids[model.model_id])
            for model in models
            if model.model_id in ids
        }

    def _is_gpt(self, model: Model) -> bool:
        """Return whether the server speaks OpenAI's own dialect."""
        said = model.options.get("dialect")
        return said == "openai" if said else httpx.URL(self.base_url).host == _HOST

    def _fields(self, request: GenerationRequest) -> dict[str, Any]:
        """Return what is asked for, without the pictures.

        Raises:
            CannotAsk: The dialect has no such operation or parameter.
        """
        model, operation = request.model, request.operation
        dialect = self.dialect(model)
        if operation == "upscale":
            raise CannotAsk(
                f"model {model.name!r}: OpenAI's Images API cannot 'upscale' "
                f"{known(('edit', 'generate'))}"
            )
        wide, high = self.asked_size(request)
        fields: dict[str, Any] = {
            "model": model.model_id,
            "prompt": request.prompt,
            "size": f"{wide}x{high}",
        }
        fields |= chosen(request, _RULES[dialect, operation], _ASIDE)
        if dialect == "openai":
            if operation == "generate":
                fields["moderation"] = "auto" if request.safety == "on" else "low"
            return fields
        fields["seed"] = request.seed
        wanted = model.options.get("response_format", "b64_json")
        if wanted != "none":
            fields["response_format"] = wanted
        return fields

    def _whole(self, answer: Answer, request: GenerationRequest, value: dict[str, Any]) -> Meaning:
        """Return what a whole JSON answer under HTTP 200 means."""
        data = value.get("data")
        first = data[0] if isinstance(data, list) and data else None
        facts = facts_of(answer, value, first, request)
        if "data" not in value and "error" in value:
            return error_under_200(answer, request, facts)
        if first is None:
            return empty(answer, request, "HTTP 200 with no picture in 'data'", facts)
        if wrong := departure(request, facts) or self._ignored(answer, value, request):
            return drift(answer, request, wrong, facts)
        return self._picture(answer, request, value, first, facts)

    def _ignored(self, answer: Answer, value: Mapping[str, Any], request: GenerationRequest) -> str:
        """Return what was not done as asked, "" when nothing shows that."""
        fallbacks = answer.headers.get("x-litellm-attempted-fallbacks", "0").strip()
        if fallbacks not in ("", "0", "None"):
            group = answer.headers.get("x-litellm-model-group", "another model")
            return f"the proxy fell back to {group!r} ({fallbacks} fallbacks)"
        asked = self._fields(request)
        for name in _REPEATED:
            wanted, got = asked.get(name), value.get(name)
            if wanted in (None, "auto") or not isinstance(got, str) or got == wanted:
                continue
            if name == "size" and "x" not in got:
                continue
            return f"{name} {wanted!r} was asked for, {got!r} was used"
        return ""

    def _picture(
        self,
        answer: Answer,
        request: GenerationRequest,
        value: Mapping[str, Any],
        first: object,
        facts: Facts,
    ) -> Meaning:
        """Return what the first entry of ``data`` means."""
        if not isinstance(first, dict):
            return malformed(answer, request, "an entry of 'data' is no object", facts)
        form = value.get("output_format")
        declared = f"image/{form}" if isinstance(form, str) else None
        if first.get("b64_json"):
            text = first["b64_json"]
            return picture_base64(answer, request, text, facts, declared=declared)
        address = first.get("url")
        if not isinstance(address, str) or not address:
            why = "HTTP 200 with neither 'b64_json' nor 'url'"
            return empty(answer, request, why, facts)
        if address.startswith("data:"):
            return picture_base64(answer, request, address, facts, declared=declared)
        return picture(answer, request, self._asset(address), facts)

    def _asset(self, address: str) -> Asset:
        """Return where a picture lies; one at the server's own address is fetched with the key."""
        base = httpx.URL(self.base_url)
        if address.startswith("/") and not address.startswith("//"):
            return Asset(str(base.join(address)), own=True)
        try:
            own = origin(parse_url(address)) == origin(base)
        except ForeignAddressError:
            own = False  # the fetch refuses it, and says why
        return Asset(address, own=own)


def large_enough(width: int, height: int, least: int) -> tuple[int, int]:
    """Return a size of the same shape with at least ``least`` pixels; no side over 3 times one."""
    wide, high = float(width), float(height)
    wide, high = max(wide, high / _MOST_RATIO), max(high, wide / _MOST_RATIO)
    if wide * high < least:
        grow = math.sqrt(least / (wide * high))
        wide, high = wide * grow, high * grow
    return math.ceil(wide - 1e-9), math.ceil(high - 1e-9)


def _kind(answer: Answer) -> str:
    """Return what a body is that is not the JSON it should be."""
    return sniff_mime(answer.body) or declared_mime(answer.headers) or "an empty body"


def _served(model: Model, entry: Mapping[str, Any]) -> ServedModel:
    """Return what the list says of a model: the name of a snapshot is its version."""
    day = entry.get("shutdown_date")
    return ServedModel(
        name=model.name,
        version=model.version if model.model_id == model.version else None,
        retires=clean(day, 40) if isinstance(day, str) and day else None,
    )


def _file(name: str, data: bytes | None) -> tuple[str, tuple[str, bytes, str]]:
    """Return a file part whose file name ends as its bytes say: OpenAI looks at both."""
    field, (_, content, mime) = file_part(name, data)
    return field, (f"{name}.{mime.partition('/')[2]}", content, mime)


ADAPTER = OpenAIProvider
