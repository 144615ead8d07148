"""Read text in pictures: PP-OCRv6 detection and recognition on onnxruntime, own pre/post steps.

The models lie in the rapidocr wheel (Apache-2.0); nothing is downloaded and rapidocr itself is
not imported. Inference is single-threaded: one worker process a core is faster than threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.checks.text_match import TILTED, keys

#: Detector: probability of text above which a pixel counts, mean probability of a box, and by how
#: much the shrunken box grows back; the values that the models were published with.
PIXEL_THRESHOLD = 0.3
BOX_THRESHOLD = 0.5
UNCLIP = 1.6
MAX_BOXES = 200
#: Height of a line for the recogniser, and the widest line that is read at once.
LINE_HEIGHT = 48
MAX_LINE_WIDTH = 3200
#: Taller than wide by this: a vertical line, turned before it is read.
VERTICAL = 1.5

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the recogniser read in one crop.

    ``emissions`` holds, per time step, the log-probabilities of the keys in ``alphabet`` (see
    :func:`tasks.checks.text_match.keys`; index 0: the blank or a space), kept so that another
    string can be scored on the same crop.
    """

    text: str
    #: Mean probability of the characters read, 0 to 1.
    score: float
    emissions: Floats
    alphabet: dict[str, int]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text: its four corners in pixels of the picture and its reading."""

    quad: Floats
    reading: Reading
    vertical: bool = False

    @property
    def text(self) -> str:
        """The text read."""
        return self.reading.text

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        return corners(self.quad)


def corners(quad: Floats) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the upright rectangle around four corners."""
    low, high = quad.min(axis=0), quad.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def model_folder() -> Path:
    """Return the folder of the models.

    Raises:
        FileNotFoundError: The wheel is not installed or lacks the models.
    """
    spec = importlib.util.find_spec("rapidocr")
    places = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(places[0]) / "models" if places else Path("models")
    for name in ("PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"text model {name} is missing from {folder}; install rapidocr 3.10"
            )
    return folder


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Pictures come in many sizes; an arena that keeps the largest of each would grow for ever.
    options.enable_cpu_mem_arena = False
    # One block for all that a run needs would come fresh from the system each time.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


#: ``mallopt`` of glibc: blocks from this size on are given back as soon as they are free, and so
#: is the end of the heap beyond the second size.
_MALLOPT = {-3: 8 * 2**20, -1: 64 * 2**20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


def _bound_heap() -> None:
    """Keep the peak of a worker small, where the C library can; nothing else changes.

    By itself glibc keeps what a large search of a picture needed, in pieces, for the next one:
    516 MB at the peak instead of 423, at no gain for pictures whose text is found at once.
    """
    # Other C libraries have no mallopt, and Windows no library without a name.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for what, value in _MALLOPT.items():
            mallopt(what, value)


class Reader:
    """Detection and recognition; build it once a process with :func:`reader`."""

    def __init__(self, folder: Path) -> None:
        cv2.setNumThreads(1)
        _bound_heap()
        self._detector = _session(folder / "PP-OCRv6_det_small.onnx")
        self._recogniser = _session(folder / "PP-OCRv6_rec_small.onnx")
        listed = self._recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()
        #: Characters by class number; 0 is the CTC blank, the last one the space.
        self.characters: tuple[str, ...] = ("", *listed, " ")
        self.space = len(self.characters) - 1

    def detect(self, rgb: Pixels, side: int) -> list[Floats]:
        """Return the corners of the text lines, in pixels, in reading order.

        Args:
            rgb: The picture.
            side: Its long side is brought to this many pixels first.
        """
        height, width = rgb.shape[:2]
        ratio = side / max(height, width)
        # The network halves five times: sides must be multiples of 32.
        columns = max(32, round(width * ratio / 32) * 32)
        rows = max(32, round(height * ratio / 32) * 32)
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        small = cv2.resize(rgb, (columns, rows), interpolation=how)
        batch = cv2.dnn.blobFromImage(small, 1 / 127.5, mean=(127.5,) * 3, swapRB=True)
        heat = self._detector.run(None, {"x": batch})[0][0, 0]
        scale = np.array([width / columns, height / rows], dtype=np.float32)
        return reading_order(_boxes(heat, scale, (width, height)))

    @functools.cached_property
    def classes(self) -> dict[str, list[int]]:
        """The recogniser's classes by the key that they count as: ``A`` and ``a`` are one."""
        found: dict[str, list[int]] = {}
        for number, char in enumerate(self.characters):
            key = keys(char)
            if len(key) == 1:
                found.setdefault(key, []).append(number)
        return found

    def recognise(self, crops: Sequence[Pixels], alphabet: str = "") -> list[Reading]:
        """Read line pictures.

        Args:
            crops: RGB pictures of one line each.
            alphabet: Keys whose probabilities are kept for :func:`forward_score`.
        """
        names = sorted(set(alphabet) & self.classes.keys()) if alphabet else []
        groups = [[0, self.space], *(self.classes[name] for name in names)]
        index = {name: i for i, name in enumerate(names, 1)}
        order = sorted(range(len(crops)), key=lambda i: crops[i].shape[1] / crops[i].shape[0])
        readings: dict[int, Reading] = {}
        for group in _groups([crops[i].shape[1] / crops[i].shape[0] for i in order]):
            members = [order[i] for i in group]
            out = self._recogniser.run(None, {"x": _line_batch([crops[i] for i in members])})[0]
            for row, member in enumerate(members):
                readings[member] = self._read(out[row], groups, index)
        return [readings[i] for i in range(len(crops))]

    def _read(self, out: Floats, groups: list[list[int]], index: dict[str, int]) -> Reading:
        best = out.argmax(axis=1)
        keep = best != 0
        keep[1:] &= best[1:] != best[:-1]
        probability = out[np.flatnonzero(keep), best[keep]]
        columns = [out[:, group].sum(axis=1) for group in groups] if index else []
        logs = np.log(np.maximum(np.array(columns).T, 1e-12)) if columns else np.empty((0, 0))
        return Reading(
            text="".join(self.characters[c] for c in best[keep]).strip(),
            score=float(probability.mean()) if len(probability) else 0.0,
            emissions=logs.astype(np.float32),
            alphabet=index,
        )

    def lines(self, rgb: Pixels, side: int, alphabet: str = "") -> list[Line]:
        """Detect and read every line of a picture, in reading order."""
        return self.read(rgb, self.detect(rgb, side), alphabet)

    def read(self, rgb: Pixels, quads: Sequence[Floats], alphabet: str = "") -> list[Line]:
        """Read lines that were detected; vertical ones in both directions, the surer one counts."""
        crops = [crop(rgb, quad) for quad in quads]
        upright = [line for line, _ in crops]
        turned = [np.ascontiguousarray(np.rot90(line, 2)) for line, vertical in crops if vertical]
        readings = self.recognise([*upright, *turned], alphabet)
        others = iter(readings[len(crops) :])
        lines: list[Line] = []
        for quad, reading, (_, vertical) in zip(quads, readings, crops, strict=False):
            line = Line(quad, reading, vertical)
            if vertical:
                # The same corners from the other end: cut out by them, the line stands upright.
                line = max(line, Line(quad[[2, 3, 0, 1]], next(others), vertical), key=_certainty)
            lines.append(line)
        return lines


def _certainty(line: Line) -> float:
    return line.reading.score


@functools.lru_cache(maxsize=1)
def reader() -> Reader:
    """Return this process's reader; the models are loaded at the first call (about 0.5 s)."""
    return Reader(model_folder())


def _boxes(heat: Floats, scale: Floats, size: tuple[int, int]) -> list[Floats]:
    """Turn the probability map of the detector into corners (Differentiable Binarization)."""
    mask = (heat > PIXEL_THRESHOLD).astype(np.uint8)
    grown = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(grown, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found: list[Floats] = []
    for contour in contours[:1000]:
        centre, (w, h), angle = cv2.minAreaRect(contour)
        if min(w, h) < 3 or _mean_inside(heat, contour) < BOX_THRESHOLD:
            continue
        # The network is trained on shrunken boxes: grow every side back by area / perimeter.
        grow = 2 * UNCLIP * w * h / (2 * (w + h))
        if min(w, h) + grow < 5:
            continue
        corners = cv2.boxPoints((centre, (w + grow, h + grow), angle)).astype(np.float32)
        found.append(np.clip(_clockwise(corners) * scale, 0, np.array(size, np.float32)))
    found.sort(key=lambda quad: -_area(quad))
    return [quad.astype(np.float32) for quad in found[:MAX_BOXES]]


def _mean_inside(heat: Floats, contour: NDArray[Any]) -> float:
    x, y, w, h = cv2.boundingRect(contour)
    mask = np.zeros((h, w), np.uint8)
    cv2.fillPoly(mask, [contour - np.array([x, y])], 1)
    return float(cv2.mean(heat[y : y + h, x : x + w], mask)[0])


def _area(quad: Floats) -> float:
    return float(cv2.contourArea(quad))


def _clockwise(corners: Floats) -> Floats:
    """Order corners from the upper left one, clockwise."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    tl, bl = left[np.argsort(left[:, 1], kind="stable")]
    tr, br = right[np.argsort(right[:, 1], kind="stable")]
    return np.array([tl, tr, br, bl], dtype=np.float32)


def reading_order(quads: Sequence[Floats]) -> list[Floats]:
    """Sort boxes into lines from the top, and each line from the left, as the text is tilted."""
    angle = _tilt(quads)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rest = [(quad, quad @ turn) for quad in quads]
    rest.sort(key=lambda q: float(q[1][:, 1].mean()))
    ordered: list[Floats] = []
    while rest:
        first = rest[0][1]
        middle = float(first[:, 1].mean())
        reach = 0.5 * float(first[:, 1].max() - first[:, 1].min())
        row = [q for q in rest if abs(float(q[1][:, 1].mean()) - middle) < reach or q is rest[0]]
        row.sort(key=lambda q: float(q[1][:, 0].min()))
        ordered.extend(quad for quad, _ in row)
        taken = {id(q) for q in row}
        rest = [q for q in rest if id(q) not in taken]
    return ordered


def _tilt(quads: Sequence[Floats]) -> float:
    """Return the angle in radians at which most text runs, by length; 0 when it is hardly any."""
    long = [
        (math.atan2(top[1], top[0]), math.hypot(*top))
        for quad in quads
        for top, side in [(quad[1] - quad[0], quad[3] - quad[0])]
        if math.hypot(*top) > 2 * math.hypot(*side)
    ]
    long.sort()
    half = sum(length for _, length in long) / 2
    reached = accumulate(length for _, length in long)
    angle = next((one for (one, _), sofar in zip(long, reached, strict=True) if sofar >= half), 0.0)
    return angle if abs(angle) > TILTED else 0.0


def crop(rgb: Pixels, quad: Floats, margin: float = 0.0) -> tuple[Pixels, bool]:
    """Cut a line out and straighten it.

    Args:
        rgb: The picture.
        quad: Corners, clockwise from the upper left.
        margin: Grown on every side by this share of the line's height.

    Returns:
        The line picture and whether it was vertical (and turned).
    """
    tl, tr, br, bl = (quad[i].astype(np.float64) for i in range(4))
    width = max(math.dist(tr, tl), math.dist(br, bl), 1.0)
    height = max(math.dist(bl, tl), math.dist(br, tr), 1.0)
    if margin:
        across, down = (tr - tl) / width, (bl - tl) / height
        reach = margin * min(width, height)
        tl, tr = tl - reach * (across + down), tr + reach * (across - down)
        br, bl = br + reach * (across + down), bl - reach * (across - down)
        width, height = width + 2 * reach, height + 2 * reach
    # Reading at more than twice the line height of the network gains nothing.
    ratio = min(1.0, 2 * LINE_HEIGHT / min(width, height))
    columns, rows = max(round(width * ratio), 2), max(round(height * ratio), 2)
    target = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    source = np.array([tl, tr, br, bl], dtype=np.float32)
    change = cv2.getPerspectiveTransform(source, target)
    line = cv2.warpPerspective(
        rgb, change, (columns, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    vertical = rows >= VERTICAL * columns
    if vertical:
        line = np.ascontiguousarray(np.rot90(line))
    return np.asarray(line, dtype=np.uint8), vertical


def _groups(ratios: Sequence[float]) -> list[list[int]]:
    """Batch lines of similar width (sorted by width): padding costs as much as pixels."""
    groups: list[list[int]] = []
    for i, ratio in enumerate(ratios):
        if groups and len(groups[-1]) < 8 and ratio <= 1.25 * max(ratios[groups[-1][0]], 3.0):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _line_batch(crops: Sequence[Pixels]) -> Floats:
    """Scale lines to the network's height, pad them to one width, normalise to [-1, 1]."""
    widths = [
        int(np.clip(np.ceil(LINE_HEIGHT * c.shape[1] / c.shape[0]), 16, MAX_LINE_WIDTH))
        for c in crops
    ]
    full = max(-(-max(widths) // 32) * 32, 96)
    batch = np.zeros((len(crops), 3, LINE_HEIGHT, full), dtype=np.float32)
    for i, (line, width) in enumerate(zip(crops, widths, strict=True)):
        scaled = cv2.resize(line, (width, LINE_HEIGHT), interpolation=cv2.INTER_LINEAR)
        bgr = scaled[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
        batch[i, :, :, :width] = bgr / 127.5 - 1.0
    return batch


def forward_score(reading: Reading, text: str) -> float:
    """Return the log-probability of a key on the crop by the CTC forward algorithm.

    Graves et al. 2006, equations 5 to 8. Minus infinity when a character is not in the kept
    alphabet or the crop is too short for the string.
    """
    codes = [reading.alphabet.get(c, -1) for c in text]
    if not codes or min(codes) < 0:
        return float("-inf")
    states = np.zeros(2 * len(codes) + 1, dtype=np.int64)
    states[1::2] = codes
    emit = reading.emissions[:, states].astype(np.float64)
    # A blank between two equal characters cannot be skipped.
    skip = np.zeros(len(states), dtype=bool)
    skip[3::2] = states[3::2] != states[1:-2:2]
    alpha = np.full(len(states), -np.inf)
    alpha[:2] = emit[0, :2]
    for row in emit[1:]:
        one = np.concatenate(([-np.inf], alpha[:-1]))
        two = np.where(skip, np.concatenate(([-np.inf, -np.inf], alpha[:-2])), -np.inf)
        alpha = np.logaddexp(np.logaddexp(alpha, one), two) + row
    return float(np.logaddexp(alpha[-1], alpha[-2]))
