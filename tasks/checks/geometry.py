"""Is the picture as large and as wide as asked for?"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.checks.base import Expected, Picture
from tasks.records import Finding


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
            message="" if good else f"aspect ratio {got:.3f} instead of {wanted:.3f}",
        )
