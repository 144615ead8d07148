"""The adapter of Gemini image models against the fake of the Gemini API and of Vertex."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import GateError
from tasks.mix.catalog import Limits, Model, Price, TokenPrices
from tasks.providers import gemini
from tasks.providers.base import CannotAsk, GenerationRequest, ServedModel
from tasks.providers.gemini import GeminiProvider
from tasks.providers.google import seconds_of
from tasks.records import FailureClass
from tests.fakes import gemini_server as fake
from tests.fakes.contract import Row, a_model, a_request, ask, check
from tests.fakes.http_fake import (
    Bend,
    as_json,
    gateway_page,
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

PATH = ":generateContent"
NAME = "gemini-nano-banana-2.1"
PROMPT = "a red kite"
SOURCE = picture(64, 64, "source")
VERTEX = "/v1/projects/p-1/locations/us-central1/publishers/google"
#: Long enough to connect on a busy machine.
QUICK = Limits(timeout_s=1.0)
#: What an ordinary picture of 1K costs: 3 tokens of prompt, 1,120 of picture, 140 of text.
USUAL = 34_655
#: What a blocked prompt of 9 tokens costs.
BLOCKED = 14
WORST = 150_000 + 15
F = FailureClass


def model(**fields: Any) -> Model:
    table = TokenPrices(text_in=1.5, image_in=1.5, text_out=7.5, image_out=30)
    usual: dict[str, Any] = {
        "protocol": "gemini",
        "version": NAME,
        "pin": "dated",
        "operations": ("generate", "edit"),
        "price": Price(usd=0.15, per="token", tokens=table, source="t", date=date(2026, 11, 1)),
    }
    return a_model(**(usual | fields))


def kite(**fields: Any) -> GenerationRequest:
    changes = fields.pop("model", {})
    return a_request(model(**changes), **({"prompt": PROMPT} | fields))


def bend(*bends: Bend) -> Callable[[fake.GeminiServer], None]:
    return lambda server: server.bend(PATH, *bends)


def fails(name: str) -> Callable[[fake.GeminiServer], None]:
    return bend(fake.FAILURES[name])


def ended(reason: str, message: str | None = None) -> Callable[[fake.GeminiServer], None]:
    return bend(fake.finished(reason, message))


def field(**changes: Any) -> Callable[[fake.GeminiServer], None]:
    """Change fields of the answer; ``None`` takes one out."""

    def changed(value: Any) -> Any:
        return {k: v for k, v in (value | changes).items() if v is not None}

    return bend(with_json(changed))


def used(**changes: Any) -> Callable[[fake.GeminiServer], None]:
    """Change the counts of tokens; ``None`` takes one out."""

    def changed(value: Any) -> Any:
        counts = value["usageMetadata"] | changes
        return value | {"usageMetadata": {k: v for k, v in counts.items() if v is not None}}

    return bend(with_json(changed))


EDIT = {"operation": "edit", "image": SOURCE, "prompt": "make it green"}
PAID: dict[str, Any] = {"billed": "yes", "cost": USUAL}

ROWS = [
    Row("text to image", None, **PAID),
    Row("edit", None, billed="yes", cost=35_043, request=EDIT),
    Row("tokens without details", None, used(candidatesTokensDetails=None, promptTokensDetails=None,
        candidatesTokenCount=1120), billed="yes", cost=34_355),
    Row("no thoughts", None, used(thoughtsTokenCount=None), billed="yes", cost=33_905),
    Row("an old name of the model", None, field(modelVersion=f"models/{NAME}"), **PAID),
    Row("no version told", None, field(modelVersion=None), **PAID),
    Row("a reason to end that nobody knows", None,
        bend(fake.with_candidate(lambda c: c | {"finishReason": "NEW"})), **PAID),
    Row("cut off after its picture", None,
        bend(fake.with_candidate(lambda c: c | {"finishReason": "MAX_TOKENS"})), **PAID),
    # Refusals
    *(
        Row(f"ended {reason}", F.REFUSAL, ended(reason), says=f"refused \\({reason}\\)", **PAID)
        for reason in sorted(gemini.REFUSALS - {"JAILBREAK"})
    ),
    Row("refusal in words", F.REFUSAL, ended("IMAGE_SAFETY", "Unable to show the picture."),
        says="IMAGE_SAFETY: Unable to show", **PAID),
    Row("refusal beside a picture", F.REFUSAL,
        bend(fake.with_candidate(lambda c: c | {"finishReason": "IMAGE_SAFETY"})), **PAID),
    *(
        Row(f"prompt blocked {reason}", F.REFUSAL, bend(fake.blocked(reason)), billed="yes",
            cost=BLOCKED, says=f"prompt was blocked \\({reason}\\)")
        for reason in ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY",
                       "MODEL_ARMOR", "JAILBREAK")
    ),
    Row("refusal under 400", F.REFUSAL,
        bend(says(400, fake.error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.",
                                  fake.info("PUBLIC_ERROR_UNSAFE_GENERATION"))))),
    Row("edit refused", F.REFUSAL, ended("IMAGE_SAFETY"), billed="yes", cost=35_043, request=EDIT),
    # Empty, cut off, failed
    Row("no image", F.EMPTY, ended("NO_IMAGE"), says="NO_IMAGE", **PAID),
    Row("stop without image", F.EMPTY, ended("STOP"), says="no picture.*STOP", **PAID),
    Row("words in place of a picture", F.EMPTY, bend(fake.parts({"text": "I cannot draw that."})),
        says="I cannot draw that", **PAID),
    Row("no candidates", F.EMPTY, field(candidates=[]), **PAID),
    *(
        Row(f"ended {reason}", F.MALFORMED, ended(reason), says=f"cut off .*{reason}", **PAID)
        for reason in sorted(gemini.CUT)
    ),
    Row("cut off with a draft alone", F.MALFORMED,
        bend(fake.with_candidate(lambda _: {
            "finishReason": "MAX_TOKENS",
            "content": {"parts": [fake.inline(SOURCE, thought=True)]}})), **PAID),
    *(
        Row(f"ended {reason}", F.SERVER, ended(reason), says=f"failed \\({reason}", **PAID)
        for reason in sorted(gemini.FAULTS)
    ),
    Row("account limited", F.AUTH, ended("PUP_LIMITED_DISABLED"), **PAID),
    Row("language", F.BAD_REQUEST, ended("LANGUAGE"), **PAID),
    # Account
    Row("wrong key under 400", F.AUTH, key="AIzaSy-wrong-0123456789", says="API key not valid"),
    Row("no key", F.AUTH, key=None, says="unregistered callers"),
    Row("country not served", F.AUTH, fails("location"), says="location is not supported"),
    Row("token expired", F.AUTH, fails("token_expired")),
    Row("forbidden", F.AUTH, fails("forbidden")),
    # Pace
    Row("quota of the minute", F.THROTTLED, fails("minute"), says="429: RESOURCE_EXHAUSTED: You"),
    Row("quota of the day", F.THROTTLED, fails("daily"), retried=False),
    Row("limit of 0", F.THROTTLED, fails("limit_zero"), retried=False),
    Row("credits used up", F.THROTTLED,
        bend(says(429, fake.error(429, "RESOURCE_EXHAUSTED",
                                  "Your prepayment credits are depleted."))), retried=False),
    Row("quota of the day in the metadata", F.THROTTLED,
        bend(says(429, fake.error(429, "RESOURCE_EXHAUSTED", "Quota exceeded",
                                  fake.info("RATE_LIMIT_EXCEEDED", quota_limit="ImagesPerDay")))),
        retried=False),
    Row("no capacity", F.THROTTLED, fails("capacity"), says="No capacity"),
    Row("429 without details", F.THROTTLED, fails("plain_429")),
    Row("429 in a list", F.THROTTLED, fails("in_a_list"), says="try again later"),
    # The provider's faults
    Row("internal error", F.SERVER, fails("internal"), says="500: INTERNAL: An internal"),
    Row("overloaded", F.SERVER, fails("overloaded")),
    Row("deadline", F.SERVER, fails("deadline")),
    Row("cancelled", F.SERVER, fails("cancelled"), says="499"),
    Row("gateway", F.SERVER, bend(gateway_page), says="502"),
    # Bad requests
    Row("argument refused", F.BAD_REQUEST, fails("bad_argument")),
    Row("upload is no picture", F.BAD_REQUEST, request=EDIT | {"image": b"GIF89a?"},
        says="process input image"),
    Row("edit of nothing", F.BAD_REQUEST, request=EDIT | {"image": None}, says="needs a picture"),
    Row("unknown parameter", F.BAD_REQUEST, request={"params": {"topK": 4}}, says="'topK' is noth"),
    Row("parameter out of range", F.BAD_REQUEST, request={"params": {"temperature": 3}}),
    Row("operation it has not", F.BAD_REQUEST, request={"operation": "upscale", "image": SOURCE}),
    Row("address redirects", F.BAD_REQUEST,
        bend(says(302, {}, location="https://elsewhere.test")), says="redirects"),
    # Gone
    Row("model shut down", F.RETIRED, model={"version": "gemini-3-pro-image-preview"},
        says="not found for API version"),
    # Drift
    Row("another model answers", F.DRIFT,
        lambda s: s.rerouted.update({NAME: "gemini-2.5-flash-image"}),
        says=f"pinned to '{NAME}', reported 'gemini-2.5-flash-image'", **PAID),
    Row("another model refuses", F.DRIFT,
        bend(with_json(lambda v: fake_refusal(v) | {"modelVersion": "gemini-x"})), **PAID),
    # What is no picture
    Row("bad base64", F.MALFORMED, bend(fake.parts({"inlineData": {"mimeType": "image/png",
        "data": "§§§§"}})), says="base64", **PAID),
    Row("page as picture", F.MALFORMED, bend(fake.parts(fake.inline(b"<html>no</html>"))),
        says="text/html", **PAID),
    Row("wrong media type", F.MALFORMED, bend(fake.parts(fake.inline(b"\x00\x01", "video/mp4"))),
        says="video/mp4", **PAID),
    Row("page under 200", F.MALFORMED, bend(page), billed="unknown", cost=WORST,
        says="text/html under HTTP 200"),
    Row("error under 200", F.MALFORMED, bend(says(200, fake.error(500, "INTERNAL", "oops"))),
        billed="unknown", cost=WORST),
    # Money
    Row("no usage", F.COST_UNKNOWN, field(usageMetadata=None), billed="unknown", cost=WORST,
        says="did not say how many tokens"),
    Row("usage is nonsense", F.COST_UNKNOWN, used(candidatesTokenCount="many"), billed="unknown",
        cost=WORST),
    # The wire
    Row("body breaks off", F.TRANSPORT, bend(truncated), billed="unknown", cost=WORST),
    Row("connection lost", F.TRANSPORT, bend(reset), billed="unknown", cost=WORST),
    Row("no answer", F.TRANSPORT, bend(silent), billed="unknown", cost=WORST,
        model={"limits": QUICK}),
    Row("body stalls", F.TRANSPORT, bend(stalled), billed="unknown", cost=WORST,
        model={"limits": QUICK}),
]  # fmt: skip


def fake_refusal(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"candidates": [{"finishReason": "SAFETY", "index": 0}]}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row) -> None:
    key = fake.KEY if row.key == "as the fake wants it" else row.key
    with fake.GeminiServer() as server:
        row.arrange(server)
        result = ask(server.url + "/v1beta", kite(model=row.model, **row.request), key)
    check(row, result, key)


def test_every_reason_to_end_of_the_sdk_has_a_meaning() -> None:
    types = pytest.importorskip("google.genai.types", reason="google-genai is not installed")
    known = gemini.REFUSALS | gemini.CUT | gemini.FAULTS | {"NO_IMAGE", "STOP", "LANGUAGE"}
    known |= {"PUP_LIMITED_DISABLED", "FINISH_REASON_UNSPECIFIED"}
    assert {reason.value for reason in types.FinishReason} <= known


def test_a_request_in_the_words_of_gemini() -> None:
    params = {"thinking_level": "minimal", "temperature": 0.5}
    request = kite(width=1920, height=1080, seed=2**40 + 5, params=params)
    with fake.GeminiServer() as server:
        result = ask(server.url + "/v1beta", request, fake.KEY)
        (seen,) = server.requests
    assert seen.path == f"/v1beta/models/{NAME}:generateContent"
    assert seen.headers["x-goog-api-key"] == fake.KEY
    assert "authorization" not in seen.headers
    body = seen.json
    assert body["contents"] == [{"role": "user", "parts": [{"text": PROMPT}]}]
    assert body["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
        "seed": 5,
        "temperature": 0.5,
        "thinkingConfig": {"thinkingLevel": "MINIMAL"},
    }
    assert {each["threshold"] for each in body["safetySettings"]} == {"BLOCK_MEDIUM_AND_ABOVE"}
    assert len(body["safetySettings"]) == 4
    assert size_of(result.image) == (2752, 1536)
    attempt = result.attempt
    assert (attempt.model_reported, attempt.pin) == (NAME, "held")
    assert (attempt.cost_source, attempt.finish_reason) == ("computed", "STOP")
    assert attempt.provider_request_id == "resp-1"
    assert attempt.usage is not None
    assert (attempt.usage.text_in, attempt.usage.image_in) == (3, 0)
    assert (attempt.usage.text_out, attempt.usage.image_out) == (140, 1680)
    assert attempt.usage.raw["totalTokenCount"] == 3 + 1680 + 140


def test_vertex_takes_a_bearer_token() -> None:
    with fake.GeminiServer() as server:
        result = ask(server.url + VERTEX, kite(), fake.TOKEN)
        (seen,) = server.requests
    assert result.image is not None
    assert seen.path == f"{VERTEX}/models/{NAME}:generateContent"
    assert seen.headers["authorization"] == f"Bearer {fake.TOKEN}"
    assert "x-goog-api-key" not in seen.headers


def test_an_edit_carries_its_picture_before_the_prompt() -> None:
    with fake.GeminiServer() as server:
        ask(server.url + "/v1beta", kite(**EDIT), fake.KEY)
        (seen,) = server.requests
    first, second = seen.json["contents"][0]["parts"]
    assert base64.b64decode(first["inlineData"]["data"]) == SOURCE
    assert first["inlineData"]["mimeType"] == "image/png"
    assert second == {"text": "make it green"}


def test_safety_can_be_switched_off_by_a_stage() -> None:
    with fake.GeminiServer() as server:
        ask(server.url + "/v1beta", kite(safety="off"), fake.KEY)
        (seen,) = server.requests
    assert {each["threshold"] for each in seen.json["safetySettings"]} == {"OFF"}


DRAFT, OTHER, LAST = (picture(16, 16, name) for name in ("draft", "other", "last"))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([fake.inline(OTHER), {"text": "better:"}, fake.inline(LAST)], LAST),
        ([fake.inline(DRAFT, thought=True), fake.inline(LAST)], LAST),
        ([fake.inline(LAST), fake.inline(DRAFT, thought=True)], LAST),
        ([fake.inline(OTHER, thought=True), fake.inline(DRAFT, thought=True)], DRAFT),
        ([{"inline_data": {"mime_type": "image/png", "data": base64.b64encode(LAST).decode()}}],
         LAST),
        ([{"inlineData": {"mimeType": "image/png",
                          "data": base64.urlsafe_b64encode(LAST).decode()}}], LAST),
    ],
    ids=["last-wins", "no-draft", "draft-after", "draft-alone", "snake-case", "url-safe"],
)  # fmt: skip
def test_which_picture_counts(parts: list[dict[str, Any]], expected: bytes) -> None:
    with fake.GeminiServer() as server:
        server.bend(PATH, fake.parts(*parts))
        result = ask(server.url + "/v1beta", kite(), fake.KEY)
    assert result.image == expected
    assert result.attempt.declared_mime == "image/png"


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("minute", 17.837906927), ("in_a_list", 5.0), ("overloaded", 40.0), ("capacity", None)],
)
def test_the_wait_stands_in_the_body(name: str, seconds: float | None) -> None:
    with fake.GeminiServer() as server:
        server.bend(PATH, fake.FAILURES[name])
        attempt = ask(server.url + "/v1beta", kite(), fake.KEY).attempt
    assert attempt.retry_after_s == seconds


@pytest.mark.parametrize("text", ["1e9s", "s", "-1s", "17", "1.s", "٣s", None, 17, "9" * 40 + "s"])
def test_a_wait_that_is_none(text: object) -> None:
    assert seconds_of(text) is None


def test_what_google_says_of_the_model_stays_in_the_record() -> None:
    status = {"modelStage": "DEPRECATED", "retirementTime": "2026-12-24T00:00:00Z"}
    with fake.GeminiServer() as server:
        server.bend(PATH, with_json(lambda value: value | {"modelStatus": status}))
        attempt = ask(server.url + "/v1beta", kite(), fake.KEY).attempt
    assert attempt.usage is not None
    assert attempt.usage.raw["modelStatus"] == status


def test_an_alias_may_move_and_the_record_says_so() -> None:
    with fake.GeminiServer() as server:
        server.rerouted[NAME] = "gemini-nano-banana-2.2"
        result = ask(server.url + "/v1beta", kite(model={"pin": "alias"}), fake.KEY)
    assert result.image is not None
    assert (result.attempt.pin, result.attempt.model_reported) == (
        "moved",
        "gemini-nano-banana-2.2",
    )


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        {"candidates": {}},
        {"candidates": [7]},
        {"candidates": [{"content": {"parts": [None, 7, {"inlineData": "x"}]}}]},
        {"candidates": [{"content": []}], "usageMetadata": []},
        {"candidates": [{"content": {"parts": [{"inlineData": {"data": 7}}]}}]},
        {"promptFeedback": "no", "usageMetadata": {"promptTokensDetails": [1, {"modality": []}]}},
        {"usageMetadata": {"candidatesTokenCount": 1e400, "promptTokenCount": True}},
    ],
    ids=range(9),
)
def test_hostile_answers_are_failures_and_never_raised(value: Any) -> None:
    with fake.GeminiServer() as server:
        server.bend(PATH, lambda _reply: as_json(value))
        result = ask(server.url + "/v1beta", kite(), fake.KEY)
    assert result.image is None
    assert result.attempt.failure in (F.EMPTY, F.MALFORMED)


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize(
    "value",
    [
        [],
        [[]],
        {"error": "text"},
        {"error": {"message": [], "status": 4, "details": {}}},
        {"error": {"details": [1, {"@type": 7}, {"@type": fake.RETRY, "retryDelay": []}]}},
        {"error": {"details": [{"@type": fake.QUOTA, "violations": [None, {"quotaId": 1}]}]}},
    ],
    ids=json.dumps,
)
def test_hostile_errors_are_classed_by_their_status(status: int, value: Any) -> None:
    with fake.GeminiServer() as server:
        server.bend(PATH, says(status, value))
        attempt = ask(server.url + "/v1beta", kite(), fake.KEY).attempt
    expected = {400: F.BAD_REQUEST, 429: F.THROTTLED, 500: F.SERVER}[status]
    assert (attempt.failure, attempt.cost_microusd, attempt.finish_reason) == (expected, 0, None)


@pytest.mark.parametrize(
    ("name", "asked", "drawn"),
    [
        (NAME, (1024, 1024), (1024, 1024)),
        (NAME, (512, 512), (1024, 1024)),
        (NAME, (1200, 675), (1376, 768)),
        (NAME, (1080, 1350), (1856, 2304)),
        (NAME, (3000, 3000), (4096, 4096)),
        (NAME, (5000, 5000), (4096, 4096)),
        ("gemini-3.1-flash-lite-image", (3000, 3000), (1024, 1024)),
    ],
)
def test_sizes_that_gemini_draws(name: str, asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    provider = GeminiProvider("https://generativelanguage.googleapis.com/v1beta", None)
    request = a_request(model(version=name), width=asked[0], height=asked[1])
    assert provider.asked_size(request) == drawn
    assert gemini.named_size(*drawn)[0] in gemini.ASPECTS


def test_the_catalog_may_name_other_sizes() -> None:
    provider = GeminiProvider("https://generativelanguage.googleapis.com/v1beta", None)
    entry = model(version="gemini-next", options={"image_sizes": ["1K", "2K"]})
    assert provider.asked_size(a_request(entry, width=2000, height=2000)) == (2048, 2048)
    with pytest.raises(CannotAsk, match="no pictures of 17x17"):
        gemini.named_size(17, 17)


def served(url: str, *models: Model, key: str = fake.KEY) -> dict[str, ServedModel]:
    async def drive() -> dict[str, ServedModel]:
        provider = GeminiProvider(url, SecretStr(key))
        async with httpx.AsyncClient() as client:
            return await provider.served(client, models)

    return asyncio.run(drive())


def test_the_models_are_asked_for_by_name() -> None:
    gone = model(name="gone", version="gemini-3-pro-image-preview")
    with fake.GeminiServer() as server:
        found = served(server.url + "/v1beta", model(), gone)
        assert served(server.url + "/v1beta") == {}
        vertex = served(server.url + VERTEX, model(), gone, key=fake.TOKEN)
        paths = server.paths()
    assert found == vertex == {"m": ServedModel(name="m", version=NAME)}
    assert paths[0] == f"GET /v1beta/models/{NAME}"
    # Vertex tells about models outside of any project.
    assert paths[-2] == f"GET /v1/publishers/google/models/{NAME}"


@pytest.mark.parametrize(
    ("change", "key", "why"),
    [(page, fake.KEY, "expected JSON"), (reset, fake.KEY, "running"), (None, "AIza-x", "HTTP 400")],
)
def test_a_service_that_cannot_tell_is_an_error(change: Bend | None, key: str, why: str) -> None:
    with fake.GeminiServer() as server:
        if change is not None:
            server.bend("/models", change)
        with pytest.raises(GateError, match=why):
            served(server.url + "/v1beta", model(), key=key)


def test_a_service_that_quotes_the_key_does_not_bring_it_into_the_record() -> None:
    quoted = base64.b64encode(fake.TOKEN.encode()).decode()
    said = fake.error(401, "UNAUTHENTICATED", f"bad token {fake.TOKEN} ({quoted})")
    with fake.GeminiServer() as server:
        server.bend(PATH, says(401, said))
        attempt = ask(server.url + VERTEX, kite(), fake.TOKEN).attempt
    record = attempt.model_dump_json()
    assert fake.TOKEN not in record
    assert quoted[:40] not in record
