"""Gate runs that died, crashed or failed: which are resumed, and what people are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tasks.watchdog.failure import is_refusal
from tasks.watchdog.model import (
    GATE_FLOW,
    Action,
    Facts,
    FlowFact,
    Limits,
    ResumeFact,
    RunFact,
    Severity,
    Trouble,
)
from tasks.watchdog.silence import silence
from tasks.watchdog.words import ago, clock, one_line

#: How the message of a state begins that the watchdog itself gave a flow run.
FOUND_DEAD = "found dead by imagegate's watchdog"


@dataclass(frozen=True, slots=True)
class _Case:
    """A gate that is not well: its run, its flow run, or both."""

    run: RunFact | None
    flow: FlowFact | None
    #: Why it is taken for dead, as a sentence.
    why: str

    @property
    def target(self) -> str:
        """The flow run's id, or the run's without one: resumes are counted by it."""
        if self.flow is not None:
            return self.flow.id
        return (self.run.flow_run_id or self.run.run_id) if self.run is not None else ""

    @property
    def key(self) -> str:
        """A run's alarm lives in the run's thread."""
        return f"gate:{self.target}" if self.run is None else f"run:{self.run.run_id}"

    @property
    def shown(self) -> str:
        if self.run is not None:
            return f"Run {self.run.run_id}"
        return "" if self.flow is None else self.flow.shown


def gate_troubles(facts: Facts, limits: Limits) -> Iterable[Trouble]:
    """Return what is wrong with gate runs and with the flow runs that drive them."""
    flows = {flow.id: flow for flow in facts.flows}
    taken = set()
    for run in facts.runs:
        flow = flows.get(run.flow_run_id) if run.flow_run_id else None
        if flow is not None:
            taken.add(flow.id)
        if (trouble := _run_trouble(run, flow, facts, limits)) is not None:
            yield trouble
    for flow in facts.flows:
        if flow.flow == GATE_FLOW and flow.id not in taken:
            trouble = _flow_trouble(flow, facts, limits)
            if trouble is not None:
                yield trouble


def _run_trouble(
    run: RunFact, flow: FlowFact | None, facts: Facts, limits: Limits
) -> Trouble | None:
    if run.driven or run.overtaken_by is not None:
        return None
    if flow is not None and flow.state in ("CANCELLED", "CANCELLING"):
        return _cancelled(run, flow, facts, limits)
    crashed = flow is not None and flow.state == "CRASHED"
    if run.status == "failed" and not crashed:
        # Any other state is on its way to its end, or a person started it again.
        ended = flow is None or flow.state == "FAILED"
        return _failed(run, flow, facts) if ended else None
    if _too_early(run, flow, facts, limits):
        return None
    silent = ago((facts.now - run.last_sign).total_seconds())
    why = (
        f"its process {run.pid} on {run.host} is gone; last sign of life {silent} ago"
        if run.status != "failed"
        else f"its process on {run.host} was ended: "
        + one_line(flow.message if flow is not None else "")
    )
    return _dead(_Case(run, flow, why), facts, limits)


def _too_early(run: RunFact, flow: FlowFact | None, facts: Facts, limits: Limits) -> bool:
    """Whether somebody else may still say what happened, or can be asked again in a moment."""
    if flow is None:
        seen = facts.prefect_seen_at
        return (
            run.flow_run_id is not None
            and facts.prefect == "down"
            and seen is not None
            and (facts.now - seen).total_seconds() <= limits.prefect_pause_s
        )
    believed = flow.deployment is not None and flow.state in ("RUNNING", "PENDING")
    silent = (facts.now - run.last_sign).total_seconds()
    return believed and run.status == "running" and silent <= limits.report_s


def _flow_trouble(flow: FlowFact, facts: Facts, limits: Limits) -> Trouble | None:
    """A flow run without a gate run among the facts: before it was booked, or after its end."""
    booked = facts.booked.get(flow.id)
    if booked in ("finished", "waiting"):
        return _idle(flow, booked, facts, limits)
    if booked is not None or flow.deployment is None or _later_run(flow, facts):
        # Without a deployment it belongs to a command line, maybe to another state database.
        return None
    if flow.state == "CANCELLING":
        return _cancelled(None, flow, facts, limits)
    if flow.state == "FAILED":
        return _failed(None, flow, facts)
    why = None
    if flow.state == "CRASHED":
        why = f"it crashed: {one_line(flow.message)}"
    elif flow.state == "SCHEDULED" and flow.id in facts.resumes:
        why = "it was found dead before"
    else:
        why = silence(flow, facts.now, limits)
    if why is not None:
        return _dead(_Case(None, flow, why), facts, limits)
    return _unbooked(flow, facts, limits)


def _idle(flow: FlowFact, booked: str, facts: Facts, limits: Limits) -> Trouble | None:
    """A flow run whose work is done and booked: nothing to resume, only a slot to free."""
    silent = silence(flow, facts.now, limits)
    if silent is None or flow.state != "RUNNING":
        return None
    action = Action("crash", flow.id, why=f"its gate run is {booked}, and {silent}")
    return Trouble(f"gate:{flow.id}", "gate", "", "info", action=action, alarm=False)


def _unbooked(flow: FlowFact, facts: Facts, limits: Limits) -> Trouble | None:
    """A gate that runs for long without a run of its own, by a process that gives no signs."""
    age = (facts.now - flow.since).total_seconds()
    if flow.state != "RUNNING" or flow.beat_at is not None or age <= limits.start_s:
        return None
    return Trouble(
        key=f"gate:{flow.id}",
        kind="gate",
        title=f"A gate started {ago(age)} ago and has booked no run",
        severity="warning",
        lines=(
            f"{flow.shown}. Its process gives no signs of life to Prefect "
            "(PREFECT_FLOWS_HEARTBEAT_FREQUENCY is not set), so it is left alone.",
        ),
        asked=("See whether its process lives; cancel it in Prefect otherwise.",),
    )


def _later_run(flow: FlowFact, facts: Facts) -> bool:
    """Whether its deployment came to a good end afterwards."""
    return any(
        other.deployment == flow.deployment
        and other.state == "COMPLETED"
        and other.since > flow.since
        for other in facts.flows
    )


def _cancelled(run: RunFact | None, flow: FlowFact, facts: Facts, limits: Limits) -> Trouble | None:
    """A person cancelled it: nobody is alarmed and nothing is resumed."""
    if flow.state == "CANCELLING":
        age = (facts.now - flow.since).total_seconds()
        if age <= limits.cancelling_s:
            return None
    elif run is None or run.status != "running":
        return None
    action = Action(
        "cancelled",
        flow.id,
        driver=run.driver if run is not None else None,
        why="cancelled by a person; its process ended without saying so",
    )
    return Trouble(
        f"gate:{flow.id}",
        "gate",
        "",
        "info",
        run.product if run is not None else None,
        run.run_id if run is not None else None,
        action=action,
        alarm=False,
    )


def _failed(run: RunFact | None, flow: FlowFact | None, facts: Facts) -> Trouble | None:
    """A gate that ended by an error: told once, by its hook or here, never tried again."""
    case = _Case(run, flow, "")
    message = flow.message if flow is not None else ""
    refused = is_refusal(message, flow.state_name if flow is not None else "")
    key = f"gate:{case.target}" if refused else case.key
    if (flow is None or flow.deployment is None) and facts.incidents.get(key) != "open":
        # The person at the command line saw it.
        return None
    severity, title, asked = failure_words(run.product if run is not None else None, refused)
    resumed = facts.resumes.get(case.target)
    return Trouble(
        key=key,
        kind="gate",
        title=title,
        severity=severity,
        product=run.product if run is not None else None,
        run_id=run.run_id if run is not None else None,
        event=failure_event(case.target, 0 if resumed is None else resumed.count),
        lines=tuple(
            line
            for line in (flow.shown if flow is not None else case.shown, one_line(message))
            if line
        ),
        asked=asked,
    )


def failure_event(target: str, resumes: int) -> str:
    """Name one failure of a run: its hook and the watchdogs then tell it once between them."""
    return f"failed:{target}:{resumes}"


def death_event(target: str, resumes: int) -> str:
    """Name one death of a run: its hook and the watchdogs then tell it once between them."""
    return f"dead:{target}:{resumes}"


def failure_words(product: str | None, refused: bool) -> tuple[Severity, str, tuple[str, ...]]:
    """Return severity, title and what is asked, for a gate that ended by an error."""
    about = f" for {product}" if product else ""
    if refused:
        return (
            "warning",
            f"REFUSED: a gate{about} did not start, nothing was spent",
            ("Mend what the sentence names, then start the gate again.",),
        )
    return (
        "page",
        f"GATE FAILED{about}: it broke without a verdict",
        (
            "This is no verdict on the candidate. Read the run's log in Prefect, mend the cause, "
            "then resume or restart it.",
        ),
    )


def _dead(case: _Case, facts: Facts, limits: Limits) -> Trouble:
    run = case.run
    about = f" for {run.product}" if run is not None else ""
    resumed = facts.resumes.get(case.target)
    count = 0 if resumed is None else resumed.count
    step = _next_step(case, facts, limits)
    lines = [f"{case.shown}: {case.why}.", f"It was found dead, {step.done}."]
    if run is not None:
        lines.append(f"It started {clock(run.started_at)}. What it paid for is kept.")
    return Trouble(
        key=case.key,
        kind="gate",
        title=f"GATE FAILED{about}: found dead, {step.done}",
        severity=step.severity,
        product=run.product if run is not None else None,
        run_id=run.run_id if run is not None else None,
        event=_event(case.target, count, step),
        lines=tuple(lines),
        asked=(step.asked,),
        action=step.action,
    )


def _event(target: str, count: int, step: _Step) -> str:
    if step.under_way:
        return death_event(target, count - 1)  # The death that was told before the resume.
    if step.soon or (step.action is not None and step.action.kind == "resume"):
        return death_event(target, count)
    # Its hook may have promised a resume that does not come: that is told by itself.
    return f"stands:{target}:{count}"


@dataclass(frozen=True, slots=True)
class _Step:
    """What comes next for a dead gate."""

    #: What is done about it, as the end of a sentence.
    done: str
    asked: str
    severity: Severity = "page"
    action: Action | None = None
    #: It was resumed, and has not shown yet.
    under_way: bool = False
    #: It will be resumed, not yet.
    soon: bool = False


def _next_step(case: _Case, facts: Facts, limits: Limits) -> _Step:
    run, flow = case.run, case.flow
    by_hand = (
        f"`imagegate run --resume {run.run_id}` goes on with it."
        if run is not None
        else "Start it again in Prefect."
    )
    if flow is None or flow.deployment is None:
        return _unattended(case, facts, by_hand)
    resumed = facts.resumes.get(case.target)
    count = 0 if resumed is None else resumed.count
    if resumed is not None and _under_way(flow, resumed, facts, limits):
        done = f"resumed by the watchdog ({count} of {limits.resumes})"
        if flow.state == "SCHEDULED":
            done += "; it waits for a worker"
        return _Step(done, "Nothing, while it goes on.", under_way=True)
    last = run.last_sign if run is not None else flow.since
    return _given_up(flow, last, count, facts, limits, by_hand) or _resumed(
        case, flow, count, facts, limits
    )


def _given_up(
    flow: FlowFact, last: datetime, count: int, facts: Facts, limits: Limits, by_hand: str
) -> _Step | None:
    """Why a dead gate is not resumed, ``None`` when it is."""
    age = (facts.now - last).total_seconds()
    if flow.state in ("COMPLETED", "SCHEDULED", "PAUSED"):
        return _Step(f"although Prefect calls it {flow.state.lower()}", by_hand)
    if age > limits.resume_age_s:
        return _Step(f"and not resumed: it died {ago(age)} ago", by_hand, "warning")
    if count >= limits.resumes:
        asked = f"Find out what kills it, then: {by_hand}"
        return _Step(f"and given up after {count} resumes", asked)
    return None


def _resumed(case: _Case, flow: FlowFact, count: int, facts: Facts, limits: Limits) -> _Step:
    """Resume it now, or in a moment, when its worker may still report its death once more."""
    run, of = case.run, f"({count + 1} of {limits.resumes})"
    asked = "Nothing, if it goes on: the verdict follows."
    reported = flow.state == "CRASHED" and not flow.message.startswith(FOUND_DEAD)
    if reported and (facts.now - flow.since).total_seconds() <= limits.report_s:
        return _Step(f"resumed by the watchdog in half a minute {of}", asked, soon=True)
    driver, run_id = (None, None) if run is None else (run.driver, run.run_id)
    action = Action("resume", flow.id, count, driver, f"{FOUND_DEAD}: {case.why}", run_id)
    return _Step(f"resumed by the watchdog {of}", asked, action=action)


def _under_way(flow: FlowFact, resumed: ResumeFact, facts: Facts, limits: Limits) -> bool:
    """Whether a resume was done and may still show."""
    if flow.state == "SCHEDULED":
        return True  # Whether a worker takes it is another check's matter.
    since = (facts.now - resumed.at).total_seconds()
    if flow.state in ("RUNNING", "PENDING") and flow.since > resumed.at:
        # A new process has it; what it does first is to book the run as its own.
        return (facts.now - flow.since).total_seconds() <= limits.start_s
    return since <= limits.resume_again_s


def _unattended(case: _Case, facts: Facts, by_hand: str) -> _Step:
    """A gate that no worker can take: from a command line, or of a server that does not answer."""
    run, flow = case.run, case.flow
    if flow is None and facts.prefect == "down" and run is not None and run.flow_run_id:
        return _Step("and not resumed while Prefect does not answer", by_hand)
    crash = None
    if flow is not None and flow.state in ("RUNNING", "PENDING"):
        # Its flow run only needs an end in Prefect's books.
        crash = Action("crash", flow.id, driver=run.driver if run else None, why=case.why)
    # A run of a command line that died long ago wakes nobody.
    old = run is not None and (facts.now - run.last_sign).total_seconds() > 86_400
    return _Step("and nothing resumes it by itself", by_hand, "warning" if old else "page", crash)
