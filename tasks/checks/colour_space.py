"""Colour maths: CIELAB, CIEDE2000, colours in bins, and the colour of a picture in four numbers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.blank import reduced

Floats = NDArray[np.float64]

#: Long side at which colours are looked at.
SIDE = 256
#: Long side for means over the whole picture.
_SUMMARY_SIDE = 128


def lab(rgb: NDArray[np.uint8]) -> Floats:
    """Return CIE L*a*b* (D65) of sRGB pixels, any shape ending in 3."""
    # One long row: as many rows of one pixel take four times as long.
    flat = np.ascontiguousarray(rgb.reshape(1, -1, 3), dtype=np.float32) / 255
    out = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)
    return np.asarray(out, dtype=np.float64).reshape(rgb.shape)


def ciede2000(one: Floats, two: Floats, lightness: float = 1.0) -> Floats:
    """Return the CIEDE2000 difference of two arrays of L*a*b* colours, broadcast together.

    Sharma, Wu and Dalal, Color Research and Application 30 (2005), equations 2 to 22.

    Args:
        one: Colours, any shape ending in 3.
        two: Colours.
        lightness: k_L: 2 where light and shade shall count half, as on things with a shape.
    """
    l1, a1, b1 = np.moveaxis(one, -1, 0)
    l2, a2, b2 = np.moveaxis(two, -1, 0)
    mean_c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)))
    ap1, ap2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(ap1, b1), np.hypot(ap2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, ap1)) % 360, np.degrees(np.arctan2(b2, ap2)) % 360
    grey = c1 * c2 == 0
    dh = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    dl, dc = l2 - l1, c2 - c1
    dbig = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh) / 2)
    ml, mc = (l1 + l2) / 2, (c1 + c2) / 2
    far = np.abs(h1 - h2) > 180
    mh = np.where(far, (h1 + h2 + 360) / 2 % 360, (h1 + h2) / 2)
    mh = np.where(grey, h1 + h2, mh)
    t = (
        1
        - 0.17 * np.cos(np.radians(mh - 30))
        + 0.24 * np.cos(np.radians(2 * mh))
        + 0.32 * np.cos(np.radians(3 * mh + 6))
        - 0.20 * np.cos(np.radians(4 * mh - 63))
    )
    sl = (1 + 0.015 * (ml - 50) ** 2 / np.sqrt(20 + (ml - 50) ** 2)) * lightness
    sc, sh = 1 + 0.045 * mc, 1 + 0.015 * mc * t
    turn = np.radians(60 * np.exp(-(((mh - 275) / 25) ** 2)))
    rt = -2 * np.sqrt(mc**7 / (mc**7 + 25.0**7)) * np.sin(turn)
    return np.asarray(
        np.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dbig / sh) ** 2 + rt * (dc / sc) * (dbig / sh)),
        dtype=np.float64,
    )


def colour_bins(pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the colours of RGB pixels in bins of 5 bits a channel, and their shares.

    Any shape ending in 3; a picture should be reduced to :data:`SIDE` before.
    """
    flat = pixels.reshape(-1, 3)
    codes = (flat >> 3).astype(np.int32) @ np.array([1024, 32, 1], dtype=np.int32)
    counts = np.bincount(codes, minlength=32_768)
    used = np.flatnonzero(counts)
    sums = [np.bincount(codes, weights=flat[:, c], minlength=32_768)[used] for c in range(3)]
    mean = np.stack(sums, axis=1) / counts[used, None]
    return mean, counts[used] / len(flat)


def summary(rgb: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return the mean L*, a*, b* (D65) and the mean chroma of a picture: what drift is read from.

    Args:
        rgb: Height × width × 3, sRGB; looked at with a long side of 128 pixels.
    """
    pixels = lab(reduced(rgb, _SUMMARY_SIDE)).reshape(-1, 3)
    lightness, a, b = pixels.mean(axis=0)
    chroma = np.hypot(pixels[:, 1], pixels[:, 2]).mean()
    return (
        round(float(lightness), 3),
        round(float(a), 3),
        round(float(b), 3),
        round(float(chroma), 3),
    )
