"""Twelve languages on drawn pictures in many fonts: both errors of the readers, in ``make test``.

The table in the docs comes from more of the same drawings: ``tests/benchmarks/bench_scripts.py``.
"""

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.checks import tesseract
from tasks.checks.base import Expected, Picture
from tasks.checks.text_match import keys
from tasks.checks.typography import NOT_SURE, Text
from tasks.records import Finding

NOTO, DEJAVU = Path("/usr/share/fonts/truetype/noto"), Path("/usr/share/fonts/truetype/dejavu")
EUROPE = (
    NOTO / "NotoSans-Regular.ttf",
    NOTO / "NotoSerif-Bold.ttf",
    NOTO / "NotoSans-Italic.ttf",
    DEJAVU / "DejaVuSans.ttf",
)
#: Language: code of the data, fonts, phrases.
SCRIPTS: dict[str, tuple[str, tuple[Path, ...], tuple[str, ...]]] = {
    "en": ("", EUROPE, ("Summer Market", "Fresh fish daily", "Room 304", "Only $19.50")),
    "de": ("", EUROPE, ("Grüße aus Köln", "Süße Äpfel", "Größe wählen", "Öffnungszeiten")),
    "ru": ("rus", EUROPE, ("Летняя ярмарка", "Свежая рыба", "Вход свободный", "Мёд и травы")),
    "el": ("ell", EUROPE, ("Φρέσκο ψάρι", "Καλό καλοκαίρι", "Παλιό λιμάνι", "Νέο βιβλίο")),
    "ar": (
        "ara",
        (NOTO / "NotoSansArabic-Regular.ttf", NOTO / "NotoNaskhArabic-Bold.ttf"),
        ("سمك طازج", "صيف جميل", "مكتبة المدينة", "دخول مجاني"),
    ),
    "he": (
        "heb",
        (NOTO / "NotoSansHebrew-Regular.ttf", NOTO / "NotoSerifHebrew-Bold.ttf"),
        ("דגים טריים", "קיץ נעים", "ספריית העיר", "כניסה חופשית"),
    ),
    "hi": (
        "hin",
        (NOTO / "NotoSansDevanagari-Regular.ttf", NOTO / "NotoSerifDevanagari-Bold.ttf"),
        ("ताज़ा दूध", "नगर पुस्तकालय", "गरम समोसे", "नया साल"),
    ),
    "th": (
        "tha",
        (NOTO / "NotoSansThai-Regular.ttf", NOTO / "NotoSerifThai-Bold.ttf"),
        ("ปลาสดมาก", "ทะเลสวย", "ข้าวผัด", "อาหารเช้า"),
    ),
    "vi": ("vie", EUROPE, ("Cá tươi ngon", "Mùa hè đẹp", "Thư viện thành phố", "Vào cửa tự do")),
    # The fonts of these lie where the embedded server finds them.
    "ko": ("kor", (), ("신선한 생선", "여름 바다", "도시 도서관", "무료 입장")),
    "zh": ("", (), ("新鲜水果", "城市图书馆", "夏日海滩", "免费入场")),
    "ja": ("", (), ("旬の野菜", "夏の海", "コーヒー豆", "入場無料")),
}


def paper(rng: random.Random) -> tuple[Image.Image, tuple[int, ...]]:
    """Return a ground, dark or light, with or without grain, and the colour of ink for it."""
    side, dark = 640, rng.random() < 0.4
    ground = np.full((side, side, 3), rng.randint(0, 60) if dark else rng.randint(200, 255), float)
    ground += np.linspace(-12, 12, side)[None, :, None]
    ground += np.random.default_rng(rng.randint(0, 9999)).normal(
        0, rng.choice((0, 6)), ground.shape
    )
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    ink = tuple(rng.randint(210, 255) if dark else rng.randint(0, 70) for _ in range(3))
    return image, ink


def draw(text: str, font: ImageFont.FreeTypeFont, way: str, rng: random.Random) -> Picture:
    image, ink = paper(rng)
    place = 40 + rng.randint(0, 40), rng.randint(60, 400)
    ImageDraw.Draw(image).text(place, text, font=font, fill=ink, direction=way)
    return Picture(rgb=np.asarray(image), data=b"", mime="image/png")


def swapped(text: str, stock: str, rng: random.Random) -> str:
    """Return the text with one letter exchanged for another of the script."""
    letters = sorted({c for c in stock if unicodedata.category(c) in {"Lo", "Ll"}})
    places = [i for i, c in enumerate(text) if c in letters]
    while True:
        at = rng.choice(places)
        wrong = text[:at] + rng.choice(letters) + text[at + 1 :]
        if keys(wrong) != keys(text):
            return wrong


def tried(language: str, rounds: int) -> tuple[list[Finding], list[Finding]]:
    """Return what is found on good pictures and on ones with a wrong letter.

    Skips the test where the data of the script or a font for it is not installed.
    """
    code, files, phrases = SCRIPTS[language]
    if code and code not in tesseract.installed():
        pytest.skip(f"needs tesserocr and tesseract-ocr-{code}")
    found = [file for file in files if file.is_file()]
    if files and not found:
        pytest.skip("needs fonts-noto-core")
    rng = random.Random(language)
    way = "rtl" if language in {"ar", "he"} else "ltr"
    good, bad = [], []
    for number in range(rounds * len(phrases)):
        text = phrases[number % len(phrases)]
        font = _font(language, text, found, number, rng)
        wanted = Expected(intended_text=(text,), language=language)
        good.append(Text().run(draw(text, font, way, rng), wanted))
        wrong = swapped(text, "".join(phrases), rng)
        bad.append(Text().run(draw(wrong, font, way, rng), wanted))
    return good, bad


def _font(
    language: str, text: str, files: list[Path], number: int, rng: random.Random
) -> ImageFont.FreeTypeFont:
    from tasks.providers.embedded import fonts

    size = rng.choice((34, 46, 58))
    if files:
        return ImageFont.truetype(str(files[number % len(files)]), size)
    (run,) = fonts.runs(text)
    if run.face is None:
        pytest.skip(f"needs a font for {text!r}")
    return fonts.font(run.face, size, rng.choice((400, 700)), language, text)


@pytest.mark.real
@pytest.mark.parametrize("language", SCRIPTS)
def test_good_pictures_pass_and_one_wrong_letter_does_not(language: str) -> None:
    good, bad = tried(language, rounds=1)
    assert [f.message for f in good if f.verdict == "fail"] == []
    assert sum(f.verdict == "pass" for f in good) >= 0.75 * len(good)
    assert all(f.verdict != "skip" or f.message.startswith(NOT_SURE) for f in (*good, *bad))
    assert sum(f.verdict == "pass" for f in bad) <= 1
    assert sum(f.verdict == "fail" for f in bad) >= 0.5 * len(bad)
