"""Is there something where a brand wants something, and nothing where it wants nothing?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import TEXT_BOXES, Expected, Picture, Pixels, placed
from tasks.checks.blank import MIN_SIDE
from tasks.checks.logo import brand_logo
from tasks.inputs.brands import BrandKit
from tasks.records import Finding, Region
from tasks.settings import DATASETS

#: The long side of the picture in cells, and how many of its colours are looked at.
_CELLS = 64
_COLOURS = 4
#: Levels by which the mean of a cell may differ from the colour of a plain part: grain, JPEG.
_SAME = 4


def plain_rectangle(rgb: Pixels) -> tuple[float, Region]:
    """Return the largest rectangle of one colour: its share of the picture, and where it is.

    A gradient, however soft, is not one colour: light falls on it.
    """
    height, width = rgb.shape[:2]
    ratio = min(1.0, _CELLS / max(height, width))
    columns, rows = max(1, round(width * ratio)), max(1, round(height * ratio))
    # Every fourth pixel is enough for the mean of a cell, and costs a sixteenth.
    step = max(1, min(height // rows, width // columns) // 6)
    small = cv2.resize(
        np.ascontiguousarray(rgb[::step, ::step]), (columns, rows), interpolation=cv2.INTER_AREA
    )
    cells = small.reshape(-1, 3).astype(np.int16)
    codes = (cells >> 2).astype(np.int32) @ np.array([4096, 64, 1], dtype=np.int32)
    best = (0, (0, 0, 1, 1))
    used, counts = np.unique(codes, return_counts=True)
    for code in used[np.argsort(-counts)[:_COLOURS]]:
        colour = np.median(cells[codes == code], axis=0)
        mask = (np.abs(cells - colour).max(axis=1) <= _SAME).reshape(rows, columns)
        if mask.sum() > best[0]:
            best = max(best, _largest(mask))
    area, (x, y, across, down) = best
    region = Region(
        x=int(x / columns * width),
        y=int(y / rows * height),
        width=max(1, round(across / columns * width)),
        height=max(1, round(down / rows * height)),
    )
    return area / (columns * rows), region


def _largest(mask: NDArray[np.bool_]) -> tuple[int, tuple[int, int, int, int]]:
    """Return the area of the largest rectangle of true cells, and its x, y, width and height.

    The largest rectangle under a histogram, row by row, with a stack of rising columns.
    """
    best = (0, (0, 0, 1, 1))
    heights = np.zeros(mask.shape[1], dtype=int)
    for row, line in enumerate(mask):
        heights = np.where(line, heights + 1, 0)
        stack: list[tuple[int, int]] = []
        for column, high in enumerate([*heights.tolist(), 0]):
            start = column
            while stack and stack[-1][1] > high:
                start, tall = stack.pop()
                area = tall * (column - start)
                if area > best[0]:
                    best = (area, (start, row - tall + 1, column - start, tall))
            if high and (not stack or stack[-1][1] < high):
                stack.append((start, high))
    return best


@dataclass(frozen=True, slots=True)
class BlankPart:
    """No large part of the picture is one plain colour, where the brand's layout says so.

    Without such a rule nothing is said: most of a good poster may be plain.
    """

    datasets: Path = DATASETS
    name: str = "composition.blank_part"
    version: str = "1"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: largest rectangle of one colour, as a share of the picture."""
        kit = _kit(expected, self.datasets)
        limit = kit.layout.blank if kit else None
        if limit is None or min(picture.rgb.shape[:2]) < MIN_SIDE:
            why = "no rule for plain parts" if limit is None else "too small to judge"
            return Finding(
                check=self.name,
                version=self.version,
                verdict="skip",
                higher_is_better=False,
                message=why,
            )
        score, where = plain_rectangle(picture.rgb)
        good = score <= limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=limit,
            higher_is_better=False,
            message="" if good else f"{score:.0%} of the picture is one plain colour",
            region=None if good else where,
        )


def inked(rgb: Pixels, box: Region) -> Region:
    """Return the part of a reader's box that has letters: its boxes are wider than these.

    Letters are the rarer of light and dark; a column or row counts from a tenth of it on.
    """
    height, width = rgb.shape[:2]
    left, top = max(box.x, 0), max(box.y, 0)
    part = rgb[top : min(box.y + box.height, height), left : min(box.x + box.width, width)]
    if min(part.shape[:2]) < 8:
        return box
    grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
    _, light = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    ink = light if light.mean() < 0.5 else 1 - light
    rows, columns = (np.flatnonzero(ink.mean(axis=axis) >= 0.1) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return box
    return Region(
        x=left + int(columns[0]),
        y=top + int(rows[0]),
        width=int(columns[-1] - columns[0]) + 1,
        height=int(rows[-1] - rows[0]) + 1,
    )


@dataclass(frozen=True, slots=True)
class Margins:
    """Text keeps the distance from the edges that the brand's layout asks for.

    It judges the places that the reader of text left in the picture's notes; without them it
    skips, as nothing says where text is. A large box that reaches into the margin is judged by
    what stands out in it: the reader widens its boxes by half of their height, far beyond large
    letters. One from edge to edge of the picture says nothing, and it skips too.
    """

    datasets: Path = DATASETS
    #: By how much the reader's box may reach into the margin, as a share of the shorter side: its
    #: boxes are wider than the letters.
    slack: float = 0.005
    #: Shorter side of a box from which it says little of where its letters end, likewise.
    large: float = 0.25
    name: str = "composition.margins"
    version: str = "3"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: smallest distance of text from an edge, as a share of the shorter side."""
        kit = _kit(expected, self.datasets)
        limit = kit.layout.margin if kit else None
        boxes = [placed(text) for text in picture.notes.get(TEXT_BOXES, ())]
        if limit is None or not boxes or not expected.intended_text:
            why = "no rule for margins" if limit is None else "no place of text is known"
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        height, width = picture.rgb.shape[:2]
        short = min(height, width)

        def distance(box: Region) -> float:
            right, bottom = width - box.x - box.width, height - box.y - box.height
            return float(min(box.x, box.y, right, bottom) / short)

        least = limit - min(self.slack, limit / 2)
        large = [min(b.width, b.height) > self.large * short for b in boxes]
        letters = [
            inked(picture.rgb, b) if wide and distance(b) < least else b
            for b, wide in zip(boxes, large, strict=True)
        ]
        worst = min(letters, key=distance)
        at = letters.index(worst)
        if distance(worst) < least and large[at] and _across(boxes[at], width, height):
            why = "the letters are too large to tell where they end"
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        score = max(distance(worst), 0.0)
        good = score >= least
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=round(least, 4),
            message="" if good else f"text stands {score:.1%} from the edge instead of {limit:.1%}",
            region=None if good else worst,
        )


def _across(box: Region, width: int, height: int) -> bool:
    """Say whether a box goes from edge to edge: it holds more than the letters."""
    beside = box.x <= 0 and box.x + box.width >= width
    return beside or (box.y <= 0 and box.y + box.height >= height)


def _kit(expected: Expected, datasets: Path) -> BrandKit | None:
    return brand_logo(expected.brand, datasets)[0] if expected.brand else None
