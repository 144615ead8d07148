"""A stratified sample of a log in one pass, by seed alone.

A stratum is (subtask, language, length of the text to set, shape and size). In every stratum the
rows with the smallest hash of (seed, row) are kept, so neither the order of the rows nor the
machine matters, and equal inputs are kept once. With a ``request_id`` column the chance of an
input grows with the number of its requests; without one each different input has one chance.

The cases are then shared out in proportion to the rows of each stratum by largest remainder, at
least one each and never so few that one case stands for more than 1.25 times its fair number of
rows. When there are too many strata for that, they are joined: sizes first, then text lengths,
then languages. So every row of the log belongs to a stratum with a case in it, and the weights
(rows of the stratum / cases of the stratum) sum to the rows of the log.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from tasks.inputs.rows import LogRow
from tasks.records import Case

#: Rows that one case may stand for, over the log's rows per case.
MAX_OVERWEIGHT = Fraction(5, 4)
#: Languages told apart; later newcomers share one stratum, so a hostile log fills no memory.
MAX_LANGUAGES = 64
#: Characters of the rows kept while reading (a row counts 512 more); half of each stratum's rows
#: are let go when there are more.
MAX_HELD = 96_000_000
_ROW_OVERHEAD = 512

#: Upper ends of the text lengths, in characters over all texts of a case.
TEXT_LENGTHS = ((0, "no text"), (8, "short text"), (24, "medium text"))
_LONG = "long text"


class Stratum(NamedTuple):
    """Properties by which the rows of a log are sorted."""

    subtask: str
    language: str
    text: str
    size: str


#: Which properties tell strata apart, from the finest to the coarsest.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("subtask", "language", "text", "size"),
    ("subtask", "language", "text"),
    ("subtask", "language"),
    ("subtask", "text"),
    ("subtask",),
    (),
)


@dataclass(frozen=True)
class LogSample:
    """What was drawn from a log, and what the log holds."""

    cases: tuple[Case, ...]
    #: Rows of the log, and cases drawn, in each stratum of the finest level.
    rows: Mapping[Stratum, int]
    drawn: Mapping[Stratum, int]
    #: Rows that the cases of a finest stratum stand for.
    stands_for: Mapping[Stratum, float]
    #: The level of ``LEVELS`` at which cases were shared out.
    level: tuple[str, ...]
    notes: tuple[str, ...]
    #: Other inputs of the log, in an order whose every beginning has the strata in proportion.
    spare: tuple[Case, ...] = ()


def stratum_of(row: LogRow) -> Stratum:
    """Return the stratum of a row."""
    return Stratum(
        row.subtask,
        row.locale.partition("-")[0],
        text_length(row.expected_text),
        size_class(row.width, row.height),
    )


def text_length(texts: Iterable[str]) -> str:
    """Return the name of the length of all texts together."""
    characters = sum(map(len, texts))
    for most, name in TEXT_LENGTHS:
        if characters <= most:
            return name
    return _LONG


def size_class(width: int, height: int) -> str:
    """Return ``square``, ``wide`` or ``tall``, with ``large`` before it from 0.75 megapixels."""
    shape = "square" if width == height else "wide" if width > height else "tall"
    return f"large {shape}" if width * height >= 786_432 else shape


def content_key(row: LogRow) -> bytes:
    """Return a digest over what makes the picture: equal for rows that ask for the same."""
    # repr() of a tuple of texts and numbers is unambiguous whatever characters the texts hold.
    # Rows had no mask and no groups at first, and their cases must keep their names.
    later = (row.mask, row.campaign, row.repeat)
    shape = row[:9] if later == (None, None, None) else row[:9] + later
    return hashlib.sha256(repr(shape).encode("ascii", "backslashreplace")).digest()


@dataclass
class _Reservoir:
    """The rows of one stratum with the smallest priorities, one for each content."""

    rows: int = 0
    held: dict[bytes, tuple[bytes, LogRow]] = field(default_factory=dict)
    #: Largest priority on top; entries whose content has since got a smaller one are stale.
    heap: list[tuple[int, bytes]] = field(default_factory=list)

    def offer(self, key: bytes, priority: bytes, row: LogRow, limit: int) -> int:
        """Take the row if it belongs to the smallest; return the change of characters held."""
        self.rows += 1
        known = self.held.get(key)
        if known is not None:
            if priority < known[0]:
                self._put(key, priority, row)
            return 0
        change = 0
        if len(self.held) >= limit:
            if priority >= self._largest():
                return 0
            change -= self._drop()
        self._put(key, priority, row)
        return change + _cost(row)

    def trim(self, limit: int) -> int:
        """Keep ``limit`` rows; return the change of characters held."""
        change = 0
        while len(self.held) > limit:
            self._largest()
            change -= self._drop()
        return change

    def _put(self, key: bytes, priority: bytes, row: LogRow) -> None:
        self.held[key] = (priority, row)
        heapq.heappush(self.heap, (-int.from_bytes(priority), key))

    def _largest(self) -> bytes:
        """Return the largest priority held, after clearing stale entries from the top."""
        while True:
            number, key = self.heap[0]
            known = self.held.get(key)
            if known is not None and int.from_bytes(known[0]) == -number:
                return known[0]
            heapq.heappop(self.heap)

    def _drop(self) -> int:
        _, key = heapq.heappop(self.heap)
        return _cost(self.held.pop(key)[1])


def _cost(row: LogRow) -> int:
    return len(row.prompt) + sum(map(len, row.expected_text)) + _ROW_OVERHEAD


def sample_log(
    rows: Iterable[LogRow], count: int, seed: int, max_held: int = MAX_HELD, extra: int = 0
) -> LogSample:
    """Draw ``count`` different cases from a log, all of them when it has fewer.

    Args:
        rows: The log, read once from start to end.
        count: Cases wanted, at least 1.
        seed: The draw; the same log and seed give the same cases.
        max_held: Characters of rows held while reading.
        extra: Most spare inputs wanted of a stratum; the cases are the same with or without.
    """
    strata, limit = _read(rows, count, extra, seed, max_held)
    notes = []
    if limit < count:
        notes.append(
            f"the log's prompts are so long that only {limit} rows of a stratum were kept "
            f"of up to {count}"
        )
    sizes = {stratum: reservoir.rows for stratum, reservoir in strata.items()}
    level = _level(sizes, count)
    joined: dict[tuple[str, ...], list[Stratum]] = defaultdict(list)
    for stratum in sorted(strata):
        joined[_join(stratum, level)].append(stratum)
    allocation = allocate(
        {name: sum(sizes[s] for s in parts) for name, parts in joined.items()},
        # Spare rows do not count: they must not move a case from one stratum to another.
        {
            name: sum(min(len(strata[s].held), limit) for s in parts)
            for name, parts in joined.items()
        },
        count,
    )
    cases: list[Case] = []
    spare: list[tuple[float, bytes, Case]] = []
    drawn: dict[Stratum, int] = defaultdict(int)
    stands_for: dict[Stratum, float] = defaultdict(float)
    for name, parts in joined.items():
        best = sorted((p, k, s) for s in parts for k, (p, _row) in strata[s].held.items())
        taken = best[: allocation[name]]
        stood_for, label = sum(sizes[s] for s in parts), "/".join(name) or "all"
        weight = stood_for / len(taken) if taken else 0.0
        for _priority, key, stratum in taken:
            drawn[stratum] += 1
            stands_for[stratum] += weight
            cases.append(_case(strata[stratum].held[key][1], key, label, weight))
        if taken and extra:
            left: dict[Stratum, int] = dict.fromkeys(parts, extra)
            for place, (_priority, key, stratum) in enumerate(best[len(taken) :]):
                if left[stratum] > 0:
                    left[stratum] -= 1
                    case = _case(strata[stratum].held[key][1], key, label, weight)
                    spare.append(((place + 0.5) / stood_for, key, case))
    different = sum(len(reservoir.held) for reservoir in strata.values())
    if len(cases) < count:
        notes.append(
            f"asked for {count} cases, drawn {len(cases)}: the log holds only {different} "
            f"different inputs in {sum(sizes.values())} rows, all are taken"
        )
    spare.sort(key=lambda item: item[:2])
    return LogSample(
        tuple(cases),
        sizes,
        drawn,
        stands_for,
        level,
        tuple(notes),
        tuple(case for _place, _key, case in spare),
    )


def _read(
    rows: Iterable[LogRow], count: int, extra: int, seed: int, max_held: int
) -> tuple[dict[Stratum, _Reservoir], int]:
    """Return the reservoirs after one pass, and how many rows each was allowed to keep.

    Each keeps ``extra`` spare rows more while there is room. They are the first to go: then the
    reservoirs hold what they would hold without them, since either way the rows kept are those
    with the smallest priorities of all that were offered.
    """
    strata: dict[Stratum, _Reservoir] = {}
    languages: set[str] = set()
    known: dict[tuple[object, ...], _Reservoir] = {}
    start = hashlib.sha256(f"{seed}|".encode())
    limit, held = count, 0
    for row in rows:
        shape = (row.subtask, row.locale, row.width, row.height, text_length(row.expected_text))
        reservoir = known.get(shape)
        if reservoir is None:
            stratum = _bounded(stratum_of(row), languages)
            reservoir = strata.setdefault(stratum, _Reservoir())
            if len(known) >= 4096:
                known.clear()
            known[shape] = reservoir
        key = content_key(row)
        draw = start.copy()
        draw.update(key)
        if row.request_id is not None:
            draw.update(row.request_id.encode("utf-8", "surrogatepass"))
        held += reservoir.offer(key, draw.digest(), row, limit + extra)
        while held > max_held and (extra or limit > 1):
            if extra:
                extra = 0
            else:
                limit = (limit + 1) // 2
            held += sum(other.trim(limit) for other in strata.values())
    return strata, limit


def _bounded(stratum: Stratum, languages: set[str]) -> Stratum:
    """Return the stratum, its language ``other`` when too many have been seen before it."""
    if stratum.language not in languages:
        if len(languages) >= MAX_LANGUAGES:
            return stratum._replace(language="other")
        languages.add(stratum.language)
    return stratum


def _join(stratum: Stratum, level: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(getattr(stratum, name) for name in level)


def _level(sizes: Mapping[Stratum, int], count: int) -> tuple[str, ...]:
    """Return the finest level whose strata all get their floor of cases out of ``count``."""
    total = sum(sizes.values())
    for level in LEVELS:
        joined: dict[tuple[str, ...], int] = defaultdict(int)
        for stratum, rows in sizes.items():
            joined[_join(stratum, level)] += rows
        if sum(_floor(rows, total, count) for rows in joined.values()) <= count:
            return level
    return LEVELS[-1]


def _floor(rows: int, total: int, count: int) -> int:
    """Return the fewest cases that stand for ``rows`` without too large a weight."""
    return max(1, math.ceil(rows * count / (total * MAX_OVERWEIGHT)))


def allocate(
    rows: Mapping[tuple[str, ...], int], available: Mapping[tuple[str, ...], int], count: int
) -> dict[tuple[str, ...], int]:
    """Share ``count`` cases over strata: their floor first, then largest remainder.

    Args:
        rows: Rows of the log in each stratum, each at least 1.
        available: Different inputs held of each stratum; no more can be drawn.
        count: Cases to share out.

    Returns:
        Cases of each stratum; their sum is ``count``, or all that is available if that is less.
    """
    total = sum(rows.values())
    names = sorted(rows)
    floors = {name: min(_floor(rows[name], total, count), available[name]) for name in names}
    shares = floors if sum(floors.values()) <= count else dict.fromkeys(names, 0)
    left = min(count, sum(available.values())) - sum(shares.values())
    while left > 0:
        open_names = [name for name in names if shares[name] < available[name]]
        # Exact fractions: two machines must never round a tie differently.
        wanted = {
            name: max(Fraction(rows[name] * count, total) - shares[name], Fraction(0))
            for name in open_names
        }
        whole = sum(wanted.values())
        if whole == 0:
            wanted = {name: Fraction(rows[name]) for name in open_names}
            whole = sum(wanted.values())
        given = _largest_remainder({name: wanted[name] * left / whole for name in open_names}, left)
        for name in open_names:
            more = min(given[name], available[name] - shares[name])
            shares[name] += more
            left -= more
    return shares


def _largest_remainder(
    quotas: Mapping[tuple[str, ...], Fraction], count: int
) -> dict[tuple[str, ...], int]:
    """Return whole numbers that sum to ``count`` and differ from the quotas by less than one."""
    given = {name: int(quota) for name, quota in quotas.items()}
    order = sorted(quotas, key=lambda name: (given[name] - quotas[name], name))
    for name in order[: count - sum(given.values())]:
        given[name] += 1
    return given


def split(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return ``count`` split by shares that sum to 1, by largest remainder; ties to the first."""
    whole = sum(Fraction(share) for share in shares.values())
    # Places as names: ties go to the first, not to the first in the alphabet.
    places: dict[str, tuple[str, ...]] = {n: (f"{i:03d}",) for i, n in enumerate(shares)}
    given = _largest_remainder(
        {places[name]: Fraction(share) * count / whole for name, share in shares.items()}, count
    )
    return {name: given[place] for name, place in places.items()}


def _case(row: LogRow, key: bytes, stratum: str, weight: float) -> Case:
    return Case(
        case_id=f"log-{key.hex()[:16]}",
        prompt=row.prompt,
        subtask=row.subtask,
        locale=row.locale,
        width=row.width,
        height=row.height,
        expected_text=row.expected_text,
        brand=row.brand,
        upload=row.upload,
        mask=row.mask,
        origin="production",
        expect="refusal" if row.expect == "refusal" else "image",
        stratum=stratum,
        weight=weight,
        campaign=row.campaign,
        repeat=row.repeat,
    )
