"""Which pictures to check and what each should be: paths given directly, or a manifest.

A manifest is CSV (with a header) or JSONL. ``file`` is needed, relative to the manifest's folder;
``id``, ``intended_text`` (strings separated by ``|``), ``language``, ``width``, ``height``,
``aspect`` (``16:9`` or ``1.78``), ``brand``, ``subtask``, ``mime`` and ``prompt`` may follow;
``upload``, ``mask`` and ``source``, files that the picture is judged against; ``campaign`` and
``repeat``, for pictures that are judged together; and what people say of it, see
:mod:`tasks.checks.truth`. Other columns are ignored; one that looks like a misspelt one is told.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.check_rules import ConsistencyRules
from tasks.checks.base import Expected, Role
from tasks.checks.truth import COLUMNS as TRUTH_COLUMNS
from tasks.checks.truth import Truth, truth_of
from tasks.errors import ConfigError, DataError, known
from tasks.inputs.brands import brand_names
from tasks.records import SUBTASKS, Case, Finding, ImageReport

#: File names that count as pictures when a folder is given.
EXTENSIONS = frozenset(
    f".{end}" for end in ("png", "jpg", "jpeg", "webp", "gif", "avif", "bmp", "tif", "tiff", "jp2")
)
#: Columns that name files which a picture is judged against.
ROLES: tuple[Role, ...] = ("upload", "mask", "source")
#: Columns that mean something; all others are the user's own.
COLUMNS = (
    "file", "id", "intended_text", "language", "width", "height", "aspect", "brand", "subtask",
    "mime", "prompt", *ROLES, "campaign", "repeat",
    *(column for column, _ in TRUTH_COLUMNS), "level", "strict",
)  # fmt: skip
#: From this likeness on, and up to so many letters more or less, a column is taken for a slip.
_SLIP, _SLIP_LETTERS = 0.8, 2
MAX_SIDE = 100_000
MAX_TEXTS = 64
_RATIO = re.compile(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*[:/x×]\s*(\d{1,5}(?:\.\d{1,6})?)\s*\Z")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8}){0,3}\Z")
#: Missing files that an error names.
_MOST = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture to check."""

    id: str
    #: As the manifest or the command line names it.
    file: str
    path: Path
    expected: Expected
    #: What the picture is judged against.
    references: Mapping[Role, Path] = field(default_factory=dict)
    campaign: str | None = None
    repeat: int | None = None
    #: What a person says of it.
    truth: Truth | None = None

    @property
    def in_group(self) -> bool:
        """Whether the picture is judged together with others of the manifest."""
        return self.campaign is not None or self.repeat is not None


def from_paths(paths: Iterable[Path]) -> list[Entry]:
    """Return the pictures at the paths; folders give the pictures in them, sorted, at any depth.

    Raises:
        DataError: A path does not exist, or a folder holds no picture.
    """
    entries: list[Entry] = []
    for path in paths:
        if _is_dir(path):
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and _is_file(p)
            )
            if not inside:
                raise DataError(path, None, None, "the folder holds no picture " + _extensions())
            entries += [Entry(str(p), str(p), p, Expected()) for p in inside]
        elif _is_file(path):
            entries.append(Entry(str(path), str(path), path, Expected()))
        else:
            raise DataError(path, None, None, "no such file or folder")
    return entries


def _is_file(path: Path) -> bool:
    """Say whether there is such a file; none has a name that the system does not take."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _extensions() -> str:
    return known(EXTENSIONS, 99)


def with_text(entries: Iterable[Entry], text: Sequence[str], language: str) -> list[Entry]:
    """Return the pictures with the text that must stand in each.

    Raises:
        ConfigError: A blank text, too many, or the language is no tag.
    """
    found = tuple(text)
    if not all(part.strip() for part in found):
        raise ConfigError(
            "--text is blank: nothing would be looked for; give the text, or leave the flag out"
        )
    if len(found) > MAX_TEXTS or not _LANGUAGE.match(language):
        raise ConfigError(
            f"--text and --language: at most {MAX_TEXTS} texts and a tag such as 'en' or 'pt-BR', "
            f"got {len(found)} and {language[:40]!r}"
        )
    tag = language.replace("_", "-")
    return [
        replace(one, expected=replace(one.expected, intended_text=found, language=tag))
        for one in entries
    ]


def together(
    pairs: Sequence[tuple[Entry, ImageReport]], rules: ConsistencyRules
) -> list[tuple[Finding, ...]]:
    """Return what is found on pictures of a manifest that are judged together, in their order.

    Near-duplicates are looked for among pictures whose prompt is known. There is no baseline, so
    repeats are held to the others of their prompt.

    Args:
        pairs: All pictures of the manifest with their reports.
        rules: Tolerances.
    """
    from tasks.checks.groups import OTHERS, judge_groups, repeat_norm

    members = [
        (_case(entry, number), report if entry.expected.prompt else _unmarked(report))
        for number, (entry, report) in enumerate(pairs)
    ]
    norm = OTHERS if rules.repeat_palette is None else repeat_norm([], rules)
    found = judge_groups(members, rules, norm)
    return [found.get(case.case_id, ()) for case, _ in members]


def _unmarked(report: ImageReport) -> ImageReport:
    return report.model_copy(update={"fingerprint": None})


def _case(entry: Entry, number: int) -> Case:
    """Return the case that a picture would be of; its id names row and picture."""
    return Case(
        case_id=f"{number + 1}: {entry.id}",
        prompt=entry.expected.prompt or "",
        subtask="edit" if "upload" in entry.references else "creative",
        campaign=entry.campaign,
        repeat=entry.repeat,
    )


def read_manifest(
    path: Path, datasets: Path, warn: Callable[[str], None] = lambda _: None
) -> list[Entry]:
    """Read a manifest.

    Args:
        path: CSV, or JSONL when the name ends in ``.jsonl`` or ``.ndjson``.
        datasets: Folder that holds ``brands/``.
        warn: Called with a sentence for each column that looks like a misspelt one.

    Raises:
        DataError: With file, row and field; or the files that are missing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(path, None, None, "no such file") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(path, None, None, f"cannot be read: {why}") from None
    except UnicodeDecodeError as error:
        raise DataError(path, None, None, f"cannot be read as UTF-8 text: {error}") from None
    lines = _jsonl(text, path) if path.suffix.lower() in {".jsonl", ".ndjson"} else _csv(text, path)
    rows = list(lines)
    for told in _slips(rows):
        warn(f"{path}: {told}")
    brands = brand_names(datasets)
    entries = [_entry(row, number, path, brands) for number, row in rows]
    if not entries:
        raise DataError(path, None, None, "the manifest holds no picture")
    _each_once(rows, path)
    _all_there(entries, path)
    return entries


def _slips(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[str]:
    """Yield a sentence for each column that is nearly one that means something."""
    for name in dict.fromkeys(column for _, row in rows for column in row):
        plain = name.strip().lower().replace(" ", "_").replace("-", "_")
        near = difflib.get_close_matches(plain, COLUMNS, 1, _SLIP)
        if name not in COLUMNS and near and abs(len(plain) - len(near[0])) <= _SLIP_LETTERS:
            yield f"the column {name!r} is ignored; did you mean {near[0]!r}?"


def _each_once(rows: Sequence[tuple[int, Mapping[str, Any]]], path: Path) -> None:
    """Pass when every id that is given names one row.

    Raises:
        DataError: Two rows have the same: what is said of one could be of either.
    """
    first: dict[str, int] = {}
    for number, row in rows:
        name = "" if row.get("id") is None else str(row["id"]).strip()
        if name and first.setdefault(name, number) != number:
            raise DataError(
                path, number, "id", f"{name!r:.60} is the id of row {first[name]} already"
            )


def _csv(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the line on which each row begins, and the row."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if "file" not in header:
            raise DataError(path, 1, "file", f"the header lacks this column; it has {header[:20]}")
        twice = sorted({name for name in header if name and header.count(name) > 1})
        if twice:
            raise DataError(path, 1, twice[0], "the header names this column twice")
        began = reader.line_num + 1
        for cells in reader:
            number, began = began, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    path, number, None, f"{len(cells)} cells, the header has {len(header)}"
                )
            yield number, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(path, reader.line_num, None, f"not valid CSV: {error}") from None


def _jsonl(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Not splitlines: JSON strings may hold U+2028 and its kin.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(path, number, None, f"not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(path, number, None, f"expected an object, got {type(row).__name__}")
        yield number, row


def _entry(row: Mapping[str, Any], number: int, path: Path, brands: Sequence[str]) -> Entry:
    def text(field: str) -> str | None:
        value = row.get(field)
        if value is None:
            return None
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise DataError(path, number, field, f"expected text, got {value!r:.60}")
        return str(value).strip() or None

    file = text("file")
    if file is None or "\0" in file:
        raise DataError(path, number, "file", "expected the path of a picture, got nothing")
    brand, subtask = text("brand"), text("subtask")
    if brand is not None and brand not in brands:
        raise DataError(path, number, "brand", f"{brand!r} has no brand kit {known(brands)}")
    if subtask is not None and subtask not in SUBTASKS:
        raise DataError(path, number, "subtask", f"{subtask!r} is unknown {known(SUBTASKS)}")
    campaign, repeat = text("campaign"), _repeat(text("repeat"), number, path)
    if repeat is not None and text("prompt") is None:
        raise DataError(path, number, "prompt", "is missing; repeats are of one prompt")
    try:
        truth = truth_of(text)
    except ValueError as error:
        column, _, why = str(error).partition(":")
        raise DataError(path, number, column, why) from None
    expected = Expected(
        intended_text=_strings(row.get("intended_text"), number, path),
        language=_language(text("language"), number, path),
        width=_side(text("width"), "width", number, path),
        height=_side(text("height"), "height", number, path),
        aspect=_aspect(text("aspect"), number, path),
        brand=brand,
        subtask=subtask,
        declared_mime=text("mime"),
        prompt=text("prompt"),
        grouped=campaign is not None or repeat is not None,
    )
    references: dict[Role, Path] = {}
    for role in ROLES:
        name = text(role)
        if name is not None:
            references[role] = _beside(path, name, role, number)
    if "mask" in references and "upload" not in references:
        raise DataError(path, number, "mask", "goes with an upload and only with one")
    return Entry(
        text("id") or file,
        file,
        path.parent / file,
        expected,
        references,
        campaign,
        repeat,
        truth,
    )


def _beside(path: Path, name: str, role: str, number: int) -> Path:
    if "\0" in name or not _is_file(path.parent / name):
        raise DataError(path, number, role, f"no such file beside the manifest: {name[:120]!r}")
    return path.parent / name


def _repeat(value: str | None, number: int, path: Path) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}(\.0+)?", value):
        raise DataError(
            path, number, "repeat", f"expected a whole number from 0 to 9999, got {value!r:.60}"
        )
    return int(float(value))


def _strings(value: Any, number: int, path: Path) -> tuple[str, ...]:
    """Return the strings of ``intended_text``: a text with ``|`` between them, or a list."""
    parts = value.split("|") if isinstance(value, str) else [] if value is None else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise DataError(
            path, number, "intended_text", f"expected strings separated by '|', got {value!r:.60}"
        )
    found = tuple(part.strip() for part in parts if part.strip())
    if not found and (any(parts) if isinstance(value, list) else str(value or "").strip()):
        raise DataError(
            path, number, "intended_text",
            f"{value!r:.60} holds no text: nothing would be looked for; give the text, or nothing "
            "at all where none is asked for",
        )  # fmt: skip
    if len(found) > MAX_TEXTS:
        raise DataError(
            path, number, "intended_text", f"{len(found)} strings; at most {MAX_TEXTS} are allowed"
        )
    return found


def _language(value: str | None, number: int, path: Path) -> str:
    if value is None or value == "-":
        return "und"
    if not _LANGUAGE.match(value):
        raise DataError(
            path, number, "language", f"expected a tag such as 'en' or 'pt-BR', got {value!r:.60}"
        )
    return value.replace("_", "-")


def _side(value: str | None, field: str, number: int, path: Path) -> int | None:
    if value is None:
        return None
    try:
        side = float(value)
    except ValueError:
        side = math.nan
    if not (1 <= side <= MAX_SIDE and side == int(side)):
        raise DataError(
            path, number, field, f"expected whole pixels from 1 to {MAX_SIDE}, got {value!r:.60}"
        )
    return int(side)


def _aspect(value: str | None, number: int, path: Path) -> float | None:
    if value is None:
        return None
    match = _RATIO.match(value)
    try:
        ratio = float(match[1]) / float(match[2]) if match else float(value)
    except (ValueError, ZeroDivisionError):
        ratio = math.nan
    if not 0.01 <= ratio <= 100:
        raise DataError(
            path, number, "aspect", f"expected '16:9' or '1.78' (0.01 to 100), got {value!r:.60}"
        )
    return ratio


def _all_there(entries: Sequence[Entry], path: Path) -> None:
    missing = [entry.file for entry in entries if not _is_file(entry.path)]
    if missing:
        more = f" and {len(missing) - _MOST} more" if len(missing) > _MOST else ""
        shown = ", ".join(f"{name[:120]!r}" for name in missing[:_MOST])
        raise DataError(
            path, None, "file", f"{len(missing)} of {len(entries)} files are missing: {shown}{more}"
        )
