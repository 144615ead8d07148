"""Keys are taken out of what providers write, whatever they look like in it."""

from __future__ import annotations

import base64
import string
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from tasks.providers.secrets import Redactor

printable = st.text(string.ascii_letters + string.digits + "+/=-_.:~ %", min_size=12, max_size=60)
keys = printable.filter(lambda text: len(text.strip()) >= 12).map(str.strip)


@given(keys, st.text(max_size=20), st.text(max_size=20))
def test_a_plain_or_quoted_key_is_gone(key: str, before: str, after: str) -> None:
    redactor = Redactor([key])
    for form in (key, quote(key, safe=""), quote_plus(key)):
        assert form not in redactor.hide(before + form + after)
        assert form not in redactor.text(before + form + after)


@given(keys, st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_no_part_of_a_key_in_base64_can_be_read_back(
    key: str, before: bytes, after: bytes, url_safe: bool
) -> None:
    """Whatever stands around it, three letters of the key at each end are the most that stay."""
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    text = encode(before + key.encode() + after).decode()
    hidden = Redactor([key]).hide(text)
    assert "***" in hidden
    left = "".join(hidden.split("***"))
    for offset in range(3):
        whole = encode(bytes(offset) + key.encode()).decode().rstrip("=")
        for at in range(4, len(whole) - 12):
            assert whole[at : at + 8] not in left


@given(keys)
def test_values_are_redacted_in_depth_names_too(key: str) -> None:
    shown = Redactor([key]).value({"a": [key, {key: f"x{key}y"}], "n": 3, "b": None})
    assert key not in repr(shown)
    assert shown["n"] == 3
    assert shown["b"] is None


def test_without_a_secret_nothing_changes() -> None:
    assert Redactor().text("  a\tb\n") == "a b"
    assert Redactor(["", "  "]).hide("a  b") == "a  b"


def test_a_long_text_is_searched_before_it_is_cut() -> None:
    key = "sk-0123456789abcdef"
    assert key[:4] not in Redactor([key]).text("x" * 290 + key, 300)


def test_the_longest_form_goes_first_and_the_repr_shows_none() -> None:
    redactor = Redactor(["abcdefghijkl", "abcdefghijklmnop"])
    assert redactor.hide("abcdefghijklmnop") == "***"
    assert "abcd" not in repr(redactor)


def test_a_key_in_what_was_put_in_lower_case_is_gone() -> None:
    """A provider that writes the key where a media type belongs: those are kept in lower case."""
    key = "AKIDEXAMPLE0000:sEcret-0123456789"
    assert Redactor([key]).text(f"image/{key}".lower()) == "image/***"
