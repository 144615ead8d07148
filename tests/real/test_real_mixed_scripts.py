"""Strings of two scripts, and figures and signs beside a script: a brand's name, a price."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageDraw, ImageFont

from tasks.checks import tesseract
from tasks.checks.base import Expected, Picture
from tasks.checks.text_match import keys
from tasks.checks.typography import NOT_SURE, Text
from tasks.providers.embedded import fonts
from tasks.records import Finding
from tests.real.test_real_scripts import EUROPE, NOTO, paper

#: Language: code of the data, fonts of the script, phrases.
MIXED: dict[str, tuple[str, tuple[Path, ...], tuple[str, ...]]] = {
    "ru": ("rus", EUROPE, ("Скидка Nike", "iPhone от 299 €", "КОФЕ LATTE", "Sale до 50%")),
    "el": ("ell", EUROPE, ("Έκπτωση 50%", "Μόνο 9,90 €", "ΚΑΦΕΣ LATTE", "Νέο iPhone")),
    "ko": ("kor", (), ("할인 50% SALE", "신상 Nike", "커피 Latte 2,500", "오늘만 SALE")),
    "ar": (
        "ara",
        (NOTO / "NotoSansArabic-Regular.ttf", NOTO / "NotoNaskhArabic-Bold.ttf"),
        ("خصم 50%", "السعر $99", "عرض 30% اليوم", "قهوة 12.50"),
    ),
    "he": (
        "heb",
        (NOTO / "NotoSansHebrew-Regular.ttf", NOTO / "NotoSerifHebrew-Bold.ttf"),
        ("הנחה 50%", "רק 99 ₪", "מבצע 1+1", "קפה 12.50"),
    ),
    "hi": (
        "hin",
        (NOTO / "NotoSansDevanagari-Regular.ttf", NOTO / "NotoSerifDevanagari-Bold.ttf"),
        ("सेल SALE 30%", "नया iPhone", "गरम Latte", "छूट Nike 50%"),
    ),
    "th": (
        "tha",
        (NOTO / "NotoSansThai-Regular.ttf", NOTO / "NotoSerifThai-Bold.ttf"),
        ("ลด SALE 50%", "กาแฟ Latte", "ใหม่ iPhone", "รองเท้า Nike"),
    ),
}
LEFTWARDS = {"ar", "he"}
LATIN = "abcdefghiknoprstuvxyz"


def draw(text: str, language: str, face: Path | None, rng: random.Random) -> Picture:
    """Draw a line; what is no letter of the script comes from another font, as on web pages."""
    image, ink = paper(rng)
    x, y, size = 40.0 + rng.randint(0, 30), rng.randint(120, 460), rng.choice((34, 46, 58))
    pen = ImageDraw.Draw(image)
    runs = [text] if language in {"ru", "el"} else re.findall(r"[!-~]+(?: [!-~]+)*|[^!-~]+", text)
    for run in reversed(runs) if language in LEFTWARDS else runs:
        font = _font(run, language, face, size)
        way = "rtl" if language in LEFTWARDS and not run.isascii() else "ltr"
        pen.text((x, y), run, font=font, fill=ink, direction=way, anchor="ls")
        x += font.getlength(run, direction=way)
    return Picture(rgb=np.asarray(image), data=b"", mime="image/png")


def _font(run: str, language: str, face: Path | None, size: int) -> ImageFont.FreeTypeFont:
    if language in {"ru", "el"} or (face is not None and not run.isascii()):
        return ImageFont.truetype(str(face), size)
    found = fonts.runs(run.strip())[0].face
    if found is None:
        pytest.skip(f"needs a font for {run!r}")
    return fonts.font(found, size, 500, language, run)


def wrong(text: str, stock: str, rng: random.Random) -> str:
    """Return the text with one letter or figure exchanged for another of its kind."""
    letters = sorted({c for c in stock if c.isalpha() and not c.isascii()})
    while True:
        at = rng.choice([i for i, c in enumerate(text) if c.isalnum()])
        old = text[at]
        other = rng.choice(
            "0123456789" if old.isdigit() else LATIN if old.isascii() else "".join(letters)
        )
        changed = text[:at] + (other.upper() if old.isupper() else other) + text[at + 1 :]
        if keys(changed) != keys(text):
            return changed


def tried(language: str, rounds: int) -> tuple[list[Finding], list[Finding]]:
    """Return what is found on good pictures and on ones with a wrong letter or figure.

    Skips the test where the data of the script, English or a font is not installed.
    """
    code, files, phrases = MIXED[language]
    if not {code, "eng"} <= tesseract.installed():
        pytest.skip(f"needs tesserocr, tesseract-ocr-{code} and tesseract-ocr-eng")
    faces: list[Path | None] = [file for file in files if file.is_file()]
    if files and not faces:
        pytest.skip("needs fonts-noto-core")
    rng = random.Random(f"{language} {rounds}")
    good, bad = [], []
    for number in range(rounds * len(phrases)):
        text = phrases[number % len(phrases)]
        face = faces[(number + number // len(phrases)) % len(faces)] if faces else None
        asked = Expected(intended_text=(text,), language=language)
        good.append(Text().run(draw(text, language, face, rng), asked))
        changed = wrong(text, "".join(phrases), rng)
        bad.append(Text().run(draw(changed, language, face, rng), asked))
    return good, bad


@pytest.mark.real
@pytest.mark.parametrize("language", MIXED)
def test_mixed_strings_pass_and_one_wrong_letter_does_not(language: str) -> None:
    good, bad = tried(language, rounds=1)
    assert [f.message for f in good if f.verdict == "fail"] == []
    assert sum(f.verdict == "pass" for f in good) >= 0.5 * len(good)
    assert all(f.verdict != "skip" or f.message.startswith(NOT_SURE) for f in (*good, *bad))
    assert [f for f in bad if f.verdict == "pass"] == []
    assert sum(f.verdict == "fail" for f in bad) >= 0.5 * len(bad)
