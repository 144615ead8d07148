"""Fault points: where a test may kill the process, to see that nothing is left halfway.

Nothing happens at them unless ``IMAGEGATE_TEST_FAULT`` is set: ``kill:N`` kills the process (as
``kill -9`` does) at the N-th point that it passes, ``trace:FILE`` writes the points passed into a
file. So a test learns from one run which points there are, and then dies at each of them.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tasks.settings import armed_fault


def fault(name: str) -> None:
    """Pass a fault point.

    Args:
        name: What was done last or comes next, for people who read a trace.
    """
    hook = _hook()
    if hook is not None:
        hook(name)


@functools.cache
def _hook() -> Callable[[str], None] | None:
    """Return what to do at a point, by the environment; read once in a process."""
    wanted = armed_fault()
    if wanted is None:
        return None
    kind, value = wanted
    if kind == "trace":
        return functools.partial(_write, Path(value))
    return functools.partial(_kill, int(value), itertools.count(1))


def _write(file: Path, name: str) -> None:
    with file.open("a", encoding="utf-8") as trace:
        trace.write(f"{name}\n")


def _kill(at: int, passed: itertools.count[int], _name: str) -> None:
    if next(passed) == at:
        os.kill(os.getpid(), signal.SIGKILL)
