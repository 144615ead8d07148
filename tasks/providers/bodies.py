"""Bodies of a known length on their way in, and the memory that they are read to."""

from __future__ import annotations

from collections.abc import Callable

#: Bytes of memory that are ready for the beginning of a body: a picture of 1 MB in base64. It
#: grows with the bodies that come, up to a limit.
START = 1536 * 1024
MOST_START = 4 * 1024 * 1024
#: Free memory that the C library keeps, at least, is twice this.
KEPT = 16 * 1024 * 1024


class Body:
    """A body of a known length on its way in.

    Args:
        length: Its bytes.
        came: Called whenever bytes came, before anything else is done.
        start: Memory for its beginning. Any length can be claimed: more is taken only as bytes
            come, as much again as there are.
    """

    def __init__(self, length: int, came: Callable[[], None], start: bytearray) -> None:
        self.length, self.size = length, 0
        #: Bytes that the reader wants; it is woken when so many came.
        self.wanted = length
        self._came = came
        self._blocks = [start]
        #: Bytes of the newest block that are in use.
        self._used = 0

    @property
    def whole(self) -> bool:
        """Whether every byte came."""
        return self.size == self.length

    @property
    def enough(self) -> bool:
        """Whether as many came as the reader wants."""
        return self.size >= self.wanted

    def room(self) -> memoryview:
        """Return where the next bytes go, not empty while the body is not whole."""
        left = self.length - self.size
        if self._used == len(self._blocks[-1]):
            # Blocks instead of one that grows: the loop may still hold a view of the last one.
            self._blocks.append(bytearray(min(left, max(START, self.size))))
            self._used = 0
        return memoryview(self._blocks[-1])[self._used : self._used + left]

    def filled(self, count: int) -> None:
        """Note that so many bytes were written to :meth:`room`."""
        self._came()
        self._used += count
        self.size += count

    def put(self, data: bytes) -> bytes:
        """Take bytes that came otherwise; return those that are beyond the end."""
        while data and not self.whole:
            room = self.room()
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.filled(count)
            data = data[count:]
        return data

    def data(self) -> bytes:
        """Return a copy of what came so far."""
        last = memoryview(self._blocks[-1])[: self._used]
        return bytes(last) if len(self._blocks) == 1 else b"".join([*self._blocks[:-1], last])


class Memory:
    """How much memory is made ready for the beginning of a body: what the largest one took.

    New memory costs more than to read bytes to it, so it is taken while a request waits for its
    answer, and kept for the next one.
    """

    def __init__(self) -> None:
        self._size = START
        # glibc gives free memory back to the system from twice the size of the largest block that
        # it once took from there and gave back (mallopt(3), M_MMAP_THRESHOLD). Text and bytes of a
        # picture come and go with every answer: without this, to get their memory again takes more
        # than to decode base64. Nothing is written to this block, so it costs nothing.
        bytes(KEPT)

    def saw(self, length: int) -> None:
        """Note the length of a body that came whole."""
        self._size = max(self._size, min(length, MOST_START))

    def suits(self, start: bytearray | None) -> bool:
        """Return whether the memory of the body before is enough."""
        return start is not None and len(start) >= self._size

    def new(self) -> bytearray:
        """Return memory for the beginning of a body."""
        return bytearray(self._size)
