"""Lines that belong to a string that was found, and that nobody asked for.

Other lines may stand between those of a string: design sets small print and ornament there. A line
of the same letters, set in the same column without a gap, is read as a part of the string:
``We do / not / deliver`` does not say that they deliver.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tasks.checks.text_match import Box, Piece, keys

#: Heights of letters that count as one size, the smaller over the larger.
_SIZE = 0.75
#: Gap between two lines of one block, in heights of a line.
_GAP = 0.9
#: Share of the narrower line that stands above or below the other one.
_COLUMN = 0.5
#: Lines tilted by more than this, in radians, are not compared: their boxes say too little.
_TILT = 0.1


def intruder(
    pieces: Sequence[Piece],
    boxes: Sequence[Box],
    span: Sequence[int],
    others: Sequence[str] = (),
    last_word: str = "",
) -> int | None:
    """Return the line that says more than the string does, ``None`` without any.

    That is a line between two lines of the string, or its last word once more below it.

    Args:
        pieces: Where the string was found, in order.
        boxes: What was read.
        span: Indices of the boxes of one reading, in which the line is looked for.
        others: Keys of the other strings that were asked for.
        last_word: Key of the string's last word, where it has several.
    """
    own = list(dict.fromkeys(piece.box for piece in pieces))
    apart = [i for i in span if not any(boxes[i].overlap(boxes[p]) > 0.2 for p in own)]
    for above, below in pairwise(own):
        for i in apart:
            if (
                _follows(boxes[above], boxes[i])
                and _follows(boxes[i], boxes[below])
                and not _asked(keys(boxes[i].text), others)
            ):
                return i
    end = pieces[-1]
    if end.end < len(keys(boxes[end.box].text)) or not last_word:
        return None  # The line goes on after the string.
    for i in apart:
        if keys(boxes[i].text) == last_word and _follows(boxes[end.box], boxes[i]):
            return i
    return None


def _follows(one: Box, other: Box) -> bool:
    """Say whether a line is the next one of the same block."""
    if one.vertical or other.vertical or max(abs(one.tilt), abs(other.tilt)) > _TILT:
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


def _asked(key: str, strings: Sequence[str]) -> bool:
    """Say whether a line is a part of another string that was asked for, or holds one."""
    return sum(map(str.isalnum, key)) < 2 or any(key in s or s in key for s in strings)
