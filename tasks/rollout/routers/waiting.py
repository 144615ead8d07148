"""Waiting for a router that takes a change at once and serves by it a little later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tasks.errors import RolloutError

#: Seconds between two looks: short first, for most are quick.
_FIRST_S, _MOST_S = 0.02, 0.5


def until(condition: Callable[[], bool], *, within_s: float, failure: str) -> None:
    """Return when the condition holds; it is looked at least once.

    Args:
        condition: May raise, which ends the waiting.
        within_s: Seconds to wait at most, beyond the last look.
        failure: What is wrong when it does not hold in time.

    Raises:
        RolloutError: It does not hold in time.
    """
    deadline = time.monotonic() + within_s
    pause, nothing = _FIRST_S, threading.Event()
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            raise RolloutError(f"{failure}: not within {within_s:g} s")
        nothing.wait(min(pause, left))
        pause = min(pause * 2, _MOST_S)
