"""Signs of life of the process that drives a run, and its end when another process took over."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tasks.runs import HEARTBEAT_S, beat
from tasks.state import State


class Heartbeat:
    """Says every few seconds that the driver of a run lives.

    A database that does not answer is asked again at the next beat: whether the run can go on
    without it is for the steps of the run to find out.

    Args:
        state: The database.
        run_id: The run.
        driver: Token of this process.
        on_lost: Called once, from the heartbeat's thread, when another process drives the run.
        every_s: Seconds between two signs.
        sign: Gives the sign, ``False`` when another process drives; for what is no run.
    """

    def __init__(
        self,
        state: State,
        run_id: str,
        driver: str,
        on_lost: Callable[[], None],
        every_s: float = HEARTBEAT_S,
        *,
        sign: Callable[[State, str, str], bool] | None = None,
    ) -> None:
        self._state, self._run_id, self._driver = state, run_id, driver
        self._on_lost, self._every_s, self._sign = on_lost, every_s, sign
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imagegate-heartbeat", daemon=True)

    def start(self) -> None:
        """Start beating."""
        self._thread.start()

    def stop(self) -> None:
        """Stop beating; returns when the last beat is over."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            try:
                mine = (self._sign or beat)(self._state, self._run_id, self._driver)
            except Exception:  # noqa: BLE001, S112 - a beat that breaks must not end the beating
                continue
            if not mine:
                self._on_lost()
                return
