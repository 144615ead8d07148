"""Stability's adapter against the fake of its API."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import CannotAsk
from tasks.providers.stability import MOST_SEED, StabilityProvider, seed_for
from tasks.records import FailureClass
from tests.fakes.contract import Row, Time, a_model, a_request, ask, check
from tests.fakes.http_fake import (
    body,
    decoded,
    empty,
    encoded,
    gateway_page,
    header,
    page,
    picture,
    reset,
    same,
    says,
    silent,
    size_of,
    squares,
    stalled,
    truncated,
)
from tests.fakes.stability_server import BLURRED, CREDITS, FLAGGED, KEY, StabilityServer

SD3, FAST = "/generate/sd3", "/upscale/fast"
CREATIVE, RESULT = "/upscale/creative", "/v2beta/results/"
SOURCE = picture(256, 256, "source")
QUICK = Limits(timeout_s=0.4)
F = FailureClass


def model(version: str = "sd3.5-large-turbo", **fields: Any) -> Model:
    price = Price(
        usd=0.01,
        per="credit",
        credits=CREDITS.get(version, 1.0),
        source="test",
        date=date(2026, 1, 1),
    )
    usual: dict[str, Any] = {"protocol": "stability", "version": version, "price": price}
    return a_model(**(usual | fields))


def upscale(name: str, size: int = 1024) -> dict[str, Any]:
    params = {"scale": 4 if name == "fast" else 8}
    return {
        "model_name": name,
        "operation": "upscale",
        "image": SOURCE,
        "width": size,
        "height": size,
        "params": params,
    }


EDIT = {"operation": "edit", "image": SOURCE, "params": {"strength": 0.25}}
JOB = upscale("creative")
LOST = {"id": "0", "name": "not_found", "errors": ["id: does not exist or has expired"]}

ROWS = [
    Row("text to image", None, billed="yes", cost=40_000),
    Row("large", None, billed="yes", cost=65_000, request={"model_name": "sd3.5-large"}),
    Row("medium", None, billed="yes", cost=35_000, request={"model_name": "sd3.5-medium"}),
    Row("image to image", None, billed="yes", cost=40_000, request=EDIT),
    Row("upscale fast", None, billed="yes", cost=20_000, request=upscale("fast")),
    Row("upscale conservative", None, billed="yes", cost=400_000, request=upscale("conservative")),
    Row("upscale creative", None, billed="yes", cost=600_000, request=JOB),
    Row(
        "a look that is lost does not lose the job",
        None,
        lambda s: s.bend(RESULT, reset, gateway_page, truncated, says(429, {}), same),
        billed="yes",
        cost=600_000,
        request=JOB,
    ),
    # Refusals
    Row("prompt flagged", F.REFUSAL, request={"prompt": FLAGGED}, says="403: .*moderation"),
    Row(
        "picture blurred under 200",
        F.REFUSAL,
        billed="yes",
        cost=40_000,
        request={"prompt": BLURRED},
        says="blurred.*CONTENT_FILTERED",
    ),
    Row("edit flagged", F.REFUSAL, request=EDIT | {"prompt": FLAGGED}),
    Row(
        "job ends blurred",
        F.REFUSAL,
        billed="yes",
        cost=600_000,
        request=JOB | {"prompt": BLURRED},
    ),
    Row(
        "job refused at a look",
        F.REFUSAL,
        lambda s: s.bend(
            RESULT, says(403, {"id": "1", "name": "content_moderation", "errors": ["flagged"]})
        ),
        request=JOB,
    ),
    # Account
    Row("wrong key", F.AUTH, key="sk-wrong-0123456789", says="401: invalid api key: \\*\\*\\*"),
    Row("no key", F.AUTH, key=None, says="missing authorization"),
    Row("no credits", F.AUTH, lambda s: setattr(s, "credit", 1.0), says="402: .*credits"),
    Row(
        "other 403",
        F.AUTH,
        lambda s: s.bend(SD3, says(403, {"id": "1", "name": "forbidden", "errors": ["no"]})),
    ),
    # Pace
    Row(
        "more than 150 requests in 10 s",
        F.THROTTLED,
        lambda s: s._calls.extend([s.clock()] * 150),
        says="429: .*150 requests",
    ),
    # The provider's faults
    Row(
        "internal error",
        F.SERVER,
        lambda s: s.bend(SD3, says(500, {"id": "1", "name": "internal_error", "errors": ["x"]})),
        says="HTTP 500: x",
    ),
    Row("gateway", F.SERVER, lambda s: s.bend(SD3, gateway_page)),
    Row(
        "finish reason ERROR",
        F.SERVER,
        lambda s: s.bend(SD3, header(finish_reason="ERROR")),
        billed="unknown",
        cost=40_000,
    ),
    Row(
        "job never ends",
        F.SERVER,
        lambda s: setattr(s, "polls", 10**9),
        billed="unknown",
        cost=600_000,
        request=JOB,
        says="had not ended after",
    ),
    Row(
        "job expired",
        F.SERVER,
        lambda s: s.bend(RESULT, same, says(404, LOST)),
        billed="unknown",
        cost=600_000,
        request=JOB,
        says="404: the job is gone: id: does not exist or has expired",
    ),
    # Bad requests
    Row(
        "field refused",
        F.BAD_REQUEST,
        lambda s: s.bend(
            SD3, says(400, {"id": "1", "name": "bad_request", "errors": ["seed: bad", "a: b"]})
        ),
        says="HTTP 400: seed: bad; a: b",
    ),
    Row(
        "well-formed and rejected",
        F.BAD_REQUEST,
        lambda s: s.bend(SD3, says(422, {"id": "1", "name": "x", "errors": ["language"]})),
    ),
    Row("upload too large", F.BAD_REQUEST, request=EDIT | {"image": bytes(11 * 2**20)}, says="413"),
    Row("upload is no picture", F.BAD_REQUEST, request=EDIT | {"image": b"GIF89a?"}),
    Row("upload too small", F.BAD_REQUEST, request=EDIT | {"image": picture(32, 32, "s")}),
    Row("empty prompt", F.BAD_REQUEST, request={"prompt": ""}),
    Row("unknown parameter", F.BAD_REQUEST, request={"params": {"sede": 1}}, says="'sede' is noth"),
    Row("parameter out of range", F.BAD_REQUEST, request={"params": {"cfg_scale": 11}}),
    Row("operation it has not", F.BAD_REQUEST, request=EDIT | {"model_name": "fast"}),
    Row("larger than it brings", F.BAD_REQUEST, request=upscale("fast", 2048), says="about 1024x1"),
    Row(
        "address redirects",
        F.BAD_REQUEST,
        lambda s: s.bend(SD3, says(302, {}, location="https://elsewhere.test")),
        says="redirects",
    ),
    # Gone
    Row("model it has not", F.BAD_REQUEST, request={"model_name": "sd3-medium"}, says="cannot"),
    Row(
        "model no longer allowed",
        F.RETIRED,
        lambda s: s.bend(
            SD3, says(400, {"id": "1", "name": "bad_request", "errors": ["model: must be one of"]})
        ),
    ),
    Row("endpoint gone", F.RETIRED, lambda s: s.bend(SD3, says(404, LOST))),
    # Drift
    Row(
        "seed ignored",
        F.DRIFT,
        lambda s: s.bend(SD3, header(seed="12345")),
        billed="yes",
        cost=40_000,
        says="seed 7 .* '12345' was used",
    ),
    Row(
        "seed is no number",
        F.DRIFT,
        lambda s: s.bend(SD3, header(seed="random")),
        billed="yes",
        cost=40_000,
    ),
    Row(
        "seed ignored by a job",
        F.DRIFT,
        lambda s: s.bend(RESULT, same, same, header(seed="1")),
        billed="yes",
        cost=600_000,
        request=JOB,
    ),
    # What is no picture
    Row(
        "page under 200",
        F.MALFORMED,
        lambda s: s.bend(SD3, page),
        billed="yes",
        cost=40_000,
        says="text/html",
    ),
    Row(
        "JSON as picture",
        F.MALFORMED,
        lambda s: s.bend(SD3, body(b'{"ok": true}')),
        billed="yes",
        cost=40_000,
    ),
    Row(
        "wrong media type",
        F.MALFORMED,
        lambda s: s.bend(SD3, body(b"\x00\x01video", "video/mp4")),
        billed="yes",
        cost=40_000,
        says="video/mp4",
    ),
    Row(
        "no finish reason",
        F.MALFORMED,
        lambda s: s.bend(SD3, header(finish_reason="")),
        billed="yes",
        cost=40_000,
        says="finish reason",
    ),
    Row("no body", F.EMPTY, lambda s: s.bend(SD3, empty), billed="yes", cost=40_000),
    Row(
        "job without id",
        F.MALFORMED,
        lambda s: s.bend(CREATIVE, says(200, {"id": "../../v1/user"})),
        billed="yes",
        cost=600_000,
        request=JOB,
        says="id of a job",
    ),
    Row(
        "bad base64 in a job's JSON",
        F.MALFORMED,
        lambda s: s.bend(
            RESULT, says(200, {"image": "%%%", "finish_reason": "SUCCESS", "seed": 7})
        ),
        billed="yes",
        cost=600_000,
        request=JOB,
        says="base64",
    ),
    Row(
        "null in JSON",
        F.EMPTY,
        lambda s: s.bend(RESULT, says(200, {"image": None, "finish_reason": "SUCCESS"})),
        billed="yes",
        cost=600_000,
        request=JOB,
    ),
    # The wire
    Row(
        "body breaks off",
        F.TRANSPORT,
        lambda s: s.bend(SD3, truncated),
        billed="unknown",
        cost=40_000,
        says="broke off",
    ),
    Row(
        "connection lost",
        F.TRANSPORT,
        lambda s: s.bend(SD3, reset),
        billed="unknown",
        cost=40_000,
        says="connection lost",
    ),
    Row(
        "no answer",
        F.TRANSPORT,
        lambda s: s.bend(SD3, silent),
        billed="unknown",
        cost=40_000,
        model={"limits": QUICK},
        says="no answer within|Timeout",
    ),
    Row(
        "body stalls",
        F.TRANSPORT,
        lambda s: s.bend(SD3, stalled),
        billed="unknown",
        cost=40_000,
        model={"limits": QUICK},
        says="timed out",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row) -> None:
    key = KEY if row.key == "as the fake wants it" else row.key
    asked = dict(row.request)
    entry = model(asked.pop("model_name", "sd3.5-large-turbo"), **row.model)
    with StabilityServer() as server:
        row.arrange(server)
        result = ask(server.url, a_request(entry, **asked), key)
    check(row, result, key)


def test_what_is_asked_is_what_is_served() -> None:
    """The fake refuses stray fields; here is what it got."""
    entry = model("sd3.5-medium", options={"negative_prompt": "text", "strength": 0.3})
    with StabilityServer() as server:
        result = ask(server.url, a_request(entry, width=1600, height=900, seed=0), KEY)
        sent = server.requests[-1]
    assert sent.form is not None
    assert {name: part.text for name, part in sent.form.items()} == {
        "prompt": 'a fox with a sign "Grüße {seed} 店"',
        "model": "sd3.5-medium",
        "mode": "text-to-image",
        "aspect_ratio": "16:9",
        "seed": str(MOST_SEED),
        "output_format": "png",
        "negative_prompt": "text",
    }
    assert sent.headers["accept"] == "image/*"
    assert (
        size_of(result.image)
        == (1344, 768)
        == StabilityProvider(server.url, None).asked_size(a_request(entry, width=1600, height=900))
    )
    attempt = result.attempt
    assert (attempt.finish_reason, attempt.seed_used, attempt.pin) == (
        "SUCCESS",
        MOST_SEED,
        "unsaid",
    )
    assert attempt.provider_request_id == f"{1:032x}"
    assert (attempt.declared_mime, attempt.sniffed_mime) == ("image/png", "image/png")


def test_the_strength_of_an_edit_reaches_the_picture() -> None:
    source = encoded(squares(256, 256, "source"))
    with StabilityServer() as server:
        weak, strong = (
            ask(
                server.url,
                a_request(model(), operation="edit", image=source, params={"strength": s}),
                KEY,
            ).image
            for s in (0.1, 0.9)
        )
    before = decoded(source).mean()
    assert abs(decoded(weak or b"").mean() - before) < abs(decoded(strong or b"").mean() - before)


@pytest.mark.parametrize(("name", "size"), [("fast", (1024, 1024)), ("conservative", (2048, 2048))])
def test_upscalers_bring_the_size_that_is_reserved(name: str, size: tuple[int, int]) -> None:
    with StabilityServer() as server:
        request = a_request(model(name), operation="upscale", image=SOURCE, params={"scale": 4})
        assert StabilityProvider(server.url, None).asked_size(request) == size
        assert size_of(ask(server.url, request, KEY).image) == size


def test_the_fast_upscaler_takes_a_megapixel_to_sixteen() -> None:
    """Stability calls 1024 x 1024 one megapixel, so four times the sides are never cut."""
    request = a_request(
        model("fast"),
        operation="upscale",
        image=picture(1344, 768, "wide"),
        params={"scale": 4},
        width=5376,
        height=3072,
    )
    with StabilityServer() as server:
        result = ask(server.url, request, KEY)
    assert size_of(result.image) == (5376, 3072)


def test_a_job_is_looked_at_as_rarely_as_stability_asks() -> None:
    time = Time()
    with StabilityServer(clock=time) as server:
        server.polls, server.strict_poll_s = 3, 10.0
        asked = dict(JOB)
        request = a_request(model(asked.pop("model_name"), limits=Limits(timeout_s=120)), **asked)
        result = ask(server.url, request, KEY, time)
        assert server.paths()[1:] == [f"GET {RESULT}{next(iter(server.jobs))}"] * 4
    assert result.attempt.failure is None
    assert time.slept == [10.0] * 4


def test_a_throttled_request_waits_until_the_window_has_passed() -> None:
    with StabilityServer() as server:
        server.bend(SD3, says(429, {"id": "1", "name": "rate_limit_exceeded", "errors": ["x"]}))
        assert ask(server.url, a_request(model()), KEY).attempt.retry_after_s == 10.0
        server.bend(SD3, says(429, {"id": "1", "name": "x", "errors": []}, retry_after="3"))
        assert ask(server.url, a_request(model()), KEY).attempt.retry_after_s == 3.0


@pytest.mark.parametrize("seed", [1, 7, MOST_SEED])
def test_seeds_that_fit_stay(seed: int) -> None:
    assert seed_for(seed) == seed


@pytest.mark.parametrize("seed", [0, -1, MOST_SEED + 1, 2**32 - 1, 2**63 - 1])
def test_no_seed_asks_for_a_random_one(seed: int) -> None:
    assert 1 <= seed_for(seed) <= MOST_SEED


def served(server: StabilityServer, key: str, *models: Model) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            return await StabilityProvider(server.url, SecretStr(key)).served(client, models)

    return asyncio.run(look())


def test_served_names_the_known_models_and_no_version() -> None:
    with StabilityServer() as server:
        found = served(server, KEY, model(), model("sd3-medium", name="old"))
    assert {name: (m.version, m.known) for name, m in found.items()} == {"m": (None, False)}


def test_served_stops_before_a_run_that_could_not_be_paid() -> None:
    with StabilityServer(credit=3.0) as server, pytest.raises(GateError, match="3 credits left"):
        served(server, KEY, model())


def test_served_says_that_the_key_is_refused_without_showing_it() -> None:
    with StabilityServer() as server, pytest.raises(GateError, match="HTTP 401") as error:
        served(server, "sk-wrong-0123456789", model())
    assert "sk-wrong" not in str(error.value)


def test_an_unknown_model_is_not_asked_for() -> None:
    with pytest.raises(CannotAsk, match=r"sd3\.5-large-turbo, sd3\.5-medium\)"):
        StabilityProvider("https://api.stability.ai", None).message(a_request(model("sd4")))
