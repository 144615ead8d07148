"""Edits an uploaded picture: opened within limits, set right, cropped to size."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

MAX_BYTES = 10_000_000
MAX_PIXELS = 20_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")


class UploadError(Exception):
    """The upload cannot be used; the text says why."""


def open_upload(data: bytes, name: str = "image") -> Image.Image:
    """Decode an upload as displayed, RGB, transparent pixels over white.

    Raises:
        UploadError: Too many bytes or pixels (read before decoding), no PNG, JPEG or WebP, or a
            damaged file.
    """
    if len(data) > MAX_BYTES:
        raise UploadError(f"the {name} has {len(data)} bytes, at most {MAX_BYTES} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # The server is the provider's side: it must not share the gate's decoder.
            with Image.open(io.BytesIO(data), formats=_FORMATS) as file:  # noqa: TID251
                if file.width * file.height > MAX_PIXELS:
                    raise UploadError(
                        f"the {name} has {file.width}x{file.height} pixels, at most {MAX_PIXELS} "
                        "are allowed"
                    )
                file.load()
                upright = ImageOps.exif_transpose(file).convert("RGBA")
    except UploadError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise many kinds for bad files
        raise UploadError(f"the {name} cannot be decoded: {type(error).__name__}") from None
    ground = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, upright).convert("RGB")


Box = tuple[float, float, float, float]


def whole(upload: Image.Image, width: int, height: int) -> Box:
    """Return the largest part of an upload that has the shape asked for, from its middle."""
    return _crop(upload, width, height, 1.0, (0.5, 0.5))


def _crop(
    upload: Image.Image, width: int, height: int, zoom: float, place: tuple[float, float]
) -> Box:
    scale = min(upload.width / width, upload.height / height) * zoom
    crop_w, crop_h = width * scale, height * scale
    left, top = (upload.width - crop_w) * place[0], (upload.height - crop_h) * place[1]
    return left, top, left + crop_w, top + crop_h


def masked(upload: Image.Image, mask: Image.Image, edited: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an edit of :func:`whole` that changes the upload only where its mask is white.

    Args:
        upload: The upload.
        mask: White where it may change; laid over the whole upload, whatever its size.
        edited: The edit, height × width × 3.
    """
    height, width = edited.shape[:2]
    size, box = (width, height), whole(upload, width, height)
    before = np.asarray(upload.resize(size, Image.Resampling.BICUBIC, box), np.float32)
    over = mask.convert("L").resize(upload.size, Image.Resampling.BILINEAR)
    share = np.asarray(over.resize(size, Image.Resampling.BILINEAR, box), np.float32)[..., None]
    mixed = before + (edited - before) * (share / 255)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


def improved(
    upload: Image.Image,
    width: int,
    height: int,
    prompt: str,
    rng: np.random.Generator,
    *,
    still: bool = False,
) -> Image.Image:
    """Return the upload at the size asked for, with light, colour and sharpness set right.

    The crop keeps the middle, a little nearer or farther by the draw; with ``still`` all that fits.
    """
    zoom = float(rng.uniform(0.76, 1.0))
    place = float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.2, 0.8))
    box = whole(upload, width, height) if still else _crop(upload, width, height, zoom, place)
    crop_w, crop_h = box[2] - box[0], box[3] - box[1]
    # Noise is taken out at the upload's own scale; enlarged first, it would be blotches.
    native = (min(width, max(round(crop_w), 8)), min(height, max(round(crop_h), 8)))
    image = upload.resize(native, Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    # What is dark will be brightened, its noise with it.
    coarse = _noise(image) * max(1.0, 110 / max(float(np.asarray(image).mean()), 8.0))
    words = prompt[:4000].lower()
    if coarse > 5 or "noise" in words or "grain" in words:
        image = image.filter(ImageFilter.MedianFilter(5 if coarse > 12 else 3))
        image = image.filter(ImageFilter.BoxBlur(min(coarse / 10, 1.5)))
    if native != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    lit = Image.fromarray(_balanced(np.asarray(image, np.float32), _relit(width, height, rng)))
    return lit.filter(ImageFilter.UnsharpMask(1.4, 35, 4))


def _relit(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return soft light and shade to put over the picture, around 1."""
    cells = (int(rng.integers(4, 9)), int(rng.integers(4, 9)))
    coarse = Image.fromarray(rng.uniform(-1, 1, cells).astype(np.float32))
    spread = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return 1 + np.asarray(spread, np.float32) * float(rng.uniform(0.12, 0.18))


def _noise(image: Image.Image) -> float:
    """Return the typical difference of neighbouring pixels, in levels."""
    light = np.asarray(image.convert("L"), np.float32)
    return float(np.median(np.abs(light[1:-1:2, 1:-1:2] - light[2::2, 1:-1:2])))


def _balanced(pixels: NDArray[np.float32], relit: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the picture without cast, its tones spread over the range, under soft light."""
    small = pixels[::4, ::4]
    # Shades of grey: the mean of the sixth power leans on bright pixels, not on large ones.
    norms = np.power(np.mean(np.power(small / 255, 6), axis=(0, 1)), 1 / 6)
    gains = np.clip(norms.mean() / np.maximum(norms, 0.01), 0.6, 1.7)
    pixels = np.asarray(pixels * gains, np.float32)
    light = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = (float(v) for v in np.percentile(light[::4, ::4], (0.5, 99.5)))
    # The darkest tone keeps a part of its lightness: a pale picture does not get black shadows.
    foot = min(max(0.4 * low / 255, 0.03), 0.3)
    tones = np.clip(foot + (light - low) / max(high - low, 20.0) * (1 - foot), 0.02, 1)
    # A curve that brings the median near a middle tone, within bounds.
    middle = min(max(float(np.median(tones[::4, ::4])), 0.03), 0.97)
    power = min(max(float(np.log(0.5) / np.log(middle)), 0.6), 1.3)
    # The tones change, the proportions of red, green and blue stay.
    factor = np.power(tones, power) * relit * 238 / np.maximum(light, 4)
    return np.asarray(np.clip(pixels * factor[..., None], 0, 255), np.uint8)
