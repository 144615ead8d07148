"""Our transport beside httpx's own, on the same servers that misbehave: the same in every way."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.harness.setup import open_client
from tasks.providers.bodies import START, Body
from tasks.providers.connection import Connection
from tasks.providers.raw import RawProvider
from tasks.providers.transport import Transport
from tasks.providers.wire import OWN_PART, NoAnswer, WireClock, exchange
from tests.fakes.http_server import png
from tests.providers.kit import a_request
from tests.providers.test_assets import certificate

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Script = Callable[[Reader, Writer], Awaitable[None]]
PICTURE = png(64, 64)
LIMITS = httpx.Limits(max_connections=2, max_keepalive_connections=2, keepalive_expiry=2.0)


def ours(verify: ssl.SSLContext | None = None) -> httpx.AsyncBaseTransport:
    return Transport(2, 2.0, verify)


def theirs(verify: ssl.SSLContext | None = None) -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(limits=LIMITS, verify=True if verify is None else verify)


BOTH = (ours, theirs)


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve a script on every connection; ends its handlers at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: Reader, writer: Writer) -> None:
        me = asyncio.current_task()
        assert me is not None
        tasks.add(me)
        try:
            await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(me)
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        name = "http" if tls is None else "https"
        yield f"{name}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def request_of(reader: Reader) -> bytes:
    """Return one request as it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


def says(*pieces: bytes, reset: bool = False, hang: bool = False) -> Script:
    """Read a request, write pieces one packet each, and close, reset, or do neither."""

    async def script(reader: Reader, writer: Writer) -> None:
        await request_of(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if hang:
            await reader.read()
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        writer.write_eof()
        await reader.read()

    return script


async def early(reader: Reader, writer: Writer) -> None:
    """Answer before the request's body was read, and read on."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 413 Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig")
    await reader.read()


async def deaf(reader: Reader, _writer: Writer) -> None:
    """Never read the request's body."""
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.Event().wait()


async def gone_in_the_request(reader: Reader, writer: Writer) -> None:
    """Reset while the request's body comes."""
    await reader.readuntil(b"\r\n\r\n")
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


OK = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n"
LONG = OK + f"content-length: {len(PICTURE)}\r\n\r\n".encode()
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LARGE = png(64, 64, at_least=2 * START + 12_345)
LARGE_HEAD = OK + f"content-length: {len(LARGE)}\r\n\r\n".encode()
UPLOAD = b"\x89PNG\r\n\x1a\n" + bytes(24 * 1024 * 1024)

#: Name, what the server does, whether a large body goes with the request.
ROWS: dict[str, tuple[Script, bool]] = {
    "picture": (says(LONG + PICTURE), False),
    "in pieces": (says(LONG, PICTURE[:9], PICTURE[9:]), False),
    "large": (says(LARGE_HEAD + LARGE), False),
    "large in pieces": (says(LARGE_HEAD + LARGE[:9], LARGE[9:200_000], LARGE[200_000:]), False),
    "large and cut": (says(LARGE_HEAD, LARGE[:-1]), False),
    "length of nothing": (says(OK + b"content-length: 0\r\n\r\n"), False),
    "length beyond all memory": (says(OK + b"content-length: 99999999999999\r\n\r\nabc"), False),
    "length and chunks": (
        says(CHUNKED[:-2] + b"content-length: 3\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
        False,
    ),
    "the same length twice": (says(LONG[:-2] + LONG[len(OK) :] + PICTURE), False),
    "no content with a length": (
        says(b"HTTP/1.1 204 None\r\ncontent-length: 3\r\n\r\nabc"),
        False,
    ),
    "long error": (
        says(b"HTTP/1.1 500 X\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 200_000, hang=True),
        False,
    ),
    "error longer than is read": (
        says(b"HTTP/1.1 500 X\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000),
        False,
    ),
    "error longer than is read and cut": (
        says(b"HTTP/1.1 500 X\r\ncontent-length: 200000\r\n\r\n" + b"x" * 100_000),
        False,
    ),
    "picture and a half": (
        says(
            OK
            + b"content-length: 300000\r\n\r\n"
            + PICTURE
            + bytes(300_000 - len(PICTURE))
            + PICTURE
        ),
        False,
    ),
    "chunked": (says(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), False),
    "until close": (says(OK + b"\r\n" + PICTURE), False),
    "http 1.0": (says(LONG.replace(b"1.1", b"1.0") + PICTURE), False),
    "hints first": (says(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + LONG + PICTURE), False),
    "no content": (says(b"HTTP/1.1 204 None\r\n\r\n"), False),
    "html": (says(OK + b"content-length: 6\r\n\r\n<html>"), False),
    "gzip by name": (says(OK + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"), False),
    "redirect": (says(b"HTTP/1.1 307 X\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"), False),
    "more than said": (says(LONG + PICTURE + b"more"), False),
    "cut by length": (says(LONG + PICTURE[:20]), False),
    "cut by chunk": (says(CHUNKED + b"5\r\nab"), False),
    "no last chunk": (says(CHUNKED + b"2\r\nab\r\n"), False),
    "bad chunk size": (says(CHUNKED + b"zz\r\nab\r\n"), False),
    "reset in the body": (says(LONG + PICTURE[:20], reset=True), False),
    "hang in the body": (says(LONG + PICTURE[:20], hang=True), False),
    "closed": (says(), False),
    "reset": (says(reset=True), False),
    "hang": (says(hang=True), False),
    "cut in the head": (says(b"HTTP/1.1 200 OK\r\ncontent-"), False),
    "hang in the head": (says(b"HTTP/1.1 200 OK\r\ncontent-", hang=True), False),
    "no status line": (says(b"hello\r\n\r\n"), False),
    "bad status": (says(b"HTTP/1.1 2x0 OK\r\n\r\n"), False),
    "bad header": (says(OK + b"no colon\r\n\r\n"), False),
    "two lengths": (says(OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"), False),
    "bad length": (says(OK + b"content-length: -3\r\n\r\nabc"), False),
    "endless head": (says(OK + b"x: " + b"y" * 300_000, hang=True), False),
    "binary head": (says(b"\x16\x03\x01\x00\x00" * 50), False),
    "large upload": (says(LONG + PICTURE), True),
    "early answer": (early, True),
    "deaf": (deaf, True),
    "reset in the request": (gone_in_the_request, True),
}


def limit_of(row: str) -> float:
    """Return the seconds for a request: few only where the server never answers."""
    waits = any(word in row for word in ("hang", "deaf", "endless", "long error"))
    return 0.6 if waits else 60.0


async def plain(make: Any, url: str, large: bool, limit_s: float = 60.0) -> tuple[Any, ...]:
    """Return what a bare client sees: the answer or the class of the error, and where."""
    content = UPLOAD if large else b'{"a":1}'
    async with httpx.AsyncClient(transport=make(), timeout=limit_s) as client:
        request = client.build_request("POST", f"{url}/generate?b=%20", content=content)
        try:
            response = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            return (type(error), "before the answer")
        try:
            body = b"".join([part async for part in response.aiter_raw()])
        except httpx.HTTPError as error:
            return (response.status_code, response.headers.raw, type(error))
        finally:
            await response.aclose()
        return (response.status_code, response.headers.raw, body, response.http_version)


async def attempt(make: Any, url: str, large: bool, limit_s: float = 60.0) -> tuple[Any, ...]:
    """Return what stands in the evidence."""
    changes: dict[str, Any] = {"image": UPLOAD, "operation": "edit"} if large else {}
    async with httpx.AsyncClient(transport=make()) as client:
        request = a_request(timeout_s=limit_s, **changes)
        result = await RawProvider(url, None).submit(client, request)
    assert not hasattr(result, "poll")
    found: Any = result
    one = found.attempt
    return (one.failure, one.billed, one.http_status, one.body_bytes, found.image)


@pytest.mark.parametrize("row", list(ROWS))
def test_a_server_that_misbehaves_is_told_apart_as_by_httpx(row: str) -> None:
    script, large = ROWS[row]

    async def main(look: Any) -> list[Any]:
        async with serving(script) as url:
            return [await look(make, url, large, limit_of(row)) for make in BOTH]

    mine, other = asyncio.run(main(plain))
    assert mine == other
    mine, other = asyncio.run(main(attempt))
    assert mine == other


def test_the_rows_show_every_kind_of_error() -> None:
    """The table means something: these classes are in it, by httpx's own transport."""
    kinds = {
        "reset": httpx.ReadError,
        "closed": httpx.RemoteProtocolError,
        "hang": httpx.ReadTimeout,
        "no status line": httpx.RemoteProtocolError,
        "deaf": httpx.WriteTimeout,
    }

    async def main(row: str, make: Any) -> Any:
        async with serving(ROWS[row][0]) as url:
            return (await plain(make, url, ROWS[row][1], limit_of(row)))[0]

    for row, kind in kinds.items():
        assert [asyncio.run(main(row, make)) for make in BOTH] == [kind, kind], row


def unused() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("url", ["refused", "ftp://127.0.0.1", "http://[::1]:1"])
def test_what_cannot_be_reached_is_not_billed(url: str) -> None:
    where = f"http://127.0.0.1:{unused()}" if url == "refused" else url

    async def main() -> list[Any]:
        looks = (plain,) if url.startswith("ftp") else (plain, attempt)
        return [await look(make, where, False) for look in looks for make in BOTH]

    found = asyncio.run(main())
    assert found[0] == found[1]
    if len(found) > 2:
        assert found[2] == found[3]
        assert found[2][1] == "no"


def test_the_bytes_on_the_wire_are_the_same() -> None:
    seen: list[bytes] = []

    async def script(reader: Reader, writer: Writer) -> None:
        while True:
            seen.append(await request_of(reader))
            writer.write(LONG.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b\r\n\r\n") + PICTURE)

    async def main(make: Any) -> None:
        async with (
            serving(script) as url,
            httpx.AsyncClient(transport=make(), headers={"Host": "h"}) as client,
        ):
            await client.get(f"{url}/a%20b?c=%2F&d=ü", headers=[("X-Two", "1"), ("X-Two", "2")])
            client.cookies.clear()
            await client.post(f"{url}/j", json={"a": "ü"}, headers={"Authorization": "Bearer k"})
            client.cookies.clear()
            await client.post(f"{url}/b", content=b"x" * 70_000)
            client.cookies.clear()
            form = client.build_request("POST", url, files={"f": b"y" * 40_000}, data={"p": "q"})
            form.headers["content-type"] = "multipart/form-data; boundary=fixed"
            await client.send(form)

    asyncio.run(main(ours))
    asyncio.run(main(theirs))
    assert len(seen) == 8
    boundary = re.compile(rb"--[0-9a-f]{32}")
    assert [boundary.sub(b"--B", m) for m in seen[:4]] == [
        boundary.sub(b"--B", t) for t in seen[4:]
    ]


def answering(opened: list[Writer], *, close_idle: bool = False) -> Script:
    """Answer as long as requests come; count the connections."""

    async def script(reader: Reader, writer: Writer) -> None:
        opened.append(writer)
        while True:
            await request_of(reader)
            writer.write(LONG + PICTURE)
            await writer.drain()
            if close_idle:
                return

    return script


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("close_idle", [True, False], ids=["closed by the server", "kept"])
def test_connections_are_used_again_unless_the_server_closed_them(
    make: Any, close_idle: bool
) -> None:
    opened: list[Writer] = []

    async def main() -> None:
        async with (
            serving(answering(opened, close_idle=close_idle)) as url,
            httpx.AsyncClient(transport=make()) as client,
        ):
            for _ in range(5):
                assert (await client.post(url, content=b"x")).content == PICTURE
                if close_idle:
                    await opened[-1].wait_closed()

    asyncio.run(main())
    assert len(opened) == (5 if close_idle else 1)


def test_an_idle_connection_is_not_used_after_its_time() -> None:
    opened: list[Writer] = []

    async def main() -> None:
        transport = Transport(2, 0.0)
        async with (
            serving(answering(opened)) as url,
            httpx.AsyncClient(transport=transport) as client,
        ):
            await client.get(url)
            await asyncio.sleep(0.001)
            await client.get(url)

    asyncio.run(main())
    assert len(opened) == 2


@pytest.mark.parametrize("make", BOTH)
def test_no_more_connections_than_allowed_and_a_wait_ends_in_a_pool_timeout(make: Any) -> None:
    opened: list[Writer] = []

    async def main() -> None:
        async with (
            serving(answering(opened)) as url,
            serving(answering(opened)) as other,
            httpx.AsyncClient(transport=make(), timeout=httpx.Timeout(5, pool=0.05)) as client,
        ):
            first, second = [
                await client.send(client.build_request("GET", where), stream=True)
                for where in (url, other)
            ]
            with pytest.raises(httpx.PoolTimeout):
                await client.get(url)
            await first.aread()
            await first.aclose()
            # The idle connection is to another server, which makes room.
            assert (await client.get(other)).content == PICTURE
            await second.aclose()
            answers = await asyncio.gather(*(client.get(url) for _ in range(2)))
            assert [a.content for a in answers] == [PICTURE] * 2

    asyncio.run(main())


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("where", ["before the answer", "in the body"])
def test_a_cancelled_request_closes_its_connection_and_frees_its_place(
    make: Any, where: str
) -> None:
    async def main() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def script(reader: Reader, writer: Writer) -> None:
            await request_of(reader)
            if where == "in the body":
                writer.write(LONG + PICTURE[:20])
                await writer.drain()
            asked.set()
            await reader.read()
            ended.set()

        async with (
            serving(script) as url,
            serving(answering([])) as good,
            httpx.AsyncClient(transport=make(), timeout=5) as client,
        ):
            for _ in range(3):
                asked.clear()
                ended.clear()
                work = asyncio.create_task(client.get(url))
                await asked.wait()
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
                await asyncio.wait_for(ended.wait(), 5)
            assert (await client.get(good)).content == PICTURE

    asyncio.run(main())


def test_the_clock_is_told_when_the_request_left_and_when_the_answer_came() -> None:
    async def main(make: Any) -> list[bool]:
        async with (
            serving(answering([])) as url,
            httpx.AsyncClient(transport=make()) as client,
        ):
            told = []
            for _ in range(2):
                clock = WireClock()
                request = client.build_request(
                    "GET", url, extensions={"trace": clock.trace, "timeout": {}}
                )
                assert not isinstance(await exchange(client, request, clock, 5.0), NoAnswer)
                moments = (clock.connecting_at, clock.sent_at, clock.answered_at)
                known = [m for m in moments if m is not None]
                assert known == sorted(known)
                told += [m is not None for m in moments]
            return told

    assert asyncio.run(main(ours)) == asyncio.run(main(theirs)) == [True] * 3 + [False, True, True]


async def whole(client: httpx.AsyncClient, url: str) -> bytes:
    """Return a body as the adapters read it."""
    clock = WireClock()
    request = client.build_request("GET", url, extensions={"trace": clock.trace})
    answer = await exchange(client, request, clock, 5.0)
    assert not isinstance(answer, NoAnswer)
    return answer.body


async def iterated(client: httpx.AsyncClient, url: str) -> bytes:
    return (await client.get(url)).content


@pytest.mark.parametrize("read", [whole, iterated])
@pytest.mark.parametrize("head", [LONG, CHUNKED + f"{len(PICTURE):x}\r\n".encode()])
def test_an_answer_that_nobody_asked_for_is_never_the_next_one(read: Any, head: bytes) -> None:
    """Bytes beyond the end spoil a connection: they could pass for what the next request gets."""
    opened: list[int] = []
    end = b"" if head is LONG else b"\r\n0\r\n\r\n"
    smuggled = OK + b"content-length: 4\r\n\r\nevil"

    async def script(reader: Reader, writer: Writer) -> None:
        opened.append(1)
        while True:
            await request_of(reader)
            writer.write(head + PICTURE + end + smuggled)
            await writer.drain()

    async def main() -> list[bytes]:
        async with serving(script) as url, httpx.AsyncClient(transport=ours()) as client:
            return [await read(client, url) for _ in range(3)]

    assert asyncio.run(main()) == [PICTURE] * 3
    assert len(opened) == 3


@pytest.mark.parametrize("size", [0, 1, 20_000, 1_000_000, 2 * START])
def test_bodies_one_after_the_other_on_one_connection_are_not_mixed_up(size: int) -> None:
    opened: list[Writer] = []
    bodies = [bytes([65 + n]) * size for n in range(4)] + [b"short"]

    async def script(reader: Reader, writer: Writer) -> None:
        opened.append(writer)
        for body in bodies:
            await request_of(reader)
            writer.write(OK + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        await reader.read()

    async def main() -> list[bytes]:
        async with serving(script) as url, httpx.AsyncClient(transport=ours()) as client:
            return [await whole(client, url) for _ in bodies]

    assert asyncio.run(main()) == bodies
    assert len(opened) == 1


@pytest.mark.parametrize("size", [START // 2, 2 * START], ids=["begun early", "asked for"])
def test_the_wire_is_timed_until_the_last_byte_and_not_what_follows(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = png(64, 64, at_least=size)
    head = OK + f"content-length: {len(picture)}\r\n\r\n".encode()
    moments: list[float] = [0.0]
    arrived, whole = [0], asyncio.Event()
    turn, filled = Connection.turn, Body.filled

    def counted(body: Body, count: int) -> None:
        filled(body, count)
        arrived[0] += count
        if arrived[0] == len(picture):
            whole.set()

    async def late(connection: Connection) -> None:
        """When all is here, work on other answers takes a thousand seconds."""
        await whole.wait()
        moments[0] += 1_000.0
        await turn(connection)

    monkeypatch.setattr(Body, "filled", counted)
    monkeypatch.setattr(Connection, "turn", late)

    async def main() -> tuple[Any, WireClock]:
        async with (
            serving(says(head, picture)) as url,
            httpx.AsyncClient(transport=ours()) as client,
        ):
            clock = WireClock(lambda: moments[0])
            request = client.build_request("GET", url, extensions={"trace": clock.trace})
            return await exchange(client, request, clock, 5_000.0), clock

    answer, clock = asyncio.run(main())
    assert answer.body == picture
    # One turn for one answer.
    assert moments == [1_000.0]
    assert (answer.seconds, clock.total(), clock.ttfb()) == (0.0, 0.0, 0.0)


def test_a_body_that_breaks_off_is_timed_until_it_did() -> None:
    ticks = iter(range(10_000))

    async def main() -> tuple[Any, WireClock]:
        async with (
            serving(says(LARGE_HEAD, LARGE[:-1])) as url,
            httpx.AsyncClient(transport=ours()) as client,
        ):
            clock = WireClock(lambda: float(next(ticks)))
            request = client.build_request("GET", url, extensions={"trace": clock.trace})
            return await exchange(client, request, clock, 1e6), clock

    answer, clock = asyncio.run(main())
    assert answer.broken is not None
    assert clock.ended_at is None
    assert clock.last_body_at is not None
    assert clock.sent_at is not None
    assert answer.seconds > clock.last_body_at - clock.sent_at


def test_a_body_in_pieces_of_every_size_is_put_together() -> None:
    sizes = [OWN_PART, 1, 2, OWN_PART - 1, OWN_PART + 1, 3, 100_000, 1]
    body = b"".join(bytes([65 + n]) * size for n, size in enumerate(sizes))

    async def main() -> list[Any]:
        chunks = [f"{s:x}\r\n".encode() + bytes([65 + n]) * s for n, s in enumerate(sizes)]
        sent = CHUNKED + b"\r\n".join(chunks) + b"\r\n0\r\n\r\n"
        found = []
        async with serving(says(sent)) as url, httpx.AsyncClient(transport=ours()) as client:
            for most in (len(body), OWN_PART + 2):
                request = client.build_request("GET", url)
                found.append(await exchange(client, request, WireClock(), 5.0, most))
        return found

    whole, cut = asyncio.run(main())
    assert (whole.body, whole.broken) == (body, None)
    assert cut.body == body[: OWN_PART + 2]
    assert "more than" in cut.broken[1]


def contexts(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's and the client's side of a certificate."""
    pem, key = certificate(folder, name)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, key)
    return server, ssl.create_default_context(cafile=str(pem))


TLS: dict[str, Script] = {
    "picture": says(LONG + PICTURE),
    "large picture": says(LARGE_HEAD + LARGE),
    "large answer": says(CHUNKED, *[b"%x\r\n%s\r\n" % (2**20, bytes(2**20))] * 8, b"0\r\n\r\n"),
    "large upload": says(LONG + PICTURE),
    "deaf to an upload": deaf,
    "cut": says(LONG + PICTURE[:20], reset=True),
    "reset": says(reset=True),
    "hang": says(hang=True),
}


async def over_tls(
    make: Any,
    url: str,
    trusting: ssl.SSLContext,
    name: str,
    content: bytes = b"",
    limit_s: float = 60.0,
) -> Any:
    """Return the body or the class of the error."""
    async with httpx.AsyncClient(transport=make(trusting)) as client:
        request = client.build_request(
            "POST", url, content=content, extensions={"sni_hostname": name}
        )
        request.extensions["timeout"] = httpx.Timeout(limit_s).as_dict()
        try:
            return (await client.send(request)).content
        except httpx.TransportError as error:
            return type(error)


@pytest.mark.parametrize("row", list(TLS))
def test_tls_is_as_with_httpx(row: str, tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path, "fake.example.com")

    async def script(reader: Reader, writer: Writer) -> None:
        try:
            await TLS[row](reader, writer)
        except NotImplementedError:
            # TLS has no half-closed state: who answered waits until the client closes.
            await reader.read()

    content = UPLOAD if "upload" in row else b""

    async def main() -> list[Any]:
        async with serving(script, server) as url:
            name = "fake.example.com"
            limit_s = limit_of(row)
            return [await over_tls(make, url, trusting, name, content, limit_s) for make in BOTH]

    mine, other = asyncio.run(main())
    if row == "cut":
        # A reset, or an end without a goodbye: the same failure under two names.
        assert {mine, other} <= {httpx.ReadError, httpx.RemoteProtocolError}
    else:
        assert mine == other


@pytest.mark.parametrize("row", ["picture", "large picture", "cut"])
def test_a_body_over_tls_is_read_whole_as_well(row: str, tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path, "fake.example.com")
    sent = {"picture": PICTURE, "large picture": LARGE, "cut": PICTURE[:20]}[row]

    async def script(reader: Reader, writer: Writer) -> None:
        for _ in range(2):
            await request_of(reader)
            writer.write((LARGE_HEAD if sent is LARGE else LONG) + sent)
            await writer.drain()
            if row == "cut":
                writer.close()

    async def main() -> list[Any]:
        async with (
            serving(script, server) as url,
            httpx.AsyncClient(transport=ours(trusting)) as client,
        ):
            found = []
            for _ in range(2):
                request = client.build_request(
                    "GET", url, extensions={"sni_hostname": "fake.example.com"}
                )
                found.append(await exchange(client, request, WireClock(), 60.0))
            return found

    for answer in asyncio.run(main()):
        assert answer.body == sent
        assert (answer.broken is None) == (row != "cut")


@pytest.mark.parametrize("case", ["wrong name", "not trusted", "no TLS", "silent"])
def test_a_handshake_that_fails_is_not_billed(case: str, tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path, "fake.example.com")
    if case == "not trusted":
        trusting = ssl.create_default_context()

    async def mute(reader: Reader, writer: Writer) -> None:
        if case == "no TLS":
            writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
            await writer.drain()
        await reader.read()

    async def main() -> list[Any]:
        tls = None if case in ("no TLS", "silent") else server
        name = "other.example.com" if case == "wrong name" else "fake.example.com"
        async with serving(mute, tls) as url:
            where = url.replace("http:", "https:")
            limit_s = 1.0 if case == "silent" else 60.0
            return [await over_tls(make, where, trusting, name, limit_s=limit_s) for make in BOTH]

    mine, other = asyncio.run(main())
    assert mine == other == (httpx.ConnectTimeout if case == "silent" else httpx.ConnectError)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_loopback_never_goes_through_a_proxy_and_others_do(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[bytes] = []

    async def proxy(reader: Reader, writer: Writer) -> None:
        heads.append(await request_of(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nproxy")
        await writer.drain()
        await reader.read()

    async def main() -> list[bytes]:
        async with serving(proxy) as through, serving(answering([])) as url:
            monkeypatch.setenv(variable, through)
            async with open_client(2) as client:
                near = await client.get(url)
                far = await client.get("http://far.example.com/a")
                return [near.content, far.content]

    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert asyncio.run(main()) == [PICTURE, b"proxy"]
    assert [head.split(b"\r\n")[0] for head in heads] == [b"GET http://far.example.com/a HTTP/1.1"]
