"""Connections for :mod:`tasks.providers.transport`: bytes as the event loop brings them.

What is HTTP is in :mod:`tasks.providers.connection`. A body whose length is known is read to where
it stays; all else comes in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

import httpx

from tasks.providers.bodies import START, Body

#: The socket is not read while so many bytes wait to be taken.
MOST_WAITING = 1024 * 1024
#: Bytes that are read at once where the length is not known.
PIECE = 64 * 1024
#: Bytes that are handed to TLS at once.
TLS_PIECE = 64 * 1024
#: Seconds until the next address of a host is tried as well (RFC 8305, section 8).
NEXT_ADDRESS_S = 0.25


class _Inbox(asyncio.BufferedProtocol):
    """Keeps what came until it is taken.

    Args:
        came: Called whenever bytes came.
    """

    def __init__(self, came: Callable[[], None]) -> None:
        self.parts: list[bytes] = []
        self.ended = False
        self.lost = False
        self.error: Exception | None = None
        self.tls = False
        self._told = came
        self._body: Body | None = None
        self._piece = memoryview(bytearray(PIECE))
        self._bytes = 0
        self._paused = False
        self._transport: Any = None
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._piece if self._body is None else self._body.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._told()
        if self._body is not None:
            self._body.filled(nbytes)
            if self._body.enough:
                self._came.set()
            if self._body.whole:
                self._body = None
            return
        self.parts.append(bytes(self._piece[:nbytes]))
        self._bytes += nbytes
        self._came.set()
        if self._bytes > MOST_WAITING and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self._came.set()
        # The other side may stop to write and go on to read; TLS knows no such half.
        return not self.tls

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = self.lost = True
        self.error = error
        self._came.set()
        self._room.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    # What the stream calls.

    def moved(self, transport: asyncio.Transport) -> None:
        """Note that TLS was put between."""
        self._transport, self.tls = transport, True

    async def take(self) -> bytes:
        """Return all that came, as soon as something did; nothing at the end.

        Raises:
            OSError: The connection broke, and what came before it was taken.
        """
        while not self.parts:
            if self._over():
                return b""
            self._came.clear()
            await self._came.wait()
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self._emptied()
        return data

    def attach(self, body: Body) -> None:
        """Let all that comes go into a body, until it is whole."""
        beyond = body.put(b"".join(self.parts))
        self._emptied()
        if beyond:
            self.parts.append(beyond)
        self._body = None if body.whole else body

    async def filled(self, body: Body) -> bool:
        """Wait until the attached body has enough; tell whether it has, or the connection ended.

        Raises:
            OSError: The connection broke before.
        """
        try:
            while not body.enough:
                if self._over():
                    return False
                self._came.clear()
                await self._came.wait()
        finally:
            # Who stopped waiting wants no more of it, and the connection is of no more use.
            if self._body is not None:
                self._body = None
                self._transport.pause_reading()
        return True

    def _over(self) -> bool:
        """Return whether nothing more will come.

        Raises:
            OSError: The connection broke.
        """
        if self.error is not None:
            raise OSError(str(self.error) or type(self.error).__name__)
        return self.ended

    def _emptied(self) -> None:
        self.parts.clear()
        self._bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    async def sent(self) -> None:
        """Wait until the system took all that was written.

        Raises:
            OSError: The connection was lost before.
        """
        await self._room.wait()
        if self.lost:
            raise OSError(str(self.error or "the connection was closed"))


class Stream:
    """One connection, plain or TLS."""

    def __init__(self, transport: asyncio.Transport, inbox: _Inbox) -> None:
        self._transport, self._inbox = transport, inbox
        # A write ends when the system took it, so that a peer that reads nothing ends in a
        # WriteTimeout. asyncio's TLS never resumes at a limit of 0, and holds a writer back only
        # between pieces.
        transport.set_write_buffer_limits(high=TLS_PIECE if inbox.tls else 0)

    async def read(self, timeout: float | None) -> bytes:  # noqa: ASYNC109 - of one wait, as httpx's
        """Return what came, however much it is; nothing at the end.

        Raises:
            httpx.ReadTimeout: Nothing came in time.
            httpx.ReadError: The connection broke.
        """
        if self._inbox.parts:
            return await self._inbox.take()
        try:
            async with asyncio.timeout(timeout):
                return await self._inbox.take()
        except TimeoutError as error:
            raise httpx.ReadTimeout("") from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def attach(self, body: Body) -> None:
        """Let all that comes go into a body, until it is whole."""
        self._inbox.attach(body)

    async def filled(self, body: Body) -> bool:
        """Wait until the attached body has enough; tell whether it has, or the connection ended.

        Raises:
            httpx.ReadError: The connection broke before.
        """
        try:
            return await self._inbox.filled(body)
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    async def write(self, data: bytes, timeout: float | None) -> None:  # noqa: ASYNC109
        """Send, and wait until the system took it.

        Raises:
            httpx.WriteTimeout: It did not take it in time.
            httpx.WriteError: The connection broke.
        """
        piece = TLS_PIECE if self._inbox.tls else max(1, len(data))
        for start in range(0, len(data), piece):
            if self._inbox.lost or self._transport.is_closing():
                raise httpx.WriteError("the connection was closed")
            self._transport.write(data[start : start + piece])
            if not self._transport.get_write_buffer_size():
                continue
            try:
                async with asyncio.timeout(timeout):
                    await self._inbox.sent()
            except TimeoutError as error:
                raise httpx.WriteTimeout("") from error
            except OSError as error:
                raise httpx.WriteError(str(error)) from error

    def close(self) -> None:
        """Close at once; what was not sent is dropped."""
        self._transport.abort()

    async def start_tls(self, context: ssl.SSLContext, name: str, timeout: float | None) -> Stream:  # noqa: ASYNC109
        """Return the connection with TLS; it is closed when that fails in any way.

        Raises:
            httpx.ConnectTimeout: The handshake took too long.
            httpx.ConnectError: The handshake failed.
        """
        loop = asyncio.get_running_loop()
        self._inbox.tls = True
        try:
            async with asyncio.timeout(timeout):
                transport = await loop.start_tls(
                    self._transport, self._inbox, context, server_hostname=name
                )
            if transport is None:
                raise OSError("the connection was closed in the TLS handshake")
        except BaseException as error:
            self._transport.abort()
            if isinstance(error, TimeoutError):
                raise httpx.ConnectTimeout("") from error
            if isinstance(error, OSError):
                raise httpx.ConnectError(str(error) or type(error).__name__) from error
            raise
        self._inbox.moved(transport)
        return Stream(transport, self._inbox)

    @property
    def quiet(self) -> bool:
        """Whether neither bytes nor an end came, as far as the loop has read."""
        return not (self._inbox.parts or self._inbox.ended or self._transport.is_closing())

    def readable(self) -> bool:
        """Return whether bytes or an end came, here or in the system's buffer.

        A loop that is behind has not read yet that the server closed.
        """
        if not self.quiet:
            return True
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))


async def connect(
    host: str,
    port: int,
    timeout: float | None,  # noqa: ASYNC109
    came: Callable[[], None],
) -> Stream:
    """Return a plain connection on the running event loop.

    Args:
        host: Name or address.
        port: Port.
        timeout: Seconds.
        came: Called whenever bytes came.

    Raises:
        httpx.ConnectTimeout: It took too long.
        httpx.ConnectError: There is no way to the host, or it refuses.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            transport, inbox = await loop.create_connection(
                lambda: _Inbox(came), host, port, happy_eyeballs_delay=NEXT_ADDRESS_S
            )
    except TimeoutError as error:
        raise httpx.ConnectTimeout("") from error
    except OSError as error:
        raise httpx.ConnectError(str(error) or type(error).__name__) from error
    _widen(transport.get_extra_info("socket"))
    return Stream(transport, inbox)


def _widen(sock: Any) -> None:
    """Let the other side send a whole picture at once on a new connection.

    Linux begins with a window of 64 KiB and makes it larger from round to round. To set the size of
    the buffer would end that; to ask to be woken late makes the buffer as large as that needs
    (tcp(7), SO_RCVLOWAT; ``tcp_set_rcvlowat``), which stays so when the wish is taken back.
    """
    if hasattr(socket, "SO_RCVLOWAT"):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, START)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
