"""Does the brand's logo stand once, at its place and size, in its colours and the right way round?

The logo is looked for in colour around its own place, and coarsely in grey everywhere, so that a
second one is seen. Only where it is missing is it searched in other sizes, mirrored and by its
outlines alone, to say what became of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.logo_far import ODD_SCALES, search_far
from tasks.checks.logo_match import (
    Hit,
    apart,
    logo_pixels,
    outline_score,
    score_at,
    search_near,
    shown_at,
)
from tasks.inputs.brands import BrandKit, load_brand, logo_file, recolour_files
from tasks.records import Finding, Region
from tasks.settings import DATASETS

__all__ = ["Logo", "brand_logo", "logo_pixels"]

#: How far the logo may reach out of the safe area, as a share of the picture's width: rounding.
_SLACK = 0.008
#: Correlation in grey from which a place is looked at more closely.
_WORTH_A_LOOK = 0.6
#: By how much the mirrored logo must fit better than the logo itself.
_TURNED = 0.05


@functools.lru_cache(maxsize=32)
def brand_logo(name: str, datasets: Path) -> tuple[BrandKit, Pixels]:
    """Return a brand kit and its logo as height × width × 4, RGBA.

    Raises:
        ConfigError: No such kit, or its logo is no picture.
    """
    from tasks.checks.decode import load_rgba

    kit = load_brand(name, datasets)
    return kit, load_rgba(logo_file(kit, datasets))


@functools.lru_cache(maxsize=32)
def brand_recolours(name: str, datasets: Path) -> tuple[Pixels, ...]:
    """Return the other colours in which a brand's logo may stand, each like the logo.

    Raises:
        ConfigError: No such kit, or a file is no picture.
    """
    from tasks.checks.decode import load_rgba

    kit, _ = brand_logo(name, datasets)
    return tuple(load_rgba(file) for file in recolour_files(kit, datasets))


@dataclass(frozen=True, slots=True)
class Logo:
    """The logo of the brand kit is there once, as the kit's rules say."""

    limit: float = 0.75
    #: Mean distance of the logo's colours in a*b* from which it is another colour: well beyond a
    #: cast, which is a check of its own.
    recoloured: float = 22.0
    #: Correlation of the outlines that shows the logo where its colours are gone.
    outlines: float = 0.6
    datasets: Path = DATASETS
    name: str = "composition.logo"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: normalised correlation of the best place with the logo, 0 to 1."""
        if not expected.brand:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no brand asked for"
            )
        kit, logo = brand_logo(expected.brand, self.datasets)
        rgb = picture.rgb
        height, width = rgb.shape[:2]
        wanted = kit.logo_region(width, height, logo.shape[1] / logo.shape[0])
        hit, drawn = self.best(picture, kit, logo), logo
        if hit.score < self.limit:
            for other in brand_recolours(expected.brand, self.datasets):
                found = search_near(rgb, other, wanted)
                if found.score > max(hit.score, self.limit):
                    hit, drawn = found, other
        far = search_far(rgb, drawn, wanted)
        if hit.score < self.limit:
            hit = self._elsewhere(rgb, drawn, wanted, far, hit)
        elif abs(hit.width / wanted.width - 1) > 0.1:
            # The largest or smallest size tried: its true size may be beyond.
            hit = max(hit, _closer(rgb, drawn, hit))
        problem = (
            self._missing(rgb, drawn, kit, wanted, far)
            if hit.score < self.limit
            else self._problem(rgb, drawn, hit, far, kit)
        )
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if problem else "pass",
            score=round(max(hit.score, 0.0), 4),
            limit=self.limit,
            message=problem,
            region=shown_at(hit, width, height) if hit.score >= self.limit else wanted,
        )

    def best(self, picture: Picture, kit: BrandKit, logo: Pixels) -> Hit:
        """Return the place around the logo's own corner that is most like it."""
        height, width = picture.rgb.shape[:2]
        wanted = kit.logo_region(width, height, logo.shape[1] / logo.shape[0])
        return search_near(picture.rgb, logo, wanted)

    def _elsewhere(
        self, rgb: Pixels, logo: Pixels, wanted: Region, far: list[Hit], near: Hit
    ) -> Hit:
        """Return the best place anywhere and in any size, in colour; ``near`` when none is."""
        for places in (far, search_far(rgb, logo, wanted, ODD_SCALES)):
            closer = [_closer(rgb, logo, h) for h in places if h.score >= _WORTH_A_LOOK]
            best = max(closer, default=near)
            if best.score >= self.limit:
                return best
        return near

    def _missing(
        self, rgb: Pixels, logo: Pixels, kit: BrandKit, wanted: Region, far: list[Hit]
    ) -> str:
        """Return what became of a logo that is nowhere to be found."""
        for flipped, how in _flips(logo):
            found = search_near(rgb, flipped, wanted)
            if found.score < self.limit:
                places = search_far(rgb, flipped, wanted)
                closer = [_closer(rgb, flipped, h) for h in places if h.score >= _WORTH_A_LOOK]
                found = max(closer, default=found)
            if found.score >= self.limit:
                return f"the logo of {kit.name!r} is {how}"
        own = Hit(0.0, wanted.x, wanted.y, wanted.width, wanted.height)
        if any(outline_score(rgb, logo, place) >= self.outlines for place in (own, *far[:2])):
            return f"the logo of {kit.name!r} is drawn in other colours"
        return f"the logo of {kit.name!r} is missing at {kit.logo.position}"

    def _problem(self, rgb: Pixels, logo: Pixels, hit: Hit, far: list[Hit], kit: BrandKit) -> str:
        """Return what is wrong with a logo that is there, or nothing."""
        height, width = rgb.shape[:2]
        what = f"the logo of {kit.name!r}"
        placed = _misplaced(hit, kit, width, height, logo.shape[1] / logo.shape[0])
        if placed:
            return f"{what} {placed}"
        if hit.score < 0.97:
            for flipped, how in _flips(logo):
                if score_at(rgb, flipped, hit) > hit.score + _TURNED:
                    return f"{what} is {how}"
        moved = _recoloured(rgb, logo, hit)
        if moved > self.recoloured:
            return f"{what} is drawn in other colours (off by {moved:.0f} in a*b*)"
        # What looks like the logo in grey must look like it in colour, too.
        others = [
            other
            for other in far
            if other.score >= self.limit - 0.05
            and apart(other, hit)
            and _closer(rgb, logo, other).score >= self.limit
        ]
        return f"{what} stands {len(others) + 1} times" if others else ""


def _closer(rgb: Pixels, logo: Pixels, hit: Hit) -> Hit:
    """Search in colour around a place that was found coarsely."""
    place = Region(x=round(hit.x), y=round(hit.y), width=round(hit.width), height=round(hit.height))
    return search_near(rgb, logo, place)


def _flips(logo: Pixels) -> tuple[tuple[Pixels, str], ...]:
    return (
        (np.ascontiguousarray(logo[:, ::-1]), "mirrored"),
        (np.ascontiguousarray(logo[::-1]), "upside down"),
        (np.ascontiguousarray(logo[::-1, ::-1]), "turned by half"),
    )


def _misplaced(hit: Hit, kit: BrandKit, width: int, height: int, aspect: float) -> str:
    """Return how place and size break the kit's rules, or nothing."""
    safe = kit.safe_region(width, height)
    slack = max(1.5, _SLACK * width)
    inside = (
        hit.x >= safe.x - slack
        and hit.y >= safe.y - slack
        and hit.x + hit.width <= safe.x + safe.width + slack
        and hit.y + hit.height <= safe.y + safe.height + slack
    )
    if not inside:
        return "is outside the safe area"
    middle = (hit.x + hit.width / 2, hit.y + hit.height / 2)
    corner = (
        ("bottom" if middle[1] > height / 2 else "top")
        + "-"
        + ("right" if middle[0] > width / 2 else "left")
    )
    if corner != kit.logo.position:
        return f"is at {corner} instead of {kit.logo.position}"
    wanted = kit.logo_region(width, height, aspect)
    size = hit.width / wanted.width
    if kit.logo.size_tolerance is not None and abs(size - 1) > kit.logo.size_tolerance + 0.02:
        return f"has {size:.0%} of its width"
    if kit.logo.place_tolerance is not None:
        # A logo of another size grows from its corner: the nearest of its points counts.
        off = np.hypot(
            middle[0] - (wanted.x + wanted.width / 2), middle[1] - (wanted.y + wanted.height / 2)
        )
        allowed = kit.logo.place_tolerance * width + abs(size - 1) * wanted.width / 2 + slack
        if off > allowed:
            return f"is {off / width:.0%} of the width away from its place"
    return ""


def _recoloured(rgb: Pixels, logo: Pixels, hit: Hit) -> float:
    """Return how far the logo's colours are moved in a*b*, over its plain parts; 0 if unsure."""
    shown, drawn, weight = logo_pixels(rgb, logo, hit)
    if weight.sum() < 50:
        return 0.0
    one, two = (_ab(cv2.GaussianBlur(part, (3, 3), 0)) for part in (shown, drawn))
    far = np.hypot(one[:, :, 0] - two[:, :, 0], one[:, :, 1] - two[:, :, 1])
    return float((far * weight).sum() / weight.sum())


def _ab(rgb: NDArray[np.uint8] | cv2.typing.MatLike) -> NDArray[np.float32]:
    scaled = np.asarray(rgb, np.float32) / np.float32(255)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)[:, :, 1:], np.float32)
