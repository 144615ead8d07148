"""The traffic of a simulated gate: kinds of cases, how many of each, and how often they fail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Kinds of cases that one simulation can tell apart, over all dimensions of slices.
MOST_CELLS = 2_000


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """One slice of the traffic: ``dimension=value``, its share of the cases, its true rate.

    A rate of ``None`` stands for the rate of the whole build.
    """

    name: str
    share: float
    rate: float | None = None

    @property
    def dimension(self) -> str:
        """What the slice is one value of; slices of one dimension share no case."""
        return self.name.partition("=")[0] if "=" in self.name else "slice"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Kinds of cases: share and failure rate of each, and which slices it is in.

    Shapes: ``shares`` and ``rates`` (kinds,), ``inside`` (kinds, slices).
    """

    names: tuple[str, ...]
    shares: Floats
    rates: Floats
    inside: Ints

    @property
    def rate(self) -> float:
        """True failure rate over all cases."""
        return float(self.shares @ self.rates)

    def slice_share(self, number: int) -> float:
        """Return the share of the cases that are in a slice."""
        return float(self.shares @ self.inside[:, number])

    def slice_rate(self, number: int) -> float:
        """Return the true failure rate of a slice; cases of other bad slices count in it."""
        weights = self.shares * self.inside[:, number]
        return float(weights @ self.rates / weights.sum())


def traffic(rate: float, specs: Sequence[SliceSpec] = ()) -> Traffic:
    """Return the kinds of cases that slices of several dimensions make.

    Dimensions are independent of each other. A case in several slices with rates of their own
    fails at the highest of these; a case in none of them fails at ``rate``.

    Args:
        rate: True failure rate where no slice says otherwise.
        specs: The slices; in one dimension their shares sum to 1 at most.

    Raises:
        ValueError: A rate or a share makes no sense, a name comes twice, or there are too many
            kinds of cases.
    """
    for name, value in (("the build", rate), *((s.name, s.rate) for s in specs)):
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"failure rate of {name} must be 0 to 1; got {value}")
    names = tuple(spec.name for spec in specs)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"slice {twice[0]!r} is given twice")
    by_dimension: dict[str, list[tuple[int, SliceSpec]]] = {}
    for number, spec in enumerate(specs):
        if not 0 < spec.share <= 1:
            raise ValueError(f"share of slice {spec.name!r} must be above 0 to 1; got {spec.share}")
        by_dimension.setdefault(spec.dimension, []).append((number, spec))
    sides: list[list[tuple[int | None, float]]] = []
    for dimension, members in by_dimension.items():
        total = sum(spec.share for _, spec in members)
        if total > 1 + 1e-9:
            raise ValueError(
                f"shares of the slices of {dimension!r} sum to {total:.4g}; 1 is the most"
            )
        rest = [(None, 1 - total)] if total < 1 - 1e-9 else []
        sides.append([*((number, spec.share) for number, spec in members), *rest])
    if (count := math.prod(len(side) for side in sides)) > MOST_CELLS:
        raise ValueError(
            f"the slices make {count} kinds of cases; {MOST_CELLS} are the most: name fewer slices "
            "or fewer dimensions"
        )
    shares, rates = np.ones(count), np.full(count, float(rate))
    inside = np.zeros((count, len(specs)), dtype=np.int64)
    for row, cell in enumerate(itertools.product(*sides)):
        members_of = [number for number, _ in cell if number is not None]
        shares[row] = math.prod(share for _, share in cell)
        inside[row, members_of] = 1
        own = [r for r in (specs[n].rate for n in members_of) if r is not None]
        rates[row] = max(own, default=rate)
    return Traffic(names, shares / shares.sum(), rates, inside)
