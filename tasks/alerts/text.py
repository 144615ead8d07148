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
#: Characters of a text that are looked at, at the most.
_LONGEST = 20_000
#: Characters looked at beyond four times the room, for those that are dropped.
_SLACK = 400
#: Less room than this holds no command that anybody could use.
_LEAST_CODE = 8
#: Joiners that Indic scripts, Persian and emoji need; all other format characters go.
_KEPT_FORMATS = frozenset("\u200c\u200d")


def clean(text: str) -> str:
    """Return one line without control, direction-override, private or broken characters."""
    kept = []
    for char in _bounded(text, _LONGEST):
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


def _bounded(text: str, most: int) -> str:
    """Cut what nobody would see anyway: hostile text may be megabytes long."""
    return text if len(text) <= most else text[:most] + "…"


def units(text: str) -> int:
    """Return the length as Slack counts it at the worst: in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def clip(text: str, limit: int) -> str:
    """Return the text cut to ``limit`` units, with an ellipsis when something was cut."""
    return _fit(text, limit, {})


def mrkdwn(text: str, limit: int) -> str:
    """Return foreign text for a Slack ``mrkdwn`` field: escaped, neutralised, at most ``limit``.

    ``&``, ``<`` and ``>`` are escaped, which disarms ``<!channel>``, ``<@U…>`` and links; ``@``,
    ``://``, ``:emoji:``, backticks and formatting characters are disarmed beside it.
    """
    neutral = clean(_bounded(text, 4 * limit + _SLACK)).translate(_MARKUP)
    neutral = _LINK.sub(f":{_JOINER}//", neutral)
    neutral = _EMOJI.sub(f":{_JOINER}", neutral)
    neutral = _EDGE.sub("ˍ", neutral)
    return _fit(neutral, limit, _ESCAPES)


def code(command: str, limit: int = 600) -> str:
    """Return a command as a code span that can be copied as it is, at most ``limit`` units."""
    text = clean(_bounded(command, 4 * limit + _SLACK))
    shown = _fit(text.replace("`", "ʼ"), limit - 2, _ESCAPES)
    return f"`{shown}`" if shown else ""


def prose(text: str, limit: int) -> str:
    """Return a sentence as :func:`mrkdwn` does, with what stands in backticks as code.

    Backticks come in pairs; one without a partner is neutralised like all markup.
    """
    parts = clean(_bounded(text, 4 * limit + _SLACK)).split("`")
    if len(parts) % 2 == 0:  # the last backtick closes nothing
        parts[-2:] = [f"{parts[-2]}`{parts[-1]}"]
    shown: list[str] = []
    room = limit
    for position, part in enumerate(parts):
        is_code = position % 2 == 1 and part.strip() != ""
        if is_code and room > _LEAST_CODE:
            piece = code(part, room)
        elif position % 2 == 1 and is_code:
            piece = "…" if room > 0 else ""
        else:
            # The blanks around a command belong to the sentence.
            lead = " " if part[:1] == " " and shown else ""
            tail = " " if part[-1:] == " " and part.strip() and position < len(parts) - 1 else ""
            piece = lead + mrkdwn(part, room - 2) + tail if room > _LEAST_CODE else ""
        shown.append(piece)
        room -= units(piece)
    return "".join(shown).rstrip()


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
