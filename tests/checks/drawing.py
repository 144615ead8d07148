"""Pictures that the tests of the checks draw themselves."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tasks.checks.base import Picture

Colour = tuple[int, int, int]


def scene(width: int = 512, height: int = 512, seed: int = 1) -> Image.Image:
    """A picture of shapes in several colours on a plain ground, with edges and neutral parts."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), (236, 236, 232))
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = int(rng.integers(width // 10, width // 3))
        colour = tuple(int(v) for v in rng.integers(20, 235, 3))
        pen.ellipse((x - size, y - size // 2, x + size, y + size // 2), fill=colour)
    return image


def poster(*lines: str, size: int = 48, width: int = 512, height: int = 512) -> Image.Image:
    """Lines of text on a white plate over a scene."""
    image = scene(width, height)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    top = height // 5
    pen.rectangle((16, top - 16, width - 16, top + len(lines) * size * 1.5 + 8), fill="white")
    for number, line in enumerate(lines):
        pen.text((32, top + number * size * 1.5), line, fill=(20, 20, 24), font=font)
    return image


def as_picture(image: Image.Image) -> Picture:
    return Picture(rgb=np.asarray(image.convert("RGB")), data=b"", mime="image/png")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


def header(width: int = 4, height: int = 4, depth: int = 8, colour: int = 2) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def pixels(width: int = 4, height: int = 4) -> bytes:
    return zlib.compress((b"\0" + b"\x80" * width * 3) * height)
