"""The things that a scene can show, drawn as flat shapes; light and shadow come later.

A subject draws itself into a square canvas of a given side with its own colour and a second one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from PIL import ImageDraw

from tasks.providers.embedded.typeset import Colour

Draw = ImageDraw.ImageDraw
Subject = Callable[[Draw, int, Colour, Colour], None]


def _tone(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(level * factor)) for level in colour)
    return (red, green, blue)


def _points(side: int, *pairs: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * side, y * side) for x, y in pairs]


def _round(
    draw: Draw, side: int, box: tuple[float, float, float, float], radius: float, fill: Colour
) -> None:
    draw.rounded_rectangle([v * side for v in box], radius * side, fill=fill)


def _oval(draw: Draw, side: int, box: tuple[float, float, float, float], fill: Colour) -> None:
    draw.ellipse([v * side for v in box], fill=fill)


def _bottle(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    _round(draw, side, (0.43, 0.02, 0.57, 0.14), 0.02, _tone(trim, 0.8))
    _round(draw, side, (0.44, 0.1, 0.56, 0.36), 0.02, body)
    _round(draw, side, (0.32, 0.28, 0.68, 0.98), 0.1, body)
    _round(draw, side, (0.32, 0.52, 0.68, 0.8), 0.01, trim)


def _jar(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    _round(draw, side, (0.22, 0.3, 0.78, 0.96), 0.09, body)
    _round(draw, side, (0.26, 0.14, 0.74, 0.32), 0.03, _tone(trim, 0.85))
    _round(draw, side, (0.22, 0.5, 0.78, 0.78), 0.0, _tone(body, 1.35))


def _mug(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.ellipse(
        [0.58 * side, 0.36 * side, 0.95 * side, 0.78 * side], outline=body, width=side // 13
    )
    _round(draw, side, (0.14, 0.24, 0.72, 0.92), 0.07, body)
    _oval(draw, side, (0.14, 0.17, 0.72, 0.33), _tone(body, 1.25))
    _oval(draw, side, (0.19, 0.2, 0.67, 0.31), _tone(trim, 0.6))


def _box(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.polygon(
        _points(side, (0.08, 0.32), (0.52, 0.5), (0.52, 0.98), (0.08, 0.78)), _tone(body, 0.8)
    )
    draw.polygon(_points(side, (0.52, 0.5), (0.94, 0.3), (0.94, 0.76), (0.52, 0.98)), body)
    draw.polygon(
        _points(side, (0.08, 0.32), (0.5, 0.14), (0.94, 0.3), (0.52, 0.5)), _tone(body, 1.3)
    )
    draw.polygon(_points(side, (0.28, 0.4), (0.71, 0.22), (0.78, 0.245), (0.36, 0.435)), trim)


def _ball(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    # Rings from dark to light make it round; a flat disc would read as the letter O.
    for step in range(12):
        t = step / 12
        box = (0.08 + 0.2 * t, 0.12 + 0.14 * t, 0.94 - 0.5 * t, 0.98 - 0.56 * t)
        _oval(draw, side, box, _tone(body, 0.7 + 0.75 * t))
    draw.line(_points(side, (0.5, 0.14), (0.56, 0.02)), fill=(92, 72, 52), width=max(1, side // 36))
    draw.pieslice([0.54 * side, 0.0, 0.9 * side, 0.2 * side], 150, 330, fill=_tone(trim, 0.9))


def _lamp(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.arc(
        [0.3 * side, 0.1 * side, 0.9 * side, 1.3 * side], 150, 262, _tone(trim, 0.5), side // 22
    )
    _round(draw, side, (0.12, 0.86, 0.62, 0.97), 0.05, _tone(trim, 0.6))
    draw.pieslice([0.44 * side, 0.04 * side, 0.98 * side, 0.56 * side], 180, 360, fill=body)
    _oval(draw, side, (0.6, 0.25, 0.82, 0.37), (252, 240, 196))


def _vase(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    for x, y in ((0.3, 0.1), (0.5, 0.02), (0.7, 0.12)):
        draw.line(_points(side, (x, y + 0.1), (0.5, 0.55)), fill=(70, 110, 70), width=side // 40)
        _oval(draw, side, (x - 0.1, y, x + 0.1, y + 0.2), trim)
    _oval(draw, side, (0.26, 0.5, 0.74, 0.98), body)
    _round(draw, side, (0.4, 0.42, 0.6, 0.6), 0.02, body)


def _plant(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    leaf = (84, 128, 82)
    for x0, y0, x1, y1 in ((0.05, 0.1, 0.45, 0.5), (0.52, 0.06, 0.95, 0.48), (0.3, 0.0, 0.66, 0.6)):
        draw.pieslice(
            [x0 * side, y0 * side, x1 * side, y1 * side], 20, 290, fill=_tone(leaf, 1 + x0)
        )
    draw.polygon(_points(side, (0.24, 0.52), (0.76, 0.52), (0.68, 0.98), (0.32, 0.98)), body)
    draw.rectangle([0.2 * side, 0.48 * side, 0.8 * side, 0.57 * side], fill=trim)


def _chair(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    for x in (0.2, 0.74):
        draw.rectangle(
            [x * side, 0.6 * side, (x + 0.06) * side, 0.98 * side], fill=_tone(trim, 0.6)
        )
    _round(draw, side, (0.2, 0.04, 0.8, 0.56), 0.1, body)
    _round(draw, side, (0.14, 0.5, 0.86, 0.68), 0.06, _tone(body, 1.2))


def _phone(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    _round(draw, side, (0.26, 0.02, 0.74, 0.98), 0.07, (40, 42, 46))
    _round(draw, side, (0.29, 0.06, 0.71, 0.94), 0.04, body)
    _oval(draw, side, (0.38, 0.3, 0.62, 0.54), trim)


def _books(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    rows = ((0.1, 0.78, 0.92, 0.97), (0.16, 0.6, 0.86, 0.78), (0.08, 0.42, 0.8, 0.6))
    for number, box in enumerate(rows):
        _round(draw, side, box, 0.02, _tone(body if number % 2 == 0 else trim, 1 - 0.1 * number))
        page = (box[2] - 0.08, box[1] + 0.03, box[2] - 0.01, box[3] - 0.03)
        draw.rectangle([v * side for v in page], fill=(236, 232, 222))


def _tree(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.rectangle([0.45 * side, 0.6 * side, 0.55 * side, 0.98 * side], fill=(104, 80, 62))
    for top, half in ((0.34, 0.42), (0.18, 0.34), (0.02, 0.26)):
        corners = _points(side, (0.5, top), (0.5 + half, top + 0.4), (0.5 - half, top + 0.4))
        draw.polygon(corners, fill=_tone(body, 1.15 - top))


def _house(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.rectangle([0.16 * side, 0.44 * side, 0.84 * side, 0.97 * side], fill=body)
    draw.polygon(_points(side, (0.06, 0.48), (0.5, 0.08), (0.94, 0.48)), fill=_tone(trim, 0.75))
    draw.rectangle([0.42 * side, 0.66 * side, 0.58 * side, 0.97 * side], fill=(70, 62, 58))
    for x in (0.23, 0.65):
        draw.rectangle([x * side, 0.56 * side, (x + 0.12) * side, 0.7 * side], fill=(232, 230, 214))


def _cake(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    _oval(draw, side, (0.04, 0.8, 0.96, 0.98), (222, 220, 216))
    _round(draw, side, (0.12, 0.5, 0.88, 0.92), 0.05, body)
    _round(draw, side, (0.24, 0.26, 0.76, 0.56), 0.05, trim)
    for x in (0.36, 0.5, 0.64):
        draw.rectangle([(x - 0.015) * side, 0.1 * side, (x + 0.015) * side, 0.28 * side], fill=body)


def _sail(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.polygon(_points(side, (0.48, 0.04), (0.48, 0.72), (0.08, 0.72)), fill=(238, 236, 230))
    draw.polygon(_points(side, (0.52, 0.14), (0.52, 0.72), (0.86, 0.72)), fill=trim)
    draw.polygon(_points(side, (0.06, 0.78), (0.94, 0.78), (0.8, 0.96), (0.2, 0.96)), fill=body)


def _bag(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    draw.arc(
        [0.32 * side, 0.06 * side, 0.68 * side, 0.56 * side], 180, 360, _tone(trim, 0.7), side // 20
    )
    draw.polygon(_points(side, (0.18, 0.32), (0.82, 0.32), (0.9, 0.97), (0.1, 0.97)), fill=body)
    draw.polygon(_points(side, (0.18, 0.32), (0.82, 0.32), (0.835, 0.45), (0.165, 0.45)), fill=trim)


def _shoe(draw: Draw, side: int, body: Colour, trim: Colour) -> None:
    shape = (
        (0.05, 0.34),
        (0.3, 0.3),
        (0.44, 0.5),
        (0.8, 0.6),
        (0.96, 0.72),
        (0.96, 0.82),
        (0.05, 0.82),
    )
    draw.polygon(_points(side, *shape), fill=body)
    _round(draw, side, (0.03, 0.8, 0.98, 0.9), 0.04, (236, 234, 230))
    for x in (0.36, 0.44, 0.52):
        draw.line(_points(side, (x, 0.52), (x + 0.08, 0.62)), fill=trim, width=side // 36)


#: All subjects by name.
SUBJECTS: Mapping[str, Subject] = {
    "bottle": _bottle, "jar": _jar, "mug": _mug, "box": _box, "ball": _ball, "lamp": _lamp,
    "vase": _vase, "plant": _plant, "chair": _chair, "phone": _phone, "books": _books,
    "tree": _tree, "house": _house, "cake": _cake, "sail": _sail, "bag": _bag, "shoe": _shoe,
}  # fmt: skip

_WORDS: Mapping[str, str] = {
    "bottle": "bottle", "perfume": "bottle", "wine": "bottle", "shampoo": "bottle",
    "juice": "bottle",
    "jar": "jar", "honey": "jar", "cream": "jar", "jam": "jar", "candle": "jar",
    "mug": "mug", "cup": "mug", "coffee": "mug", "tea": "mug", "café": "mug", "cafe": "mug",
    "box": "box", "package": "box", "parcel": "box", "gift": "box", "packaging": "box",
    "ball": "ball", "planet": "ball", "moon": "ball", "fruit": "ball", "orange": "ball",
    "lamp": "lamp", "light": "lamp", "vase": "vase", "flower": "vase", "flowers": "vase",
    "plant": "plant", "garden": "plant", "herb": "plant", "chair": "chair", "sofa": "chair",
    "phone": "phone", "app": "phone", "screen": "phone", "book": "books", "books": "books",
    "library": "books", "tree": "tree", "forest": "tree", "house": "house", "home": "house",
    "shop": "house", "storefront": "house", "cake": "cake", "bakery": "cake", "birthday": "cake",
    "boat": "sail", "sea": "sail", "ship": "sail", "bag": "bag", "backpack": "bag",
    "handbag": "bag", "sale": "bag", "shoe": "shoe", "sneaker": "shoe", "shoes": "shoe",
}  # fmt: skip


def subject_for(prompt: str) -> str | None:
    """Return the subject that the first known word of the prompt names, or ``None``."""
    for word in re.findall(r"[^\W\d_]+", prompt[:2000].lower()):
        if word in _WORDS:
            return _WORDS[word]
    return None
