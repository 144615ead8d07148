"""Is an image file whole? Structure of PNG, JPEG, GIF, WebP and AVIF, and their declared sizes.

Pillow loads some damaged files in silence (a wrong checksum, a cut end, data after the end), so
the containers are read here as well. Everything is pure over bytes, reads each byte a bounded
number of times and allocates nothing that the file's own length does not bound.
"""

from __future__ import annotations

import re
import struct

from tasks.checks.container_base import MAX_SEGMENTS, Damaged, Shape, bounded, shown
from tasks.checks.container_png import PNG_SIGNATURE, read_png

#: A JPEG marker inside entropy-coded data: not a stuffed zero, not a restart, not a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


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
        "image/jpeg": _jpeg,
        "image/gif": _gif,
        "image/webp": _webp,
        "image/avif": _isobmff,
    }.get(mime)
    try:
        return reader(data, max_pixels) if reader else None
    except (IndexError, struct.error) as error:
        raise Damaged(f"the file ends inside a structure ({error})") from None


# --- JPEG --------------------------------------------------------------------------------------


def _jpeg(data: bytes, max_pixels: int) -> Shape:
    """Walk the markers (ITU T.81 annex B) to the end-of-image marker."""
    at, shape, scans = 2, None, 0
    for _ in range(MAX_SEGMENTS):
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:
            at += 1
        if at < 0 or at >= len(data):
            raise Damaged("JPEG: no end-of-image marker: the file is cut short")
        marker = data[at]
        at += 1
        if marker == 0xD9:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            raise Damaged(f"JPEG: segment {marker:#04x} reaches beyond the end of the file")
        body = data[at + 2 : at + length]
        at += length
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", body, 1)
            # Height 0 is legal: a DNL segment gives it after the first scan.
            bounded(width, max(height, 1), max_pixels)
            shape = Shape(width, max(height, 1))
        elif marker == 0xE1 and body.startswith(b"Exif\x00\x00"):
            _exif(body[6:])
        elif marker == 0xDA:
            scans += 1
            found = _JPEG_MARKER.search(data, at)
            if found is None:
                raise Damaged("JPEG: the pixel data is cut short (no end-of-image marker)")
            at = found.start()
    else:
        raise Damaged(f"JPEG: more than {MAX_SEGMENTS:,} segments")
    if shape is None or not scans:
        raise Damaged("JPEG: no frame or no scan before the end of the image")
    return shape


def _exif(block: bytes) -> None:
    """Check the first directory: it lies in the block and its links are links (Exif 2.3, TIFF 6).

    A reader that trusts a broken directory turns the picture the wrong way or stops.
    """
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return  # An Exif marker without a TIFF header holds nothing to misread.
    start = struct.unpack_from(order + "I", block, 4)[0]
    if start + 2 > len(block):
        raise Damaged("JPEG: the Exif directory lies outside its segment")
    count = struct.unpack_from(order + "H", block, start)[0]
    if start + 2 + count * 12 > len(block):
        raise Damaged(f"JPEG: the Exif directory of {count} entries is cut short")
    for entry in range(count):
        tag, kind = struct.unpack_from(order + "HH", block, start + 2 + entry * 12)
        if tag == 0x8769 and kind not in (4, 13):
            raise Damaged(f"JPEG: Exif link {tag:#06x} has type {kind} instead of 4")


# --- GIF ---------------------------------------------------------------------------------------


def _gif(data: bytes, max_pixels: int) -> Shape:
    """Walk the blocks (GIF89a) to the trailer."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    bounded(width, height, max_pixels, "canvas")
    at = 13 + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
    frames = 0
    while True:
        if at >= len(data):
            raise Damaged("GIF: no trailer: the file is cut short")
        kind = data[at]
        if kind == 0x3B:
            break
        if kind == 0x21:
            at = _gif_blocks(data, at + 2)
        elif kind == 0x2C:
            x, y, w, h, local = struct.unpack_from("<HHHHB", data, at + 1)
            bounded(x + w, y + h, max_pixels, "frame")
            at += 10 + (3 * (2 << (local & 7)) if local & 0x80 else 0)
            at = _gif_blocks(data, at + 1)
            frames += 1
        elif kind == 0:
            at += 1  # Stray terminators between blocks are common and harmless.
        else:
            raise Damaged(f"GIF: unknown block {kind:#04x}")
    if not frames:
        raise Damaged("GIF: no picture")
    return Shape(width, height, frames)


def _gif_blocks(data: bytes, at: int) -> int:
    while True:
        size = data[at]
        at += 1 + size
        if at > len(data):
            raise Damaged("GIF: a data block is cut short")
        if size == 0:
            return at


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
        at += length
    if not {b"ftyp", b"mdat"} <= names and b"idat" not in data[:65_536]:
        raise Damaged("AVIF: no picture data in the container")
    del max_pixels  # Pillow reads the size of an AVIF picture without decoding it.
    return None
