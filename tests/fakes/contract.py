"""Contract tests of adapters: one row each, an adapter against the fake of its provider."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import httpx
from pydantic import SecretStr

from tasks.harness.retry import retryable
from tasks.mix.catalog import Limits, Model, Price
from tasks.providers.base import AttemptResult, GenerationRequest
from tasks.providers.drive import complete
from tasks.providers.registry import provider_for
from tasks.records import Billed, FailureClass

#: What may pass when it is tried again.
_AGAIN = {"transport", "throttled", "server", "empty", "malformed"}


@dataclass(frozen=True)
class Row:
    """One failure, or one way to succeed, of a protocol."""

    name: str
    failure: FailureClass | None
    #: Bends the fake, or changes how it stands.
    arrange: Callable[[Any], None] = lambda server: None
    billed: Billed = "no"
    #: Micro-dollars.
    cost: int = 0
    #: A pattern of the message.
    says: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    key: str | None = "as the fake wants it"
    retried: bool | None = None

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def a_model(**fields: Any) -> Model:
    usual: dict[str, Any] = {
        "name": "m",
        "endpoint": "https://provider.test",
        "pin": "alias",
        "operations": ("generate", "edit", "upscale"),
        "price": Price(usd=0.04, source="test", date=date(2026, 1, 1)),
        "limits": Limits(timeout_s=30.0),
    }
    return Model(**(usual | fields))


def a_request(model: Model, **fields: Any) -> GenerationRequest:
    usual: dict[str, Any] = {
        "operation": "generate",
        "prompt": 'a fox with a sign "Grüße {seed} 店"',
        "width": 1024,
        "height": 1024,
        "seed": 7,
        "stage": 0,
        "attempt": 1,
        "idempotency_key": "ig-0123abcd",
    }
    return GenerationRequest(model=model, **(usual | fields))


def ask(
    url: str, request: GenerationRequest, key: str | None = None, time: Time | None = None
) -> AttemptResult:
    """Drive one request to its end; pauses between looks take no time."""
    clock = time or Time()

    async def drive() -> AttemptResult:
        provider = provider_for(request.model, url, None if key is None else SecretStr(key))
        async with httpx.AsyncClient() as client:
            return await complete(
                provider, client, request, clock=clock, sleep=clock.sleep, draw=lambda: 0.0
            )

    return asyncio.run(drive())


def check(row: Row, result: AttemptResult, key: str | None) -> None:
    """Compare what came of a request with its row."""
    attempt = result.attempt
    got = (attempt.failure, attempt.billed, attempt.cost_microusd)
    assert got == (row.failure, row.billed, row.cost), attempt.message
    assert re.search(row.says, attempt.message), attempt.message
    assert (result.image is not None) == (row.failure in (None, FailureClass.COST_UNKNOWN))
    again = attempt.failure in _AGAIN if row.retried is None else row.retried
    assert retryable(attempt) == again
    assert attempt.total_s >= 0
    if key:
        assert key not in attempt.model_dump_json()
