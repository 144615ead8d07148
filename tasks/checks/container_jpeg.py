"""Is a JPEG file whole? Its markers to the end of the image, the scans' parameters and restarts."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from tasks.checks.container_base import MAX_SEGMENTS, Damaged, Shape, bounded

#: A JPEG marker inside entropy-coded data: not a stuffed zero, not a restart, not a fill byte.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: Frames of sequential DCT scans, and those whose scans are divided into blocks of 8 × 8.
_SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})
_DCT = _SEQUENTIAL | {0xC2, 0xCA}
#: Markers without contents: the end, a reserved one, restarts.
_ALONE = frozenset({0xD9, 0x01, *range(0xD0, 0xD8)})
#: Scans of one picture; encoders write 10 to 15. Each costs a walk over all pixels however short
#: it is, so large pictures may have fewer.
_MAX_SCANS, _SCANS_AT_MOST_PIXELS = 100, 10
#: JFIF's and Adobe's: they say how the components are colours.
_COLOUR = frozenset({0xE0, 0xEE})
#: Bits behind coded data; they begin otherwise than the zeros that decoders make up.
_FILL = b"\xd5\xb3\x6a" * 4
#: What no picture needs: comments and what applications leave.
_ASIDE = frozenset({0xFE, *range(0xE0, 0xF0)})


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the frame header says of the scans."""

    marker: int
    width: int
    height: int
    #: Horizontal and vertical sampling by component.
    sampling: dict[int, tuple[int, int]]


def read_jpeg(data: bytes, max_pixels: int) -> Shape:
    """Walk the markers (ITU T.81 annex B) to the end-of-image marker."""
    at, scans, interval = 2, 0, 0
    frame: _Frame | None = None
    for _ in range(MAX_SEGMENTS):
        marker, body, at = _segment(data, at)
        if marker == 0xD9:
            break
        if marker in _SOF:
            frame = _frame(marker, body)
            # Height 0 is legal: a DNL segment gives it after the first scan.
            bounded(frame.width, max(frame.height, 1), max_pixels)
        elif marker == 0xDD:
            interval = int.from_bytes(body[:2], "big")
        elif marker == 0xE1 and body.startswith(b"Exif\x00\x00"):
            _exif(body[6:])
        elif marker == 0xDA:
            scans += 1
            found = _MARKER.search(data, at)
            if found is None:
                raise Damaged("JPEG: the pixel data is cut short (no end-of-image marker)")
            if frame is not None:
                _scan(frame, body, interval, data[at : found.start()])
                walked = scans * frame.width * frame.height
                if scans > _MAX_SCANS or walked > _SCANS_AT_MOST_PIXELS * max_pixels:
                    raise Damaged(f"JPEG: {scans} scans are more than such a picture may have")
            at = found.start()
    else:
        raise Damaged(f"JPEG: more than {MAX_SEGMENTS:,} segments")
    if frame is None or not scans:
        raise Damaged("JPEG: no frame or no scan before the end of the image")
    return Shape(frame.width, max(frame.height, 1))


def filled(data: bytes) -> bytes:
    """Return the picture with bits added behind every run of coded data.

    They lie where a decoder has no more use for any (F.2.2.5, E.2.4), so a picture stays what it
    is. Where the data end too early, decoders make up zeros in silence, and now take these bits.

    Args:
        data: A file that :func:`read_jpeg` found whole.

    Returns:
        The file up to its end-of-image marker, without metadata.
    """
    at, parts = 2, [data[:2]]
    while True:
        marker, body, at = _segment(data, at)
        if marker not in _ASIDE or marker in _COLOUR:
            length = b"" if marker in _ALONE else (len(body) + 2).to_bytes(2, "big")
            parts += [bytes([0xFF, marker]), length, body]
        if marker == 0xD9:
            return b"".join(parts)
        if marker == 0xDA:
            found = _MARKER.search(data, at)
            end = found.start() if found else len(data)
            parts += [_RESTART.sub(lambda restart: _FILL + restart[0], data[at:end]), _FILL]
            at = end


def _segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return marker and contents of the next segment, and where it ends.

    Bytes between segments are skipped, as every decoder does.
    """
    at = data.find(b"\xff", at)
    while 0 <= at < len(data) and data[at] == 0xFF:
        at += 1
    if at < 0 or at >= len(data):
        raise Damaged("JPEG: no end-of-image marker: the file is cut short")
    marker = data[at]
    at += 1
    if marker in _ALONE:
        return marker, b"", at
    length = int.from_bytes(data[at : at + 2], "big")
    if length < 2 and marker in _ASIDE:
        length = 2  # As every decoder does: there is nothing in it to misread.
    if length < 2 or at + length > len(data):
        raise Damaged(f"JPEG: segment {marker:#04x} reaches beyond the end of the file")
    return marker, data[at + 2 : at + length], at + length


def _frame(marker: int, body: bytes) -> _Frame:
    """Read a frame header (B.2.2)."""
    height, width, count = struct.unpack_from(">HHB", body, 1)
    sampling = {}
    for component in range(count):
        name, factors, _ = struct.unpack_from("BBB", body, 6 + 3 * component)
        sampling[name] = (factors >> 4, factors & 15)
    return _Frame(marker, width, height, sampling)


def _scan(frame: _Frame, header: bytes, interval: int, coded: bytes) -> None:
    """Check what a scan says of itself (B.2.3), and its restart markers.

    Decoders go on in silence when a restart is missing or out of turn (E.2.4), with pixels that
    are guessed from there on.
    """
    count = header[0]
    names = [header[1 + 2 * n] for n in range(count)]
    chosen = tuple(header[1 + 2 * count : 4 + 2 * count])
    if frame.marker in _SEQUENTIAL and chosen != (0, 63, 0):
        raise Damaged("JPEG: a scan with a part of the coefficients in a sequential picture")
    if frame.marker not in _DCT or not frame.height or not names:
        return
    if any(name not in frame.sampling or 0 in frame.sampling[name] for name in names):
        raise Damaged("JPEG: a scan of a component that the frame does not have")
    expected = -(-_units(frame, names) // interval) - 1 if interval else 0
    found = _RESTART.findall(coded)
    if len(found) != expected or any(m[0] & 7 != n & 7 for n, m in enumerate(found)):
        raise Damaged(f"JPEG: {len(found):,} restarts instead of {expected:,}, or out of turn")


def _units(frame: _Frame, names: list[int]) -> int:
    """Return the number of units (MCU) of a scan (A.2)."""
    across = max(h for h, _ in frame.sampling.values())
    down = max(v for _, v in frame.sampling.values())
    if len(names) > 1:
        return -(-frame.width // (8 * across)) * -(-frame.height // (8 * down))
    h, v = frame.sampling[names[0]]  # Alone, a component's own blocks count.
    columns, rows = -(-frame.width * h // across), -(-frame.height * v // down)
    return -(-columns // 8) * -(-rows // 8)


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
