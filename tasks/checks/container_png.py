"""Is a PNG file whole? Its chunks, their order and checksums, and the pixel stream to its end."""

from __future__ import annotations

import struct
import zlib

from tasks.checks.container_base import MAX_SEGMENTS, Damaged, Shape, bounded, shown

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes of inflated pixels up to which they are kept for the decoder, and those that a block of a
#: deflate stream stores at most.
MAX_STORED, _STORED_BLOCK = 32 * 2**20, 65_535
#: Samples a pixel by PNG colour type.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
#: Chunks that may stand once at most, and those that must come before the pixels. A second colour
#: space is no damage to the pixels, and decoders take one of the two.
_PNG_SINGLE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IEND"})
_PNG_EARLY = frozenset({b"PLTE", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"tRNS"})
#: What may follow the last chunk: the line break of a tool for text, a byte for an even length.
_PNG_PADDING = (b"", b"\n", b"\r\n", b"\0")

#: Bytes that may follow the pixel stream in its last chunk.
_PNG_SPARE = 8


def read_png(data: bytes, max_pixels: int) -> Shape:
    """Walk the chunks (W3C PNG, third edition): order, CRC, one IHDR, IDAT run, IEND, zlib."""
    at, last, pixels = 8, b"the signature", slice(0, 0)
    seen: dict[bytes, int] = {}
    idat: list[memoryview] = []
    header, declared, first_is_still = b"", None, True
    while last != b"IEND":
        begins = at
        body, name, at = _png_chunk(data, at, last)
        _png_order(name, last, seen)
        seen[name] = seen.get(name, 0) + 1
        if sum(seen.values()) > MAX_SEGMENTS:
            raise Damaged(f"PNG: more than {MAX_SEGMENTS:,} chunks")
        if name == b"IHDR":
            header = bytes(body)
            _png_header(header, max_pixels)
        elif name == b"PLTE":
            _png_palette(header, len(body))
        elif name == b"IDAT":
            if header[9] == 3 and b"PLTE" not in seen:
                raise Damaged("PNG: pixels that point into a palette, and no palette (PLTE)")
            pixels = slice(pixels.start or begins, at)
            idat.append(body)
            first_is_still = b"fcTL" not in seen
        elif name == b"acTL" and declared is None:
            declared = int.from_bytes(body[:4], "big")
        elif name == b"fcTL":
            width, height = struct.unpack_from(">4xII", body)
            bounded(width, height, max_pixels, "frame")
        last = name
    if data[at:] not in _PNG_PADDING:
        raise Damaged(f"PNG: {len(data) - at} bytes after the end chunk")
    if not idat:
        raise Damaged("PNG: no pixel data (IDAT)")
    rows, checksum = _png_stream(header, idat)
    drawn = seen.get(b"fdAT", 0) + (0 if first_is_still else 1)
    width, height = struct.unpack_from(">II", header)
    frames = _png_frames(declared, seen.get(b"fcTL", 0), drawn)
    still = declared is None and b"fcTL" not in seen
    same = _png_stored(data, pixels, rows, checksum) if rows and still else b""
    return Shape(width, height, frames, same)


def _png_chunk(data: bytes, at: int, last: bytes) -> tuple[memoryview, bytes, int]:
    """Return body and name of the chunk at an offset, and where the next one begins."""
    if len(data) - at < 12:
        raise Damaged(f"PNG: cut short after {last.decode('latin-1')}")
    length, name = struct.unpack_from(">I4s", data, at)
    end = at + 12 + length
    if length > 0x7FFF_FFFF or end > len(data):
        raise Damaged(f"PNG: chunk {shown(name)} reaches beyond the end of the file")
    view = memoryview(data)
    if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
        raise Damaged(f"PNG: wrong checksum (CRC) of chunk {shown(name)}")
    return view[at + 8 : end - 4], name, end


def _png_order(name: bytes, last: bytes, seen: dict[bytes, int]) -> None:
    if not seen and name != b"IHDR":
        raise Damaged(f"PNG: begins with chunk {shown(name)} instead of IHDR")
    if name in _PNG_SINGLE and name in seen:
        raise Damaged(f"PNG: second chunk {shown(name)}")
    if name in _PNG_EARLY and b"IDAT" in seen:
        raise Damaged(f"PNG: chunk {shown(name)} after the pixels")
    if name == b"IDAT" and b"IDAT" in seen and last != b"IDAT":
        raise Damaged("PNG: the pixel chunks (IDAT) do not follow one another")
    if not name[0] & 0x20 and name not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
        raise Damaged(f"PNG: unknown critical chunk {shown(name)}")


def _png_header(header: bytes, max_pixels: int) -> None:
    if len(header) != 13:
        raise Damaged(f"PNG: header of {len(header)} bytes instead of 13")
    width, height, depth, colour, method, filters, interlace = struct.unpack(">IIBBBBB", header)
    bounded(width, height, max_pixels)
    if depth not in _PNG_DEPTHS.get(colour, ()):
        raise Damaged(f"PNG: colour type {colour} with {depth} bits does not exist")
    if method or filters or interlace > 1:
        raise Damaged("PNG: unknown compression, filter or interlace method")


def _png_palette(header: bytes, length: int) -> None:
    """Check the length of a palette that the pixels need (11.2.2)."""
    if header[9] == 3 and (not 0 < length <= 768 or length % 3):
        raise Damaged(f"PNG: a palette of {length:,} bytes")


def _png_stream(header: bytes, idat: list[memoryview]) -> tuple[list[bytes], bytes]:
    """Inflate to the end: right length, right Adler checksum, nothing behind the stream.

    Returns:
        What came out and its checksum; nothing where it is too much to be kept.
    """
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    bits = depth * _PNG_CHANNELS[colour]
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    wanted = 0
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + (columns * bits + 7) // 8)
    inflater, got, checksum = zlib.decompressobj(), 0, b""
    kept: list[bytes] = []
    try:
        for part in idat:
            pending: bytes | memoryview = part
            if inflater.eof and bytes(part).strip(b"\0"):
                raise Damaged("PNG: more pixel data after the end of the pixel stream")
            while pending and not inflater.eof:
                out = inflater.decompress(pending, 1 << 20)
                pending, got = inflater.unconsumed_tail, got + len(out)
                # A stream far longer than the picture is a bomb; a few spare bytes are not.
                if got > wanted + 65_536:
                    raise Damaged("PNG: the pixel data inflates to more than the picture holds")
                if wanted <= MAX_STORED:
                    kept.append(out)
            if inflater.eof and not checksum:
                ends = len(part) - len(inflater.unused_data)
                checksum = bytes(part[max(0, ends - 4) : ends])
    except zlib.error as error:
        raise Damaged(f"PNG: damaged pixel data ({error})") from None
    if got < wanted:
        raise Damaged(f"PNG: pixel data ends after {got:,} of {wanted:,} bytes")
    if not inflater.eof:
        raise Damaged("PNG: the pixel stream has no end or no checksum")
    # The checksums of stream and chunk are right: what some encoders leave behind, as libpng reads.
    if len(inflater.unused_data.strip(b"\0")) > _PNG_SPARE:
        raise Damaged("PNG: more pixel data after the end of the pixel stream")
    # The checksum of a stream may begin in one chunk and end in another.
    return (kept, checksum) if len(checksum) == 4 else ([], b"")


def _png_stored(data: bytes, pixels: slice, rows: list[bytes], checksum: bytes) -> bytes:
    """Return the file with its pixel stream stored instead of compressed (RFC 1951, 3.2.4).

    Args:
        data: The file.
        pixels: Where its pixel chunks stand.
        rows: What they inflate to, in pieces.
        checksum: Adler checksum of that.
    """
    stream: list[bytes | memoryview] = [b"IDAT\x78\x01"]
    for piece in rows:
        for at in range(0, len(piece), _STORED_BLOCK):
            block = memoryview(piece)[at : at + _STORED_BLOCK]
            stream += [struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block]
    stream += [b"\x01\x00\x00\xff\xff", checksum]
    length, crc = -4, 0
    for each in stream:
        length, crc = length + len(each), zlib.crc32(each, crc)
    return b"".join(
        [
            memoryview(data)[: pixels.start],
            struct.pack(">I", length),
            *stream,
            struct.pack(">I", crc),
            memoryview(data)[pixels.stop :],
        ]
    )


def _png_frames(declared: int | None, controls: int, drawn: int) -> int:
    """Count the frames of an animation; out-of-range counts mean: shown as a still picture."""
    if declared is None or declared > 0x7FFF_FFFF:
        return 1
    if declared == 0:
        raise Damaged("PNG: an animation of 0 frames")
    if controls < declared or drawn < controls:
        raise Damaged(f"PNG: animation of {declared} frames holds {min(controls, drawn)}")
    return declared
