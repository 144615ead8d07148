"""A Slack on loopback that the official SDK accepts, as strict about messages as the real one.

By hand::

    python -m tests.fakes.slack_server --port 8765 --log slack.jsonl --token xoxb-test
    IMAGEGATE_SLACK_URL=http://127.0.0.1:8765/api/ SLACK_BOT_TOKEN=xoxb-test \\
        IMAGEGATE_SLACK_CHANNEL=C0123456789 imagegate run

Every call becomes one JSON line of the log; tokens never do. ``--mode`` makes it misbehave:
``rate-limit``, ``error`` (HTTP 500), ``hang``, ``html`` (a proxy's page under 200), or
``refuse:CODE`` (Slack's own error, e.g. ``refuse:invalid_auth``). ``script`` and ``rule`` do so
call by call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.slack_rules import markup_of, message_problem, texts_of

__all__ = ["CHANNEL", "HOOK", "TOKEN", "SlackServer", "markup_of", "message_problem", "texts_of"]

TOKEN = "xoxb-test-000-secret"
CHANNEL = "C0123456789"
#: The secret part of the incoming webhook's address.
HOOK = "/services/T000/B000/hook-secret"


class SlackServer:
    """The server, in a thread of its own; a context manager."""

    def __init__(
        self,
        port: int = 0,
        log: Path | None = None,
        token: str = TOKEN,
        channels: tuple[str, ...] = (CHANNEL, "#releases"),
    ) -> None:
        self.port, self.log, self.token, self.channels = port, log, token, channels
        self.mode = "ok"
        #: How many calls misbehave before the server is well again; -1 for ever.
        self.bad_calls = -1
        self.retry_after = "1"
        self.upload_base: str | None = None
        #: Behaviour of the next calls of a method, the first one first; ``ok`` is well.
        self.scripts: dict[str, deque[str]] = defaultdict(deque)
        #: Behaviour of a call by its method and its number, before everything else.
        self.rule: Callable[[str, int], str | None] = lambda _method, _number: None
        self.messages: list[dict[str, Any]] = []
        #: What people see: text and blocks of each message as it stands now, by its ``ts``.
        self.shown: dict[str, dict[str, Any]] = {}
        self.updates: list[dict[str, Any]] = []
        self.hooked: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.files: dict[str, bytes] = {}
        self.shared: list[dict[str, Any]] = []
        self.upload_headers: list[dict[str, str]] = []
        #: Set when a call begins to hang.
        self.hanging = threading.Event()
        self._expected: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/"

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.port}{HOOK}"

    def script(self, method: str, *behaviours: str) -> None:
        """Let the next calls of a method behave as told: a mode, ``ok``, ``rate-limit:SECONDS``."""
        self.scripts[method].extend(behaviours)

    def thread(self, ts: str) -> list[str]:
        """Return the texts of a thread as people see them, the first message first."""
        inside = [b for b in self.shown.values() if b["ts"] == ts or b.get("thread_ts") == ts]
        return [body["text"] for body in inside]

    @property
    def keys(self) -> list[str]:
        """Keys of the posted messages, in the order they came."""
        return [m["metadata"]["event_payload"]["key"] for m in self.messages]

    def __enter__(self) -> SlackServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        started = threading.Event()
        routes = [
            Route("/api/chat.postMessage", self._guarded(self._post_message), methods=["POST"]),
            Route(
                "/api/files.getUploadURLExternal",
                self._guarded(self._upload_ticket),
                methods=["POST", "GET"],
            ),
            Route(
                "/api/files.completeUploadExternal",
                self._guarded(self._complete),
                methods=["POST"],
            ),
            Route("/api/chat.update", self._guarded(self._update), methods=["POST"]),
            Route("/api/auth.test", self._guarded(self._auth_test), methods=["POST"]),
            Route("/upload/v1/{file_id}", self._upload, methods=["POST"]),
            Route(HOOK, self._hook, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=self.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )

        class Announcing(uvicorn.Server):
            async def startup(inner, sockets: Any = None) -> None:  # noqa: N805 - self is the fake
                self._over = asyncio.Event()
                self._loop = asyncio.get_running_loop()
                await super().startup(sockets)
                if inner.servers:
                    self.port = inner.servers[0].sockets[0].getsockname()[1]
                started.set()

        server = Announcing(config)
        self._server = server
        self._thread = threading.Thread(target=server.run, daemon=True)
        self._thread.start()
        if not started.wait(20) or not server.started:
            raise RuntimeError(f"the fake Slack did not start on port {self.port}")

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.should_exit = True
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    def _note(self, method: str, answer: dict[str, Any], **more: Any) -> None:
        with self._lock:
            self.calls.append(method)
            if self.log is not None:
                line = {"at": datetime.now(UTC).isoformat(), "method": method, **answer, **more}
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _guarded(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Wrap a method of the API: bad modes first, then the token."""

        async def call(request: Request) -> Response:
            method = request.url.path.removeprefix("/api/")
            bad = await self._misbehave(method)
            if bad is not None:
                return bad
            given = request.headers.get("authorization", "")
            if given != f"Bearer {self.token}":
                error = "invalid_auth" if given else "not_authed"
                return self._answer(method, {"ok": False, "error": error})
            return await handler(request)

        return call

    def _behaviour(self, method: str) -> str:
        ruled = self.rule(method, self.calls.count(method))
        if ruled is not None:
            return ruled
        if self.scripts[method]:
            return self.scripts[method].popleft()
        if self.mode == "ok" or self.bad_calls == 0:
            return "ok"
        self.bad_calls -= 1
        return self.mode

    async def _misbehave(self, method: str) -> Response | None:
        mode, _, detail = self._behaviour(method).partition(":")
        if mode == "ok":
            return None
        self._note(method, {"ok": False, "error": f"(mode {mode})"})
        if mode == "rate-limit":
            headers = {"Retry-After": detail or self.retry_after}
            return JSONResponse({"ok": False, "error": "ratelimited"}, 429, headers)
        if mode == "error":
            return PlainTextResponse("upstream failed", int(detail or 500))
        if mode == "refuse":
            return JSONResponse({"ok": False, "error": detail})
        if mode == "html":
            return Response("<html><body>proxy login</body></html>", 200, media_type="text/html")
        if mode == "hang":
            self.hanging.set()
            await self._over.wait()
            return PlainTextResponse("too late", 503)
        raise ValueError(f"unknown mode {mode!r}")

    def _answer(self, method: str, answer: dict[str, Any], **more: Any) -> Response:
        if not more.pop("held", False):  # the caller holds the lock
            self._note(method, answer, **more)
        return JSONResponse(answer)

    async def _post_message(self, request: Request) -> Response:
        method = "chat.postMessage"
        try:
            body = json.loads(await request.body())
        except ValueError:
            return self._answer(method, {"ok": False, "error": "invalid_json"})
        if body.get("channel") not in self.channels:
            return self._answer(method, {"ok": False, "error": "channel_not_found"})
        problem = message_problem(body)
        if problem is not None:
            code, details = problem
            return self._answer(
                method,
                {"ok": False, "error": code, "response_metadata": {"messages": details}},
            )
        with self._lock:
            known = body.get("thread_ts")
            if known is not None and known not in self.shown:
                return self._answer(method, {"ok": False, "error": "thread_not_found"}, held=True)
            self.messages.append(body)
            stamp = f"1700000000.{len(self.messages):06d}"
            self.shown[stamp] = {**body, "ts": stamp}
        return self._answer(
            method,
            {"ok": True, "channel": CHANNEL, "ts": stamp},
            message=body,
            markup=markup_of(body),
        )

    async def _update(self, request: Request) -> Response:
        method = "chat.update"
        body = json.loads(await request.body())
        if body.get("channel") != CHANNEL:  # a name is not enough here
            return self._answer(method, {"ok": False, "error": "channel_not_found"})
        if body.get("ts") not in self.shown:
            return self._answer(method, {"ok": False, "error": "message_not_found"})
        problem = message_problem(body)
        if problem is not None:
            code, details = problem
            metadata = {"messages": details}
            return self._answer(method, {"ok": False, "error": code, "response_metadata": metadata})
        with self._lock:
            self.updates.append(body)
            before = self.shown[body["ts"]]
            self.shown[body["ts"]] = {**before, "text": body["text"], "blocks": body.get("blocks")}
        return self._answer(
            method,
            {"ok": True, "channel": CHANNEL, "ts": body["ts"], "text": body["text"]},
            message=body,
            markup=markup_of(body),
        )

    async def _auth_test(self, _request: Request) -> Response:
        answer = {"ok": True, "team": "Acme", "user": "imagegate", "user_id": "U0000000BOT"}
        return self._answer("auth.test", answer)

    async def _hook(self, request: Request) -> Response:
        """An incoming webhook: plain text answers, its errors are HTTP statuses."""
        mode, _, detail = self._behaviour("webhook").partition(":")
        if mode == "rate-limit":
            self._note("webhook", {"ok": False, "error": "(mode rate-limit)"})
            headers = {"Retry-After": detail or self.retry_after}
            return PlainTextResponse("rate_limited", 429, headers)
        if mode == "hang":
            self.hanging.set()
            await self._over.wait()
        if mode != "ok":
            self._note("webhook", {"ok": False, "error": f"(mode {mode})"})
            return PlainTextResponse(detail or "no_service", 404 if mode == "refuse" else 500)
        body = json.loads(await request.body())
        if message_problem(body) is not None:
            self._note("webhook", {"ok": False, "error": "invalid_blocks"})
            return PlainTextResponse("invalid_blocks", 400)
        with self._lock:
            self.hooked.append(body)
        self._note("webhook", {"ok": True}, message=body, markup=markup_of(body))
        return PlainTextResponse("ok")

    async def _upload_ticket(self, request: Request) -> Response:
        method = "files.getUploadURLExternal"
        form = await request.form()
        length = str(form.get("length", ""))
        if not form.get("filename") or not length.isdigit() or int(length) < 1:
            return self._answer(method, {"ok": False, "error": "invalid_arguments"})
        with self._lock:
            file_id = f"F{len(self._expected):010d}"
            self._expected[file_id] = int(length)
        base = self.upload_base or f"http://127.0.0.1:{self.port}"
        return self._answer(
            method, {"ok": True, "file_id": file_id, "upload_url": f"{base}/upload/v1/{file_id}"}
        )

    async def _upload(self, request: Request) -> Response:
        file_id = str(request.path_params["file_id"])
        data = await request.body()
        self.upload_headers.append(dict(request.headers))
        if self._expected.get(file_id) != len(data):
            return PlainTextResponse("no such upload, or another length", 400)
        self.files[file_id] = data
        self._note("upload", {"ok": True}, file_id=file_id, bytes=len(data))
        return PlainTextResponse(f"OK - {len(data)}")

    async def _complete(self, request: Request) -> Response:
        method = "files.completeUploadExternal"
        form = await request.form()
        try:
            files = json.loads(str(form.get("files", "")))
        except ValueError:
            return self._answer(method, {"ok": False, "error": "invalid_arguments"})
        if not files or any(f.get("id") not in self.files for f in files):
            return self._answer(method, {"ok": False, "error": "file_not_found"})
        if form.get("channel_id") != CHANNEL:  # a name is not enough here
            return self._answer(method, {"ok": False, "error": "channel_not_found"})
        shared = {
            "files": files,
            "channel_id": form.get("channel_id"),
            "thread_ts": form.get("thread_ts"),
        }
        self.shared.append(shared)
        return self._answer(method, {"ok": True, "files": files}, shared=shared)


def main() -> None:
    parser = argparse.ArgumentParser(description="A Slack on loopback that the SDK accepts.")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--channel", action="append", default=[])
    parser.add_argument(
        "--mode", default="ok", help="ok, rate-limit, error, hang, html, refuse:CODE"
    )
    options = parser.parse_args()
    channels = tuple(options.channel) or (CHANNEL, "#releases")
    server = SlackServer(options.port, options.log, options.token, channels)
    server.mode = options.mode
    with server:
        announced = {"base_url": server.base_url, "channel": channels[0]}
        print(json.dumps(announced), flush=True)  # noqa: T201 - a command for people
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
