"""Lines that the detector cuts short or that run on an arc are cut out anew before they count."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tasks.checks import ocr, second_look
from tasks.checks.text_match import align, keys
from tasks.checks.text_misses import Miss

Pixels = NDArray[np.uint8]


def quad(left: float, top: float, right: float, bottom: float) -> ocr.Floats:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def stands(rgb: Pixels, where: ocr.Floats, read: str, text: str) -> bool:
    """Whether a text stands where the first reader read something else."""
    line = ocr.Line(where, ocr.Reading(read, 0.9, np.empty((0, 0), np.float32), {}))
    distance = align(keys(text), keys(read)).distance
    miss = Miss(text, read, distance, "minor", "misspelt", lines=(0,), quads=(where,))
    return second_look.probable(miss, [line], rgb)


def written(*parts: tuple[str, int]) -> tuple[Pixels, float]:
    """Black letters of several sizes on one base line, and where the second part begins."""
    image = Image.new("RGB", (640, 240), "white")
    pen = ImageDraw.Draw(image)
    ends = [90.0]
    for text, size in parts:
        font = ImageFont.load_default(size)
        pen.text((ends[-1], 170), text, fill="black", font=font, anchor="ls")
        ends.append(ends[-1] + pen.textlength(text, font) + 4)
    return np.asarray(image), ends[1]


def test_a_first_letter_that_the_search_leaves_out_is_found_beside_the_line() -> None:
    rgb, begins = written(("G", 110), ("arden", 60))
    assert stands(rgb, quad(begins, 118, begins + 180, 178), "arden", "Garden")


@pytest.mark.parametrize("first", ["", "C", "|"])
def test_a_first_letter_that_lacks_or_is_another_is_not(first: str) -> None:
    rgb, begins = written((first, 110), ("arden", 60))
    assert not stands(rgb, quad(begins, 118, begins + 180, 178), "arden", "Garden")


def test_a_last_word_that_the_search_leaves_out_is_found_beside_the_line() -> None:
    rgb, ends = written(("Open", 60), (" 24", 60))
    where = quad(86, 118, ends, 190)
    assert stands(rgb, where, "Open", "Open 24")
    assert not stands(rgb, where, "Open", "Open 21")


def arc(text: str, radius: float = 190) -> tuple[Pixels, ocr.Floats]:
    """Letters on the upper half of a circle, and the corners that the detector finds."""
    size, font = 640, ImageFont.load_default(64)
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    widths = [pen.textlength(char, font) * 1.1 for char in text]
    angle = -sum(widths) / radius / 2
    for char, width in zip(text, widths, strict=True):
        angle += width / radius / 2
        glyph = Image.new("RGBA", (size, size))
        ImageDraw.Draw(glyph).text(
            (size / 2, size / 2 - radius), char, fill="black", font=font, anchor="ms"
        )
        turned = glyph.rotate(-np.degrees(angle), resample=Image.Resampling.BICUBIC)
        image.paste(turned, (0, 0), turned)
        angle += width / radius / 2
    rgb = np.asarray(image)
    (where,) = ocr.reader().detect(rgb, size)
    return rgb, where


def test_letters_on_an_arc_are_read_straightened(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, where = arc("HARVEST BAR")
    monkeypatch.setattr(second_look, "MARGIN", np.inf)  # Only what is cut out anew counts.
    assert stands(rgb, where, "FARVEST BAR", "HARVEST BAR")
    monkeypatch.setattr(second_look, "SQUAT", 0.0)
    assert not stands(rgb, where, "FARVEST BAR", "HARVEST BAR")


@pytest.mark.parametrize("drawn", ["MARVEST BAR", "HARRVEST BAR", "HAVREST BAR", "HARVEST BA"])
def test_wrong_letters_on_an_arc_stay_wrong(drawn: str) -> None:
    rgb, where = arc(drawn)
    assert not stands(rgb, where, "FARVEST BAR", "HARVEST BAR")


def read(rgb: Pixels, where: ocr.Floats, key: str) -> ocr.Line:
    (line,) = ocr.reader().read(rgb, [where], key)
    return line


@pytest.mark.parametrize("key", ["festival", "kingdom", "library"])
def test_a_narrow_letter_that_stands_twice_on_an_arc_is_found(key: str) -> None:
    once, twice = arc(key.upper()), arc(key.upper().replace("I", "II"))
    assert second_look.stutters(read(*twice, key), key, twice[0])
    assert not second_look.stutters(read(*once, key), key, once[0])
    at = key.index("i")
    assert not second_look.stutters(read(*twice, key), key, twice[0], (at + 1, len(key)))


def test_only_lines_on_an_arc_are_asked_for_a_letter_twice() -> None:
    rgb, _ = written(("FESTIIVAL", 60))
    where = quad(86, 118, 400, 190)
    assert not second_look.stutters(read(rgb, where, "festival"), "festival", rgb)


def test_letters_that_nobody_looks_for_are_not_asked_for() -> None:
    rgb, where = arc("FESTIIVAL")
    assert not second_look.stutters(read(rgb, where, "fest"), "festival", rgb)


@pytest.mark.parametrize("angle", [0.8, 1.4, 2.2, -0.8, -1.4, -2.2])
def test_an_arc_unrolls_to_a_straight_band(angle: float) -> None:
    half, outer, inner = abs(angle) / 2, 300.0, 240.0
    width, height = round(2 * outer * np.sin(half)), round(outer - inner * np.cos(half))
    y, x = np.mgrid[:height, :width].astype(float)
    radius = np.hypot(x - width / 2, outer - y)
    picture = np.where(np.abs(radius - (outer + inner) / 2) < 10, 0, 255).astype(np.uint8)
    picture = np.repeat(picture[:, :, None], 3, axis=2)
    line = picture if angle > 0 else np.ascontiguousarray(picture[::-1, ::-1])
    band = second_look.straightened(line, angle)[:, :, 0] < 128
    middles = [float(np.flatnonzero(column).mean()) for column in band.T]
    assert np.ptp(middles) < 4
    assert 16 <= band.sum(axis=0).mean() <= 24
