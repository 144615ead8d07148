"""Strings that are not there: how badly, what stands in their place, and where.

The severity is one word that programs can read; the words after it are for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tasks.checks.base import Pixels
from tasks.checks.text_match import Box, keys
from tasks.records import Region

#: From the best to the worst. ``minor``: one or two characters; ``partial``: a part lacks;
#: ``wrong text``: something else stands there; ``boxes``: set with glyphs that the font lacks.
Severity = Literal[
    "exact", "minor", "doubled", "boxes", "partial", "garbled", "wrong text", "absent"
]
SEVERITIES: tuple[Severity, ...] = (
    "exact",
    "minor",
    "doubled",
    "boxes",
    "partial",
    "garbled",
    "wrong text",
    "absent",
)
#: One or two characters wrong.
MINOR = 2
#: With a larger share of the letters wrong, what is nearest is not the string at all.
OTHER = 0.6
#: A read stretch shorter than this share lacks a part.
PART = 0.7


@dataclass(frozen=True, slots=True)
class Miss:
    """A string that is not there, with the nearest thing that is."""

    text: str
    read: str
    distance: int
    severity: Severity
    #: For people: ``misspelt (letters swapped)``.
    kind: str
    boxes: tuple[Box, ...] = ()
    #: Numbers of the lines that the boxes stand for, and the corners of each.
    lines: tuple[int, ...] = ()
    quads: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    #: Letters of the first line before it, and of the last line after it.
    around: tuple[int, int] = (0, 0)
    #: Least mean probability of the lines read.
    score: float = 1.0
    #: Whether letters that nobody can read stand in the picture: the string may be there.
    unread: bool = False
    #: Two looks surely read the same wrong thing: looking again would not change it.
    settled: bool = False
    #: Whether a second reader finds the same; ``None``: it was not asked, or cannot say.
    confirmed: bool | None = None

    @property
    def right_share(self) -> float:
        """Share of the letters that are right, 0 to 1."""
        return max(0.0, 1 - self.distance / max(len(keys(self.text)), 1))


def near(key: str) -> int:
    """Return how many letters may be wrong for a line to count as the string meant."""
    return max(MINOR, len(key) // 4)


def named(key: str, read: str, distance: int) -> tuple[Severity, str]:
    """Return severity and kind of what happened to a string, from the letters in its place."""
    if not distance:
        return "absent", "there less often than it was asked for"
    if distance > OTHER * len(key):
        # A lone letter or two stand in every picture; they are no other text.
        return (
            "wrong text" if 2 * len(read) >= len(key) and len(read) > 1 else "absent"
        ), "missing"
    if distance > MINOR:
        partial = len(read) < PART * len(key)
        return ("partial", "incomplete") if partial else ("garbled", "garbled")
    if sorted(key) == sorted(read):
        return "minor", "misspelt (letters swapped)"
    more = len(read) - len(key)
    how = " (letters dropped)" if more < 0 else " (letters added)" if more > 0 else ""
    return "minor", f"misspelt{how}"


def told(misses: Sequence[Miss], most: int = 4) -> str:
    """Return the message: the worst severity first, then each string with what was read."""
    worst = max((miss.severity for miss in misses), key=SEVERITIES.index)
    parts = [
        f"{short(miss.text)} is {miss.kind}" + (f": read {short(miss.read)}" if miss.read else "")
        for miss in misses[:most]
    ]
    more = f"; and {len(misses) - most} more" if len(misses) > most else ""
    return f"{worst}: " + "; ".join(parts) + more


def short(text: str) -> str:
    """Return a text quoted on one line, cut at 80 characters."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 80 else flat[:79] + "…")


def agreed(misses: Sequence[Miss]) -> bool | None:
    """Return what the second reader says of a picture.

    One string that both find wrong is enough to fail it; it is disputed only when every string is.
    """
    said = {miss.confirmed for miss in misses}
    return True if True in said else None if None in said else False


def region(misses: Sequence[Miss], rgb: Pixels) -> Region | None:
    """Return the rectangle around everything that stands in place of the strings."""
    boxes = [box for miss in misses for box in miss.boxes]
    if not boxes:
        return None
    height, width = rgb.shape[:2]
    left = max(0, int(min(b.left for b in boxes)))
    top = max(0, int(min(b.top for b in boxes)))
    right = min(width, int(np.ceil(max(b.right for b in boxes))))
    bottom = min(height, int(np.ceil(max(b.bottom for b in boxes))))
    return Region(x=left, y=top, width=max(1, right - left), height=max(1, bottom - top))


def extra(lines: Sequence[Box], places: Sequence[Box]) -> tuple[Box, ...]:
    """Return the text that nobody asked for: lines apart from every place that is accounted for.

    A texture is read as a few unsure letters; such lines say nothing.

    Args:
        lines: Lines of one reading of the picture.
        places: Where strings were found, or something stands in their place.
    """
    return tuple(
        line
        for line in lines
        if line.sure
        and len(keys(line.text)) > 1
        and all(line.overlap(other) <= 0.5 for other in places)
    )


def written(places: Sequence[Box], rgb: Pixels) -> tuple[str, ...]:
    """Return each place as a note, ``x,y,width,height`` in pixels inside the picture."""
    height, width = rgb.shape[:2]
    found = []
    for box in places:
        left, top = min(max(0, int(box.left)), width - 1), min(max(0, int(box.top)), height - 1)
        right = min(width, max(left + 1, int(np.ceil(box.right))))
        bottom = min(height, max(top + 1, int(np.ceil(box.bottom))))
        found.append(f"{left},{top},{right - left},{bottom - top}")
    return tuple(found)
