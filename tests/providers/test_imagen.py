"""The adapter of Imagen against the fake, and the refusal of live runs since its shutdown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.mix.catalog import Catalog, Licence, Limits, Model, Price
from tasks.mix.manifest import Mix, resolve_mix
from tasks.mix.preflight import preflight
from tasks.providers import imagen
from tasks.providers.base import GenerationRequest, ServedModel
from tasks.providers.imagen import ImagenProvider
from tasks.records import FailureClass
from tests.fakes import gemini_server as fake
from tests.fakes import mixes
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

PATH = ":predict"
NAME = "imagen-4.0-generate-001"
PROMPT = "a red kite"
SOURCE = picture(64, 64, "source")
VERTEX = "/v1/projects/p-1/locations/us-central1/publishers/google"
#: Long enough to connect on a busy machine.
QUICK = Limits(timeout_s=1.0)
PRICE = 40_000
F = FailureClass


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "imagen",
        "version": NAME,
        "pin": "dated",
        "operations": ("generate",),
        "price": Price(usd=0.04, source="test", date=date(2026, 8, 1)),
        "retires": date(2026, 8, 17),
        "successor": "gemini-nano-banana-2.1",
    }
    return a_model(**(usual | fields))


def kite(**fields: Any) -> GenerationRequest:
    changes = fields.pop("model", {})
    return a_request(model(**changes), **({"prompt": PROMPT} | fields))


def bend(*bends: Bend) -> Callable[[fake.GeminiServer], None]:
    return lambda server: server.bend(PATH, *bends)


def entry(**changes: Any) -> Callable[[fake.GeminiServer], None]:
    """Change fields of the one prediction."""
    return bend(with_json(lambda value: {"predictions": [value["predictions"][0] | changes]}))


PAID: dict[str, Any] = {"billed": "yes", "cost": PRICE}
LOST: dict[str, Any] = {"billed": "unknown", "cost": PRICE}

ROWS = [
    Row("text to image", None, **PAID),
    Row("ultra", None, model={"version": "imagen-4.0-ultra-generate-001"}, **PAID),
    Row("fast", None, model={"version": "imagen-4.0-fast-generate-001"}, **PAID),
    # Refusals
    Row("filtered under 200", F.REFUSAL, bend(fake.filtered), says="All images were filtered out"),
    Row("prompt refused under 400", F.REFUSAL, bend(fake.IMAGEN_FAILURES["refused"]),
        says="400: INVALID_ARGUMENT: .*could not be submitted"),
    Row("picture refused under 400", F.REFUSAL, bend(fake.IMAGEN_FAILURES["refused_output"]),
        says="may violate our policies"),
    # Fewer than asked
    Row("nothing under 200", F.EMPTY, bend(fake.nothing), says="1 picture was asked for, 0"),
    Row("no predictions", F.EMPTY, bend(says(200, {"predictions": []}))),
    Row("an entry without a picture", F.EMPTY, entry(bytesBase64Encoded=""), says="1 entries"),
    # Account and pace
    Row("wrong key", F.AUTH, key="AIzaSy-wrong-0123456789", says="API key not valid"),
    Row("forbidden", F.AUTH, bend(fake.FAILURES["forbidden"])),
    Row("quota of the minute", F.THROTTLED, bend(fake.FAILURES["minute"])),
    Row("quota of the day", F.THROTTLED, bend(fake.FAILURES["daily"]), retried=False),
    # The provider's faults
    Row("internal error", F.SERVER, bend(fake.FAILURES["internal"])),
    Row("overloaded", F.SERVER, bend(fake.FAILURES["overloaded"])),
    Row("gateway", F.SERVER, bend(gateway_page)),
    # Bad requests
    Row("argument refused", F.BAD_REQUEST, bend(fake.FAILURES["bad_argument"])),
    Row("edit", F.BAD_REQUEST, request={"operation": "edit", "image": b""}, says="cannot 'edit'"),
    Row("parameter of Vertex", F.BAD_REQUEST, request={"params": {"negative_prompt": "x"}}),
    # Gone
    Row("shut down", F.RETIRED, lambda s: s.models.clear(), says="not found for API version"),
    # What is no picture
    Row("bad base64", F.MALFORMED, entry(bytesBase64Encoded="§§§§"), says="base64", **PAID),
    Row("JSON as picture", F.MALFORMED, entry(bytesBase64Encoded="eyJhIjogMX0="), **PAID),
    Row("wrong media type", F.MALFORMED,
        entry(bytesBase64Encoded="AAECAw==", mimeType="video/mp4"), says="video/mp4", **PAID),
    Row("page under 200", F.MALFORMED, bend(page), says="text/html under", **PAID),
    # The wire
    Row("body breaks off", F.TRANSPORT, bend(truncated), **LOST),
    Row("connection lost", F.TRANSPORT, bend(reset), **LOST),
    Row("no answer", F.TRANSPORT, bend(silent), model={"limits": QUICK}, **LOST),
    Row("body stalls", F.TRANSPORT, bend(stalled), model={"limits": QUICK}, **LOST),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row) -> None:
    key = fake.KEY if row.key == "as the fake wants it" else row.key
    with fake.GeminiServer() as server:
        row.arrange(server)
        result = ask(server.url + "/v1beta", kite(model=row.model, **row.request), key)
    check(row, result, key)


def test_a_request_to_vertex_has_a_seed_and_no_watermark() -> None:
    request = kite(width=1920, height=1080, params={"negative_prompt": "text"})
    with fake.GeminiServer() as server:
        result = ask(server.url + VERTEX, request, fake.TOKEN)
        (seen,) = server.requests
    assert seen.path == f"{VERTEX}/models/{NAME}:predict"
    assert seen.headers["authorization"] == f"Bearer {fake.TOKEN}"
    assert seen.json == {
        "instances": [{"prompt": PROMPT}],
        "parameters": {
            "sampleCount": 1,
            "aspectRatio": "16:9",
            "sampleImageSize": "2K",
            "includeRaiReason": True,
            "outputOptions": {"mimeType": "image/png"},
            "safetySetting": "block_medium_and_above",
            "seed": 7,
            "addWatermark": False,
            "negativePrompt": "text",
        },
    }
    assert size_of(result.image) == (2816, 1536)
    assert result.attempt.declared_mime == "image/png"
    assert (result.attempt.cost_source, result.attempt.pin) == ("list", "unsaid")


def test_the_gemini_api_takes_no_seed() -> None:
    entry = model(version="imagen-4.0-fast-generate-001")
    with fake.GeminiServer() as server:
        result = ask(server.url + "/v1beta", a_request(entry, width=600, height=800), fake.KEY)
        (seen,) = server.requests
    assert seen.headers["x-goog-api-key"] == fake.KEY
    parameters = seen.json["parameters"]
    assert "seed" not in parameters
    assert "sampleImageSize" not in parameters
    assert parameters["aspectRatio"] == "3:4"
    assert size_of(result.image) == (896, 1280)
    on_vertex = ImagenProvider("https://us-aiplatform.googleapis.com" + VERTEX, None)
    on_gemini = ImagenProvider("https://generativelanguage.googleapis.com/v1beta", None)
    assert on_vertex.capabilities(entry).seed
    assert not on_gemini.capabilities(entry).seed


def test_a_reason_beside_a_picture_does_not_hide_it() -> None:
    with fake.GeminiServer() as server:
        server.bend(
            PATH,
            with_json(lambda v: {"predictions": [{"raiFilteredReason": "one"}, *v["predictions"]]}),
        )
        result = ask(server.url + "/v1beta", kite(), fake.KEY)
    assert result.image is not None


@pytest.mark.parametrize(
    "value",
    [[], "x", {"predictions": {}}, {"predictions": [1, None]}, {"predictions": [{"a": 1}]}],
    ids=json.dumps,
)
def test_hostile_answers_are_failures_and_never_raised(value: Any) -> None:
    with fake.GeminiServer() as server:
        server.bend(PATH, lambda _reply: as_json(value))
        result = ask(server.url + "/v1beta", kite(), fake.KEY)
    assert result.image is None
    assert result.attempt.failure in (F.EMPTY, F.MALFORMED)


def served(url: str, *models: Model) -> dict[str, ServedModel]:
    async def drive() -> dict[str, ServedModel]:
        provider = ImagenProvider(url, SecretStr(fake.KEY))
        async with httpx.AsyncClient() as client:
            return await provider.served(client, models)

    return asyncio.run(drive())


@pytest.mark.parametrize("alive", [True, False])
def test_the_day_of_the_shutdown_is_told_also_after_it(alive: bool) -> None:
    other = model(name="other", version="imagen-9")
    with fake.GeminiServer(imagen=alive) as server:
        found = served(server.url + "/v1beta", model(), other)
    assert found == {"m": ServedModel(name="m", version=NAME, retires=imagen.SHUT_DOWN)}


@pytest.mark.parametrize("retires", [date(2026, 8, 17), None], ids=["catalog-knows", "forgotten"])
def test_the_preflight_refuses_a_live_run_and_names_the_successor(retires: date | None) -> None:
    licence = Licence(id="Gemini API terms", uses=("commercial",))
    entry = model(name="imagen-4", licence=licence, retires=retires)
    wanted = mixes.manifest("autumn", "imagen-4")
    wanted["routes"]["edit"] = [{"stages": [{"model": "retouch", "operation": "edit"}]}]
    catalog = Catalog(models=(entry, mixes.model("retouch")))
    mix = resolve_mix(Mix.model_validate(wanted), catalog, "test")
    with fake.GeminiServer(imagen=False) as server:
        found = served(server.url + "/v1beta", entry)
    told = preflight(
        [mix],
        served=found,
        has_key=lambda _: True,
        today=date(2026, 11, 29),
        frozen_until=date(2026, 12, 13),
    )
    line = "model 'imagen-4': it retired on 2026-08-17 by {}; its successor is {!r}"
    by = ["the catalog", "its provider"] if retires else ["its provider"]
    assert [each for each in told if "retired" in each] == [
        line.format(who, "gemini-nano-banana-2.1") for who in by
    ]


def test_every_imagen_model_of_the_catalog_format_can_be_asked() -> None:
    assert set(imagen.MODELS) == set(fake.IMAGEN)
