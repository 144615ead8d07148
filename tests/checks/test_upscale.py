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
from tasks.checks.upscale_text import Line, Read, Text, _weight, alike, changed_strips, lowest, told
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


def test_strokes_are_alike_at_any_contrast_and_not_where_they_are_others() -> None:
    source = small()
    assert float(alike(pair(source, source)).min()) == pytest.approx(1, abs=1e-3)
    softer = np.asarray(cv2.GaussianBlur(large(), (0, 0), 1.0), np.uint8)
    paler = (large() * 0.7 + 40).astype(np.uint8)
    for faithful in (large(), softer, paler):
        assert float(alike(pair(source, faithful)).min()) > 0.93
    for value in (255, 0):
        gone = large().copy()
        gone[92:150, 24:488] = value  # The first line, and what is plain is not like it.
        assert float(alike(pair(source, gone)).min()) < 0.5
        assert float(alike(pair(gone[::2, ::2], large())).min()) < 0.5


def test_a_letter_of_the_smallest_type_is_not_lost_in_its_surroundings() -> None:
    one, two = np.full((128, 128, 3), 90, np.uint8), np.full((128, 128, 3), 90, np.uint8)
    for rgb, mark in ((one, (62, 60)), (two, (60, 62))):
        rgb[60:68, 60] = rgb[60:68, 64] = 140
        rgb[mark[0], 60:65] = 140
        rgb[60 if mark[0] == 62 else 66, 60:65] = 140
    assert float(alike(pair(one, two)).min()) < Text().limit


def test_strips_hold_a_line_with_its_surroundings_and_are_read_once() -> None:
    field = np.ones((600, 200), np.float32)
    assert changed_strips(field, 0.9) == []
    field[15:25, 20:50] = 0.5
    field[18:22, 80:90] = 0.8  # Another letter of the same line.
    assert changed_strips(field, 0.9) == [(0, 89)]
    for top, value in ((150, 0.3), (300, 0.2), (450, 0.1)):
        field[top : top + 4, 20:50] = value
    assert changed_strips(field, 0.9) == [(386, 132), (236, 132), (86, 132)]
    assert lowest(field, (0, 0, 200, 30)) == 0.5
    assert lowest(field, (300, 700, 400, 800)) == 1.0


def line(before: Read, after: Read) -> Line:
    return Line((10, 10, 60, 30), before, after)


def test_both_pictures_must_say_that_a_line_reads_otherwise() -> None:
    rule = Text()
    clear = line(Read("Fresh Bread", 0.99, 20), Read("Frash Bread", 0.98, 18))
    assert told(clear, rule) == "text changed: 'Fresh Bread' became 'Frash Bread'"
    unsure = line(Read("Love", 0.64, 9), Read("Lvoe", 0.55, 8))
    assert told(unsure, rule) == "text changed: 'Love' became 'Lvoe'"
    for one, two in ((20, 2), (2, 20), (-1, 30)):
        slip = line(Read("Opens now", 0.99, one), Read("0pens now", 0.99, two))
        assert told(slip, rule) is None
    assert told(line(Read("Open", 0.99, 20), Read("OPEN", 0.99, 20)), rule) is None
    assert told(line(Read("abc", 0.55, 20), Read("xyz", 0.99, 20)), rule) is None
    assert told(line(Read("of", 0.99, 20), Read("to", 0.99, 20)), rule) is None


def test_text_that_only_one_picture_has_must_be_read_surely() -> None:
    rule = Text()
    word, nothing, texture = Read("Open", 0.95, 30), Read("", 0.0, 30), Read("ii", 0.3, 30)
    assert told(line(word, nothing), rule) == "text lost: 'Open'"
    assert told(line(word, texture), rule) == "text lost: 'Open'"
    assert told(line(nothing, word), rule) == "text invented: 'Open'"
    assert told(line(Read("Open", 0.8, 30), nothing), rule) is None
    assert told(line(nothing, Read("of", 0.99, 30)), rule) is None
    assert told(line(nothing, texture), rule) is None


def test_a_faithful_result_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> list[Line]:
        raise AssertionError("read")

    monkeypatch.setattr(Text, "_lines", read)
    for kind in ("poster", "scene"):
        assert judged(Text(), large(kind), small(kind)).verdict == "pass"
    with pytest.raises(AssertionError, match="read"):
        judged(Text(), written(large(), "Closed", (300, 400)), small())


def test_small_and_pale_letters_that_change_places_are_found() -> None:
    def shown(text: str) -> Pixels:
        image = Image.new("RGB", (256, 256), (150, 140, 120))
        font = ImageFont.load_default(12)
        ImageDraw.Draw(image).text((60, 120), text, fill=(90, 85, 75), font=font)
        return np.asarray(image)

    source = shown("family room")
    assert judged(Text(), upscale(source), source).verdict == "pass"
    found = judged(Text(), upscale(shown("fayilm room")), source)
    assert found.verdict == "fail"
    assert "text changed" in found.message
