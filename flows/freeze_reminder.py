"""The freeze reminder as a Prefect flow: freezes that end, ended, or were left by a run."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State as FlowState
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.chore_hooks import note_works, on_broken
from tasks.alerts.delivery import deliver_all
from tasks.alerts.messages import Notice, notice_message
from tasks.alerts.outbox import enqueue
from tasks.mix.reminders import Reminder, read_freezes, reminders
from tasks.settings import load_settings
from tasks.state import State

#: Seconds that the outbox gets at the end.
DELIVERY_S = 30.0


class FreezeReminderRequest(BaseModel):
    """Parameters of a look at the freezes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days_ahead: int = Field(
        default=3,
        ge=0,
        le=60,
        title="Days ahead",
        description="How many days before its end the owner of a freeze is reminded.",
    )


#: What a schedule asks for.
USUAL = FreezeReminderRequest()


@flow(
    name="freeze-reminder",
    description="Remind owners of freezes that end soon, have ended, or were left by a run.",
    persist_result=False,
    on_failure=[on_broken],
    on_crashed=[on_broken],
)
def freeze_reminder(
    request: FreezeReminderRequest = USUAL,
) -> FlowState[dict[str, Any]]:
    """Return a completed state that says how many reminders were new, with all of them as data."""
    settings, now = load_settings(), datetime.now(UTC)
    logger = get_run_logger()
    with closing(State(settings.state_url.get_secret_value())) as state:
        found = reminders(read_freezes(state, now), now, request.days_ahead)
        new = [reminder for reminder in found if remind(state, reminder)]
        for reminder in new:
            logger.info("%s", reminder.title)
        rows = [
            {
                "product": reminder.freeze.product,
                "what": reminder.title,
                "owner": reminder.freeze.owner,
                "until": reminder.freeze.until_at,
                "asked": "; ".join(reminder.asked),
            }
            for reminder in found
        ]
        create_table_artifact(
            rows, key="freeze-reminder", description="Freezes that somebody should look at"
        )
        note_works(state, "freeze-reminder", now)
        sent = deliver_all(state, settings, DELIVERY_S)
        logger.info("delivered %d messages, %d wait", len(sent.delivered), sent.left)
    name = "Reminded" if new else "Nothing new"
    return Completed(
        name=name,
        message=f"{len(found)} freezes to look at, {len(new)} reminders sent now",
        data={"freezes": rows, "new": len(new)},
    )


def remind(state: State, reminder: Reminder) -> bool:
    """Put a reminder into the outbox; ``False`` when people were told of it today already."""
    frozen = reminder.freeze
    notice = Notice(
        title=reminder.title,
        severity="warning" if reminder.kind == "left" else "info",
        product=frozen.product,
        lines=reminder.lines,
        asked=reminder.asked,
        run_id=frozen.run_id,
    )
    return enqueue(
        state,
        reminder.key,
        frozen.run_id,
        notice_message(notice).payload(),
        product=frozen.product,
        severity=notice.severity,
        topic=f"freeze.{reminder.kind}",
    )
