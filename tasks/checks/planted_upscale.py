"""Defects of enlarging: parts invented, letters changed, halos, no detail gained."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.checks.planted_edit import decoded, picture_of
from tasks.checks.planted_letters import exchanged_letters
from tasks.checks.planted_text import swapped
from tasks.providers.embedded.render import png, render
from tasks.providers.embedded.upscale import upscale

FAITHFUL, TEXT, HALOS, DETAIL = (
    "upscale.faithful",
    "upscale.text",
    "upscale.halos",
    "upscale.detail",
)
_STEPS = (0.1, 0.25, 0.5, 0.75, 1.0)


def enlarged(good: Good) -> Good:
    """Return the enlargement of a good picture by the embedded server's network."""
    expected = replace(
        good.expected, width=None, height=None, subtask="upscale", declared_mime=None
    )
    return replace(
        good,
        name=f"{good.name} enlarged",
        expected=expected,
        make=lambda: png(upscale(good.rgb)),
        references={"source": good.data},
        # What is drawn again would be the source, not the enlargement.
        brand=None,
        judged=frozenset({FAITHFUL, TEXT, HALOS, DETAIL, "decode.file", "composition.blank"}),
    )


def _enlarged(good: Good) -> Good:
    return good if "source" in good.references else good.once("enlargement", enlarged)


def invented(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put something else into a part: a circle of up to a third of the short side."""
    result = _enlarged(good)
    pixels = result.rgb.copy()
    height, width = pixels.shape[:2]
    side = max(8, round(strength * min(height, width) / 3))
    other = np.ascontiguousarray(255 - np.rot90(result.rgb, 2))
    for _ in range(40):
        top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
        place = slice(top, top + side), slice(left, left + side)
        seen = np.abs(pixels[place].astype(int) - other[place]).max(axis=2) > 40
        if float(seen.mean()) > 0.5:
            inside = cv2.circle(
                np.zeros((side, side), np.uint8), (side // 2,) * 2, side // 2, 1, -1
            )
            pixels[place][inside > 0] = other[place][inside > 0]
            return result.planted(pixels)
    return None


def letters_changed(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Exchange letters on the way from the source to the enlargement.

    In a picture that is not our own drawing two letters of its own type change places.
    """
    if good.job is None:
        return _real_letters_changed(good, rng)
    if not good.job.text or good.job.upload is not None:
        return None
    text = swapped(list(good.job.text), strength, rng)
    if text is None:
        return None
    other = render(replace(good.job, text=tuple(text)))
    return _enlarged(good).sent(png(upscale(decoded(other))))


def _real_letters_changed(good: Good, rng: np.random.Generator) -> Planted | None:
    if not good.expected.intended_text:
        return None
    result = _enlarged(good)
    source = picture_of(result.references["source"])
    pixels = exchanged_letters(source, good.expected, rng)
    return None if pixels is None else result.sent(png(upscale(pixels)))


def haloed(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Sharpen far beyond what is crisp: an unsharp mask of up to four times the detail."""
    result = _enlarged(good)
    values = result.rgb.astype(np.float32)
    soft = cv2.GaussianBlur(values, (0, 0), 2.5)
    sharp = values + 4 * strength * (values - soft)
    return result.planted(np.clip(np.rint(sharp), 0, 255).astype(np.uint8))


def plain(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Enlarge without a model: interpolated, or pixels repeated; mixed in below full strength."""
    result = _enlarged(good)
    source = decoded(result.references["source"])
    height, width = result.rgb.shape[:2]
    how = choice((cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_NEAREST), rng)
    simple = cv2.resize(source, (width, height), interpolation=how).astype(np.float32)
    mixed = result.rgb.astype(np.float32) * (1 - strength) + simple * strength
    return result.planted(np.asarray(np.rint(mixed), np.uint8))


DEFECTS = (
    Defect("part invented", FAITHFUL, 0.5, invented, "third of the side", _STEPS),
    Defect(
        "letters changed", TEXT, 0.02, letters_changed, "share of the letters", (0.02, 0.1, 0.4)
    ),
    Defect("halos", HALOS, 0.75, haloed, "four times the detail", _STEPS),
    Defect("no detail gained", DETAIL, 1.0, plain, "share of plain enlarging", _STEPS),
)
