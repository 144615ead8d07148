"""A policy's own checks are tried on a drawn picture before a run pays for real ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from tasks.check_rules import CheckRules, Extras
from tasks.checks.base import Expected
from tasks.checks.plugins import require
from tasks.checks.pool import CheckPool
from tasks.errors import PreflightError

_SIDE = 256


def rehearse(extras: Extras) -> None:
    """Pass when the checks that the policy requires load in a worker and judge a picture.

    What they say of the picture does not matter, only that they can say it. Takes a worker's start,
    about two seconds; nothing when the policy asks for no check of its own.

    Raises:
        PreflightError: A check is missing or breaks; nothing was spent.
    """
    if extras.rules == CheckRules():
        return
    require(extras)
    with tempfile.TemporaryDirectory(prefix="imagegate-") as folder:
        path = Path(folder) / "drawn.png"
        path.write_bytes(_drawn())
        with CheckPool(workers=1, extras=extras) as pool:
            report = pool.submit(path, Expected(prompt="a picture of shapes")).result()
    broken = [finding for finding in report.findings if finding.verdict == "fault"]
    if broken:
        raise PreflightError(f"{finding.check}: {finding.message}" for finding in broken)


def _drawn() -> bytes:
    """Return a PNG of coloured shapes, neither blank nor blurred."""
    rng = np.random.default_rng(7)
    canvas = np.full((_SIDE, _SIDE, 3), 230, dtype=np.uint8)
    for _ in range(12):
        middle = [int(v) for v in rng.integers(0, _SIDE, 2)]
        colour = [int(v) for v in rng.integers(20, 230, 3)]
        cv2.circle(canvas, middle, int(rng.integers(12, 60)), colour, -1)
    return cv2.imencode(".png", canvas)[1].tobytes()
