"""Letters exchanged in the type of a picture that cannot be set again."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.planted_base import choice
from tasks.checks.planted_layout import boxes_in
from tasks.records import Region

#: Least height of a line whose letters are exchanged, in pixels; least height and width of a
#: letter, and its most width, as shares of the line's height.
_LEAST, _HIGH, _NARROW, _WIDE = 14, 0.3, 0.12, 1.3
#: Share of two letters' pixels that must differ for anyone to see the exchange, and how far their
#: sizes may differ.
_UNLIKE, _SIZES = 0.25, 1.6
#: Levels between letters and ground.
_CONTRAST = 60

#: Top, bottom, left and right of a letter in a line.
_Letter = tuple[slice, slice]


def exchanged_letters(
    shown: Picture, expected: Expected, rng: np.random.Generator
) -> Pixels | None:
    """Exchange two letters of one line, in a copy of the pixels.

    Where the lines are is what the reader finds; letters are what hangs together in them.

    Returns:
        The pixels; ``None`` where no line has two letters about as large that differ visibly.
    """
    able = []
    for line in boxes_in(shown, expected):
        place = _inside(line, shown.rgb)
        ink = _ink(shown.rgb[place])
        if ink is None or ink.shape[0] < _LEAST:
            continue
        pairs = itertools.combinations(_letters(ink), 2)
        able += [(place, one, two) for one, two in pairs if _differ(ink, one, two)]
    if not able:
        return None
    place, one, two = choice(able, rng)
    pixels = shown.rgb.copy()
    line_pixels = pixels[place]
    first, second = line_pixels[one].copy(), line_pixels[two].copy()
    line_pixels[one], line_pixels[two] = _sized(second, first), _sized(first, second)
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


def _letters(ink: Pixels) -> list[_Letter]:
    """Return where what hangs together in a line may be a letter."""
    height, width = ink.shape
    count, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    found = []
    for left, top, across, down, _ in stats[1:count].tolist():
        inside = left > 0 and left + across < width
        if inside and down >= _HIGH * height and _NARROW * height <= across <= _WIDE * height:
            found.append((slice(top, top + down), slice(left, left + across)))
    return found


def _differ(ink: Pixels, one: _Letter, two: _Letter) -> bool:
    """Say whether two letters of a line are about as large, apart, and look unlike."""
    first, second = ink[one], ink[two]
    for side in (0, 1):
        if max(first.shape[side], second.shape[side]) > _SIZES * min(
            first.shape[side], second.shape[side]
        ):
            return False
    apart = one[1].stop <= two[1].start or two[1].stop <= one[1].start
    return apart and float((_sized(second, first) != first).mean()) >= _UNLIKE


def _sized(part: Pixels, like: Pixels) -> Pixels:
    size = (like.shape[1], like.shape[0])
    how = cv2.INTER_NEAREST if part.ndim == 2 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(part), size, interpolation=how), np.uint8)
