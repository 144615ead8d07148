"""A model server that names its models when it is told to: a gate that asks it stands still."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import yaml

from tests.fakes.mixes import manifest


class HeldModels:
    """Serves ``GET /<product>/models``; :attr:`asked` and :meth:`release` go by product."""

    def __init__(self) -> None:
        self.asked: dict[str, threading.Event] = {}
        self._open: dict[str, threading.Event] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                product = self.path.split("/")[1]
                outer.seen(product).set()
                outer._opened(product).wait(60)
                body = b'{"models": []}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # A gate that was stopped hangs up.

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def seen(self, product: str) -> threading.Event:
        """Set once a gate of the product has asked."""
        return self.asked.setdefault(product, threading.Event())

    def _opened(self, product: str) -> threading.Event:
        return self._open.setdefault(product, threading.Event())

    def release(self, product: str) -> None:
        """Answer the gates of the product, those to come at once."""
        self._opened(product).set()

    def files(self, product: str) -> dict[str, str]:
        """Return catalog, candidate and baseline of the product as YAML, by field."""
        model = {
            "protocol": "raw",
            "endpoint": f"http://127.0.0.1:{self._server.server_port}/{product}",
            "pin": "dated",
            "operations": ["generate", "edit"],
            "licence": {"id": "Apache-2.0", "uses": ["commercial"]},
            "price": {"usd": 0.01, "source": "price list", "date": "2026-01-01"},
        }
        models = [model | {"name": n, "version": f"{n}-2026-01-01"} for n in ("old", "new")]
        return {
            "catalog": yaml.safe_dump({"schema_version": 1, "models": models}),
            "candidate": yaml.safe_dump(manifest("new-mix", "new", product=product)),
            "baseline": yaml.safe_dump(manifest("old-mix", "old", product=product)),
        }

    def __enter__(self) -> HeldModels:
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for event in self._open.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
