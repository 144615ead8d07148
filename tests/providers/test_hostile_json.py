"""Whatever JSON a provider sends, the adapters of JSON protocols end with one meaning."""

from __future__ import annotations

import base64
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.mix.catalog import Model, Price, TokenPrices
from tasks.providers.answers import Answer, Meaning
from tasks.providers.http import HttpAdapter
from tasks.providers.registry import provider_for
from tasks.records import FailureClass
from tests.fakes.contract import a_model, a_request
from tests.fakes.http_fake import picture

PICTURE = base64.b64encode(picture(8, 8, "x")).decode()
TABLE = TokenPrices(text_in=1.5, image_in=1.5, text_out=7.5, image_out=30)
PRICE = Price(usd=0.2, per="token", tokens=TABLE, source="t", date=date(2026, 1, 1))

#: Names that mean something to one of the protocols, and values that could.
NAMES = {
    "openai": "data b64_json url usage input_tokens output_tokens input_tokens_details "
    "text_tokens image_tokens error message code type param detail size quality model seed id "
    "output_format moderation_details moderation_stage",
    "gemini": "candidates content parts inlineData inline_data data mimeType thought text "
    "finishReason finishMessage promptFeedback blockReason usageMetadata promptTokenCount "
    "candidatesTokenCount thoughtsTokenCount candidatesTokensDetails promptTokensDetails modality "
    "tokenCount modelVersion responseId modelStatus error status message details @type reason "
    "retryDelay violations quotaId metadata",
    "imagen": "predictions bytesBase64Encoded mimeType raiFilteredReason error status message "
    "details @type reason violations",
}
VALUES = [
    PICTURE, "", "STOP", "SAFETY", "MAX_TOKENS", "IMAGE", "1024x1024", "image/png", "7s",
    "http://169.254.169.254/", "type.googleapis.com/google.rpc.RetryInfo",
    "type.googleapis.com/google.rpc.QuotaFailure", "type.googleapis.com/google.rpc.ErrorInfo",
    "moderation_blocked", "insufficient_quota",
]  # fmt: skip


def trees(protocol: str) -> st.SearchStrategy[Any]:
    leaves = (
        st.sampled_from(VALUES)
        | st.none()
        | st.booleans()
        | st.integers(-5, 2**70)
        | st.floats(allow_nan=True)
        | st.text(max_size=8)
    )
    names = st.sampled_from(NAMES[protocol].split())
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
        max_leaves=25,
    )


def entry(protocol: str) -> Model:
    return a_model(
        protocol=protocol,
        version="imagen-4.0-generate-001" if protocol == "imagen" else "m-1",
        price=PRICE,
        options={"dialect": "openai"} if protocol == "openai" else {},
    )


@pytest.mark.parametrize("protocol", sorted(NAMES))
@settings(max_examples=100, deadline=None)
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 201, 400, 403, 404, 429, 500, 503]))
def test_every_answer_has_one_meaning(protocol: str, data: st.DataObject, status: int) -> None:
    one_meaning(protocol, data.draw(trees(protocol)), status)


def one_meaning(protocol: str, value: Any, status: int) -> None:
    """Read an answer as the protocol's adapter does, and look at what it means."""
    model = entry(protocol)
    adapter = provider_for(model, "https://provider.test/v1", None)
    assert isinstance(adapter, HttpAdapter)
    answer = Answer(status, {"content-type": "application/json"}, json.dumps(value).encode())
    meaning = adapter.read(answer, a_request(model))
    assert isinstance(meaning, Meaning)
    delivered = meaning.image is not None or meaning.asset is not None
    assert delivered == (meaning.failure in (None, FailureClass.COST_UNKNOWN))
    assert 0 <= meaning.cost_microusd < 10**9
    assert status < 300 or (not delivered and meaning.failure is not FailureClass.MALFORMED)
    if meaning.image is not None:
        assert base64.b64encode(meaning.image).decode() == PICTURE


#: Whole answers of each kind.
GOOD: dict[str, list[tuple[int, Any]]] = {
    "openai": [
        (200, {
            "created": 1, "data": [{"b64_json": PICTURE}], "size": "1024x1024", "quality": "low",
            "output_format": "png",
            "usage": {
                "input_tokens": 5, "output_tokens": 9, "total_tokens": 14,
                "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
                "output_tokens_details": {"text_tokens": 0, "image_tokens": 9},
            },
        }),
        (200, {"data": [{"url": "https://provider.test/x.png", "seed": 7}], "model": "m-1"}),
        (400, {"error": {
            "message": "no", "type": "t", "param": None, "code": "moderation_blocked",
            "moderation_details": {"moderation_stage": "output", "categories": ["x"]},
        }}),
        (422, {"detail": [{"loc": ["body"], "msg": "no", "type": "t"}]}),
    ],
    "gemini": [
        (200, {
            "candidates": [{
                "content": {"role": "model", "parts": [
                    {"text": "so", "thought": True},
                    {"inlineData": {"mimeType": "image/png", "data": PICTURE}},
                ]},
                "finishReason": "STOP", "index": 0, "finishMessage": "done",
            }],
            "usageMetadata": {
                "promptTokenCount": 5, "candidatesTokenCount": 9, "thoughtsTokenCount": 3,
                "toolUsePromptTokenCount": 1,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}],
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 9}],
            },
            "modelVersion": "m-1", "responseId": "r", "modelStatus": {"modelStage": "STABLE"},
        }),
        (200, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}),
        (429, [{"error": {
            "code": 429, "message": "limit: 0", "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"},
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                 "violations": [{"quotaId": "PerDay", "quotaMetric": "m"}]},
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "R",
                 "metadata": {"quota_limit": "PerDay"}},
            ],
        }}]),
    ],
    "imagen": [
        (200, {"predictions": [{"bytesBase64Encoded": PICTURE, "mimeType": "image/png"}]}),
        (200, {"predictions": [{"raiFilteredReason": "filtered"}]}),
        (400, {"error": {"message": "safety filter", "status": "INVALID_ARGUMENT"}}),
    ],
}  # fmt: skip
ODD = (
    *(None, True, 0, -1, 10**400, 1.5, float("inf"), float("nan"), "", "x", "\ud800"),
    *("https://[bad", [], [None], [[]], [5], {}, {"x": 1}, {"data": 5}, {"error": 5}),
)


def bent(value: Any) -> list[Any]:
    """Return an answer with each of its places put wrong in turn, the whole of it too."""
    found: list[Any] = list(ODD)
    if isinstance(value, dict):
        found += [{k: v for k, v in value.items() if k != name} for name in value]
        found += [value | {name: odd} for name in value for odd in bent(value[name])]
    elif isinstance(value, list):
        places = range(len(value))
        found += [[*value[:n], odd, *value[n + 1 :]] for n in places for odd in bent(value[n])]
    return found


@pytest.mark.parametrize("protocol", sorted(GOOD))
def test_every_place_of_an_answer_may_be_wrong(protocol: str) -> None:
    count = 0
    for status, good in GOOD[protocol]:
        for value in (good, *bent(good)):
            one_meaning(protocol, value, status)
            count += 1
    assert count > 150
