import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks import ocr
from tasks.checks.base import Expected
from tasks.checks.typography import NOT_COVERED, Text, covered
from tasks.providers.embedded import fonts
from tasks.records import Finding
from tests.checks.drawing import as_picture, poster, scene
from tests.checks.test_second_look import arc


def judged(image: Image.Image, *strings: str, language: str = "en") -> Finding:
    return Text().run(as_picture(image), Expected(intended_text=strings, language=language))


@pytest.mark.parametrize(
    "strings",
    [("Good Morning",), ("Summer Sale", "50% off"), ("Only $19.99!",), ("Don't panic",)],
)
def test_text_that_is_there_passes(strings: tuple[str, ...]) -> None:
    found = judged(poster(*strings), *strings)
    assert (found.verdict, found.score, found.message) == ("pass", 1.0, "")


@pytest.mark.parametrize(
    ("drawn", "kind"),
    [
        ("Godo Morning", "swapped"), ("Good Mornng", "dropped"), ("Good Moorning", "added"),
        ("Good Mourning", "added"), ("Good Morningg", "added"), ("GGood Morning", "added"),
        ("Good Marning", "misspelt"), ("Morning", "incomplete"),
        ("Good Good Morning", "doubled"), ("Pqzzv Wxkjh", "missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_marked(drawn: str, kind: str) -> None:
    found = judged(poster(drawn, size=44), "Good Morning")
    assert found.verdict == "fail"
    assert kind in found.message
    assert "'Good Morning'" in found.message
    if kind != "missing":
        assert found.region is not None
        assert abs(found.region.y - 102) < 30
        assert found.region.height < 90


def test_missing_glyphs_fail() -> None:
    image = poster("Go")
    pen = ImageDraw.Draw(image)
    for n in range(2):
        pen.rectangle((102 + n * 34, 112, 126 + n * 34, 146), outline=(20, 20, 24), width=3)
    found = judged(image, "Good")
    assert found.verdict == "fail"
    assert "missing glyphs" in found.message


def test_a_box_that_is_asked_for_is_no_missing_glyph() -> None:
    assert judged(set_type("人口", "zh"), "人口", language="zh").verdict == "pass"


def test_a_picture_without_text_fails_and_says_missing() -> None:
    found = judged(scene(), "Hello")
    assert found.verdict == "fail"
    assert "missing" in found.message


def test_small_text_of_a_large_picture_is_read() -> None:
    image = scene(1024, 1024)
    pen = ImageDraw.Draw(image)
    pen.rectangle((300, 500, 640, 560), fill="white")
    pen.text((310, 515), "Made by hand in Porto", fill="black", font=ImageFont.load_default(22))
    assert judged(image, "Made by hand in Porto").verdict == "pass"


def test_capitals_count_as_small_letters() -> None:
    assert judged(poster("GOOD MORNING"), "Good Morning").verdict == "pass"


def test_no_text_asked_for_is_skipped_without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "reader", lambda: pytest.fail("nothing is to be read"))
    assert judged(scene()).verdict == "skip"
    assert judged(scene(), " ", "\u200b").verdict == "skip"


@pytest.mark.parametrize(
    ("text", "language"), [("🎉 party", "en"), ("বাংলা", "bn"), ("ქართული", "ka")]
)
def test_scripts_without_a_reader_are_not_covered(text: str, language: str) -> None:
    assert not covered(text, language)
    found = judged(scene(), text, language=language)
    assert found.verdict == "skip"
    assert found.message.startswith(NOT_COVERED)


@pytest.mark.parametrize(
    "text", ["Straße", "Žluťoučký kůň", "İstanbul ığ", "Łódź", "¿Qué?", "naïve", "日本語のテキスト",
             "多喝热水", "€19.99", "Café № 5"],
)  # fmt: skip
def test_latin_and_cjk_are_covered(text: str) -> None:
    assert covered(text)


def test_a_covered_string_that_is_wrong_fails_beside_one_that_is_not_covered() -> None:
    assert judged(poster("Hello"), "Hullo", "বাংলা").verdict == "fail"
    assert judged(poster("Hello"), "Hello", "বাংলা").verdict == "skip"


def set_type(text: str, locale: str, size: int = 56) -> Image.Image:
    image = Image.new("RGB", (512, 256), (250, 250, 246))
    pen, x = ImageDraw.Draw(image), 30.0
    for run in fonts.runs(text):
        if run.face is None:
            pytest.skip(f"no font here holds {text!r}")
        font = fonts.font(run.face, size, 500, locale, text)
        pen.text((x, 90), run.text, fill=(20, 20, 24), font=font)
        x += font.getlength(run.text)
    return image


@pytest.mark.parametrize(
    ("text", "wrong", "locale"),
    [("旬の野菜", "旬野の菜", "ja"), ("新鲜水果", "新鲜果", "zh"), ("コーヒー", "コヒーー", "ja"),
     ("Grüße aus Köln", "Grüße aus Kön", "de"), ("Świeża kawa", "Świeża kwaa", "pl")],
)  # fmt: skip
def test_other_scripts_are_read_letter_by_letter(text: str, wrong: str, locale: str) -> None:
    assert judged(set_type(text, locale), text, language=locale).verdict == "pass"
    assert judged(set_type(wrong, locale), text, language=locale).verdict == "fail"


def test_vertical_text_is_read() -> None:
    image = poster("Good Morning").crop((20, 90, 400, 160)).rotate(90, expand=True)
    canvas = Image.new("RGB", (300, 512), "white")
    canvas.paste(image, (100, 60))
    lines = ocr.reader().lines(np.asarray(canvas), 512)
    assert [line.vertical for line in lines] == [True]


@pytest.mark.parametrize("turn", [90, 270])
def test_a_line_that_runs_up_or_down_is_read(turn: int) -> None:
    plate = poster("Good Morning").crop((20, 90, 400, 160)).rotate(turn, expand=True)
    canvas = Image.new("RGB", (300, 512), "white")
    canvas.paste(plate, (100, 60))
    assert judged(canvas, "Good Morning").verdict == "pass"
    assert judged(canvas, "Good Marning").verdict == "fail"


@pytest.mark.parametrize("turn", [-14, 14])
def test_lines_that_are_tilted_follow_one_another(turn: int) -> None:
    plate = poster("Summer", "Sale").crop((20, 92, 240, 240))
    image = Image.new("RGB", (512, 384), "white")
    image.paste(plate.rotate(turn, expand=True, fillcolor="white"), (120, 60))
    assert judged(image, "Summer Sale").verdict == "pass"
    assert judged(image, "Sale Summer").verdict == "fail"


def test_words_beside_a_frame_do_not_disturb_it() -> None:
    image = Image.new("RGB", (640, 320), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((170, 90, 470, 230), fill=(160, 20, 20))
    large, small = ImageFont.load_default(48), ImageFont.load_default(24)
    pen.text((200, 100), "Summer", fill="white", font=large)
    pen.text((200, 165), "Salle", fill="white", font=large)
    for x, y, word in (
        (20, 120, "Bread"),
        (500, 130, "Coffee"),
        (20, 185, "Tea"),
        (500, 190, "Milk"),
    ):
        pen.text((x, y), word, fill="black", font=small)
    found = judged(image, "Summer Sale")
    assert found.verdict == "fail"
    assert "letters added" in found.message
    assert "read 'Summer Salle'" in found.message
    assert found.region is not None
    assert found.region.x > 150


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ("Only $19", ("Only $19.99",)),
        ("We do deliver", ("We do", "not", "deliver")),
        ("Big Sale", ("Big Sale", "Sale")),
        ("Big Sale", ("Big", "Big Sale")),
        ("Bakery", ("Bakery", "Bakery")),
        ("Große Maße", ("Grosse Masse",)),
    ],
)
def test_more_than_was_asked_for_is_something_else(asked: str, lines: tuple[str, ...]) -> None:
    found = judged(poster(*lines), asked, language="de")
    assert (found.verdict, found.confirmed) != ("fail", False)
    assert found.verdict == "fail"
    assert found.region is not None


def test_a_word_above_its_string_in_another_size_is_no_slip() -> None:
    image = scene()
    pen = ImageDraw.Draw(image)
    pen.rectangle((16, 86, 496, 240), fill="white")
    pen.text((32, 100), "Harvest", fill="black", font=ImageFont.load_default(28))
    pen.text((32, 138), "Harvest Festival", fill="black", font=ImageFont.load_default(48))
    assert judged(image, "Harvest Festival").verdict == "pass"
    assert judged(poster("Sale", "Sale", "Sale"), "Sale").verdict == "pass"


@pytest.mark.parametrize("text", ["KINGDOM", "LIBRARY"])
def test_a_letter_twice_on_an_arc_is_a_letter_too_many(text: str) -> None:
    twice, _ = arc(text.replace("I", "II"))
    found = judged(Image.fromarray(twice), text)
    assert (found.verdict, found.confirmed) != ("fail", False)
    assert found.verdict == "fail"
    once, _ = arc(text)
    assert judged(Image.fromarray(once), text).verdict == "pass"


def test_of_equal_strings_the_one_too_many_is_called_absent() -> None:
    picture = as_picture(poster("Bread"))
    wanted = Expected(intended_text=("Bread", "Bread"), language="en")
    found = Text().run(picture, wanted)
    assert picture.notes["text_severity"] == ("exact", "absent")
    assert "less often than it was asked for" in found.message
    assert found.confirmed is not False


def test_a_string_that_is_asked_for_twice_stands_there_twice() -> None:
    assert judged(poster("Fresh Bread"), "Fresh Bread", "Bread").verdict == "pass"
    assert judged(poster("Bread"), "Bread", "Bread").verdict == "fail"
    assert judged(poster("Bread", "Bread"), "Bread", "Bread").verdict == "pass"


def searched(monkeypatch: pytest.MonkeyPatch, image: Image.Image, text: str) -> list[int]:
    sides: list[int] = []
    detect = ocr.Reader.detect

    def noted(self: ocr.Reader, rgb: ocr.Pixels, side: int) -> list[ocr.Floats]:
        sides.append(side)
        return detect(self, rgb, side)

    monkeypatch.setattr(ocr.Reader, "detect", noted)
    Text().run(as_picture(image), Expected(intended_text=(text,), language="en"))
    return sides


def test_a_string_that_is_plainly_not_there_is_not_looked_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert searched(monkeypatch, poster("Good Morning"), "Good Morning") == [320]
    assert searched(monkeypatch, poster("Good Morning"), "Winter Boulevard") == [320, 640]


def test_the_forward_score_prefers_what_is_there() -> None:
    plate = np.asarray(poster("Good Morning").crop((26, 96, 380, 160)))
    (reading,) = ocr.reader().recognise([plate], "goodmrnigx")
    assert reading.text == "Good Morning"
    right = ocr.forward_score(reading, "goodmorning")
    assert right > -1
    assert right - ocr.forward_score(reading, "goodmrning") > 5
    assert ocr.forward_score(reading, "\u4e00") == float("-inf")


def test_the_forward_score_is_the_sum_over_all_paths() -> None:
    steps = np.log(np.array([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], dtype=np.float32))
    reading = ocr.Reading("a", 1.0, steps, {"a": 1})
    paths = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]

    def collapsed(path: tuple[int, ...]) -> int:
        return sum(p and (i == 0 or not path[i - 1]) for i, p in enumerate(path))

    def total(letters: int) -> float:
        chosen = [p for p in paths if collapsed(p) == letters]
        return sum(float(np.exp(sum(steps[t, p[t]] for t in range(3)))) for p in chosen)

    assert np.exp(ocr.forward_score(reading, "a")) == pytest.approx(total(1), rel=1e-5)
    assert np.exp(ocr.forward_score(reading, "aa")) == pytest.approx(total(2), rel=1e-5)
