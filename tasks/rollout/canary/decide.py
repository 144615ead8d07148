"""Whether a canary goes on, waits, holds or is rolled back: one pure function.

Evidence against the candidate is looked at over the whole canary. For each test it is a mixture
over where a fault may begin: half on all images from the first one, half in equal parts on each
step's own images, so that a candidate that breaks under load is not hidden behind its good first
steps. A step that has not begun holds its part at 1. A mixture of e-processes is one, so the
whole canary spends each test's share of alpha once (Ville 1939), however many looks and steps.

Evidence for passing a step comes from that step's images alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from tasks.canary_rules import CanaryRule
from tasks.rollout.canary.progress import COMPARED, Arm, CanaryPlan, Compared, Progress, Tally, sums
from tasks.rollout.canary.two_samples import GRID, LOG_WEIGHTS
from tasks.verdict.betting import fail_bets, log_e, pass_bets
from tasks.verdict.sequential import images_needed

Act = Literal["advance", "wait", "hold", "roll_back"]

#: Shares of alpha. Half is on the failure rate itself, as in the gate.
SHARES: dict[str, float] = {
    "limit": 0.5,
    "failures": 0.25,
    "defects": 0.10,
    "slow": 0.05,
    "cost": 0.05,
    "tickets": 0.05,
}
#: Part of a test's evidence that counts all images from the first one.
_WHOLE = 0.5
#: Traffic is not called too little before a step had this time to show it.
PATIENCE = timedelta(minutes=5)
_WORDS: dict[Compared, str] = {
    "failures": "failures",
    "defects": "defects found by the checks",
    "slow": "slow images",
    "cost": "cost of an image",
    "tickets": "support tickets",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look came to.

    Attributes:
        act: ``advance`` to the next step (from the last one: to all traffic), ``wait`` for soak
            or images, ``hold`` for people or for traffic, or ``roll_back``.
        reason: Why, as a sentence for people.
        ready_at: When at the traffic seen the step is passed; ``None`` when nobody can say.
    """

    act: Act
    reason: str
    ready_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One test against the candidate; logarithms of the evidence and of what it has to reach."""

    name: str
    log_e: float
    enough: float

    @property
    def proven(self) -> bool:
        """Whether it is enough."""
        return self.log_e >= self.enough


def decide(plan: CanaryPlan, progress: Progress, step: int, step_started_at: datetime) -> Decision:
    """Return what becomes of the candidate by what is counted.

    The moment that counts is ``progress.counted_until``: a step does not grow older, nor traffic
    rarer, by outcomes that were not read yet.

    Args:
        plan: What the canary walks by.
        progress: What was counted.
        step: The present step.
        step_started_at: When the router was read back to show its share.
    """
    rule, here = plan.rule, plan.rule.steps[step]
    # A fault that is proven is acted on, however incomplete the last look was.
    for proof in evidence(rule, progress):
        if proof.proven:
            return Decision("roll_back", _against(plan, progress, proof, step))
    if progress.errors:
        return _blind(rule, progress)
    tally = _tally(progress, step)
    until = datetime.fromisoformat(progress.counted_until)
    soaked_at = step_started_at + timedelta(minutes=here.soak_minutes)
    missing = [name for name in rule.required if not _measured(tally.candidate, name)]
    ready_at = _ready_at(plan, tally.candidate, step, step_started_at, until)
    if until < soaked_at:
        shown = None if ready_at is None else max(ready_at, soaked_at)
        return Decision("wait", f"the step soaks until {_at(soaked_at)}", shown)
    if missing:
        return Decision(
            "hold",
            f"{', '.join(missing)} of the candidate is required by the policy and no source "
            "measured it in this step",
        )
    if ready_at is not None and ready_at <= until:
        return Decision("advance", _for(plan, tally.candidate, step), until)
    return _not_yet(plan, tally.candidate, step, step_started_at, until, ready_at)


def _blind(rule: CanaryRule, progress: Progress) -> Decision:
    """Return what follows from outcomes that could not be read: no step, and no rollback."""
    if progress.errors > rule.query_errors:
        return Decision(
            "hold",
            f"{progress.errors} looks in a row could not read the outcomes, "
            f"{rule.query_errors} are allowed: {progress.last_error}",
        )
    return Decision("wait", f"outcomes could not be read: {progress.last_error}")


def evidence(rule: CanaryRule, progress: Progress) -> tuple[Evidence, ...]:
    """Return all tests against the candidate, over the whole canary."""
    bets = fail_bets(rule.limit)
    steps = len(rule.steps)
    arms = [tally.candidate for tally in progress.tallies]
    whole = sums(progress.tallies)["candidate"]
    limit = _mixed(
        float(log_e(bets, whole.images, whole.failures)),
        (float(log_e(bets, arm.images, arm.failures)) for arm in arms),
        steps,
    )
    found = [Evidence("limit", limit, -math.log(rule.alpha * SHARES["limit"]))]
    for what in COMPARED:
        by_step = [np.asarray(t.wealth.get(what, (0.0,) * GRID)) for t in progress.tallies]
        parts = [float(np.logaddexp.reduce(w + LOG_WEIGHTS)) for w in by_step]
        total = float(np.logaddexp.reduce(np.sum(by_step, axis=0) + LOG_WEIGHTS))
        enough = -math.log(rule.alpha * SHARES[what])
        found.append(Evidence(what, _mixed(total, parts, steps), enough))
    return tuple(found)


def _mixed(whole: float, by_step: Iterable[float], steps: int) -> float:
    """Return log of the mixture over where a fault may begin."""
    begun = list(by_step)
    parts = np.asarray([*begun, *(0.0 for _ in range(steps - len(begun)))])
    log_share = math.log((1 - _WHOLE) / steps)
    return float(np.logaddexp(math.log(_WHOLE) + whole, np.logaddexp.reduce(parts + log_share)))


def _tally(progress: Progress, step: int) -> Tally:
    return progress.tallies[step] if step < len(progress.tallies) else Tally()


def _measured(arm: Arm, name: str) -> bool:
    count = {"defects": arm.judged, "slow": arm.timed, "cost": arm.costed, "tickets": arm.ticketed}
    return count[name] > 0


def _ready_at(
    plan: CanaryPlan, arm: Arm, step: int, started_at: datetime, until: datetime
) -> datetime | None:
    """Return when the step has its images and its proof, at the traffic and failures seen."""
    here = plan.rule.steps[step]
    more = images_needed(
        arm.failures, arm.images, below=here.promote_below, log_threshold=-math.log(plan.rule.beta)
    )
    if more is None:
        return None
    more = max(more, here.images - arm.images)
    if more <= 0:
        return until
    seconds = (until - started_at).total_seconds()
    if arm.images == 0 or seconds <= 0:
        return None
    wait = more * seconds / arm.images
    # Beyond a year nobody waits, and dates end.
    return until + timedelta(seconds=wait) if wait < 366 * 86400 else None


def _not_yet(
    plan: CanaryPlan,
    arm: Arm,
    step: int,
    started_at: datetime,
    until: datetime,
    ready_at: datetime | None,
) -> Decision:
    """Return whether to wait on for the proof or to hold."""
    here = plan.rule.steps[step]
    bar = f"fewer than {_percent(here.promote_below)} fail"
    seen = f"{arm.failures} of {arm.images} images of this step failed"
    if until < started_at + min(PATIENCE, timedelta(hours=here.max_hours)):
        return Decision("wait", f"{seen} so far; the step has just begun", ready_at)
    if arm.images == 0:
        return Decision(
            "hold",
            "no image of the candidate was counted in this step: no traffic reaches it, or the "
            "sources do not see it",
        )
    latest = started_at + timedelta(hours=here.max_hours)
    if ready_at is None and arm.images < here.images:
        return Decision("wait", f"{seen}, {here.images} are needed at least")
    if ready_at is None:
        return Decision(
            "hold", f"{seen}; at this rate it is never proven that {bar}. A person decides"
        )
    if ready_at > latest:
        return Decision(
            "hold",
            f"too little traffic: {seen}; at this pace there is enough at {_at(ready_at)}, the "
            f"step is to end by {_at(latest)}",
            ready_at,
        )
    return Decision(
        "wait",
        f"{seen}; that {bar} is proven at {_at(ready_at)} at this pace, with "
        f"{here.images} images at least",
        ready_at,
    )


def _for(plan: CanaryPlan, arm: Arm, step: int) -> str:
    here = plan.rule.steps[step]
    return (
        f"{arm.failures} of {arm.images} images at {_percent(here.weight)} of the traffic failed: "
        f"proven to be fewer than {_percent(here.promote_below)}"
    )


def _against(plan: CanaryPlan, progress: Progress, proof: Evidence, step: int) -> str:
    """Return the reason of a rollback."""
    rule, total = plan.rule, sums(progress.tallies)
    here = _tally(progress, step)
    most = rule.most_usd * 1_000_000
    what: Compared = "failures" if proof.name == "limit" else proof.name  # type: ignore[assignment]

    def rate(arm: Arm) -> str:
        side = arm.side(what, most)
        if what == "cost":
            return f"${side.bad * rule.most_usd / side.images:.4f}" if side.images else "nothing"
        return f"{side.bad:g} of {side.images:g}"

    now = f"at {_percent(rule.steps[step].weight)} of the traffic {rate(here.candidate)}"
    if proof.name == "limit":
        return (
            f"the candidate fails more often than {_percent(rule.limit)}: {now}, in all "
            f"{rate(total['candidate'])} images"
        )
    allowed = {
        "failures": f"by more than {_percent(rule.margin)}",
        "defects": f"by more than {_percent(rule.margin)}",
        "slow": f"by more than {_percent(rule.slow_margin)}",
        "cost": f"by more than {rule.cost_ratio:g} times",
        "tickets": f"by more than {rule.ticket_ratio:g} times",
    }[what]
    return (
        f"{_WORDS[what]} of the candidate are above the baseline's {allowed} in the same windows: "
        f"{now}, in all {rate(total['candidate'])} against {rate(total['baseline'])}"
    )


def pass_evidence(rule: CanaryRule, arm: Arm, step: int) -> float:
    """Return the logarithm of the evidence that the step's bar is kept."""
    bets = pass_bets(rule.steps[step].promote_below)
    return float(log_e(bets, arm.images, arm.failures))


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
