from functools import cache

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks.base import Check, Expected, Picture, Pixels
from tasks.checks.upscale import (
    Detail,
    Faithful,
    Halos,
    detail_gain,
    pair,
    same_shape,
    sharpening,
    similarity,
)
from tasks.checks.upscale_text import Seen, Text, _weight, changed_parts, compare
from tasks.providers.embedded.upscale import upscale
from tasks.records import Finding
from tests.checks.drawing import poster, scene

CHECKS: tuple[Check, ...] = (Faithful(), Halos(), Detail(), Text())


@cache
def small(kind: str = "poster") -> Pixels:
    image = poster("Fresh Bread", "every day", size=36) if kind == "poster" else scene(seed=7)
    return np.asarray(image.resize((256, 256), Image.Resampling.BOX))


@cache
def large(kind: str = "poster") -> Pixels:
    return upscale(small(kind))


def judged(check: Check, result: Pixels, source: Pixels | None) -> Finding:
    references = {} if source is None else {"source": source}
    picture = Picture(rgb=result, data=b"", mime="image/png", references=references)  # type: ignore[arg-type]
    return check.run(picture, Expected())


@pytest.mark.parametrize("kind", ["poster", "scene"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_real_upscaler_passes(check: Check, kind: str) -> None:
    found = judged(check, large(kind), small(kind))
    assert (found.verdict, found.message, found.region) == ("pass", "", None)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_without_a_source_nothing_is_said(check: Check) -> None:
    found = judged(check, large(), None)
    assert found.verdict == "skip"
    assert "no source" in found.message
    tiny = small()[:32, :32]
    assert judged(check, tiny.repeat(2, 0).repeat(2, 1), tiny).verdict == "skip"


def test_a_source_that_cannot_be_read_is_a_fault_not_a_bad_picture() -> None:
    picture = Picture(rgb=large(), data=b"", mime="image/png", references={"source": None})
    with pytest.raises(ValueError, match="source"):
        Faithful().run(picture, Expected())


def written(rgb: Pixels, text: str, at: tuple[int, int]) -> Pixels:
    image = Image.fromarray(rgb)
    font = ImageFont.load_default(34)
    box = ImageDraw.Draw(image).textbbox(at, text, font=font)
    ImageDraw.Draw(image).rectangle((box[0] - 6, box[1] - 6, box[2] + 6, box[3] + 6), fill="white")
    ImageDraw.Draw(image).text(at, text, fill=(15, 15, 20), font=font)
    return np.asarray(image)


def test_an_invented_word_is_found_named_and_marked() -> None:
    result = written(large(), "Closed", (300, 400))
    found = judged(Faithful(), result, small())
    assert found.verdict == "fail"
    assert found.message == "shapes that the source does not have"
    assert found.region is not None
    assert abs(found.region.x + found.region.width / 2 - 360) < 90
    assert abs(found.region.y + found.region.height / 2 - 420) < 60
    read = judged(Text(), result, small())
    assert read.verdict == "fail"
    assert "text invented: 'Closed'" in read.message
    assert read.region is not None
    assert abs(read.region.x - 300) < 20
    assert abs(read.region.width - 110) < 30


def test_a_lost_line_is_found_and_named() -> None:
    result = large().copy()
    result[92:150, 24:488] = 255
    found = judged(Faithful(), result, small())
    assert (found.verdict, found.message) == ("fail", "shapes of the source are lost")
    read = judged(Text(), result, small())
    assert read.verdict == "fail"
    assert "text lost: 'Fresh Bread'" in read.message


def test_a_changed_letter_is_found_and_named() -> None:
    other = poster("Frash Bread", "every day", size=36).resize((256, 256), Image.Resampling.BOX)
    read = judged(Text(), upscale(np.asarray(other)), small())
    assert read.verdict == "fail"
    assert "'Fresh Bread' became 'Frash Bread'" in read.message


def test_moved_and_recoloured_enlargements_fail() -> None:
    assert judged(Faithful(), np.roll(large(), 6, axis=1), small()).verdict == "fail"
    darker = (large() * 0.8).astype(np.uint8)
    found = judged(Faithful(), darker, small())
    assert found.verdict == "fail"
    assert "colours moved" in found.message
    part = large("scene").copy()
    part[300:420, 300:420, 0] = np.clip(part[300:420, 300:420, 0].astype(int) - 50, 0, 255)
    found = judged(Faithful(), part, small("scene"))
    assert found.verdict == "fail"
    assert found.region is not None


def test_another_shape_fails_once() -> None:
    cut = large()[:400]
    assert not same_shape(small(), cut)
    assert (
        judged(Faithful(), cut, small()).message
        == "another shape than the source: 512×400 of 256×256"
    )
    for check in (Halos(), Detail(), Text()):
        assert judged(check, cut, small()).verdict == "skip"


@pytest.mark.parametrize("amount", [1.2, 2.5])
def test_halos_fail_and_more_sharpening_measures_more(amount: float) -> None:
    # On the poster's white and black the lines would be cut off.
    base = large("scene").astype(np.float32)
    sharp = base + amount * (base - cv2.GaussianBlur(base, (0, 0), 2.5))
    found = judged(Halos(), np.clip(sharp, 0, 255).astype(np.uint8), small("scene"))
    assert found.verdict == "fail"
    assert found.score is not None
    assert found.score > 0.5 * amount


def test_mild_sharpening_is_no_halo() -> None:
    base = large().astype(np.float32)
    crisp = base + 0.4 * (base - cv2.GaussianBlur(base, (0, 0), 1.0))
    assert judged(Halos(), np.clip(crisp, 0, 255).astype(np.uint8), small()).verdict == "pass"


def test_noise_is_no_sharpening() -> None:
    rng = np.random.default_rng(2)
    grainy = np.clip(small() + rng.normal(0, 10, small().shape), 0, 255).astype(np.uint8)
    score = sharpening(pair(grainy, upscale(grainy, "acnet-hdn2")))
    assert score is not None
    assert score < 0.2


@pytest.mark.parametrize("how", [cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4])
def test_interpolation_gains_no_detail(how: int) -> None:
    plain = np.asarray(cv2.resize(small(), (512, 512), interpolation=how), np.uint8)
    found = judged(Detail(), plain, small())
    assert found.verdict == "fail"
    assert "bicubic" in found.message


def test_repeated_pixels_are_no_detail() -> None:
    found = judged(Detail(), small().repeat(2, 0).repeat(2, 1), small())
    assert found.verdict == "fail"
    assert "repeated" in found.message


def test_the_gain_is_measured_against_bicubic() -> None:
    source = small("scene")
    bicubic = np.asarray(cv2.resize(source, (512, 512), interpolation=cv2.INTER_CUBIC), np.uint8)
    gain, apart = detail_gain(source, bicubic) or (0.0, 0.0)
    assert gain == pytest.approx(1.0, abs=0.03)
    assert apart == pytest.approx(1.0, abs=0.03)
    assert (
        detail_gain(np.full((64, 64, 3), 128, np.uint8), np.full((128, 128, 3), 128, np.uint8))
        is None
    )
    assert judged(Detail(), large()[::2, ::2], small()).message == "enlarged by less than 1.3"


def test_a_source_larger_than_the_comparison_is_reduced_first() -> None:
    wide = np.asarray(poster("Fresh Bread", width=900, height=600))
    both = pair(wide, wide.repeat(2, 0).repeat(2, 1))
    assert both.source.shape == both.result.shape == (341, 512, 3)
    at = both.region(100, 50, 10, 20)
    assert (at.x, at.y, at.width, at.height) == (352, 176, 35, 70)
    assert float(similarity(both)[0].min()) > 0.95


@pytest.mark.parametrize(
    ("text", "counts"), [("€89", True), ("早安", True), ("Open", True), ("of", False), ("7", False)]
)
def test_two_figures_or_signs_are_a_text_and_two_letters_are_not(text: str, counts: bool) -> None:
    assert (_weight(text) >= Text().letters) == counts


def test_readings_count_only_where_the_structure_differs() -> None:
    tiles = np.ones((100, 200), np.float32)
    line, other = Seen("Open", (10, 10, 60, 30)), Seen("Menu", (10, 10, 60, 30))
    assert compare([line], [], tiles, 0.85) is None
    tiles[15:25, 20:50] = 0.4
    assert compare([line], [], tiles, 0.85) == ("text lost: 'Open'", line.box)
    assert compare([], [line], tiles, 0.85) == ("text invented: 'Open'", line.box)
    changed = "text changed: 'Open' became 'Menu'"
    assert compare([line], [other], tiles, 0.85) == (changed, line.box)
    assert compare([line], [line], tiles, 0.85) is None
    tiles[15:25, 20:50] = 0.84
    assert (
        compare([Seen("Opens now", line.box)], [Seen("0pens now", line.box)], tiles, 0.85) is None
    )
    assert changed_parts(tiles, 0.9) == [(0, 0, 200, 89)]
    assert changed_parts(np.ones((20, 20), np.float32), 0.9) == []
