"""Missing glyphs: what fonts draw for letters that they do not hold, told by its shape.

A hollow upright rectangle of one stroke, or the same with a cross or a sign in it, several times
in a row and always of one size; or nothing at all, so that a place stays empty. Only a line that
the text comparison has already flagged is looked at: one □ or 口 that belongs there is no defect,
and a window or a ticked list is no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.text_match import keys
from tasks.checks.text_misses import Miss

#: What readers take missing glyphs for; each can also be meant.
LOOK_ALIKE = frozenset("□▯▢☐⬜囗口")
#: Kinds of a string in which letters are boxes, or nothing.
BOXED = "set with missing glyphs (boxes)"
GAPS = "set with missing glyphs (an empty place)"
#: So many equal boxes make a row of missing glyphs.
LEAST = 2
#: Letters that square typefaces draw as an upright rectangle.
SQUARE = frozenset("0odq")
#: Height of a box over the height of the line that the detector found; width over height.
TALL, SHAPE = (0.3, 1.0), (0.25, 1.25)
#: Share of the outline of a rectangle that must be ink, and of its corners.
OUTLINE = 0.9
#: Boxes of one font differ by no more than this share of their size.
EQUAL = 0.12
#: An empty place is this much wider than the line is high; spaces between words are narrower.
EMPTY = 0.6
#: Height in pixels that lines are brought to.
HEIGHT = 96


@dataclass(frozen=True, slots=True)
class Shape:
    """One hollow rectangle in a line picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int


def boxes(line: NDArray[np.uint8]) -> int:
    """Return how many equal missing-glyph boxes stand in a line picture, 0 when below ``LEAST``.

    Args:
        line: RGB picture of one line.
    """
    count = max(_equal(_hollow(ink)) for ink in _inks(line))
    return count if count >= LEAST else 0


def frames(line: NDArray[np.uint8]) -> int:
    """Return how many hollow upright rectangles of any size stand in a line picture."""
    return max(len(_hollow(ink)) for ink in _inks(line))


def empty_places(line: NDArray[np.uint8]) -> int:
    """Return how many gaps in a line picture are too wide for the space between two words."""
    # Ink is the smaller part of a line.
    ink = min(_inks(line), key=lambda one: float(one.mean()))
    columns = np.flatnonzero((ink > 0).mean(axis=0) > 0.02)
    return int((np.diff(columns) > EMPTY * HEIGHT).sum()) if len(columns) else 0


def _inks(line: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the line in black and white, and the same with both exchanged."""
    grey = cv2.cvtColor(line, cv2.COLOR_RGB2GRAY)
    ratio = HEIGHT / grey.shape[0]
    grey = np.asarray(cv2.resize(grey, (max(8, round(grey.shape[1] * ratio)), HEIGHT)), np.uint8)
    _, found = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    ink = np.asarray(found, dtype=np.uint8)
    return ink, np.asarray(255 - ink, dtype=np.uint8)


def _hollow(ink: Any) -> list[Shape]:
    """Return the parts of the ink that are upright rectangles drawn as an outline."""
    contours, tree = cv2.findContours(ink, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    shapes: list[Shape] = []
    for number, contour in enumerate(contours):
        inside, parent = int(tree[0][number][2]), int(tree[0][number][3])
        if parent >= 0 or inside < 0:
            continue  # A hole itself, or without one.
        x, y, width, height = cv2.boundingRect(contour)
        if not TALL[0] <= height / HEIGHT <= TALL[1] or not SHAPE[0] <= width / height <= SHAPE[1]:
            continue
        if cv2.contourArea(contour) < OUTLINE * (width - 1) * (height - 1):
            continue  # Round, slanted or open: a letter.
        if _framed(ink[y : y + height, x : x + width] > 0):
            shapes.append(Shape(x, y, width, height))
    return shapes


def _framed(part: NDArray[np.bool_]) -> bool:
    """Say whether ink runs along all four sides and most of what it encloses is empty."""
    height, width = part.shape
    edge = max(1, round(0.04 * height))
    sides = part[edge], part[-1 - edge], part[:, edge], part[:, -1 - edge]
    if min(float(side.mean()) for side in sides) < OUTLINE:
        return False
    across, down = max(2, width // 4), max(2, height // 4)
    return bool(part[down:-down, across:-across].mean() < 0.5)


def _equal(shapes: list[Shape]) -> int:
    """Return the size of the largest group of shapes of one size on one line."""
    return max((sum(_alike(one, other) for other in shapes) for one in shapes), default=0)


def _alike(one: Shape, other: Shape) -> bool:
    reach = EQUAL * one.height
    return (
        abs(one.width - other.width) <= reach
        and abs(one.height - other.height) <= reach
        and abs(one.top - other.top) <= 2 * reach
    )


def count(rgb: Any, quads: Sequence[Any]) -> int:
    """Return how many missing-glyph boxes stand in lines of a picture."""
    from tasks.checks import ocr

    return sum(boxes(ocr.crop(rgb, quad, 0.1)[0]) for quad in quads)


def renamed(miss: Miss, rgb: Any) -> Miss:
    """Return a flagged string with missing glyphs named as the cause, where its lines show them."""
    from tasks.checks import ocr

    key, read = keys(miss.text), keys(miss.read)
    if miss.severity in {"boxes", "doubled"} or LOOK_ALIKE & set(key):
        return miss
    if count(rgb, miss.quads) or _alone(key, read, miss, rgb):
        return replace(miss, severity="boxes", kind=BOXED)
    dropped = len(key) - len(read)
    if 0 < dropped == miss.distance and any(
        empty_places(ocr.crop(rgb, quad)[0]) for quad in miss.quads
    ):
        return replace(miss, kind=GAPS)
    return miss


def _alone(key: str, read: str, miss: Miss, rgb: Any) -> bool:
    """Say whether one box stands in place of a letter, and is not a letter of a square typeface.

    Such a typeface would draw every one of its square letters so.
    """
    from tasks.checks import ocr

    square = [char for char in key if char in SQUARE]
    if len(square) == 1 and (square[0] not in read or len(read) < len(key)):
        return False
    return sum(frames(ocr.crop(rgb, quad, 0.1)[0]) for quad in miss.quads) == 1
