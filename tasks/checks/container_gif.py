"""Is a GIF file whole? Its blocks to the trailer, and whether the data of a frame fill just it."""

from __future__ import annotations

import struct

from tasks.checks.container_base import Damaged, Shape, bounded

#: Compressed bytes of one file that are followed code by code: about 0.2 s of CPU.
_MAX_CODED = 512 * 1024
#: Codes have at most 12 bits.
_MAX_CODES = 4096


def read_gif(data: bytes, max_pixels: int) -> Shape:
    """Walk the blocks (GIF89a) to the trailer, and the codes of the frames (appendix F)."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    bounded(width, height, max_pixels, "canvas")
    at = 13 + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
    frames, followed = 0, 0
    while True:
        if at >= len(data):
            raise Damaged("GIF: no trailer: the file is cut short")
        kind = data[at]
        if kind == 0x3B:
            break
        if kind == 0x21:
            at = _blocks(data, at + 2)
        elif kind == 0x2C:
            x, y, w, h, local = struct.unpack_from("<HHHHB", data, at + 1)
            bounded(x + w, y + h, max_pixels, "frame")
            at += 10 + (3 * (2 << (local & 7)) if local & 0x80 else 0)
            start, at = at, _blocks(data, at + 1)
            followed += at - start
            if followed <= _MAX_CODED:
                _frame(data[start], _joined(data, start + 1), w * h)
            frames += 1
        elif kind == 0:
            at += 1  # Stray terminators between blocks are common and harmless.
        else:
            raise Damaged(f"GIF: unknown block {kind:#04x}")
    if not frames:
        raise Damaged("GIF: no picture")
    return Shape(width, height, frames)


def _blocks(data: bytes, at: int) -> int:
    while True:
        size = data[at]
        at += 1 + size
        if at > len(data):
            raise Damaged("GIF: a data block is cut short")
        if size == 0:
            return at


def _joined(data: bytes, at: int) -> bytes:
    """Return the contents of the data blocks at an offset as one; they were walked before."""
    parts = []
    while size := data[at]:
        parts.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    return b"".join(parts)


def _frame(root: int, coded: bytes, pixels: int) -> None:
    """Follow the LZW codes without drawing: a frame gets its pixels, and then the data end.

    Decoders stop at the last pixel and never see what is wrong behind it. Too few pixels are left
    to Pillow; an end code may lack, as it does in files of old encoders.
    """
    if not 1 <= root <= 11:
        raise Damaged(f"GIF: codes of {root} bits do not exist")
    clear = 1 << root
    end = clear + 1
    lengths = [1] * clear + [0, 0]  # Pixels that a code draws.
    size, last, drawn = root + 1, 0, 0
    bits, held = 0, 0
    final = len(coded) - 1
    for number, byte in enumerate(coded):
        bits |= byte << held
        held += 8
        while held >= size:
            code = bits & ((1 << size) - 1)
            bits >>= size
            held -= size
            if code == clear:
                del lengths[end + 1 :]
                size, last = root + 1, 0
                continue
            if code == end:
                return
            known = len(lengths)
            if code > known or (code == known and not last) or (code >= known == _MAX_CODES):
                raise Damaged("GIF: a code of the pixel data has no meaning")
            if last and known < _MAX_CODES:
                lengths.append(last + 1)
            last = lengths[code]
            drawn += last
            if drawn > pixels:
                if number == final and code == bits == 0:
                    return  # Zeros that fill up the last byte, where no end code is written.
                raise Damaged(f"GIF: pixel data for more than the {pixels:,} pixels of a frame")
            if len(lengths) == 1 << size and size < 12:
                size += 1
