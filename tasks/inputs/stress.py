"""The stress set: hard cases written for this gate, as JSON lines in ``datasets/stress``."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from tasks.errors import ConfigError, DataError, known
from tasks.inputs.brands import brand_names
from tasks.inputs.rows import MAX_PROMPT
from tasks.inputs.uploads import upload_problem
from tasks.policy import Strict
from tasks.records import Case, Origin, Subtask


class StressRow(Strict):
    """One line of a stress file; ``datasets/README.md`` says what each field is for."""

    case_id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{2,79}$")
    prompt: str = Field(min_length=1, max_length=MAX_PROMPT)
    subtask: Subtask
    locale: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    width: int = Field(ge=16, le=8192, strict=True)
    height: int = Field(ge=16, le=8192, strict=True)
    expected_text: tuple[Annotated[str, Field(min_length=1, max_length=500)], ...]
    brand: str | None = None
    upload: str | None = None
    mask: str | None = None
    campaign: str | None = Field(default=None, min_length=1, max_length=120)
    repeat: int | None = Field(default=None, ge=0, le=9999, strict=True)
    origin: Literal["stress", "adversarial"]
    expect: Literal["image", "refusal"]
    theme: str = Field(pattern=r"^[a-z][a-z &-]{2,39}$")

    @model_validator(mode="after")
    def _upload_with_edit(self) -> StressRow:
        if (self.subtask == "edit") != (self.upload is not None):
            raise ValueError("an upload goes with subtask 'edit' and only with it")
        if self.mask is not None and self.upload is None:
            raise ValueError("a mask goes with an upload and only with one")
        return self


def load_stress(datasets: Path) -> tuple[Case, ...]:
    """Read every file of the stress set, in the order of their names.

    Raises:
        ConfigError: There is no stress file.
        DataError: A bad line, with file, row and field; or a ``case_id`` that stands twice.
    """
    files = sorted((datasets / "stress").glob("*.jsonl"))
    if not files:
        raise ConfigError(
            f"{datasets / 'stress'}: no *.jsonl file; datasets/make_stress.py writes the stress set"
        )
    brands = brand_names(datasets)
    seen: dict[str, str] = {}
    cases: list[Case] = []
    for path in files:
        for number, line in _lines(path):
            row = _parse(path, number, line)
            if row.case_id in seen:
                raise DataError(
                    path, number, "case_id", f"{row.case_id!r} stands in {seen[row.case_id]} too"
                )
            seen[row.case_id] = f"{path.name}, row {number}"
            if row.brand is not None and row.brand not in brands:
                raise DataError(
                    path, number, "brand", f"no such brand kit: {row.brand!r} {known(brands)}"
                )
            for name, value in (("upload", row.upload), ("mask", row.mask)):
                problem = None if value is None else upload_problem(value, datasets)
                if problem is not None:
                    raise DataError(path, number, name, problem)
            cases.append(Case(**row.model_dump(), stratum=f"{row.theme}/{row.locale}"))
    return tuple(cases)


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, None, None, f"cannot be read as UTF-8: {error}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _parse(path: Path, number: int, line: str) -> StressRow:
    try:
        value = json.loads(line, object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise DataError(path, number, None, f"is not a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise DataError(path, number, None, f"is not a JSON object: {type(value).__name__}")
    try:
        return StressRow.model_validate(value)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        field = ".".join(map(str, item["loc"])) or None
        message = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in ("missing", "value_error") else f", got {item['input']!r:.80}"
        raise DataError(path, number, field, f"{message}{got}") from None


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field stands twice")
    return value


def draw_stress(
    cases: Iterable[Case], wanted: Mapping[Origin, int], seed: int
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Draw cases of each origin, spread over themes first and over locales within a theme.

    Returns:
        The cases, and a note for each origin that has fewer than wanted.
    """
    drawn: list[Case] = []
    notes: list[str] = []
    by_origin: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_origin[case.origin].append(case)
    for origin, count in wanted.items():
        order = _spread(by_origin[origin], seed)
        if len(order) < count:
            notes.append(f"asked for {count} {origin} cases, the stress set holds {len(order)}")
        drawn.extend(order[:count])
    return tuple(drawn), tuple(notes)


def spare_stress(cases: Iterable[Case], drawn: Iterable[Case], seed: int) -> tuple[Case, ...]:
    """Return what :func:`draw_stress` left of the origins that it drew, spread in the same way."""
    taken = {case.case_id: case.origin for case in drawn}
    origins = set(taken.values())
    return tuple(
        _spread((c for c in cases if c.origin in origins and c.case_id not in taken), seed)
    )


def _spread(cases: Iterable[Case], seed: int) -> list[Case]:
    """Return all cases in turns: one of every theme at a time, one of every locale within it."""
    ranked = sorted(cases, key=lambda case: _hash(seed, case.case_id))
    in_locale: dict[tuple[str, str], int] = defaultdict(int)
    by_theme: dict[str, list[tuple[int, str, Case]]] = defaultdict(list)
    for case in ranked:
        turn = in_locale[case.theme, case.locale]
        in_locale[case.theme, case.locale] += 1
        by_theme[case.theme].append((turn, _hash(seed, case.case_id), case))
    turns: list[tuple[int, str, Case]] = []
    for theme, members in by_theme.items():
        members.sort(key=lambda item: item[:2])
        turns.extend(
            (place, _hash(seed, theme), case) for place, (_, _, case) in enumerate(members)
        )
    turns.sort(key=lambda item: item[:2])
    return [case for _, _, case in turns]


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}|{text}".encode()).hexdigest()
