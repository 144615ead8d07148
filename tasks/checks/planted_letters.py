"""Letters exchanged in the type of a picture that cannot be set again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.planted_base import choice
from tasks.checks.planted_layout import boxes_in
from tasks.checks.text_match import keys
from tasks.providers.embedded.draws import look
from tasks.records import Region

#: Least height of a line whose letters are exchanged, in pixels; least height and width of a
#: letter, and its most width, as shares of the line's height.
_LEAST, _HIGH, _NARROW, _WIDE = 14, 0.3, 0.12, 1.3
#: Share of two letters' pixels that must differ for anyone to see the exchange, and how far their
#: sizes may differ.
_UNLIKE, _SIZES = 0.25, 1.6
#: Levels between letters and ground.
_CONTRAST = 60
#: Sides of a speck, as a share of the line's height; share of the narrower of two parts of one
#: letter that stands above or below the other; share of the ground that must be plain.
_SPECK, _ABOVE, _PLAIN = 0.08, 0.5, 0.8
#: Pixels of a line, at the recogniser's height, for one step of its reading; how far beside a
#: letter its place may be, as a share of the line's height.
_STEP, _ROUGH = 8, 0.1

#: Top, bottom, left and right of a letter in a line.
_Letter = tuple[slice, slice]


def exchanged_letters(
    shown: Picture, expected: Expected, rng: np.random.Generator
) -> Pixels | None:
    """Exchange two letters of one line, in a copy of the pixels.

    Where the lines are is what the reader finds. A letter is what hangs together where one letter
    of the text expected is read, and stands alone: which letter it is is known then, and an ``e``
    does not change places with an ``e`` of another make.

    Returns:
        The pixels; ``None`` where no line has two letters about as large that differ visibly.
    """
    known = [keys(text) for text in expected.intended_text]
    able = []
    for box in boxes_in(shown, expected):
        place = _inside(box, shown.rgb)
        ink = _ink(shown.rgb[place])
        if ink is None or ink.shape[0] < _LEAST:
            continue
        spelt = _spelt(ink, shown.rgb[place], known)
        able += [
            (place, one, two)
            for (one, first), (two, second) in itertools.combinations(spelt, 2)
            if look(first) != look(second) and _differ(ink, one, two)
        ]
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


def _spelt(ink: Pixels, line: Pixels, known: Sequence[str]) -> list[tuple[_Letter, str]]:
    """Return the parts of a line that are one letter of a text each, with the letter.

    Args:
        ink: Where the letters are.
        line: The pixels.
        known: What may be written there, as :func:`tasks.checks.text_match.keys`.
    """
    height = ink.shape[0]
    signs, parts = _signs(line, known), _parts(ink)
    # A reader's place for a letter is rough, and serves where parts are as many as letters.
    rough = _ROUGH * height if len(signs) == len(parts) else 0
    found = []
    for number, part in enumerate(parts):
        rows, columns = part
        at = [signs[number]] if rough else signs
        inside = [s for s, x in at if columns.start - rough <= x < columns.stop + rough]
        large = rows.stop - rows.start >= _HIGH * height
        width = columns.stop - columns.start
        if len(inside) != 1 or not large or not _NARROW * height <= width <= _WIDE * height:
            continue
        if inside[0].isalnum() and _alone(ink, part, line):
            found.append((part, inside[0]))
    return found


def _signs(line: Pixels, known: Sequence[str]) -> list[tuple[str, float]]:
    """Return the keys of a line and where their middle is, in pixels from the left.

    None where something else is read than what is known.
    """
    # The models are loaded only where something has to be read.
    from tasks.checks import ocr

    (reading,) = ocr.reader().recognise([np.ascontiguousarray(line)], "".join(known))
    key = keys(reading.text)
    if not key or not any(key in text for text in known):
        return []
    names = {number: name for name, number in reading.alphabet.items()}
    best = reading.emissions.argmax(axis=1)
    step = _STEP * line.shape[0] / ocr.LINE_HEIGHT
    starts = [t for t in range(len(best)) if best[t] and (t == 0 or best[t] != best[t - 1])]
    signs = []
    for at in starts:
        end = at
        while end < len(best) and best[end] == best[at]:
            end += 1
        signs.append((names[int(best[at])], (at + end) / 2 * step))
    return signs if "".join(sign for sign, _ in signs) == key else []


def _parts(ink: Pixels) -> list[_Letter]:
    """Return what hangs together in a line, from the left, a dot with the stroke below it."""
    height = ink.shape[0]
    count, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    found: list[_Letter] = []
    for left, top, across, down, _ in sorted(stats[1:count].tolist()):
        # The ends of other lines and of frames reach in from outside.
        outside = (top == 0 or top + down == height) and down < _HIGH * height
        if max(across, down) < _SPECK * height or outside:
            continue
        part = (slice(top, top + down), slice(left, left + across))
        if found and _shared(found[-1][1], part[1]) >= _ABOVE:
            part = _around(found.pop(), part)
        found.append(part)
    return found


def _shared(one: slice, two: slice) -> float:
    """Return which share of the shorter of two ranges lies in the other."""
    both = min(one.stop, two.stop) - max(one.start, two.start)
    return float(both / min(one.stop - one.start, two.stop - two.start))


def _around(one: _Letter, two: _Letter) -> _Letter:
    rows, columns = zip(one, two, strict=True)
    return (
        slice(min(s.start for s in rows), max(s.stop for s in rows)),
        slice(min(s.start for s in columns), max(s.stop for s in columns)),
    )


def _alone(ink: Pixels, part: _Letter, line: Pixels) -> bool:
    """Say whether only ground is above and below a part: else it is a part of a letter."""
    grey = cv2.cvtColor(np.ascontiguousarray(line), cv2.COLOR_RGB2GRAY).astype(np.float32)
    rows, columns = part
    # A pixel beside the strokes is neither.
    ends = grey[: max(rows.start - 1, 0), columns], grey[rows.stop + 1 :, columns]
    ground = np.concatenate([end.ravel() for end in ends])
    if not ground.size:
        return False
    inside, letter = grey[part], ink[part] > 0
    level = float(np.median(grey[ink == 0]))
    reach = abs(float(inside[letter].mean()) - level) / 2
    return float((np.abs(ground - level) < reach).mean()) >= _PLAIN


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
