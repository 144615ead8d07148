"""Is there light in the picture, and a difference between light and dark?

Shy on purpose: night, fog and a line of type on white paper are good pictures. Only what is nearly
black, nearly white or nearly one tone all over, without a clear mark on it, fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tasks.checks import icc
from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import MIN_SIDE, reduced
from tasks.checks.marks import marks
from tasks.records import Finding

_SIDE = 128
#: Share of the picture that is passed over at either end: sparks and dirt.
_EDGE = 0.005


def tones(rgb: Pixels) -> tuple[float, float]:
    """Return the darkest and the brightest L* (0 to 100) that half a percent of a picture reaches.

    The picture is looked at with a long side of 128 pixels.
    """
    small = np.ascontiguousarray(reduced(rgb, _SIDE), dtype=np.float32) / 255
    lightness = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)[:, :, 0]
    low, high = np.quantile(lightness, (_EDGE, 1 - _EDGE))
    return float(low), float(high)


def _with_marks(rgb: Pixels) -> tuple[float, float]:
    """Return the tones of a picture with those of sparse but clear marks."""
    low, high = tones(rgb)
    found = marks(rgb)
    return (low, high) if found is None else (min(low, found.low), max(high, found.high))


def _unfit(picture: Picture) -> str:
    if min(picture.rgb.shape[:2]) < MIN_SIDE:
        return "too small to judge"
    why = icc.unknown(picture)
    return f"colours cannot be known: {why}" if why else ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """The picture is neither nearly black nor nearly white all over.

    An edit of an upload that is so itself passes when it is no worse than the upload.
    """

    #: L* that the brightest part must reach, and that the darkest must stay below 100.
    limit: float = 20.0
    name: str = "colour.exposure"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: L* of the brightest part, or 100 minus that of the darkest if this is less."""
        why = _unfit(picture)
        if why:
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        low, high = tones(picture.rgb)
        if min(high, 100 - low) < self.limit:
            low, high = _with_marks(picture.rgb)
        score = min(high, 100 - low)
        limit = self.limit
        upload = picture.reference("upload")
        if score < limit and upload is not None:
            before = _with_marks(upload)
            limit = min(limit, min(before[1], 100 - before[0]) - 1)
        message = (
            f"nearly black: the brightest part has a lightness of {high:.0f} of 100"
            if high < 100 - low
            else f"nearly white: the darkest part has a lightness of {low:.0f} of 100"
        )
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if score < limit else "pass",
            score=round(score, 3),
            limit=round(limit, 3),
            message=message if score < limit else "",
        )


@dataclass(frozen=True, slots=True)
class Contrast:
    """There is a difference between light and dark.

    An edit of an upload without contrast passes when it is no worse than the upload.
    """

    #: L* between the darkest and the brightest part. Real pictures begin at about 35, soft
    #: gradients at 20.
    limit: float = 12.0
    name: str = "colour.contrast"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: L* from the darkest to the brightest part, 0 to 100."""
        why = _unfit(picture)
        if why:
            return Finding(check=self.name, version=self.version, verdict="skip", message=why)
        low, high = tones(picture.rgb)
        if high - low < self.limit:
            low, high = _with_marks(picture.rgb)
        score, limit = high - low, self.limit
        upload = picture.reference("upload")
        if score < limit and upload is not None:
            before = _with_marks(upload)
            limit = min(limit, before[1] - before[0] - 1)
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if score < limit else "pass",
            score=round(score, 3),
            limit=round(limit, 3),
            message=f"hardly any contrast: lightness only from {low:.0f} to {high:.0f} of 100"
            if score < limit
            else "",
        )
