"""Whatever a server answers, an adapter returns one attempt: nothing is raised, nothing leaks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.mix.catalog import Limits, Model
from tasks.providers.drive import complete
from tasks.providers.registry import provider_for
from tests.fakes.comfy_server import image_to_image, text_to_image, upscale
from tests.fakes.contract import Time, a_model, a_request
from tests.fakes.http_fake import picture

KEY = "sk-hostile-0123456789abcdef"
PICTURE = picture(64, 64, "p")
#: Words that the protocols know, so that the draws get further than a first look.
_KNOWN = (
    "id name errors image images info seed finish_reason status prompt_id node_errors outputs "
    "messages prompt 9 filename subfolder type error detail class_type inputs job SUCCESS "
    "execution_error timestamp nodes queue_running queue_pending sd_model_hash"
)
WORDS = _KNOWN.split()
STATUSES = [200, 200, 200, 200, 201, 202, 204, 302, 400, 401, 403, 404, 422, 429, 500, 599]
HEADERS = ["finish-reason", "seed", "content-type", "retry-after", "x-process-time"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*WORDS, KEY, "..", "/etc/passwd", "%%%", "9" * 400]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=6), inner, max_size=6)
    ),
    max_leaves=12,
)
BODIES = (
    VALUES.map(lambda value: json.dumps(value).encode("ascii"))
    | st.binary(max_size=60)
    | st.sampled_from([PICTURE, PICTURE[:40], b"", b"<html>", b"[" * 5_000, KEY.encode()])
)
ANSWERS = st.tuples(
    st.sampled_from(STATUSES),
    st.dictionaries(
        st.sampled_from(HEADERS),
        st.sampled_from(
            ["SUCCESS", "7", "nan", "-1", "1e999", "application/json", "image/png", KEY]
        ),
        max_size=4,
    ),
    BODIES,
)
GRAPHS = {"generate": text_to_image(), "edit": image_to_image(), "upscale": upscale()}


def entry(protocol: str, version: str) -> Model:
    options: dict[str, Any] = {"graphs": GRAPHS} if protocol == "comfyui" else {}
    if protocol == "automatic1111":
        options = {"upscaler": "Lanczos"}
    return a_model(
        protocol=protocol, version=version, options=options, limits=Limits(timeout_s=60.0)
    )


@pytest.mark.parametrize(
    ("protocol", "version", "operation"),
    [
        ("stability", "sd3.5-medium", "generate"),
        ("stability", "creative", "upscale"),
        ("automatic1111", "sha256:" + 64 * "a", "generate"),
        ("automatic1111", "sha256:" + 64 * "a", "upscale"),
        ("comfyui", "x", "generate"),
        ("comfyui", "x", "edit"),
    ],
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(answers=st.lists(ANSWERS, min_size=1, max_size=5))
def test_nothing_is_raised_and_nothing_leaks(
    protocol: str, version: str, operation: str, answers: list[tuple[int, dict[str, str], bytes]]
) -> None:
    model = entry(protocol, version)
    request = a_request(model, operation=operation, image=PICTURE, width=64, height=64)
    given_so_far = iter(answers)

    def answer(_request: httpx.Request) -> httpx.Response:
        status, headers, body = next(given_so_far, answers[-1])
        return httpx.Response(status, headers=headers, content=body)

    async def drive() -> Any:
        time = Time()
        provider = provider_for(model, "https://provider.test", SecretStr(KEY))
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await complete(
                provider, client, request, clock=time, sleep=time.sleep, draw=lambda: 0.5
            )

    result = asyncio.run(drive())
    attempt = result.attempt
    assert KEY not in attempt.model_dump_json()
    assert attempt.cost_microusd in (0, 40_000)
    assert (attempt.billed == "no") == (attempt.cost_microusd == 0)
    if result.image is None:
        assert attempt.failure is not None
    else:
        assert attempt.failure is None
