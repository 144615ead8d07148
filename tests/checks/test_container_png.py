"""The file that is handed to the decoder instead of a PNG shows the same picture."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.checks import container_png
from tasks.checks.base import Expected
from tasks.checks.container_png import read_png
from tasks.checks.decode import decode
from tests.checks.drawing import chunk, encoded, header, pixels, png_of, scene

MOST = 10**7
#: Bit depths of each colour type.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
#: Depth, colour type and interlacing of every kind of PNG.
KINDS = [(depth, kind, lace) for kind, all_ in DEPTHS.items() for depth in all_ for lace in (0, 1)]


def inflated(data: bytes) -> bytes:
    return read_png(data, MOST).inflated


def stream(depth: int, colour: int, interlace: int, seed: int = 1) -> bytes:
    """Rows of 8 × 6 pixels of noise, each with a filter of its own."""
    rng = np.random.default_rng(seed)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = container_png._ADAM7 if interlace else ((0, 0, 1, 1),)
    out = b""
    for x, y, dx, dy in passes:
        columns, rows = -(-(8 - x) // dx), -(-(6 - y) // dy)
        for _ in range(rows if columns > 0 else 0):
            out += bytes([int(rng.integers(0, 5))]) + rng.bytes((columns * bits + 7) // 8)
    return out


def kind_of(depth: int, colour: int, interlace: int) -> bytes:
    head = struct.pack(">IIBBBBB", 8, 6, depth, colour, 0, 0, interlace)
    palette = [(b"PLTE", bytes(range(256)) * 3)] if colour == 3 else []
    data = zlib.compress(stream(depth, colour, interlace))
    return png_of((b"IHDR", head), *palette, (b"IDAT", data), (b"tEXt", b"a\0b"), (b"IEND", b""))


def shown(data: bytes) -> tuple[str, bytes, dict[object, object]]:
    with Image.open(io.BytesIO(data)) as image:  # noqa: TID251 - our own picture
        image.load()
        return image.mode, image.tobytes(), dict(image.info)


@pytest.mark.parametrize(("depth", "colour", "interlace"), KINDS)
def test_every_kind_of_png_is_the_same_picture(depth: int, colour: int, interlace: int) -> None:
    data = kind_of(depth, colour, interlace)
    assert inflated(data) != data
    assert shown(inflated(data)) == shown(data)


def test_a_picture_of_many_blocks_is_the_same_and_whole() -> None:
    data = encoded(scene(700, 300))
    same = inflated(data)
    assert len(same) > 700 * 300 * 3
    assert shown(same) == shown(data)
    # A whole file by the same rules: every checksum is right, and it ends where it should.
    assert inflated(same) == same


@given(st.lists(st.integers(0, 400), max_size=6), st.integers(0, 5))
def test_where_the_stream_is_cut_into_chunks_does_not_matter(cuts: list[int], zeros: int) -> None:
    body = zlib.compress(stream(8, 2, 0)) + bytes(zeros)
    ends = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    parts = [(b"IDAT", body[a:b]) for a, b in itertools.pairwise(ends)]
    data = png_of((b"IHDR", header(8, 6)), *parts, (b"IEND", b""))
    same = inflated(data)
    # Nothing is made of a checksum that lies in two chunks; the file itself is decoded then.
    assert not same or shown(same) == shown(data)
    assert same or len(parts) > 1
    picture = decode(data, Expected()).picture
    assert picture is not None
    assert picture.rgb.tobytes() == shown(data)[1]


def test_an_animation_is_left_to_the_decoder() -> None:
    frames = [scene(40, 30, seed) for seed in (1, 2)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    assert read_png(data, MOST).frames == 2
    assert inflated(data) == b""


def test_what_is_too_large_is_left_to_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(scene(100, 80))
    monkeypatch.setattr(container_png, "MAX_STORED", 80 * 301)
    assert inflated(data)
    monkeypatch.setattr(container_png, "MAX_STORED", 80 * 301 - 1)
    assert inflated(data) == b""


def test_a_wrong_filter_is_damage_in_both() -> None:
    rows = b"".join(bytes([9]) + b"\x40" * 24 for _ in range(6))
    data = png_of((b"IHDR", header(8, 6)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    assert decode(data, Expected()).findings[0].verdict == "fail"


def test_chunks_around_the_pixels_stay_as_they_are() -> None:
    data = png_of(
        (b"IHDR", header()),
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"IDAT", pixels()),
        (b"tEXt", b"Comment\0after"),
        (b"IEND", b""),
    )
    same = inflated(data)
    assert same.startswith(data[: data.index(b"IDAT") - 4])
    assert same.endswith(chunk(b"tEXt", b"Comment\0after") + chunk(b"IEND", b""))
