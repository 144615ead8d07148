"""Where a text that was read departs from the one that was asked for, letter by letter.

A letter here is what a reader sees as one: a base with its marks, a syllable of an Indic script, a
flag. What the text check counts as the same (capitals, spaces, kinds of quotes) is never marked.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

from tasks.checks.text_match import keys
from tasks.evidence.text import visible

#: Characters of one expected or read text that are compared; a longer one is cut.
LONGEST_COMPARED = 240
#: Lines of a picture's text that are looked at for one expected text.
_MOST_LINES = 40
#: With a larger share of the letters wrong, single marks tell nobody anything.
_ANOTHER_TEXT = 0.6
#: Cost of one change; each letter left beside costs 1, so that among equal ways the one that
#: leaves the least beside is taken.
_CHANGE = 10 * LONGEST_COMPARED

#: ``=`` the same, ``-`` missing, ``+`` added, ``~`` read as something else, ``x`` two neighbours
#: swapped, ``.`` text that stands beside it and is none of its business.
Kind = Literal["=", "-", "+", "~", "x", "."]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of both texts, either of which may be empty; every character in it is visible."""

    kind: Kind
    expected: str
    read: str

    def plain(self) -> list[str]:
        """Return it as a short list for JSON: kind, expected and, where it differs, read."""
        if self.kind == "=" and self.expected == self.read:
            return [self.kind, self.expected]
        return [self.kind, self.expected, self.read]


def clusters(text: str) -> list[str]:
    """Return the text in pieces that a reader sees as one character each.

    Source: Unicode Standard Annex 29, extended grapheme clusters, in short: marks, joiners,
    variation selectors, conjuncts (GB9c, and the stacks of Burmese and Khmer), skin tones, flags,
    and conjoining Hangul. Joining one time too often costs nothing here; tearing a letter does.
    """
    found: list[str] = []
    for char in text:
        if found and _joins(found[-1], char):
            found[-1] += char
        else:
            found.append(char)
    return found


def _joins(cluster: str, char: str) -> bool:
    last, kind = cluster[-1], unicodedata.category(char)
    if kind in {"Mn", "Mc", "Me"} or char in "\u200c\u200d\u0e33\u0eb3":
        return True
    if "\U0001f3fb" <= char <= "\U0001f3ff" or "\U000e0020" <= char <= "\U000e007f":
        return True
    if "\U0001f1e6" <= char <= "\U0001f1ff":
        return len(cluster) % 2 == 1 and "\U0001f1e6" <= last <= "\U0001f1ff"
    if last == "\u200d" and kind in {"So", "Sk", "Sm", "Po"}:
        return True
    return _syllable(last, char) or _stacks(cluster, kind)


def _syllable(last: str, char: str) -> bool:
    """Say whether both are parts of one Hangul syllable."""
    if "\u1100" <= last <= "\u115f":
        return "\u1100" <= char <= "\u11ff" or "\uac00" <= char <= "\ud7a3"
    whole = "\u1160" <= last <= "\u11ff" or "\uac00" <= last <= "\ud7a3"
    return whole and "\u1160" <= char <= "\u11ff"


def _stacks(cluster: str, kind: str) -> bool:
    """Say whether a letter after this cluster becomes one shape with it."""
    if kind != "Lo":
        return False
    for char in reversed(cluster):
        extends = char in "\u200c\u200d" or "\U0001f3fb" <= char <= "\U0001f3ff"
        if not extends and not unicodedata.category(char).startswith("M"):
            return False
        if unicodedata.combining(char) == 9 and (
            "\u0900" <= char <= "\u0dff" or char in "\u1039\u17d2"
        ):
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Letter:
    #: Spaces and characters without a shape before it, made visible.
    lead: str
    shown: str
    key: str
    #: Whether a text may begin here.
    edge: bool


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())[:LONGEST_COMPARED]


def _letters(text: str, *, capitals: bool = False) -> tuple[list[_Letter], str]:
    """Return the letters of a text, and what stands after the last one.

    Args:
        text: The text.
        capitals: Whether it is held against one in capitals, which write ß as SS.
    """
    found: list[_Letter] = []
    lead, before = "", ""
    for cluster in clusters(_folded(text)):
        key = keys(cluster).replace("ß", "ss") if capitals else keys(cluster)
        if not key:
            lead += visible(cluster)
            continue
        edge = bool(lead) or not before or not (_bound(before[-1]) and _bound(key[0]))
        found.append(_Letter(lead, visible(cluster), key, edge))
        lead, before = "", key
    return found, lead


def _bound(char: str) -> bool:
    """Say whether a character belongs to a word that is set apart by spaces."""
    return char.isalnum() and not _unspaced(char)


def _unspaced(char: str) -> bool:
    return "\u2e80" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


def closest(expected: str, lines: Sequence[str]) -> str | None:
    """Return the read text that comes closest to the expected one: some lines in a row.

    Returns:
        The lines joined by spaces, or ``None`` when nothing read resembles it.
    """
    wanted = _folded(expected).casefold()
    read = [line for line in (_folded(line) for line in lines[:_MOST_LINES]) if line]
    if not wanted or not read:
        return None
    most = min(len(read), expected.count("\n") + 3)
    best, best_ratio = None, 0.3
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(wanted)
    for length in range(1, most + 1):
        for start in range(len(read) - length + 1):
            candidate = " ".join(read[start : start + length])[:LONGEST_COMPARED]
            matcher.set_seq1(candidate.casefold())
            # Both bounds are cheap, and rule out most lines before the costly comparison.
            if matcher.real_quick_ratio() <= best_ratio or matcher.quick_ratio() <= best_ratio:
                continue
            ratio = matcher.ratio()
            if ratio > best_ratio:
                best, best_ratio = candidate, ratio
    return best


def compare(expected: str, read: str) -> list[Piece]:
    """Return how the read text departs from the expected one.

    The joined expected parts are the expected text, the joined read parts the read one (without
    line breaks, cut at :data:`LONGEST_COMPARED`).
    """
    left, left_rest = _letters(expected, capitals=read == read.upper())
    right, right_rest = _letters(read)
    steps, start, end, distance = _align(left, right)
    before, after = right[:start], right[end:]
    pieces: list[Piece] = []
    if before:
        cut = _repeats(left, before, at_end=True)
        pieces.append(Piece(".", "", _text(before[:cut])))
        pieces.append(Piece("+", "", _text(before[cut:])))
    found = right[start:end]
    if distance > max(2.0, _ANOTHER_TEXT * len(left)):
        pieces.append(Piece("~" if found else "-", _text(left), _text(found)))
    else:
        pieces += _told(steps)
    if after:
        cut = _repeats(left, after, at_end=False)
        pieces.append(Piece("+", "", _text(after[:cut])))
        pieces.append(Piece(".", "", _text(after[cut:])))
    if left_rest or right_rest:
        pieces.append(Piece("=", left_rest, right_rest))
    return [piece for piece in pieces if piece.expected or piece.read]


def differs(pieces: Sequence[Piece]) -> bool:
    """Say whether anything is marked."""
    return any(piece.kind not in "=." for piece in pieces)


def _text(letters: Sequence[_Letter]) -> str:
    return "".join(letter.lead + letter.shown for letter in letters)


def _key(letters: Sequence[_Letter]) -> str:
    return "".join(letter.key for letter in letters)


def _repeats(left: Sequence[_Letter], beside: Sequence[_Letter], *, at_end: bool) -> int:
    """Return where the text beside another is cut, so that its near part says a word twice."""
    starts = [i for i, letter in enumerate(left) if i == 0 or letter.edge]
    if at_end:
        word = _key(left[: starts[1] if len(starts) > 1 else len(left)])
        cuts = (cut for cut in range(len(beside)) if _key(beside[cut:]) == word)
        return next(cuts, len(beside))
    word = _key(left[starts[-1] :]) if starts else ""
    cuts = (cut for cut in range(1, len(beside) + 1) if _key(beside[:cut]) == word)
    return next(cuts, 0)


_Step = tuple[Kind, list[_Letter], list[_Letter]]


def _align(left: Sequence[_Letter], right: Sequence[_Letter]) -> tuple[list[_Step], int, int, int]:
    """Return the cheapest way from one text to a stretch of the other, word by word.

    Optimal string alignment (Damerau 1964: a letter changed, dropped, added, or swapped with its
    neighbour costs one), with free ends where words of the read text begin and end (Sellers 1980).

    Returns:
        The steps, the stretch of ``right`` as from and to, and the distance.
    """
    rows, columns = len(left), len(right)
    cost = [[0] * (columns + 1) for _ in range(rows + 1)]
    for j in range(1, columns + 1):
        free = j < columns and right[j].edge
        cost[0][j] = j if free else cost[0][j - 1] + _CHANGE
    for i in range(1, rows + 1):
        row, above, key = cost[i], cost[i - 1], left[i - 1].key
        row[0] = i * _CHANGE
        for j in range(1, columns + 1):
            same = key == right[j - 1].key
            best = above[j - 1] if same else above[j - 1] + _CHANGE
            best = min(best, above[j] + _CHANGE, row[j - 1] + _CHANGE)
            if not same:
                if _swap(left, right, i, j):
                    best = min(best, cost[i - 2][j - 2] + _CHANGE)
                for di, dj in _written_out(left, right, i, j):
                    best = min(best, cost[i - di][j - dj])
            row[j] = best
    ends = [j for j in range(columns + 1) if j in {0, columns} or right[j].edge]
    end = min(ends, key=lambda j: cost[rows][j] + columns - j)
    steps: list[_Step] = []
    i, j = rows, end
    while i or cost[0][j] >= _CHANGE:
        kind, di, dj = _last(cost, left, right, i, j)
        steps.append((kind, list(left[i - di : i]), list(right[j - dj : j])))
        i, j = i - di, j - dj
    return steps[::-1], j, end, cost[rows][end] // _CHANGE


def _last(
    cost: Sequence[Sequence[int]],
    left: Sequence[_Letter],
    right: Sequence[_Letter],
    i: int,
    j: int,
) -> tuple[Kind, int, int]:
    """Return the last step of the cheapest way to a cell: its kind and how far back it starts."""
    here = cost[i][j]
    if i and j:
        if left[i - 1].key == right[j - 1].key:
            if here == cost[i - 1][j - 1]:
                return "=", 1, 1
        else:
            for di, dj in _written_out(left, right, i, j):
                if here == cost[i - di][j - dj]:
                    return "=", di, dj
            if _swap(left, right, i, j) and here == cost[i - 2][j - 2] + _CHANGE:
                return "x", 2, 2
            if here == cost[i - 1][j - 1] + _CHANGE:
                return "~", 1, 1
    if i and here == cost[i - 1][j] + _CHANGE:
        return "-", 1, 0
    return "+", 0, 1


def _written_out(
    left: Sequence[_Letter], right: Sequence[_Letter], i: int, j: int
) -> Iterator[tuple[int, int]]:
    """Yield how one letter can stand for several: an ellipsis for three stops, ß for ss."""
    width = len(left[i - 1].key)
    if 1 < width <= j and _key(right[j - width : j]) == left[i - 1].key:
        yield 1, width
    width = len(right[j - 1].key)
    if 1 < width <= i and _key(left[i - width : i]) == right[j - 1].key:
        yield width, 1


def _swap(left: Sequence[_Letter], right: Sequence[_Letter], i: int, j: int) -> bool:
    return (
        i > 1
        and j > 1
        and left[i - 1].key == right[j - 2].key != left[i - 2].key == right[j - 1].key
    )


def _told(steps: Sequence[_Step]) -> Iterator[Piece]:
    """Yield the steps as pieces: neighbours of one kind together, a run of changes as one."""
    for kind, run in groupby(steps, key=lambda step: step[0] if step[0] in "=x" else "~"):
        group = list(run)
        left = [letter for _, letters, _ in group for letter in letters]
        right = [letter for _, _, letters in group for letter in letters]
        if kind == "=":
            yield Piece("=", _text(left), _text(right))
            continue
        lead = Piece("=", left[0].lead if left else "", right[0].lead if right else "")
        if lead.expected or lead.read:
            yield lead
        e = _text(left).removeprefix(lead.expected)
        r = _text(right).removeprefix(lead.read)
        if kind == "x":
            yield Piece("x", e, r)
        elif not right:
            yield Piece("-", e, "")
        elif not left:
            yield Piece("+", "", r)
        else:
            yield Piece("~", e, r)
