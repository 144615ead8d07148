"""Whatever a provider answers, every adapter makes one whole record of it and raises nothing."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.providers import registry
from tasks.providers.base import AttemptResult
from tasks.providers.drive import complete
from tasks.records import Attempt, FailureClass
from tests.fakes.http_server import png
from tests.providers.kit import a_model, a_request

KEY = "AKIDEXAMPLE0000:fuzz-secret-0123456789"
PICTURE = base64.b64encode(png(8, 8)).decode()
#: Field names of all protocols, so that answers get past the first look.
WORDS = [
    "artifacts",
    "b64_json",
    "blockReason",
    "bytesBase64Encoded",
    "cancel",
    "cancel_url",
    "candidates",
    "candidatesTokensDetails",
    "code",
    "completed",
    "content",
    "created",
    "credits",
    "data",
    "detail",
    "details",
    "error",
    "errors",
    "exec_info",
    "filename",
    "finishReason",
    "finish_reason",
    "finish_reasons",
    "get",
    "has_nsfw_concepts",
    "history",
    "id",
    "image",
    "images",
    "info",
    "inlineData",
    "input_tokens",
    "input_tokens_details",
    "message",
    "metrics",
    "mimeType",
    "modality",
    "model",
    "modelVersion",
    "msg",
    "name",
    "node_errors",
    "outputs",
    "output",
    "parameters",
    "parts",
    "polling_url",
    "predict_time",
    "predictions",
    "promptFeedback",
    "prompt_id",
    "raiFilteredReason",
    "reason",
    "request_id",
    "responseId",
    "response_url",
    "result",
    "sample",
    "seed",
    "seeds",
    "size",
    "status",
    "status_str",
    "status_url",
    "subfolder",
    "thought",
    "tokenCount",
    "type",
    "url",
    "urls",
    "usage",
    "usageMetadata",
    "version",
]
STATES = [
    "succeeded",
    "failed",
    "canceled",
    "processing",
    "starting",
    "COMPLETED",
    "IN_QUEUE",
    "IN_PROGRESS",
    "Ready",
    "Pending",
    "Error",
    "STOP",
    "SAFETY",
    "NO_IMAGE",
    "MAX_TOKENS",
    "SUCCESS",
    "CONTENT_FILTERED",
    "success",
    "error",
    "output",
    "image/png",
    "moderation_blocked",
    "insufficient_quota",
    "IMAGE",
]
_HEADERS = """
retry-after retry-after-ms x-should-retry finish-reason seed x-request-id content-type
x-litellm-response-cost x-fal-retryable x-seed x-cost-usd x-model-version
"""
HEADERS = _HEADERS.split()
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(PICTURE)
    | st.just(f"data:image/png;base64,{PICTURE}")
    | st.sampled_from(STATES)
    | st.sampled_from(["/x", "http://127.0.0.1:9/x", "https://evil.example/x", KEY, ""])
    | st.text(max_size=10)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
headers = st.dictionaries(
    st.sampled_from(HEADERS),
    st.sampled_from(["1", "nan", "-1", "1e400", "soon", "7", "image/png", "true", KEY])
    | st.text("abc019.-", max_size=8),
)
answers = st.tuples(
    st.sampled_from([200, 200, 200, 201, 202, 204, 302, 400, 401, 403, 404, 422, 429, 500, 503]),
    headers,
    values.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"", b"<html>", b"[" * 5000, b"1" * 5000, base64.b64decode(PICTURE)])
    | st.binary(max_size=40),
)


#: What each protocol needs of a catalog entry before it sends anything, and what it can do then.
MODELS: dict[str, dict[str, Any]] = {
    "raw": {},
    "openai": {"version": "gpt-image-2-2026-04-21", "operations": ("generate", "edit")},
    "gemini": {"version": "gemini-3-pro-image", "operations": ("generate", "edit")},
    "imagen": {"version": "imagen-4.0-generate-001", "operations": ("generate",)},
    "stability": {"version": "sd3.5-large-turbo", "operations": ("generate", "edit")},
    "automatic1111": {
        "id": "sd_xl_base_1.0",
        "version": "sha256:" + "a" * 64,
        "options": {"upscaler": "R-ESRGAN 4x+"},
    },
    "comfyui": {
        "operations": ("generate",),
        "options": {
            "graphs": {
                "generate": {
                    "1": {"class_type": "KSampler", "inputs": {"seed": "{seed}", "t": "{prompt}"}},
                    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
                }
            }
        },
    },
    "replicate": {"id": "owner/name", "version": "a" * 64, "operations": ("generate", "edit")},
    "fal": {"version": "fal-ai/flux/dev", "operations": ("generate", "edit")},
    "bfl": {"version": "flux-2-pro", "operations": ("generate", "edit")},
    "bedrock": {"version": "stability.sd3-5-large-v1:0", "operations": ("generate", "edit")},
}


#: Classes that an attempt can end with although nobody answered its last question.
SAID_NOTHING = (FailureClass.SERVER, FailureClass.ASSET_URL)


def ask(
    model: Any, operation: Any, given: list[tuple[int, dict[str, str], bytes]]
) -> AttemptResult:
    """Let an adapter meet a list of answers, the last one for ever."""
    left = list(given)

    def answer(_request: httpx.Request) -> httpx.Response:
        status, head, body = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(status, headers=head, stream=httpx.ByteStream(body))

    async def nowhere(_host: str, _port: int) -> list[str]:
        return ["10.0.0.1"]

    async def at_once(_seconds: float) -> None:
        return

    async def main() -> AttemptResult:
        adapter: Any = registry.provider_for(model, "http://127.0.0.1:9", SecretStr(KEY))
        adapter.resolver = nowhere
        image = None if operation == "generate" else png(64, 64)
        request = a_request(model=model, operation=operation, image=image)
        ticks = itertools.count()
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await complete(
                adapter, client, request, clock=lambda: next(ticks) / 2, sleep=at_once
            )

    return asyncio.run(main())


@pytest.mark.parametrize("protocol", [p for p in registry.protocols() if p != "replay"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2), st.lists(answers, min_size=1, max_size=4))
def test_every_answer_becomes_one_record(
    protocol: str, choice: int, given: list[tuple[int, dict[str, str], bytes]]
) -> None:
    model = a_model(protocol=protocol, **MODELS[protocol])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.providers.channel._FETCH_PAUSE_S", 0.0)
        result = ask(model, model.operations[choice % len(model.operations)], given)
    attempt = result.attempt
    assert attempt.http_status is not None or attempt.failure in SAID_NOTHING
    assert (result.image is not None) == (attempt.failure in (None, FailureClass.COST_UNKNOWN))
    assert attempt.billed != "no" or attempt.cost_microusd == 0
    assert attempt.retry_after_s is None or attempt.retry_after_s >= 0
    written = attempt.model_dump_json()
    assert Attempt.model_validate_json(written) == attempt
    for secret in (KEY, *KEY.split(":")):
        assert secret not in written
