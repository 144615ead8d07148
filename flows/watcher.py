"""Who watches a gate while it runs: the flow reports here, the terminal listens.

The watcher is no parameter of the flow: Prefect records parameters, and a run from its UI has no
terminal.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from logging import Logger, LoggerAdapter
from types import FrameType
from typing import Any


@contextmanager
def _interrupts(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT set ``stop`` where a signal can be taken: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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

    def signals(self) -> AbstractContextManager[None]:
        """Take SIGINT, by which a person ends a run: as HOLD at the first, at once at the second.

        SIGTERM, by which a machine goes away or Prefect cancels, is left to Prefect.
        """
        return _interrupts(self.stop)


class LoggedWatcher(Watcher):
    """Hands everything on to another watcher, and each step to the log of the flow run as well.

    Args:
        other: The watcher that is told; its stop signal is shared.
        logger: The flow run's logger.
    """

    def __init__(self, other: Watcher, logger: Logger | LoggerAdapter[Logger]) -> None:
        super().__init__(other.stop)
        self._other = other
        self._logger = logger

    def step(self, name: str, detail: str) -> None:
        """Log the step and pass it on."""
        self._logger.info("%s: %s", name, detail)
        self._other.step(name, detail)

    def progress(self, snapshot: Any) -> None:
        """Pass the progress on; the progress artifact has it too."""
        self._other.progress(snapshot)

    def message(self, title: str, text: str) -> None:
        """Log the message and pass it on."""
        self._logger.info("%s\n%s", title, text)
        self._other.message(title, text)

    def signals(self) -> AbstractContextManager[None]:
        """Leave the signals to the other watcher."""
        return self._other.signals()


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
