"""A transport under httpx's API that costs less: a pool of connections of our own.

A picture of 1 MB takes half of the CPU that it takes with httpx's own (README, "Speed"). Errors and
the events for :class:`~tasks.providers.wire.WireClock` are the same, so that what a failure means,
and whether it may be billed, stays what it was; ``tests/providers/test_transport.py`` holds both to
the same outcome.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import httpx

from tasks.providers.bodies import Memory
from tasks.providers.connection import Connection, Incoming, Origin, origin_of
from tasks.providers.turns import Turns


class Transport(httpx.AsyncBaseTransport):
    """The transport; of one event loop, without proxies.

    Args:
        most: Most connections; a request waits for one within its ``pool`` timeout.
        keepalive_s: Seconds after which an idle connection is not used again.
        verify: Checks certificates; httpx's default when ``None``.
    """

    def __init__(self, most: int, keepalive_s: float, verify: ssl.SSLContext | None = None) -> None:
        self._most, self._keepalive_s = max(1, most), keepalive_s
        self._verify = httpx.create_ssl_context() if verify is None else verify
        self._verify.set_alpn_protocols(["http/1.1"])
        self._turns, self._memory = Turns(), Memory()
        self._room = asyncio.Semaphore(self._most)
        #: The newest last, which is used first: the older ones get to be dropped.
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, its body still to be read; errors are httpx's.

        Where the body's length is known, the extension ``incoming`` of the answer reads it whole.
        """
        origin = origin_of(request.url)
        limit = request.extensions.get("timeout", {}).get("pool")
        if self._room.locked():
            try:
                async with asyncio.timeout(limit):
                    await self._room.acquire()
            except TimeoutError as error:
                raise httpx.PoolTimeout("") from error
        else:
            await self._room.acquire()  # does not wait
        connection = self._choose(origin)
        self._busy.add(connection)
        try:
            incoming = await connection.send(request)
        except BaseException:
            self._leave(connection)
            raise
        answer = incoming.answer
        extensions: dict[str, Any] = {
            "http_version": b"HTTP/" + answer.http_version,
            "reason_phrase": bytes(answer.reason),
        }
        if incoming.length is not None:
            extensions["incoming"] = incoming
        return httpx.Response(
            answer.status_code,
            headers=answer.headers.raw_items(),
            stream=_Body(incoming, connection, self._leave),
            extensions=extensions,
        )

    def _choose(self, origin: Origin) -> Connection:
        """Return an idle connection that is still good, or a new one."""
        usable: list[Connection] = []
        for idle in self._idle:
            if idle.stale:
                idle.close()
            else:
                usable.append(idle)
        self._idle = usable
        for idle in reversed(usable.copy()):
            if idle.origin == origin:
                usable.remove(idle)
                if not idle.spoilt():
                    return idle
                idle.close()
        if len(usable) + len(self._busy) >= self._most and usable:
            # One for another server makes room.
            usable.pop(0).close()
        return Connection(origin, self._verify, self._keepalive_s, self._turns, self._memory)

    def _leave(self, connection: Connection) -> None:
        """Take a connection back after its request."""
        self._room.release()
        self._busy.discard(connection)
        if connection.idle:
            self._idle.append(connection)

    async def __aenter__(self) -> Self:
        """Return itself; nothing is opened before the first request."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Close all connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections, those of answers that nobody closed too."""
        left = [*self._idle, *self._busy]
        self._idle.clear()
        for connection in left:
            connection.close()


class _Body(httpx.AsyncByteStream):
    """The body of an answer; gives its connection back once, when it is closed."""

    def __init__(
        self, incoming: Incoming, connection: Connection, leave: Callable[[Connection], None]
    ) -> None:
        self._incoming, self._connection, self._leave = incoming, connection, leave
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._incoming:
            yield part

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._incoming.close()
        self._leave(self._connection)
