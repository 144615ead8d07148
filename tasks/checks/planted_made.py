"""Pictures of people made into what a brand asks for: known to be good by how they are made.

Nobody knows of a found picture whether it keeps a brand's margins or shows its colours. With room
around it, as a print on a plain ground, or with a band in the brand's colours it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from tasks.checks.base import Pixels
from tasks.checks.blank import reduced
from tasks.checks.planted_base import Good, choice
from tasks.providers.embedded.brands import Brand
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.render import png
from tasks.providers.embedded.scene import grain

PALETTE, PART, MARGINS = "colour.palette", "composition.blank_part", "composition.margins"
SUBJECT = "composition.subject"
_SIZES = ((640, 512), (512, 640), (576, 576))
#: Levels by which the edge of a print must differ from its ground, and where.
_SEEN, _SHARE = 45, 0.9
#: Height of a band in the brand's colours, as a share of the picture.
_BAND = 0.08
#: Colours to which an edge is reduced before it is drawn out.
_EDGE = 128


def _as(good: Good, brand: Brand, kind: str, check: str, make: Callable[[], Pixels]) -> Good:
    """Return pixels made of a picture as a good one for one check, asked for in their own size."""
    expected = replace(
        good.expected,
        brand=brand.kit.name,
        declared_mime="image/png",
        width=None,
        height=None,
        aspect=None,
    )
    return Good(
        name=f"{good.name} {kind}",
        expected=expected,
        make=lambda: png(make()),
        brand=brand,
        under=good.data,
        judged=frozenset({check}),
    )


def roomy(good: Good, brand: Brand) -> Good:
    """Return a picture with its edge drawn out: whatever text it has keeps the brand's margin."""
    height, width = good.rgb.shape[:2]
    margin = (brand.kit.layout.margin or 0.0) + 0.02
    room = int(np.ceil(margin * min(height, width) / (1 - 2 * margin)))
    make = functools.partial(_drawn_out, good.rgb, room)
    return _as(good, brand, "with room", MARGINS, make)


def _drawn_out(rgb: Pixels, room: int) -> Pixels:
    """Draw the edge out without the strokes of letters that touch it, which would go with it."""
    above, below = (_smooth(row)[None].repeat(room, axis=0) for row in (rgb[0], rgb[-1]))
    tall = np.concatenate([above, rgb, below])
    left, right = (_smooth(tall[:, at])[:, None].repeat(room, axis=1) for at in (0, -1))
    return np.concatenate([left, tall, right], axis=1)


def _smooth(edge: Pixels) -> Pixels:
    """Return a row of colours with the median of a quarter of it around each."""
    small = cv2.resize(edge[None], (_EDGE, 1), interpolation=cv2.INTER_AREA)
    middle = cv2.medianBlur(np.asarray(small, np.uint8), _EDGE // 4 + 1)
    wide = cv2.resize(middle, (len(edge), 1), interpolation=cv2.INTER_LINEAR)
    return np.asarray(wide[0], np.uint8)


def in_colours(good: Good, brand: Brand) -> Good:
    """Return a picture in grey above a band in all colours of the brand.

    In grey, as one with all colours of a photograph would show the brand's without the band.
    """
    return _as(good, brand, "in its colours", PALETTE, lambda: _banded(good.rgb, brand))


def _banded(rgb: Pixels, brand: Brand) -> Pixels:
    height, width = rgb.shape[:2]
    edges = np.linspace(0, width, len(brand.kit.colours) + 1).round().astype(int)
    band = np.zeros((max(8, round(_BAND * height)), width, 3), np.uint8)
    for colour, left, right in zip(brand.kit.colours, edges, edges[1:], strict=False):
        band[:, left:right] = colour
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    return np.concatenate([np.dstack([grey] * 3), band])


def full(good: Good, brand: Brand) -> Good | None:
    """Return a picture that is nowhere plain; ``None`` where so much has one colour that it may be.

    Asked of all its pixels, wherever they lie: no rectangle of one colour has more than all.
    """
    small = reduced(good.rgb, 256).reshape(-1, 3).astype(np.int32) >> 3
    _, counts = np.unique(small @ np.array([4096, 64, 1]), return_counts=True)
    limit = brand.kit.layout.blank or 1.0
    # A colour may lie on the border of two steps in each channel.
    if float(np.sort(counts)[::-1][:8].sum()) > limit * len(small):
        return None
    return _as(good, brand, "full", PART, lambda: good.rgb)


def print_of(good: Good, brand: Brand, seed: int) -> Good | None:
    """Return a picture as a print on a plain ground of the brand, for its subject.

    ``None`` where its edge is hardly to be seen on any of the brand's colours.
    """
    rng = generator("planted print", seed, good.name)
    whole = printed(good.rgb, brand, 0.0, rng)
    if whole is None:
        return None
    made = _as(good, brand, "as a print", SUBJECT, lambda: whole)
    return replace(made, expected=replace(made.expected, intended_text=()))


def printed(rgb: Pixels, brand: Brand, cut: float, rng: np.random.Generator) -> Pixels | None:
    """Draw a picture as a print on a plain ground, with the brand's logo at its place.

    Args:
        rgb: The picture.
        brand: For the ground and the logo.
        cut: Share of the print beyond one side of the frame; 0 leaves it whole.
        rng: The draw; the same one gives the same but for the cut.

    Returns:
        The pixels, or ``None`` where the print's edge is hardly to be seen.
    """
    width, height = choice(_SIZES, rng)
    small = reduced(rgb, round(min(width, height) * float(rng.uniform(0.45, 0.6))))
    rows, columns = small.shape[:2]
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]]).astype(np.int16)
    able = [
        colour
        for colour in brand.kit.colours
        if float((np.abs(edge - colour).max(axis=1) > _SEEN).mean()) >= _SHARE
    ]
    side, tilt = choice(("left", "right", "top", "bottom"), rng), float(rng.choice([-1, 1]))
    if not able:
        return None
    light = 1 + 0.05 * tilt * np.linspace(-1, 1, height)[:, None, None]
    ground = np.clip(np.array(choice(able, rng)) * light, 0, 255).repeat(width, axis=1)
    left, top = (width - columns) // 2, (height - rows) // 2
    if cut > 0:
        beyond_x, beyond_y = round(cut * columns), round(cut * rows)
        left = {"left": -beyond_x, "right": width - columns + beyond_x}.get(side, left)
        top = {"top": -beyond_y, "bottom": height - rows + beyond_y}.get(side, top)
    image = Image.fromarray(ground.astype(np.uint8))
    image.paste(Image.fromarray(small), (left, top))
    brand.draw(image, brand.place(width, height))
    return grain(np.asarray(image), rng, 1.4)
