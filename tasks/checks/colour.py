"""Are the colours right: no cast over the picture, and the brand's palette used?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture
from tasks.checks.blank import reduced
from tasks.checks.logo import brand_logo, find_logo
from tasks.records import Finding
from tasks.settings import DATASETS

#: The palette is looked for at this size.
_SIDE = 96
#: CIE76 distance in Lab up to which a pixel counts as a palette colour under some light.
_NEAR = 16.0


def channel_gains(rgb: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the gain of each channel that turns the reference into the picture, least squares.

    Args:
        rgb: Pixels as n × 3.
        reference: What they should be, n × 3.
    """
    seen, wanted = rgb.astype(np.float64), reference.astype(np.float64)
    # Clipped pixels would hide a gain above one.
    open_ = (seen < 250).all(axis=1)
    if open_.sum() > 50:
        seen, wanted = seen[open_], wanted[open_]
    power = (wanted * wanted).sum(axis=0)
    return np.asarray((seen * wanted).sum(axis=0) / np.maximum(power, 1.0))


@dataclass(frozen=True, slots=True)
class Cast:
    """Coloured light over the whole picture, measured where the true colours are known: the logo.

    Without such a reference a strong hue may be what was asked for, and the check skips.
    """

    limit: float = 0.12
    datasets: Path = DATASETS
    name: str = "colour.cast"
    version: str = "1"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: the largest difference between the gains of two channels, relative to the mean."""
        if expected.brand is None:
            return self._finding("skip", None, "no reference for the colours: no brand was asked for")
        kit, logo = brand_logo(expected.brand, self.datasets)
        match = find_logo(picture.rgb, logo, kit.logo.width)
        seen = match.region
        height, width = picture.rgb.shape[:2]
        cut = seen.x < 0 or seen.y < 0
        cut = cut or seen.x + seen.width > width or seen.y + seen.height > height
        if match.score < 0.5 or cut:
            return self._finding("skip", None, "no reference for the colours: the logo is not there")
        patch = picture.rgb[seen.y : seen.y + seen.height, seen.x : seen.x + seen.width]
        template = cv2.resize(logo, (seen.width, seen.height), interpolation=cv2.INTER_AREA)
        solid = template[..., 3] > 250
        gains = channel_gains(patch[solid], template[..., :3][solid])
        score = float((gains.max() - gains.min()) / max(gains.mean(), 1e-6))
        if score <= self.limit:
            return self._finding("pass", score, "")
        strong = ("red", "green", "blue")[int(gains.argmax())]
        weak = ("red", "green", "blue")[int(gains.argmin())]
        return self._finding("fail", score, f"colour cast: {strong} over {weak} by {score:.0%}")

    def _finding(self, verdict: str, score: float | None, message: str) -> Finding:
        return Finding.model_validate(
            {
                "check": self.name,
                "version": self.version,
                "verdict": verdict,
                "score": None if score is None else round(score, 4),
                "limit": self.limit,
                "higher_is_better": False,
                "message": message,
            }
        )


@dataclass(frozen=True, slots=True)
class Palette:
    """The brand's colours, visibly used."""

    limit: float = 0.03
    datasets: Path = DATASETS
    name: str = "colour.palette"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: share of the picture within a visible step of a palette colour."""
        if expected.brand is None:
            return Finding(
                check=self.name,
                version=self.version,
                verdict="skip",
                message="no brand was asked for",
            )
        kit, _ = brand_logo(expected.brand, self.datasets)
        share = palette_share(picture.rgb, kit.colours)
        good = share >= self.limit
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(share, 4),
            limit=self.limit,
            message="" if good else f"the colours of {kit.name} are hardly used",
        )


def palette_share(
    rgb: NDArray[np.uint8], colours: tuple[tuple[int, int, int], ...]
) -> float:
    """Return the share of pixels near a palette colour; white and black do not count as brand."""
    lab = _lab(reduced(rgb, _SIDE).reshape(-1, 1, 3)).reshape(-1, 3)
    palette = _lab(np.array(colours, np.uint8).reshape(-1, 1, 3)).reshape(-1, 3)
    coloured = palette[np.hypot(palette[:, 1], palette[:, 2]) > 10]
    wanted = coloured if len(coloured) else palette
    distance = np.linalg.norm(lab[:, None, :] - wanted[None, :, :], axis=2).min(axis=1)
    return float((distance < _NEAR).mean())


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
