"""The refusal of runs that would spend beyond a hard limit.

No Prefect here: the command refuses before Prefect is started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import sqlalchemy as sa

from tasks.budget.hard import HardLimit, Room, hard_limits, refusal, room
from tasks.budget.limits import ALL, load_budgets
from tasks.budget.money import Spent
from tasks.budget.spend import AMOUNT, spent_in
from tasks.errors import RefusedError
from tasks.plan import RunPlan
from tasks.policy import Policy
from tasks.records import microusd
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import journal, ledger


def refuse_over_budget(
    state: State, settings: Settings, product: str, *, now: datetime | None = None
) -> Room:
    """Return what the hard limits leave to the runs of a product.

    Call it before anything is frozen or spent. While a run spends, the ledger looks at the same
    limits before each request, so that runs at the same time pass none of them together.

    Raises:
        RefusedError: A hard limit is reached: which, the sum, until when, and who can raise it.
        ConfigError: The file of limits is missing or damaged; nothing may be spent then.
    """
    moment = now or datetime.now(UTC)
    limits = hard_limits(load_budgets(settings.budgets_file), product)
    spent = _spent(state, limits, moment)
    text = refusal(spent, moment)
    if text is not None:
        raise RefusedError(text)
    return room(spent, moment)


def run_budget(policy: Policy, budget_usd: float | None) -> int:
    """Return the micro-dollars that a new run may spend: what was asked for, or the policy's."""
    return microusd(policy.budget.run_usd if budget_usd is None else budget_usd)


def rest_of_budget(state: State, plan: RunPlan) -> int:
    """Return the micro-dollars that a run which goes on may still spend by its own budget."""
    query = sa.select(sa.func.coalesce(sa.func.sum(AMOUNT), 0)).where(
        ledger.c.run_id == plan.run_id
    )
    with state.begin() as connection:
        return max(0, plan.budget_microusd - int(connection.execute(query).scalar_one()))


def refuse_resume_over_budget(
    state: State, settings: Settings, plan: RunPlan, *, now: datetime | None = None
) -> Room:
    """Do the same for a run that goes on; one that has all its pictures spends nothing any more.

    Its verdict, and a promotion that a person approved, are not held up by a budget.

    Raises:
        RefusedError: A hard limit is reached and cases are left.
        ConfigError: The file of limits is missing or damaged and cases are left.
    """
    query = sa.select(sa.func.count()).where(journal.c.run_id == plan.run_id)
    with state.begin() as connection:
        finished = connection.execute(query.select_from(journal)).scalar_one()
    if finished >= 2 * len(plan.cases) or _decided_early(settings, plan.run_id):
        return Room()
    return refuse_over_budget(state, settings, plan.product, now=now)


def _spent(state: State, limits: tuple[HardLimit, ...], now: datetime) -> Mapping[HardLimit, int]:
    """Return the sum of the present window of each limit, read in one transaction."""
    with state.begin() as connection:
        by_window = {
            window: spent_in(connection, window) for window in {h.window(now) for h in limits}
        }
    found = {}
    for limit in limits:
        sums = by_window[limit.window(now)]
        total = sum(sums.values(), Spent()) if limit.who == ALL else sums.get(limit.who, Spent())
        found[limit] = total.total
    return found


def _decided_early(settings: Settings, run_id: str) -> bool:
    """Tell whether the evidence of a run says that it was decided before the end of its plan."""
    try:
        verdict = json.loads((settings.runs / run_id / "verdict.json").read_text(encoding="utf-8"))
        return bool(verdict["savings"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
