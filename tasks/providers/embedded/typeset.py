"""Sets the quoted strings of a prompt in type: legible, in order, each on plain ground.

Layout is arithmetic on widths measured once at one size; drawing uses the fonts at the final
size. Every string starts a line of its own; lines wrap at spaces, and between letters in scripts
that write without them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from tasks.providers.embedded import fonts
from tasks.providers.embedded.draws import letters

Colour = tuple[int, int, int]

#: Size at which text is measured; widths are taken as proportional.
_MEASURE = 64
#: Smallest size, in pixels, to which text shrinks before its words are broken.
SMALLEST = 15
#: Longest text that is set; what stands behind it is left out.
LONGEST = 2400
_SIZES = (120, 104, 92, 82, 74, 66, 60, 54, 48, 44, 40, 36, 32, 29, 26, 23, 21, 19, 17, 15, 13, 11)
_LINE = 1.42
_NO_START = set(
    "、。，．！？：；）」』】〉》〕］｝ー々,.!?:;)]}%’”…·ぁぃぅぇぉっゃゅょァィゥェォッャュョ"
)
_NO_END = set("（「『【〈《〔［｛([{“‘¥$€£")
_QUOTED = re.compile(
    r"“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»|「([^「」]*)」|『([^『』]*)』"
    # Straight quotes open at the start of a word and close at its end: inches are no quotes.
    r'|(?<![^\W_])"(?=\S)([^"]*)(?<=\S)"(?![^\W_])'
)
#: Most strings that are set.
MOST = 12


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle in pixels: left, top, right, bottom (right and bottom outside)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Type:
    """How letters look: weight 400 to 700, and the BCP 47 tag that picks the forms of Han."""

    weight: int = 600
    locale: str = "und"


@dataclass(frozen=True, slots=True)
class Block:
    """One string laid out: its lines and their size."""

    lines: tuple[str, ...]
    size: int

    @property
    def height(self) -> int:
        """Pixels that the lines take."""
        return round(len(self.lines) * self.size * _LINE)


def quoted(prompt: str) -> tuple[str, ...]:
    """Return the strings that stand in quotation marks, in order, each once, ready for setting.

    Straight, curly, low, angled and corner quotes count; strings without a letter, a figure or a
    picture sign do not.
    """
    found: dict[str, None] = {}
    for match in _QUOTED.finditer(prompt):
        text = fonts.printable(next(group for group in match.groups() if group is not None))
        lines = [" ".join(line.split()) for line in text.split("\n")]
        clean = "\n".join(line for line in lines if line)
        if any(unicodedata.category(char)[0] in "LNS" or char == fonts.BOX for char in clean):
            found[clean] = None
    return tuple(found)[:MOST]


@lru_cache(maxsize=8192)
def _width(text: str, style: Type) -> float:
    """Return the width of the text at size 1."""
    total = 0.0
    for run in fonts.runs(text):
        if run.face is None:
            total += len(run.text) * _MEASURE * 0.72
        else:
            font = fonts.font(run.face, _MEASURE, style.weight, style.locale, text)
            total += font.getlength(run.text)
    return total / _MEASURE


def _unspaced(char: str) -> bool:
    """Return whether the character's script may break a line between any two letters."""
    code = ord(char)
    return (
        (0x2E80 <= code <= 0xA4CF and not 0x3130 <= code <= 0x318F)
        or 0xF900 <= code <= 0xFAFF
        or 0xFF00 <= code <= 0xFFEF
        or 0x20000 <= code <= 0x3FFFF
    )


def _pieces(line: str) -> list[tuple[str, bool]]:
    """Cut a line into pieces that stay together; true when a space stands before the piece."""
    pieces: list[tuple[str, bool]] = []
    for word in line.split(" "):
        current = ""
        spaced = True
        for letter in letters(word):
            may_break = (
                current
                and (_unspaced(letter[0]) or _unspaced(current[-1]))
                and letter[0] not in _NO_START
                and current[-1] not in _NO_END
            )
            if may_break:
                pieces.append((current, spaced))
                current, spaced = "", False
            current += letter
        if current:
            pieces.append((current, spaced))
    return pieces


def _broken(piece: str, room: float, style: Type) -> list[str]:
    """Cut a piece that is wider than the line."""
    parts: list[str] = []
    current = ""
    for letter in letters(piece):
        if current and _width(current + letter, style) > room:
            parts.append(current)
            current = ""
        current += letter
    return [*parts, current]


def _wrap(text: str, room: float, style: Type, *, force: bool) -> list[str] | None:
    """Wrap to lines of at most ``room`` (at size 1); ``None`` when a word is wider.

    With ``force`` such a word is broken.
    """
    lines: list[str] = []
    space = _width(" ", style)
    for paragraph in text.split("\n"):
        current, used = "", 0.0
        for piece, spaced in _pieces(paragraph):
            width = _width(piece, style)
            gap = space if spaced and current else 0.0
            if current and used + gap + width > room:
                lines.append(current)
                current, used, gap = "", 0.0, 0.0
            if width > room:
                if not force:
                    return None
                *full, piece = _broken(piece, room, style)  # noqa: PLW2901 - the rest goes on
                lines += full
                width = _width(piece, style)
            current += (" " if gap else "") + piece
            used += gap + width
        if current:
            lines.append(current)
    return lines


def _balanced(text: str, room: float, count: int, style: Type) -> list[str]:
    """Return the wrap into ``count`` lines with the narrowest widest line: no lonely last word."""
    low, high = room / max(count, 1) * 0.5, room
    best = _wrap(text, room, style, force=False) or []
    for _ in range(6):
        middle = (low + high) / 2
        lines = _wrap(text, middle, style, force=False)
        if lines is not None and len(lines) <= count:
            best, high = lines, middle
        else:
            low = middle
    return best


def fit(strings: Sequence[str], width: int, height: int, largest: int, style: Type) -> list[Block]:
    """Lay strings out in a column, as large as it fits.

    A string that fits on its own lines unwrapped at a good size is not wrapped.

    Args:
        strings: The strings; a line feed breaks a line.
        width: Width of the column in pixels.
        height: Its height.
        largest: Largest size of type in pixels.
        style: Weight and locale.
    """
    strings = _cut(strings)
    good = max(30, round(largest * 0.5))
    attempts = [(s, False, False) for s in _SIZES if good <= s <= largest]
    attempts += [(s, True, False) for s in _SIZES if s <= largest and s >= SMALLEST]
    attempts += [(s, True, True) for s in _SIZES if s <= min(largest, 26)]
    blocks: list[Block] = []
    for size, wrap, force in attempts:
        found = [_lines(text, width / size, style, wrap=wrap, force=force) for text in strings]
        blocks = [Block(tuple(lines), size) for lines in found if lines is not None]
        tall = sum(block.height for block in blocks) + gaps(blocks)
        if len(blocks) == len(found) and tall <= height:
            return blocks
    # Nothing fits: the smallest size, cut at the foot of the column.
    left, kept = height, []
    for block in blocks:
        shown = block.lines[: max(int(left / (block.size * _LINE)), 0)]
        if shown:
            kept.append(Block(shown, block.size))
            left -= kept[-1].height + block.size
    return kept


def _lines(text: str, room: float, style: Type, *, wrap: bool, force: bool) -> list[str] | None:
    """Return one string's lines in a column of ``room`` (at size 1), or ``None``."""
    if not wrap:
        lines = text.split("\n")
        return lines if max(_width(line, style) for line in lines) <= room else None
    wrapped = _wrap(text, room, style, force=force)
    if wrapped is not None and not force and len(wrapped) > 1 and "\n" not in text:
        return _balanced(text, room, len(wrapped), style)
    return wrapped


def gaps(blocks: Sequence[Block]) -> int:
    """Return the pixels between the blocks, all together."""
    return sum(gap(block) for block in blocks[1:])


def gap(block: Block) -> int:
    """Return the pixels above a block that is not the first."""
    return round(block.size * 0.45)


def _cut(strings: Sequence[str]) -> list[str]:
    left, kept = LONGEST, []
    for text in strings:
        if left <= 0:
            break
        kept.append(text[:left])
        left -= len(text)
    return kept


def widest(blocks: Sequence[Block], style: Type) -> int:
    """Return the width in pixels of the widest line."""
    return max(
        round(_width(line, style) * block.size) + 2 for block in blocks for line in block.lines
    )


def draw_line(
    draw: ImageDraw.ImageDraw,
    line: str,
    at: tuple[float, float],
    *,
    size: int,
    colour: Colour,
    style: Type,
) -> None:
    """Draw one line with its left end and base line at ``at``; boxes stand for missing glyphs."""
    x, baseline = at
    direction = "rtl" if fonts.right_to_left(line) else None
    for run in fonts.visual(line):
        if run.face is None:
            for _ in run.text:
                _box(draw, x, baseline, size, colour)
                x += size * 0.72
            continue
        font = fonts.font(run.face, size, style.weight, style.locale, line)
        draw.text((x, baseline), run.text, fill=colour, font=font, anchor="ls", direction=direction)
        x += font.getlength(run.text, direction=direction)


def _box(draw: ImageDraw.ImageDraw, x: float, baseline: float, size: int, colour: Colour) -> None:
    stroke = max(1, round(size / 16))
    corners = (x + size * 0.08, baseline - size * 0.74, x + size * 0.62, baseline)
    draw.rectangle(corners, outline=colour, width=stroke)


def draw_blocks(
    image: Image.Image,
    blocks: Sequence[Block],
    area: Rect,
    *,
    colour: Colour,
    align: str,
    style: Type,
) -> None:
    """Draw blocks below one another into an area that they fit in.

    Args:
        image: RGB picture, changed in place.
        blocks: From :func:`fit`.
        area: Where; the blocks are centred in its height.
        colour: Of the letters.
        align: ``left`` or ``center``; ``left`` means ``right`` for right-to-left lines.
        style: Weight and locale.
    """
    draw = ImageDraw.Draw(image)
    y = area.top + (area.height - sum(b.height for b in blocks) - gaps(blocks)) / 2
    for number, block in enumerate(blocks):
        y += gap(block) if number else 0
        for line in block.lines:
            width = _width(line, style) * block.size
            if align == "center":
                x = area.left + (area.width - width) / 2
            elif fonts.right_to_left(line):
                x = area.right - width
            else:
                x = float(area.left)
            at = (x, round(y + block.size * 1.08))
            draw_line(draw, line, at, size=block.size, colour=colour, style=style)
            y += block.size * _LINE
