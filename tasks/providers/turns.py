"""Turns: whole answers are worked on one at a time, and never while bytes of others wait.

Many answers can come together. To take a picture out of one costs a millisecond or more, in which
nothing is read: without turns each answer's last byte would be noted late by the work on all
answers before it, and all requests would go on together, to come back together again.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: Seconds that work waits at most while bytes keep coming.
MOST_WAIT_S = 0.05


class Turns:
    """Lets those that wait go on in their order, each in a turn of the event loop of its own."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._planned = False
        self._came = False

    def came(self) -> None:
        """Note that bytes came in this turn of the loop."""
        self._came = True

    async def turn(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append((mine, loop.time() + MOST_WAIT_S))
        if not self._planned:
            self._planned = True
            loop.call_soon(self._next)
        await mine

    def _next(self) -> None:
        """Let the first go on, unless bytes came since the last look and it can still wait."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()  # it was cancelled
        if self._waiting and not (self._came and loop.time() < self._waiting[0][1]):
            self._waiting.popleft()[0].set_result(None)
        self._came = False
        self._planned = bool(self._waiting)
        if self._planned:
            loop.call_soon(self._next)
