"""When to stop asking a model that plainly does not serve: pure, one per shard."""

from __future__ import annotations

from tasks.harness.retry import retryable
from tasks.records import Attempt, FailureClass

#: Attempts in a row without one useful answer. A model that fails every fifth attempt, far worse
#: than any that reaches a gate, gets there once in 10^14 attempts.
STREAK = 20

_DOWN = frozenset(
    {
        FailureClass.TRANSPORT,
        FailureClass.SERVER,
        FailureClass.AUTH,
        FailureClass.RETIRED,
        FailureClass.DRIFT,
    }
)


def looks_down(attempt: Attempt) -> bool:
    """Return whether an attempt says more about the provider than about the request."""
    if attempt.failure is FailureClass.THROTTLED:
        return not retryable(attempt)  # a quota that is used up; a short 429 means it is alive
    return attempt.failure in _DOWN


class Breaker:
    """Counts, for each model, the attempts in a row that look as if the provider were down.

    An outage is no property of the mix: the shard stops and holds, instead of booking hundreds of
    cases as undelivered or paying for a version that nobody asked for.

    Args:
        streak: Attempts in a row that stop the shard.
    """

    def __init__(self, streak: int = STREAK) -> None:
        self._most = streak
        self._streaks: dict[str, int] = {}

    def note(self, attempt: Attempt) -> str | None:
        """Count an attempt and return why the shard must stop, ``None`` while it need not."""
        if not looks_down(attempt):
            self._streaks[attempt.model] = 0
            return None
        streak = self._streaks[attempt.model] = self.streak(attempt.model) + 1
        if streak < self._most:
            return None
        return (
            f"model {attempt.model!r} gave no usable answer {streak} times in a row, last: "
            f"{attempt.failure}: {attempt.message or 'no message'}; check the provider, the key "
            "and the pinned version, then resume the run"
        )

    def streak(self, model: str) -> int:
        """Return how many attempts in a row look down."""
        return self._streaks.get(model, 0)
