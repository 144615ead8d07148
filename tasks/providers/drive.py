"""Driving one request to its end, jobs included: what the harness calls."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import httpx

from tasks.errors import ConfigError
from tasks.providers.answers import clean
from tasks.providers.base import AttemptResult, GenerationRequest, Job, Provider
from tasks.providers.cost import worst_case
from tasks.records import Attempt, FailureClass, utc_now

#: Seconds before the first look at a job; each further wait is longer, up to the most.
FIRST_WAIT_S = 0.25
MOST_WAIT_S = 5.0
_GROWTH = 1.5
#: Waits are drawn from this part below and above, so that jobs do not come back together.
_JITTER = 0.2
#: A provider that asks for a longer pause between looks gets this one.
MOST_ASKED_WAIT_S = 60.0
#: Seconds that a look may go on beyond the model's time limit: a finished picture is paid for.
_LAST_LOOK_S = 10.0
#: Seconds for asking the provider to give a job up.
CANCEL_S = 3.0


def pause(look: int, asked: float | None, draw: float) -> float:
    """Return the seconds to wait before a look at a job.

    Args:
        look: 1 for the first look.
        asked: Seconds that the provider asks for; never waited shorter, up to a minute.
        draw: A draw from [0, 1).
    """
    # min() of the exponent: a long job makes thousands of looks.
    reach = min(MOST_WAIT_S, FIRST_WAIT_S * _GROWTH ** min(look - 1, 40))
    wait = reach * (1 - _JITTER + 2 * _JITTER * draw)
    if asked is None:
        return wait
    least = min(max(0.0, asked), MOST_ASKED_WAIT_S)
    return max(wait, least * (1 + _JITTER * draw))


def reservation(provider: Provider, request: GenerationRequest) -> int:
    """Return the most that a request can cost, in micro-dollars.

    Raises:
        ConfigError: The catalog gives no price.
    """
    worst = worst_case(request.model, request.prompt, *provider.asked_size(request))
    if worst is None:
        raise ConfigError(
            f"model {request.model.name!r} has no price in the catalog; nothing is spent on it"
        )
    return worst


async def complete(
    provider: Provider,
    client: httpx.AsyncClient,
    request: GenerationRequest,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    draw: Callable[[], float] = random.random,
) -> AttemptResult:
    """Send a request and return what came of it, however many looks its job needs.

    The model's time limit bounds the whole. A job that has not ended by then counts as a fault of
    the provider and may be billed; it is cancelled where the protocol can, as it is when this call
    is cancelled.

    Args:
        provider: The adapter.
        client: The HTTP client.
        request: What to ask.
        clock: Monotonic seconds.
        sleep: Waits.
        draw: Draws from [0, 1).
    """
    limit, called_at = request.model.limits.timeout_s, clock()
    started_at = utc_now()
    result = await provider.submit(client, request)
    looks = 0
    while isinstance(result, Job):
        job, looks = result, looks + 1
        try:
            left = limit - (clock() - called_at)
            if left <= 0:
                await _give_up(provider, client, job)
                return _never_ended(provider, request, job, started_at, clock() - called_at)
            await sleep(min(pause(looks, job.wait_s, draw()), left))
            left = max(0.0, limit - (clock() - called_at))
            async with asyncio.timeout(left + _LAST_LOOK_S):
                result = await provider.poll(client, request, job)
        except TimeoutError:
            await _give_up(provider, client, job)
            return _never_ended(provider, request, job, started_at, clock() - called_at)
        except asyncio.CancelledError:
            await _give_up(provider, client, job)
            raise
    return result


async def _give_up(provider: Provider, client: httpx.AsyncClient, job: Job) -> None:
    """Ask the provider to cancel a job, and do not wait for it long."""
    try:
        async with asyncio.timeout(CANCEL_S):
            await provider.cancel(client, job)
    except (TimeoutError, httpx.HTTPError, OSError):
        return


def _never_ended(
    provider: Provider, request: GenerationRequest, job: Job, started_at: str, seconds: float
) -> AttemptResult:
    """Return the attempt of a job that had not ended in time."""
    lost = f"; the last {job.misses} looks brought no answer" if job.misses else ""
    return AttemptResult(
        Attempt(
            stage=request.stage,
            number=request.attempt,
            model=request.model.name,
            started_at=job.started_at or started_at,
            queued_s=request.queued_s,
            total_s=max(0.0, seconds),
            failure=FailureClass.SERVER,
            message=f"job {clean(job.id, 60)!r} had not ended after {seconds:.3g} s{lost}",
            billed="unknown",
            cost_microusd=reservation(provider, request),
            cost_source="list",
            idempotency_key=request.idempotency_key,
            provider_request_id=clean(job.request_id or job.id, 200) or None,
        )
    )
