"""What the fake aggregators share: a loopback HTTP server that can also break on the wire."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from PIL import Image

Wire = Literal["whole", "cut", "reset", "hang"]


@dataclass(frozen=True)
class Seen:
    """One request as the server got it; headers by lower-case name."""

    method: str
    #: As it stands on the request line, without the query.
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def argument(self, name: str) -> str | None:
        return (parse_qs(self.query).get(name) or [None])[0]


@dataclass(frozen=True)
class Reply:
    """An answer, and how far it gets: ``cut`` loses half of the body, ``hang`` never comes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wire: Wire = "whole"


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """An answer in JSON; ``_`` in the names of headers stands for ``-``."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), {"content-type": "application/json"} | named)


def picture(size: int = 32, shade: int = 90, kind: str = "PNG") -> bytes:
    """A real picture file."""
    out = io.BytesIO()
    Image.new("RGB", (size, size), (shade, 120, 200)).save(out, kind)
    return out.getvalue()


HTML = Reply(200, b"<!doctype html><h1>Down for maintenance</h1>", {"content-type": "text/html"})


class FakeServer:
    """Listens on loopback while it is open; a subclass answers.

    ``faults`` puts an answer in place of the usual one: by the name of a step (``submit``,
    ``poll``, ``asset`` and what else the subclass names), used up when ``once`` is set.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.faults: dict[str, Reply] = {}
        #: Seconds of work before each answer, for measuring; no test waits.
        self.latency_s = 0.0
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Without it, head and body leave in two packets and Nagle's algorithm adds 40 ms.
            wbufsize = -1
            disable_nagle_algorithm = True

            def _any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                parts = urlsplit(self.path)
                headers = {name.lower(): text for name, text in self.headers.items()}
                seen = Seen(self.command, parts.path, parts.query, headers, body)
                with outer._lock:
                    outer.seen.append(seen)
                reply = outer.answer(seen)
                if outer.latency_s:
                    outer._over.wait(outer.latency_s)
                outer._send(self, reply)

            do_GET = do_POST = do_PUT = _any  # noqa: N815 - the names are http.server's

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # A client may hang up whenever it likes.

        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def answer(self, seen: Seen) -> Reply:
        """Return the answer to a request."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The server's own address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def asked(self, method: str) -> list[Seen]:
        """Return the requests with a method, in their order."""
        return [seen for seen in self.seen if seen.method == method]

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        if reply.wire == "hang":
            self._over.wait(60)
        if reply.wire in ("hang", "reset"):
            sock: socket.socket = handler.connection
            # Linger 0 makes the close a reset, as when a worker is killed.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The handler's files hold the socket open as well.
            handler.close_connection = True
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
            sock.close()
            handler.rfile.close()
            return
        handler.send_response(reply.status)
        for name, text in reply.headers.items():
            handler.send_header(name, text)
        handler.send_header("content-length", str(len(reply.body)))
        handler.end_headers()
        if reply.wire == "cut":
            handler.wfile.write(reply.body[: len(reply.body) // 2])
            handler.close_connection = True
            return
        handler.wfile.write(reply.body)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
