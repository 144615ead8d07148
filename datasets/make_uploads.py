"""Make the low-quality pictures in ``uploads/``: run ``python datasets/make_uploads.py``.

Each is a small still life, shaded by numpy (a backdrop, a table, one product with a highlight and
a soft shadow), then spoilt the way uploads are: too dark, noisy, blurred, burnt out, tiny, squeezed
by JPEG over and over, turned with only an EXIF tag to tell, grey, with a colour cast or with alpha.
No letters appear in them, so every text in an edited picture was put there by the edit.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

Pixels = NDArray[np.float64]
Shape = Callable[[Pixels, Pixels], Pixels]


@dataclass(frozen=True)
class Still:
    """A product in a scene: colours from 0 to 1, light from -1 (left) to 1 (right)."""

    shape: Shape
    product: tuple[float, float, float]
    wall: tuple[float, float, float]
    table: tuple[float, float, float]
    light: float = -0.6


def ellipse(x: Pixels, y: Pixels, cx: float, cy: float, rx: float, ry: float) -> Pixels:
    """Return a mask with an edge about one hundredth of the picture wide."""
    far = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
    return np.clip((1 - far) * min(rx, ry) / 0.01 + 0.5, 0, 1)


def block(x: Pixels, y: Pixels, left: float, top: float, right: float, bottom: float) -> Pixels:
    """Return the mask of an upright rectangle."""
    inside = np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y))
    return np.clip(inside / 0.01 + 0.5, 0, 1)


def mug(x: Pixels, y: Pixels) -> Pixels:
    """A mug with its handle to the right."""
    ring = ellipse(x, y, 0.66, 0.56, 0.13, 0.13) - ellipse(x, y, 0.66, 0.56, 0.08, 0.08)
    body = np.maximum(block(x, y, 0.34, 0.40, 0.66, 0.74), ellipse(x, y, 0.50, 0.74, 0.16, 0.04))
    return np.maximum(np.clip(ring, 0, 1), body)


def bottle(x: Pixels, y: Pixels) -> Pixels:
    """A bottle with a long neck."""
    body = np.maximum(block(x, y, 0.40, 0.46, 0.60, 0.80), ellipse(x, y, 0.50, 0.46, 0.10, 0.08))
    return np.maximum(body, block(x, y, 0.465, 0.20, 0.535, 0.46))


def pear(x: Pixels, y: Pixels) -> Pixels:
    """A pear that leans to the left."""
    body = np.maximum(ellipse(x, y, 0.51, 0.62, 0.17, 0.16), ellipse(x, y, 0.47, 0.45, 0.09, 0.13))
    return np.maximum(body, block(x, y, 0.435, 0.26, 0.455, 0.36))


def lamp(x: Pixels, y: Pixels) -> Pixels:
    """A desk lamp: foot, stem, shade."""
    slope = np.clip((0.27 - np.abs(x - 0.54) * 1.0 - (0.44 - y) * 0.6) / 0.01, 0, 1)
    shade = slope * block(x, y, 0.2, 0.20, 0.9, 0.44)
    foot = ellipse(x, y, 0.50, 0.78, 0.15, 0.04)
    return np.maximum(np.maximum(shade, foot), block(x, y, 0.485, 0.42, 0.515, 0.78))


def carton(x: Pixels, y: Pixels) -> Pixels:
    """A closed box with its lid a little wider."""
    return np.maximum(block(x, y, 0.28, 0.46, 0.72, 0.76), block(x, y, 0.26, 0.40, 0.74, 0.47))


def render(still: Still, width: int, height: int, seed: int) -> Pixels:
    """Return the scene as height × width × 3, 0 to 1."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    grain = np.random.default_rng(seed).normal(0, 1, (height // 8 + 2, width // 8 + 2))
    soft = Image.fromarray(grain.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    texture = np.asarray(soft, dtype=np.float64)[..., None] * 0.012
    floor = np.clip((y - 0.66) / 0.02, 0, 1)[..., None]
    scene = (1 - floor) * np.array(still.wall) + floor * np.array(still.table)
    scene = (
        scene
        * (
            0.82
            + 0.3 * np.exp(-(((x - 0.5 - 0.3 * still.light) / 0.5) ** 2 + ((y - 0.3) / 0.6) ** 2))
        )[..., None]
    )
    shadow = ellipse(x, y, 0.5 - 0.14 * still.light, 0.79, 0.26, 0.05)
    scene = scene * (1 - 0.45 * blur(shadow, width / 60))[..., None] + texture
    mask = still.shape(x, y)[..., None]
    shade = 0.72 + 0.45 * np.exp(-(((x - 0.5 - 0.16 * still.light) / 0.13) ** 2))[..., None]
    gloss = ellipse(x, y, 0.5 + 0.09 * still.light, 0.50, 0.012, 0.09)[..., None] * 0.5
    product = np.array(still.product) * shade + gloss + texture
    return np.clip(scene * (1 - mask) + product * mask, 0, 1)


def blur(mask: Pixels, radius: float) -> Pixels:
    """Return a mask with soft edges."""
    grey = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64) / 255


def picture(scene: Pixels) -> Image.Image:
    """Return 8-bit RGB."""
    return Image.fromarray((np.clip(scene, 0, 1) * 255 + 0.5).astype(np.uint8))


def noisy(scene: Pixels, sigma: float, seed: int) -> Pixels:
    """Return the scene with sensor noise that is stronger in the dark."""
    noise = np.random.default_rng(seed).normal(0, sigma, scene.shape)
    return scene + noise * (1.3 - scene)


def jpeg(image: Image.Image, quality: int, orientation: int | None = None) -> bytes:
    """Return JPEG bytes, with an EXIF orientation when asked for."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, exif=exif)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """Return PNG bytes."""
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


MUG = Still(mug, (0.80, 0.28, 0.22), (0.80, 0.82, 0.80), (0.55, 0.40, 0.28))
BOTTLE = Still(bottle, (0.15, 0.42, 0.30), (0.88, 0.82, 0.70), (0.45, 0.47, 0.50), 0.6)
PEAR = Still(pear, (0.72, 0.74, 0.26), (0.60, 0.70, 0.78), (0.86, 0.84, 0.80))
LAMP = Still(lamp, (0.92, 0.66, 0.16), (0.36, 0.44, 0.50), (0.62, 0.50, 0.38), 0.5)
CARTON = Still(carton, (0.70, 0.54, 0.36), (0.90, 0.90, 0.88), (0.72, 0.72, 0.70), 0.7)


def uploads() -> dict[str, bytes]:
    """Return every upload by file name."""
    square, wide, tall = (384, 384), (448, 300), (300, 448)
    mug_, bottle_ = render(MUG, *square, seed=1), render(BOTTLE, *tall, seed=2)
    pear_, lamp_ = render(PEAR, *square, seed=3), render(LAMP, *tall, seed=4)
    carton_ = render(CARTON, *wide, seed=5)
    squeezed = picture(carton_)
    for quality in (30, 12, 22, 8):
        # Saved again at another size each time, as pictures passed on in chats are.
        shrunk = squeezed.resize((quality * 4 + 260, quality * 3 + 170))
        squeezed = Image.open(io.BytesIO(jpeg(shrunk, quality))).convert("RGB")  # noqa: TID251 - our own bytes
    tinted = mug_ * np.array([1.12, 0.86, 0.55])
    cutout = Image.fromarray(
        (MUG.shape(*np.meshgrid(np.linspace(0, 1, 256), np.linspace(0, 1, 256))) * 255).astype(
            np.uint8
        )
    )
    alpha = picture(render(MUG, 256, 256, seed=6)).quantize(48).convert("RGB")
    alpha.putalpha(cutout.quantize(8).convert("L"))
    return {
        "dark-lamp.jpg": jpeg(picture(noisy(lamp_ * 0.16, 0.015, 11)), 80),
        "dark-mug.jpg": jpeg(picture(noisy((mug_ * 0.22) ** 1.1, 0.012, 12)), 80),
        "noisy-pear.jpg": jpeg(picture(noisy(pear_ * 0.7, 0.13, 13)).resize((320, 320)), 55),
        "noisy-bottle.jpg": jpeg(picture(noisy(bottle_ * 0.6, 0.09, 14)), 50),
        "blurred-carton.jpg": jpeg(picture(carton_).filter(ImageFilter.GaussianBlur(5)), 80),
        "moved-bottle.jpg": jpeg(
            picture(sum(np.roll(bottle_, n, axis=1) for n in range(-8, 9)) / 17), 80
        ),
        "burnt-out-pear.jpg": jpeg(picture(pear_ * 1.75 + 0.1), 80),
        "tiny-lamp.png": png(picture(lamp_).resize((72, 108), Image.Resampling.BOX)),
        "squeezed-carton.jpg": jpeg(squeezed, 10),
        "turned-mug.jpg": jpeg(
            picture(mug_[:, 40:344]).transpose(Image.Transpose.ROTATE_90), 82, 6
        ),
        "upside-down-bottle.jpg": jpeg(
            picture(bottle_).transpose(Image.Transpose.ROTATE_180), 82, 3
        ),
        "colour-cast-mug.jpg": jpeg(picture(tinted), 78),
        "grey-pear.jpg": jpeg(ImageOps.grayscale(picture(pear_)), 75),
        "cut-out-mug.png": png(alpha),
    }


def make(target: Path) -> None:
    """Write every upload below ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for name, data in uploads().items():
        (target / name).write_bytes(data)


if __name__ == "__main__":
    make(Path(__file__).resolve().parent / "uploads")
