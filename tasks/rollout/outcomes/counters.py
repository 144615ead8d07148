"""Counters that only say how much there was so far: samples of them, and what lies between.

A counter starts at 0 again when its process does. Samples are kept in files, a day each, so that
a controller that died between two looks counts what happened meanwhile.

The value at a moment is that of the last sample not after it. Windows that follow each other
therefore add up exactly; what happened after the last sample of a window falls into the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from tasks.rollout.outcomes.base import OutcomeError

#: How long samples are kept, and how long another process may hold the file.
KEPT: Final = timedelta(days=14)
_LOCK_S: Final = 10.0
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


class SampleFiles:
    """Samples of one product in a folder; several processes may add to them.

    Args:
        folder: The folder; made when the first sample comes.
        name: What the files begin with.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock under which a sample is taken and added, so that their order is true.

        Raises:
            OutcomeError: Another process holds it for too long, or the folder cannot be written.
        """
        lock = FileLock(self._folder / f"{self._name}.lock", timeout=_LOCK_S)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise OutcomeError(
                f"{self._folder}: another process has been sampling for {_LOCK_S:.0f} s"
            ) from None
        except OSError as error:
            raise OutcomeError(f"{self._folder}: cannot be written: {error}") from None
        try:
            yield
        finally:
            lock.release()

    def add(self, sample: Sample) -> None:
        """Add a sample; the caller holds the lock.

        Raises:
            OutcomeError: The disk does not take it.
        """
        day = datetime.fromtimestamp(sample.at, UTC).date()
        line = json.dumps(asdict(sample), separators=(",", ":")) + "\n"
        path = self._path(day)
        try:
            fresh = not path.exists()
            with path.open("a", encoding="utf-8") as file:
                if file.tell() and not _ends_whole(path):
                    line = "\n" + line  # A crash left half a line.
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                self._forget(day)
        except OSError as error:
            raise OutcomeError(f"{path}: cannot be written: {error}") from None

    def load(self, since: datetime) -> list[Sample]:
        """Return the samples from before a moment on: those of its day, and of the day before.

        Raises:
            OutcomeError: They cannot be read.
        """
        first = since.astimezone(UTC).date() - timedelta(days=1)
        found: list[Sample] = []
        for day, path in self._days():
            if day >= first:
                found += _samples(path)
        return found

    def stamp(self, wanted: float, now: float, last: Sample | None) -> float:
        """Return the moment of a sample taken now: never before the last one.

        Raises:
            OutcomeError: The last one lies far ahead: a clock was put back.
        """
        if last is not None and last.at > now + _AHEAD.total_seconds():
            ahead = datetime.fromtimestamp(last.at, UTC).isoformat(timespec="seconds")
            raise OutcomeError(
                f"{self._folder}: the last sample is of {ahead}, ahead of this machine's clock; "
                "set the clock right, or remove the samples if they are wrong"
            )
        return wanted if last is None or wanted > last.at else last.at + 1e-6

    def _path(self, day: date) -> Path:
        return self._folder / f"{self._name}-{day.isoformat()}.jsonl"

    def _days(self) -> Iterator[tuple[date, Path]]:
        for path in sorted(self._folder.glob(f"{self._name}-*.jsonl")):
            try:
                yield date.fromisoformat(path.stem.removeprefix(f"{self._name}-")), path
            except ValueError:
                continue

    def _forget(self, today: date) -> None:
        for day, path in list(self._days()):
            if day < today - KEPT:
                path.unlink(missing_ok=True)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _samples(path: Path) -> list[Sample]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise OutcomeError(f"{path}: cannot be read: {error}") from None
    found = []
    for line in lines:
        try:
            value = json.loads(line)
            found.append(
                Sample(
                    float(value["at"]),
                    {k: (int(v[0]), int(v[1])) for k, v in value["processes"].items()},
                    value["owners"],
                    value["values"],
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            continue  # Half a line that a crash left.
    return found
