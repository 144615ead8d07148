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
from contextlib import closing
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
        self._as: list[str] = []
        if os.getuid() == 0:
            self._as = ["runuser", "-u", "postgres", "--"]
            shutil.chown(self.folder, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self._as:
            shutil.chown(secret, "postgres", "postgres")
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
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
            " -c fsync=off -c full_page_writes=off -c max_connections=120"
        )
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", log, "-w", "-t", "60", "start")

    def stop(self) -> None:
        """Stop at once: open transactions are rolled back."""
        self._run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def kill(self) -> None:
        """Kill all of it, as by a power cut."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for victim in (pid, *map(int, children)):
            os.kill(victim, signal.SIGKILL)

    def remove(self) -> None:
        """Stop and delete everything."""
        try:
            self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

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
        command = [*self._as, str(self._bin / program), *map(str, arguments)]
        # Not by a pipe: the server keeps what it inherits, and the pipe would never end.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=self.folder,
                timeout=120,
            )
            said.seek(0)
            assert done.returncode == 0, said.read().decode(errors="replace")
