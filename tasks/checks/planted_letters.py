"""Letters exchanged in the type of a picture that cannot be set again."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.planted_base import choice
from tasks.checks.planted_layout import boxes_in
from tasks.records import Region

#: Least height of a line whose letters are exchanged, in pixels, and widest part that is a letter,
#: as a share of the height.
_LEAST, _WIDE, _NARROW = 14, 1.2, 0.25
#: Share of two letters' pixels that must differ for anyone to see the exchange, and how far their
#: widths may differ.
_UNLIKE, _WIDTHS = 0.25, 1.4
#: Levels between letters and ground.
_CONTRAST = 60


def exchanged_letters(
    shown: Picture, expected: Expected, rng: np.random.Generator
) -> Pixels | None:
    """Exchange two letters of one line, in a copy of the pixels.

    Where the lines are is what the reader finds; letters are what gaps part in them.

    Returns:
        The pixels; ``None`` where no line has two letters of a width that differ visibly.
    """
    able = []
    for line in boxes_in(shown, expected):
        place = _inside(line, shown.rgb)
        ink = _ink(shown.rgb[place])
        if ink is None or ink.shape[0] < _LEAST:
            continue
        parts = _letters(ink)
        pairs = itertools.combinations(parts, 2)
        able += [(place, one, two) for one, two in pairs if _differ(ink, one, two)]
    if not able:
        return None
    place, one, two = choice(able, rng)
    pixels = shown.rgb.copy()
    line_pixels = pixels[place]
    first, second = line_pixels[:, one].copy(), line_pixels[:, two].copy()
    line_pixels[:, one] = _wide(second, first.shape[1])
    line_pixels[:, two] = _wide(first, second.shape[1])
    return pixels


def _inside(box: Region, rgb: Pixels) -> tuple[slice, slice]:
    height, width = rgb.shape[:2]
    return (
        slice(max(box.y, 0), min(box.y + box.height, height)),
        slice(max(box.x, 0), min(box.x + box.width, width)),
    )


def _ink(line: Pixels) -> Pixels | None:
    """Return where the letters of a line are, 0 or 1; ``None`` without clear contrast."""
    if min(line.shape[:2]) < 8:
        return None
    grey = cv2.cvtColor(np.ascontiguousarray(line), cv2.COLOR_RGB2GRAY)
    level, dark = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    low, high = grey[grey <= level], grey[grey > level]
    if not low.size or not high.size or float(high.mean() - low.mean()) < _CONTRAST:
        return None
    ink = dark if dark.mean() < 0.5 else 1 - dark
    return np.asarray(ink, np.uint8)


def _letters(ink: Pixels) -> list[slice]:
    """Return the columns of what gaps part in a line."""
    filled = np.concatenate([[0], (ink.sum(axis=0) > 0).astype(int), [0]])
    starts, ends = np.flatnonzero(np.diff(filled) == 1), np.flatnonzero(np.diff(filled) == -1)
    height = ink.shape[0]
    return [
        slice(int(start), int(end))
        for start, end in zip(starts, ends, strict=True)
        if _NARROW * height <= end - start <= _WIDE * height
    ]


def _differ(ink: Pixels, one: slice, two: slice) -> bool:
    """Say whether two letters of a line are about as wide and look unlike."""
    first, second = ink[:, one], ink[:, two]
    wide, narrow = max(first.shape[1], second.shape[1]), min(first.shape[1], second.shape[1])
    if wide > _WIDTHS * narrow:
        return False
    return float((_wide(second, first.shape[1]) != first).mean()) >= _UNLIKE


def _wide(part: Pixels, width: int) -> Pixels:
    size = (width, part.shape[0])
    how = cv2.INTER_NEAREST if part.ndim == 2 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(part), size, interpolation=how), np.uint8)
