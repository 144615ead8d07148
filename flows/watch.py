"""The watch over production as a Prefect flow: look → act → carry out approvals → deliver.

The same pass as ``imagegate watchdog``, for a server whose workers are there anyway; what a flow
cannot see, dead workers and a dead server, the process sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as FlowState
from prefect.logging import get_run_logger
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from deployments.collisions import explain_now
from flows.watch_words import markdown
from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.watchdog.act import Done
from tasks.watchdog.act import act as act_now
from tasks.watchdog.check import look as look_at
from tasks.watchdog.facts import read_facts
from tasks.watchdog.loop import Pass, finish, prefect_side
from tasks.watchdog.model import Facts, Limits, Trouble

_USUAL = Limits()


class WatchRequest(BaseModel):
    """Parameters of one look."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resume: bool = Field(
        default=True,
        title="Resume dead gates",
        description="Start a gate again whose process died; otherwise it is only told.",
    )
    resumes: int = Field(
        default=_USUAL.resumes,
        ge=0,
        le=20,
        title="Resumes of one run",
        description="How often one run is resumed by itself, 0 to 20; after that people are asked.",
    )
    grace_minutes: float = Field(
        default=_USUAL.schedule_grace_s / 60,
        ge=1,
        le=720,
        allow_inf_nan=False,
        title="Grace of schedules in minutes",
        description="A scheduled gate that starts later than this is missed, 1 to 720.",
    )
    alert_minutes: float = Field(
        default=_USUAL.alert_age_s / 60,
        ge=1,
        le=720,
        allow_inf_nan=False,
        title="Age of alerts in minutes",
        description="An alert that waits longer than this is an alarm itself, 1 to 720.",
    )

    @property
    def limits(self) -> Limits:
        """How patient this look is."""
        return Limits(
            resumes=self.resumes if self.resume else 0,
            schedule_grace_s=60 * self.grace_minutes,
            alert_age_s=60 * self.alert_minutes,
        )


#: What a schedule asks for.
AS_USUAL = WatchRequest()


@task(name="look", task_run_name="look", cache_policy=NO_CACHE)
def look(state: State, settings: Settings, now: datetime, limits: Limits) -> Facts:
    """Return what is known now, from the state database, the router and Prefect's server."""
    return read_facts(state, settings, now, prefect_side(), limits)


@task(name="act", task_run_name="act", cache_policy=NO_CACHE)
def act(state: State, settings: Settings, facts: Facts, troubles: list[Trouble]) -> Done:
    """Tell people, close what is over, resume what died, carry out approvals."""
    return act_now(
        state, settings, facts, troubles, prefect_side(), lambda: carry_out(state, settings)
    )


@task(name="deliver", task_run_name="deliver", cache_policy=NO_CACHE)
def deliver(
    state: State, settings: Settings, facts: Facts, troubles: list[Trouble], done: Done
) -> Pass:
    """Deliver what waits in the outbox and return the whole pass."""
    return finish(state, settings, facts, troubles, done, name="production-watch")


def carry_out(state: State, settings: Settings) -> Sequence[str]:
    """Let go on what a person decided about, what ran out, and canaries that nobody drives.

    Returns:
        What was done, in sentences.
    """
    from flows.approval_resume import resume_decided
    from flows.canary_deeds import look_after

    carried = [carried.sentence for carried in resume_decided(state, settings)]
    return [*carried, *look_after(state, settings)]


@flow(
    name="production-watch",
    description="Look for dead gates, missed schedules and alerts that nobody got; mend, and tell.",
    persist_result=False,
)
def production_watch(request: WatchRequest = AS_USUAL) -> FlowState[dict[str, Any]]:
    """Return a completed state that says how many troubles there are, with the pass as data."""
    settings, now = load_settings(), datetime.now(UTC)
    logger = get_run_logger()
    with closing(State(settings.state_url.get_secret_value())) as state:
        facts = look(state, settings, now, request.limits)
        troubles = look_at(facts, request.limits)
        done = act(state, settings, facts, troubles)
        result = deliver(state, settings, facts, troubles, done)
    for trouble in result.standing:
        logger.warning("%s: %s", trouble.kind, trouble.title)
    for told in explain_now():
        logger.info("refused: %s", told)
    create_markdown_artifact(markdown(result), key="production-watch", description=result.at)
    count = len(result.standing)
    return Completed(
        name="Quiet" if count == 0 else "Troubled",
        message="all is well" if count == 0 else f"{count} troubles: {result.standing[0].title}",
        data=result.to_dict(),
    )
