"""Scripts that only Tesseract reads, and its word as a second reader."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tasks.checks import scripts, second_reader, tesseract
from tasks.checks.base import Expected
from tasks.checks.tesseract import Guess, Preparation, prepared
from tasks.checks.text_match import Box, keys
from tasks.checks.text_misses import Miss
from tasks.checks.typography import NOT_COVERED, NOT_SURE, Text, covered
from tasks.providers.embedded import fonts
from tasks.records import Finding
from tests.checks.drawing import as_picture, poster, scene

WITHOUT = not {"rus", "ell", "kor", "ara", "heb", "hin", "tha", "vie", "eng"} <= (
    tesseract.installed()
)
needs_data = pytest.mark.skipif(
    WITHOUT, reason="needs tesserocr and tesseract-ocr-{rus,ell,kor,ara,heb,hin,tha,vie,eng}"
)

#: Language, a text, and the same with one letter wrong.
EIGHT = [
    ("ru", "Свежий хлеб", "Свежий хреб"),
    ("el", "Καλημέρα κόσμε", "Καλημέρα κόσβε"),
    ("ko", "따뜻한 겨울", "따뜻한 거울"),
    ("ar", "قهوة طازجة", "قهوة طازمة"),
    ("he", "לחם טרי", "לחם טקי"),
    ("hi", "गरम चाय", "गरम चाल"),
    ("th", "กาแฟร้อน", "กาแฟร้อก"),
    ("vi", "Phở bò tươi", "Phở bỏ tươi"),
]


def typeset(text: str, language: str, size: int = 56) -> Image.Image:
    image = Image.new("RGB", (640, 320), (246, 244, 238))
    pen = ImageDraw.Draw(image)
    x = 40.0
    for run in fonts.runs(text):
        if run.face is None:
            pytest.skip(f"no font here holds {text!r}")
        font = fonts.font(run.face, size, 500, language, text)
        way = "rtl" if fonts.right_to_left(run.text) else "ltr"
        pen.text((x, 120), run.text, fill=(24, 24, 40), font=font, direction=way)
        x += font.getlength(run.text, direction=way)
    return image


def judged(image: Image.Image, *strings: str, language: str) -> Finding:
    return Text().run(as_picture(image), Expected(intended_text=strings, language=language))


@needs_data
@pytest.mark.parametrize(("language", "text", "wrong"), EIGHT, ids=[e[0] for e in EIGHT])
def test_eight_scripts_are_read_letter_by_letter(language: str, text: str, wrong: str) -> None:
    assert covered(text, language)
    assert judged(typeset(text, language), text, language=language).verdict == "pass"
    found = judged(typeset(wrong, language), text, language=language)
    assert found.verdict == "fail"
    assert found.message.startswith("minor: ")
    assert found.region is not None
    assert found.region.x < 60
    assert abs(found.region.y - 130) < 50


@needs_data
def test_rows_of_a_script_from_the_right_are_read_from_the_right() -> None:
    image = Image.new("RGB", (900, 300), "white")
    for x, word in ((560, "קפה"), (120, "טרי")):
        image.paste(typeset(word, "he", 72).crop((0, 90, 300, 260)), (x, 60))
    assert judged(image, "קפה טרי", language="he").verdict == "pass"
    assert judged(image, "טרי קפה", language="he").verdict != "pass"


@needs_data
def test_a_picture_without_text_lacks_it_in_every_script() -> None:
    found = judged(scene(), "Привет", language="ru")
    assert (found.verdict, found.confirmed) == ("fail", None)
    assert found.message.startswith("absent: 'Привет' is missing")


@needs_data
@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Київ", "uk"),  # і and ї are no Russian letters.
        ("مُحَمَّد", "ar"), ("שָׁלוֹם", "he"), ("خانه‌ی پدری", "fa"),
        ("বাংলা", "bn"), ("🎉 Привет", "ru"), ("Цена 1990 ₽", "ru"), ("Привет Каλη", "ru"),
        ("Привет José", "ru"), ("Привет 你好", "ru"),
        # Which word comes first is told by the language around it.
        ("قهوة Latte", "ar"), ("קפה Latte", "he"),
    ],
)  # fmt: skip
def test_what_the_data_was_not_measured_to_read_is_not_covered(text: str, language: str) -> None:
    assert not covered(text, language)
    assert judged(scene(), text, language=language).message.startswith(NOT_COVERED)


@needs_data
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Привет Anna", "rus+eng"), ("Έκπτωση 50%", "ell+eng"), ("할인 50% SALE", "kor+eng"),
        ("خصم 50%", "ara+eng"), ("ใหม่ iPhone", "tha+eng"), ("नया iPhone", "hin+eng"),
        # Figures and signs that the data of the script knows by itself.
        ("Скидка 50%", "rus"), ("לק 99 ₪", "heb"), ("ลด 50%", "tha"),
    ],
)  # fmt: skip
def test_another_script_beside_is_read_with_english(text: str, code: str) -> None:
    assert scripts.code_for(text) == code
    assert tesseract.engine(code).code == code


@needs_data
@pytest.mark.parametrize(
    ("language", "text", "wrong"),
    [("ru", "КОФЕ LATTE", "КОФЕ LATSE"), ("el", "Έκπτωση 50%", "Έκπτωση 30%"),
     ("ko", "할인 50% SALE", "할민 50% SALE")],
)  # fmt: skip
def test_two_scripts_are_read_letter_by_letter(language: str, text: str, wrong: str) -> None:
    assert judged(typeset(text, language), text, language=language).verdict == "pass"
    assert judged(typeset(wrong, language), text, language=language).verdict == "fail"


@pytest.mark.parametrize(
    ("code", "read", "wanted", "unified"),
    [
        # A word of letters that both scripts draw alike is the one that is looked for.
        ("rus", "COK Coca", ("сок", "coca"), "СОК Coca"),
        ("rus", "СОСА", ("coca",), "COCA"),
        # A Latin letter within a Cyrillic word.
        ("rus", "Cкидка Nike", (), "Скидка Nike"),
        ("ell", "KAΦEΣ", (), "ΚΑΦΕΣ"),
        # Letters that have no twin stay, and show.
        ("rus", "Скиdка", (), "Скиdка"), ("rus", "Sale", ("ѕale",), "Sale"),
        ("kor", "할인 SALE", (), "할인 SALE"),
    ],
)  # fmt: skip
def test_letters_drawn_alike_are_of_the_script_of_their_word(
    code: str, read: str, wanted: tuple[str, ...], unified: str
) -> None:
    assert scripts.unified(read, code, frozenset(wanted)) == unified


def test_without_tesseract_the_scripts_are_not_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tesseract, "installed", frozenset)
    for language, text, _ in EIGHT:
        assert not covered(text, language)
        assert judged(scene(), text, language=language).message.startswith(NOT_COVERED)
    assert judged(poster("Hello"), "Hullo", language="en").confirmed is None


def test_the_wheel_and_the_data_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(tesseract, "FOLDERS", (str(tmp_path),))
    tesseract.installed.cache_clear()
    try:
        assert tesseract.folder() is None
        assert tesseract.installed() == frozenset()
        with pytest.raises(FileNotFoundError, match="not installed"):
            tesseract.engine("zzz")
    finally:
        tesseract.installed.cache_clear()


class Fake:
    """An engine that reads what it is told, one text for each hypothesis."""

    def __init__(self, *texts: str, score: float = 0.9) -> None:
        self.texts = texts
        self.score = score

    def knows(self, _text: str) -> bool:
        return True

    def read(self, _line: Any, how: Preparation) -> Guess:
        hypotheses = scripts.HYPOTHESES
        return Guess(self.texts[hypotheses.index(how) % len(self.texts)], self.score)


def with_fake(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> Finding:
    monkeypatch.setattr(tesseract, "installed", lambda: frozenset({"rus"}))
    monkeypatch.setattr(tesseract, "engine", lambda _code: fake)
    return judged(poster("Hello"), "привет", language="ru")


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [
        (("Привет",), "pass"),
        (("Призет", "ПРИВЕТ", "Привет", "Пруз", "", "ривет"), "pass"),
        (("Призет",), "fail"),
        (("Призет", "Призет", "Призет", "Призет", "", "ривет"), "fail"),
        (("Призет", "Призет", "Призет", "Привет", "Призет", "ривет"), "skip"),
        (("Призет", "Призет", "Призет", "Пруз", "", "ривет"), "skip"),
        (("Призет", "Рривет", "Приве", "Пруз", "", "ривет"), "skip"),
        (("",), "skip"),
    ],
)
def test_only_readings_that_agree_accuse(
    monkeypatch: pytest.MonkeyPatch, texts: Sequence[str], verdict: str
) -> None:
    found = with_fake(monkeypatch, Fake(*texts))
    assert found.verdict == verdict
    if verdict == "skip":
        assert found.message.startswith(NOT_SURE)


def test_a_reader_that_is_not_sure_accuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_fake(monkeypatch, Fake("Призет", score=0.3)).verdict == "skip"


def test_a_line_is_prepared_dark_on_light() -> None:
    dark = np.full((60, 300, 3), 20, np.uint8)
    dark[20:40, 40:260] = 240
    quad = np.array([[0, 0], [300, 0], [300, 60], [0, 60]], np.float32)
    for how in (Preparation(0, 32), Preparation(0, 32, soft=True), Preparation(0, 32, binary=True)):
        for rgb in (dark, 255 - dark):
            line = prepared(rgb, quad, how)
            assert line.shape[0] == 32 + 2 * 8
            assert line[0].mean() > 200 > 100 > line[20:28, 60:120].mean()


def test_greek_of_old_print_is_read_as_of_today() -> None:
    assert scripts.modern("ἑλληνικὴ") == "ελληνική"
    assert scripts.modern("Καλημέρα, προϊόν") == "Καλημέρα, προϊόν"


@given(st.text("αάϊΐἀἁᾳῶὴ ω", max_size=12))
def test_modern_greek_stays_as_it_is(text: str) -> None:
    once = scripts.modern(text)
    assert scripts.modern(once) == once
    assert not any(0x1F00 <= ord(c) <= 0x1FFF for c in unicodedata.normalize("NFC", once))


@needs_data
def test_the_second_reader_confirms_or_disputes() -> None:
    wrong = judged(poster("Good Marning"), "Good Morning", language="en")
    assert (wrong.verdict, wrong.confirmed) == ("fail", True)
    rgb = np.asarray(poster("Good Morning"))
    quad = np.array([[28, 96], [330, 96], [330, 160], [28, 160]], np.float32)
    box = Box("Good Marning", 28, 96, 330, 160)
    false = Miss("Good Morning", "Good Marning", 1, "minor", "misspelt", (box,), quads=(quad,))
    assert second_reader.confirmed(false, rgb) is False
    absent = judged(scene(), "Good Morning", language="en")
    assert (absent.verdict, absent.confirmed) == ("fail", True)
    missed = Miss("Good Morning", "", 11, "absent", "missing")
    assert second_reader.confirmed(missed, rgb) is False


@needs_data
def test_the_second_reader_is_silent_about_letters_it_does_not_know() -> None:
    assert second_reader.code_for("Kōbe") in {None, "eng"}
    assert second_reader.code_for("多喝热水") is None
    assert second_reader.code_for("Fresh bread") == "eng"


@needs_data
def test_a_doubled_word_is_confirmed() -> None:
    found = judged(poster("Good Good Morning", size=44), "Good Morning", language="en")
    assert (found.verdict, found.confirmed) == ("fail", True)
    assert found.message.startswith("doubled: ")


@pytest.mark.parametrize(
    ("code", "intended", "read"),
    [("ell", "Ήλιος", "Έλιος"), ("ell", "καφές", "καφες"), ("tha", "อาหารเช้า", "อาหารเข้า"),
     ("tha", "ต้น", "ตัน"),
     # Signs of percent and money.
     ("kor", "50% 할인", "509할인"), ("ell+eng", "Από 9€", "Από 9ε")],
)  # fmt: skip
def test_what_the_data_is_weak_in_accuses_nobody(code: str, intended: str, read: str) -> None:
    texts = [Box(read, 0, 0, 90, 30)] * len(scripts.HYPOTHESES)
    pages = scripts.Pages(None, code, texts, [Guess(read, 0.95)] * len(texts), [None] * len(texts))
    pages.spans = [range(n, n + 1) for n in range(len(texts))]
    assert scripts.wrong(intended, pages) is None
    assert scripts.wrong(intended + read[0], pages) is not None


@pytest.mark.parametrize(
    ("read", "accused"),
    [("Movo 5", False), ("Μόνο 6", True), ("Μόν 5", True), ("Μόννο 5", True)],
)
def test_letters_of_the_other_script_accuse_nobody(read: str, accused: bool) -> None:
    texts = [Box(read, 0, 0, 90, 30)] * len(scripts.HYPOTHESES)
    guesses, spans = [Guess(read, 0.95)] * len(texts), [range(n, n + 1) for n in range(len(texts))]
    pages = scripts.Pages(None, "ell+eng", texts, guesses, [None] * len(texts), spans)
    assert (scripts.wrong("Μόνο 5", pages) is not None) is accused


def test_marks_of_thai_stand_in_one_order() -> None:
    assert keys("น้ำ") == keys("นํ้า")
