"""Whether letters reach where a reader's box does: it is wider than they are.

A reader's box has a fifth of its height beside the letters, more where these are large, tilted or
widely set. Letters are strokes: narrower than the line is high, and all of one side of the
ground's brightness. A part of the box without such strokes has no letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels
from tasks.records import Region

#: Height in pixels to which a line is reduced, and least side of a box that is looked into.
_HEIGHT, _LEAST = 64, 8
#: As shares of the line's height: how far around it is looked, the widest stroke, the part inside
#: that surely has letters, the frame that is mostly ground, the ends of a side that are left out.
_AROUND, _STROKE, _INSIDE, _FRAME, _CORNER = 0.25, 0.45, 0.3, 0.1, 0.15
#: How clearly strokes stand out: share of what the clear ones inside the line do, and levels.
_CLEAR, _SEEN = 0.45, 8
#: Length along the edge that strokes take at least where letters are, as a share of the line's
#: height: the bar of an H whose stem is cut off.
_INKED = 0.04


@dataclass(frozen=True, slots=True)
class _Line:
    """A reader's box in the part of a picture that is looked at, all in the same pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """The height of the line, which may stand upright."""
        return min(self.width, self.height)

    def inner(self, part: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
        """Return what is inside, further from its edge than a share of the line's height."""
        off = share * self.side
        top, left = (max(0, round(low + off)) for low in (self.y, self.x))
        bottom = max(0, round(self.y + self.height - off))
        right = max(0, round(self.x + self.width - off))
        return part[top:bottom, left:right]


def trimmed(rgb: Pixels, box: Region, margin: float) -> Region:
    """Return a reader's box without what it has of the margin, where no letters are in that.

    Args:
        rgb: The picture.
        box: Where a reader found one line, in pixels of the picture.
        margin: Distance from the edges of the picture, in pixels.

    Returns:
        The box, cut at the margin on each side where it reaches in and has no strokes there.
    """
    height, width = rgb.shape[:2]
    side = min(box.width, box.height)
    around = round(_AROUND * side)
    left, top = max(box.x - around, 0), max(box.y - around, 0)
    right = min(box.x + box.width + around, width)
    bottom = min(box.y + box.height + around, height)
    if side < _LEAST or min(right - left, bottom - top) < _LEAST:
        return box
    ratio = min(1.0, _HEIGHT / side)
    size = max(1, round((right - left) * ratio)), max(1, round((bottom - top) * ratio))
    part = cv2.resize(
        np.ascontiguousarray(rgb[top:bottom, left:right]), size, interpolation=cv2.INTER_AREA
    )
    x, y = box.x - left, box.y - top
    line = _Line(x * ratio, y * ratio, box.width * ratio, box.height * ratio)
    ink = _strokes(np.asarray(part, np.uint8), line)
    if ink is None:
        return box
    rows, columns = _between(line.y, line.height, line), _between(line.x, line.width, line)
    x0, x1 = _cut(
        ink[rows], line.side, left, ratio, (box.x, box.x + box.width), (margin, width - margin)
    )
    y0, y1 = _cut(
        ink[:, columns].T,
        line.side,
        top,
        ratio,
        (box.y, box.y + box.height),
        (margin, height - margin),
    )
    if x1 <= x0 or y1 <= y0:
        return box
    return Region(x=x0, y=y0, width=x1 - x0, height=y1 - y0)


def _cut(
    ink: NDArray[np.bool_],
    side: float,
    start: int,
    ratio: float,
    ends: tuple[int, int],
    inside: tuple[float, float],
) -> tuple[int, int]:
    """Return both ends of a box, cut where the margin has no strokes.

    Args:
        ink: Where strokes are, lines across by pixels along.
        side: The height of the line.
        start: The first pixel along, in the picture.
        ratio: Pixels of ``ink`` in one of the picture.
        ends: Those of the box, in the picture.
        inside: What is not margin, in the picture.
    """
    least = _INKED * side
    low, high = (round((at - start) * ratio) for at in inside)
    before, after = ink[:, : max(low, 1)], ink[:, min(high, ink.shape[1] - 1) :]
    first, last = ends
    if first < inside[0] and before.any(axis=1).sum() < least:
        first = int(np.ceil(inside[0]))
    if last > inside[1] and after.any(axis=1).sum() < least:
        last = int(inside[1])
    return first, last


def _between(start: float, length: float, line: _Line) -> slice:
    """Return the middle of a side: other lines and frames reach into the corners."""
    off = _CORNER * line.side
    return slice(max(0, round(start + off)), max(0, round(start + length - off)))


def _strokes(part: Pixels, line: _Line) -> NDArray[np.bool_] | None:
    """Return where something as narrow as strokes stands out, lighter or darker as letters do.

    ``None`` where nothing does inside the line.
    """
    size = max(3, int(_STROKE * line.side) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    ground = _ground(line.inner(part, 0), max(1, round(_FRAME * line.side)))
    middle = line.inner(part, _INSIDE).astype(np.int16)
    if not middle.size:
        return None
    found: list[tuple[float, Pixels]] = []
    for sign, how in ((1, cv2.MORPH_TOPHAT), (-1, cv2.MORPH_BLACKHAT)):
        # In any channel: letters of one line may have many colours.
        narrow = np.asarray(cv2.morphologyEx(part, how, kernel), np.uint8)
        # The gaps between letters are narrow as well, but look as the ground does.
        apart = np.minimum(line.inner(narrow, _INSIDE), np.maximum(sign * (middle - ground), 0))
        found.append((float(apart.max(axis=2).sum()), narrow.max(axis=2)))
    strokes = max(found, key=lambda one: one[0])[1]
    level = _CLEAR * float(np.percentile(line.inner(strokes, _INSIDE), 95))
    return strokes > level if level >= _SEEN else None


def _ground(box: Pixels, frame: int) -> NDArray[np.float64]:
    """Return the colour that most of the edge of a box has."""
    sides = box[:frame], box[-frame:], box[:, :frame], box[:, -frame:]
    return np.asarray(np.median(np.concatenate([s.reshape(-1, 3) for s in sides]), axis=0))
