"""A team's server on this machine: PostgreSQL, Redis, two Prefect servers, HAProxy, workers.

All of them are the real programs, on free ports, with their data in a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.conftest import ROOT, clean_environment, free_port
from tests.fakes.postgres import Postgres

#: Programs from Debian that the cluster needs besides PostgreSQL.
PROGRAMS = {"redis-server": "redis-server", "haproxy": "haproxy"}


def missing_programs() -> list[str]:
    """Return the Debian packages that are not installed."""
    return [package for program, package in PROGRAMS.items() if find_program(program) is None]


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin")


def until(what: str, condition: Callable[[], Any], within_s: float = 120) -> Any:
    """Wait until the condition holds and return what it returned.

    Asks soon, and less often while it lasts: the machine has more to do than to be asked.
    """
    deadline, between_s = time.monotonic() + within_s, 0.05
    pause = subprocess.Popen(["sleep", "infinity"])  # Something to wait on, not a sleep of ours.
    try:
        while True:
            found = condition()
            if found:
                return found
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
            try:
                pause.wait(between_s)
            except subprocess.TimeoutExpired:
                between_s = min(1.5 * between_s, 0.25)
    finally:
        pause.kill()
        pause.wait()


class Process:
    """A program with its log in a file, ended with everything it started."""

    def __init__(self, name: str, folder: Path, arguments: list[str], env: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                arguments,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=env,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Kill this process alone; its children go on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it, and what it left behind in its process group."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


HAPROXY = """
defaults
  mode http
  timeout connect 2s
  timeout client 1h
  timeout server 1h
  timeout check 2s
  retries 3
  option redispatch
  retry-on conn-failure

frontend api
  bind 127.0.0.1:{port}
  default_backend servers

backend servers
  balance roundrobin
  option httpchk GET /api/health
{servers}
"""


class Cluster:
    """Everything but the watchdogs, which the tests start themselves.

    Args:
        folder: For data and logs.
        postgres: A running PostgreSQL.
    """

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self.folder, self.postgres = folder, postgres
        self.home = folder / "home"
        self.state_name = postgres.database()
        self._prefect_name = postgres.database()
        self.redis_port, self.port = free_port(), free_port()
        self.server_ports = [free_port(), free_port()]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.started: list[Process] = []
        self.servers: list[Process] = []
        # One client: a new one reads all certificates, which the tests that poll would feel. No
        # kept connections: a killed server breaks them.
        self._client = httpx.Client(
            timeout=20, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.env = clean_environment() | {
            "IMAGEGATE_HOME": str(self.home),
            "IMAGEGATE_STATE_URL": postgres.url(self.state_name),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "DO_NOT_TRACK": "1",
        }
        self._server_env = clean_environment() | {
            "PREFECT_HOME": str(folder / "prefect-server"),
            "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url(
                self._prefect_name, "postgresql+asyncpg"
            ),
            "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
            "PREFECT_REDIS_MESSAGING_PORT": str(self.redis_port),
            "PREFECT_REDIS_MESSAGING_DB": "0",
            "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{self.redis_port}/1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def start(self) -> None:
        """Start PostgreSQL's guests: Redis, two servers and the proxy; return when they answer."""
        folder = self.folder
        redis = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", ""]
        self.run("redis", [find_program("redis-server") or "", *redis, "--dir", str(folder)])
        subprocess.run(
            [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
            env=self._server_env,
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=180,
        )
        self.servers = [self._server(n) for n in (0, 1)]
        lines = "\n".join(
            f"  server s{n} 127.0.0.1:{port} check inter 500ms fall 1 rise 1"
            for n, port in enumerate(self.server_ports)
        )
        config = folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port, servers=lines), encoding="utf-8")
        self.run("haproxy", [find_program("haproxy") or "", "-db", "-f", str(config)])
        for server, port in zip(self.servers, self.server_ports, strict=True):
            until(
                f"{server.name} answers",
                lambda server=server, port=port: self._answers(server, port),
                180,
            )

    def _server(self, number: int) -> Process:
        arguments = ["server", "start", "--no-ui", "--port", str(self.server_ports[number])]
        # Two servers that register block types in a new database at once collide, and one ends.
        env = self._server_env | {
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "true" if number == 0 else "false",
        }
        return self.run(f"server-{number}", [sys.executable, "-m", "prefect", *arguments], env)

    def restart_server(self, number: int) -> None:
        """Start a server again after it was killed, and wait until it answers."""
        server = self.servers[number] = self._server(number)
        port = self.server_ports[number]
        until(f"{server.name} answers again", lambda: self._answers(server, port), 120)

    def _answers(self, server: Process, port: int) -> bool:
        assert server.lives, server.text()[-3000:]
        try:
            found = self._client.get(f"http://127.0.0.1:{port}/api/health", timeout=2)
        except httpx.HTTPError:
            return False
        return found.status_code == 200

    def run(self, name: str, arguments: list[str], env: dict[str, str] | None = None) -> Process:
        """Start a program that is ended with the cluster."""
        process = Process(name, self.folder, arguments, env or self.env)
        self.started.append(process)
        return process

    def imagegate(self, *arguments: str, name: str = "imagegate", **env: str) -> Process:
        """Start the command in the background."""
        return self.run(name, [sys.executable, "-m", "flows", *arguments], self.env | env)

    def command(self, *arguments: str, **env: str) -> str:
        """Run the command to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "flows", *arguments],
            env=self.env | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def worker(self, name: str, pool: str) -> Process:
        """Start a worker of a pool."""
        arguments = ["worker", "start", "--pool", pool, "--name", name, "--type", "process"]
        return self.run(name, [sys.executable, "-m", "prefect", *arguments])

    def api(self, method: str, path: str, **body: Any) -> Any:
        """Ask Prefect's API through the proxy."""
        answer = self._client.request(method, f"{self.url}{path}", json=body or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the state database."""
        with closing(self.postgres.connect(self.state_name)) as connection:
            try:
                return connection.execute(sql, values or None).fetchall()  # type: ignore[arg-type]
            except psycopg.errors.UndefinedTable:
                return []

    def stop(self) -> None:
        """End everything, the newest first."""
        self._client.close()
        for process in reversed(self.started):
            process.stop()
        for pid in self.leftovers():
            os.kill(pid, signal.SIGKILL)
        self.postgres.drop(self.state_name)
        self.postgres.drop(self._prefect_name)

    def leftovers(self) -> list[int]:
        """Return processes of this cluster that outlived their parents: by its own folder."""
        return list(self.processes_with("PREFECT_HOME", str(self.folder)))

    @staticmethod
    def processes_with(name: str, value: str) -> Iterator[int]:
        """Yield the processes whose environment has a variable that begins with a value."""
        wanted = f"{name}={value}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(item.startswith(wanted) for item in environ):
                yield int(entry.name)
