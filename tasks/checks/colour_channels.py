"""Were the channels exchanged? Red for blue, as when BGR is taken for RGB."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tasks.checks import icc
from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.blank import MIN_SIDE
from tasks.checks.colour_reference import ORDERS, order_distances, overlay, reference, twin
from tasks.checks.colour_space import Floats, lab
from tasks.checks.logo import Logo, brand_logo, logo_pixels
from tasks.records import Finding
from tasks.settings import DATASETS

_LETTERS = "RGB"


@dataclass(frozen=True, slots=True)
class Channels:
    """Red, green and blue are where they belong.

    Told by the logo of the brand, by what an edit or an enlargement was made from, or by the
    baseline's picture where it shows the same scene: in another order of the channels its colours
    fit, in their own they do not. Without a reference nothing is said: a blue person may have been
    asked for.
    """

    #: Distance in a*b*, as a share of the one that is there, that an exchange must leave at most.
    limit: float = 0.7
    #: Mean distance in a*b* that an exchange must make for anyone to see it.
    visible: float = 4.0
    datasets: Path = DATASETS
    name: str = "colour.channels"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: mean distance in a*b* in the best other order, as a share of that in RGB."""
        why = icc.unknown(picture)
        if why:
            return self._skip(f"colours cannot be known: {why}")
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return self._skip("too small to judge")
        if expected.brand:
            distances = self._by_logo(picture, expected.brand)
            if distances is not None:
                return self._finding(distances, "logo")
        before, _ = reference(picture)
        if before is None:
            both, what = twin(picture), "baseline's picture"
        else:
            both, what = overlay(picture.rgb, before, picture.reference("mask")), "upload"
        if both is not None:
            return self._finding(order_distances(both), what)
        if before is not None:
            return self._skip("the picture does not show the upload's scene")
        return self._skip(
            "the logo is not surely there"
            if expected.brand
            else "no reference: no logo, no upload, and no baseline's picture of the same scene"
        )

    def _finding(self, distances: Floats, by: str) -> Finding:
        here, others = float(distances[0]), distances[1:]
        if float(others.max()) - float(distances.min()) < self.visible:
            return self._skip(f"the {by} has hardly any colour to tell by")
        best = int(others.argmin()) + 1
        score = float(distances[best]) / max(here, 1e-6)
        bad = score < self.limit and here - float(distances[best]) >= self.visible
        order = "".join(_LETTERS[channel] for channel in ORDERS[best])
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if bad else "pass",
            score=round(min(score, 99.0), 4),
            limit=self.limit,
            message=f"channels exchanged: the colours of the {by} fit in the order {order}"
            if bad
            else "",
        )

    def _by_logo(self, picture: Picture, brand: str) -> Floats | None:
        """Return the logo's distances under each order; ``None`` without a sure logo."""
        kit, logo = brand_logo(brand, self.datasets)
        search = Logo(datasets=self.datasets)
        hit = search.best(picture, kit, logo)
        if hit.score < 0.9:
            # An exchange spoils the likeness: look for the logo in each other order too.
            tries = [
                search.best(replace(picture, rgb=ordered(picture.rgb, order)), kit, logo)
                for order in ORDERS[1:]
            ]
            hit = max(tries)
            if hit.score < 0.9:
                return None
        shown, drawn, weight = logo_pixels(picture.rgb, logo, hit)
        if weight.sum() < 50:
            return None
        used = np.argwhere(weight > 0)
        # A few thousand pixels say as much as all of them.
        rows, columns = used[:: max(1, len(used) // 2_000)].T
        there, wanted = shown[rows, columns], lab(drawn[rows, columns])[:, 1:]
        shifts = [lab(there[:, list(order)])[:, 1:] - wanted for order in ORDERS]
        return np.array([np.hypot(s[:, 0], s[:, 1]).mean() for s in shifts])

    def _skip(self, why: str) -> Finding:
        return Finding(check=self.name, version=self.version, verdict="skip", message=why)


def ordered(rgb: Pixels, order: tuple[int, ...]) -> Pixels:
    """Return a picture with its channels in another order."""
    return np.ascontiguousarray(rgb[:, :, list(order)])
