"""Making foreign text harmless: it pings nobody, links nowhere and moves no cursor.

Prompts, read text, provider answers and reasons built from them are hostile input.
"""

from __future__ import annotations

import re
import unicodedata

#: Stands between characters that Slack or a terminal would take for markup; it has no width.
_JOINER = "\u2060"
_SPACES = re.compile(r"\s+")
_EMOJI = re.compile(r":(?=[A-Za-z0-9_+'-]+:)")
_LINK = re.compile(r"://")
#: Underscores format only at the edge of a word; inside ``typography.legible_text`` they stay.
_EDGE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
_MARKUP = str.maketrans({"*": "∗", "~": "∼", "`": "ʼ", "@": f"@{_JOINER}"})
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
#: Joiners that Indic scripts, Persian and emoji need; all other format characters go.
_KEPT_FORMATS = frozenset("\u200c\u200d")


def clean(text: str) -> str:
    """Return one line without control, direction-override, private or broken characters."""
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if category in ("Zs", "Zl", "Zp") or char in "\t\n\r\v\f\x85":
            kept.append(" ")
        elif category in ("Cs", "Co", "Cn"):
            kept.append("\ufffd")
        elif category == "Cc" or (category == "Cf" and char not in _KEPT_FORMATS):
            continue
        else:
            kept.append(char)
    return _SPACES.sub(" ", "".join(kept)).strip()


def units(text: str) -> int:
    """Return the length as Slack counts it at the worst: in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


def clip(text: str, limit: int) -> str:
    """Return the text cut to ``limit`` units, with an ellipsis when something was cut."""
    return _fit(text, limit, {})


def mrkdwn(text: str, limit: int) -> str:
    """Return foreign text for a Slack ``mrkdwn`` field: escaped, neutralised, at most ``limit``.

    ``&``, ``<`` and ``>`` are escaped, which disarms ``<!channel>``, ``<@U…>`` and links; ``@``,
    ``://``, ``:emoji:``, backticks and formatting characters are disarmed beside it.
    """
    neutral = clean(text).translate(_MARKUP)
    neutral = _LINK.sub(f":{_JOINER}//", neutral)
    neutral = _EMOJI.sub(f":{_JOINER}", neutral)
    neutral = _EDGE.sub("ˍ", neutral)
    return _fit(neutral, limit, _ESCAPES)


def _fit(text: str, limit: int, escapes: dict[str, str]) -> str:
    """Escape and cut, never inside an escape."""
    kept: list[str] = []
    room = limit
    for position, char in enumerate(text):
        piece = escapes.get(char, char)
        last = position == len(text) - 1
        if units(piece) > room - (0 if last else 1):
            return "".join(kept).rstrip() + "…" if limit > 0 else ""
        kept.append(piece)
        room -= units(piece)
    return "".join(kept)
