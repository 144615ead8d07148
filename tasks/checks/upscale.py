"""Is an enlarged picture the small one it was made from, and better than plain enlarging?

All checks need the picture before the last enlarging stage, the reference ``source``; without it
they are skipped. Limits were set on 292 enlarged pictures (six networks, and photographs beside
their own reduced copies) and reported on the other half: see the tests in ``tests/real``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import reduced
from tasks.checks.pairs import (
    Floats,
    local_range,
    luma,
    reduced_to,
    soft,
    ssim_map,
    tile_means,
)
from tasks.records import Finding, Region

NO_SOURCE = "no source: the picture was not enlarged from another"
#: Long side of the source at which both are compared; larger ones are reduced first.
_SIDE = 512
#: Smaller sources say nothing: a tile would be half of the picture.
_LEAST = 48
#: Aspect ratios further apart than this: not the same picture.
_SHAPE = 0.03
#: Visible contrast: a standard deviation of 14 levels, so that taking out grain is no difference.
_CONTRAST = 200.0
#: Local contrast of an edge, in levels, and how many pixels of edges make a judgement.
_EDGE = 40.0
_EDGES = 300


@dataclass(frozen=True, slots=True)
class Pair:
    """The source and the result reduced to its size."""

    source: Pixels
    result: Pixels
    #: Pixels of the result for one pixel here.
    scale: float

    def region(self, x: float, y: float, width: float, height: float) -> Region:
        """Return a part of the pair in pixels of the result."""
        rows, columns = (round(n * self.scale) for n in self.source.shape[:2])
        left, top = max(0, round(x * self.scale)), max(0, round(y * self.scale))
        return Region(
            x=left,
            y=top,
            width=max(1, min(columns - left, round(width * self.scale))),
            height=max(1, min(rows - top, round(height * self.scale))),
        )


def pair(source: Pixels, result: Pixels) -> Pair:
    """Return the source and the result at one size, that of the source or smaller."""
    small = reduced(source, _SIDE)
    height, width = small.shape[:2]
    return Pair(small, reduced_to(result, width, height), result.shape[1] / width)


def same_shape(one: Pixels, two: Pixels) -> bool:
    """Say whether two pictures have the same aspect ratio, within rounded sides."""
    ratio = (one.shape[1] / one.shape[0]) / (two.shape[1] / two.shape[0])
    slack = _SHAPE + 1 / min(*one.shape[:2], *two.shape[:2])
    return bool(abs(np.log(ratio)) <= slack)


def similarity(both: Pair, tiles: int = 16, least: int = 24) -> tuple[Floats, int]:
    """Return the mean similarity of the tile around every pixel, and the side of a tile.

    Args:
        both: The pair.
        tiles: Tiles along the long side.
        least: Side of a tile in pixels at least: enough to tell structure from sharpening.
    """
    one, two = (soft(luma(rgb), 1.0) for rgb in (both.source, both.result))
    side = int(np.clip(max(one.shape) // tiles, least, 64))
    return tile_means(ssim_map(one, two, c2=_CONTRAST), side), side


def colour_moved(both: Pair) -> Floats:
    """Return by how many levels every channel moved, at a quarter of the pair's size."""
    height, width = (max(1, n // 4) for n in both.source.shape[:2])
    one, two = (reduced_to(rgb, width, height) for rgb in (both.source, both.result))
    return np.subtract(two, one, dtype=np.float32)


def sharpening(both: Pair) -> float | None:
    """Return how much of an unsharp mask the result is of its source, along the edges.

    The least-squares share of the source's own detail (what a blur of 1.2 pixels takes away) that
    was added to it: 0 for a faithful enlargement, 0.2 and less for crisp ones, above 0.4 with
    bright and dark lines beside every edge. Noise has no part in it. ``None`` without edges.
    """
    one, two = (soft(luma(rgb), 0.8) for rgb in (both.source, both.result))
    edges = local_range(luma(both.source), 9) >= _EDGE
    if int(edges.sum()) < _EDGES:
        return None
    detail, added = (one - soft(one, 1.2))[edges], (two - one)[edges]
    power = float((detail * detail).sum())
    return float((added * detail).sum()) / power if power > 0 else None


def detail_gain(source: Pixels, result: Pixels) -> tuple[float, float] | None:
    """Return how much finer the result is than bicubic enlarging, and how near to repeated pixels.

    The first is the strength of what a blur of half a source pixel takes away, along the steepest
    edges, as a multiple of the same in the bicubic enlargement. The second is the distance from
    repeated pixels, as a multiple of the bicubic enlargement's. ``None`` without edges.
    """
    height, width = result.shape[:2]
    small, large = luma(source), luma(result)
    across = cv2.Sobel(small, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(small, cv2.CV_32F, 0, 1, scale=1 / 8)
    steep = cv2.magnitude(across, down)
    steepest = (steep >= max(float(np.quantile(steep[::2, ::2], 0.97)), 10.0)).astype(np.uint8)
    if int(steepest.sum()) < _EDGES // 3:
        return None
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    blocks = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    edges = cv2.resize(steepest, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    sigma = width / small.shape[1] / 2
    fine, plain = ((f - soft(np.asarray(f, np.float32), sigma))[edges] for f in (large, smooth))
    base = float((plain * plain).mean())
    apart = max(float(np.abs(smooth - blocks).mean()), 0.05)
    gain = float(np.sqrt(float((fine * fine).mean()) / base)) if base > 0 else 1.0
    return gain, float(np.abs(large - blocks).mean()) / apart


@dataclass(frozen=True, slots=True)
class Faithful:
    """Reduced again, the result is its source: nothing invented, lost or moved, no colour changed.

    The worst tile decides: one wrong letter disappears in the mean of a whole picture.
    """

    #: Mean similarity of the worst tile and of the whole.
    limit: float = 0.8
    mean: float = 0.9
    #: Levels by which a tile's colour, and that of the whole picture, may move in any channel.
    tile_shift: float = 16.0
    shift: float = 8.0
    name: str = "upscale.faithful"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: similarity (SSIM) of the worst tile."""
        source = picture.reference("source")
        if source is None:
            return self._finding("skip", NO_SOURCE)
        if min(source.shape[:2]) < _LEAST:
            return self._finding("skip", "the source is too small to judge")
        if not same_shape(source, picture.rgb):
            sizes = [f"{rgb.shape[1]}×{rgb.shape[0]}" for rgb in (picture.rgb, source)]
            return self._finding("fail", f"another shape than the source: {sizes[0]} of {sizes[1]}")
        both = pair(source, picture.rgb)
        tiles, side = similarity(both)
        worst, mean = float(tiles.min()), float(tiles.mean())
        moved = colour_moved(both)
        whole = float(np.abs(moved.mean(axis=(0, 1))).max())
        # At a quarter of the size, like the pictures.
        colour = np.abs(tile_means(moved, side // 4)).max(axis=2)
        problems = []
        where, step = tiles, 1
        if worst < self.limit or mean < self.mean:
            problems.append(self._difference(both, tiles, side))
        if whole > self.shift:
            problems.append(f"the colours moved by {whole:.0f} levels")
        if float(colour.max()) > self.tile_shift and worst >= self.limit:
            problems.append(f"a part has another colour, by {float(colour.max()):.0f} levels")
            where, step = -colour, 4
        if not problems:
            return self._finding("pass", "", worst)
        row, column = np.unravel_index(int(where.argmin()), where.shape)
        left, top = float(column) * step - side / 2, float(row) * step - side / 2
        at = both.region(left, top, side, side)
        return self._finding("fail", "; ".join(problems), worst, at)

    def _difference(self, both: Pair, tiles: Floats, side: int) -> str:
        """Say what is wrong with the worst tile: more in it than in the source, less, or other."""
        energy = []
        row, column = np.unravel_index(int(tiles.argmin()), tiles.shape)
        for rgb in (both.source, both.result):
            field = luma(rgb)
            fine = (field - soft(field, 3.0)) ** 2
            energy.append(float(tile_means(np.asarray(fine, np.float32), side)[row, column]))
        if energy[1] > 2 * energy[0]:
            return "shapes that the source does not have"
        if energy[0] > 2 * energy[1]:
            return "shapes of the source are lost"
        return "reduced again, it is not the source"

    def _finding(
        self, verdict: str, message: str, score: float | None = None, region: Region | None = None
    ) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict=verdict,
            score=None if score is None else round(score, 4),
            limit=self.limit,
            message=message,
            region=region,
        )


@dataclass(frozen=True, slots=True)
class Halos:
    """No bright and dark lines beside the edges: sharpening beyond what passes for crisp."""

    limit: float = 0.4
    name: str = "upscale.halos"
    version: str = "1"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: share of the source's own detail that was added to it."""
        source = picture.reference("source")
        if source is None or min(source.shape[:2]) < _LEAST:
            return self._skip(NO_SOURCE if source is None else "the source is too small to judge")
        if not same_shape(source, picture.rgb):
            return self._skip("another shape than the source")
        score = sharpening(pair(source, picture.rgb))
        if score is None:
            return self._skip("too few edges to judge")
        good = score <= self.limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            higher_is_better=False,
            message="" if good else "over-sharpened: bright and dark lines beside the edges",
        )

    def _skip(self, why: str) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict="skip",
            limit=self.limit,
            higher_is_better=False,
            message=why,
        )


@dataclass(frozen=True, slots=True)
class Detail:
    """The result is finer than what bicubic enlarging gives for nothing."""

    limit: float = 1.12
    #: Nearer to repeated pixels than this: no enlarging at all. Good results measure 0.59 and more.
    blocks: float = 0.2
    #: Enlarged by less than this, there is no room for detail.
    factor: float = 1.3
    name: str = "upscale.detail"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: fine detail along the edges, as a multiple of the bicubic enlargement's."""
        source = picture.reference("source")
        if source is None or min(source.shape[:2]) < _LEAST:
            return self._skip(NO_SOURCE if source is None else "the source is too small to judge")
        if not same_shape(source, picture.rgb):
            return self._skip("another shape than the source")
        if picture.rgb.shape[1] < self.factor * source.shape[1]:
            return self._skip(f"enlarged by less than {self.factor}")
        found = detail_gain(source, picture.rgb)
        if found is None:
            return self._skip("too few edges to judge")
        gain, apart = found
        message = ""
        if apart < self.blocks:
            message = "the pixels of the source are repeated, not enlarged"
        elif gain < self.limit:
            message = f"no finer than bicubic enlarging ({gain:.2f} of its detail)"
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if message else "pass",
            score=round(gain, 4),
            limit=self.limit,
            message=message,
        )

    def _skip(self, why: str) -> Finding:
        return Finding(
            check=self.name, version=self.version, verdict="skip", limit=self.limit, message=why
        )
