"""What the watchdog knows, what it finds, and how patient it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Severity = Literal["info", "warning", "page"]

#: What a trouble is about; the second part of its key.
Kind = Literal[
    "gate",  # a gate run or its flow run: dead, crashed, failed
    "flow",  # another flow run of ours: stuck, crashed, failed
    "schedule",  # a run that should have started did not
    "alerts",  # people were not told
    "workers",  # nobody takes runs
    "prefect",  # the server does not answer
    "router",  # the router does not show production
    "unwatched",  # the watch over what serves has stopped to look
    "watchdog",  # a check of the watchdog itself broke
]

#: What a fact is read from; while one cannot be read, nothing that hangs on it is called solved.
Source = Literal[
    "runs",
    "schedules",
    "alerts",
    "router",
    "watches",
    "resumes",
    "incidents",
    "approvals",
    "prefect",
]

#: What the watchdog does about a trouble, beyond telling people.
ActionKind = Literal[
    "resume",  # start the flow run again, with the same gate run
    "crash",  # book a flow run without a process as crashed: it holds a slot
    "cancelled",  # finish what a person cancelled and a dead process did not
    "mend_router",  # make the router show production
]

#: Flows that imagegate deploys, by name.
GATE_FLOW = "release-gate"
OUR_FLOWS = (
    GATE_FLOW,
    "production-watch",
    "budget-alarm",
    "freeze-reminder",
    "live-watch",
    "rollback-drill",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient the watchdog is, in seconds unless said otherwise."""

    #: Automatic resumes of one run; after that a person has to look.
    resumes: int = 3
    #: A living worker reports the death of its process itself, and once more when its hooks are
    #: done: a run that is started again before that would be taken for dead as well.
    report_s: float = 30.0
    #: A resume is tried again after this time, when the one before did not show.
    resume_again_s: float = 60.0
    #: A run that died longer ago is told and not resumed: production may have moved on.
    resume_age_s: float = 86_400.0
    #: From the start of a flow run until its gate run is booked.
    start_s: float = 180.0
    #: Pending without a process; pulling an image takes longer (``infrastructure_s``).
    pending_s: float = 180.0
    infrastructure_s: float = 900.0
    #: Prefect's own sign of life is due every 30 s when it is switched on.
    flow_silence_s: float = 100.0
    #: A person's cancellation that no process carries out.
    cancelling_s: float = 180.0
    #: Crashed and failed flow runs are told up to this age.
    tell_s: float = 86_400.0
    schedule_grace_s: float = 600.0
    alert_age_s: float = 600.0
    #: A flow run that no worker takes is late after this.
    late_s: float = 120.0
    #: Missed heartbeats until a worker counts as dead.
    worker_heartbeats: float = 3.0
    prefect_silence_s: float = 120.0
    #: A dead run waits this long for a server that does not answer, before people are asked.
    prefect_pause_s: float = 60.0
    #: A change of production takes the router this long at the most.
    router_grace_s: float = 60.0
    #: A watch over what serves looks every 15 s or every minute; one this silent is dead.
    watch_silence_s: float = 600.0


@dataclass(frozen=True, slots=True)
class RunFact:
    """A gate run as the state database has it."""

    run_id: str
    product: str
    status: str
    verdict: str | None
    started_at: datetime
    heartbeat_at: datetime | None
    host: str
    pid: int
    driver: str | None
    flow_run_id: str | None
    #: Whether its process may still act.
    driven: bool
    #: Whether a later run of the product is under way or came to its end.
    overtaken_by: str | None = None

    @property
    def last_sign(self) -> datetime:
        """When it was last known to live."""
        return self.heartbeat_at or self.started_at


@dataclass(frozen=True, slots=True)
class FlowFact:
    """A flow run as Prefect has it."""

    id: str
    name: str
    flow: str
    #: ``flow/deployment``, ``None`` for a run of the command line.
    deployment: str | None
    pool: str | None
    #: Type of the state in capitals, e.g. ``RUNNING``.
    state: str
    state_name: str
    message: str
    since: datetime
    expected_at: datetime | None
    #: Times that it started, and when it did for the first time.
    starts: int
    started_at: datetime | None = None
    #: Prefect's last sign of life; ``None`` when none was ever seen, or nobody asked.
    beat_at: datetime | None = None

    @property
    def shown(self) -> str:
        """How people find it."""
        return f"{self.deployment or self.flow}, flow run {self.name!r}"


@dataclass(frozen=True, slots=True)
class ScheduleFact:
    """A registered schedule."""

    name: str
    product: str | None
    cron: str
    timezone: str
    registered_at: datetime
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class AlertsFact:
    """Messages that people should have had by now."""

    count: int
    oldest_at: datetime
    last_error: str | None
    #: Keys of the oldest ones.
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolFact:
    """Who takes the runs of our deployments: a work pool, or a process that serves them."""

    name: str
    #: ``worker`` or ``server`` (``imagegate serve``).
    taker: Literal["worker", "server"]
    paused: bool
    #: Names of those that gave a sign of life in time.
    online: tuple[str, ...]
    last_seen_at: datetime | None
    #: Flow runs that wait longer than they should.
    late: tuple[FlowFact, ...]


@dataclass(frozen=True, slots=True)
class DriftFact:
    """A product whose router does not show its production mix."""

    product: str
    wanted: str
    shown: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class WatchFact:
    """A product that is watched after its release."""

    product: str
    looked_at: datetime


@dataclass(frozen=True, slots=True)
class ResumeFact:
    """How often a run was resumed by a watchdog."""

    count: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Fault:
    """A fact that could not be read, or an action that did not work."""

    source: str
    error: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that one look goes by."""

    now: datetime
    #: The machine that looks: routers and faults are seen from one.
    host: str = ""
    #: Runs that are booked as running, and those that Prefect calls crashed.
    runs: tuple[RunFact, ...] = ()
    flows: tuple[FlowFact, ...] = ()
    #: Status of the gate run by the id of the flow run that drives it, for all ``flows``.
    booked: Mapping[str, str] = field(default_factory=dict)
    schedules: tuple[ScheduleFact, ...] = ()
    alerts: AlertsFact | None = None
    pools: tuple[PoolFact, ...] = ()
    drifts: tuple[DriftFact, ...] = ()
    #: Watches that no person has stopped.
    watches: tuple[WatchFact, ...] = ()
    #: Resumes by key: the flow run's id, or the run's without one.
    resumes: Mapping[str, ResumeFact] = field(default_factory=dict)
    #: Status by key of all incidents that the watchdog or a hook ever opened.
    incidents: Mapping[str, str] = field(default_factory=dict)
    #: Whether Prefect answers: ``none`` = no server is configured.
    prefect: Literal["none", "up", "down"] = "none"
    prefect_url: str = ""
    prefect_error: str = ""
    #: When the server last answered anybody; ``None`` = never.
    prefect_seen_at: datetime | None = None
    faults: tuple[Fault, ...] = ()

    def unread(self, *sources: Source) -> bool:
        """Tell whether one of these sources could not be read."""
        return any(fault.source in sources for fault in self.faults)


@dataclass(frozen=True, slots=True)
class Action:
    """What to do about a trouble."""

    kind: ActionKind
    #: The run, flow run or product it is about.
    target: str
    #: Resumes so far, as seen: a resume is claimed against it.
    count: int = 0
    #: Which driver was found dead; it must still be the one when its run is touched.
    driver: str | None = None
    #: Why, as a sentence for Prefect's state and for the incident.
    why: str = ""
    #: The gate run that the flow run drives, if it was booked.
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong, what is asked of people, and what the watchdog does itself."""

    key: str
    kind: Kind
    title: str
    severity: Severity
    product: str | None = None
    run_id: str | None = None
    lines: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    action: Action | None = None
    #: Names this very failure of a run, so that hooks and watchdogs tell it once between them.
    event: str = ""
    #: Told to people; a trouble that is only acted upon is not.
    alarm: bool = True
