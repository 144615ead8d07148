"""Are two pictures of one subject? Outlines laid over each other, and points that both share."""

from __future__ import annotations

import cv2
import numpy as np

from tasks.checks.base import Pixels
from tasks.checks.blank import reduced
from tasks.checks.pairs import Floats, luma, soft

#: Long side of the edit at which outlines are compared; cells a side for the local agreement.
_SIDE = 112
_CELLS = 5
#: How much of the upload an edit shows, as a share of the largest crop of its shape.
_ZOOMS = tuple(float(z) for z in np.geomspace(0.6, 1.03, 12))
#: Share of the cells that decide, and how many of the best placings are looked at closely.
_BEST, _PLACINGS = 0.35, 3
#: Gradient, in levels, at which an outline counts half: weaker ones are noise.
_FAINT = 8.0
#: Long side at which points are looked for, how many, and how far a point may lie off.
_POINTS_AT, _POINTS, _OFF = 512, 600, 4.0


def outlines(rgb: Pixels) -> Floats:
    """Return the direction of every edge as a vector of twice its angle, by its strength.

    Twice the angle: light turned to dark and back is the same outline. Height × width × 2.
    """
    field = soft(luma(rgb), 1.2)
    across = cv2.Sobel(field, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(field, cv2.CV_32F, 0, 1)
    power = across * across + down * down
    strength = np.sqrt(power)
    weight = np.sqrt(strength) / np.maximum(power, 1e-3) * strength / (strength + _FAINT)
    twice = [(across * across - down * down) * weight, 2 * across * down * weight]
    return np.asarray(np.dstack(twice), np.float32)


def likeness(upload: Pixels, edit: Pixels) -> float | None:
    """Return how well the outlines agree where they agree best, about 0 to 1.

    Strangers reach 0.6 (99 of 100), edits of the upload 0.75 and more. ``None`` when the upload
    has hardly any outlines.
    """
    small = reduced(edit, _SIDE)
    height, width = small.shape[:2]
    template = outlines(small)
    fit = min(upload.shape[1] / width, upload.shape[0] / height)
    placings: list[tuple[float, Floats]] = []
    for zoom in _ZOOMS:
        step = fit * zoom
        columns = max(width, round(upload.shape[1] / step))
        rows = max(height, round(upload.shape[0] / step))
        how = cv2.INTER_AREA if step >= 1 else cv2.INTER_LINEAR
        scene = outlines(np.asarray(cv2.resize(upload, (columns, rows), interpolation=how)))
        score = cv2.matchTemplate(scene, template, cv2.TM_CCORR_NORMED)
        _, most, _, (x, y) = cv2.minMaxLoc(score)
        placings.append((float(most), scene[y : y + height, x : x + width]))
    placings.sort(key=lambda placing: -placing[0])
    found = [_best_cells(scene, template) for _, scene in placings[:_PLACINGS]]
    judged = [score for score in found if score is not None]
    return max(judged) if judged else None


def _best_cells(scene: Floats, template: Floats) -> float | None:
    """Return the mean agreement of the best cells of those in which the upload has outlines."""
    power, other, shared = (
        _cells((one * two).sum(axis=2))
        for one, two in ((scene, scene), (template, template), (scene, template))
    )
    if float(power.max()) < 1.0:
        return None
    agreement = shared / np.sqrt(np.maximum(power * other, 1e-9))
    drawn = agreement[power >= 0.3 * float(np.median(power))]
    count = max(3, round(_BEST * _CELLS * _CELLS))
    return float(np.sort(drawn)[::-1][:count].mean())


def _cells(field: Floats) -> Floats:
    return np.asarray(cv2.resize(field, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA), np.float32)


def matching_points(one: Pixels, two: Pixels) -> int:
    """Return how many points of two pictures are the same under one turn, scale and shift.

    ORB features (Rublee et al., ICCV 2011) matched both ways, and RANSAC over what is left.
    """
    finder = cv2.ORB_create(nfeatures=_POINTS, fastThreshold=8)  # type: ignore[attr-defined]
    found = []
    for rgb in (one, two):
        grey = luma(reduced(rgb, _POINTS_AT)).astype(np.uint8)
        points, marks = finder.detectAndCompute(grey, None)
        if marks is None or len(points) < 20:
            return 0
        found.append((points, marks))
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(found[0][1], found[1][1])
    if len(matches) < 6:
        return 0
    here = np.array([found[0][0][m.queryIdx].pt for m in matches], np.float32)
    there = np.array([found[1][0][m.trainIdx].pt for m in matches], np.float32)
    cv2.setRNGSeed(7)  # RANSAC draws; the same pictures must get the same answer.
    turn, inside = cv2.estimateAffinePartial2D(
        here, there, method=cv2.RANSAC, ransacReprojThreshold=_OFF
    )
    if turn is None or inside is None or not 0.3 < float(np.hypot(*turn[:, 0])) < 3.5:
        return 0
    return int(np.asarray(inside).sum())
