"""The contact sheet: one picture of the pictures that failed, for people who look at a phone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from tasks.alerts.text import clean
from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.plan import write_atomic
from tasks.providers.embedded import fonts

#: Pictures on a sheet at the most; the report has them all.
MOST = 12
_TILE, _CAPTION, _GAP = 240, 60, 16
_COLUMNS = 4
_CAPTION_LINES = 3
_LINE_HEIGHT = 19
_SIZE, _WEIGHT, _BOX = 14, 450, 11
_PAPER, _INK, _FRAME, _GREY = (255, 255, 255), (30, 32, 36), (205, 208, 214), (226, 228, 232)


def contact_sheet(items: Sequence[tuple[bytes | Path, str]], target: Path) -> Path | None:
    """Write a PNG with up to twelve pictures and their captions.

    A picture that does not decode gets a grey tile that says so.

    Args:
        items: Pictures (bytes, or where they lie) with one caption each.
        target: Where the sheet goes.

    Returns:
        ``target``, or ``None`` when there is nothing to show.

    Raises:
        EvidenceError: The disk is full or the folder cannot be written.
    """
    shown = list(items[:MOST])
    if not shown:
        return None
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    size = (
        _GAP + columns * (_TILE + _GAP),
        _GAP + rows * (_TILE + _CAPTION + _GAP),
    )
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for position, (source, caption) in enumerate(shown):
        row, column = divmod(position, columns)
        x = _GAP + column * (_TILE + _GAP)
        y = _GAP + row * (_TILE + _CAPTION + _GAP)
        _place(sheet, pen, source, (x, y))
        for line, text in enumerate(_lines(clean(caption))):
            _write(pen, (x, y + _TILE + 3 + line * _LINE_HEIGHT), text)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return write_atomic(target, buffer.getvalue())


def _place(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, source: bytes | Path, corner: tuple[int, int]
) -> None:
    """Put one picture into its tile, or say why there is none."""
    x, y = corner
    frame = (x, y, x + _TILE - 1, y + _TILE - 1)
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError:
        picture, trouble = None, "missing"
    else:
        picture, trouble = decode(data, Expected()).picture, "not decodable"
    if picture is None:
        pen.rectangle(frame, fill=_GREY, outline=_FRAME)
        width = _width(trouble)
        _write(pen, (x + (_TILE - round(width)) // 2, y + _TILE // 2 - _LINE_HEIGHT // 2), trouble)
        return
    thumbnail = Image.fromarray(picture.rgb)
    thumbnail.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    pen.rectangle(frame, fill=_PAPER, outline=_FRAME)
    inside = (x + (_TILE - thumbnail.width) // 2, y + (_TILE - thumbnail.height) // 2)
    sheet.paste(thumbnail, inside)


def _lines(text: str) -> list[str]:
    """Break a caption into lines that fit the tile; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < _CAPTION_LINES:
        end = len(rest)
        if _width(rest) > _TILE:
            end = _fitting(rest)
            space = rest.rfind(" ", end // 2, end + 1)
            if space > 0:
                end = space
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest and lines:
        last = lines[-1]
        while last and _width(last + "…") > _TILE:
            last = last[:-1]
        lines[-1] = last + "…"
    return lines


def _fitting(text: str) -> int:
    """Return how many characters fit the tile, at least one."""
    low, high = 1, min(len(text), _TILE)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _width(text[:middle]) <= _TILE else (low, middle - 1)
    return low


def _write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    """Write one line on its base line, each piece in a font that has its script."""
    x, base = float(corner[0]), corner[1] + _LINE_HEIGHT - 5
    for run in fonts.visual(text):
        if run.face is None:  # No font here has these characters: hollow boxes, never a wrong one.
            for _ in run.text:
                pen.rectangle((x + 1, base - _BOX, x + _BOX - 1, base), outline=_INK)
                x += _BOX
            continue
        font = fonts.font(run.face, _SIZE, _WEIGHT, text=run.text)
        pen.text((x, base), run.text, fill=_INK, font=font, anchor="ls")
        x += font.getlength(run.text)


def _width(text: str) -> float:
    return sum(
        len(run.text) * _BOX
        if run.face is None
        else fonts.font(run.face, _SIZE, _WEIGHT, text=run.text).getlength(run.text)
        for run in fonts.runs(text)
    )
