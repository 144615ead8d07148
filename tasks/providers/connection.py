"""One HTTP/1.1 connection: h11 speaks the protocol, this moves the bytes.

Every head, every chunked body and every body that ends with the connection goes through h11. A body
with a ``Content-Length`` that is wanted whole does not: h11 has checked the length by then, and
only so many bytes are left to be read (:meth:`Incoming.arrive`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

import h11
import httpx

from tasks.providers.bodies import Body, Memory
from tasks.providers.sockets import Stream, connect
from tasks.providers.turns import Turns

#: Scheme, host and port.
Origin = tuple[str, str, int]
PORTS = {"http": 80, "https": 443}
#: Most bytes of a head, and of the head of a chunk.
MOST_HEAD = 100 * 1024
#: Pieces of a request wait for the next one up to this size, to leave in one packet.
MOST_HELD = 16 * 1024
#: Work on an answer smaller than this needs no turn.
LARGE = 64 * 1024

Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]


def origin_of(url: httpx.URL) -> Origin:
    """Return what a connection is made to.

    Raises:
        httpx.UnsupportedProtocol: The scheme is neither http nor https.
    """
    if url.scheme not in PORTS:
        raise httpx.UnsupportedProtocol(f"no protocol for {url.scheme!r} (needed: http, https)")
    return url.scheme, url.raw_host.decode("ascii"), url.port or PORTS[url.scheme]


class Connection:
    """A connection to one origin for one request after the other; opened by the first.

    Args:
        origin: Scheme, host and port.
        verify: Checks certificates.
        keepalive_s: Seconds after which it is not used again when idle.
        turns: Whose turn it is to work on an answer.
        memory: How much is made ready for a body.
    """

    def __init__(
        self,
        origin: Origin,
        verify: ssl.SSLContext,
        keepalive_s: float,
        turns: Turns,
        memory: Memory,
    ) -> None:
        self.origin = origin
        #: Whether another request can be sent.
        self.idle = False
        self._verify, self._keepalive_s, self._turns = verify, keepalive_s, turns
        self.memory = memory
        #: Where the next body begins.
        self.start: bytearray | None = None
        self._stream: Stream | None = None
        self._until = 0.0

    @property
    def stale(self) -> bool:
        """Whether an idle connection is of no use any more, as far as is known without a look."""
        return self._stream is None or not self._stream.quiet or time.monotonic() > self._until

    def spoilt(self) -> bool:
        """Return whether an idle connection is of no use any more."""
        return self.stale or self._stream is None or self._stream.readable()

    async def send(self, request: httpx.Request) -> Incoming:
        """Send a request and return its answer, the body still to come.

        The connection is closed when anything fails. An answer that comes before the request was
        sent whole counts.

        Raises:
            httpx.TransportError: Sending failed, or no answer came.
        """
        self.idle = False
        limits = request.extensions.get("timeout", {})
        trace: Trace = request.extensions.get("trace", _untraced)
        try:
            with _as_httpx(h11.LocalProtocolError, httpx.LocalProtocolError):
                state = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD)
                head = state.send(
                    h11.Request(
                        method=request.method.encode("ascii"),
                        target=request.url.raw_path,
                        headers=request.headers.raw,
                    )
                )
            if self._stream is None:
                self._stream = await self._open(request, limits.get("connect"), trace)
            stream = self._stream
            with contextlib.suppress(httpx.WriteError):
                await trace("http11.send_request_headers.started", {})
                await _send(stream, state, head or b"", request, limits.get("write"))
            if not self.memory.suits(self.start):
                await asyncio.sleep(0)  # others are sent first
                self.start = self.memory.new()
            answer = await _head(stream, state, limits.get("read"))
            await trace("http11.receive_response_headers.complete", {})
            incoming = Incoming(self, stream, state, answer, request.method, limits.get("read"))
            await incoming.begin(request.extensions.get("arriving"))
        except BaseException:
            self.close()
            raise
        return incoming

    async def _open(self, request: httpx.Request, limit: float | None, trace: Trace) -> Stream:
        """Return the connection's stream."""
        scheme, host, port = self.origin
        await trace("connection.connect_tcp.started", {})
        stream = await connect(host, port, limit, self._turns.came)
        if scheme == "https":
            name = request.extensions.get("sni_hostname") or host
            stream = await stream.start_tls(self._verify, name, limit)
        return stream

    def done(self, state: h11.Connection) -> None:
        """Take note that an answer was read whole; close when no other request may follow."""
        # Only a connection that both sides keep is DONE; bytes beyond the end spoil it.
        if state.our_state is h11.DONE and self._stream is not None and self._stream.quiet:
            self._until = time.monotonic() + self._keepalive_s
            self.idle = True
        else:
            self.close()

    async def turn(self) -> None:
        """Wait for a turn to work on an answer."""
        await self._turns.turn()

    def close(self) -> None:
        """Close at once."""
        self.idle = False
        self.start = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class Incoming:
    """An answer whose body is still to come."""

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        state: h11.Connection,
        answer: h11.Response,
        method: str,
        limit: float | None,
    ) -> None:
        self.answer = answer
        #: Bytes of the body where :meth:`arrive` can be used, else ``None``.
        self.length = _length(answer, method)
        self._connection, self._stream, self._state = connection, stream, state
        self._start = connection.start or bytearray()
        self._limit = limit
        self._body: Body | None = None
        #: Whether its turn came since its last byte did.
        self._had_turn = False
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            httpx.TransportError: It is not whole.
        """
        while True:
            event = await _event(self._stream, self._state, self._limit)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    async def begin(self, came: Callable[[], None] | None) -> None:
        """Let a large body that will be wanted whole come in, before the head is worked on.

        Args:
            came: Called when bytes were read, as soon as they were; ``None`` when nobody has said
                that the body is wanted whole. It is the extension ``arriving`` of a request.
        """
        fits = self.length is not None and LARGE <= self.length <= len(self._start)
        if came is not None and fits:
            self._attach(came)
            await self._connection.turn()
            self._had_turn = True

    async def arrive(self, most: int, came: Callable[[], None]) -> None:
        """Wait until the body is whole or has more than ``most`` bytes; there is no limit of time.

        Only where :attr:`length` is known, and instead of iterating.

        Args:
            most: Bytes.
            came: Called when bytes were read, as soon as they were.

        Raises:
            httpx.TransportError: It is not whole.
        """
        body = self._attach(came) if self._body is None else self._body
        body.wanted = min(body.length, most + 1)
        if body.enough:
            return
        self._had_turn = False
        if not await self._stream.filled(body):
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body "
                f"(received {body.size} bytes, expected {body.length})"
            )

    def _attach(self, came: Callable[[], None]) -> Body:
        """Return the body, into which all goes that comes from now on."""
        self._body = body = Body(self.length or 0, came, self._start)
        if body.put(bytes(self._state.trailing_data[0])):
            self._connection.close()  # bytes beyond the end
        else:
            self._stream.attach(body)
        return body

    @property
    def size(self) -> int:
        """Bytes that arrived."""
        return 0 if self._body is None else self._body.size

    def data(self) -> bytes:
        """Return the bytes that arrived; to be called before :meth:`close`."""
        return b"" if self._body is None else self._body.data()

    async def turn(self) -> None:
        """Wait for a turn to work on what arrived."""
        if self.size >= LARGE and not self._had_turn:
            await self._connection.turn()

    def close(self) -> None:
        """Free the connection for another request, or close it when it is not fit for one."""
        if self._closed:
            return
        self._closed = True
        if self._body is not None and self._body.whole:
            self._connection.memory.saw(self._body.size)
            self._connection.done(self._state)
        elif self._state.their_state is h11.DONE and not self._state.trailing_data[0]:
            self._connection.done(self._state)
        else:
            self._connection.close()


async def _send(
    stream: Stream, state: h11.Connection, head: bytes, request: httpx.Request, limit: float | None
) -> None:
    """Send a request, small pieces together."""
    held = head
    with _as_httpx(h11.LocalProtocolError, httpx.LocalProtocolError):
        async for part in cast("AsyncIterable[bytes]", request.stream):
            piece = state.send(h11.Data(data=part)) or b""
            if len(held) + len(piece) > MOST_HELD:
                await stream.write(held, limit)
                held = b""
            held = held + piece if held else piece
        held += state.send(h11.EndOfMessage()) or b""
    await stream.write(held, limit)


async def _head(stream: Stream, state: h11.Connection, limit: float | None) -> h11.Response:
    """Return the head of an answer; hints before it are left out.

    Raises:
        httpx.TransportError: None came.
    """
    while True:
        event = await _event(stream, state, limit)
        if isinstance(event, h11.Response):
            return event
        if not isinstance(event, h11.InformationalResponse):
            raise httpx.RemoteProtocolError("the server left HTTP, which nobody asked for")


async def _event(stream: Stream, state: h11.Connection, limit: float | None) -> Any:
    """Return the next event of h11."""
    while True:
        with _as_httpx(h11.RemoteProtocolError, httpx.RemoteProtocolError):
            event = state.next_event()
        if event is not h11.NEED_DATA:
            return event
        data = await stream.read(limit)
        if not data and state.their_state is h11.SEND_RESPONSE:
            # h11 would complain about a state; this says what happened.
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        state.receive_data(data)


def _length(answer: h11.Response, method: str) -> int | None:
    """Return the length of a body that ends after so many bytes, by RFC 9112, section 6.3.

    h11 has refused lengths that are no numbers or contradict each other.
    """
    if method in ("HEAD", "CONNECT") or answer.status_code in (204, 304):
        return None
    found = None
    for name, value in answer.headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            found = int(value)
    return found


@contextlib.contextmanager
def _as_httpx(theirs: type[Exception], ours: type[httpx.TransportError]) -> Iterator[None]:
    """Raise h11's error as httpx's."""
    try:
        yield
    except theirs as error:
        raise ours(str(error)) from error


async def _untraced(_event: str, _info: Mapping[str, Any]) -> None:
    """Nobody wants to know."""
