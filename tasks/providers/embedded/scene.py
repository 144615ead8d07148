"""Composes the picture behind the text: background, light, subject, shadow, noise.

Everything follows from one random generator, so that the same request gives the same picture and
different prompts give pictures that differ in their large shapes, not only in detail.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tasks.providers.embedded.subjects import SUBJECTS, subject_for
from tasks.providers.embedded.typeset import Colour, Rect

Field = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one picture."""

    ground: Colour
    second: Colour
    subject: Colour
    accent: Colour


def hex_colour(text: str) -> Colour:
    """Return the RGB levels of ``#RRGGBB``."""
    return (int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16))


def luminance(colour: Colour) -> float:
    """Return the relative luminance of WCAG 2, 0 to 1."""
    linear = [
        c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in colour
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, two: Colour) -> float:
    """Return the contrast ratio of WCAG 2, 1 to 21."""
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return (round(red * 255), round(green * 255), round(blue * 255))


def palette(rng: np.random.Generator, brand: Sequence[str] = ()) -> Palette:
    """Return the colours: the brand's own, or a muted ground with a complementary subject."""
    if brand:
        colours = [hex_colour(c) for c in brand]
        turn = int(rng.integers(len(colours)))
        colours = [*colours[turn:], *colours[:turn]]
        while len(colours) < 4:
            colours += colours
        return Palette(*colours[:4])
    hue = float(rng.random())
    dark = rng.random() < 0.4
    low, high = (0.24, 0.5) if dark else (0.62, 0.94)
    apart = float(rng.choice([0.5, 0.42, 0.58, 0.33]))
    # One of the two grounds is grey: a picture needs something neutral to show its white balance.
    tinted = _hsv(hue, rng.uniform(0.12, 0.45), rng.uniform(low, high))
    grey = _hsv(hue, rng.uniform(0.0, 0.02), rng.uniform(low + 0.04, high + 0.04))
    grounds = (tinted, grey) if rng.random() < 0.5 else (grey, tinted)
    return Palette(
        ground=grounds[0],
        second=grounds[1],
        subject=_hsv(hue + apart + rng.uniform(-0.05, 0.05), rng.uniform(0.45, 0.75), 0.78),
        accent=_hsv(hue + rng.uniform(-0.08, 0.08), rng.uniform(0.4, 0.7), 0.85),
    )


def _grid(width: int, height: int) -> tuple[Field, Field]:
    """Return x and y in units of the shorter side, from the centre."""
    short = min(width, height)
    x = (np.arange(width, dtype=np.float32) - width / 2) / short
    y = (np.arange(height, dtype=np.float32) - height / 2) / short
    return np.asarray(x[None, :], np.float32), np.asarray(y[:, None], np.float32)


def _smooth(edge: Field, softness: float) -> Field:
    return np.asarray(np.clip(edge / softness + 0.5, 0, 1), np.float32)


def _turned(x: Field, y: Field, angle: float) -> Field:
    return np.asarray(x * np.cos(angle) + y * np.sin(angle), np.float32)


def _gradient(rng: np.random.Generator, x: Field, y: Field) -> Field:
    return np.asarray(np.clip(_turned(x, y, rng.uniform(0, 6.28)) + 0.5, 0, 1), np.float32)


def _radial(rng: np.random.Generator, x: Field, y: Field) -> Field:
    dx, dy = rng.uniform(-0.4, 0.4, 2)
    return np.asarray(np.clip(np.hypot(x - dx, y - dy) * rng.uniform(0.9, 1.8), 0, 1), np.float32)


def _table(rng: np.random.Generator, x: Field, y: Field) -> Field:
    level = rng.uniform(0.02, 0.3)
    return _smooth(y - level + x * rng.uniform(-0.12, 0.12), 0.01)


def _rays(rng: np.random.Generator, x: Field, y: Field) -> Field:
    dx, dy = rng.uniform(-0.5, 0.5, 2)
    count = int(rng.integers(5, 15))
    turns = np.arctan2(y - dy, x - dx) * count / 6.2832 + rng.random()
    return _smooth(np.abs(turns % 1 - 0.5) - 0.25, 0.04)


def _stripes(rng: np.random.Generator, x: Field, y: Field) -> Field:
    across = _turned(x, y, rng.uniform(0, 3.14)) * rng.uniform(2.5, 8)
    return _smooth(np.abs((across + rng.random()) % 1 - 0.5) - 0.25, 0.03)


def _hills(rng: np.random.Generator, x: Field, y: Field) -> Field:
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for level in np.linspace(-0.15, 0.3, int(rng.integers(2, 5))):
        ridge = level + sum(
            rng.uniform(0.02, 0.09) * np.sin(x * rng.uniform(2, 9) + rng.uniform(0, 6.28))
            for _ in range(3)
        )
        total += _smooth(y - ridge, 0.012)
    return np.asarray(total / total.max(), np.float32)


def _tiles(rng: np.random.Generator, x: Field, y: Field) -> Field:
    angle, count = rng.uniform(0, 1.57), rng.uniform(2.5, 7)
    u, v = _turned(x, y, angle) * count, _turned(x, y, angle + 1.57) * count
    phase = rng.random(2)
    return np.asarray(((u + phase[0]) % 1 < 0.5) ^ ((v + phase[1]) % 1 < 0.5), np.float32)


def _discs(rng: np.random.Generator, x: Field, y: Field) -> Field:
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for _ in range(int(rng.integers(5, 14))):
        dx, dy = rng.uniform(-0.7, 0.7, 2)
        radius = rng.uniform(0.05, 0.3)
        inside = _smooth(radius - np.hypot(x - dx, y - dy), rng.uniform(0.01, 0.08))
        total = np.maximum(total, inside * rng.uniform(0.3, 1))
    return total


def _blocks(rng: np.random.Generator, x: Field, y: Field) -> Field:
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        edge = _turned(x, y, rng.uniform(0, 6.28)) - rng.uniform(-0.35, 0.45)
        total += _smooth(edge, 0.012) * rng.uniform(0.3, 1)
    return np.asarray(np.clip(total / max(float(total.max()), 0.5), 0, 1), np.float32)


def _arches(rng: np.random.Generator, x: Field, y: Field) -> Field:
    dx, dy = rng.uniform(-0.35, 0.35), rng.uniform(-0.3, 0.5)
    rings = np.hypot(x - dx, y - dy) * rng.uniform(3, 8) + rng.random()
    return _smooth(np.abs(rings % 1 - 0.5) - 0.25, 0.05)


_GROUNDS = (
    _gradient, _radial, _table, _rays, _stripes, _hills, _tiles, _discs, _blocks, _arches
)  # fmt: skip


def background(rng: np.random.Generator, width: int, height: int, colours: Palette) -> Image.Image:
    """Return the ground with its light, as an RGB picture."""
    # Half the resolution is enough for shapes that lie out of focus; it costs a quarter.
    small_w, small_h = (width + 1) // 2, (height + 1) // 2
    x, y = _grid(small_w, small_h)
    mix = _GROUNDS[int(rng.integers(len(_GROUNDS)))](rng, x, y)
    if rng.random() < 0.4:
        other = _GROUNDS[int(rng.integers(len(_GROUNDS)))](rng, x, y)
        mix = np.clip(mix * 0.8 + other * 0.4 - 0.1, 0, 1)
    one, two = (np.asarray(c, np.float32) for c in (colours.ground, colours.second))
    picture = one + (two - one) * mix[..., None]
    # Uneven light: a coarse random field, so that no two pictures share their large shapes.
    cells = (int(rng.integers(5, 10)), int(rng.integers(5, 10)))
    coarse = Image.fromarray(rng.uniform(-1, 1, cells).astype(np.float32))
    uneven = np.asarray(coarse.resize((small_w, small_h), Image.Resampling.BICUBIC))
    lit = rng.uniform(-0.5, 0.5, 2)
    spot = np.exp(-((x - lit[0]) ** 2 + (y - lit[1]) ** 2) * rng.uniform(2, 6))
    light = 0.92 + uneven * rng.uniform(0.1, 0.18) + spot * rng.uniform(0.1, 0.28)
    picture = picture * light[..., None]
    pixels = np.clip(picture, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def place_subject(
    image: Image.Image, rng: np.random.Generator, area: Rect, prompt: str, colours: Palette
) -> None:
    """Draw one to three subjects into a free area, with a soft shadow.

    The subject follows the prompt's words where they name one that is known.
    """
    name = subject_for(prompt) or list(SUBJECTS)[int(rng.integers(len(SUBJECTS)))]
    size = int(min(area.width, area.height) * rng.uniform(0.7, 0.95))
    if size < 24:
        return
    room = max(area.width - size, 0)
    count = 1 + min(int(room / size), int(rng.integers(3)))
    step = room / count
    for number in range(count):
        side = round(size * rng.uniform(0.75, 1.0))
        left = area.left + round(step * number + rng.uniform(0, 1) * max(step - size * 0.2, 0))
        left = min(left, area.right - side)
        top = area.bottom - side - round(rng.uniform(0, 0.5) * (area.height - side))
        body = colours.subject if number % 2 == 0 else colours.accent
        trim = colours.accent if number % 2 == 0 else colours.subject
        _paste_subject(image, rng, name, (left, top, side), (body, trim))


def _paste_subject(
    image: Image.Image,
    rng: np.random.Generator,
    name: str,
    box: tuple[int, int, int],
    colours: tuple[Colour, Colour],
) -> None:
    left, top, side = box
    large = Image.new("RGBA", (side * 2, side * 2), (*colours[0], 0))
    SUBJECTS[name](ImageDraw.Draw(large), side * 2, *colours)
    cut = large.reduce(2)
    alpha = cut.getchannel("A")
    # Light from one side gives the flat shape a body.
    across = np.linspace(-1, 1, side, dtype=np.float32)[None, :] * rng.choice([-1.0, 1.0])
    down = np.linspace(-1, 1, side, dtype=np.float32)[:, None]
    shade = 1.0 - 0.22 * across - 0.1 * down - 0.18 * across * across
    lit = np.asarray(cut.convert("RGB"), np.float32) * shade[..., None]
    body = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    blur = max(2.0, side / 28)
    small = alpha.reduce(4) if side >= 16 else alpha
    shadow = small.filter(ImageFilter.GaussianBlur(blur / 4)).resize((side, side))
    shadow = shadow.point(lambda level: level * 0.38)
    image.paste((18, 18, 20), (left + side // 24, top + side // 20), shadow)
    image.paste(body, (left, top), alpha)


@lru_cache(maxsize=8)
def _noise(sigma: float) -> NDArray[np.int16]:
    rng = np.random.Generator(np.random.PCG64(7))
    field = np.rint(rng.normal(0, sigma, (640, 640))).astype(np.int16)
    return np.repeat(field[..., None], 3, axis=2)


def grain(pixels: Pixels, rng: np.random.Generator, sigma: float) -> Pixels:
    """Return the picture with sensor noise of a standard deviation in 8-bit levels."""
    if sigma <= 0:
        return pixels
    height, width = pixels.shape[:2]
    field = _noise(sigma)
    top, left = (int(v) for v in rng.integers(0, 128, 2))
    rows, columns = -(-(top + height) // 640), -(-(left + width) // 640)
    if (rows, columns) != (1, 1):
        field = np.tile(field, (rows, columns, 1))
    noisy = pixels + field[top : top + height, left : left + width]
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)
