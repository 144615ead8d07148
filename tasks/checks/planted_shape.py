"""Borders that nobody asked for: letterboxing, pillars, a frame, a part left undrawn."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tasks.checks.base import Pixels
from tasks.checks.planted_base import Defect, Good, Planted, choice, encoded

BORDERS = "geometry.borders"
_CURVE = (0.15, 0.3, 0.6, 1.0)
#: Black, white, and greys near them: what a canvas is filled with.
_FILLS = (0, 0, 0, 255, 255, 16, 240)
#: Levels by which a pixel must differ from the fill to be seen beside it, and the share of the
#: picture's edge that must.
_SEEN, _SHARE = 40, 0.75


def _asked(good: Good, pixels: Pixels, rng: np.random.Generator) -> Planted:
    """Return pixels as a file of one of the kinds that providers send; two of three are lossy."""
    height, width = good.rgb.shape[:2]
    kind = choice(("PNG", "JPEG", "WEBP"), rng)
    lossy = {} if kind == "PNG" else {"quality": int(rng.integers(75, 96))}
    data = encoded(pixels, kind, **lossy)
    mime = f"image/{kind.lower()}"
    return good.sent(data, width=width, height=height, aspect=width / height, declared_mime=mime)


def _fill(lines: Sequence[Pixels], rng: np.random.Generator) -> int | None:
    """Return a grey that shows beside lines of the picture, ``None`` when none of them does.

    White bars around a white ground are no defect: nobody could see them.
    """
    able = []
    for fill in _FILLS:
        seen = [np.abs(line.astype(np.int16) - fill).max(axis=-1) > _SEEN for line in lines]
        if all(float(one.mean()) >= _SHARE for one in seen):
            able.append(fill)
    return choice(able, rng) if able else None


def _placed(good: Good, top: int, left: int, rng: np.random.Generator) -> Planted | None:
    """Return the picture made smaller on a canvas of its own size, in the middle of it."""
    rgb = good.rgb
    height, width = rgb.shape[:2]
    edges = [rgb[0], rgb[-1]] if top else []
    edges += [rgb[:, 0], rgb[:, -1]] if left else []
    fill = _fill(edges, rng)
    if fill is None:
        return None
    canvas = np.full_like(rgb, fill)
    size = (width - 2 * left, height - 2 * top)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    canvas[top : height - top, left : width - left] = small
    return _asked(good, canvas, rng)


def letterboxed(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put bars above and below, or left and right; at full strength they take 30 % of the side."""
    height, width = good.rgb.shape[:2]
    share = 0.15 * strength
    if rng.random() < 0.5:
        return _placed(good, max(4, round(height * share)), 0, rng)
    return _placed(good, 0, max(4, round(width * share)), rng)


def framed(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put a frame of one thickness around; at full strength a tenth of the short side."""
    height, width = good.rgb.shape[:2]
    edge = max(4, round(0.1 * strength * min(height, width)))
    return _placed(good, edge, edge, rng)


def undrawn(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Leave a strip along one side undrawn; at full strength a fifth of the picture."""
    pixels = good.rgb.copy()
    # Turned so that the strip lies on top.
    turned = np.rot90(pixels, int(rng.integers(4)))
    rows = max(4, round(0.2 * strength * turned.shape[0]))
    fill = _fill([turned[rows], turned[rows + 1]], rng)
    if fill is None:
        return None
    turned[:rows] = fill
    return _asked(good, pixels, rng)


DEFECTS = (
    Defect("letterboxed", BORDERS, 0.6, letterboxed, "bars, 30 % of the side", _CURVE),
    Defect("framed", BORDERS, 0.6, framed, "frame, 10 % of the side", _CURVE),
    Defect("strip undrawn", BORDERS, 0.6, undrawn, "strip, 20 % of the side", _CURVE),
)
