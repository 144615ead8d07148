"""Untrusted text made fit to be shown: nothing invisible, nothing that reorders its surroundings.

Escaping for HTML, JSON or markdown is the business of who writes them; this module makes the
characters themselves honest. :mod:`tasks.evidence.letters` compares such texts.
"""

from __future__ import annotations

import re

#: Direction marks, embeddings, overrides and isolates: they can show a text in another order
#: than it has.
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2028\u2029\ufeff\ufff9-\ufffb"
    f"{_DIRECTION}\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


def _named(match: re.Match[str]) -> str:
    # Not the signs of U+2400: few fonts have them, and a box would look like a missing glyph.
    return f"⟨U+{ord(match[0]):04X}⟩"


def visible(text: str) -> str:
    """Return the text with control, direction and other invisible characters made visible."""
    return _HIDDEN.sub(_named, text.replace("\r\n", "\n").replace("\r", "\n"))


def well_formed(text: str) -> str:
    r"""Return the text with lone surrogates written as ``\udXXX``, so that UTF-8 can hold it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(text: str, most: int) -> str:
    """Return the text, cut to ``most`` characters with an ellipsis."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def markdown(text: str) -> str:
    """Return the text as one line of markdown that shows it literally."""
    line = _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split()))
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
