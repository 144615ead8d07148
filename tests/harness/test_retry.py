"""Which failures are tried again, when a model counts as down, and how hard it is driven."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.harness.breaker import Breaker, looks_down
from tasks.harness.limits import ModelLimits, TokenBucket
from tasks.harness.retry import BASE_S, MOST_RETRY_AFTER_S, MOST_S, RETRIED, backoff, retryable
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.answers import QUOTA
from tasks.records import Attempt, FailureClass


def tried(failure: FailureClass | None, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "stage": 0,
        "number": 1,
        "model": "m",
        "started_at": "2026-11-22T00:00:00Z",
        "failure": failure,
        "idempotency_key": "ig-1",
    }
    return Attempt(**(fields | changes))


@pytest.mark.parametrize("failure", list(FailureClass))
def test_only_passing_troubles_are_tried_again(failure: FailureClass) -> None:
    passing = {"transport", "throttled", "server", "empty", "malformed"}
    assert (backoff(tried(failure), 3) is not None) == (failure.value in passing)


def test_a_used_up_quota_is_not_tried_again() -> None:
    attempt = tried(FailureClass.THROTTLED, finish_reason=QUOTA, retry_after_s=1.0)
    assert not retryable(attempt)
    assert backoff(attempt, 3) is None


def test_success_is_not_tried_again() -> None:
    assert backoff(tried(None), 3) is None


def test_attempts_end() -> None:
    assert backoff(tried(FailureClass.SERVER, number=2), 3) is not None
    assert backoff(tried(FailureClass.SERVER, number=3), 3) is None


def test_long_waits_that_a_provider_asks_for_are_not_waited() -> None:
    assert backoff(tried(FailureClass.THROTTLED, retry_after_s=MOST_RETRY_AFTER_S + 0.1), 3) is None


@given(
    st.sampled_from(sorted(RETRIED)),
    st.integers(1, 9),
    st.text(min_size=1, max_size=20),
    st.none() | st.floats(0, MOST_RETRY_AFTER_S),
)
def test_waits_are_bounded_repeatable_and_no_shorter_than_asked(
    failure: FailureClass, number: int, key: str, asked: float | None
) -> None:
    attempt = tried(failure, number=number, idempotency_key=key, retry_after_s=asked)
    wait = backoff(attempt, 10)
    assert wait is not None
    assert wait == backoff(attempt, 10)
    assert wait >= (asked or 0.0)
    assert wait <= (asked or 0.0) + min(MOST_S, BASE_S * 2 ** (number - 1))


def test_waits_spread_over_the_whole_range() -> None:
    waits = [
        backoff(tried(FailureClass.SERVER, number=3, idempotency_key=str(i)), 9) or 0.0
        for i in range(400)
    ]
    assert min(waits) < 0.1 * BASE_S * 4
    assert max(waits) > 0.9 * BASE_S * 4


def test_the_breaker_counts_each_model_alone_and_forgets_after_an_answer() -> None:
    breaker = Breaker(streak=3)
    down = tried(FailureClass.TRANSPORT, message="cannot connect")
    assert breaker.note(down) is None
    assert breaker.note(tried(FailureClass.TRANSPORT, model="other")) is None
    assert breaker.note(down) is None
    assert breaker.note(tried(FailureClass.REFUSAL)) is None
    assert [breaker.note(down) is None for _ in range(3)] == [True, True, False]
    reason = breaker.note(down)
    assert reason is not None
    assert "'m'" in reason
    assert "cannot connect" in reason


@pytest.mark.parametrize(
    ("attempt", "down"),
    [
        (tried(None), False),
        (tried(FailureClass.REFUSAL), False),
        (tried(FailureClass.EMPTY), False),
        (tried(FailureClass.MALFORMED), False),
        (tried(FailureClass.THROTTLED), False),
        (tried(FailureClass.THROTTLED, finish_reason=QUOTA), True),
        (tried(FailureClass.AUTH), True),
        (tried(FailureClass.RETIRED), True),
        (tried(FailureClass.DRIFT), True),
        (tried(FailureClass.SERVER), True),
    ],
)
def test_what_looks_down(attempt: Attempt, down: bool) -> None:
    assert looks_down(attempt) is down


def test_a_rested_bucket_gives_its_burst_then_the_rate() -> None:
    now = [0.0]
    bucket = TokenBucket(per_minute=60, burst=3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(5)] == [0.0, 0.0, 0.0, 1.0, 2.0]
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 1), (-1, 1), (60, 0)])
def test_a_bucket_without_a_rate_is_refused(per_minute: float, burst: float) -> None:
    with pytest.raises(ValueError, match="per_minute"):
        TokenBucket(per_minute, burst)


@given(
    st.integers(1, 600),
    st.integers(1, 20),
    st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_no_minute_sees_more_than_the_rate_and_one_burst(
    per_minute: int, burst: int, pauses: list[float]
) -> None:
    now = [0.0]
    bucket = TokenBucket(per_minute, burst, clock=lambda: now[0])
    sent = []
    for pause in pauses:
        now[0] += pause
        sent.append(now[0] + bucket.take())
    for start in sent:
        inside = sum(start <= moment < start + 60 for moment in sent)
        assert inside <= per_minute + burst


def limited(name: str, concurrency: int, per_minute: int = 60_000) -> Model:
    return Model(
        name=name,
        protocol="raw",
        endpoint="embedded",
        version="1",
        pin="dated",
        operations=("generate",),
        price=Price(usd=0.01, source="test", date=date(2026, 1, 1)),
        limits=Limits(concurrency=concurrency, per_minute=per_minute),
    )


@pytest.mark.parametrize(("share", "most"), [(1, 6), (2, 3), (4, 1), (100, 1)])
def test_no_more_requests_at_a_time_than_this_shards_part(share: int, most: int) -> None:
    async def main() -> int:
        limits = ModelLimits([limited("m", 6)], share)
        flying = peak = 0

        async def one() -> None:
            nonlocal flying, peak
            async with limits.slot("m"):
                flying += 1
                peak = max(peak, flying)
                await asyncio.sleep(0)
                flying -= 1

        await asyncio.gather(*(one() for _ in range(30)))
        return peak

    assert asyncio.run(main()) == most


def test_the_wait_for_the_rate_is_told() -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async def main() -> list[float]:
        limits = ModelLimits([limited("m", 1, 60)], 1, clock=lambda: now[0], sleep=sleep)
        waited = []
        for _ in range(3):
            async with limits.slot("m") as queued:
                waited.append(queued)
        return waited

    assert asyncio.run(main()) == [0.0, 1.0, 1.0]


def test_a_share_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        ModelLimits([limited("m", 1)], 0)
