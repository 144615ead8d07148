"""A second, independent reader for strings that were flagged: Tesseract, another engine.

Its network, its data and its way to cut lines into letters have nothing in common with PP-OCR;
only where the lines are comes from the first reader, and for strings that are missing it searches
the whole picture by itself. Each line is read in many preparations, and it takes several of them
to confirm a flag or to clear it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from tasks.checks import ink, tesseract
from tasks.checks.second_look import wanted
from tasks.checks.tesseract import Guess, Preparation
from tasks.checks.text_match import Box, align, find, keys, unmarked
from tasks.checks.text_misses import OTHER, Miss
from tasks.checks.text_thread import stretch

#: Data for Latin letters, in the order in which it is tried: the first that knows every letter.
LATIN = (
    "eng", "deu", "fra", "spa", "ita", "por", "nld", "pol", "ces", "tur", "swe", "ron", "hun",
)  # fmt: skip
#: How lines are prepared, beside their letters cut free.
HYPOTHESES = (
    Preparation(0.2, 36),
    Preparation(0.1, 32),
    Preparation(0.3, 48),
    Preparation(0.2, 64, binary=True),
)
#: Lines in place of a string that is nowhere that are read again at most.
MOST_LINES = 3
#: Mean probability at which the first reader is sure of a line.
SURE = 0.8
#: Long side of the picture that it searches by itself.
PAGE = 768
#: Lines that Tesseract finds by itself count above this confidence.
LEAST_SCORE = 0.5
#: A reading with a larger share of letters unlike both strings says nothing of either.
JUNK = 0.4
#: To confirm: so many readings nearer to the wrong letters, and so many times those nearer to the
#: right ones; without a reading of exactly the wrong letters more, and so many letters nearer.
NEARER, TIMES, UNREAD, LETTERS = 2, 2, 3, 4
#: To clear: so many readings of exactly the right letters, and so many of them sure.
RIGHT, SURELY = 3, 2
#: Letters that touch look like others: whoever confuses them is not confirmed by another who does.
ALIKE = (
    ("rn", "m"), ("nn", "m"), ("cl", "d"), ("vv", "w"), ("ii", "u"), ("li", "h"), ("ri", "n"),
    ("l", "i"), ("1", "i"), ("|", "i"), ("0", "o"), ("5", "s"), ("8", "b"),
)  # fmt: skip
#: Lines of one flag that are read again at most; those after them say nothing.
MOST_READ = 6
#: Letters that may have gone to the next line when a string is split over lines.
MOVED = 3


def code_for(text: str) -> str | None:
    """Return the code of the data that can read a text of Latin letters, ``None`` without any."""
    if not all(c.isascii() or _latin(c) for c in keys(text) if c.isalpha()):
        return None
    codes = (code for code in LATIN if code in tesseract.installed())
    return next((code for code in codes if tesseract.engine(code).knows(text)), None)


def _latin(char: str) -> bool:
    return 0xC0 <= ord(char) < 0x250


def confirmed(miss: Miss, rgb: Any) -> bool | None:
    """Return whether a second reader finds the string wrong too.

    Returns:
        ``True``: it reads the same wrong letters, or nothing like the string anywhere.
        ``False``: it reads the intended string. ``None``: it is not installed, does not know the
        letters, or reads nothing clear.
    """
    code = code_for(miss.text)
    if code is None or not miss.distance:  # It is there, less often than it was asked for.
        return None
    key = keys(miss.text)
    if miss.severity in {"absent", "wrong text"}:
        again = [readings(code, rgb, quad) for quad in miss.quads[:MOST_LINES]]
        return _nowhere(miss, key, [*_columns(miss.boxes, again), _page(code, rgb)])
    read = [keys(box.text) for box in miss.boxes]
    if miss.severity == "doubled":
        again = [readings(code, rgb, quad) for quad in miss.quads[:MOST_READ]]
        pairs = zip(read, again, strict=False)
        return all(any(got in keys(g.text) for g in each) for got, each in pairs) or None
    lines = _Lines(code, rgb, miss.quads)
    said = {
        _line_by_line(read, parts, lines) for parts in _splits(read, wanted(key, read, miss.around))
    }
    if miss.score < SURE and miss.distance == 1:
        said -= {True}  # A letter that a reader misses who is not sure of the line.
    # It is there if any way to split it over the lines is read, and wrong only by every one.
    return False if False in said else True if said == {True} else None


@dataclass(slots=True)
class _Lines:
    """The lines of a flag as the second reader reads them, each read once."""

    code: str
    rgb: Any
    quads: Sequence[Any]
    known: dict[tuple[int, float, float], list[Guess]] = field(default_factory=dict)

    def read(self, number: int, got: str, want: str) -> list[Guess]:
        """Read a line, with room on the side on which letters lack: the box may be too short.

        Args:
            number: Of the line.
            got: What the first reader reads.
            want: What should stand there.
        """
        wide = 1.5 + len(want) - len(got)
        left = wide * (distance(got, want[1:]) < distance(got, want))
        right = wide * (distance(got, want[:-1]) < distance(got, want))
        if (number, left, right) not in self.known:
            if len(self.known) >= MOST_READ:
                return []
            quad = _longer(self.quads[number], left / len(got), right / len(got))
            self.known[number, left, right] = readings(self.code, self.rgb, quad)
        return self.known[number, left, right]


def _longer(quad: Any, left: float, right: float) -> Any:
    """Return a line made longer by shares of its width."""
    tl, tr, br, bl = quad
    ends = [tl - left * (tr - tl), tr + right * (tr - tl), br + right * (br - bl)]
    return np.array([*ends, bl - left * (br - bl)], dtype=np.float32)


def readings(code: str, rgb: Any, quad: Any) -> list[Guess]:
    """Return what is read in one line, in every preparation."""
    reader = tesseract.engine(code)
    free = [reader.letters(line) for line in ink.pictures(rgb, quad)]
    (plain,) = tesseract.guesses(code, rgb, [quad], HYPOTHESES)
    return [*free, *plain]


def _columns(boxes: Sequence[Box], lines: Sequence[Sequence[Guess]]) -> list[list[Box]]:
    """Return the lines as each preparation reads them; lines may have different numbers of them."""
    most = max((len(each) for each in lines), default=0)
    return [
        [
            replace(box, text=each[n].text)
            for box, each in zip(boxes, lines, strict=False)
            if n < len(each)
        ]
        for n in range(most)
    ]


def _nowhere(miss: Miss, key: str, found: Sequence[Sequence[Box]]) -> bool | None:
    if any(find(key, boxes) for boxes in found):
        return False
    if miss.score < SURE or miss.unread:
        return None  # Something stands there that the first reader cannot read either.
    nearest = [stretch(key, boxes, range(len(boxes))) for boxes in found]
    return True if all(one.distance > OTHER * len(key) for one in nearest) else None


def _splits(read: Sequence[str], parts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the ways to split a string over lines that are as near to what was read.

    A letter that lacks at the end of a line may as well lack at the beginning of the next.
    """
    yield list(parts)
    for number, ((got, want), (after, rest)) in enumerate(pairwise(zip(read, parts, strict=True))):
        both, cost = want + rest, distance(got, want) + distance(after, rest)
        for cut in range(max(0, len(want) - MOVED), min(len(both), len(want) + MOVED) + 1):
            left, right = both[:cut], both[cut:]
            if left != want and distance(got, left) + distance(after, right) <= cost:
                yield [*parts[:number], left, right, *parts[number + 2 :]]


def distance(one: str, other: str) -> int:
    """Return the edit distance of two strings."""
    row = list(range(len(other) + 1))
    for number, char in enumerate(one, 1):
        before, row = row, [number]
        for at, wanted_char in enumerate(other, 1):
            row.append(min(before[at] + 1, row[-1] + 1, before[at - 1] + (char != wanted_char)))
    return row[-1]


def _line_by_line(read: Sequence[str], parts: Sequence[str], lines: _Lines) -> bool | None:
    """Compare the lines that the first reader reads otherwise than they should be."""
    right: list[bool | None] = []
    for number, (got, want) in enumerate(zip(read, parts, strict=True)):
        # As it should be, or no part of the string at all.
        if got == want or 2 * align(want, got).distance >= max(len(want), 1):
            continue
        said = Votes.of(got, want, lines.read(number, got, want)).said()
        if said:
            return True
        right.append(said)
    return False if right and all(one is False for one in right) else None


@dataclass(frozen=True, slots=True)
class Votes:
    """What the readings of one line say for the wrong letters and for the right ones."""

    #: The letters that the first reader reads, and those that should stand there.
    got: str
    want: str
    #: Readings of exactly the wrong letters; others nearer to them, and by how many letters.
    same: int
    nearer: int
    letters: int
    #: Readings of exactly the right letters, the sure ones of them; others nearer to them.
    right: int
    surely: int
    against: int

    @classmethod
    def of(cls, got: str, want: str, guesses: Sequence[Guess]) -> Votes:
        """Count readings of a line.

        Args:
            got: What the first reader reads, by ``keys``.
            want: What should stand there.
            guesses: What the second one reads.
        """
        # Tesseract drops and adds marks at the ends of lines: they prove nothing.
        got, want = _bare(got), _bare(want)
        read = [(_nearest(got, want, guess.text), guess.score) for guess in guesses]
        gains = [_gain(got, want, text) for text, _ in read if text not in {got, want}]
        return cls(
            got,
            want,
            same=sum(text == got for text, _ in read),
            nearer=sum(gain > 0 for gain in gains),
            letters=sum(gain for gain in gains if gain > 0),
            right=sum(text == want for text, _ in read),
            surely=sum(text == want and score >= LEAST_SCORE for text, score in read),
            against=sum(gain < 0 for gain in gains),
        )

    def said(self) -> bool | None:
        """Return whether the letters are wrong; ``None`` where the readings do not say."""
        wrong, right = self.same + self.nearer, self.right + self.against
        told = len(self.got) > 1 and _alike(self.got) != _alike(self.want)
        # A first letter may be larger, of another colour or a picture: both readers leave it out.
        told = told and self.got != self.want[1:]
        if told and self.same and wrong >= max(NEARER, TIMES * right):
            return True
        if told and not right and wrong >= UNREAD and self.letters >= LETTERS:
            return True
        cleared = self.right >= RIGHT and self.surely >= SURELY and not wrong
        # Data of one language drops the marks of others: that it reads none proves nothing.
        bare = self.want == unmarked(self.got)
        return False if cleared and not bare else None


def _nearest(got: str, want: str, text: str) -> str:
    """Return the words of a reading that are nearest to either string: others may stand beside."""
    words = [keys(word) for word in text.split()]
    ranges = ["".join(words[a:b]) for a in range(len(words)) for b in range(a + 1, len(words) + 1)]
    whole = _bare("".join(words))
    bare = [whole, *map(_bare, ranges)]
    return min(bare, key=lambda one: min(distance(one, got), distance(one, want)))


def _gain(got: str, want: str, text: str) -> int:
    """Return by how many letters a reading is nearer to the wrong ones; 0 where it says nothing."""
    to_got, to_want = distance(got, text), distance(want, text)
    if not text or min(to_got, to_want) > JUNK * max(len(got), len(want)):
        return 0
    return to_want - to_got


def _alike(key: str) -> str:
    """Return a key with one letter for all that look the same when they touch."""
    for letters, other in ALIKE:
        key = key.replace(letters, other)
    return key


def _bare(key: str) -> str:
    """Return a key without the signs around its letters."""
    ends = "".join({c for c in key if not c.isalnum()})
    return key.strip(ends) if ends else key


def _page(code: str, rgb: Any) -> list[Box]:
    import cv2

    ratio = min(1.0, PAGE / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * ratio)), max(1, round(rgb.shape[0] * ratio))
    page = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if ratio < 1 else rgb
    return [
        Box(guess.text, *(float(side) / ratio for side in box))
        for guess, box in tesseract.engine(code).page(np.ascontiguousarray(page))
        if guess.score >= LEAST_SCORE and keys(guess.text)
    ]
