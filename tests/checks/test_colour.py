import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from tasks.checks.base import Expected
from tasks.checks.colour import Cast, Palette, ciede2000, colour_bins, lab, light
from tasks.checks.logo import Logo, brand_logo
from tasks.records import Finding
from tasks.settings import DATASETS
from tests.checks.drawing import as_picture, poster, scene

GAINS = [(1.04, 0.95, 0.68), (0.72, 0.95, 1.06), (0.78, 1.04, 0.8), (1.06, 0.76, 1.0)]
BRANDS = ("northwind", "solstice", "fernhollow")


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


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=6, max_size=6))
def test_lab_and_ciede2000_agree_with_scikit_image(values: list[int]) -> None:
    one, two = np.array(values[:3], np.uint8), np.array(values[3:], np.uint8)
    assert np.allclose(lab(one), rgb2lab(one), atol=0.5)
    ours = ciede2000(rgb2lab(one), rgb2lab(two))
    assert float(ours) == pytest.approx(
        float(deltaE_ciede2000(rgb2lab(one), rgb2lab(two))), abs=1e-6
    )


def test_bins_keep_colours_and_shares() -> None:
    image = Image.new("RGB", (200, 100), (250, 10, 10))
    image.paste((10, 10, 250), (0, 0, 50, 100))
    colours, shares = colour_bins(np.asarray(image))
    assert sorted(zip(colours[:, 0].round().tolist(), shares.tolist(), strict=True)) == [
        (10, 0.25), (250, 0.75),
    ]  # fmt: skip


def cast(image: Image.Image, **expected: object) -> Finding:
    return Cast().run(as_picture(image), Expected(**expected))  # type: ignore[arg-type]


@pytest.mark.parametrize("gains", GAINS)
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


def test_without_a_reference_nothing_is_claimed() -> None:
    found = cast(tinted(scene(), GAINS[0]))
    assert found.verdict == "skip"
    assert "no reference" in found.message
    assert cast(Image.new("RGB", (60, 60)), intended_text=("a",)).verdict == "skip"


def test_a_toned_picture_is_no_cast() -> None:
    sepia = tinted(poster("Echoes").convert("L").convert("RGB"), (1.0, 0.86, 0.66))
    assert cast(sepia, intended_text=("Echoes",)).verdict == "skip"


def test_light_is_what_the_highlights_say() -> None:
    assert light(np.asarray(poster("Hi"))).ceiling > 0.98
    assert light(np.asarray(tinted(poster("Hi"), (1, 1, 0.7)))).ceiling == pytest.approx(
        0.7, abs=0.01
    )


@pytest.mark.parametrize("brand", BRANDS)
def test_the_palette_of_a_brand(brand: str) -> None:
    assert Palette().run(as_picture(branded(brand)), Expected(brand=brand)).verdict == "pass"
    found = Palette().run(
        as_picture(Image.new("RGB", (300, 300), "#00ffcc")), Expected(brand=brand)
    )
    assert found.verdict == "fail"
    assert "#" in found.message
    assert Palette().run(as_picture(scene()), Expected()).verdict == "skip"


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
