"""What was read in one picture so far; each closer look reads only what may matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.checks.text_match import Box, align, keys

#: Long sides at which the picture is searched for lines, one after the other. Lines are always
#: read from the full picture, so a small search misses only letters below about 3 % of it.
SIDES = (320, 640, 960)
#: Letters taller than this share of the picture are found whole in a smaller picture.
LARGE, COARSE = 0.15, (224, 160)
#: Long side of a search that finds all letters worth reading in a picture that is no larger than
#: the second number; in larger ones, and where it finds new lines, a closer search follows.
CLOSE, SMALL_PICTURE = 640, 1100
#: With more letters than this they must be small, and the first search is left out.
MANY_LETTERS = 90
#: Readings less certain than this are texture, not text.
MIN_SCORE = 0.5
#: A line read at least this surely is read once.
SURE = 0.9
#: A line read less surely that takes at least this share of the picture may be any text.
READABLE, LEAST_AREA = 0.8, 0.005
#: A line and a string with more than this share of letters wrong have nothing in common.
FOREIGN = 0.5
#: Pixels of a line as the recogniser takes it for each of its time steps.
STEP = 8
#: So many steps measure the width of a word; of fewer one more or less is too large a share.
FEWEST = 5


@dataclass(slots=True)
class Look:
    """What was read so far."""

    rgb: Any
    alphabet: str
    lines: list[Any] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    #: Index of the first line of each look.
    passes: list[int] = field(default_factory=list)
    #: Lines that are large and hardly to be read: width over height.
    unread: list[float] = field(default_factory=list)
    #: Whether the last look found a line where no earlier one did.
    fresh: bool = True

    def read(self, side: int, missing: Sequence[str] = ()) -> None:
        """Read the picture at another size and keep what is certain enough.

        Args:
            side: Its long side is brought to this many pixels to search for lines.
            missing: What is looked for. A line that was surely read, and is nothing like it, is
                not read again.
        """
        from tasks.checks.ocr import corners, reader

        known = [line.box for line in self.lines]
        quads = reader().detect(self.rgb, side)
        self.fresh = any(not _covered(corners(quad), known) for quad in quads)
        done = [line.box for line in self.lines if self._settled(line, missing)]
        self.passes.append(len(self.boxes))
        again = [quad for quad in quads if not _same(corners(quad), done)]
        least = LEAST_AREA * self.rgb.shape[0] * self.rgb.shape[1]
        for line in reader().read(self.rgb, again, self.alphabet):
            if line.reading.score < READABLE and _area(line.box) >= least:
                self.unread.append(_shape(line.box))
            if line.reading.score >= MIN_SCORE and keys(line.text):
                self.lines.append(line)
                self.boxes.append(_boxed(line))

    def span(self, number: int) -> range:
        """Return the indices of the boxes of one look."""
        ends = [*self.passes[1:], len(self.boxes)]
        return range(self.passes[number], ends[number])

    def large(self, missing: Sequence[str]) -> bool:
        """Say whether large letters stand there that may be what is missing."""
        least = LARGE * max(self.rgb.shape[:2])
        return any(
            box.height > least and not self._settled(line, missing)
            for line, box in zip(self.lines, self.boxes, strict=True)
        )

    def may_hide(self, text: str) -> bool:
        """Say whether a string may stand in lines that can hardly be read.

        The narrowest letters of common typefaces are a third as wide as a line is high.
        """
        longest = max(len(keys(word)) for word in text.split())
        return any(shape >= longest / 3 for shape in self.unread)

    def width(self, number: int, word: str, last: bool = False) -> float | None:
        """Return the pixels from the middle of a word's first letter to that of its last one.

        Unlike a box it has no room around the letters, so it tells their size.

        Args:
            number: The line.
            word: By :func:`tasks.checks.text_match.keys`, of letters that are looked for.
            last: Where the word stands several times in the line: the last one.

        Returns:
            ``None`` where the word does not stand in the line, or is too short to be measured.
        """
        from tasks.checks.ocr import LINE_HEIGHT

        line = self.lines[number]
        letters, steps = _placed(line.reading)
        at = letters.rfind(word) if last else letters.find(word)
        length = int(steps[at + len(word) - 1] - steps[at]) if at >= 0 else 0
        if length < FEWEST:
            return None
        tl, tr, br, bl = line.quad
        height = max(math.dist(tl, bl), math.dist(tr, br))
        return length * STEP * height / LINE_HEIGHT

    def _settled(self, line: Any, missing: Sequence[str]) -> bool:
        """Say whether a line was surely read, and as nothing like what is missing."""
        return line.reading.score >= SURE and all(foreign(keys(line.text), k) for k in missing)


def _placed(reading: Any) -> tuple[str, Any]:
    """Return the letters read, of those that are looked for, and the time step of each."""
    names = {number: name for name, number in reading.alphabet.items()}
    best = reading.emissions.argmax(axis=1)
    new = best != 0
    new[1:] &= best[1:] != best[:-1]
    steps = new.nonzero()[0]
    return "".join(names[number] for number in best[steps]), steps


def _boxed(line: Any) -> Box:
    corners = () if line.vertical else tuple((float(x), float(y)) for x, y in line.quad)
    left, top, right, bottom = line.box
    sure = line.reading.score >= READABLE
    return Box(line.text, left, top, right, bottom, line.vertical, corners, sure)


Rectangle = tuple[float, float, float, float]


def _area(one: Rectangle) -> float:
    return max(one[2] - one[0], 0.0) * max(one[3] - one[1], 0.0)


def _shape(one: Rectangle) -> float:
    sides = max(one[2] - one[0], 1.0), max(one[3] - one[1], 1.0)
    return max(sides) / min(sides)


def _shared(one: Rectangle, other: Rectangle) -> float:
    low = max(one[0], other[0]), max(one[1], other[1])
    return _area((*low, min(one[2], other[2]), min(one[3], other[3])))


def _covered(one: Rectangle, known: Sequence[Rectangle]) -> bool:
    """Say whether most of a rectangle lies in one that is known."""
    return any(_shared(one, other) > 0.5 * _area(one) for other in known)


def _same(one: Rectangle, known: Sequence[Rectangle]) -> bool:
    """Say whether two rectangles are one line: most of both is shared."""
    return any(_shared(one, other) > 0.6 * max(_area(one), _area(other)) for other in known)


def foreign(line: str, key: str) -> bool:
    """Say whether a line holds neither the string nor a part of it, nor anything like it."""
    short, long = sorted((line, key), key=len)
    return align(short, long).distance > FOREIGN * len(short)
