"""The stretch of lines that is nearest to a string, where other lines may stand in between.

A string of two lines inside a frame has neighbours left and right that belong to something else;
read from the left to the right and down, they stand between its halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.checks.text_match import Box, words

#: What one wrong letter costs, one more line, and one line that is passed over: a line must give
#: more than one letter, or any picture with enough lines would hold most of any string.
_WRONG, _LINE, _SKIP = 10_000, 9_000, 1
#: Lines passed over that count.
_FAR = 20
#: Lines that are looked back for the one before; more stand in no picture's string.
_BACK = 60
#: Letters of a picture that are looked at.
_MOST = 4000

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The stretch of the lines of one reading that is nearest to a string."""

    distance: int
    #: Indices of the boxes that it touches, in order.
    touched: tuple[int, ...]
    #: Its letters, as :func:`tasks.checks.text_match.keys`.
    read: str
    #: Letters of the first line before it, and of the last line after it.
    around: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class _State:
    """For each number of letters of the string that are matched: the least cost, and whence."""

    cost: Ints
    #: Letters matched when this line was entered; -1: the string begins in it.
    entry: Ints
    #: Where in the line the string begins.
    start: Ints


def stretch(key: str, boxes: Sequence[Box], span: Sequence[int]) -> Stretch:
    """Return the stretch of some boxes that is nearest to a key, with its edit distance.

    Edit distance to any stretch of a text (Sellers 1980) that begins and ends where a word does:
    a letter too many at the end of a word is a letter too many. The text may go on in any line
    that a reader comes to later.

    Args:
        key: What is looked for, by :func:`keys`.
        boxes: What was read.
        span: Indices of the boxes of one reading, in reading order.
    """
    codes = np.array([ord(c) for c in key], dtype=np.int64)
    ends: list[_State] = []
    froms: list[Ints] = []
    texts: list[str] = []
    best: tuple[int, int, int] | None = None  # Cost, number of the line, letters read of it.
    room = _MOST
    for number, index in enumerate(span):
        text, edges = words(boxes[index].text)
        if len(text) > room:
            break
        room -= len(text)
        texts.append(text)
        state, before = _entered(len(key), number, index, boxes, span, ends)
        froms.append(before)
        for at, char in enumerate(text):
            state = _step(state, codes, ord(char), at, at + 1 in edges)
            cost = int(state.cost[-1])
            # Wrong letters are told better than letters that lack: of equal ends the last.
            if at + 1 in edges and (best is None or (cost, -number) <= (best[0], -best[1])):
                best = cost, number, at + 1
                found = state
        ends.append(state)
    if best is None:
        return Stretch(len(key), (), "")
    return _traced(best, found, ends, froms, texts, span, len(key))


def _entered(
    length: int,
    number: int,
    index: int,
    boxes: Sequence[Box],
    span: Sequence[int],
    ends: Sequence[_State],
) -> tuple[_State, Ints]:
    """Return the state in which a line is entered, and from which line for each count."""
    cost = np.arange(length + 1, dtype=np.int64) * _WRONG  # What lacks before the first letter.
    before = np.full(length + 1, -1, dtype=np.int64)
    for other in range(max(0, number - _BACK), number):
        if not boxes[span[other]].before(boxes[index]):
            continue
        through = ends[other].cost + _hop(other, number)
        # What begins here is no worse than a string of which nothing stands in the other line.
        better = through < cost
        better[0] = False
        cost = np.where(better, through, cost)
        before = np.where(better, other, before)
    entry = np.where(before >= 0, np.arange(length + 1), -1)
    return _State(cost, entry, np.zeros(length + 1, dtype=np.int64)), before


def _hop(before: int, number: int) -> int:
    """Return what it costs to go on in another line."""
    return _LINE + _SKIP * min(number - before - 1, _FAR)


def _step(state: _State, codes: Ints, char: int, at: int, edge: bool) -> _State:
    """Return the state after one more letter of the line; ``edge``: a word may begin after it."""
    size = len(codes) + 1
    places = np.arange(size)
    # The letter too many: what was matched before stays.
    cost = state.cost + _WRONG
    entry, start = state.entry.copy(), state.start.copy()
    if edge:
        cost[0], entry[0], start[0] = 0, -1, at + 1
    # The letter in its place, or a wrong one.
    shifted = state.cost[:-1] + np.where(codes == char, 0, _WRONG)
    better = shifted <= cost[1:]
    cost[1:] = np.where(better, shifted, cost[1:])
    entry[1:] = np.where(better, state.entry[:-1], entry[1:])
    start[1:] = np.where(better, state.start[:-1], start[1:])
    # Letters that lack: the least of all to the left plus one for each.
    level = cost - places * _WRONG
    least = np.minimum.accumulate(level)
    source = np.maximum.accumulate(np.where(level == least, places, 0))
    return _State(least + places * _WRONG, entry[source], start[source])


def _traced(
    best: tuple[int, int, int],
    state: _State,
    ends: Sequence[_State],
    froms: Sequence[Ints],
    texts: Sequence[str],
    span: Sequence[int],
    length: int,
) -> Stretch:
    cost, number, end = best
    matched, touched, parts = length, [], []
    after = len(texts[number]) - end
    while True:
        entry = int(state.entry[matched])
        start = 0 if entry >= 0 else int(state.start[matched])
        if end > start:
            touched.append(span[number])
            parts.append(texts[number][start:end])
        if entry < 0:
            break
        before = int(froms[number][entry])
        cost -= _hop(before, number)
        number = before
        state, matched, end = ends[number], entry, len(texts[number])
    return Stretch(
        cost // _WRONG, tuple(reversed(touched)), "".join(reversed(parts)), (start, after)
    )
