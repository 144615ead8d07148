"""Is there something where a brand wants something, and nothing where it wants nothing?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import EXTRA_BOXES, TEXT_BOXES, Expected, Picture, Pixels, placed
from tasks.checks.blank import MIN_SIDE
from tasks.checks.logo import brand_logo
from tasks.checks.text_ends import trimmed
from tasks.checks.text_match import keys
from tasks.inputs.brands import BrandKit
from tasks.records import Finding, Region
from tasks.settings import DATASETS

#: The long side of the picture in cells, and how many of its colours are looked at.
_CELLS = 64
_COLOURS = 4
#: Levels by which the mean of a cell may differ from the colour of a plain part: grain, JPEG.
_SAME = 4
#: What the reader says of a text that it has not found: the place left is that of another one.
_ELSEWHERE = frozenset({"wrong text", "absent"})
#: Letters from which a line that reads the same is no chance.
_TOLD = 3


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


@dataclass(frozen=True, slots=True)
class Margins:
    """Text keeps the distance from the edges that the brand's layout asks for.

    It judges the places that the reader of text left in the picture's notes; without them it
    skips, as nothing says where text is. The reader's boxes are wider than the letters: what one
    has of the margin counts where strokes like those of its letters are in it. A large box from
    edge to edge of the picture says nothing, and it skips too.
    """

    datasets: Path = DATASETS
    #: By how much letters may reach into the margin, as a share of the shorter side: grain and the
    #: softness of their edges.
    slack: float = 0.005
    #: Shorter side of a box from which it says little of where its letters end, likewise.
    large: float = 0.25
    name: str = "composition.margins"
    version: str = "4"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: smallest distance of text from an edge, as a share of the shorter side."""
        kit = _kit(expected, self.datasets)
        limit = kit.layout.margin if kit else None
        boxes = [placed(text) for text in picture.notes.get(TEXT_BOXES, ())]
        boxes += _again(picture, expected) if boxes else []
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
        reach = least * short
        letters = [trimmed(picture.rgb, b, reach) if distance(b) < least else b for b in boxes]
        worst = min(letters, key=distance)
        at = letters.index(worst)
        if distance(worst) < least and large[at] and _across(boxes[at], width, height):
            why = "the letters are too large to tell where they end"
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        score = max(distance(worst), 0.0)
        # A box that is cut at the margin ends there but for rounding.
        good = score > least - 1e-9
        if good and _ELSEWHERE & set(picture.notes.get("text_severity", ())):
            why = "the text was not found: something else stands at the places that are known"
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=round(least, 4),
            message="" if good else f"text stands {score:.1%} from the edge instead of {limit:.1%}",
            region=None if good else worst,
        )


def _again(picture: Picture, expected: Expected) -> list[Region]:
    """Return the lines that show a text once more, beside the place that the reader took for it."""
    asked = [key for key in map(keys, expected.intended_text) if len(key) >= _TOLD]
    lines = zip(
        picture.notes.get("extra_text", ()), picture.notes.get(EXTRA_BOXES, ()), strict=False
    )
    return [placed(box) for text, box in lines if keys(text) in asked]


def _across(box: Region, width: int, height: int) -> bool:
    """Say whether a box goes from edge to edge: it holds more than the letters."""
    beside = box.x <= 0 and box.x + box.width >= width
    return beside or (box.y <= 0 and box.y + box.height >= height)


def _kit(expected: Expected, datasets: Path) -> BrandKit | None:
    return brand_logo(expected.brand, datasets)[0] if expected.brand else None
