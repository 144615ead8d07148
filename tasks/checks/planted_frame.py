"""Defects of placing: a logo off its place, a subject beyond the frame, a film for a picture."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from tasks.checks.base import Pixels
from tasks.checks.planted_base import Defect, Good, Planted, choice
from tasks.checks.planted_made import printed
from tasks.providers.embedded import scene
from tasks.providers.embedded.render import png
from tasks.providers.embedded.typeset import Rect

STILL, LOGO, SUBJECT = "decode.still", "composition.logo", "composition.subject"
_STEPS = (0.1, 0.25, 0.5, 1.0)
#: What a picture of one subject on a plain ground is known to be good for: it has few colours of
#: its brand, and much of it is plain.
STUDIO_JUDGED = frozenset(
    {
        STILL,
        LOGO,
        SUBJECT,
        "decode.file",
        "decode.mime",
        "geometry.size",
        "geometry.aspect",
        "geometry.borders",
        "colour.cast",
        "colour.exposure",
        "colour.contrast",
        "composition.blank",
        "safety.refusal",
        "consistency.near_duplicate",
    }
)


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


def studio(
    good: Good, cut: float, rng: np.random.Generator, size: tuple[int, int] | None = None
) -> Pixels | None:
    """Draw a branded picture of one subject on a plain ground, with the logo at its place.

    Args:
        good: For prompt and brand.
        cut: Share of the subject's pixels beyond one side of the frame; 0 leaves it whole.
        rng: The draw; the same one gives the same picture but for the cut.
        size: Width and height; those of the good picture by default.

    Returns:
        The pixels, or ``None`` where the subject hardly differs from the ground.
    """
    if good.brand is None:
        return None
    width, height = size or good.rgb.shape[1::-1]
    colours = scene.palette(rng, good.brand.kit.palette)
    side = choice(("left", "right", "top", "bottom"), rng)
    across = round(min(height, width) * rng.uniform(0.5, 0.7))
    # Room on all sides for a window that the subject lies at the edge of.
    large_h, large_w = 2 * height + across, 2 * width + across
    light = 1 + 0.05 * np.linspace(-1, 1, large_h)[:, None, None] * float(rng.choice([-1, 1]))
    ground = np.clip(np.array(colours.ground) * light, 0, 255).repeat(large_w, axis=1)
    plain = ground.astype(np.uint8)
    image = Image.fromarray(plain)
    left, top = (large_w - across) // 2, (large_h - across) // 2
    middle = Rect(left, top, left + across, top + across)
    scene.place_subject(image, rng, middle, good.expected.prompt or "", colours)
    pixels = np.asarray(image)
    drawn = np.abs(pixels.astype(np.int16) - plain).max(axis=2) > 45
    if drawn.sum() < 0.12 * across * across:
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
    """Draw the subject partly beyond the frame, beside a drawing of the same that has it whole.

    What is no drawing of ours is the subject itself, as a print.
    """
    seed = int(rng.integers(2**32))
    whole, cut = (_shown(good, share, np.random.default_rng(seed)) for share in (0.0, strength))
    if whole is None or cut is None:
        return None
    expected = replace(good.expected, intended_text=())
    clean = Good(f"{good.name}, studio", expected, lambda: png(whole), brand=good.brand)
    return clean.planted(cut)


def _shown(good: Good, cut: float, rng: np.random.Generator) -> Pixels | None:
    if good.under is None or good.brand is None:
        return studio(good, cut, rng)
    # It was decoded with care before: no limits needed.
    with Image.open(io.BytesIO(good.under)) as file:  # noqa: TID251
        return printed(np.asarray(file.convert("RGB")), good.brand, cut, rng)


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
    Defect("logo off its place", LOGO, 0.5, moved, "30 % of the width", _STEPS),
    Defect("subject beyond the frame", SUBJECT, 0.4, cut_off, "share of it", (0.2, 0.4, 0.6)),
)
