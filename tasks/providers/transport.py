"""A transport under httpx's API: HTTP as httpcore speaks it, on connections that cost less.

It takes a third less CPU for a picture of 1 MB than httpx's own (README, "Speed"). Most of that is
how the bytes are read (:mod:`tasks.providers.sockets`), the rest a pool that looks at every
connection for every connection. Requests, answers, the events for
:class:`~tasks.providers.wire.WireClock` and all errors stay httpcore's, so that what a failure
means, and whether it may be billed, stays what it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self, cast

import httpcore
import httpx

from tasks.providers.sockets import Backend

_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.ProtocolError: httpx.ProtocolError,
}
_SCHEMES = (b"http", b"https")


@contextlib.contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpcore's errors as httpx's of the same name."""
    try:
        yield
    except tuple(_ERRORS) as error:
        kind = next(_ERRORS[k] for k in type(error).__mro__ if k in _ERRORS)
        raise kind(str(error)) from error


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
        self._backend = Backend()
        self._room = asyncio.Semaphore(self._most)
        #: The newest last, which is used first: the older ones get to be dropped.
        self._idle: list[httpcore.AsyncHTTPConnection] = []
        self._busy: set[httpcore.AsyncHTTPConnection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, its body still to be read; errors are httpx's."""
        with _as_httpx():
            answer = await self._send(_core(request))
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=cast("_Body", answer.stream),
            extensions=answer.extensions,
        )

    async def _send(self, request: httpcore.Request) -> httpcore.Response:
        """Send on a connection of its own until the body is closed."""
        if request.url.scheme not in _SCHEMES:
            scheme = request.url.scheme.decode()
            raise httpcore.UnsupportedProtocol(f"no protocol for {scheme!r} (needed: http, https)")
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("pool")):
                await self._room.acquire()
        except TimeoutError as error:
            raise httpcore.PoolTimeout from error
        connection, spoilt = self._choose(request.url.origin)
        self._busy.add(connection)
        try:
            for old in spoilt:
                await old.aclose()
            answer = await connection.handle_async_request(request)
        except BaseException:
            try:
                await connection.aclose()
            finally:
                self._leave(connection)
            raise
        body = _Body(cast("AsyncIterable[bytes]", answer.stream), connection, self._leave)
        return httpcore.Response(
            answer.status, headers=answer.headers, content=body, extensions=answer.extensions
        )

    def _choose(
        self, origin: httpcore.Origin
    ) -> tuple[httpcore.AsyncHTTPConnection, list[httpcore.AsyncHTTPConnection]]:
        """Return an idle connection that is still good or a new one, and those to be closed."""
        usable: list[httpcore.AsyncHTTPConnection] = []
        spoilt: list[httpcore.AsyncHTTPConnection] = []
        for idle in self._idle:
            (spoilt if idle.has_expired() or idle.is_closed() else usable).append(idle)
        found = next((c for c in reversed(usable) if c.can_handle_request(origin)), None)
        if found is not None:
            usable.remove(found)
        elif len(usable) + len(self._busy) >= self._most and usable:
            # One for another server makes room.
            spoilt.append(usable.pop(0))
        self._idle = usable
        new = found or httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._verify,
            keepalive_expiry=self._keepalive_s,
            network_backend=self._backend,
        )
        return new, spoilt

    def _leave(self, connection: httpcore.AsyncHTTPConnection) -> None:
        """Take a connection back after its request."""
        self._room.release()
        self._busy.discard(connection)
        # httpcore calls one idle, too, that could not be opened.
        if connection.is_idle() and not connection.is_closed():
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
            await connection.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer; gives its connection back once, when it is closed."""

    def __init__(
        self,
        stream: AsyncIterable[bytes],
        connection: httpcore.AsyncHTTPConnection,
        leave: Callable[[httpcore.AsyncHTTPConnection], None],
    ) -> None:
        self._stream, self._connection, self._leave = stream, connection, leave
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for part in self._stream:
                yield part

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with _as_httpx():
                await self._stream.aclose()  # type: ignore[attr-defined]  # httpcore's has it
        finally:
            self._leave(self._connection)


def _core(request: httpx.Request) -> httpcore.Request:
    """Return a request as httpcore takes it."""
    url = request.url
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )
    return httpcore.Request(
        method=request.method,
        url=target,
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )
