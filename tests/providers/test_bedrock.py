"""The adapter of Bedrock against the fake that recomputes every signature."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import ConfigError, GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import CannotAsk
from tasks.providers.bedrock import FAMILIES, BedrockProvider, family_of
from tasks.records import FailureClass
from tests.fakes.aggregator_http import HTML, Reply, as_json, picture
from tests.fakes.bedrock_server import (
    ACCESS,
    FAST_UPSCALER,
    MODEL,
    SECRET,
    TOKEN,
    UPSCALER,
    BedrockServer,
    Script,
    failure,
)
from tests.fakes.contract import Row, a_model, a_request, check
from tests.fakes.routed import Routed, drive

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("botocore") is None, reason="the extra 'bedrock' is not installed"
)

HOST, PLANE = "bedrock-runtime.us-west-2.amazonaws.com", "bedrock.us-west-2.amazonaws.com"
BASE, KEY = f"https://{HOST}", f"{ACCESS}:{SECRET}"
PRICE = WORST = 80_000


@pytest.fixture
def fake() -> Iterator[BedrockServer]:
    with BedrockServer() as running:
        yield running


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "bedrock",
        "endpoint": BASE,
        "version": MODEL,
        "pin": "dated",
        "price": Price(usd=0.08, source="test", date=date(2026, 1, 1)),
    }
    return a_model(**(usual | fields))


def routes(fake: BedrockServer) -> dict[str, str]:
    return {HOST: fake.url, PLANE: fake.url}


def provider(key: str = KEY, base: str = BASE, **more: Any) -> BedrockProvider:
    return BedrockProvider(base, SecretStr(key), **more)


def script(**fields: Any) -> Any:
    def arrange(fake: BedrockServer) -> None:
        fake.script = Script(**fields)

    return arrange


def fault(reply: Reply) -> Any:
    def arrange(fake: BedrockServer) -> None:
        fake.faults["submit"] = reply

    return arrange


def fails(code: str, message: str = "no", **headers: str) -> Any:
    return fault(failure(code, message, **headers))


IMAGE = picture(64)
UPSCALE = {"operation": "upscale", "image": IMAGE, "width": 256, "height": 256}
F = FailureClass

ROWS = [
    Row("a picture", None, billed="yes", cost=PRICE),
    Row("an edit", None, billed="yes", cost=PRICE, request={"operation": "edit", "image": IMAGE}),
    Row(
        "a conservative upscale",
        None,
        billed="yes",
        cost=PRICE,
        request=UPSCALE,
        model={"id": UPSCALER},
    ),
    Row(
        "a fast upscale",
        None,
        script(seed=4_000_000_001),
        "yes",
        PRICE,
        request=UPSCALE,
        model={"id": FAST_UPSCALER},
    ),
    Row("a seed of its own", F.DRIFT, script(seed=99), "yes", PRICE, "seed 7 was asked for"),
    Row(
        "a filtered prompt",
        F.REFUSAL,
        script(finish="Filter reason: prompt"),
        "yes",
        PRICE,
        "Filter reason: prompt",
    ),
    Row(
        "a filtered output",
        F.REFUSAL,
        script(finish="Filter reason: output image"),
        "yes",
        PRICE,
        "output image",
    ),
    Row(
        "a filtered input",
        F.REFUSAL,
        script(finish="Filter reason: input image"),
        "yes",
        PRICE,
        "input image",
    ),
    Row(
        "a refusal under 400",
        F.REFUSAL,
        fails("ValidationException", "This request has been blocked by our content filters."),
        says="content filters",
    ),
    Row(
        "an inference error",
        F.SERVER,
        script(finish="Inference error"),
        "unknown",
        WORST,
        "Inference error",
    ),
    Row("no pictures", F.EMPTY, script(images=[]), "yes", PRICE, "no pictures"),
    Row("an empty picture", F.EMPTY, script(images=[""]), "yes", PRICE, "no picture"),
    Row("bad base64", F.MALFORMED, script(images=["%%%"]), "yes", PRICE, "base64"),
    Row(
        "HTML as a picture",
        F.MALFORMED,
        script(images=[base64.b64encode(HTML.body).decode()]),
        "yes",
        PRICE,
        "text/html",
    ),
    Row(
        "no finish reasons",
        F.MALFORMED,
        fault(as_json({"images": [base64.b64encode(IMAGE).decode()], "seeds": [7]})),
        "yes",
        PRICE,
        "finish reasons",
    ),
    Row("HTML under 200", F.MALFORMED, fault(HTML), "yes", PRICE, "finish_reasons"),
    Row("a list under 200", F.MALFORMED, fault(as_json([1])), "yes", PRICE, "finish_reasons"),
    Row("no rights", F.AUTH, fails("AccessDeniedException"), says="AccessDenied"),
    Row("an expired token", F.AUTH, fails("ExpiredTokenException"), says="ExpiredToken"),
    Row("a wrong secret", F.AUTH, says="InvalidSignature", key=f"{ACCESS}:another"),
    Row("a wrong access key", F.AUTH, says="security token", key=f"AKIANOBODY00:{SECRET}"),
    Row(
        "a model at its end",
        F.RETIRED,
        fails("ResourceNotFoundException", "This model version has reached the end of its life."),
        says="end of its life",
    ),
    Row(
        "a model that is legacy",
        F.RETIRED,
        fails("AccessDeniedException", "This Model is marked by provider as Legacy"),
        says="Legacy",
    ),
    Row(
        "a model that nobody knows",
        F.RETIRED,
        says="identifier is invalid",
        model={"id": "stability.sd3-5-large-v9:0"},
    ),
    Row(
        "an upscaler without its profile",
        F.BAD_REQUEST,
        says="inference profile",
        request=UPSCALE,
        model={"id": UPSCALER.removeprefix("us.")},
    ),
    Row(
        "an input that is refused",
        F.BAD_REQUEST,
        fails("ValidationException", "Malformed input request: #: extraneous key"),
        says="Malformed input",
    ),
    Row("throttled", F.THROTTLED, fails("ThrottlingException"), says="Throttling"),
    Row("no capacity", F.THROTTLED, fails("ModelNotReadyException"), says="NotReady"),
    Row(
        "a quota",
        F.THROTTLED,
        fails("ServiceQuotaExceededException"),
        says="Quota",
        retried=False,
    ),
    Row("a model too slow", F.SERVER, fails("ModelTimeoutException"), says="ModelTimeout"),
    Row("a model error", F.SERVER, fails("ModelErrorException"), says="ModelError"),
    Row("an internal error", F.SERVER, fails("InternalServerException"), says="Internal"),
    Row("unavailable", F.SERVER, fails("ServiceUnavailableException"), says="Unavailable"),
    Row("an error without a code", F.SERVER, fault(Reply(502, b"bad gateway")), says="gateway"),
    Row(
        "a truncated answer",
        F.TRANSPORT,
        fault(Reply(200, b"{" + b" " * 999, {}, "cut")),
        "unknown",
        WORST,
        "broke off",
    ),
    Row("a reset", F.TRANSPORT, fault(Reply(wire="reset")), "unknown", WORST, "lost"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row, fake: BedrockServer) -> None:
    row.arrange(fake)
    key = KEY if row.key == "as the fake wants it" else str(row.key)
    asked = a_request(model(**row.model), **row.request)
    result, net = drive(provider(key), asked, routes(fake))
    check(row, result, key)
    assert SECRET not in result.attempt.model_dump_json()
    assert net.hosts_with(SECRET) == set()
    if row.failure is None:
        assert result.image == fake.picture


def test_a_quota_is_named(fake: BedrockServer) -> None:
    fails("ServiceQuotaExceededException")(fake)
    attempt = drive(provider(), a_request(model()), routes(fake))[0].attempt
    assert attempt.finish_reason == "quota"


def test_the_invocation_is_told_what_the_model_takes(fake: BedrockServer) -> None:
    asked = a_request(model(options={"negative_prompt": "blur"}), width=1600, height=900)
    drive(provider(), asked, routes(fake))
    (first,) = fake.seen
    assert first.path == "/model/stability.sd3-5-large-v1%3A0/invoke"
    assert first.json() == {
        "prompt": asked.prompt,
        "seed": 7,
        "output_format": "png",
        "mode": "text-to-image",
        "aspect_ratio": "16:9",
        "negative_prompt": "blur",
    }
    assert provider().asked_size(asked) == (1344, 768)


def test_edits_have_a_strength_and_core_has_no_mode() -> None:
    edit = a_request(model(), operation="edit", image=IMAGE, params={"strength": 0.3})
    sent = provider().message(edit).json
    assert (sent["mode"], sent["strength"]) == ("image-to-image", 0.3)
    assert sent["image"] == base64.b64encode(IMAGE).decode()
    core = model(id="stability.stable-image-core-v1:1", options={"negative_prompt": "x"})
    assert "mode" not in provider().message(a_request(core)).json
    inpaint = model(id="us.stability.stable-image-inpaint-v1:0")
    masked = a_request(inpaint, operation="edit", image=IMAGE, mask=IMAGE)
    assert provider().message(masked).json["mask"] == base64.b64encode(IMAGE).decode()


@pytest.mark.parametrize(
    ("fields", "request_fields", "says"),
    [
        ({"id": "amazon.nova-canvas-v1:0"}, {}, "cannot 'generate'"),
        ({"id": "stability.sd3-5-largest-v1:0"}, {}, "cannot 'generate'"),
        ({"id": UPSCALER}, {}, "cannot 'generate'"),
        ({}, UPSCALE, "cannot 'upscale'"),
        ({}, {"operation": "edit"}, "without a picture"),
        ({}, {"operation": "edit", "image": IMAGE, "mask": IMAGE}, "takes no mask"),
        (
            {"id": "us.stability.stable-image-inpaint-v1:0"},
            {"operation": "edit", "image": IMAGE},
            "without a mask",
        ),
        ({}, {"params": {"strength": 0.5}}, "nothing that bedrock takes"),
        ({}, {"params": {"negative_prompt": 3}}, "a text of"),
        ({"id": FAST_UPSCALER}, UPSCALE | {"params": {"creativity": 0.3}}, "nothing that"),
    ],
)
def test_what_cannot_be_asked_is_not_sent(
    fields: dict[str, Any], request_fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(CannotAsk, match=says):
        provider().message(a_request(model(**fields), **request_fields))


def test_every_family_is_found_by_its_id() -> None:
    for name, family in FAMILIES.items():
        assert family_of(model(id=f"us.stability.{name}-v1:0")) is family
    assert provider().capabilities(model(id="luma.ray-v2:0")).operations == ()


def test_temporary_credentials_send_and_sign_their_token(fake: BedrockServer) -> None:
    fake.temporary = True
    result, net = drive(provider(f"{KEY}:{TOKEN}"), a_request(model()), routes(fake))
    assert result.attempt.failure is None
    assert net.hosts_with(TOKEN) == {HOST}
    refused, _ = drive(provider(), a_request(model()), routes(fake))
    assert refused.attempt.failure is F.AUTH


def test_parts_of_the_credentials_are_nowhere_in_the_record(fake: BedrockServer) -> None:
    echo = f"signed by {ACCESS} with {SECRET} {TOKEN}"
    fails("AccessDeniedException", echo)(fake)
    fake.temporary = False
    adapter = provider(f"{KEY}:{TOKEN}")
    text = drive(adapter, a_request(model()), routes(fake))[0].attempt.model_dump_json()
    for part in (ACCESS, SECRET, TOKEN):
        assert part not in text
        assert part not in repr(adapter)


def test_a_large_seed_is_asked_for_within_the_range(fake: BedrockServer) -> None:
    result, _ = drive(provider(), a_request(model(), seed=2**40 + 5), routes(fake))
    assert 1 <= fake.seen[0].json()["seed"] <= 4_294_967_294
    assert result.attempt.failure is None


def test_the_wait_of_a_throttled_answer_is_its_header(fake: BedrockServer) -> None:
    fails("ThrottlingException", retry_after="4")(fake)
    assert drive(provider(), a_request(model()), routes(fake))[0].attempt.retry_after_s == 4


def test_a_picture_larger_than_allowed_is_not_read(fake: BedrockServer) -> None:
    fake.picture = fake.picture + bytes(50_000)
    result, _ = drive(provider(most_body=20_000), a_request(model()), routes(fake))
    assert result.attempt.failure is F.MALFORMED
    assert "more than 20,000 bytes" in result.attempt.message


def test_a_timeout_is_transport_and_may_be_billed(fake: BedrockServer) -> None:
    fake.faults["submit"] = Reply(wire="hang")
    short = model(limits=Limits(timeout_s=0.3))
    attempt = drive(provider(), a_request(short), routes(fake))[0].attempt
    assert (attempt.failure, attempt.billed) == (F.TRANSPORT, "unknown")


@pytest.mark.parametrize("key", ["", "AKIA", "a:", ":b", "a:b:c:d", "a:b:"])
def test_credentials_of_another_form_are_refused_without_showing_them(key: str) -> None:
    with pytest.raises(ConfigError, match="ACCESS_KEY_ID:SECRET_ACCESS_KEY") as caught:
        provider(key)
    assert "AKIA" not in str(caught.value)
    with pytest.raises(ConfigError):
        BedrockProvider(BASE, None)


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (BASE, "us-west-2"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("https://vpce-0a1b.bedrock-runtime.eu-central-1.vpce.amazonaws.com", "eu-central-1"),
        ("http://127.0.0.1:4566", "us-west-2"),
    ],
)
def test_the_region_is_in_the_address(url: str, region: str) -> None:
    assert provider(base=url)._region == region


def test_an_address_without_a_region_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no region"):
        provider(base="https://images.example.com")


def test_a_missing_botocore_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.providers.bedrock.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="extra 'bedrock'"):
        provider()


def test_botocore_is_not_imported_before_it_signs() -> None:
    code = (
        "import sys; from tasks.providers.bedrock import BedrockProvider;"
        "assert not any(m.split('.')[0] == 'botocore' for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def served(fake: BedrockServer, *models: Model, key: str = KEY) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with httpx.AsyncClient(transport=Routed(routes(fake))) as client:
            return dict(await provider(key).served(client, models))

    return asyncio.run(run())


def test_the_control_plane_tells_versions_and_retirement(fake: BedrockServer) -> None:
    fake.script = Script(lifecycle={"status": "LEGACY", "endOfLifeTime": 1798761600})
    found = served(
        fake,
        model(),
        model(name="up", id=UPSCALER, version=UPSCALER.removeprefix("us.")),
        model(name="gone", version="stability.sd3-large-v1:0"),
    )
    assert set(found) == {"m", "up"}
    assert (found["m"].version, found["m"].retires) == (MODEL, "2027-01-01")
    assert found["up"].version == UPSCALER.removeprefix("us.")
    fake.script = Script(lifecycle={"status": "LEGACY", "endOfLifeTime": "2026-12-24T00:00:00Z"})
    assert served(fake, model())["m"].retires == "2026-12-24"
    fake.script = Script()
    assert served(fake, model())["m"].retires is None


def test_a_control_plane_that_refuses_is_a_gate_error(fake: BedrockServer) -> None:
    with pytest.raises(GateError, match="HTTP 403"):
        served(fake, model(), key=f"{ACCESS}:another")
    fake.faults["model"] = as_json({"nothing": 1})
    with pytest.raises(GateError, match="modelDetails"):
        served(fake, model())
