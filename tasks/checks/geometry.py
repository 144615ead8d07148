"""Is the picture as large and as wide as asked for, and the right way up?"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import MIN_SIDE
from tasks.records import Finding

#: Side of the squares on which a picture and its upload are compared, and of those on which they
#: are once more where several ways fit alike.
_SIDE, _FINE = 24, 96
#: A way in which a picture may lie: quarter turns against the clock, then mirrored or not.
_Way = tuple[int, bool]
_WAYS: dict[_Way, str] = {
    (0, False): "as it is",
    (1, False): "turned by a quarter to the left",
    (2, False): "upside down",
    (3, False): "turned by a quarter to the right",
    (0, True): "mirrored",
    (1, True): "mirrored and turned by a quarter",
    (2, True): "mirrored and upside down",
    (3, True): "mirrored and turned by a quarter",
}


@dataclass(frozen=True, slots=True)
class Size:
    """Exact width and height in pixels, when both or one of them are asked for."""

    name: str = "geometry.size"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: 1 when the size is exact, else the smaller of the two ratios got / wanted."""
        height, width = picture.rgb.shape[:2]
        pairs = [
            (got, wanted)
            for got, wanted in ((width, expected.width), (height, expected.height))
            if wanted is not None
        ]
        if not pairs:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no size asked for"
            )
        good = all(got == wanted for got, wanted in pairs)
        score = min(min(got / wanted, wanted / got) for got, wanted in pairs)
        asked = f"{expected.width or 'any'}×{expected.height or 'any'}"
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=1.0,
            message="" if good else f"{width}×{height} pixels instead of {asked}",
        )


@dataclass(frozen=True, slots=True)
class Aspect:
    """Width divided by height, within ``tolerance``."""

    #: Providers round sides to multiples of 8 to 64 pixels; 2 % covers that at 512 pixels.
    tolerance: float = 0.02
    name: str = "geometry.aspect"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: the smaller of got / wanted and wanted / got."""
        height, width = picture.rgb.shape[:2]
        wanted = expected.aspect
        if wanted is None and expected.width and expected.height:
            wanted = expected.width / expected.height
        if wanted is None:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no shape asked for"
            )
        got = width / height
        score = min(got / wanted, wanted / got)
        # Sides are whole pixels: a thin strip may be off by a rounded half pixel and no more.
        limit = 1 - max(self.tolerance, 0.5 / min(width, height))
        good = score >= limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=round(limit, 4),
            message="" if good else _shape(got, wanted, 1 - limit),
        )


def _shape(got: float, wanted: float, tolerance: float) -> str:
    """Describe a wrong shape; the right one on its side is named."""
    lying = abs(got * wanted - 1) <= tolerance and abs(wanted - 1) > tolerance
    names = ("portrait", "landscape")
    turned = f": {names[got > 1]} where {names[wanted > 1]} was asked for" if lying else ""
    return f"aspect ratio {got:.3f} instead of {wanted:.3f}{turned}"


@dataclass(frozen=True, slots=True)
class Orientation:
    """An edited picture lies as its upload does: not turned and not mirrored.

    The light and dark parts of both are compared in all eight ways they can lie. Where another way
    fits about as well as the upright one, as with a centred poster, or better but not well, as by
    chance beside a crop, finer parts decide: letters are no symmetry, and chance ends with them.
    What looks alike in several ways in them too fails in none.
    """

    #: Correlation from which a picture shows its upload, and by how much another way must fit
    #: better than the upright one.
    alike: float = 0.6
    limit: float = 0.2
    #: By how much another way may fit worse and is still looked at closely. A way that fits like
    #: this is sure; in finer parts only the very same picture does.
    near: float = 0.1
    sure: float = 0.8
    #: Correlation of the finer parts that proves a way which fits better without being sure.
    proven: float = 0.6
    name: str = "geometry.orientation"
    version: str = "2"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: by how much the best other way correlates better than the upright one."""
        upload = picture.reference("upload")
        if upload is None or min(*picture.rgb.shape[:2], *upload.shape[:2]) < MIN_SIDE:
            return self._skip("no upload to compare with" if upload is None else "too small")
        fits = _fits(picture.rgb, upload, _SIDE)
        if fits is None:
            return self._skip("too plain to compare")
        upright = fits.pop((0, False))
        way = max(fits, key=lambda key: fits[key])
        if max(upright, fits[way]) < self.alike:
            return self._skip("the picture does not look like its upload")
        # One that fits nearly as well upright may be another crop: only a clear gain counts.
        score = fits[way] - upright
        if score > self.limit and fits[way] < self.sure:
            way, score = self._closely(picture.rgb, upload, self.proven) or (way, 0.0)
        elif -self.near <= score <= self.limit:
            way, score = self._closely(picture.rgb, upload, self.sure) or (way, score)
        good = score <= self.limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            higher_is_better=False,
            message="" if good else f"the picture is {_WAYS[way]}, compared with its upload",
        )

    def _closely(self, rgb: Pixels, upload: Pixels, least: float) -> tuple[_Way, float] | None:
        """Return the other way that the finer parts prove, and its gain; ``None`` without one."""
        fits = _fits(rgb, upload, _FINE)
        if fits is None:
            return None
        upright = fits.pop((0, False))
        best = max(fits, key=lambda key: fits[key])
        gain = fits[best] - upright
        return (best, gain) if fits[best] >= least and gain > self.limit else None

    def _skip(self, why: str) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict="skip",
            higher_is_better=False,
            message=why,
        )


def _fits(rgb: Pixels, upload: Pixels, side: int) -> dict[_Way, float] | None:
    """Return how well an upload fits a picture in each way that it can lie, as correlations.

    ``None`` where one of them is too plain to be compared.
    """
    shown = _lights(rgb, side)
    aspect = rgb.shape[1] / rgb.shape[0]
    straight, lying = (_lights(_cropped(upload, a), side) for a in (aspect, 1 / aspect))
    if shown is None or straight is None or lying is None:
        return None
    fits = {}
    for turns, flipped in _WAYS:
        sent = lying if turns % 2 else straight
        sent = np.rot90(sent[:, ::-1] if flipped else sent, turns)
        fits[turns, flipped] = float((shown * sent).mean())
    return fits


def _cropped(rgb: Pixels, aspect: float) -> Pixels:
    """Return the middle of a picture in another shape: edits that change the shape crop to it."""
    height, width = rgb.shape[:2]
    columns = min(width, max(1, round(height * aspect)))
    rows = min(height, max(1, round(width / aspect)))
    left, top = (width - columns) // 2, (height - rows) // 2
    return rgb[top : top + rows, left : left + columns]


def _lights(rgb: Pixels, side: int) -> NDArray[np.float64] | None:
    """Return the picture's lightness on a small square, with mean 0 and deviation 1.

    Ranks instead of levels: an edit may brighten everything and must still be recognised.
    ``None`` for a picture that is too plain to be compared.
    """
    step = max(1, min(rgb.shape[:2]) // (8 * side))
    small = cv2.resize(
        np.ascontiguousarray(rgb[::step, ::step]), (side, side), interpolation=cv2.INTER_AREA
    )
    grey = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    low, high = np.quantile(grey, (0.1, 0.9))
    if high - low < 12:
        return None
    ranks = np.argsort(np.argsort(grey, axis=None)).astype(np.float64).reshape(grey.shape)
    return np.asarray((ranks - ranks.mean()) / ranks.std(), dtype=np.float64)
