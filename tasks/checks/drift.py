"""Have the colours of a whole run drifted away from the baseline's?

One picture of another hue says nothing: another model draws another picture. Hundreds of pairs that
all move the same way do. Both arms draw the same cases, so the pairs cancel what the prompts want.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

#: What :func:`tasks.checks.colour_space.summary` returns: mean L*, a*, b* and mean chroma.
Colour = Sequence[float]
Pair = tuple[Colour, Colour]

#: Mean shift from which people see a series drift, in units of the colour difference (CIE76).
LIMIT = 3.0
#: Pairs below which nothing is said.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class Drift:
    """How the candidate's colours differ from the baseline's over the same cases.

    A ``fail`` is a warning for people and never blocks by itself: a new model may be meant to draw
    in another style, and a drift that breaks a brand is found by the brand's own checks.
    """

    #: ``skip``: too few pairs.
    verdict: str
    pairs: int
    #: Median difference (candidate minus baseline) of L*, a*, b* and chroma.
    shift: tuple[float, float, float, float]
    #: Length of the shift in L*, a*, b*.
    delta_e: float
    #: Two-sided p value of the median shift being within the limit, over all four together.
    p_value: float
    message: str


def drift(pairs: Iterable[Pair], *, limit: float = LIMIT, alpha: float = 0.01) -> Drift:
    """Test whether colours drifted by more than a practical limit.

    For each of the four numbers an exact sign test of the hypothesis that the median difference
    lies within ``-limit/2`` and ``limit/2``, at ``alpha`` over eight (four numbers, two sides:
    Bonferroni). It asks nothing of the distribution, and single wild pictures count as one sign.
    Half the limit, because a shift spreads over several numbers; the drift is reported only when
    the whole shift also reaches the limit.

    Args:
        pairs: Baseline and candidate of the same case; a pair with an empty or a broken summary
            is left out.
        limit: Shift (CIE76 or chroma) below which nothing is reported.
        alpha: Chance of a report when the medians are within the limits.

    Returns:
        ``fail`` with the direction in words, ``pass``, or ``skip`` with fewer than
        :data:`FEWEST` usable pairs.

    Raises:
        ValueError: ``limit`` is negative, or ``alpha`` is not between 0 and 1.
    """
    if not limit >= 0:
        raise ValueError(f"limit: a colour difference of 0 or more; got {limit}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: between 0 and 1; got {alpha}")
    found = [
        np.subtract(candidate, baseline)
        for baseline, candidate in pairs
        if len(baseline) == 4 and len(candidate) == 4
    ]
    moves = np.array(found, dtype=np.float64).reshape(-1, 4)
    moves = moves[np.isfinite(moves).all(axis=1)]
    count = len(moves)
    if count < FEWEST:
        return Drift(
            "skip", count, (0.0, 0.0, 0.0, 0.0), 0.0, 1.0,
            f"{count} pairs with colours, {FEWEST} are needed",
        )  # fmt: skip
    middle = np.median(moves, axis=0)
    delta_e = float(np.linalg.norm(middle[:3]))
    p_values = np.array([_p_beyond(moves[:, k], limit / 2) for k in range(4)])
    p_value = float(min(1.0, p_values.min() * 8))
    far = max(delta_e, abs(float(middle[3]))) >= limit
    bad = far and p_value <= alpha
    shift = tuple(round(float(value), 3) for value in middle)
    return Drift(
        verdict="fail" if bad else "pass",
        pairs=count,
        shift=(shift[0], shift[1], shift[2], shift[3]),
        delta_e=round(delta_e, 3),
        p_value=p_value,
        message=_words(middle, count) if bad else "",
    )


def _p_beyond(moves: np.ndarray[tuple[int, ...], np.dtype[np.float64]], edge: float) -> float:
    """Return the one-sided p value of the median beyond ``edge`` on the side that it leans to.

    Sign test: were the median at the edge, no more than half would lie beyond it.
    """
    from scipy.special import bdtrc

    beyond = max(int((moves > edge).sum()), int((moves < -edge).sum()))
    return float(bdtrc(beyond - 1, len(moves), 0.5)) if beyond else 1.0


def _words(middle: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int) -> str:
    """Say where the colours went, the largest part first."""
    words = (
        ("darker", "lighter"),
        ("greener", "redder"),
        ("bluer", "yellower"),
        ("paler", "more colourful"),
    )
    parts = [
        f"{words[k][int(middle[k] > 0)]} by {abs(float(middle[k])):.1f}"
        for k in np.argsort(-np.abs(middle))
        if abs(float(middle[k])) >= 1
    ]
    return f"against the baseline the pictures of {count} pairs are {', '.join(parts)}"
