"""The raw adapter against servers that misbehave on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.errors import ConfigError, GateError
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import AttemptResult, GenerationRequest
from tasks.providers.raw import RawProvider
from tasks.providers.registry import provider_for
from tasks.records import FailureClass

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
KEY = "sk-test-0123456789"


@dataclass
class Seen:
    """One request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def form(self) -> dict[str, bytes]:
        """Return the parts of a multipart body by name."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts()
        return {
            str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
            for part in parts
        }


Script = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def wire_server(script: Script) -> AsyncIterator[tuple[str, list[Seen]]]:
    """Serve raw bytes: the script writes what it likes, well-formed or not."""
    seen: list[Seen] = []
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        handlers.add(me)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            method, path, _ = first.split(" ")
            headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Seen(method, path, headers, body)
            seen.append(request)
            await script(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", seen
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers)


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole HTTP answer."""
    named = {"content-length": str(len(body)), "connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{k}: {v}\r\n" for k, v in named.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode("latin-1") + body


def says(data: bytes) -> Script:
    async def script(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def a_model(timeout_s: float = 5.0) -> Model:
    return Model(
        name="m",
        protocol="raw",
        endpoint="embedded",
        version="m-1",
        pin="dated",
        operations=("generate", "edit", "upscale"),
        price=Price(usd=0.04, source="test", date=date(2026, 1, 1)),
        limits=Limits(timeout_s=timeout_s),
    )


def a_request(**changes: Any) -> GenerationRequest:
    fields: dict[str, Any] = {
        "model": a_model(),
        "operation": "generate",
        "prompt": 'a sign "Grüße 店"',
        "width": 512,
        "height": 256,
        "seed": 7,
        "stage": 1,
        "attempt": 2,
        "idempotency_key": "ig-1",
        "queued_s": 0.5,
        "params": {"steps": 4},
    }
    return GenerationRequest(**(fields | changes))


def ask(
    script: Script, *, most_body: int = 1 << 20, key: str | None = KEY, **changes: Any
) -> tuple[AttemptResult, list[Seen]]:
    """Send one request to a scripted server."""

    async def main() -> tuple[AttemptResult, list[Seen]]:
        async with wire_server(script) as (url, seen), httpx.AsyncClient() as client:
            secret = None if key is None else SecretStr(key)
            provider = RawProvider(url + "/", secret, most_body=most_body)
            return await provider.submit(client, a_request(**changes)), seen

    return asyncio.run(main())


def test_a_picture_comes_back_with_everything_about_it() -> None:
    result, seen = ask(
        says(
            http(
                200,
                PICTURE,
                content_type="image/png; q=1",
                x_request_id="r-1",
                x_model_version="m-1",
                x_seed="7",
                x_cost_usd="0.0312",
                x_finish_reason="SUCCESS",
                set_cookie="secret=1",
            )
        )
    )
    attempt = result.attempt
    assert result.image == PICTURE
    assert attempt.failure is None
    assert (attempt.stage, attempt.number, attempt.queued_s) == (1, 2, 0.5)
    assert (attempt.declared_mime, attempt.sniffed_mime) == ("image/png", "image/png")
    assert (attempt.model_reported, attempt.provider_request_id) == ("m-1", "r-1")
    assert (attempt.billed, attempt.cost_microusd, attempt.cost_source) == (
        "yes",
        31_200,
        "reported",
    )
    assert attempt.body_bytes == len(PICTURE)
    assert "set-cookie" not in attempt.headers
    assert attempt.ttfb_s is not None
    assert 0 < attempt.ttfb_s <= attempt.total_s
    (request,) = seen
    assert (request.method, request.path) == ("POST", "/generate")
    assert json.loads(request.body) == {
        "prompt": 'a sign "Grüße 店"',
        "size": "512x256",
        "model": "m",
        "seed": 7,
        "brand": None,
        "locale": "und",
        "safety": "on",
        "params": {"steps": 4},
    }
    assert request.headers["idempotency-key"] == "ig-1"
    assert request.headers["x-retry-count"] == "1"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("operation", ["edit", "upscale"])
def test_pictures_travel_as_a_form(operation: str) -> None:
    result, seen = ask(
        says(http(200, PICTURE, content_type="image/png")),
        operation=operation,
        image=PICTURE,
        brand="northwind",
        key=None,
    )
    assert result.image == PICTURE
    (request,) = seen
    assert request.path == f"/{operation}"
    assert "authorization" not in request.headers
    form = request.form()
    assert form["image"] == PICTURE
    assert form["prompt"].decode() == 'a sign "Grüße 店"'
    assert (form["size"], form["seed"], form["brand"]) == (b"512x256", b"7", b"northwind")
    assert json.loads(form["params"]) == {"steps": 4}


@pytest.mark.parametrize(
    "prompt", ["half \ud800 pair", "nul \x00 and\r\nnew lines", "", "x" * 50_000]
)
@pytest.mark.parametrize("operation", ["generate", "edit"])
def test_hostile_prompts_travel(prompt: str, operation: str) -> None:
    result, seen = ask(
        says(http(200, PICTURE, content_type="image/png")),
        operation=operation,
        prompt=prompt,
        image=PICTURE,
    )
    assert result.image == PICTURE
    if operation == "generate":
        assert json.loads(seen[0].body)["prompt"] == prompt


def cut_body(_length: int) -> Script:
    return says(http(200, PICTURE[:_length], content_type="image/png", content_length="9999"))


async def hang_up(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    # Linger 0 makes the close a reset, as when a worker is killed.
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    await asyncio.wait_for(writer.wait_closed(), 30)


@pytest.mark.parametrize(
    "script",
    [
        hang_up,
        says(b""),
        says(b"220 ftp.example.org ready\r\n"),
        says(b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\n"),
        says(b"\x00" * 200_000),
    ],
    ids=["reset", "closed", "ftp", "bad-length", "binary"],
)
def test_lost_connections_may_have_been_billed(script: Script) -> None:
    attempt = ask(script)[0].attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert attempt.http_status is None
    assert (attempt.billed, attempt.cost_microusd) == ("unknown", 40_000)
    assert attempt.ttfb_s is None
    assert attempt.message


@pytest.mark.parametrize("length", [0, 100])
def test_a_body_that_breaks_off_is_a_transport_failure(length: int) -> None:
    result = ask(cut_body(length))[0]
    assert result.image is None
    assert result.attempt.failure is FailureClass.TRANSPORT
    assert result.attempt.http_status == 200
    assert (result.attempt.billed, result.attempt.body_bytes) == ("unknown", length)


def test_a_body_that_breaks_off_but_has_a_price_is_billed() -> None:
    data = http(200, PICTURE, content_length="9999", x_cost_usd="0.04")
    attempt = ask(says(data))[0].attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert (attempt.billed, attempt.cost_microusd) == ("yes", 40_000)


def test_no_answer_in_time_may_have_been_billed() -> None:
    attempt = ask(hang, model=a_model(timeout_s=0.15))[0].attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert (attempt.billed, attempt.cost_microusd) == ("unknown", 40_000)


async def drip(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(http(200, content_type="image/png", content_length="100000"))
    for _ in range(10_000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


def test_a_slow_drip_does_not_outlast_the_time_limit() -> None:
    attempt = ask(drip, model=a_model(timeout_s=0.25))[0].attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert "timed out" in attempt.message


def test_nobody_listening_is_not_billed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> AttemptResult:
            async with httpx.AsyncClient() as client:
                return await RawProvider(url, None).submit(client, a_request())

        attempt = asyncio.run(main()).attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert (attempt.billed, attempt.cost_microusd) == ("no", 0)
    assert "cannot connect" in attempt.message


@pytest.mark.parametrize("host", ["no-such-host.invalid"])
def test_an_unknown_host_is_not_billed(host: str) -> None:
    async def main() -> AttemptResult:
        async with httpx.AsyncClient() as client:
            return await RawProvider(f"http://{host}:9", None).submit(client, a_request())

    attempt = asyncio.run(main()).attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert attempt.billed == "no"


def test_plain_http_behind_https_is_a_failure_and_not_billed() -> None:
    async def main() -> AttemptResult:
        async with wire_server(says(http(200, PICTURE))) as (url, _), httpx.AsyncClient() as client:
            provider = RawProvider(url.replace("http:", "https:"), None)
            return await provider.submit(client, a_request(model=a_model(timeout_s=0.3)))

    attempt = asyncio.run(main()).attempt
    assert attempt.failure is FailureClass.TRANSPORT
    assert attempt.billed == "no"


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_giant_body_is_not_read_to_its_end(declared: bool) -> None:
    sent = 0

    async def flood(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head = "content-length: 1000000000" if declared else "transfer-encoding: chunked"
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n{head}\r\n\r\n".encode())
        block = bytes(65_536)
        for _ in range(1000):
            writer.write(block if declared else b"10000\r\n" + block + b"\r\n")
            await writer.drain()
            sent += len(block)

    result = ask(flood, most_body=300_000)[0]
    assert result.image is None
    assert result.attempt.failure is FailureClass.MALFORMED
    assert result.attempt.body_bytes == 300_000
    assert sent < 60_000_000


def test_redirects_are_not_followed_and_the_key_stays_home() -> None:
    thief_seen: list[Seen] = []

    async def main() -> AttemptResult:
        async with (
            wire_server(says(http(200, PICTURE))) as (thief, seen),
            wire_server(says(http(307, location=f"{thief}/generate"))) as (url, _),
            httpx.AsyncClient(follow_redirects=True) as client,
        ):
            result = await RawProvider(url, SecretStr(KEY)).submit(client, a_request())
            thief_seen.extend(seen)
            return result

    attempt = asyncio.run(main()).attempt
    assert attempt.failure is FailureClass.BAD_REQUEST
    assert "redirect" in attempt.message
    assert thief_seen == []


def test_the_key_is_nowhere_in_the_record() -> None:
    echo = json.dumps({"error": {"type": "auth", "message": "x" * 290 + f"bad key {KEY}"}}).encode()
    result, _ = ask(says(http(401, echo, x_request_id=KEY, server=f"for {KEY}")))
    assert result.attempt.failure is FailureClass.AUTH
    assert KEY[:8] not in result.attempt.model_dump_json()
    assert KEY not in repr(result)
    assert KEY not in repr(RawProvider("http://127.0.0.1:1", SecretStr(KEY)))


def test_texts_of_the_provider_are_one_short_printable_line() -> None:
    hostile = json.dumps({"error": {"message": "\x1b[31mred\r\n\u202eevil " + "y" * 9000}})
    attempt = ask(says(http(500, hostile.encode(), x_request_id="z" * 5000)))[0].attempt
    assert attempt.failure is FailureClass.SERVER
    assert len(attempt.message) <= 300
    assert not {"\x1b", "\n", "\r", "\u202e"} & set(attempt.message)
    assert len(attempt.provider_request_id or "") <= 200


def test_cancelling_is_not_swallowed() -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def wait(seen: Seen, writer: asyncio.StreamWriter) -> None:
            started.set()
            await hang(seen, writer)

        async with wire_server(wait) as (url, _), httpx.AsyncClient() as client:
            task = asyncio.create_task(RawProvider(url, None).submit(client, a_request()))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_waiting_for_a_pooled_connection_is_not_the_providers_slowness() -> None:
    """Two requests share one connection: the second one's clock starts when it is sent."""
    now = 0.0

    async def slow(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal now
        now += 100.0
        writer.write(http(200, PICTURE, content_type="image/png"))
        await writer.drain()

    async def main() -> list[AttemptResult]:
        limits = httpx.Limits(max_connections=1)
        async with wire_server(slow) as (url, _), httpx.AsyncClient(limits=limits) as client:
            provider = RawProvider(url, None, clock=lambda: now)
            request = a_request(model=a_model(timeout_s=900))
            return list(await asyncio.gather(*(provider.submit(client, request) for _ in range(2))))

    # From the call, the later one would have taken 200.
    assert [result.attempt.total_s for result in asyncio.run(main())] == [100.0, 100.0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(100, 999), st.binary(max_size=300), st.booleans())
def test_whatever_the_server_sends_becomes_a_record(status: int, body: bytes, whole: bool) -> None:
    data = http(status, body, content_type="image/png") if whole else body
    result = ask(says(data), model=a_model(timeout_s=2.0))[0]
    assert (result.image is None) == (result.attempt.failure is not None)
    result.attempt.model_dump_json()


def served(body: bytes, status: int = 200) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with wire_server(says(http(status, body))) as (url, _), httpx.AsyncClient() as client:
            return dict(await RawProvider(url, None).served(client))

    return asyncio.run(main())


def test_served_models_are_read() -> None:
    entry = {"name": "m", "version": "m-1", "price_usd": 0.04, "safety": "on", "retires": None}
    odd = {"name": "n", "version": "n-1", "price_usd": "free", "safety": 3}
    found = served(json.dumps({"models": [entry, odd]}).encode())
    assert (found["m"].version, found["m"].price_usd, found["m"].safety) == ("m-1", 0.04, "on")
    assert (found["n"].price_usd, found["n"].safety) == (None, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"models": 3}', b'{"models": [3]}', b'{"models": [{"name": "m"}]}', b"<html>"],
)
def test_a_list_that_is_none_is_a_gate_error(body: bytes) -> None:
    with pytest.raises(GateError, match="models"):
        served(body)


def test_a_server_that_is_away_is_a_gate_error() -> None:
    with pytest.raises(GateError, match="HTTP 503"):
        served(b"{}", 503)

    async def main() -> None:
        async with httpx.AsyncClient() as client:
            await RawProvider("http://no-such-host.invalid", None).served(client)

    with pytest.raises(GateError, match="is the server running"):
        asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "ftp://host",
        "http://",
        "http://user:pw@host",
        "http://h:99999",
        "http://xn--a",
    ],
)
def test_unusable_addresses_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RawProvider(url, None)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "schlüssel"])
def test_unusable_keys_are_refused_without_showing_them(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        provider_for(a_model(), "http://127.0.0.1:1", SecretStr(key))
    assert not key.strip() or key not in str(caught.value)


def test_the_registry_knows_the_protocol() -> None:
    assert isinstance(provider_for(a_model(), "http://127.0.0.1:1", None), RawProvider)
    with pytest.raises(ConfigError, match=r"known: .*raw"):
        provider_for(
            a_model().model_copy(update={"protocol": "carrier-pigeon"}), "http://127.0.0.1:1", None
        )
