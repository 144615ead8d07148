"""Which message goes next: pure decisions over the rows that are not delivered yet.

Within a thread strictly in order; across threads the most urgent first, then the oldest. A thread
is as urgent as the most urgent message in it, so that a page never waits behind a quiet message of
its own thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tasks.alerts.config import RANK, AlertsConfig, Routing, Severity
from tasks.mix.freeze import stamp

#: Topic of updates that only show a count: they are sent once in the repeat window.
REPEATED = "incident.repeated"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is decided by: a row of the outbox without its text."""

    id: int
    kind: str
    thread: str | None
    product: str | None
    severity: str
    topic: str
    #: ``pending``, ``sending`` or ``refused``.
    status: str
    claimed_at: str | None
    not_before: str | None

    @property
    def group(self) -> str:
        """Its thread; a message without one is a thread of its own."""
        return f"#{self.id}" if self.thread is None else self.thread


@dataclass(frozen=True, slots=True)
class Ready:
    """The first message of a thread that may be sent now."""

    id: int
    #: Of the message itself, by the routing.
    severity: Severity
    #: Of the most urgent message in its thread.
    urgency: Severity
    routing: Routing
    thread: str | None
    #: More messages of its thread wait behind it.
    more: bool = False


@dataclass(slots=True)
class Plan:
    """What to do about the rows, the most urgent first."""

    ready: list[Ready] = field(default_factory=list)
    #: Messages below the least severity that is sent.
    muted: list[int] = field(default_factory=list)
    #: Why a message waits, in words, by its id.
    waits: dict[int, str] = field(default_factory=dict)
    #: Messages that wait because the routing says so: quiet hours, or a count shown later.
    on_purpose: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Wait:
    words: str
    on_purpose: bool = False


def plan(
    rows: Iterable[Waiting],
    config: AlertsConfig,
    updated_at: Mapping[str, str],
    *,
    now: datetime,
    stale: datetime,
) -> Plan:
    """Return what may be sent now, in order.

    Args:
        rows: Undelivered messages, by id.
        config: The routing.
        updated_at: When the first message of a thread was last written, for threads in Slack.
        now: The present moment.
        stale: Claims older than this are of a process that died.
    """
    groups: dict[str, list[Waiting]] = {}
    for row in sorted(rows, key=lambda row: row.id):
        if row.status != "refused":  # given up on: the thread goes on without it
            groups.setdefault(row.group, []).append(row)
    found = Plan()
    for group in groups.values():
        _look(group, config, updated_at, found, now=now, stale=stale)
    found.ready.sort(key=lambda ready: (-RANK[ready.urgency], ready.id))
    return found


def _look(
    group: list[Waiting],
    config: AlertsConfig,
    updated_at: Mapping[str, str],
    found: Plan,
    *,
    now: datetime,
    stale: datetime,
) -> None:
    """Decide about one thread."""
    routings = {row.id: config.routing(row.product) for row in group}
    severities = {row.id: routings[row.id].severity(row.topic, row.severity) for row in group}
    heard = []
    for row in group:
        # An update of a message that people have is never noise: it only keeps it true.
        keeps = row.kind == "update" and row.thread in updated_at
        least = routings[row.id].least_severity
        if row.status == "pending" and not keeps and RANK[severities[row.id]] < RANK[least]:
            found.muted.append(row.id)
        else:
            heard.append(row)
    if not heard:
        return
    head = heard[0]
    urgency = max((severities[row.id] for row in heard), key=RANK.__getitem__)
    routing = routings[head.id]
    why = _why_not(
        head,
        alone=len(heard) == 1,
        urgency=urgency,
        routing=routing,
        updated_at=updated_at,
        now=now,
        stale=stale,
    )
    for row in heard[1:]:
        found.waits[row.id] = "waits for the message before it in its thread"
    if why is not None:
        found.waits[head.id] = why.words
        if why.on_purpose:
            found.on_purpose |= {row.id for row in heard}
        return
    more = len(heard) > 1
    found.ready.append(Ready(head.id, severities[head.id], urgency, routing, head.thread, more))


def _why_not(
    head: Waiting,
    *,
    alone: bool,
    urgency: Severity,
    routing: Routing,
    updated_at: Mapping[str, str],
    now: datetime,
    stale: datetime,
) -> _Wait | None:
    """Return why the first message of a thread is not sent now, ``None`` when it is."""
    if head.status == "sending" and (head.claimed_at or "") >= stamp(stale):
        return _Wait("is being sent")
    if head.not_before is not None and head.not_before > stamp(now):
        return _Wait(f"was refused; tried again at {head.not_before}")
    silent = head.kind == "update" and head.thread in updated_at
    if urgency != "page" and not silent and routing.quiet_hours is not None:
        end = routing.quiet_hours.end(now)
        if end is not None:
            return _Wait(f"quiet hours until {stamp(end)}", on_purpose=True)
    if head.topic == REPEATED and alone and head.thread in updated_at:
        last = datetime.fromisoformat(updated_at[head.thread or ""])
        again = last + timedelta(minutes=routing.repeat_minutes)
        if now < again:
            return _Wait(f"shows the count at {stamp(again)}", on_purpose=True)
    return None
