"""Is a TIFF file whole? Its directories lie in the file and are in order, classic and BigTIFF."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tasks.checks.container_base import Damaged

#: Directories that are followed; Pillow counts the pages itself and refuses too many.
_MAX_DIRECTORIES = 10_000
#: Entries of one directory that are looked at; honest files have tens.
_MAX_ENTRIES = 4_096
#: Bytes of a value by field type (TIFF 6.0 and BigTIFF).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
#: Fields that say how the pixels are stored, from the width to the format of the samples.
_STORAGE = frozenset({256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320})
_STORAGE |= {322, 323, 324, 325, 338, 339}


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a directory is written: byte order, and classic or BigTIFF."""

    count: struct.Struct
    offset: struct.Struct
    field: struct.Struct
    first: int


def _layout(data: bytes) -> _Layout:
    order = "<" if data[:2] == b"II" else ">"
    if b"+" in data[2:4]:  # BigTIFF: 8-byte offsets after their own size and a zero.
        count, offset, first = "Q", "Q", 8
    else:
        count, offset, first = "H", "I", 4
    return _Layout(
        struct.Struct(order + count),
        struct.Struct(order + offset),
        struct.Struct(f"{order}HH{offset}{offset}"),
        first,
    )


def read_tiff(data: bytes, max_pixels: int) -> None:
    """Follow the chain of directories (TIFF 6.0, section 2).

    Each lies in the file, as do the values of its fields. The fields that say how the pixels are
    stored ascend by tag: readers may rely on it, so one sees what is out of place, another does
    not. What writers add aside may stand anywhere.
    """
    del max_pixels  # Pillow reads the size of a TIFF picture without decoding it.
    layout = _layout(data)
    at = layout.offset.unpack_from(data, layout.first)[0]
    seen: set[int] = set()
    # Some writers end the chain with a link back; every page is there all the same.
    while at and at not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(at)
        at = _directory(data, at, layout, len(seen))


def _directory(data: bytes, at: int, layout: _Layout, number: int) -> int:
    """Check one directory and return the offset of the next, 0 after the last."""
    start = at + layout.count.size
    if start > len(data):
        raise Damaged(f"TIFF: directory {number} lies outside the file")
    count = layout.count.unpack_from(data, at)[0]
    end = start + count * layout.field.size
    if count < 1 or end > len(data):
        raise Damaged(f"TIFF: directory {number} of {count:,} entries is cut short")
    last = 0
    for entry in range(min(count, _MAX_ENTRIES)):
        tag, kind, values, at = layout.field.unpack_from(data, start + entry * layout.field.size)
        size = _SIZES.get(kind, 0) * values
        if size > layout.offset.size and not 8 <= at <= len(data) - size:
            raise Damaged(f"TIFF: the values of field {tag} lie outside the file")
        if tag in _STORAGE:
            if tag < last:
                raise Damaged(f"TIFF: directory {number} is out of order: {tag} after {last}")
            last = tag
    # The link may lack at the very end of a file that is whole otherwise.
    return layout.offset.unpack_from(data, end)[0] if end + layout.offset.size <= len(data) else 0
