"""Connections for :mod:`tasks.providers.transport`: bytes as the event loop brings them.

httpcore's own go through anyio: pieces of 64 KiB, each with a timer, a cancel scope and a turn of
the loop. A picture of 1 MB comes in four pieces here. What is HTTP stays with httpcore and h11.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

#: The socket is not read while so many bytes wait to be taken.
MOST_WAITING = 1024 * 1024
#: Pieces of a request wait for the next one up to this size, to leave in one packet.
MOST_HELD = 16 * 1024
#: Bytes that are handed to TLS at once.
TLS_PIECE = 64 * 1024
#: Seconds until the next address of a host is tried as well (RFC 8305, section 8).
NEXT_ADDRESS_S = 0.25


class _Inbox(asyncio.Protocol):
    """Keeps what came until it is taken."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ended = False
        self.lost = False
        self.error: Exception | None = None
        self.tls = False
        self._bytes = 0
        self._paused = False
        self._transport: Any = None
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)
        self._bytes += len(data)
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
            if self.error is not None:
                raise OSError(str(self.error) or type(self.error).__name__)
            if self.ended:
                return b""
            self._came.clear()
            await self._came.wait()
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self._bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def sent(self) -> None:
        """Wait until the system took all that was written.

        Raises:
            OSError: The connection was lost before.
        """
        await self._room.wait()
        if self.lost:
            raise OSError(str(self.error or "the connection was closed"))


class Stream(httpcore.AsyncNetworkStream):
    """One connection, plain or TLS."""

    def __init__(self, transport: asyncio.Transport, inbox: _Inbox) -> None:
        self._transport, self._inbox = transport, inbox
        # As httpcore's: a write ends when the system took it, so that a peer that reads nothing
        # ends in a WriteTimeout. asyncio's TLS never resumes at a limit of 0, and holds a writer
        # back only between pieces.
        transport.set_write_buffer_limits(high=TLS_PIECE if inbox.tls else 0)
        self._held: list[bytes] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        """Return what came, however much it is; ``max_bytes`` is a habit, h11 has no limit."""
        self._flush()
        if self._inbox.parts:
            return await self._inbox.take()
        try:
            async with asyncio.timeout(timeout):
                return await self._inbox.take()
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send; a small piece leaves with the next one, or when the loop next turns."""
        if not buffer:
            return
        if self._inbox.lost or self._transport.is_closing():
            raise httpcore.WriteError("the connection was closed")
        if not self._held:
            asyncio.get_running_loop().call_soon(self._flush)
        self._held.append(buffer)
        if sum(map(len, self._held)) <= MOST_HELD:
            return
        data = b"".join(self._held)
        self._held.clear()
        piece = TLS_PIECE if self._inbox.tls else len(data)
        try:
            async with asyncio.timeout(timeout):
                for start in range(0, len(data), piece):
                    self._transport.write(data[start : start + piece])
                    await self._inbox.sent()
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def _flush(self) -> None:
        """Send what is held; a connection that is lost says so to the next read."""
        if self._held and not self._inbox.lost and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()

    async def aclose(self) -> None:
        """Close at once; what was not sent is dropped."""
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Return the connection with TLS; it is closed when that fails in any way."""
        loop = asyncio.get_running_loop()
        self._inbox.tls = True
        try:
            async with asyncio.timeout(timeout):
                transport = await loop.start_tls(
                    self._transport, self._inbox, ssl_context, server_hostname=server_hostname
                )
            if transport is None:
                raise OSError("the connection was closed in the TLS handshake")
        except BaseException as error:
            self._transport.abort()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout from error
            if isinstance(error, OSError):
                raise httpcore.ConnectError(str(error) or type(error).__name__) from error
            raise
        self._inbox.moved(transport)
        return Stream(transport, self._inbox)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for; ``is_readable`` of an idle connection: it is of no use."""
        if info == "is_readable":
            return self._spoilt()
        if info in ("client_addr", "server_addr"):
            return self._transport.get_extra_info(
                {"client_addr": "sockname", "server_addr": "peername"}[info]
            )
        return self._transport.get_extra_info(info)

    def _spoilt(self) -> bool:
        """Return whether bytes or an end came, here or in the system's buffer.

        A loop that is behind has not read yet that the server closed.
        """
        if self._inbox.parts or self._inbox.ended or self._transport.is_closing():
            return True
        socket = self._transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))


class Backend(httpcore.AsyncNetworkBackend):
    """Opens connections on the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a plain connection."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport, inbox = await loop.create_connection(
                    _Inbox,
                    host,
                    port,
                    local_addr=None if local_address is None else (local_address, 0),
                    happy_eyeballs_delay=NEXT_ADDRESS_S,
                )
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError(str(error) or type(error).__name__) from error
        for option in socket_options or ():
            transport.get_extra_info("socket").setsockopt(*option)
        return Stream(transport, inbox)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
