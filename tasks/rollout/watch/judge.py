"""What one look at live outcomes means: watching, alarm or blind. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from tasks.policy import Policy
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.watch.inputs import fold_inputs, unseen_words
from tasks.rollout.watch.memory import Memory, hour_name, with_traffic
from tasks.rollout.watch.signals import alarms, counts, fresh, fresh_unseen, fresh_whole

Status = Literal["watching", "alarm", "blind"]

#: Days of the same hour that must be known before traffic can be called fallen.
_DAYS = 3
#: Fewer images than this in the quietest of them say nothing.
_LEAST = 50
#: Traffic below this share of the quietest same hour has fallen.
_FALLEN = 0.10
#: Silence that at the quietest usual pace would have had fewer images than this is no surprise:
#: none of 5 expected has a chance of 0.7 %.
_SURPRISE = 5.0
#: A clock this far behind what was counted is told.
_CLOCK_SLACK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look brought.

    Attributes:
        outcomes: The counts since the last look, ``None`` when no source could be read.
        error: Why not.
        inputs: Requests by (subtask, locale), ``None`` when no source knows.
    """

    outcomes: Outcomes | None
    error: str = ""
    inputs: Mapping[tuple[str, str], int] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What the watch thinks after a look.

    Attributes:
        memory: What to remember.
        status: ``alarm`` and ``blind`` are never all good.
        reason: Why, as a sentence; empty while watching.
        stopped: The watch is blind because nothing is asked for, not because it cannot see.
        warning: Inputs that the gate had no case of, as a sentence, or nothing.
    """

    memory: Memory
    status: Status
    reason: str = ""
    stopped: bool = False
    warning: str = ""


def judge(memory: Memory, look: Look, digest: str, policy: Policy, now: datetime) -> Judged:
    """Return what a look means.

    Args:
        memory: What is remembered.
        look: What came in.
        digest: The mix that is watched.
        policy: The limits.
        now: The present moment.
    """
    after = _folded(memory, look, digest, policy)
    warning = unseen_words(after, policy)
    found = alarms(after.detectors, after.whole, policy)
    if found:
        return Judged(after, "alarm", "; ".join(found), warning=warning)
    reason, stopped = _blind(after, look, policy, now)
    return Judged(after, "blind" if reason else "watching", reason, stopped, warning)


def with_limits(memory: Memory, policy: Policy) -> Memory:
    """Return the memory under new rules: detectors whose limit or promise changed start anew."""
    wanted = fresh(policy)
    kept = {
        name: old
        if (old := memory.detectors.get(name)) is not None
        and (old.limit, old.run_length) == (new.limit, new.run_length)
        else new
        for name, new in wanted.items()
    }
    unseen, whole = fresh_unseen(policy), fresh_whole(policy)
    same_unseen = (memory.unseen.limit, memory.unseen.run_length) == (
        unseen.limit,
        unseen.run_length,
    )
    same_whole = (memory.whole.limit, memory.whole.run_length) == (whole.limit, whole.run_length)
    return replace(
        memory,
        detectors=kept,
        whole=memory.whole if same_whole else whole,
        unseen=memory.unseen if same_unseen else unseen,
    )


def _folded(memory: Memory, look: Look, digest: str, policy: Policy) -> Memory:
    """Return the memory with the counts of a look in it."""
    if look.outcomes is None:
        return memory
    arm = look.outcomes.arms.get(digest, ArmOutcomes())
    at = _shown(look.outcomes.since)
    detectors = dict(memory.detectors)
    for name, detector in memory.detectors.items():
        pair = counts(name, arm, policy)
        if pair is not None:
            detectors[name] = detector.seen(*pair, at=at)
    until = look.outcomes.until
    after = replace(
        memory,
        detectors=detectors,
        whole=memory.whole.then(arm.images, arm.failures, arm.judged or 0, arm.defects or 0, at=at),
        seen_at=max(until, memory.seen_at) if arm.images else memory.seen_at,
        hours=with_traffic(memory.hours, look.outcomes.since, until, arm.images),
    )
    return fold_inputs(after, look.inputs)


def _blind(memory: Memory, look: Look, policy: Policy, now: datetime) -> tuple[str, bool]:
    """Return why the watch sees nothing, and whether it is because nothing is asked for."""
    if memory.seen_at - now > _CLOCK_SLACK:
        return (
            f"the clock went back: images are counted until {_shown(memory.seen_at)}, now it is "
            f"{_shown(now)}; set the clock, or begin anew with `imagegate watch restart`",
            False,
        )
    patience = timedelta(minutes=policy.watch.blind_minutes)
    if now - memory.seen_at >= patience:
        why, stopped = _silence(look, now - patience)
        if stopped and _expected(memory, memory.seen_at, now) < _SURPRISE:
            return "", False
        return f"no image of this mix was counted since {_shown(memory.seen_at)}{why}", stopped
    fallen = _fallen(memory, look)
    return (fallen, True) if fallen else ("", False)


def _silence(look: Look, late: datetime) -> tuple[str, bool]:
    """Return why nothing was counted for long, and whether nothing was asked for."""
    if look.outcomes is None:
        return f": {look.error}", False
    if look.outcomes.errors:
        return f": {'; '.join(look.outcomes.errors)}", False
    if look.outcomes.others:
        return (
            f", but {look.outcomes.others:,} of another mix: the router serves something else, "
            "or the log names no mix",
            False,
        )
    if look.outcomes.until <= late:
        return f": the data ends at {_shown(look.outcomes.until)}", False
    return ": the traffic has stopped, or does not reach the log", True


def _usual(memory: Memory, hour: datetime, before: datetime) -> list[int]:
    """Return the images of the same hour on the days before, as far as they are known.

    Args:
        memory: What is remembered.
        hour: A moment in the hour.
        before: Hours from this moment on do not count: silence must not become usual.
    """
    oldest, newest = min(memory.hours, default=""), hour_name(before)
    names = [hour_name(hour - timedelta(days=day)) for day in range(1, 8)]
    return [memory.hours.get(name, 0) for name in names if oldest and oldest < name < newest]


def _expected(memory: Memory, since: datetime, now: datetime) -> float:
    """Return the images that the quietest usual pace brings in a time; infinite when not known."""
    total, at = 0.0, since
    while at < now:
        end = min(now, at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1))
        usual = _usual(memory, at, since)
        if len(usual) < _DAYS:
            return math.inf
        total += min(usual) * (end - at).total_seconds() / 3600
        if total >= _SURPRISE:
            return total
        at = end
    return total


def _fallen(memory: Memory, look: Look) -> str:
    """Return that the last whole hour had hardly any of its usual traffic, or nothing."""
    if look.outcomes is None or not memory.hours:
        return ""
    hour = look.outcomes.until - timedelta(hours=1)
    usual = _usual(memory, hour, hour)
    if len(usual) < _DAYS or min(usual) < _LEAST:
        return ""
    count = memory.hours.get(hour_name(hour), 0)
    if count >= _FALLEN * min(usual):
        return ""
    return (
        f"{count:,} images in the hour before {_shown(look.outcomes.until)}; at this hour the "
        f"quietest of the last {len(usual)} days had {min(usual):,}"
    )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
