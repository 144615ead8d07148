"""Who watches a gate while it runs: the flow reports here, the terminal listens.

The watcher is no parameter of the flow: Prefect records parameters, and a run from its UI has no
terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Watcher:
    """Receives what happens; this one ignores it. ``stop`` set means: end cleanly, as HOLD."""

    stop: threading.Event = field(default_factory=threading.Event)

    def step(self, name: str, detail: str) -> None:
        """A step ended."""

    def progress(self, snapshot: Any) -> None:
        """Cases moved; see ``tasks.harness.progress``. Called from several threads."""

    def message(self, title: str, text: str) -> None:
        """A message that people did not get otherwise."""


_CURRENT: ContextVar[Watcher | None] = ContextVar("imagegate_watcher", default=None)


def current_watcher() -> Watcher:
    """Return the watcher of this context, or one that ignores everything."""
    return _CURRENT.get() or Watcher()


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let ``watcher`` hear what gates in this context do."""
    token = _CURRENT.set(watcher)
    try:
        yield
    finally:
        _CURRENT.reset(token)
