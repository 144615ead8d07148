"""Defects of layout: a large plain part, text at the edge.

Where the text of a good picture is is what the reader finds there; then the whole picture is moved
until the text is at the edge.
"""

from __future__ import annotations

import cv2
import numpy as np

from tasks.checks.base import TEXT_BOXES, Expected, Picture, Pixels
from tasks.checks.composition import inked
from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.checks.typography import Text
from tasks.records import Region

PART, MARGINS = "composition.blank_part", "composition.margins"
_STEPS = (0.25, 0.5, 0.75, 1.0)


def plain_part(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Fill a rectangle from one edge with one colour: all of the picture at full strength."""
    if good.brand is None:
        return None
    pixels = good.rgb.copy()
    turned = np.rot90(pixels, int(rng.integers(4)))
    turned[: max(1, round(strength * turned.shape[0]))] = choice(good.brand.kit.colours, rng)
    return good.planted(pixels)


def text_at_edge(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Move the picture until text stands nearer to an edge; at full strength it touches it."""
    if good.brand is None or not good.expected.intended_text:
        return None
    limit = good.brand.kit.layout.margin
    boxes = [inked(good.rgb, box) for box in text_boxes(good)]
    if limit is None or not boxes:
        return None
    short = min(good.rgb.shape[:2])
    left = min(box.x for box in boxes)
    top = min(box.y for box in boxes)
    to = round(limit * (1 - strength) * short)
    dx, dy = (to - left, 0) if left <= top else (0, to - top)
    return good.planted(moved(good.rgb, dx, dy))


def moved(rgb: Pixels, dx: int, dy: int) -> Pixels:
    """Return a picture moved to the right and down, its edge drawn out where it left."""
    height, width = rgb.shape[:2]
    way = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    found = cv2.warpAffine(rgb, way, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.uint8)


def text_boxes(good: Good) -> list[Region]:
    """Return where the reader finds the text of a good picture."""
    return boxes_in(good.picture, good.expected)


def boxes_in(shown: Picture, expected: Expected) -> list[Region]:
    """Return where the reader finds the text that is expected of a picture."""
    picture = Picture(rgb=shown.rgb, data=shown.data, mime=shown.mime)
    Text().run(picture, expected)
    parts = [note.split(",") for note in picture.notes.get(TEXT_BOXES, ())]
    places = [[int(value) for value in part] for part in parts]
    return [Region(x=x, y=y, width=width, height=height) for x, y, width, height in places]


DEFECTS = (
    Defect("large plain part", PART, 0.6, plain_part, "share of the picture", _STEPS),
    Defect("text at the edge", MARGINS, 1.0, text_at_edge, "way through the margin", _STEPS),
)
