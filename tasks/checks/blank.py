"""Is there a picture at all? Blank ones, and blurs that stand for a refusal."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture
from tasks.records import Finding

#: Both checks look at the picture at this size: noise averages out, shapes stay.
_SIDE = 128
#: Below this nothing can be said: icons are flat and small pictures have no detail.
MIN_SIDE = 48


def reduced(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the picture with its long side at most ``side`` pixels, averaged."""
    height, width = rgb.shape[:2]
    ratio = side / max(height, width)
    if ratio >= 1:
        return rgb
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def drawn_share(rgb: NDArray[np.uint8]) -> float:
    """Return the share of pixels that differ visibly from the picture's median colour."""
    small = reduced(rgb, _SIDE).reshape(-1, 3).astype(np.int16)
    far = np.abs(small - np.median(small, axis=0)).max(axis=1) > 12
    return float(far.mean())


def sharpness(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """Return how much of the contrast is detail, and the strongest detail in grey levels.

    The first is the standard deviation of what a Gaussian of 2 pixels (at 128) takes away,
    divided by that of the picture: relative, so that dark and pale pictures count alike.
    """
    grey = cv2.cvtColor(reduced(rgb, _SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 2)
    share = float(detail.std() / max(float(grey.std()), 1.0))
    return share, float(np.quantile(np.abs(detail), 0.998))


@dataclass(frozen=True, slots=True)
class Blank:
    """One colour and nothing else."""

    limit: float = 0.003
    name: str = "composition.blank"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:  # noqa: ARG002 - one protocol
        """Score: share of the picture that is not its median colour."""
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="too small to judge"
            )
        score = drawn_share(picture.rgb)
        good = score >= self.limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            message="" if good else "blank: the picture is one colour",
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A picture blurred beyond recognition: how some providers refuse under HTTP 200.

    Both limits must be undercut; soft real pictures stay far above at least one of them.
    """

    limit: float = 0.06
    #: Strongest detail in grey levels.
    detail: float = 7.0
    name: str = "safety.refusal"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:  # noqa: ARG002 - one protocol
        """Score: share of the contrast that is detail."""
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="too small to judge"
            )
        if drawn_share(picture.rgb) < Blank().limit:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="blank, not blurred"
            )
        share, strongest = sharpness(picture.rgb)
        blurred = share < self.limit and strongest < self.detail
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if blurred else "pass",
            score=round(share, 4),
            limit=self.limit,
            message="the whole picture is blurred: a refusal without a finish reason"
            if blurred
            else "",
        )
