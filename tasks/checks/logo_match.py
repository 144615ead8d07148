"""Where in a picture does something look like a logo?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels
from tasks.records import Region

#: Width of the logo, in pixels, at which its place and the whole picture are searched.
_NEAR_WIDTH, _FAR_WIDTH = 56, 36
_NEAR_SCALES = (1.0, 0.94, 1.06, 0.88, 1.12)
FAR_SCALES = (1.0, 0.85, 1.15)
#: Sizes that are tried when the logo is not there at its own.
ODD_SCALES = (0.75, 1.3, 0.65, 1.5, 0.55, 1.75, 2.0, 0.45)


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
    place that is half a pixel off does not look like another colour.
    """
    place = shown_at(hit, rgb.shape[1], rgb.shape[0])
    shown = rgb[place.y : place.y + place.height, place.x : place.x + place.width]
    drawn = cv2.resize(logo, (place.width, place.height), interpolation=cv2.INTER_AREA)
    opaque = cv2.erode((drawn[:, :, 3] > 250).astype(np.uint8), np.ones((3, 3), np.uint8))
    grey = cv2.cvtColor(drawn[:, :, :3], cv2.COLOR_RGB2GRAY)
    flat = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) < 12
    weight = opaque.astype(np.float32) * flat.astype(np.float32)
    return shown, np.asarray(drawn[:, :, :3], np.uint8), weight


def shown_at(hit: Hit, width: int, height: int) -> Region:
    """Return a place in whole pixels, cut to a picture of this size."""
    left, top = max(0, round(hit.x)), max(0, round(hit.y))
    right = min(width, round(hit.x + hit.width))
    bottom = min(height, round(hit.y + hit.height))
    return Region(x=left, y=top, width=max(1, right - left), height=max(1, bottom - top))


def search_near(rgb: Pixels, logo: Pixels, wanted: Region) -> Hit:
    """Return the best place around a region, in colour, at a few scales around its width."""
    margin = round(0.5 * max(wanted.width, wanted.height))
    top, left = max(0, wanted.y - margin), max(0, wanted.x - margin)
    part = rgb[top : wanted.y + wanted.height + margin, left : wanted.x + wanted.width + margin]
    ratio = min(1.0, _NEAR_WIDTH / wanted.width)
    hits = []
    for scale in _NEAR_SCALES:
        found = _match(part, logo, wanted, ratio, scale)
        if found:
            hits.append(found[0]._replace(x=found[0].x + left, y=found[0].y + top))
            if hits[-1].score > 0.9:
                break
    return max(hits, default=Hit(0.0, wanted.x, wanted.y, wanted.width, wanted.height))


def search_far(
    rgb: Pixels, logo: Pixels, wanted: Region, scales: Iterable[float] = FAR_SCALES
) -> list[Hit]:
    """Search the whole picture and a border around it, coarsely and in grey; the best few places.

    Args:
        rgb: The picture.
        logo: RGBA.
        wanted: Its own place, for its size.
        scales: Sizes to try, as multiples of its own.
    """
    pad = max(2, round(0.3 * wanted.width))
    # Whole numbers of pixels are averaged four times as fast as any others.
    factor = max(1, round(wanted.width / _FAR_WIDTH))
    ratio = 1 / factor
    size = (max(1, rgb.shape[1] // factor), max(1, rgb.shape[0] // factor))
    whole = rgb[: size[1] * factor, : size[0] * factor]
    grey = cv2.cvtColor(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    edge = max(1, round(pad * ratio))
    padded = np.asarray(np.pad(grey, edge, mode="edge")[:, :, None], np.uint8)
    hits = [
        hit._replace(x=hit.x - edge / ratio, y=hit.y - edge / ratio)
        for scale in scales
        for hit in _match_scaled(padded, logo, wanted, ratio, scale, most=3)
    ]
    hits.sort(reverse=True)
    kept: list[Hit] = []
    for hit in hits:
        if all(apart(hit, other) for other in kept):
            kept.append(hit)
    return kept[:6]


def apart(one: Hit, two: Hit) -> bool:
    """Say whether two places are not the same one."""
    return (
        abs(one.x + one.width / 2 - two.x - two.width / 2) > two.width / 2
        or abs(one.y + one.height / 2 - two.y - two.height / 2) > two.height / 2
    )


def _match(part: Pixels, logo: Pixels, wanted: Region, ratio: float, scale: float) -> list[Hit]:
    size = (max(1, round(part.shape[1] * ratio)), max(1, round(part.shape[0] * ratio)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return _match_scaled(np.asarray(small, np.uint8), logo, wanted, ratio, scale, most=1)


def _match_scaled(
    small: Pixels, logo: Pixels, wanted: Region, ratio: float, scale: float, most: int
) -> list[Hit]:
    """Correlate the opaque part of the logo with a picture that is scaled down by ``ratio``."""
    columns = max(4, round(wanted.width * ratio * scale))
    rows = max(4, round(wanted.height * ratio * scale))
    if rows > small.shape[0] or columns > small.shape[1]:
        return []
    template = cv2.resize(logo, (columns, rows), interpolation=cv2.INTER_AREA)
    drawn = template[:, :, :3]
    if small.shape[2] == 1:
        drawn = cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)[:, :, None]
    mask = (template[:, :, 3:4].astype(np.float32) / 255).repeat(drawn.shape[2], axis=2)
    scores = cv2.matchTemplate(
        small.astype(np.float32), drawn.astype(np.float32), cv2.TM_CCOEFF_NORMED, mask=mask
    )
    # A flat patch has no correlation: 0 / 0.
    scores = np.where(np.isfinite(scores) & (np.abs(scores) <= 1.001), scores, 0)
    hits = []
    for _ in range(most):
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        hits.append(
            Hit(
                float(scores[y, x]),
                x / ratio,
                y / ratio,
                columns / ratio,
                rows / ratio,
            )
        )
        top, left = max(0, y - rows // 2), max(0, x - columns // 2)
        scores[top : y + rows // 2 + 1, left : x + columns // 2 + 1] = 0
    return hits


def score_at(rgb: Pixels, logo: Pixels, hit: Hit) -> float:
    """Return the correlation in colour of the logo with one place, give or take two pixels."""
    place = shown_at(hit, rgb.shape[1], rgb.shape[0])
    top, left = max(0, place.y - 2), max(0, place.x - 2)
    part = rgb[top : place.y + place.height + 2, left : place.x + place.width + 2]
    ratio = min(1.0, _NEAR_WIDTH / place.width)
    found = _match(np.ascontiguousarray(part), logo, place, ratio, 1.0)
    return found[0].score if found else 0.0


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
