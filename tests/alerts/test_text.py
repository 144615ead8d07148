from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.text import clean, clip, mrkdwn, units

#: Any code point at all, broken ones included.
WILD = st.text(st.characters(codec=None))


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("<!channel> now", "&lt;!channel&gt; now"),
        ("<@U012345>", "&lt;@\u2060U012345&gt;"),
        ("@here @everyone", "@\u2060here @\u2060everyone"),
        ("<https://evil.example|click>", "&lt;https:\u2060//evil.example|click&gt;"),
        ("a & b &lt;", "a &amp; b &amp;lt;"),
        ("*bold* ~gone~ `code`", "∗bold∗ ∼gone∼ ʼcodeʼ"),
        ("```\nfence", "ʼʼʼ fence"),
        ("_slanted_ but legible_text", "ˍslantedˍ but legible_text"),
        ("__x__", "ˍˍxˍˍ"),
        (":rotating_light: 12:30:45 a", ":\u2060rotating_light: 12:\u206030:45 a"),
        ("line\none\r\ntwo\u2028three\x85four", "line one two three four"),
        ("\x1b[31mred\x07\x00", "[31mred"),
        ("evil\u202egnp.exe\u2066", "evilgnp.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("हिन्दी क्\u200dष", "हिन्दी क्\u200dष"),
        ("  spaced\u00a0out \t ", "spaced out"),
    ],
)
def test_hostile_text_becomes_harmless(hostile: str, shown: str) -> None:
    assert mrkdwn(hostile, 1000) == shown


@given(WILD, st.integers(0, 80))
def test_nothing_that_slack_acts_on_is_left(text: str, limit: int) -> None:
    shown = mrkdwn(text, limit)
    assert units(shown) <= limit
    assert not re.search(r"[<>`*~\n]", shown)
    assert not re.search(r"&(?!amp;|lt;|gt;)", shown)
    assert not re.search(r"@(?!\u2060|…|\Z)", shown)
    assert "://" not in shown
    assert not re.search(r":[A-Za-z0-9_+'-]+:", shown)
    shown.encode("utf-8")


@given(WILD)
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    shown = clean(text)
    kinds = {unicodedata.category(char) for char in shown if char not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert clean(shown) == shown


@given(st.text("abc👍<&", max_size=30), st.integers(0, 40))
def test_cut_text_fits_and_says_that_it_was_cut(text: str, limit: int) -> None:
    shown = clip(text, limit)
    assert units(shown) <= limit
    if units(text) <= limit:
        assert shown == text
    elif limit:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])


def test_a_cut_never_halves_an_escape() -> None:
    for limit in range(1, 40):
        assert re.fullmatch(r"(&lt;)*…?", mrkdwn("<" * 20, limit))


def test_length_counts_what_slack_counts() -> None:
    assert units("a👍") == 3
