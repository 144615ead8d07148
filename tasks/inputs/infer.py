"""What a log leaves out, read from the prompt: texts to set, subtask, locale. Pure functions.

Rules, so that a person can foretell them:

- *Texts to set* are the strings that stand in quotes (``"…"``, ``“…”``, ``„…“``, ``«…»``,
  ``「…」``, ``『…』``), each at most 80 characters with at least one letter or digit, once each.
  Straight quotes count only in pairs and not beside a Latin letter or digit on their outer side,
  so inches are not text.
  A prompt with more than four strings is a story with dialogue, not a layout: none is taken.
- *Subtask*: ``edit`` with an upload, else ``typography`` when text is expected, else ``fast`` for
  a prompt of at most 48 characters, else ``creative``. ``upscale`` is never guessed.
- *Locale*: from the script of the texts, else from the script of the prompt. A script says little
  about the language: Latin letters without accents read as ``en``, with accents as ``und``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tasks.records import Subtask

MAX_TEXT = 80
MAX_TEXTS = 4
FAST_PROMPT = 48

_QUOTED = re.compile(
    r"“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»|「([^「」]*)」|『([^『』]*)』"
    r'|(?<![0-9A-Za-z])"(?=\S)([^"]*)(?<=\S)"(?![0-9A-Za-z])'
)
# Letters of one language within a script that several share. Vietnamese alone uses the
# U+1EA0 block for whole words; the Ukrainian letters are in no Russian word.
_VIETNAMESE = re.compile("[\u01a0\u01a1\u01af\u01b0\u1ea0-\u1ef9]")
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")

#: First and last code point of a script's letters, and the locale it is read as.
_SCRIPTS: tuple[tuple[int, int, str], ...] = (
    (0x0370, 0x03FF, "el"),
    (0x1F00, 0x1FFF, "el"),
    (0x0400, 0x052F, "ru"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "ar"),
    (0x0750, 0x077F, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x0E00, 0x0E7F, "th"),
    (0x3041, 0x30FF, "ja"),
    (0xFF66, 0xFF9D, "ja"),
    (0x1100, 0x11FF, "ko"),
    (0xAC00, 0xD7AF, "ko"),
    (0x3400, 0x4DBF, "zh"),
    (0x4E00, 0x9FFF, "zh"),
    (0x20000, 0x323AF, "zh"),
)


def expected_text(prompt: str) -> tuple[str, ...]:
    """Return the strings that the prompt wants to be set in the picture, in order."""
    if prompt.count('"') % 2:
        # One straight quote too many: which ones pair up is a guess, so none does.
        prompt = prompt.replace('"', " ")
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(prompt):
        text = next(group for group in match.groups() if group is not None).strip()
        if len(text) <= MAX_TEXT and any(c.isalnum() for c in text):
            found[text] = None
    return tuple(found) if len(found) <= MAX_TEXTS else ()


def subtask(prompt: str, texts: Sequence[str], upload: str | None) -> Subtask:
    """Return the subtask that a prompt without one most likely belongs to."""
    if upload is not None:
        return "edit"
    if texts:
        return "typography"
    return "fast" if len(prompt) <= FAST_PROMPT else "creative"


def locale(prompt: str, texts: Sequence[str]) -> str:
    """Return the locale that the texts, or without letters in them the prompt, are written in."""
    for source in ("\n".join(texts), prompt):
        found = script_locale(source)
        if found is not None:
            return found
    return "und"


def script_locale(text: str) -> str | None:
    """Return the locale of the script most letters of ``text`` belong to; ``None`` without any."""
    if text.isascii():
        return "en" if any(c.isalpha() for c in text) else None
    counts = Counter(_letter_locale(ord(c)) for c in text if c.isalpha() or ord(c) > 0xFFFF)
    counts.pop("", None)
    if not counts:
        return None
    if "ja" in counts:
        # Japanese mixes kana with Han characters; Chinese has no kana.
        counts["ja"] += counts.pop("zh", 0)
    most = max(sorted(counts), key=counts.__getitem__)
    if most == "latin":
        if _VIETNAMESE.search(text):
            return "vi"
        return "en" if not any(c.isalpha() and "\x7f" < c < "\u0250" for c in text) else "und"
    if most == "ru" and _UKRAINIAN.search(text):
        return "uk"
    return most


def _letter_locale(code: int) -> str:
    """Return the locale of a letter's script, ``latin``, ``und`` or, for no letter, nothing."""
    if code < 0x0250 or 0x1E00 <= code <= 0x1EFF:
        return "latin"
    for first, last, name in _SCRIPTS:
        if first <= code <= last:
            return name
    return "und" if chr(code).isalpha() else ""
