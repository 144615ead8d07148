"""The adapter of Replicate against the fake that Replicate's own client gets on with."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import ConfigError, GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import CannotAsk
from tasks.providers.replicate import ReplicateProvider
from tasks.records import FailureClass
from tests.fakes.aggregator_http import HTML, Reply, as_json, picture
from tests.fakes.contract import Row, Time, a_model, a_request, check
from tests.fakes.replicate_server import (
    KEY,
    MODEL,
    NO_CREDIT,
    OFFICIAL,
    THROTTLED,
    VERSION,
    ReplicateServer,
    Script,
    problem,
)
from tests.fakes.routed import Routed, drive

BASE, ASSETS = "https://api.replicate.com", "replicate.delivery"
OUTPUT = f"https://{ASSETS}/xezq/asset/out-0.png"
#: 1.25 s at $0.0014, and the whole of 30 s.
RAN, WORST = 1_750, 42_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetching an asset again takes no pause."""
    monkeypatch.setattr("tasks.providers.channel._FETCH_PAUSE_S", 0.0)


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "replicate",
        "endpoint": BASE,
        "id": MODEL,
        "version": VERSION,
        "pin": "immutable",
        "price": Price(usd=0.0014, per="gpu_second", source="test", date=date(2026, 1, 1)),
    }
    return a_model(**(usual | fields))


def routes(server: ReplicateServer) -> dict[str, str]:
    return {"api.replicate.com": server.url, ASSETS: server.url}


class Assets(ReplicateServer):
    """Gives out the addresses that Replicate gives out, pictures at a host of their own."""

    def _show(self, found: Any) -> dict[str, Any]:
        shown = super()._show(found)
        here = f"{BASE}/v1/predictions/{found.id}"
        if self.script.get_url == "own":
            shown["urls"] |= {"get": here, "cancel": f"{here}/cancel"}
        return shown

    def answer(self, seen: Any) -> Reply:
        if seen.headers["host"] == ASSETS:
            return self.faults.get("asset") or Reply(
                200, self.picture, {"content-type": self.picture_mime}
            )
        return super().answer(seen)


@pytest.fixture
def fake() -> Iterator[Assets]:
    with Assets(Script(output=[OUTPUT], get_url="own")) as running:
        yield running


def provider(key: str | None = KEY) -> ReplicateProvider:
    return ReplicateProvider(BASE, None if key is None else SecretStr(key))


def script(**fields: Any) -> Any:
    def arrange(server: Assets) -> None:
        server.script = Script(**({"output": [OUTPUT], "get_url": "own"} | fields))

    return arrange


def fault(step: str, reply: Reply) -> Any:
    def arrange(server: Assets) -> None:
        server.faults[step] = reply

    return arrange


def failing(words: str, **fields: Any) -> Any:
    return script(end="failed", error=words, **fields)


NSFW = "NSFW content detected. Try running it again, or try a different prompt."
FLAGGED = "The input or output was flagged as sensitive. Please try again. (E005)"
BUSY = "Service is currently unavailable due to high demand. Please try again later. (E003)"
IMAGE = picture(32)
EDIT = {"operation": "edit", "image": IMAGE}
F = FailureClass

ROWS = [
    Row("a picture", None, billed="yes", cost=RAN),
    Row("an edit", None, billed="yes", cost=RAN, request=EDIT),
    Row(
        "an upscale",
        None,
        billed="yes",
        cost=RAN,
        request={"operation": "upscale", "image": IMAGE, "width": 128, "height": 128},
    ),
    Row("one address in place of a list", None, script(output=OUTPUT), "yes", RAN),
    Row("an answer before the end", None, script(blocking=False), "yes", RAN),
    Row(
        "a price an image",
        None,
        billed="yes",
        cost=3_000,
        model={"price": Price(usd=0.003, source="test", date=date(2026, 1, 1))},
    ),
    Row("a seed of its own", F.DRIFT, script(seed=99), "yes", RAN, "seed 7 was asked for"),
    Row("another version", F.DRIFT, script(serves="0" * 64), "yes", RAN, "is pinned to"),
    Row("a refusal of the model", F.REFUSAL, failing(NSFW), "yes", RAN, "NSFW"),
    Row("a flagged output", F.REFUSAL, failing(FLAGGED), "yes", RAN, "E005"),
    Row(
        "a refusal that cost nobody knows what",
        F.REFUSAL,
        failing(NSFW, predict_time=None),
        "unknown",
        WORST,
        "NSFW",
    ),
    Row("no capacity", F.THROTTLED, failing(BUSY), says="E003"),
    Row("out of memory", F.SERVER, failing("CUDA out of memory (E1001)"), "yes", RAN, "E1001"),
    Row("an invalid input", F.BAD_REQUEST, failing("Invalid input (E006)"), "yes", RAN, "E006"),
    Row("canceled", F.SERVER, script(end="canceled"), "yes", RAN, "canceled while it ran"),
    Row("aborted", F.SERVER, script(end="aborted"), says="aborted before it ran"),
    Row("an unknown state", F.MALFORMED, script(end="vanished"), "yes", RAN, "vanished"),
    Row("no output", F.EMPTY, script(output=[]), "yes", RAN, "no picture"),
    Row(
        "polls on a foreign host",
        F.ASSET_URL,
        script(get_url="https://api.replicate.com.evil.example/v1/predictions/1"),
        "unknown",
        WORST,
        "evil.example",
    ),
    Row(
        "polls over http",
        F.ASSET_URL,
        script(get_url="http://api.replicate.com/v1/predictions/1"),
        "unknown",
        WORST,
        "not the provider's",
    ),
    Row(
        "an asset on a foreign host",
        F.ASSET_URL,
        script(output=["https://evil.example/x.png"]),
        "yes",
        RAN,
        "evil.example",
    ),
    Row(
        "an asset on a private address",
        F.ASSET_URL,
        script(output=["https://169.254.169.254/latest"]),
        "yes",
        RAN,
        "169.254.169.254",
    ),
    Row("an asset that is gone", F.ASSET_URL, fault("asset", Reply(404)), "yes", RAN, "HTTP 404"),
    Row("an asset under 403", F.ASSET_URL, fault("asset", Reply(403)), "yes", RAN, "HTTP 403"),
    Row("HTML as a picture", F.MALFORMED, fault("asset", HTML), "yes", RAN, "text/html"),
    Row(
        "a text as a picture",
        F.MALFORMED,
        fault("asset", Reply(200, b"sorry", {"content-type": "text/plain"})),
        "yes",
        RAN,
        "no picture",
    ),
    Row(
        "a torn asset",
        F.ASSET_URL,
        fault("asset", Reply(200, IMAGE, {"content-type": "image/png"}, "cut")),
        "yes",
        RAN,
        "broke off",
    ),
    Row("no key", F.AUTH, says="401", key=None),
    Row("a wrong key", F.AUTH, says="authentication token", key="r8_wrong"),
    Row("no credit", F.AUTH, fault("submit", NO_CREDIT), says="insufficient credit"),
    Row("a retired version", F.RETIRED, says="does not exist", model={"version": "0" * 64}),
    Row(
        "a model that is not there",
        F.RETIRED,
        fault("submit", problem(404, "Not found", "The requested resource could not be found.")),
        says="404",
    ),
    Row(
        "an input that is refused",
        F.BAD_REQUEST,
        fault("submit", problem(422, "Input validation failed", "- input: prompt is required")),
        says="prompt is required",
    ),
    Row(
        "a refusal under 422",
        F.REFUSAL,
        fault("submit", problem(422, "Unprocessable", "Prompt flagged by moderation")),
        says="moderation",
    ),
    Row("throttled", F.THROTTLED, fault("submit", THROTTLED), says="resets in"),
    Row("a broken door", F.SERVER, fault("submit", Reply(502, b"bad gateway")), says="502"),
    Row("HTML under 200", F.MALFORMED, fault("submit", HTML), "unknown", WORST, "prediction's id"),
    Row(
        "a truncated answer",
        F.TRANSPORT,
        fault("submit", Reply(201, b"{" + b" " * 999, {}, "cut")),
        "unknown",
        WORST,
        "broke off",
    ),
    Row("a reset", F.TRANSPORT, fault("submit", Reply(wire="reset")), "unknown", WORST, "lost"),
    Row(
        "a job that is gone",
        F.SERVER,
        fault("poll", problem(404, "Not found", "gone")),
        "unknown",
        WORST,
        "gone",
    ),
    Row("HTML under 200 as a state", F.MALFORMED, fault("poll", HTML), "unknown", WORST, "status"),
    Row(
        "polls that never end",
        F.SERVER,
        script(states=("processing",) * 100_000),
        "unknown",
        WORST,
        "had not ended",
    ),
    Row(
        "polls that break",
        F.SERVER,
        fault("poll", Reply(503, b"busy")),
        "unknown",
        WORST,
        "brought no answer",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row, fake: Assets) -> None:
    row.arrange(fake)
    key = KEY if row.key == "as the fake wants it" else row.key
    asked = a_request(model(**row.model), **row.request)
    result, net = drive(provider(key), asked, routes(fake))
    check(row, result, key)
    if key:
        assert net.hosts_with(key) == {"api.replicate.com"}
    if row.failure is None:
        assert result.image == fake.picture
        assert result.attempt.pin == "held"


def test_the_request_pins_the_version_and_bounds_the_wait(fake: Assets) -> None:
    drive(provider(), a_request(model()), routes(fake))
    first = fake.seen[0]
    assert first.json() == {
        "version": VERSION,
        "input": {
            "prompt": a_request(model()).prompt,
            "seed": 7,
            "width": 1024,
            "height": 1024,
        },
    }
    assert (first.headers["prefer"], first.headers["cancel-after"]) == ("wait=15", "30s")


@pytest.mark.parametrize(("timeout", "wait"), [(0.5, "wait=1"), (900, "wait=60")])
def test_the_wait_stays_within_what_replicate_takes(timeout: float, wait: str) -> None:
    asked = a_request(model(limits=Limits(timeout_s=timeout)))
    headers = provider().message(asked).headers
    assert headers["Prefer"] == wait
    assert int(headers["Cancel-After"][:-1]) >= 5


def test_gpu_seconds_are_usage_and_seeds_are_read_from_the_log(fake: Assets) -> None:
    result, _ = drive(provider(), a_request(model()), routes(fake))
    attempt = result.attempt
    assert attempt.usage is not None
    assert attempt.usage.gpu_seconds == 1.25
    assert attempt.usage.raw == {"predict_time": 1.25, "total_time": 2.5}
    assert (attempt.seed_used, attempt.model_reported) == (7, VERSION)
    assert attempt.provider_request_id == "pred" + "0" * 22
    assert attempt.cost_source == "computed"


def test_a_large_seed_is_asked_for_in_31_bits(fake: Assets) -> None:
    result, _ = drive(provider(), a_request(model(), seed=2**40 + 5), routes(fake))
    assert fake.seen[0].json()["input"]["seed"] == 5
    assert (result.attempt.failure, result.attempt.seed_used) == (None, 5)


def test_pictures_go_as_data_addresses_under_the_models_own_names(fake: Assets) -> None:
    options = {
        "image": "input_image",
        "mask": "mask_image",
        "size": "aspect_ratio",
        "inputs": {"guidance_scale": 3.5},
    }
    asked = a_request(model(options=options), **EDIT, mask=IMAGE, params={"guidance_scale": 5})
    sent = provider().message(asked).json["input"]
    uri = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    assert sent == {
        "prompt": asked.prompt,
        "seed": 7,
        "aspect_ratio": "1:1",
        "guidance_scale": 5,
        "input_image": uri,
        "mask_image": uri,
    }


def test_an_upscaler_is_told_the_factor_and_no_prompt() -> None:
    asked = a_request(model(), operation="upscale", image=IMAGE, width=128, height=96)
    given = provider().message(asked).json["input"]
    assert given == {"image": given["image"], "scale": 4.0}
    assert provider().asked_size(asked) == (128, 128)


@pytest.mark.parametrize(
    ("fields", "request_fields", "says"),
    [
        ({"version": "v1"}, {}, "pins nothing"),
        ({"pin": "dated", "version": OFFICIAL}, {}, "pins nothing"),
        ({"operations": ("upscale",)}, {}, "no operation 'generate'"),
        ({}, {"params": {"steps": 4}}, "options.inputs"),
        ({}, {"operation": "edit"}, "without a picture"),
        ({}, EDIT | {"mask": IMAGE}, "takes no mask"),
        ({}, {"operation": "upscale", "image": IMAGE}, "at most 4 times"),
        ({"options": {"sise": "none"}}, {}, "unknown field"),
        ({"options": {"inputs": {"seed": 1}}}, {}, "every request sets itself"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(
    fields: dict[str, Any], request_fields: dict[str, Any], says: str
) -> None:
    with pytest.raises((CannotAsk, ConfigError), match=says):
        provider().message(a_request(model(**fields), **request_fields))


def test_an_official_model_is_an_alias(fake: Assets) -> None:
    alias = model(id=OFFICIAL, version=OFFICIAL, pin="alias")
    result, _ = drive(provider(), a_request(alias), routes(fake))
    assert (result.attempt.failure, result.attempt.pin) == (None, "held")
    assert fake.seen[0].json()["version"] == OFFICIAL
    assert provider().capabilities(alias).pin == "alias"


def test_a_prediction_that_does_not_end_is_canceled(fake: Assets) -> None:
    fake.script = Script(states=("processing",) * 100_000, get_url="own")
    time = Time()
    drive(provider(), a_request(model()), routes(fake), time=time)
    assert fake.canceled.is_set()
    assert 30 <= time.now <= 31


def test_a_foreign_address_to_cancel_is_left_alone() -> None:
    class Thief(Assets):
        def _show(self, found: Any) -> dict[str, Any]:
            shown = super()._show(found)
            shown["urls"]["cancel"] = "https://evil.example/cancel"
            return shown

    with Thief(Script(states=("processing",) * 100_000, get_url="own")) as thief:
        _, net = drive(provider(), a_request(model()), routes(thief))
    assert {sent.host for sent in net.sent} == {"api.replicate.com"}


def test_a_picture_larger_than_allowed_is_not_read(fake: Assets) -> None:
    small = ReplicateProvider(BASE, SecretStr(KEY), most_body=2_000)
    fake.picture = fake.picture + bytes(5_000)
    result, _ = drive(small, a_request(model()), routes(fake))
    assert result.attempt.failure is F.MALFORMED
    assert "more than 2,000 bytes" in result.attempt.message


def test_a_name_that_resolves_to_a_private_address_is_not_fetched(fake: Assets) -> None:
    result, net = drive(provider(), a_request(model()), routes(fake), addresses=["10.0.0.7"])
    assert result.attempt.failure is F.ASSET_URL
    assert "10.0.0.7" in result.attempt.message
    assert {sent.host for sent in net.sent} == {"api.replicate.com"}


def test_the_wait_of_a_throttled_answer_is_in_its_body_or_its_header(fake: Assets) -> None:
    def waited(reply: Reply) -> float | None:
        fake.faults["submit"] = reply
        return drive(provider(), a_request(model()), routes(fake))[0].attempt.retry_after_s

    words = {"detail": "Request was throttled. Your rate limit resets in ~30s."}
    assert waited(THROTTLED) == 7
    assert waited(as_json(words, 429)) == 30
    assert waited(as_json(words, 429, retry_after="3")) == 3
    assert waited(as_json({"detail": "no"}, 429)) is None


def test_a_timeout_is_transport_and_may_be_billed(fake: Assets) -> None:
    fake.faults["submit"] = Reply(wire="hang")
    short = model(limits=Limits(timeout_s=0.3))
    attempt = drive(provider(), a_request(short), routes(fake))[0].attempt
    assert (attempt.failure, attempt.billed) == (F.TRANSPORT, "unknown")


def served(fake: Assets, *models: Model, key: str = KEY) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with httpx.AsyncClient(transport=Routed(routes(fake))) as client:
            return dict(await provider(key).served(client, models))

    return asyncio.run(run())


def test_versions_and_names_are_asked_for(fake: Assets) -> None:
    alias = model(name="a", id=OFFICIAL, version=OFFICIAL, pin="alias")
    gone = model(name="g", version="0" * 64)
    bare = model(name="b", id=None)
    found = served(fake, model(), alias, gone, bare)
    assert {name: entry.version for name, entry in found.items()} == {
        "m": VERSION,
        "a": OFFICIAL,
        "b": None,
    }
    assert [entry.known for entry in found.values()] == [True, True, False]


def test_a_key_that_is_refused_is_a_gate_error(fake: Assets) -> None:
    with pytest.raises(GateError, match="HTTP 401"):
        served(fake, model(), key="r8_wrong")
    with pytest.raises(GateError, match="account"):
        served(fake, key="r8_wrong")
