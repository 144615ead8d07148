"""Where in a picture does something look like a logo?"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels
from tasks.checks.fixed import Fixed, unchangeable
from tasks.records import Region

#: Width of the logo, in pixels, at which its place is searched.
_NEAR_WIDTH = 56
_NEAR_SCALES = (1.0, 0.94, 1.06, 0.88, 1.12)


class Hit(NamedTuple):
    """A place that looks like the logo."""

    score: float
    #: Left, top, width and height in pixels of the picture.
    x: float
    y: float
    width: float
    height: float


def logo_pixels(rgb: Pixels, logo: Pixels, hit: Hit) -> tuple[Pixels, Pixels, NDArray[np.float32]]:
    """Return the logo as the picture shows it, as it was drawn, and the weight of each pixel.

    Both are height × width × 3 at the size of the place found; edges weigh nothing, so that a
    place that is half a pixel off does not look like another colour. Nothing of it may be changed.
    """
    place = shown_at(hit, rgb.shape[1], rgb.shape[0])
    shown = rgb[place.y : place.y + place.height, place.x : place.x + place.width]
    if unchangeable(logo):
        return shown, *_drawn_once(Fixed(logo), place.width, place.height)
    return shown, *_drawn(logo, place.width, place.height)


@functools.lru_cache(maxsize=8)
def _drawn_once(logo: Fixed, width: int, height: int) -> tuple[Pixels, NDArray[np.float32]]:
    return _drawn(logo.pixels, width, height)


def _drawn(logo: Pixels, width: int, height: int) -> tuple[Pixels, NDArray[np.float32]]:
    """Return a logo in this size, and the weight of each of its pixels."""
    drawn = cv2.resize(logo, (width, height), interpolation=cv2.INTER_AREA)
    opaque = cv2.erode((drawn[:, :, 3] > 250).astype(np.uint8), np.ones((3, 3), np.uint8))
    grey = cv2.cvtColor(drawn[:, :, :3], cv2.COLOR_RGB2GRAY)
    flat = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) < 12
    weight = opaque.astype(np.float32) * flat.astype(np.float32)
    return np.asarray(drawn[:, :, :3], np.uint8), weight


def shown_at(hit: Hit, width: int, height: int) -> Region:
    """Return a place in whole pixels, cut to a picture of this size."""
    left, top = max(0, round(hit.x)), max(0, round(hit.y))
    right = min(width, round(hit.x + hit.width))
    bottom = min(height, round(hit.y + hit.height))
    return Region(x=left, y=top, width=max(1, right - left), height=max(1, bottom - top))


def search_near(rgb: Pixels, logo: Pixels, wanted: Region) -> Hit:
    """Return the best place around a region, in colour, at a few scales around its width."""
    # Several checks look for the logo at its own place.
    if unchangeable(rgb, logo):
        return _search_once(Fixed(rgb), Fixed(logo), wanted)
    return _search(rgb, logo, wanted)


@functools.lru_cache(maxsize=16)
def _search_once(rgb: Fixed, logo: Fixed, wanted: Region) -> Hit:
    return _search(rgb.pixels, logo.pixels, wanted)


def _search(rgb: Pixels, logo: Pixels, wanted: Region) -> Hit:
    margin = round(0.5 * max(wanted.width, wanted.height))
    top, left = max(0, wanted.y - margin), max(0, wanted.x - margin)
    part = rgb[top : wanted.y + wanted.height + margin, left : wanted.x + wanted.width + margin]
    ratio = min(1.0, _NEAR_WIDTH / wanted.width)
    hits = []
    for scale in _NEAR_SCALES:
        found = _match(part, logo, wanted, ratio, scale)
        if found:
            hits.append(found._replace(x=found.x + left, y=found.y + top))
            if hits[-1].score > 0.9:
                break
    return max(hits, default=Hit(0.0, wanted.x, wanted.y, wanted.width, wanted.height))


def apart(one: Hit, two: Hit) -> bool:
    """Say whether two places are not the same one."""
    return (
        abs(one.x + one.width / 2 - two.x - two.width / 2) > two.width / 2
        or abs(one.y + one.height / 2 - two.y - two.height / 2) > two.height / 2
    )


def _match(part: Pixels, logo: Pixels, wanted: Region, ratio: float, scale: float) -> Hit | None:
    """Correlate the opaque part of the logo with a part of a picture, reduced by ``ratio``."""
    size = (max(1, round(part.shape[1] * ratio)), max(1, round(part.shape[0] * ratio)))
    columns = max(4, round(wanted.width * ratio * scale))
    rows = max(4, round(wanted.height * ratio * scale))
    if rows > size[1] or columns > size[0]:
        return None
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    template = cv2.resize(logo, (columns, rows), interpolation=cv2.INTER_AREA)
    mask = (template[:, :, 3:4].astype(np.float32) / 255).repeat(3, axis=2)
    scores = cv2.matchTemplate(
        small.astype(np.float32),
        template[:, :, :3].astype(np.float32),
        cv2.TM_CCOEFF_NORMED,
        mask=mask,
    )
    # A flat patch has no correlation: 0 / 0.
    scores = np.where(np.isfinite(scores) & (np.abs(scores) <= 1.001), scores, 0)
    score, x, y = next(peaks(np.asarray(scores, np.float32), columns, rows, most=1))
    return Hit(score, x / ratio, y / ratio, columns / ratio, rows / ratio)


def peaks(
    scores: NDArray[np.float32], columns: int, rows: int, most: int
) -> Iterator[tuple[float, int, int]]:
    """Yield score, x and y of the best places; the array is used up.

    Args:
        scores: For each place of the upper left corner.
        columns: Width of what is looked for; places that share half of it are one.
        rows: Its height.
        most: How many places.
    """
    for _ in range(most):
        y, x = (int(i) for i in np.unravel_index(int(scores.argmax()), scores.shape))
        yield float(scores[y, x]), x, y
        top, left = max(0, y - rows // 2), max(0, x - columns // 2)
        scores[top : y + rows // 2 + 1, left : x + columns // 2 + 1] = 0


def score_at(rgb: Pixels, logo: Pixels, hit: Hit) -> float:
    """Return the correlation in colour of the logo with one place, give or take two pixels."""
    place = shown_at(hit, rgb.shape[1], rgb.shape[0])
    top, left = max(0, place.y - 2), max(0, place.x - 2)
    part = rgb[top : place.y + place.height + 2, left : place.x + place.width + 2]
    ratio = min(1.0, _NEAR_WIDTH / place.width)
    found = _match(np.ascontiguousarray(part), logo, place, ratio, 1.0)
    return found.score if found else 0.0


def outline_score(rgb: Pixels, logo: Pixels, hit: Hit) -> float:
    """Return how well the logo's outlines fit around a place, whatever its colours; 0 to 1."""
    pad = round(0.1 * hit.width)
    grown = Hit(0.0, hit.x - pad, hit.y - pad, hit.width + 2 * pad, hit.height + 2 * pad)
    place = shown_at(grown, rgb.shape[1], rgb.shape[0])
    ratio = _NEAR_WIDTH / hit.width
    size = (max(8, round(place.width * ratio)), max(8, round(place.height * ratio)))
    part = rgb[place.y : place.y + place.height, place.x : place.x + place.width]
    columns, rows = _NEAR_WIDTH, max(4, round(hit.height * ratio))
    if rows > size[1] or columns > size[0] or part.size == 0:
        return 0.0
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    template = cv2.resize(logo, (columns, rows), interpolation=cv2.INTER_AREA)
    inside = cv2.erode((template[:, :, 3] > 250).astype(np.float32), np.ones((5, 5)))
    scores = cv2.matchTemplate(
        _outlines(small), _outlines(template[:, :, :3]), cv2.TM_CCOEFF_NORMED, mask=inside
    )
    return float(np.where(np.isfinite(scores) & (np.abs(scores) <= 1.001), scores, 0).max())


def _outlines(rgb: NDArray[np.uint8] | cv2.typing.MatLike) -> NDArray[np.float32]:
    """Return the steepest gradient of the channels at each pixel; its root, for faint ones."""
    soft = cv2.GaussianBlur(np.asarray(rgb, np.float32), (3, 3), 0)
    across = np.abs(cv2.Sobel(soft, cv2.CV_32F, 1, 0)).max(axis=2)
    down = np.abs(cv2.Sobel(soft, cv2.CV_32F, 0, 1)).max(axis=2)
    return np.asarray(np.sqrt(np.hypot(across, down)), np.float32)
