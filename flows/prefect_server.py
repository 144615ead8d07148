"""A Prefect server of our own, for one machine: started, waited for, and stopped with us."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.prefect_env import end_with_us
from tasks.errors import ConfigError, GateError

#: Seconds that the server may take, its first migration included.
START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 20


@contextmanager
def own_server(home: Path, port: int, host: str = "127.0.0.1") -> Iterator[str]:
    """Run ``prefect server`` and yield the address of its API.

    Its database lies in ``home/prefect``, where gates without a server keep theirs, so that the UI
    shows them too. It ends with this process, also by kill -9.

    Args:
        home: imagegate's own folder.
        port: Where the UI and the API listen.
        host: On which address; more than loopback lets others start gates.

    Raises:
        ConfigError: The port is taken.
        GateError: The server does not start.
    """
    _refuse_taken(host, port)
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - only compared
    url = f"http://{shown}:{port}/api"
    environment = {
        k: v
        for k, v in os.environ.items()  # noqa: TID251 - Prefect reads its settings there
        # What gates without a server set for their small one does not fit a server of schedules.
        if not k.startswith(("PREFECT_SERVER_SERVICES_", "PREFECT_API_URL"))
    } | {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Without it the UI would look for the API on port 4200. A path works behind any name.
        "PREFECT_UI_API_URL": "/api" if host != "127.0.0.1" else url,
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "prefect",
                "server",
                "start",
                "--host",
                host,
                "--port",
                str(port),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            # Ctrl-C goes to us alone: the server has to note how the runs end.
            start_new_session=True,
        )
    dismiss = end_with_us(process.pid)
    try:
        _wait(process, url, log)
        yield url
    finally:
        _stop(process)
        dismiss()


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"--port {port}: cannot listen on {host}:{port} ({error.strerror}); when a Prefect "
                f"server runs there, set PREFECT_API_URL=http://{host}:{port}/api to use it, "
                "otherwise give another --port"
            ) from None


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    import httpx

    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
            why = "ended" if process.poll() is not None else f"is silent for {START_TIMEOUT_S} s"
            raise GateError(f"Prefect's server {why}; {log} says:\n" + "\n".join(tail))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
