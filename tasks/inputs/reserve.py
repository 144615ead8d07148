"""Extra cases for slices that look bad, chosen before the first image. Pure functions.

A slice looks bad, the next shard goes there: those cases must exist, be fixed in the plan and be
new. The reserve is filled one case at a time, each for the slice that has the least of what it
needs; a slice needs as many as the policy asks of a slice to be judged, a smaller one as many as
it has in the headline sample. So a rare locale has its place beside English, and a case serves
all the slices it is in.

Within a slice the origins keep the proportion they have in the headline sample: extra cases that
are harder than the slice itself would find it worse than it is.
"""

from __future__ import annotations

import hashlib
import heapq
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence

from tasks.policy import SliceRule
from tasks.records import Case, Origin

#: A dimension and its value.
SliceKey = tuple[str, str]


def slices_of(case: Case, dimensions: Iterable[str]) -> Iterator[SliceKey]:
    """Yield the slices of a case that are known before it has an image."""
    # The model follows from the subtask, by the routes of the mix.
    known = {"subtask" if name == "model" else name for name in dimensions}
    for name in ("subtask", "locale", "origin"):
        if name in known:
            yield name, getattr(case, name)


def likeness(case: Case) -> tuple[object, ...]:
    """Return what near copies share: the words and the texts to set, in whatever size or locale.

    Case, spaces and forms that Unicode holds for the same do not tell texts apart.
    """
    return _folded(case.prompt), tuple(map(_folded, case.expected_text)), case.brand, case.upload


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def choose_reserve(
    headline: Sequence[Case], spare: Iterable[Case], count: int, rule: SliceRule, seed: int
) -> tuple[Case, ...]:
    """Return up to ``count`` spare cases in the order in which they were chosen.

    Args:
        headline: The cases of the run.
        spare: Other cases, best first; those of an origin that the headline lacks, and those
            that are in the headline or in the reserve already (by digest, by
            :func:`likeness` or by id), are passed over.
        count: Most cases wanted.
        rule: Which slices are judged. One that it calls critical needs cases even when the
            headline has few or none.
        seed: Decides which of two slices with equal needs is served first.
    """
    origins: dict[SliceKey, Counter[Origin]] = defaultdict(Counter)
    for case in headline:
        for key in slices_of(case, rule.dimensions):
            origins[key][case.origin] += 1
    needs = {key: min(found.total(), rule.min_images) for key, found in origins.items()}
    for critical in rule.critical:
        dimension, _, value = critical.partition("=")
        if dimension != "model":
            needs[dimension, value] = rule.min_images
    queues = _queues(headline, spare, rule, needs)
    seen = _Seen(headline)
    served: dict[SliceKey, Counter[Origin]] = defaultdict(Counter)
    turns = [(0.0, -need, _hash(seed, *key), key) for key, need in needs.items()]
    heapq.heapify(turns)
    chosen: list[Case] = []
    while turns and len(chosen) < count:
        served_part, need, rank, key = heapq.heappop(turns)
        part = served[key].total() / needs[key]
        if part > served_part:  # Served meanwhile by cases of other slices.
            heapq.heappush(turns, (part, need, rank, key))
            continue
        extra = _next(queues[key], origins[key], served[key], seen)
        if extra is None:
            continue  # Nothing is left of this slice; it has no further turn.
        seen.add(extra)
        chosen.append(extra)
        for other in slices_of(extra, rule.dimensions):
            served[other][extra.origin] += 1
        heapq.heappush(turns, (served[key].total() / needs[key], need, rank, key))
    return tuple(chosen)


class _Seen:
    """Cases that must not come again."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._ids: set[str] = set()
        self._content: set[object] = set()
        for case in cases:
            self.add(case)

    def add(self, case: Case) -> None:
        self._ids.add(case.case_id)
        self._content.update((case.digest, likeness(case)))

    def __contains__(self, case: Case) -> bool:
        return (
            case.case_id in self._ids
            or likeness(case) in self._content
            or case.digest in self._content
        )


Queues = dict[Origin, deque[Case]]


def _queues(
    headline: Iterable[Case],
    spare: Iterable[Case],
    rule: SliceRule,
    needs: Iterable[SliceKey],
) -> dict[SliceKey, Queues]:
    """Return the spare cases of each slice by origin, in their order."""
    present = {case.origin for case in headline}
    queues: dict[SliceKey, Queues] = {key: {} for key in needs}
    for case in spare:
        if case.origin in present:
            for key in slices_of(case, rule.dimensions):
                if key in queues:
                    queues[key].setdefault(case.origin, deque()).append(case)
    return queues


def _next(
    queues: Queues, wanted: Counter[Origin], served: Counter[Origin], seen: _Seen
) -> Case | None:
    """Return the next new case of a slice, of the origin that is furthest behind its share."""
    while queues:
        # An origin that the slice lacks in the headline comes last: better than no case at all.
        origin = min(
            queues,
            key=lambda name: (
                (served[name] + 1) / wanted[name] if wanted[name] else float("inf"),
                name,
            ),
        )
        queue = queues[origin]
        while queue:
            case = queue.popleft()
            if case not in seen:
                return case
        del queues[origin]
    return None


def _hash(seed: int, *parts: str) -> str:
    return hashlib.sha256("|".join(("reserve", str(seed), *parts)).encode()).hexdigest()
