"""Read doubtful lines again, enlarged, and ask how probable the intended string is there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

import numpy as np

from tasks.checks.text_match import align, keys
from tasks.checks.text_misses import Miss, near

#: Natural log of how much less probable than what was read an intended line may be, and of how
#: improbable at all: where nothing is read surely, being second best proves nothing.
MARGIN, LEAST = 2.0, -4.0
#: What another look at the same lines cannot change.
_HOPELESS = frozenset({"wrong text", "absent", "doubled", "boxes"})


def opinion(miss: Miss, lines: Sequence[Any], rgb: Any) -> float:
    """Return how probable the intended string is beside the one read, on enlarged lines.

    Args:
        miss: The string and the lines that stand in its place.
        lines: All lines read, :class:`tasks.checks.ocr.Line`.
        rgb: The picture.

    Returns:
        The worst line's best log-ratio over the variants: 0 when a variant reads the intended
        string, minus infinity when too much is wrong to ask, and below minus ``MARGIN`` when the
        intended string is improbable by itself.
    """
    from tasks.checks import ocr

    key = keys(miss.text)
    if miss.severity in _HOPELESS or miss.distance > near(key):
        return float("-inf")
    touched = [lines[i] for i in miss.lines]
    read = [keys(line.text) for line in touched]
    parts = wanted(key, read)
    worst = 0.0
    for line, got, want in zip(touched, read, parts, strict=True):
        if got == want:
            continue
        if 2 * align(want, got).distance > len(want):
            return float("-inf")  # Something else stands there.
        crops = variants(rgb, line.quad)
        readings = ocr.reader().recognise(crops, want + got)
        ratios = []
        for reading in readings:
            now = keys(reading.text)
            if now == want:
                ratios.append(0.0)
            else:
                right = ocr.forward_score(reading, want)
                ratio = right - ocr.forward_score(reading, got)
                ratios.append(min(ratio, right - LEAST - MARGIN))
        worst = min(worst, max(ratios))
    return worst


def variants(rgb: Any, quad: Any) -> list[Any]:
    """Return the line as it stands, with more room, and with its contrast stretched."""
    import cv2

    from tasks.checks import ocr

    plain, _ = ocr.crop(rgb, quad)
    roomy, _ = ocr.crop(rgb, quad, margin=0.15)
    grey = cv2.cvtColor(roomy, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey, (1, 99))
    table = np.clip((np.arange(256) - low) * 255.0 / max(high - low, 1.0), 0, 255)
    stretched = cv2.cvtColor(table.astype(np.uint8)[grey], cv2.COLOR_GRAY2RGB)
    return [plain, roomy, stretched]


def wanted(key: str, read: Sequence[str]) -> list[str]:
    """Split the intended key over the lines where it should stand, other words kept as read."""
    joined = "".join(read)
    found = align(key, joined)
    prefix, suffix = joined[: found.start], joined[found.end :]
    target = prefix + key + suffix
    # Cut the target where the lines end, by what stays the same on both sides.
    cuts: list[int] = []
    ends = np.cumsum([len(r) for r in read])[:-1]
    blocks = SequenceMatcher(None, joined, target, autojunk=False).get_opcodes()
    for end in ends:
        cut = len(target)
        for _, i1, i2, j1, j2 in blocks:
            if i1 <= end <= i2:
                cut = j1 + round((end - i1) * (j2 - j1) / max(i2 - i1, 1)) if i2 > i1 else j1
                break
        cuts.append(int(cut))
    edges = [0, *cuts, len(target)]
    return [target[a:b] for a, b in pairwise(edges)]
