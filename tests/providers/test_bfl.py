"""The adapter of Black Forest Labs against the fake that keeps to their documentation."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import CannotAsk
from tasks.providers.bfl import BflProvider
from tasks.records import FailureClass
from tests.fakes.aggregator_http import HTML, Reply, Seen, as_json, picture
from tests.fakes.bfl_server import BUSY, EXPIRED, KEY, NO_CREDIT, BflServer, Script, invalid
from tests.fakes.contract import Row, Time, a_model, a_request, check
from tests.fakes.routed import Routed, drive

BASE, POLL, ASSETS = "https://api.bfl.ai", "api.us1.bfl.ai", "delivery-us1.bfl.ai"
SAMPLE = f"https://{ASSETS}/delivery/1/sample.jpeg?sig=x"
#: The fake counts millions of pixels, of which 1024 x 1024 has a second one begun.
PRICE = WORST = 45_000


class Bfl(BflServer):
    """Gives out the addresses that they give out: other hosts for polls and for pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script(polling_url=f"https://{POLL}/v1/get_result?id={{id}}", sample=SAMPLE)

    def answer(self, seen: Seen) -> Reply:
        if seen.headers["host"] == ASSETS:
            assert "x-key" not in seen.headers
        if seen.path == "/v1/credits" and seen.headers.get("x-key") == KEY:
            return self.faults.get("credits") or as_json({"credits": 412.5})
        if seen.path == "/openapi.json" and "model" in self.faults:
            return self.faults["model"]
        return super().answer(seen)


@pytest.fixture
def fake() -> Iterator[Bfl]:
    with Bfl() as running:
        yield running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetching an asset again takes no pause."""
    monkeypatch.setattr("tasks.providers.channel._FETCH_PAUSE_S", 0.0)


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "bfl",
        "endpoint": BASE,
        "id": "flux-2-pro",
        "version": "flux-2-pro",
        "pin": "alias",
        "operations": ("generate", "edit"),
        "price": Price(
            usd=0.015, first_usd=0.03, per="megapixel", source="test", date=date(2026, 1, 1)
        ),
    }
    return a_model(**(usual | fields))


def routes(fake: Bfl) -> dict[str, str]:
    return {"api.bfl.ai": fake.url, POLL: fake.url, ASSETS: fake.url}


def provider(key: str | None = KEY) -> BflProvider:
    return BflProvider(BASE, None if key is None else SecretStr(key))


def script(**fields: Any) -> Any:
    usual = {"polling_url": f"https://{POLL}/v1/get_result?id={{id}}", "sample": SAMPLE}

    def arrange(fake: Bfl) -> None:
        fake.script = Script(**(usual | fields))

    return arrange


def fault(step: str, reply: Reply) -> Any:
    def arrange(fake: Bfl) -> None:
        fake.faults[step] = reply

    return arrange


IMAGE = picture(64)
REASONS = {"Moderation Reasons": ["Derivative Works Filter"]}
F = FailureClass

ROWS = [
    Row("a picture", None, billed="yes", cost=PRICE),
    Row(
        "an edit",
        None,
        billed="yes",
        cost=PRICE,
        request={"operation": "edit", "image": IMAGE},
    ),
    Row("a cost that is not told", None, script(cost=None), "yes", 30_000),
    Row("a cost of another amount", None, script(cost=7), "yes", 70_000),
    Row(
        "a cost that is nonsense",
        F.COST_UNKNOWN,
        script(cost="free"),
        "unknown",
        30_000,
        "not a number",
        retried=False,
    ),
    Row(
        "a cost below zero",
        F.COST_UNKNOWN,
        script(cost=-3),
        "unknown",
        30_000,
        "not between",
        retried=False,
    ),
    Row("a seed of its own", F.DRIFT, script(seed=99), "yes", PRICE, "seed 7 was asked for"),
    Row(
        "a moderated request",
        F.REFUSAL,
        script(end="Request Moderated", details=REASONS),
        "yes",
        PRICE,
        "Derivative Works",
    ),
    Row(
        "moderated content",
        F.REFUSAL,
        script(end="Content Moderated"),
        "yes",
        PRICE,
        "Content Moderated",
    ),
    Row(
        "a refusal at the door",
        F.REFUSAL,
        fault("submit", as_json({"status": "Request Moderated", "details": REASONS}, 422)),
        says="Derivative Works",
    ),
    Row("a task that failed", F.SERVER, script(end="Error"), "unknown", WORST, "an error"),
    Row(
        "a task that is gone",
        F.SERVER,
        fault("poll", as_json({"id": "x", "status": "Task not found"}, 404)),
        "unknown",
        WORST,
        "Task not found",
    ),
    Row(
        "a task that is gone under 200",
        F.SERVER,
        script(end="Task not found"),
        "unknown",
        WORST,
        "Task not found",
    ),
    Row("an unknown state", F.MALFORMED, script(end="Vanished"), "yes", PRICE, "Vanished"),
    Row(
        "polls on a foreign host",
        F.ASSET_URL,
        script(polling_url="https://api.bfl.ai.evil.example/v1/get_result?id={id}"),
        "unknown",
        WORST,
        "evil.example",
    ),
    Row(
        "polls over http",
        F.ASSET_URL,
        script(polling_url="http://api.bfl.ai/v1/get_result?id={id}"),
        "unknown",
        WORST,
        "not the provider's",
    ),
    Row(
        "polls at another port",
        F.ASSET_URL,
        script(polling_url="https://api.us1.bfl.ai:8443/v1/get_result?id={id}"),
        "unknown",
        WORST,
        "not the provider's",
    ),
    Row(
        "polls with a password",
        F.ASSET_URL,
        script(polling_url="https://api.bfl.ai@evil.example/v1/get_result?id={id}"),
        "unknown",
        WORST,
        "user or password",
    ),
    Row(
        "an asset on a foreign host",
        F.ASSET_URL,
        script(sample="https://evil.example/x.png"),
        "yes",
        PRICE,
        "evil.example",
    ),
    Row(
        "an asset on a private address",
        F.ASSET_URL,
        script(sample="https://[::ffff:10.0.0.1]/x.png"),
        "yes",
        PRICE,
        "nobody named",
    ),
    Row(
        "an asset after its ten minutes", F.ASSET_URL, fault("asset", EXPIRED), "yes", PRICE, "403"
    ),
    Row("an asset that is gone", F.ASSET_URL, fault("asset", Reply(410)), "yes", PRICE, "410"),
    Row("HTML as a picture", F.MALFORMED, fault("asset", HTML), "yes", PRICE, "text/html"),
    Row(
        "a torn asset",
        F.ASSET_URL,
        fault("asset", Reply(200, IMAGE, {"content-type": "image/png"}, "cut")),
        "yes",
        PRICE,
        "broke off",
    ),
    Row("an asset reset", F.ASSET_URL, fault("asset", Reply(wire="reset")), "yes", PRICE, "lost"),
    Row(
        "an asset of another type",
        F.MALFORMED,
        fault("asset", Reply(200, b"%PDF-1.7", {"content-type": "application/pdf"})),
        "yes",
        PRICE,
        "application/pdf",
    ),
    Row("no sample", F.EMPTY, script(sample=" "), "yes", PRICE, "names no picture"),
    Row("no key", F.AUTH, says="Not authenticated", key=None),
    Row("a wrong key", F.AUTH, says="Not authenticated", key="wrong"),
    Row("no credits", F.AUTH, fault("submit", NO_CREDIT), says="Insufficient credits"),
    Row("a retired model", F.RETIRED, says="404", model={"id": "flux-pro-0.9"}),
    Row(
        "an input that is refused",
        F.BAD_REQUEST,
        fault("submit", invalid("width", "must be a multiple of 16")),
        says="width: must be a multiple",
    ),
    Row("too many tasks", F.THROTTLED, fault("submit", BUSY), says="24 active tasks"),
    Row("down for maintenance", F.SERVER, fault("submit", Reply(503, b"soon")), says="503"),
    Row("HTML under 200", F.MALFORMED, fault("submit", HTML), "unknown", WORST, "polling_url"),
    Row(
        "a truncated answer",
        F.TRANSPORT,
        fault("submit", Reply(200, b"{" + b" " * 999, {}, "cut")),
        "unknown",
        WORST,
        "broke off",
    ),
    Row("a reset", F.TRANSPORT, fault("submit", Reply(wire="reset")), "unknown", WORST, "lost"),
    Row("HTML under 200 as a state", F.MALFORMED, fault("poll", HTML), "yes", PRICE, "state"),
    Row(
        "a key that was taken back",
        F.AUTH,
        fault("poll", as_json({"detail": "Not authenticated"}, 403)),
        "unknown",
        WORST,
        "Not authenticated",
    ),
    Row(
        "polls that never end",
        F.SERVER,
        script(pending=100_000),
        "unknown",
        WORST,
        "had not ended",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row, fake: Bfl) -> None:
    row.arrange(fake)
    key = KEY if row.key == "as the fake wants it" else row.key
    asked = a_request(model(**row.model), **row.request)
    result, net = drive(provider(key), asked, routes(fake))
    check(row, result, key)
    if key:
        assert net.hosts_with(key) <= {"api.bfl.ai", POLL}
    if row.failure is None:
        assert result.image == fake.picture


def test_the_task_is_told_size_seed_and_picture(fake: Bfl) -> None:
    asked = a_request(
        model(options={"safety_tolerance": 1}),
        operation="edit",
        image=IMAGE,
        width=1000,
        height=700,
    )
    drive(provider(), asked, routes(fake))
    first = fake.seen[0]
    assert (first.path, first.headers["x-key"]) == ("/v1/flux-2-pro", KEY)
    assert first.json() == {
        "prompt": asked.prompt,
        "seed": 7,
        "width": 1008,
        "height": 704,
        "output_format": "png",
        "safety_tolerance": 1,
        "input_image": base64.b64encode(IMAGE).decode(),
    }


def test_some_models_are_told_an_aspect_ratio() -> None:
    kontext = model(id="flux-kontext-pro")
    sent = provider().message(a_request(kontext, width=1600, height=900)).json
    assert (sent["aspect_ratio"], "width" in sent) == ("16:9", False)
    old = provider().capabilities(model(id="flux-pro-1.1"))
    assert old.size_for(1024, 3000) == (1024, 1440)


def test_cost_and_megapixels_are_what_they_tell(fake: Bfl) -> None:
    attempt = drive(provider(), a_request(model()), routes(fake))[0].attempt
    assert attempt.cost_source == "reported"
    assert attempt.usage is not None
    assert attempt.usage.megapixels == 1.05
    assert attempt.usage.raw == {"cost": 4.5, "input_mp": 0.0, "output_mp": 1.05}
    assert attempt.provider_request_id == "5a1f0000-0000-4000-8000-000000000000"
    assert attempt.seed_used == 7


@pytest.mark.parametrize(
    ("fields", "request_fields", "says"),
    [
        ({"id": "stable-diffusion"}, {}, "no model of Black Forest Labs"),
        ({"id": "flux-2-pro/../x"}, {}, "no model of Black Forest Labs"),
        ({}, {"operation": "upscale", "image": IMAGE}, "neither upscales"),
        ({}, {"operation": "edit"}, "without a picture"),
        ({}, {"operation": "edit", "image": IMAGE, "mask": IMAGE}, "nor masks"),
        ({}, {"params": {"safety_tolerance": 9}}, "from 0 to 6"),
        ({}, {"params": {"style": "anime"}}, "nothing that bfl takes"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(
    fields: dict[str, Any], request_fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(CannotAsk, match=says):
        provider().message(a_request(model(**fields), **request_fields))


def test_a_task_that_does_not_end_is_given_up_in_time(fake: Bfl) -> None:
    fake.script.pending = 100_000
    time = Time()
    drive(provider(), a_request(model()), routes(fake), time=time)
    assert 30 <= time.now <= 31


def test_a_picture_larger_than_allowed_is_not_read(fake: Bfl) -> None:
    small = BflProvider(BASE, SecretStr(KEY), most_body=2_000)
    fake.picture = fake.picture + bytes(5_000)
    result, _ = drive(small, a_request(model()), routes(fake))
    assert result.attempt.failure is F.MALFORMED
    assert "more than 2,000 bytes" in result.attempt.message


def test_a_name_that_resolves_to_a_private_address_is_not_fetched(fake: Bfl) -> None:
    result, net = drive(provider(), a_request(model()), routes(fake), addresses=["127.0.0.1"])
    assert result.attempt.failure is F.ASSET_URL
    assert ASSETS not in {sent.host for sent in net.sent}


def test_a_timeout_is_transport_and_may_be_billed(fake: Bfl) -> None:
    fake.faults["submit"] = Reply(wire="hang")
    short = model(limits=Limits(timeout_s=0.3))
    attempt = drive(provider(), a_request(short), routes(fake))[0].attempt
    assert (attempt.failure, attempt.billed) == (F.TRANSPORT, "unknown")


def served(fake: Bfl, *models: Model, key: str = KEY) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with httpx.AsyncClient(transport=Routed(routes(fake))) as client:
            return dict(await provider(key).served(client, models))

    return asyncio.run(run())


def test_models_are_looked_up_in_the_description_of_the_api(fake: Bfl) -> None:
    found = served(fake, model(), model(name="gone", id="flux-pro-0.9"))
    assert set(found) == {"m"}
    assert (found["m"].version, found["m"].known) == (None, True)
    fake.faults["model"] = Reply(404)
    assert not served(fake, model())["m"].known


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (as_json({"credits": 0}), "0 credits left"),
        (as_json({"credits": "none"}), "expected JSON with 'credits'"),
        (HTML, "expected JSON"),
        (Reply(500), "HTTP 500"),
    ],
)
def test_an_account_that_cannot_pay_is_a_gate_error(fake: Bfl, reply: Reply, says: str) -> None:
    fake.faults["credits"] = reply
    with pytest.raises(GateError, match=says):
        served(fake, model())


def test_a_key_that_is_refused_is_a_gate_error(fake: Bfl) -> None:
    with pytest.raises(GateError, match="HTTP 403"):
        served(fake, model(), key="wrong")
