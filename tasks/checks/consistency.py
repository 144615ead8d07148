"""Do the pictures of a group belong together: a prompt repeated, a campaign? Pure functions.

They work on looks (``look``), so that a group is judged without its pictures. Near-duplicates among
different prompts are in ``duplicates``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.check_rules import LEAST_GROUP
from tasks.checks.look import Look, colour_tables, correlations
from tasks.records import CheckVerdict, Finding

Floats = NDArray[np.float64]

CAMPAIGN, REPEAT, SEED = "consistency.campaign", "consistency.repeat", "consistency.seed"
VERSION = "4"
#: A campaign is held to what its other members keep: a picture must not move its colours farther
#: than twice as far as they do, but a share of the tolerance is always allowed, and its layout and
#: its light must not be less alike than theirs by more than these correlations.
_MOVED, _LOOSER, _OTHERWISE_LIT = 0.6, 0.5, 0.4
#: How much farther than the baseline's own repeats a repeat may stray, its palette and the shares
#: that this covers: a handful of them does not show how far they go, and shares vary more.
_SLACK = (1.25, 1.5)
#: Share of the norm's repeats that keep to it.
_SHARE = 0.99
#: Members up to which the others' own median is taken without the picture that is held to it.
_FEW = 30
#: Bits of 256 up to which two fingerprints are the very same picture, perhaps encoded anew: that
#: changes fewer than 20, and other pictures differ in about 128.
_SAME = 20


def campaign(
    items: Sequence[tuple[str, Look]], *, palette: float = 16.0, layout: float | None = 0.3
) -> dict[str, Finding]:
    """Find the pictures of a campaign that do not share its colours or its layout.

    Each picture is held against all others, and the median counts: one stranger accuses itself
    and not the others. A campaign without anything in common fails as a whole. What the others
    have in common is asked of them alone, so that a stranger does not widen its own limits.

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
    far, shift = colour_tables(looks)
    like, lit = (correlations(fields) for fields in zip(*map(_fields, looks), strict=True))
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
    return np.array([median(_without(table, n)) for n in range(count)], np.float64)


def _without(table: Floats, number: int) -> Floats:
    """Return the pairs that one picture is not in."""
    return np.delete(np.delete(table, number, axis=0), number, axis=1)


@dataclass(frozen=True, slots=True)
class Norm:
    """How far the colours of repeats may be apart, in CIEDE2000.

    Repeats that are drawn anew keep their palette better than the shares that it covers; those that
    are nearly one picture keep both, and there the shares tell more.
    """

    #: By :func:`palette_distance`.
    palette: float
    #: By :func:`colour_shift`; ``None`` where nobody knows.
    shift: float | None


def norm_of(groups: Sequence[Sequence[Look]], floor: float, share: float = _SHARE) -> Norm | None:
    """Return what repeats are held to that are to stray no farther than those of these groups.

    Args:
        groups: Repeats of one prompt each, of the baseline.
        floor: What is allowed in any case, in CIEDE2000.
        share: Share of these repeats by which the norm is taken.

    Returns:
        The norm with the slack that a handful of repeats needs; ``None`` when no group has three.
    """
    tables = [colour_tables(group) for group in groups if len(group) >= LEAST_GROUP]
    return _norm(tables, floor, share) if tables else None


def _norm(tables: Sequence[tuple[Floats, Floats]], floor: float, share: float) -> Norm:
    """Return the norm of groups by their :func:`colour_tables`."""
    palette, shift = (
        max(floor, slack * float(np.quantile(np.concatenate(kept), share)))
        for slack, kept in zip(
            _SLACK,
            ([_from_others(table) for table in kind] for kind in zip(*tables, strict=True)),
            strict=True,
        )
    )
    return Norm(palette, shift)


def repeats(items: Sequence[tuple[str, Look]], norm: Norm | None) -> dict[str, Finding]:
    """Find the repeats of one prompt that stray from the others.

    Args:
        items: Case id (or any name of the repeat) and look.
        norm: How far they may be apart; see :func:`norm_of`. ``None`` when no norm is known.

    Returns:
        A finding a repeat; ``skip`` when there are too few to know which strays, or no norm.
        The score is the palette's.
    """
    if norm is None:
        why = "the baseline has no repeats to judge by"
        return {case: _finding(REPEAT, "skip", why) for case, _ in items}
    if len(items) < LEAST_GROUP:
        return _too_few(REPEAT, items)
    far, shift = map(_from_others, colour_tables([seen for _, seen in items]))
    return {
        case: _strayed(float(far[n]), float(shift[n]), norm) for n, (case, _) in enumerate(items)
    }


def repeats_by_others(items: Sequence[tuple[str, Look]], floor: float) -> dict[str, Finding]:
    """Find the repeats that stray farther than the others of their own group do.

    For pictures without a baseline. As :func:`repeats`, with ``skip`` for fewer than four: three
    others are needed to say what is usual.
    """
    if len(items) <= LEAST_GROUP:
        return _too_few(REPEAT, items)
    far, shift = colour_tables([seen for _, seen in items])
    apart, moved = map(_from_others, (far, shift))
    return {
        case: _strayed(
            float(apart[n]),
            float(moved[n]),
            _norm([(_without(far, n), _without(shift, n))], floor, _SHARE),
        )
        for n, (case, _) in enumerate(items)
    }


def _strayed(apart: float, moved: float, norm: Norm) -> Finding:
    why = ""
    if apart > norm.palette:
        why = f"other colours than the other repeats (CIEDE2000 {apart:.0f})"
    elif norm.shift is not None and moved > norm.shift:
        why = f"its colours cover other parts than the other repeats' ({moved:.0f})"
    return _finding(REPEAT, "fail" if why else "pass", why, apart, norm.palette)


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
