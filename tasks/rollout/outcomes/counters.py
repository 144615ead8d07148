"""Counters that only say how much there was so far: samples of them, and what lies between.

A counter starts at 0 again when its process does. Samples are kept in files, a day each, so that
a controller that died between two looks counts what happened meanwhile.

The value at a moment is that of the last sample not after it. Windows that follow each other
therefore add up exactly; what happened after the last sample of a window falls into the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from tasks.rollout.outcomes.base import OutcomeError
from tasks.rollout.outcomes.files import DayFiles

#: How far ahead of the clock the last sample may lie.
_AHEAD: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Sample:
    """All counters at one moment.

    Attributes:
        at: The moment, seconds since 1970.
        processes: Number of the process and its seconds of uptime, by place.
        owners: Mix digest by name of what counts (a backend).
        values: Counters by place, then by what counts, then by name.
    """

    at: float
    processes: Mapping[str, tuple[int, int]]
    owners: Mapping[str, str]
    values: Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclass(frozen=True, slots=True)
class Grown:
    """What counters grew by in a window, by mix digest; and what was odd."""

    by_mix: Mapping[str, Mapping[str, int]]
    first: float | None
    restarts: int = 0
    unowned: int = 0


def grown(samples: Sequence[Sample], since: float, until: float) -> Grown:
    """Return what each mix's counters grew by between two moments.

    What a counter has after a restart is what it grew by since. What grew while its owner changed
    from one mix to another belongs to neither.

    Args:
        samples: In the order in which they were taken.
        since: Start of the window.
        until: Its end.
    """
    totals: dict[str, dict[str, int]] = {}
    restarts, unowned = 0, 0
    for before, after in pairwise(samples):
        if not since < after.at <= until:
            continue
        for place, counted in after.values.items():
            restarted = place in before.values and _restarted(before, after, place)
            restarts += restarted
            for name, values in counted.items():
                old = {} if restarted else before.values.get(place, {}).get(name)
                if old is None:
                    continue  # Seen for the first time: nobody knows since when it counts.
                growth = {key: _growth(old.get(key, 0), now) for key, now in values.items()}
                owner = _owner(before, after, name)
                if owner is None:
                    unowned += any(growth.values())
                    continue
                into = totals.setdefault(owner, {})
                for key, grew in growth.items():
                    into[key] = into.get(key, 0) + grew
    return Grown(totals, samples[0].at if samples else None, restarts, unowned)


def _growth(old: int, now: int) -> int:
    return now - old if now >= old else now


def _restarted(before: Sample, after: Sample, place: str) -> bool:
    old, new = before.processes.get(place), after.processes.get(place)
    if old is None or new is None:
        return False
    # Not by the wall clock, which may be set: in a container the number is the same again.
    return old[0] != new[0] or new[1] < old[1]


def _owner(before: Sample, after: Sample, name: str) -> str | None:
    """Return whose growth it is; one that had no owner on one side is the other side's."""
    old, new = before.owners.get(name), after.owners.get(name)
    return old if new is None or old == new else new if old is None else None


class SampleFiles(DayFiles):
    """Samples of one product; several processes may add to them."""

    def keep(self, sample: Sample) -> None:
        """Add a sample; the caller holds the lock.

        Raises:
            OutcomeError: The disk does not take it.
        """
        self.add(datetime.fromtimestamp(sample.at, UTC), asdict(sample))

    def load(self, since: datetime) -> list[Sample]:
        """Return the samples from before a moment on: those of its day, and of the day before.

        Raises:
            OutcomeError: They cannot be read.
        """
        return [
            sample
            for row in self.rows(since - timedelta(days=1))
            if (sample := _sample(row)) is not None
        ]

    def stamp(self, wanted: float, now: float, last: Sample | None) -> float:
        """Return the moment of a sample taken now: never before the last one.

        Raises:
            OutcomeError: The last one lies far ahead: a clock was put back.
        """
        if last is not None and last.at > now + _AHEAD.total_seconds():
            ahead = datetime.fromtimestamp(last.at, UTC).isoformat(timespec="seconds")
            raise OutcomeError(
                f"{self.folder}: the last sample is of {ahead}, ahead of this machine's clock; "
                "set the clock right, or remove the samples if they are wrong"
            )
        return wanted if last is None or wanted > last.at else last.at + 1e-6


def _sample(row: Mapping[str, Any]) -> Sample | None:
    """Return the sample in a row, ``None`` for what is none."""
    try:
        return Sample(
            float(row["at"]),
            {place: (int(v[0]), int(v[1])) for place, v in row["processes"].items()},
            dict(row["owners"]),
            dict(row["values"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
