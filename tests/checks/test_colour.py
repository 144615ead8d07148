"""Cast, channels, palette and logo on pictures that the tests draw."""

import numpy as np
import pytest
from PIL import Image

from tasks.checks.base import Expected, Picture, Role
from tasks.checks.colour import Cast, Palette, is_warm, light
from tasks.checks.colour_channels import Channels, ordered
from tasks.checks.colour_reference import ORDERS, overlay
from tasks.checks.colour_words import asks_for_colour, asks_for_light
from tasks.checks.logo import Logo, brand_logo
from tasks.records import Finding
from tasks.settings import DATASETS
from tests.checks.drawing import as_picture, poster, scene

GAINS = [(1.04, 0.95, 0.68), (0.72, 0.95, 1.06), (0.78, 1.04, 0.8), (1.06, 0.76, 1.0)]
BRANDS = ("northwind", "solstice", "fernhollow")
#: What is left of red once a warm light was taken off: all of it, rather little, too little.
GONE = (1.0, 0.87, 0.7)
EDIT = Expected(subtask="edit", prompt="Remove the noise")
UNKNOWN = {"colour_profile": ("unknown", "CMYK without a profile")}


def tinted(image: Image.Image, gains: tuple[float, ...]) -> Image.Image:
    lit = np.asarray(image).astype(np.float64) * gains
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


def branded(name: str, shift: tuple[int, int] = (0, 0), *, logo: bool = True) -> Image.Image:
    """A scene in the brand's colours with its logo at its place, moved by ``shift``."""
    kit, pixels = brand_logo(name, DATASETS)
    image = Image.new("RGB", (512, 512), kit.colours[0])
    for number, colour in enumerate(kit.colours):
        image.paste(colour, (100 + 80 * number, 200, 170 + 80 * number, 330))
    if logo:
        place = kit.logo_region(512, 512, pixels.shape[1] / pixels.shape[0])
        drawn = Image.fromarray(pixels).resize((place.width, place.height))
        image.paste(drawn, (place.x + shift[0], place.y + shift[1]), drawn)
    return image


def beside(image: Image.Image, before: Image.Image | None, role: Role = "upload") -> Picture:
    """A picture beside what it was made from; ``None`` is one that cannot be read."""
    pixels = None if before is None else np.asarray(before)
    return Picture(
        rgb=np.asarray(image.convert("RGB")), data=b"", mime="", references={role: pixels}
    )


def cast(image: Image.Image, **expected: object) -> Finding:
    return Cast().run(as_picture(image), Expected(**expected))  # type: ignore[arg-type]


@pytest.mark.parametrize("gains", GAINS[1:])
def test_a_cast_over_set_type_is_found(gains: tuple[float, ...]) -> None:
    image = poster("Summer Sale")
    assert cast(image, intended_text=("Summer Sale",)).verdict == "pass"
    found = cast(tinted(image, gains), intended_text=("Summer Sale",))
    assert found.verdict == "fail"
    assert "cast towards" in found.message


@pytest.mark.parametrize("gains", GAINS)
@pytest.mark.parametrize("brand", BRANDS)
def test_a_cast_over_a_brand_picture_is_found(brand: str, gains: tuple[float, ...]) -> None:
    image = branded(brand)
    assert cast(image, brand=brand).verdict == "pass"
    assert cast(tinted(image, gains), brand=brand).verdict == "fail"


def test_the_grain_of_a_camera_is_no_cast() -> None:
    rng = np.random.default_rng(2)
    noisy = np.asarray(branded("northwind")) + rng.normal(0, 6, (512, 512, 3))
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    assert cast(image, brand="northwind").verdict == "pass"


def test_without_a_reference_nothing_is_claimed() -> None:
    found = cast(tinted(scene(), GAINS[0]))
    assert found.verdict == "skip"
    assert "no reference" in found.message
    assert cast(Image.new("RGB", (60, 60)), intended_text=("a",)).verdict == "skip"


def test_a_warm_tint_over_set_type_may_be_meant() -> None:
    """Old paper, gold on black: only a logo, an upload or the baseline's picture can tell."""
    for gains in ((1.0, 0.9, 0.7), (1.0, 0.85, 0.75), (1.0, 0.96, 0.7)):
        found = cast(tinted(poster("Menu"), gains), intended_text=("Menu",))
        assert (found.verdict, "may be meant" in found.message) == ("skip", True), gains
        assert cast(tinted(branded("northwind"), gains), brand="northwind").verdict == "fail"
    assert [is_warm(np.array(gains)) for gains in GAINS] == [True, False, False, False]


def test_coloured_light_that_was_asked_for_is_no_cast() -> None:
    image = tinted(poster("Sale"), GAINS[1])
    asked = cast(image, intended_text=("Sale",), prompt="A poster at golden hour")
    assert asked.verdict == "skip"
    assert "coloured light" in asked.message
    quoted = cast(image, intended_text=("Sale",), prompt='A poster with "Golden Hour" on it')
    assert quoted.verdict == "fail"


def test_a_toned_picture_is_no_cast() -> None:
    sepia = tinted(poster("Echoes").convert("L").convert("RGB"), (1.0, 0.86, 0.66))
    assert cast(sepia, intended_text=("Echoes",)).verdict == "skip"


def test_light_is_what_the_highlights_say() -> None:
    assert light(np.asarray(poster("Hi"))).ceiling > 0.98
    assert light(np.asarray(tinted(poster("Hi"), (1, 1, 0.7)))).ceiling == pytest.approx(
        0.7, abs=0.01
    )


@pytest.mark.parametrize("role", ["upload", "source"])
@pytest.mark.parametrize("gains", GAINS)
def test_a_cast_is_found_against_what_went_in(gains: tuple[float, ...], role: Role) -> None:
    image = scene()
    asked = Expected(subtask="edit", prompt="Remove the noise")
    found = Cast().run(beside(tinted(image, gains), image, role), asked)
    assert found.verdict == "fail"
    assert f"against the {role}" in found.message
    # Cropped, brighter and a little warmer: what an edit may do.
    good = tinted(image.crop((40, 30, 480, 470)), (1.12, 1.1, 1.06))
    assert Cast().run(beside(good, image, role), asked).verdict == "pass"


@pytest.mark.parametrize("gains", GAINS)
def test_a_cast_is_found_against_the_baselines_picture_of_the_same_scene(
    gains: tuple[float, ...],
) -> None:
    before = scene(seed=7)
    asked = Expected(prompt="a mug on a table")
    assert Cast().run(beside(before, before, "baseline"), asked).verdict == "pass"
    found = Cast().run(beside(tinted(before, gains), before, "baseline"), asked)
    assert found.verdict == "fail"
    assert "baseline's picture" in found.message
    # From a baseline with a cast to a picture without one is a correction.
    better = Cast().run(beside(before, tinted(before, gains), "baseline"), asked)
    assert better.verdict != "fail"


def test_a_baseline_that_drew_something_else_or_nothing_says_nothing() -> None:
    shown = tinted(scene(seed=7), GAINS[0])
    for check in (Cast(), Channels()):
        for before in (scene(seed=8), None):
            found = check.run(beside(shown, before, "baseline"), Expected(prompt="a mug"))
            assert found.verdict == "skip", found
    warm = Expected(prompt="a mug in golden light")
    assert Cast().run(beside(shown, scene(seed=7), "baseline"), warm).verdict == "skip"


def test_the_word_of_a_baseline_with_the_same_cast_is_not_the_last() -> None:
    shown = tinted(poster("Summer Sale"), GAINS[1])
    asked = Expected(intended_text=("Summer Sale",), prompt="a poster")
    assert Cast().run(beside(shown, shown, "baseline"), asked).verdict == "fail"


def test_exchanged_channels_are_found_by_the_baselines_picture() -> None:
    before = scene(seed=7)
    shown = Image.fromarray(ordered(np.asarray(before.convert("RGB")), (2, 1, 0)))
    assert Channels().run(beside(shown, before, "baseline"), Expected()).verdict == "fail"
    assert Channels().run(beside(before, before, "baseline"), Expected()).verdict == "pass"


def test_a_correction_moves_as_far_and_is_no_cast() -> None:
    image = scene()
    warm = tinted(image, (1.0, 0.9, 0.6))
    asked = Expected(subtask="edit", prompt="Neutral white balance, please")
    assert Cast().run(beside(image, warm), asked).verdict == "pass"
    assert Cast().run(beside(tinted(image, (0.6, 0.9, 1.0)), warm), asked).verdict == "fail"
    assert Cast().run(beside(warm, warm), asked).verdict == "skip"


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("lamp", [(1.0, 0.85, 0.5), (0.55, 0.8, 1.0), (1.0, 0.8, 0.65)])
def test_light_taken_off_in_part_or_whole_is_no_cast_and_another_one_is(
    lamp: tuple[float, ...], part: float
) -> None:
    image = scene()
    before = tinted(image, lamp)
    after = tinted(image, tuple(gain**part for gain in lamp))
    asked = Expected(subtask="edit", prompt="Correct the exposure")
    assert Cast().run(beside(after, before), asked).verdict != "fail"
    # The lamp's light is gone, and another one lies there.
    green = Cast().run(beside(tinted(after, (0.65, 1.0, 0.65)), before), asked)
    assert green.verdict == "fail"
    assert green.score is not None
    assert green.limit is not None
    assert green.score <= green.limit


def test_what_may_be_a_correction_and_may_be_a_cast_is_not_passed() -> None:
    image = scene()
    warm = tinted(image, (1.0, 0.9, 0.75))
    found = [Cast().run(beside(tinted(image, (gain, 1.0, 1.0)), warm), EDIT) for gain in GONE]
    assert [one.verdict for one in found] == ["pass", "skip", "fail"]
    assert "cannot be told" in found[1].message


def test_an_enlargement_may_not_even_correct() -> None:
    image = scene()
    warm = tinted(image, (1.0, 0.88, 0.66))
    assert Cast().run(beside(image, warm), EDIT).verdict == "pass"
    found = Cast().run(beside(image, warm, "source"), Expected(subtask="upscale"))
    assert found.verdict == "fail"
    assert "against the source" in found.message


def test_an_edit_that_may_be_tinted_or_shows_something_else_is_skipped() -> None:
    image = tinted(scene(), GAINS[0])
    warm = Expected(subtask="edit", prompt="Warm up the white balance a little")
    assert Cast().run(beside(image, scene()), warm).verdict == "skip"
    # An enlargement is never asked for colours: its prompt was for the small picture.
    assert Cast().run(beside(image, scene(), "source"), warm).verdict == "fail"
    other = Cast().run(beside(scene(seed=2), scene(seed=7)), Expected(prompt="Sharpen"))
    assert other.verdict == "skip"
    with pytest.raises(ValueError, match="cannot be read"):
        Cast().run(beside(image, None), Expected())


def test_what_the_mask_gives_away_is_not_compared() -> None:
    image = scene()
    changed = image.copy()
    changed.paste(tinted(image.crop((0, 0, 512, 300)), (0.5, 0.6, 1.0)), (0, 0))
    mask = Image.new("RGB", image.size)
    mask.paste("white", (0, 0, 512, 300))
    both = overlay(np.asarray(changed), np.asarray(image), np.asarray(mask))
    assert both is not None
    assert np.abs(both.picture.astype(int) - both.upload.astype(int)).max() <= 2
    everything = Image.new("RGB", image.size, "white")
    assert overlay(np.asarray(changed), np.asarray(image), np.asarray(everything)) is None


@pytest.mark.parametrize("order", ORDERS[1:])
def test_exchanged_channels_are_found_by_the_upload(order: tuple[int, int, int]) -> None:
    image = scene(seed=4)
    wrong = Image.fromarray(ordered(np.asarray(image), order))
    found = Channels().run(beside(wrong, image), Expected(subtask="edit"))
    assert found.verdict == "fail"
    undone = "".join("RGB"[order.index(channel)] for channel in range(3))
    assert found.message.endswith(f"in the order {undone}")
    assert Channels().run(beside(image, image), Expected()).verdict == "pass"
    # Another white balance is no exchange.
    assert Channels().run(beside(tinted(image, GAINS[0]), image), Expected()).verdict == "pass"


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize("brand", BRANDS)
def test_exchanged_channels_are_found_by_the_logo(brand: str, order: tuple[int, int, int]) -> None:
    image = branded(brand)
    assert Channels().run(as_picture(image), Expected(brand=brand)).verdict == "pass"
    wrong = Image.fromarray(ordered(np.asarray(image), order))
    assert Channels().run(as_picture(wrong), Expected(brand=brand)).verdict == "fail"


def test_without_colour_or_reference_channels_are_skipped() -> None:
    assert "no reference" in Channels().run(as_picture(scene()), Expected()).message
    grey = scene().convert("L").convert("RGB")
    assert "hardly any colour" in Channels().run(beside(grey, grey), Expected()).message
    lost = Channels().run(as_picture(branded("solstice", logo=False)), Expected(brand="solstice"))
    assert "not surely there" in lost.message
    assert Channels().run(beside(scene(seed=2), scene(seed=7)), Expected()).verdict == "skip"
    assert Channels().run(as_picture(Image.new("RGB", (60, 60))), Expected()).verdict == "skip"


def test_colours_that_nobody_knows_are_not_judged() -> None:
    picture = Picture(
        rgb=np.asarray(branded("northwind")), data=b"", mime="image/jpeg", notes=dict(UNKNOWN)
    )
    for check in (Cast(), Channels(), Palette()):
        found = check.run(picture, Expected(brand="northwind"))
        assert found.verdict == "skip"
        assert "CMYK without a profile" in found.message


@pytest.mark.parametrize(
    "prompt",
    [
        "A poster at golden hour", "Neon sign above a bar", "in warm ochres", "im Abendlicht",
        "une rue, lumière chaude", "al atardecer", "夕暮れの街", "sepia photograph",
        "black-and-white portrait", "вечерний свет", "zachód słońca", "luce del tramonto",
    ],
)  # fmt: skip
def test_prompts_that_ask_for_light(prompt: str) -> None:
    assert asks_for_light(prompt)
    assert asks_for_colour(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        None, "", "Remove the noise", 'Add "Golden Hour" at the top', "Correct the colours",
        "Brighten this photo and keep the colours natural", "Neutral white balance, please",
        "Reduce the blur", "Turn the photo upright and correct the light", "cooler for drinks",
        "Bitte das Bild aufhellen und entrauschen", "Turn this into a catalogue photo",
    ],
)  # fmt: skip
def test_prompts_that_ask_for_no_colour(prompt: str | None) -> None:
    assert not asks_for_light(prompt)
    assert not asks_for_colour(prompt)


def test_names_of_colours_count_only_in_edits() -> None:
    for prompt in ("Put it before a navy wall", "a red mug", "背景を緑に"):
        assert asks_for_colour(prompt)
        assert not asks_for_light(prompt)


@pytest.mark.parametrize("brand", BRANDS)
def test_the_palette_of_a_brand(brand: str) -> None:
    assert Palette().run(as_picture(branded(brand)), Expected(brand=brand)).verdict == "pass"
    found = Palette().run(
        as_picture(Image.new("RGB", (300, 300), "#00ffcc")), Expected(brand=brand)
    )
    assert found.verdict == "fail"
    assert "#" in found.message
    assert Palette().run(as_picture(scene()), Expected()).verdict == "skip"


@pytest.mark.parametrize("brand", BRANDS)
def test_the_logo_alone_does_not_make_the_palette(brand: str) -> None:
    kit, pixels = brand_logo(brand, DATASETS)
    image = Image.new("RGB", (512, 512), (120, 130, 125))
    place = kit.logo_region(512, 512, pixels.shape[1] / pixels.shape[0])
    drawn = Image.fromarray(pixels).resize((place.width, place.height))
    image.paste(drawn, (place.x, place.y), drawn)
    found = Palette().run(as_picture(image), Expected(brand=brand))
    assert found.verdict == "fail"
    assert "(0.0%)" in found.message


def test_white_alone_proves_no_palette() -> None:
    white = Palette().run(
        as_picture(Image.new("RGB", (300, 300), "white")), Expected(brand="northwind")
    )
    assert (white.verdict, white.score) == ("fail", 0.0)


def logo(image: Image.Image, brand: str | None) -> Finding:
    return Logo().run(as_picture(image), Expected(brand=brand))


@pytest.mark.parametrize("brand", BRANDS)
def test_the_logo_is_found_at_its_place(brand: str) -> None:
    found = logo(branded(brand), brand)
    assert (found.verdict, found.message) == ("pass", "")
    assert found.score is not None
    assert found.score > 0.9
    kit, pixels = brand_logo(brand, DATASETS)
    place = kit.logo_region(512, 512, pixels.shape[1] / pixels.shape[0])
    assert found.region is not None
    assert abs(found.region.x - place.x) <= 4
    assert abs(found.region.y - place.y) <= 4


@pytest.mark.parametrize("brand", BRANDS)
def test_a_missing_logo_is_found(brand: str) -> None:
    found = logo(branded(brand, logo=False), brand)
    assert found.verdict == "fail"
    assert "missing" in found.message
    assert logo(scene(), brand).verdict == "fail"


@pytest.mark.parametrize("brand", BRANDS)
def test_a_logo_outside_the_safe_area_is_found(brand: str) -> None:
    kit, _ = brand_logo(brand, DATASETS)
    x = -24 if "left" in kit.logo.position else 24
    y = -24 if "top" in kit.logo.position else 24
    found = logo(branded(brand, (x, y)), brand)
    assert found.verdict == "fail"
    assert "outside the safe area" in found.message


def test_a_logo_in_another_corner_or_twice_is_found() -> None:
    assert "instead of top-left" in logo(branded("northwind", (330, 0)), "northwind").message
    twice = branded("northwind")
    twice.paste(twice.crop((20, 20, 130, 130)), (380, 380))
    assert "stands 2 times" in logo(twice, "northwind").message


def test_no_brand_is_skipped_and_an_unknown_one_breaks() -> None:
    assert logo(scene(), None).verdict == "skip"
    with pytest.raises(Exception, match="no such kit"):
        logo(scene(), "nobody")
