"""Prefect made ready before it is imported: telemetry off, one visible migration, a clean stop.

Everything is a default: what the environment says already stays. With ``PREFECT_API_URL`` set the
runs go to that server and nothing is prepared here.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.errors import GateError

#: Seconds that the one-time database migration may take on a slow machine.
MIGRATION_TIMEOUT_S = 300


def prefect_defaults(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the environment variables to add for Prefect and Great Expectations.

    Args:
        environ: The environment as it is; nothing set there is overridden.
        home: imagegate's own folder, which holds Prefect's files unless ``PREFECT_HOME`` is set.
    """
    wanted = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "GX_ANALYTICS_ENABLED": "false",
        # Progress and results are shown by imagegate; Prefect's own lines stay in its UI.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    if not environ.get("PREFECT_API_URL"):
        wanted |= {
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            # The default of 20 s can pass while the machine is busy.
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
            # Nothing is scheduled on the server of one run, so what schedules need stays off:
            # it starts sooner and has less to interrupt when it stops.
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
            "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
        }
    return {name: value for name, value in wanted.items() if not environ.get(name)}


def prepare_prefect(home: Path, say: Callable[[str], None]) -> None:
    """Set the defaults in this process and migrate Prefect's database once, visibly.

    Must run before ``prefect`` is imported.

    Args:
        home: imagegate's own folder.
        say: Called with a sentence when the migration starts.

    Raises:
        GateError: The database cannot be migrated.
    """
    environ = os.environ  # noqa: TID251 - Prefect reads its settings from the environment
    environ.update(prefect_defaults(environ, home))
    if environ.get("PREFECT_API_URL") or environ.get("PREFECT_API_DATABASE_CONNECTION_URL"):
        return
    folder = Path(environ["PREFECT_HOME"])
    marker = folder / ".migrated-by-imagegate"
    version = _prefect_version()
    if marker.exists() and marker.read_text(encoding="utf-8") == version:
        return
    say("Preparing Prefect's database (about 10 seconds, once)")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
            capture_output=True,
            text=True,
            timeout=MIGRATION_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise GateError(
            f"Prefect's database in {folder} was not migrated within {MIGRATION_TIMEOUT_S} s"
        ) from None
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise GateError(
            f"Prefect's database in {folder} cannot be migrated:\n{tail}\n"
            "Move the folder away to start afresh"
        )
    marker.write_text(version, encoding="utf-8")


def _prefect_version() -> str:
    from importlib.metadata import version

    return version("prefect")


#: Waits until the gate's end of the pipe closes, which a kill does too, then ends the server.
_WATCHDOG = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
if not sys.stdin.buffer.read(1):
    try:
        os.kill(int(sys.argv[1]), signal.SIGTERM)
    except OSError:
        pass
"""


def end_server_with_us() -> None:
    """Let the server that Prefect started for this process end with it, also by kill -9.

    Prefect stops its own server when the interpreter exits; a process that is killed leaves it
    behind. A small process holds the other end of a pipe and notices.
    """
    # Not imported by a process that uses a server of its own, where there is nothing to end.
    module = sys.modules.get("prefect.server.api.server")
    if module is None:
        return
    for server in module.SubprocessASGIServer._instances.values():
        process = server.server_process
        if process is None or process.pid in _WATCHED:
            continue
        _WATCHED.add(process.pid)
        atexit.register(end_with_us(process.pid))


def end_with_us(pid: int) -> Callable[[], None]:
    """End another process when this one is gone, however; return what calls that off."""
    watchdog = subprocess.Popen(
        [sys.executable, "-S", "-c", _WATCHDOG, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return lambda: _dismiss(watchdog)


_WATCHED: set[int] = set()


def _dismiss(watchdog: subprocess.Popen[bytes]) -> None:
    """Tell the watchdog that this process ends in order and stops its server itself."""
    with contextlib.suppress(OSError):
        watchdog.communicate(b"x", timeout=5)
