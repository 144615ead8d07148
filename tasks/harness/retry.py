"""Which failures are tried again, and after how long: pure functions."""

from __future__ import annotations

import hashlib

from tasks.providers.answers import NO_RETRY, QUOTA
from tasks.records import Attempt, FailureClass

#: Failures that the same request may not meet again. A refusal, a bad request, a retired model, a
#: wrong key or another model version would only be paid for again.
RETRIED = frozenset(
    {
        FailureClass.TRANSPORT,
        FailureClass.THROTTLED,
        FailureClass.SERVER,
        FailureClass.EMPTY,
        FailureClass.MALFORMED,
    }
)

#: Failures after which a stage asks its fallback. The others are answers, or faults of our own: a
#: refusal, a bad request, a wrong key or another version than pinned must be seen, not hidden.
FALLEN_BACK = RETRIED | {FailureClass.RETIRED, FailureClass.ASSET_URL}

#: First back-off is drawn from [0, BASE_S], then the range doubles up to MOST_S. Seconds.
BASE_S = 0.25
MOST_S = 8.0
#: A provider that wants a longer wait than this is not waited for. Seconds.
MOST_RETRY_AFTER_S = 30.0


def retryable(attempt: Attempt) -> bool:
    """Return whether the failure of an attempt may pass when it is tried again."""
    if attempt.failure is FailureClass.THROTTLED and attempt.finish_reason == QUOTA:
        return False
    if attempt.failure is FailureClass.SERVER and attempt.finish_reason == NO_RETRY:
        return False
    return attempt.failure in RETRIED


def falls_back(attempt: Attempt) -> bool:
    """Return whether a stage whose last attempt this is asks the next model of its chain."""
    return attempt.failure in FALLEN_BACK


def backoff(attempt: Attempt, most_attempts: int) -> float | None:
    """Return the seconds to wait before the next attempt, ``None`` to give up.

    Full jitter: the wait is drawn evenly from the whole range, so that clients that failed
    together do not come back together. The draw depends on the idempotency key alone, so a
    resumed run waits as the first one did.

    Args:
        attempt: The attempt that failed.
        most_attempts: Attempts that a stage may take.
    """
    if attempt.number >= most_attempts or not retryable(attempt):
        return None
    asked = attempt.retry_after_s or 0.0
    if asked > MOST_RETRY_AFTER_S:
        return None
    # min() first: 2**number would overflow no float at ten attempts, but the cap is the point.
    reach = min(MOST_S, BASE_S * 2.0 ** (attempt.number - 1))
    draw = int.from_bytes(hashlib.sha256(attempt.idempotency_key.encode()).digest()[:8]) / 2**64
    # After a wait that the provider asked for, a quarter second of jitter parts the herd.
    return asked + draw * (BASE_S if asked else reach)
