"""The outbox worker of a flow: delivers what waits while the flow is at work."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from tasks.alerts.delivery import deliver_all
from tasks.errors import ImagegateError
from tasks.settings import Settings
from tasks.state import State

#: Seconds between two deliveries.
EVERY_S = 5.0
#: Seconds that one delivery may take, and that the end of the flow waits for the last one.
DEADLINE_S = 5.0


class OutboxWorker:
    """Delivers messages in a thread of its own, so that no step waits for Slack.

    What goes wrong is kept with the messages; a delivery that breaks is tried again.

    Args:
        state: The database.
        settings: Whom to tell, and how.
        every_s: Seconds between two deliveries.
    """

    def __init__(self, state: State, settings: Settings, every_s: float = EVERY_S) -> None:
        self._state, self._settings, self._every_s = state, settings, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imagegate-outbox", daemon=True)

    def __enter__(self) -> OutboxWorker:
        """Start delivering."""
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        """Start no delivery any more and wait for the last one."""
        self._end.set()
        self._thread.join(DEADLINE_S + 1)

    def _run(self) -> None:
        while not self._end.is_set():
            # A wrong setting or a database that is away: the end of the flow says so.
            with contextlib.suppress(ImagegateError):
                deliver_all(self._state, self._settings, DEADLINE_S)
            self._end.wait(self._every_s)
