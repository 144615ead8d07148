"""What every reader of a container says, and when it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Chunks or segments of one file; each costs time, and no honest file comes near.
MAX_SEGMENTS = 100_000


class Damaged(Exception):  # noqa: N818 - says what the file is
    """The file is not whole; the message says where."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a container declares about its pictures, before any pixel is decoded."""

    width: int
    height: int
    frames: int = 1
    #: The same picture in a file that is cheaper to decode, as its pixels were inflated to see
    #: whether they are whole; empty where there is none.
    inflated: bytes = field(default=b"", repr=False)


def bounded(width: int, height: int, max_pixels: int, what: str = "picture") -> None:
    """Refuse a size that no picture has or that is too large to decode.

    Raises:
        Damaged: Always then, with the size and what it is of.
    """
    if width < 1 or height < 1:
        raise Damaged(f"the {what} declares {width}×{height} pixels")
    if width * height > max_pixels:
        raise Damaged(
            f"the {what} declares {width}×{height} pixels, more than the {max_pixels:,} allowed"
        )


def shown(name: bytes) -> str:
    """Return a chunk's name for a message; anything but printable letters stays escaped."""
    return repr(name.decode("latin-1"))
