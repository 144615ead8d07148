"""An HTTP server whose answers are a function; it can lose an answer after doing what was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request; header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Said:
    """An answer; ``lost`` closes the connection instead of sending it."""

    status: int = 200
    value: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    lost: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536
    server: Web

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self.rfile.read(length))
        with self.server.lock:
            self.server.asked.append(asked)
            bent = self.server.bend(asked)
            said = self.server.handle(asked) if bent is None else bent
        if said.lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = said.raw if said.raw is not None else json.dumps(said.value).encode()
        self.send_response(said.status)
        for name, value in said.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the library's names

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Web(ThreadingHTTPServer):
    """Subclasses write ``handle``; one request at a time, so that they need no locks."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.asked: list[Asked] = []
        #: Takes the place of ``handle`` where it returns an answer.
        self.bend: Callable[[Asked], Said | None] = lambda asked: None
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle(self, asked: Asked) -> Said:
        """Return the answer to a request."""
        raise NotImplementedError

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients of tests hang up."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
