"""Defects of the text.

In our own drawings the text is set again with the defect, as a model would draw it. A real
picture cannot be drawn again: there the expectation is changed, so that the picture lacks, doubles
or swaps what is now expected of it. For the check the two are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.checks.text_match import align, keys
from tasks.providers.embedded import fonts
from tasks.providers.embedded.draws import drops, letters, look, swaps

CHECK = "typography.text"
#: Changes the strings, with this many places to change; ``None`` where it cannot be done.
Change = Callable[[list[str], float, np.random.Generator], list[str] | None]


def swapped(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Exchange neighbouring letters."""
    for _ in range(_count(lines, strength)):
        able = [i for i, line in enumerate(lines) if swaps(line)]
        if not able:
            return None
        number = choice(able, rng)
        parts = letters(lines[number])
        at = choice(swaps(lines[number]), rng)
        parts[at], parts[at + 1] = parts[at + 1], parts[at]
        lines[number] = "".join(parts)
    return lines


def dropped(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Leave letters out."""
    for _ in range(_count(lines, strength)):
        able = [i for i, line in enumerate(lines) if drops(line)]
        if not able:
            return None
        number = choice(able, rng)
        parts = letters(lines[number])
        del parts[choice(drops(lines[number]), rng)]
        lines[number] = "".join(parts)
    return lines


def added(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Double letters or put one of the others in between."""
    for _ in range(_count(lines, strength)):
        able = [i for i, line in enumerate(lines) if drops(line)]
        if not able:
            return None
        number = choice(able, rng)
        parts = letters(lines[number])
        at = choice(drops(lines[number]), rng)
        parts.insert(at, choice([part for part in parts if part[0].isalnum()], rng))
        lines[number] = "".join(parts)
    return lines


def garbled(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Put other letters of the same text in the place of a share of the letters."""
    for number, line in enumerate(lines):
        parts = letters(line)
        places = [i for i, part in enumerate(parts) if part[0].isalnum()]
        stock = [part for part in parts if part[0].isalnum()]
        if len({look(part) for part in stock}) < 2:
            continue
        for at in rng.choice(places, max(1, round(strength * len(places))), replace=False):
            others = [part for part in stock if look(part) != look(parts[at])]
            if others:
                parts[at] = choice(others, rng)
        lines[number] = "".join(parts)
    return lines


def doubled(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Set words twice in a row."""
    for _ in range(max(1, round(strength * sum(len(line.split()) for line in lines)))):
        number = int(rng.integers(len(lines)))
        parts = lines[number].split(" ")
        # Writing without spaces has no words: 小小 can be right.
        able = [i for i, word in enumerate(parts) if len(keys(word)) > 2 and word.isascii()]
        if not able:
            return None
        at = choice(able, rng)
        lines[number] = " ".join([*parts[: at + 1], *parts[at:]])
    return lines


def wordless(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Leave whole words out; all of them at full strength."""
    words = [
        (n, i) for n, line in enumerate(lines) for i, w in enumerate(line.split(" ")) if keys(w)
    ]
    count = max(1, round(strength * len(words)))
    gone = {words[i] for i in rng.choice(len(words), count, replace=False)}
    kept = [
        " ".join(w for i, w in enumerate(line.split(" ")) if (n, i) not in gone)
        for n, line in enumerate(lines)
    ]
    return [line for line in kept if line]


def glyphless(lines: list[str], strength: float, rng: np.random.Generator) -> list[str] | None:
    """Put the boxes of a font that lacks letters in their place."""
    where = [
        (n, i)
        for n, line in enumerate(lines)
        for i, p in enumerate(letters(line))
        if p[0].isalnum()
    ]
    count = max(1, round(strength * len(where)))
    gone = {where[i] for i in rng.choice(len(where), count, replace=False)}
    return [
        "".join(fonts.BOX if (n, i) in gone else p for i, p in enumerate(letters(line)))
        for n, line in enumerate(lines)
    ]


def _count(lines: Sequence[str], strength: float) -> int:
    """Return how many places a strength means: a share of the letters, at least one."""
    return max(1, round(strength * sum(len(keys(line)) for line in lines)))


def _shows(before: Sequence[str], after: Sequence[str]) -> bool:
    """Say whether a reader who knows ``before`` can tell: one string stands nowhere in ``after``.

    A line of the other text may hold the string whole (``art`` in ``artt``): no defect to find.
    """
    rest = keys(" ".join(after))
    return any(align(keys(text), rest).distance > 0 for text in before)


def _planted(change: Change, *, drawn_only: bool = False) -> Callable[..., Planted | None]:
    def plant(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
        strings = good.expected.intended_text
        if not any(keys(text) for text in strings):
            return None
        changed = change(list(strings), strength, rng)
        if changed is None:
            return None
        if good.job is not None:
            if change is not doubled and not _shows(strings, changed):
                return None
            return good.redrawn(text=tuple(changed))
        if drawn_only or not _shows(changed, strings):
            return None
        return good.sent(good.data, intended_text=tuple(changed))

    return plant


_CURVE = (0.02, 0.1, 0.2, 0.4, 0.8)
#: One place in a text of 25 letters and fewer: the weakest there is.
_ONE = 0.02

DEFECTS = (
    Defect("letters swapped", CHECK, _ONE, _planted(swapped), "share of the letters", _CURVE),
    Defect("letters dropped", CHECK, _ONE, _planted(dropped), "share of the letters", _CURVE),
    Defect("letters added", CHECK, _ONE, _planted(added), "share of the letters", _CURVE),
    Defect("letters garbled", CHECK, 0.2, _planted(garbled), "share of the letters", _CURVE),
    Defect(
        "word doubled",
        CHECK,
        _ONE,
        _planted(doubled, drawn_only=True),
        "share of the words",
        _CURVE,
    ),
    Defect(
        "words missing",
        CHECK,
        _ONE,
        _planted(wordless, drawn_only=True),
        "share of the words",
        _CURVE,
    ),
    Defect(
        "missing glyphs",
        CHECK,
        _ONE,
        _planted(glyphless, drawn_only=True),
        "share of the letters",
        _CURVE,
    ),
)
