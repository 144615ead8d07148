"""Imagen 4: ``:predict``, shut down on 2026-08-17.

The adapter stays for recorded evidence and for what still speaks the protocol; a live run is
refused by the preflight, which the catalog's retirement date and :meth:`ImagenProvider.served`
tell. A picture that the filter withheld leaves an entry with a reason, or no entry, under HTTP
200; a refused prompt is an error 400 whose words alone tell it from a wrong request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from tasks.errors import known
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Facts, Meaning, declared_mime
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.google import MOST_SEED, GoogleProvider, refused
from tasks.providers.meanings import broken, empty, malformed, picture_base64, refusal
from tasks.providers.message import Message
from tasks.providers.params import Rule, Text, chosen
from tasks.providers.sniff import sniff_mime

#: Last day of all Imagen models, by https://ai.google.dev/gemini-api/docs/deprecations.
SHUT_DOWN = "2026-08-17"
MODELS = (
    "imagen-4.0-generate-001",
    "imagen-4.0-ultra-generate-001",
    "imagen-4.0-fast-generate-001",
)
#: Pixels of each aspect ratio at 1K; 2K is twice as wide and high.
ASPECTS: dict[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "3:4": (896, 1280),
    "4:3": (1280, 896),
    "9:16": (768, 1408),
    "16:9": (1408, 768),
}
#: The fast model draws 1K only.
_LARGE = frozenset({"imagen-4.0-generate-001", "imagen-4.0-ultra-generate-001"})

_VERTEX_RULES: dict[str, Rule] = {
    "negative_prompt": Text(),
    "person_generation": Text(choices=("dont_allow", "allow_adult", "allow_all")),
}
_RULES: dict[str, Rule] = {"person_generation": _VERTEX_RULES["person_generation"]}
_FIELDS = {"negative_prompt": "negativePrompt", "person_generation": "personGeneration"}
#: The messages under 400 with which Imagen refuses a prompt or a picture.
_REFUSED = re.compile(
    r"prompt could not be submitted|response is blocked|safety filter|violat\w+ .{0,80}"
    r"(polic|guideline|practice)|sensitive words|responsible ai",
    re.IGNORECASE | re.DOTALL,
)


class ImagenProvider(GoogleProvider):
    """Adapter of Imagen."""

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model; a seed on Vertex only."""
        factors = (1, 2) if model.model_id in _LARGE else (1,)
        return Capabilities(
            operations=("generate",),
            sizes=tuple((w * f, h * f) for f in factors for w, h in ASPECTS.values()),
            seed=self.vertex,
            pin="dated",
        )

    def message(self, request: GenerationRequest) -> Message:
        """Return the request for one picture.

        Raises:
            CannotAsk: Imagen has no such operation or parameter.
        """
        if request.operation != "generate":
            raise CannotAsk(
                f"model {request.model.name!r}: Imagen cannot {request.operation!r} "
                f"{known(('generate',))}"
            )
        params = chosen(request, _VERTEX_RULES if self.vertex else _RULES)
        ratio, size = _named_size(*self.asked_size(request))
        fields: dict[str, Any] = {
            "sampleCount": 1,
            "aspectRatio": ratio,
            # Without it a withheld picture leaves no trace.
            "includeRaiReason": True,
            "outputOptions": {"mimeType": "image/png"},
        }
        if request.model.model_id in _LARGE:
            fields["sampleImageSize"] = size
        if self.vertex:
            on = request.safety == "on"
            fields["safetySetting"] = "block_medium_and_above" if on else "block_only_high"
            # A watermarked picture cannot have a seed.
            fields |= {"seed": request.seed & MOST_SEED, "addWatermark": False}
        else:
            fields["safetySetting"] = "block_low_and_above"
        fields |= {_FIELDS[name]: value for name, value in params.items()}
        body = {"instances": [{"prompt": request.prompt}], "parameters": fields}
        return Message("POST", self.path(request.model, "predict"), json=body)

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what an answer means."""
        if not 200 <= answer.status < 300:
            return refused(answer, request, _REFUSED)
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        if not isinstance(value, dict) or "error" in value:
            what = sniff_mime(answer.body) or declared_mime(answer.headers) or "an empty body"
            why = f"{what} under HTTP {answer.status} instead of predictions"
            return malformed(answer, request, why)
        found = value.get("predictions", [])
        entries = [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []
        for entry in entries:
            if entry.get("bytesBase64Encoded"):
                mime = entry.get("mimeType")
                declared = mime if isinstance(mime, str) else None
                text = entry["bytesBase64Encoded"]
                return picture_base64(answer, request, text, declared=declared)
        # Only pictures that come are on the bill.
        free = Facts(billed="no")
        reasons = [r for e in entries if isinstance(r := e.get("raiFilteredReason"), str)]
        if reasons:
            withheld = replace(free, finish_reason="raiFilteredReason")
            return refusal(answer, request, reasons[0], withheld)
        why = f"1 picture was asked for, {len(entries)} entries without one came"
        return empty(answer, request, why, free)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return the models with the day of their shutdown, also those that are gone by now.

        Raises:
            GateError: The service does not answer, or refuses the key.
        """
        found = await super().served(client, models)
        gone = {
            model.name: ServedModel(name=model.name, version=model.version)
            for model in models
            if model.model_id in MODELS
        }
        return {name: replace(each, retires=SHUT_DOWN) for name, each in (gone | found).items()}


def _named_size(width: int, height: int) -> tuple[str, str]:
    """Return the aspect ratio and the size as Imagen names them.

    Raises:
        CannotAsk: Imagen draws no such size.
    """
    for name, factor in (("1K", 1), ("2K", 2)):
        for ratio, (wide, high) in ASPECTS.items():
            if (wide * factor, high * factor) == (width, height):
                return ratio, name
    raise CannotAsk(f"Imagen draws no pictures of {width}x{height}")


ADAPTER = ImagenProvider
