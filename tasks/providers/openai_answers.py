"""What OpenAI and the servers compatible with it say in answers: errors, tokens, costs; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tasks.mix.catalog import Model
from tasks.providers.answers import (
    NO_RETRY,
    QUOTA_TYPES,
    REFUSAL_TYPES,
    Answer,
    Facts,
    Meaning,
)
from tasks.providers.base import GenerationRequest
from tasks.providers.meanings import failed, http_error, malformed, refusal, server, throttled
from tasks.providers.usage import seed_of, usage_of
from tasks.records import FailureClass, Usage

#: Refusals of others: Azure's filter, and LiteLLM's name for all of them.
_REFUSALS = REFUSAL_TYPES | {"contentFilter", "content_filter", "ResponsibleAIPolicyViolation"}
_LITELLM_REFUSAL = "litellm.ContentPolicyViolationError"
#: Codes about money that come under any status.
_PAYMENT = QUOTA_TYPES | {"billing_not_active", "budget_exceeded"}


def refused(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an answer with an error status means; the code in its body decides."""
    types, said, stage = error_of(answer)
    text = f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"
    again = answer.headers.get("x-should-retry", "").strip().lower()
    wait = wait_of(answer)
    if types & _REFUSALS or _LITELLM_REFUSAL in said[:200]:
        # A picture that was drawn and then withheld may be on the bill.
        billed = Facts(billed="unknown") if stage == "output" else Facts()
        return refusal(answer, request, text, billed)
    if types & _PAYMENT and answer.status != 429:
        return failed(FailureClass.AUTH, answer, request, text)
    if "model_not_found" in types:
        return failed(FailureClass.RETIRED, answer, request, text)
    if answer.status == 429:
        quota = bool(types & _PAYMENT) or again == "false"
        return throttled(answer, request, text, wait_s=wait, quota=quota)
    if again == "true":
        return server(answer, request, text, wait_s=wait)
    facts = Facts(finish_reason=NO_RETRY) if again == "false" else Facts()
    return http_error(answer, request, facts, types=types, message=said, wait_s=wait)


def error_of(answer: Answer) -> tuple[frozenset[str], str, str]:
    """Return the codes, the message and the stage of moderation of an error body.

    Knows ``{"error": {...}}`` with codes as texts or numbers, and FastAPI's ``{"detail"}``.
    """
    value = answer.json()
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if not isinstance(value, dict):
        return frozenset(), answer.body.decode("utf-8", "replace"), ""
    inner = value.get("inner_error", value.get("innererror"))
    codes = [value.get("type"), value.get("code")]
    codes += [inner.get("code")] if isinstance(inner, dict) else []
    types = frozenset(code for code in codes if isinstance(code, str))
    details = value.get("moderation_details")
    stage = details.get("moderation_stage") if isinstance(details, dict) else ""
    said = value.get("message", value.get("error", value.get("detail")))
    if isinstance(said, list):
        said = "; ".join(str(each.get("msg")) for each in said if isinstance(each, dict))
    return types, said if isinstance(said, str) else "", stage if isinstance(stage, str) else ""


def wait_of(answer: Answer) -> float | None:
    """Return the seconds of ``retry-after-ms``, which counts before ``Retry-After``."""
    try:
        seconds = float(answer.headers.get("retry-after-ms", "")) / 1000
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def usage(value: object, operation: str) -> Usage | None:
    """Return the tokens of an answer by modality; what cannot be told apart is not said."""
    if not isinstance(value, dict):
        return None
    inside = _parts(value, "input_tokens_details")
    outside = _parts(value, "output_tokens_details")
    if not inside and operation == "generate":
        inside = {"text_tokens": value.get("input_tokens"), "image_tokens": 0}
    if not outside:
        # Without details all of it is the picture, the dearest of the two.
        outside = {"image_tokens": value.get("output_tokens"), "text_tokens": 0}
    return usage_of(
        value,
        text_in=inside.get("text_tokens"),
        image_in=inside.get("image_tokens"),
        text_out=outside.get("text_tokens"),
        image_out=outside.get("image_tokens"),
    )


def _parts(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def facts_of(
    answer: Answer, value: Mapping[str, Any], first: object, request: GenerationRequest
) -> Facts:
    """Return what an answer says beside its picture.

    Args:
        answer: The answer.
        value: Its JSON.
        first: The first entry of ``data``.
        request: What was asked.
    """
    model, reported = request.model, value.get("model")
    if not isinstance(reported, str) or reported == model.model_id != model.version:
        reported = None  # an echo of the name that was asked for tells nothing of the version
    seed = first.get("seed") if isinstance(first, dict) else None
    number = value.get("id")
    return Facts(
        model_reported=reported,
        seed_used=seed_of(value.get("seed") if seed is None else seed),
        usage=usage(value.get("usage"), request.operation),
        request_id=number if isinstance(number, str) else None,
        cost_usd=stated_cost(answer, model),
    )


def stated_cost(answer: Answer, model: Model) -> str | None:
    """Return the cost that LiteLLM states, as text; 0 is what it states without a price too."""
    cost = answer.headers.get("x-litellm-response-cost")
    if cost is None or cost.strip() in ("", "None"):
        return None
    free = model.price is None or model.price.usd == 0
    try:
        return cost if free or float(cost) != 0 else None
    except ValueError:
        return cost


def error_under_200(answer: Answer, request: GenerationRequest, facts: Facts) -> Meaning:
    """Return what an error body under HTTP 200 means."""
    types, said, _ = error_of(answer)
    if types & _REFUSALS or _LITELLM_REFUSAL in said[:200]:
        return refusal(answer, request, said, facts)
    return malformed(answer, request, f"an error under HTTP {answer.status}: {said}", facts)
