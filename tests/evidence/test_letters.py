"""Letter by letter: comparisons that add up, marks only where the text check finds fault."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.checks.text_match import keys
from tasks.evidence.letters import LONGEST_COMPARED, closest, clusters, compare, differs

ANY = st.text(st.characters(exclude_categories=()), max_size=60)
WORDS = st.text("abcdAB éß12-!…", min_size=1, max_size=40)


@settings(deadline=None)
@given(ANY)
def test_clusters_lose_nothing(text: str) -> None:
    pieces = clusters(text)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize(
    "text",
    [
        "e\u0301",
        "👩\u200d🚀",
        "👍🏽",
        "🇵🇱",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "กี่",
        "กำ",
        "कि",
        "क्षि",
        "র্ক",
        "\u1112\u1161\u11ab",
        "á\u0323",
        "\u1000\u1039\u1000",
        "\u1780\u17d2\u1780",
    ],
)
def test_what_reads_as_one_letter_is_never_torn(text: str) -> None:
    assert clusters(f"a{text}b") == ["a", text, "b"]


def test_neighbours_stay_apart() -> None:
    assert clusters("🇵🇱🇩🇪") == ["🇵🇱", "🇩🇪"]
    assert clusters("กขค") == ["ก", "ข", "ค"]
    assert clusters("مرحبا") == list("مرحبا")
    assert clusters("한글") == ["한", "글"]


@settings(deadline=None, max_examples=300)
@given(
    st.text(
        "aeé\u0301\u200d👩🚀🏽🇵🇱🇩กำี่क्षमिতर্ক한글ᄒ\u1161\u11abمرב\u05b8 1\ufe0f\u20e3", max_size=12
    )
)
def test_clusters_are_those_of_unicode_or_longer(text: str) -> None:
    regex = pytest.importorskip("regex")
    ends = set()
    at = 0
    for piece in clusters(text):
        at += len(piece)
        ends.add(at)
    theirs = {match.end() for match in regex.finditer(r"\X", text)}
    assert ends <= theirs, "a letter was torn"


@settings(deadline=None)
@given(WORDS, WORDS)
def test_a_comparison_rebuilds_both_texts(expected: str, read: str) -> None:
    pieces = compare(expected, read)
    assert "".join(p.expected for p in pieces) == " ".join(expected.split())
    assert "".join(p.read for p in pieces) == " ".join(read.split())
    for piece in pieces:
        if piece.kind == "=":
            assert keys(piece.expected) == keys(piece.read)
        if piece.kind in "-+.":
            assert not (piece.expected and piece.read)


@settings(deadline=None)
@given(WORDS)
def test_what_the_check_takes_for_the_same_is_not_marked(text: str) -> None:
    for read in (text, f"  {text} ", text.upper(), text.replace("…", "...")):
        assert not differs(compare(text, read)) or keys(text) != keys(read)


@settings(deadline=None)
@given(st.lists(st.sampled_from(list("abcdef")), min_size=2, max_size=12), st.data())
def test_one_letter_that_goes_is_one_mark(letters: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(letters) - 1))
    text = "".join(letters)
    marks = [p for p in compare(text, text[:place] + text[place + 1 :]) if p.kind != "="]
    assert [(p.kind, p.expected, p.read) for p in marks] == [("-", marks[0].expected, "")]
    assert len(marks[0].expected) == 1


def told(expected: str, read: str) -> list[list[str]]:
    return [piece.plain() for piece in compare(expected, read)]


@pytest.mark.parametrize(
    ("expected", "read", "pieces"),
    [
        ("SALE", "SALF", [["=", "SAL"], ["~", "E", "F"]]),
        ("from", "form", [["=", "f"], ["x", "ro", "or"], ["=", "m"]]),
        ("modern", "modem", [["=", "mode"], ["~", "rn", "m"]]),
        ("5 km", "50 km", [["=", "5"], ["+", "", "0"], ["=", " km"]]),
        ("Grand Opening", "GRANDOPENING", [["=", "Grand Opening", "GRANDOPENING"]]),
        ("Straße", "STRASSE", [["=", "Straße", "STRASSE"]]),
        ("Maße", "Masse", [["=", "Ma"], ["~", "ß", "ss"], ["=", "e"]]),
        ("…more", "...more", [["=", "…more", "...more"]]),
        ("SALE", "big SALE now", [[".", "", "big"], ["=", "SALE", " SALE"], [".", "", " now"]]),
        ("SALE", "SALE SALE", [["=", "SALE"], ["+", "", " SALE"]]),
        ("now on", "now now on", [["+", "", "now"], ["=", "now on", " now on"]]),
        ("東京", "東京京", [["=", "東京"], ["+", "", "京"]]),
        ("Opening", "Qz7pxxi", [["~", "Opening", "Qz7pxxi"]]),
        ("مرحبا بكم", "مرخبا بكم", [["=", "مر"], ["~", "ح", "خ"], ["=", "با بكم"]]),
        ("नमस्ते", "नमसते", [["=", "नम"], ["~", "स्ते", "सते"]]),
        ("a\u200eb", "ab", [["=", "a⟨U+200E⟩b", "ab"]]),
        ("gone", "", [["-", "gone", ""]]),
        ("", "", []),
    ],
)
def test_the_kind_of_difference(expected: str, read: str, pieces: list[list[str]]) -> None:
    assert told(expected, read) == pieces


def test_the_closest_lines_are_found_among_others() -> None:
    lines = ["NORTHWIND", "Grand", "Opemng", "since 1984"]
    assert closest("Grand\nOpening", lines) == "Grand Opemng"
    assert closest("NORTHWIND", lines) == "NORTHWIND"
    assert closest("northwind", lines) == "NORTHWIND"


def test_nothing_alike_is_nothing() -> None:
    assert closest("Opening", ["1234", "%%%"]) is None
    assert closest("Opening", []) is None
    assert closest("", ["Opening"]) is None


def test_endless_texts_are_cut_before_they_are_compared() -> None:
    pieces = compare("x" * 100_000, "y" * 100_000)
    assert sum(len(p.expected) + len(p.read) for p in pieces) == 2 * LONGEST_COMPARED
    assert closest("x" * 100_000, ["x" * 100_000] * 500) is not None
