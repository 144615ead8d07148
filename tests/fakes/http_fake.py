"""What the fake providers share: a small HTTP/1.1 server that can misbehave on the wire.

A fake answers truly by itself; a test bends single answers::

    with StabilityServer() as server:
        server.bend("/generate/sd3", truncated)        # the next answer breaks off in its body
        server.bend("/results/", same, same, reset)    # the third poll loses its connection

A bend takes the true reply and returns what goes out, so a fault is always one step away from what
the provider would have said.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

import cv2
import numpy as np

PAGE = b"<!DOCTYPE html><html><body><h1>Proxy login</h1></body></html>"


@dataclass(frozen=True)
class Part:
    """One part of a multipart form."""

    data: bytes
    filename: str | None = None

    @property
    def text(self) -> str:
        return self.data.decode()


@dataclass(frozen=True)
class Request:
    """One request as the server got it; ``headers`` by lower-case name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[str, Part]]:
        """The parts of a multipart body with their names, in order; empty when it is none."""
        kind, _, rest = self.headers.get("content-type", "").partition(";")
        if kind.strip().lower() != "multipart/form-data" or "boundary=" not in rest:
            return []
        boundary = rest.split("boundary=", 1)[1].split(";")[0].strip().strip('"').encode()
        parts: list[tuple[str, Part]] = []
        for piece in self.body.split(b"--" + boundary)[1:-1]:
            head, _, data = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            names = {}
            for line in head.decode("utf-8").split("\r\n"):
                if line.lower().startswith("content-disposition"):
                    for item in line.split(";")[1:]:
                        key, _, value = item.strip().partition("=")
                        names[key] = value.strip('"')
            parts.append((names["name"], Part(data.removesuffix(b"\r\n"), names.get("filename"))))
        return parts

    @property
    def form(self) -> dict[str, Part] | None:
        """The parts of a multipart body by name, the last of each; ``None`` when it is none."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return dict(self.parts) if kind == "multipart/form-data" else None


@dataclass(frozen=True)
class Reply:
    """One answer, and how the wire treats it.

    ``truncate``: half of the body, then the connection closes. ``reset``: no answer, a TCP reset.
    ``hang``: no answer until the server stops. ``stall``: half of the body, then nothing.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    fault: Literal["", "reset", "truncate", "hang", "stall"] = ""


Bend = Callable[[Reply], Reply]


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """Return an answer in JSON; ``_`` in the name of a header stands for ``-``."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), {"content-type": "application/json"} | named)


def same(reply: Reply) -> Reply:
    return reply


def truncated(reply: Reply) -> Reply:
    """Break off in the middle of the body."""
    return replace(reply, fault="truncate")


def stalled(reply: Reply) -> Reply:
    """Send half of the body, then nothing."""
    return replace(reply, fault="stall")


def reset(reply: Reply) -> Reply:
    """Lose the connection before the answer."""
    return replace(reply, fault="reset")


def silent(reply: Reply) -> Reply:
    """Never answer."""
    return replace(reply, fault="hang")


def page(reply: Reply) -> Reply:
    """Answer with a proxy's page under 200."""
    return Reply(200, PAGE, {"content-type": "text/html"})


def gateway_page(reply: Reply) -> Reply:
    """Answer with a gateway's page under 502."""
    return Reply(502, PAGE, {"content-type": "text/html"})


def empty(reply: Reply) -> Reply:
    """Leave the body out."""
    return replace(reply, body=b"")


def body(data: bytes, mime: str | None = None) -> Bend:
    """Send other bytes, with the true headers but for the media type."""
    changes = {} if mime is None else {"content-type": mime}
    return lambda reply: replace(reply, body=data, headers=reply.headers | changes)


def header(**changes: str) -> Bend:
    """Change headers; ``_`` in a name stands for ``-``."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda reply: replace(reply, headers=reply.headers | named)


def says(status: int, value: Any, **headers: str) -> Bend:
    """Answer something else, in JSON."""
    return lambda _reply: as_json(value, status, **headers)


def with_json(change: Callable[[Any], Any]) -> Bend:
    """Change the JSON of the true answer."""
    return lambda reply: replace(reply, body=json.dumps(change(json.loads(reply.body))).encode())


def squares(width: int, height: int, key: str) -> Any:
    """Return the pixels of a picture of coloured squares that only ``key`` decides."""
    rng = np.random.default_rng(list(key.encode()))
    few = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_NEAREST)


def picture(
    width: int, height: int, key: str, *, blurred: bool = False, form: str = "png"
) -> bytes:
    """Return a picture file of coloured squares that only ``key`` decides."""
    pixels = squares(width, height, key)
    if blurred:
        pixels = cv2.blur(pixels, (max(3, width // 3), max(3, height // 3)))
    return encoded(pixels, form)


def encoded(pixels: Any, form: str = "png") -> bytes:
    done, data = cv2.imencode(f".{form}", pixels)
    assert done
    return bytes(data)


def decoded(data: bytes) -> Any | None:
    """Return the pixels of a picture, ``None`` when it is none."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None


def size_of(data: bytes | None) -> tuple[int, int] | None:
    """Return width and height of a picture, ``None`` when it is none."""
    pixels = decoded(data or b"")
    return None if pixels is None else (pixels.shape[1], pixels.shape[0])


class HttpFake:
    """A server in a thread of its own; a context manager. Subclasses answer in ``answer``."""

    def __init__(self, port: int = 0, latency_s: float = 0.0) -> None:
        self.port, self.latency_s = port, latency_s
        self.requests: list[Request] = []
        #: Seconds from each whole request to the last byte of its answer, as the server saw it.
        self.served_s: list[float] = []
        self._bends: list[tuple[str, Bend]] = []
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        #: Set when an answer begins to hang.
        self.hanging = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Reply:
        """Return the true answer; called one at a time."""
        raise NotImplementedError

    def bend(self, path: str, *bends: Bend) -> None:
        """Bend the next answers whose path holds ``path``, one bend an answer, in order."""
        with self._lock:
            self._bends.extend((path, each) for each in bends)

    def paths(self) -> list[str]:
        return [f"{r.method} {r.path}" for r in self.requests]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        if not self._started.wait(20):
            raise RuntimeError(f"{type(self).__name__} did not start on port {self.port}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(
            self._connection, "127.0.0.1", self.port, limit=1 << 20, backlog=512
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._over.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._tasks.add(me)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()
            self._tasks.discard(me)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        request = await _read(reader)
        began = time.monotonic()
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        with self._lock:
            self.requests.append(request)
            reply = self.answer(request)
            for index, (path, change) in enumerate(self._bends):
                if path in request.path:
                    del self._bends[index]
                    reply = change(reply)
                    break
        if reply.fault == "hang":
            self.hanging.set()
            await self._over.wait()
        if reply.fault in ("hang", "reset"):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        headers = {"content-length": str(len(reply.body))} | reply.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = reply.body[: len(reply.body) // 2] if reply.fault else reply.body
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode("latin-1") + data)
        await writer.drain()
        self.served_s.append(time.monotonic() - began)
        if reply.fault == "stall":
            self.hanging.set()
            await self._over.wait()
        return reply.fault == ""


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    data = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            data += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        data = await reader.readexactly(int(headers.get("content-length", 0)))
    parts = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(parts.query, True).items()}
    return Request(method, unquote(parts.path), query, headers, data)
