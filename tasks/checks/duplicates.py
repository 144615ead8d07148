"""Do different prompts get the same picture? Fingerprints, and near-duplicates among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.records import Finding

CHECK, VERSION = "consistency.near_duplicate", "1"
#: Bits of 256 in which two fingerprints may differ and still be one picture. Re-encoding, scaling
#: and slight noise change fewer than 20; unrelated pictures differ in 128 on average.
MAX_DISTANCE = 28
#: Rows compared at once: 512 × 5,000 distances take 20 MB.
_BLOCK = 512
_NO_CAMPAIGNS: Mapping[str, str] = {}


def fingerprint(rgb: NDArray[np.uint8]) -> str | None:
    """Return a 256-bit perceptual hash in hex: signs of the low frequencies around their median.

    Returns:
        64 hex digits, or ``None`` for a picture so flat that noise would decide the bits.
    """
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if float(grey.std()) < 4:
        return None
    low = cv2.dct(grey)[:17, :17].flatten()[1:257]
    return np.packbits(low > np.median(low)).tobytes().hex()


def find_duplicates(
    items: Sequence[tuple[str, str, str | None]],
    limit: int = MAX_DISTANCE,
    campaigns: Mapping[str, str] = _NO_CAMPAIGNS,
) -> dict[str, Finding]:
    """Find pictures that repeat an earlier picture of another prompt.

    Args:
        items: Case id, prompt and fingerprint; those without a fingerprint are left out.
        limit: Bits in which two pictures may differ and still count as one.
        campaigns: Campaigns of cases that are in one: pictures of the same one may be alike.

    Returns:
        A finding a case: ``fail`` for every picture but the first of its kind.
    """
    listed = [(case, prompt, mark) for case, prompt, mark in items if mark]
    if not listed:
        return {}
    codes = np.array([np.frombuffer(bytes.fromhex(m), np.uint64) for _, _, m in listed])
    prompts = _numbered([prompt for _, prompt, _ in listed])
    sets = _numbered([campaigns.get(case) for case, _, _ in listed])
    found: dict[str, Finding] = {}
    for start in range(0, len(listed), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(listed)))
        distances = np.zeros((block.stop - block.start, block.stop), dtype=np.uint16)
        for word in range(codes.shape[1]):
            differing = codes[block, word, None] ^ codes[None, : block.stop, word]
            distances += np.bitwise_count(differing)
        later = np.arange(block.start, block.stop)[:, None] <= np.arange(block.stop)[None, :]
        related = prompts[block, None] == prompts[None, : block.stop]
        related |= (sets[block, None] == sets[None, : block.stop]) & (sets[block, None] >= 0)
        distances[later | related] = 999
        nearest = distances.argmin(axis=1)
        for row, other in enumerate(nearest):
            case = listed[start + row][0]
            distance = int(distances[row, other])
            found[case] = _finding(distance, listed[int(other)][0], limit)
    return found


def _numbered(names: Sequence[str | None]) -> NDArray[np.int64]:
    """Return a number for each name, the same for equal ones; -1 for ``None``."""
    known: dict[str, int] = {}
    return np.array(
        [-1 if name is None else known.setdefault(name, len(known)) for name in names], np.int64
    )


def _finding(distance: int, other: str, limit: int) -> Finding:
    same = distance <= limit
    return Finding(
        check=CHECK,
        version=VERSION,
        verdict="fail" if same else "pass",
        score=None if distance > 256 else float(distance),
        limit=float(limit),
        message=f"almost the same picture as case {other!r}, which has another prompt"
        if same
        else "",
    )
