"""Renders one request into an image file, with the defect that was drawn for it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tasks.providers.embedded import defects, fonts, scene, typeset
from tasks.providers.embedded.brands import Brand
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.models import Fault, ModelSpec
from tasks.providers.embedded.retouch import improved, masked
from tasks.providers.embedded.typeset import Colour, Rect

_WHITE: Colour = (255, 255, 255)
_INK: Colour = (20, 22, 26)


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides what a picture looks like."""

    spec: ModelSpec
    prompt: str
    seed: int
    width: int
    height: int
    text: tuple[str, ...] = ()
    brand: Brand | None = None
    locale: str = "und"
    #: The picture to improve, decoded; ``None`` for a new one.
    upload: Image.Image | None = None
    #: White where the upload may change.
    mask: Image.Image | None = None
    steps: int = 30
    fault: Fault | None = None


def png(pixels: scene.Pixels) -> bytes:
    """Return an RGB picture as PNG.

    Pillow tries every filter on every row; for noisy pictures one fixed filter and Huffman
    coding alone give files of the same size in a third of the time.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, width * 3)
    lines = np.empty((height, width * 3 + 1), np.uint8)
    lines[:, 0] = 2
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    body = packer.compress(lines.data) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND")


def _chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def render(job: Job) -> bytes:
    """Return the PNG of a job; what its fault does to the picture or the file is done to it."""
    rng = generator(job.spec.version, job.prompt, job.seed, "picture")
    harm = generator(job.spec.version, job.prompt, job.seed, "harm")
    if job.fault is Fault.WRONG_ASPECT:
        width, height = defects.other_shape(job.width, job.height, harm)
        job = replace(job, width=width, height=height)
    if job.fault is Fault.BLANK:
        return png(defects.blank(job.width, job.height, harm))
    if job.fault is Fault.LETTERS_SWAPPED:
        job = replace(job, text=defects.swap_letters(job.text, harm))
    elif job.fault is Fault.LETTERS_DROPPED:
        job = replace(job, text=defects.drop_letter(job.text, harm))
    elif job.fault is Fault.MISSING_GLYPHS:
        job = replace(job, text=defects.miss_glyphs(job.text, harm))
    image = _compose(job, rng, harm)
    pixels = np.asarray(image)
    if job.fault is Fault.COLOUR_CAST:
        pixels = defects.cast(pixels, harm)
    if job.fault is Fault.FILTERED:
        blurred = image.filter(ImageFilter.GaussianBlur(max(job.width, job.height) / 16))
        pixels = np.asarray(blurred)
    else:
        sigma = job.spec.grain * (1.6 if job.steps < 12 else 1.0)
        pixels = scene.grain(pixels, rng, sigma)
    if job.upload is not None and job.mask is not None:
        pixels = masked(job.upload, job.mask, pixels)
    return defects.damage(png(pixels), job.fault, harm)


def _compose(job: Job, rng: np.random.Generator, harm: np.random.Generator) -> Image.Image:
    colours = scene.palette(rng, job.brand.kit.palette if job.brand else ())
    logo = job.brand.place(job.width, job.height) if job.brand else None
    plan = _plan(job, rng, colours, logo)
    if job.upload is None:
        image = scene.background(rng, job.width, job.height, colours)
        free = _free(job, plan.panel if plan else None, logo)
        scene.place_subject(image, rng, free, job.prompt, colours)
    else:
        still = job.mask is not None
        image = improved(job.upload, job.width, job.height, job.prompt, rng, still=still)
    if job.spec.softness:
        radius = job.spec.softness * job.width / 512
        image = image.filter(ImageFilter.BoxBlur(radius))
    if job.brand and not plan:
        _stripe(image, job, logo, colours)
    if plan:
        _panel(image, plan)
        style = plan.style
        typeset.draw_blocks(
            image, plan.blocks, plan.inner, colour=plan.ink, align=plan.align, style=style
        )
    if job.brand and logo and job.fault is not Fault.LOGO_MISSING:
        if job.fault is Fault.LOGO_OUTSIDE:
            logo = defects.outside(logo, job.width, job.height, harm)
        job.brand.draw(image, logo)
    return image


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where and how the text stands."""

    blocks: list[typeset.Block]
    panel: Rect
    inner: Rect
    plate: Colour
    ink: Colour
    border: Colour | None
    radius: int
    align: Literal["left", "center"]
    style: typeset.Type


def _plan(
    job: Job, rng: np.random.Generator, colours: scene.Palette, logo: Rect | None
) -> _Plan | None:
    """Lay the text out; ``None`` without text."""
    if not job.text:
        return None
    area = _text_area(job.width, job.height, logo)
    pad = max(3, round(0.035 * min(job.width, job.height)))
    style = typeset.Type(int(rng.choice([500, 600, 700])), job.locale)
    largest = max(12, round(min(job.width, job.height) * rng.uniform(0.1, 0.16)))
    room = Rect(area.left + pad, area.top + pad, area.right - pad, area.bottom - pad)
    blocks = typeset.fit(job.text, max(room.width, 8), max(room.height, 8), largest, style)
    if not blocks:
        return None
    width = min(typeset.widest(blocks, style), max(room.width, 8))
    height = sum(block.height for block in blocks) + typeset.gaps(blocks)
    full = bool(rng.random() < 0.25)
    spare_x, spare_y = max(room.width - width, 0), max(room.height - height, 0)
    left = room.left + round(spare_x * rng.random())
    top = room.top + round(spare_y * float(rng.choice([0.0, 0.08, 0.5, 0.9, 1.0])))
    inner = Rect(left, top, left + width, top + height)
    panel = Rect(
        0 if full else inner.left - pad, inner.top - pad // 2,
        job.width if full else inner.right + pad, inner.bottom + pad // 2,
    )  # fmt: skip
    if full:
        inner = Rect(room.left, top, room.right, top + height)
    plate, ink = _plate(rng, colours, branded=job.brand is not None)
    return _Plan(
        blocks=blocks,
        panel=panel,
        inner=inner,
        plate=plate,
        ink=ink,
        border=colours.accent if not full and rng.random() < 0.4 else None,
        radius=0 if full else round(pad * rng.choice([0.0, 0.4, 0.9])),
        align="center" if rng.random() < 0.6 else "left",
        style=style,
    )


def _text_area(width: int, height: int, logo: Rect | None) -> Rect:
    """Return where text may stand: inside the margin and in a strip that the logo is not in."""
    margin = max(2, round(0.04 * min(width, height)))
    whole = Rect(margin, margin, width - margin, height - margin)
    if logo is None:
        return whole
    beside = (
        Rect(whole.left, logo.bottom + margin, whole.right, whole.bottom),
        Rect(whole.left, whole.top, whole.right, logo.top - margin),
        Rect(logo.right + margin, whole.top, whole.right, whole.bottom),
        Rect(whole.left, whole.top, logo.left - margin, whole.bottom),
    )
    above_or_below = max(beside[:2], key=lambda r: r.height)
    if above_or_below.height >= 0.5 * height:
        return above_or_below
    return max(beside, key=lambda r: max(r.width, 0) * max(r.height, 0))


def _plate(
    rng: np.random.Generator, colours: scene.Palette, *, branded: bool
) -> tuple[Colour, Colour]:
    """Return the colours of plate and letters; their contrast is at least 7 to 1."""
    choices = [(246, 244, 240), (250, 250, 250), (28, 30, 36), (238, 240, 242)]
    if branded:
        choices = [colours.ground, colours.second, colours.subject, colours.accent]
    start = int(rng.integers(len(choices)))
    for plate in [*choices[start:], *choices[:start]]:
        ink = max((_WHITE, _INK), key=lambda colour: scene.contrast(plate, colour))
        if scene.contrast(plate, ink) >= 7:
            return plate, ink
    return (250, 250, 250), _INK


def _panel(image: Image.Image, plan: _Plan) -> None:
    """Draw the plain plate under the text; twice the size and reduced for smooth corners."""
    box = plan.panel
    if not plan.radius:
        image.paste(plan.plate, (box.left, box.top, box.right, box.bottom))
    else:
        mask = defects.rounded(box.width, box.height, plan.radius)
        image.paste(plan.plate, (box.left, box.top), mask)
    if plan.border is not None and min(box.width, box.height) > 40:
        inset = max(3, round(min(image.size) / 110))
        frame = (box.left + inset, box.top + inset, box.right - inset - 1, box.bottom - inset - 1)
        ImageDraw.Draw(image).rounded_rectangle(
            frame, max(plan.radius - inset, 0), outline=plan.border, width=max(1, inset // 3)
        )


def _stripe(image: Image.Image, job: Job, logo: Rect | None, colours: scene.Palette) -> None:
    """Draw a band in the brand's colour along the edge away from the logo."""
    height = max(4, round(job.height * 0.09))
    at_top = logo is not None and logo.top > job.height / 2
    top = 0 if at_top else job.height - height
    image.paste(colours.subject, (0, top, job.width, top + height))
    thin = max(2, height // 4)
    top = height if at_top else job.height - height - thin
    image.paste(colours.accent, (0, top, job.width, top + thin))


def _free(job: Job, panel: Rect | None, logo: Rect | None) -> Rect:
    """Return the largest part of the picture beside the text, for the subject."""
    margin = round(0.05 * min(job.width, job.height))
    whole = Rect(margin, margin, job.width - margin, job.height - margin)
    options = [whole]
    if panel is not None:
        options = [
            Rect(whole.left, whole.top, whole.right, panel.top - margin // 2),
            Rect(whole.left, panel.bottom + margin // 2, whole.right, whole.bottom),
            Rect(whole.left, whole.top, panel.left - margin // 2, whole.bottom),
            Rect(panel.right + margin // 2, whole.top, whole.right, whole.bottom),
        ]
    area = max(options, key=lambda r: min(r.width, r.height))
    if logo is not None and _touch(area, logo):
        if logo.left < job.width / 2:
            area = Rect(logo.right + margin // 2, area.top, area.right, area.bottom)
        else:
            area = Rect(area.left, area.top, logo.left - margin // 2, area.bottom)
    return area


def _touch(one: Rect, two: Rect) -> bool:
    return (
        one.left < two.right
        and two.left < one.right
        and one.top < two.bottom
        and two.top < one.bottom
    )


def missing(text: tuple[str, ...]) -> int:
    """Return how many characters of the strings no font holds here."""
    lines = (line for string in text for line in string.split("\n"))
    return sum(len(run.text) for line in lines for run in fonts.runs(line) if run.face is None)
