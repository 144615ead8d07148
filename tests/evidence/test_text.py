"""Untrusted text: nothing invisible, nothing lost."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evidence.text import markdown, shorten, visible, well_formed

ANY = st.text(st.characters(exclude_categories=()), max_size=80)


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
