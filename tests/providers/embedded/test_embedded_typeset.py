import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.providers.embedded import typeset
from tasks.providers.embedded.typeset import Type, fit, gaps, quoted

STYLE = Type(600, "en")


@pytest.mark.parametrize(
    ("prompt", "strings"),
    [
        ('A sign that says "Open Late"', ("Open Late",)),
        ("Poster “Eins” und „Zwei“", ("Eins", "Zwei")),
        ("«Ouvert», 「営業中」, 『本日』", ("Ouvert", "営業中", "本日")),
        ('"Line one\nLine two"', ("Line one\nLine two",)),
        ('a 5" pizza with "Hot" and a 10" pan', ("Hot",)),
        ('"Sale" twice: "Sale"', ("Sale",)),
        ('nothing here, not even "" or "..."', ()),
        ("it's Bob's", ()),
        ('label "Don\'t stop"', ("Don't stop",)),
        ('a "<b>Bold</b>" tag', ("<b>Bold</b>",)),
    ],
)
def test_quoted_strings(prompt, strings):
    assert quoted(prompt) == strings


@given(st.text(max_size=200))
def test_quoted_takes_any_text(prompt):
    found = quoted(prompt)
    assert len(found) == len(set(found)) <= typeset.MOST
    assert all(text.strip() == text and text for text in found)
    inner = "".join(c for c in prompt if c not in '"“”„«»「」『』')
    assert len(quoted(f'say "x{inner}x" now')) == 1


def test_short_text_is_large_and_on_one_line():
    (block,) = fit(["Grand Opening"], 430, 430, 70, STYLE)
    assert block.lines == ("Grand Opening",)
    assert block.size >= 48


def test_long_text_wraps_at_spaces_without_a_lonely_word():
    text = "The quick brown fox jumps over the lazy dog while seventeen children watch"
    (block,) = fit([text], 430, 300, 60, STYLE)
    assert " ".join(block.lines) == text
    assert len(block.lines) > 1
    assert min(len(line) for line in block.lines) >= 0.5 * max(len(line) for line in block.lines)


def test_japanese_wraps_between_letters_but_not_before_punctuation():
    text = "夏の大セール、今週末だけの特別価格でご提供いたします。お急ぎください。"
    (block,) = fit([text], 300, 400, 50, Type(600, "ja"))
    assert "".join(block.lines) == text
    assert len(block.lines) > 1
    assert not any(line[0] in "、。ー" for line in block.lines)


def test_a_word_that_is_wider_than_the_column_is_broken_only_when_small():
    (block,) = fit(["Donaudampfschifffahrt" * 8], 300, 400, 50, STYLE)
    assert "".join(block.lines) == "Donaudampfschifffahrt" * 8
    (whole,) = fit(["Donaudampfschifffahrt"], 300, 400, 50, STYLE)
    assert len(whole.lines) == 1


@given(
    st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=5),
    st.integers(8, 700),
    st.integers(8, 700),
)
def test_what_is_laid_out_fits_its_column(strings, width, height):
    strings = [" ".join(s.split()) or "x" for s in strings]
    blocks = fit(strings, width, height, 60, STYLE)
    assert sum(b.height for b in blocks) + gaps(blocks) <= height
    assert all(block.lines for block in blocks)


def test_order_of_strings_is_kept():
    blocks = fit(["One", "Two", "Three"], 300, 300, 60, STYLE)
    assert [line for block in blocks for line in block.lines] == ["One", "Two", "Three"]
