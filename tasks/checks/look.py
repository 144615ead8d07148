"""What is kept of a picture for judging it beside others: its colours, layout and light.

Pure functions. A look is taken once from every picture, so that a group is judged without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import Pixels
from tasks.checks.blank import reduced
from tasks.checks.colour_space import ciede2000, colour_bins, lab
from tasks.checks.pairs import luma

Floats = NDArray[np.float64]

#: Colours of a look; colours nearer than this (CIEDE2000) are one.
_COLOURS, _ONE_COLOUR = 8, 8.0
#: Cells a side in which a look keeps how much is drawn there, and how light it is.
_CELLS = 8
#: Numbers of a packed look; those of version 3 and before have no lightness.
_TABLE, _FIELD = 4 * _COLOURS, _CELLS * _CELLS
#: Lightness (standard deviation of L*) below which a picture is plain: its noise is no layout.
_PLAIN = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """The colours of a picture and where something is drawn in it."""

    #: Main colours as L*, a*, b*, and the share of the picture that each covers.
    colours: Floats
    shares: Floats
    #: Strength of the edges in each cell, mean 0 and standard deviation 1; row by row.
    layout: Floats
    #: L* of each cell, likewise; zeros for a plain picture.
    light: Floats

    def packed(self) -> str:
        """Return the look as hex digits, for a record."""
        count = len(self.shares)
        table = np.zeros((_COLOURS, 4), np.int16)
        table[:count, :3] = np.rint(self.colours * 100)
        table[:count, 3] = np.rint(self.shares * 10_000)
        fields = np.rint(np.clip([self.layout, self.light], -8, 8) * 1000).astype(np.int16)
        return np.concatenate([table.ravel(), fields.ravel()]).astype("<i2").tobytes().hex()


def unpacked(text: str) -> Look:
    """Return a look from its hex digits.

    Raises:
        ValueError: It is none.
    """
    numbers = np.frombuffer(bytes.fromhex(text), "<i2").astype(np.float64)
    if len(numbers) not in (_TABLE + _FIELD, _TABLE + 2 * _FIELD):
        raise ValueError(f"a look has {_TABLE + 2 * _FIELD} numbers; got {len(numbers)}")
    table = numbers[:_TABLE].reshape(_COLOURS, 4)
    there = table[:, 3] > 0
    if not there.any():
        raise ValueError("a look has at least one colour")
    layout, light = numbers[_TABLE:][:_FIELD] / 1000, numbers[_TABLE + _FIELD :] / 1000
    return Look(
        table[there, :3] / 100,
        table[there, 3] / 10_000,
        layout,
        light if light.size else np.zeros_like(layout),
    )


def look_of(rgb: Pixels) -> Look:
    """Return the look of a picture; about 2 ms."""
    small = reduced(rgb, 128)
    bins, shares = colour_bins(small)
    values = lab(np.rint(bins).astype(np.uint8))
    colours: list[Floats] = []
    covered: list[float] = []
    left = shares.copy()
    while left.sum() > 0.02 and len(colours) < _COLOURS:
        most = int(left.argmax())
        near = (ciede2000(values, values[most]) <= _ONE_COLOUR) & (left > 0)
        weight = left[near]
        colours.append(np.asarray((values[near] * weight[:, None]).sum(axis=0) / weight.sum()))
        covered.append(float(weight.sum()))
        left[near] = 0
    field = luma(small)
    edges = cv2.magnitude(cv2.Sobel(field, cv2.CV_32F, 1, 0), cv2.Sobel(field, cv2.CV_32F, 0, 1))
    return Look(
        np.array(colours),
        np.array(covered),
        layout=_cells(np.sqrt(edges), 0.05),
        light=_cells(lab(small)[..., 0], _PLAIN),
    )


def _cells(field: NDArray[np.floating], least: float) -> Floats:
    """Return the means of a field's cells, mean 0 and standard deviation 1; zeros if it is flat."""
    cells = cv2.resize(
        field.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA
    ).astype(np.float64)
    spread = float(cells.std())
    return ((cells - cells.mean()) / spread if spread > least else np.zeros_like(cells)).ravel()


def palette_distance(one: Look, two: Look) -> float:
    """Return how far the colours of two looks are apart, in CIEDE2000.

    The mean way from each colour to the nearest of the other look, by the shares, the worse of
    both directions: a colour that only one of them has counts by the room that it takes.
    """
    return float(colour_tables([one, two])[0][0, 1])


def colour_shift(one: Look, two: Look) -> float:
    """Return how far the colours of one look must be moved to become the other's, in CIEDE2000.

    The earth mover's distance between the two distributions of colours (Y. Rubner, C. Tomasi and
    L. Guibas, International Journal of Computer Vision 40, 2000). Unlike :func:`palette_distance`
    it also tells which colour covers how much: a blue picture with a little red from a red one
    with a little blue.
    """
    return float(colour_tables([one, two])[1][0, 1])


def layout_likeness(one: Look, two: Look) -> float:
    """Return the correlation of where something is drawn, -1 to 1; 1 for two empty pictures."""
    return float(correlations([one.layout, two.layout])[0, 1])


def light_likeness(one: Look, two: Look) -> float:
    """Return the correlation of where they are light and dark, -1 to 1; 1 for two plain ones."""
    return float(correlations([one.light, two.light])[0, 1])


def colour_tables(looks: Sequence[Look]) -> tuple[Floats, Floats]:
    """Return :func:`palette_distance` and :func:`colour_shift` of every pair.

    Colours are compared row by row: 10 times as fast as pair by pair.
    """
    far, shift = (np.zeros((len(looks), len(looks))) for _ in range(2))
    shares = [(one.shares / one.shares.sum()).astype(np.float32)[:, None] for one in looks]
    for first, one in enumerate(looks[:-1]):
        rest = looks[first + 1 :]
        apart = ciede2000(one.colours[:, None, :], np.concatenate([two.colours for two in rest]))
        starts = np.cumsum([len(two.shares) for two in rest])[:-1]
        for second, costs in enumerate(np.split(apart, starts, axis=1), first + 1):
            forth = float(costs.min(axis=1) @ shares[first][:, 0])
            back = float(costs.min(axis=0) @ shares[second][:, 0])
            far[first, second] = far[second, first] = max(forth, back)
            shift[first, second] = shift[second, first] = _moved(
                shares[first], shares[second], costs
            )
    return far, shift


def _moved(one: NDArray[np.float32], two: NDArray[np.float32], costs: Floats) -> float:
    return float(cv2.EMD(one, two, cv2.DIST_USER, np.ascontiguousarray(costs, np.float32))[0])


def correlations(fields: Sequence[Floats]) -> Floats:
    """Return the correlation of every pair, -1 to 1; 1 for two empty fields, 0 beside one."""
    cells = np.array(fields)
    drawn = np.asarray(cells.any(axis=1))
    like = np.clip(cells @ cells.T / max(cells.shape[1], 1), -1, 1)
    both = drawn[:, None] & drawn[None, :]
    return np.asarray(np.where(both, like, drawn[:, None] == drawn[None, :]), np.float64)
