"""Is an edit still the upload, apart from what was to change?

All checks need the reference ``upload``. Nothing is measured against a norm: a dark or noisy
upload may stay dark or noisy, and its own contrast and grain are what the edit is held against.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import reduced
from tasks.checks.likeness import likeness, matching_points
from tasks.checks.pairs import (
    Floats,
    grain,
    luma,
    noise_of,
    reduced_to,
    second_differences,
    soft,
    ssim_map,
    tile_means,
)
from tasks.checks.upscale import Pair, pair, same_shape
from tasks.records import CheckVerdict, Finding, Region

NO_UPLOAD = "no upload: the picture is not an edit"
_LEAST = 48
#: A mask is white from this level; models blend over its border, so a part beside it is left out.
_WHITE = 64
_BORDER = 1 / 40
#: Visible contrast of the lit-up upload, as a variance in levels.
_CONTRAST = 200.0
#: Level to which the brightest parts of a dark upload are lit up for comparing, and the most gain.
_LIT, _MOST_LIT = 200.0, 6.0


def kept_area(mask: Pixels, width: int, height: int) -> NDArray[np.bool_]:
    """Return where nothing may change: outside of the white of the mask and of its border."""
    white = (reduced_to(mask, width, height).max(axis=2) >= _WHITE).astype(np.uint8)
    reach = 2 * max(2, round(max(width, height) * _BORDER)) + 1
    return np.asarray(cv2.dilate(white, np.ones((reach, reach), np.uint8)) == 0)


def lit(both: Pair) -> tuple[Floats, Floats, float]:
    """Return both lumas, lit up alike until the upload is bright, and the gain.

    What changes in a dark upload is then seen as in a bright one, and so is its noise.
    """
    one, two = luma(both.source), luma(both.result)
    gain = float(np.clip(_LIT / max(float(np.quantile(one, 0.98)), 1.0), 1.0, _MOST_LIT))
    return one * gain, two * gain, gain


def kept_similarity(both: Pair, kept: NDArray[np.bool_]) -> tuple[Floats, int]:
    """Return the similarity of the tile around every pixel over its kept part; 1 elsewhere.

    The grain of the upload itself is no structure: it is added to the variance that counts.
    """
    one, two, _ = lit(both)
    own = grain(one)
    field = ssim_map(soft(one, 1.2), soft(two, 1.2), c2=_CONTRAST + own * own)
    side = int(np.clip(max(one.shape) // 16, 24, 64))
    share = tile_means(kept.astype(np.float32), side)
    sums = tile_means(field * kept, side)
    tiles = np.where(share >= 0.3, sums / np.maximum(share, 0.3), 1.0)
    return np.asarray(tiles, np.float32), side


def calm_grain(rgb: Pixels) -> float | None:
    """Return the noise of the calmest quarter of the picture, in levels of standard deviation.

    Tiles near black and white are left out: noise is cut off there. ``None`` when there are few
    others.
    """
    field = luma(reduced(rgb, 640))
    # Every other pixel is enough for a median, and a quarter of the work.
    unevenness, levels = second_differences(field)[::2, ::2], field[::2, ::2]
    found = []
    for rows in np.array_split(np.arange(levels.shape[0]), 10):
        for columns in np.array_split(np.arange(levels.shape[1]), 10):
            if min(len(rows), len(columns)) < 6:
                continue
            tile = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            if 6 < float(np.median(levels[tile])) < 249:
                found.append(noise_of(unevenness[tile]))
    return float(np.quantile(found, 0.25)) if len(found) >= 6 else None


def contrast(rgb: Pixels) -> float:
    """Return the range of the luma without its darkest and brightest fiftieth, in levels."""
    low, high = np.quantile(luma(reduced(rgb, 256)), (0.02, 0.98))
    return float(high - low)


def _finding(
    check: Outside | Kept | Noise | Light,
    verdict: CheckVerdict,
    message: str,
    score: float | None = None,
    limit: float | None = None,
    region: Region | None = None,
) -> Finding:
    return Finding(
        check=check.name,
        version=check.version,
        verdict=verdict,
        score=None if score is None else round(score, 4),
        limit=check.limit if limit is None else round(limit, 4),
        higher_is_better=check.higher_is_better,
        message=message,
        region=region,
    )


@dataclass(frozen=True, slots=True)
class Outside:
    """Outside of the mask nothing changed, neither shapes nor colours."""

    limit: float = 0.7
    #: Levels by which a tile's colour and that of the whole kept part may move,
    #: in an upload of full brightness.
    tile_shift: float = 20.0
    shift: float = 8.0
    #: Less of the picture than this is kept: nothing to judge.
    least: float = 0.02
    name: str = "edit.outside"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: similarity (SSIM) of the worst tile outside of the mask."""
        upload, mask = picture.reference("upload"), picture.reference("mask")
        if upload is None or mask is None:
            return _finding(self, "skip", NO_UPLOAD if upload is None else "no mask")
        if min(upload.shape[:2]) < _LEAST:
            return _finding(self, "skip", "the upload is too small to judge")
        if not same_shape(upload, picture.rgb):
            return _finding(
                self, "skip", "another shape than the upload: the mask cannot be laid over it"
            )
        both = pair(upload, picture.rgb)
        kept = kept_area(mask, both.source.shape[1], both.source.shape[0])
        if float(kept.mean()) < self.least:
            return _finding(self, "skip", "the mask leaves nothing that must be kept")
        tiles, side = kept_similarity(both, kept)
        worst = float(tiles.min())
        row, column = np.unravel_index(int(tiles.argmin()), tiles.shape)
        message = "changed outside of the mask" if worst < self.limit else ""
        if not message:
            colour = _kept_shift(both, kept, side)
            whole = float(np.abs(_mean_shift(both, kept)).max())
            if whole > self.shift or float(colour.max()) > self.tile_shift:
                row, column = np.unravel_index(int(colour.argmax()), colour.shape)
                message = (
                    "other colours outside of the mask, "
                    f"by {max(whole, float(colour.max())):.0f} levels"
                )
        region = None
        if message:
            left, top = float(column) - side / 2, float(row) - side / 2
            region = both.region(left, top, side, side)
        return _finding(self, "fail" if message else "pass", message, worst, region=region)


def _moved(both: Pair) -> Floats:
    """Return the shift of every channel, lit up as far as the upload is dark, in levels."""
    gain = min(lit(both)[2], _MOST_LIT / 2)
    return np.subtract(both.result, both.source, dtype=np.float32) * np.float32(gain)


def _mean_shift(both: Pair, kept: NDArray[np.bool_]) -> Floats:
    """Return the mean shift of every channel over the kept part, in levels."""
    return np.asarray(_moved(both)[kept].mean(axis=0), np.float32)


def _kept_shift(both: Pair, kept: NDArray[np.bool_], side: int) -> Floats:
    """Return the largest shift of a channel in the kept part of the tile around every pixel."""
    moved = _moved(both) * kept[..., None]
    share = tile_means(kept.astype(np.float32), side)
    means = np.abs(tile_means(moved, side)).max(axis=2) / np.maximum(share, 0.3)
    return np.asarray(np.where(share >= 0.3, means, 0.0), np.float32)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the upload shows is in the edit: the same subject, moved, cropped, relit or restyled.

    The outlines of the upload are looked for at every scale and place, and the third of the
    picture where they agree best decides: a new ground or a text over the rest is no change of
    the subject. Where the outlines do not agree, points that both pictures share are looked for
    before anything is said. Another pose of the same subject cannot be told from another subject.
    """

    limit: float = 0.66
    #: Points in one geometric order that are the same picture after all; strangers reach 19.
    points: int = 24
    name: str = "edit.kept"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: agreement of the outlines in the third that agrees best."""
        upload = picture.reference("upload")
        if upload is None:
            return _finding(self, "skip", NO_UPLOAD)
        if min(*upload.shape[:2], *picture.rgb.shape[:2]) < _LEAST:
            return _finding(self, "skip", "too small to judge")
        score = likeness(upload, picture.rgb)
        if score is None:
            return _finding(self, "skip", "the upload has hardly any outlines")
        if score >= self.limit or matching_points(upload, picture.rgb) >= self.points:
            return _finding(self, "pass", "", score)
        height, width = picture.rgb.shape[:2]
        return _finding(
            self,
            "fail",
            "the subject of the upload is not in the edit",
            score,
            region=Region(x=0, y=0, width=width, height=height),
        )


@dataclass(frozen=True, slots=True)
class Noise:
    """The edit is not noisier than the upload, as far as brightening makes its noise visible."""

    #: Noise that is never too much, in levels, and how much more than the upload's own is.
    limit: float = 5.0
    more: float = 1.3
    name: str = "edit.noise"
    version: str = "1"
    higher_is_better: bool = False

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: standard deviation of the noise in the calm parts, in levels."""
        upload = picture.reference("upload")
        if upload is None:
            return _finding(self, "skip", NO_UPLOAD)
        own, now = calm_grain(upload), calm_grain(picture.rgb)
        if now is None:
            return _finding(self, "skip", "too few calm parts to judge")
        if own is None:
            # Black and white alone show no noise; what brightening brings out is not known.
            return _finding(self, "skip", "the upload has too few calm parts to judge")
        gain = max(1.0, contrast(picture.rgb) / max(contrast(upload), 1.0))
        limit = max(self.limit, self.more * own * gain)
        good = now <= limit
        message = "" if good else f"noise of {now:.1f} levels, the upload has {own:.1f}"
        return _finding(self, "pass" if good else "fail", message, now, limit)


@dataclass(frozen=True, slots=True)
class Light:
    """The edit shows as many tones as the upload, or more: not sunk to black nor washed out."""

    limit: float = 0.4
    name: str = "edit.light"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: contrast of the edit as a multiple of the upload's."""
        upload = picture.reference("upload")
        if upload is None:
            return _finding(self, "skip", NO_UPLOAD)
        own = contrast(upload)
        if own < 8:
            return _finding(self, "skip", "the upload has hardly any contrast")
        score = contrast(picture.rgb) / own
        if score >= self.limit:
            return _finding(self, "pass", "", score)
        darker = float(luma(reduced(picture.rgb, 64)).mean()) < float(
            luma(reduced(upload, 64)).mean()
        )
        message = f"{'sunk into black' if darker else 'washed out'}: {score:.0%} of the contrast"
        return _finding(self, "fail", f"{message} of the upload", score)
