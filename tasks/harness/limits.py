"""How hard each model is driven: requests at a time, and requests a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from tasks.mix.catalog import Model

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class TokenBucket:
    """A rate limit that never sleeps itself: it says how long to wait.

    Args:
        per_minute: Tokens that come back each minute.
        burst: Tokens that a rested bucket holds.
        clock: Monotonic seconds.
    """

    def __init__(self, per_minute: float, burst: float, clock: Clock = time.monotonic) -> None:
        if per_minute <= 0 or burst < 1:
            raise ValueError(f"need per_minute > 0 and burst >= 1, got {per_minute}, {burst}")
        self._spacing_s = 60.0 / per_minute
        self._slack_s = (burst - 1) * self._spacing_s
        self._clock = clock
        #: When the bucket is full again (the "theoretical arrival time" of the GCRA algorithm).
        self._full_at = clock()

    def take(self) -> float:
        """Take one token and return the seconds until it may be used."""
        now = self._clock()
        full_at = max(self._full_at, now)
        self._full_at = full_at + self._spacing_s
        return max(0.0, full_at - self._slack_s - now)


class ModelLimits:
    """The limits of all models of a shard, shared by the tasks of one event loop.

    Args:
        models: The models with their catalog limits.
        share: How many shards run at the same time; each gets that part of every limit.
        clock: Monotonic seconds.
        sleep: Waits.
    """

    def __init__(
        self,
        models: Iterable[Model],
        share: int = 1,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        if share < 1:
            raise ValueError(f"share must be at least 1, got {share}")
        self._clock, self._sleep = clock, sleep
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._buckets: dict[str, TokenBucket] = {}
        self.concurrency = 0
        for model in models:
            slots = max(1, model.limits.concurrency // share)
            per_minute = model.limits.per_minute / share
            self.concurrency += slots
            self._slots[model.name] = asyncio.Semaphore(slots)
            # One second's worth at once: providers count by the second or by the minute.
            self._buckets[model.name] = TokenBucket(per_minute, max(1.0, per_minute / 60), clock)

    @asynccontextmanager
    async def slot(self, model: str) -> AsyncIterator[float]:
        """Hold one request's place at a model; gives the seconds that were waited for it."""
        began = self._clock()
        async with self._slots[model]:
            wait = self._buckets[model].take()
            if wait > 0:
                await self._sleep(wait)
            yield max(0.0, self._clock() - began)
