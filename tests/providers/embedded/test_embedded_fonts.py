import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tasks.providers.embedded import fonts, typeset
from tasks.providers.embedded.fonts import BOX
from tasks.providers.embedded.typeset import Type

SAMPLES = {
    "Latn": "Frühstück",
    "Cyrl": "Привет",
    "Grek": "Καλημέρα",
    "Hans": "全场五折",
    "Jpan": "夏のセール",
    "Kore": "어서 오세요",
    "Arab": "مرحبا",
    "Hebr": "שלום",
    "Deva": "नमस्ते",
    "Thai": "สวัสดี",
    "Beng": "বাংলা",
    "Taml": "தமிழ்",
    "Telu": "తెలుగు",
    "Khmr": "ភាសា",
    "Mymr": "မြန်မာ",
    "Armn": "Հայերեն",
    "Geor": "ქართული",
    "Ethi": "አማርኛ",
}


def drawn(text, size=40):
    image = Image.new("L", (500, 80), 255)
    typeset.draw_line(
        ImageDraw.Draw(image), text, (10, 56), size=size, colour=0, style=Type(600, "und")
    )
    return image.tobytes()


@pytest.mark.parametrize("script", SAMPLES)
def test_script_is_set_with_its_own_glyphs(script):
    text = SAMPLES[script]
    assert script in fonts.settable_scripts()
    assert fonts.covered(text)
    picture = drawn(text)
    assert picture != drawn(BOX * len(text))
    assert picture != drawn(text[::-1])
    assert picture != drawn(" " * len(text))
    # .notdef is drawn for every letter alike: a text of one letter would look the same.
    assert picture != drawn(text[0] * len(text))


@pytest.mark.parametrize("text", ["བོད་ཡིག", "ⴰⵣⵓⵍ", "\ud800", "ᚠᚢᚦ", "\U0010ffff", "\ue123"])
def test_script_without_font_becomes_boxes(text):
    assert not fonts.covered(text)
    runs = fonts.runs(fonts.printable(text))
    assert {run.face for run in runs} == {None}
    assert set("".join(run.text for run in runs)) == {BOX}
    assert drawn(fonts.printable(text)) == drawn("".join(run.text for run in runs))


def test_without_font_files_nothing_is_settable(monkeypatch):
    def forget():
        fonts.faces.cache_clear()
        fonts.runs.cache_clear()

    with monkeypatch.context() as patch:
        patch.setattr(fonts, "find_spec", lambda _name: None)
        forget()
        assert fonts.settable_scripts() == ()
        assert not fonts.covered("Hello")
        assert fonts.runs("Hi") == (fonts.Run(BOX * 2, None),)
    forget()
    assert fonts.covered("Hello")


def test_han_takes_the_forms_of_its_language():
    picture = {}
    for locale in ("ja", "zh", "zh-TW", "ko"):
        image = Image.new("L", (200, 80), 255)
        typeset.draw_line(
            ImageDraw.Draw(image), "直骨角", (5, 60), size=48, colour=0, style=Type(500, locale)
        )
        picture[locale] = image.tobytes()
    assert picture["ja"] != picture["zh"] != picture["zh-TW"]


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("abc שלום", ["abc ", "שלום"]),
        ("שלום 50% הנחה", [" הנחה", "50%", "שלום "]),
        ("مرحبا 50% OFF", ["OFF", " ", "50%", "مرحبا "]),
        ("a שלום 5 עולם z", ["a ", " עולם ", "5", "שלום ", "z"]),
    ],
)
def test_runs_of_two_directions_stand_as_they_are_seen(line, seen):
    assert [run.text for run in fonts.visual(line)] == seen


def test_control_characters_go_and_breaks_stay():
    assert fonts.printable("a\x00b\x1b[0m\u202ec\r\nd\te") == "ab[0mc\nd e"
    assert fonts.printable("e\u0301") == "é"


def test_emoji_does_not_capture_the_words_after_it():
    files = [run.face.path.name for run in fonts.runs("Party 🎉 tonight")]
    assert [name.startswith("NotoEmoji") for name in files] == [False, True, False]


@given(st.text(max_size=60))
def test_runs_hold_every_character_that_is_not_ignorable(text):
    for line in fonts.printable(text).split("\n"):
        kept = "".join(run.text for run in fonts.runs(line))
        assert len(kept) <= len(line)
        assert len(kept) >= sum(
            c not in "\u200c\u200d" and not "\ufe00" <= c <= "\ufe0f" for c in line
        )
        assert sorted(fonts.visual(line), key=str) == sorted(fonts.runs(line), key=str)
        for run in fonts.runs(line):
            assert run.face is None or all(run.face.holds(c) for c in run.text)


def test_character_maps_agree_with_freetype():
    """A character that a map names has a glyph of its own, not the one for missing ones."""
    for face in fonts.faces():
        font = fonts.font(face, 32)
        gone = bytes(font.getmask("\U000effff"))
        held = [c for c in map(chr, face.starts) if unicodedata.category(c) == "Lo"][:40]
        same = [char for char in held if bytes(font.getmask(char)) == gone]
        assert not same, face.path.name
