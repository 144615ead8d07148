"""Are the colours right? A cast over the whole picture, and a brand's palette."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture
from tasks.checks.blank import MIN_SIDE, reduced
from tasks.checks.logo import Logo, brand_logo, logo_pixels
from tasks.records import Finding, Region
from tasks.settings import DATASETS

Floats = NDArray[np.float64]

#: Long side at which colours are looked at.
_SIDE = 256


def lab(rgb: NDArray[np.uint8]) -> Floats:
    """Return CIE L*a*b* (D65) of RGB pixels, any shape ending in 3."""
    flat = np.ascontiguousarray(rgb.reshape(-1, 1, 3), dtype=np.float32) / 255
    out = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)
    return np.asarray(out, dtype=np.float64).reshape(rgb.shape)


def ciede2000(one: Floats, two: Floats) -> Floats:
    """Return the CIEDE2000 difference of two arrays of L*a*b* colours, broadcast together.

    Sharma, Wu and Dalal, Color Research and Application 30 (2005), equations 2 to 22.
    """
    l1, a1, b1 = np.moveaxis(one, -1, 0)
    l2, a2, b2 = np.moveaxis(two, -1, 0)
    mean_c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)))
    ap1, ap2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(ap1, b1), np.hypot(ap2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, ap1)) % 360, np.degrees(np.arctan2(b2, ap2)) % 360
    grey = c1 * c2 == 0
    dh = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    dl, dc = l2 - l1, c2 - c1
    dbig = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2)
    ml, mc = (l1 + l2) / 2, (c1 + c2) / 2
    far = np.abs(h1 - h2) > 180
    mh = np.where(far, (h1 + h2 + 360) / 2 % 360, (h1 + h2) / 2)
    mh = np.where(grey, h1 + h2, mh)
    t = (
        1
        - 0.17 * np.cos(np.radians(mh - 30))
        + 0.24 * np.cos(np.radians(2 * mh))
        + 0.32 * np.cos(np.radians(3 * mh + 6))
        - 0.20 * np.cos(np.radians(4 * mh - 63))
    )
    sl = 1 + 0.015 * (ml - 50) ** 2 / np.sqrt(20 + (ml - 50) ** 2)
    sc, sh = 1 + 0.045 * mc, 1 + 0.015 * mc * t
    turn = np.radians(60 * np.exp(-(((mh - 275) / 25) ** 2)))
    rt = -2 * np.sqrt(mc**7 / (mc**7 + 25.0**7)) * np.sin(turn)
    return np.asarray(
        np.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dbig / sh) ** 2 + rt * (dc / sc) * (dbig / sh)),
        dtype=np.float64,
    )


def colour_bins(rgb: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the colours of a reduced picture in bins of 5 bits a channel, and their shares."""
    small = reduced(rgb, _SIDE).reshape(-1, 3)
    codes = (small >> 3).astype(np.int32) @ np.array([1024, 32, 1], dtype=np.int32)
    counts = np.bincount(codes, minlength=32_768)
    used = np.flatnonzero(counts)
    sums = [np.bincount(codes, weights=small[:, c], minlength=32_768)[used] for c in range(3)]
    mean = np.stack(sums, axis=1) / counts[used, None]
    return mean, counts[used] / len(small)


@dataclass(frozen=True, slots=True)
class Light:
    """What the highlights say about the light of a picture."""

    #: Level that the weakest channel ever reaches, as a share of the strongest one's.
    ceiling: float
    #: Level that the strongest channel reaches, 0 to 255.
    top: float
    #: Share of grey pixels as they are, and with the light taken out.
    grey: float
    grey_undone: float
    #: Chroma of the most coloured twentieth with the light taken out.
    colourful: float


def light(rgb: NDArray[np.uint8]) -> Light:
    """Estimate the light from the highlights (the white-patch assumption).

    Under coloured light no pixel is white, and things that are grey come out grey once the light
    is taken out. Coloured things under white light do not: something else turns coloured.
    """
    small = reduced(rgb, _SIDE).reshape(-1, 3)
    high = np.quantile(small, 0.995, axis=0)
    gain = np.maximum(high / max(float(high.max()), 1.0), 0.3)
    undone = np.clip(small / gain, 0, 255).astype(np.uint8)
    before, after = lab(small), lab(undone)
    seen = before[:, 0] > 8  # Near black everything is grey.
    chroma = np.hypot(before[:, 1], before[:, 2])
    chroma_undone = np.hypot(after[:, 1], after[:, 2])
    return Light(
        ceiling=float(high.min() / max(float(high.max()), 1.0)),
        top=float(high.max()),
        grey=float((chroma < 5)[seen].mean()) if seen.any() else 0.0,
        grey_undone=float((chroma_undone < 5)[seen].mean()) if seen.any() else 0.0,
        colourful=float(np.quantile(chroma_undone, 0.95)),
    )


@dataclass(frozen=True, slots=True)
class Cast:
    """No coloured light lies over the whole picture.

    A cast can only be told from a coloured scene where something is known to be neutral or to have
    a colour of its own. With a brand the logo's colours are the reference. With set type, whose
    letters or ground are nearly always neutral, the highlights and the greys must agree. Anything
    else is skipped: measured on photographs, blue sky alone passes for a cast.
    """

    #: Mean shift of the logo's pixels in a*b* above which there is a cast.
    shift: float = 4.0
    #: Highest ceiling of the weakest channel under a cast; below the lowest nothing neutral would
    #: show any more, and the tint is the picture's own.
    limit: float = 0.8
    lowest: float = 0.6
    datasets: Path = DATASETS
    name: str = "colour.cast"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: ceiling of the weakest channel, or 1 minus the logo's shift / 100 with a brand."""
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="too small to judge"
            )
        if expected.brand:
            moved = self._logo_shift(picture, expected)
            if moved is not None:
                far, direction = moved
                return self._finding(
                    bad=far > self.shift,
                    score=1 - far / 100,
                    limit=1 - self.shift / 100,
                    message=f"the logo's colours are moved towards {_towards(direction)}",
                )
        if not expected.intended_text and not expected.brand:
            return Finding(
                check=self.name,
                version=self.version,
                verdict="skip",
                message="no reference: neither a logo nor set type",
            )
        seen = light(picture.rgb)
        bad = (
            self.lowest <= seen.ceiling <= self.limit
            and seen.top >= 250
            and seen.grey_undone >= max(0.01, 0.5 * seen.grey)
            and seen.colourful >= 6
        )
        mean = lab(reduced(picture.rgb, 64)).reshape(-1, 3).mean(axis=0)[1:]
        return self._finding(
            bad=bad,
            score=seen.ceiling,
            limit=self.limit,
            message=f"a cast towards {_towards((float(mean[0]), float(mean[1])))} over everything",
        )

    def _logo_shift(
        self, picture: Picture, expected: Expected
    ) -> tuple[float, tuple[float, float]] | None:
        """Return how far and where to the logo's colours moved; ``None`` without a sure logo."""
        kit, logo = brand_logo(str(expected.brand), self.datasets)
        found = Logo(datasets=self.datasets).best(picture, kit, logo)
        if found.score < 0.9:
            return None
        shown, drawn, weight = logo_pixels(picture.rgb, logo, found)
        if weight.sum() < 50:
            return None
        difference = (lab(shown) - lab(drawn))[:, :, 1:]
        share = weight / weight.sum()
        # Lengths, not the length of the mean: a gain moves a blue and a yellow apart.
        far = float((np.hypot(difference[:, :, 0], difference[:, :, 1]) * share).sum())
        mean = (difference * share[:, :, None]).sum(axis=(0, 1))
        return far, (float(mean[0]), float(mean[1]))

    def _finding(self, *, bad: bool, score: float, limit: float, message: str) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if bad else "pass",
            score=round(score, 4),
            limit=round(limit, 4),
            message=message if bad else "",
        )


def _towards(moved: tuple[float, float]) -> str:
    """Name the direction of a shift in a* and b*."""
    names = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "magenta")
    edges = (20, 55, 80, 120, 180, 225, 290, 330)
    hue = float(np.degrees(np.arctan2(moved[1], moved[0])) % 360)
    for name, edge in zip(names, edges, strict=True):
        if hue < edge:
            return name
    return "red"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of the brand's palette are noticeably there."""

    #: Share of the palette's colours that must be there.
    limit: float = 0.5
    #: CIEDE2000 up to which a pixel counts as a palette colour, and the share of such pixels that
    #: makes the colour noticeable.
    near: float = 7.0
    coverage: float = 0.003
    datasets: Path = DATASETS
    name: str = "colour.palette"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: share of the palette's colours that are noticeably there."""
        if not expected.brand:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no brand asked for"
            )
        kit, _ = brand_logo(expected.brand, self.datasets)
        colours, shares = colour_bins(picture.rgb)
        wanted = lab(np.array(kit.colours, dtype=np.uint8))
        seen = lab(np.rint(colours).astype(np.uint8))
        distance = ciede2000(seen[:, None, :], wanted[None, :, :])
        found = ((distance <= self.near) * shares[:, None]).sum(axis=0) >= self.coverage
        score = float(found.mean())
        missing = [c for c, there in zip(kit.palette, found, strict=True) if not there]
        good = score >= self.limit
        height, width = picture.rgb.shape[:2]
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            message=""
            if good
            else f"colours of {kit.name!r} that are hardly there: {', '.join(missing)}",
            region=None if good else Region(x=0, y=0, width=width, height=height),
        )
