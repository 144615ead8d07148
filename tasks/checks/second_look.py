"""Read doubtful lines again, enlarged, and ask how probable the intended string is there.

Lines that the detector cuts short, or that run on an arc, are cut out anew: with the room beside
them, and straightened.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from tasks.checks.text_match import align, keys, unmarked
from tasks.checks.text_misses import Miss, near

#: Natural log of how much less probable than what was read an intended line may be in the middle
#: one of all preparations. Planted faults lie below -4, nearly all below -8.
MARGIN = -3.0
#: Natural log of how improbable at all: where nothing is read surely, being second best proves
#: nothing.
LEAST = -4.0
#: Where none of the first preparations reaches this, the others are not tried.
CLEAR = -8.0
#: Minus infinity: a letter that the recogniser cannot write, or a line too short.
LOWEST = 1000.0
#: Height in pixels of a line that is made smaller.
SMALL = 24
#: Room beside a line, and above and below it, in heights of the line: a first letter that is
#: larger, paler or of another colour is left out by the detector, and so is a short word.
#: Where the first two show nothing, the others are not tried.
ROOMS = ((1.2, 0.4), (2.0, 0.0), (2.0, 0.4), (0.5, 0.0), (0.5, 0.4), (1.2, 0.0))
#: A line whose box is narrower than this, in heights for each letter, may run on an arc: even
#: condensed letters are wider.
SQUAT = 0.4
#: Angles in radians that an arc is taken to span; below 0 the ends stand higher than the middle.
#: Where the first two show nothing, the others are not tried.
ARCS = (1.4, -1.4, 0.8, 2.2, -0.8, -2.2)
#: Fewer letters than this show no arc.
LETTERS = 4
#: Natural log of how much less probable than what was read a line with a letter twice is where it
#: need not be looked for: a letter that stands once gives less than this, nearly always.
DOUBT = -12.0
#: The inner circle of an arc is no smaller and no larger than these shares of the outer one.
INNER = (0.3, 0.93)
#: How much wider than high a straightened line is made: narrow letters that stand twice stay two.
WIDER = 1.6
#: So many of the lines cut out anew must be read as intended, each at least this surely: one lucky
#: reading proves nothing.
AGREE, SURELY = 2, 0.8
#: What another look at the same lines cannot change.
HOPELESS = frozenset({"wrong text", "absent", "doubled", "boxes"})


def probable(miss: Miss, lines: Sequence[Any], rgb: Any) -> bool:
    """Say whether a string stands in a place after all, from its lines prepared in other ways.

    Args:
        miss: The string and the lines that stand in its place.
        lines: All lines read, :class:`tasks.checks.ocr.Line`.
        rgb: The picture.
    """
    key = keys(miss.text)
    if miss.severity in HOPELESS or miss.distance > near(key) or not miss.lines:
        return False
    touched = [lines[i] for i in miss.lines]
    read = [keys(line.text) for line in touched]
    parts = wanted(key, read, miss.around)
    return all(
        got == want or _shown(line, got, want, rgb) or _cut_anew(line, got, want, rgb)
        for line, got, want in zip(touched, read, parts, strict=True)
    )


def stutters(line: Any, key: str, rgb: Any, within: tuple[int, int] | None = None) -> bool:
    """Say whether a letter stands twice in a line on an arc that is read as if it stood once.

    Letters that lean lie over one another where the recogniser looks, and two narrow ones become
    one. They come apart in a wider picture.

    Args:
        line: As it was read.
        key: What should stand there.
        rgb: The picture.
        within: Where in the key the letter stands; everywhere by default.
    """
    import cv2

    from tasks.checks import ocr

    start, end = within or (0, len(key))
    if line.vertical or end - start < LETTERS:
        return False
    twice = sorted({key[:i] + key[i] + key[i:] for i in range(start, end)})
    plain, _ = ocr.crop(rgb, line.quad)
    height, width = plain.shape[:2]
    if width >= SQUAT * len(key) * height or _oftener(line.reading, key, twice) < DOUBT:
        return False
    size = round(width * WIDER), height
    wide: Any = cv2.resize(plain, size, interpolation=cv2.INTER_CUBIC)
    (reading,) = ocr.reader().recognise([wide], key)
    return _oftener(reading, key, twice) > 0


def _oftener(reading: Any, once: str, twice: Sequence[str]) -> float:
    """Return the log of how much more probable the best of some strings is than another."""
    from tasks.checks import ocr

    least = ocr.forward_score(reading, once)
    if not np.isfinite(least):
        return -LOWEST  # Letters of other strings.
    return max(ocr.forward_score(reading, text) for text in twice) - least


def _shown(line: Any, got: str, want: str, rgb: Any) -> bool:
    """Say whether one line shows what it should, not what was read."""
    from tasks.checks import ocr

    if 2 * align(want, got).distance > len(want):
        return False  # Something else stands there.
    if len(got) == len(want) + 1 and stutters(line, want, rgb):
        return False
    read = ocr.reader().recognise
    first, others = variants(rgb, line.quad)
    scores = [_scores(reading, got, want) for reading in read(first, want + got)]
    if max(right - other for right, other in scores) < CLEAR:
        return False
    more = read([make() for make in others], want + got)
    scores += [_scores(reading, got, want) for reading in more]
    ratio = median(right - other for right, other in scores)
    return ratio >= MARGIN and median(right for right, _ in scores) >= LEAST


def _cut_anew(line: Any, got: str, want: str, rgb: Any) -> bool:
    """Say whether a line shows what it should once it is cut out longer, or straightened."""
    from tasks.checks import ocr

    if line.vertical or 2 * align(want, got).distance > len(want):
        return False
    if unmarked(got) == unmarked(want):
        return False  # A cut through the marks above the letters loses them: that proves nothing.
    first, last = want.endswith(got), want.startswith(got)

    def longer(room: tuple[float, float]) -> Any:
        return ocr.crop(rgb, _longer(line.quad, room, first, last))[0]

    if (first or last) and _agree(longer, ROOMS, want, _surely):
        return True
    plain, _ = ocr.crop(rgb, line.quad)
    height, width = plain.shape[:2]
    if len(got) > len(want) or width >= SQUAT * len(want) * height:
        return False
    return _agree(functools.partial(straightened, plain), ARCS, want, _once)


def _agree(
    cut: Callable[[Any], Any],
    ways: Sequence[Any],
    want: str,
    shows: Callable[[Any, str], bool],
) -> bool:
    """Say whether a line shows what it should, cut in enough ways; the first two decide on more."""
    from tasks.checks import ocr

    def count(some: Sequence[Any]) -> int:
        readings = ocr.reader().recognise([cut(way) for way in some], want)
        return sum(shows(one, want) for one in readings)

    found = count(ways[:2])
    return found >= AGREE or (found > 0 and found + count(ways[2:]) >= AGREE)


def _surely(reading: Any, want: str) -> bool:
    """Say whether a line is surely read as intended."""
    return bool(keys(reading.text) == want and reading.score >= SURELY)


def _once(reading: Any, want: str) -> bool:
    """Say the same where no letter may as well stand there twice: bending makes two one."""
    from tasks.checks import ocr

    if not _surely(reading, want):
        return False
    once = ocr.forward_score(reading, want)
    twice = (want[:i] + want[i] + want[i:] for i in range(len(want)))
    return all(ocr.forward_score(reading, text) - once < CLEAR for text in twice)


def _longer(quad: Any, room: tuple[float, float], first: bool, last: bool) -> Any:
    """Return the corners of a line with room where its first or last letters may stand."""
    tl, tr, br, bl = quad.astype(np.float64)
    down = ((bl - tl) + (br - tr)) / 2
    across = (tr - tl) + (br - bl)
    across *= np.hypot(*down) / max(float(np.hypot(*across)), 1.0)
    left, right, more = room[0] * first * across, room[0] * last * across, room[1] * down
    return np.array(
        [tl - left - more, tr + right - more, br + right + more, bl - left + more], np.float32
    )


def straightened(line: Any, angle: float) -> Any:
    """Return a line picture unrolled, taken for letters on an arc that fills it.

    Args:
        line: RGB picture, as wide and high as the arc.
        angle: Angle in radians that the arc spans; below 0 its ends stand higher than its middle.
    """
    import cv2

    if angle < 0:
        return np.ascontiguousarray(straightened(line[::-1, ::-1], -angle)[::-1, ::-1])
    height, width = line.shape[:2]
    # The chord of the outer circle is as wide as the line, the ends of the inner one stand lowest.
    outer = width / (2 * np.sin(angle / 2))
    inner = float(np.clip((outer - height) / np.cos(angle / 2), INNER[0] * outer, INNER[1] * outer))
    columns = max(8, round(WIDER * (outer + inner) / 2 * angle))
    rows = max(8, round(outer - inner))
    turns = np.linspace(-angle / 2, angle / 2, columns)[None, :]
    radii = np.linspace(outer, inner, rows)[:, None]
    x, y = width / 2 + radii * np.sin(turns), outer - radii * np.cos(turns)
    return cv2.remap(
        np.ascontiguousarray(line),
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _scores(reading: Any, got: str, want: str) -> tuple[float, float]:
    """Return the log-probability of the intended line and of the one read first."""
    from tasks.checks import ocr

    return max(ocr.forward_score(reading, want), -LOWEST), max(
        ocr.forward_score(reading, got), -LOWEST
    )


def variants(rgb: Any, quad: Any) -> tuple[list[Any], list[Callable[[], Any]]]:
    """Return preparations of a line.

    Returns:
        As it stands, with more room, and with its contrast stretched; then makers of others: cut
        closer, wider, blurred and smaller.
    """
    import cv2

    from tasks.checks import ocr

    plain, _ = ocr.crop(rgb, quad)
    roomy, _ = ocr.crop(rgb, quad, margin=0.15)
    grey = cv2.cvtColor(roomy, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey, (1, 99))
    table = np.clip((np.arange(256) - low) * 255.0 / max(high - low, 1.0), 0, 255)
    stretched = cv2.cvtColor(table.astype(np.uint8)[grey], cv2.COLOR_GRAY2RGB)
    height, width = plain.shape[:2]
    small = max(8, round(width * SMALL / height)), SMALL
    return [plain, roomy, stretched], [
        lambda: ocr.crop(rgb, quad, margin=-0.08)[0],
        lambda: cv2.resize(plain, (round(width * 1.3), height), interpolation=cv2.INTER_CUBIC),
        lambda: cv2.GaussianBlur(plain, (0, 0), max(height / 28, 0.5)),
        lambda: cv2.resize(plain, small, interpolation=cv2.INTER_AREA),
    ]


def wanted(key: str, read: Sequence[str], around: tuple[int, int]) -> list[str]:
    """Split the intended key over the lines where it should stand, other words kept as read.

    Args:
        key: The intended string.
        read: Keys of the lines.
        around: Letters of the first line before the string, and of the last line after it.
    """
    joined = "".join(read)
    prefix, suffix = joined[: around[0]], joined[len(joined) - around[1] :]
    target = prefix + key + suffix
    # Cut the target where the lines end, by what stays the same on both sides.
    cuts: list[int] = []
    ends = np.cumsum([len(r) for r in read])[:-1]
    blocks = SequenceMatcher(None, joined, target, autojunk=False).get_opcodes()
    for end in ends:
        cut = len(target)
        for _, i1, i2, j1, j2 in blocks:
            if i1 <= end <= i2:
                cut = j1 + round((end - i1) * (j2 - j1) / max(i2 - i1, 1)) if i2 > i1 else j1
                break
        cuts.append(int(cut))
    edges = [0, *cuts, len(target)]
    return [target[a:b] for a, b in pairwise(edges)]
