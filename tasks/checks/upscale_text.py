"""Did enlarging invent, lose or change text? Read only where the structure changed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture
from tasks.checks.pairs import Floats
from tasks.checks.text_match import keys
from tasks.checks.upscale import NO_SOURCE, pair, same_shape, similarity
from tasks.records import Finding, Region

#: Height in pixels of the shortest source in which a line could be read.
_LEAST = 48
#: Context around a changed part, in pixels of the source: a line is found by its surroundings.
_MARGIN = 64
#: Changed parts that are read at most; a picture with more is not the same picture.
_PARTS = 3
#: Tiles along the long side and their least side in pixels: about a letter of small text.
_TILES = (40, 10)
#: A part is read at twice its size, but no larger than this.
_READ_AT = 640
#: From here on Unicode has the signs of Chinese and Japanese.
_SIGNS = "\u2e80"

#: Similarity below which a single letter that reads differently is another letter.
PLAIN = 0.82

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Seen:
    """A line of text that was read with confidence, by left, top, right and bottom."""

    text: str
    box: Box


def compare(
    before: Sequence[Seen], after: Sequence[Seen], tiles: Floats, limit: float
) -> tuple[str, Box] | None:
    """Say which text differs where the structure does too, and where; ``None`` when none.

    Args:
        before: Lines of the source, in pixels of ``tiles``.
        after: Lines of the result.
        tiles: Similarity around every pixel.
        limit: Similarity from which both are the same, whatever was read.
    """
    for line, others, kind in (
        *((line, after, "lost") for line in before),
        *((line, before, "invented") for line in after),
    ):
        similarity = _similarity(tiles, line.box)
        if similarity >= limit:
            continue
        beside = [near.text for near in others if _touch(line.box, near.box)]
        if not beside:
            return f"text {kind}: {line.text!r}", line.box
        one, two = keys(line.text), keys(" ".join(beside))
        # One letter may be the reader's slip, but not where the strokes are plainly others.
        inside = one in two or two in one  # A line that was read in parts.
        other = not inside if similarity < PLAIN else _unlike(one, two)
        if kind == "lost" and other:
            return f"text changed: {line.text!r} became {' '.join(beside)!r}", line.box
    return None


def _similarity(tiles: Floats, box: Box) -> float:
    """Return the lowest similarity of the tiles whose middle lies in a box."""
    left, top, right, bottom = (int(v) for v in box)
    inside = tiles[max(top, 0) : max(bottom, 0) + 1, max(left, 0) : max(right, 0) + 1]
    return float(inside.min()) if inside.size else 1.0


def _touch(one: Box, two: Box) -> bool:
    """Say whether a box covers a fifth of the smaller of both."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return width > 0 and height > 0 and width * height >= 0.2 * min(areas)


def _unlike(one: str, two: str) -> bool:
    """Say whether two readings are two texts: a reader's own slip is one letter or two of ten."""
    if not one or not two or one in two or two in one:
        return False
    return difflib.SequenceMatcher(None, one, two, autojunk=False).ratio() < 0.75


def changed_parts(tiles: Floats, limit: float) -> list[tuple[int, int, int, int]]:
    """Return left, top, width and height of what is to be read, worst first.

    Strips across the whole picture around the parts below a limit: a line that is cut is misread.
    """
    mask = (tiles < limit).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask)
    found = []
    for number in range(1, count):
        left, top, width, height = (int(v) for v in boxes[number][:4])
        part = tiles[top : top + height, left : left + width]
        worst = float(part[labels[top : top + height, left : left + width] == number].min())
        y, bottom = max(top - _MARGIN, 0), min(top + height + _MARGIN, tiles.shape[0])
        found.append((worst, (0, y, tiles.shape[1], bottom - y)))
    return [box for _, box in sorted(found)[:_PARTS]]


def _weight(text: str) -> int:
    """Return how much of a text a line is: letters once, figures and signs for words twice."""
    return sum(1 + (char.isdigit() or char >= _SIGNS) for char in text if char.isalnum())


@dataclass(frozen=True, slots=True)
class Text:
    """The text of the source is in the result, and no other.

    Only parts whose structure changed are read, so that a faithful result costs no reading. Both
    pictures are read at the size of the source: what is only legible when enlarged is no
    invention. Lines that the reader is not sure of are left to ``upscale.faithful``.
    """

    #: Similarity of a tile below which its text is read, and below which a difference counts.
    suspect: float = 0.87
    limit: float = 0.85
    #: Confidence of the reader from which a line is text, and its least letters; figures and the
    #: signs of writing without letters count twice: two are a price or a word.
    sure: float = 0.85
    letters: int = 3
    name: str = "upscale.text"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: similarity of the worst tile."""
        source = picture.reference("source")
        if source is None or min(source.shape[:2]) < _LEAST:
            return self._finding(
                "skip", NO_SOURCE if source is None else "the source is too small to read"
            )
        if not same_shape(source, picture.rgb):
            return self._finding("skip", "another shape than the source")
        both = pair(source, picture.rgb)
        tiles, _ = similarity(both, *_TILES)
        for left, top, width, height in changed_parts(tiles, self.suspect):
            cut = slice(top, top + height), slice(left, left + width)
            before, after = (self._read(rgb[cut]) for rgb in (both.source, both.result))
            found = compare(before, after, tiles[cut], self.limit)
            if found is not None:
                message, box = found
                at = both.region(left + box[0], top + box[1], box[2] - box[0], box[3] - box[1])
                return self._finding("fail", message, float(tiles.min()), at)
        return self._finding("pass", "", float(tiles.min()))

    def _read(self, part: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[Seen]:
        """Return the lines of a part that the reader is sure of."""
        # The models are loaded only where something has to be read.
        from tasks.checks import ocr

        side = min(_READ_AT, 2 * max(part.shape[:2]))
        lines = ocr.reader().lines(np.ascontiguousarray(part), side)
        return [
            Seen(line.text, line.box)
            for line in lines
            if line.reading.score >= self.sure and _weight(line.text) >= self.letters
        ]

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
