"""The adapter of AUTOMATIC1111's API against the fake of it."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.automatic1111 import Automatic1111Provider
from tasks.records import FailureClass
from tests.fakes.a1111_server import CHECKPOINT, OTHER, A1111Server, Checkpoint
from tests.fakes.contract import Row, a_model, a_request, ask, check
from tests.fakes.http_fake import (
    Bend,
    body,
    decoded,
    empty,
    encoded,
    gateway_page,
    page,
    picture,
    reset,
    says,
    silent,
    size_of,
    squares,
    truncated,
    with_json,
)

TXT, IMG, EXTRA = "/txt2img", "/img2img", "/extra-single-image"
SOURCE = picture(256, 192, "source")
AUTH = "gate:pa55word-of-the-web-ui"
F = FailureClass
#: $0.001 a second, and the server says that it took 0.0123 s.
BUSY = 13
SECOND = Price(usd=0.001, per="gpu_second", source="test", date=date(2026, 1, 1))
FLAT = Price(usd=0.04, source="test", date=date(2026, 1, 1))


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "automatic1111",
        "version": f"sha256:{CHECKPOINT.sha256}",
        "pin": "immutable",
        "price": SECOND,
        "options": {"steps": 20, "upscaler": "R-ESRGAN 4x+"},
    }
    return a_model(**(usual | fields))


def info(**changes: Any) -> Bend:
    """Change what the answer tells about the generation."""

    def change(value: dict[str, Any]) -> dict[str, Any]:
        said = json.loads(value["info"]) | changes
        kept = {name: v for name, v in said.items() if v is not None}
        return value | {"info": json.dumps(kept)}

    return with_json(change)


def image(text: Any) -> Bend:
    return with_json(lambda value: value | {"images": text})


EDIT = {"operation": "edit", "image": SOURCE, "width": 256, "height": 192}
LARGER = {
    "operation": "upscale",
    "image": SOURCE,
    "params": {"scale": 2},
    "width": 512,
    "height": 384,
}

ROWS = [
    Row("text to image", None, billed="yes", cost=BUSY),
    Row("edit", None, billed="yes", cost=BUSY, request=EDIT),
    Row(
        "edit with a mask",
        None,
        billed="yes",
        cost=BUSY,
        request=EDIT | {"mask": picture(256, 192, "mask")},
    ),
    Row("upscale", None, billed="yes", cost=BUSY, request=LARGER),
    Row("named checkpoint", None, billed="yes", cost=BUSY, model={"id": CHECKPOINT.title}),
    Row(
        "prefix of a data URI",
        None,
        lambda s: s.bend(
            TXT,
            with_json(lambda v: v | {"images": ["data:image/png;base64," + v["images"][0]]}),
        ),
        billed="yes",
        cost=BUSY,
    ),
    Row(
        "price of an image",
        None,
        billed="yes",
        cost=40_000,
        model={"price": FLAT},
    ),
    Row("right user", None, lambda s: setattr(s, "auth", AUTH), billed="yes", cost=BUSY, key=AUTH),
    # Drift
    Row(
        "another checkpoint answers in silence",
        F.DRIFT,
        billed="yes",
        cost=BUSY,
        model={"id": "juggernaut_v9", "version": f"sha256:{OTHER.sha256}"},
        says=f"pinned to 'sha256:{OTHER.sha256}', reported 'sha256:{CHECKPOINT.sha256[:10]}'",
    ),
    Row(
        "the file under the name was exchanged",
        F.DRIFT,
        lambda s: setattr(
            s, "checkpoints", (OTHER, Checkpoint(CHECKPOINT.model_name, weights="retrained"))
        ),
        billed="yes",
        cost=BUSY,
        model={"id": CHECKPOINT.model_name},
        says="is pinned to",
    ),
    Row(
        "seed ignored",
        F.DRIFT,
        lambda s: setattr(s, "ignore_seed", True),
        billed="yes",
        cost=BUSY,
        says="seed 7 was asked for, '3000000000' was used",
    ),
    Row(
        "steps ignored",
        F.DRIFT,
        lambda s: s.bend(TXT, info(steps=4)),
        billed="yes",
        cost=BUSY,
        says="steps 20 was asked for, 4 was used",
    ),
    Row(
        "size ignored",
        F.DRIFT,
        lambda s: s.bend(TXT, info(width=512, height=512)),
        billed="yes",
        cost=BUSY,
        says="width 1024",
    ),
    Row(
        "sampler ignored",
        F.DRIFT,
        lambda s: s.bend(TXT, info(sampler_name="Euler")),
        billed="yes",
        cost=BUSY,
        request={"params": {"sampler_name": "Euler a"}},
        says="'Euler a' was asked for, 'Euler' was used",
    ),
    Row(
        "not enlarged",
        F.DRIFT,
        lambda s: s.bend(
            EXTRA, with_json(lambda v: v | {"image": base64.b64encode(SOURCE).decode()})
        ),
        billed="yes",
        cost=BUSY,
        request=LARGER,
        says="scale 2 was asked for",
    ),
    # Bad requests
    Row(
        "sampler it has not", F.BAD_REQUEST, request={"params": {"sampler_name": "X"}}, says="Samp"
    ),
    Row("upscaler it has not", F.BAD_REQUEST, request=LARGER, model={"options": {"upscaler": "X"}}),
    Row(
        "no upscaler named", F.BAD_REQUEST, request=LARGER, model={"options": {}}, says="options.up"
    ),
    Row(
        "upload is no picture", F.BAD_REQUEST, request=EDIT | {"image": b"nonsense"}, says="encoded"
    ),
    Row(
        "unknown parameter", F.BAD_REQUEST, request={"params": {"script_name": "x"}}, says="nothing"
    ),
    Row(
        "checkpoint by parameter",
        F.BAD_REQUEST,
        request={"params": {"override_settings": {}}},
        says="'override_settings' is nothing",
    ),
    Row("parameter of another type", F.BAD_REQUEST, request={"params": {"steps": "20"}}),
    Row("no pin", F.BAD_REQUEST, model={"version": "latest"}, says="sha256:<64 hex>"),
    Row(
        "field refused",
        F.BAD_REQUEST,
        lambda s: s.bend(
            TXT, says(422, {"detail": [{"loc": ["body", "steps"], "msg": "bad", "type": "x"}]})
        ),
        says=r"422: \['body', 'steps'\]: bad",
    ),
    Row(
        "started without --api",
        F.BAD_REQUEST,
        lambda s: s.bend(TXT, says(404, {"detail": "Not Found"})),
        says="--api",
    ),
    # Account, gone
    Row("wrong user", F.AUTH, lambda s: setattr(s, "auth", AUTH), key="gate:wrong-password"),
    Row("no user", F.AUTH, lambda s: setattr(s, "auth", AUTH), key=None, says="username"),
    Row(
        "checkpoint gone",
        F.RETIRED,
        lambda s: s.bend(TXT, says(404, {"error": "HTTPException", "detail": "Model not found"})),
        says="Model not found",
    ),
    # The server's faults: the GPU was busy all the same
    Row(
        "out of memory",
        F.SERVER,
        billed="yes",
        cost=BUSY,
        request={"params": {}},
        arrange=lambda s: s.bend(
            TXT,
            lambda reply: replace(
                reply,
                status=500,
                body=json.dumps(
                    {"error": "OutOfMemoryError", "detail": "", "errors": "CUDA out of memory"}
                ).encode(),
            ),
        ),
        says="CUDA out of memory",
    ),
    Row(
        "proxy in front throttles",
        F.THROTTLED,
        lambda s: s.bend(TXT, says(429, {"detail": "slow down"}, retry_after="2")),
        says="slow down",
    ),
    # What is no picture
    Row("page under 200", F.MALFORMED, lambda s: s.bend(TXT, page), billed="yes", says="JSON with"),
    Row("no body", F.MALFORMED, lambda s: s.bend(TXT, empty), billed="yes", cost=BUSY),
    Row("bad base64", F.MALFORMED, lambda s: s.bend(TXT, image(["*"])), billed="yes", cost=BUSY),
    Row(
        "base64 of a page",
        F.MALFORMED,
        lambda s: s.bend(TXT, image([base64.b64encode(b"<html>no</html>").decode()])),
        billed="yes",
        cost=BUSY,
        says="text/html",
    ),
    Row("no picture", F.EMPTY, lambda s: s.bend(TXT, image([])), billed="yes", cost=BUSY),
    Row(
        "null for the picture", F.EMPTY, lambda s: s.bend(TXT, image(None)), billed="yes", cost=BUSY
    ),
    Row(
        "no enlarged picture",
        F.EMPTY,
        lambda s: s.bend(EXTRA, with_json(lambda v: v | {"image": None})),
        billed="yes",
        cost=BUSY,
        request=LARGER,
    ),
    Row(
        "a list for the answer",
        F.MALFORMED,
        lambda s: s.bend(TXT, body(b"[1, 2]")),
        billed="yes",
        cost=BUSY,
    ),
]
#: Failures on the wire: nobody says how long a GPU was busy, so the time limit is counted.
LOST = [
    Row("body breaks off", F.TRANSPORT, lambda s: s.bend(TXT, truncated), says="broke off"),
    Row("connection lost", F.TRANSPORT, lambda s: s.bend(TXT, reset), says="connection lost"),
    Row("no answer", F.TRANSPORT, lambda s: s.bend(TXT, silent), says="no answer|Timeout"),
]


def run(row: Row) -> tuple[Any, str | None]:
    key = None if row.key == "as the fake wants it" else row.key
    entry = model(**row.model)
    with A1111Server() as server:
        row.arrange(server)
        return ask(server.url, a_request(entry, **row.request), key), key


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row) -> None:
    result, key = run(row)
    if row.name == "page under 200":  # no word of the server's own about its time
        row = replace(row, cost=result.attempt.cost_microusd)
        assert 0 < row.cost < 30_000
    check(row, result, key)


@pytest.mark.parametrize("row", LOST, ids=str)
def test_contract_on_the_wire(row: Row) -> None:
    row = replace(row, model={"limits": Limits(timeout_s=0.4)})
    result, key = run(row)
    assert result.attempt.billed in ("unknown", "yes")
    assert 0 < result.attempt.cost_microusd <= 400
    check(
        replace(row, billed=result.attempt.billed, cost=result.attempt.cost_microusd), result, key
    )


def test_a_gateway_in_front_that_answers_for_a_dead_server_is_tried_again() -> None:
    with A1111Server() as server:
        server.bend(TXT, gateway_page)
        attempt = ask(server.url, a_request(model())).attempt
    assert (attempt.failure, attempt.http_status) == (F.SERVER, 502)


def test_what_is_asked_is_what_is_served() -> None:
    with A1111Server() as server:
        request = a_request(model(), width=511, height=300, seed=2**32 + 5)
        result = ask(server.url, request)
        sent = server.requests[-1].json
    assert sent == {
        "prompt": request.prompt,
        "seed": 5,
        "width": 512,
        "height": 304,
        "steps": 20,
        "batch_size": 1,
        "n_iter": 1,
        "send_images": True,
        "save_images": False,
        "do_not_save_grid": True,
        "override_settings": {"sd_model_checkpoint": CHECKPOINT.sha256[:10]},
        "override_settings_restore_afterwards": True,
    }
    assert size_of(result.image) == (512, 304)
    attempt = result.attempt
    assert (attempt.model_reported, attempt.pin) == (f"sha256:{CHECKPOINT.sha256}", "held")
    assert (attempt.seed_used, attempt.cost_source) == (5, "computed")
    assert attempt.usage is not None
    assert attempt.usage.gpu_seconds == 0.0123


def test_a_server_that_tells_no_hash_leaves_the_pin_unsaid() -> None:
    with A1111Server() as server:
        server.bend(TXT, info(sd_model_hash=None))
        attempt = ask(server.url, a_request(model())).attempt
    assert (attempt.failure, attempt.pin, attempt.model_reported) == (None, "unsaid", None)


def test_the_strength_of_an_edit_reaches_the_picture() -> None:
    source = encoded(squares(256, 192, "source"))
    with A1111Server() as server:
        weak, strong = (
            ask(
                server.url,
                a_request(
                    model(), **(EDIT | {"image": source, "params": {"denoising_strength": s}})
                ),
            ).image
            for s in (0.0, 1.0)
        )
    assert (decoded(weak or b"") == decoded(source)).all()
    assert (decoded(strong or b"") != decoded(source)).any()


def test_the_password_stands_nowhere() -> None:
    with A1111Server(auth=AUTH) as server:
        header = "Basic " + base64.b64encode(b"gate:wrong-password").decode()
        server.bend(TXT, says(401, {"detail": f"no: {header} (wrong-password)"}))
        attempt = ask(server.url, a_request(model()), "gate:wrong-password").attempt
        provider = Automatic1111Provider(server.url, SecretStr(AUTH))
    told = attempt.model_dump_json() + repr(provider)
    assert "wrong-password" not in told
    assert header.removeprefix("Basic ")[:20] not in told


def served(server: A1111Server, *models: Model) -> dict[str, str | None]:
    async def look() -> dict[str, str | None]:
        async with httpx.AsyncClient() as client:
            found = await Automatic1111Provider(server.url, None).served(client, models)
            return {name: each.version for name, each in found.items()}

    return asyncio.run(look())


def test_served_tells_the_whole_hash_of_each_checkpoint() -> None:
    with A1111Server() as server:
        found = served(
            server,
            model(name="by-hash"),
            model(name="by-name", id=OTHER.model_name),
            model(name="gone", id="juggernaut_v9"),
            model(name="upscaler", operations=("upscale",)),
            model(name="no-upscaler", operations=("upscale",), options={"upscaler": "X"}),
        )
    assert found == {
        "by-hash": f"sha256:{CHECKPOINT.sha256}",
        "by-name": f"sha256:{OTHER.sha256}",
        "upscaler": None,
    }


def test_served_does_not_claim_a_hash_that_the_server_has_not_made() -> None:
    fresh = Checkpoint("fresh", hashed=False)
    with A1111Server(checkpoints=(CHECKPOINT, fresh)) as server:
        assert served(server, model(id="fresh")) == {"m": None}


def test_served_needs_a_list() -> None:
    with A1111Server() as server:
        server.bend("/sd-models", says(200, {"detail": "no"}))
        with pytest.raises(GateError, match="expected a list of checkpoints"):
            served(server, model())


def test_served_says_which_entry_names_no_checkpoint() -> None:
    with A1111Server() as server, pytest.raises(GateError, match="sha256:<64 hex>"):
        served(server, model(version="latest"))
