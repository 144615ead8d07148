"""The picture beside the upload that it was made from: laid over each other, colour by colour."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Picture
from tasks.checks.blank import reduced
from tasks.checks.colour_space import Floats, lab

Pixels = NDArray[np.uint8]

#: Long side of the upload at which both are compared.
_SIDE = 64
#: Part of the upload that an edit may still show after a crop.
_ZOOMS = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7)
#: Correlation of the lightness from which both show the same scene, where one was made from the
#: other; and where nothing says so: of 6,000 pairs of unlike photographs the best had 0.876.
_SAME_SCENE, _TWIN = 0.6, 0.92
#: Difference of the channels' logarithms up to which a pixel is nearly neutral.
_NEUTRAL = 0.4
#: Orders of red, green and blue; the first is the right one.
ORDERS = tuple(itertools.permutations((0, 1, 2)))


def reference(picture: Picture) -> tuple[Pixels | None, bool]:
    """Return what a picture was made from, and whether a prompt may have changed its colours.

    The upload of an edit may be changed, the small source of an enlargement may not.

    Raises:
        ValueError: It is there and cannot be read.
    """
    upload = picture.reference("upload")
    if upload is not None:
        return upload, True
    return picture.reference("source"), False


def twin(picture: Picture) -> Overlay | None:
    """Return the picture over the baseline's, where both show the very same scene.

    Another model draws another scene from the same prompt, and then the two say nothing about each
    other; one that only works on what a model drew, or draws it again, shows the same.
    A baseline's picture that cannot be read is the baseline's trouble: none is known then.
    """
    before = picture.references.get("baseline")
    return None if before is None else overlay(picture.rgb, before, alike=_TWIN)


@dataclass(frozen=True, slots=True)
class Overlay:
    """The same part of a picture and of its upload, pixel by pixel, where nothing may differ."""

    #: Number of pixels × 3, RGB.
    picture: Pixels
    upload: Pixels
    #: Correlation of the lightness.
    likeness: float


def overlay(
    rgb: Pixels, upload: Pixels, mask: Pixels | None = None, *, alike: float = _SAME_SCENE
) -> Overlay | None:
    """Find the part of the upload that a picture shows, at a size of 64 pixels.

    Args:
        rgb: The picture.
        upload: What it was made from.
        mask: White where the upload may change; those pixels are left out.
        alike: Correlation of the lightness from which both show the same scene.

    Returns:
        ``None`` when the picture shows another scene.
    """
    small = reduced(upload, _SIDE)
    height, width = small.shape[:2]
    # Once to a middle size: the tries below then cost nearly nothing.
    rgb = reduced(rgb, 4 * _SIDE)
    whole = min(width / rgb.shape[1], height / rgb.shape[0])
    ground = small.astype(np.float32).mean(axis=2)
    best: tuple[float, int, int, Pixels] | None = None
    for zoom in _ZOOMS:
        size = (round(rgb.shape[1] * whole * zoom), round(rgb.shape[0] * whole * zoom))
        if min(size) < 8:
            continue
        shown = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
        # The mean of the channels: exchanging them must not hide the scene.
        grey = shown.astype(np.float32).mean(axis=2)
        if float(grey.std()) < 1 or float(ground.std()) < 1:
            return None
        scores = cv2.matchTemplate(ground, grey, cv2.TM_CCOEFF_NORMED)
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        score = float(scores[row, column])
        if np.isfinite(score) and (best is None or score > best[0]):
            best = (score, int(row), int(column), shown)
    if best is None or best[0] < alike:
        return None
    score, top, left, shown = best
    rows, columns = slice(top, top + shown.shape[0]), slice(left, left + shown.shape[1])
    kept = np.ones(shown.shape[:2], bool)
    if mask is not None:
        fitted = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        kept = np.asarray(fitted).reshape(height, width, -1).max(axis=2)[rows, columns] < 32
    if int(kept.sum()) < 64:
        return None
    return Overlay(shown[kept], small[rows, columns][kept], score)


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit did to the colour of the light, in natural logarithms without the lightness."""

    #: Typical change of red, green and blue where both show something.
    moved: Floats
    #: Share of the pixels that were moved in this direction.
    agreed: float
    #: Colour of the highlights of the picture and of the upload; zero is neutral.
    tint: Floats
    tint_before: Floats
    #: Colour of what is nearly neutral, in the picture and in the upload.
    grey: Floats
    grey_before: Floats

    @property
    def strayed(self) -> float:
        """How far the light is from every light between the upload's and a neutral one.

        What takes a light off, in part or all of it, stays between the two. Highlights and greys
        each say where the light is; neither is right alone: cloth may be cream, snow in shade blue.
        """
        pairs = ((self.tint, self.tint_before), (self.grey, self.grey_before))
        return float(np.mean([_beside(there, before) for there, before in pairs]))


def _beside(there: Floats, before: Floats) -> float:
    """Return the distance of one colour from the way between another and neutral."""
    length = float(before @ before)
    part = float(np.clip(there @ before / length, 0, 1)) if length > 1e-9 else 0.0
    return float(np.ptp(there - part * before))


def change(both: Overlay) -> Change | None:
    """Measure the change of light from the upload to the picture.

    Only what is nearly neutral under the upload's own light is asked: more contrast moves what is
    coloured as a gain would, and leaves greys grey.

    Returns:
        ``None`` when there is hardly anything neutral to ask.
    """
    one, two = both.picture.astype(np.float64), both.upload.astype(np.float64)
    before = np.log(two + 4)
    before -= before.mean(axis=1, keepdims=True) + _tint(two)
    seen = (two.max(axis=1) >= 24) & (one.max(axis=1) >= 24) & (one.min(axis=1) <= 250)
    seen &= np.ptp(before, axis=1) <= _NEUTRAL
    if int(seen.sum()) < max(32, 0.05 * len(seen)):
        return None
    gain = np.log((one[seen] + 4) / (two[seen] + 4))
    gain -= gain.mean(axis=1, keepdims=True)
    moved = np.median(gain, axis=0)
    length = float(np.linalg.norm(moved))
    along = gain @ moved / max(length, 1e-9)
    return Change(
        moved=moved,
        agreed=float((along > length / 2).mean()),
        tint=_tint(one),
        tint_before=_tint(two),
        grey=_middle(one[seen]),
        grey_before=_middle(two[seen]),
    )


def _middle(pixels: Floats) -> Floats:
    """Return the median colour of pixels, as logarithms around zero."""
    logs = np.log(pixels + 4)
    return np.asarray(np.median(logs - logs.mean(axis=1, keepdims=True), axis=0))


def _tint(pixels: Floats) -> Floats:
    """Return the colour of the highlights, as logarithms around zero."""
    high = np.log(np.maximum(np.quantile(pixels, 0.98, axis=0), 8))
    return np.asarray(high - high.mean())


def order_distances(both: Overlay) -> Floats:
    """Return how far the picture's colours are from the upload's under each of :data:`ORDERS`.

    The k-th number is the mean distance in a*b* once the picture's channels are put into the k-th
    order; the light is made equal first, so that another white balance does not count.
    """
    wanted = lab(_balanced(both.upload))[:, 1:]
    balanced = _balanced(both.picture)
    shifts = [lab(balanced[:, list(order)])[:, 1:] - wanted for order in ORDERS]
    return np.array([np.hypot(s[:, 0], s[:, 1]).mean() for s in shifts])


def _balanced(pixels: Pixels) -> Pixels:
    """Return pixels with equal highlights in all channels and the same lightness."""
    values = pixels.astype(np.float64)
    high = np.maximum(np.quantile(values, 0.98, axis=0), 8)
    return np.clip(values * 230 / high, 0, 255).astype(np.uint8)
