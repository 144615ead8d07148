"""A real PostgreSQL for the tests, from the machine's package, in a folder of its own.

PostgreSQL refuses to run as root; under root it runs as the user ``postgres`` of the package.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import psycopg

PASSWORD = "correct-horse-battery"


def binaries() -> Path | None:
    """Return the folder with ``initdb``, ``None`` when PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).resolve().parent if named else None


class Postgres:
    """One server on a free port of this machine; databases are made as they are asked for."""

    def __init__(self) -> None:
        self._names = count(1)
        bin_ = binaries()
        assert bin_ is not None, "PostgreSQL is not installed"
        self._bin = bin_
        self.folder = Path(tempfile.mkdtemp(prefix="imagegate-pg-"))
        # PostgreSQL refuses to run as root.
        self._as = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        self._server: subprocess.Popen[bytes] | None = None
        if self._as:
            shutil.chown(self.folder, **self._as)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._as:
            shutil.chown(secret, **self._as)
        self.data = self.folder / "data"
        self._run(
            "initdb",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--username=gate",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            f"--pgdata={self.data}",
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        # No fsync: nothing here outlives the machine. Commits still outlive the server.
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 120,
        }
        options = [part for k, v in settings.items() for part in ("-c", f"{k}={v}")]
        with (self.folder / "log").open("ab") as log:
            # A child of ours, so that a killed one is no zombie that the next takes for living.
            self._server = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            said = (self.folder / "log").read_text(errors="replace")
            assert self._server.poll() is None, said
            assert time.monotonic() < deadline, said
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(0.05)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop at once: open transactions are rolled back."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all of it, as by a power cut."""
        assert self._server is not None
        pid = self._server.pid
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for victim in (pid, *children):
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        self._server.wait(30)
        deadline = time.monotonic() + 30
        while any(self._lives(child) for child in children):
            assert time.monotonic() < deadline, "PostgreSQL's processes outlive a kill"
            os.sched_yield()

    @staticmethod
    def _lives(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    def remove(self) -> None:
        """Stop and delete everything."""
        try:
            self._end(signal.SIGQUIT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        assert self._server is not None
        if self._server.poll() is None:
            self._server.send_signal(how)
            self._server.wait(60)

    def url(self, name: str = "postgres", driver: str = "postgresql+psycopg") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"{driver}://gate:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def connect(self, name: str = "postgres") -> psycopg.Connection:
        """Return a plain connection that commits every statement."""
        return psycopg.connect(self.url(name, "postgresql"), autocommit=True)

    def database(self, template: str = "template0") -> str:
        """Make a database and return its name."""
        name = f"gate_{next(self._names)}"
        with closing(self.connect()) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[arg-type]
        return name

    def drop(self, name: str) -> None:
        """Delete a database, whoever is connected to it."""
        with closing(self.connect()) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            timeout=120,
            **self._as,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout + done.stderr
