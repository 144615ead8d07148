"""Slack's side of Socket Mode on loopback: the API that opens it, and the websocket itself.

The official SDK's client connects to it as to Slack. A test presses buttons with ``press`` and
sees what was acknowledged (``acks``) and posted (``posts``); ``wait`` waits for a condition.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import parse_qs

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

APP_TOKEN = "xapp-1-A012345-000-secret"
BOT_TOKEN = "xoxb-test-000-secret"
TEAM = "T0123456"
CHANNEL = "C0123456789"


def block_actions(action_id: str, value: Any, **more: Any) -> dict[str, Any]:
    """Return the payload of a press, with the fields that Slack sends.

    Args:
        action_id: The button.
        value: The button's value; everything but a text becomes JSON.
        more: ``user``, ``team``, ``channel``, ``message_ts``, ``thread_ts``, ``action_ts``.
    """
    given = {
        "user": "U0000MIA",
        "team": TEAM,
        "channel": CHANNEL,
        "message_ts": "1700000000.000100",
        "action_ts": "1700000100.000001",
        **more,
    }
    container = {
        "type": "message",
        "message_ts": given["message_ts"],
        "channel_id": given["channel"],
        "is_ephemeral": False,
    }
    if "thread_ts" in given:
        container["thread_ts"] = given["thread_ts"]
    return {
        "type": "block_actions",
        "user": {"id": given["user"], "username": "mia", "team_id": given["team"]},
        "api_app_id": "A012345",
        "token": "not-to-be-trusted",
        "container": container,
        "trigger_id": "1.2.3",
        "team": {"id": given["team"], "domain": "example"},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": given["channel"], "name": "releases"},
        "response_url": "https://hooks.example/not-to-be-called",
        "actions": [
            {
                "type": "button",
                "action_id": action_id,
                "block_id": "imagegate",
                "text": {"type": "plain_text", "text": "Press"},
                "value": value if isinstance(value, str) else json.dumps(value),
                "action_ts": given["action_ts"],
            }
        ],
    }


class SocketModeServer:
    """Both servers, each in threads of its own; a context manager."""

    def __init__(self) -> None:
        self.acks: list[str] = []
        #: ``(method, body)`` of every call of the API, tokens left out.
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.opened = 0
        #: Error by method, instead of an answer.
        self.errors: dict[str, str] = {}
        #: What ``apps.connections.open`` names instead of the real address.
        self.address: str | None = None
        self._numbers = count(1)
        self._sockets: list[ServerConnection] = []
        self._changed = threading.Condition()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/api/"

    def __enter__(self) -> SocketModeServer:
        fake = self

        class Api(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode("utf-8")
                given = self.headers.get("authorization", "").removeprefix("Bearer ")
                method = self.path.removeprefix("/api/")
                answer = json.dumps(fake._answer(method, given, _fields(body))).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        self._http.daemon_threads = True
        self._ws: Server = serve(self._session, "127.0.0.1", 0)
        for server in (self._http, self._ws):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        with self._changed:
            open_now = list(self._sockets)
        for socket in open_now:
            socket.close()
        self._ws.shutdown()

    def wait(self, holds: Callable[[], object], seconds: float = 60) -> None:
        """Return when a condition holds, looked at whenever something happens."""
        with self._changed:
            assert self._changed.wait_for(holds, seconds), (self.acks, self.posts)

    def connected(self) -> bool:
        return bool(self._sockets)

    def press(self, action_id: str, value: Any, **more: Any) -> str:
        """Deliver a press and return its envelope's id."""
        return self.send_payload(block_actions(action_id, value, **more))

    def send_payload(self, payload: Any, kind: str = "interactive", envelope: str = "") -> str:
        name = envelope or f"envelope-{next(self._numbers)}"
        text = json.dumps(
            {
                "type": kind,
                "envelope_id": name,
                "payload": payload,
                "accepts_response_payload": False,
            }
        )
        self.wait(self.connected)
        self._sockets[-1].send(text)
        return name

    def ask_to_reconnect(self) -> None:
        """Say what Slack says every few hours: this connection ends soon, open another."""
        with self._changed:
            sockets = list(self._sockets)
        for socket in sockets:
            socket.send(json.dumps({"type": "disconnect", "reason": "refresh_requested"}))

    def cut(self) -> None:
        """Break every connection without a word."""
        with self._changed:
            sockets = list(self._sockets)
        for socket in sockets:
            socket.socket.shutdown(SHUT_RDWR)

    def said(self, method: str) -> list[dict[str, Any]]:
        return [body for name, body in self.posts if name == method]

    def _session(self, socket: ServerConnection) -> None:
        with self._changed:
            self._sockets.append(socket)
            self._changed.notify_all()
        try:
            socket.send(json.dumps({"type": "hello", "num_connections": len(self._sockets)}))
            for message in socket:
                with self._changed:
                    self.acks.append(json.loads(message)["envelope_id"])
                    self._changed.notify_all()
        except (ConnectionClosed, OSError):
            pass
        finally:
            with self._changed:
                self._sockets.remove(socket)
                self._changed.notify_all()

    def _answer(self, method: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            self.posts.append((method, {k: v for k, v in body.items() if k != "token"}))
            self._changed.notify_all()
            wanted = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
            if method in self.errors:
                return {"ok": False, "error": self.errors[method]}
            if token != wanted:
                return {"ok": False, "error": "invalid_auth"}
            if method == "apps.connections.open":
                self.opened += 1
                port = self._ws.socket.getsockname()[1]
                url = self.address or f"ws://127.0.0.1:{port}/link/?ticket={self.opened}"
                return {"ok": True, "url": url}
            if method == "auth.test":
                return {"ok": True, "team_id": TEAM, "team": "example", "user": "imagegate"}
            if method in ("chat.postMessage", "chat.postEphemeral"):
                return {"ok": True, "channel": body.get("channel"), "ts": "1700000200.000001"}
        return {"ok": False, "error": "unknown_method"}


def _fields(body: str) -> dict[str, Any]:
    if body.startswith("{"):
        return dict(json.loads(body))
    return {name: values[0] for name, values in parse_qs(body).items()}
