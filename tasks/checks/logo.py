"""Does the brand's logo stand once, at its corner, inside the safe area?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture
from tasks.inputs.brands import BrandKit, load_brand, logo_file
from tasks.records import Finding, Region
from tasks.settings import DATASETS

Pixels = NDArray[np.uint8]

#: Width of the logo, in pixels, at which its corner and the whole picture are searched.
_NEAR_WIDTH, _FAR_WIDTH = 56, 36
_NEAR_SCALES = (1.0, 0.94, 1.06, 0.88, 1.12)
_FAR_SCALES = (1.0, 0.85, 1.15)
#: How far the logo may reach out of the safe area, as a share of the picture's width: rounding.
_SLACK = 0.008


class Hit(NamedTuple):
    """A place that looks like the logo."""

    score: float
    #: Left, top, width and height in pixels of the picture.
    x: float
    y: float
    width: float
    height: float


@functools.lru_cache(maxsize=32)
def brand_logo(name: str, datasets: Path) -> tuple[BrandKit, Pixels]:
    """Return a brand kit and its logo as height × width × 4, RGBA.

    Raises:
        ConfigError: No such kit, or its logo is no picture.
    """
    from tasks.checks.decode import load_rgba

    kit = load_brand(name, datasets)
    return kit, load_rgba(logo_file(kit, datasets))


@dataclass(frozen=True, slots=True)
class Logo:
    """The logo of the brand kit is there once, at its corner, wholly inside the safe area."""

    limit: float = 0.75
    datasets: Path = DATASETS
    name: str = "composition.logo"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: normalised correlation of the best place with the logo, 0 to 1."""
        if not expected.brand:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no brand asked for"
            )
        kit, logo = brand_logo(expected.brand, self.datasets)
        height, width = picture.rgb.shape[:2]
        wanted = kit.logo_region(width, height, logo.shape[1] / logo.shape[0])
        near = self.best(picture, kit, logo)
        far = _search_far(picture.rgb, logo, wanted)
        hit = near if near.score >= self.limit else max([near, *far])
        problem = self._problem(hit, far, kit, (width, height))
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if problem else "pass",
            score=round(max(hit.score, 0.0), 4),
            limit=self.limit,
            message=problem,
            region=_shown(hit, width, height) if hit.score >= self.limit else wanted,
        )

    def best(self, picture: Picture, kit: BrandKit, logo: Pixels) -> Hit:
        """Return the place around the logo's own corner that is most like it."""
        height, width = picture.rgb.shape[:2]
        wanted = kit.logo_region(width, height, logo.shape[1] / logo.shape[0])
        return _search_near(picture.rgb, logo, wanted)

    def _problem(self, hit: Hit, far: list[Hit], kit: BrandKit, size: tuple[int, int]) -> str:
        """Return what is wrong, or nothing."""
        width, height = size
        if hit.score < self.limit:
            return f"the logo of {kit.name!r} is missing at {kit.logo.position}"
        safe = kit.safe_region(width, height)
        slack = max(1.5, _SLACK * width)
        inside = (
            hit.x >= safe.x - slack
            and hit.y >= safe.y - slack
            and hit.x + hit.width <= safe.x + safe.width + slack
            and hit.y + hit.height <= safe.y + safe.height + slack
        )
        if not inside:
            return f"the logo of {kit.name!r} is outside the safe area"
        corner = (
            ("bottom" if hit.y + hit.height / 2 > height / 2 else "top")
            + "-"
            + ("right" if hit.x + hit.width / 2 > width / 2 else "left")
        )
        if corner != kit.logo.position:
            return f"the logo of {kit.name!r} is at {corner} instead of {kit.logo.position}"
        others = [
            other
            for other in far
            if other.score >= self.limit
            and (abs(other.x - hit.x) > hit.width / 2 or abs(other.y - hit.y) > hit.height / 2)
        ]
        return f"the logo of {kit.name!r} stands {len(others) + 1} times" if others else ""


def logo_pixels(rgb: Pixels, logo: Pixels, hit: Hit) -> tuple[Pixels, Pixels, NDArray[np.float32]]:
    """Return the logo as the picture shows it, as it was drawn, and the weight of each pixel.

    Both are height × width × 3 at the size of the place found; edges weigh nothing, so that a
    place that is half a pixel off does not look like another colour.
    """
    place = _shown(hit, rgb.shape[1], rgb.shape[0])
    shown = rgb[place.y : place.y + place.height, place.x : place.x + place.width]
    drawn = cv2.resize(logo, (place.width, place.height), interpolation=cv2.INTER_AREA)
    opaque = cv2.erode((drawn[:, :, 3] > 250).astype(np.uint8), np.ones((3, 3), np.uint8))
    grey = cv2.cvtColor(drawn[:, :, :3], cv2.COLOR_RGB2GRAY)
    flat = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) < 12
    weight = opaque.astype(np.float32) * flat.astype(np.float32)
    return shown, np.asarray(drawn[:, :, :3], np.uint8), weight


def _shown(hit: Hit, width: int, height: int) -> Region:
    left, top = max(0, round(hit.x)), max(0, round(hit.y))
    right = min(width, round(hit.x + hit.width))
    bottom = min(height, round(hit.y + hit.height))
    return Region(x=left, y=top, width=max(1, right - left), height=max(1, bottom - top))


def _search_near(rgb: Pixels, logo: Pixels, wanted: Region) -> Hit:
    """Search around the logo's own place, at a few scales around its own width."""
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


def _search_far(rgb: Pixels, logo: Pixels, wanted: Region) -> list[Hit]:
    """Search the whole picture and a border around it, coarsely; the best few places."""
    pad = max(2, round(0.3 * wanted.width))
    ratio = min(1.0, _FAR_WIDTH / wanted.width)
    height, width = rgb.shape[:2]
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    grey = cv2.cvtColor(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    edge = max(1, round(pad * ratio))
    padded = np.asarray(np.pad(grey, edge, mode="edge")[:, :, None], np.uint8)
    hits: list[Hit] = []
    for scale in _FAR_SCALES:
        for hit in _match_scaled(padded, logo, wanted, ratio, scale, most=3):
            moved = hit._replace(x=hit.x - edge / ratio, y=hit.y - edge / ratio)
            if not any(
                abs(moved.x - h.x) < h.width / 2 and abs(moved.y - h.y) < h.height / 2
                for h in hits
                if h.score >= moved.score
            ):
                hits.append(moved)
    hits.sort(reverse=True)
    kept: list[Hit] = []
    for hit in hits:
        if all(abs(hit.x - k.x) > k.width / 2 or abs(hit.y - k.y) > k.height / 2 for k in kept):
            kept.append(hit)
    return kept[:6]


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
