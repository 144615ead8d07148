"""Gemini image models (the "Nano Banana" family): ``:generateContent``.

A picture to edit travels as ``inlineData`` before the prompt. Of several pictures in an answer the
last counts; drafts are marked as thoughts, and a draft may be all there is. Why the model ended
stands beside the content, under HTTP 200 too, and decides what a missing picture means. The answer
names the model that made it, which is compared with the pin: Google re-routes models in silence.

Options of a catalog entry: ``image_sizes``, those of ``1K``, ``2K`` and ``4K`` that the model
draws; and the parameters ``temperature``, ``top_p`` and ``thinking_level``, over which a stage's
params go.
Safety thresholds are always sent: the newer models block nothing by themselves.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from tasks.errors import known
from tasks.mix.catalog import Model
from tasks.providers.answers import Answer, Facts, Meaning, declared_mime
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job
from tasks.providers.google import MOST_SEED, GoogleProvider, refused, tokens
from tasks.providers.meanings import (
    broken,
    departure,
    drift,
    empty,
    failed,
    malformed,
    picture_base64,
    refusal,
    server,
)
from tasks.providers.message import Message, file_part
from tasks.providers.params import Number, Rule, Text, chosen
from tasks.providers.sniff import sniff_mime
from tasks.providers.usage import usage_of, whole
from tasks.records import FailureClass, Usage

#: Pixels of each aspect ratio at 1K, by https://ai.google.dev/gemini-api/docs/image-generation;
#: 2K and 4K are twice and four times as wide and high.
ASPECTS: dict[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
SIZES = {"1K": 1, "2K": 2, "4K": 4}
#: Sizes by model; every model draws 1K.
_SIZES_OF = {"gemini-nano-banana-2.1": ("1K", "2K", "4K"), "gemini-3-pro-image": ("1K", "2K", "4K")}
_MOST_UPLOAD = 15 * 1024 * 1024

#: Why a model ends, by what that means here. STOP, FINISH_REASON_UNSPECIFIED and reasons that are
#: not known leave it to the content.
REFUSALS = frozenset(
    {
        "SAFETY",
        "PROHIBITED_CONTENT",
        "BLOCKLIST",
        "SPII",
        "RECITATION",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "ESCALATION",
        "MODEL_ARMOR",
        "JAILBREAK",
    }
)
CUT = frozenset({"MAX_TOKENS", "CONTINUATION"})
FAULTS = frozenset(
    {
        "IMAGE_OTHER",
        "OTHER",
        "MALFORMED_RESPONSE",
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
    }
)
_ACCOUNT = "PUP_LIMITED_DISABLED"
_LANGUAGE = "LANGUAGE"

_HARMS = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
_THRESHOLDS = {"on": "BLOCK_MEDIUM_AND_ABOVE", "off": "OFF"}
_RULES: dict[str, Rule] = {
    "temperature": Number(0, 2),
    "top_p": Number(0, 1),
    "thinking_level": Text(choices=("minimal", "low", "medium", "high")),
}
#: Options of a catalog entry that are no parameters.
_ASIDE = frozenset({"image_sizes"})
_REFUSED = re.compile(r"violat\w+ (our|the|google).{0,40}polic", re.IGNORECASE)


class GeminiProvider(GoogleProvider):
    """Adapter of Gemini image models."""

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model."""
        listed = model.options.get("image_sizes", _SIZES_OF.get(model.model_id, ("1K",)))
        names = listed if isinstance(listed, list | tuple) else ()
        factors = [SIZES[n] for n in names if isinstance(n, str) and n in SIZES] or [1]
        return Capabilities(
            operations=("generate", "edit"),
            sizes=tuple((w * f, h * f) for f in factors for w, h in ASPECTS.values()),
            most_upload=_MOST_UPLOAD,
            pin="dated",
        )

    def message(self, request: GenerationRequest) -> Message:
        """Return the request.

        Raises:
            CannotAsk: Gemini has no such operation or parameter.
        """
        if request.operation == "upscale":
            raise CannotAsk(
                f"model {request.model.name!r}: Gemini cannot 'upscale' "
                f"{known(('edit', 'generate'))}"
            )
        params = chosen(request, _RULES, _ASIDE)
        ratio, size = named_size(*self.asked_size(request))
        config: dict[str, Any] = {
            "responseModalities": ["TEXT", "IMAGE"],
            "imageConfig": {"aspectRatio": ratio, "imageSize": size},
            "seed": request.seed & MOST_SEED,
        }
        for name, field in (("temperature", "temperature"), ("top_p", "topP")):
            if name in params:
                config[field] = params[name]
        if "thinking_level" in params:
            config["thinkingConfig"] = {"thinkingLevel": params["thinking_level"].upper()}
        parts: list[dict[str, Any]] = [{"text": request.prompt}]
        if request.operation == "edit":
            if not request.image:
                raise CannotAsk(f"model {request.model.name!r}: an edit needs a picture, got none")
            parts.insert(0, _inline(request.image))
        threshold = _THRESHOLDS["on" if request.safety == "on" else "off"]
        body = {
            "contents": [{"role": "user", "parts": parts}],
            "generationConfig": config,
            "safetySettings": [
                {"category": f"HARM_CATEGORY_{harm}", "threshold": threshold} for harm in _HARMS
            ],
        }
        return Message("POST", self.path(request.model, "generateContent"), json=body)

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what an answer means."""
        if not 200 <= answer.status < 300:
            return refused(answer, request, _REFUSED)
        if answer.broken is not None:
            return broken(answer, request)
        value = answer.json()
        if not isinstance(value, dict) or "error" in value:
            what = sniff_mime(answer.body) or declared_mime(answer.headers) or "an empty body"
            why = f"{what} under HTTP {answer.status} instead of candidates"
            return malformed(answer, request, why)
        facts = facts_of(value, request)
        if wrong := departure(request, facts):
            return drift(answer, request, wrong, facts)
        return _whole(answer, request, value, facts)


def named_size(width: int, height: int) -> tuple[str, str]:
    """Return the aspect ratio and the size as Gemini names them.

    Raises:
        CannotAsk: Gemini draws no such size.
    """
    for name, factor in SIZES.items():
        for ratio, (wide, high) in ASPECTS.items():
            if (wide * factor, high * factor) == (width, height):
                return ratio, name
    raise CannotAsk(f"Gemini draws no pictures of {width}x{height}")


def facts_of(value: dict[str, Any], request: GenerationRequest) -> Facts:
    """Return what an answer says beside its content."""
    used = value.get("usageMetadata")
    reported, number = value.get("modelVersion"), value.get("responseId")
    candidate = _candidate(value)
    reason = candidate.get("finishReason") or _blocked(value)
    return Facts(
        model_reported=reported.removeprefix("models/") if isinstance(reported, str) else None,
        seed_asked=request.seed & MOST_SEED,
        usage=usage(value) if isinstance(used, dict) else None,
        finish_reason=reason if isinstance(reason, str) else None,
        request_id=number if isinstance(number, str) else None,
        # Every token that is told about is on the bill, whatever came of it.
        billed="yes" if isinstance(used, dict) else None,
    )


def usage(value: dict[str, Any]) -> Usage:
    """Return the tokens of an answer by modality; fields that Google leaves out are 0.

    Thoughts are billed as text. Tokens of pictures stand in the details; the rest of the
    candidates' sum is text. Without details all of it counts as picture, the dearest kind.
    """
    used = value["usageMetadata"]
    asked, made = tokens(used.get("promptTokensDetails")), used.get("candidatesTokenCount", 0)
    image_in = whole(asked.get("IMAGE", 0))
    prompt = _sum(used.get("promptTokenCount", 0), used.get("toolUsePromptTokenCount", 0))
    details = tokens(used.get("candidatesTokensDetails"))
    image_out = whole(details.get("IMAGE", 0) if details else made)
    total, thoughts = whole(made), used.get("thoughtsTokenCount", 0)
    rest = None if total is None or image_out is None else max(0, total - image_out)
    kept = used | ({"modelStatus": value["modelStatus"]} if "modelStatus" in value else {})
    return usage_of(
        kept,
        text_in=None if prompt is None or image_in is None else max(0, prompt - image_in),
        image_in=image_in,
        text_out=_sum(rest, thoughts),
        image_out=image_out,
    )


def _sum(*counts: object) -> int | None:
    """Return the sum of counts, ``None`` when one is none."""
    numbers = [whole(each) for each in counts]
    return None if None in numbers else sum(n for n in numbers if n is not None)


def _candidate(value: dict[str, Any]) -> dict[str, Any]:
    """Return the one candidate, empty when there is none."""
    found = value.get("candidates")
    first = found[0] if isinstance(found, list) and found else None
    return first if isinstance(first, dict) else {}


def _blocked(value: dict[str, Any]) -> str | None:
    """Return why the prompt was blocked, ``None`` when it was not."""
    feedback = value.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return reason if isinstance(reason, str) else None


def _whole(
    answer: Answer, request: GenerationRequest, value: dict[str, Any], facts: Facts
) -> Meaning:
    """Return what a whole answer of the right model means."""
    candidate = _candidate(value)
    if not candidate and (reason := _blocked(value)):
        return refusal(answer, request, f"the prompt was blocked ({reason})", facts)
    if failure := _ended_badly(answer, request, candidate, facts):
        return failure
    drafts, pictures = _pictures(candidate)
    if pictures or (drafts and facts.finish_reason not in CUT):
        # A draft counts where the model finished with nothing better.
        chosen_part = (pictures or drafts)[-1]
        mime = chosen_part.get("mimeType", chosen_part.get("mime_type"))
        declared = mime if isinstance(mime, str) else None
        text = _standard(chosen_part.get("data"))
        return picture_base64(answer, request, text, facts, declared=declared)
    if facts.finish_reason in CUT:
        why = f"the answer was cut off before its picture ({facts.finish_reason})"
        return malformed(answer, request, why, facts)
    why = f"no picture among the candidates ({facts.finish_reason or 'no finish reason'})"
    return empty(answer, request, why + _words(candidate), facts)


def _ended_badly(
    answer: Answer, request: GenerationRequest, candidate: dict[str, Any], facts: Facts
) -> Meaning | None:
    """Return what a reason to end means that no picture can mend, ``None`` for the others."""
    reason = facts.finish_reason
    said = f"{reason}{_words(candidate)}"
    if reason in REFUSALS:
        return refusal(answer, request, f"the model refused ({said})", facts)
    if reason in FAULTS:
        return server(answer, request, f"the model failed ({said})", facts)
    if reason == _ACCOUNT:
        return failed(FailureClass.AUTH, answer, request, f"the account is limited ({said})", facts)
    if reason == _LANGUAGE:
        why = f"the model does not know the language ({said})"
        return failed(FailureClass.BAD_REQUEST, answer, request, why, facts)
    return None


def _pictures(candidate: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the pictures among the parts, in their order: drafts, and those that are meant."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    drafts: list[dict[str, Any]] = []
    meant: list[dict[str, Any]] = []
    for part in parts if isinstance(parts, list) else []:
        data = part.get("inlineData", part.get("inline_data")) if isinstance(part, dict) else None
        if isinstance(data, dict) and data.get("data"):
            (drafts if part.get("thought") is True else meant).append(data)
    return drafts, meant


def _words(candidate: dict[str, Any]) -> str:
    """Return what the model says about its end, with a colon before it."""
    message = candidate.get("finishMessage")
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    texts = [
        part["text"]
        for part in (parts if isinstance(parts, list) else [])
        if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
    ]
    said = message if isinstance(message, str) else " ".join(texts)
    return f": {said}" if said.strip() else ""


def _standard(text: object) -> object:
    """Return base64 in its standard alphabet: Google's JSON may use the one for addresses."""
    return text.replace("-", "+").replace("_", "/") if isinstance(text, str) else text


def _inline(image: bytes) -> dict[str, Any]:
    """Return the part that holds the picture to edit."""
    _, (_, data, mime) = file_part("image", image)
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}}


ADAPTER = GeminiProvider
