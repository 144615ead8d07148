"""Untrusted text: nothing invisible, nothing lost, comparisons that add up."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evidence.text import (
    LONGEST_COMPARED,
    closest,
    clusters,
    compare,
    markdown,
    shorten,
    visible,
    well_formed,
)

ANY = st.text(st.characters(exclude_categories=()), max_size=80)
WORDS = st.text("abcdefg éß", min_size=1, max_size=40)


@settings(deadline=None)
@given(ANY)
def test_nothing_invisible_or_reordering_is_left(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(c) in {"Cc", "Cs"} for c in shown if c not in "\n\t")
    assert not set(shown) & set(
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
    )
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\x00b\x1b", "a⟨U+0000⟩b⟨U+001B⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("two\r\nlines\rmore", "two\nlines\nmore"),
        ("plain ⟨ text\twith é", "plain ⟨ text\twith é"),
        ("x\U000e0041", "x⟨U+E0041⟩"),
    ],
)
def test_what_is_hidden_is_named(text: str, shown: str) -> None:
    assert visible(text) == shown


@settings(deadline=None)
@given(ANY)
def test_well_formed_text_can_be_encoded_and_keeps_what_could(text: str) -> None:
    safe = well_formed(text)
    safe.encode("utf-8")
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert safe == text


@settings(deadline=None)
@given(ANY, st.integers(1, 50))
def test_shortening_keeps_to_the_length(text: str, most: int) -> None:
    assert len(shorten(text, most)) <= most


@settings(deadline=None)
@given(ANY)
def test_clusters_lose_nothing(text: str) -> None:
    pieces = clusters(text)
    assert "".join(pieces) == text
    assert all(pieces)


def test_marks_and_joined_signs_stay_together() -> None:
    assert clusters("e\u0301a") == ["e\u0301", "a"]
    assert clusters("👩\u200d🚀!") == ["👩\u200d🚀", "!"]
    assert clusters("กี่") == ["กี่"]


@settings(deadline=None)
@given(WORDS, WORDS)
def test_a_comparison_rebuilds_both_texts(expected: str, read: str) -> None:
    pieces = compare(expected, read)
    assert "".join(t for op, t in pieces if op != "+") == " ".join(expected.split())
    assert "".join(t for op, t in pieces if op != "-") == " ".join(read.split())


@settings(deadline=None)
@given(WORDS)
def test_equal_texts_have_no_difference(text: str) -> None:
    assert {op for op, _ in compare(text, f" {text} ")} <= {"="}


def test_one_swapped_letter_is_what_is_marked() -> None:
    assert compare("SALE", "SALF") == [("=", "SAL"), ("-", "E"), ("+", "F")]


def test_the_closest_lines_are_found_among_others() -> None:
    lines = ["NORTHWIND", "Grand", "Opemng", "since 1984"]
    assert closest("Grand\nOpening", lines) == "Grand Opemng"
    assert closest("NORTHWIND", lines) == "NORTHWIND"


def test_nothing_alike_is_nothing() -> None:
    assert closest("Opening", ["1234", "%%%"]) is None
    assert closest("Opening", []) is None
    assert closest("", ["Opening"]) is None


def test_endless_texts_are_cut_before_they_are_compared() -> None:
    pieces = compare("x" * 100_000, "y" * 100_000)
    assert sum(len(text) for _, text in pieces) == 2 * LONGEST_COMPARED
    assert closest("x" * 100_000, ["x" * 100_000] * 500) is not None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("[x](javascript:1)", r"\[x\]\(javascript:1\)"),
        ("<img src=x> & co", r"&lt;img src=x&gt; &amp; co"),
        ("two\nlines", "two lines"),
        ("`code` *bold* _it_", r"\`code\` \*bold\* \_it\_"),
        ("back\\slash", "back\\\\slash"),
    ],
)
def test_markdown_shows_text_literally(text: str, shown: str) -> None:
    assert markdown(text) == shown
