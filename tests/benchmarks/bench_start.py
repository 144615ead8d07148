"""What a command costs before it works: whole processes, as people start them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT, Command, clean_environment

EMPTY_FLOW = "from prefect import flow\n@flow\ndef empty():\n    pass\nempty()\n"


@pytest.mark.parametrize("what", ["--help", "check --help", "run --help", "status"])
def bench_command(benchmark: Any, light_imagegate: Command, what: str) -> None:
    benchmark.group = "commands without Prefect"
    done = benchmark.pedantic(light_imagegate, args=tuple(what.split()), rounds=5)
    assert done.code == 0


def bench_prefect_ephemeral_start_and_stop(benchmark: Any, prefect_home: Any) -> None:
    """An empty flow on a migrated database: the server's start and stop are all there is."""
    benchmark.group = "Prefect"
    env = clean_environment() | {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "DO_NOT_TRACK": "1",
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", EMPTY_FLOW],
            env=env,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )

    done = benchmark.pedantic(run, rounds=3)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
