"""What the watchdog does: tell people, close what is over, resume, free slots, mend the router.

Every step may be done twice, and by two watchdogs at once: claims are compare-and-set in the state
database, and what Prefect is told holds however often it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import sqlalchemy as sa

from tasks.alerts.change_words import tell_rollback
from tasks.alerts.incidents import open_incidents, raise_alarm, resolve_alarm
from tasks.alerts.run_thread import run_failed
from tasks.mix.freeze import stamp
from tasks.records import utc_now
from tasks.rollout.change import reconcile
from tasks.rollout.config import open_router
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import resumes, runs
from tasks.watchdog.check import blind_to
from tasks.watchdog.facts import said
from tasks.watchdog.model import Action, Facts, Fault, RunFact, Source, Trouble
from tasks.watchdog.prefect_side import PrefectSide

#: What must have been readable before an incident of this beginning is called over.
_HANGS_ON: dict[str, tuple[Source, ...]] = {
    "gate": ("runs", "prefect", "resumes"),
    "flow": ("prefect",),
    "schedule": ("schedules",),
    "alerts": ("alerts",),
    "workers": ("prefect",),
    "prefect": (),
    "router": ("router",),
    "unwatched": ("watches",),
    "watchdog": (),
}


@dataclass(slots=True)
class Done:
    """What one pass did, in sentences."""

    told: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def act(
    state: State,
    settings: Settings,
    facts: Facts,
    troubles: Sequence[Trouble],
    prefect: PrefectSide | None,
    carry_out: Callable[[], Sequence[str]] | None = None,
) -> Done:
    """Tell people and do what can be done; one step that fails keeps none of the others back.

    Args:
        state: The state database.
        settings: Where things lie and whom to tell.
        facts: What was seen.
        troubles: What is wrong by these facts.
        prefect: Prefect's server, if one is configured.
        carry_out: Carries out decided and expired approvals.
    """
    done = Done()

    def tried(what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the other steps must still be done
            done.faults.append(Fault(f"act:{what}", said(error)))

    for trouble in troubles:
        if trouble.alarm:
            tried(trouble.key, partial(_tell, state, settings, facts, trouble, done))
        if trouble.action is not None:
            step = partial(_carry_out, state, settings, facts, trouble.action, prefect, done)
            tried(trouble.key, step)
    if carry_out is not None:
        tried("approvals", lambda: done.done.extend(carry_out()))
    blind = [blind_to(fault, facts.host) for fault in done.faults]
    for trouble in blind:
        tried(trouble.key, partial(_tell, state, settings, facts, trouble, done))
    tried("incidents", partial(_close, state, facts, [*troubles, *blind], done))
    return done


def _tell(state: State, settings: Settings, facts: Facts, trouble: Trouble, done: Done) -> None:
    """Tell once; an alarm that is open is not counted up by every look."""
    if trouble.key.startswith("run:") and trouble.run_id and trouble.product:
        told = run_failed(
            state,
            settings,
            run_id=trouble.run_id,
            product=trouble.product,
            what=trouble.title.partition(": ")[2],
            event=trouble.event,
            lines=trouble.lines,
            asked=trouble.asked,
            now=facts.now,
        )
    elif facts.incidents.get(trouble.key) == "open":
        return
    else:
        told = raise_alarm(
            state,
            trouble.key,
            title=trouble.title,
            severity=trouble.severity,
            product=trouble.product,
            lines=trouble.lines,
            asked=trouble.asked,
            now=facts.now,
        )
    if told:
        done.told.append(trouble.title)


def _carry_out(
    state: State,
    settings: Settings,
    facts: Facts,
    action: Action,
    prefect: PrefectSide | None,
    done: Done,
) -> None:
    if action.kind == "mend_router":
        router = open_router(settings)
        mended = reconcile(
            state, router, action.target, actor="watchdog", now=facts.now, tell=tell_rollback
        )
        done.done.append(
            f"the router shows production of {action.target} again, epoch {mended.epoch}"
        )
    elif prefect is None:
        return
    elif action.kind == "resume":
        if resume(state, prefect, action, facts.now):
            done.done.append(f"flow run {action.target} was resumed ({action.count + 1})")
    elif action.kind == "cancelled":
        prefect.cancelled(action.target, action.why)
        _book(state, action, "stopped")
        done.done.append(f"flow run {action.target} was booked as cancelled")
    elif prefect.state_of(action.target) in ("RUNNING", "PENDING"):
        prefect.crash(action.target, action.why)
        done.done.append(f"flow run {action.target} was booked as crashed")


def resume(state: State, prefect: PrefectSide, action: Action, now: datetime) -> bool:
    """Start a dead flow run again, for any worker of its pool to take.

    Returns:
        ``False`` when another watchdog does it, or a person cancelled it meanwhile.
    """
    # Looked at again: between the look and now, somebody may have cancelled or resumed it.
    now_is = prefect.state_of(action.target)
    if now_is not in ("RUNNING", "PENDING", "CRASHED", "FAILED"):
        return False
    if not claim(state, action, now):
        return False
    if now_is in ("RUNNING", "PENDING"):
        # First crashed, which frees its slot and shows in Prefect what happened, then due again.
        prefect.crash(action.target, action.why)
    return prefect.start_again(action.target, action.why)


def claim(state: State, action: Action, now: datetime) -> bool:
    """Take a resume upon oneself, once among all watchdogs.

    The dead driver loses the run in the same transaction: should it wake up, it finds itself
    replaced, and the next process need not wait until its silence is long enough.

    Returns:
        ``False`` when it was claimed before, or the run has another driver by now.
    """
    with state.begin() as connection:
        count = connection.execute(
            sa.select(resumes.c["count"]).where(resumes.c.key == action.target)
        ).scalar()
        if (count or 0) != action.count:
            return False
        if action.run_id is not None:
            of_it = runs.c.run_id == action.run_id
            row = connection.execute(sa.select(runs.c.status, runs.c.driver).where(of_it)).one()
            if row.driver != action.driver or row.status not in ("running", "stopped", "failed"):
                return False
            connection.execute(sa.update(runs).where(of_it).values(status="stopped", driver=None))
        values = {"count": action.count + 1, "at": stamp(now)}
        if count is None:
            connection.execute(sa.insert(resumes).values(key=action.target, **values))
        else:
            connection.execute(
                sa.update(resumes).where(resumes.c.key == action.target).values(**values)
            )
    return True


def _book(state: State, action: Action, status: str) -> None:
    """Book the end of a run whose process is gone, unless another process drives it by now."""
    with state.begin() as connection:
        connection.execute(
            sa.update(runs)
            .where(
                runs.c.flow_run_id == action.target,
                runs.c.status == "running",
                runs.c.driver.is_(None)
                if action.driver is None
                else runs.c.driver == action.driver,
            )
            .values(status=status, ended_at=utc_now())
        )


def _close(state: State, facts: Facts, troubles: Sequence[Trouble], done: Done) -> None:
    """Close what is over, as far as it could be seen."""
    standing = {trouble.key for trouble in troubles}
    runs_by_id = {run.run_id: run for run in facts.runs}
    for incident in open_incidents(state):
        beginning = incident.key.partition(":")[0]
        how = None
        if beginning == "run":
            run = runs_by_id.get(incident.key.partition(":")[2])
            how = None if run is None else _went_on(run)
        elif incident.key not in standing and _seen_to_be_over(incident.key, beginning, facts):
            how = _how(beginning)
        if how is not None and resolve_alarm(state, incident.key, how=how, now=facts.now):
            done.closed.append(incident.title)


def _went_on(run: RunFact) -> str | None:
    """Return why a run's alarm is over; its verdict closes it elsewhere."""
    if run.driven:
        return f"It goes on: process {run.pid} on {run.host} drives it."
    if run.overtaken_by is not None:
        return f"A later run took its place: {run.overtaken_by}."
    return None


def _seen_to_be_over(key: str, beginning: str, facts: Facts) -> bool:
    """Whether this look could see what the incident is about."""
    if beginning not in _HANGS_ON or facts.unread(*_HANGS_ON[beginning]):
        return False
    if "prefect" in _HANGS_ON[beginning] or beginning == "prefect":
        # A watchdog without a server, or with one that is down, knows nothing of it.
        return facts.prefect == "up"
    # Routers and faults are seen from one machine: each closes its own.
    return beginning not in ("router", "watchdog") or key.endswith(f"@{facts.host}")


def _how(beginning: str) -> str:
    return {
        "gate": "The gate goes on, ended, or a later one did.",
        "flow": "A later run of it came to its end.",
        "schedule": "A run of it started, or a later one is due.",
        "alerts": "Everything that waited was delivered.",
        "workers": "Nothing waits any more, or somebody takes runs again.",
        "prefect": "The server answers again.",
        "router": "The router shows production.",
        "unwatched": "Somebody looks again, or a person stopped the watch.",
        "watchdog": "It works again.",
    }[beginning]
