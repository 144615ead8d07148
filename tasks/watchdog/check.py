"""What is wrong, decided from facts alone: no input, no output, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from tasks.watchdog.cron import missed_fire
from tasks.watchdog.gates import gate_troubles
from tasks.watchdog.model import (
    GATE_FLOW,
    Action,
    Facts,
    Fault,
    FlowFact,
    Limits,
    PoolFact,
    Trouble,
)
from tasks.watchdog.silence import silence
from tasks.watchdog.words import ago, clock, one_line


def look(facts: Facts, limits: Limits | None = None) -> list[Trouble]:
    """Return everything that is wrong, one trouble a cause.

    A check that breaks is a trouble itself and keeps none of the others from being made.
    """
    limits = limits or Limits()
    checks: tuple[Callable[[Facts, Limits], Iterable[Trouble]], ...] = (
        gate_troubles,
        _stuck_flows,
        _broken_flows,
        _missed_schedules,
        _undelivered,
        _takers,
        _server,
        _drifts,
        _unwatched,
        _faults,
    )
    found: dict[str, Trouble] = {}
    for check in checks:
        try:
            for trouble in check(facts, limits):
                found.setdefault(trouble.key, trouble)
        except Exception as error:  # noqa: BLE001 - one broken check must not silence the rest
            fault = Fault(f"check:{check.__name__.strip('_')}", f"{type(error).__name__}: {error}")
            found[fault.source] = blind_to(fault, facts.host)
    return list(found.values())


def _stuck_flows(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    """Short flows of ours that no process drives any more; their next run comes by itself."""
    for flow in facts.flows:
        if flow.flow == GATE_FLOW or flow.deployment is None:
            continue
        if (silent := silence(flow, facts.now, limits)) is None:
            continue
        yield Trouble(
            key=f"flow:{flow.deployment}",
            kind="flow",
            title=f"{flow.deployment} hangs: no process drives it",
            severity="warning",
            lines=(f"{flow.shown}: {silent}. It is booked as crashed, which frees its slot.",),
            asked=("Look at the worker's log if it happens again.",),
            action=Action("crash", flow.id, why=f"found dead by imagegate's watchdog: {silent}"),
        )


def _broken_flows(facts: Facts, _limits: Limits) -> Iterable[Trouble]:
    """Deployments of short flows whose last run went wrong."""
    newest: dict[str, FlowFact] = {}
    for flow in facts.flows:
        if flow.flow == GATE_FLOW or flow.deployment is None:
            continue
        if flow.state in ("COMPLETED", "CRASHED", "FAILED", "CANCELLED"):
            known = newest.get(flow.deployment)
            if known is None or known.since < flow.since:
                newest[flow.deployment] = flow
    for name, flow in newest.items():
        if flow.state in ("CRASHED", "FAILED"):
            yield Trouble(
                key=f"flow:{name}",
                kind="flow",
                title=f"{name} {flow.state.lower()}",
                severity="warning",
                lines=(f"{flow.shown}: {one_line(flow.message)}",),
                asked=("Read its log in Prefect; it is tried again when it is due.",),
            )


def _missed_schedules(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    for booked in facts.schedules:
        starts = [booked.started_at] if booked.started_at is not None else []
        starts += [
            flow.started_at
            for flow in facts.flows
            if flow.deployment == booked.name and flow.started_at is not None
        ]
        schedule = replace(booked, started_at=max(starts, default=None))
        due = missed_fire(schedule, facts.now, limits.schedule_grace_s)
        if due is None:
            continue
        last = (
            "It never started a run."
            if schedule.started_at is None
            else f"Its last run started {clock(schedule.started_at)}."
        )
        yield Trouble(
            key=f"schedule:{schedule.name}:{due.astimezone(UTC):%Y-%m-%dT%H:%MZ}",
            kind="schedule",
            title=f"MISSED: {schedule.name} did not start at {clock(due)}",
            severity="warning",
            product=schedule.product,
            lines=(
                f"Schedule {schedule.cron!r} ({schedule.timezone}) was due {clock(due)}, "
                f"{ago((facts.now - due).total_seconds())} ago. {last}",
            ),
            asked=(
                "See whether Prefect's server and a worker are up, and whether the schedule is "
                "paused; start the run by hand if the night's verdict is needed.",
            ),
        )


def _undelivered(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    alerts = facts.alerts
    if alerts is None:
        return
    waits = ago((facts.now - alerts.oldest_at).total_seconds())
    lines = [f"{alerts.count} messages wait, the oldest for {waits}."]
    if alerts.last_error:
        lines.append(f"Last error: {one_line(alerts.last_error)}")
    lines.append("Oldest: " + ", ".join(alerts.examples))
    yield Trouble(
        key="alerts:undelivered",
        kind="alerts",
        title=f"People were not told: {alerts.count} alerts wait since {clock(alerts.oldest_at)}",
        severity="page",
        lines=tuple(lines),
        asked=(
            "`imagegate alerts` lists them; mend the token or the channel, then "
            "`imagegate alerts deliver`.",
        ),
    )


def _takers(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    for pool in facts.pools:
        if not pool.late or pool.paused:
            continue
        who = f"work pool {pool.name}" if pool.taker == "worker" else "`imagegate serve`"
        waiting = _waiting(pool, facts.now)
        if not pool.online:
            seen = "never" if pool.last_seen_at is None else clock(pool.last_seen_at)
            start = (
                f"`prefect worker start --pool {pool.name}`"
                if pool.taker == "worker"
                else "`imagegate serve`"
            )
            yield Trouble(
                key=f"workers:{pool.name}:none",
                kind="workers",
                title=f"NOBODY TAKES RUNS: {who} has no living {pool.taker}",
                severity="warning",
                lines=(f"Last sign of life: {seen}.", *waiting),
                asked=(f"Start one: {start}.",),
            )
        else:
            yield Trouble(
                key=f"workers:{pool.name}:late",
                kind="workers",
                title=f"Runs are late: {who} is up and does not take them",
                severity="warning",
                lines=(f"Online: {', '.join(pool.online)}.", *waiting),
                asked=("Look at its limits of concurrency and at its log.",),
            )


def _waiting(pool: PoolFact, now: datetime) -> tuple[str, ...]:
    lines = []
    for flow in pool.late[:5]:
        late = ago((now - (flow.expected_at or flow.since)).total_seconds())
        lines.append(f"{flow.shown}: waits since {late}.")
    if len(pool.late) > 5:
        lines.append(f"… and {len(pool.late) - 5} more.")
    return tuple(lines)


def _server(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    if facts.prefect != "down" or facts.prefect_seen_at is None:
        return
    silent = (facts.now - facts.prefect_seen_at).total_seconds()
    if silent > limits.prefect_silence_s:
        yield Trouble(
            key="prefect:down",
            kind="prefect",
            title="Prefect's server does not answer: no gate starts or resumes",
            severity="warning",
            lines=(
                f"{facts.prefect_url} last answered {clock(facts.prefect_seen_at)}, "
                f"{ago(silent)} ago: {one_line(facts.prefect_error)}",
            ),
            asked=("Start the server, or mend its address; gates under way go on by themselves.",),
        )


def _drifts(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    for drift in facts.drifts:
        # Either way: after the clock was put back, a change "in the future" is no reason to wait.
        if abs((facts.now - drift.changed_at).total_seconds()) <= limits.router_grace_s:
            continue
        yield Trouble(
            key=f"router:{drift.product}@{facts.host}",
            kind="router",
            title=f"The router does not show production of {drift.product}",
            severity="page",
            product=drift.product,
            lines=(f"Production is {drift.wanted}; the router shows {one_line(drift.shown)}.",),
            asked=(
                "The watchdog makes the router show it. If this message stays open, that fails: "
                f"`imagegate status --product {drift.product}`.",
            ),
            action=Action("mend_router", drift.product),
        )


def _unwatched(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    """Products whose watch has stopped to look: silence is not all good."""
    for watch in facts.watches:
        # Either way: a look "in the future" of a clock that was put back is none.
        if abs((facts.now - watch.looked_at).total_seconds()) <= limits.watch_silence_s:
            continue
        yield Trouble(
            key=f"unwatched:{watch.product}",
            kind="unwatched",
            title=f"Nobody watches what {watch.product} serves",
            severity="warning",
            product=watch.product,
            lines=(f"The last look was {clock(watch.looked_at)}.",),
            asked=(
                "Start `imagegate watch`, or the deployment live-watch; to stop it on purpose: "
                f"`imagegate watch stop --product {watch.product} --why '…'`.",
            ),
        )


def _faults(facts: Facts, _limits: Limits) -> Iterable[Trouble]:
    for fault in facts.faults:
        # A server that does not answer has its own trouble, and may be away for two minutes.
        if fault.source != "prefect":
            yield blind_to(fault, facts.host)


def blind_to(fault: Fault, host: str) -> Trouble:
    """Return a part of the watch that did not work, as a trouble of the machine it runs on."""
    return Trouble(
        key=f"watchdog:{fault.source}@{host}",
        kind="watchdog",
        title=f"The watchdog on {host} fails at {fault.source.replace(':', ' ')}",
        severity="warning",
        lines=(one_line(fault.error),),
        asked=("Mend it: until then nobody is told when this part of the gate breaks.",),
    )
