"""Does the subject stay inside its area, and does the frame leave it whole?

A saliency map is a weak witness, so it is only heard when it is clear: the frame of the picture
must look like one ground, and one connected thing must differ from it strongly and sharply.
Anything else is skipped. The map is the Mahalanobis distance of each pixel's colour from the
colours along the frame (Zhang et al., Minimum Barrier Salient Object Detection at 80 FPS, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.base import TEXT_BOXES, Expected, Picture, Pixels
from tasks.checks.blank import MIN_SIDE, reduced
from tasks.checks.logo import brand_logo
from tasks.inputs.brands import BrandKit
from tasks.records import Finding, Region
from tasks.settings import DATASETS

_SIDE = 128
#: Width of the strip along the frame that shows the ground, as a share of the shorter side.
_FRAME = 0.05
#: Distance in standard deviations of the ground from which a pixel belongs to a thing.
_FAR = 4.0
#: The least deviation of a ground in L*a*b*, so that a drawn flat one is no better witness.
_LEAST = 2.5
#: Share of the frame that must be ground, at the least, for a ground to be known at all.
_GROUND = 0.75
#: Smallest and largest share of the picture that a subject has; one at the frame may lack a part,
#: and be smaller by this factor.
_SMALL, _LARGE, _PART = 0.015, 0.5, 0.6
#: What a thing must have to be the subject beyond doubt: share of everything that stands out,
#: share of its convex hull that it fills (a lamp on a bent stem has half), median distance from
#: the ground.
_ALONE, _SOLID, _STRONG = 0.8, 0.35, 6.0
#: And a sharp edge: share of its outline, off the frame, at which the map rises by so much of the
#: thing's own strength within five pixels of the reduced picture. A glow, a reflection or a shadow
#: fades into the ground instead.
_SHARP, _RISE, _WITHIN = 0.45, 0.6, 5


class Thing(NamedTuple):
    """One connected thing that stands out, on the reduced picture."""

    mask: NDArray[np.bool_]
    #: Share of the picture, and of everything that stands out.
    area: float
    part: float
    #: Share of its convex hull that it fills, and its median distance from the ground.
    solid: float
    strength: float
    #: Share of its outline that is sharp.
    sharp: float
    #: Share of its outline that lies on the frame, and the sides that it touches.
    on_frame: float
    sides: frozenset[str]


def salient(rgb: Pixels, hidden: NDArray[np.bool_] | None = None) -> NDArray[np.float32] | None:
    """Return how far each pixel is from the ground, in its standard deviations.

    Args:
        rgb: A reduced picture.
        hidden: Pixels that are no part of the scene (a logo, text): 0 in the map.

    Returns:
        The map, or ``None`` where the frame shows no single ground.
    """
    height, width = rgb.shape[:2]
    scaled = rgb.astype(np.float32) / np.float32(255)
    lab: NDArray[Any] = np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB))
    strip = max(2, round(_FRAME * min(height, width)))
    frame = np.ones((height, width), dtype=bool)
    frame[strip:-strip, strip:-strip] = False
    if hidden is not None:
        frame &= ~hidden
    ground = lab[frame]
    if len(ground) < 50:
        return None
    # What lies on the frame and is no ground must not widen it: fitted again to the nearer ones.
    keep = np.ones(len(ground), dtype=bool)
    mean: NDArray[Any] = ground.mean(axis=0)
    inverse: NDArray[Any] = np.eye(3)
    for _ in range(4):
        part = ground[keep] if keep.sum() >= 50 else ground
        mean = np.median(part, axis=0)
        spread = np.cov((part - mean).T) + _LEAST**2 * np.eye(3)
        inverse = np.linalg.inv(spread)
        keep = _distance(ground, mean, inverse) <= 3
    if keep.mean() < _GROUND or np.sqrt(np.linalg.inv(inverse).trace()) > 22:
        return None
    seen = _distance(lab.reshape(-1, 3), mean, inverse).reshape(height, width)
    if hidden is not None:
        seen[hidden] = 0
    return np.asarray(seen, dtype=np.float32)


def _distance(lab: NDArray[Any], mean: NDArray[Any], inverse: NDArray[Any]) -> NDArray[np.float64]:
    off = lab - mean
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", off, inverse, off)))


def things(seen: NDArray[np.float32], hidden: NDArray[np.bool_] | None = None) -> list[Thing]:
    """Return the connected things of a map, the largest first; ``hidden`` as for the map."""
    far = (seen >= _FAR).astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(far, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    total = max(1, int(mask.sum()))
    found = []
    for number in range(1, count):
        area = int(stats[number, cv2.CC_STAT_AREA])
        if area >= _SMALL * _PART * mask.size:
            thing = _thing(seen, hidden, np.asarray(labels == number), area, total)
            if thing.sides or area >= _SMALL * mask.size:
                found.append(thing)
    return sorted(found, key=lambda thing: -thing.area)


def _thing(
    seen: NDArray[np.float32],
    hidden: NDArray[np.bool_] | None,
    mask: NDArray[np.bool_],
    area: int,
    total: int,
) -> Thing:
    edges = {"top": mask[0], "bottom": mask[-1], "left": mask[:, 0], "right": mask[:, -1]}
    padded = np.pad(mask, 1).astype(np.uint8)
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = sum(len(contour) for contour in contours)
    hull = cv2.convexHull(np.concatenate(list(contours)))
    touching = {side: int(edge.sum()) for side, edge in edges.items()}
    strength = float(np.median(seen[mask]))
    return Thing(
        mask=mask,
        area=area / mask.size,
        part=area / total,
        solid=area / max(1.0, cv2.contourArea(hull)),
        strength=strength,
        sharp=_sharp(seen, hidden, mask, strength),
        on_frame=sum(touching.values()) / max(1, outline),
        sides=frozenset(side for side, count in touching.items() if count > 1),
    )


def _sharp(
    seen: NDArray[np.float32],
    hidden: NDArray[np.bool_] | None,
    mask: NDArray[np.bool_],
    strength: float,
) -> float:
    """Return the share of a thing's outline off the frame at which it begins at once.

    Where it borders on what is hidden nobody knows, so that is left out.
    """
    around = np.ones((_WITHIN, _WITHIN), np.uint8)
    # Beyond its own strength a thing may vary as it likes: a highlight is no edge.
    level = np.minimum(seen, np.float32(strength))
    rise = np.asarray(cv2.dilate(level, around)) - np.asarray(cv2.erode(level, around))
    # Of a thing with a soft shadow the thing itself is asked: what is at least half as strong.
    core = mask & (seen >= np.float32(strength / 2))
    inner = np.asarray(cv2.erode(core.astype(np.uint8), np.ones((3, 3), np.uint8))) > 0
    outline = core & ~inner
    outline[0], outline[-1], outline[:, 0], outline[:, -1] = False, False, False, False
    if hidden is not None:
        outline &= np.asarray(cv2.dilate(hidden.astype(np.uint8), around)) == 0
    return float((rise[outline] >= _RISE * strength).mean()) if outline.any() else 0.0


def clear_subject(found: list[Thing]) -> Thing | None:
    """Return the one thing that can only be the subject; ``None`` when none or several can.

    What touches two sides is a ground, a table, a plate or a close-up; what is torn (branches,
    hair, letters), faint or soft may be several things or a part of one.
    """
    if not found:
        return None
    first = found[0]
    clear = (
        first.area <= _LARGE
        and first.part >= _ALONE
        and first.solid >= _SOLID
        and first.strength >= _STRONG
        and first.sharp >= _SHARP
        and len(first.sides) <= 1
    )
    return first if clear else None


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject stays in the brand's area for it, and is not cut off where the kit says so."""

    #: Share of the subject's outline on the frame from which it is cut off: a thing that only
    #: reaches the frame has less.
    cut: float = 0.14
    #: Share of the subject that must lie inside its area.
    limit: float = 0.97
    datasets: Path = DATASETS
    name: str = "composition.subject"
    version: str = "4"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: share of the subject inside its area; with the kit's leave to cut, of the rest."""
        kit = brand_logo(expected.brand, self.datasets)[0] if expected.brand else None
        if kit is None or (kit.layout.subject is None and kit.layout.cut_off):
            return self._skip("no rule for the subject")
        if min(picture.rgb.shape[:2]) < MIN_SIDE:
            return self._skip("too small to judge")
        small = reduced(picture.rgb, _SIDE)
        hidden = self._hidden(picture, kit, expected, small.shape[:2])
        seen = salient(small, hidden)
        subject = clear_subject(things(seen, hidden)) if seen is not None else None
        if subject is None:
            return self._skip("no subject stands out clearly")
        cut = not kit.layout.cut_off and subject.on_frame >= self.cut
        score, outside = self._inside(subject, kit)
        problem = (
            f"the subject is cut off at the {' and '.join(sorted(subject.sides))}"
            if cut
            else "the subject is outside its area"
            if outside
            else ""
        )
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if problem else "pass",
            score=round(min(score, 1 - subject.on_frame) if cut else score, 4),
            limit=self.limit,
            message=problem,
            region=_region(subject.mask, picture.rgb.shape[1], picture.rgb.shape[0]),
        )

    def _skip(self, why: str) -> Finding:
        return Finding(check=self.name, version=self.version, verdict="skip", message=why)

    def _inside(self, subject: Thing, kit: BrandKit) -> tuple[float, bool]:
        """Return the share of the subject inside its area, and whether that is too little."""
        area = kit.layout.subject
        if area is None:
            return 1.0, False
        rows, columns = subject.mask.shape
        y, x = np.nonzero(subject.mask)
        inside = (
            (x + 1 > area.left * columns)
            & (x < area.right * columns)
            & (y + 1 > area.top * rows)
            & (y < area.bottom * rows)
        )
        share = float(inside.mean())
        return share, share < self.limit

    def _hidden(
        self, picture: Picture, kit: BrandKit, expected: Expected, shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Return the pixels of the reduced picture that the logo or text covers."""
        height, width = picture.rgb.shape[:2]
        _, logo = brand_logo(str(expected.brand), self.datasets)
        places = [kit.logo_region(width, height, logo.shape[1] / logo.shape[0])]
        for text in picture.notes.get(TEXT_BOXES, ()):
            x, y, across, down = (int(part) for part in text.split(","))
            places.append(Region(x=x, y=y, width=across, height=down))
        mask = np.zeros(shape, dtype=bool)
        for place in places:
            left, top = place.x / width * shape[1], place.y / height * shape[0]
            right = (place.x + place.width) / width * shape[1]
            bottom = (place.y + place.height) / height * shape[0]
            mask[
                max(0, int(top) - 1) : int(np.ceil(bottom)) + 1,
                max(0, int(left) - 1) : int(np.ceil(right)) + 1,
            ] = True
        return mask


def _region(mask: NDArray[np.bool_], width: int, height: int) -> Region:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, right = columns[0] / mask.shape[1], (columns[-1] + 1) / mask.shape[1]
    top, bottom = rows[0] / mask.shape[0], (rows[-1] + 1) / mask.shape[0]
    return Region(
        x=int(left * width),
        y=int(top * height),
        width=max(1, round((right - left) * width)),
        height=max(1, round((bottom - top) * height)),
    )
