"""Defects of the frame: bars, a turned edit, a logo off its place, a film, a subject cut off.

Whatever cannot be seen on a picture is not planted there: black bars beside a black ground, a
mirrored picture that is symmetrical.
"""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from tasks.checks.base import Pixels
from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.providers.embedded import scene
from tasks.providers.embedded.typeset import Rect

STILL, BORDERS = "decode.still", "geometry.borders"
ORIENTATION, LOGO, SUBJECT = "geometry.orientation", "composition.logo", "composition.subject"
_STEPS = (0.05, 0.1, 0.25, 0.5, 1.0)
#: Bars are this share of the side at full strength.
_BAR = 0.2
#: Levels that a pixel beside a bar must differ from it, and the share of them, to see an edge.
_SEEN, _SHARE = 40, 0.7


def _visible(lines: Pixels, colour: int) -> bool:
    """Say whether a bar of a grey level shows beside lines of the picture."""
    far = np.abs(lines.astype(np.int16) - colour).max(axis=-1) >= _SEEN
    return bool(far.mean() >= _SHARE)


def bars(rgb: Pixels, share: float, colour: int, *, upright: bool) -> Pixels | None:
    """Return the picture with bars over its top and bottom, or its sides.

    Args:
        rgb: The picture.
        share: Thickness of each bar as a share of the side; three pixels at the least.
        colour: Grey level.
        upright: Bars at the left and right.

    Returns:
        The picture, or ``None`` where the bars do not show.
    """
    pixels = np.array(np.swapaxes(rgb, 0, 1) if upright else rgb)
    depth = max(3, round(share * len(pixels)))
    if not (
        _visible(pixels[depth + 1 : depth + 4], colour)
        and _visible(pixels[-depth - 4 : -depth - 1], colour)
    ):
        return None
    pixels[:depth] = pixels[-depth:] = colour
    return np.ascontiguousarray(np.swapaxes(pixels, 0, 1) if upright else pixels)


def letterboxed(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put black or white bars over two opposite sides."""
    upright = bool(rng.random() < 0.5)
    first = int(rng.choice([0, 255]))
    for colour in (first, 255 - first):
        found = bars(good.rgb, _BAR * strength, colour, upright=upright)
        if found is not None:
            return _of_a_shape(good, found)
    return None


def framed(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put a black or white frame around the picture."""
    colour = int(rng.choice([0, 255]))
    across = bars(good.rgb, _BAR * strength, colour, upright=True)
    down = bars(good.rgb, _BAR * strength, colour, upright=False)
    if across is None or down is None:
        return None
    return _of_a_shape(good, np.asarray(np.where(across != good.rgb, across, down), np.uint8))


def _of_a_shape(good: Good, pixels: Pixels) -> Planted:
    """Return the pixels, with the size of the good picture as what was asked for."""
    height, width = pixels.shape[:2]
    planted = good.planted(pixels)
    asked = replace(planted.expected, width=width, height=height, aspect=width / height)
    return replace(planted, expected=asked)


def turned(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Send an edit that lies another way than its upload: turned, or mirrored.

    The good picture is the upload. One that looks alike both ways is left out.
    """
    way = choice(("left", "right", "over", "mirrored"), rng)
    pixels = {
        "left": np.rot90(good.rgb, 1),
        "right": np.rot90(good.rgb, 3),
        "over": np.rot90(good.rgb, 2),
        "mirrored": good.rgb[:, ::-1],
    }[way]
    one, two = (_small_grey(p) for p in (good.rgb, pixels))
    if min(one.std(), two.std()) < 8 or np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.6:
        return None
    return replace(good.planted(pixels), references={"upload": good.data})


def _small_grey(rgb: Pixels) -> Pixels:
    small = cv2.resize(np.ascontiguousarray(rgb), (24, 24), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def moved(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Move the logo into the picture, by up to three tenths of its width at full strength."""
    if good.brand is None or (good.job is None and good.under is None):
        return None
    kit = good.brand.kit
    height, width = good.rgb.shape[:2]
    place = good.brand.place(width, height)
    far, angle = 0.3 * strength * width, rng.uniform(0.15, np.pi / 2 - 0.15)
    dx = round(far * np.cos(angle)) * (1 if "left" in kit.logo.position else -1)
    dy = round(far * np.sin(angle)) * (1 if "top" in kit.logo.position else -1)
    if good.job is not None:
        bare = replace(good.brand, logo=Image.new("RGBA", good.brand.logo.size))
        data = good.redrawn(brand=bare).data
    else:
        data = good.under or b""
    # Our own picture, or one that was decoded with care before: no limits needed.
    with Image.open(io.BytesIO(data)) as file:  # noqa: TID251
        image = file.convert("RGB")
    there = Rect(place.left + dx, place.top + dy, place.right + dx, place.bottom + dy)
    good.brand.draw(image, there)
    return good.planted(np.asarray(image))


def studio(good: Good, cut: float, rng: np.random.Generator) -> Pixels | None:
    """Draw a branded picture of one subject on a plain ground, with the logo at its place.

    Args:
        good: For size, prompt and brand.
        cut: Share of the subject's pixels beyond one side of the frame; 0 leaves it whole.
        rng: The draw; the same one gives the same picture but for the cut.

    Returns:
        The pixels, or ``None`` where the subject hardly differs from the ground.
    """
    if good.brand is None:
        return None
    height, width = good.rgb.shape[:2]
    colours = scene.palette(rng, good.brand.kit.palette)
    side = choice(("left", "right", "top", "bottom"), rng)
    size = round(min(height, width) * rng.uniform(0.4, 0.55))
    # Room on all sides for a window that the subject lies at the edge of.
    large_h, large_w = 2 * height + size, 2 * width + size
    light = 1 + 0.05 * np.linspace(-1, 1, large_h)[:, None, None] * float(rng.choice([-1, 1]))
    ground = np.clip(np.array(colours.ground) * light, 0, 255).repeat(large_w, axis=1)
    plain = ground.astype(np.uint8)
    image = Image.fromarray(plain)
    left, top = (large_w - size) // 2, (large_h - size) // 2
    middle = Rect(left, top, left + size, top + size)
    scene.place_subject(image, rng, middle, good.expected.prompt or "", colours)
    pixels = np.asarray(image)
    drawn = np.abs(pixels.astype(np.int16) - plain).max(axis=2) > 60
    if drawn.sum() < 0.2 * size * size:
        return None
    x, y = (large_w - width) // 2, (large_h - height) // 2
    if cut > 0:
        along = drawn.sum(axis=0 if side in ("left", "right") else 1).cumsum() / drawn.sum()
        low, high = int((along < cut).sum()), int((along <= 1 - cut).sum())
        x = {"left": low, "right": high - width}.get(side, x)
        y = {"top": low, "bottom": high - height}.get(side, y)
    window = Image.fromarray(pixels[y : y + height, x : x + width])
    good.brand.draw(window, good.brand.place(width, height))
    return scene.grain(np.asarray(window), rng, 1.4)


def cut_off(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Draw the subject partly beyond the frame."""
    pixels = studio(good, strength, rng)
    return None if pixels is None else good.planted(pixels)


def animated(good: Good, strength: float, rng: np.random.Generator) -> Planted:
    """Send a film of two frames instead of a picture."""
    frames = [Image.fromarray(good.rgb), Image.fromarray(np.ascontiguousarray(good.rgb[::-1]))]
    out = io.BytesIO()
    kind = choice(("PNG", "GIF", "WEBP"), rng)
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=200)
    asked = good.expected.prompt or "a picture"
    return good.sent(out.getvalue(), declared_mime=f"image/{kind.lower()}", prompt=asked)


DEFECTS = (
    Defect("animation", STILL, 1.0, animated, "all or nothing", (1.0,)),
    Defect("bars", BORDERS, 0.4, letterboxed, "20 % of the side each", _STEPS),
    Defect("frame", BORDERS, 0.25, framed, "20 % of the side each", _STEPS),
    Defect("turned edit", ORIENTATION, 1.0, turned, "all or nothing", (1.0,)),
    Defect("logo off its place", LOGO, 0.5, moved, "30 % of the width", _STEPS),
    Defect("subject beyond the frame", SUBJECT, 0.4, cut_off, "share of it", (0.2, 0.4, 0.6)),
)
