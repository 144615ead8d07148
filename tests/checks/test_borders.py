import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tasks.checks.base import Expected, Pixels
from tasks.checks.borders import Borders, bars
from tasks.checks.decode import decode
from tasks.records import Finding
from tests.checks.drawing import as_picture, scene

SQUARE = Expected(width=512, height=512, prompt="a red kite")
COLOURS = {"white": 255, "black": 0}


def full() -> Image.Image:
    """A picture that is drawn to its edges."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(60, 200, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)


def barred(depth: int, sides: str, level: int) -> Image.Image:
    image = full()
    boxes = {"t": (0, 0, 512, depth), "b": (0, 512 - depth, 512, 512),
             "l": (0, 0, depth, 512), "r": (512 - depth, 0, 512, 512)}  # fmt: skip
    for side in sides:
        image.paste((level, level, level), boxes[side])
    return image


def judged(image: Image.Image, expected: Expected = SQUARE) -> Finding:
    return Borders().run(as_picture(image), expected)


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("sides", ["tb", "lr", "tblr"])
@pytest.mark.parametrize("share", [0.01, 0.03, 0.08, 0.2])
def test_bars_are_found_and_measured(share: float, sides: str, level: int) -> None:
    depth = round(512 * share)
    found = judged(barred(depth, sides, level))
    assert found.verdict == "fail"
    assert found.score == pytest.approx(2 * depth / 512, abs=1e-4)
    assert found.region is not None
    assert found.region.height == (512 - 2 * depth if "t" in sides else 512)
    assert ("white" if level else "black") in found.message


@pytest.mark.parametrize("side", list("tblr"))
def test_a_strip_left_undrawn_is_found(side: str) -> None:
    assert judged(barred(40, side, 128)).verdict == "fail"


@pytest.mark.parametrize(("kind", "quality"), [("JPEG", 75), ("JPEG", 92), ("WEBP", 80)])
@pytest.mark.parametrize("sides", ["tb", "lr", "tblr", "t", "r"])
@pytest.mark.parametrize("level", [0, 240])
def test_bars_are_found_through_the_ringing_of_lossy_files(
    level: int, sides: str, kind: str, quality: int
) -> None:
    """The edge lies in the middle of a block of 8, which rings all over."""
    file = io.BytesIO()
    barred(43, sides, level).save(file, kind, quality=quality)
    picture = decode(file.getvalue(), SQUARE).picture
    assert picture is not None
    found = Borders().run(picture, SQUARE)
    assert found.verdict == "fail"
    count = 2 if len(sides) > 1 else 1
    assert found.score == pytest.approx(count * 43 / 512, abs=count * 3 / 512)


def calm(strip: int, grain: float) -> Image.Image:
    """A grey wall in even light with something on it, its first rows of one colour."""
    rng = np.random.default_rng(5)
    pixels = np.full((512, 512, 3), 150.0)
    pixels[300:420, 150:400] = rng.uniform(30, 220, (120, 250, 3))
    pixels += rng.normal(0, grain, pixels.shape)
    pixels[:strip] = 16
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def test_a_strip_of_one_exact_colour_is_found_beside_a_calm_part() -> None:
    assert judged(calm(60, 1.5)).verdict == "fail"
    # A drawing has such parts: without grain nothing tells the strip from one of them.
    assert judged(calm(60, 0.0)).verdict == "pass"


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 200), st.integers(0, 255))
def test_the_depth_of_a_bar_is_exact(depth: int, level: int) -> None:
    rgb = np.asarray(barred(depth, "t", level))
    if np.abs(rgb[depth].astype(int) - level).max(axis=1).min() > 30:
        assert bars(rgb)["top"].depth == depth


def page(ground: str, ink: str) -> Image.Image:
    image = Image.new("RGB", (512, 512), ground)
    pen = ImageDraw.Draw(image)
    pen.ellipse((120, 140, 390, 400), fill=ink)
    pen.text((150, 60), "Kites", fill=ink, font_size=48)
    return image


def flag(*colours: str) -> Image.Image:
    image = Image.new("RGB", (512, 512))
    high = 512 // len(colours) + 1
    for number, colour in enumerate(colours):
        image.paste(colour, (0, number * high, 512, min(512, number * high + high)))
    return image


@pytest.mark.parametrize(
    "image",
    [
        page("white", "navy"), page("black", "gold"), scene(), full(),
        flag("white", "red", "white"), flag("black", "white", "black"), flag("red", "white", "red"),
        flag("white", "blue", "white", "white", "white", "blue", "white"),
    ],
)  # fmt: skip
def test_grounds_and_stripes_are_no_bars(image: Image.Image) -> None:
    assert judged(image).verdict == "pass"


def test_bars_around_a_page_are_found() -> None:
    image = page("white", "navy")
    image.paste("black", (0, 0, 512, 40))
    image.paste("black", (0, 472, 512, 512))
    assert judged(image).verdict == "fail"


@pytest.mark.parametrize(
    "expected",
    [
        Expected(prompt="a kite"),
        Expected(width=512, prompt="a kite in a golden frame"),
        Expected(width=512, prompt="a Polaroid of a kite"),
    ],
)
def test_a_border_may_have_been_asked_for(expected: Expected) -> None:
    assert judged(barred(40, "tblr", 255), expected).verdict == "skip"


@pytest.mark.parametrize("prompt", ["a random brand", "a crowbar", "grand opening"])
def test_words_that_only_contain_such_a_word_do_not_count(prompt: str) -> None:
    asked = Expected(width=512, prompt=prompt)
    assert judged(barred(40, "tb", 0), asked).verdict == "fail"


def test_small_pictures_are_not_judged() -> None:
    tiny: Pixels = np.zeros((90, 400, 3), np.uint8)
    assert judged(Image.fromarray(tiny)).verdict == "skip"
