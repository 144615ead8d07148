"""Runs the embedded server as a child process for as long as a run needs it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import httpx

from tasks.errors import GateError
from tasks.providers.embedded.requestlog import read_log
from tasks.settings import DATASETS, PROJECT_ROOT

#: Seconds that the server may take to announce its port and to answer.
START_S = 30.0
#: Seconds that it may take to stop by itself before it is told to, and then killed.
STOP_S = 4.0


class EmbeddedServer:
    """The image server on a free loopback port, in a process of its own.

    The child ends when its standard input closes, so it cannot outlive this process, however
    that ends.

    Args:
        log: File of the server's request log; continued when it exists.
        brands: Folder named ``brands`` with the brand kits.
    """

    def __init__(self, log: Path, brands: Path = DATASETS / "brands") -> None:
        self.log = log
        self._brands = brands
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._base_url: str | None = None

    @property
    def base_url(self) -> str:
        """Address of the server, without a slash at its end.

        Raises:
            GateError: The server does not run.
        """
        if self._base_url is None:
            raise GateError("the embedded image server is not running; use it as `with` block")
        return self._base_url

    @property
    def pid(self) -> int | None:
        """Process id of the server, ``None`` when it does not run."""
        return self._child.pid if self._child else None

    def requests(self) -> list[dict[str, Any]]:
        """Return the lines of the request log so far."""
        return read_log(self.log)

    def start(self) -> EmbeddedServer:
        """Start the server and wait until it answers.

        Raises:
            GateError: It did not start in time; with the end of what it wrote.
        """
        if self._child is not None:
            return self
        # Open as long as the child writes to it; closed by stop().
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [
            *(sys.executable, "-m", "tasks.providers.embedded", "--port", "0"),
            *("--log", str(self.log.resolve()), "--brands", str(self._brands.resolve())),
            *("--parent", str(os.getpid())),
        ]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=PROJECT_ROOT,
            # Ctrl-C in the terminal is for the run, which then stops the server in order.
            start_new_session=True,
        )
        try:
            self._base_url = f"http://127.0.0.1:{self._port()}"
            httpx.get(f"{self._base_url}/health", timeout=START_S, trust_env=False)
        except BaseException as error:
            tail = self._tail()
            self.stop()
            if isinstance(error, GateError | httpx.HTTPError | ValueError):
                raise GateError(
                    f"the embedded image server did not start: {error}; it wrote: {tail or '-'}"
                ) from None
            raise
        return self

    def _port(self) -> int:
        """Return the port that the child announces."""
        stdout = self._child.stdout if self._child else None
        assert stdout is not None  # noqa: S101 - a pipe was asked for
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=START_S)
        except queue.Empty:
            raise GateError(f"no port after {START_S:.0f} s") from None
        if not line:
            code = self._child.wait(timeout=STOP_S) if self._child else None
            raise GateError(f"it ended with exit code {code}")
        return int(json.loads(line)["port"])

    def _tail(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        return self._errors.read().decode("utf-8", "replace").strip()

    def stop(self) -> None:
        """Stop the server: ask, tell, kill. Does nothing when it does not run."""
        child, self._child, self._base_url = self._child, None, None
        if child is not None:
            if child.stdin is not None:
                with contextlib.suppress(OSError):
                    child.stdin.close()
            for act in (child.terminate, child.kill, None):
                try:
                    child.wait(timeout=STOP_S)
                    break
                except subprocess.TimeoutExpired:
                    if act is not None:
                        act()
            if child.stdout is not None:
                child.stdout.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
