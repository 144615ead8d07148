"""Defects of shape, colour and content that can be planted in the pixels of any picture."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from tasks.checks import duplicates
from tasks.checks.base import Expected, Pixels
from tasks.checks.blank import reduced
from tasks.checks.colour import is_warm
from tasks.checks.colour_space import Floats, lab
from tasks.checks.planted_base import Defect, Good, Planted, choice, encoded
from tasks.providers.embedded.scene import grain

_STEPS = (0.1, 0.25, 0.5, 0.75, 1.0)
#: Long side at which is asked what of a picture is grey.
_LIGHT_AT = 256
#: Share of a planted light that must be seen beside the upload of an edit that changed the light
#: itself, and how many hues are tried.
_LEFT, _TRIES = 0.8, 8
#: Degrees of a*b* beside warm light from which a light is planted where nothing can be compared:
#: the picture's own highlights are seldom quite neutral.
_BESIDE = 12.0


def _resized(rgb: Pixels, width: int, height: int) -> Pixels:
    size = (max(width, 1), max(height, 1))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _asked(good: Good) -> dict[str, object]:
    """Return the size and shape of the good picture as what is asked for."""
    height, width = good.rgb.shape[:2]
    return {"width": width, "height": height, "aspect": width / height}


def other_size(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Send the picture smaller, in the same shape; at least one pixel."""
    height, width = good.rgb.shape[:2]
    ratio = min(1 - 0.5 * strength, (width - 1) / width, (height - 1) / height)
    planted = good.planted(_resized(good.rgb, int(width * ratio), int(height * ratio)))
    return Planted(planted.data, good.sent(b"", **_asked(good)).expected, good.references)


def other_shape(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Send the picture narrower or lower: squeezed, or cut."""
    height, width = good.rgb.shape[:2]
    factor = 1 - 0.5 * strength
    narrow = rng.random() < 0.5
    to = (round(width * factor), height) if narrow else (width, round(height * factor))
    pixels = (
        _resized(good.rgb, *to)
        if rng.random() < 0.5
        else good.rgb[: max(to[1], 1), : max(to[0], 1)]
    )
    planted = good.planted(pixels)
    asked = _asked(good) | {"width": None, "height": None}
    return Planted(planted.data, good.sent(b"", **asked).expected, good.references)


def tinted(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put the picture under light of any hue: the weakest channel loses half at full strength.

    The default of 0.6 leaves the weakest channel 70 %: the embedded server's casts, seen by
    anyone (a mean shift of 10 and more in a*b* on something neutral). Without a logo, an upload or
    another reference ``None`` where the good picture has little that is neutral, or nothing else:
    a red poster under blue light is a violet poster, and a white page a page of blue paper. Nor is
    the light warm there, or nearly so, as designers like it. Beside an upload or the baseline's
    picture it has a hue that no correction has, see there.
    """
    alone = good.brand is None and not good.references
    if alone and not shows_light(good.rgb):
        return None
    for _ in range(_TRIES):
        light = np.array(colorsys.hsv_to_rgb(float(rng.random()), 0.5 * strength, 1.0))
        if _fair(good, light, alone=alone):
            return good.planted(_under(good.rgb, light))
    return None


def _fair(good: Good, light: Floats, *, alone: bool) -> bool:
    """Say whether light of these gains is a defect to anyone: see :func:`tinted`."""
    if alone:
        return not is_warm(light, _BESIDE)
    return good.brand is not None or _no_correction(good, light)


def _under(rgb: Pixels, light: Floats) -> Pixels:
    """Return pixels under light of these gains of red, green and blue."""
    table = np.rint(np.arange(256)[:, None] * light).astype(np.uint8)
    return np.stack([table[:, c][rgb[..., c]] for c in range(3)], axis=-1)


def _no_correction(good: Good, light: Floats) -> bool:
    """Say whether a light does what no correction of the light does.

    It must not make the mean colour of the picture greyer, and not give an edit back the light that
    the edit took off: two pictures side by side do not say which of both was under a lamp.
    """
    small = good.rgb[::4, ::4]
    tint = [np.ptp(np.log(one.mean(axis=(0, 1)) + 1)) for one in (small, _under(small, light))]
    return bool(tint[1] >= tint[0]) and left_over(np.log(light), _change_of_light(good)) >= _LEFT


def _change_of_light(good: Good) -> Floats:
    """Return how a good edit changed the colour of its upload's light, in logarithms."""
    from tasks.checks.decode import decode

    upload = good.references.get("upload")
    before = None if upload is None or upload == good.data else decode(upload, Expected()).picture
    if before is None:
        return np.zeros(3)
    now, then = (np.log(one[::4, ::4].reshape(-1, 3) + 4.0) for one in (good.rgb, before.rgb))
    return np.asarray(now.mean(axis=0) - then.mean(axis=0))


def left_over(light: Floats, change: Floats) -> float:
    """Return which share of a light is seen beside the upload and beside the good edit.

    Both are right, and so is all that lies between: an edit may take the light off in part. What
    only undoes the edit's own change is no cast: then the upload's light is back.

    Args:
        light: What is planted, as logarithms of red, green and blue.
        change: What the edit did to the upload's light, likewise.

    Returns:
        1 where the edit left the light as it was, 0 where the light planted undoes the edit.
    """
    light, change = light - light.mean(), change - change.mean()
    length = float(change @ change)
    part = float(np.clip((change + light) @ change / length, 0, 1)) if length > 1e-9 else 0.0
    return float(np.ptp(change + light - part * change) / np.ptp(light))


def shows_light(rgb: Pixels) -> bool:
    """Say whether a person could tell coloured light on a picture from a coloured picture.

    For that a fifth of it must be grey or white, and a twentieth coloured.
    """
    space = lab(reduced(rgb, _LIGHT_AT).reshape(-1, 3))
    chroma = np.hypot(space[:, 1], space[:, 2])
    grey = (chroma < 6) & (space[:, 0] > 15)  # Near black nobody sees a colour.
    return bool(grey.mean() >= 0.2 and (chroma > 15).mean() >= 0.05)


def blank(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Fade the picture into one colour, with the grain of a sensor; nothing left at 1."""
    colour = np.full(3, int(rng.choice([0, 24, 127, 250, 255])), np.float32)
    if rng.random() < 0.5:
        colour = rng.integers(0, 256, 3).astype(np.float32)
    flat = colour + (good.rgb.astype(np.float32) - colour) * (1 - strength)
    pixels = np.clip(np.rint(flat), 0, 255).astype(np.uint8)
    return good.planted(grain(pixels, rng, float(rng.choice([0.0, 1.0, 2.0]))))


def blurred(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Blur the picture as providers do for a refusal: sigma up to an eighth of the long side."""
    height, width = good.rgb.shape[:2]
    sigma = strength * max(height, width) / 8
    # At a quarter of the size: the same blur at a sixteenth of the cost.
    small = _resized(good.rgb, max(width // 4, 1), max(height // 4, 1))
    soft = cv2.GaussianBlur(small, (0, 0), max(sigma / 4, 0.3), borderType=cv2.BORDER_REPLICATE)
    return good.planted(np.asarray(cv2.resize(soft, (width, height)), np.uint8))


def repeated(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Give another prompt the same picture: encoded again, scaled, brighter, a little cropped."""
    height, width = good.rgb.shape[:2]
    how = choice(("encoded", "scaled", "brighter", "cropped"), rng)
    if how == "encoded":
        data = encoded(good.rgb, "JPEG", quality=round(95 - 70 * strength))
    elif how == "scaled":
        ratio = 1 - 0.7 * strength
        data = good.planted(_resized(good.rgb, int(width * ratio), int(height * ratio))).data
    elif how == "brighter":
        change = 1 + rng.choice([-0.5, 0.5]) * strength
        data = good.planted(np.clip(good.rgb * change, 0, 255).astype(np.uint8)).data
    else:
        edge = int(0.02 * strength * min(width, height)) + 1
        data = good.planted(good.rgb[edge:-edge, edge:-edge]).data
    return Planted(data, good.expected, earlier=(good.data,))


DEFECTS = (
    Defect(
        "wrong size", "geometry.size", 0.1, other_size, "half: sides shorter by", (0.004, *_STEPS)
    ),
    Defect("wrong shape", "geometry.aspect", 0.2, other_shape, "half: one side shorter by", _STEPS),
    Defect(
        "colour cast",
        "colour.cast",
        0.6,
        tinted,
        "half: weakest channel loses",
        (0.2, 0.4, 0.6, 0.8),
    ),
    Defect("blank", "composition.blank", 1.0, blank, "share faded", (0.8, 0.95, 1.0)),
    Defect("blurred refusal", "safety.refusal", 0.5, blurred, "eighths of the long side", _STEPS),
    Defect("same picture again", duplicates.CHECK, 0.25, repeated, "harm of the copy", _STEPS),
)
