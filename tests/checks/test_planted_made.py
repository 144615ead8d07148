"""Pictures of people made into what a brand asks for, and letters exchanged in their type."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks.base import Expected, Picture
from tasks.checks.colour import Palette
from tasks.checks.planted import DEFECTS, judge
from tasks.checks.planted_base import Good
from tasks.checks.planted_frame import STUDIO_JUDGED
from tasks.checks.planted_good import brand_of, drawn
from tasks.checks.planted_letters import _alone, exchanged_letters
from tasks.checks.planted_made import full, in_colours, print_of, printed, roomy
from tasks.checks.planted_pixels import shows_light
from tasks.checks.subject import Subject
from tests.checks.drawing import as_picture, encoded, poster, scene

BRAND = brand_of("northwind")


def good_of(image: Image.Image, *text: str) -> Good:
    expected = Expected(intended_text=text, language="en", prompt="a picture")
    return Good("picture", expected, lambda: encoded(image))


def verdict(check: Palette | Subject, good: Good) -> str:
    return check.run(as_picture(Image.fromarray(good.rgb)), good.expected).verdict


def test_room_is_more_than_the_margin_on_all_sides() -> None:
    good = good_of(scene(400, 200), "Open")
    made = roomy(good, BRAND)
    (height, width), limit = made.rgb.shape[:2], BRAND.kit.layout.margin
    assert limit is not None
    room = (height - 200) // 2
    assert (width - 400) // 2 == room
    assert room / height > limit
    assert np.array_equal(made.rgb[room:-room, room:-room], good.rgb)
    assert (made.judged, made.expected.brand) == ({"composition.margins"}, "northwind")
    assert made.expected.intended_text == ("Open",)


def test_letters_that_touch_the_edge_are_not_drawn_out_with_it() -> None:
    rgb = np.full((300, 400, 3), (240, 230, 220), np.uint8)
    rgb[120:160, :8] = rgb[140:148, -40:] = rgb[-9:, 200:212] = 20
    rgb[:, -180:-80] = (90, 140, 200)  # What is wide goes on.
    made = roomy(good_of(Image.fromarray(rgb), "Open"), BRAND).rgb.copy()
    room = (made.shape[0] - 300) // 2
    inside = made[room:-room, room:-room].copy()
    made[room:-room, room:-room] = 240
    assert np.array_equal(inside, rgb)
    assert made.min() > 60
    assert abs(made[2, room + 270].astype(int) - (90, 140, 200)).max() < 12


def test_a_band_has_the_colours_of_the_brand_and_turned_hues_take_them_away() -> None:
    picture = scene(320, 240)
    grey = replace(good_of(picture.convert("L")), expected=Expected(brand="northwind"))
    assert verdict(Palette(), grey) == "fail"
    made = in_colours(good_of(picture), BRAND)
    assert verdict(Palette(), made) == "pass"
    turned = next(d for d in DEFECTS if d.name == "hues turned")
    planted = turned.plant(made, turned.strength, np.random.default_rng(1))
    assert planted is not None
    assert judge("colour.palette", planted) == "fail"


def test_only_a_picture_that_is_nowhere_plain_is_full() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    made = full(good_of(Image.fromarray(noise)), BRAND)
    assert made is not None
    assert np.array_equal(made.rgb, noise)
    noise[:, 60:] = 200
    assert full(good_of(Image.fromarray(noise)), BRAND) is None


def test_a_print_is_whole_or_cut_off_on_a_plain_ground() -> None:
    pixels = np.asarray(scene(300, 260, seed=2))
    one, two = (printed(pixels, BRAND, cut, np.random.default_rng(0)) for cut in (0.0, 0.4))
    assert one is not None
    assert two is not None
    # The same ground and the same size: only the place differs.
    assert one.shape == two.shape
    made = print_of(good_of(scene(300, 260, seed=2)), BRAND, 0)
    assert made is not None
    assert verdict(Subject(), made) == "pass"
    cut = next(d for d in DEFECTS if d.check == "composition.subject")
    planted = cut.plant(made, cut.strength, np.random.default_rng(3))
    assert planted is not None
    assert planted.of is not None
    assert verdict(Subject(), planted.of) == "pass"
    assert judge("composition.subject", planted) == "fail"


def test_a_print_that_no_ground_of_the_brand_shows_is_not_made() -> None:
    grounds = np.array(BRAND.kit.colours, np.uint8)
    # Each colour of the brand along a part of the edge.
    rgb = np.repeat(grounds, 40, axis=0)[None].repeat(200, axis=0)
    assert print_of(good_of(Image.fromarray(rgb)), BRAND, 0) is None


def test_letters_of_a_line_change_places_and_nothing_else_does() -> None:
    image = poster("HELLO WORLD")
    picture, expected = as_picture(image), Expected(intended_text=("HELLO WORLD",), language="en")
    changed = exchanged_letters(picture, expected, np.random.default_rng(0))
    assert changed is not None
    rows, columns = np.nonzero((changed != picture.rgb).any(axis=2))
    assert 90 < rows.min() <= rows.max() < 160
    assert 16 < columns.min() <= columns.max() < 400
    bare = Picture(np.full((200, 200, 3), 250, np.uint8), b"", "image/png")
    assert exchanged_letters(bare, expected, np.random.default_rng(0)) is None


def swapped_places(shown: Picture, text: str) -> list[set[int]]:
    """Return which of 40 pixels' columns changed, for each of 8 draws."""
    found = []
    for seed in range(8):
        expected = Expected(intended_text=(text,), language="en")
        changed = exchanged_letters(shown, expected, np.random.default_rng(seed))
        assert changed is not None
        columns = np.nonzero((changed != shown.rgb).any(axis=(0, 2)))[0]
        found.append({int(column) // 40 for column in columns})
    return found


def spaced(text: str) -> Picture:
    """Return a picture with a letter every 40 pixels."""
    image = Image.new("RGB", (40 * len(text) + 80, 120), "white")
    draw = ImageDraw.Draw(image)
    for number, letter in enumerate(text):
        place = (40 * number + 60, 80)
        draw.text(place, letter, fill="black", font=ImageFont.load_default(44), anchor="ms")
    return as_picture(image)


def test_a_letter_does_not_change_places_with_the_same_letter() -> None:
    for places in swapped_places(spaced("NEeRe"), "NEeRe"):
        # The second, third and fifth are one letter: one of the others must have moved.
        assert places & {1, 4}


def test_letters_are_exchanged_only_where_they_are_those_of_the_text() -> None:
    other = Expected(intended_text=("MONDAY",), language="en")
    assert exchanged_letters(spaced("HELLO"), other, np.random.default_rng(0)) is None


def test_what_has_strokes_above_it_is_no_letter_but_a_part_of_one() -> None:
    line = np.full((40, 60, 3), 240, np.uint8)
    line[15:25, 20:30] = 20
    ink, part = (line[:, :, 0] < 100).astype(np.uint8), (slice(15, 25), slice(20, 30))
    assert _alone(ink, part, line)
    line[4:12, 20:30] = 60
    assert not _alone(ink, part, line)


def test_a_studio_picture_is_good_for_some_checks_and_has_no_text() -> None:
    good = drawn(5, 10)
    assert good.name == "studio 5/10"
    assert good.data == drawn(5, 10).data
    assert good.judged == STUDIO_JUDGED
    assert (good.job, good.expected.intended_text) == (None, ())
    assert verdict(Subject(), good) == "pass"


@pytest.mark.parametrize(
    ("share", "coloured", "shows"), [(0.5, 0.2, True), (0.1, 0.2, False), (0.9, 0.0, False)]
)
def test_a_cast_shows_beside_something_grey_and_something_coloured(
    share: float, coloured: float, shows: bool
) -> None:
    rgb = np.full((100, 100, 3), (150, 140, 120), np.uint8)
    rgb[: int(100 * share)] = 180
    if coloured:
        rgb[100 - int(100 * coloured) :] = (200, 30, 40)
    assert shows_light(rgb) == shows
