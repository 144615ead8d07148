"""Do the pictures of a group belong together: a prompt repeated, a campaign? Pure functions.

They work on looks, short summaries that are taken once from every picture (``look``), so that a
group is judged without its pictures. Near-duplicates among different prompts are in
``duplicates``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.check_rules import LEAST_GROUP
from tasks.checks.base import Pixels
from tasks.checks.blank import reduced
from tasks.checks.colour_space import ciede2000, colour_bins, lab
from tasks.checks.pairs import luma
from tasks.records import CheckVerdict, Finding

Floats = NDArray[np.float64]

CAMPAIGN, REPEAT, SEED = "consistency.campaign", "consistency.repeat", "consistency.seed"
VERSION = "3"
#: Colours of a look; colours nearer than this (CIEDE2000) are one.
_COLOURS, _ONE_COLOUR = 8, 8.0
#: Cells a side in which a look keeps how much is drawn there.
_CELLS = 8
#: A campaign that keeps close together is held to what it keeps itself: colours farther apart than
#: twice its own median, but no less than this share of the tolerance, and layouts less alike than
#: its own median by more than this correlation.
_NEARER, _LOOSER = 0.6, 0.5
#: Bits of 256 up to which two fingerprints are the very same picture, perhaps encoded anew: that
#: changes fewer than 20, and other pictures differ in about 128.
_SAME = 20


@dataclass(frozen=True, slots=True)
class Look:
    """The colours of a picture and where something is drawn in it."""

    #: Main colours as L*, a*, b*, and the share of the picture that each covers.
    colours: Floats
    shares: Floats
    #: Strength of the edges in each cell, mean 0 and standard deviation 1; row by row.
    layout: Floats

    def packed(self) -> str:
        """Return the look as hex digits, for a record."""
        count = len(self.shares)
        table = np.zeros((_COLOURS, 4), np.int16)
        table[:count, :3] = np.rint(self.colours * 100)
        table[:count, 3] = np.rint(self.shares * 10_000)
        cells = np.rint(np.clip(self.layout, -8, 8) * 1000).astype(np.int16)
        return np.concatenate([table.ravel(), cells]).astype("<i2").tobytes().hex()


def unpacked(text: str) -> Look:
    """Return a look from its hex digits.

    Raises:
        ValueError: It is none.
    """
    numbers = np.frombuffer(bytes.fromhex(text), "<i2").astype(np.float64)
    if len(numbers) != 4 * _COLOURS + _CELLS * _CELLS:
        raise ValueError(f"a look has {4 * _COLOURS + _CELLS * _CELLS} numbers; got {len(numbers)}")
    table = numbers[: 4 * _COLOURS].reshape(_COLOURS, 4)
    there = table[:, 3] > 0
    return Look(table[there, :3] / 100, table[there, 3] / 10_000, numbers[4 * _COLOURS :] / 1000)


def look(rgb: Pixels) -> Look:
    """Return the look of a picture; about 2 ms."""
    small = reduced(rgb, 128)
    bins, shares = colour_bins(small)
    values = lab(np.rint(bins).astype(np.uint8))
    colours: list[Floats] = []
    covered: list[float] = []
    left = shares.copy()
    while left.sum() > 0.02 and len(colours) < _COLOURS:
        most = int(left.argmax())
        near = (ciede2000(values, values[most]) <= _ONE_COLOUR) & (left > 0)
        weight = left[near]
        colours.append(np.asarray((values[near] * weight[:, None]).sum(axis=0) / weight.sum()))
        covered.append(float(weight.sum()))
        left[near] = 0
    field = luma(small)
    edges = cv2.magnitude(cv2.Sobel(field, cv2.CV_32F, 1, 0), cv2.Sobel(field, cv2.CV_32F, 0, 1))
    cells = cv2.resize(np.sqrt(edges), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    flat = cells.astype(np.float64).ravel()
    spread = float(flat.std())
    layout = (flat - flat.mean()) / spread if spread > 0.05 else np.zeros_like(flat)
    return Look(np.array(colours), np.array(covered), layout)


def palette_distance(one: Look, two: Look) -> float:
    """Return how far the colours of two looks are apart, in CIEDE2000.

    The mean way from each colour to the nearest of the other look, by the shares, the worse of
    both directions: a colour that only one of them has counts by the room that it takes.
    """
    apart = ciede2000(one.colours[:, None, :], two.colours[None, :, :])
    forth = float((apart.min(axis=1) * one.shares).sum() / one.shares.sum())
    back = float((apart.min(axis=0) * two.shares).sum() / two.shares.sum())
    return max(forth, back)


def layout_likeness(one: Look, two: Look) -> float:
    """Return the correlation of where something is drawn, -1 to 1; 1 for two empty pictures."""
    if not one.layout.any() or not two.layout.any():
        return float(one.layout.any() == two.layout.any())
    return float(np.clip((one.layout * two.layout).mean(), -1, 1))


def campaign(
    items: Sequence[tuple[str, Look]], *, palette: float = 16.0, layout: float | None = 0.3
) -> dict[str, Finding]:
    """Find the pictures of a campaign that do not share its colours or its layout.

    Each picture is held against all others, and the median counts: one stranger accuses itself
    and not the others. A campaign without anything in common fails as a whole.

    Args:
        items: Case id and look.
        palette: Farthest that the colours may be apart, in CIEDE2000. In a group that keeps
            closer together than half of it, twice the group's own median distance counts
            instead, but no less than 0.6 of this.
        layout: Least correlation of the layouts, or the group's own median less 0.5 where that is
            more; ``None`` where only colours must be shared.

    Returns:
        A finding a case; ``skip`` for a group that is too small. The score is the palette's.
    """
    far = _palettes([seen for _, seen in items])
    if len(items) >= LEAST_GROUP:
        pairs = np.triu_indices(len(items), 1)
        palette = min(palette, max(2 * float(np.median(far[pairs])), _NEARER * palette))
        if layout is not None:
            own = float(np.median(_layouts([seen for _, seen in items])[pairs]))
            layout = max(layout, own - _LOOSER)
    return _held_together(items, far, palette, layout)


def _held_together(
    items: Sequence[tuple[str, Look]], far: Floats, palette: float, layout: float | None
) -> dict[str, Finding]:
    """Hold each picture against all others by the median distance."""
    if len(items) < LEAST_GROUP:
        return {
            case: _finding(CAMPAIGN, "skip", "too few pictures to compare") for case, _ in items
        }
    like = _layouts([seen for _, seen in items])
    found = {}
    for number, (case, _) in enumerate(items):
        others = np.arange(len(items)) != number
        apart, alike = (float(np.median(table[number, others])) for table in (far, like))
        problems = []
        if apart > palette:
            problems.append(f"other colours than the campaign (CIEDE2000 {apart:.0f})")
        if layout is not None and alike < layout:
            problems.append(f"another layout than the campaign (likeness {alike:.2f})")
        verdict: CheckVerdict = "fail" if problems else "pass"
        found[case] = _finding(CAMPAIGN, verdict, "; ".join(problems), apart, palette)
    return found


def spread(looks: Sequence[Look]) -> float | None:
    """Return the median palette distance within a group of repeats; ``None`` for fewer than two."""
    if len(looks) < 2:
        return None
    far = _palettes(looks)
    return float(np.median(far[np.triu_indices(len(looks), 1)]))


def tolerance_from(groups: Sequence[Sequence[Look]], share: float = 0.99) -> float | None:
    """Return the palette distance that a share of a baseline's repeats keep to their group.

    What production does with repeated prompts is the norm for the candidate. ``None`` when no
    group has three repeats.
    """
    seen = [
        float(np.median(np.delete(row, number)))
        for group in groups
        if len(group) >= LEAST_GROUP
        for number, row in enumerate(_palettes(group))
    ]
    return float(np.quantile(seen, share)) if seen else None


def repeats(items: Sequence[tuple[str, Look]], tolerance: float | None) -> dict[str, Finding]:
    """Find the repeats of one prompt that stray from the others.

    Args:
        items: Case id (or any name of the repeat) and look.
        tolerance: Palette distance up to which they are one answer; see ``tolerance_from``.
            ``None`` when no norm is known.

    Returns:
        A finding a repeat; ``skip`` when there are too few to know which strays, or no norm.
    """
    if tolerance is None:
        why = "the baseline has no repeats to judge by"
        return {case: _finding(REPEAT, "skip", why) for case, _ in items}
    far = _palettes([seen for _, seen in items])
    found = _held_together(items, far, tolerance, None)
    return {
        case: finding.model_copy(
            update={
                "check": REPEAT,
                "message": finding.message.replace("the campaign", "the other repeats"),
            }
        )
        for case, finding in found.items()
    }


def seeds_ignored(fingerprints: Sequence[str | None]) -> Finding:
    """Say whether repeats of a prompt under different seeds are one and the same picture.

    A provider that ignores the seed gives one picture for all; two of many may meet by chance.

    Args:
        fingerprints: Of the repeats, each under another seed (see ``duplicates.fingerprint``).
    """
    marks = [mark for mark in fingerprints if mark]
    if len(marks) < LEAST_GROUP:
        return _finding(SEED, "skip", "too few repeats to judge")
    codes = np.array([np.frombuffer(bytes.fromhex(mark), np.uint64) for mark in marks])
    apart = np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2)
    farthest = float(apart.max())
    same = farthest <= _SAME
    message = f"{len(marks)} seeds give one picture" if same else ""
    return _finding(SEED, "fail" if same else "pass", message, farthest, float(_SAME), better=True)


def _palettes(looks: Sequence[Look]) -> Floats:
    """Return :func:`palette_distance` of every pair: row by row, 20 times as fast as one by one."""
    table = np.zeros((len(looks), len(looks)))
    if not looks:
        return table
    colours = np.concatenate([one.colours for one in looks])
    shares = np.concatenate([one.shares / one.shares.sum() for one in looks])
    starts = np.cumsum([0, *(len(one.shares) for one in looks[:-1])])
    for row, one in enumerate(looks):
        apart = ciede2000(one.colours[:, None, :], colours[None, :, :])
        own = one.shares / one.shares.sum()
        forth = own @ np.minimum.reduceat(apart, starts, axis=1)
        back = np.add.reduceat(apart.min(axis=0) * shares, starts)
        table[row] = np.maximum(forth, back)
    return (table + table.T) / 2


def _layouts(looks: Sequence[Look]) -> Floats:
    """Return :func:`layout_likeness` of every pair."""
    cells = np.array([one.layout for one in looks])
    drawn = np.asarray(cells.any(axis=1))
    like = np.clip(cells @ cells.T / max(cells.shape[1], 1), -1, 1)
    both = drawn[:, None] & drawn[None, :]
    return np.asarray(np.where(both, like, drawn[:, None] == drawn[None, :]), np.float64)


def _finding(
    check: str,
    verdict: CheckVerdict,
    message: str,
    score: float | None = None,
    limit: float | None = None,
    *,
    better: bool = False,
) -> Finding:
    return Finding(
        check=check,
        version=VERSION,
        verdict=verdict,
        score=None if score is None else round(score, 4),
        limit=None if limit is None else round(limit, 4),
        higher_is_better=better,
        message=message,
    )
