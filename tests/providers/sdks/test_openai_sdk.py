"""The fake of OpenAI is true: the official SDK works with it and raises what it should."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fakes import openai_server as fake
from tests.fakes.http_fake import (
    Bend,
    decoded,
    gateway_page,
    page,
    picture,
    reset,
    silent,
    truncated,
)

openai = pytest.importorskip("openai", reason="the SDK of OpenAI is not installed (extra: dev)")

MODEL = "gpt-image-2-2026-04-21"


Sdk = Callable[..., Any]


@pytest.fixture(scope="module")
def sdk() -> Iterator[Sdk]:
    """Makes clients of a server, and closes them when the tests are over."""
    made: dict[str, Any] = {}
    with ExitStack() as clients:

        def make(server: fake.OpenAIServer, **changes: Any) -> Any:
            if not changes and server.url in made:
                return made[server.url]
            options = {"api_key": fake.KEY, "max_retries": 0, "timeout": 10} | changes
            client = openai.OpenAI(base_url=server.url + "/v1", **options)
            clients.enter_context(client)
            if not changes:
                made[server.url] = client
            return client

        yield make


@pytest.fixture(scope="module")
def running() -> Iterator[fake.OpenAIServer]:
    with fake.OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: fake.OpenAIServer) -> fake.OpenAIServer:
    running.requests.clear()
    return running


def test_the_sdk_gets_a_picture_and_its_tokens(sdk: Sdk, server: fake.OpenAIServer) -> None:
    got = sdk(server).images.generate(
        model=MODEL, prompt="a red kite", size="1536x1024", quality="low", moderation="auto"
    )
    pixels = decoded(base64.b64decode(got.data[0].b64_json))
    assert pixels is not None
    assert pixels.shape[:2] == (1024, 1536)
    assert got.usage.output_tokens == got.usage.output_tokens_details.image_tokens == 408
    assert got.usage.input_tokens_details.text_tokens == got.usage.input_tokens == 12
    assert (got.size, got.quality, got.output_format) == ("1536x1024", "low", "png")
    assert [f"{r.method} {r.path}" for r in server.requests] == ["POST /v1/images/generations"]


def test_the_sdk_edits_a_picture_with_a_mask(sdk: Sdk, server: fake.OpenAIServer) -> None:
    upload = picture(64, 64, "upload")
    got = sdk(server).images.edit(
        model=MODEL,
        image=("upload.png", upload, "image/png"),
        mask=("mask.png", picture(64, 64, "mask"), "image/png"),
        prompt="paint it green",
        size="1024x1024",
    )
    assert decoded(base64.b64decode(got.data[0].b64_json)) is not None
    assert got.usage.input_tokens_details.image_tokens == 323
    form = server.requests[0].form
    assert form is not None
    assert form["image"].data == upload
    assert form["prompt"].text == "paint it green"


def test_the_sdk_lists_the_models_with_their_last_day(sdk: Sdk, server: fake.OpenAIServer) -> None:
    client = sdk(server)
    days = {model.id: model.shutdown_date for model in client.models.list()}
    assert client.models.retrieve("gpt-image-1.5").shutdown_date == "2026-12-01"
    with pytest.raises(openai.NotFoundError, match="deprecated"):
        client.models.retrieve("gpt-image-1")
    assert days[MODEL] is None
    assert days["gpt-image-1.5"] == "2026-12-01"


#: Failure, the SDK's exception, ``code`` and whether the SDK itself would try again.
RAISED = [
    ("moderation_input", "BadRequestError", "moderation_blocked", False),
    ("moderation_output", "BadRequestError", "moderation_blocked", False),
    ("content_policy", "BadRequestError", "content_policy_violation", False),
    ("invalid_size", "BadRequestError", "invalid_value", False),
    ("hard_limit", "BadRequestError", "billing_hard_limit_reached", False),
    ("bad_key", "AuthenticationError", "invalid_api_key", False),
    ("unverified", "PermissionDeniedError", None, False),
    ("retired", "NotFoundError", "model_not_found", False),
    ("timeout_408", "APIStatusError", None, True),
    ("conflict", "ConflictError", None, True),
    ("too_large", "APIStatusError", None, False),
    ("unprocessable", "UnprocessableEntityError", None, False),
    ("rate_limit", "RateLimitError", "rate_limit_exceeded", True),
    ("quota", "RateLimitError", "insufficient_quota", True),
    ("no_retry", "RateLimitError", "rate_limit_exceeded", False),
    ("server", "InternalServerError", None, True),
    ("server_no_retry", "InternalServerError", None, False),
    ("overloaded", "InternalServerError", None, True),
    ("loading", "BadRequestError", "model_loading", True),
]


@pytest.mark.parametrize(("name", "exception", "code", "again"), RAISED, ids=[r[0] for r in RAISED])
def test_the_sdk_raises_each_failure_as_its_own_kind(
    sdk: Sdk, server: fake.OpenAIServer, name: str, exception: str, code: str | None, again: bool
) -> None:
    server.bend("/images/", fake.FAILURES[name])
    with pytest.raises(getattr(openai, exception)) as caught:
        sdk(server).images.generate(model=MODEL, prompt="a red kite")
    assert type(caught.value).__name__ == exception
    assert caught.value.code == code
    assert caught.value.body["message"] in str(caught.value)
    assert sdk(server)._should_retry(caught.value.response) is again


def test_every_failure_of_the_fake_is_asked_of_the_sdk() -> None:
    assert {row[0] for row in RAISED} == set(fake.FAILURES)


def test_the_sdk_waits_as_the_fake_asks(sdk: Sdk, server: fake.OpenAIServer) -> None:
    server.bend("/images/", fake.FAILURES["rate_limit"])
    with pytest.raises(openai.RateLimitError) as caught:
        sdk(server).images.generate(model=MODEL, prompt="a red kite")
    # Milliseconds win over seconds.
    assert sdk(server)._parse_retry_after_header(caught.value.response.headers) == 1.5


@pytest.mark.parametrize(
    ("bend", "exception"),
    [
        (reset, "APIConnectionError"),
        (truncated, "APIConnectionError"),
        (silent, "APITimeoutError"),
        (gateway_page, "InternalServerError"),
    ],
    ids=["reset", "truncated", "silent", "gateway"],
)
def test_the_sdk_sees_the_faults_of_the_wire(
    sdk: Sdk, server: fake.OpenAIServer, bend: Bend, exception: str
) -> None:
    server.bend("/images/", bend)
    with pytest.raises(getattr(openai, exception)):
        sdk(server, timeout=1.0).images.generate(model=MODEL, prompt="a red kite")


def test_a_page_under_200_is_no_error_for_the_sdk(sdk: Sdk, server: fake.OpenAIServer) -> None:
    """Which is why our adapter must look for itself."""
    server.bend("/images/", page)
    got = sdk(server).images.generate(model=MODEL, prompt="a red kite")
    assert isinstance(got, str)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"extra_body": {"seed": 7}}, "unknown_parameter"),
        ({"response_format": "b64_json"}, "unknown_parameter"),
        ({"size": "500x500"}, "invalid_value"),
        ({"size": "4096x1024"}, "invalid_value"),
        ({"prompt": "x" * 32_001}, "string_above_max_length"),
        ({"model": "gpt-image-9"}, "model_not_found"),
        ({"model": "dall-e-3"}, "model_not_found"),
    ],
    ids=[
        "seed",
        "response_format",
        "odd-size",
        "too-wide",
        "long-prompt",
        "no-model",
        "dead-model",
    ],
)
def test_the_fake_checks_a_request_as_openai_does(
    sdk: Sdk, server: fake.OpenAIServer, fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        sdk(server).images.generate(**({"model": MODEL, "prompt": "a red kite"} | fields))
    assert caught.value.code == code


def test_the_fake_knows_its_key(sdk: Sdk, server: fake.OpenAIServer) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk(server, api_key="sk-other").images.generate(model=MODEL, prompt="a red kite")
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("flavour", ["vllm-omni", "sglang", "localai", "litellm", "nim"])
def test_compatible_servers_serve_the_sdk(sdk: Sdk, flavour: str) -> None:
    with fake.OpenAIServer(flavour) as server:
        client = sdk(server)
        raw = client.images.with_raw_response.generate(
            model="qwen-image", prompt="a red kite", size="512x512", extra_body={"seed": 7}
        )
        entry = raw.parse().data[0]
        if entry.url is not None:
            assert entry.url.startswith(server.url)
        else:
            assert decoded(base64.b64decode(entry.b64_json)) is not None
        assert ("x-litellm-response-cost" in raw.headers) is (flavour == "litellm")
        with pytest.raises(openai.APIStatusError):
            client.images.generate(model="qwen-image", prompt="a red kite", size="wide")


def test_litellm_and_localai_word_errors_in_their_own_way(sdk: Sdk) -> None:
    with fake.OpenAIServer("localai") as server, pytest.raises(openai.BadRequestError) as caught:
        sdk(server).images.generate(model="sd", prompt="a red kite", size="wide")
    assert caught.value.body["code"] == 400  # a number where OpenAI has a word
