"""Did enlarging invent, lose or change text? Read only where the strokes changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.pairs import Floats, luma, soft
from tasks.checks.text_match import keys
from tasks.checks.upscale import NO_SOURCE, Pair, pair, same_shape
from tasks.records import Finding, Region

#: Height in pixels of the shortest source in which a line could be read.
_LEAST = 48
#: Context around a changed part, in pixels of the source: a line is found by its surroundings.
_MARGIN = 64
#: Changed strips that are read at most; a picture with more is not the same picture.
_STRIPS = 3
#: A strip is searched at twice its size, but no larger than this.
_READ_AT = 1024
#: From here on Unicode has the signs of Chinese and Japanese.
_SIGNS = "\u2e80"
#: Window of a comparison (standard deviation, pixels of the source): a letter of the smallest type
#: that can be read. The blur before it takes grain out, not strokes of a pixel.
_WINDOW, _BLUR = 2.5, 0.7
#: Variance of visible contrast, as in ``upscale.faithful``: fainter detail hardly counts.
_CONTRAST = 200.0
#: Confidence below which nothing that is text was read.
_NOTHING = 0.5
#: Natural log of a probability where the recogniser gives none.
_LOWEST = -1000.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Read:
    """What is read in one place of one picture.

    Attributes:
        text: The reading; empty where nothing is.
        sure: The reader's confidence, 0 to 1.
        odds: Natural log of how much more probable it is there than what is read in the same place
            of the other picture.
    """

    text: str
    sure: float
    odds: float


@dataclass(frozen=True, slots=True)
class Line:
    """One place, by left, top, right and bottom, read in the source and in the result."""

    box: Box
    before: Read
    after: Read


def alike(both: Pair) -> Floats:
    """Return how much the strokes around every pixel are those of the source, -1 to 1.

    The correlation of both pictures within a window as large as a small letter. More or less
    contrast, crisper or softer edges leave it near 1; other strokes, and strokes that only one of
    them has, do not. Where both are plain it is 1.
    """
    one, two = (soft(luma(rgb), _BLUR) for rgb in (both.source, both.result))
    mean_one, mean_two = soft(one, _WINDOW), soft(two, _WINDOW)
    spread_one = np.maximum(soft(one * one, _WINDOW) - mean_one * mean_one, 0)
    spread_two = np.maximum(soft(two * two, _WINDOW) - mean_two * mean_two, 0)
    shared = soft(one * two, _WINDOW) - mean_one * mean_two
    spread = np.sqrt((spread_one + _CONTRAST) * (spread_two + _CONTRAST))
    return np.asarray((shared + _CONTRAST) / spread, np.float32)


def changed_strips(field: Floats, limit: float) -> list[tuple[int, int]]:
    """Return top and height of what is to be read, worst first.

    Strips across the whole picture around the parts below a limit: a line that is cut is misread.
    """
    mask = (field < limit).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask)
    found = []
    for number in range(1, count):
        left, top, width, height = (int(v) for v in boxes[number][:4])
        part = field[top : top + height, left : left + width]
        worst = float(part[labels[top : top + height, left : left + width] == number].min())
        found.append((worst, top, top + height))
    strips: list[tuple[int, int]] = []
    for _, top, bottom in sorted(found):
        if any(start <= top and bottom <= end for start, end in strips):
            continue  # Read already, with its line around it.
        if len(strips) == _STRIPS:
            break
        strips.append((max(top - _MARGIN, 0), min(bottom + _MARGIN, field.shape[0])))
    return [(start, end - start) for start, end in strips]


def lowest(field: Floats, box: Box) -> float:
    """Return the lowest value in a box."""
    left, top, right, bottom = (int(v) for v in box)
    inside = field[max(top, 0) : max(bottom, 0) + 1, max(left, 0) : max(right, 0) + 1]
    return float(inside.min()) if inside.size else 1.0


def told(line: Line, rule: Text) -> str | None:
    """Say what became of a line whose strokes changed; ``None`` where it is the same text.

    Both pictures must say so: in each, what is read there is far more probable than what is read in
    the other. A reader who is not sure of a letter finds both readings about as probable.
    """
    before, after = line.before, line.after
    if min(before.odds, after.odds) < rule.odds or keys(before.text) == keys(after.text):
        return None
    gone, new = (read.sure < _NOTHING or not keys(read.text) for read in (after, before))
    if gone or new:
        kept, kind = (before, "lost") if gone else (after, "invented")
        text = kept.sure >= rule.sure and _weight(kept.text) >= rule.letters
        return f"text {kind}: {kept.text!r}" if text else None
    if before.sure < rule.read or _weight(before.text) < rule.letters:
        return None
    return f"text changed: {before.text!r} became {after.text!r}"


def _same(one: Box, two: Box) -> bool:
    """Say whether two boxes are one line: they share half of the larger."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return width > 0 and height > 0 and width * height >= 0.5 * max(areas)


def _weight(text: str) -> int:
    """Return how much of a text a line is: letters once, figures and signs for words twice."""
    return sum(1 + (char.isdigit() or char >= _SIGNS) for char in text if char.isalnum())


@dataclass(frozen=True, slots=True)
class Text:
    """The text of the source is in the result, and no other.

    Only parts whose strokes changed are read, so that hardly any faithful result costs a reading.
    Both pictures are read at the size of the source, in the same places: what is only legible when
    enlarged is no invention. The readings are compared by their probabilities, so that a line need
    not be read surely to be seen to have changed. Strokes that change and leave the text are left
    to ``upscale.faithful``.
    """

    #: Likeness of strokes below which text is read.
    limit: float = 0.9
    #: Least odds, as a natural log, in either picture. Letters that changed places lie above 10,
    #: but for thin ones that are another letter by half; what is as probable is a slip of the
    #: reader, who finds intended letters probable down to -3: see :mod:`tasks.checks.second_look`.
    odds: float = 6.0
    #: Confidence of the reader from which a line is text that changed; and from which it is text
    #: where the other picture shows none.
    read: float = 0.6
    sure: float = 0.85
    #: Its least letters; figures and the signs of writing without letters count twice: two are a
    #: price or a word.
    letters: int = 3
    name: str = "upscale.text"
    version: str = "3"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: likeness of the strokes in the worst place."""
        source = picture.reference("source")
        if source is None or min(source.shape[:2]) < _LEAST:
            return self._finding(
                "skip", NO_SOURCE if source is None else "the source is too small to read"
            )
        if not same_shape(source, picture.rgb):
            return self._finding("skip", "another shape than the source")
        both = pair(source, picture.rgb)
        field = alike(both)
        for top, height in changed_strips(field, self.limit):
            rows = slice(top, top + height)
            for line in self._lines(both.source[rows], both.result[rows], field[rows]):
                message = told(line, self)
                if message is not None:
                    left, upper, right, lower = line.box
                    at = both.region(left, top + upper, right - left, lower - upper)
                    return self._finding("fail", message, float(field.min()), at)
        return self._finding("pass", "", float(field.min()))

    def _lines(self, before: Pixels, after: Pixels, field: Floats) -> list[Line]:
        """Return the lines of a strip whose strokes changed, those of the source first."""
        # The models are loaded only where something has to be read.
        from tasks.checks import ocr

        reader = ocr.reader()
        before, after = np.ascontiguousarray(before), np.ascontiguousarray(after)
        side = min(_READ_AT, 2 * max(before.shape[:2]))
        own = reader.detect(before, side)
        boxes = [ocr.corners(quad) for quad in own]
        new = [
            quad
            for quad in reader.detect(after, side)
            if not any(_same(ocr.corners(quad), box) for box in boxes)
        ]
        lines = []
        for rgb, other, quads in ((before, after, own), (after, before, new)):
            changed = [q for q in quads if lowest(field, ocr.corners(q)) < self.limit]
            # An upright line is read one way in both pictures: that of its own.
            read = reader.read(rgb, changed)
            there = reader.recognise([ocr.crop(other, line.quad)[0] for line in read])
            lines += [
                line.quad
                for line, reading in zip(read, there, strict=True)
                if keys(line.text) != keys(reading.text)
            ]
        return _read_twice(before, after, lines)

    def _finding(
        self, verdict: str, message: str, score: float | None = None, region: Region | None = None
    ) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict=verdict,
            score=None if score is None else round(score, 4),
            limit=self.limit,
            message=message,
            region=region,
        )


def _read_twice(before: Pixels, after: Pixels, quads: Sequence[Any]) -> list[Line]:
    """Read the same places in both pictures, and ask each for the reading of the other."""
    from tasks.checks import ocr

    crops = [ocr.crop(rgb, quad)[0] for rgb in (before, after) for quad in quads]
    reader = ocr.reader()
    texts = [keys(reading.text) for reading in reader.recognise(crops)]
    readings = reader.recognise(crops, "".join(sorted(set("".join(texts)))))
    count = len(quads)
    lines = []
    for number, quad in enumerate(quads):
        places = (number, count + number), (count + number, number)
        one, two = (
            Read(
                readings[own].text,
                readings[own].score,
                _log(readings[own], texts[own]) - _log(readings[own], texts[other]),
            )
            for own, other in places
        )
        lines.append(Line(ocr.corners(quad), one, two))
    return lines


def _log(reading: Any, key: str) -> float:
    """Return the log-probability of a key, or of nothing at all, on the crop of a reading."""
    from tasks.checks import ocr

    if not key:
        return float(reading.emissions[:, 0].sum()) if reading.emissions.size else _LOWEST
    return max(ocr.forward_score(reading, key), _LOWEST)
