"""The adapter of fal's queue against the fake that fal's own client gets on with."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import CannotAsk
from tasks.providers.fal import FALLBACKS_OFF, FalProvider
from tasks.records import FailureClass
from tests.fakes.aggregator_http import HTML, Reply, Seen, as_json, picture
from tests.fakes.contract import Row, Time, a_model, a_request, check
from tests.fakes.fal_server import (
    APP,
    EDITOR,
    ERRORS,
    KEY,
    LOCKED,
    NO_FALLBACK,
    UPSCALER,
    FalServer,
    Script,
    model_error,
    request_error,
)
from tests.fakes.routed import drive

BASE, ASSETS = "https://queue.fal.run", "v3.fal.media"
OUTPUT = f"https://{ASSETS}/files/b/out.png"
#: One megapixel (the picture comes at 32 x 32 and a begun one counts), and two as fal may count.
PRICE, WORST = 25_000, 50_000


class Fal(FalServer):
    """Gives out the addresses that fal gives out, pictures at a host of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script(urls=(OUTPUT,), elsewhere=BASE)

    def answer(self, seen: Seen) -> Reply:
        if seen.headers["host"] == ASSETS:
            return self.faults.get("asset") or Reply(
                200, self.picture, {"content-type": self.picture_mime}
            )
        return super().answer(seen)


@pytest.fixture
def fake() -> Iterator[Fal]:
    with Fal() as running:
        yield running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetching an asset again takes no pause."""
    monkeypatch.setattr("tasks.providers.channel._FETCH_PAUSE_S", 0.0)


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "fal",
        "endpoint": BASE,
        "id": APP,
        "version": APP,
        "pin": "alias",
        "price": Price(usd=0.025, per="megapixel", source="test", date=date(2026, 1, 1)),
    }
    return a_model(**(usual | fields))


def routes(fake: Fal) -> dict[str, str]:
    return {"queue.fal.run": fake.url, ASSETS: fake.url}


def provider(key: str | None = KEY) -> FalProvider:
    return FalProvider(BASE, None if key is None else SecretStr(key))


def script(**fields: Any) -> Any:
    def arrange(fake: Fal) -> None:
        fake.script = Script(**({"urls": (OUTPUT,), "elsewhere": BASE} | fields))

    return arrange


def fault(step: str, reply: Reply) -> Any:
    def arrange(fake: Fal) -> None:
        fake.faults[step] = reply

    return arrange


def broke(kind: str) -> Any:
    return script(error=("It broke", kind))


def untold(kind: str) -> Any:
    """The status of an older application says nothing of the error that the result brings."""
    return script(result=request_error("It broke", kind))


def result(reply: Reply) -> Any:
    return script(result=reply)


IMAGE = picture(32)
INSIDE = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
F = FailureClass

ROWS = [
    Row("a picture", None, billed="yes", cost=PRICE),
    Row(
        "an edit",
        None,
        billed="yes",
        cost=PRICE,
        request={"operation": "edit", "image": IMAGE},
        model={"id": EDITOR, "options": {"image": "image_urls", "image_list": True}},
    ),
    Row(
        "an edit that pays for its picture too",
        None,
        billed="yes",
        cost=2 * PRICE,
        request={"operation": "edit", "image": IMAGE},
        model={"id": EDITOR, "options": {"image": "image_url", "bill_image": True}},
    ),
    Row(
        "an upscale",
        None,
        billed="yes",
        cost=PRICE,
        request={"operation": "upscale", "image": IMAGE, "width": 128, "height": 128},
        model={"id": UPSCALER},
    ),
    Row("a picture inside the answer", None, script(urls=(INSIDE,)), "yes", PRICE),
    Row(
        "a price a second of a GPU",
        None,
        billed="yes",
        cost=833,
        model={"price": Price(usd=0.00111, per="gpu_second", source="t", date=date(2026, 1, 1))},
    ),
    Row("a seed of its own", F.DRIFT, script(seed=99), "yes", PRICE, "seed 7 was asked for"),
    Row("a refusal under 422", F.REFUSAL, result(ERRORS.refused), says="content checker"),
    Row("a blackened picture under 200", F.REFUSAL, script(nsfw=True), "yes", PRICE, "nsfw"),
    Row("an invalid input", F.BAD_REQUEST, result(ERRORS.invalid), says="greater than 0"),
    Row("a failure that may pass", F.SERVER, result(ERRORS.downstream), says="Downstream"),
    Row(
        "a failure that does not pass",
        F.BAD_REQUEST,
        result(model_error(500, "internal_server_error", "Failed", again=False)),
        says="Failed",
    ),
    Row(
        "nothing made",
        F.EMPTY,
        result(model_error(422, "no_media_generated", "No media", again=False)),
        says="No media",
    ),
    Row("no pictures", F.EMPTY, script(urls=()), "yes", PRICE, "no pictures"),
    Row("an empty address", F.EMPTY, script(urls=("",)), "yes", PRICE, "names no picture"),
    Row("no runner", F.THROTTLED, broke("runner_scheduling_failure"), says="It broke"),
    Row("a lost runner", F.SERVER, broke("runner_disconnected"), says="runner_disconnected"),
    Row("a job that expired", F.SERVER, broke("request_timeout"), says="request_timeout"),
    Row("a lost runner, untold", F.SERVER, untold("runner_disconnected"), says="It broke"),
    Row("a job that expired, untold", F.SERVER, untold("startup_timeout"), says="It broke"),
    Row("an ill endpoint", F.SERVER, script(ill=True), says="runner_disconnected"),
    Row(
        "polls on a foreign host",
        F.ASSET_URL,
        script(elsewhere="https://queue.fal.run.evil.example"),
        "unknown",
        WORST,
        "evil.example",
    ),
    Row(
        "polls over http",
        F.ASSET_URL,
        script(elsewhere="http://queue.fal.run"),
        "unknown",
        WORST,
        "not the provider's",
    ),
    Row(
        "an asset on a foreign host",
        F.ASSET_URL,
        script(urls=("https://evil.example/x.png",)),
        "yes",
        PRICE,
        "evil.example",
    ),
    Row(
        "an asset over http",
        F.ASSET_URL,
        script(urls=(f"http://{ASSETS}/x.png",)),
        "yes",
        PRICE,
        "needed: https",
    ),
    Row("an asset that is gone", F.ASSET_URL, fault("asset", Reply(404)), "yes", PRICE, "404"),
    Row("an asset under 403", F.ASSET_URL, fault("asset", Reply(403)), "yes", PRICE, "403"),
    Row("HTML as a picture", F.MALFORMED, fault("asset", HTML), "yes", PRICE, "text/html"),
    Row(
        "a torn asset",
        F.ASSET_URL,
        fault("asset", Reply(200, IMAGE, {"content-type": "image/png"}, "cut")),
        "yes",
        PRICE,
        "broke off",
    ),
    Row(
        "an asset of another type",
        F.MALFORMED,
        fault("asset", Reply(200, b"RIFFxxxxWAVE", {"content-type": "audio/wav"})),
        "yes",
        PRICE,
        "audio/wav",
    ),
    Row("no key", F.AUTH, says="Authentication is required", key=None),
    Row("a wrong key", F.AUTH, says="Authentication is required", key="wrong:key"),
    Row("a used-up balance", F.AUTH, fault("submit", LOCKED), says="Exhausted balance"),
    Row("an application that is gone", F.RETIRED, says="not found", model={"id": "fal-ai/gone"}),
    Row(
        "throttled",
        F.THROTTLED,
        fault("submit", as_json({"detail": "Too Many Requests"}, 429, retry_after="3")),
        says="Too Many",
    ),
    Row(
        "too late to start",
        F.SERVER,
        fault("submit", request_error("Request timed out", "request_timeout")),
        says="timed out",
    ),
    Row("a broken door", F.SERVER, fault("submit", Reply(502, b"<html>nginx")), says="nginx"),
    Row("HTML under 200", F.MALFORMED, fault("submit", HTML), "unknown", WORST, "request_id"),
    Row(
        "a request without addresses",
        F.MALFORMED,
        fault("submit", as_json({"request_id": "r-1"})),
        "unknown",
        WORST,
        "no addresses",
    ),
    Row(
        "a truncated answer",
        F.TRANSPORT,
        fault("submit", Reply(200, b"{" + b" " * 999, {}, "cut")),
        "unknown",
        WORST,
        "broke off",
    ),
    Row("a reset", F.TRANSPORT, fault("submit", Reply(wire="reset")), "unknown", WORST, "lost"),
    Row(
        "a job that is gone",
        F.SERVER,
        fault("poll", as_json({"detail": "Request not found"}, 404)),
        "unknown",
        WORST,
        "gone",
    ),
    Row("HTML under 200 as a state", F.MALFORMED, fault("poll", HTML), "unknown", WORST, "state"),
    Row("HTML under 200 as a result", F.MALFORMED, fault("result", HTML), "yes", PRICE, "result"),
    Row(
        "polls that never end",
        F.SERVER,
        script(states=("IN_QUEUE",) * 100_000),
        "unknown",
        WORST,
        "had not ended",
    ),
    Row(
        "a door that stays shut before the result",
        F.SERVER,
        fault("result", Reply(503, b"<html>nginx")),
        "unknown",
        WORST,
        "brought no answer",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row, fake: Fal) -> None:
    row.arrange(fake)
    key = KEY if row.key == "as the fake wants it" else row.key
    asked = a_request(model(**row.model), **row.request)
    result, net = drive(provider(key), asked, routes(fake))
    check(row, result, key)
    if key:
        assert net.hosts_with(key) == {"queue.fal.run"}
        assert KEY.partition(":")[2] not in result.attempt.model_dump_json()
    assert fake.counts.fallbacks == fake.counts.retries == 0


def test_the_request_switches_off_what_fal_does_on_its_own(fake: Fal) -> None:
    drive(provider(), a_request(model()), routes(fake))
    first = fake.seen[0]
    assert first.path == f"/{APP}"
    assert set(FALLBACKS_OFF) == set(NO_FALLBACK)
    assert {first.headers[name] for name in FALLBACKS_OFF} == {"true"}
    assert first.headers["x-fal-no-retry"] == "1"
    assert first.headers["x-fal-request-timeout"] == "30"
    kept = json.loads(first.headers["x-fal-object-lifecycle-preference"])
    assert kept == {"expiration_duration_seconds": 3600}
    assert first.headers["authorization"] == f"Key {KEY}"
    assert first.json() == {
        "prompt": a_request(model()).prompt,
        "seed": 7,
        "width": 1024,
        "height": 1024,
    }


def test_the_addresses_that_came_back_are_used(fake: Fal) -> None:
    drive(provider(), a_request(model()), routes(fake))
    here = "/fal-ai/flux/requests/fal-00000000"
    assert [seen.path for seen in fake.asked("GET")] == [
        f"{here}/status",
        f"{here}/status",
        f"{here}/status",
        here,
        "/files/b/out.png",
    ]


def test_the_result_is_fetched_without_a_pause(fake: Fal) -> None:
    time = Time()
    drive(provider(), a_request(model()), routes(fake), time=time)
    assert len(time.slept) == 3  # one before each look at the state


def test_a_fallback_that_serves_all_the_same_is_drift(fake: Fal) -> None:
    """Another application stands in the addresses: nothing of it is waited for."""

    class Stubborn(Fal):
        def answer(self, seen: Seen) -> Reply:
            kept = {k: v for k, v in seen.headers.items() if k not in NO_FALLBACK}
            return super().answer(Seen(seen.method, seen.path, seen.query, kept, seen.body))

    with Stubborn() as stubborn:
        stubborn.script.ill = True
        result, _ = drive(provider(), a_request(model()), routes(stubborn))
        assert stubborn.counts.fallbacks == 1
    attempt = result.attempt
    assert (attempt.failure, attempt.billed) == (F.DRIFT, "unknown")
    assert "'fal-ai/flux' was asked, 'fal-ai/flux-lora' serves" in attempt.message


def test_a_size_goes_as_the_application_wants_it(fake: Fal) -> None:
    shaped = model(options={"size": "image_size", "multiple_of": 16, "inputs": {"steps": 4}})
    asked = a_request(shaped, width=1000, height=500)
    sent = provider().message(asked).json
    assert (sent["image_size"], sent["steps"]) == ({"width": 1008, "height": 512}, 4)
    assert "width" not in sent
    assert provider().asked_size(asked) == (1008, 512)


def test_usage_request_id_and_times_are_kept(fake: Fal) -> None:
    result, _ = drive(provider(), a_request(model()), routes(fake))
    attempt = result.attempt
    assert attempt.usage is not None
    assert attempt.usage.gpu_seconds == 0.75
    assert attempt.usage.raw == {"metrics": {"inference_time": 0.75}, "units": "1"}
    assert attempt.provider_request_id == "fal-00000000"
    assert (attempt.seed_used, attempt.pin, attempt.declared_mime) == (7, "unsaid", "image/png")


def test_a_request_that_does_not_end_is_cancelled(fake: Fal) -> None:
    fake.script = Script(states=("IN_QUEUE",) * 100_000, elsewhere=BASE)
    time = Time()
    drive(provider(), a_request(model()), routes(fake), time=time)
    assert fake.canceled.is_set()
    assert 30 <= time.now <= 31


def test_the_wait_of_a_throttled_answer_is_its_header(fake: Fal) -> None:
    fake.faults["submit"] = as_json({"detail": "Too Many Requests"}, 429, retry_after="3")
    assert drive(provider(), a_request(model()), routes(fake))[0].attempt.retry_after_s == 3


def test_a_picture_larger_than_allowed_is_not_read(fake: Fal) -> None:
    small = FalProvider(BASE, SecretStr(KEY), most_body=2_000)
    fake.picture = fake.picture + bytes(5_000)
    result, _ = drive(small, a_request(model()), routes(fake))
    assert result.attempt.failure is F.MALFORMED
    assert "more than 2,000 bytes" in result.attempt.message


def test_a_name_that_resolves_to_a_private_address_is_not_fetched(fake: Fal) -> None:
    result, net = drive(provider(), a_request(model()), routes(fake), addresses=["192.168.0.9"])
    assert result.attempt.failure is F.ASSET_URL
    assert {sent.host for sent in net.sent} == {"queue.fal.run"}


def test_a_timeout_is_transport_and_may_be_billed(fake: Fal) -> None:
    fake.faults["submit"] = Reply(wire="hang")
    short = model(limits=Limits(timeout_s=0.3))
    attempt = drive(provider(), a_request(short), routes(fake))[0].attempt
    assert (attempt.failure, attempt.billed) == (F.TRANSPORT, "unknown")


@pytest.mark.parametrize(
    "app", ["flux", "fal-ai/flux?x=1", "../x/y", "fal-ai/flux dev", "a/b/../c"]
)
def test_what_is_no_application_is_not_asked(app: str) -> None:
    with pytest.raises(CannotAsk, match="no application"):
        provider().message(a_request(model(id=app)))


def test_namespaces_count_as_part_of_the_application(fake: Fal) -> None:
    from tasks.providers.fal import _application

    assert _application("workflows/me/flow/x") == ("workflows", "me", "flow")
    assert _application("/fal-ai/flux/requests/1/status") == ("fal-ai", "flux")


def test_the_queue_cannot_be_asked_what_it_serves() -> None:
    async def run() -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            return dict(await provider().served(client, [model()]))

    found = asyncio.run(run())
    assert (found["m"].version, found["m"].known) == (None, False)
