"""Draw the brand kits in ``brands/``: run ``python datasets/make_brands.py``.

Three invented brands. Each logo is an opaque badge without letters (a reader of text must find
nothing in it), in strong colours, and no logo is its own mirror image, so that a flipped or
turned one is seen. Drawn at eight times its size and reduced, so edges are smooth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SCALE = 8
Point = tuple[float, float]


def draw_northwind(size: int) -> Image.Image:
    """A navy badge: a white needle to the upper right, an orange buoy, two light blue waves."""
    badge, pen = canvas(size, size)
    pen.rounded_rectangle(box(size, 0, 0, 1, 1), radius=0.2 * size, fill="#0B3C6F")
    pen.polygon(points(size, [(0.20, 0.62), (0.86, 0.12), (0.56, 0.72), (0.46, 0.55)]), "#FFFFFF")
    pen.polygon(points(size, [(0.46, 0.55), (0.86, 0.12), (0.56, 0.72)]), "#7FB7E6")
    pen.ellipse(box(size, 0.14, 0.13, 0.36, 0.35), fill="#F26B21")
    for top, right in ((0.76, 0.62), (0.86, 0.84)):
        pen.rounded_rectangle(box(size, 0.14, top, right, top + 0.05), 0.025 * size, "#7FB7E6")
    return badge


def draw_solstice(size: int) -> Image.Image:
    """A wide plum badge: a gold sun rising left of the middle, uneven rays, a red slope."""
    width, height = round(1.5 * size), size
    badge, pen = canvas(width, height)
    pen.rounded_rectangle((0, 0, width - 1, height - 1), radius=0.18 * size, fill="#5B1A6B")
    centre = (0.55, 0.66)
    for degrees, reach in (
        (180, 0.50),
        (212, 0.46),
        (243, 0.56),
        (274, 0.44),
        (305, 0.60),
        (335, 0.40),
    ):
        pen.polygon(points(size, ray(centre, math.radians(degrees), 0.29, reach)), "#F7B500")
    pen.ellipse(box(size, 0.32, 0.43, 0.78, 0.89), fill="#F7B500")
    pen.polygon(
        points(size, [(0.10, 0.90), (0.10, 0.74), (0.70, 0.66), (1.40, 0.44), (1.40, 0.90)]),
        "#E4572E",
    )
    pen.ellipse(box(size, 1.12, 0.14, 1.30, 0.32), fill="#FFF4DC")
    return badge


def draw_fernhollow(size: int) -> Image.Image:
    """A round green badge: a pale frond that bends right, leaflets on one side, a red berry."""
    badge, pen = canvas(size, size)
    pen.ellipse(box(size, 0, 0, 1, 1), fill="#1F6B3A")
    stem = [(0.30 + 0.34 * t**2, 0.86 - 0.70 * t) for t in (i / 24 for i in range(25))]
    pen.line(points(size, stem), fill="#F4EBD6", width=round(0.05 * size), joint="curve")
    for step, length in ((3, 0.30), (8, 0.34), (13, 0.28), (18, 0.20)):
        x, y = stem[step]
        leaf = [
            (x, y),
            (x + 0.45 * length, y - 0.55 * length),
            (x + length, y - 0.5 * length),
            (x + 0.6 * length, y - 0.05 * length),
        ]
        pen.polygon(points(size, leaf), "#B9D98C")
    pen.ellipse(box(size, 0.18, 0.30, 0.38, 0.50), fill="#C2452D")
    return badge


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a transparent picture and its pen."""
    picture = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    return picture, ImageDraw.Draw(picture)


def box(size: int, left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
    """Return a box in pixels, given in units of ``size``."""
    return (left * size, top * size, right * size - 1, bottom * size - 1)


def points(size: int, shape: Iterable[Point]) -> list[Point]:
    """Return points in pixels, given in units of ``size``."""
    return [(x * size, y * size) for x, y in shape]


def ray(centre: Point, angle: float, inner: float, outer: float) -> list[Point]:
    """Return a tapering ray of the sun."""
    at = [(inner, -0.13), (outer, -0.03), (outer, 0.03), (inner, 0.13)]
    return [
        (centre[0] + r * math.cos(angle + turn), centre[1] + r * math.sin(angle + turn))
        for r, turn in at
    ]


#: Rules that the three brands share. Lengths are fractions of the picture.
LOGO = {"file": "logo.png", "place_tolerance": 0.05, "size_tolerance": 0.2}
LAYOUT = {
    "subject": {"left": 0.02, "top": 0.02, "right": 0.98, "bottom": 0.98},
    "cut_off": False,
    "margin": 0.02,
    "blank": 0.5,
}

BRANDS: dict[str, tuple[Callable[[int], Image.Image], dict[str, Any]]] = {
    "northwind": (
        draw_northwind,
        {
            "palette": ["#0B3C6F", "#F26B21", "#7FB7E6", "#FFFFFF"],
            "logo": {"position": "top-left", "width": 0.18, **LOGO},
            "safe_area": {"left": 0.05, "top": 0.05, "right": 0.95, "bottom": 0.95},
            "layout": LAYOUT,
        },
    ),
    "solstice": (
        draw_solstice,
        {
            "palette": ["#5B1A6B", "#F7B500", "#E4572E", "#FFF4DC"],
            "logo": {"position": "bottom-right", "width": 0.22, **LOGO},
            "safe_area": {"left": 0.05, "top": 0.05, "right": 0.95, "bottom": 0.95},
            "layout": LAYOUT,
        },
    ),
    "fernhollow": (
        draw_fernhollow,
        {
            "palette": ["#1F6B3A", "#B9D98C", "#F4EBD6", "#C2452D"],
            "logo": {"position": "top-right", "width": 0.18, **LOGO},
            "safe_area": {"left": 0.06, "top": 0.06, "right": 0.94, "bottom": 0.94},
            "layout": LAYOUT,
        },
    ),
}


def make(target: Path, size: int = 256) -> None:
    """Write every kit below ``target``."""
    for name, (draw, fields) in BRANDS.items():
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        large = draw(size * SCALE)
        # Premultiplied alpha (RGBa) keeps dark fringes out of the reduced edges.
        logo = large.convert("RGBa").reduce(SCALE).convert("RGBA")
        logo.save(folder / "logo.png", optimize=True)
        kit = {"schema_version": 1, "name": name, **fields}
        (folder / "brand.json").write_text(json.dumps(kit, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(__file__).resolve().parent / "brands")
