"""The driver on a clock of its own: how long it waits between looks, and when it gives up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.providers.base import Adapter, AttemptResult, GenerationRequest, Job
from tasks.providers.drive import (
    MOST_ASKED_WAIT_S,
    MOST_WAIT_S,
    complete,
    pause,
    reservation,
)
from tasks.records import Attempt, FailureClass
from tests.providers.kit import a_model, a_price, a_request


@dataclass
class Slow(Adapter):
    """A provider whose job ends at a moment of the test's clock."""

    ends_at: float
    wait_s: float | None = None
    now: float = 0.0
    looks: list[float] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    #: Seconds that each look takes.
    look_s: float = 0.0

    def result(self) -> AttemptResult:
        return AttemptResult(Attempt(stage=1, number=2, model="m", started_at="then"), b"picture")

    async def submit(
        self, _client: httpx.AsyncClient, _request: GenerationRequest
    ) -> AttemptResult | Job:
        self.now += 1.0
        if self.now >= self.ends_at:
            return self.result()
        return Job("j", "/j", wait_s=self.wait_s, started_at="then")

    async def poll(
        self, _client: httpx.AsyncClient, _request: GenerationRequest, job: Job
    ) -> AttemptResult | Job:
        self.looks.append(self.now)
        self.now += self.look_s
        return self.result() if self.now >= self.ends_at else replace(job, misses=job.misses + 1)

    async def cancel(self, _client: httpx.AsyncClient, job: Job) -> None:
        self.cancelled.append(job.id)

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def run(self, timeout_s: float = 60.0) -> AttemptResult:
        async def main() -> AttemptResult:
            async with httpx.AsyncClient() as client:
                provider: Any = self
                return await complete(
                    provider,
                    client,
                    a_request(timeout_s=timeout_s),
                    clock=lambda: self.now,
                    sleep=self.sleep,
                    draw=lambda: 0.5,
                )

        return asyncio.run(main())


def test_an_answer_at_once_needs_no_look() -> None:
    provider = Slow(ends_at=0.0)
    assert provider.run().image == b"picture"
    assert provider.looks == []


def test_a_job_is_looked_at_until_it_ends_with_growing_pauses() -> None:
    provider = Slow(ends_at=40.0)
    assert provider.run().image == b"picture"
    gaps = [b - a for a, b in zip([1.0, *provider.looks], provider.looks, strict=False)]
    assert gaps[0] == pytest.approx(0.25)
    assert gaps == sorted(gaps)
    assert max(gaps) == pytest.approx(MOST_WAIT_S)
    assert provider.looks[-1] - 40.0 < MOST_WAIT_S
    assert provider.cancelled == []


def test_a_pause_that_the_provider_asks_for_is_kept() -> None:
    provider = Slow(ends_at=35.0, wait_s=10.0)
    provider.run()
    assert len(provider.looks) == 4
    assert min(b - a for a, b in zip(provider.looks, provider.looks[1:], strict=False)) >= 10.0


def test_the_last_look_is_at_the_limit_and_then_the_job_is_given_up() -> None:
    provider = Slow(ends_at=1e9)
    result = provider.run(timeout_s=30.0)
    attempt = result.attempt
    assert provider.looks[-1] == 30.0
    assert provider.now == 30.0
    assert provider.cancelled == ["j"]
    assert (attempt.failure, attempt.billed) == (FailureClass.SERVER, "unknown")
    assert (attempt.cost_microusd, attempt.total_s) == (40_000, 30.0)
    assert (attempt.stage, attempt.number, attempt.started_at) == (1, 2, "then")
    assert "looks brought no answer" in attempt.message


def test_a_job_that_ends_at_the_last_moment_is_taken() -> None:
    provider = Slow(ends_at=30.0)
    assert provider.run(timeout_s=30.0).image == b"picture"
    assert provider.cancelled == []


def test_a_submit_that_takes_all_the_time_leaves_no_look() -> None:
    provider = Slow(ends_at=1e9)
    assert provider.run(timeout_s=1.0).attempt.failure is FailureClass.SERVER
    assert provider.looks == []
    assert provider.cancelled == ["j"]


@given(
    st.integers(1, 10**9),
    st.none() | st.floats(allow_nan=False),
    st.floats(0, 1, exclude_max=True),
)
def test_pauses_are_bounded_and_never_shorter_than_asked(
    look: int, asked: float | None, draw: float
) -> None:
    wait = pause(look, asked, draw)
    assert 0 < wait <= max(MOST_WAIT_S * 1.2, MOST_ASKED_WAIT_S * 1.2)
    if asked is not None:
        assert wait >= min(asked, MOST_ASKED_WAIT_S)


def test_jobs_that_began_together_do_not_come_back_together() -> None:
    assert len({pause(9, None, draw / 10) for draw in range(10)}) == 10
    assert len({pause(1, 10.0, draw / 10) for draw in range(10)}) == 10


def test_money_is_reserved_for_the_size_that_is_asked_for() -> None:
    class Big(Slow):
        def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
            return 2000, 1000

    price = a_price(per="megapixel", usd=0.01)
    provider: Any = Big(0.0)
    assert reservation(provider, a_request(price=price)) == 20_000
    with pytest.raises(ConfigError, match="no price"):
        reservation(provider, a_request(model=a_model(price=None)))
