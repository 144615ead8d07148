"""Untrusted text made fit to be shown: nothing invisible, nothing that reorders its surroundings.

Escaping for HTML, JSON or markdown is the business of who writes them; this module makes the
characters themselves honest, and finds where a read text departs from the expected one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher

#: Direction marks, embeddings, overrides and isolates: they can show a text in another order
#: than it has.
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2028\u2029\ufeff\ufff9-\ufffb"
    f"{_DIRECTION}\ud800-\udfff\U000e0000-\U000e007f]"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
#: Characters of one expected or read text that are compared; a longer one is cut.
LONGEST_COMPARED = 240
#: Lines of a picture's text that are looked at for one expected text.
_MOST_LINES = 40

#: One piece of a comparison: ``=`` in both, ``-`` only expected, ``+`` only read.
Piece = tuple[str, str]


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


def clusters(text: str) -> list[str]:
    """Return the text in pieces that a reader sees as one character each.

    Marks stay with their letter, so that marking one piece never tears a letter apart. This is
    the short form of Unicode's rule for grapheme clusters: marks, joiners and variation selectors.
    """
    found: list[str] = []
    for char in text:
        joins = unicodedata.category(char) in {"Mn", "Mc", "Me"} or char in "\u200c\u200d"
        after_joiner = bool(found) and found[-1].endswith("\u200d")
        if found and (joins or after_joiner):
            found[-1] += char
        else:
            found.append(char)
    return found


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())[:LONGEST_COMPARED]


def closest(expected: str, lines: Sequence[str]) -> str | None:
    """Return the read text that comes closest to the expected one: some lines in a row.

    Returns:
        The lines joined by spaces, or ``None`` when nothing read resembles it.
    """
    wanted = _folded(expected)
    read = [line for line in (_folded(line) for line in lines[:_MOST_LINES]) if line]
    if not wanted or not read:
        return None
    most = min(len(read), expected.count("\n") + 3)
    best, best_ratio = None, 0.3
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(wanted)
    for length in range(1, most + 1):
        for start in range(len(read) - length + 1):
            candidate = " ".join(read[start : start + length])[:LONGEST_COMPARED]
            matcher.set_seq1(candidate)
            # Both bounds are cheap, and rule out most lines before the costly comparison.
            if matcher.real_quick_ratio() <= best_ratio or matcher.quick_ratio() <= best_ratio:
                continue
            ratio = matcher.ratio()
            if ratio > best_ratio:
                best, best_ratio = candidate, ratio
    return best


def compare(expected: str, read: str) -> list[Piece]:
    """Return how the read text departs from the expected one, character by character."""
    left = clusters(visible(_folded(expected)))
    right = clusters(visible(_folded(read)))
    pieces: list[Piece] = []
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for tag, start, end, start2, end2 in matcher.get_opcodes():
        if tag == "equal":
            pieces.append(("=", "".join(left[start:end])))
            continue
        if end > start:
            pieces.append(("-", "".join(left[start:end])))
        if end2 > start2:
            pieces.append(("+", "".join(right[start2:end2])))
    return pieces
