"""Reading what an answer says about use and seeds: untrusted values become numbers or nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tasks.records import Usage

_MOST_KEYS = 40
_MOST_DEPTH = 5
#: Ten times what is kept: a key must not be cut in half before it is looked for.
_MOST_TEXT = 2_000
_MOST_COUNT = 10**9
_MOST_AMOUNT = 1e6


def usage_of(raw: object, **said: object) -> Usage:
    """Return the usage of a request.

    Args:
        raw: The provider's own words, kept bounded.
        **said: Fields of :class:`tasks.records.Usage` with the untrusted value for each. What is
            no number, negative or absurd counts as not said, so that a cost that needs it is
            unknown.
    """
    fields: dict[str, Any] = {}
    for name in ("text_in", "image_in", "text_out", "image_out"):
        fields[name] = whole(said.pop(name, None))
    for name in ("megapixels", "credits", "gpu_seconds"):
        fields[name] = amount(said.pop(name, None))
    if said:
        raise TypeError(f"Usage has no field {sorted(said)[0]!r}")
    kept = bounded(raw)
    return Usage(**fields, raw=kept if isinstance(kept, dict) else {"value": kept} if kept else {})


def whole(value: object) -> int | None:
    """Return a count of tokens, or ``None`` when the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it becomes anything else: an integer can be too large for a float.
    if not 0 <= value <= _MOST_COUNT or value != int(value):
        return None
    return int(value)


def amount(value: object) -> float | None:
    """Return a quantity, also one that is written as text, or ``None`` when the value is none."""
    if isinstance(value, str):
        try:
            value = float(value[:40])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= _MOST_AMOUNT:
        return None
    return float(value)


def seed_of(value: object) -> int | None:
    """Return a seed that an answer reports as a number or as text, ``None`` when it is none."""
    if isinstance(value, str):
        text = value.strip()
        if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            return None
        value = int(text)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**63) <= value < 2**63 else None


def bounded(value: object, depth: int = _MOST_DEPTH) -> Any:
    """Return a JSON value small enough for the record: few keys, short texts, not deep."""
    if isinstance(value, Mapping | list | tuple) and depth <= 0:
        return "…"
    if isinstance(value, Mapping):
        items = list(value.items())[:_MOST_KEYS]
        return {str(key)[:_MOST_TEXT]: bounded(item, depth - 1) for key, item in items}
    if isinstance(value, list | tuple):
        return [bounded(item, depth - 1) for item in value[:_MOST_KEYS]]
    return _bounded_leaf(value)


def _bounded_leaf(value: object) -> bool | int | float | str | None:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    # A huge integer cannot even be written out: str() refuses it.
    return "…" if isinstance(value, int) else str(value)[:_MOST_TEXT]
