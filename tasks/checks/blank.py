"""Is there a picture at all? Blank ones, and blurs that stand for a refusal."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture
from tasks.checks.marks import marks
from tasks.records import Finding

#: Both checks look at the picture at this size: noise averages out, shapes stay.
_SIDE = 128
#: Below this nothing is said: icons are flat, thumbnails are soft, and no model draws so small.
MIN_SIDE = 128


def reduced(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the picture with its long side at most ``side`` pixels, averaged."""
    height, width = rgb.shape[:2]
    ratio = side / max(height, width)
    if ratio >= 1:
        return rgb
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    # Several checks look at the same few sizes of a picture.
    kept = _kept_for(rgb)
    small = kept.get(size) if kept is not None else None
    if small is None:
        small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        if kept is not None:
            small.setflags(write=False)
            kept[size] = small
    return small


#: The decoded picture that was reduced last, and what it was reduced to.
_Kept = tuple["weakref.ref[NDArray[np.uint8]]", dict[tuple[int, int], NDArray[np.uint8]]]
_LAST: list[_Kept] = []


def _kept_for(rgb: NDArray[np.uint8]) -> dict[tuple[int, int], NDArray[np.uint8]] | None:
    """Return what a picture was reduced to so far; ``None`` where that must not be kept.

    Kept only for what the decoder made: an array over bytes, which nobody can change.
    """
    if not isinstance(cast(object, rgb.base), bytes):
        return None
    if _LAST and _LAST[0][0]() is rgb:
        return _LAST[0][1]
    found: dict[tuple[int, int], NDArray[np.uint8]] = {}
    _LAST[:] = [(weakref.ref(rgb), found)]
    return found


def drawn_share(rgb: NDArray[np.uint8]) -> float:
    """Return the share of pixels that differ visibly from the picture's median colour."""
    small = reduced(rgb, _SIDE).reshape(-1, 3).astype(np.int16)
    far = np.abs(small - np.median(small, axis=0)).max(axis=1) > 12
    return float(far.mean())


def sharpness(rgb: NDArray[np.uint8]) -> float:
    """Return the steepest edges of the reduced picture, per pixel, as a share of its contrast.

    A hard edge gives 0.5 and more at 128 pixels, a Gaussian blur of a sixteenth of the picture
    less than 0.07 whatever it shows.
    """
    grey = cv2.cvtColor(reduced(rgb, _SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.quantile(grey, (0.01, 0.99))
    across, down = np.diff(grey, axis=1)[:-1, :], np.diff(grey, axis=0)[:, :-1]
    return float(np.quantile(np.hypot(across, down), 0.995) / (high - low + 1))


@dataclass(frozen=True, slots=True)
class Blank:
    """One colour and nothing else: no share of another colour, and no clear mark either."""

    limit: float = 0.003
    name: str = "composition.blank"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: share of the picture that is not its median colour; the limit for clear marks."""
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="too small to judge"
            )
        score = drawn_share(picture.rgb)
        if score < self.limit and marks(picture.rgb) is not None:
            score = self.limit
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

    Only where something is known to have been asked for: a soft gradient may be what was wanted.
    """

    limit: float = 0.09
    name: str = "safety.refusal"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: steepest edges as a share of the contrast."""
        asked = expected.prompt, expected.subtask, expected.intended_text, expected.brand
        if not any(asked):
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no request is known"
            )
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="too small to judge"
            )
        if drawn_share(picture.rgb) < Blank().limit:
            return Finding(
                check=self.name,
                version=self.version,
                verdict="skip",
                message="nearly blank, not blurred",
            )
        score = sharpness(picture.rgb)
        if score < self.limit and marks(picture.rgb) is not None:
            score = self.limit  # Small things with hard edges: reduced, they were lost.
        good = score >= self.limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            message="" if good else "the whole picture is blurred: a refusal without a reason",
        )
