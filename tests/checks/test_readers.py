"""Which locales are read, with what is installed here and with nothing of Tesseract."""

import json

import pytest

from tasks.checks import tesseract
from tasks.checks.readers import SAMPLES, Covered, coverage_words, covered_locales
from tests.conftest import Command

#: Issue 5: read by the models of the wheel alone.
BY_WHEEL = ("en", "de", "fr", "es", "pt", "pl", "cs", "tr", "hu", "zh", "ja")
BY_DATA = {
    "vi": "vie", "ko": "kor", "ru": "rus", "el": "ell", "ar": "ara", "he": "heb", "hi": "hin",
    "th": "tha",
}  # fmt: skip


@pytest.fixture(scope="module")
def here() -> dict[str, Covered]:
    return {one.locale: one for one in covered_locales()}


def test_every_locale_is_answered(here: dict[str, Covered]) -> None:
    assert list(here) == list(SAMPLES)
    assert {here[locale].reader for locale in BY_WHEEL} == {"PP-OCR"}
    for locale in ("bn", "ta", "ka"):
        assert here[locale] == Covered(locale, None, None)


@pytest.mark.parametrize("locale", BY_DATA)
def test_other_scripts_follow_the_data_installed(locale: str, here: dict[str, Covered]) -> None:
    code = BY_DATA[locale]
    if code in tesseract.installed():
        assert here[locale] == Covered(locale, f"Tesseract {code}", None)
    else:
        assert here[locale] == Covered(locale, None, None, code)


def test_without_tesseract_nothing_beyond_the_wheel_is_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tesseract, "installed", frozenset)
    bare = covered_locales()
    assert {one.locale for one in bare if one.reader} == {
        one.locale for one in bare if one.reader == "PP-OCR"
    }
    assert not any(one.second for one in bare)
    said = coverage_words(bare)
    assert "Tesseract reads nothing: it or its data is not installed" in said
    assert "a second reader confirms flags in none" in said
    skipped = next(line for line in said.splitlines() if line.startswith("not covered"))
    for locale in BY_DATA:
        assert f" {locale}," in skipped
    assert "tesseract-ocr-vie to cover more" in said
    assert "tesseract-ocr-deu tesseract-ocr-eng" in said


def test_doctor_lists_the_locales(light_imagegate: Command) -> None:
    done = light_imagegate("doctor", "--json")
    found = {one["name"]: one for one in json.loads(done.out)["findings"]}["text reader"]
    assert found["ok"]
    assert {one["locale"] for one in found["locales"]} == set(SAMPLES)
    assert set(found["locales"][0]) == {"locale", "reader", "second", "lacks"}
    assert "not covered, so skipped and said so" in found["detail"]
