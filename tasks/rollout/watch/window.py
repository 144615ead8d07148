"""The rollback window: a mix that served well not long ago may return without a full gate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.errors import RefusedError
from tasks.mix.production import CHANGES, Transition, journal_of, kept_mix
from tasks.policy import Policy
from tasks.rollout.watch.memory import Past
from tasks.rollout.watch.store import read_watch
from tasks.state import State


@dataclass(frozen=True, slots=True)
class Served:
    """A stretch in which a mix served all traffic, read back from the router."""

    mix_digest: str
    began: datetime
    #: ``None`` while it serves.
    ended: datetime | None


def stretches(journal: Iterable[Transition]) -> tuple[Served, ...]:
    """Return when which mix served, oldest first; what was never verified did not serve."""
    found: list[Served] = []
    wanted: str | None = None
    for line in journal:
        at = datetime.fromisoformat(line.at)
        if line.kind in CHANGES:
            if wanted != line.to_digest and found and found[-1].ended is None:
                found[-1] = Served(found[-1].mix_digest, found[-1].began, at)
            wanted = line.to_digest
        elif line.kind == "verified" and line.to_digest == wanted:
            serves = found and found[-1].mix_digest == wanted and found[-1].ended is None
            if not serves:
                found.append(Served(wanted, at, None))
    return tuple(found)


def assert_may_return(
    state: State, product: str, digest: str, policy: Policy, now: datetime
) -> str:
    """Return why a mix may return without a full gate, as a sentence.

    Raises:
        RefusedError: It never served, served too long ago, or was found bad.
    """
    watch = read_watch(state, product)
    past = () if watch is None else watch.memory.past
    if watch is not None and watch.memory.alarm is not None:
        raise RefusedError(
            f"the watch of {product!r} has an open incident since {watch.memory.alarm.at} "
            f"({watch.memory.alarm.reason}); close it first with `imagegate watch close "
            f"--product {product} --why '…'`"
        )
    name = kept_mix(state, digest).mix.name
    served = [s for s in stretches(journal_of(state, product)) if s.mix_digest == digest]
    return judge_return(name, served, [p for p in past if p.mix_digest == digest], policy, now)


def judge_return(
    name: str, served: list[Served], past: list[Past], policy: Policy, now: datetime
) -> str:
    """Return why a mix may return, from when it served and what the watch thought of it.

    Raises:
        RefusedError: It may not.
    """
    gate = "judge it by a full gate: `imagegate run --candidate …`"
    if not served:
        raise RefusedError(f"mix {name!r} never served this product; {gate}")
    if past and past[-1].how == "alarm":
        raise RefusedError(
            f"the watch found mix {name!r} bad ({past[-1].ended}); {gate}. When it was not to "
            "blame, say so as you close the incident: `imagegate watch close --cleared`"
        )
    last = served[-1].ended or now
    days = policy.watch.window_days
    if now - last > timedelta(days=days):
        raise RefusedError(
            f"mix {name!r} served until {last:%Y-%m-%d %H:%M} UTC, longer ago than the rollback "
            f"window of {days:g} days; {gate}"
        )
    return (
        f"{name} served until {last:%Y-%m-%d %H:%M} UTC without an alarm, within the rollback "
        f"window of {days:g} days"
    )
