"""The adapter of ComfyUI against a fake that follows the graphs it is sent."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import CannotAsk
from tasks.providers.comfy_graph import changed, checked, filled
from tasks.providers.comfyui import ComfyUIProvider
from tasks.records import FailureClass
from tests.fakes.comfy_server import (
    BUSY_MS,
    CHECKPOINT,
    SPEC_HASH,
    ComfyServer,
    Graph,
    image_to_image,
    text_to_image,
    upscale,
)
from tests.fakes.contract import Row, Time, a_model, a_request, ask, check
from tests.fakes.http_fake import (
    Bend,
    body,
    decoded,
    empty,
    gateway_page,
    page,
    picture,
    reset,
    same,
    says,
    silent,
    size_of,
    squares,
    truncated,
    with_json,
)

PROMPT, HISTORY, VIEW, UPLOAD = "/prompt", "/history/", "/view", "/upload/image"
SOURCE = picture(256, 192, "source")
TOKEN = "proxy-token-0123456789"
F = FailureClass
SECOND = Price(usd=0.001, per="gpu_second", source="test", date=date(2026, 1, 1))
BUSY = BUSY_MS
GRAPHS = {"generate": text_to_image(), "edit": image_to_image(), "upscale": upscale()}


def model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "protocol": "comfyui",
        "version": CHECKPOINT,
        "price": SECOND,
        "options": {"graphs": GRAPHS},
    }
    return a_model(**(usual | fields))


def graph(change: Callable[[Graph], Any], operation: str = "generate") -> dict[str, Any]:
    """Return the fields of a model whose template was changed."""
    template = copy.deepcopy(GRAPHS[operation])
    change(template)
    return {"options": {"graphs": {operation: template}}}


def ended(change: Callable[[dict[str, Any]], Any]) -> Bend:
    """Change what the history says of a job."""

    def bent(value: dict[str, Any]) -> dict[str, Any]:
        for entry in value.values():
            change(entry)
        return value

    return with_json(bent)


def saved(**fields: str) -> list[Bend]:
    """Let the job end with a file of another name."""
    image = {"filename": "a.png", "subfolder": "imagegate", "type": "output"} | fields
    return [same, same, ended(lambda e: e["outputs"]["9"].update(images=[image]))]


def reseeded(sent: Graph) -> Graph:
    """Do as a custom node that takes care of seeds."""
    sent["3"]["inputs"]["seed"] = 424242
    return sent


def ignored(sent: Graph) -> Graph:
    sent["6"]["inputs"]["text"] = "a cat"
    return sent


EDIT = {"operation": "edit", "image": SOURCE, "width": 256, "height": 192}
LARGER = {
    "operation": "upscale",
    "image": SOURCE,
    "params": {"scale": 4},
    "width": 1024,
    "height": 768,
}

ROWS = [
    Row("text to image", None, billed="yes", cost=BUSY),
    Row("edit", None, billed="yes", cost=BUSY, request=EDIT),
    Row("upscale", None, billed="yes", cost=BUSY, request=LARGER),
    Row(
        "looks that are lost do not lose the job",
        None,
        lambda s: s.bend(HISTORY, reset, gateway_page, truncated, same),
        billed="yes",
        cost=BUSY,
    ),
    Row(
        "picture that comes at the second try",
        None,
        lambda s: s.bend(VIEW, truncated, same),
        billed="yes",
        cost=BUSY,
    ),
    Row("long job", None, lambda s: setattr(s, "polls", 9), billed="yes", cost=BUSY),
    Row(
        "behind a proxy",
        None,
        lambda s: setattr(s, "token", TOKEN),
        key=TOKEN,
        billed="yes",
        cost=BUSY,
    ),
    # Bad requests: the graph
    Row(
        "value out of range",
        F.BAD_REQUEST,
        model=graph(lambda g: g["3"]["inputs"].update(cfg=1000)),
        says=r"node '3' \(KSampler\): value_bigger_than_max: cfg",
    ),
    Row(
        "input missing",
        F.BAD_REQUEST,
        model=graph(lambda g: g["6"]["inputs"].pop("clip")),
        says="required_input_missing: clip",
    ),
    Row(
        "link of another type",
        F.BAD_REQUEST,
        model=graph(lambda g: g["8"]["inputs"].update(samples=["4", 0])),
        says="return_type_mismatch",
    ),
    Row(
        "node that is not installed",
        F.BAD_REQUEST,
        model=graph(lambda g: g["8"].update(class_type="VAEDecodeTiledPro")),
        says="node VAEDecodeTiledPro does not exist",
    ),
    Row(
        "no output",
        F.BAD_REQUEST,
        lambda s: s.bend(
            PROMPT,
            says(400, {"error": {"type": "x", "message": "Prompt has no outputs", "details": ""}}),
        ),
        says="Prompt has no outputs",
    ),
    Row(
        "one of two outputs fails",
        F.BAD_REQUEST,
        model=graph(
            lambda g: g.update(
                {"10": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}}
            )
        )
        | {"name": "two"},
        request={"params": {}},
        says="name the one that counts|return_type_mismatch",
    ),
    Row(
        "node errors under 200",
        F.BAD_REQUEST,
        lambda s: s.bend(
            PROMPT,
            with_json(
                lambda v: (
                    v
                    | {
                        "node_errors": {
                            "9": {"class_type": "SaveImage", "errors": [{"type": "bad"}]}
                        }
                    }
                )
            ),
        ),
        says=r"node '9' \(SaveImage\): bad",
    ),
    Row(
        "no graph", F.BAD_REQUEST, model={"options": {}}, says="options.graphs.generate is missing"
    ),
    Row(
        "graph as the editor saves it",
        F.BAD_REQUEST,
        model={"options": {"graphs": {"generate": {"nodes": [], "links": []}}}},
        says="export it as API format",
    ),
    Row(
        "seed has no place",
        F.BAD_REQUEST,
        model=graph(lambda g: g["3"]["inputs"].update(seed=1)),
        says="no input holds {seed}",
    ),
    Row(
        "place without a value",
        F.BAD_REQUEST,
        model=graph(lambda g: g["3"]["inputs"].update(steps="{steps}")),
        says="nothing fills the place {steps}",
    ),
    Row("upload refused", F.BAD_REQUEST, lambda s: s.bend(UPLOAD, says(400, {})), request=EDIT),
    Row("upload too large", F.BAD_REQUEST, lambda s: s.bend(UPLOAD, says(413, {})), request=EDIT),
    # Account, pace, gone
    Row("wrong token", F.AUTH, lambda s: setattr(s, "token", TOKEN), key="wrong-token-0123"),
    Row("no token", F.AUTH, lambda s: setattr(s, "token", TOKEN), key=None, says="HTTP 401"),
    Row("throttled", F.THROTTLED, lambda s: s.bend(PROMPT, says(429, {}, retry_after="1"))),
    Row(
        "weights are gone",
        F.RETIRED,
        model=graph(lambda g: g["4"]["inputs"].update(ckpt_name="old.safetensors")),
        says="value_not_in_list: ckpt_name: 'old.safetensors'",
    ),
    # Drift
    Row(
        "seed rewritten by a custom node",
        F.DRIFT,
        lambda s: setattr(s, "on_prompt", reseeded),
        billed="yes",
        cost=BUSY,
        says=r"seed of node '3' \(KSampler\): 7 was asked for, 424242 was used",
    ),
    Row(
        "prompt rewritten",
        F.DRIFT,
        lambda s: setattr(s, "on_prompt", ignored),
        billed="yes",
        cost=BUSY,
        says="'a cat' was used",
    ),
    # The server's faults
    Row(
        "node fails",
        F.SERVER,
        lambda s: setattr(s, "breaks", "KSampler"),
        billed="yes",
        cost=0,
        says=r"node '3' \(KSampler\) failed: torch.OutOfMemoryError: Allocation",
    ),
    Row(
        "job interrupted",
        F.SERVER,
        lambda s: s.bend(
            HISTORY,
            same,
            same,
            ended(
                lambda e: e.update(
                    outputs={},
                    status={
                        "status_str": "error",
                        "completed": False,
                        "messages": [["execution_interrupted", {"node_id": "3"}]],
                    },
                )
            ),
        ),
        billed="yes",
        cost=0,
        says="interrupted at node '3'",
    ),
    Row("internal error", F.SERVER, lambda s: s.bend(PROMPT, says(500, {}))),
    Row(
        "job never ends",
        F.SERVER,
        lambda s: setattr(s, "polls", 10**9),
        billed="unknown",
        cost=30_000,
        says="had not ended",
    ),
    Row(
        "server restarted",
        F.SERVER,
        lambda s: s.bend(PROMPT, lambda reply: (s.forget(), reply)[1]),
        billed="unknown",
        cost=30_000,
        says="neither history nor queue",
    ),
    # No picture
    Row(
        "no output in the end",
        F.EMPTY,
        lambda s: s.bend(HISTORY, same, same, ended(lambda e: e.update(outputs={}))),
        billed="yes",
        cost=BUSY,
        says="without a picture of node '9'",
    ),
    Row("no body", F.EMPTY, lambda s: s.bend(VIEW, empty), billed="yes", cost=BUSY),
    Row(
        "page under 200",
        F.MALFORMED,
        lambda s: s.bend(PROMPT, page),
        billed="yes",
        says="prompt_id",
    ),
    Row(
        "job's number leads elsewhere",
        F.MALFORMED,
        lambda s: s.bend(PROMPT, with_json(lambda v: v | {"prompt_id": "../system_stats"})),
        billed="yes",
    ),
    Row("page as history", F.MALFORMED, lambda s: s.bend(HISTORY, page), billed="yes"),
    Row("page as picture", F.MALFORMED, lambda s: s.bend(VIEW, page), billed="yes", cost=BUSY),
    Row(
        "picture of another type",
        F.MALFORMED,
        lambda s: s.bend(VIEW, body(b"\x1aE\xdf\xa3webm", "video/webm")),
        billed="yes",
        cost=BUSY,
    ),
    Row(
        "upload kept under another name",
        F.MALFORMED,
        lambda s: s.bend(UPLOAD, with_json(lambda v: v | {"name": "other.png"})),
        request=EDIT,
        says="other.png",
    ),
    # The finished file
    Row("file gone", F.ASSET_URL, lambda s: s.bend(VIEW, says(404, {})), billed="yes", cost=BUSY),
    Row(
        "file outside",
        F.ASSET_URL,
        lambda s: s.bend(HISTORY, *saved(filename="../../etc/passwd")),
        billed="yes",
        cost=BUSY,
    ),
    Row(
        "folder outside",
        F.ASSET_URL,
        lambda s: s.bend(HISTORY, *saved(subfolder="..\\..\\windows")),
        billed="yes",
        cost=BUSY,
    ),
    Row(
        "folder above",
        F.ASSET_URL,
        lambda s: s.bend(HISTORY, *saved(subfolder="imagegate/..")),
        billed="yes",
        cost=BUSY,
    ),
    Row(
        "file of inputs",
        F.ASSET_URL,
        lambda s: s.bend(HISTORY, *saved(type="input")),
        billed="yes",
        cost=BUSY,
    ),
    # The wire
    Row(
        "connection lost", F.TRANSPORT, lambda s: s.bend(PROMPT, reset), billed="unknown", cost=400
    ),
    Row("no answer", F.TRANSPORT, lambda s: s.bend(PROMPT, silent), "unknown", 400),
    Row(
        "answer breaks off",
        F.TRANSPORT,
        lambda s: s.bend(PROMPT, truncated),
        billed="unknown",
        cost=400,
    ),
    Row("upload lost", F.TRANSPORT, lambda s: s.bend(UPLOAD, reset), request=EDIT),
    Row("upload breaks off", F.TRANSPORT, lambda s: s.bend(UPLOAD, truncated), request=EDIT),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_contract(row: Row) -> None:
    key = None if row.key == "as the fake wants it" else row.key
    quick = row.failure is F.TRANSPORT
    entry = model(**({"limits": Limits(timeout_s=0.4)} if quick else {}) | row.model)
    with ComfyServer() as server:
        row.arrange(server)
        result = ask(server.url, a_request(entry, **row.request), key)
    if row.billed == "yes" and row.cost == 0:
        # Nobody told how long the GPU was busy: the seconds on the wire count.
        assert 0 < result.attempt.cost_microusd < 30_000
        row = replace(row, cost=result.attempt.cost_microusd)
    check(row, result, key)


def test_what_is_asked_is_what_is_run() -> None:
    with ComfyServer() as server:
        request = a_request(model(), width=500, height=301, seed=2**64 + 3)
        result = ask(server.url, request)
        sent = server.requests[0].json["prompt"]
    assert sent["6"]["inputs"]["text"] == request.prompt
    assert sent["3"]["inputs"]["seed"] == 3
    assert sent["5"]["inputs"] == {"width": 504, "height": 304, "batch_size": 1}
    assert sent["9"]["inputs"]["filename_prefix"] == "imagegate/ig-0123abcd"
    assert sent["8"] == GRAPHS["generate"]["8"]
    assert size_of(result.image) == (504, 304)
    attempt = result.attempt
    assert attempt.usage is not None
    assert (attempt.usage.gpu_seconds, attempt.cost_source) == (2.5, "computed")
    assert attempt.pin == "unsaid"
    assert attempt.provider_request_id == next(iter(server.jobs))


def test_an_edit_starts_from_its_picture() -> None:
    still = copy.deepcopy(GRAPHS["edit"])
    still["3"]["inputs"]["denoise"] = 0.0
    with ComfyServer() as server:
        entry = model(options={"graphs": {"edit": still}})
        result = ask(server.url, a_request(entry, **EDIT))
        assert ("input", "imagegate", "ig-0123abcd.png") in server.files
    assert (decoded(result.image or b"") == squares(256, 192, "source")).all()


def test_an_upscale_brings_the_size_that_is_reserved() -> None:
    with ComfyServer() as server:
        request = a_request(model(), **LARGER)
        assert ComfyUIProvider(server.url, None).asked_size(request) == (1024, 768)
        assert size_of(ask(server.url, request).image) == (1024, 768)


@pytest.mark.parametrize("lists_cached", [True, False])
def test_a_graph_that_is_cached_still_brings_a_new_picture(lists_cached: bool) -> None:
    with ComfyServer() as server:
        server.lists_cached = lists_cached
        first = ask(server.url, a_request(model()))
        again = ask(server.url, a_request(model(), idempotency_key="ig-9876"))
        views = [r.query["filename"] for r in server.requests if r.path == "/view"]
    assert first.image == again.image
    assert first.image is not None
    assert len(set(views)) == 2


def test_an_old_server_with_the_whole_graph_cached_is_empty_and_says_why() -> None:
    """A template whose output has no file name cannot be told from its twin."""
    preview = copy.deepcopy(GRAPHS["generate"])
    preview["9"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    entry = model(options={"graphs": {"generate": preview}})
    with ComfyServer() as server:
        server.lists_cached = False
        assert ask(server.url, a_request(entry)).attempt.failure is None
        attempt = ask(server.url, a_request(entry)).attempt
    assert attempt.failure is F.EMPTY
    assert "had the whole graph cached" in attempt.message


def test_values_of_the_mix_come_before_those_of_the_catalog() -> None:
    template = copy.deepcopy(GRAPHS["generate"])
    template["3"]["inputs"] |= {"steps": "{steps}", "sampler_name": "{sampler}"}
    options = {"graphs": {"generate": template}, "steps": 30, "sampler": "euler"}
    with ComfyServer() as server:
        result = ask(server.url, a_request(model(options=options), params={"steps": 4}))
        sent = server.requests[0].json["prompt"]["3"]["inputs"]
    assert result.attempt.failure is None
    assert (sent["steps"], sent["sampler_name"]) == (4, "euler")


def test_a_job_is_taken_out_of_the_queue_when_it_is_given_up() -> None:
    time = Time()
    with ComfyServer() as server:
        server.polls = 10**9
        ask(server.url, a_request(model()), time=time)
        assert server.jobs == {}
    assert server.paths()[-1] == "POST /queue"
    assert time.now == 30.0


@given(
    st.text(max_size=200),
    st.sampled_from(["{seed}", '", "class_type": "SaveImage', '["4", 0]', "{image}", "\\", ""]),
)
def test_no_prompt_changes_a_graph_beside_its_text(text: str, attack: str) -> None:
    prompt = text + attack + text
    template = text_to_image()
    template["7"]["inputs"]["text"] = "masterpiece, {prompt}, {width}"
    values = {"prompt": prompt, "seed": 1, "width": 64, "height": 64, "image": "x"}
    graph = filled(template, values, "test")
    assert graph["6"]["inputs"]["text"] == prompt
    assert graph["7"]["inputs"]["text"] == f"masterpiece, {prompt}, 64"
    for name, node in template.items():
        assert graph[name]["class_type"] == node["class_type"]
        for field, value in node["inputs"].items():
            if isinstance(value, list):
                assert graph[name]["inputs"][field] == value
    # Nothing of it is text that a JSON reader would take for structure.
    assert json.loads(json.dumps(graph)) == graph
    assert template["6"]["inputs"]["text"] == "{prompt}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "needs a graph"),
        ([], "needs a graph"),
        ({"1": {"inputs": {}}}, "needs class_type"),
        ({"1": {"class_type": "X", "inputs": []}}, "needs class_type"),
        ({"1": "X"}, "needs class_type"),
    ],
)
def test_what_is_no_graph(value: object, said: str) -> None:
    with pytest.raises(CannotAsk, match=said):
        checked(value, "generate", "here")


@pytest.mark.parametrize(
    ("asked", "used", "same_"),
    [
        (20, 20.0, True),
        ("7", 7, True),
        ("a", "a", True),
        (7, 8, False),
        (["4", 0], ["4", 1], False),
        ("a", None, False),
    ],
)
def test_what_comfyui_converts_is_not_changed(asked: Any, used: Any, same_: bool) -> None:
    sent = {"1": {"class_type": "X", "inputs": {"f": asked}}}
    ran = {"1": {"class_type": "X", "inputs": {"f": used}}}
    assert (changed(sent, ran) == "") == same_


@pytest.mark.parametrize("ran", [None, {}, {"1": None}, {"1": {"class_type": "Y", "inputs": {}}}])
def test_a_node_that_did_not_run_is_a_change(ran: Any) -> None:
    assert "did not run" in changed({"1": {"class_type": "X", "inputs": {}}}, ran)


def served(server: ComfyServer, *models: Model) -> dict[str, str | None]:
    async def look() -> dict[str, str | None]:
        async with httpx.AsyncClient() as client:
            found = await ComfyUIProvider(server.url, None).served(client, models)
            return {name: each.version for name, each in found.items()}

    return asyncio.run(look())


def test_served_looks_for_nodes_and_weights() -> None:
    stated = f"sha256:{SPEC_HASH.removeprefix('0x')}"
    gone = graph(lambda g: g["4"]["inputs"].update(ckpt_name="old.safetensors"))
    other = graph(lambda g: g["8"].update(class_type="NotInstalled"))
    one = {"operations": ("generate",)}
    with ComfyServer() as server:
        found = served(
            server,
            model(name="named"),
            model(name="hashed", version=stated),
            model(name="gone", **gone, **one),
            model(name="other", **other, **one),
        )
        assert found == {"named": None, "hashed": stated}
        server.has_metadata = False
        assert served(server, model(version=stated)) == {"m": None}


def test_served_says_which_graph_is_none() -> None:
    with ComfyServer() as server, pytest.raises(GateError, match=r"options\.graphs\.generate"):
        served(server, model(options={}))
