"""What all tests share: a quiet environment and the ``imagegate`` command as a real process."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# Speed is measured in benchmarks: a busy machine must not fail a property. A commit that was green
# stays green: `make test` tries the same examples each time. New ones are looked for with
# `pytest --hypothesis-profile=search`.
_CALM = {"deadline": None, "suppress_health_check": (HealthCheck.too_slow,)}
settings.register_profile("search", **_CALM)
settings.register_profile("imagegate", derandomize=True, **_CALM)
settings.load_profile("imagegate")

ROOT = Path(__file__).resolve().parent.parent
#: Names that would leak from the developer's shell into a test.
LEAKS = ("IMAGEGATE_", "SLACK_", "PREFECT_", "OTEL_", "GITHUB_")


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Command:
    """Runs ``imagegate`` with a home of its own."""

    home: Path
    env: dict[str, str]

    def __call__(self, *arguments: str, timeout: float = 280, **env: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "flows", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=ROOT,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Undo what a test left of signal handlers: the next one may press Ctrl-C itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)


def clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(LEAKS)}  # noqa: TID251
    return kept | {
        "IMAGEGATE_PLANTED_FILE": str(planted_record()),
        "IMAGEGATE_PLANTED_DRAWINGS": "1",
    }


@functools.cache
def planted_record() -> Path:
    """A record of planted defects for the checks as they are now, so that no gate makes one.

    Its counts are those of sharp eyes, but few enough that a defect missed in the one drawing that
    each gate still plants on is bad luck (1.5 % at most, above `eyes.TODAY_RISK`) and holds none.
    """
    from tasks.checks import health, planted
    from tasks.checks.counts import ANY, CheckHealth, CleanHealth, DefectHealth

    def seeing(check: str) -> CheckHealth:
        kinds = planted.defects_of([check])
        each = 200 // max(1, len(kinds))
        counts = (DefectHealth(k.name, check, k.strength, each, each) for k in kinds)
        return CheckHealth(check, CleanHealth(check, 0, 2_000), tuple(counts))

    checks = tuple(seeing(name) for name in (*planted.check_names(), ANY))
    folder = Path(tempfile.mkdtemp(prefix="imagegate-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    record = health.HealthRecord(health.version(), health.second_reader(), 1, 1, checks)
    health.write(folder / "planted.json", record)
    return folder / "planted.json"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on and that nobody else is told of.

    Below the ports that the system gives away by itself, and from a range of this worker's own:
    between this call and the server's start nothing takes it by chance.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1")[2:]) + 1  # noqa: TID251
    size = 1_000
    first = 12_000 + worker % 20 * size
    # Another run on this machine has the same ranges: begin elsewhere in them.
    return (first + (os.getpid() + n) % size for n in itertools.count())


_PORTS = _ports()


@pytest.fixture(scope="session")
def migrated_prefect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``PREFECT_HOME`` with a migrated database, made once for all workers: copy it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # noqa: TID251
    home, made = root / "migrated", root / "migrated.done"
    code = (
        "from pathlib import Path; from flows.prefect_env import prepare_prefect;"
        f"prepare_prefect(Path({str(home)!r}), lambda text: None)"
    )
    with FileLock(root / "migrated.lock"):
        if not made.exists():
            env = clean_environment()
            subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=ROOT)
            made.touch()
    return home / "prefect"


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory, migrated_prefect: Path) -> Path:
    """A migrated Prefect database: every gate of this worker's tests uses it."""
    home = tmp_path_factory.mktemp("prefect") / "prefect"
    shutil.copytree(migrated_prefect, home)
    return home


@pytest.fixture(scope="session")
def prefect_server(prefect_home: Path) -> Iterator[str]:
    """A real Prefect server for all gates of the tests: each starts sooner than with its own."""
    port = free_port()
    env = clean_environment() | {"PREFECT_HOME": str(prefect_home), "DO_NOT_TRACK": "1"}
    arguments = ["server", "start", "--port", str(port), "--no-ui"]
    log = prefect_home / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=env,
            cwd=prefect_home,
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 180
        while not _answers(url):
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
            assert time.monotonic() < deadline, "Prefect's server did not start within 180 s"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def imagegate(tmp_path: Path, prefect_home: Path, prefect_server: str) -> Command:
    """The command, for gates that run against a Prefect server."""
    home = tmp_path / "home"
    env = {
        "IMAGEGATE_HOME": str(home),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": prefect_server,
    }
    return Command(home, clean_environment() | env)


@pytest.fixture
def ephemeral_imagegate(tmp_path: Path, prefect_home: Path) -> Command:
    """The command as on a newcomer's machine: each gate brings its own Prefect server."""
    home = tmp_path / "home"
    env = {"IMAGEGATE_HOME": str(home), "PREFECT_HOME": str(prefect_home)}
    return Command(home, clean_environment() | env)


@pytest.fixture
def light_imagegate(tmp_path: Path) -> Command:
    """The command, for what must not need Prefect."""
    home = tmp_path / "home"
    return Command(home, clean_environment() | {"IMAGEGATE_HOME": str(home)})
