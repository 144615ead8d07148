"""Decode a picture completely and safely; the only place that opens images.

The header and its limits are read before a pixel is decoded, the container must be whole
(:mod:`tasks.checks.containers`), and every frame must decode without a warning.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from tasks.checks import containers, icc
from tasks.checks.base import Expected, Picture
from tasks.checks.container_base import Damaged
from tasks.errors import ConfigError
from tasks.records import Finding

VERSION = "3"
FILE, MIME, STILL = "decode.file", "decode.mime", "decode.still"

MAX_BYTES = 64 * 2**20
#: Bytes of a larger file that are read, to tell what it is.
_HEAD = 4_096
MAX_PIXELS = 64_000_000
MAX_FRAMES = 1_000
#: All frames of an animation together.
MAX_ANIMATION_PIXELS = 256_000_000

#: Plugins that call other programs or open other files; everything else Pillow has may read.
_UNSAFE = frozenset({"EPS", "WMF", "GRIB", "HDF5", "BUFR", "MPEG", "FPX", "MIC"})
#: Formats whose further pictures belong to what is shown; others hold thumbnails or layers there.
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"})
_MOVING = frozenset({"GIF", "PNG", "WEBP", "AVIF"})
#: The tag of Exif that says how a picture is to be turned.
_ORIENTATION = 0x0112
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
    "image/mpo": "image/jpeg",
    "image/vnd.mozilla.apng": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "image/vnd.microsoft.icon": "image/x-icon",
    "image/jpx": "image/jp2",
    "image/j2k": "image/jp2",
}
#: What Pillow and its codecs raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The picture, or ``None`` when the file is not acceptable, and what was found."""

    picture: Picture | None
    findings: tuple[Finding, ...]


def sniff(data: bytes) -> str | None:
    """Return the mime type that the first bytes show, or ``None`` when they show none."""
    return containers.sniff(data)


def same_mime(declared: str, found: str) -> bool:
    """Say whether two mime types mean the same format (``image/jpg`` is ``image/jpeg``)."""
    first, second = (m.split(";")[0].strip().lower() for m in (declared, found))
    return _ALIASES.get(first, first) == _ALIASES.get(second, second)


def read_file(path: Path) -> tuple[bytes, int]:
    """Return a file and its size; of one too large to be decoded only the beginning.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        with path.open("rb") as file:
            return file.read(_HEAD), size
    data = path.read_bytes()
    return data, len(data)


def decode(data: bytes, expected: Expected, size: int = 0) -> Decoded:
    """Decode the bytes of a file.

    Args:
        data: The whole file; untrusted.
        expected: Its ``declared_mime`` is compared with the content.
        size: Of the file, where ``data`` is only its beginning; see :func:`read_file`.

    Returns:
        The picture as displayed, with the findings ``decode.file``, ``decode.mime`` and
        ``decode.still``. Never raises for what the bytes hold.
    """
    mime = containers.sniff(data)
    size = max(size, len(data))
    if size > MAX_BYTES:
        return _refused(f"{size:,} bytes, more than the {MAX_BYTES:,} allowed", mime, expected)
    try:
        with _strict_warnings():
            picture, frames, note = _open(data, mime)
    except Damaged as error:
        return _refused(str(error), mime, expected)
    except _DAMAGE as error:
        what = str(error).replace("<_io.BytesIO object", "<bytes")[:200] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            text = containers.looks_like_text(data)
            what = f"not a supported image: the body is {text}" if text else "not a supported image"
        return _refused(what, mime, expected)
    declared = _mime(picture.mime, expected.declared_mime)
    return Decoded(picture, (_file(True, note), declared, _still(frames, expected)))


def _refused(why: str, mime: str | None, expected: Expected) -> Decoded:
    return Decoded(
        None,
        (_file(False, why), _mime(mime, expected.declared_mime), _still(None, expected)),
    )


def _file(good: bool, message: str) -> Finding:
    return Finding(
        check=FILE,
        version=VERSION,
        verdict="pass" if good else "fail",
        score=float(good),
        limit=1.0,
        message=message,
    )


def _mime(found: str | None, declared: str | None) -> Finding:
    if not declared:
        return Finding(check=MIME, version=VERSION, verdict="skip", message="no type was declared")
    good = found is not None and same_mime(declared, found)
    message = "" if good else f"declared {declared[:80]!r}, the content is {found or 'no image'}"
    return Finding(
        check=MIME,
        version=VERSION,
        verdict="pass" if good else "fail",
        score=float(good),
        limit=1.0,
        message=message,
    )


def _still(frames: int | None, expected: Expected) -> Finding:
    """Judge an animation: a fault where a picture was asked for, and nobody asks for a film here.

    Where no request is known, an animated file may be what it should be.
    """
    asked = (expected.prompt, expected.subtask, expected.brand, expected.width, expected.height)
    if frames is None or not any(asked):
        why = "no request is known" if frames is not None else "the file does not decode"
        return Finding(check=STILL, version=VERSION, verdict="skip", message=why)
    return Finding(
        check=STILL,
        version=VERSION,
        verdict="pass" if frames == 1 else "fail",
        score=float(frames),
        limit=1.0,
        higher_is_better=False,
        message="" if frames == 1 else f"an animation of {frames} frames instead of a still",
    )


@contextmanager
def _strict_warnings() -> Iterator[None]:
    """Turn what Pillow merely warns of into failures of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # About Pillow's own future, not about the file.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", ResourceWarning)
        # The APNG specification falls back to the still picture, which is whole.
        warnings.filterwarnings("ignore", message="Invalid APNG")
        # The index of further views (CIPA DC-007) is not needed to show the picture, nor is the
        # size in the directory of an icon, which holds whole files.
        warnings.filterwarnings("ignore", message="Image appears to be a malformed MPO")
        warnings.filterwarnings("ignore", message="Image was not the expected size")
        yield


def _open(data: bytes, mime: str | None) -> tuple[Picture, int, str]:
    """Return the first frame, the number of frames and a note; all frames were decoded.

    Raises:
        Damaged: A limit or a rule of the container is broken.
    """
    if not data:
        raise Damaged("not a supported image: the body is empty")
    shape = containers.inspect(data, mime, MAX_PIXELS) if mime else None
    if shape is not None:
        _frames_allowed(shape.frames, shape.width * shape.height)
    Image.init()
    formats = [name for name in Image.ID if name not in _UNSAFE]
    # The container's reader has inflated most PNG files already.
    same = (shape.inflated if shape is not None else b"") or data
    with Image.open(io.BytesIO(same), formats=formats) as image:
        _size_allowed(image)
        kind = image.format or ""
        shown = mime or Image.MIME.get(kind, f"image/x-{kind.lower()}")
        frames = 1
        if kind in _ANIMATED:
            # A count may walk the whole file, so a container's own count goes first.
            own = shape.frames if shape is not None and kind != "MPO" else None
            frames = own or int(getattr(image, "n_frames", 1))
            _frames_allowed(frames, image.width * image.height)
        image.load()
        if mime == "image/jpeg":
            _coded_to_the_end(image, data)
        if kind == "PSD":
            getattr(image, "n_frames")  # noqa: B009 - reads the layer directory
        colours = icc.to_srgb(_upright(image), data)
        rgb = to_rgb(colours.image)
        note = _further_frames(image, kind, frames)
        # Pages, thumbnails and exposures are no animation: they do not move when shown.
        moving = frames if kind in _MOVING else 1
    offset = containers.webp_opaque_palette(data)
    if offset is not None:
        _palette_in_range(data, offset)
    notes: dict[str, tuple[str, ...]] = {icc.NOTE: colours.note}
    return Picture(rgb=rgb, data=data, mime=shown, notes=notes), moving, note


def _size_allowed(image: Image.Image) -> None:
    if image.width < 1 or image.height < 1 or image.width * image.height > MAX_PIXELS:
        raise Damaged(
            f"{image.width}×{image.height} pixels; between 1 and {MAX_PIXELS:,} are allowed"
        )


def _frames_allowed(frames: int, pixels: int) -> None:
    if frames > MAX_FRAMES or frames * pixels > MAX_ANIMATION_PIXELS:
        raise Damaged(
            f"{frames:,} frames of {pixels:,} pixels; {MAX_FRAMES:,} frames and "
            f"{MAX_ANIMATION_PIXELS:,} pixels together are allowed"
        )


def _further_frames(image: Image.Image, kind: str, frames: int) -> str:
    """Decode the frames after the first and return a note on animations."""
    if frames == 1:
        return ""
    pixels = image.width * image.height
    try:
        for number in range(1, min(frames, getattr(image, "n_frames", frames))):
            image.seek(number)
            _size_allowed(image)
            pixels += image.width * image.height  # Pages of a TIFF differ in size.
            if pixels > MAX_ANIMATION_PIXELS:
                raise Damaged(f"more than {MAX_ANIMATION_PIXELS:,} pixels together")
            image.load()
    except SyntaxError as error:
        if kind != "PNG":
            raise
        return f"animation out of order ({error}); the still picture is whole"
    return f"animation of {frames} frames; the first is judged"


def _coded_to_the_end(image: Image.Image, data: bytes) -> None:
    """Decode a JPEG once more with bits to spare: a whole picture does not need them.

    Pillow says nothing of it when libjpeg runs out of coded data and makes up the rest, as after
    bytes were lost or damaged on the way.
    """
    with Image.open(io.BytesIO(containers.filled(data)), formats=["JPEG"]) as again:
        same = again.mode == image.mode and again.size == image.size
        if not same or ImageChops.difference(image, again).getbbox() is not None:
            raise Damaged("JPEG: the pixel data ends before the picture does")


def _palette_in_range(data: bytes, offset: int) -> None:
    """Decode once more with the alpha hint on: pixels beyond the palette come out transparent."""
    marked = bytearray(data)
    marked[offset] |= 0x10
    with Image.open(io.BytesIO(bytes(marked)), formats=["WEBP"]) as image:
        image.load()
        lowest = 255 if image.mode != "RGBA" else int(np.asarray(image)[:, :, 3].min())
    if lowest != 255:
        raise Damaged("WebP: pixels point beyond the palette")


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return a decoded image as 8-bit RGB, alpha over white.

    Args:
        image: Any Pillow mode, 16-bit, float, palette and CMYK included.

    Returns:
        Height × width × 3, contiguous.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("I", "F"):
        return _scaled(np.asarray(image).astype(np.float64))
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        if mode in ("La", "RGBa"):
            image = image.convert("LA" if mode == "La" else "RGBA")
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the Exif orientation; unreadable metadata in a whole picture means: upright."""
    try:
        # Most pictures stand upright: asked first, as turning makes a copy in any case.
        if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
            return ImageOps.exif_transpose(image)
    except _DAMAGE:
        pass
    return image


def _scaled(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Bring wide integers and floats into 8 bits by the range that they use."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max(initial=0.0))
    # The least of the usual ranges that holds it: 0 to 1, 8 bits, 16 bits; else its own.
    full = next((limit for limit in (1.0, 255.0, 65_535.0) if top <= limit), top)
    scale = 255 / full
    grey = np.clip(finite * scale, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def load_rgba(path: Path) -> NDArray[np.uint8]:
    """Return one of our own pictures (a logo) with its transparency, height × width × 4.

    Raises:
        ConfigError: It cannot be decoded completely.
    """
    data = path.read_bytes()
    found = decode(data, Expected()).findings[0]
    if found.verdict != "pass":
        raise ConfigError(f"{path}: {found.message}")
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.uint8)
