"""Maths for a picture beside the one it was made from: structure, colour, grain. Pure functions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels

Floats = NDArray[np.float32]

#: Constants of SSIM for 8-bit levels: Wang et al., IEEE Trans. Image Processing 13 (2004).
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def luma(rgb: Pixels) -> Floats:
    """Return the luma (Rec. 601) of RGB pixels, 0 to 255."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


def soft(field: Floats, sigma: float) -> Floats:
    """Return a field under a Gaussian blur; edges are mirrored."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), np.float32)


def ssim_map(one: Floats, two: Floats, *, sigma: float = 1.5, c2: float = C2) -> Floats:
    """Return the structural similarity of two pictures at every pixel, -1 to 1.

    Args:
        one: Levels from 0 to 255.
        two: Of the same shape.
        sigma: Of the Gaussian window, in pixels.
        c2: Variance below which differences of structure hardly count. The published value says
            much about the grain of flat parts; a larger one asks for visible contrast.
    """
    mean_one, mean_two = soft(one, sigma), soft(two, sigma)
    product = mean_one * mean_two
    squares = mean_one * mean_one + mean_two * mean_two
    spread = soft(one * one + two * two, sigma) - squares
    shared = soft(one * two, sigma) - product
    top = (2 * product + C1) * (2 * shared + c2)
    return np.asarray(top / ((squares + C1) * (spread + c2)), np.float32)


def reduced_to(rgb: Pixels, width: int, height: int) -> Pixels:
    """Return the picture at another size: averaged where it shrinks, bilinear where it grows."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = rgb.shape[0] >= height and rgb.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)


def tile_means(field: Floats, side: int) -> Floats:
    """Return the mean of the square tile around every pixel; mirrored at the edges."""
    return np.asarray(cv2.blur(field, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)


def local_range(field: Floats, side: int) -> Floats:
    """Return the largest minus the smallest level around every pixel."""
    window = np.ones((side, side), np.uint8)
    return np.asarray(cv2.dilate(field, window) - cv2.erode(field, window), np.float32)


def second_differences(field: Floats) -> Floats:
    """Return the size of the second difference in both directions, which slopes leave at 0."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    return np.asarray(np.abs(cv2.filter2D(field, cv2.CV_32F, kernel)), np.float32)


def noise_of(unevenness: Floats) -> float:
    """Return the standard deviation of the noise, in levels, from second differences.

    Immerkaer, Computer Vision and Image Understanding 64 (1996), with the median for the mean, so
    that edges have no part in it. Fine texture over half of the picture reads as noise.
    """
    # Of a normal distribution the median deviation is 0.6745 sigma; the kernel's norm is 6.
    return float(np.median(unevenness)) / 0.6745 / 6


def grain(field: Floats) -> float:
    """Return the standard deviation of the noise of a whole picture, in levels."""
    return noise_of(second_differences(field))
