"""Reading what a look goes by: the state database, the router, and Prefect's server.

Each source is read for itself: one that cannot be read is a fault among the facts, never the end
of the look.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from tasks.alerts.claims import overdue
from tasks.alerts.config import load_or_default
from tasks.errors import RolloutError
from tasks.mix.freeze import stamp
from tasks.mix.production import Production, served
from tasks.rollout.config import open_router
from tasks.runs import is_driven
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import heartbeats, incidents, production, resumes, runs, schedules, watches
from tasks.watchdog.model import (
    AlertsFact,
    DriftFact,
    Facts,
    Fault,
    FlowFact,
    Limits,
    ResumeFact,
    RunFact,
    ScheduleFact,
    Source,
    WatchFact,
)
from tasks.watchdog.prefect_side import PrefectSide, Seen

T = TypeVar("T")

#: What must not get into an alarm: tokens, addresses of webhooks, the user of an address.
_SECRET = re.compile(
    r"xox[a-z]*-[\w-]+|xapp-[\w-]+|https?://hooks\.\S+|(?<=://)[^/@\s]+@|(?i:bearer|basic)\s+\S+"
)

#: Row of ``heartbeats`` that says when Prefect's server last answered.
PREFECT_BEAT = "prefect-server"
#: Runs that are looked at, newest first; a bound on the work of one look.
MOST = 500


def read_facts(
    state: State,
    settings: Settings,
    now: datetime,
    prefect: PrefectSide | None,
    limits: Limits,
) -> Facts:
    """Return what is known now.

    Args:
        state: The state database.
        settings: Where things lie.
        now: The present moment.
        prefect: Prefect's server; ``None`` when none is configured.
        limits: How far back to look.
    """
    faults: list[Fault] = []

    def tried(source: Source, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - any broken source is a fault, not the end
            faults.append(Fault(source, said(error)))
            return otherwise

    seen = Seen()
    reached, error, last = "none", "", None
    if prefect is not None:
        last = tried("prefect", lambda: _last_answer(state, prefect.shown), None)
        try:
            seen = prefect.look(now, limits)
            reached = "up"
        except Exception as failed:  # noqa: BLE001 - the client raises what it likes
            reached, error = "down", said(failed)
            faults.append(Fault("prefect", error))
    none: tuple[RunFact, ...] = ()
    no_flows: tuple[FlowFact, ...] = ()
    booked_runs = tried("runs", lambda: _runs(state, now, limits), none)
    flows = seen.flows
    if prefect is not None and reached == "up":
        tried("prefect", lambda: _answered(state, prefect.shown, now), None)
        last = now
        known = {flow.id for flow in flows}
        lost = [r.flow_run_id for r in booked_runs if r.flow_run_id and not r.driven]
        missing = [flow_id for flow_id in lost if flow_id not in known]
        flows += tried("prefect", lambda: prefect.flows_by_id(missing), no_flows)
    return Facts(
        now=now,
        host=socket.gethostname(),
        runs=booked_runs,
        flows=flows,
        booked=tried("runs", lambda: _booked(state, flows), {}),
        schedules=tried("schedules", lambda: _schedules(state), ()),
        alerts=tried("alerts", lambda: _alerts(state, settings, now, limits), None),
        pools=seen.pools,
        drifts=tried("router", lambda: _drifts(state, settings), ()),
        watches=tried("watches", lambda: _watches(state), ()),
        resumes=tried("resumes", lambda: _resumes(state), {}),
        incidents=tried("incidents", lambda: _incidents(state), {}),
        prefect=reached,  # type: ignore[arg-type]
        prefect_url=prefect.shown if prefect is not None else "",
        prefect_error=error,
        prefect_seen_at=last,
        faults=tuple(faults),
    )


def said(error: BaseException) -> str:
    """Return an error as one line without secrets."""
    text = " ".join(str(error).split()) or "no message"
    return _SECRET.sub("(hidden)", f"{type(error).__name__}: {text}")[:400]


def moment(text: str) -> datetime:
    """Return a timestamp of the state database as a moment."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _maybe(text: str | None) -> datetime | None:
    return None if text is None else moment(text)


def _watches(state: State) -> tuple[WatchFact, ...]:
    """Watches over what serves that should be looking."""
    query = (
        sa.select(watches.c.product, watches.c.updated_at)
        .where(watches.c.status != "stopped")
        .order_by(watches.c.product)
    )
    with state.begin() as connection:
        rows = connection.execute(query).all()
    return tuple(WatchFact(row.product, moment(row.updated_at)) for row in rows)


def _runs(state: State, now: datetime, limits: Limits) -> tuple[RunFact, ...]:
    """Runs without an end, and those of the last day that broke."""
    since = stamp(now - timedelta(seconds=max(limits.tell_s, limits.resume_age_s)))
    broken = runs.c.status.in_(("failed", "stopped")) & (runs.c.started_at >= since)
    query = (
        sa.select(runs)
        .where((runs.c.status == "running") | broken)
        .order_by(runs.c.started_at.desc())
        .limit(MOST)
    )
    newest = sa.select(runs.c.product, runs.c.run_id, runs.c.started_at).where(
        runs.c.status.in_(("finished", "waiting", "running"))
    )
    with state.begin() as connection:
        rows = connection.execute(query).all()
        later = connection.execute(newest).all() if rows else []
    found = []
    for row in rows:
        driven = row.status == "running" and is_driven(row.host, row.pid, row.heartbeat_at, now=now)
        found.append(
            RunFact(
                run_id=row.run_id,
                product=row.product,
                status=row.status,
                verdict=row.verdict,
                started_at=moment(row.started_at),
                heartbeat_at=_maybe(row.heartbeat_at),
                host=row.host,
                pid=row.pid,
                driver=row.driver,
                flow_run_id=row.flow_run_id,
                driven=driven,
                overtaken_by=next(
                    (
                        other.run_id
                        for other in later
                        if other.product == row.product and other.started_at > row.started_at
                    ),
                    None,
                ),
            )
        )
    return tuple(found)


def _booked(state: State, flows: tuple[FlowFact, ...]) -> dict[str, str]:
    ids = [flow.id for flow in flows]
    if not ids:
        return {}
    query = sa.select(runs.c.flow_run_id, runs.c.status).where(runs.c.flow_run_id.in_(ids))
    with state.begin() as connection:
        return {row.flow_run_id: row.status for row in connection.execute(query)}


def _schedules(state: State) -> tuple[ScheduleFact, ...]:
    """Schedules, with when a gate of their product last started, by whatever way."""
    last = sa.select(runs.c.product, sa.func.max(runs.c.started_at).label("at"))
    with state.begin() as connection:
        rows = connection.execute(sa.select(schedules).order_by(schedules.c.name)).all()
        started = {row.product: row.at for row in connection.execute(last.group_by(runs.c.product))}
    return tuple(
        ScheduleFact(
            name=row.name,
            product=row.product,
            cron=row.cron,
            timezone=row.timezone,
            registered_at=moment(row.registered_at),
            started_at=max(
                (moment(at) for at in (row.started_at, started.get(row.product)) if at is not None),
                default=None,
            ),
        )
        for row in rows
    )


def _alerts(state: State, settings: Settings, now: datetime, limits: Limits) -> AlertsFact | None:
    """Messages that wait too long; one that is held back on purpose waits from its own time.

    Where no channel is configured nobody expects to be told: there they wait for ever.
    """
    if not (settings.slack_token or settings.slack_webhook or settings.smtp_url):
        return None
    # A mistake in the routing file is told elsewhere; it must not hide messages here.
    config, _ = load_or_default(settings.alerts_file)
    rows = overdue(state, config, now=now, age=timedelta(seconds=limits.alert_age_s))
    if not rows:
        return None
    errors = [row.last_error for row in rows if row.last_error]
    return AlertsFact(
        count=len(rows),
        oldest_at=moment(rows[0].created_at),
        last_error=errors[-1] if errors else None,
        examples=tuple(row.dedup_key for row in rows[:3]),
    )


def _drifts(state: State, settings: Settings) -> tuple[DriftFact, ...]:
    with state.begin() as connection:
        rows = [Production(**row) for row in connection.execute(sa.select(production)).mappings()]
    router = open_router(settings)
    found = []
    for row in rows:
        try:
            shown = router.read(row.product)
        except RolloutError as error:
            text = said(error)
        else:
            if shown is not None and row.shown_by(shown.mix_digest, shown.epoch, shown.weights):
                continue
            text = (
                "nothing"
                if shown is None
                else f"{served(shown.mix_digest, shown.weights)} (epoch {shown.epoch})"
            )
        wanted = f"{served(row.mix_digest, row.weights)} (epoch {row.epoch})"
        found.append(DriftFact(row.product, wanted, text, moment(row.changed_at)))
    return tuple(found)


def _resumes(state: State) -> dict[str, ResumeFact]:
    with state.begin() as connection:
        rows = connection.execute(sa.select(resumes)).all()
    return {row.key: ResumeFact(row._mapping["count"], moment(row.at)) for row in rows}


def _incidents(state: State) -> dict[str, str]:
    with state.begin() as connection:
        return {
            row.key: row.status
            for row in connection.execute(sa.select(incidents.c.key, incidents.c.status))
        }


def _last_answer(state: State, url: str) -> datetime | None:
    """When the server last answered; another server's answer counts for nothing."""
    query = sa.select(heartbeats).where(heartbeats.c.name == PREFECT_BEAT)
    with state.begin() as connection:
        row = connection.execute(query).one_or_none()
    return moment(row.at) if row is not None and row.detail == url else None


def _answered(state: State, url: str, now: datetime) -> None:
    beat(state, PREFECT_BEAT, now, url)


def beat(state: State, name: str, now: datetime, detail: str | None = None) -> None:
    """Note a sign of life of a long-running part of imagegate."""
    values = {"at": stamp(now), "detail": detail}
    with state.begin() as connection:
        done = connection.execute(
            sa.update(heartbeats).where(heartbeats.c.name == name).values(**values)
        )
        # Transactions of the state database run one after another: nobody else inserts meanwhile.
        if done.rowcount == 0:
            connection.execute(sa.insert(heartbeats).values(name=name, **values))


def read_beats(state: State) -> dict[str, Any]:
    """Return when each long-running part last gave a sign of life, by name."""
    with state.begin() as connection:
        return {row.name: row.at for row in connection.execute(sa.select(heartbeats))}
