"""Text moved to the edge of a picture: where its letters are, not where a reader's box is."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.checks.planted import judge
from tasks.checks.planted_base import Good
from tasks.checks.planted_good import brand_of
from tasks.checks.planted_layout import text_at_edge
from tasks.providers.embedded.draws import generator
from tests.checks.drawing import encoded

BRAND = brand_of("northwind")
INK = (20, 20, 24)


def lettered(text: str, at: tuple[int, int], size: int = 60, tall: int = 512) -> Good:
    image = Image.new("RGB", (512, tall), "white")
    ImageDraw.Draw(image).text(at, text, fill=INK, font=ImageFont.load_default(size))
    expected = Expected(intended_text=(text,), language="en", brand="northwind")
    return Good("picture", expected, lambda: encoded(image), brand=BRAND)


def planted(good: Good, strength: float = 1.0) -> np.ndarray | None:
    shown = text_at_edge(good, strength, generator(0, "text at the edge", good.name))
    if shown is None:
        return None
    picture = decode(shown.data, shown.expected).picture
    assert picture is not None
    return picture.rgb


def ink(rgb: np.ndarray) -> tuple[int, int]:
    """Return the first column and the first row that are inked."""
    dark = rgb.max(axis=2) < 90
    return int(np.flatnonzero(dark.any(axis=0))[0]), int(np.flatnonzero(dark.any(axis=1))[0])


@pytest.mark.parametrize(("at", "side"), [((90, 200), 0), ((150, 60), 1)])
def test_letters_are_moved_to_the_nearer_edge(at: tuple[int, int], side: int) -> None:
    good = lettered("Fresh bread", at)
    rgb = planted(good)
    assert rgb is not None
    before, after = ink(good.rgb), ink(rgb)
    # Half of the margin is a hundredth.
    assert after[side] <= 5
    assert after[1 - side] == before[1 - side]


def test_the_edge_of_a_sheet_beside_the_letters_is_not_taken_for_them() -> None:
    good = lettered("Fresh bread", (90, 200))
    image = Image.fromarray(good.rgb)
    ImageDraw.Draw(image).rectangle((0, 0, 76, 511), fill=(120, 30, 40))
    sheet = Good("sheet", good.expected, lambda: encoded(image), brand=BRAND)
    rgb = planted(sheet)
    assert rgb is not None
    assert ink(rgb)[0] <= 5


def test_weaker_ones_stand_further_away() -> None:
    good = lettered("Fresh bread", (90, 200), size=20)
    columns = []
    for strength in (0.1, 1.0):
        rgb = planted(good, strength)
        assert rgb is not None
        columns.append(ink(rgb)[0])
    assert columns[0] > columns[1]


def test_what_is_planted_is_seen_and_the_good_picture_passes() -> None:
    good = lettered("Fresh bread", (90, 200))
    shown = text_at_edge(good, 1.0, generator(0, "text at the edge", good.name))
    assert shown is not None
    assert judge("composition.margins", shown) == "fail"
    assert judge("composition.margins", good.whole) == "pass"


def test_nothing_is_planted_where_no_text_is_found_or_asked_for() -> None:
    good = lettered("Fresh bread", (90, 200))
    none = Good("none", Expected(brand="northwind"), good.make, brand=BRAND)
    bare = Good("bare", good.expected, good.make)
    assert planted(none) is None
    assert planted(bare) is None
