"""Defects of edits: changed where nothing was to change, another subject, noise, no light."""

from __future__ import annotations

import functools
from dataclasses import replace

import cv2
import numpy as np

from tasks.checks.base import Expected, Picture, Pixels
from tasks.checks.planted_base import Defect, Good, Planted, choice, encoded
from tasks.checks.planted_colour import as_edit
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.render import png, render

OUTSIDE, KEPT, NOISE, LIGHT = "edit.outside", "edit.kept", "edit.noise", "edit.light"
ORIENTATION = "geometry.orientation"
_STEPS = (0.1, 0.25, 0.5, 0.75, 1.0)


def masked(good: Good, seed: int = 0) -> Good:
    """Return a good picture as the edit of itself in which one part was done anew.

    The part is blurred and brightened; it and nothing else is white in the mask.
    """
    rng = generator("planted mask", seed, good.name)
    height, width = good.rgb.shape[:2]
    rows, columns = (round(n * float(rng.uniform(0.25, 0.45))) for n in (height, width))
    top, left = int(rng.integers(height - rows)), int(rng.integers(width - columns))
    mask = np.zeros_like(good.rgb)
    mask[top : top + rows, left : left + columns] = 255
    pixels = good.rgb.copy()
    part = pixels[top : top + rows, left : left + columns]
    soft = cv2.GaussianBlur(part, (0, 0), max(rows, columns) / 12).astype(np.float32)
    part[:] = np.clip(soft * 1.15 + 6, 0, 255).astype(np.uint8)
    edit = as_edit(good)
    return replace(
        edit,
        make=functools.partial(png, pixels),
        references={"upload": good.data, "mask": png(mask)},
        job=None,
    )


def _other(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a picture that shares no place with this one: turned, its colours reversed."""
    turned = np.rot90(rgb, 2)[:, ::-1] if rng.random() < 0.5 else np.rot90(rgb, 2)
    return np.ascontiguousarray(255 - turned)


def changed_outside(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put other content into a part outside of the mask: up to a third of the short side."""
    edit = good if "mask" in good.references else good.once("mask", masked)
    pixels = edit.rgb.copy()
    height, width = pixels.shape[:2]
    side = max(8, round(strength * min(height, width) / 3))
    mask = decoded(edit.references["mask"])
    for _ in range(40):
        top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
        place = slice(top, top + side), slice(left, left + side)
        before = pixels[place].copy()
        other = _other(edit.rgb, rng)[place]
        seen = np.abs(before.astype(int) - other).max(axis=2) > 40
        if mask[place].max() == 0 and float(seen.mean()) > 0.5:
            inside = cv2.circle(
                np.zeros((side, side), np.uint8), (side // 2,) * 2, side // 2, 1, -1
            )
            pixels[place][inside > 0] = other[inside > 0]
            return edit.planted(pixels)
    return None


def picture_of(file: bytes) -> Picture:
    """Return a reference of our own, decoded.

    Raises:
        ValueError: It does not decode.
    """
    from tasks.checks.decode import decode

    picture = decode(file, Expected()).picture
    if picture is None:
        raise ValueError("a reference of our own does not decode")
    return picture


def decoded(file: bytes) -> Pixels:
    """Return the pixels of a reference of our own; raises as :func:`picture_of`."""
    return picture_of(file).rgb


def another_subject(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Answer with a picture of something else, as large as the edit."""
    from tasks.checks.planted_good import pictured

    edit = _edit(good)
    height, width = edit.rgb.shape[:2]
    job = replace(pictured(int(rng.integers(2**31)), 0), width=width, height=height)
    return edit.sent(render(job), declared_mime="image/png")


def noisy(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Add the noise of a sensor: a standard deviation of 40 levels at full strength."""
    edit = _edit(good)
    noise = rng.normal(0, 40 * strength, (*edit.rgb.shape[:2], 1)).astype(np.float32)
    return edit.planted(np.clip(np.rint(edit.rgb + noise), 0, 255).astype(np.uint8))


def sunk(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Let the tones of the upload sink into black or wash out into white; nothing left at 1."""
    edit = _edit(good)
    values = edit.rgb.astype(np.float32)
    # An edit may have several times the contrast of a dark upload: that is no norm.
    before = _range(decoded(edit.references["upload"]))
    keep = (1 - strength) * min(1.0, before / max(_range(edit.rgb), 1.0))
    lit = values * keep if rng.random() < 0.5 else 255 - (255 - values) * keep
    return edit.planted(np.rint(lit).astype(np.uint8))


def _range(rgb: Pixels) -> float:
    low, high = np.quantile(rgb[::4, ::4].mean(axis=2), (0.02, 0.98))
    return float(high - low)


def turned(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Turn the picture by quarters or mirror it; ``None`` where it looks the same."""
    edit = _edit(good)
    how = choice(("quarter", "half", "three quarters", "mirrored"), rng)
    turns = {"quarter": 1, "half": 2, "three quarters": 3, "mirrored": 0}[how]
    pixels = np.rot90(edit.rgb, turns) if turns else edit.rgb[:, ::-1]
    if pixels.shape == edit.rgb.shape:
        apart = np.abs(
            cv2.blur(edit.rgb, (9, 9)).astype(int) - cv2.blur(np.ascontiguousarray(pixels), (9, 9))
        )
        if float((apart.max(axis=2) > 40).mean()) < 0.15:
            return None
    return edit.sent(encoded(pixels, "PNG"))


def _edit(good: Good) -> Good:
    return good if "upload" in good.references else good.once("edit", as_edit)


DEFECTS = (
    Defect(
        "changed outside of the mask", OUTSIDE, 0.5, changed_outside, "third of the side", _STEPS
    ),
    Defect("another subject", KEPT, 1.0, another_subject, "all or nothing", (1.0,)),
    Defect("noise", NOISE, 0.5, noisy, "forty levels", _STEPS),
    Defect("tones lost", LIGHT, 0.75, sunk, "share of the tones", _STEPS),
    Defect("turned or mirrored", ORIENTATION, 1.0, turned, "all or nothing", (1.0,)),
)
