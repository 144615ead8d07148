"""How hard each model is driven: requests at a time, and requests a minute.

The catalog's limits are the most. Within them the requests at a time follow what the provider
bears (:mod:`tasks.harness.adaptive`), and a provider that asks for a pause gets it for all that
goes to it under the same key, not for the one request alone that happened to be told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from tasks.harness.adaptive import CUT_THROTTLED, AdaptiveSlots
from tasks.harness.retry import MOST_RETRY_AFTER_S, retryable
from tasks.mix.catalog import Model
from tasks.records import Attempt, FailureClass

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
        self._slots: dict[str, AdaptiveSlots] = {}
        self._buckets: dict[str, TokenBucket] = {}
        #: What a provider counts together: address and key of each model.
        self._keys: dict[str, tuple[str, str, str | None]] = {}
        #: Until when nothing goes out under a key, on the clock.
        self._paused: dict[tuple[str, str, str | None], float] = {}
        self.concurrency = 0
        for model in models:
            slots = max(1, model.limits.concurrency // share)
            per_minute = model.limits.per_minute / share
            self.concurrency += slots
            self._slots[model.name] = AdaptiveSlots(slots)
            # One second's worth at once: providers count by the second or by the minute.
            self._buckets[model.name] = TokenBucket(per_minute, max(1.0, per_minute / 60), clock)
            self._keys[model.name] = (model.protocol, model.endpoint, model.key_env)

    @asynccontextmanager
    async def slot(self, model: str) -> AsyncIterator[float]:
        """Hold one request's place at a model; gives the seconds that were waited for it."""
        began = self._clock()
        slots = self._slots[model]
        await slots.acquire()
        try:
            while (wait := self._pause(model)) > 0:
                await self._sleep(wait)
            wait = self._buckets[model].take()
            if wait > 0:
                await self._sleep(wait)
            yield max(0.0, self._clock() - began)
        finally:
            slots.release()

    def note(self, attempt: Attempt) -> None:
        """Learn from an attempt what its provider bears."""
        now = self._clock()
        began = now - attempt.total_s
        if attempt.failure is FailureClass.THROTTLED and retryable(attempt):
            key = self._keys[attempt.model]
            for name, other in self._keys.items():
                if other == key:
                    self._slots[name].cut(CUT_THROTTLED, began, now)
            # A longer pause is not waited for: such a request is given up.
            asked = attempt.retry_after_s or 0.0
            if asked <= MOST_RETRY_AFTER_S:
                self._paused[key] = max(self._paused.get(key, 0.0), now + asked)
        elif attempt.failure is None:
            self._slots[attempt.model].answered(attempt.total_s, began, now)

    def allowed(self, model: str) -> int:
        """Return how many requests at a time a model gets now."""
        return int(self._slots[model].allowed)

    def _pause(self, model: str) -> float:
        """Return the seconds for which nothing may go out under the model's key."""
        return self._paused.get(self._keys[model], 0.0) - self._clock()
