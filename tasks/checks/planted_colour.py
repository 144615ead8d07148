"""Defects of colour and light: channels exchanged, no light or contrast, hues turned, edits."""

from __future__ import annotations

import functools
from dataclasses import replace

import cv2
import numpy as np

from tasks.checks.base import Expected, Pixels
from tasks.checks.colour_channels import ordered
from tasks.checks.colour_reference import ORDERS
from tasks.checks.colour_space import lab
from tasks.checks.planted_base import Defect, Good, Planted, choice, encoded
from tasks.checks.planted_pixels import tinted
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.models import MODELS
from tasks.providers.embedded.render import Job, render
from tasks.providers.embedded.retouch import open_upload
from tasks.settings import DATASETS

CAST, CHANNELS, PALETTE = "colour.cast", "colour.channels", "colour.palette"
EXPOSURE, CONTRAST = "colour.exposure", "colour.contrast"
_STEPS = (0.1, 0.25, 0.5, 0.75, 1.0)
_SIZES = ((512, 512), (640, 384), (512, 640))
#: Longest side of an edit of any picture.
_LONG = 640
#: Edits that ask for nothing that changes colours.
_EDITS = (
    "Remove the noise from this picture",
    "Correct the exposure and straighten the picture",
    "Sharpen the product and blur what is behind it",
    "Clean up the compression marks",
    "Brighten this photo and keep the colours natural",
)
#: Mean distance in a*b* below which nobody sees that channels were exchanged.
_SEEN = 10.0


def exchanged(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Exchange channels, in part below full strength; ``None`` where it does not show."""
    pixels = _exchanged(good.rgb, strength, rng)
    if good.brand is None and not good.references:
        return None
    return None if pixels is None else good.planted(pixels)


def _exchanged(rgb: Pixels, strength: float, rng: np.random.Generator) -> Pixels | None:
    other = ordered(rgb, choice(ORDERS[1:], rng)).astype(np.float32)
    mixed = rgb.astype(np.float32) * (1 - strength) + other * strength
    pixels = np.rint(mixed).astype(np.uint8)
    moved = lab(pixels[::8, ::8])[..., 1:] - lab(rgb[::8, ::8])[..., 1:]
    seen = float(np.hypot(moved[..., 0], moved[..., 1]).mean())
    return pixels if seen >= _SEEN * strength else None


def lightless(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Take the light out, or flood the picture with it; nothing left at 1."""
    keep = 1 - strength
    values = good.rgb.astype(np.float32)
    lit = values * keep if rng.random() < 0.5 else 255 - (255 - values) * keep
    return good.planted(np.rint(lit).astype(np.uint8))


def flat(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Draw all tones towards one; nothing left at 1."""
    tone = float(rng.uniform(70, 185))
    values = tone + (good.rgb.astype(np.float32) - tone) * (1 - strength)
    return good.planted(np.rint(values).astype(np.uint8))


def hues_turned(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Turn all hues of a brand's picture, the logo's too, by up to 120 degrees."""
    if good.brand is None or not good.speaks_of(PALETTE):
        return None
    space = cv2.cvtColor(good.rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    angle = float(rng.choice([-1, 1])) * strength * 2 * np.pi / 3
    a, b = space[..., 1].copy(), space[..., 2].copy()
    space[..., 1] = a * np.cos(angle) - b * np.sin(angle)
    space[..., 2] = a * np.sin(angle) + b * np.cos(angle)
    turned = cv2.cvtColor(space, cv2.COLOR_LAB2RGB)
    return good.planted(np.clip(np.rint(turned * 255), 0, 255).astype(np.uint8))


def as_edit(good: Good) -> Good:
    """Return a good picture as the faithful edit of itself: it is its own upload.

    This is how any picture, a real one too, can be judged against a reference.
    """
    expected = Expected(
        width=good.expected.width,
        height=good.expected.height,
        aspect=good.expected.aspect,
        subtask="edit",
        prompt=_EDITS[0],
    )
    return replace(
        good,
        expected=expected,
        make=lambda: good.data,
        brand=None,
        references={"upload": good.data},
    )


def as_twin(good: Good) -> Good:
    """Return a good picture of which the baseline drew the same, sent as JPEG.

    Nothing else tells what its colours should be: no brand, no text.
    """
    expected = replace(good.expected, subtask="creative", brand=None, intended_text=())
    before = encoded(good.rgb, "JPEG", quality=88)
    return replace(
        good,
        expected=expected,
        make=lambda: good.data,
        brand=None,
        references={"baseline": before},
    )


def twin_tinted(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put a picture under coloured light that the baseline drew without."""
    return tinted(good.once("twin", as_twin), strength, rng)


def twin_exchanged(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Exchange channels of a picture that the baseline drew with the right ones."""
    return exchanged(good.once("twin", as_twin), strength, rng)


def edit_tinted(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put a picture under coloured light and call it the edit of the good one.

    Of an edit too the upload is left out: what the edit did may undo what is planted.
    """
    return tinted(good.once("edit", as_edit), strength, rng)


def edit_exchanged(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Exchange channels of a picture and call it the edit of the good one."""
    return exchanged(good.once("edit", as_edit), strength, rng)


def edited(seed: int, number: int) -> Good:
    """Return one good edit as the embedded server makes it, beside its upload.

    The same seed and number give the same picture.
    """
    rng = generator("planted edit", seed, number)
    uploads = sorted((DATASETS / "uploads").iterdir())
    upload = choice(uploads, rng).read_bytes()
    return _edit(f"edit {seed}/{number}", upload, rng, choice(_SIZES, rng))


def edited_from(good: Good, seed: int, number: int) -> Good:
    """Return a good edit of any picture by the embedded server, in the picture's own shape.

    The same picture, seed and number give the same edit.
    """
    rng = generator("planted edit of", seed, number, good.name)
    height, width = good.rgb.shape[:2]
    ratio = min(1.0, _LONG / max(width, height))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return _edit(f"{good.name} edited", good.data, rng, size)


def _edit(name: str, upload: bytes, rng: np.random.Generator, size: tuple[int, int]) -> Good:
    """Return an edit of an upload by one of the server's models, of this width and height."""
    specs = [spec for _, spec in sorted(MODELS.items()) if "edit" in spec.operations]
    width, height = size
    job = Job(
        spec=choice(specs, rng),
        prompt=choice(_EDITS, rng),
        seed=int(rng.integers(2**31)),
        width=width,
        height=height,
        upload=open_upload(upload),
    )
    expected = Expected(
        width=width,
        height=height,
        aspect=width / height,
        subtask="edit",
        declared_mime="image/png",
        prompt=job.prompt,
    )
    return Good(
        name=name,
        expected=expected,
        make=functools.partial(render, job),
        job=job,
        references={"upload": upload},
    )


DEFECTS = (
    Defect("colour cast of an edit", CAST, 0.6, edit_tinted, "half: weakest channel loses", _STEPS),
    Defect(
        "cast beside the baseline", CAST, 0.6, twin_tinted, "half: weakest channel loses", _STEPS
    ),
    Defect("channels exchanged", CHANNELS, 1.0, exchanged, "share of the exchange", _STEPS),
    Defect("channels of an edit", CHANNELS, 1.0, edit_exchanged, "share of the exchange", _STEPS),
    Defect(
        "channels beside the baseline",
        CHANNELS,
        1.0,
        twin_exchanged,
        "share of the exchange",
        _STEPS,
    ),
    Defect("no light", EXPOSURE, 0.88, lightless, "light lost or flooded", (0.5, 0.7, 0.8, 0.9, 1)),
    Defect("no contrast", CONTRAST, 0.9, flat, "contrast lost", (0.5, 0.7, 0.8, 0.9, 1)),
    Defect("hues turned", PALETTE, 0.6, hues_turned, "turn of the hue, 120°", _STEPS),
)
