"""What all tests share: a quiet environment and the ``imagegate`` command as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Names that would leak from the developer's shell into a test.
LEAKS = ("IMAGEGATE_", "SLACK_", "PREFECT_")


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


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(LEAKS)}  # noqa: TID251


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated Prefect database, made once: every gate of the tests uses it."""
    home = tmp_path_factory.mktemp("prefect")
    code = (
        "from pathlib import Path; from flows.prefect_env import prepare_prefect;"
        f"prepare_prefect(Path({str(home)!r}), lambda text: None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment(), cwd=ROOT)
    return home / "prefect"


@pytest.fixture
def imagegate(tmp_path: Path, prefect_home: Path) -> Command:
    """The command, for gates that run through Prefect."""
    home = tmp_path / "home"
    env = clean_environment() | {"IMAGEGATE_HOME": str(home), "PREFECT_HOME": str(prefect_home)}
    return Command(home, env)


@pytest.fixture
def light_imagegate(tmp_path: Path) -> Command:
    """The command, for what must not need Prefect."""
    home = tmp_path / "home"
    return Command(home, clean_environment() | {"IMAGEGATE_HOME": str(home)})
