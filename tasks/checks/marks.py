"""What little is drawn on a plain ground: a line of type, a small logo, a signature, stars.

The checks of a reduced picture average such things away. Here they are looked for at full size, and
only where a reduced picture seems empty: good work may be sparse.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels

#: Levels by which a mark must differ from the ground in one channel. A picture that lost its light
#: or its contrast has no 40 left between its darkest and its brightest.
_STRONG = 48
#: In noise as many medians of the distance from the ground: six standard deviations.
_NOISE = 5
#: Shapes with a shorter side below this are hairs, scratches and single pixels, in pixels.
_SHAPE = 4
#: The smallest that counts, shorter and longer side in pixels: a few letters, a small sign. Above
#: 1024 pixels they grow with the picture, as dust does.
_LEAST, _LENGTH = 8, 32
#: So many light specks of so many pixels are stars, snow or a far town; fewer, and any dark ones,
#: are dust, and smaller ones the errors of single pixels.
_STARS, _STAR = 64, 4
#: A row or column that is marked from edge to edge, over this share at least, is an error: a frame
#: keeps off the edge.
_LINE = 0.9
#: Width of the picture's edge that is passed over: cut and padded pictures have lines there.
_BORDER = 2

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Marks:
    """The darkest and the brightest L* of clear marks, and of the ground they stand on."""

    low: float
    high: float


def marks(rgb: Pixels) -> Marks | None:
    """Return what is clearly drawn on a plain ground; ``None`` where nothing is.

    Noise, specks of dust, a stray line of pixels, soft shadows and faint marks are nothing.
    """
    # Three checks ask in turn. Kept only for what the decoder made: nobody can change that.
    if _LAST and _LAST[0][0]() is rgb:
        return _LAST[0][1]
    found = _find(rgb)
    if isinstance(cast(object, rgb.base), bytes):
        _LAST[:] = [(weakref.ref(rgb), found)]
    return found


#: The decoded picture that was looked at last, and what was found.
_LAST: list[tuple[weakref.ref[Pixels], Marks | None]] = []


def _find(rgb: Pixels) -> Marks | None:
    ground = np.rint(np.median(rgb[::8, ::8].reshape(-1, 3), axis=0)).astype(np.int16)
    far = _distance(rgb, ground)
    strong = max(_STRONG, round(_NOISE * float(np.median(far[::8, ::8]))))
    found = _steep(far, strong, reach=max(3, max(rgb.shape[:2]) // 256)) if strong < 256 else None
    if found is None:
        return None
    top, left, mask = found
    part = rgb[top : top + mask.shape[0], left : left + mask.shape[1]]
    kept = _drawn(mask, max(rgb.shape[:2]))
    if kept is None:
        kept = _stars(part, ground, mask)
    if kept is None:
        return None
    colours = np.concatenate([part[kept > 0], ground[None].astype(np.uint8)])
    space = cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lightness, under = space[0, :-1, 0], float(space[0, -1, 0])
    low, high = np.quantile(lightness, (0.25, 0.75))
    return Marks(min(float(low), under), max(float(high), under))


def _distance(rgb: Pixels, ground: NDArray[np.int16]) -> Mask:
    """Return how far each pixel is from a colour in the channel in which it is farthest."""
    table = np.abs(np.arange(256)[:, None] - ground).astype(np.uint8)
    far = cv2.LUT(np.ascontiguousarray(rgb), np.ascontiguousarray(table[:, None, :]))
    red, green, blue = cv2.split(far)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def _steep(far: Mask, strong: int, reach: int) -> tuple[int, int, Mask] | None:
    """Return what stands out and is close to the ground, and where it begins: top, left, mask.

    What rises slowly, a vignette or a cast shadow, is no mark. Of a large shape the rim is left.
    """
    mask: Mask = np.asarray(cv2.threshold(far, strong - 1, 1, cv2.THRESH_BINARY)[1], np.uint8)
    rows = (mask.mean(axis=1) > _LINE) & (mask[:, 0] & mask[:, -1] > 0)
    columns = (mask.mean(axis=0) > _LINE) & (mask[0] & mask[-1] > 0)
    mask[rows] = mask[:, columns] = 0
    mask[:_BORDER] = mask[-_BORDER:] = 0
    mask[:, :_BORDER] = mask[:, -_BORDER:] = 0
    left, top, width, height = cv2.boundingRect(mask)
    if max(width, height) < _LEAST:
        return None
    bottom, right = top + height, left + width
    top, left = max(0, top - reach), max(0, left - reach)
    part = slice(top, bottom + reach), slice(left, right + reach)
    plain = cv2.threshold(far[part], strong // 2, 1, cv2.THRESH_BINARY_INV)[1]
    box = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return top, left, cv2.bitwise_and(cv2.dilate(plain, box), mask[part]).astype(np.uint8)


def _drawn(mask: Mask, side: int) -> Mask | None:
    """Return those marks that are large enough, or stand together as letters do."""
    grown = max(1.0, side / 1024)
    least, length = _LEAST * grown, _LENGTH * grown / 2 + _LENGTH / 2
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    short, long = sides.min(axis=1), sides.max(axis=1)
    short[0] = 0  # The ground.
    shapes = short >= _SHAPE
    if not shapes.any():
        return None
    kept: Mask = np.asarray(shapes.astype(np.uint8)[labels], np.uint8)
    if long[short >= least].sum() >= length:
        return kept
    # Letters are small, but side by side.
    bridge = max(4, side // 256)
    box = np.ones((2 * bridge + 1, 2 * bridge + 1), np.uint8)
    joined = cv2.dilate(np.pad(kept, bridge), box)
    _, _, groups, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    extent = groups[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]] - 2 * bridge
    lines = (extent.min(axis=1) >= _LEAST) & (extent.max(axis=1) >= length)
    return kept if lines.any() else None


def _stars(part: Pixels, ground: NDArray[np.int16], mask: Mask) -> Mask | None:
    """Return the light specks where there are many, of as much as two by two pixels."""
    grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
    light = mask & (grey > float(ground.mean()) + _STRONG / 2).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(light, connectivity=8)
    sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].min(axis=1)
    stars = (sides >= 2) & (stats[:, cv2.CC_STAT_AREA] >= _STAR)
    stars[0] = False  # The ground.
    return np.asarray(stars.astype(np.uint8)[labels], np.uint8) if stars.sum() >= _STARS else None
