import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks import glyphs, tesseract
from tasks.checks.base import Expected
from tasks.checks.typography import Text
from tests.checks.drawing import as_picture, poster


def line(*letters: str, box: tuple[int, int] = (26, 40), cross: bool = False) -> Image.Image:
    """A line of type; ``#`` is drawn as the box of a missing glyph, ``_`` as nothing."""
    image = Image.new("RGB", (60 + 50 * len(letters), 72), (250, 248, 240))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(48)
    x = 16.0
    for letter in letters:
        if letter == "#":
            corners = (x + 4, 12, x + 4 + box[0], 12 + box[1])
            pen.rectangle(corners, outline=(20, 20, 30), width=3)
            if cross:
                pen.line(corners, fill=(20, 20, 30), width=2)
            x += box[0] + 10
        elif letter == "_":
            x += 60
        else:
            pen.text((x, 4), letter, fill=(20, 20, 30), font=font)
            x += font.getlength(letter)
    return image


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_equal_boxes_in_a_row_are_missing_glyphs(cross: bool, inverted: bool) -> None:
    pixels = np.asarray(line("G", "#", "#", "d", "#", cross=cross))
    assert glyphs.boxes(255 - pixels if inverted else pixels) == 3


@pytest.mark.parametrize("text", ["DOOR", "Good 0808", "BOOB", "HIIH", "ODQ 00", "#", "[ ]"])
def test_letters_and_a_lone_square_are_none(text: str) -> None:
    assert glyphs.boxes(np.asarray(line(*text))) == 0


def test_squares_of_several_sizes_are_a_drawing() -> None:
    image = Image.new("RGB", (300, 72), "white")
    pen = ImageDraw.Draw(image)
    for x, size in ((10, 24), (60, 40), (140, 56)):
        pen.rectangle((x, 8, x + size, 8 + size), outline="black", width=3)
    assert glyphs.boxes(np.asarray(image)) == 0


def test_an_empty_place_is_wider_than_a_space() -> None:
    assert glyphs.empty_places(np.asarray(line(*"Go_ng"))) == 1
    assert glyphs.empty_places(np.asarray(line(*"Go on"))) == 0
    assert glyphs.empty_places(np.full((40, 90, 3), 255, np.uint8)) == 0


def judged(image: Image.Image, text: str, language: str = "en") -> tuple[str, str, tuple[str, ...]]:
    picture = as_picture(image)
    found = Text().run(picture, Expected(intended_text=(text,), language=language))
    return found.verdict, found.message, picture.notes.get("text_severity", ())


def test_a_flagged_string_says_that_glyphs_lack() -> None:
    image = poster("Go")
    image.paste(line(*"G##d ni#ht"), (16, 90))
    verdict, message, severity = judged(image, "Good night")
    assert verdict == "fail"
    assert "missing glyphs (boxes)" in message
    assert severity == ("boxes",)
    image.paste(line(*"Good n_ght   "), (16, 90))
    verdict, message, _ = judged(image, "Good night")
    assert verdict == "fail"
    assert "an empty place" in message


@pytest.mark.parametrize("text", ["Fr#sh milk", "#resh milk", "Good ni#ht", "Door #nd hook"])
def test_one_missing_glyph_is_named_as_such(text: str) -> None:
    image = Image.new("RGB", (700, 300), (250, 248, 240))
    image.paste(line(*text), (40, 100))
    asked = text.replace("Fr#", "Fre").replace("#resh", "Fresh").replace("ni#", "nig")
    verdict, message, severity = judged(image, asked.replace("#nd", "and"))
    assert verdict == "fail"
    assert "missing glyphs (boxes)" in message
    assert severity == ("boxes",)


@pytest.mark.parametrize(("drawn", "asked"), [("Frosh milk", "Fresh milk"), ("0h yes", "Ah yes")])
def test_a_wrong_letter_is_no_missing_glyph(drawn: str, asked: str) -> None:
    image = Image.new("RGB", (700, 300), (250, 248, 240))
    image.paste(line(*drawn), (40, 100))
    verdict, message, severity = judged(image, asked)
    assert verdict == "fail"
    assert "missing glyphs" not in message
    assert severity == ("minor",)


@pytest.mark.skipif("rus" not in tesseract.installed(), reason="needs tesseract-ocr-rus")
def test_a_script_that_the_font_lacks_fails_where_nobody_can_read() -> None:
    image = Image.new("RGB", (512, 512), (250, 248, 240))
    image.paste(line(*"######"), (60, 200))
    verdict, message, severity = judged(image, "Привет", "ru")
    assert verdict == "fail"
    assert message.startswith("boxes: 'Привет' is set with missing glyphs (boxes)")
    assert severity == ("boxes",)
