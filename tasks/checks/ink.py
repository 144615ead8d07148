"""Cut the letters of a line free: black on white, without what stands around them, and straight.

Posters set letters close together, on panels, in colours and on arcs. A reader of print sees the
edge of the next line in its picture and finds no line at all. So the line is split by brightness
and by colour, parts that cannot be letters of this line are left out, and a bent row is unrolled.
No letter is read here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

#: Height in pixels that the box of a line is brought to, and room around it, as a share of that.
BOX, ROOM = 64, 0.35
#: Longer lines are not cut free; in pixels of a picture in which the box is ``BOX`` high.
LONGEST = 2400
#: A line this many times as high as wide is a column.
UPRIGHT = 1.5
#: Colours that a line is split into.
COLOURS = 3
#: Ways to split it that are kept, and those of an unrolled line.
BEST, BEST_UNROLLED = 3, 2
#: Two ways are one when they differ in less than this share of the ink.
SAME = 0.05
#: A part of a line has at least this share of its height inside the box, of its width beside it.
INSIDE, BESIDE = 0.6, 0.5
#: Taller than this, in boxes, is no letter; flatter and wider than this is a rule; wider and
#: fuller than this is a panel.
TALL, RULE, PANEL = 1.45, (0.25, 0.6), (1.2, 0.75)
#: What holds so many other parts is a frame.
HELD = 3
#: Heights of letters, in heights of the middle one.
ALIKE = (0.45, 2.2)
#: A row whose middle line rises by more than this share of the letters' height is unrolled.
BENT = 0.18
#: Height of the letters in the pictures that are returned, in pixels: what Tesseract likes best.
LETTER = 32


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of ink: its rectangle and its pixels, in pixels of the line."""

    left: int
    top: int
    width: int
    height: int
    area: int
    #: Its number among the pieces.
    number: int

    def holds(self, other: Part) -> bool:
        """Say whether another part, not a speck beside it, lies within this one's rectangle."""
        return (
            other is not self
            and self.left <= other.left
            and self.top <= other.top
            and other.left + other.width <= self.left + self.width
            and other.top + other.height <= self.top + self.height
            and other.height > 0.3 * self.height
        )


@dataclass(frozen=True, slots=True)
class Ink:
    """Letters of a line, by one way to split it."""

    #: All ink, and what may be letters of this line.
    whole: Mask
    kept: Mask
    letters: tuple[Part, ...]
    #: Typical height of a letter.
    height: float
    #: How much this looks like a line of text; the more the better.
    score: float


def pictures(rgb: Pixels, quad: Floats) -> list[Pixels]:
    """Return a line as black letters on white, in several ways.

    Args:
        rgb: The picture.
        quad: Corners of the line, clockwise from where it begins.

    Returns:
        Grey pictures, each way once with soft and once with hard edges; none where nothing looks
        like letters.
    """
    line = _cut(rgb, quad)
    if line is None:
        return []
    pad = ROOM * BOX
    found = _different(_ways(line, pad))
    made = [(line, ink) for ink in found]
    if found:
        straight = _unrolled(line, found[0])
        if straight is not None:
            room = (straight.shape[0] - BOX) / 2
            made += [(straight, ink) for ink in _ways(straight, room)[:BEST_UNROLLED]]
    return [
        _framed(grey, ink.kept)
        for one, ink in made
        for grey in (_soft(one, ink), np.where(ink.kept, 0, 255).astype(np.uint8))
    ]


def _cut(rgb: Pixels, quad: Floats) -> Pixels | None:
    """Return the line with room around it, its box ``BOX`` pixels high; ``None`` for columns."""
    tl, tr, br, bl = (quad[i].astype(np.float64) for i in range(4))
    width = max(math.dist(tr, tl), math.dist(br, bl), 1.0)
    height = max(math.dist(bl, tl), math.dist(br, tr), 1.0)
    if height > width * UPRIGHT:
        return None
    scale, reach = BOX / height, ROOM * height
    columns, rows = (round((side + 2 * reach) * scale) for side in (width, height))
    if columns > LONGEST:
        return None
    across, down = (tr - tl) / width, (bl - tl) / height
    source = np.array(
        [
            tl - reach * (across + down),
            tr + reach * (across - down),
            br + reach * (across + down),
            bl - reach * (across - down),
        ],
        dtype=np.float32,
    )
    if scale < 0.6:  # Made much smaller: the mean of pixels, not every other one.
        rgb = np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        source *= scale
    target = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    change = cv2.getPerspectiveTransform(source, target)
    line = cv2.warpPerspective(
        rgb, change, (columns, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(line, dtype=np.uint8)


def _ways(line: Pixels, pad: float) -> list[Ink]:
    """Return the line's ink by each way to split it, the likeliest first."""
    found = [ink for mask in _masks(line) if (ink := _letters(mask, pad)) is not None]
    return sorted(found, key=_likely)


def _likely(ink: Ink) -> float:
    return -ink.score


def _masks(line: Pixels) -> list[Mask]:
    """Return what may be ink: dark, light, and each of the main colours or all but it."""
    grey = cv2.cvtColor(line, cv2.COLOR_RGB2GRAY)
    _, light = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    colours = cv2.cvtColor(line, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    cv2.setRNGSeed(0)
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    start = np.zeros((len(colours), 1), dtype=np.int32)
    _, labels, _ = cv2.kmeans(colours, COLOURS, start, until, 2, cv2.KMEANS_PP_CENTERS)
    of = labels.reshape(grey.shape)
    split = [light == 0, *(of == number for number in range(COLOURS))]
    return [np.asarray(mask) for one in split for mask in (one, ~one)]


def _letters(mask: Mask, pad: float) -> Ink | None:
    """Return what may be letters of the line; ``None`` without any."""
    _, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    shape = mask.shape
    rows = enumerate(table.tolist())
    parts = [Part(x, y, w, h, area, number) for number, (x, y, w, h, area) in rows][1:]
    parts = [part for part in parts if _may_be_letter(part, shape, pad)]
    parts = [part for part in parts if sum(map(part.holds, parts)) < HELD]
    if not parts:
        return None
    heights = np.repeat([p.height for p in parts], [p.width for p in parts])
    height = float(np.quantile(heights, 0.6))
    letters = tuple(p for p in parts if ALIKE[0] * height < p.height < ALIKE[1] * height)
    if not letters:
        return None
    keep = np.zeros(len(table), dtype=np.bool_)
    keep[[part.number for part in parts]] = True
    kept = keep[labels]
    return Ink(mask, kept, letters, height, _score(parts, letters, kept, pad, height))


def _may_be_letter(part: Part, shape: tuple[int, ...], pad: float) -> bool:
    rows, columns = shape[:2]
    box = rows - 2 * pad
    bottom, right = part.top + part.height, part.left + part.width
    inside = min(bottom, rows - pad) - max(part.top, pad)
    across = min(right, columns - pad / 2) - max(part.left, pad / 2)
    full = part.area / (part.width * part.height)
    rule = part.height < RULE[0] * box and part.width > RULE[1] * columns
    panel = part.width > PANEL[0] * box and part.height > box / 2 and full > PANEL[1]
    banner = part.width > 3 * box and (full > 0.62 or part.height < 0.4 * box)
    return (
        part.area >= 6
        and inside >= INSIDE * part.height
        and across >= BESIDE * part.width
        and part.height <= TALL * box
        and not (rule or panel or banner)
    )


def _score(
    parts: list[Part], letters: tuple[Part, ...], kept: Mask, pad: float, height: float
) -> float:
    """Return how much parts look like text: side by side, alike in height, hardly anything else."""
    rows, columns = kept.shape
    room, box = round(pad), rows - 2 * pad
    under = np.zeros(columns, dtype=np.bool_)
    for letter in letters:
        under[letter.left : letter.left + letter.width] = True
    cover = float(under[room : columns - room].mean())
    odd = 1 - sum(p.area for p in letters) / sum(p.area for p in parts)
    tall = [p.height for p in letters]
    uneven = min(1.0, float(np.std(tall) / np.mean(tall))) if len(tall) > 1 else 0.2
    dense = float(kept[room : rows - room, room : columns - room].mean()) > 0.6
    small = height < 0.3 * box
    return float(cover - odd - uneven / 2 - 0.3 * small - 0.5 * dense)


def _different(inks: list[Ink]) -> list[Ink]:
    """Return the likeliest ways that do not show the same ink."""
    chosen: list[Ink] = []
    for ink in inks:
        least = SAME * float(ink.kept.sum())
        if len(chosen) < BEST and all((ink.kept ^ one.kept).sum() > least for one in chosen):
            chosen.append(ink)
    return chosen


def _soft(line: Pixels, ink: Ink) -> Pixels:
    """Return grey by how far each pixel's colour lies between the paper's and the letters'."""
    colours = cv2.cvtColor(line, cv2.COLOR_RGB2LAB).astype(np.float32)
    small = np.ones((3, 3), np.uint8)
    paper = cv2.dilate(ink.whole.astype(np.uint8), small) == 0
    core = cv2.erode(ink.kept.astype(np.uint8), small) > 0
    black = np.median(colours[core if core.sum() >= 20 else ink.kept], axis=0)
    rest = paper if paper.sum() >= 20 else ~ink.whole
    white = np.median(colours[rest], axis=0) if rest.any() else np.full(3, 255, np.float32)
    way = white - black
    grey = np.clip((colours - black) @ way / max(float(way @ way), 1e-6), 0, 1) * 255
    near = cv2.dilate(ink.kept.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return np.asarray(np.where(near, grey, 255), dtype=np.uint8)


def _framed(grey: Pixels, kept: Mask) -> Pixels:
    """Return the rows and columns with ink, ``LETTER`` pixels high, with white around them."""
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    part = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ratio = LETTER / part.shape[0]
    way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    size = max(4, round(part.shape[1] * ratio)), LETTER
    scaled = cv2.resize(part, size, interpolation=way)
    high, wide = LETTER // 3, LETTER // 2
    white = cv2.copyMakeBorder(scaled, high, high, wide, wide, cv2.BORDER_CONSTANT, value=255)
    return np.asarray(white, dtype=np.uint8)


def _unrolled(line: Pixels, ink: Ink) -> Pixels | None:
    """Return a bent row made straight, its letters' box ``BOX`` high; ``None`` where it is not."""
    if len(ink.letters) < 4:
        return None
    across = np.array([p.left + p.width / 2 for p in ink.letters])
    down = np.array([p.top + p.height / 2 for p in ink.letters])
    curve, outside = _fitted(across, down)
    inner = across[~outside]
    steps = np.polyval(curve, np.linspace(inner.min(), inner.max(), 20))
    if float(np.ptp(steps)) <= BENT * ink.height:
        return None
    return _along(line, curve, 1.25 * ink.height)


def _fitted(across: Any, down: Any) -> tuple[Any, Any]:
    """Return a parabola through most points, and which lie off it."""
    weights = np.ones(len(across))
    for _ in range(8):
        curve = np.polyfit(across, down, 2, w=weights)
        off = np.abs(down - np.polyval(curve, across))
        usual = max(float(np.median(off)), 1.0)
        weights = 1 / (1 + (off / (2 * usual)) ** 2)
    return curve, off > 3 * usual + 3


def _along(line: Pixels, curve: Any, box: float) -> Pixels | None:
    """Sample a line along a curve and across it."""
    high = 2 * BOX  # The curve may leave the picture.
    line = np.asarray(cv2.copyMakeBorder(line, high, high, 0, 0, cv2.BORDER_REPLICATE))
    columns = line.shape[1]
    x = np.linspace(0, columns - 1, 4 * columns)
    y = np.polyval(curve, x) + high
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    if not 8 <= length[-1] <= 3 * columns + 6 * BOX:
        return None
    x = np.interp(np.arange(int(length[-1])), length, x)
    y = np.polyval(curve, x) + high
    slope = np.polyval(np.polyder(curve), x)
    norm = np.hypot(1, slope)
    half = box * (0.5 + ROOM)
    over = np.arange(-half, half)[:, None]
    left = (x - over * (slope / norm)).astype(np.float32)
    top = (y + over / norm).astype(np.float32)
    flat = cv2.remap(line, left, top, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    ratio = BOX / box
    if flat.shape[1] * ratio > LONGEST:
        return None
    way = cv2.INTER_CUBIC if ratio > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(flat, None, fx=ratio, fy=ratio, interpolation=way), np.uint8)
