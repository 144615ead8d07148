"""Is an image file whole? Structure of its container, and the sizes that it declares.

Pillow loads some damaged files in silence (a wrong checksum, a cut end, data after the end), so
the containers are read here as well. Everything is pure over bytes, reads each byte a bounded
number of times and allocates nothing that the file's own length does not bound, but for the pixels
of a PNG up to 32 MiB, which Pillow is given so that it need not inflate them again.
"""

from __future__ import annotations

import struct

from tasks.checks.container_base import MAX_SEGMENTS, Damaged, Shape, bounded, shown
from tasks.checks.container_gif import read_gif
from tasks.checks.container_jpeg import filled, read_jpeg
from tasks.checks.container_png import PNG_SIGNATURE, read_png
from tasks.checks.container_tiff import read_tiff

__all__ = ["filled", "inspect", "looks_like_text", "sniff", "webp_opaque_palette"]


def sniff(data: bytes) -> str | None:
    """Return the mime type that the first bytes show, or ``None`` when they show none."""
    head = data[:64]
    for magic, mime in (
        (PNG_SIGNATURE, "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"BM", "image/bmp"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"II+\x00", "image/tiff"),
        (b"MM\x00+", "image/tiff"),
        (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
        (b"\xff\x4f\xff\x51", "image/jp2"),
        (b"8BPS", "image/vnd.adobe.photoshop"),
        (b"DDS ", "image/vnd.ms-dds"),
        (b"qoif", "image/qoi"),
        (b"\x00\x00\x01\x00", "image/x-icon"),
    ):
        if head.startswith(magic):
            return mime
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        brands = head[8 : max(8, min(64, int.from_bytes(head[:4], "big")))]
        if b"avif" in brands or b"avis" in brands:
            return "image/avif"
        if any(b in brands for b in (b"heic", b"heix", b"mif1")):
            return "image/heic"
    return None


def looks_like_text(data: bytes) -> str | None:
    """Return what a body that is no image seems to be: HTML, JSON, empty; ``None`` if unclear."""
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")):
        return "an HTML or XML page"
    if head[:1] in b"{[":
        return "JSON"
    return None


def inspect(data: bytes, mime: str, max_pixels: int) -> Shape | None:
    """Return what the container declares; ``None`` for formats without a reader here.

    Args:
        data: The whole file.
        mime: What :func:`sniff` said.
        max_pixels: Canvas and frames above this are refused before they are inflated.

    Raises:
        Damaged: The structure is broken, cut short or declares an impossible picture.
    """
    reader = {
        "image/png": read_png,
        "image/jpeg": read_jpeg,
        "image/gif": read_gif,
        "image/webp": _webp,
        "image/avif": _isobmff,
        "image/tiff": read_tiff,
        "image/x-icon": _icon,
    }.get(mime)
    try:
        return reader(data, max_pixels) if reader else None
    except (IndexError, struct.error) as error:
        raise Damaged(f"the file ends inside a structure ({error})") from None


# --- WebP --------------------------------------------------------------------------------------


def _webp(data: bytes, max_pixels: int) -> Shape:
    """Walk the RIFF chunks (RFC 9649): lengths, canvas, frames."""
    declared = struct.unpack_from("<I", data, 4)[0] + 8
    if declared > len(data):
        raise Damaged(f"WebP: {len(data):,} of {declared:,} bytes: the file is cut short")
    if len(data) - declared > 1:
        raise Damaged(f"WebP: {len(data) - declared} bytes after the end of the container")
    at, size, frames, images = 12, None, 0, 0
    while at + 8 <= declared:
        name, length = struct.unpack_from("<4sI", data, at)
        body, end = at + 8, at + 8 + length
        if end > declared:
            raise Damaged(f"WebP: chunk {shown(name)} reaches beyond the end of the file")
        if name == b"VP8X":
            size = (1 + _u24(data, body + 4), 1 + _u24(data, body + 7))
        elif name == b"ANMF":
            frames += 1
            bounded(1 + _u24(data, body + 6), 1 + _u24(data, body + 9), max_pixels, "frame")
        elif name in (b"VP8 ", b"VP8L"):
            images += 1
            size = size or _webp_bitstream(data, name, body)
        at = end + (length & 1)
    if size is None or not (frames or images):
        raise Damaged("WebP: no picture in the container")
    bounded(*size, max_pixels, "canvas")
    return Shape(*size, frames=max(frames, 1))


def _webp_bitstream(data: bytes, name: bytes, at: int) -> tuple[int, int]:
    if name == b"VP8 ":
        if data[at + 3 : at + 6] != b"\x9d\x01\x2a":
            raise Damaged("WebP: the VP8 start code is missing")
        width, height = struct.unpack_from("<HH", data, at + 6)
        return width & 0x3FFF, height & 0x3FFF
    if data[at] != 0x2F:
        raise Damaged("WebP: the VP8L signature is missing")
    bits = struct.unpack_from("<I", data, at + 1)[0]
    return 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)


def _u24(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


def webp_opaque_palette(data: bytes) -> int | None:
    """Return where the alpha hint lies in a lossless WebP with a palette that claims no alpha.

    Such a stream can point beyond its palette: libwebp then draws transparent black in silence.
    With the hint switched on, those pixels show (see :func:`tasks.checks.decode.decode`).

    Returns:
        Offset of the byte that holds the hint (its bit 4), or ``None`` for any other file.
    """
    if data[12:16] != b"VP8L" or len(data) < 26:
        return None
    at = 20
    has_alpha = data[at + 4] & 0x10
    # After 28 bits of size, 1 of alpha and 3 of version: transform present?, type (3 = palette).
    has_transform, kind = data[at + 5] & 1, (data[at + 5] >> 1) & 3
    return at + 4 if not has_alpha and has_transform and kind == 3 else None


# --- AVIF --------------------------------------------------------------------------------------


def _isobmff(data: bytes, max_pixels: int) -> Shape | None:
    """Walk the top-level boxes (ISO 14496-12): they must fill the file and hold the picture."""
    at, names = 0, set()
    while at < len(data):
        if len(data) - at < 8:
            raise Damaged("AVIF: cut short inside a box")
        length, name = struct.unpack_from(">I4s", data, at)
        if length == 1:
            length = struct.unpack_from(">Q", data, at + 8)[0]
        elif length == 0:
            length = len(data) - at
        if length < 8 or at + length > len(data):
            raise Damaged(f"AVIF: box {shown(name)} reaches beyond the end of the file")
        names.add(name)
        if name == b"meta":
            _items(data, at + 12, at + length)
        at += length
    if not {b"ftyp", b"mdat"} <= names and b"idat" not in data[:65_536]:
        raise Damaged("AVIF: no picture data in the container")
    del max_pixels  # Pillow reads the size of an AVIF picture without decoding it.
    return None


def _items(data: bytes, at: int, end: int) -> None:
    """Check that what the item locations point to lies in the file (ISO 14496-12, 8.11.3).

    A last box of open length hides a cut, and decoders read no item that they do not show.
    """
    while at + 8 <= end:
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"iloc":
            _locations(data, at + 8)
        if length < 8:
            return  # Of a length that its own reader has to judge.
        at += length


def _locations(data: bytes, at: int) -> None:
    version, sizes, more = data[at], data[at + 4], data[at + 5]
    wide = 4 if version == 2 else 2
    count, at = _big(data, at + 6, wide)
    total = 0
    for _ in range(count):
        at += wide
        method = data[at + 1] & 15 if version else 0
        at += 2 if version else 0
        elsewhere, at = _big(data, at, 2)
        base, at = _big(data, at, more >> 4)
        extents, at = _big(data, at, 2)
        total += 1 + extents  # An extent may take no byte at all.
        if total > MAX_SEGMENTS:
            raise Damaged(f"AVIF: more than {MAX_SEGMENTS:,} items and extents")
        for _ in range(extents):
            at += more & 15 if version else 0
            offset, at = _big(data, at, sizes >> 4)
            length, at = _big(data, at, sizes & 15)
            if at > len(data):
                raise Damaged("AVIF: the item locations are cut short")
            if not method and not elsewhere and base + offset + length > len(data):
                raise Damaged("AVIF: an item reaches beyond the end of the file")


def _big(data: bytes, at: int, size: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + size], "big"), at + size


# --- ICO ---------------------------------------------------------------------------------------


def _icon(data: bytes, max_pixels: int) -> None:
    """Check that every picture of the directory lies in the file and is all there.

    An entry holds a PNG or a DIB: 40 bytes of header, the palette, the rows, each a multiple of
    four bytes, and the mask, which 32-bit icons do without (Microsoft, "Icons", 1995).
    """
    count = struct.unpack_from("<H", data, 4)[0]
    for entry in range(count):
        length, at = struct.unpack_from("<II", data, 6 + 16 * entry + 8)
        if at + length > len(data):
            raise Damaged("ICO: a picture reaches beyond the end of the file")
        if struct.unpack_from("<I", data, at)[0] != 40:
            continue  # A PNG, whose own reader says whether it is whole.
        width, height, _, bits, _, _, _, _, colours = struct.unpack_from("<iiHHIIiiI", data, at + 4)
        height = abs(height) // 2  # Picture and mask together.
        bounded(width, height, max_pixels)
        palette = 4 * (colours or 1 << bits) if bits <= 8 else 0
        needed = 40 + palette + height * ((width * bits + 31) // 32 * 4)
        if needed > length:
            raise Damaged(f"ICO: a picture of {needed:,} bytes in an entry of {length:,}")
