"""Requests of a production log, one row each: what a row may say.

A row names the moment at which a request ended, the mix that served it and how it ended. The same
rows come from JSONL, Parquet and databases; :mod:`tasks.rollout.outcomes.tally` counts them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import Field, field_validator

from tasks.errors import known
from tasks.policy import Strict

#: Names that a field may have, best first; a configuration may name another.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "time": ("time", "ended_at", "timestamp", "ts", "@timestamp"),
    "product": ("product",),
    "mix": ("mix_digest", "mix"),
    "request_id": ("request_id", "id"),
    "ok": ("ok", "success"),
    "failure": ("failure", "failure_class", "error_class"),
    "status": ("status", "status_code", "http_status"),
    "latency_ms": ("latency_ms", "duration_ms"),
    "cost_microusd": ("cost_microusd",),
    "image": ("image", "image_url", "image_path"),
    "subtask": ("subtask", "task"),
    "locale": ("locale", "language", "lang"),
    "prompt": ("prompt",),
    "expected_text": ("expected_text",),
    "width": ("width",),
    "height": ("height",),
}
#: Longest latency that is believed, and largest cost of one image: a day, and 1,000 dollars.
MOST_LATENCY_MS: Final = 86_400_000
MOST_COST: Final = 1_000_000_000
#: Characters of a digest that name it as well as all 64 do.
SHORTEST_DIGEST: Final = 12
#: Sets of keys that are remembered.
_MOST_PLANS: Final = 1_000
_NO_FAILURE = frozenset({"", "ok", "none", "null", "success"})
_YES, _NO = frozenset({"true", "1", "yes", "ok"}), frozenset({"false", "0", "no"})
#: How far ahead of ours another machine's clock may run.
SKEW: Final = timedelta(minutes=5)
_HEX = re.compile(r"(?:sha256[:_-])?([0-9a-f]{12,64})\Z")


class RowRules(Strict):
    """How rows are read: other names of fields, and which endings count."""

    #: Other names by field, e.g. ``{"mix": "variant"}``; a dot steps into a nested object.
    names: dict[str, str] = Field(default_factory=dict)
    #: Failure classes that are the right answer: an image, not failed (a refused unsafe prompt).
    right: tuple[str, ...] = ()
    #: Failure classes that are no image at all: the user cancelled, the request was malformed.
    left_out: tuple[str, ...] = ()
    #: Milliseconds above which a request is slow; without it latency is not counted.
    slow_above_ms: float | None = Field(default=None, gt=0, le=MOST_LATENCY_MS)
    #: Share of rows that may be unreadable before a look is unusable.
    unreadable_share: float = Field(default=0.01, ge=0, lt=1)

    @field_validator("names")
    @classmethod
    def _known(cls, names: dict[str, str]) -> dict[str, str]:
        for name in names:
            if name not in NAMES:
                raise ValueError(f"there is no field {name!r} {known(NAMES, 20)}")
        return names

    @field_validator("right", "left_out")
    @classmethod
    def _lower(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.strip().casefold() for word in words)


class BadRowError(ValueError):
    """A row that cannot be understood; the message names the field and never its value at length.

    Args:
        at: The moment of the row, where that could be read.
        mix: What it calls its mix, where that could be read.
    """

    def __init__(self, problem: str, at: datetime | None = None, mix: str | None = None) -> None:
        self.at, self.mix = at, mix
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ended."""

    at: datetime
    mix: str
    product: str | None
    request_id: str | None
    #: ``None`` when it is no image (left out), or the source says nothing of it.
    failed: bool | None
    latency_ms: float | None
    cost_microusd: int | None
    row: Mapping[str, Any] = field(repr=False, compare=False)

    def text(self, name: str) -> str:
        """Return a field of the row as text, empty when it is not there."""
        value = self.row.get(name)
        return "" if value is None else str(value)


class RowReader:
    """Makes requests of raw rows.

    Args:
        rules: Names and endings.
        needs_ending: Whether a row must say how the request ended.
    """

    def __init__(self, rules: RowRules, needs_ending: bool = True) -> None:
        self._rules, self._needs_ending = rules, needs_ending
        self._names = {
            name: (rules.names[name],) if name in rules.names else names
            for name, names in NAMES.items()
        }
        self._plans: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}

    def named(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a raw row by our names; what is not there is left out."""
        keys = tuple(raw)
        plan = self._plans.get(keys)
        if plan is None:
            plan = self._planned(raw)
            if len(self._plans) < _MOST_PLANS:
                self._plans[keys] = plan
        found = {}
        for name, candidates in plan:
            for candidate in candidates:
                value = raw[candidate] if candidate in raw else stepped(raw, candidate)
                if value is not None and not (isinstance(value, float) and math.isnan(value)):
                    found[name] = value
                    break
        return found

    def _planned(self, raw: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
        """Return which fields rows with these keys may have; a log's rows have the same keys."""
        return [
            (name, there)
            for name, candidates in self._names.items()
            if (there := [c for c in candidates if c in raw or c.partition(".")[0] in raw])
        ]

    def columns(self, there: Sequence[str]) -> list[str]:
        """Return the columns of a table that are read, the moment first; nested ones whole."""
        wanted = []
        for candidates in self._names.values():
            for candidate in candidates:
                column = candidate if candidate in there else candidate.partition(".")[0]
                if column in there and column not in wanted:
                    wanted.append(column)
        return wanted

    def read(self, raw: Mapping[str, Any]) -> Request:
        """Return the request of a raw row.

        Raises:
            BadRowError: With the reason.
        """
        row = self.named(raw)
        if "time" not in row:
            raise BadRowError("no time")
        at = moment(row["time"])
        mix = row.get("mix")
        mix = "" if mix is None else str(mix)[:200]
        try:
            latency = _number(row, "latency_ms", MOST_LATENCY_MS)
            cost = _number(row, "cost_microusd", MOST_COST)
            failed = self._failed(row)
        except BadRowError as error:
            raise BadRowError(str(error), at, mix) from None
        product, request_id = row.get("product"), row.get("request_id")
        return Request(
            at,
            mix,
            None if product is None else str(product),
            None if request_id in (None, "") else str(request_id)[:200],
            failed,
            latency,
            None if cost is None else round(cost),
            row,
        )

    def _failed(self, row: Mapping[str, Any]) -> bool | None:
        """Return whether the request failed: any sign of failure counts, silence is none."""
        kind = row.get("failure")
        word = "" if kind is None else str(kind).strip().casefold()
        if word not in _NO_FAILURE:
            if word in self._rules.left_out:
                return None
            return word not in self._rules.right
        said = [value for value in (_ok(row), _status(row)) if value is not None]
        if said:
            return not all(said)
        if kind is not None:
            return False
        if self._needs_ending:
            raise BadRowError("none of 'ok', 'failure' and 'status' says how the request ended")
        return None


def _ok(row: Mapping[str, Any]) -> bool | None:
    value = row.get("ok")
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().casefold()
    if word in _YES or word in _NO:
        return word in _YES
    raise BadRowError(f"'ok' must be true or false, got {word[:20]!r}")


def _status(row: Mapping[str, Any]) -> bool | None:
    value = row.get("status")
    if value is None:
        return None
    try:
        code = int(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRowError(f"'status' must be an HTTP status, got {str(value)[:20]!r}") from None
    return 200 <= code < 400


def _number(row: Mapping[str, Any], name: str, most: float) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRowError(f"{name!r} must be a number, got {str(value)[:20]!r}") from None
    if not 0 <= number <= most:
        raise BadRowError(f"{name!r} must be from 0 to {most:,}, got {number:g}")
    return number


def stepped(raw: Mapping[str, Any], path: str) -> Any:
    """Return what a dotted path names in nested objects, ``None`` when there is nothing."""
    value: Any = raw
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def moment(value: object) -> datetime:
    """Return a moment in UTC: ISO 8601 text, a date with time, or seconds (ms, µs, ns) since 1970.

    A text without a zone is UTC.

    Raises:
        BadRowError: It is none.
    """
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
            # The unit shows in the size: 1e11 seconds are the year 5138.
            unit = next((u for u in (1, 1e3, 1e6, 1e9) if abs(seconds / u) < 1e11), math.nan)
            found = datetime.fromtimestamp(seconds / unit, UTC)
        else:
            raise BadRowError(f"'time' must be a moment, got {type(value).__name__}")
    except (ValueError, OverflowError, OSError):
        raise BadRowError(f"'time' must be a moment, got {str(value)[:40]!r}") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def mix_named(text: str, digests: Sequence[str]) -> str | None:
    """Return the one digest that a text names: in full, or by its first 12 or more hex digits."""
    if text in digests:
        return text
    match = _HEX.match(text.strip().casefold())
    if match is None:
        return None
    found = [d for d in digests if d.removeprefix("sha256:").startswith(match[1])]
    return found[0] if len(found) == 1 else None
