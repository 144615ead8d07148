"""Rows of a production log: their columns, what a value may be, and what is filled in.

Only ``prompt`` is needed. Everything else has a default or is read from the prompt, see
:mod:`tasks.inputs.infer`. A column that is missing, null, NaN or an empty text counts as left out;
an empty *list* of expected texts says that no text is wanted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tasks.errors import ConfigError, DataError, known
from tasks.inputs import infer
from tasks.inputs.brands import brand_names
from tasks.inputs.uploads import upload_problem
from tasks.records import SUBTASKS, Subtask

#: Longest prompt, in characters: the widest limit among the providers known.
MAX_PROMPT = 32_000
#: Limits on expected texts that the log itself names.
MAX_LOG_TEXTS = 16
MAX_LOG_TEXT = 500
DEFAULT_SIZE = 512
DEFAULT_UPSCALED = 1024
#: Longest name of a campaign, and most repeats of one prompt that a row may ask for.
MAX_CAMPAIGN = 120
MAX_REPEATS = 32
_LAST_REPEAT = 9999
#: Problems shown before reading a log stops.
MOST_PROBLEMS = 5

#: Names that a column may have, best first; case, spaces and hyphens do not matter.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "prompts", "prompt_text", "text_prompt", "input_prompt"),
    "expected_text": ("expected_text", "expected_texts", "intended_text", "texts"),
    "request_id": ("request_id", "id", "uuid"),
    "subtask": ("subtask", "task"),
    "locale": ("locale", "language", "lang"),
    "width": ("width",),
    "height": ("height",),
    "size": ("size",),
    "brand": ("brand",),
    "upload": ("upload", "upload_path"),
    "expect": ("expect",),
    "mask": ("mask", "mask_path"),
    "campaign": ("campaign",),
    "repeat": ("repeat",),
    "repeats": ("repeats",),
}
FIELDS: tuple[str, ...] = tuple(COLUMNS)

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}\Z")
_SIZE = re.compile(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*\Z")


class LogRow(NamedTuple):
    """One request of the log, complete and checked."""

    prompt: str
    subtask: Subtask
    locale: str
    width: int
    height: int
    expected_text: tuple[str, ...]
    brand: str | None
    upload: str | None
    expect: str
    #: What tells two requests for the same picture apart; not part of the picture.
    request_id: str | None = None
    #: Which part of the upload may change.
    mask: str | None = None
    #: The set of pictures that it belongs to.
    campaign: str | None = None
    #: Number of this repeat of the prompt.
    repeat: int | None = None
    #: How many repeats the row asks for; :func:`read_rows` makes a row of each.
    repeats: int | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    row: int | None
    field: str | None
    problem: str


#: Number of the row as a person counts it, and its values in the order of ``FIELDS``.
RawRow = tuple[int, Sequence[object]]


class _Bad(Exception):  # noqa: N818 - control flow inside this module, never seen outside
    def __init__(self, field_: str, problem: str) -> None:
        self.field, self.problem = field_, problem
        super().__init__(problem)


def map_columns(names: Sequence[object], source: str) -> list[int | None]:
    """Return for each of ``FIELDS`` the position of its column, ``None`` without one.

    Raises:
        ConfigError: There is no prompt column, or one name stands twice.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        key = re.sub(r"[\s\-]+", "_", str(name).strip()).casefold()
        if key in places and any(key in aliases for aliases in COLUMNS.values()):
            raise ConfigError(f"{source}: column {name!r} stands twice; rename one of them")
        places.setdefault(key, place)
    found = [
        next((places[alias] for alias in aliases if alias in places), None)
        for aliases in COLUMNS.values()
    ]
    if found[0] is None:
        columns = [str(name)[:40] for name in names]
        raise ConfigError(
            f"{source}: has no column 'prompt' (columns found: {', '.join(columns[:20]) or 'none'})"
            f"; a log needs a column named {', '.join(map(repr, COLUMNS['prompt']))}; the others "
            f"are optional: {', '.join(FIELDS[1:])}"
        )
    return found


class _Details(NamedTuple):
    """The short fields of a row, checked; ``None`` where the row leaves them out."""

    subtask: Subtask | None
    locale: str | None
    size: tuple[int, int] | None
    brand: str | None
    upload: str | None
    expect: str
    mask: str | None
    campaign: str | None
    repeat: int | None
    repeats: int | None


@dataclass
class RowReader:
    """Checks raw rows and fills in what they leave out.

    Args:
        datasets: Folder of the brand kits and uploads that rows may name.
    """

    datasets: Path
    _brands: tuple[str, ...] = field(init=False)
    _known: dict[tuple[object, ...], _Details] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._brands = brand_names(self.datasets)

    def read(self, raw: RawRow) -> LogRow | BadRow:
        """Return the row, or what is wrong with it."""
        number, values = raw
        try:
            return self._row(values)
        except _Bad as bad:
            return BadRow(number, bad.field, bad.problem)

    def _row(self, values: Sequence[object]) -> LogRow:
        prompt = _prompt(values[0])
        texts = _texts(values[1])
        if texts is None:
            texts = infer.expected_text(prompt)
        request = values[2]
        details = self._details(tuple(values[3:]))
        subtask = details.subtask or infer.subtask(prompt, texts, details.upload)
        if (subtask == "edit") != (details.upload is not None):
            raise _Bad("upload", f"goes with subtask 'edit' and only with it, got {subtask!r}")
        side = DEFAULT_UPSCALED if subtask == "upscale" else DEFAULT_SIZE
        width, height = details.size or (side, side)
        return LogRow(
            prompt,
            subtask,
            details.locale or infer.locale(prompt, texts),
            width,
            height,
            texts,
            details.brand,
            details.upload,
            details.expect,
            None if request is None or request == "" else str(request)[:200],
            details.mask,
            details.campaign,
            details.repeat,
            details.repeats,
        )

    def _details(self, values: tuple[object, ...]) -> _Details:
        """Return the short fields; their few combinations are remembered, a log has millions."""
        try:
            found = self._known.get(values)
        except TypeError:
            # A list or an object where a text belongs; the checks say so.
            return self._check(values)
        if found is None:
            found = self._check(values)
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[values] = found
        return found

    def _check(self, values: tuple[object, ...]) -> _Details:
        subtask, locale, width, height, size, brand, upload, expect, *grouping = values
        expected = _text("expect", expect) or "image"
        if expected not in ("image", "refusal"):
            raise _Bad("expect", f"must be 'image' or 'refusal', got {expected[:40]!r}")
        mask, campaign, repeat, repeats = grouping
        numbers = _repeats(repeat, repeats)
        picture = self._picture("upload", _text("upload", upload))
        area = self._picture("mask", _text("mask", mask))
        if area is not None and picture is None:
            raise _Bad("mask", "goes with an upload and only with one")
        return _Details(
            _subtask(_text("subtask", subtask)),
            _locale(_text("locale", locale)),
            _size(width, height, _text("size", size)),
            self._brand(_text("brand", brand)),
            picture,
            expected,
            area,
            _campaign(campaign),
            *numbers,
        )

    def _brand(self, name: str | None) -> str | None:
        if name is not None and name not in self._brands:
            raise _Bad("brand", f"no such brand kit: {name[:60]!r} {known(self._brands)}")
        return name

    def _picture(self, name: str, value: str | None) -> str | None:
        problem = None if value is None else upload_problem(value, self.datasets)
        if problem is not None:
            raise _Bad(name, problem)
        return value


def read_rows(raw: Iterable[RawRow | BadRow], reader: RowReader, source: str) -> Iterator[LogRow]:
    """Yield the checked rows of a log; of one that asks for repeats, one for each.

    Raises:
        DataError: At the fifth bad row, or at the end of the log when there was any: a sample of
            what could be read would look complete and not be.
    """
    problems: list[BadRow] = []
    for item in raw:
        row = item if isinstance(item, BadRow) else reader.read(item)
        if isinstance(row, BadRow):
            problems.append(row)
            if len(problems) >= MOST_PROBLEMS:
                break
        elif not problems:
            yield from repeated(row)
    if problems:
        first, *others = problems
        more = "".join(
            f"\n  also row {bad.row}, field {bad.field!r}: {bad.problem}" for bad in others
        )
        raise DataError(source, first.row, first.field, first.problem + more)


def repeated(row: LogRow) -> Iterator[LogRow]:
    """Yield the row, or each of the repeats that it asks for, numbered from 1."""
    if row.repeats is None:
        yield row
        return
    for number in range(1, row.repeats + 1):
        yield row._replace(repeat=number, repeats=None)


def _missing(value: object) -> bool:
    # Exports of data frames write NaN where there is nothing.
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _text(name: str, value: object) -> str | None:
    if value is None or _missing(value):
        return None
    if not isinstance(value, str):
        raise _Bad(name, f"must be text, got {type(value).__name__}")
    return value.strip() or None


def clean(text: str) -> str:
    """Return the text with lone surrogates replaced by U+FFFD.

    They come from JSON escapes, have no UTF-8 form and would break requests and evidence; every
    browser makes the same replacement. All other characters, control characters too, stay.
    """
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _prompt(value: object) -> str:
    if _missing(value):
        raise _Bad("prompt", "is missing; every row needs one")
    if not isinstance(value, str):
        raise _Bad("prompt", f"must be text, got {type(value).__name__}")
    if len(value) > MAX_PROMPT:
        raise _Bad("prompt", f"has {len(value):,} characters, at most {MAX_PROMPT:,} are allowed")
    if value.isspace():
        raise _Bad("prompt", "is blank; every row needs a prompt")
    return clean(value)


def _texts(value: object) -> tuple[str, ...] | None:
    """Return the texts that a row names, ``None`` when it leaves them out."""
    if _missing(value):
        return None
    if isinstance(value, str):
        value = _split_texts(value)
    if not isinstance(value, Sequence):
        raise _Bad("expected_text", f"must be a list of texts, got {type(value).__name__}")
    if len(value) > MAX_LOG_TEXTS:
        raise _Bad("expected_text", f"has {len(value)} texts, at most {MAX_LOG_TEXTS} are allowed")
    for text in value:
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_LOG_TEXT:
            raise _Bad(
                "expected_text",
                f"each must be 1 to {MAX_LOG_TEXT} characters of text, got {str(text)[:40]!r}",
            )
    return tuple(clean(text) for text in value)


def _split_texts(value: str) -> object:
    """Return the list in a text: JSON when it looks like a list, else split at ``|``."""
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return [part.strip() for part in value.split("|")]


def _locale(value: str | None) -> str | None:
    if value is None:
        return None
    if not _LOCALE.match(value):
        raise _Bad("locale", f"must be a language tag such as 'de' or 'zh-TW', got {value[:40]!r}")
    language, *rest = value.replace("_", "-").split("-")
    return "-".join([language.lower(), *rest])


def _subtask(value: str | None) -> Subtask | None:
    if value is None or value in SUBTASKS:
        return value
    raise _Bad("subtask", f"must be one of {', '.join(SUBTASKS)}, got {value[:40]!r}")


def _campaign(value: object) -> str | None:
    # Exports write names that are numbers as numbers.
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    name = _text("campaign", value)
    if name is not None and len(name) > MAX_CAMPAIGN:
        raise _Bad("campaign", f"has {len(name)} characters, at most {MAX_CAMPAIGN} are allowed")
    return None if name is None else clean(name)


def _repeats(repeat: object, repeats: object) -> tuple[int | None, int | None]:
    """Return the number of this repeat, and how many are asked for."""
    one = _whole("repeat", repeat, 0, _LAST_REPEAT)
    many = _whole("repeats", repeats, 1, MAX_REPEATS)
    if one is not None and many is not None:
        raise _Bad("repeat", "says which repeat this is, 'repeats' asks for several; name one")
    return one, many


def _whole(name: str, value: object, least: int, most: int) -> int | None:
    if _missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    number = _number(value)
    if number is None or not least <= number <= most:
        raise _Bad(name, f"must be a whole number from {least} to {most}, got {value!r:.40}")
    return number


def _size(width: object, height: object, size: str | None) -> tuple[int, int] | None:
    if _missing(width) and _missing(height):
        if size is None:
            return None
        match = _SIZE.match(size)
        if match is None:
            raise _Bad("size", f"must read WIDTHxHEIGHT, got {size[:40]!r}")
        width, height = match.groups()
    return _pixels("width", width), _pixels("height", height)


def _pixels(name: str, value: object) -> int:
    pixels = _number(value)
    if pixels is None or not 16 <= pixels <= 8192:
        raise _Bad(name, f"must be a whole number of pixels from 16 to 8192, got {value!r:.40}")
    return pixels


def _number(value: object) -> int | None:
    """Return a whole number, also one written as text or as a float; ``None`` for all else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,5}(\.0+)?\s*", value):
        return int(float(value))
    return None
