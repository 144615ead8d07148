"""The base of the adapters, on a protocol made for the purpose: jobs, uploads, assets, keys."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from tasks.errors import GateError
from tasks.providers import channel
from tasks.providers.answers import Answer, Asset, Facts, Meaning
from tasks.providers.base import (
    Adapter,
    AttemptResult,
    CannotAsk,
    Capabilities,
    GenerationRequest,
    Job,
)
from tasks.providers.drive import complete
from tasks.providers.http import HttpAdapter, Message, file_part
from tasks.providers.meanings import empty, failed, http_error, picture, picture_base64
from tasks.providers.usage import usage_of
from tasks.records import FailureClass
from tests.fakes.http_server import FakeServer, Reply, Seen, json_reply
from tests.providers.kit import a_request

KEY = "sk-toy/0123+456789=="


class Toy(HttpAdapter):
    """A protocol with everything: an upload first, then a job, then a picture under a URL."""

    key_header, key_scheme = "x-toy-key", ""
    kept_headers = frozenset({"x-toy"})
    api_hosts = (".toy.example",)
    asset_hosts = ("cdn.toy.example",)
    cancel_method = "PUT"

    def upload(self, request: GenerationRequest) -> Message | None:
        if request.image is None:
            return None
        return Message("POST", "/files", multipart=True, files=[file_part("f", request.image)])

    def uploaded(self, answer: Answer, request: GenerationRequest) -> GenerationRequest | Meaning:
        if not answer.ok:
            return http_error(answer, request)
        name: Any = answer.json()
        return replace(request, params=request.params | {"file": name["id"]})

    def message(self, request: GenerationRequest) -> Message:
        if request.prompt == "unspeakable":
            raise CannotAsk("the protocol has no word for it")
        body = {"prompt": request.prompt, "file": request.params.get("file")}
        return Message("POST", "/jobs", json=body, params={"v": "1 2"})

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        if not answer.ok:
            return http_error(answer, request)
        said: Any = answer.json()
        if "b64" in said:
            usage = usage_of(said.get("usage"), credits=1)
            facts = Facts(usage=usage, finish_reason=said.get("why"), request_id=said.get("rid"))
            return picture_base64(answer, request, said["b64"], facts)
        return Job(said["id"], said["poll"], cancel=said.get("cancel"), wait_s=said.get("wait"))

    def read_job(self, answer: Answer, request: GenerationRequest, job: Job) -> Meaning | Job:
        if not answer.ok:
            return self.job_error(answer, request)
        said: Any = answer.json()
        match said["state"]:
            case "working":
                return job
            case "done":
                asset = Asset(said["url"], own=said.get("own", False))
                return picture(answer, request, asset, Facts(seed_used=said.get("seed")))
            case "nothing":
                return empty(answer, request, "no picture")
        return failed(FailureClass.BAD_REQUEST, answer, request, "the job failed")


class ToyServer(FakeServer):
    """The other side of it: a job ends at its second look."""

    #: Address of the picture that a job ends with; ``None`` for one of its own.
    asset: str | None = None

    def handle(self, request: Seen) -> Reply:
        if request.headers.get("x-toy-key") != KEY and request.path != "/out.png":
            return json_reply({"error": {"message": f"bad key {KEY}"}}, 401)
        match request.method, request.path:
            case "POST", "/files":
                ((_, _, content),) = request.parts()
                return json_reply({"id": f"file of {len(content)}"})
            case "POST", "/jobs":
                poll = {"poll": f"{self.url}/jobs/j1", "cancel": f"{self.url}/jobs/j1/cancel"}
                return json_reply({"id": "j1"} | poll, 201, x_request_id="r-1", x_toy="kept")
            case "GET", "/jobs/j1":
                if len(self.seen("GET /jobs/j1$")) < 2:
                    return json_reply({"state": "working"})
                return json_reply({"state": "done", "url": self.asset or f"{self.url}/out.png"})
            case "GET", "/out.png":
                return Reply(200, self.picture, {"content-type": "image/png"})
        return json_reply({"error": "no such thing"}, 404)


def ask(
    server: ToyServer, *, adapter: Callable[..., Toy] = Toy, key: str = KEY, **changes: Any
) -> AttemptResult:
    """Send one request through the driver, without waiting between looks."""

    async def main() -> AttemptResult:
        async with httpx.AsyncClient() as client:
            provider = adapter(server.url, SecretStr(key))
            request = a_request(**changes)
            return await complete(provider, client, request, draw=lambda: 0.0)

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.providers.drive.FIRST_WAIT_S", 0.001)
    monkeypatch.setattr("tasks.providers.drive._GROWTH", 1.0)
    monkeypatch.setattr(channel, "_FETCH_PAUSE_S", 0.0)


def test_upload_job_looks_and_asset_are_one_attempt() -> None:
    with ToyServer(latency_s=0.02) as server:
        result = ask(server, image=b"\x89PNG\r\n\x1a\nmine", operation="edit")
        attempt = result.attempt
        assert result.image == server.picture
        assert [f"{r.method} {r.path}" for r in server.requests] == [
            "POST /files",
            "POST /jobs",
            "GET /jobs/j1",
            "GET /jobs/j1",
            "GET /out.png",
        ]
        assert server.requests[1].json() == {"prompt": "a sign", "file": "file of 12"}
        assert server.requests[1].query == {"v": "1 2"}
        assert "x-toy-key" not in server.requests[4].headers, "the key went with the picture"
        assert (attempt.failure, attempt.http_status) == (None, 200)
        assert (attempt.stage, attempt.number, attempt.queued_s) == (1, 2, 0.5)
        assert (attempt.billed, attempt.cost_microusd) == ("yes", 40_000)
        assert (attempt.provider_request_id, attempt.declared_mime) == ("r-1", "image/png")
        assert attempt.body_bytes == len(server.picture)
        # All five exchanges, and the first byte of the picture is not the first of an answer.
        assert attempt.ttfb_s is not None
        assert 0.1 <= attempt.ttfb_s <= attempt.total_s


def test_a_picture_in_json_keeps_usage_and_the_bytes_of_the_body() -> None:
    with ToyServer() as server:
        body = {
            "b64": base64.b64encode(server.picture).decode(),
            "usage": {"credits": 1, "note": f"key {KEY}", KEY: "x" * 5000},
            "why": f"done for {KEY}",
            "rid": f"r-{KEY}",
        }
        server.script(json_reply(body))
        result = ask(server)
    attempt = result.attempt
    assert result.image == server.picture
    assert attempt.usage is not None
    assert attempt.usage.credits == 1
    assert attempt.usage.raw["note"] == "key ***"
    assert set(attempt.usage.raw) == {"credits", "note", "***"}
    assert (attempt.finish_reason, attempt.provider_request_id) == ("done for ***", "r-***")
    assert attempt.body_bytes == len(json.dumps(body))
    assert KEY not in attempt.model_dump_json()


@pytest.mark.parametrize(
    "shown",
    [
        KEY,
        quote(KEY, safe=""),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(b"user:" + KEY.encode()).decode(),
        base64.b64encode(b"a:" + KEY.encode() + b":tail").decode(),
        base64.urlsafe_b64encode(b"abc" + KEY.encode()).decode(),
    ],
    ids=["plain", "quoted", "base64", "basic", "inside", "urlsafe"],
)
def test_the_key_stands_in_no_message(shown: str) -> None:
    with ToyServer() as server:
        server.script(json_reply({"error": {"message": f"{'x' * 250} bad {shown}"}}, 401))
        attempt = ask(server).attempt
    assert attempt.failure is FailureClass.AUTH
    assert KEY[:9] not in attempt.model_dump_json()
    assert shown[:9] not in attempt.message
    pieces = [shown[n : n + 12] for n in range(4, len(shown) - 16)]
    assert not [p for p in pieces if p in attempt.message]


LOOKS: list[tuple[Reply, FailureClass | None]] = [
    (Reply(503), None),
    (Reply(500, b"<html>"), None),
    (json_reply({}, 429, retry_after="0"), None),
    (Reply(408), None),
    (Reply(reset=True), None),
    (json_reply({"state": "working"}), None),
    (json_reply({"state": "nothing"}), FailureClass.EMPTY),
    (json_reply({"state": "failed"}), FailureClass.BAD_REQUEST),
    (json_reply({"no": "state"}), FailureClass.MALFORMED),
    (json_reply([[[]]]), FailureClass.MALFORMED),
    (Reply(200, b"<html>"), FailureClass.MALFORMED),
    (Reply(404), FailureClass.SERVER),
    (Reply(410), FailureClass.SERVER),
    (Reply(401), FailureClass.AUTH),
    (Reply(302, headers={"location": "http://127.0.0.1:1/"}), FailureClass.BAD_REQUEST),
    (json_reply({"state": "done", "url": "https://x.example/a"}), FailureClass.ASSET_URL),
    (json_reply({"state": "done", "url": "file:///etc/passwd"}), FailureClass.ASSET_URL),
    (json_reply({"state": "done", "url": 7}), FailureClass.EMPTY),
    (json_reply({"state": "done", "url": None}), FailureClass.EMPTY),
    (json_reply({"state": "done", "url": "x"}), FailureClass.ASSET_URL),
    (json_reply({"state": "done", "url": "x", "seed": 8}), FailureClass.DRIFT),
]


@pytest.mark.parametrize(
    ("look", "failure"), LOOKS, ids=lambda v: v.value if isinstance(v, FailureClass) else ""
)
def test_a_look_goes_on_or_ends_the_job(look: Reply, failure: FailureClass | None) -> None:
    with ToyServer() as server:
        server.script(look, on="GET /jobs/j1$")
        result = ask(server)
    assert result.attempt.failure is failure
    assert (result.image is None) == (failure is not None)
    lost = failure in (FailureClass.SERVER, FailureClass.AUTH)
    if lost:
        assert result.attempt.billed == "unknown", "a job that is lost may be billed"
    if failure is FailureClass.BAD_REQUEST and look.status == 302:
        assert result.attempt.billed == "unknown"


ASSETS: list[tuple[list[Reply | None], FailureClass | None, int]] = [
    ([Reply(503), None], None, 2),
    ([Reply(reset=True), Reply(502), None], None, 3),
    ([Reply(503), Reply(503), Reply(503), None], FailureClass.ASSET_URL, 3),
    ([Reply(403, b"<Error>expired</Error>")], FailureClass.ASSET_URL, 1),
    ([Reply(404)], FailureClass.ASSET_URL, 1),
    ([Reply(307, headers={"location": "/out.png"})], FailureClass.ASSET_URL, 1),
    ([Reply(206, b"x")], FailureClass.ASSET_URL, 1),
    ([Reply(200, b"<html>login</html>")], FailureClass.MALFORMED, 1),
    ([Reply(200, b"")], FailureClass.EMPTY, 1),
    ([Reply(200, b"\x00\x01\x02", {"content-type": "text/plain"})], FailureClass.MALFORMED, 1),
]


@pytest.mark.parametrize(("replies", "failure", "count"), ASSETS)
def test_a_finished_picture_is_fetched_and_paid_once(
    replies: list[Reply | None], failure: FailureClass | None, count: int
) -> None:
    with ToyServer() as server:
        server.script(*replies, on="GET /out.png")
        result = ask(server)
        assert len(server.seen("GET /out.png")) == count
        assert len(server.seen("POST /jobs")) == 1
    assert result.attempt.failure is failure
    assert (result.attempt.billed, result.attempt.cost_microusd) == ("yes", 40_000)


def test_an_asset_of_the_server_itself_gets_the_key() -> None:
    with ToyServer() as server:
        done = {"state": "done", "own": True, "url": "/out.png?name=a%20b"}
        server.script(json_reply(done), on="GET /jobs/j1$")
        assert ask(server).image == server.picture
        (fetched,) = server.seen("/out.png")
    assert (fetched.headers["x-toy-key"], fetched.query) == (KEY, {"name": "a b"})


@pytest.mark.parametrize(
    "job",
    [
        {"id": "j1", "poll": 7},
        {"id": "j1", "poll": None},
        {"id": "j1", "poll": "/jobs/j1", "cancel": ["x"]},
        {"poll": "/jobs/j1"},
    ],
)
def test_a_job_without_an_address_is_malformed(job: dict[str, Any]) -> None:
    with ToyServer() as server:
        server.script(json_reply(job), on="POST /jobs")
        assert ask(server).attempt.failure is FailureClass.MALFORMED


def test_odd_numbers_of_a_job_do_no_harm() -> None:
    with ToyServer() as server:
        job = {"id": {"n": KEY}, "poll": "/jobs/j1", "wait": "soon"}
        server.script(json_reply(job), on="POST /jobs")
        assert ask(server).image == server.picture


@pytest.mark.parametrize(
    "address",
    [
        "https://thief.example/jobs/j1",
        "http://api.toy.example/jobs/j1",
        "https://toy.example.thief.example/j",
        "https://api.toy.example:8443/jobs/j1",
        "https://user@api.toy.example/j",
        "file:///etc/passwd",
        "jobs/j1",
        "https://" + "x" * 9000,
    ],
)
def test_the_key_goes_to_no_foreign_polling_address(address: str) -> None:
    with ToyServer() as server:
        server.script(json_reply({"id": "j1", "poll": address}), on="POST /jobs")
        attempt = ask(server).attempt
        assert len(server.requests) == 1
    assert attempt.failure is FailureClass.ASSET_URL
    assert attempt.billed == "unknown"
    assert "user@" not in attempt.message


def test_an_own_asset_at_a_foreign_address_is_not_sent_the_key() -> None:
    with ToyServer() as thief, ToyServer() as server:
        done = {"state": "done", "own": True, "url": f"{thief.url}/out.png"}
        server.script(json_reply(done), on="GET /jobs/j1$")
        attempt = ask(server).attempt
        assert attempt.failure is FailureClass.ASSET_URL
        assert thief.requests == []


def test_a_request_without_words_is_not_sent() -> None:
    with ToyServer() as server:
        attempt = ask(server, prompt="unspeakable").attempt
        assert server.requests == []
    assert (attempt.failure, attempt.billed) == (FailureClass.BAD_REQUEST, "no")
    assert "no word for it" in attempt.message


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (json_reply({}, 413), FailureClass.BAD_REQUEST),
        (json_reply({}, 503), FailureClass.SERVER),
        (Reply(reset=True), FailureClass.TRANSPORT),
        (json_reply({"no": "id"}), FailureClass.MALFORMED),
    ],
)
def test_an_upload_that_fails_ends_the_attempt_before_the_request(
    reply: Reply, failure: FailureClass
) -> None:
    with ToyServer() as server:
        server.script(reply, on="POST /files")
        attempt = ask(server, image=b"x", operation="edit").attempt
        assert server.seen("POST /jobs") == []
    assert attempt.failure is failure
    if failure is not FailureClass.MALFORMED:
        assert attempt.billed == "no"


def test_a_job_that_never_ends_is_the_providers_fault_and_is_cancelled() -> None:
    with ToyServer() as server:
        server.script(*[json_reply({"state": "working"})] * 5000, on="GET /jobs/j1$")
        attempt = ask(server, timeout_s=0.4).attempt
        assert len(server.seen("PUT /jobs/j1/cancel")) == 1
        assert len(server.seen("GET /jobs/j1$")) > 3
    assert (attempt.failure, attempt.billed) == (FailureClass.SERVER, "unknown")
    assert attempt.cost_microusd == 40_000
    assert "had not ended after 0.4" in attempt.message
    assert attempt.total_s >= 0.4
    assert attempt.provider_request_id == "r-1"


def test_a_job_of_a_stopped_run_is_cancelled() -> None:
    async def main(server: ToyServer) -> None:
        looked = asyncio.Event()
        loop = asyncio.get_running_loop()

        def working(_seen: Seen) -> Reply:
            loop.call_soon_threadsafe(looked.set)
            return json_reply({"state": "working"})

        server.script(*[working] * 5000, on="GET /jobs/j1$")
        async with httpx.AsyncClient() as client:
            provider = Toy(server.url, SecretStr(KEY))
            work = asyncio.create_task(complete(provider, client, a_request(timeout_s=60)))
            await looked.wait()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

    with ToyServer() as server:
        asyncio.run(main(server))
        assert len(server.seen("PUT /jobs/j1/cancel")) == 1


def test_a_cancel_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.providers.drive.CANCEL_S", 0.05)
    with ToyServer() as server:
        server.script(*[json_reply({"state": "working"})] * 5000, on="GET /jobs/j1$")
        server.script(Reply(hang=True), on="cancel")
        assert ask(server, timeout_s=0.2).attempt.failure is FailureClass.SERVER


def test_json_is_asked_for_what_is_served() -> None:
    async def main(server: ToyServer, path: str, **options: Any) -> object:
        async with httpx.AsyncClient() as client:
            return await Toy(server.url, SecretStr(KEY)).ask(client, path, **options)

    with ToyServer() as server:
        server.script(json_reply({"a": 1}), Reply(404), Reply(404), Reply(200, b"<html>"))
        assert asyncio.run(main(server, "/models")) == {"a": 1}
        assert asyncio.run(main(server, "/models", missing_ok=True)) is None
        with pytest.raises(GateError, match="got HTTP 404"):
            asyncio.run(main(server, "/models"))
        with pytest.raises(GateError, match="expected JSON"):
            asyncio.run(main(server, "/models"))
    with pytest.raises(GateError, match="is the server running"):
        asyncio.run(main(server, "/models"))


def test_a_name_without_an_address_is_looked_up_again_and_then_given_up() -> None:
    asked: list[str] = []

    async def nowhere(host: str, _port: int) -> list[str]:
        asked.append(host)
        raise socket.gaierror("no such name")

    def adapter(*given: Any) -> Toy:
        toy = Toy(*given)
        toy.resolver = nowhere
        return toy

    with ToyServer() as server:
        server.asset = "https://cdn.toy.example/a.png?sig=secret"
        attempt = ask(server, adapter=adapter).attempt
    assert asked == ["cdn.toy.example"] * 3
    assert (attempt.failure, attempt.billed) == (FailureClass.ASSET_URL, "yes")
    assert "sig=secret" not in attempt.message


def test_a_name_that_leads_into_the_private_network_is_not_fetched() -> None:
    async def home(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    def adapter(*given: Any) -> Toy:
        toy = Toy(*given)
        toy.resolver = home
        return toy

    with ToyServer() as server:
        server.asset = "https://cdn.toy.example/a.png"
        attempt = ask(server, adapter=adapter).attempt
    assert attempt.failure is FailureClass.ASSET_URL
    assert "10.0.0.1" in attempt.message


def test_the_size_that_is_asked_for_is_what_the_capabilities_give() -> None:
    class Sized(Adapter):
        def capabilities(self, model: Any) -> Capabilities:
            return Capabilities(("generate",), sizes=((1024, 1024), (1536, 1024), (1024, 1536)))

    assert Sized().asked_size(a_request(width=512, height=512)) == (1024, 1024)
    assert Sized().asked_size(a_request(width=800, height=450)) == (1536, 1024)
    assert Sized().asked_size(a_request(operation="upscale", width=9, height=7)) == (9, 7)


@pytest.mark.parametrize(
    ("can", "wanted", "size"),
    [
        (Capabilities(()), (333, 777), (333, 777)),
        (Capabilities((), multiple_of=16), (333, 777), (336, 784)),
        (Capabilities((), multiple_of=64, most_side=1000), (2000, 900), (960, 960)),
        (Capabilities((), least_side=256), (100, 400), (256, 400)),
        (Capabilities((), multiple_of=16, most_pixels=512 * 512), (1024, 1024), (512, 512)),
        (Capabilities((), sizes=((512, 512), (1024, 1024))), (600, 600), (1024, 1024)),
        (Capabilities((), sizes=((512, 512), (1024, 1024))), (400, 400), (512, 512)),
        (Capabilities((), sizes=((512, 512), (256, 256))), (900, 900), (512, 512)),
    ],
)
def test_sizes_that_can_be_asked_for(
    can: Capabilities, wanted: tuple[int, int], size: tuple[int, int]
) -> None:
    assert can.size_for(*wanted) == size


@pytest.mark.parametrize(
    ("wanted", "aspect"),
    [((512, 512), "1:1"), ((1920, 1080), "16:9"), ((300, 900), "9:16"), ((1000, 900), "1:1")],
)
def test_aspects_that_can_be_asked_for(wanted: tuple[int, int], aspect: str) -> None:
    can = Capabilities((), aspects=((1, 1), (16, 9), (9, 16), (3, 2)))
    assert can.aspect_for(*wanted) == aspect


def test_an_adapter_without_jobs_says_so() -> None:
    async def main() -> None:
        async with httpx.AsyncClient() as client:
            await Adapter().poll(client, a_request(), Job("j", "/j"))

    with pytest.raises(TypeError, match="makes no jobs"):
        asyncio.run(main())
