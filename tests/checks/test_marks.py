"""Sparse pictures are good work; blank and spoiled ones with dirt on them are not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tasks.checks.base import Check, Expected
from tasks.checks.blank import Blank, Refusal
from tasks.checks.exposure import Contrast, Exposure
from tasks.checks.marks import marks
from tests.checks.drawing import Colour, as_picture

CHECKS: tuple[Check, ...] = (Blank(), Exposure(), Contrast(), Refusal())
LIGHT = (Exposure(), Contrast())
WHITE, BLACK = (250, 250, 250), (3, 3, 3)
PAIRS = ((WHITE, (10, 10, 10)), (BLACK, (245, 245, 245)))
Draw = Callable[[ImageDraw.ImageDraw, int, Colour], None]


def blank(side: int, ground: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (side, side), ground)
    return image, ImageDraw.Draw(image)


def accused(image: Image.Image, checks: tuple[Check, ...] = CHECKS) -> list[str]:
    picture, asked = as_picture(image), Expected(prompt="a card")
    return [check.name for check in checks if check.run(picture, asked).verdict == "fail"]


def line(size: int, text: str = "Grand Opening") -> Draw:
    def draw(pen: ImageDraw.ImageDraw, side: int, ink: Colour) -> None:
        pen.text((side // 3, side // 2), text, fill=ink, font=ImageFont.load_default(size))

    return draw


def disc(pen: ImageDraw.ImageDraw, side: int, ink: Colour) -> None:
    pen.ellipse((side // 2, side // 2, side // 2 + side // 25, side // 2 + side // 25), fill=ink)


def frame(pen: ImageDraw.ImageDraw, side: int, ink: Colour) -> None:
    pen.rectangle((40, 40, side - 40, side - 40), outline=ink, width=1)


def code(pen: ImageDraw.ImageDraw, side: int, ink: Colour) -> None:
    for y, x in np.argwhere(np.random.default_rng(1).random((21, 21)) < 0.5).tolist():
        pen.rectangle((100 + 3 * x, 100 + 3 * y, 102 + 3 * x, 102 + 3 * y), fill=ink)


def signature(pen: ImageDraw.ImageDraw, side: int, ink: Colour) -> None:
    steps = np.linspace(0, 1, 150)
    high = side * 0.9 + 14 * np.sin(30 * steps)
    pen.line(list(zip(side * 0.7 + 150 * steps, high, strict=True)), fill=ink, width=2)


def arc(pen: ImageDraw.ImageDraw, side: int, ink: Colour) -> None:
    pen.arc((200, 200, 500, 500), 10, 170, fill=ink, width=1)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("side", [1024, 2048])
@pytest.mark.parametrize("draw", [line(24), line(36), disc, frame, code, signature, arc])
def test_sparse_work_is_not_accused(draw: Draw, side: int, pair: tuple[Colour, Colour]) -> None:
    image, pen = blank(side, pair[0])
    draw(pen, side, pair[1])
    assert accused(image) == []


@pytest.mark.parametrize(("side", "size"), [(2048, 56), (4000, 60), (4000, 100)])
def test_a_line_of_small_type_on_a_large_picture(side: int, size: int) -> None:
    image, pen = blank(side, WHITE)
    line(size)(pen, side, (0, 0, 0))
    assert accused(image) == []


def specks(count: int, size: int, ground: Colour, ink: Colour) -> Image.Image:
    image, pen = blank(1024, ground)
    for x, y in np.random.default_rng(count).integers(10, 1000, (count, 2)).tolist():
        pen.rectangle((x, y, x + size - 1, y + size - 1), fill=ink)
    return image


def test_stars_are_many_and_light_and_dust_is_not() -> None:
    assert accused(specks(150, 2, BLACK, (230, 230, 230))) == []
    assert accused(specks(20, 3, BLACK, (230, 230, 230)), LIGHT) != []
    assert accused(specks(150, 1, BLACK, (230, 230, 230)), LIGHT) != []
    assert accused(specks(100, 3, WHITE, (20, 20, 20)), LIGHT) != []


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("side", [1024, 2048])
def test_dirt_is_no_mark(side: int, pair: tuple[Colour, Colour]) -> None:
    ground, ink = pair
    rng = np.random.default_rng(side)
    row, pen = blank(side, ground)
    pen.line((0, side // 3, side, side // 3), fill=ink)
    pen.line((side // 4, 0, side // 4, side), fill=ink)
    edge, pen = blank(side, ground)
    pen.line((0, side - 1, side, side - 1), fill=ink)
    pen.line((side - 1, 0, side - 1, side), fill=ink)
    half, pen = blank(side, ground)
    pen.line((side // 4, 0, side // 4, side // 2), fill=ink)
    plain = np.asarray(blank(side, ground)[0]).copy()
    plain[rng.random((side, side)) < 0.002] = ink
    pepper = Image.fromarray(plain)
    for image in (row, edge, half, pepper, blank(side, ground)[0]):
        assert marks(np.asarray(image)) is None
        assert accused(image, (Exposure(),)) == ["colour.exposure"]


@pytest.mark.parametrize("sigma", [2, 6, 20])
def test_noise_is_no_mark(sigma: float) -> None:
    for level in (0, 8, 127, 250):
        noise = np.random.default_rng(sigma).normal(level, sigma, (512, 512, 3))
        assert marks(np.clip(noise, 0, 255).astype(np.uint8)) is None


def test_what_is_soft_or_faint_is_no_mark() -> None:
    image, pen = blank(1024, BLACK)
    disc(pen, 1024, (255, 255, 255))
    assert marks(np.asarray(image)) is not None
    assert marks(np.asarray(image.filter(ImageFilter.GaussianBlur(12)))) is None
    for ground, ink in (((255, 255, 255), (225, 225, 225)), (BLACK, (31, 31, 31))):
        faint, pen = blank(1024, ground)
        line(36)(pen, 1024, ink)
        assert marks(np.asarray(faint)) is None
        assert "colour.exposure" in accused(faint)


def test_marks_in_noise_are_seen_and_their_tones_told() -> None:
    image, pen = blank(1024, (230, 230, 230))
    line(40)(pen, 1024, (20, 20, 20))
    noise = np.random.default_rng(2).normal(0, 6, (1024, 1024, 3))
    found = marks(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    assert found is not None
    assert found.low < 50
    assert found.high == pytest.approx(91, abs=2)


def test_an_empty_edit_of_a_sparse_upload_fails() -> None:
    upload, pen = blank(1024, WHITE)
    line(36)(pen, 1024, (0, 0, 0))
    picture = as_picture(blank(1024, WHITE)[0])
    picture = type(picture)(
        picture.rgb, b"", "image/png", references={"upload": np.asarray(upload)}
    )
    assert Exposure().run(picture, Expected()).verdict == "fail"
    assert Contrast().run(picture, Expected()).verdict == "fail"
