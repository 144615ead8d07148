"""Read lines with Tesseract, where it is installed: a second engine beside the one in ``ocr``.

The engine comes in the wheel tesserocr (MIT), its data in the system's packages
``tesseract-ocr-<code>``; without either nothing is read here, and nothing is downloaded. Lines are
found by the detector in :mod:`tasks.checks.ocr`: Tesseract's own search loses most lines of
posters and photographs.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.text_match import keys

#: Where systems keep the data: Debian and Ubuntu, Fedora and Arch, built by hand, Homebrew.
FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a line is prepared before it is read; every preparation is one hypothesis."""

    #: Room around the detected box, as a share of its height: marks stand above and below letters.
    margin: float
    #: Height in pixels that the line is brought to.
    height: int
    #: Black and white by Otsu's threshold instead of grey.
    binary: bool = False
    #: Blurred by one pixel: grain and the stairs of JPEG go, thin joints stay.
    soft: bool = False
    #: Take the picture for one line as it is, without a search for the line in it.
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Guess:
    """What one hypothesis read in a line."""

    text: str
    #: Tesseract's mean confidence in the words, 0 to 1.
    score: float


def folder() -> Path | None:
    """Return the folder with Tesseract's data, ``None`` where the wheel or the data is missing."""
    if importlib.util.find_spec("tesserocr") is None:
        return None
    return next((Path(name) for name in FOLDERS if any(Path(name).glob("*.traineddata"))), None)


@functools.cache
def installed() -> frozenset[str]:
    """Return the codes of the languages whose data is here, e.g. ``rus``."""
    place = folder()
    return frozenset(file.stem for file in place.glob("*.traineddata")) if place else frozenset()


class Engine:
    """Tesseract with the data of one language, or of several read together (``ell+eng``).

    Get it from :func:`engine`. Of several only the first is asked what it knows.
    """

    def __init__(self, code: str) -> None:
        place = folder()
        if place is None:
            raise FileNotFoundError(f"Tesseract or its data for {code!r} is not installed")
        import tesserocr  # type: ignore[import-untyped]

        self.code = code
        self._api: Any = tesserocr.PyTessBaseAPI(
            path=f"{place}{os.sep}", lang=code, oem=tesserocr.OEM.LSTM_ONLY
        )
        self._modes = tesserocr.PSM.SINGLE_LINE, tesserocr.PSM.RAW_LINE
        self._layouts = tesserocr.PSM.AUTO, tesserocr.PSM.SPARSE_TEXT
        self._by_line = tesserocr.RIL.TEXTLINE
        self._known: dict[str, bool] = {}

    def knows(self, text: str) -> bool:
        """Return whether every character that counts is one that the model can answer."""
        return all(self._valid(char) for char in text if keys(char))

    def _valid(self, char: str) -> bool:
        if char not in self._known:
            # The model writes some letters as several: the Thai vowel am as circle and aa.
            parts = char, *keys(char)
            valid = [bool(self._api.IsValidCharacter(part)) for part in parts]
            self._known[char] = valid[0] or all(valid[1:])
        return self._known[char]

    def read(self, line: Pixels, preparation: Preparation) -> Guess:
        """Read a line picture that :func:`prepared` has made."""
        return self._read(line, self._modes[preparation.raw])

    def _read(self, line: Pixels, mode: Any) -> Guess:
        from PIL import Image

        self._api.SetPageSegMode(mode)
        self._api.SetImage(Image.fromarray(line))
        text = self._api.GetUTF8Text()
        return Guess(" ".join(text.split()), max(0, self._api.MeanTextConf()) / 100)

    def letters(self, line: Pixels) -> Guess:
        """Read letters that were cut free (:mod:`tasks.checks.ink`).

        As a line that is searched for first: what is left beside the letters stays out. Where no
        line is found the picture is taken for one.
        """
        found = self._read(line, self._modes[False])
        return found if keys(found.text) else self._read(line, self._modes[True])

    def page(self, rgb: Pixels) -> list[tuple[Guess, tuple[int, int, int, int]]]:
        """Return the lines that Tesseract finds by itself, with left, top, right and bottom.

        Two searches, for blocks and for lines strewn over a picture, so lines may come twice.
        """
        from PIL import Image

        image = Image.fromarray(rgb)
        return [line for layout in self._layouts for line in self._laid_out(image, layout)]

    def _laid_out(
        self, image: Any, layout: Any
    ) -> Iterator[tuple[Guess, tuple[int, int, int, int]]]:
        self._api.SetPageSegMode(layout)
        self._api.SetImage(image)
        self._api.Recognize()
        lines, line = self._api.GetIterator(), self._by_line
        while lines is not None:
            box = lines.BoundingBox(line)
            if box is not None and not lines.Empty(line):
                text = " ".join(lines.GetUTF8Text(line).split())
                yield Guess(text, lines.Confidence(line) / 100), box
            if not lines.Next(line):
                break


@functools.lru_cache(maxsize=4)
def engine(code: str) -> Engine:
    """Return this process's engine for a language; loading takes about 0.1 s and 20 MB.

    Raises:
        FileNotFoundError: The wheel or the data is not installed.
    """
    if not installed().issuperset(code.split("+")):
        raise FileNotFoundError(f"Tesseract or its data for {code!r} is not installed")
    return Engine(code)


def prepared(rgb: Pixels, quad: Floats, how: Preparation) -> Pixels:
    """Cut a line out and prepare it: grey, dark on light, full contrast, with a plain border.

    Tesseract was trained on dark print on light paper.
    """
    from tasks.checks import ocr

    line, _ = ocr.crop(rgb, quad, how.margin)
    grey = cv2.cvtColor(line, cv2.COLOR_RGB2GRAY)
    ratio = how.height / grey.shape[0]
    size = max(8, round(grey.shape[1] * ratio)), how.height
    way = cv2.INTER_CUBIC if ratio > 1 else cv2.INTER_AREA
    grey = np.asarray(cv2.resize(grey, size, interpolation=way), dtype=np.uint8)
    low, high = np.percentile(grey, (1, 99))
    ground = _ground(grey)
    scaled = (grey.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    if ground < (low + high) / 2:
        scaled = 255.0 - scaled
    grey = np.clip(scaled, 0, 255).astype(np.uint8)
    if how.soft:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), dtype=np.uint8)
    if how.binary:
        _, black = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        grey = np.asarray(black, dtype=np.uint8)
    pad = how.height // 4
    paper = int(_ground(grey))
    framed = cv2.copyMakeBorder(grey, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=paper)
    return np.asarray(framed, dtype=np.uint8)


def _ground(grey: Any) -> float:
    """Return the shade of the paper: the middle value along the border."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(border.astype(np.float32)))


def guesses(
    code: str, rgb: Pixels, quads: Sequence[Floats], hows: Sequence[Preparation]
) -> list[list[Guess]]:
    """Return, for each line, what each hypothesis read."""
    reader = engine(code)
    return [[reader.read(prepared(rgb, quad, how), how) for how in hows] for quad in quads]
