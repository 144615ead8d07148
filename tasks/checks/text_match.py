"""Compare intended text with lines that were read: pure functions on strings and boxes.

A string is there when its letters stand in boxes that follow one another as people read. Where a
line breaks and how wide spaces are does not matter; every letter, figure and sign does.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

#: Signs that differ between keyboards and fonts and mean the same.
_SAME = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´ʼʹ＇", "'"),
        **dict.fromkeys("“”„‟″«»「」『』〝〞＂", '"'),
        **dict.fromkeys("‐‑‒–—―−－─━", "-"),
        **dict.fromkeys("·•∙⋅・･●", "·"),
        **dict.fromkeys("。｡", "."),
        **dict.fromkeys("、，､", ","),
        **dict.fromkeys("【〔［", "["),
        **dict.fromkeys("】〕］", "]"),
        "…": "...",
        "：": ":",
        "İ": "i",
        "ı": "i",
        "×": "x",
        "€": "€",
    }
)
#: Kana and Han that are drawn alike in most typefaces: a reader cannot tell them apart.
_DRAWN_ALIKE = str.maketrans("ニハカタトエロヘリベペー〇", "二八力夕卜工口へり" + "べぺ" + "一○")
#: Thai writes a tone mark inside the vowel am, which is composed of two signs: one order for both.
_THAI_AM = re.compile("([\u0e48-\u0e4b])(\u0e4d)")
#: Marks so small that specks and ornaments are read as them.
_MARKS = frozenset(".,'`\"·:;|_~^-*")
#: Signs that are a part of a number between two figures, and ones that say more when repeated.
_IN_NUMBERS, _REPEATED = frozenset(".,:/'"), frozenset("!?.")
#: Signs that join the words on both sides of them.
_IN_WORDS = frozenset("'-")
_IGNORED = {"Cf", "Cc", "Zs", "Zl", "Zp"}


#: Lines tilted by more than the first angle, and alike within the second, are compared as if they
#: stood upright; in radians.
TILTED, ALIGNED = 0.05, 0.2


def keys(text: str) -> str:
    """Return the text as it is compared: no spaces, one form for signs that mean the same.

    Capitals count as their small letters: design sets text in capitals freely, and people asked
    whether the text is there say yes.
    """
    folded = text
    for _ in range(4):  # Taking spaces out can bring a mark to a letter: fold until it stays.
        before = folded
        folded = unicodedata.normalize("NFKC", folded.translate(_SAME)).translate(_SAME)
        # Only in capitals are Maße and Masse one word: see `find`.
        folded = "ß".join(part.casefold() for part in folded.replace("ẞ", "ß").split("ß"))
        folded = unicodedata.normalize("NFKC", folded.replace("i\u0307", "i"))
        folded = _THAI_AM.sub("\\2\\1", folded)
        folded = "".join(
            c for c in folded.translate(_DRAWN_ALIKE) if unicodedata.category(c) not in _IGNORED
        )
        if folded == before:
            break
    return folded


def unmarked(key: str) -> str:
    """Return a key without the marks above and below its letters."""
    bare = "".join(c for c in unicodedata.normalize("NFD", key) if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", bare)


def words(text: str) -> tuple[str, frozenset[int]]:
    """Return the key of a text and the positions in it where a string may begin or end.

    That is where a word does. A sign is a word of its own unless it holds together what stands on
    both sides: ``19`` does not end inside ``19.99``, ``Ocean`` not before the ``'s``, ``20`` does
    not begin behind a minus, and one ``!`` is not two.
    """
    key, edges = "", {0}
    for part in text.split():
        folded = [keys(char) for char in part]
        inner = _joined(folded)
        for number, letters in enumerate(folded):
            if not letters:
                continue
            # Signs and scripts without spaces let a string begin or end anywhere.
            if not letters[0].isalnum() or unspaced(letters[0]):
                edges |= {
                    len(key) + len(letters) * after
                    for after in (0, 1)
                    if number + after not in inner
                }
            key += letters
        edges.add(len(key))
    whole = keys(text)
    # Combining marks fold over several characters; then only the ends are sure.
    return (key, frozenset(edges)) if key == whole else (whole, frozenset({0, len(whole)}))


def _joined(chars: Sequence[str]) -> set[int]:
    """Return the gaps before characters of a word, by their number, that are no edge of a string.

    Args:
        chars: The characters of a word, each by :func:`keys`; empty where it counts for nothing.
    """
    inner: set[int] = set()
    for number, char in enumerate(chars):
        before, after = chars[:number][-1:], chars[number + 1 :][:1]
        left, right = before[0] if before else "", after[0] if after else ""
        if char in _IN_NUMBERS and _digit(left) and _digit(right):
            inner |= {number, number + 1}
        elif char == "'" and _letter(left) and _letter(right):
            inner.add(number)
        elif _minus(chars, number) or (char in _REPEATED and right[:1] in _REPEATED):
            inner.add(number + 1)
    return inner


def _minus(chars: Sequence[str], number: int) -> bool:
    """Say whether a dash makes the number behind it negative; one at both ends is an ornament."""
    right = chars[number + 1] if number + 1 < len(chars) else ""
    return number == 0 and chars[0] == "-" and _digit(right) and chars[-1] != "-"


def _digit(char: str) -> bool:
    return char[:1].isdigit()


def _letter(char: str) -> bool:
    return char[:1].isalpha()


def unspaced(char: str) -> bool:
    """Say whether a letter is of a script that writes without spaces."""
    code = ord(char)
    return 0x2E80 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000


@dataclass(frozen=True, slots=True)
class Box:
    """One line that was read and where: left, top, right, bottom."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    vertical: bool = False
    #: Corners of a line that may be tilted, clockwise from where it begins; empty: it is upright.
    corners: tuple[tuple[float, float], ...] = ()
    #: Whether it was read surely enough to say that something is written there at all.
    sure: bool = True

    @property
    def tilt(self) -> float:
        """Angle of the line in radians, clockwise."""
        if not self.corners:
            return 0.0
        (left, top), (right, bottom) = self.corners[:2]
        return math.atan2(bottom - top, right - left)

    def turned(self, angle: float) -> Box:
        """Return the box in the picture turned back by an angle."""
        cos, sin = math.cos(angle), math.sin(angle)
        turned = [(x * cos + y * sin, y * cos - x * sin) for x, y in self.corners]
        across, down = zip(*turned, strict=True)
        left, top, right, bottom = min(across), min(down), max(across), max(down)
        return replace(self, left=left, top=top, right=right, bottom=bottom, corners=())

    @property
    def height(self) -> float:
        """Height of the letters."""
        return max(min(self.bottom - self.top, self.right - self.left)
                   if self.vertical else self.bottom - self.top, 1.0)  # fmt: skip

    def overlap(self, other: Box) -> float:
        """Return the shared area as a part of the smaller box."""
        area = min((b.right - b.left) * (b.bottom - b.top) for b in (self, other))
        return self.shared(other) / max(area, 1.0)

    def shared(self, other: Box) -> float:
        """Return the shared area in pixels."""
        w = min(self.right, other.right) - max(self.left, other.left)
        h = min(self.bottom, other.bottom) - max(self.top, other.top)
        return w * h if w > 0 and h > 0 else 0.0

    def same_row(self, other: Box) -> bool:
        """Say whether both stand beside one another, not one above or inside the other."""
        shared = min(self.bottom, other.bottom) - max(self.top, other.top)
        across = min(self.right, other.right) - max(self.left, other.left)
        return shared > 0.4 * min(
            self.bottom - self.top, other.bottom - other.top
        ) and across < 0.5 * min(self.right - self.left, other.right - other.left)

    def before(self, other: Box) -> bool:
        """Say whether a reader may come to ``other`` after this box."""
        if self.vertical and other.vertical:
            return True  # Columns run from the right in some languages and from the left in others.
        tilts = self.tilt, other.tilt
        if min(map(abs, tilts)) > TILTED and abs(tilts[0] - tilts[1]) < ALIGNED:
            angle = sum(tilts) / 2
            return self.turned(angle).before(other.turned(angle))
        if self.same_row(other):
            return (other.left + other.right) > (self.left + self.right)
        return (other.top + other.bottom) > (self.top + self.bottom)


#: A line in which nothing is looked for.
_NOTHING: tuple[str, frozenset[int]] = ("", frozenset())


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a box that holds part of a string: ``text[start:end]`` of the box's key."""

    box: int
    start: int
    end: int


def find(
    key: str, boxes: Sequence[Box], used: Sequence[Piece] = (), budget: int = 20_000
) -> tuple[Piece, ...] | None:
    """Find a string in boxes, exactly.

    Args:
        key: What is looked for, by :func:`keys`.
        boxes: What was read; several readings of one place are several boxes.
        used: Pieces that other strings already took.
        budget: Steps after which the search gives up.

    Returns:
        The pieces in order, or ``None``.
    """
    if not key:
        return ()
    read = [words(box.text) for box in boxes]
    found = _search(key, boxes, used, read, budget)
    if found is None and "ß" in key:
        capitals = [words(box.text) if box.text == box.text.upper() else _NOTHING for box in boxes]
        found = _search(key.replace("ß", "ss"), boxes, used, capitals, budget)
    if found is None:
        bare = [words(_without_marks(box.text, key)) for box in boxes]
        if bare != read:
            found = _search(key, boxes, used, bare, budget)
    return found


def _without_marks(text: str, key: str) -> str:
    """Leave out small marks that the string nowhere has: ornament, noise, a hyphenated break.

    Marks that the string does have stay, so one that is lost or moved still shows; and so do marks
    that are a part of a number or hold a word together.
    """
    return " ".join(_bare(part, key) for part in text.split())


def _bare(part: str, key: str) -> str:
    chars = [keys(char) for char in part]
    return "".join(
        " " if mark in _MARKS and mark not in key and not _holds(chars, number) else char
        for number, (char, mark) in enumerate(zip(part, chars, strict=True))
    )


def _holds(chars: Sequence[str], number: int) -> bool:
    """Say whether a mark of a word belongs to the number or the word around it."""
    left = chars[number - 1] if number else ""
    right = chars[number + 1] if number + 1 < len(chars) else ""
    numeral = chars[number] in _IN_NUMBERS and _digit(left) and _digit(right)
    joint = chars[number] in _IN_WORDS and _letter(left) and _letter(right)
    return numeral or joint or _minus(chars, number)


def _search(
    key: str,
    boxes: Sequence[Box],
    used: Sequence[Piece],
    read: Sequence[tuple[str, frozenset[int]]],
    budget: int,
) -> tuple[Piece, ...] | None:
    steps = [budget]

    def free(piece: Piece, taken: tuple[Piece, ...]) -> bool:
        mine = boxes[piece.box]
        for other in (*taken, *used):
            if other.box == piece.box:
                if piece.start < other.end and other.start < piece.end:
                    return False
            elif mine.overlap(boxes[other.box]) > 0.5:
                return False
        return True

    def follow(at: int, taken: tuple[Piece, ...]) -> tuple[Piece, ...] | None:
        for number, (text, edges) in enumerate(read):
            steps[0] -= 1
            if steps[0] < 0:
                return None
            if taken and not boxes[taken[-1].box].before(boxes[number]):
                continue
            for start in sorted(edges) if not taken else (0,):
                length = _common(text, start, key, at)
                if not length:
                    continue
                rest = len(key) - at
                if length == rest and start + length in edges:
                    piece = Piece(number, start, start + length)
                    if free(piece, taken):
                        return (*taken, piece)
                elif start + length == len(text) and length < rest:
                    piece = Piece(number, start, len(text))
                    if free(piece, taken):
                        found = follow(at + length, (*taken, piece))
                        if found:
                            return found
        return None

    return follow(0, ())


def _common(text: str, start: int, key: str, at: int) -> int:
    length = 0
    most = min(len(text) - start, len(key) - at)
    while length < most and text[start + length] == key[at + length]:
        length += 1
    return length


def doubled(key: str, intended: str, pieces: Sequence[Piece], boxes: Sequence[Box]) -> str | None:
    """Return the word that stands twice in a row around a found string, if one does."""
    parts = [keys(w) for w in intended.split()]
    parts = [p for p in parts if len(p) > 1] or [key]
    first, last = pieces[0], pieces[-1]
    before = keys(boxes[first.box].text)[: first.start]
    after = keys(boxes[last.box].text)[last.end :]
    if len(key) > 1 and (before.endswith(parts[0]) and key.startswith(parts[0])):
        return parts[0]
    if len(key) > 1 and (after.startswith(parts[-1]) and key.endswith(parts[-1])):
        return parts[-1]
    return None


@dataclass(frozen=True, slots=True)
class Alignment:
    """The stretch of the text read that is nearest to a string."""

    distance: int
    #: Stretch of the joined key: from, to.
    start: int
    end: int


def align(key: str, text: str, breaks: Sequence[int] = ()) -> Alignment:
    """Return the least edit distance of ``key`` to any stretch of ``text`` (Sellers 1980).

    Args:
        key: What is looked for.
        text: Where.
        breaks: Places in ``text`` where one line ends and the next begins; among equally near
            stretches the one across the fewest lines is taken.
    """
    if not text:
        return Alignment(len(key), 0, 0)
    columns = len(text) + 1
    cost = [0] * columns
    origin = list(range(columns))
    for i, char in enumerate(key, 1):
        diagonal, diagonal_origin = cost[0], origin[0]
        cost[0], origin[0] = i, 0
        for j in range(1, columns):
            swap = diagonal + (char != text[j - 1])
            best, source = swap, diagonal_origin
            if cost[j] + 1 < best:
                best, source = cost[j] + 1, origin[j]
            if cost[j - 1] + 1 < best:
                best, source = cost[j - 1] + 1, origin[j - 1]
            diagonal, diagonal_origin = cost[j], origin[j]
            cost[j], origin[j] = best, source

    def rank(j: int) -> tuple[int, int, int]:
        across = sum(origin[j] < b < j for b in breaks)
        return cost[j], across, abs(j - origin[j] - len(key))

    end = min(range(columns), key=rank)
    return Alignment(cost[end], origin[end], end)
