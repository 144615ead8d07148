"""Bars that nobody asked for: letterboxing, a frame around the picture, a strip left undrawn.

A bar is told from a plain ground by what lies behind it: along its whole inner edge the picture
begins at once, and it is a picture and not another plain band. A thing on a white ground begins
in one place and widens; a flag or a stripe has another plain colour behind its edge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import MIN_SIDE
from tasks.checks.logo import brand_logo
from tasks.records import Finding, Region
from tasks.settings import DATASETS

#: Levels that a pixel of a bar may differ from its colour, and levels from which a pixel is no part
#: of it any more.
_SAME, _OTHER = 10, 24
#: Lines before the edge of a bar that JPEG and WebP may fill with ringing: a block of 16 of them
#: holds the edge. An edge itself is no wider than this many lines, and so many pixels of the last
#: line before it may ring by more than :data:`_OTHER`.
_RINGS, _EDGE, _STRAY = 18, 3, 0.35
#: Share of the pixels of a line that must be of one colour.
_WHOLE = 0.985
#: Bars are looked for in this share of the picture at each side.
_REACH = 0.45
#: About so many pixels of each line are looked at.
_SAMPLES = 256
_BLACK, _WHITE = 28, 236
_SIDES = ("top", "bottom", "left", "right")
#: Words of a request after which a border is no accident.
_ASKED = re.compile(
    r"\b(?:border|frame|framed|letterbox\w*|black bars|cinemascope|polaroid|pass?e-?partout|"
    r"postcard|stamp|film ?strip|photo ?booth|instant photo|comic|storyboard|contact sheet|matte|"
    r"margin|rahmen|rand|cadre|bordure|marco|borde|bordo|cornice)s?\b",
    re.IGNORECASE,
)


class Bar(NamedTuple):
    """A plain strip along one side."""

    #: Thickness in pixels, and as a share of the picture in that direction.
    depth: int
    share: float
    colour: tuple[int, int, int]
    #: Share of the line behind it that is another colour, at the weaker of two lines.
    filled: float
    #: Median spread of lines behind it, in levels: plain bands have none.
    varied: float
    #: Difference of its pixels from its colour that 1 of 200 exceeds, without lines that may ring.
    spread: int
    #: Share of the rest of the picture that has the colour right behind the bar, and share of its
    #: lines that show more than one colour: a plain page with something on it has both.
    ground: float
    busy: float


def bars(rgb: Pixels) -> dict[str, Bar]:
    """Return the plain strips along the sides, by side; sides without one are left out.

    Strips beyond :data:`_REACH` are no bars but a ground: nothing is returned for them.
    """
    height, width = rgb.shape[:2]
    rows, columns = max(1, width // _SAMPLES), max(1, height // _SAMPLES)
    down = rgb[:, ::rows]
    across = np.swapaxes(rgb[::columns], 0, 1)
    found = {
        "top": _bar(down),
        "bottom": _bar(down[::-1]),
        "left": _bar(across),
        "right": _bar(across[::-1]),
    }
    return {side: bar for side, bar in found.items() if bar is not None}


def _bar(lines: Pixels) -> Bar | None:
    """Return the plain strip that the first lines form; ``None`` when there is none."""
    length = lines.shape[0]
    least, reach = max(3, round(0.004 * length)), int(_REACH * length)
    # What lies at the ends of a line may be the bar of another side: the middle decides.
    inner = lines[:, lines.shape[1] // 16 : lines.shape[1] - lines.shape[1] // 16]
    colour = np.median(inner[0], axis=0).astype(np.int16)
    if not _whole(inner[:least], colour).all():
        return None  # As nearly all pictures: nothing more is looked at.
    whole = _whole(inner[: reach + 1], colour)
    depth = len(whole) if whole.all() else int(whole.argmin())
    if depth > reach:
        return None
    depth, filled = _edge(inner, depth, colour)
    # One line may be half bar, half picture; what counts begins behind it.
    rest = inner[depth + 1 : length - depth]
    near = max(4, length // 16)
    if len(rest) < 2 * near:
        return None
    spreads = rest[:: max(1, len(rest) // 128)].std(axis=1).max(axis=1)
    behind = np.median(rest[:near], axis=(0, 1)).astype(np.int16)
    like = np.abs(rest[::4].astype(np.int16) - behind).max(axis=2) <= 2 * _SAME
    own = np.abs(inner[: max(2, depth - _RINGS)].astype(np.int16) - colour)
    return Bar(
        depth=depth,
        share=depth / length,
        colour=_colour(colour),
        filled=filled,
        varied=float(np.median(rest[:near].std(axis=1).max(axis=1))),
        spread=int(np.quantile(own, 0.995)),
        ground=float(like.mean()),
        busy=float((spreads >= 10).mean()),
    )


def _edge(lines: Pixels, depth: int, colour: NDArray[np.int16]) -> tuple[int, float]:
    """Return where a bar ends, and the share of the lines behind it that is another colour.

    Where the lines stop to be of one colour the picture may begin, or the ringing of JPEG and WebP
    before it. So the edge is looked for in the lines that follow: it is where nearly nothing turns
    into nearly all within few lines. What only widens has no such place, and ends where it began.

    Args:
        lines: From the outer one inwards.
        depth: How many of them are of one colour without doubt.
        colour: The colour.
    """
    behind = 1 + max(1, len(lines) // 100)
    seen = lines[max(0, depth - 1) : depth + _RINGS + _EDGE + behind].astype(np.int16)
    other = (np.abs(seen - colour).max(axis=2) > _OTHER).mean(axis=1)
    first = depth - max(0, depth - 1)

    def filled(place: int) -> float:
        after = other[place : place + behind]
        return float(after.min()) if len(after) == behind else 0.0

    best = (filled(first + 1), depth)
    for place in range(first, min(first + _RINGS, len(other) - 1)):
        if place and other[place - 1] > _STRAY:
            break  # The picture has begun.
        for width in range(1, _EDGE + 1):
            best = max(best, (filled(place + width), place - first + depth))
    return best[1], best[0]


def _whole(lines: Pixels, colour: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Say of each line whether it is of one colour."""
    far = np.abs(lines.astype(np.int16) - colour).max(axis=2)
    return np.asarray((far <= _SAME).mean(axis=1) >= _WHOLE, dtype=np.bool_)


def _colour(values: NDArray[np.int16]) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])


@dataclass(frozen=True, slots=True)
class Borders:
    """No bars or frame around the picture, where a shape was asked for and no border was."""

    #: Thickest bar that is let pass, as a share of the side: less is a rounded edge.
    limit: float = 0.012
    #: Share of the line behind a bar that must be picture: for the clearer and the weaker of two
    #: opposite bars, for a frame of four, and for a bar that is alone.
    pair: float = 0.6
    weaker: float = 0.25
    frame: float = 0.9
    alone: float = 0.8
    #: Least thickness of a bar that is alone, and spread behind it that shows a picture.
    single: float = 0.02
    varied: float = 6.0
    #: The same behind a bar that is alone and of exactly one colour, and how much of the line
    #: behind such a bar must be picture.
    calm: float = 0.5
    whole: float = 0.95
    datasets: Path = DATASETS
    name: str = "geometry.borders"
    version: str = "2"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: thickness of the bars on the worse axis as a share of that side; 0 for none."""
        why = self._not_judged(picture, expected)
        if why:
            return Finding(
                check=self.name,
                version=self.version,
                verdict="skip",
                higher_is_better=False,
                message=why,
            )
        found = self.find(picture.rgb)
        score = max(
            sum(bar.share for side, bar in found.items() if side in axis)
            for axis in (("top", "bottom"), ("left", "right"))
        )
        good = score <= self.limit
        height, width = picture.rgb.shape[:2]
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            higher_is_better=False,
            message="" if good else _described(found),
            region=None if good else _inside(found, width, height),
        )

    def _not_judged(self, picture: Picture, expected: Expected) -> str:
        """Return why nothing can be said, or nothing."""
        if not (expected.width or expected.height or expected.aspect):
            return "no shape asked for"
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return "too small to judge"
        if expected.brand and brand_logo(expected.brand, self.datasets)[0].layout.border:
            return "borders belong to the brand's design"
        asked = _ASKED.search(expected.prompt or "")
        return f"the request speaks of {asked[0]!r}" if asked else ""

    def find(self, rgb: Pixels) -> dict[str, Bar]:
        """Return the bars that are no part of the picture, by side."""
        every = bars(rgb)
        seen = {s: b for s, b in every.items() if b.varied >= self.varied}
        framed = {s: b for s, b in seen.items() if b.filled >= self.frame}
        if len(framed) == 4 and _one_colour(framed.values()):
            return framed
        found: dict[str, Bar] = {}
        for one, two in (("top", "bottom"), ("left", "right")):
            pair = [every[s] for s in (one, two) if s in every and _neutral(every[s].colour)]
            if len(pair) == 2 and _one_colour(pair) and self._is_pair(*pair):
                found |= {one: every[one], two: every[two]}
        if found:
            return found
        return {side: bar for side, bar in every.items() if self._is_strip(bar)}

    def _is_strip(self, bar: Bar) -> bool:
        """Say whether a strip along one side alone was left undrawn.

        Behind it lies a picture; or a calm part of one, and then the strip must be of exactly one
        colour, which nothing beside it is: neither a flag nor a drawn page has that.
        """
        if bar.share < self.single or not _neutral(bar.colour):
            return False
        if bar.varied >= self.varied:
            return bar.filled >= self.alone and bar.spread <= 2
        calm = bar.varied >= self.calm and bar.busy >= 0.1
        return calm and bar.filled >= self.whole and bar.spread == 0

    def _is_pair(self, one: Bar, two: Bar) -> bool:
        """Say whether two opposite strips are as thick as each other and end as bars end."""
        thin, thick = sorted((one.depth, two.depth))
        low, high = sorted((one.filled, two.filled))
        if min(one.varied, two.varied) >= self.varied:
            return thin >= 0.6 * thick - 2 and high >= self.pair and low >= self.weaker
        # Behind the edge lies a plain colour. In a flag or between stripes nothing else is there,
        # or the colour is a stripe and not the ground: bars lie around a page with something on it.
        # What was painted over a picture is exactly one colour, or black or white.
        extreme = max(one.colour) <= 12 or min(one.colour) >= 250
        painted = extreme or max(one.spread, two.spread) <= 2
        page = min(one.ground, two.ground) >= 0.25 and min(one.busy, two.busy) >= 0.1
        even = thin >= 0.97 * thick - 2 and max(one.spread, two.spread) <= 6
        return painted and page and even and low >= self.frame


def _neutral(colour: tuple[int, int, int]) -> bool:
    """Say whether a colour is one that bars have: black, white or grey."""
    low, high = min(colour), max(colour)
    return high - low <= 8 or high <= _BLACK or low >= _WHITE


def _one_colour(found: Iterable[Bar]) -> bool:
    colours = np.array([bar.colour for bar in found])
    return bool((colours.max(axis=0) - colours.min(axis=0)).max() <= 2 * _SAME)


def _described(found: dict[str, Bar]) -> str:
    colour = next(iter(found.values())).colour
    grey = "#{:02X}{:02X}{:02X}".format(*colour)
    kind = "white" if min(colour) >= _WHITE else "black" if max(colour) <= _BLACK else grey
    sizes = ", ".join(f"{side} {bar.depth} px" for side, bar in found.items())
    what = "a frame around the picture" if len(found) == 4 else "bars beside the picture"
    return f"{what} that nobody asked for: {kind}, {sizes}"


def _inside(found: dict[str, Bar], width: int, height: int) -> Region:
    """Return the part of the picture between the bars."""
    depth = {side: found[side].depth if side in found else 0 for side in _SIDES}
    return Region(
        x=depth["left"],
        y=depth["top"],
        width=max(1, width - depth["left"] - depth["right"]),
        height=max(1, height - depth["top"] - depth["bottom"]),
    )
