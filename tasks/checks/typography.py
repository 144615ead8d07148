"""Is the intended text there, letter by letter?

Read in layers, so that good pictures are cheap and no picture is called bad on one glance: one
reading at a modest size; only what that did not find is looked for at other sizes; only what is
still missing is read again from enlarged lines, where the recogniser must say how probable the
intended string is beside the string it read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tasks.checks.base import Expected, Picture
from tasks.checks.text_match import Box, Piece, align, doubled, find, keys
from tasks.records import Finding, Region

NOT_COVERED = "not covered:"
#: Scripts that the recogniser was measured to read; the rest of its dictionary is not trusted.
READ_SCRIPTS = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "DIGIT")
#: Long sides at which the picture is searched for lines, one after the other. Lines are always
#: read from the full picture, so a small search misses only letters below about 3 % of it.
SIDES = (320, 640, 960)
#: With more letters than this they must be small, and the first search is left out.
MANY_LETTERS = 90
#: Two looks that read the same wrong line at least this surely need no third.
SURE = 0.9
#: Readings less certain than this are texture, not text.
MIN_SCORE = 0.5
#: Natural log of how much less probable than what was read an intended line may be, and of how
#: improbable at all: where nothing is read surely, being second best proves nothing.
MARGIN, LEAST = 2.0, -4.0
#: What the recogniser reads in the boxes that fonts draw for letters they lack.
GLYPH_BOXES = frozenset("□▯▢☐⬜囗口")


def covered(text: str, language: str = "und") -> bool:
    """Say whether the reader here can judge this text.

    Args:
        text: The intended string.
        language: BCP 47 tag; scripts decide, and some languages need letters that look covered.
    """
    from tasks.checks.ocr import reader

    if language.lower().partition("-")[0] == "vi":
        return not any(ord(c) > 0x7F and c.isalpha() for c in text)
    classes = reader().classes
    for char in unicodedata.normalize("NFKC", text):
        if not keys(char):
            continue
        if any(part not in classes for part in keys(char)):
            return False
        if char.isalpha() and not _script(char).startswith(READ_SCRIPTS):
            return False
        if unicodedata.category(char) == "So" and char not in "©®™°№℃℉":
            return False  # Emoji and pictographs stand in the dictionary and are not read.
    return True


def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN")


#: Kind of a string in which letters are boxes.
GLYPHS = "set with missing glyphs (boxes)"


@dataclass(slots=True)
class _Look:
    """What was read so far."""

    rgb: Any
    alphabet: str
    lines: list[Any] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    #: Index of the first line of each pass.
    passes: list[int] = field(default_factory=list)

    def read(self, side: int) -> None:
        """Read the picture at another size and keep what is certain enough."""
        from tasks.checks.ocr import reader

        self.passes.append(len(self.boxes))
        for line in reader().lines(self.rgb, side, self.alphabet):
            if line.reading.score >= MIN_SCORE and keys(line.text):
                self.lines.append(line)
                self.boxes.append(Box(line.text, *line.box, vertical=line.vertical))

    def span(self, number: int) -> range:
        """Return the indices of the boxes of one pass."""
        ends = [*self.passes[1:], len(self.boxes)]
        return range(self.passes[number], ends[number])


@dataclass(frozen=True, slots=True)
class _Miss:
    """A string that is not there, with the nearest thing that is."""

    text: str
    read: str
    distance: int
    kind: str
    boxes: tuple[Box, ...] = ()
    #: Two looks surely read the same wrong thing: looking again would not change it.
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """Every intended string stands in the picture; nothing dropped, doubled or swapped."""

    name: str = "typography.text"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: the worst string's share of right letters."""
        strings = [s for s in expected.intended_text if keys(s)]
        if not strings:
            return self._skip("no text asked for")
        judged = [s for s in strings if covered(s, expected.language)]
        beyond = [s for s in strings if s not in judged]
        if not judged:
            return self._skip(_uncovered(beyond, expected.language))
        look = _Look(picture.rgb, "".join(keys(s) for s in judged))
        misses: list[_Miss] = []
        for side in SIDES[len(look.alphabet) > MANY_LETTERS :]:
            look.read(side)
            misses = _missing(judged, look)
            if all(miss.settled for miss in misses):
                break
        if misses:
            misses = [miss for miss in misses if not _confirmed(miss, look)]
        picture.notes["read_text"] = tuple(look.boxes[i].text for i in look.span(0))
        if misses:
            return self._fail(misses, picture)
        if beyond:
            return self._skip(_uncovered(beyond, expected.language))
        return Finding(check=self.name, version=self.version, verdict="pass", score=1.0, limit=1.0)

    def _skip(self, why: str) -> Finding:
        return Finding(check=self.name, version=self.version, verdict="skip", message=why)

    def _fail(self, misses: Sequence[_Miss], picture: Picture) -> Finding:
        worst = min(misses, key=_right_share)
        told = [
            f"{_short(m.text)} is {m.kind}" + (f": read {_short(m.read)}" if m.read else "")
            for m in misses[:4]
        ]
        more = f"; and {len(misses) - 4} more" if len(misses) > 4 else ""
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail",
            score=round(_right_share(worst), 4),
            limit=1.0,
            message="; ".join(told) + more,
            region=_region(misses, picture),
        )


def _uncovered(strings: Sequence[str], language: str) -> str:
    return f"{NOT_COVERED} no reader for {_short(strings[0])} (language {language or 'und'})"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 80 else flat[:79] + "…")


def _right_share(miss: _Miss) -> float:
    return max(0.0, 1 - miss.distance / max(len(keys(miss.text)), 1))


def _missing(strings: Sequence[str], look: _Look) -> list[_Miss]:
    """Return the strings that are not found exactly in anything read so far."""
    used: list[Piece] = []
    misses: dict[int, _Miss] = {}
    # Longer strings first: they leave fewer places, and may contain a shorter one.
    for number in sorted(range(len(strings)), key=lambda i: -len(keys(strings[i]))):
        text = strings[number]
        pieces = find(keys(text), look.boxes, used)
        if pieces is None:
            misses[number] = _nearest(text, look)
            continue
        twice = doubled(keys(text), text, pieces, look.boxes)
        if twice:
            boxes = tuple(look.boxes[p.box] for p in pieces)
            read = " ".join(b.text for b in boxes)
            misses[number] = _Miss(text, read, len(twice), "doubled", boxes)
            continue
        used.extend(pieces)
    return [misses[i] for i in sorted(misses)]


def _nearest(text: str, look: _Look) -> _Miss:
    """Return the nearest stretch of text in the best pass, and what is wrong with it."""
    key = keys(text)
    tries = [_stretch(key, look, number) for number in range(len(look.passes))]
    distance, touched, read = min(tries, key=lambda one: one[0])
    again = sum(other[2] == read for other in tries)
    sure = all(look.lines[i].reading.score >= SURE for i in touched)
    boxes = tuple(look.boxes[i] for i in touched)
    if any(GLYPH_BOXES & set(other[2]) - set(key) for other in tries if other[0] < len(key)):
        kind = GLYPHS
    else:
        kind = _kind(key, read, distance)
    return _Miss(
        text=text,
        read=" ".join(box.text for box in boxes),
        distance=distance,
        kind=kind,
        boxes=boxes,
        settled=sure and again > 1 and distance <= _near(key) and _inside(key, read, boxes),
    )


def _inside(key: str, read: str, boxes: Sequence[Box]) -> bool:
    """Say whether the wrong letters stand inside lines that were found.

    Letters that lack between two lines may stand in a line of their own that no look has found.
    """
    return len(boxes) == 1 or (bool(boxes) and len(read) >= len(key))


def _near(key: str) -> int:
    """Return how many letters may be wrong for a line to count as the string meant."""
    return max(2, len(key) // 4)


def _stretch(key: str, look: _Look, number: int) -> tuple[int, tuple[int, ...], str]:
    """Return distance, boxes and letters of the stretch of one pass that is nearest to a key."""
    span = list(look.span(number))
    parts = [keys(look.boxes[i].text) for i in span]
    joined = "".join(parts)[:4000]
    found = align(key, joined, list(accumulate(map(len, parts))))
    at, touched = 0, []
    for i in span:
        end = at + len(keys(look.boxes[i].text))
        if at < found.end and found.start < end:
            touched.append(i)
        at = end
    return found.distance, tuple(touched), joined[found.start : found.end]


def _kind(key: str, read: str, distance: int) -> str:
    """Name what happened to the string, from the letters read in its place."""
    if distance > 0.6 * len(key):
        return "missing"
    if distance > 2:
        return "incomplete" if len(read) < 0.7 * len(key) else "garbled"
    if sorted(key) == sorted(read):
        return "misspelt (letters swapped)"
    more = len(read) - len(key)
    return "misspelt" + (" (letters dropped)" if more < 0 else " (letters added)" if more else "")


def _confirmed(miss: _Miss, look: _Look) -> bool:
    return bool(opinion(miss, look) >= -MARGIN)


def opinion(miss: _Miss, look: _Look) -> float:
    """Return how probable the intended string is beside the one read, on enlarged lines.

    Returns:
        The worst line's best log-ratio over the variants: 0 when a variant reads the intended
        string, minus infinity when too much is wrong to ask, and below minus ``MARGIN`` when the
        intended string is improbable by itself.
    """
    from tasks.checks import ocr

    key = keys(miss.text)
    if miss.kind in {"missing", "doubled", GLYPHS} or miss.distance > _near(key):
        return float("-inf")
    lines = [look.lines[look.boxes.index(box)] for box in miss.boxes]
    read = [keys(line.text) for line in lines]
    wanted = _wanted(key, read)
    worst = 0.0
    for line, got, want in zip(lines, read, wanted, strict=True):
        if got == want:
            continue
        if 2 * align(want, got).distance > len(want):
            return float("-inf")  # Something else stands there.
        crops = variants(look.rgb, line.quad)
        readings = ocr.reader().recognise(crops, want + got)
        ratios = []
        for reading in readings:
            now = keys(reading.text)
            if now == want:
                ratios.append(0.0)
            else:
                right = ocr.forward_score(reading, want)
                ratio = right - ocr.forward_score(reading, got)
                ratios.append(min(ratio, right - LEAST - MARGIN))
        worst = min(worst, max(ratios))
    return worst


def variants(rgb: Any, quad: Any) -> list[Any]:
    """Return the line as it stands, with more room, and with its contrast stretched."""
    import cv2

    from tasks.checks import ocr

    plain, _ = ocr.crop(rgb, quad)
    roomy, _ = ocr.crop(rgb, quad, margin=0.15)
    grey = cv2.cvtColor(roomy, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey, (1, 99))
    table = np.clip((np.arange(256) - low) * 255.0 / max(high - low, 1.0), 0, 255)
    stretched = cv2.cvtColor(table.astype(np.uint8)[grey], cv2.COLOR_GRAY2RGB)
    return [plain, roomy, stretched]


def _wanted(key: str, read: Sequence[str]) -> list[str]:
    """Split the intended key over the lines where it should stand, other words kept as read."""
    joined = "".join(read)
    found = align(key, joined)
    prefix, suffix = joined[: found.start], joined[found.end :]
    target = prefix + key + suffix
    # Cut the target where the lines end, by what stays the same on both sides.
    cuts: list[int] = []
    ends = np.cumsum([len(r) for r in read])[:-1]
    blocks = SequenceMatcher(None, joined, target, autojunk=False).get_opcodes()
    for end in ends:
        cut = len(target)
        for _, i1, i2, j1, j2 in blocks:
            if i1 <= end <= i2:
                cut = j1 + round((end - i1) * (j2 - j1) / max(i2 - i1, 1)) if i2 > i1 else j1
                break
        cuts.append(int(cut))
    edges = [0, *cuts, len(target)]
    return [target[a:b] for a, b in pairwise(edges)]


def _region(misses: Sequence[_Miss], picture: Picture) -> Region | None:
    boxes = [box for miss in misses for box in miss.boxes]
    if not boxes:
        return None
    height, width = picture.rgb.shape[:2]
    left = max(0, int(min(b.left for b in boxes)))
    top = max(0, int(min(b.top for b in boxes)))
    right = min(width, int(np.ceil(max(b.right for b in boxes))))
    bottom = min(height, int(np.ceil(max(b.bottom for b in boxes))))
    return Region(x=left, y=top, width=max(1, right - left), height=max(1, bottom - top))
