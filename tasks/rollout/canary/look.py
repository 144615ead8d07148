"""One look of a canary: finish what is owed, do what people ask, count, decide, carry out.

Each decision is written down before it is carried out, and what was counted in the same row, so a
process killed anywhere leaves a canary that the next look goes on with: nothing is counted twice,
nothing decided is forgotten, and people are told only what the router was read back to show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.errors import FencedError, RefusedError, RolloutError
from tasks.mix.production import kept_mix, require_production
from tasks.records import utc_now
from tasks.rollout.calendar import FreezeWindow, assert_may_change
from tasks.rollout.canary import tell
from tasks.rollout.canary.decide import Decision, decide
from tasks.rollout.canary.progress import Order, Ordered, Progress, failed_look, fold
from tasks.rollout.canary.store import Canary, Status, keep, moved_by_others, read
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.decision import RolloutResult
from tasks.rollout.faults import fault
from tasks.rollout.outcomes.base import OutcomeError, OutcomeSource, read_all
from tasks.rollout.routers.base import Router
from tasks.state import State

Clock = Callable[[], datetime]


def now_utc() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a canary needs of the world, and the token of the process that drives it."""

    state: State
    router: Router
    sources: Sequence[OutcomeSource]
    driver: str
    clock: Clock = now_utc
    #: When the share must not grow.
    calendar: Sequence[FreezeWindow] = ()


def look(around: Surroundings, canary_id: str) -> Canary:
    """Take one look and return the canary as it is then.

    A router that does not take a change leaves the canary on HOLD with an alarm; the next look
    tries again.

    Raises:
        TakenOverError: Another process drives the canary.
        StateError: The state database does not answer; nothing is lost, look again.
    """
    canary = read(around.state, canary_id)
    if not canary.live:
        return canary
    try:
        return _look(around, canary)
    except FencedError as error:
        return _after_fence(around, canary_id, error)
    except RolloutError as error:
        return _unverified(around, canary_id, error)
    except RefusedError as error:
        # Frozen, or nobody's approval stands: judged on, with the share that it has.
        return _hold(around, canary_id, str(error))


def _look(around: Surroundings, canary: Canary) -> Canary:
    if canary.progress.order is not None:
        return _carry_out(around, canary, None)
    trouble = _mend(around, canary)
    ended = _ended_by_others(around, canary)
    if ended is not None:
        return ended
    canary = _heed(around, canary)
    if canary.progress.order is None:
        canary = _skip(around, _count(around, canary, trouble), canary.step)
    if canary.progress.order is not None:
        return _carry_out(around, canary, time.monotonic())
    # Last, so that a share that cannot be set keeps nobody from judging the one that is on.
    return canary if canary.progress.applied else _settle(around, canary)


def _mend(around: Surroundings, canary: Canary) -> str | None:
    """Put the router right when somebody changed it behind our back.

    A rollback made at the router is taken over as one; that ends the canary.

    Returns:
        Why nobody knows what the router serves; ``None`` when it shows what it should.
    """
    product = canary.plan.product
    try:
        shown = around.router.read(product)
    except RolloutError as error:
        return f"the router cannot be read: {error}"
    wanted = require_production(around.state, product)
    if shown is None or dict(shown.weights) != wanted.weights or not wanted.settled:
        try:
            reconcile(
                around.state,
                around.router,
                product,
                actor=f"canary {canary.id}",
                reason="the router did not show the canary's share",
                now=around.clock(),
            )
        except RolloutError as error:
            with around.state.begin() as connection:
                tell.tell_router(connection, canary, "share", str(error))
            return f"the router does not show the share: {error}"
    if canary.status == "holding":
        with around.state.begin() as connection:
            tell.tell_router_well(connection, canary)
    return None


def _settle(around: Surroundings, canary: Canary) -> Canary:
    """Make the router show the step's share, and note when it was read back to do so."""
    assert_may_change(around.calendar, canary.plan.product, around.clock())
    done = set_share(
        around.state,
        around.router,
        canary.plan.product,
        kept_mix(around.state, canary.plan.candidate_digest),
        canary.weight,
        actor=f"canary {canary.id}",
        reason=canary.reason or "first step",
        canary_id=canary.id,
        driver=around.driver,
        now=around.clock(),
    )
    fault("share verified")
    now = around.clock()
    progress = canary.progress.model_copy(update={"applied": True})
    if canary.step == 0:
        # Before the first share there was no candidate to compare with.
        progress = progress.model_copy(update={"counted_until": now.isoformat()})
    with around.state.begin() as connection:
        moved = keep(
            connection,
            canary,
            around.driver,
            progress=progress,
            step_started_at=now.isoformat(),
            status="paused" if canary.status == "paused" else "running",
        )
        tell.tell_step(connection, moved, done)
        tell.tell_router_well(connection, moved)
        if canary.status == "holding":
            tell.tell_goes_on(connection, moved)
    fault("step kept")
    return moved


def _heed(around: Surroundings, canary: Canary) -> Canary:
    """Do what a person asked for; a skip waits until this look's images were judged."""
    if canary.control is None or canary.control == "skip":
        return canary
    by, why = canary.control_by or "unknown", canary.control_reason or "no reason given"
    done: dict[str, Any] = {"control": None}
    if canary.control == "pause":
        done |= {"status": "paused", "reason": f"paused by {by}: {why}"}
    elif canary.control == "resume":
        done |= {"status": "running", "reason": f"resumed by {by}: {why}"}
    else:
        done["progress"] = _ordered(canary.progress, "abort", f"aborted by {by}: {why}", around)
    return _written(around, canary, **done)


def _skip(around: Surroundings, canary: Canary, was: int) -> Canary:
    """Pass a step without its proof, as a person asked, unless it was judged to be bad."""
    if canary.control != "skip" or canary.progress.order is not None:
        return canary
    done: dict[str, Any] = {"control": None}
    # A step that was passed by its proof in this look needs nobody's word.
    if canary.step == was and canary.progress.applied:
        by, why = canary.control_by or "unknown", canary.control_reason or "no reason given"
        said = f"step {was + 1} was passed without its proof by {by}: {why}"
        progress = canary.progress.model_copy(update={"skipped": (*canary.progress.skipped, said)})
        done |= _advanced(around, canary, progress, said) | {"status": "running"}
    return _written(around, canary, **done)


def _written(around: Surroundings, canary: Canary, **values: Any) -> Canary:
    """Write what was decided, with the message that a hold began or ended by it."""
    with around.state.begin() as connection:
        kept = keep(connection, canary, around.driver, **values)
        if kept.status == "holding" and canary.status == "running":
            tell.tell_hold(connection, kept)
        elif canary.status == "holding" and kept.status != "holding":
            tell.tell_goes_on(connection, kept)
    fault("look kept")
    return kept


def _count(around: Surroundings, canary: Canary, trouble: str | None) -> Canary:
    """Read what is new, judge all of it, and keep both; in trouble nothing goes on."""
    progress = canary.progress
    if canary.step_started_at is None:
        return canary
    started = datetime.fromisoformat(canary.step_started_at)
    step = canary.step
    if not progress.applied:
        # The router shows the share of the step before, as far as anybody knows.
        step = max(step - 1, 0)
    elif datetime.fromisoformat(progress.counted_until) < started and step > 0:
        # What is left of the step before is counted there, so that no window has two shares.
        progress = _read(around, canary, progress, step - 1, started)
    if not progress.applied or datetime.fromisoformat(progress.counted_until) >= started:
        progress = _read(around, canary, progress, step, around.clock())
    decision = decide(canary.plan, progress, step, started)
    if trouble is not None and decision.act != "roll_back":
        decision = Decision("hold", trouble)
    return _kept(around, canary, progress, decision)


def _read(
    around: Surroundings, canary: Canary, progress: Progress, step: int, until: datetime
) -> Progress:
    """Return the progress with what sources have between what is counted and ``until``."""
    since = datetime.fromisoformat(progress.counted_until)
    if until <= since:
        # Nothing is new, or the clock went back.
        return progress
    plan = canary.plan
    digests = (plan.candidate_digest, plan.baseline_digest)
    try:
        seen = read_all(around.sources, plan.product, digests, since, until)
    except OutcomeError as error:
        return failed_look(progress, str(error))
    return fold(plan, progress, step, seen)


def _kept(around: Surroundings, canary: Canary, progress: Progress, decision: Decision) -> Canary:
    """Write down what was counted and decided, in one row."""
    values: dict[str, Any] = {"progress": progress}
    if decision.act == "roll_back":
        values["progress"] = _ordered(progress, "roll_back", decision.reason, around)
        values["reason"] = decision.reason
    elif canary.status == "paused" or not progress.applied:
        # Judged only; why it stands still, or why the share is not set yet, stays to be read.
        pass
    elif decision.act == "advance":
        # A hold ends when the router shows the next share, not before.
        values |= _advanced(around, canary, progress, decision.reason)
    else:
        status: Status = "holding" if decision.act == "hold" else "running"
        values |= {"status": status, "reason": decision.reason}
    return _written(around, canary, **values)


def _advanced(
    around: Surroundings, canary: Canary, progress: Progress, reason: str
) -> dict[str, Any]:
    """Return what is written for the next step, or for all traffic after the last one."""
    if canary.step + 1 == len(canary.plan.rule.steps):
        return {"progress": _ordered(progress, "promote", reason, around), "reason": reason}
    applied = progress.model_copy(update={"applied": False})
    return {"step": canary.step + 1, "progress": applied, "reason": reason}


def _ordered(progress: Progress, kind: Ordered, reason: str, around: Surroundings) -> Progress:
    order = Order(kind=kind, reason=reason, at=around.clock().isoformat())
    return progress.model_copy(update={"order": order})


def _carry_out(around: Surroundings, canary: Canary, trigger: float | None) -> Canary:
    """Do what was decided, verified at the router, and book the end with its message."""
    order, plan = canary.progress.order, canary.plan
    if order is None:
        return canary
    who = f"canary {canary.id}"
    if order.kind == "promote":
        assert_may_change(around.calendar, plan.product, around.clock())
        done = promote(
            around.state,
            around.router,
            plan.product,
            kept_mix(around.state, plan.candidate_digest),
            actor=who,
            reason=order.reason,
            expected_mixes=(plan.baseline_digest, plan.candidate_digest),
            run_id=plan.run_id,
            driver=around.driver,
            canary_id=canary.id,
            now=around.clock(),
            trigger=trigger,
        )
    else:
        done = roll_back(
            around.state,
            around.router,
            plan.product,
            plan.baseline_digest,
            actor=who if order.kind == "roll_back" else canary.control_by or who,
            reason=order.reason,
            expected_mixes=(plan.baseline_digest, plan.candidate_digest),
            run_id=plan.run_id,
            canary_id=canary.id,
            now=around.clock(),
            trigger=trigger,
        )
    fault("end verified")
    status: dict[Ordered, Status] = {
        "promote": "promoted",
        "roll_back": "rolled_back",
        "abort": "aborted",
    }
    return _end(around, canary, status[order.kind], order.reason, done)


def _end(
    around: Surroundings,
    canary: Canary,
    status: Status,
    reason: str,
    done: RolloutResult | None,
) -> Canary:
    """Book how a canary ended; the message is part of it."""
    with around.state.begin() as connection:
        ended = keep(
            connection,
            canary,
            around.driver,
            status=status,
            reason=reason,
            ended_at=utc_now(),
            progress=canary.progress.model_copy(
                update={"order": None, "verified_s": None if done is None else done.seconds}
            ),
            control=None,
        )
        by = canary.control_by if status == "aborted" else None
        tell.tell_end(connection, ended, done, asked_by=by)
    fault("end kept")
    return ended


def _ended_by_others(around: Surroundings, canary: Canary) -> Canary | None:
    """End the canary when somebody took its share away; production stays as they made it."""
    with around.state.begin() as connection:
        why = moved_by_others(connection, canary)
    if why is None:
        return None
    return _end(around, canary, "aborted", why, None)


def _after_fence(around: Surroundings, canary_id: str, error: FencedError) -> Canary:
    """End the canary when others moved production, else hold."""
    canary = read(around.state, canary_id)
    return _ended_by_others(around, canary) or _hold(around, canary_id, str(error))


def _hold(around: Surroundings, canary_id: str, reason: str) -> Canary:
    """Keep the share and wait for people; a promotion that was refused is decided anew."""
    canary = read(around.state, canary_id)
    progress = canary.progress
    if progress.order is not None and progress.order.kind == "promote":
        progress = progress.model_copy(update={"order": None})
    status: Status = "paused" if canary.status == "paused" else "holding"
    return _written(around, canary, progress=progress, status=status, reason=reason)


def _unverified(around: Surroundings, canary_id: str, error: RolloutError) -> Canary:
    """Page: the router does not show what was decided."""
    canary = read(around.state, canary_id)
    order = canary.progress.order
    what = {"roll_back": "rollback", "abort": "rollback", "promote": "promotion"}.get(
        order.kind if order else "", "share"
    )
    with around.state.begin() as connection:
        kept = keep(
            connection,
            canary,
            around.driver,
            status="paused" if canary.status == "paused" else "holding",
            reason=str(error),
        )
        if canary.reason != kept.reason or canary.status == "running":
            tell.tell_router(connection, kept, what, str(error))
    return kept
