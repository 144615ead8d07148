"""The budget alarm as a Prefect flow: spend against limits, people told, the outbox delivered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State as FlowState
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.chore_hooks import note_works, on_broken
from flows.refusal import refusals_as_states
from tasks.alerts.delivery import deliver_all
from tasks.budget.alarm import Told, tell, tell_damaged
from tasks.budget.check import Standing, findings, forecast_words, standings
from tasks.budget.limits import load_budgets
from tasks.budget.money import dollars
from tasks.budget.spend import read_facts
from tasks.budget.windows import local_day
from tasks.errors import ConfigError
from tasks.settings import load_settings
from tasks.state import State

#: Seconds that the outbox gets at the end.
DELIVERY_S = 30.0


class BudgetAlarmRequest(BaseModel):
    """Parameters of a look at the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product: str | None = Field(
        default=None,
        max_length=120,
        title="Product",
        description="Only this product and the sum over all; empty: every product with limits.",
    )


#: What a schedule asks for.
EVERYTHING = BudgetAlarmRequest()


@flow(
    name="budget-alarm",
    description="Compare what was spent with the limits by day, week and month; tell people.",
    persist_result=False,
    on_failure=[on_broken],
    on_crashed=[on_broken],
)
@refusals_as_states
def budget_alarm(request: BudgetAlarmRequest = EVERYTHING) -> FlowState[dict[str, Any]]:
    """Return a completed state named after the worst that was found, with the figures as data.

    Raises:
        ConfigError: The file of limits is missing or damaged; people are told of it first.
    """
    settings, now = load_settings(), datetime.now(UTC)
    logger = get_run_logger()
    with closing(State(settings.state_url.get_secret_value())) as state:
        try:
            budgets = load_budgets(settings.budgets_file)
        except ConfigError as error:
            # Until it is mended no run can start: somebody has to know before the night does.
            tell_damaged(state, str(error), now=now)
            deliver_all(state, settings, DELIVERY_S)
            raise
        today = local_day(now, budgets.zone)
        stands = standings(budgets, read_facts(state, budgets, now), request.product)
        found = [finding for standing in stands for finding in findings(standing, today)]
        told = tell(state, stands, found, now=now, product=request.product)
        for title in told.opened:
            logger.warning("%s", title)
        rows = table(stands, today)
        create_table_artifact(
            rows, key="budget-alarm", description=f"Spend against limits on {today.isoformat()}"
        )
        note_works(state, "budget-alarm", now)
        sent = deliver_all(state, settings, DELIVERY_S)
        logger.info("delivered %d messages, %d wait", len(sent.delivered), sent.left)
    name, message = summary(stands, told)
    return Completed(name=name, message=message, data={"windows": rows, "resolved": told.resolved})


def table(stands: Sequence[Standing], today: date) -> list[dict[str, Any]]:
    """Return the rows of the artifact."""
    return [
        {
            "scope": standing.who,
            "window": standing.window.name,
            "spent": dollars(standing.spent.total),
            "not yet known": dollars(standing.spent.reserved + standing.spent.unknown),
            "soft": "–" if standing.soft is None else dollars(standing.soft),
            "hard": "–" if standing.hard is None else dollars(standing.hard),
            "share": "–" if standing.share is None else f"{100 * standing.share:.0f} %",
            "reached": "hard" if standing.hard_reached else "soft" if standing.soft_reached else "",
            "forecast": forecast_words(standing, today),
            "ends": standing.window.ends,
            "raised by": standing.raised_by,
        }
        for standing in stands
    ]


def summary(stands: Sequence[Standing], told: Told) -> tuple[str, str]:
    """Return the name of the state and its message."""
    hard = [f"{s.who} {s.window.kind}" for s in stands if s.hard_reached]
    soft = [f"{s.who} {s.window.kind}" for s in stands if s.soft_reached and not s.hard_reached]
    news = f"{len(told.opened)} new alarms, {told.lasting} lasting, {len(told.resolved)} resolved"
    if hard:
        return "Hard limit reached", f"no run may spend: {', '.join(hard)}; {news}"
    if soft:
        return "Soft limit reached", f"{', '.join(soft)}; {news}"
    return "Within limits", news
