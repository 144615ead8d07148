"""Search a whole picture for a logo: coarsely, in grey, in several sizes.

Normalised correlation under a mask, by Fourier transforms. The picture is transformed once for all
sizes, and the logo in one size once for all pictures of a run that are equally large.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels
from tasks.checks.fixed import Fixed, unchangeable
from tasks.checks.logo_match import Hit, apart, peaks
from tasks.records import Region

#: Width of the logo, in pixels, at which the whole picture is searched.
_WIDTH = 36
SCALES = (1.0, 0.85, 1.15)
#: Sizes that are tried when the logo is not there at its own.
ODD_SCALES = (0.75, 1.3, 0.65, 1.5, 0.55, 1.75, 2.0, 0.45)
#: Variance of grey levels up to which a place is plain: what is left there is rounding.
_PLAIN = 0.05

Floats = NDArray[np.float32]


class _Template(NamedTuple):
    """A logo in one size, ready to be correlated with pictures of one size."""

    #: Spectra, packed as ``cv2.dft`` packs them: of the logo without its mean under the mask, of
    #: the mask and of the squared mask.
    drawn: Floats
    mask: Floats
    squared: Floats
    #: Norm of the logo under the mask, and the sums of the mask and of the squared mask.
    norm: float
    weight: float
    weight_squared: float


def search_far(
    rgb: Pixels, logo: Pixels, wanted: Region, scales: Iterable[float] = SCALES
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
    factor = max(1, round(wanted.width / _WIDTH))
    ratio = 1 / factor
    across, down = max(1, rgb.shape[1] // factor), max(1, rgb.shape[0] // factor)
    small = cv2.resize(
        rgb[: down * factor, : across * factor], (across, down), interpolation=cv2.INTER_AREA
    )
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    edge = max(1, round(pad * ratio))
    searched = _Searched(np.pad(np.asarray(grey, np.uint8), edge, mode="edge"))
    hits: list[Hit] = []
    for scale in scales:
        columns = max(4, round(wanted.width * ratio * scale))
        rows = max(4, round(wanted.height * ratio * scale))
        if rows <= searched.shape[0] and columns <= searched.shape[1]:
            scores = searched.scores(logo, columns, rows)
            hits += [
                Hit(
                    score, (x - edge) * factor, (y - edge) * factor, columns * factor, rows * factor
                )
                for score, x, y in peaks(scores, columns, rows, most=3)
            ]
    hits.sort(reverse=True)
    kept: list[Hit] = []
    for hit in hits:
        if all(apart(hit, other) for other in kept):
            kept.append(hit)
    return kept[:6]


class _Searched:
    """A grey picture that is correlated with one logo after the other."""

    def __init__(self, grey: Pixels) -> None:
        self.shape: tuple[int, int] = grey.shape
        # Halves of even sizes: the transforms of others take twice as long.
        self._size = (_good(grey.shape[0]), _good(grey.shape[1]))
        # A constant changes no correlation; near 0 less is lost by rounding.
        values = grey.astype(np.float32) - np.float32(grey.mean())
        self._values = _spectrum(values, self._size)
        self._squares = _spectrum(values * values, self._size)

    def scores(self, logo: Pixels, columns: int, rows: int) -> Floats:
        """Return the correlation of the opaque part of a logo with each place, -1 to 1."""
        template = _template(logo, columns, rows, self._size)
        like = self._correlated(self._values, template.drawn, columns, rows)
        mean = self._correlated(self._values, template.mask, columns, rows)
        cross = self._correlated(self._values, template.squared, columns, rows)
        spread = self._correlated(self._squares, template.squared, columns, rows)
        # Sum of (mask × (value - mean under the mask))² in each place.
        mean /= np.float32(template.weight)
        spread += mean * (np.float32(template.weight_squared) * mean - 2 * cross)
        plain = spread <= np.float32(_PLAIN * template.weight_squared)
        spread[plain] = 1
        like /= np.sqrt(spread) * np.float32(max(template.norm, 1e-6))
        like[plain] = 0
        return np.clip(like, -1, 1, out=like)

    def _correlated(self, one: Floats, other: Floats, columns: int, rows: int) -> Floats:
        product = cv2.mulSpectrums(one, other, 0, conjB=True)
        whole = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE)
        height, width = self.shape
        return np.array(whole[: height - rows + 1, : width - columns + 1], np.float32)


def _good(length: int) -> int:
    return 2 * cv2.getOptimalDFTSize(-(-length // 2))


def _spectrum(values: Floats, size: tuple[int, int]) -> Floats:
    padded = np.zeros(size, np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    return np.asarray(cv2.dft(padded), np.float32)


def _template(logo: Pixels, columns: int, rows: int, size: tuple[int, int]) -> _Template:
    if unchangeable(logo):
        return _template_once(Fixed(logo), columns, rows, size)
    return _new_template(logo, columns, rows, size)


# A run has a few logos in a few sizes; one entry takes about 1 MB.
@functools.lru_cache(maxsize=24)
def _template_once(logo: Fixed, columns: int, rows: int, size: tuple[int, int]) -> _Template:
    return _new_template(logo.pixels, columns, rows, size)


def _new_template(logo: Pixels, columns: int, rows: int, size: tuple[int, int]) -> _Template:
    shown = cv2.resize(logo, (columns, rows), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(shown[:, :, :3], cv2.COLOR_RGB2GRAY).astype(np.float64)
    mask = shown[:, :, 3].astype(np.float64) / 255
    weight = max(float(mask.sum()), 1e-6)
    centred = mask * (grey - (mask * grey).sum() / weight)
    # What the mean of the picture under the mask would add, taken out beforehand.
    weighted = mask * centred
    weighted -= mask * (weighted.sum() / weight)
    squared = mask * mask
    return _Template(
        drawn=_spectrum(weighted.astype(np.float32), size),
        mask=_spectrum(mask.astype(np.float32), size),
        squared=_spectrum(squared.astype(np.float32), size),
        norm=float(np.sqrt((centred * centred).sum())),
        weight=weight,
        weight_squared=float(squared.sum()),
    )
