"""The loop around the looks: a canary is driven until it is over, or until nobody may any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tasks.errors import StateError, TakenOverError
from tasks.heartbeat import Heartbeat
from tasks.rollout.canary.look import Surroundings, look
from tasks.rollout.canary.store import Canary, beat, let_go, read

#: Seconds between two glances at what people ask for.
GLANCE_S = 1.0
#: Longest pause while the state database does not answer, in seconds.
MOST_PAUSE_S = 30.0

OnLook = Callable[[Canary], None]
OnError = Callable[[str], None]


def _nothing(_seen: object) -> None:
    """Listen to nothing."""


def walk(
    around: Surroundings,
    canary: Canary,
    stop: threading.Event,
    *,
    on_look: OnLook = _nothing,
    on_error: OnError = _nothing,
    until: Callable[[Canary], bool] = lambda _canary: False,
) -> Canary:
    """Drive a claimed canary and return it as it is at the end.

    A state database that does not answer is asked again with growing pauses: production keeps the
    share that it has.

    Args:
        around: The world, and the token that claimed the canary.
        canary: The canary.
        stop: Set from outside: end after the look that is under way. The canary stays as it is,
            for another process to go on with.
        on_look: Called after each look.
        on_error: Called with a sentence when the state database does not answer.
        until: End the drive after a look that makes this true; the canary stays claimed.

    Raises:
        TakenOverError: Another process drives the canary.
    """
    lost = threading.Event()
    heart = Heartbeat(around.state, canary.id, around.driver, lost.set, sign=beat)
    heart.start()
    pause = 1.0
    try:
        while not lost.is_set():
            try:
                canary = look(around, canary.id)
                pause = 1.0
            except StateError as error:
                on_error(str(error))
                if stop.wait(pause):
                    return canary
                pause = min(2 * pause, MOST_PAUSE_S)
                continue
            on_look(canary)
            if not canary.live or until(canary):
                return canary
            _wait(around, canary, stop, lost)
            if stop.is_set():
                let_go(around.state, canary.id, around.driver)
                return canary
    finally:
        heart.stop()
    raise TakenOverError(
        f"canary {canary.id} is driven by another process by now; this one ends here. See "
        "`imagegate canary status`"
    )


def _wait(
    around: Surroundings, canary: Canary, stop: threading.Event, lost: threading.Event
) -> None:
    """Wait for the next look; what people ask for cuts it short."""
    until = time.monotonic() + canary.plan.rule.every_seconds
    while not lost.is_set():
        left = until - time.monotonic()
        if left <= 0 or stop.wait(min(left, GLANCE_S)):
            return
        with suppress(StateError):
            if read(around.state, canary.id).control is not None:
                return
