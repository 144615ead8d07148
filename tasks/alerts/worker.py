"""The outbox worker: delivers in the background as long as it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from tasks.alerts.delivery import DeliveryReport, deliver_all
from tasks.errors import ImagegateError
from tasks.settings import Settings
from tasks.state import State

#: Seconds between two looks at the outbox.
EVERY_S = 5.0
#: Seconds between two looks while nothing gets through.
SLOWEST_S = 60.0
#: Seconds of one pass, and how long an end waits for the last one.
PASS_S = 5.0

_log = logging.getLogger("imagegate.alerts")


class OutboxWorker:
    """Delivers what is in the outbox until it is stopped; a context manager.

    Several may run at once, in this process and in others.

    Args:
        state: The database.
        settings: The ways to people.
        every_s: Seconds between two looks.
        pass_s: Seconds of one pass; a new one begins at once when more is left.
        seen: Called with the report of each pass that did something.
    """

    def __init__(
        self,
        state: State,
        settings: Settings,
        *,
        every_s: float = EVERY_S,
        pass_s: float = PASS_S,
        seen: Callable[[DeliveryReport], None] | None = None,
    ) -> None:
        self._state, self._settings = state, settings
        self._every_s, self._pass_s = every_s, pass_s
        self._seen = seen or (lambda _report: None)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> OutboxWorker:
        self._thread = threading.Thread(target=self.run, name="imagegate-outbox", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wake(self) -> None:
        """Look at the outbox now: something was put in."""
        self._wake.set()

    def stop(self) -> None:
        """Begin no pass any more and wait for the one that runs; what is left stays kept."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._pass_s + 1)

    def run(self) -> None:
        """Deliver until :meth:`stop` is called; the caller's thread does it."""
        wait = self._every_s
        while not self._stopping.is_set():
            report = self._once()
            stuck = bool(report.failed) and not report.delivered
            wait = min(2 * wait, SLOWEST_S) if stuck else self._every_s
            if report.delivered and report.left and not report.failed:
                continue
            self._wake.wait(wait)
            self._wake.clear()

    def _once(self) -> DeliveryReport:
        try:
            report = deliver_all(self._state, self._settings, self._pass_s)
        except ImagegateError as error:
            # The database may be away; the worker outlives that.
            report = DeliveryReport(failed={"outbox": str(error)})
            _log.warning("alerts wait: %s", error)
        if report.delivered or report.failed:
            self._seen(report)
        return report
