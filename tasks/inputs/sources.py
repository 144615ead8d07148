"""Production logs as streams of rows: CSV, TSV, JSONL, Parquet, plain text, SQL.

``--inputs`` is a path, by its suffix:

- ``.txt``: one prompt a line, blank lines skipped;
- ``.csv``: with a header, quoted as spreadsheets do, ``,`` ``;`` or tab between fields;
- ``.tsv``: with a header, tabs between fields; quotes are part of the text, save in a field that
  was plainly written by a CSV writer (``"say ""hi"" twice"``), and no field holds a line break;
- ``.jsonl``, ``.ndjson``: one JSON object a line;
- ``.parquet``, ``.pq``;

or ``URL::SELECT …``, an SQLAlchemy URL and one reading query, see :mod:`tasks.inputs.sql`.

Text is UTF-8, a byte order mark is dropped, lines end in LF or CRLF. Nothing is ever held but one
line or batch, and a line has at most 4 MiB, so a file without line ends fills no memory either.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from tasks.errors import ConfigError, DataError
from tasks.inputs.log import BATCH, LogSource
from tasks.inputs.rows import FIELDS, BadRow, RawRow, map_columns

MAX_LINE = 4 * 1024 * 1024

# How ``surrogateescape`` shows bytes that are not UTF-8.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_PROMPT_ONLY = (None,) * (len(FIELDS) - 1)


def open_log(inputs: str) -> LogSource:
    """Return the log that ``--inputs`` names; reading starts with the first row asked for.

    Raises:
        ConfigError: No such file, a kind of file that is not read, or a bad SQL source.
    """
    if "://" in inputs.partition("::")[0]:
        from tasks.inputs.sql import open_sql

        return open_sql(inputs)
    path = Path(inputs).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"--inputs {inputs}: cannot tell what kind of log this is (known: "
            f"{', '.join(_READERS)}, or a database as 'URL::SELECT …')"
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise ConfigError(f"--inputs {inputs}: {what}")
    return LogSource(str(inputs), lambda: _guarded(reader, path))


def _guarded(
    reader: Callable[[Path], Iterator[RawRow | BadRow]], path: Path
) -> Iterator[RawRow | BadRow]:
    try:
        yield from reader(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


class _Lines:
    """The lines of a text file, decoded, each at most ``MAX_LINE`` bytes."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.number = 0
        #: True when a line since the last reset was not UTF-8.
        self.broken = False

    def __iter__(self) -> Iterator[str]:
        while line := self.file.readline(MAX_LINE + 1):
            self.number += 1
            if len(line) > MAX_LINE:
                raise DataError(
                    self.path, self.number, None, f"the line is longer than {MAX_LINE:,} bytes"
                )
            if self.number == 1:
                line = self._without_mark(line)
            text = line.decode("utf-8", "surrogateescape")
            if not text.isascii() and _NOT_UTF8.search(text):
                self.broken = True
            yield text

    def _without_mark(self, line: bytes) -> bytes:
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ConfigError(f"{self.path}: is UTF-16; save it as UTF-8")
        return line.removeprefix(b"\xef\xbb\xbf")


def _read_txt(path: Path) -> Iterator[RawRow | BadRow]:
    with path.open("rb") as file:
        lines = _Lines(file, path)
        for line in lines:
            prompt = line.rstrip("\r\n")
            if not prompt or prompt.isspace():
                continue
            if lines.broken:
                lines.broken = False
                yield BadRow(lines.number, "prompt", "is not valid UTF-8")
            else:
                yield lines.number, (prompt, *_PROMPT_ONLY)


def _read_csv(path: Path) -> Iterator[RawRow | BadRow]:
    with path.open("rb") as file:
        lines = _Lines(file, path)
        stream = iter(lines)
        header = next((line for line in stream if line.strip()), None)
        if header is None:
            return
        separator = _separator(header, path)
        # Tab-separated files have no quoting of their own, and prompts often begin with a quote.
        tabs = separator == "\t"
        quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        try:
            names = next(csv.reader([header], delimiter=separator))
        except csv.Error as error:
            raise ConfigError(f"{path}: the header is not CSV: {error}") from None
        places = map_columns(names, str(path))
        # The header is row 1, as in a spreadsheet; a text with line breaks is still one row.
        number = 1
        records = csv.reader(stream, delimiter=separator, quoting=quoting, strict=True)
        lines.broken = False
        while True:
            try:
                record = next(records, None)
            except csv.Error as error:
                # After this the reader may stand inside a text, so the rest cannot be trusted.
                yield BadRow(number + 1, None, _csv_problem(error))
                return
            if record is None:
                return
            number += 1
            if not record:
                continue
            if lines.broken:
                lines.broken = False
                yield BadRow(number, None, "is not valid UTF-8")
            elif len(record) != len(names):
                yield BadRow(number, None, f"has {len(record)} fields, the header has {len(names)}")
            else:
                if tabs:
                    record = [_unquoted(field) for field in record]
                yield number, [None if place is None else record[place] for place in places]


def _unquoted(field: str) -> str:
    """Return a field of a tab-separated file without the quoting that a CSV writer put on it."""
    inner = field[1:-1]
    if len(field) > 3 and field[0] == field[-1] == '"' and '""' in inner:
        plain = inner.replace('""', "")
        if '"' not in plain:
            return inner.replace('""', '"')
    return field


def _separator(header: str, path: Path) -> str:
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    # Spreadsheets of many countries write ; into a .csv file.
    return max((usual, ",", ";", "\t"), key=lambda c: (header.count(c), c == usual))


def _csv_problem(error: csv.Error) -> str:
    if "field limit" in str(error):
        return (
            f"a field is longer than {csv.field_size_limit():,} characters, or a double quote that "
            "opens a text is never closed"
        )
    return (
        f"is not CSV: {error}; a text that begins with a double quote must stand in double quotes "
        'with each quote inside doubled ("")'
    )


def _read_jsonl(path: Path) -> Iterator[RawRow | BadRow]:
    layouts: dict[tuple[str, ...], list[int | None]] = {}
    with path.open("rb") as file:
        lines = _Lines(file, path)
        for line in lines:
            if not line.strip():
                continue
            if lines.broken:
                lines.broken = False
                yield BadRow(lines.number, None, "is not valid UTF-8")
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield BadRow(lines.number, None, f"is not JSON: {str(error)[:120]}")
                continue
            if not isinstance(value, dict):
                kind = type(value).__name__
                yield BadRow(lines.number, None, f"must be a JSON object, got {kind}")
                continue
            names = tuple(value)
            places = layouts.get(names)
            if places is None:
                try:
                    places = map_columns(names, str(path))
                except ConfigError:
                    if not layouts:
                        raise
                    yield BadRow(lines.number, "prompt", "is missing; every row needs one")
                    continue
                if len(layouts) < 1024:
                    layouts[names] = places
            values = list(value.values())
            yield lines.number, [None if place is None else values[place] for place in places]


def _read_parquet(path: Path) -> Iterator[RawRow | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = 0
    try:
        with path.open("rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            names = file.schema_arrow.names
            places = map_columns(names, str(path))
            wanted = [names[place] for place in places if place is not None]
            empty = [None] * BATCH
            for batch in file.iter_batches(batch_size=BATCH, columns=wanted, use_threads=False):
                columns = [
                    empty if place is None else batch.column(names[place]).to_pylist()
                    for place in places
                ]
                # A column that the log lacks is longer than a short last batch.
                yield from enumerate(zip(*columns, strict=False), start=done + 1)
                done += batch.num_rows
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # The system says why; Arrow's own OSErrors mean damaged bytes.
        problem = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(
            path, None, None, f"is not a sound Parquet file, stopped after row {done:,}: {problem}"
        ) from None


_READERS: dict[str, Callable[[Path], Iterator[RawRow | BadRow]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
}
