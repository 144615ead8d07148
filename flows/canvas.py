"""One drawing, two files: lines, fields and texts as SVG or as PNG, with the same coordinates.

Colours are hexadecimal, coordinates pixels from the upper left corner. Texts are ASCII: Pillow's
own font holds no more.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol
from xml.sax.saxutils import escape

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

PAPER, INK, DIM, GRID = "#ffffff", "#1c2026", "#6e7680", "#e4e7eb"


class Canvas(Protocol):
    """What a drawing needs."""

    def line(
        self, points: Sequence[Point], colour: str, width: float = 1, *, dashed: bool = False
    ) -> None:
        """Draw a line through the points."""

    def field(self, points: Sequence[Point], colour: str) -> None:
        """Fill the polygon."""

    def text(
        self,
        at: Point,
        words: str,
        size: int = 13,
        colour: str = DIM,
        anchor: Anchor = "start",
    ) -> None:
        """Write a line of text whose middle is at the height of the point."""

    def data(self) -> bytes:
        """Return the file."""


def canvas(kind: str, width: int, height: int) -> Canvas:
    """Return a canvas for ``.svg`` or ``.png``."""
    return _Svg(width, height) if kind == ".svg" else _Png(width, height)


class _Svg:
    def __init__(self, width: int, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" '
            'font-family="system-ui, Helvetica, Arial, sans-serif">',
            f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        ]

    def line(
        self, points: Sequence[Point], colour: str, width: float = 1, *, dashed: bool = False
    ) -> None:
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        self._parts.append(
            f'<polyline points="{_points(points)}" fill="none" stroke="{colour}" '
            f'stroke-width="{width}" stroke-linejoin="round"{dash}/>'
        )

    def field(self, points: Sequence[Point], colour: str) -> None:
        self._parts.append(f'<polygon points="{_points(points)}" fill="{colour}"/>')

    def text(
        self, at: Point, words: str, size: int = 13, colour: str = DIM, anchor: Anchor = "start"
    ) -> None:
        # Some readers of SVG know no dominant-baseline: a third of the size is the middle.
        self._parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1] + 0.35 * size:.1f}" font-size="{size}" '
            f'fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def data(self) -> bytes:
        return "\n".join([*self._parts, "</svg>\n"]).encode()


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


class _Png:
    #: Drawn larger and made smaller, so that slanted edges are smooth.
    _SCALE = 2
    _ANCHORS: ClassVar = {"start": "lm", "middle": "mm", "end": "rm"}

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self._size = (width, height)
        self._image = Image.new("RGB", (width * self._SCALE, height * self._SCALE), PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def line(
        self, points: Sequence[Point], colour: str, width: float = 1, *, dashed: bool = False
    ) -> None:
        wide = max(1, round(width * self._SCALE))
        pieces = _dashes(points) if dashed else [points]
        for piece in pieces:
            self._pen.line(self._scaled(piece), fill=colour, width=wide, joint="curve")

    def field(self, points: Sequence[Point], colour: str) -> None:
        self._pen.polygon(self._scaled(points), fill=colour)

    def text(
        self, at: Point, words: str, size: int = 13, colour: str = DIM, anchor: Anchor = "start"
    ) -> None:
        from PIL import ImageFont

        self._pen.text(
            self._scaled([at])[0],
            words,
            fill=colour,
            font=ImageFont.load_default(size * self._SCALE),
            anchor=self._ANCHORS[anchor],
        )

    def data(self) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        self._image.resize(self._size, Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def _scaled(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._SCALE, y * self._SCALE) for x, y in points]


def _dashes(points: Sequence[Point]) -> list[Sequence[Point]]:
    """Return a straight line from the first point to the last in dashes of 6 and gaps of 5."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    long = max(1e-9, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
    found: list[Sequence[Point]] = []
    start = 0.0
    while start < long:
        ends = (start / long, min(1.0, (start + 6) / long))
        found.append([(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in ends])
        start += 11
    return found
