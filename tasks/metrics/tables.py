r"""The tables of a run as pandas frames: the same columns and types whatever the data, also empty.

Text is made safe for Parquet: half a surrogate pair, which JSON escapes can carry into a prompt
or a provider's header, is written out as ``\udXXX``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from tasks.records import Arm, Attempt, Case, Finding, Generation, Outcome, canonical_json

_TEXT = "str"
_INT = "int64"
_FLOAT = "float64"
_BOOL = "bool"
_MAYBE_INT = "Int64"
_TEXTS = pd.ArrowDtype(pa.list_(pa.string()))

Dtype = str | pd.ArrowDtype

_CASES: dict[str, Dtype] = {
    "schema_version": _INT,
    "case_id": _TEXT,
    "prompt": _TEXT,
    "subtask": _TEXT,
    "locale": _TEXT,
    "width": _INT,
    "height": _INT,
    "expected_text": _TEXTS,
    "brand": _TEXT,
    "upload": _TEXT,
    "origin": _TEXT,
    "expect": _TEXT,
    "theme": _TEXT,
    "stratum": _TEXT,
    "weight": _FLOAT,
}
_GENERATIONS: dict[str, Dtype] = {
    "schema_version": _INT,
    "run_id": _TEXT,
    "arm": _TEXT,
    "mix_digest": _TEXT,
    "case_id": _TEXT,
    "seed": _INT,
    "models": _TEXTS,
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
_OWNER: dict[str, Dtype] = {"run_id": _TEXT, "arm": _TEXT, "case_id": _TEXT}
_ATTEMPTS: dict[str, Dtype] = {
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
    "headers": _TEXT,
}
_FINDINGS: dict[str, Dtype] = {
    "schema_version": _INT,
    "check": _TEXT,
    "version": _TEXT,
    "verdict": _TEXT,
    "score": _FLOAT,
    "limit": _FLOAT,
    "higher_is_better": _BOOL,
    "message": _TEXT,
}
_REGION = ("x", "y", "width", "height")
_OUTCOMES: dict[str, Dtype] = {
    "schema_version": _INT,
    "run_id": _TEXT,
    "arm": _TEXT,
    "case_id": _TEXT,
    "outcome": _TEXT,
    "failed": _BOOL,
    "reasons": _TEXTS,
    "judged": _TEXTS,
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
    """Return one row an attempt, with run, arm and case; headers as JSON text."""
    pairs = [(g, a) for g in generations for a in g.attempts]
    owners = _frame([g for g, _ in pairs], _OWNER)
    attempts = _frame([a for _, a in pairs], _ATTEMPTS, {"headers": _headers})
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


def outcomes_frame(outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return one row an outcome."""
    return _frame(list(outcomes), _OUTCOMES)


def _frame(
    records: Sequence[object],
    columns: Mapping[str, Dtype],
    special: Mapping[str, Callable[[Any], object]] | None = None,
) -> pd.DataFrame:
    """Return the attributes of the records as columns."""
    special = special or {}
    data = {}
    for name, dtype in columns.items():
        get = special.get(name)
        values = [getattr(r, name) if get is None else get(r) for r in records]
        data[name] = _column(values, dtype)
    return pd.DataFrame(data)


def _column(values: list[Any], dtype: Dtype) -> pd.Series[Any]:
    """Return a column of the type, with text that Parquet can hold."""
    if dtype == _TEXT:
        values = [None if v is None else _safe(v) for v in values]
    elif dtype == _TEXTS:
        values = [[_safe(text) for text in v] for v in values]
    elif dtype == _FLOAT:
        values = [float("nan") if v is None else v for v in values]
    return pd.Series(values, dtype=dtype)


def _safe(text: str) -> str:
    """Return text that UTF-8 can carry."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _headers(attempt: Attempt) -> str:
    return canonical_json(attempt.headers)
