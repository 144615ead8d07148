"""Lines that belong to a string that was found, and that nobody asked for.

Other lines may stand between those of a string: design sets small print and ornament there. A line
of the same size, set in the same column without a gap, is read as a part of the string:
``We do / not / deliver`` does not say that they deliver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, combinations, pairwise

from tasks.checks.text_match import Box, Piece, align, find, keys, unspaced

#: Heights of letters that count as one size, the smaller over the larger.
_SIZE = 0.75
#: Widths of one word that count as one size, the smaller over the larger.
_WIDTH = 0.8
#: Gap between two lines of one block, in heights of a line.
_GAP = 0.9
#: Share of the narrower line that stands above or below the other one.
_COLUMN = 0.5
#: Lines tilted by more than this, in radians, are not compared: their boxes say too little.
_TILT = 0.1
#: Nor are lines that rise or fall by more than this share of their height.
_RISE = 0.3
#: Share of the smaller box beyond which two boxes are one line, not two lines set close.
_SAME = 0.5
#: Room between two parts of a word that holds a letter, in heights of a line, and the share of it
#: that a line fills.
_ROOM, _FILLED = 0.4, 0.6
#: Letters and figures of a line that says something; fewer may be ornament.
_LEAST = 2
#: Signs that end a sentence or a part of one.
_MARKS = ".,:;!?'\"-·"

#: Left, top, right and bottom.
Rectangle = tuple[float, float, float, float]
#: Width of a word in a line by its number, of the last such word there or of the first.
Width = Callable[[int, str, bool], float | None]


def _unknown(line: int, word: str, last: bool) -> float | None:
    return None


def intruder(
    pieces: Sequence[Piece],
    boxes: Sequence[Box],
    span: Sequence[int],
    words: Sequence[str],
    others: Sequence[str] = (),
    width: Width = _unknown,
) -> int | None:
    """Return the line that says more than the string does, ``None`` without any.

    That is a line between two lines of the string, its first words once more above it, its last
    words once more below it, or anything between two parts of a word.

    Args:
        pieces: Where the string was found, in order.
        boxes: What was read.
        span: Indices of the boxes of one reading, in which the line is looked for.
        words: Keys of the string's words.
        others: Keys of the other strings that were asked for.
        width: Says how wide a word of a line is set, :meth:`tasks.checks.text_look.Look.width`.
    """
    inside = _in_a_word(pieces, boxes, words)
    if inside is not None:
        return inside
    own = list(dict.fromkeys(piece.box for piece in pieces))
    apart = [i for i in span if not any(boxes[i].overlap(boxes[p]) > _SAME for p in own)]
    for above, below in pairwise(own):
        for i in apart:
            if (
                _follows(boxes[above], boxes[i])
                and _follows(boxes[i], boxes[below])
                and not _asked(keys(boxes[i].text), others)
            ):
                return i
    for i in apart:
        if _again(i, pieces, boxes, words, width) and not _needed(i, pieces, boxes, others):
            alone = len(words) == 1 and _pattern(words[0], boxes[i], boxes[own[0]], boxes)
            return None if alone else i
    return None


def _in_a_word(pieces: Sequence[Piece], boxes: Sequence[Box], words: Sequence[str]) -> int | None:
    """Return a line of any reading that fills the room between two parts of one word.

    Small print and ornament stand between words; what stands inside of one is its letters.
    """
    key, ends = "".join(words), set(accumulate(map(len, words)))
    at = accumulate(piece.end - piece.start for piece in pieces)
    for (one, other), end in zip(pairwise(pieces), at, strict=False):
        room = _room(boxes[one.box], boxes[other.box])
        # Writing without spaces has no words, and a sign may end a part of one.
        if end in ends or room is None or not all(map(_joins, key[end - 1 : end + 1])):
            continue
        own = boxes[one.box], boxes[other.box]
        for number, line in enumerate(boxes):
            apart = max(line.overlap(box) for box in own) <= _SAME
            said = keys(line.text)
            if _fills(line, room) and any(map(str.isalnum, said)) and (apart or said not in key):
                return number
    return None


def _joins(char: str) -> bool:
    return char.isalnum() and not unspaced(char)


def _room(one: Box, other: Box) -> Rectangle | None:
    """Return the room between two boxes beside or above one another, if a letter fits in."""
    low = max(one.left, other.left), max(one.top, other.top)
    high = min(one.right, other.right), min(one.bottom, other.bottom)
    across, down = low[0] - high[0], low[1] - high[1]
    # Boxes reach a little beyond their letters: room for the narrowest letter.
    if max(across, down) < _ROOM * min(one.height, other.height) or min(across, down) > 0:
        return None
    left, right = sorted((low[0], high[0]))
    top, bottom = sorted((low[1], high[1]))
    return left, top, right, bottom


def _fills(line: Box, room: Rectangle) -> bool:
    left, top, right, bottom = room
    return Box("", left, top, right, bottom).shared(line) >= _FILLED * (right - left) * (
        bottom - top
    )


def repeats(line: Box, words: Sequence[str]) -> bool:
    """Say whether a line is one or more words of a string, in a row; words by ``keys``."""
    said, ends = _bare(keys(line.text)), range(len(words) + 1)
    return any(said == _bare("".join(words[a:b])) for a, b in combinations(ends, 2))


def _again(
    line: int, pieces: Sequence[Piece], boxes: Sequence[Box], words: Sequence[str], width: Width
) -> bool:
    """Say whether a line repeats the string's first words above it, or its last ones below it.

    A string of several words that is set again as a whole is another text, and no slip; where
    writing has no spaces nobody knows how many words it is.
    """
    said, first, last = _bare(keys(boxes[line].text)), pieces[0], pieces[-1]
    if sum(map(str.isalnum, said)) < _LEAST or any(map(unspaced, said)):
        return False
    some = range(1, max(len(words), 2))
    above = (
        first.start == 0  # Otherwise other words stand between.
        and said in {_bare("".join(words[:n])) for n in some}
        and _follows(boxes[line], boxes[first.box])
        and _one_size(width(line, said, False), width(first.box, said, False))
    )
    below = (
        last.end == len(keys(boxes[last.box].text))
        and said in {_bare("".join(words[-n:])) for n in some}
        and _follows(boxes[last.box], boxes[line])
        and _one_size(width(line, said, True), width(last.box, said, True))
    )
    return above or below


def _pattern(word: str, line: Box, own: Box, boxes: Sequence[Box]) -> bool:
    """Say whether a word that stands twice goes on: posters repeat their word, line after line.

    Copies that are paler or only outlined are read less surely than the rest.
    """
    slips = len(word) // 4
    return any(
        abs(len(said := keys(one.text)) - len(word)) <= slips
        and align(word, said).distance <= slips
        and any(_follows(one, other) or _follows(other, one) for other in (line, own))
        for one in boxes
        if max(one.overlap(line), one.overlap(own)) <= _SAME
    )


def _one_size(one: float | None, other: float | None) -> bool:
    """Say whether a word has one size in two lines; where it is not known, their boxes decide."""
    return not one or not other or min(one, other) >= _WIDTH * max(one, other)


def _bare(key: str) -> str:
    """Return a key without the marks at its ends, which readers lose."""
    return key.strip(_MARKS)


def _needed(
    line: int, pieces: Sequence[Piece], boxes: Sequence[Box], others: Sequence[str]
) -> bool:
    """Say whether a string that was asked for stands nowhere but in a line, or goes on in it."""
    said = keys(boxes[line].text)
    used = [*pieces, Piece(line, 0, len(said))]
    return any(said in other and find(other, boxes, used) is None for other in others)


def _follows(one: Box, other: Box) -> bool:
    """Say whether a line is the next one of the same block."""
    if not (_level(one) and _level(other)):
        return False
    small, large = sorted((one.height, other.height))
    across = min(one.right, other.right) - max(one.left, other.left)
    narrow = min(one.right - one.left, other.right - other.left)
    gap = other.top - one.bottom
    return (
        small >= _SIZE * large
        and across >= _COLUMN * narrow
        and -0.5 * small <= gap <= _GAP * small
        and other.top > one.top
    )


def _level(line: Box) -> bool:
    """Say whether a line is so level that its upright box says where it stands.

    How a short word is tilted is not surely known, and does not matter.
    """
    rise = abs(line.tilt) * (line.right - line.left)
    return not line.vertical and (abs(line.tilt) <= _TILT or rise <= _RISE * line.height)


def _asked(key: str, strings: Sequence[str]) -> bool:
    """Say whether a line is a part of another string that was asked for, or holds one."""
    return sum(map(str.isalnum, key)) < _LEAST or any(key in s or s in key for s in strings)
