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
VERSION = "4"
#: Colours of a look; colours nearer than this (CIEDE2000) are one.
_COLOURS, _ONE_COLOUR = 8, 8.0
#: Cells a side in which a look keeps how much is drawn there, and how light it is.
_CELLS = 8
#: Numbers of a packed look; those of version 3 and before have no lightness.
_TABLE, _FIELD = 4 * _COLOURS, _CELLS * _CELLS
#: Lightness (standard deviation of L*) below which a picture is plain: its noise is no layout.
_PLAIN = 1.0
#: A campaign is held to what its other members keep: a picture must not move its colours farther
#: than twice as far as they do, but a share of the tolerance is always allowed, and its layout and
#: its light must not be less alike than theirs by more than these correlations.
_MOVED, _LOOSER, _OTHERWISE_LIT = 0.6, 0.5, 0.4
#: Members up to which the others' own median is taken without the picture that is held to it.
_FEW = 30
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
    #: L* of each cell, likewise; zeros for a plain picture.
    light: Floats

    def packed(self) -> str:
        """Return the look as hex digits, for a record."""
        count = len(self.shares)
        table = np.zeros((_COLOURS, 4), np.int16)
        table[:count, :3] = np.rint(self.colours * 100)
        table[:count, 3] = np.rint(self.shares * 10_000)
        fields = np.rint(np.clip([self.layout, self.light], -8, 8) * 1000).astype(np.int16)
        return np.concatenate([table.ravel(), fields.ravel()]).astype("<i2").tobytes().hex()


def unpacked(text: str) -> Look:
    """Return a look from its hex digits.

    Raises:
        ValueError: It is none.
    """
    numbers = np.frombuffer(bytes.fromhex(text), "<i2").astype(np.float64)
    if len(numbers) not in (_TABLE + _FIELD, _TABLE + 2 * _FIELD):
        raise ValueError(f"a look has {_TABLE + 2 * _FIELD} numbers; got {len(numbers)}")
    table = numbers[:_TABLE].reshape(_COLOURS, 4)
    there = table[:, 3] > 0
    layout, light = numbers[_TABLE:][:_FIELD] / 1000, numbers[_TABLE + _FIELD :] / 1000
    return Look(
        table[there, :3] / 100,
        table[there, 3] / 10_000,
        layout,
        light if light.size else np.zeros_like(layout),
    )


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
    return Look(
        np.array(colours),
        np.array(covered),
        layout=_cells(np.sqrt(edges), 0.05),
        light=_cells(lab(small)[..., 0], _PLAIN),
    )


def _cells(field: NDArray[np.floating], least: float) -> Floats:
    """Return the means of a field's cells, mean 0 and standard deviation 1; zeros if it is flat."""
    cells = cv2.resize(
        field.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA
    ).astype(np.float64)
    spread = float(cells.std())
    return ((cells - cells.mean()) / spread if spread > least else np.zeros_like(cells)).ravel()


def palette_distance(one: Look, two: Look) -> float:
    """Return how far the colours of two looks are apart, in CIEDE2000.

    The mean way from each colour to the nearest of the other look, by the shares, the worse of
    both directions: a colour that only one of them has counts by the room that it takes.
    """
    return float(_colour_tables([one, two])[0][0, 1])


def colour_shift(one: Look, two: Look) -> float:
    """Return how far the colours of one look must be moved to become the other's, in CIEDE2000.

    The earth mover's distance between the two distributions of colours (Y. Rubner, C. Tomasi and
    L. Guibas, International Journal of Computer Vision 40, 2000). Unlike :func:`palette_distance`
    it also tells which colour covers how much: a blue picture with a little red from a red one
    with a little blue.
    """
    return float(_colour_tables([one, two])[1][0, 1])


def layout_likeness(one: Look, two: Look) -> float:
    """Return the correlation of where something is drawn, -1 to 1; 1 for two empty pictures."""
    return _correlation(one.layout, two.layout)


def light_likeness(one: Look, two: Look) -> float:
    """Return the correlation of where they are light and dark, -1 to 1; 1 for two plain ones."""
    return _correlation(one.light, two.light)


def _correlation(one: Floats, two: Floats) -> float:
    if not one.any() or not two.any():
        return float(one.any() == two.any())
    return float(np.clip((one * two).mean(), -1, 1))


def campaign(
    items: Sequence[tuple[str, Look]], *, palette: float = 16.0, layout: float | None = 0.3
) -> dict[str, Finding]:
    """Find the pictures of a campaign that do not share its colours or its layout.

    Each picture is held against all others, and the median counts: one stranger accuses itself
    and not the others. A campaign without anything in common fails as a whole. What the others
    have in common is asked of them alone, so that a stranger does not widen his own limits.

    Args:
        items: Case id and look.
        palette: Farthest that the colours may be apart (:func:`palette_distance`), in CIEDE2000.
            Nor may they cover such other shares that they must be moved (:func:`colour_shift`)
            farther than 0.6 of this and than twice the others' own median.
        layout: Least correlation of the layouts, or the others' own median less 0.5 where that is
            more; what is light and dark may correlate less than the others' own by 0.4. ``None``
            where only colours must be shared.

    Returns:
        A finding a case; ``skip`` for a group that is too small. The score is the palette's.
    """
    if len(items) < LEAST_GROUP:
        return _too_few(CAMPAIGN, items)
    looks = [seen for _, seen in items]
    far, shift = _colour_tables(looks)
    like, lit = (_correlations(fields) for fields in zip(*map(_fields, looks), strict=True))
    apart, moved, alike, light = map(_from_others, (far, shift, like, lit))
    furthest = np.maximum(2 * _of_others(shift), _MOVED * palette)
    least, darkest = _of_others(like) - _LOOSER, _of_others(lit) - _OTHERWISE_LIT
    found = {}
    for n, (case, _) in enumerate(items):
        problems = []
        if apart[n] > palette:
            problems.append(f"other colours than the campaign (CIEDE2000 {apart[n]:.0f})")
        elif moved[n] > furthest[n]:
            problems.append(f"its colours cover other parts than the campaign's ({moved[n]:.0f})")
        if layout is not None and (alike[n] < max(layout, least[n]) or light[n] < darkest[n]):
            nearest = min(alike[n], light[n])
            problems.append(f"another layout than the campaign (likeness {nearest:.2f})")
        verdict: CheckVerdict = "fail" if problems else "pass"
        found[case] = _finding(CAMPAIGN, verdict, "; ".join(problems), float(apart[n]), palette)
    return found


def _fields(seen: Look) -> tuple[Floats, Floats]:
    return seen.layout, seen.light


def _from_others(table: Floats) -> Floats:
    """Return for each picture the median of its pairs with the others."""
    rows = [np.median(np.delete(row, number)) for number, row in enumerate(table)]
    return np.array(rows, np.float64)


def _of_others(table: Floats) -> Floats:
    """Return for each picture the median of the pairs that it is not in.

    In a large group that of all pairs: those of one picture hardly move it.
    """

    def median(pairs: Floats) -> float:
        return float(np.median(pairs[np.triu_indices(len(pairs), 1)]))

    count = len(table)
    if count > _FEW:
        return np.full(count, median(table))
    rest = [np.delete(np.delete(table, n, axis=0), n, axis=1) for n in range(count)]
    return np.array([median(pairs) for pairs in rest], np.float64)


def spread(looks: Sequence[Look]) -> float | None:
    """Return the median colour shift within a group of repeats; ``None`` for fewer than two."""
    if len(looks) < 2:
        return None
    return float(np.median(_colour_tables(looks)[1][np.triu_indices(len(looks), 1)]))


def tolerance_from(groups: Sequence[Sequence[Look]], share: float = 0.99) -> float | None:
    """Return the colour shift that a share of a baseline's repeats keep to their group.

    What production does with repeated prompts is the norm for the candidate. ``None`` when no
    group has three repeats.
    """
    seen = [
        float(moved)
        for group in groups
        if len(group) >= LEAST_GROUP
        for moved in _from_others(_colour_tables(group)[1])
    ]
    return float(np.quantile(seen, share)) if seen else None


def repeats(items: Sequence[tuple[str, Look]], tolerance: float | None) -> dict[str, Finding]:
    """Find the repeats of one prompt that stray from the others.

    Args:
        items: Case id (or any name of the repeat) and look.
        tolerance: Colour shift up to which they are one answer; see ``tolerance_from``.
            ``None`` when no norm is known.

    Returns:
        A finding a repeat; ``skip`` when there are too few to know which strays, or no norm.
    """
    if tolerance is None:
        why = "the baseline has no repeats to judge by"
        return {case: _finding(REPEAT, "skip", why) for case, _ in items}
    if len(items) < LEAST_GROUP:
        return _too_few(REPEAT, items)
    shift = _from_others(_colour_tables([seen for _, seen in items])[1])
    found = {}
    for (case, _), moved in zip(items, map(float, shift), strict=True):
        stray = moved > tolerance
        why = f"other colours than the other repeats (CIEDE2000 {moved:.0f})" if stray else ""
        found[case] = _finding(REPEAT, "fail" if stray else "pass", why, moved, tolerance)
    return found


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


def _colour_tables(looks: Sequence[Look]) -> tuple[Floats, Floats]:
    """Return :func:`palette_distance` and :func:`colour_shift` of every pair.

    Colours are compared row by row: 10 times as fast as pair by pair.
    """
    far, shift = (np.zeros((len(looks), len(looks))) for _ in range(2))
    shares = [(one.shares / one.shares.sum()).astype(np.float32)[:, None] for one in looks]
    for first, one in enumerate(looks[:-1]):
        rest = looks[first + 1 :]
        apart = ciede2000(one.colours[:, None, :], np.concatenate([two.colours for two in rest]))
        starts = np.cumsum([len(two.shares) for two in rest])[:-1]
        for second, costs in enumerate(np.split(apart, starts, axis=1), first + 1):
            forth = float(costs.min(axis=1) @ shares[first][:, 0])
            back = float(costs.min(axis=0) @ shares[second][:, 0])
            far[first, second] = far[second, first] = max(forth, back)
            shift[first, second] = shift[second, first] = _moved(
                shares[first], shares[second], costs
            )
    return far, shift


def _moved(one: NDArray[np.float32], two: NDArray[np.float32], costs: Floats) -> float:
    return float(cv2.EMD(one, two, cv2.DIST_USER, np.ascontiguousarray(costs, np.float32))[0])


def _correlations(fields: Sequence[Floats]) -> Floats:
    """Return :func:`_correlation` of every pair."""
    cells = np.array(fields)
    drawn = np.asarray(cells.any(axis=1))
    like = np.clip(cells @ cells.T / max(cells.shape[1], 1), -1, 1)
    both = drawn[:, None] & drawn[None, :]
    return np.asarray(np.where(both, like, drawn[:, None] == drawn[None, :]), np.float64)


def _too_few(check: str, items: Sequence[tuple[str, Look]]) -> dict[str, Finding]:
    return {case: _finding(check, "skip", "too few pictures to compare") for case, _ in items}


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
