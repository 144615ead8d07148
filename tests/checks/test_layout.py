"""The layout rules of a brand: logo, plain parts, margins, subject; and edits the right way up."""

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.checks.base import EXTRA_BOXES, TEXT_BOXES, Expected, Picture
from tasks.checks.composition import BlankPart, Margins, plain_rectangle
from tasks.checks.geometry import Aspect, Orientation
from tasks.checks.logo import Logo
from tasks.checks.subject import Subject
from tasks.providers.embedded.brands import Brand, Brands
from tasks.providers.embedded.typeset import Rect
from tasks.records import Finding
from tasks.settings import DATASETS
from tests.checks.drawing import as_picture, scene

BRAND = Expected(brand="northwind", width=512, height=512, prompt="a kite")


@functools.cache
def brand() -> Brand:
    return Brands(DATASETS / "brands").get("northwind")


def with_logo(
    dx: int = 0, dy: int = 0, scale: float = 1.0, logo: Image.Image | None = None
) -> Image.Image:
    image = scene()
    place = brand().place(512, 512)
    left, top = place.left + dx, place.top + dy
    across, down = round(place.width * scale), round(place.height * scale)
    drawn = replace(brand(), logo=logo or brand().logo)
    drawn.draw(image, Rect(left, top, left + across, top + down))
    return image


def logo_of(image: Image.Image) -> Finding:
    return Logo().run(as_picture(image), BRAND)


def rolled(shift: int) -> Image.Image:
    hsv = np.array(brand().logo.convert("RGB").convert("HSV"))
    hsv[:, :, 0] = hsv[:, :, 0] + np.uint8(shift)
    image = Image.fromarray(hsv, "HSV").convert("RGB")
    image.putalpha(brand().logo.getchannel("A"))
    return image


def test_the_logo_at_its_place_passes() -> None:
    found = logo_of(with_logo())
    assert (found.verdict, found.message) == ("pass", "")
    assert logo_of(with_logo(dx=10, dy=6)).verdict == "pass"
    assert logo_of(with_logo(scale=1.1)).verdict == "pass"


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (scene(), "missing"),
        (with_logo(dx=-22), "outside the safe area"),
        (with_logo(dx=370), "at top-right instead of top-left"),
        (with_logo(dx=60, dy=40), "away from its place"),
        (with_logo(scale=1.5), "of its width"),
        (with_logo(scale=0.6), "of its width"),
        (with_logo(logo=brand().logo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), "mirrored"),
        (with_logo(logo=brand().logo.transpose(Image.Transpose.FLIP_TOP_BOTTOM)), "upside down"),
        (with_logo(logo=brand().logo.transpose(Image.Transpose.ROTATE_180)), "turned by half"),
        (with_logo(logo=rolled(60)), "other colours"),
        (with_logo(logo=rolled(128)), "other colours"),
    ],
)  # fmt: skip
def test_what_became_of_the_logo_is_said(image: Image.Image, says: str) -> None:
    found = logo_of(image)
    assert found.verdict == "fail"
    assert says in found.message


def test_the_logo_may_stand_in_the_other_colours_of_the_kit(tmp_path: Path) -> None:
    folder = tmp_path / "brands" / "northwind"
    shutil.copytree(DATASETS / "brands" / "northwind", folder)
    rolled(128).save(folder / "logo-other.png")
    file = folder / "brand.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    value["logo"]["recolours"] = ["logo-other.png"]
    file.write_text(json.dumps(value), encoding="utf-8")
    check = Logo(datasets=tmp_path)
    for logo in (brand().logo, rolled(128)):
        assert check.run(as_picture(with_logo(logo=logo)), BRAND).verdict == "pass"
    assert check.run(as_picture(with_logo(logo=rolled(60))), BRAND).verdict == "fail"


def test_a_second_logo_is_counted() -> None:
    image = with_logo()
    place = brand().place(512, 512)
    brand().draw(image, Rect(300, 330, 300 + place.width, 330 + place.height))
    assert "stands 2 times" in logo_of(image).message


def test_the_largest_plain_rectangle_is_found() -> None:
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 255, (512, 512, 3), dtype=np.uint8)
    noise[128:384, 64:448] = (20, 90, 160)
    share, where = plain_rectangle(noise)
    assert share == pytest.approx(256 * 384 / 512**2, abs=0.03)
    assert abs(where.x - 64) <= 8
    assert abs(where.y - 128) <= 8


def test_an_undrawn_part_fails_and_a_gradient_does_not() -> None:
    half = scene()
    half.paste("#808080", (0, 200, 512, 512))
    found = BlankPart().run(as_picture(half), BRAND)
    assert found.verdict == "fail"
    assert found.region is not None
    ramp = np.tile(np.linspace(40, 200, 512)[None, :, None], (512, 1, 3)).astype(np.uint8)
    assert BlankPart().run(Picture(ramp, b"", "image/png"), BRAND).verdict == "pass"
    assert BlankPart().run(as_picture(half), Expected()).verdict == "skip"


@pytest.mark.parametrize(
    ("box", "verdict"),
    [("40,40,200,50", "pass"), ("0,40,200,50", "fail"), ("300,470,210,42", "fail")],
)
def test_text_keeps_its_margin(box: str, verdict: str) -> None:
    asked = replace(BRAND, intended_text=("Kites",))
    shown = replace(as_picture(scene()), notes={TEXT_BOXES: ("100,100,50,20", box)})
    assert Margins().run(shown, asked).verdict == verdict
    assert Margins().run(as_picture(scene()), asked).verdict == "skip"
    assert Margins().run(shown, Expected(intended_text=("Kites",))).verdict == "skip"


def test_margins_are_not_kept_by_what_stands_elsewhere() -> None:
    """Nobody knows where a text is that was not found: it may be cut off at the edge."""
    asked = replace(BRAND, intended_text=("Kites",))
    for word, verdict in (("absent", "skip"), ("wrong text", "skip"), ("minor", "pass")):
        notes = {TEXT_BOXES: ("100,100,50,20",), "text_severity": (word,)}
        found = Margins().run(replace(as_picture(scene()), notes=notes), asked)
        assert found.verdict == verdict, word


def test_a_text_that_stands_there_twice_keeps_its_margin_twice() -> None:
    asked = replace(BRAND, intended_text=("Kites",))
    for line, verdict in (("KITES", "fail"), ("More kites", "pass")):
        notes = {
            TEXT_BOXES: ("100,100,50,20",),
            EXTRA_BOXES: ("90,300,50,20", "0,200,50,20"),
            "extra_text": ("Kites", line),
        }
        found = Margins().run(replace(as_picture(scene()), notes=notes), asked)
        assert found.verdict == verdict, line


@pytest.mark.parametrize(("left", "verdict"), [(120, "pass"), (12, "pass"), (0, "fail")])
def test_large_letters_are_judged_by_what_stands_out_in_their_wide_box(
    left: int, verdict: str
) -> None:
    """Half of their height wider on each side: it reaches the edge long before they do."""
    rgb = np.full((512, 512, 3), 240, np.uint8)
    for at in range(left, left + 240, 60):
        rgb[180:330, at : at + 30] = 20
    shown = Picture(rgb, b"", "image/png", notes={TEXT_BOXES: ("0,100,420,310",)})
    found = Margins().run(shown, replace(BRAND, intended_text=("Kites",)))
    assert found.verdict == verdict, found


def test_a_box_from_edge_to_edge_says_nothing_of_where_its_letters_are() -> None:
    rgb = np.full((512, 512, 3), 240, np.uint8)
    rgb[180:330, 120:360:40] = 20
    rgb[100:170, 440:] = 20  # The pen that wrote them reaches out of the picture.
    shown = Picture(rgb, b"", "image/png", notes={TEXT_BOXES: ("0,0,512,450",)})
    found = Margins().run(shown, replace(BRAND, intended_text=("Kites",)))
    assert (found.verdict, found.message) == (
        "skip",
        "the letters are too large to tell where they end",
    )


def mug(x: int, y: int) -> Picture:
    image = Image.new("RGB", (512, 512), "#E8E4DC")
    ImageDraw.Draw(image).rounded_rectangle((x, y, x + 160, y + 180), 24, fill="#A02020")
    return as_picture(image)


@pytest.mark.parametrize(
    ("picture", "verdict", "says"),
    [
        (mug(180, 200), "pass", ""),
        (mug(-60, 200), "fail", "cut off at the left"),
        (mug(420, 200), "fail", "cut off at the right"),
        (mug(180, 420), "fail", "cut off at the bottom"),
        (as_picture(scene()), "skip", "clearly"),
        (as_picture(Image.new("RGB", (512, 512), "white")), "skip", "clearly"),
    ],
)
def test_a_subject_is_judged_where_it_is_clear(picture: Picture, verdict: str, says: str) -> None:
    found = Subject().run(picture, BRAND)
    assert found.verdict == verdict
    assert says in found.message
    assert Subject().run(picture, Expected()).verdict == "skip"


def lying(turns: int = 0, *, flip: bool = False) -> Finding:
    upload = np.asarray(scene(480, 360, seed=5))
    edit = np.clip(upload.astype(float) ** 0.9 * 1.6, 0, 255).astype(np.uint8)
    shown = np.rot90(edit[:, ::-1] if flip else edit, turns)
    picture = Picture(np.ascontiguousarray(shown), b"", "image/png", references={"upload": upload})
    return Orientation().run(picture, Expected())


def test_an_edit_lies_as_its_upload() -> None:
    assert lying().verdict == "pass"
    assert "to the left" in lying(1).message
    assert "upside down" in lying(2).message
    assert "to the right" in lying(3).message
    assert "mirrored" in lying(flip=True).message
    assert Orientation().run(as_picture(scene()), Expected()).verdict == "skip"


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_an_edit_that_shows_a_corner_of_its_upload_lies_as_it_does(turns: int, flip: bool) -> None:
    upload = np.asarray(scene(480, 360, seed=5))
    crop = upload[:280, 160:]
    edit = np.rot90(crop[:, ::-1] if flip else crop, turns)
    shown = Picture(np.ascontiguousarray(edit), b"", "image/png", references={"upload": upload})
    upright = turns == 0 and not flip
    assert Orientation().run(shown, Expected()).verdict == ("pass" if upright else "fail")


def test_a_picture_that_is_its_own_mirror_image_is_not_mirrored() -> None:
    half = np.asarray(scene(240, 360, seed=5))
    upload = np.concatenate([half, half[:, ::-1]], axis=1)
    mirrored = np.ascontiguousarray(upload[:, ::-1])
    shown = Picture(mirrored, b"", "image/png", references={"upload": upload})
    assert Orientation().run(shown, Expected()).verdict == "pass"


def test_a_strip_is_laid_over_its_upload_too() -> None:
    upload = np.asarray(scene(900, 140, seed=5))
    for edit, verdict in ((upload, "pass"), (np.ascontiguousarray(upload[::-1]), "fail")):
        shown = Picture(edit, b"", "image/png", references={"upload": upload})
        assert Orientation().run(shown, Expected()).verdict == verdict


def test_a_plain_or_another_picture_says_nothing_of_its_orientation() -> None:
    plain = np.full((300, 300, 3), 90, np.uint8)
    for upload in (plain, np.asarray(scene(300, 300, seed=9))):
        shown = replace(as_picture(scene(300, 300, seed=1)), references={"upload": upload})
        assert Orientation().run(shown, Expected()).verdict == "skip"


def test_the_right_shape_on_its_side_is_named() -> None:
    found = Aspect().run(as_picture(Image.new("RGB", (384, 512))), Expected(aspect=4 / 3))
    assert "portrait where landscape was asked for" in found.message
