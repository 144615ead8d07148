"""Ledger rows and limits for tests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tasks.budget.limits import Budgets
from tasks.budget.windows import stamp
from tasks.state import State
from tasks.tables import ledger, runs


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def budgets(**more: Any) -> Budgets:
    fields: dict[str, Any] = {
        "raised_by": {"name": "Dana", "contact": "#releases"},
        "all": {"month_usd": {"soft": 80, "hard": 100}},
    }
    return Budgets.model_validate(fields | more)


def add_run(state: State, run_id: str, product: str, at: str) -> None:
    with state.begin() as connection:
        connection.execute(
            sa.insert(runs).values(
                run_id=run_id,
                product=product,
                status="finished",
                candidate_digest="c",
                baseline_digest="b",
                started_at=stamp(moment(at)),
                host="h",
                pid=1,
            )
        )


def add_row(
    state: State,
    run_id: str,
    at: str,
    usd: float,
    status: str = "booked",
    reserved_usd: float | None = None,
) -> None:
    """Add a ledger row whose moment is ``at``; ``usd`` is what it counts with."""
    when = stamp(moment(at))
    worst = usd if reserved_usd is None else reserved_usd
    with state.begin() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(ledger)).scalar_one()
        connection.execute(
            sa.insert(ledger).values(
                idempotency_key=f"k{count}",
                run_id=run_id,
                day=when[:10],
                arm="candidate",
                case_id="c",
                stage=0,
                attempt=1,
                model="m",
                status=status,
                reserved_microusd=round(worst * 1e6),
                booked_microusd=round(usd * 1e6) if status == "booked" else None,
                at=when,
            )
        )
