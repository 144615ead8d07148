"""Small files that a source keeps beside the state: lines of JSON, a file a day, one writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from filelock import FileLock, Timeout

from tasks.rollout.outcomes.base import OutcomeError

#: How long files of days are kept, and how long another process may hold a lock.
KEPT: Final = timedelta(days=14)
_LOCK_S: Final = 10.0


def file_name(text: str) -> str:
    """Return a text as the name of a file: a product's name cannot leave the folder."""
    return quote(text, safe="").replace(".", "%2E")


@contextmanager
def locked(path: Path, timeout_s: float = _LOCK_S) -> Iterator[None]:
    """Hold a lock between processes; the folder is made.

    Raises:
        OutcomeError: Another process holds it for too long, or the folder cannot be written.
    """
    lock = FileLock(path, timeout=timeout_s)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutcomeError(f"{path}: another process has held it for {timeout_s:.0f} s") from None
    except OSError as error:
        raise OutcomeError(f"{path}: cannot be written: {error}") from None
    try:
        yield
    finally:
        lock.release()


def append(path: Path, *rows: Any) -> None:
    """Add lines, durably; half a line that a crash left stays a line of its own.

    Raises:
        OutcomeError: The disk does not take them.
    """
    text = "".join(f"{json.dumps(row, separators=(',', ':'))}\n" for row in rows)
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutcomeError(f"{path}: cannot be written: {error}") from None


def lines(path: Path) -> list[Any]:
    """Return the lines of a file, without those that a crash left half.

    Raises:
        OutcomeError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise OutcomeError(f"{path}: cannot be read: {error}") from None
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return found


class DayFiles:
    """Rows in a folder, a file a day; files of long ago are removed.

    Args:
        folder: The folder; made when it is locked.
        name: What the files begin with.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self._name = folder, file_name(name)

    @contextmanager
    def lock(self, timeout_s: float = _LOCK_S) -> Iterator[None]:
        """Hold the lock under which rows are added.

        Raises:
            OutcomeError: See :func:`locked`.
        """
        with locked(self.folder / f"{self._name}.lock", timeout_s):
            yield

    def add(self, at: datetime, row: Mapping[str, Any]) -> None:
        """Add a row to the file of its day; the caller holds the lock.

        Raises:
            OutcomeError: The disk does not take it.
        """
        day = at.astimezone(UTC).date()
        path = self.folder / f"{self._name}-{day.isoformat()}.jsonl"
        fresh = not path.exists()
        append(path, row)
        for old, gone in self._days() if fresh else ():
            if old < day - KEPT:
                gone.unlink(missing_ok=True)

    def rows(self, since: datetime) -> list[dict[str, Any]]:
        """Return the rows from the day of a moment on.

        Raises:
            OutcomeError: They cannot be read.
        """
        first = since.astimezone(UTC).date()
        found = []
        for day, path in self._days():
            if day >= first:
                found += [row for row in lines(path) if isinstance(row, dict)]
        return found

    def _days(self) -> list[tuple[date, Path]]:
        found = []
        for path in sorted(self.folder.glob(f"{self._name}-*.jsonl")):
            try:
                found.append((date.fromisoformat(path.stem.removeprefix(f"{self._name}-")), path))
            except ValueError:
                continue
        return found
