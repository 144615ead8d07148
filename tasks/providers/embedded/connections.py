"""Real connection failures: what a client meets when a worker is killed or never answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

Address = tuple[str, int]

#: Longest time that a stalled request is held open, in seconds.
LONGEST_STALL = 30.0


class Connections:
    """Knows the open transports by the client's address, so that an answer can tear one down."""

    def __init__(self) -> None:
        self._open: dict[Address, asyncio.BaseTransport] = {}

    def protocol(self) -> type[H11Protocol]:
        """Return a uvicorn protocol class that enters its connections here."""
        opened = self._open

        class Protocol(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn narrows the argument itself
                super().connection_made(transport)
                if self.client is not None:
                    opened[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client is not None:
                    opened.pop(self.client, None)
                super().connection_lost(exc)

        return Protocol

    def reset(self, client: Address | None) -> bool:
        """Tear the client's connection down so that it sees a reset; false when not known."""
        transport = self._open.pop(client, None) if client is not None else None
        if not isinstance(transport, asyncio.Transport):
            return False
        sock: Any = transport.get_extra_info("socket")
        # No lingering: the kernel answers with RST instead of an orderly end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        return True


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Stall:
    """An answer that never comes: ends when the client goes away or after the longest stall."""

    def __init__(self, longest: float = LONGEST_STALL) -> None:
        self._longest = longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait; then end with 504 in case the client still listens."""
        try:
            async with asyncio.timeout(self._longest):
                await _gone(receive)
        except TimeoutError:
            await send({"type": "http.response.start", "status": 504, "headers": []})
            await send({"type": "http.response.body", "body": b""})


class Reset:
    """An answer that tears the connection down, as a killed worker does."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reset the connection and wait until the server has noticed.

        Raises:
            ConnectionResetError: There is no such connection (the app runs without a socket).
        """
        client = scope.get("client")
        if not self._connections.reset(tuple(client) if client else None):
            raise ConnectionResetError("the worker was killed")
        await _gone(receive)
