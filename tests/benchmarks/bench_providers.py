"""Adapters against their fakes: 200 ms and 1 MB a picture, 500 requests, 32 at a time.

The ideal is requests x latency / concurrency; beside ours a bare httpx loop and an aiohttp loop
send the very same request and read the answer, and look at nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from tasks.harness.setup import open_client
from tasks.mix.catalog import Model
from tasks.providers.base import GenerationRequest
from tasks.providers.drive import complete
from tasks.providers.registry import provider_for
from tests.benchmarks.served import Served
from tests.fakes import gemini_server, openai_server, stability_server
from tests.fakes.gemini_server import GeminiServer
from tests.fakes.http_server import FakeServer, png
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.stability_server import StabilityServer
from tests.providers.kit import a_model, a_price, a_request

REQUESTS, AT_ONCE, LATENCY_S = 500, 32, 0.2
MEGABYTE = 1_000_000
IDEAL_S = REQUESTS * LATENCY_S / AT_ONCE
#: Most that ours may take of the ideal, and how far its p99 may be from the server's own.
MOST, APART = 1.15, 0.10


def a_megabyte() -> bytes:
    return png(1024, 1024, at_least=MEGABYTE)


def raw() -> FakeServer:
    return FakeServer(latency_s=LATENCY_S, picture=a_megabyte())


def openai() -> Any:
    return OpenAIServer(latency_s=LATENCY_S, fixed=a_megabyte())


def gemini() -> Any:
    return GeminiServer(latency_s=LATENCY_S, fixed=a_megabyte())


class Stability(StabilityServer):
    """Draws once: the drawing is not what is measured."""

    drawn: Any = None

    def answer(self, request: Any) -> Any:
        if self.drawn is None:
            first = super().answer(request)
            self.drawn = dataclasses.replace(first, body=a_megabyte())
        return self.drawn


def stability() -> Any:
    return Stability(latency_s=LATENCY_S)


KEYS = {
    "openai": openai_server.KEY,
    "gemini": gemini_server.KEY,
    "stability": stability_server.KEY,
}
TOKENS = {"text_in": 5.0, "image_in": 8.0, "text_out": 10.0, "image_out": 30.0}
CASES: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "raw": (raw, "", {}),
    "openai": (
        openai,
        "/v1",
        {
            "options": {"dialect": "openai"},
            "version": "gpt-image-2-2026-04-21",
            "price": a_price(usd=0.5, per="token", tokens=TOKENS),
        },
    ),
    "gemini": (
        gemini,
        "/v1beta",
        {"version": "gemini-3-pro-image", "price": a_price(usd=0.5, per="token", tokens=TOKENS)},
    ),
    "stability": (
        stability,
        "",
        {"version": "sd3.5-large-turbo", "pin": "alias", "price": a_price(per="credit", credits=4)},
    ),
}


async def together(one: Callable[[int], Awaitable[None]]) -> tuple[float, float, float]:
    """Return the seconds of wall time and of CPU of all requests, and the p99 of one."""
    numbers = iter(range(REQUESTS))
    each: list[float] = []

    async def work() -> None:
        for number in numbers:
            start = time.perf_counter()
            await one(number)
            each.append(time.perf_counter() - start)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    wall, busy = time.perf_counter() - began, time.process_time() - cpu
    return wall, busy, float(np.percentile(each, 99))


async def ours(
    provider: Any, request: GenerationRequest, wire: list[float]
) -> tuple[float, float, float]:
    async with open_client(AT_ONCE) as client:

        async def one(_number: int) -> None:
            result = await complete(provider, client, request)
            assert result.image is not None, result.attempt.message
            wire.append(result.attempt.total_s)

        return await together(one)


async def bare_httpx(
    method: str, url: str, headers: dict[str, str], body: bytes
) -> tuple[float, float, float]:
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60.0) as client:

        async def one(_number: int) -> None:
            answer = await client.request(method, url, headers=headers, content=body)
            assert len(answer.content) >= MEGABYTE

        return await together(one)


async def bare_aiohttp(
    method: str, url: str, headers: dict[str, str], body: bytes
) -> tuple[float, float, float]:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(_number: int) -> None:
            async with session.request(method, url, headers=headers, data=body) as answer:
                assert len(await answer.read()) >= MEGABYTE

        return await together(one)


@pytest.mark.parametrize("protocol", list(CASES))
def bench_adapter(benchmark: Any, protocol: str) -> None:
    benchmark.group = "adapters"
    make, path, fields = CASES[protocol]
    model: Model = a_model(protocol=protocol, timeout_s=60.0, **fields)
    with Served(make) as server:
        key = SecretStr(KEYS[protocol]) if protocol in KEYS else None
        provider = provider_for(model, f"{server.url}{path}", key)
        request = a_request(model=model, width=1024, height=1024)

        async def first() -> None:
            async with open_client(1) as client:
                result = await complete(provider, client, request)
                assert result.image is not None, result.attempt.message

        asyncio.run(first())
        method, where, query, headers, body = server.last()
        url = str(httpx.URL(f"{server.url}{where}", params=query or None))
        for name in ("host", "content-length", "connection"):
            headers.pop(name, None)
        server.took()
        wire: list[float] = []
        load = os.getloadavg()[0]
        wall, cpu, _ = benchmark.pedantic(
            lambda: asyncio.run(ours(provider, request, wire)), rounds=1, iterations=1
        )
        theirs = server.took()
        plain = asyncio.run(bare_httpx(method, url, headers, body))
        third = asyncio.run(bare_aiohttp(method, url, headers, body))
    p99, own = (float(np.percentile(values, 99)) for values in (wire, theirs))
    info = {
        "ideal_s": IDEAL_S,
        "ours / ideal": wall / IDEAL_S,
        "httpx / ideal": plain[0] / IDEAL_S,
        "aiohttp / ideal": third[0] / IDEAL_S,
        "CPU ms ours": 1_000 * cpu / REQUESTS,
        "CPU ms httpx": 1_000 * plain[1] / REQUESTS,
        "CPU ms aiohttp": 1_000 * third[1] / REQUESTS,
        "p99 ours": p99,
        "p99 httpx": plain[2],
        "p99 aiohttp": third[2],
        "p99 server": own,
        "load before": load,
    }
    benchmark.extra_info.update(info)
    print(protocol, {name: round(value, 3) for name, value in info.items()})  # noqa: T201
