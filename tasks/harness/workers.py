"""Drives the tasks of a shard to their end, to a stop or to the first error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

#: Seconds between two looks at the stop event.
WATCH_S = 0.05
STOPPED = "stopped on request; resume the run to finish it"


class Signal(Protocol):
    """Something that another thread or a signal handler sets, e.g. a ``threading.Event``."""

    def is_set(self) -> bool:
        """Tell whether it was set."""


async def drive(
    work: Sequence[Coroutine[None, None, None]],
    stop: Signal | None,
    halt: Callable[[str], None],
    grace_s: float,
) -> None:
    """Run coroutines together until all have ended; none is left running, whatever happens.

    Args:
        work: What to run.
        stop: Set from outside to end early.
        halt: Called with a reason once ``stop`` is set; the work should then end by itself.
        grace_s: Seconds that the work gets for that before it is cancelled.

    Raises:
        Exception: The first error of the work; the rest is cancelled.
    """
    if stop is not None and stop.is_set():
        # Halted before the first request, not a moment after it.
        halt(STOPPED)
    tasks = [asyncio.create_task(each) for each in work]
    watch = [] if stop is None else [asyncio.create_task(_watch(stop, halt, grace_s, tasks))]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
    finally:
        ending = [*tasks, *watch]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def _watch(
    stop: Signal,
    halt: Callable[[str], None],
    grace_s: float,
    tasks: Sequence[asyncio.Task[None]],
) -> None:
    """Wait for the stop, give requests in flight some time, then cancel them."""
    while not stop.is_set():  # noqa: ASYNC110 - a signal handler or another thread sets it
        await asyncio.sleep(WATCH_S)
    halt(STOPPED)
    await asyncio.sleep(grace_s)
    for task in tasks:
        task.cancel()
