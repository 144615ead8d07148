"""A log as every reader gives it: where it is, and its rows as often as they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasks.inputs.rows import BadRow, RawRow

#: Rows that are read at a time from Parquet and databases.
BATCH = 4096


@dataclass(frozen=True)
class LogSource:
    """A log that can be read once more with every call of ``rows``."""

    #: Where the log is, without secrets.
    description: str
    rows: Callable[[], Iterator[RawRow | BadRow]]
