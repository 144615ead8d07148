"""Letters cut free of what stands around them: neighbours, panels, colours, arcs."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tasks.checks import ink, tesseract
from tasks.providers.embedded import fonts

needs_english = pytest.mark.skipif(
    "eng" not in tesseract.installed(), reason="needs tesserocr and tesseract-ocr-eng"
)


def corners(left: float, top: float, right: float, bottom: float) -> Any:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def lettered(
    text: str, size: int = 60, colour: Any = (20, 20, 30), ground: Any = (245, 240, 230)
) -> tuple[Image.Image, Any]:
    """Return a picture with one line of text in its middle, and the corners of the line."""
    image = Image.new("RGB", (640, 320), ground)
    (run,) = fonts.runs(text)
    assert run.face is not None
    font = fonts.font(run.face, size, 600, "en", text)
    pen = ImageDraw.Draw(image)
    pen.text((320, 160), text, fill=colour, font=font, anchor="mm")
    left, top, right, bottom = pen.textbbox((320, 160), text, font=font, anchor="mm")
    return image, corners(left - 4, top - 4, right + 4, bottom + 4)


def read(image: Image.Image, quad: Any) -> list[str]:
    reader = tesseract.engine("eng")
    return [reader.letters(line).text for line in ink.pictures(np.asarray(image), quad)]


@needs_english
@pytest.mark.parametrize(
    ("colour", "ground"),
    [((20, 20, 30), (245, 240, 230)), ((240, 240, 235), (30, 30, 60)),
     # As bright as the ground: only the colour tells them apart.
     ((210, 60, 60), (60, 130, 60))],
)  # fmt: skip
def test_letters_are_black_on_white_whatever_their_colour(colour: Any, ground: Any) -> None:
    image, quad = lettered("Garden", colour=colour, ground=ground)
    made = ink.pictures(np.asarray(image), quad)
    assert made[0].shape[0] == ink.LETTER + 2 * (ink.LETTER // 3)
    assert made[0][0].min() == 255 > 60 > np.percentile(made[0], 5)
    assert "Garden" in read(image, quad)


@needs_english
def test_lines_above_and_below_are_left_out() -> None:
    image, quad = lettered("Garden")
    pen = ImageDraw.Draw(image)
    top, bottom = quad[0][1], quad[2][1]
    for x in range(190, 440, 40):  # Black bars close above and below, as the next lines' letters.
        pen.rectangle((x, top - 50, x + 18, top + 1), fill=(20, 20, 30))
        pen.rectangle((x, bottom - 1, x + 18, bottom + 50), fill=(20, 20, 30))
    assert "Garden" in read(image, quad)


@needs_english
def test_a_panel_and_a_frame_are_no_letters() -> None:
    image = Image.new("RGB", (640, 320), (40, 90, 60))
    inner, quad = lettered("Garden", ground=(240, 200, 60))
    box = int(quad[0][0]) - 6, int(quad[0][1]) - 6, int(quad[2][0]) + 6, int(quad[2][1]) + 6
    image.paste(inner.crop(box), box[:2])
    ImageDraw.Draw(image).rectangle(box, outline=(20, 20, 30), width=3)
    assert "Garden" in read(image, quad)


@needs_english
@pytest.mark.parametrize("up", [True, False])
def test_a_row_on_an_arc_is_unrolled(up: bool) -> None:
    text, image = "MARKET HALL", Image.new("RGB", (640, 640), "white")
    (run,) = fonts.runs(text)
    assert run.face is not None
    font = fonts.font(run.face, 52, 700, "en", text)
    for number, char in enumerate(text):
        angle = (number - (len(text) - 1) / 2) * 7.5
        tile = Image.new("L", (90, 90), 0)
        ImageDraw.Draw(tile).text((45, 45), char, fill=255, font=font, anchor="mm")
        tile = tile.rotate(-angle if up else angle, resample=Image.Resampling.BICUBIC)
        x = 320 + 330 * math.sin(math.radians(angle))
        rise = 330 * (1 - math.cos(math.radians(angle)))
        image.paste((20, 20, 30), (int(x) - 45, int(260 + (rise if up else -rise)) - 45), tile)
    dark = np.argwhere(np.asarray(image.convert("L")) < 128)
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0)
    assert text in read(image, corners(left - 6, top - 6, right + 6, bottom + 6))


def test_nothing_is_made_of_nothing() -> None:
    plain = np.full((200, 400, 3), 128, np.uint8)
    assert ink.pictures(plain, corners(50, 50, 350, 120)) == []
    image, _ = lettered("Garden")
    assert ink.pictures(np.asarray(image), corners(300, 20, 340, 300)) == []  # A column.
    assert ink.pictures(np.asarray(image), corners(0, 100, 600, 104)) == []  # Far too long.


@given(st.integers(0, 2**32 - 1), st.floats(-60, 200), st.floats(2, 300), st.floats(2, 90))
def test_no_texture_breaks_it(seed: int, left: float, width: float, height: float) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(coarse).resize((240, 144)))
    for made in ink.pictures(rgb, corners(left, 30, left + width, 30 + height)):
        assert made.dtype == np.uint8
        assert made.shape[0] == ink.LETTER + 2 * (ink.LETTER // 3)
        assert made.min() < 255
