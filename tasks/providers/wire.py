"""One HTTP exchange: sent, timed on the wire, read up to a limit; nothing is judged here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import httpx

from tasks.providers.answers import Answer, clean
from tasks.records import FailureClass, utc_now

#: Most bytes of a picture; more is a fault of the provider, not a picture to judge.
MOST_BODY = 64 * 1024 * 1024
#: Most seconds for TCP to connect, and again for the TLS handshake.
MOST_CONNECT_S = 10.0
#: Most bytes of an error body that are read for its message.
MOST_ERROR_BODY = 64 * 1024
#: Pieces of a body from this size are kept as they are; a drip of smaller ones is put together,
#: or millions of them would take many times the memory of the body.
OWN_PART = 16 * 1024


@dataclass(slots=True)
class WireClock:
    """Times one exchange by the events of the connection, without the wait for a connection.

    httpx queues requests inside its pool, so a clock around the call would count that wait as
    the provider's slowness. The clock starts when the request's first byte is sent.
    """

    now: Callable[[], float] = time.monotonic
    called_at: float = field(init=False)
    connecting_at: float | None = None
    sent_at: float | None = None
    answered_at: float | None = None
    first_body_at: float | None = None
    last_body_at: float | None = None
    #: When the exchange was over; what is done with its answer afterwards takes no time of it.
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self.called_at = self.now()

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """Note an event of httpcore; the ``trace`` extension of a request."""
        if event.endswith(".send_request_headers.started"):
            self.sent_at = self.now()
        elif event.endswith(".receive_response_headers.complete"):
            self.answered_at = self.now()
        elif event == "connection.connect_tcp.started":
            self.connecting_at = self.now()

    def body(self) -> None:
        """Note that a part of the body came."""
        self.last_body_at = self.now()
        if self.first_body_at is None:
            self.first_body_at = self.last_body_at

    @property
    def started_at(self) -> float:
        """When the wire was first used; the call itself when the transport tells no events."""
        for moment in (self.sent_at, self.connecting_at):
            if moment is not None:
                return moment
        return self.called_at

    def ttfb(self) -> float | None:
        """Return the seconds to the first body byte; ``None`` when no body came."""
        if self.first_body_at is None:
            return None
        return max(0.0, self.first_body_at - self.started_at)

    def total(self) -> float:
        """Return the seconds on the wire, until now while it goes on."""
        until = self.now() if self.ended_at is None else self.ended_at
        return max(0.0, until - self.started_at)


class Trip:
    """The times of one attempt over all of its exchanges."""

    def __init__(
        self, now: Callable[[], float], began: float | None = None, started_at: str = ""
    ) -> None:
        self.now, self.began = now, began
        self.started_at = started_at or utc_now()
        self.called_at = now() if began is None else began
        self.first_body_at: float | None = None
        self.ended_at: float | None = None

    def note(self, clock: WireClock) -> None:
        """Add an exchange that ended."""
        if self.began is None:
            self.began = clock.started_at
        self.first_body_at = clock.first_body_at
        self.ended_at = self.now() if clock.ended_at is None else clock.ended_at

    def seconds(self) -> float:
        """Return the seconds on the wire until now."""
        return self._since(self.now())

    def wire_seconds(self) -> float:
        """Return the seconds until the last exchange ended, without what reading it took us."""
        return self._since(self.now() if self.ended_at is None else self.ended_at)

    def _since(self, until: float) -> float:
        return max(0.0, until - (self.called_at if self.began is None else self.began))

    def ttfb(self) -> float | None:
        """Return the seconds to the first body byte of the last exchange."""
        if self.first_body_at is None or self.began is None:
            return None
        return max(0.0, self.first_body_at - self.began)

    def left(self, limit: float) -> float:
        """Return the seconds that are left of a limit for the whole."""
        return limit - (self.now() - self.called_at)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The exchange ended before the provider answered."""

    message: str
    #: Whether the provider may have received the request, and so may bill it.
    sent: bool
    #: The request itself could not be sent as it is; sending it again changes nothing.
    ours: bool = False


def phases(timeout_s: float) -> httpx.Timeout:
    """Return the time limits of an exchange's phases, inside the limit for the whole of it.

    TCP and TLS together must end before the whole does: httpcore closes the socket when its own
    limit passes in a TLS handshake, and leaves it open when it is cancelled there.
    """
    return httpx.Timeout(timeout_s, connect=min(MOST_CONNECT_S, 0.45 * timeout_s))


async def exchange(
    client: httpx.AsyncClient,
    request: httpx.Request,
    clock: WireClock,
    timeout_s: float,
    most_body: int = MOST_BODY,
) -> Answer | NoAnswer:
    """Send a request and return what came back; never raises for what the network does.

    Args:
        client: Redirects are not followed, whatever the client's setting.
        request: The request, with the ``trace`` extension of ``clock``.
        clock: Takes the times.
        timeout_s: Seconds for the whole exchange; a slow drip of bytes does not extend it.
        most_body: Most bytes of a picture.
    """
    # Our own transport begins to read a large body before it is asked for.
    request.extensions["arriving"] = clock.body
    try:
        async with asyncio.timeout(timeout_s):
            response = await client.send(request, stream=True, follow_redirects=False)
    except (httpx.InvalidURL, httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
        return NoAnswer(f"the request cannot be sent: {_text(error)}", sent=False, ours=True)
    except UnicodeError as error:
        # A host name that looked like an address only until it was to be encoded.
        return NoAnswer(f"the request cannot be sent: {_text(error)}", sent=False, ours=True)
    except TimeoutError:
        return NoAnswer(f"no answer within {timeout_s:g} s", sent=_maybe_sent(clock))
    except httpx.TimeoutException as error:
        sent = _maybe_sent(clock) and not isinstance(
            error, httpx.ConnectTimeout | httpx.PoolTimeout
        )
        kind = type(error).__name__
        return NoAnswer(f"{kind} after {clock.total():.3g} s", sent=sent)
    except (httpx.HTTPError, OSError) as error:
        sent = _maybe_sent(clock) and not isinstance(error, httpx.ConnectError | httpx.ProxyError)
        what = "connection lost before the answer" if sent else "cannot connect"
        return NoAnswer(f"{what}: {_text(error)}", sent=sent)
    # What is left of the time: the limit is for the whole exchange.
    left = max(0.001, timeout_s - (clock.now() - clock.called_at))
    most = most_body if response.is_success else MOST_ERROR_BODY
    body: _Arriving = response.extensions.get("incoming") or _Pieces(response.aiter_raw())
    try:
        broken = await _read(body, clock, left, most, cut_is_fault=response.is_success)
        # From here on, time is not the provider's.
        await body.turn()
        data = body.data()[:most]
    finally:
        # The connection is closed before the generator that still reads from it is dropped: the
        # other way round, its finaliser and this close race, and the socket can be left open.
        await _close(response)
        if isinstance(body, _Pieces):
            await body.aclose()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, data, broken, seconds=clock.total())


def _maybe_sent(clock: WireClock) -> bool:
    """Return whether bytes of the request may have left; a transport without events says yes."""
    return clock.sent_at is not None or clock.connecting_at is None


class _Arriving(Protocol):
    """A body on its way in."""

    @property
    def size(self) -> int:
        """Bytes that arrived."""
        ...

    async def arrive(self, most: int, came: Callable[[], None]) -> None:
        """Wait until it is whole or has more than ``most`` bytes."""
        ...

    def data(self) -> bytes:
        """Return what arrived."""
        ...

    async def turn(self) -> None:
        """Wait for a turn to work on it."""
        ...


class _Pieces:
    """A body that a transport yields in pieces."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self.size = 0
        self._pieces = pieces
        self._parts: list[bytes | bytearray] = []

    async def arrive(self, most: int, came: Callable[[], None]) -> None:
        async for piece in self._pieces:
            came()
            self.size += len(piece)
            if len(piece) >= OWN_PART:
                self._parts.append(piece)
            elif self._parts and isinstance(self._parts[-1], bytearray):
                self._parts[-1] += piece
            else:
                self._parts.append(bytearray(piece))
            if self.size > most:
                return

    def data(self) -> bytes:
        return b"".join(self._parts)

    async def turn(self) -> None:
        """Whose turn it is only our own transport knows."""

    async def aclose(self) -> None:
        await cast("AsyncGenerator[bytes, None]", self._pieces).aclose()


async def _read(
    body: _Arriving, clock: WireClock, timeout_s: float, most: int, cut_is_fault: bool
) -> tuple[FailureClass, str] | None:
    """Read a body as far as it comes; return why it is not whole when it is not."""
    try:
        async with asyncio.timeout(timeout_s):
            await body.arrive(most, clock.body)
    except (TimeoutError, httpx.TimeoutException):
        return FailureClass.TRANSPORT, f"timed out after {body.size:,} bytes of the body"
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        why = f"the body broke off after {body.size:,} bytes: {_text(error)}"
        return FailureClass.TRANSPORT, why
    # A body in pieces may end later than its last piece.
    in_pieces = isinstance(body, _Pieces) or clock.last_body_at is None
    clock.ended_at = clock.now() if in_pieces else clock.last_body_at
    if body.size > most and cut_is_fault:
        return (
            FailureClass.MALFORMED,
            f"the body has more than {most:,} bytes; reading stopped there",
        )
    return None


async def _close(response: httpx.Response) -> None:
    """Close a response; a connection that breaks while closing changes nothing any more."""
    try:
        await response.aclose()
    except (httpx.HTTPError, OSError):
        return


def _text(error: BaseException) -> str:
    """Return an exception in words; some of httpx's have no message."""
    return clean(str(error), 200) or type(error).__name__
