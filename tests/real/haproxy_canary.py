"""A real HAProxy that routes by imagegate's map, with the configuration of the documentation."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tasks.rollout.routers.config import HaproxyRouterConfig
from tests.conftest import ROOT, clean_environment, free_port
from tests.real.cluster import Process, find_program, until

EXAMPLE = ROOT / "deployments" / "haproxy-canary.cfg"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    #: Head and body in one piece: two would wait for each other (Nagle and delayed ACK).
    wbufsize = 65_536
    server: Application

    def do_GET(self) -> None:
        if self.path != "/health":
            self.server.note(self.headers.get("X-Imagegate-Mix"))
        healthy = self.server.healthy or self.path != "/health"
        body = json.dumps({"served_by": self.server.name}).encode()
        self.send_response(200 if healthy else 503)
        self.send_header("Content-Length", str(len(body)))
        if self.server.identity:
            self.send_header("X-Imagegate-Mix", self.server.identity)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Application(ThreadingHTTPServer):
    """A server of images' stand-in that counts the mixes it was asked for."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.healthy, self.identity = name, True, ""
        self.seen: list[str | None] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def note(self, mix: str | None) -> None:
        with self._lock:
            self.seen.append(mix)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: HAProxy's health checks hang up when they have seen enough."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Haproxy:
    """HAProxy in front of two servers.

    Args:
        folder: For its configuration, map, socket and log.
        blue: Port of the server of backend ``shop-blue``.
        green: The same of ``shop-green``.
    """

    def __init__(self, folder: Path, blue: int, green: int) -> None:
        self.folder = folder
        # A socket's path must be short; pytest's folders are not always.
        self.port = free_port()
        self.socket = f"127.0.0.1:{free_port()}"
        self.map = folder / "imagegate.map"
        self.map.touch()
        self.config = folder / "haproxy.cfg"
        text = EXAMPLE.read_text(encoding="utf-8")
        for old, new in (
            ("/etc/haproxy/imagegate.map)", f"{self.map})"),
            ("stats socket /run/haproxy/imagegate.sock mode 600", f"stats socket {self.socket}"),
            ("bind :8080", f"bind 127.0.0.1:{self.port}"),
            ("127.0.0.1:9001", f"127.0.0.1:{blue}"),
            ("127.0.0.1:9002", f"127.0.0.1:{green}"),
            ("inter 2s fall 3 rise 2", "inter 100ms fall 1 rise 1"),
            # On a busy machine a slow answer is no failed one.
            ("timeout connect 5s", "timeout connect 60s"),
            ("timeout check 2s", "timeout check 60s"),
        ):
            assert old in text, old
            text = text.replace(old, new)
        self.config.write_text(text, encoding="utf-8")
        self.pid_file = folder / "haproxy.pid"
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rollout(self) -> dict[str, Any]:
        """The section ``router`` of a rollout file for this HAProxy."""
        return {
            "kind": "haproxy",
            "instances": [{"socket": self.socket, "map_file": str(self.map)}],
            "products": {
                "shop": {
                    "backends": [{"name": "shop-blue"}, {"name": "shop-green"}],
                    "probe_url": f"{self.url}/health",
                }
            },
            "timeout_s": 20,
            "check_command": [find_program("haproxy"), "-c", "-f", str(self.config)],
        }

    def router_config(self, **changes: Any) -> HaproxyRouterConfig:
        return HaproxyRouterConfig.model_validate(self.rollout | changes)

    def start(self) -> None:
        """Start it, with a master, so that a reload is what it is in production."""
        program = find_program("haproxy")
        assert program is not None
        arguments = [program, "-W", "-db", "-f", str(self.config), "-p", str(self.pid_file)]
        (self.folder / "haproxy.log").unlink(missing_ok=True)
        self.process = process = Process("haproxy", self.folder, arguments, clean_environment())
        # Its worker may answer before the master hears signals: a reload right then is lost.
        until("HAProxy's master is ready", lambda: "Loading success" in process.text(), 60)
        self.until_it_answers()

    def until_it_answers(self) -> None:
        from tasks.errors import RolloutError
        from tasks.rollout.routers.haproxy_runtime import Runtime

        def both_up() -> bool:
            assert self.process is not None
            assert self.process.lives, self.process.text()[-2000:]
            try:
                there = Runtime(self.socket, 5.0).backends()
            except RolloutError:
                return False
            # "UP" before the first check is a guess: wait for what was checked.
            return {"shop-blue", "shop-green"} <= there.keys()

        until("HAProxy answers", both_up, 60)

    def worker(self) -> str:
        """Return the id of the process that answers the Runtime API now."""
        from tasks.errors import RolloutError
        from tasks.rollout.routers.haproxy_runtime import Runtime

        try:
            info = Runtime(self.socket, 5.0).ask("show info")
        except RolloutError:
            return ""
        return next(line for line in info.splitlines() if line.startswith("Pid:"))

    def reload(self) -> None:
        """Reload as systemd does, and wait until the new process answers."""
        assert self.process is not None
        before = self.worker()
        self.process.process.send_signal(signal.SIGUSR2)
        until("a new worker answers", lambda: self.worker() not in ("", before), 60)
        self.until_it_answers()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


def haproxy_version() -> str:
    program = find_program("haproxy")
    if program is None:
        return ""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
    return done.stdout.split()[2]
