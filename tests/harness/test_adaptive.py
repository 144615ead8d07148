from __future__ import annotations

import asyncio
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.harness.adaptive import LEARNED, RECENT, AdaptiveSlots
from tasks.harness.limits import ModelLimits
from tasks.mix.catalog import Limits, Model, Price
from tasks.records import Attempt, FailureClass


def limited(name: str, concurrency: int = 8, **changes: object) -> Model:
    entry = {
        "name": name,
        "protocol": "raw",
        "endpoint": "https://images.example.com",
        "version": "1",
        "pin": "dated",
        "operations": ("generate",),
        "key_env": "BOLD_KEY",
        "price": Price(usd=0.01, source="test", date=date(2026, 1, 1)),
        "limits": Limits(concurrency=concurrency, per_minute=600_000),
    }
    return Model.model_validate(entry | changes)


def attempt(model: str, failure: FailureClass | None = None, **more: object) -> Attempt:
    fields = {
        "stage": 0,
        "number": 1,
        "model": model,
        "started_at": "2026-01-01T00:00:00Z",
        "total_s": 1.0,
        "failure": failure,
    }
    return Attempt.model_validate(fields | more)


def test_a_refusal_for_load_halves_and_answers_give_back_step_by_step() -> None:
    slots = AdaptiveSlots(16)
    slots.cut(0.5, began=0.0, now=1.0)
    assert slots.allowed == 8
    for _ in range(8):
        slots.answered(1.0, 1.0, 2.0)
    assert 8.9 < slots.allowed <= 9.0
    for _ in range(1_000):
        slots.answered(1.0, 2.0, 3.0)
    assert slots.allowed == 16


def test_requests_that_were_under_way_together_cut_once() -> None:
    slots = AdaptiveSlots(16)
    for _ in range(10):
        slots.cut(0.5, began=0.0, now=1.0)
    assert slots.allowed == 8
    slots.cut(0.5, began=1.5, now=2.0)
    assert slots.allowed == 4


def test_latency_that_rises_and_stays_up_cuts_and_noise_does_not() -> None:
    steady = AdaptiveSlots(16)
    for index in range(400):
        steady.answered(0.6 if index % 2 else 1.4, float(index), float(index))
    assert steady.allowed == 16
    for index in range(400, 400 + 2 * RECENT):
        steady.answered(3.0, float(index), float(index))
    assert steady.allowed < 14


def test_one_slow_answer_is_no_rise() -> None:
    slots = AdaptiveSlots(16)
    for index in range(LEARNED + RECENT):
        slots.answered(1.0, float(index), float(index))
    slots.answered(8.0, 100.0, 100.0)
    assert slots.allowed == 16


def test_a_provider_that_stays_slow_gets_its_room_back() -> None:
    slots = AdaptiveSlots(8)
    for index in range(100):
        slots.answered(1.0, float(index), float(index))
    for index in range(100, 1_000):
        slots.answered(5.0, float(index), float(index))
    assert slots.allowed > 7


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from(("cut", "slow", "good")), st.floats(0, 3)), max_size=200),
)
def test_room_stays_between_one_and_the_limit(most: int, events: list[tuple[str, float]]) -> None:
    slots = AdaptiveSlots(most)
    now = 0.0
    for kind, pause in events:
        now += pause
        if kind == "cut":
            slots.cut(0.5, now - 0.1, now)
        else:
            slots.answered(20.0 if kind == "slow" else 1.0, now - 0.1, now)
        assert 1 <= int(slots.allowed) <= most


def test_a_place_comes_to_those_who_wait_in_their_order() -> None:
    async def main() -> list[int]:
        slots = AdaptiveSlots(1)
        await slots.acquire()
        served: list[int] = []

        async def one(number: int) -> None:
            await slots.acquire()
            served.append(number)
            slots.release()

        waiting = [asyncio.create_task(one(number)) for number in range(5)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        slots.release()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert slots.held == 0
        return served

    assert asyncio.run(main()) == [0, 2, 3, 4]


def test_a_place_that_comes_with_the_cancellation_goes_on() -> None:
    async def main() -> int:
        slots = AdaptiveSlots(1)
        await slots.acquire()
        first, second = (asyncio.create_task(slots.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        slots.release()  # the place is the first one's, who does not know yet
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await second
        return slots.held

    assert asyncio.run(main()) == 1


def test_a_429_pauses_and_cuts_all_models_of_the_key_and_no_other() -> None:
    now = [100.0]
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    models = [
        limited("one"),
        limited("two"),
        limited("other", key_env="OTHER_KEY"),
        limited("elsewhere", endpoint="https://other.example.com"),
    ]
    limits = ModelLimits(models, clock=lambda: now[0], sleep=sleep)

    async def take(model: str) -> float:
        async with limits.slot(model) as queued:
            return queued

    limits.note(attempt("one", FailureClass.THROTTLED, retry_after_s=3.0, http_status=429))
    assert [limits.allowed(model.name) for model in models] == [4, 4, 8, 8]
    assert asyncio.run(take("other")) == 0.0
    assert asyncio.run(take("two")) == pytest.approx(3.0)
    assert asyncio.run(take("one")) == 0.0
    assert waits == [pytest.approx(3.0)]


@pytest.mark.parametrize(
    "more",
    [{"finish_reason": "quota"}, {"retry_after_s": 3_600.0, "finish_reason": "quota"}],
)
def test_a_quota_that_is_used_up_is_not_waited_for(more: dict[str, object]) -> None:
    limits = ModelLimits([limited("one")])
    limits.note(attempt("one", FailureClass.THROTTLED, **more))
    assert limits.allowed("one") == 8


def test_a_pause_longer_than_anybody_waits_holds_nobody_up() -> None:
    limits = ModelLimits([limited("one")], clock=lambda: 0.0)
    limits.note(attempt("one", FailureClass.THROTTLED, retry_after_s=3_600.0))

    async def take() -> float:
        async with limits.slot("one") as queued:
            return queued

    assert asyncio.run(take()) == 0.0


def test_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match="most"):
        AdaptiveSlots(0)
