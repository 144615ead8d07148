"""Which locales the readers of text cover on this machine, asked of the readers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: A text with the letters that are peculiar to each locale: what is covered shows only there.
SAMPLES: Mapping[str, str] = {
    "en": "Good morning",
    "de": "Größe für Äpfel",
    "fr": "Œuvre d'été à Nîmes, ça y est",
    "es": "¿Mañana está aquí?",
    "pt": "Promoção às três",
    "it": "Perché è già così",
    "nl": "Eén geïsoleerd",
    "sv": "Smörgås på ön",
    "da": "Blåbærgrød",
    "nb": "Rødgrønn på øya",
    "fi": "Hyvää päivää",
    "is": "Þjóðvegur, góðan daginn",
    "pl": "Zażółć gęślą jaźń",
    "cs": "Příliš žluťoučký kůň",
    "sk": "Kôň, ľúbiť, ŕ",
    "hu": "Árvíztűrő tükörfúrógép",
    "ro": "Școală în țară, băiat",
    "hr": "Čaša, ćevapi, đak",
    "sl": "Čaša, žaba, škof",
    "lv": "Glāžšķūņu rūķīši",
    "lt": "Ąžuolų ėjimas, ūkis",
    "et": "Õunapuu öös",
    "tr": "Şişli'de ığdır çiçeği",
    "vi": "Phở bò Hà Nội đặc biệt",
    "zh": "咖啡开门",
    "zh-TW": "歡迎光臨",
    "ja": "コーヒーをどうぞ",
    "ko": "어서 오세요",
    "ru": "Добрый вечер, ёлка",
    "uk": "Їжак і ґанок, єдність",
    "bg": "Добър ден, щъркел",
    "sr": "Добро јутро, љубав, ђак",
    "el": "Καλημέρα, Ήλιος",
    "ar": "قهوة طازجة",
    "fa": "گپ، چای، پنیر",
    "he": "קפה טרי",
    "hi": "ताज़ी चाय",
    "th": "กาแฟเย็น",
    "bn": "তাজা চা",
    "ta": "சூடான தேநீர்",
    "ka": "ყავა",
    "hy": "Սուրճ",
    "am": "ቡና",
}
#: Packages of the data that a locale would need, by its language.
_DATA = {
    "vi": "vie", "ko": "kor", "ru": "rus", "uk": "rus", "bg": "rus", "sr": "rus", "el": "ell",
    "ar": "ara", "he": "heb", "hi": "hin", "th": "tha",
}  # fmt: skip

#: Data with which a second reader would read a locale of Latin letters.
_SECOND_DATA = {
    "en": "eng", "de": "deu", "fr": "fra", "es": "spa", "it": "ita", "pt": "por", "nl": "nld",
    "pl": "pol", "cs": "ces", "tr": "tur", "sv": "swe", "ro": "ron", "hu": "hun",
}  # fmt: skip

FIRST = "PP-OCR"
SECOND = "Tesseract"


@dataclass(frozen=True, slots=True)
class Covered:
    """Who reads the text of one locale here."""

    locale: str
    #: ``PP-OCR``, or ``Tesseract <data>``; ``None``: nobody, so the text is skipped and said so.
    reader: str | None
    #: Who reads again, by another engine, what the first one flags; ``None``: nobody.
    second: str | None
    #: Data that is not installed and would bring a reader, or a second one.
    lacks: str | None = None


def covered_locales(samples: Mapping[str, str] = SAMPLES) -> tuple[Covered, ...]:
    """Return who reads each locale; loads the models, about a second."""
    return tuple(_covered(locale, text) for locale, text in samples.items())


def _covered(locale: str, text: str) -> Covered:
    from tasks.checks import scripts, second_reader, tesseract
    from tasks.checks.typography import covered

    code = scripts.code_for(text, locale)
    reader = f"{SECOND} {code}" if code is not None else FIRST if covered(text, locale) else None
    again = second_reader.code_for(text) if reader == FIRST else None
    language = locale.partition("-")[0]
    lacks = None
    if reader is None:
        lacks = _DATA.get(language)
    elif reader == FIRST and again is None:
        lacks = _SECOND_DATA.get(language)
    if lacks in tesseract.installed():
        lacks = None  # The data is there and does not know these letters.
    return Covered(locale, reader, None if again is None else f"{SECOND} {again}", lacks)


def coverage_words(found: tuple[Covered, ...]) -> str:
    """Return in lines which locales are read by whom, which twice, and which by nobody."""
    first = [one.locale for one in found if one.reader == FIRST]
    other = [one.locale for one in found if one.reader not in (None, FIRST)]
    nobody = [one.locale for one in found if one.reader is None]
    twice = [one.locale for one in found if one.second is not None]
    once = [one.locale for one in found if one.reader is not None and one.second is None]
    lines = [
        f"{FIRST} reads {', '.join(first) or 'nothing'}",
        f"{SECOND} reads {', '.join(other) or 'nothing: it or its data is not installed'}",
        f"a second reader confirms flags in {', '.join(twice) or 'none'}",
        f"no second reader, so a flag stands alone, in {', '.join(once) or 'none'}",
        f"not covered, so skipped and said so: {', '.join(nobody) or 'none of these'}; "
        "and every script that is not named here",
    ]
    for what, some in (
        ("cover more", [one for one in found if one.reader is None]),
        ("have a second reader in more", [one for one in found if one.reader is not None]),
    ):
        codes = sorted({one.lacks for one in some if one.lacks is not None})
        if codes:
            lines.append(f"install {' '.join(f'tesseract-ocr-{c}' for c in codes)} to {what}")
    return "\n".join(lines)
