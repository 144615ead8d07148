"""Past runs and changes of production, newest first, for ``imagegate history``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tasks.errors import ConfigError
from tasks.state import State
from tasks.tables import mixes, runs, transitions


@dataclass(frozen=True, slots=True)
class Change:
    """One change of production."""

    at: str
    kind: str
    epoch: int
    from_mix: str | None
    to_mix: str
    actor: str
    reason: str
    #: Share of the traffic that a canary got, ``None`` when none was on.
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A run with what it changed, or a change that no run made (``kind`` = ``change``)."""

    kind: str
    at: str
    product: str
    run_id: str | None
    status: str
    verdict: str | None
    candidate: str
    baseline: str
    #: Wall-clock seconds, ``None`` while the run goes on or when it never ended.
    seconds: float | None
    failure_rate: float | None
    baseline_failure_rate: float | None
    spend_usd: float | None
    report: str | None
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return asdict(self)


def history(state: State, product: str | None = None, limit: int = 20) -> list[HistoryRow]:
    """Return the latest runs and the changes of production made outside of runs, newest first.

    Args:
        state: The state database.
        product: Only this product; all by default.
        limit: The most rows, at least 1.

    Raises:
        ConfigError: ``limit`` is below 1.
        StateError: The database cannot be read.
    """
    if limit < 1:
        raise ConfigError(f"the number of history rows must be 1 or more, got {limit}")
    with state.begin() as connection:
        names = {
            row.digest: row.name
            for row in connection.execute(sa.select(mixes.c.digest, mixes.c.name))
        }
        found = connection.execute(
            _of(sa.select(runs), runs, product).order_by(runs.c.started_at.desc()).limit(limit)
        ).all()
        ids = [row.run_id for row in found]
        mine = connection.execute(
            sa.select(transitions).where(transitions.c.run_id.in_(ids)).order_by(transitions.c.id)
        ).all()
        loose = connection.execute(
            _of(sa.select(transitions), transitions, product)
            .where(
                sa.or_(
                    transitions.c.run_id.is_(None),
                    transitions.c.run_id.not_in(sa.select(runs.c.run_id)),
                )
            )
            .order_by(transitions.c.id.desc())
            .limit(limit)
        ).all()
    rows = [_run_row(row, names, mine) for row in found]
    rows += [_change_row(row, names) for row in loose]
    return sorted(rows, key=lambda row: row.at, reverse=True)[:limit]


def _of(
    query: sa.Select[Any],
    table: sa.Table,
    product: str | None,
) -> sa.Select[Any]:
    return query if product is None else query.where(table.c.product == product)


def _name(digest: str | None, names: dict[str, str]) -> str | None:
    """Return ``name (digest's first figures)``: names are people's and can repeat."""
    if digest is None:
        return None
    short = digest.removeprefix("sha256:")[:12]
    return f"{names[digest]} ({short})" if digest in names else short


def _change(row: sa.Row[Any], names: dict[str, str]) -> Change:
    return Change(
        at=row.at,
        kind=row.kind,
        epoch=row.epoch,
        from_mix=_name(row.from_digest, names),
        to_mix=_name(row.to_digest, names) or "",
        actor=row.actor,
        reason=row.reason,
        weight=row.weight,
    )


def _run_row(row: sa.Row[Any], names: dict[str, str], changes: Iterable[sa.Row[Any]]) -> HistoryRow:
    result = _result(row.result)
    return HistoryRow(
        kind="run",
        at=row.started_at,
        product=row.product,
        run_id=row.run_id,
        status=row.status,
        verdict=row.verdict,
        candidate=_name(row.candidate_digest, names) or "",
        baseline=_name(row.baseline_digest, names) or "",
        seconds=_seconds(row.started_at, row.ended_at),
        failure_rate=_number(result, "failure_rate", "estimate"),
        baseline_failure_rate=_number(result, "baseline_failure_rate", "estimate"),
        spend_usd=_number(result, "spend_usd"),
        report=result["report"] if isinstance(result.get("report"), str) else None,
        changes=tuple(_change(c, names) for c in changes if c.run_id == row.run_id),
    )


def _change_row(row: sa.Row[Any], names: dict[str, str]) -> HistoryRow:
    return HistoryRow(
        kind="change",
        at=row.at,
        product=row.product,
        run_id=row.run_id,
        status=row.kind,
        verdict=None,
        candidate=_name(row.to_digest, names) or "",
        baseline=_name(row.from_digest, names) or "",
        seconds=None,
        failure_rate=None,
        baseline_failure_rate=None,
        spend_usd=None,
        report=None,
        changes=(_change(row, names),),
    )


def _result(text: str | None) -> dict[str, Any]:
    """Return the run's printed result; a damaged one costs the figures, not the history."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any, *path: str) -> float | None:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _seconds(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    try:
        passed = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    except (ValueError, TypeError):
        return None
    return passed.total_seconds()
