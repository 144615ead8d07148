"""The adapter of OpenAI Images against the fake of OpenAI and of compatible servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import GateError
from tasks.mix.catalog import Limits, Model, Price, TokenPrices
from tasks.providers.base import GenerationRequest, ServedModel
from tasks.providers.openai import LEAST_PIXELS, OpenAIProvider, large_enough
from tasks.records import FailureClass
from tests.fakes import openai_server as fake
from tests.fakes.contract import Row, a_model, a_request, ask, check
from tests.fakes.http_fake import (
    Bend,
    as_json,
    decoded,
    encoded,
    gateway_page,
    header,
    page,
    picture,
    reset,
    says,
    silent,
    size_of,
    stalled,
    truncated,
    with_json,
)

PATH = "/images/"
SNAPSHOT = "gpt-image-2-2026-04-21"
PROMPT = "a red kite"
SOURCE = picture(64, 64, "source")
#: Long enough to connect on a busy machine.
QUICK = Limits(timeout_s=1.0)
#: The most that one request can cost, in the catalog; what is on the bill of an ordinary one.
MOST, USUAL = 200_000, 31_740
F = FailureClass


def tokens(**rates: float) -> Price:
    table = {"text_in": 5, "image_in": 8, "text_out": 30, "image_out": 30} | rates
    return Price(
        usd=0.2, per="token", tokens=TokenPrices(**table), source="test", date=date(2026, 11, 1)
    )


def gpt(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "openai",
        "version": SNAPSHOT,
        "pin": "dated",
        "operations": ("generate", "edit"),
        "price": tokens(),
        "options": {"dialect": "openai"},
    }
    return a_model(**(usual | fields))


def open_model(**fields: Any) -> Model:
    """A model of one's own on a compatible server, at a price a picture."""
    usual: dict[str, Any] = {
        "protocol": "openai",
        "id": "Qwen/Qwen-Image",
        "version": "sha256:1f2e",
        "pin": "dated",
        "operations": ("generate", "edit"),
    }
    return a_model(**(usual | fields))


def kite(model: Model, **fields: Any) -> GenerationRequest:
    return a_request(model, **({"prompt": PROMPT} | fields))


def worst(prompt: str = PROMPT) -> int:
    """Return what a request may cost at the most: no text has more tokens than bytes."""
    return MOST + 5 * len(prompt.encode())


def bend(*bends: Bend) -> Callable[[fake.OpenAIServer], None]:
    return lambda server: server.bend(PATH, *bends)


def fails(name: str) -> Callable[[fake.OpenAIServer], None]:
    return bend(fake.FAILURES[name])


def data(change: Callable[[dict[str, Any]], Any]) -> Callable[[fake.OpenAIServer], None]:
    return bend(fake.with_data(change))


def field(**changes: Any) -> Callable[[fake.OpenAIServer], None]:
    """Change fields of the answer; ``None`` takes one out."""

    def changed(value: Any) -> Any:
        return {k: v for k, v in (value | changes).items() if v is not None}

    return bend(with_json(changed))


def spent(**changes: Any) -> Callable[[fake.OpenAIServer], None]:
    return bend(with_json(lambda value: value | {"usage": value["usage"] | changes}))


EDIT = {"operation": "edit", "image": SOURCE, "prompt": "make it green"}

ROWS = [
    Row("text to image", None, billed="yes", cost=USUAL),
    Row("older model", None, billed="yes", cost=47_580, model={"version": "gpt-image-1.5"},
        request={"width": 500, "height": 300}),
    Row("low quality", None, billed="yes", cost=8_220, request={"params": {"quality": "low"}}),
    Row("edit", None, billed="yes", cost=34_329, request=EDIT),
    Row(
        "edit with a mask",
        None,
        billed="yes",
        cost=34_329,
        request=EDIT | {"mask": encoded(decoded(SOURCE))},
    ),
    Row(
        "tokens without details",
        None,
        spent(input_tokens_details=None, output_tokens_details=None),
        billed="yes",
        cost=USUAL,
    ),
    # Refusals
    Row("prompt refused", F.REFUSAL, fails("moderation_input"), says="400: .*safety system"),
    Row(
        "picture refused after it was drawn",
        F.REFUSAL,
        fails("moderation_output"),
        billed="unknown",
        cost=worst(),
        says="safety_violations",
    ),
    Row("policy of old", F.REFUSAL, fails("content_policy")),
    Row("edit refused", F.REFUSAL, fails("moderation_input"), request=EDIT),
    Row(
        "refusal under 200",
        F.REFUSAL,
        bend(says(200, fake.error(200, "not allowed", "content_policy_violation"))),
        billed="unknown",
        cost=worst(),
    ),
    # Account and money
    Row("wrong key", F.AUTH, key="sk-wrong-0123456789", says="401: Incorrect API key"),
    Row("no key", F.AUTH, key=None, says="401: Missing bearer"),
    Row("organisation not verified", F.AUTH, fails("unverified"), says="403: .*verified"),
    Row("hard limit under 400", F.AUTH, fails("hard_limit"), says="hard limit"),
    # Pace
    Row("rate limit", F.THROTTLED, fails("rate_limit"), says="429: Rate limit"),
    Row("quota used up", F.THROTTLED, fails("quota"), retried=False, says="exceeded your current"),
    Row("rate limit, do not retry", F.THROTTLED, fails("no_retry"), retried=False),
    # The provider's faults
    Row("internal error", F.SERVER, fails("server"), says="HTTP 500: The server had"),
    Row("internal error, do not retry", F.SERVER, fails("server_no_retry"), retried=False),
    Row("overloaded", F.SERVER, fails("overloaded")),
    Row("gateway", F.SERVER, bend(gateway_page), says="502"),
    Row("request timeout", F.SERVER, fails("timeout_408")),
    Row("conflict", F.SERVER, fails("conflict")),
    Row("a 400 that asks to retry", F.SERVER, fails("loading"), says="400: .*loading"),
    # Bad requests
    Row("size refused", F.BAD_REQUEST, fails("invalid_size"), says="HTTP 400: Invalid value"),
    Row("too large", F.BAD_REQUEST, fails("too_large"), says="413"),
    Row("well-formed and rejected", F.BAD_REQUEST, fails("unprocessable")),
    Row("prompt too long", F.BAD_REQUEST, request={"prompt": "x" * 32_001}, says="too long"),
    Row("empty prompt", F.BAD_REQUEST, request={"prompt": ""}, says="Missing required"),
    Row("upload is no picture", F.BAD_REQUEST, request=EDIT | {"image": b"GIF89a?"}),
    Row("mask is no picture", F.BAD_REQUEST, request=EDIT | {"mask": b"no"}, says="mask"),
    Row("edit of nothing", F.BAD_REQUEST, request=EDIT | {"image": None}, says="needs a picture"),
    Row("unknown parameter", F.BAD_REQUEST, request={"params": {"seed": 1}}, says="'seed' is not"),
    Row("parameter out of range", F.BAD_REQUEST, request={"params": {"quality": "best"}}),
    Row("unknown dialect", F.BAD_REQUEST, model={"options": {"dialect": "azure"}}, says="azure"),
    Row("operation it has not", F.BAD_REQUEST, request={"operation": "upscale", "image": SOURCE}),
    Row(
        "address redirects",
        F.BAD_REQUEST,
        bend(says(307, {}, location="https://elsewhere.test")),
        says="redirects",
    ),
    # Gone
    Row("model shut down", F.RETIRED, model={"version": "gpt-image-1"}, says="deprecated"),
    Row("model never heard of", F.RETIRED, model={"version": "gpt-image-9"}, says="not exist"),
    Row(
        "model not found under 400",
        F.RETIRED,
        bend(says(400, fake.error(400, "no such model", "model_not_found"))),
    ),
    # Drift
    Row(
        "another model answers",
        F.DRIFT,
        field(model="gpt-image-1-mini"),
        billed="yes",
        cost=USUAL,
        says="pinned to 'gpt-image-2-2026-04-21', reported 'gpt-image-1-mini'",
    ),
    Row(
        "size ignored",
        F.DRIFT,
        field(size="1536x1024"),
        billed="yes",
        cost=USUAL,
        says="size '1024x1024' was asked for, '1536x1024' was used",
    ),
    Row(
        "quality ignored",
        F.DRIFT,
        field(quality="medium"),
        billed="yes",
        cost=60 + 4160 * 30,
        request={"params": {"quality": "high"}},
        says="quality 'high'",
    ),
    # What is no picture
    Row("no data", F.EMPTY, bend(with_json(fake.without_data)), billed="yes", cost=USUAL),
    Row("null as picture", F.EMPTY, data(lambda _: {"b64_json": None}), billed="yes", cost=USUAL),
    Row("empty address", F.EMPTY, data(lambda _: {"url": ""}), billed="yes", cost=USUAL),
    Row("data is no list", F.EMPTY, field(data={"b64_json": "aaaa"}), billed="yes", cost=USUAL),
    Row("entry is no object", F.MALFORMED, data(lambda _: 7), billed="yes", cost=USUAL),
    Row("bad base64", F.MALFORMED, data(fake.bad_base64), billed="yes", cost=USUAL, says="base64"),
    Row(
        "JSON as picture",
        F.MALFORMED,
        data(fake.text_as_picture),
        billed="yes",
        cost=USUAL,
        says="application/json",
    ),
    Row(
        "page under 200",
        F.MALFORMED,
        bend(page),
        billed="unknown",
        cost=worst(),
        says="text/html under HTTP 200",
    ),
    Row(
        "error under 200",
        F.MALFORMED,
        bend(says(200, fake.error(200, "worker died", None))),
        billed="unknown",
        cost=worst(),
        says="worker died",
    ),
    Row(
        "wrong media type",
        F.MALFORMED,
        bend(
            with_json(
                lambda value: value
                | {"output_format": None, "data": [{"b64_json": "AAECAwQFBgcICQ=="}]}
            )
        ),
        billed="yes",
        cost=USUAL,
        says="no picture",
    ),
    # Money
    Row(
        "no usage",
        F.COST_UNKNOWN,
        field(usage=None),
        billed="unknown",
        cost=worst(),
        says="did not say how many tokens",
    ),
    Row("usage is nonsense", F.COST_UNKNOWN, spent(output_tokens_details={"image_tokens": -5}),
        billed="unknown", cost=worst()),
    # The wire
    Row("body breaks off", F.TRANSPORT, bend(truncated), billed="unknown", cost=worst()),
    Row("connection lost", F.TRANSPORT, bend(reset), billed="unknown", cost=worst()),
    Row(
        "no answer",
        F.TRANSPORT,
        bend(silent),
        billed="unknown",
        cost=worst(),
        model={"limits": QUICK},
    ),
    Row(
        "body stalls",
        F.TRANSPORT,
        bend(stalled),
        billed="unknown",
        cost=worst(),
        model={"limits": QUICK},
        says="timed out",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row) -> None:
    key = fake.KEY if row.key == "as the fake wants it" else row.key
    with fake.OpenAIServer() as server:
        row.arrange(server)
        result = ask(server.url + "/v1", kite(gpt(**row.model), **row.request), key)
    check(row, result, key)


FOREIGN = "https://pictures.test/1.png"

#: A row with the flavour of the server.
COMPATIBLE = [
    ("vllm-omni", Row("text to image", None, billed="yes", cost=40_000)),
    ("sglang", Row("text to image", None, billed="yes", cost=40_000)),
    ("localai", Row("text to image", None, billed="yes", cost=40_000)),
    ("nim", Row("text to image", None, billed="yes", cost=40_000)),
    ("litellm", Row("stated cost", None, billed="yes", cost=33_600)),
    ("vllm-omni", Row("edit", None, billed="yes", cost=40_000, request=EDIT)),
    (
        "sglang",
        Row(
            "picture at an address",
            None,
            billed="yes",
            cost=40_000,
            model={"options": {"response_format": "url"}},
        ),
    ),
    (
        "localai",
        Row(
            "the server chooses",
            None,
            billed="yes",
            cost=40_000,
            model={"options": {"response_format": "none"}},
        ),
    ),
    (
        "litellm",
        Row(
            "stated cost of 0",
            None,
            bend(header(x_litellm_response_cost="0.0")),
            billed="yes",
            cost=40_000,
        ),
    ),
    (
        "litellm",
        Row(
            "stated cost is nonsense",
            F.COST_UNKNOWN,
            bend(header(x_litellm_response_cost="nan")),
            billed="unknown",
            cost=40_000,
            says="between",
        ),
    ),
    (
        "litellm",
        Row(
            "silent fallback",
            F.DRIFT,
            bend(
                header(x_litellm_attempted_fallbacks="1", x_litellm_model_group="cheap-one")
            ),
            billed="yes",
            cost=33_600,
            says="fell back to 'cheap-one'",
        ),
    ),
    (
        "litellm",
        Row(
            "refusal in LiteLLM's words",
            F.REFUSAL,
            bend(
                says(
                    400,
                    fake.error(
                        400,
                        "litellm.BadRequestError: litellm.ContentPolicyViolationError: "
                        "OpenAIException - rejected",
                        "400",
                    ),
                )
            ),
        ),
    ),
    (
        "litellm",
        Row(
            "budget used up",
            F.AUTH,
            bend(says(400, fake.error(400, "Budget has been exceeded!", "400", "budget_exceeded"))),
        ),
    ),
    (
        "vllm-omni",
        Row("address not served", F.BAD_REQUEST, says="'b64_json' is supported",
            model={"options": {"response_format": "url"}}),
    ),
    (
        "localai",
        Row(
            "a number as code",
            F.SERVER,
            bend(says(500, {"error": {"code": 500, "message": "no backend", "type": ""}})),
            says="HTTP 500: no backend",
        ),
    ),
    (
        "vllm-omni",
        Row(
            "detail as code",
            F.SERVER,
            bend(says(503, {"detail": "engine is dead"})),
            says="HTTP 503: engine is dead",
        ),
    ),
    (
        "vllm-omni",
        Row("seed told as another", F.DRIFT, data(lambda e: e | {"seed": 99}), billed="yes",
            cost=40_000, says="seed 7 .* '99' was used"),
    ),
    (
        "sglang",
        Row("another version told", F.DRIFT, field(model="Qwen/Qwen-Image-2512"), billed="yes",
            cost=40_000, says="reported 'Qwen/Qwen-Image-2512'"),
    ),
    (
        "sglang",
        Row("the asked name told", None, field(model="Qwen/Qwen-Image"), billed="yes",
            cost=40_000),
    ),
    (
        "sglang",
        Row(
            "picture at a foreign address",
            F.ASSET_URL,
            data(lambda _: {"url": FOREIGN}),
            billed="yes",
            cost=40_000,
            says="pictures.test.* nobody named",
        ),
    ),
    (
        "sglang",
        Row(
            "picture in the private network",
            F.ASSET_URL,
            data(lambda _: {"url": "http://169.254.169.254/latest/meta-data"}),
            billed="yes",
            cost=40_000,
        ),
    ),
    (
        "localai",
        Row(
            "picture is gone",
            F.ASSET_URL,
            data(lambda _: {"url": "/generated-images/gone.png"}),
            billed="yes",
            cost=40_000,
            says="404 for the finished picture",
        ),
    ),
    (
        "localai",
        Row("data address", None, data(
            lambda e: {"url": "data:image/png;base64," + e["b64_json"]}), billed="yes",
            cost=40_000),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flavour", "row"), COMPATIBLE, ids=[f"{flavour}-{row}" for flavour, row in COMPATIBLE]
)
def test_contract_of_compatible_servers(flavour: str, row: Row) -> None:
    key = fake.KEY if fake.FLAVOURS[flavour].needs_key else None
    with fake.OpenAIServer(flavour) as server:
        row.arrange(server)
        result = ask(server.url + "/v1", kite(open_model(**row.model), **row.request), key)
    check(row, result, key)


def test_a_request_in_the_words_of_openai() -> None:
    request = kite(gpt(), width=1280, height=720, params={"quality": "high"}, safety="off")
    with fake.OpenAIServer() as server:
        result = ask(server.url + "/v1", request, fake.KEY)
        (seen,) = server.requests
    assert seen.path == "/v1/images/generations"
    assert seen.headers["x-client-request-id"] == "ig-0123abcd"
    assert seen.json == {
        "model": SNAPSHOT,
        "prompt": PROMPT,
        "size": "1280x720",
        "quality": "high",
        "moderation": "low",
    }
    attempt = result.attempt
    assert size_of(result.image) == (1280, 720)
    assert (attempt.declared_mime, attempt.sniffed_mime) == ("image/png", "image/png")
    assert attempt.usage is not None
    assert (attempt.usage.text_in, attempt.usage.image_out) == (12, 3656)
    assert (attempt.cost_source, attempt.pin) == ("computed", "unsaid")
    assert attempt.provider_request_id == "req_1"


def test_a_compatible_server_gets_seed_and_parameters() -> None:
    model = open_model(options={"num_inference_steps": 30, "guidance_scale": 4.5})
    with fake.OpenAIServer("vllm-omni") as server:
        result = ask(server.url + "/v1", kite(model, width=500, height=300))
        (seen,) = server.requests
    assert seen.json == {
        "model": "Qwen/Qwen-Image",
        "prompt": PROMPT,
        "size": "500x300",
        "seed": 7,
        "num_inference_steps": 30,
        "guidance_scale": 4.5,
        "response_format": "b64_json",
    }
    assert "authorization" not in seen.headers
    assert size_of(result.image) == (500, 300)


def test_an_edit_carries_picture_and_mask() -> None:
    import cv2
    import numpy as np

    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 30:40] = 255
    request = kite(gpt(), **(EDIT | {"mask": encoded(mask)}))
    with fake.OpenAIServer() as server:
        ask(server.url + "/v1", request, fake.KEY)
        (seen,) = server.requests
    form = seen.form
    assert form is not None
    assert form["image"].data == SOURCE
    assert form["image"].filename == "image.png"
    sent = cv2.imdecode(np.frombuffer(form["mask"].data, np.uint8), cv2.IMREAD_UNCHANGED)
    # OpenAI repaints where the mask is transparent, we say white.
    assert sent.shape == (64, 64, 4)
    assert (sent[..., 3] == 255 - mask).all()
    assert "moderation" not in form


@pytest.mark.parametrize(
    ("flavour", "path", "with_key"),
    [("litellm", "/generated-images/0.png", True), ("localai", "/generated-images/0.png", False)],
)
def test_a_picture_at_the_own_address_is_fetched(flavour: str, path: str, with_key: bool) -> None:
    def moved(value: Any) -> Any:
        server.pictures[path] = SOURCE
        return value | {"data": [{"url": path}]}

    with fake.OpenAIServer(flavour) as server:
        server.bend(PATH + "generations", with_json(moved))
        result = ask(server.url + "/v1", kite(open_model()), fake.KEY if with_key else None)
        fetch = server.requests[-1]
    assert result.image == SOURCE
    assert (fetch.method, fetch.path) == ("GET", path)
    assert ("authorization" in fetch.headers) is with_key


def test_a_foreign_picture_never_sees_the_key() -> None:
    with fake.OpenAIServer("litellm") as other, fake.OpenAIServer("litellm") as server:
        other.pictures["/x.png"] = SOURCE
        server.bend(PATH, fake.with_data(lambda _: {"url": other.url + "/x.png"}))
        result = ask(server.url + "/v1", kite(open_model()), fake.KEY)
        (fetch,) = other.requests
    assert result.image == SOURCE
    assert "authorization" not in fetch.headers


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1"}, None),
        ({"retry-after-ms": "inf", "retry-after": "2"}, 2.0),
        ({}, None),
    ],
)
@pytest.mark.parametrize("name", ["quota", "server"])
def test_milliseconds_count_before_seconds(
    headers: dict[str, str], seconds: float | None, name: str
) -> None:
    def bent(reply: Any) -> Any:
        answer = fake.FAILURES[name](reply)
        return type(answer)(answer.status, answer.body, answer.headers | headers)

    with fake.OpenAIServer() as server:
        server.bend(PATH, bent)
        attempt = ask(server.url + "/v1", kite(gpt()), fake.KEY).attempt
    assert attempt.retry_after_s == seconds


def test_a_server_that_quotes_the_key_does_not_bring_it_into_the_record() -> None:
    said = fake.error(401, f"Incorrect API key provided: {fake.KEY}.", "invalid_api_key")
    with fake.OpenAIServer() as server:
        server.bend(PATH, says(401, said, x_request_id=fake.KEY))
        attempt = ask(server.url + "/v1", kite(gpt()), fake.KEY).attempt
    assert fake.KEY not in attempt.model_dump_json()
    assert "***" in attempt.message


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        {"data": [{"b64_json": {"a": 1}}]},
        {"data": [{"b64_json": "AAAA"}], "usage": [1, 2]},
        {"data": [{"url": 7}], "usage": {"input_tokens_details": "x", "output_tokens": 1e300}},
        {"data": [{"b64_json": "AAAA"}], "model": 5, "size": {}, "output_format": []},
    ],
    ids=str,
)
def test_hostile_answers_are_failures_and_never_raised(value: Any) -> None:
    with fake.OpenAIServer() as server:
        server.bend(PATH, lambda _reply: as_json(value))
        result = ask(server.url + "/v1", kite(gpt()), fake.KEY)
    assert result.image is None
    assert result.attempt.failure in (F.EMPTY, F.MALFORMED)


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize(
    "value",
    [[], {"error": []}, {"error": {"message": [], "code": {}, "type": 3}}, {"detail": [None, 1]}],
    ids=json.dumps,
)
def test_hostile_errors_are_classed_by_their_status(status: int, value: Any) -> None:
    with fake.OpenAIServer() as server:
        server.bend(PATH, says(status, value))
        attempt = ask(server.url + "/v1", kite(gpt()), fake.KEY).attempt
    expected = {400: F.BAD_REQUEST, 429: F.THROTTLED, 500: F.SERVER}[status]
    assert (attempt.failure, attempt.cost_microusd) == (expected, 0)


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ((1024, 1024), (1024, 1024)),
        ((512, 512), (816, 816)),
        ((512, 288), (1088, 608)),
        ((1000, 700), (1008, 704)),
        ((2000, 100), (2000, 672)),
        ((8000, 8000), (2880, 2880)),
    ],
)
def test_sizes_that_gpt_image_2_draws(asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    provider = OpenAIProvider("https://api.openai.com/v1", None)
    model = gpt(options={})
    size = provider.asked_size(kite(model, width=asked[0], height=asked[1]))
    assert size == drawn
    assert size[0] * size[1] >= LEAST_PIXELS
    assert max(size) / min(size) <= 3
    assert size[0] % 16 == size[1] % 16 == 0


def test_older_models_draw_three_sizes() -> None:
    provider = OpenAIProvider("https://api.openai.com/v1", None)
    entry = gpt(version="gpt-image-1.5-2025-12-16")
    sizes = [(512, 512), (1920, 1080), (600, 900)]
    drawn = [provider.asked_size(kite(entry, width=w, height=h)) for w, h in sizes]
    assert drawn == [(1024, 1024), (1536, 1024), (1024, 1536)]


def test_a_size_large_enough_stays_as_it_is() -> None:
    assert large_enough(1024, 1024, LEAST_PIXELS) == (1024, 1024)
    assert large_enough(3000, 10, 1) == (3000, 1000)


def served(url: str, *models: Model, key: str | None = fake.KEY) -> dict[str, ServedModel]:
    async def drive() -> dict[str, ServedModel]:
        provider = OpenAIProvider(url + "/v1", None if key is None else SecretStr(key))
        async with httpx.AsyncClient() as client:
            return await provider.served(client, models)

    return asyncio.run(drive())


def test_the_list_of_models_tells_what_is_served_and_until_when() -> None:
    live, dying = gpt(name="live"), gpt(name="dying", version="gpt-image-1.5")
    alias = gpt(name="alias", version="2026-09", id="gpt-image-2", pin="alias")
    with fake.OpenAIServer() as server:
        found = served(server.url, live, dying, alias, gpt(name="dead", version="gpt-image-1"))
        assert served(server.url) == {}
    assert set(found) == {"live", "dying", "alias"}
    assert (found["live"].version, found["live"].retires) == (SNAPSHOT, None)
    assert found["dying"].retires == "2026-12-01"
    assert found["alias"].version is None


def test_a_server_without_a_list_says_so() -> None:
    with fake.OpenAIServer("vllm-omni") as server:
        server.bend("/models", says(404, {"detail": "Not Found"}))
        found = served(server.url, open_model(), key=None)
    assert found == {"m": ServedModel(name="m", version=None, known=False)}


@pytest.mark.parametrize(
    ("change", "key", "why"),
    [
        (page, fake.KEY, "expected JSON"),
        (says(200, {"models": []}), fake.KEY, "list 'data'"),
        (reset, fake.KEY, "is the server running"),
        (None, "sk-wrong", "HTTP 401"),
    ],
)
def test_a_server_that_cannot_tell_is_an_error(change: Bend | None, key: str, why: str) -> None:
    with fake.OpenAIServer() as server:
        if change is not None:
            server.bend("/models", change)
        with pytest.raises(GateError, match=why):
            served(server.url, gpt(), key=key)
