"""A small HTTP/1.1 server on loopback that fakes of providers are built on.

A fake subclasses :class:`FakeServer` and writes ``handle``: a request in, a :class:`Reply` out, as
the real provider would. A test makes it misbehave with :meth:`FakeServer.script`, request by
request, and looks at ``requests``. The server runs in a thread of its own with its own event loop,
so that official SDKs, which block, can talk to it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["FakeServer", "Reply", "Seen", "json_reply", "png"]

#: Most bytes of a request body.
MOST_BODY = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the server got it; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    def form(self) -> dict[str, list[bytes]]:
        """Return the parts of a multipart body by name, in order."""
        found: dict[str, list[bytes]] = {}
        for name, _, content in self.parts():
            found.setdefault(name, []).append(content)
        return found

    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """Return the parts of a multipart body: name, file name and content."""
        kind = self.headers.get("content-type", "")
        assert kind.startswith("multipart/form-data"), f"not a multipart form: {kind!r}"
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        return [
            (
                str(part.get_param("name", header="content-disposition")),
                part.get_filename(),
                part.get_payload(decode=True),
            )
            for part in BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts()
        ]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server sends back, well-formed or not."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    #: Seconds of work before the first byte, besides the server's own latency.
    delay_s: float = 0.0
    #: Send only so many bytes of the body, then close: a body that breaks off.
    cut: int | None = None
    #: Reset the connection instead of answering, as a killed worker does.
    reset: bool = False
    #: Never answer; the connection stays open until the client or the test ends.
    hang: bool = False
    #: Send exactly these bytes and close.
    raw: bytes | None = None


def json_reply(value: Any, status: int = 200, **headers: str) -> Reply:
    """Return a reply with JSON; underscores in header names become hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value).encode()
    return Reply(status, body, {"content-type": "application/json"} | named)


Scripted = Reply | Callable[[Seen], Reply] | None


class FakeServer:
    """The server; a context manager. ``url`` is its base address while it runs."""

    def __init__(self, *, latency_s: float = 0.0, picture: bytes | None = None) -> None:
        #: Seconds of work before each answer.
        self.latency_s = latency_s
        #: What the fake delivers.
        self.picture = png() if picture is None else picture
        #: Every request, in the order in which it came whole.
        self.requests: list[Seen] = []
        #: Seconds from each request being whole to its answer being written, in order of the end.
        self.took_s: list[float] = []
        #: The most requests at the same time.
        self.most_at_once = 0
        self.url = ""
        self._now = 0
        self._scripts: deque[tuple[re.Pattern[str], Scripted]] = deque()
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="fake-server", daemon=True)

    def handle(self, request: Seen) -> Reply:
        """Return what the provider would answer; a fake overrides this."""
        return Reply(200, self.picture, {"content-type": "image/png"})

    def script(self, *replies: Scripted, on: str = "") -> None:
        """Say how the next requests are answered, the first one first.

        Args:
            *replies: A reply, a function of the request, or ``None`` to let ``handle`` answer.
            on: A regular expression that ``METHOD path`` must contain; other requests are
                answered as usual and use up nothing.
        """
        with self._lock:
            self._scripts.extend((re.compile(on), reply) for reply in replies)

    def seen(self, on: str = "") -> list[Seen]:
        """Return the requests whose ``METHOD path`` contains a regular expression."""
        return [r for r in list(self.requests) if re.search(on, f"{r.method} {r.path}")]

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self.url.rpartition(":")[2])

    def __enter__(self) -> FakeServer:
        self._thread.start()
        assert self._ready.wait(10), "the fake server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        loop, stop = self._loop, self._stop
        assert loop is not None
        assert stop is not None
        loop.call_soon_threadsafe(stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the fake server did not stop"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            me = asyncio.current_task()
            assert me is not None
            tasks.add(me)
            try:
                while await self._one(reader, writer):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client went away, or the test is over
            finally:
                tasks.discard(me)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; tell whether the connection goes on."""
        request = await _read(reader)
        if request is None:
            return False
        began = time.monotonic()
        self.requests.append(request)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            reply = self._reply(request)
            if self.latency_s + reply.delay_s:
                await asyncio.sleep(self.latency_s + reply.delay_s)
            return await _write(reader, writer, reply)
        finally:
            self._now -= 1
            self.took_s.append(time.monotonic() - began)

    def _reply(self, request: Seen) -> Reply:
        line = f"{request.method} {request.path}"
        with self._lock:
            scripted: Scripted = None
            for place, (pattern, reply) in enumerate(self._scripts):
                if pattern.search(line):
                    scripted = reply
                    del self._scripts[place]
                    break
        if scripted is None:
            return self.handle(request)
        return scripted if isinstance(scripted, Reply) else scripted(request)


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    """Return the next request, ``None`` at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    else:
        length = int(headers.get("content-length", 0))
        assert length <= MOST_BODY
        body = await reader.readexactly(length)
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Seen(method, unquote(parts.path), query, headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        assert len(body) <= MOST_BODY
    await reader.readline()
    return bytes(body)


async def _write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Send a reply; tell whether the connection goes on."""
    if reply.hang:
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the client hangs up
        return False
    if reply.reset:
        # Linger 0 makes the close a reset.
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    if reply.raw is not None:
        writer.write(reply.raw)
        await writer.drain()
        return False
    headers = {"content-length": str(len(reply.body))} | {
        name.lower(): value for name, value in reply.headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode("latin-1"))
    writer.write(reply.body if reply.cut is None else reply.body[: reply.cut])
    await writer.drain()
    return reply.cut is None and headers.get("connection", "").lower() != "close"


def png(
    width: int = 64,
    height: int = 64,
    colour: tuple[int, int, int] = (40, 90, 160),
    at_least: int = 0,
) -> bytes:
    """Return a whole PNG of one colour.

    Args:
        width: Pixels.
        height: Pixels.
        colour: Red, green and blue, 0 to 255.
        at_least: Bytes; the file is filled up with a private chunk that readers skip.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    row = b"\x00" + bytes(colour) * width
    head = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\x00\x00\x00"
    )
    end = chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    missing = at_least - len(head) - len(end) - 12
    # Numbers, so that no compression on the way makes the file small.
    filling = b"".join(n.to_bytes(4) for n in range(missing // 4 + 1))[:missing]
    return head + (chunk(b"prVt", filling) if missing > 0 else b"") + end
