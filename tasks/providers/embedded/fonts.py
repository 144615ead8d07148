"""Which fonts are there, which characters they hold, and text cut into runs of one font.

The fonts come in two wheels (Noto Sans for many scripts, Noto Sans CJK). A font whose file is
missing is simply not found, and its script is then not settable: its characters are drawn as
hollow boxes, never in a wrong script.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

#: Stands for one character that no font holds, or whose glyph a fault took away.
BOX = "\ue000"

#: Wheel, file and the scripts (ISO 15924) for which the file is meant, in order of preference.
_FILES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("manimgx_fonts", "NotoSans[wght].ttf", ("Latn", "Cyrl", "Grek")),
    ("manimgx_fonts_cjk", "NotoSansCJK-VF.otf.ttc", ("Hans", "Hant", "Jpan", "Kore")),
    ("manimgx_fonts", "NotoSansArabic[wght].ttf", ("Arab",)),
    ("manimgx_fonts", "NotoSansHebrew[wght].ttf", ("Hebr",)),
    ("manimgx_fonts", "NotoSansDevanagari[wght].ttf", ("Deva",)),
    ("manimgx_fonts", "NotoSansThai[wght].ttf", ("Thai",)),
    ("manimgx_fonts", "NotoSansBengali[wght].ttf", ("Beng",)),
    ("manimgx_fonts", "NotoSansTamil[wght].ttf", ("Taml",)),
    ("manimgx_fonts", "NotoSansTelugu[wght].ttf", ("Telu",)),
    ("manimgx_fonts", "NotoSansGujarati[wght].ttf", ("Gujr",)),
    ("manimgx_fonts", "NotoSansGurmukhi[wght].ttf", ("Guru",)),
    ("manimgx_fonts", "NotoSansKannada[wght].ttf", ("Knda",)),
    ("manimgx_fonts", "NotoSansMalayalam[wght].ttf", ("Mlym",)),
    ("manimgx_fonts", "NotoSansOriya[wght].ttf", ("Orya",)),
    ("manimgx_fonts", "NotoSansSinhala[wght].ttf", ("Sinh",)),
    ("manimgx_fonts", "NotoSansKhmer[wght].ttf", ("Khmr",)),
    ("manimgx_fonts", "NotoSansLao[wght].ttf", ("Laoo",)),
    ("manimgx_fonts", "NotoSansMyanmar[wght].ttf", ("Mymr",)),
    ("manimgx_fonts", "NotoSansArmenian[wght].ttf", ("Armn",)),
    ("manimgx_fonts", "NotoSansGeorgian[wght].ttf", ("Geor",)),
    ("manimgx_fonts", "NotoSansEthiopic[wght].ttf", ("Ethi",)),
    ("manimgx_fonts", "NotoSansSymbols[wght].ttf", ("Zsym",)),
    ("manimgx_fonts", "NotoEmoji[wght].ttf", ("Zsye",)),
)
_CJK = "manimgx_fonts_cjk"
#: Faces of the CJK collection by language.
_CJK_FACES = {"ja": 0, "ko": 1, "zh": 2, "zh-tw": 3, "zh-hant": 3, "zh-hk": 4}


@dataclass(frozen=True)
class Face:
    """One font file with the characters it holds, as sorted ranges."""

    path: Path
    scripts: tuple[str, ...]
    cjk: bool
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def holds(self, char: str) -> bool:
        """Return whether the font has a glyph for the character."""
        code = ord(char)
        at = bisect_right(self.starts, code) - 1
        return at >= 0 and code <= self.ends[at]


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of a line set in one font; ``face`` is ``None`` for boxes."""

    text: str
    face: Face | None


def _cmap(path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return first and last characters of the ranges in a font's character map."""
    with path.open("rb") as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        start = struct.unpack(">I", read(12, 4))[0] if read(0, 4) == b"ttcf" else 0
        (count,) = struct.unpack(">H", read(start + 4, 2))
        directory = read(start + 12, 16 * count)
        table = next(
            struct.unpack(">I", directory[i + 8 : i + 12])[0]
            for i in range(0, len(directory), 16)
            if directory[i : i + 4] == b"cmap"
        )
        (count,) = struct.unpack(">H", read(table + 2, 2))
        records = list(struct.iter_unpack(">HHI", read(table + 4, 8 * count)))
        formats = {
            struct.unpack(">H", read(table + offset, 2))[0]: table + offset
            for _platform, _encoding, offset in records
        }
        if 12 in formats:
            (groups,) = struct.unpack(">I", read(formats[12] + 12, 4))
            rows = list(struct.iter_unpack(">III", read(formats[12] + 16, 12 * groups)))
            ranges = [(first + (glyph == 0), last) for first, last, glyph in rows]
        else:
            at = formats[4]
            (doubled,) = struct.unpack(">H", read(at + 6, 2))
            half = f">{doubled // 2}H"
            ends = struct.unpack(half, read(at + 14, doubled))
            firsts = struct.unpack(half, read(at + 16 + doubled, doubled))
            # The last segment, 0xFFFF, is the format's end mark and no character.
            ranges = [(a, b) for a, b in zip(firsts, ends, strict=True) if a != 0xFFFF]
    ranges.sort()
    return tuple(a for a, _ in ranges), tuple(b for _, b in ranges)


@cache
def faces() -> tuple[Face, ...]:
    """Return the fonts that are found on this machine, in order of preference."""
    found = []
    for package, name, scripts in _FILES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin).parent / name
        if path.is_file():
            starts, ends = _cmap(path)
            found.append(Face(path, scripts, package == _CJK, starts, ends))
    return tuple(found)


def settable_scripts() -> tuple[str, ...]:
    """Return the ISO 15924 codes of the scripts that can be set here, sorted."""
    return tuple(sorted(script for face in faces() for script in face.scripts))


def printable(text: str) -> str:
    """Return the text as it can be set: composed, without control characters.

    Line breaks stay; tabs and other spaces become one space. What has no picture of its own
    (control characters, bidirectional marks) goes; a lone surrogate becomes a box.
    """
    out = []
    for char in unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")):
        category = unicodedata.category(char)
        if char == "\n":
            out.append(char)
        elif category == "Cs" or char == BOX:
            out.append(BOX)
        elif category in {"Zs", "Zl", "Zp"} or char == "\t":
            out.append(" ")
        elif category == "Cc" or (category == "Cf" and char not in "\u200c\u200d"):
            continue
        else:
            out.append(char)
    return "".join(out)


def covered(text: str) -> bool:
    """Return whether every character of the text can be set with the fonts found here."""
    clean = printable(text).replace("\n", " ")
    return all(run.face is not None for run in runs(clean))


def right_to_left(text: str) -> bool:
    """Return whether the first letter with a direction runs from right to left."""
    for char in text:
        direction = unicodedata.bidirectional(char)
        if direction in {"R", "AL"}:
            return True
        if direction == "L" and char != BOX:
            return False
    return False


def _strong(char: str) -> bool:
    return unicodedata.category(char).startswith("L")


def _ignorable(char: str) -> bool:
    return char in "\u200c\u200d" or "\ufe00" <= char <= "\ufe0f"


def _first(text: str) -> Face | None:
    """Return the first font that holds all of the text."""
    return next((face for face in faces() if all(face.holds(char) for char in text)), None)


#: A figure with its signs is one piece: half of "50%" in another font would move in bidi text.
_PIECE = re.compile(r"[^\W\d_]+|[^\s\w]*\d(?:[^\s\w]|\d)*|\s+|.", re.DOTALL)


def _faces_of(line: str) -> list[Face | None]:
    """Return the font of each character."""
    chosen: list[Face | None] = []
    previous: Face | None = None
    for match in _PIECE.finditer(line):
        piece = match.group()
        strong = any(_strong(char) for char in piece)
        near = previous
        if near is None and not strong:
            # A leading figure or quotation mark goes with the first letter after it.
            later = next((c for c in line[match.end() :] if _strong(c)), None)
            near = _first(later) if later else None
        if near is not None and (not strong or near.cjk) and all(map(near.holds, piece)):
            face: Face | None = near
        else:
            face = _first(piece)
        if face is not None:
            chosen += [face] * len(piece)
            # A picture sign in between is no reason to set what follows in its font.
            previous = face if strong else previous
            continue
        for char in piece:
            if previous is not None and previous.holds(char):
                chosen.append(previous)
            else:
                chosen.append(_first(char))
    return chosen


@lru_cache(maxsize=4096)
def runs(line: str) -> tuple[Run, ...]:
    """Cut a line into runs of one font each, in logical order."""
    if line and BOX not in line:
        whole = _first(line)
        if whole is not None:
            return (Run(line, whole),)
    cut: list[Run] = []
    for char, face in zip(line, _faces_of(line), strict=True):
        if face is None and _ignorable(char):
            continue
        letter = char if face is not None else BOX
        if cut and cut[-1].face is face:
            cut[-1] = Run(cut[-1].text + letter, face)
        else:
            cut.append(Run(letter, face))
    return tuple(cut)


def _direction(run: Run) -> str:
    for char in run.text:
        direction = unicodedata.bidirectional(char)
        if direction in {"R", "AL"}:
            return "R"
        if direction == "L" and char != BOX:
            return "L"
    return ""


def visual(line: str) -> tuple[Run, ...]:
    """Return the runs of a line from left to right as they are seen.

    Inside a run the shaper orders the letters. Among runs, those that lie between two of the
    direction against the line's own are turned round together with them.
    """
    logical = runs(line)
    if len(logical) < 2:
        return logical
    backwards = right_to_left(line)
    against = "L" if backwards else "R"
    out: list[Run] = []
    at = 0
    while at < len(logical):
        end = at
        if _direction(logical[at]) == against:
            for later in range(at + 1, len(logical)):
                kind = _direction(logical[later])
                if kind == against:
                    end = later
                elif kind:
                    break
        out += reversed(logical[at : end + 1])
        at = end + 1
    return tuple(reversed(out)) if backwards else tuple(out)


def _cjk_index(locale: str, text: str) -> int:
    # What the text says about itself comes first: kana and Hangul belong to one language each.
    if any("\u3040" <= c <= "\u30ff" for c in text):
        return 0
    if any("\uac00" <= c <= "\ud7a3" for c in text):
        return 1
    tag = locale.lower().replace("_", "-")
    return _CJK_FACES.get(tag, _CJK_FACES.get(tag.split("-")[0], 2))


@lru_cache(maxsize=512)
def _load(path: Path, index: int, size: int, weight: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(str(path), size, index=index, layout_engine=ImageFont.Layout.RAQM)
    axes = font.get_variation_axes()
    values = []
    for axis in axes:
        low, high, usual = axis["minimum"], axis["maximum"], axis["default"]
        wanted = weight if axis["name"] == b"Weight" else usual
        values.append(min(max(wanted or 0, low or 0), high or 0))
    font.set_variation_by_axes([float(value) for value in values])
    return font


def font(
    face: Face, size: int, weight: int = 600, locale: str = "und", text: str = ""
) -> ImageFont.FreeTypeFont:
    """Return the font of a face at a size in pixels and a weight (400 to 700)."""
    index = _cjk_index(locale, text) if face.cjk else 0
    return _load(face.path, index, size, weight)
