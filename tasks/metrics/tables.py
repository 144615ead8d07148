r"""The tables of a run as pandas frames: the same columns and types whatever the data, also empty.

Text is made safe for Parquet: half a surrogate pair, which JSON escapes can carry into a prompt
or a provider's header, is written out as ``\udXXX``. Lists and headers are JSON text: pandas 3
writes Arrow's list columns and then cannot read its own file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.records import (
    Arm,
    Case,
    Finding,
    Generation,
    ImageReport,
    Outcome,
    Record,
    canonical_json,
)

_TEXT = "str"
_INT = "int64"
_FLOAT = "float64"
_BOOL = "bool"
_MAYBE_INT = "Int64"
_MAYBE_BOOL = "boolean"
#: A list or a mapping, as JSON text.
_JSON = "json"
#: Places in a picture, as JSON text.
_REGIONS = "regions"

_CASES: dict[str, str] = {
    "schema_version": _INT,
    "case_id": _TEXT,
    "prompt": _TEXT,
    "subtask": _TEXT,
    "locale": _TEXT,
    "width": _INT,
    "height": _INT,
    "expected_text": _JSON,
    "brand": _TEXT,
    "upload": _TEXT,
    "mask": _TEXT,
    "origin": _TEXT,
    "expect": _TEXT,
    "theme": _TEXT,
    "stratum": _TEXT,
    "weight": _FLOAT,
    "campaign": _TEXT,
    "repeat": _MAYBE_INT,
}
_GENERATIONS: dict[str, str] = {
    "schema_version": _INT,
    "run_id": _TEXT,
    "arm": _TEXT,
    "mix_digest": _TEXT,
    "case_id": _TEXT,
    "seed": _INT,
    "models": _JSON,
    "status": _TEXT,
    "failure": _TEXT,
    "message": _TEXT,
    "image_digest": _TEXT,
    "source_digest": _TEXT,
    "declared_mime": _TEXT,
    "sniffed_mime": _TEXT,
    "image_bytes": _INT,
    "cost_microusd": _INT,
    "latency_s": _FLOAT,
    "ttfb_s": _FLOAT,
    "queued_s": _FLOAT,
    "retries": _INT,
    "cached": _BOOL,
}
_OWNER: dict[str, str] = {"run_id": _TEXT, "arm": _TEXT, "case_id": _TEXT}
_ATTEMPTS: dict[str, str] = {
    "schema_version": _INT,
    "stage": _INT,
    "number": _INT,
    "model": _TEXT,
    "started_at": _TEXT,
    "queued_s": _FLOAT,
    "ttfb_s": _FLOAT,
    "total_s": _FLOAT,
    "http_status": _MAYBE_INT,
    "failure": _TEXT,
    "message": _TEXT,
    "retry_after_s": _FLOAT,
    "billed": _TEXT,
    "cost_microusd": _INT,
    "cost_source": _TEXT,
    "idempotency_key": _TEXT,
    "provider_request_id": _TEXT,
    "model_reported": _TEXT,
    "declared_mime": _TEXT,
    "sniffed_mime": _TEXT,
    "finish_reason": _TEXT,
    "body_digest": _TEXT,
    "body_bytes": _INT,
    "headers": _JSON,
    # The tables of older evidence end here.
    "seed_used": _MAYBE_INT,
    "usage": _JSON,
    "pin": _TEXT,
}
_FINDINGS: dict[str, str] = {
    "schema_version": _INT,
    "check": _TEXT,
    "version": _TEXT,
    "verdict": _TEXT,
    "score": _FLOAT,
    "limit": _FLOAT,
    "higher_is_better": _BOOL,
    "message": _TEXT,
    "confirmed": _MAYBE_BOOL,
}
_REPORTS: dict[str, str] = {
    "schema_version": _INT,
    "read_text": _JSON,
    "text_severity": _JSON,
    "extra_text": _JSON,
    "extra_regions": _REGIONS,
    "fingerprint": _TEXT,
    "look": _TEXT,
    "colour": _JSON,
    "width": _MAYBE_INT,
    "height": _MAYBE_INT,
    "seconds": _FLOAT,
}
_REGION = ("x", "y", "width", "height")
_OUTCOMES: dict[str, str] = {
    "schema_version": _INT,
    "run_id": _TEXT,
    "arm": _TEXT,
    "case_id": _TEXT,
    "outcome": _TEXT,
    "failed": _BOOL,
    "reasons": _JSON,
    "judged": _JSON,
    "text_unjudged": _BOOL,
    "subtask": _TEXT,
    "locale": _TEXT,
    "origin": _TEXT,
    "theme": _TEXT,
    "model": _TEXT,
    "weight": _FLOAT,
    "cost_microusd": _INT,
    "cached": _BOOL,
    "latency_s": _FLOAT,
    "ttfb_s": _FLOAT,
    "retries": _INT,
}


def cases_frame(cases: Iterable[Case]) -> pd.DataFrame:
    """Return one row a case."""
    return _frame(list(cases), _CASES)


def generations_frame(generations: Iterable[Generation]) -> pd.DataFrame:
    """Return one row a generation, without its attempts."""
    return _frame(list(generations), _GENERATIONS)


def attempts_frame(generations: Iterable[Generation]) -> pd.DataFrame:
    """Return one row an attempt, with run, arm and case."""
    pairs = [(g, a) for g in generations for a in g.attempts]
    owners = _frame([g for g, _ in pairs], _OWNER)
    attempts = _frame([a for _, a in pairs], _ATTEMPTS)
    return pd.concat([owners, attempts], axis=1)


def findings_frame(rows: Iterable[tuple[str, Arm, str, Finding]]) -> pd.DataFrame:
    """Return one row a finding.

    Args:
        rows: Run, arm, case and finding.
    """
    listed = list(rows)
    columns = {
        name: _column([row[place] for row in listed], dtype)
        for place, (name, dtype) in enumerate(_OWNER.items())
    }
    findings = [row[3] for row in listed]
    frame = pd.concat([pd.DataFrame(columns), _frame(findings, _FINDINGS)], axis=1)
    for side in _REGION:
        sides = [None if f.region is None else getattr(f.region, side) for f in findings]
        frame[f"region_{side}"] = _column(sides, _MAYBE_INT)
    return frame


def reports_frame(rows: Iterable[tuple[str, Arm, str, ImageReport]]) -> pd.DataFrame:
    """Return one row a picture that was checked, without its findings.

    Args:
        rows: Run, arm, case and report.
    """
    listed = list(rows)
    columns = {
        name: _column([row[place] for row in listed], dtype)
        for place, (name, dtype) in enumerate(_OWNER.items())
    }
    reports = _frame([row[3] for row in listed], _REPORTS)
    return pd.concat([pd.DataFrame(columns), reports], axis=1)


def outcomes_frame(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return one row an outcome."""
    return _frame(list(outcomes), _OUTCOMES)


def _frame(records: Sequence[object], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return the attributes of the records as columns."""
    return pd.DataFrame(
        {
            name: _column([getattr(record, name) for record in records], dtype)
            for name, dtype in columns.items()
        }
    )


def _column(values: list[Any], dtype: str) -> pd.Series[Any]:
    """Return a column of the type, with text that Parquet can hold."""
    if dtype == _JSON:
        values = [None if value is None else _safe(_json(value)) for value in values]
    elif dtype == _REGIONS:
        values = [canonical_json([region.model_dump() for region in value]) for value in values]
    elif dtype == _TEXT:
        values = [None if value is None else _safe(value) for value in values]
    elif dtype == _FLOAT:
        values = [float("nan") if value is None else value for value in values]
    return pd.Series(values, dtype=_TEXT if dtype in (_JSON, _REGIONS) else dtype)


def _json(value: Any) -> str:
    """Return a list, a mapping or a record as JSON text."""
    return canonical_json(
        value.model_dump(mode="json", exclude_none=True) if isinstance(value, Record) else value
    )


def _safe(text: str) -> str:
    """Return text that UTF-8 can carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
