"""Defects of layout: a large plain part, text at the edge.

Where the text of a good picture is is what the reader finds there; then the whole picture is moved
until the text is at the edge.
"""

from __future__ import annotations

import cv2
import numpy as np

from tasks.checks.base import TEXT_BOXES, Expected, Picture, Pixels
from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.checks.text_match import keys
from tasks.checks.typography import Text
from tasks.records import Region

PART, MARGINS = "composition.blank_part", "composition.margins"
_STEPS = (0.25, 0.5, 0.75, 1.0)
#: Share of a box that is cut off at most to find where its line reads otherwise, and how precisely
#: that is found, as a share of the line's height.
_MOST_LESS, _PRECISE = 0.7, 1 / 40
#: Shallowest place in the margin, as a share of it, and places that are tried on the way there.
_SHALLOW, _TRIES = 0.9, 4


def plain_part(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Fill a rectangle from one edge with one colour: all of the picture at full strength."""
    if good.brand is None:
        return None
    pixels = good.rgb.copy()
    turned = np.rot90(pixels, int(rng.integers(4)))
    turned[: max(1, round(strength * turned.shape[0]))] = choice(good.brand.kit.colours, rng)
    return good.planted(pixels)


def text_at_edge(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Move the picture until text stands nearer to an edge, where its letters surely are.

    At full strength it stands nearer than half of the margin, or less deep in it where nobody could
    read it any more: text that is cut off is a defect of the text, and found as one. ``None`` where
    it is in the margin nowhere legible.
    """
    if good.brand is None or not good.expected.intended_text:
        return None
    limit = good.brand.kit.layout.margin
    boxes = text_boxes(good)
    if limit is None or not boxes:
        return None
    short = min(good.rgb.shape[:2])
    across = min(box.x for box in boxes) <= min(box.y for box in boxes)
    first: float | None = None
    for box in sorted(boxes, key=lambda box: box.x if across else box.y):
        if first is not None and (box.x if across else box.y) >= first:
            break
        start = _reached(good, box, across)
        if start is None:
            return None
        first = start if first is None else min(first, start)
    if first is None:
        return None
    for place in np.linspace(1 - strength / 2, _SHALLOW, _TRIES):
        by = round(limit * float(place) * short - first)
        pixels = moved(good.rgb, by if across else 0, 0 if across else by)
        shown = Picture(rgb=pixels, data=b"", mime=good.picture.mime)
        if Text().run(shown, good.expected).verdict == "pass":
            return good.planted(pixels)
    return None


def _reached(good: Good, box: Region, across: bool) -> float | None:
    """Return a place that the letters of a line surely reach, from the left or the top, in pixels.

    Letters are read until they lack a part: of 90 lines of real models' pictures 0.05 to 0.47 of
    the height of the reader's box. So this needs no measure of where strokes are: the check has
    one. ``None`` where the line reads otherwise at once, or the same whatever is cut off.
    """
    # The models are loaded only where something has to be read.
    from tasks.checks.ocr import reader

    def read(less: float) -> str:
        x, y = (box.x + less, box.y) if across else (box.x, box.y + less)
        right, bottom = box.x + box.width, box.y + box.height
        quad = np.array([[x, y], [right, y], [right, bottom], [x, bottom]], np.float32)
        return keys(reader().read(good.rgb, [quad])[0].text)

    side = min(box.width, box.height)
    whole = read(0)
    asked = [keys(text) for text in good.expected.intended_text]
    # A speck beside the letters is read as a sign, or not: only what was asked for counts.
    sought = next((t for t in asked if t in whole and 2 * len(t) > len(whole)), whole)
    most = _MOST_LESS * (box.width if across else box.height)
    if not sought or sought in read(most):
        return None
    low, high = 0.0, most
    while high - low > max(1.0, side * _PRECISE):
        middle = (low + high) / 2
        low, high = (middle, high) if sought in read(middle) else (low, middle)
    first = box.x if across else box.y
    return first + low if low > 0 else None


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
    Defect("text at the edge", MARGINS, 1.0, text_at_edge, "way into the margin, at least", _STEPS),
)
