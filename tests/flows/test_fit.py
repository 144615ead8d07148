from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flows.fit import scaled_down
from tasks.checks.base import Expected, Pixels
from tasks.checks.decode import decode
from tests.checks.drawing import encoded, scene


def pixels(data: bytes) -> Pixels:
    picture = decode(data, Expected()).picture
    assert picture is not None
    return picture.rgb


def size(data: bytes) -> tuple[int, int]:
    height, width = pixels(data).shape[:2]
    return width, height


@pytest.mark.parametrize(
    ("drawn", "asked", "result"),
    [
        ((512, 512), (256, 256), (256, 256)),
        ((512, 512), (500, 480), (500, 480)),  # 4 % of the height is cut
        ((336, 192), (320, 180), (320, 180)),  # 7:4 for 16:9: 1.6 % is cut
        ((256, 256), (256, 256), (256, 256)),
        ((256, 256), (512, 512), (256, 256)),  # never enlarged
        ((512, 256), (256, 256), (512, 256)),  # another shape
    ],
)
def test_a_larger_picture_of_the_shape_is_reduced(
    drawn: tuple[int, int], asked: tuple[int, int], result: tuple[int, int]
) -> None:
    data = encoded(scene(*drawn))
    fitted = scaled_down(data, *asked)
    assert size(fitted) == result
    assert (fitted is data) == (result == drawn)


def test_nothing_is_moved_or_recoloured() -> None:
    picture = scene(512, 384)
    fitted = scaled_down(encoded(picture), 256, 192)
    wanted = picture.convert("RGB").resize((256, 192), Image.Resampling.BOX)
    apart = np.abs(pixels(fitted).astype(float) - np.asarray(wanted, float))
    assert apart.mean() < 2


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n broken"])
def test_what_does_not_decode_is_left_to_the_checks(data: bytes) -> None:
    assert scaled_down(data, 16, 16) is data
