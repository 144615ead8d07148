"""How many requests at a time a model bears: additive increase, multiplicative decrease.

Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance" (1989):
clients that grow by a step and shrink by a factor end up with fair and stable shares of a server
that tells them nothing but "too much". A 429 is such a word; so is a latency that rises while
nothing else changes, the word of servers that queue instead of refusing.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: By what a 429 shrinks the requests at a time, and what a rise of latency does.
CUT_THROTTLED = 0.5
CUT_SLOW = 0.8
#: Recent latency, of this many answers, against the usual one.
RECENT = 8
#: Answers before the usual latency is known well enough to be compared with.
LEARNED = 24
#: By how much the recent latency must exceed the usual one. Pictures differ in size and steps, so
#: a factor that noise does not reach: the mean of eight.
SLOWER = 2.0
#: Weight of one answer in the usual latency; about the last hundred count.
_USUAL_WEIGHT = 0.02


class AdaptiveSlots:
    """Places for requests to one model; used by the tasks of one event loop.

    Args:
        most: Places at the most, and at the start: the catalog's limit is what the provider
            allows, so there is no slow start.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        self.most = most
        #: Places now; grows by one over as many good answers as there are places.
        self.allowed = float(most)
        self.held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._last_cut = float("-inf")
        self._usual: float | None = None
        self._answers = 0
        self._recent: deque[float] = deque(maxlen=RECENT)

    async def acquire(self) -> None:
        """Take a place, waiting for one; first come, first served."""
        if not self._waiting and self.held < int(self.allowed):
            self.held += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()  # the place came with the cancellation: it goes on to the next
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def release(self) -> None:
        """Give a place back."""
        self.held -= 1
        self._wake()

    def answered(self, seconds: float, began: float, now: float) -> None:
        """Note a useful answer: room grows, or shrinks when answers have become slow.

        Args:
            seconds: On the wire.
            began: When the request was sent, on the clock of ``now``.
            now: The present moment.
        """
        if self._slow(seconds):
            self.cut(CUT_SLOW, began, now)
            return
        self.allowed = min(float(self.most), self.allowed + 1.0 / max(1, int(self.allowed)))
        self._wake()

    def cut(self, factor: float, began: float, now: float) -> None:
        """Shrink; only once for all the requests that were under way together.

        Args:
            factor: New room as a part of the old; one place is always left.
            began: When the request that met the limit was sent.
            now: The present moment.
        """
        if began < self._last_cut:
            return
        self._last_cut = now
        self.allowed = max(1.0, self.allowed * factor)
        self._recent.clear()

    def _slow(self, seconds: float) -> bool:
        """Learn a latency and return whether the recent ones are far above the usual."""
        self._answers += 1
        self._recent.append(seconds)
        usual = self._usual
        recent = sum(self._recent) / len(self._recent)
        slow = (
            usual is not None
            and self._answers > LEARNED
            and len(self._recent) == RECENT
            and recent > SLOWER * usual
        )
        if usual is None:
            self._usual = seconds
        elif not slow:
            # While it learns each answer counts alike; what is called slow is not learnt as usual.
            weight = max(_USUAL_WEIGHT, 1.0 / self._answers)
            self._usual = usual + weight * (seconds - usual)
        else:
            # A provider that stays slow is the usual some day, or it would be cut down to one.
            self._usual = usual * (1.0 + _USUAL_WEIGHT)
        return slow

    def _wake(self) -> None:
        while self._waiting and self.held < int(self.allowed):
            place = self._waiting.popleft()
            if not place.done():
                self.held += 1
                place.set_result(None)
