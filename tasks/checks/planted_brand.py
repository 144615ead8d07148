"""Defects of the brand: the logo lost, moved, turned, doubled, off colour; colours not its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageOps

from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.inputs.brands import BrandKit, Corner
from tasks.providers.embedded import defects
from tasks.providers.embedded.brands import Brand
from tasks.providers.embedded.render import png
from tasks.providers.embedded.typeset import Rect

LOGO, PALETTE = "composition.logo", "colour.palette"
_CORNERS: tuple[Corner, ...] = ("top-left", "top-right", "bottom-left", "bottom-right")
_STEPS = (0.1, 0.25, 0.5, 0.75, 1.0)


def with_logo(data: bytes, brand: Brand) -> bytes:
    """Return a picture with a brand's logo where it belongs, as PNG."""
    # Our own picture, or one that was decoded with care before: no limits needed.
    with Image.open(io.BytesIO(data)) as file:  # noqa: TID251
        image = file.convert("RGB")
    brand.draw(image, brand.place(*image.size))
    return png(np.asarray(image))


def _branded(good: Good, brand: Brand) -> Planted:
    """Return the good picture with another brand in the place of its own."""
    if good.job is not None:
        return good.redrawn(brand=brand)
    if good.under is None:
        raise ValueError(f"{good.name} is not known without its logo")
    return good.sent(with_logo(good.under, brand))


def _able(good: Good) -> bool:
    return good.brand is not None and (good.job is not None or good.under is not None)


def _plant(
    change: Callable[[Brand, float, np.random.Generator], Brand],
) -> Callable[[Good, float, np.random.Generator], Planted | None]:
    def plant(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
        if good.brand is None or not _able(good):
            return None
        return _branded(good, change(good.brand, strength, rng))

    return plant


def _logo_rule(kit: BrandKit, **changes: object) -> BrandKit:
    return kit.model_copy(update={"logo": kit.logo.model_copy(update=changes)})


def lost(brand: Brand, strength: float, rng: np.random.Generator) -> Brand:
    """Fade the logo away; nothing left at 1."""
    faded = brand.logo.copy()
    faded.putalpha(faded.getchannel("A").point(lambda level: round(level * (1 - strength))))
    return replace(brand, logo=faded)


def mirrored(brand: Brand, strength: float, rng: np.random.Generator) -> Brand:
    """Mirror the logo."""
    return replace(brand, logo=ImageOps.mirror(brand.logo))


def recoloured(brand: Brand, strength: float, rng: np.random.Generator) -> Brand:
    """Turn the logo's hues, by half a circle at full strength."""
    rgba = np.array(brand.logo)
    hsv = cv2.cvtColor(np.ascontiguousarray(rgba[:, :, :3]), cv2.COLOR_RGB2HSV)
    turn = round(90 * strength) * int(rng.choice([-1, 1]))
    hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + turn) % 180
    rgba[:, :, :3] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return replace(brand, logo=Image.fromarray(rgba))


def wrong_corner(brand: Brand, strength: float, rng: np.random.Generator) -> Brand:
    """Put the logo into another corner."""
    others = [corner for corner in _CORNERS if corner != brand.kit.logo.position]
    return replace(brand, kit=_logo_rule(brand.kit, position=choice(others, rng)))


def wrong_scale(brand: Brand, strength: float, rng: np.random.Generator) -> Brand:
    """Draw the logo smaller, or larger by as much; half or double at full strength."""
    factor = (1 - 0.5 * strength) ** float(rng.choice([-1, 1]))
    width = min(brand.kit.logo.width * factor, 0.6)
    return replace(brand, kit=_logo_rule(brand.kit, width=width))


def outside(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Move the logo towards the edge: at full strength it touches it, or is cut by a quarter."""
    if good.brand is None or not _able(good):
        return None
    clean = _without(good, good.brand)
    height, width = clean.height, clean.width
    place = good.brand.place(width, height)
    gone = defects.outside(place, width, height, rng)
    dx, dy = ((gone.left - place.left) * strength, (gone.top - place.top) * strength)
    moved = Rect(
        place.left + round(dx), place.top + round(dy), place.right + round(dx),
        place.bottom + round(dy),
    )  # fmt: skip
    good.brand.draw(clean, moved)
    return good.planted(np.asarray(clean))


def twice(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Set the logo a second time, in another corner; at full strength as large as the first."""
    if good.brand is None:
        return None
    image = Image.fromarray(good.rgb)
    kit = wrong_corner(good.brand, strength, rng).kit
    kit = _logo_rule(kit, width=kit.logo.width * (0.5 + 0.5 * strength))
    second = replace(good.brand, kit=kit)
    second.draw(image, second.place(*image.size))
    return good.planted(np.asarray(image))


def off_palette(brand: Brand, strength: float, rng: np.random.Generator) -> Brand:
    """Draw in colours that are not the brand's: hues turned by up to a third of a circle."""
    colours = np.array(brand.kit.colours, np.uint8)[None]
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB).astype(np.float32)
    # White has no hue: every colour is moved by a fixed way as well as turned.
    angle = float(rng.choice([-1, 1])) * strength * 2 * np.pi / 3
    a, b = lab[..., 1] - 128, lab[..., 2] - 128
    way = rng.uniform(0, 2 * np.pi)
    lab[..., 1] = 128 + a * np.cos(angle) - b * np.sin(angle) + 25 * strength * np.cos(way)
    lab[..., 2] = 128 + a * np.sin(angle) + b * np.cos(angle) + 25 * strength * np.sin(way)
    turned = cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)[0]
    palette = tuple(f"#{r:02X}{g:02X}{b:02X}" for r, g, b in turned.tolist())
    return replace(brand, kit=brand.kit.model_copy(update={"palette": palette}))


def _colours(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    if good.brand is None or good.job is None:
        return None
    return good.redrawn(brand=off_palette(good.brand, strength, rng))


def _without(good: Good, brand: Brand) -> Image.Image:
    """Return the good picture without its logo."""
    bare = replace(brand, logo=Image.new("RGBA", brand.logo.size))
    planted = _branded(good, bare)
    # What was drawn just now: no limits needed.
    with Image.open(io.BytesIO(planted.data)) as file:  # noqa: TID251
        return file.convert("RGB")


DEFECTS = (
    Defect("logo missing", LOGO, 1.0, _plant(lost), "share faded", (0.5, 0.8, 1.0)),
    Defect("logo outside", LOGO, 1.0, outside, "way to the edge", _STEPS),
    Defect("logo mirrored", LOGO, 1.0, _plant(mirrored), "all or nothing", (1.0,)),
    Defect("logo recoloured", LOGO, 0.5, _plant(recoloured), "turn of the hue, 180°", _STEPS),
    Defect("logo in a wrong corner", LOGO, 1.0, _plant(wrong_corner), "all or nothing", (1.0,)),
    Defect("logo of a wrong size", LOGO, 0.6, _plant(wrong_scale), "half or double", _STEPS),
    Defect("logo twice", LOGO, 1.0, twice, "size of the second", (0.2, 0.6, 1.0)),
    Defect("colours off", PALETTE, 0.6, _colours, "turn of the hue, 120°", _STEPS),
)
