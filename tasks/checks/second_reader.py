"""A second, independent reader for strings that were flagged: Tesseract, another engine.

Its network, its data and its way to cut lines into letters have nothing in common with PP-OCR;
only where the lines are comes from the first reader, and for strings that are missing it searches
the whole picture by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tasks.checks import tesseract
from tasks.checks.second_look import wanted
from tasks.checks.tesseract import Guess, Preparation
from tasks.checks.text_match import Box, align, find, keys
from tasks.checks.text_misses import OTHER, Miss
from tasks.checks.text_thread import stretch

#: Data for Latin letters, in the order in which it is tried: the first that knows every letter.
LATIN = (
    "eng", "deu", "fra", "spa", "ita", "por", "nld", "pol", "ces", "tur", "swe", "ron", "hun",
)  # fmt: skip
#: How lines are prepared.
HYPOTHESES = (
    Preparation(0.2, 36),
    Preparation(0.1, 32),
    Preparation(0.3, 48),
    Preparation(0.2, 64, binary=True),
)
#: Those for lines that the first reader surely reads as something else.
FEW = HYPOTHESES[:2]
#: Mean probability at which the first reader is sure of a line.
SURE = 0.8
#: Long side of the picture that it searches by itself.
PAGE = 768
#: Lines that Tesseract finds by itself count above this confidence.
LEAST_SCORE = 0.5


def code_for(text: str) -> str | None:
    """Return the code of the data that can read a text of Latin letters, ``None`` without any."""
    if not all(c.isascii() or _latin(c) for c in keys(text) if c.isalpha()):
        return None
    codes = (code for code in LATIN if code in tesseract.installed())
    return next((code for code in codes if tesseract.engine(code).knows(text)), None)


def _latin(char: str) -> bool:
    return 0xC0 <= ord(char) < 0x250


def confirmed(miss: Miss, rgb: Any) -> bool | None:
    """Return whether a second reader finds the string wrong too.

    Returns:
        ``True``: it reads the same wrong letters, or nothing like the string anywhere.
        ``False``: it reads the intended string. ``None``: it is not installed, does not know the
        letters, or reads nothing clear.
    """
    code = code_for(miss.text)
    if code is None or not miss.distance:  # It is there, less often than it was asked for.
        return None
    key = keys(miss.text)
    read = [keys(box.text) for box in miss.boxes]
    if miss.severity in {"absent", "wrong text"}:
        lines = tesseract.guesses(code, rgb, miss.quads, FEW)
        return _nowhere(miss, key, [*_columns(miss.boxes, lines), _page(code, rgb)])
    if miss.severity == "doubled":
        lines = tesseract.guesses(code, rgb, miss.quads, HYPOTHESES)
        pairs = zip(read, lines, strict=True)
        return all(any(got in keys(g.text) for g in each) for got, each in pairs) or None
    # Only the lines that the first reader reads otherwise than they should be.
    parts = wanted(key, read, miss.around)
    differing = [
        (got, want, quad)
        for got, want, quad in zip(read, parts, miss.quads, strict=True)
        # As it should be, or no part of the string at all.
        if got != want and 2 * align(want, got).distance < max(len(want), 1)
    ]
    lines = tesseract.guesses(code, rgb, [quad for _, _, quad in differing], HYPOTHESES)
    return _line_by_line([(got, want) for got, want, _ in differing], lines)


def _columns(boxes: Sequence[Box], lines: Sequence[Sequence[Guess]]) -> list[list[Box]]:
    """Return the lines as each hypothesis reads them."""
    return [
        [replace(box, text=each[n].text) for box, each in zip(boxes, lines, strict=True)]
        for n in range(len(FEW))
    ]


def _nowhere(miss: Miss, key: str, readings: Sequence[Sequence[Box]]) -> bool | None:
    if any(find(key, boxes) for boxes in readings):
        return False
    if miss.score < SURE or miss.unread:
        return None  # Something stands there that the first reader cannot read either.
    nearest = [stretch(key, boxes, range(len(boxes))) for boxes in readings]
    return True if all(one.distance > OTHER * len(key) for one in nearest) else None


def _line_by_line(
    pairs: Sequence[tuple[str, str]], lines: Sequence[Sequence[Guess]]
) -> bool | None:
    """Compare lines, as they were read and as they should be, with what the second reader reads."""
    right: list[bool] = []
    for (got, want), each in zip(pairs, lines, strict=True):
        seen = [(keys(guess.text), guess.score) for guess in each]
        right.append(any(text == want and score >= LEAST_SCORE for text, score in seen))
        # Tesseract drops and adds marks at the ends of lines: they prove nothing.
        bare_got, bare_want = _bare(got), _bare(want)
        if bare_got == bare_want or any(_bare(text) == bare_want for text, _ in seen):
            continue
        if any(_shows(bare_got, text, score) for text, score in seen):
            return True
    return False if right and all(right) else None


def _shows(got: str, text: str, score: float) -> bool:
    """Say whether a reading is the wrong letters, or surely holds them."""
    return len(got) > 1 and (_bare(text) == got or (got in text and score >= LEAST_SCORE))


def _bare(key: str) -> str:
    """Return a key without the signs around its letters."""
    ends = "".join({c for c in key if not c.isalnum()})
    return key.strip(ends) if ends else key


def _page(code: str, rgb: Any) -> list[Box]:
    import cv2

    ratio = min(1.0, PAGE / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * ratio)), max(1, round(rgb.shape[0] * ratio))
    page = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if ratio < 1 else rgb
    return [
        Box(guess.text, *(float(side) / ratio for side in box))
        for guess, box in tesseract.engine(code).page(np.ascontiguousarray(page))
        if guess.score >= LEAST_SCORE and keys(guess.text)
    ]
