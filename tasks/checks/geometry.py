"""Is the picture as large and as wide as asked for, and the right way up?"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import MIN_SIDE, reduced
from tasks.records import Finding

#: Long side at which a picture is laid over its upload, and at which once more where no way of
#: lying fits so well, and so far better than the next.
_SIDE, _FINE = 32, 64
_SURE, _AHEAD = 0.7, 0.12
#: What an edit may show of its upload, as a share of the largest crop of its shape; how many times
#: the crop the upload may be, which thin strips exceed; deviation of the relief that is noise.
_ZOOMS = tuple(float(zoom) for zoom in np.geomspace(0.6, 1.0, 7))
_MOST = 24
_NOISE = 0.005
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

    The picture is laid over the upload in all eight ways it can lie, each as an edit may have
    cropped it. What fits as well in another way as upright, as what is symmetrical, fails in none.
    """

    #: Correlation from which a picture shows its upload, and by how much another way must fit
    #: better than the upright one. Of 512 edits, drawn and real, the right way reaches 0.72 and is
    #: 0.1 ahead of the next one in 99 of 100; of 112 pairs of strangers no way reaches 0.6.
    alike: float = 0.6
    limit: float = 0.06
    name: str = "geometry.orientation"
    version: str = "3"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: by how much the best other way correlates better than the upright one."""
        upload = picture.reference("upload")
        if upload is None or min(*picture.rgb.shape[:2], *upload.shape[:2]) < MIN_SIDE:
            return self._skip("no upload to compare with" if upload is None else "too small")
        fits = way_fits(picture.rgb, upload)
        upright = fits.pop((0, False))
        way = max(fits, key=lambda key: fits[key])
        if max(upright, fits[way]) < self.alike:
            return self._skip("the picture does not look like its upload")
        score = fits[way] - upright
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

    def _skip(self, why: str) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict="skip",
            higher_is_better=False,
            message=why,
        )


def way_fits(rgb: Pixels, upload: Pixels) -> dict[_Way, float]:
    """Return how well a picture fits its upload in the ways that it can lie, as correlations.

    Of each way that of the best crop counts. A coarse look is enough where one way is far ahead;
    else the upright way and the best others, and only those, are looked at more closely.
    """
    fits = _fits(rgb, upload, _SIDE, _WAYS)
    first, second, *_ = sorted(fits.values(), reverse=True)
    if first >= _SURE and first - second >= _AHEAD:
        return fits
    others = sorted(fits, key=lambda way: fits[way], reverse=True)[:3]
    return _fits(rgb, upload, _FINE, {(0, False), *others})


def _fits(rgb: Pixels, upload: Pixels, side: int, ways: Collection[_Way]) -> dict[_Way, float]:
    small = _grey(reduced(rgb, side))
    shown = _relief(small)
    # Enough of the upload for the smallest crop, made once.
    before = _grey(reduced(upload, 4 * side))
    fits: dict[_Way, float] = {}
    for lying in (False, True):
        height, width = small.shape[1::-1] if lying else small.shape[:2]
        templates = {way: _back(shown, way) for way in ways if way[0] % 2 == lying}
        if not templates:
            continue
        best = dict.fromkeys(templates, 0.0)
        for scene in _scenes(before, width, height):
            spread = _spread(scene, width, height)
            for way, template in templates.items():
                size = float(np.linalg.norm(template)) + 1e-6
                found = cv2.matchTemplate(scene, template, cv2.TM_CCORR) / (spread * size)
                best[way] = max(best[way], float(found.max()))
        fits |= best
    return fits


def _back(shown: NDArray[np.float32], way: _Way) -> NDArray[np.float32]:
    """Return a picture that lies in some way turned back, with mean 0."""
    turned = np.rot90(shown, -way[0])
    turned = turned[:, ::-1] if way[1] else turned
    return np.ascontiguousarray(turned - turned.mean())


def _scenes(upload: NDArray[np.float32], width: int, height: int) -> Iterator[NDArray[np.float32]]:
    """Yield the relief of an upload at each size at which a crop is as large as a template."""
    fit = min(upload.shape[1] / width, upload.shape[0] / height)
    for zoom in _ZOOMS:
        columns = max(width, round(upload.shape[1] / fit / zoom))
        rows = max(height, round(upload.shape[0] / fit / zoom))
        if columns * rows <= _MOST * width * height:
            shrinks = columns <= upload.shape[1] and rows <= upload.shape[0]
            how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            sized = cv2.resize(upload, (columns, rows), interpolation=how)
            yield _relief(np.asarray(sized, np.float32))


def _spread(scene: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Return the norm of every window of a size around its mean; of flat ones that of noise."""
    sums, squares = cv2.integral2(scene, sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)

    def windows(table: NDArray[Any]) -> NDArray[Any]:
        inner = table[height:, width:] - table[:-height, width:]
        return np.asarray(inner - table[height:, :-width] + table[:-height, :-width])

    count = width * height
    around = windows(squares) - windows(sums) ** 2 / count
    return np.asarray(np.sqrt(np.maximum(around, 0) + count * _NOISE**2), np.float32)


def _grey(rgb: Pixels) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


def _relief(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logarithm of the lightness less that of its surroundings.

    An edit may brighten everything, put other light on it or change the tones of large parts, and
    must still be recognised.
    """
    light = np.log(cv2.GaussianBlur(grey, (0, 0), 0.8) + 8)
    around = cv2.GaussianBlur(light, (0, 0), max(grey.shape) / 10)
    return np.asarray(light - around, np.float32)
