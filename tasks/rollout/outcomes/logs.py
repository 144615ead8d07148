"""Live outcomes from request logs: JSONL files (also ``.gz``) and Parquet files.

Files are named by a pattern, so that rotated ones count too. Of a growing JSONL file only the end
is read again: marks along the file remember the latest moment of all rows before them, and a mark
whose latest moment lies before the window starts nothing of the window behind it.
"""

from __future__ import annotations

import glob
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

from tasks.records import digest_bytes
from tasks.rollout.outcomes.base import Clock, OutcomeError, Outcomes, nothing, now_utc
from tasks.rollout.outcomes.config import LogsConfig
from tasks.rollout.outcomes.rows import SKEW, BadRowError, Request, RowReader
from tasks.rollout.outcomes.tally import MOST_IDS, Tally

#: Bytes between two marks in a file, and bytes by which a file is known again.
MARK_EVERY: Final = 1 << 20
_HEAD: Final = 4_096
#: Bytes of a file from which the window's start is sought by halves, not read up to.
SEEK_FROM: Final = 32 << 20
#: Longest row, and most files that a pattern may name.
LONGEST_ROW: Final = 1 << 20
MOST_FILES: Final = 10_000
#: How long before a window's start a file may have been written last and hold a row of it.
_STALE: Final = timedelta(hours=1)
_EARLY: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Marks:
    """What is known of a growing file: places, and the latest moment of all rows before each."""

    head: str
    head_bytes: int
    marks: list[tuple[int, datetime]] = field(default_factory=list)

    def start(self, since: datetime) -> int:
        """Return the last place before which no row of the window lies."""
        return max((place for place, latest in self.marks if latest < since), default=0)


class LogSource:
    """Counts requests in log files.

    Args:
        config: Which files, and how their rows are read.
        clock: Gives the moment.
    """

    def __init__(self, config: LogsConfig, clock: Clock = now_utc) -> None:
        self._config, self._clock = config, clock
        self._reader = RowReader(config.rows, needs_ending="images" in config.measures)
        self._marks: dict[tuple[int, int], _Marks] = {}

    @property
    def name(self) -> str:
        """What notes call the source."""
        return self._config.name or "logs"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Count the requests of the window, up to where rows can no longer come late.

        Raises:
            OutcomeError: No file, one that cannot be read, or too many rows that make no sense.
        """
        end = self.complete(since, until)
        if not self._config.concerns(product):
            return nothing(digests, since, end)
        tally = Tally(digests, since, end, product, self._config.rows, self._config.measures)
        for request in self._scan(since, end, tally.bad):
            tally.add(request)
        return tally.outcomes(self.name)

    def inputs_seen(
        self, product: str, since: datetime, until: datetime
    ) -> Mapping[tuple[str, str], int]:
        """Return requests by (subtask, locale), whatever mix served them.

        Raises:
            OutcomeError: As :meth:`read`.
        """
        seen: dict[tuple[str, str], int] = {}
        counted: set[str] = set()
        for request in self.each(product, since, until):
            if request.request_id is not None:
                if request.request_id in counted:
                    continue
                counted.add(request.request_id)
                if len(counted) > MOST_IDS:
                    counted.clear()
            key = (request.text("subtask"), request.text("locale"))
            seen[key] = seen.get(key, 0) + 1
        return seen

    def each(self, product: str, since: datetime, until: datetime) -> Iterator[Request]:
        """Yield the requests of the window as they stand in the files, repeats too.

        Raises:
            OutcomeError: As :meth:`read`; of rows that make no sense, at the end.
        """
        end = self.complete(since, until)
        tally = Tally((), since, end, product, self._config.rows)
        if self._config.concerns(product):
            for request in self._scan(since, end, tally.bad):
                if tally.wants(request):
                    tally.add(request)
                    yield request
        tally.outcomes(self.name)  # Raises when too many rows make no sense.

    def mixes_of(
        self, product: str, request_ids: frozenset[str], since: datetime
    ) -> Mapping[str, str]:
        """Return what requests since a moment call their mix, by request id.

        Raises:
            OutcomeError: As :meth:`read`.
        """
        found: dict[str, str] = {}
        if self._config.concerns(product):
            for request in self._scan(since, self._clock(), lambda _: None):
                if request.request_id in request_ids and request.product in (None, product):
                    found[request.request_id or ""] = request.mix
        return found

    def complete(self, since: datetime, until: datetime) -> datetime:
        """Return how far rows are complete: some are written a while after they happened."""
        return max(since, min(until, self._clock() - timedelta(seconds=self._config.lag_s)))

    def _scan(
        self, since: datetime, until: datetime, bad: Callable[[BadRowError], None]
    ) -> Iterator[Request]:
        """Yield the requests of all files, each file once even if it is rotated meanwhile."""
        seen: set[tuple[int, int]] = set()
        names: set[Path] = set()
        # Listed again until nothing is new: what was rotated meanwhile has another name now.
        while True:
            fresh = False
            for path in self._files():
                try:
                    status = path.stat()
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    fresh = True
                    seen.add((status.st_dev, status.st_ino))
                    if path.suffix == ".gz" and path.with_suffix("") in names:
                        continue  # The same rows, being packed just now.
                    names.add(path)
                    if datetime.fromtimestamp(status.st_mtime, UTC) >= since - _STALE:
                        yield from self._rows(path, since, until, bad)
                except FileNotFoundError:
                    continue
                except (OSError, EOFError, zlib.error) as error:
                    raise OutcomeError(f"{path}: cannot be read: {error}") from None
            if not fresh:
                return

    def _rows(
        self, path: Path, since: datetime, until: datetime, bad: Callable[[BadRowError], None]
    ) -> Iterator[Request]:
        if path.suffix == ".parquet":
            yield from _parquet(path, since, until, self._reader, bad)
        elif path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                yield from self._lines(packed, None, bad)
        else:
            with path.open("rb") as file:
                marks = self._known(file)
                self._seek(file, marks, since)
                file.seek(marks.start(since))
                yield from self._lines(file, marks, bad)

    def _files(self) -> list[Path]:
        pattern = str(self._config.files)
        found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
        files = [path for path in found if path.is_file()]
        if not files:
            raise OutcomeError(
                f"no log file matches {pattern!r}: nobody can tell silence from a lost log"
            )
        if len(files) > MOST_FILES:
            raise OutcomeError(f"{len(files):,} files match {pattern!r} (most: {MOST_FILES:,})")
        return files

    def _known(self, file: BinaryIO) -> _Marks:
        """Return the marks of a file, new ones when it was written anew under the same name."""
        status = os.fstat(file.fileno())
        head = file.read(_HEAD)
        identity = (status.st_dev, status.st_ino)
        known = self._marks.get(identity)
        if known is not None and digest_bytes(head[: known.head_bytes]) == known.head:
            last = max((place for place, _ in known.marks), default=0)
            if last <= status.st_size:
                return known
        fresh = _Marks(digest_bytes(head), len(head))
        self._marks[identity] = fresh
        return fresh

    def _seek(self, file: BinaryIO, marks: _Marks, since: datetime) -> None:
        """Add a mark shortly before the window to a large file whose rows nobody has read yet.

        Rows are nearly in order of time: none comes more than ``disorder_s`` after a later one.
        """
        disorder = timedelta(seconds=self._config.disorder_s)
        low, high = marks.start(since), os.fstat(file.fileno()).st_size
        if high - low < SEEK_FROM:
            return
        found: datetime | None = None
        while high - low > MARK_EVERY:
            middle = (low + high) // 2
            file.seek(middle)
            file.readline(LONGEST_ROW)  # The rest of a row.
            place = file.tell()
            at = self._moment_at(file)
            if at is None or at + disorder >= since or place >= high:
                high = middle
            else:
                low, found = place, at
        if found is not None:
            # All rows before this place lie before its moment, but for the disorder.
            marks.marks.append((low, found + disorder))

    def _moment_at(self, file: BinaryIO) -> datetime | None:
        """Return the moment of the next row that has one, ``None`` when few rows show none."""
        for _ in range(100):
            line = file.readline(LONGEST_ROW)
            if not line:
                return None
            try:
                return self._reader.read(_object(line)).at
            except BadRowError as error:
                if error.at is not None:
                    return error.at
        return None

    def _lines(
        self,
        file: BinaryIO | gzip.GzipFile,
        marks: _Marks | None,
        bad: Callable[[BadRowError], None],
    ) -> Iterator[Request]:
        """Yield the requests of whole lines; a last line without its end is still being written."""
        place = file.tell()
        latest = max((m for p, m in marks.marks if p <= place), default=_EARLY) if marks else _EARLY
        last_mark = place
        while line := file.readline(LONGEST_ROW):
            if not line.endswith(b"\n"):
                if len(line) < LONGEST_ROW:
                    return
                while (more := file.readline(LONGEST_ROW)) and not more.endswith(b"\n"):
                    pass
                bad(BadRowError(f"a row above {LONGEST_ROW:,} bytes", _or_none(latest)))
                continue
            if line.isspace():
                continue
            try:
                request = self._reader.read(_object(line))
            except BadRowError as error:
                # Of a row that says no moment we take the one of its neighbour.
                bad(BadRowError(str(error), error.at or _or_none(latest), error.mix))
                continue
            latest = max(latest, request.at)
            if marks is not None and file.tell() - last_mark >= MARK_EVERY:
                last_mark = file.tell()
                if last_mark > max((p for p, _ in marks.marks), default=0):
                    marks.marks.append((last_mark, latest))
            yield request


def _or_none(latest: datetime) -> datetime | None:
    return None if latest == _EARLY else latest


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRowError("a row that is not JSON") from None
    if not isinstance(value, dict):
        raise BadRowError("a row that is no JSON object")
    return value


def _parquet(
    path: Path,
    since: datetime,
    until: datetime,
    reader: RowReader,
    bad: Callable[[BadRowError], None],
) -> Iterator[Request]:
    """Yield the requests of a Parquet file; row groups that lie outside the window are not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = reader.columns(file.schema_arrow.names)
            times = file.schema_arrow.names.index(wanted[0]) if wanted else -1
            for number in range(file.num_row_groups):
                if _outside(file, number, times, since, until):
                    continue
                for batch in file.iter_batches(row_groups=[number], columns=wanted):
                    for raw in batch.to_pylist():
                        try:
                            yield reader.read(raw)
                        except BadRowError as error:
                            bad(error)
    except pa.ArrowException as error:
        raise OutcomeError(f"{path}: not a whole Parquet file: {error}"[:300]) from None


def _outside(file: Any, number: int, column: int, since: datetime, until: datetime) -> bool:
    """Tell by its statistics that a row group holds no moment of the window."""
    if column < 0 or file.metadata.num_columns != len(file.schema_arrow.names):
        return False
    statistics = file.metadata.row_group(number).column(column).statistics
    if statistics is None or not statistics.has_min_max:
        return False
    least, most = statistics.min, statistics.max
    if not (isinstance(least, datetime) and isinstance(most, datetime)):
        return False
    least, most = (t.replace(tzinfo=UTC) if t.tzinfo is None else t for t in (least, most))
    return bool(most < since - SKEW or least >= until + SKEW)
