"""What the drawn defects do to text, picture and file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tasks.providers.embedded import fonts
from tasks.providers.embedded.draws import drops, letters, swaps
from tasks.providers.embedded.models import Fault
from tasks.providers.embedded.scene import Pixels
from tasks.providers.embedded.typeset import Rect

#: Gains of red, green and blue; each moves the mean of a neutral picture by more than 10 in Lab.
_CASTS = ((1.04, 0.95, 0.68), (0.72, 0.95, 1.06), (0.78, 1.04, 0.8), (1.06, 0.76, 1.0))


def _one_of(options: Sequence[int], rng: np.random.Generator) -> int:
    return options[int(rng.integers(len(options)))]


def swap_letters(text: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Exchange two neighbouring letters of one string."""
    lines = list(text)
    number = _one_of([i for i, line in enumerate(lines) if swaps(line)], rng)
    parts = letters(lines[number])
    at = _one_of(swaps(lines[number]), rng)
    parts[at], parts[at + 1] = parts[at + 1], parts[at]
    lines[number] = "".join(parts)
    return tuple(lines)


def drop_letter(text: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Leave one letter of one string out."""
    lines = list(text)
    number = _one_of([i for i, line in enumerate(lines) if drops(line)], rng)
    parts = letters(lines[number])
    del parts[_one_of(drops(lines[number]), rng)]
    lines[number] = "".join(parts)
    return tuple(lines)


def miss_glyphs(text: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Put boxes in the place of a third of the letters, at least one."""
    where = [
        (number, at)
        for number, line in enumerate(text)
        for at, part in enumerate(letters(line))
        if part[0].isalnum()
    ]
    count = max(1, round(len(where) * 0.33))
    gone = {where[i] for i in rng.choice(len(where), count, replace=False)}
    return tuple(
        "".join(
            fonts.BOX if (number, at) in gone else part for at, part in enumerate(letters(line))
        )
        for number, line in enumerate(text)
    )


def other_shape(width: int, height: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return a width and height of clearly another aspect ratio."""
    factor = float(rng.choice([0.6, 0.7, 0.75]))
    if rng.random() < 0.5:
        return max(32, round(width * factor)), height
    return width, max(32, round(height * factor))


def blank(width: int, height: int, rng: np.random.Generator) -> Pixels:
    """Return a picture of one colour."""
    level = int(rng.choice([0, 24, 127, 250, 255]))
    return np.full((height, width, 3), level, np.uint8)


def cast(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the picture under coloured light: every channel with its own gain."""
    gains = np.array(_CASTS[int(rng.integers(len(_CASTS)))], np.float32)
    table = np.clip(np.arange(256, dtype=np.float32)[:, None] * gains, 0, 255).astype(np.uint8)
    return np.stack([table[:, c][pixels[..., c]] for c in range(3)], axis=-1)


def outside(logo: Rect, width: int, height: int, rng: np.random.Generator) -> Rect:
    """Return a place for the logo that leaves the safe area, by the nearest edges."""
    hidden = 0.0 if rng.random() < 0.5 else 0.25
    dx = -logo.left - round(logo.width * hidden)
    dy = -logo.top
    if logo.left > width - logo.right:
        dx = width - logo.right + round(logo.width * hidden)
    if logo.top > height - logo.bottom:
        dy = height - logo.bottom
    return Rect(logo.left + dx, logo.top + dy, logo.right + dx, logo.bottom + dy)


def damage(file: bytes, fault: Fault | None, rng: np.random.Generator) -> bytes:
    """Return the file with a wrong signature or cut short, where the fault says so."""
    if fault is Fault.INVALID_HEADER:
        return b"\x89PNQ\r\n\x1a\x00" + file[8:]
    if fault is Fault.TRUNCATED:
        return file[: int(len(file) * rng.uniform(0.3, 0.8))]
    return file


def rounded(width: int, height: int, radius: int) -> Image.Image:
    """Return a mask of a rectangle with round, smooth corners."""
    mask = Image.new("L", (width * 2, height * 2), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * 2 - 1, height * 2 - 1), radius * 2, 255)
    return mask.reduce(2)
