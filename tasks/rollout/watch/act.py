"""What is done about an alarm: freeze promotions, roll back, verify, then tell people."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.engine import Connection

from tasks.alerts.incidents import raise_alarm
from tasks.errors import FencedError, GateError, RefusedError
from tasks.mix.freeze import stamp
from tasks.mix.production import kept_mix, require_production
from tasks.rollout.change import roll_back
from tasks.rollout.decision import RolloutResult
from tasks.rollout.faults import fault
from tasks.rollout.routers.base import Router
from tasks.rollout.watch.memory import Alarm
from tasks.rollout.watch.store import (
    OWNER,
    Watch,
    freeze_promotions,
    incident_key,
    read_watch,
    restored_key,
    write_watch,
)
from tasks.state import State


@dataclass(frozen=True, slots=True)
class Acted:
    """What became of an alarm."""

    #: ``rolled_back``, ``told`` (left to people), ``failed`` (the next look tries again).
    what: str
    sentence: str
    result: RolloutResult | None = None


def act(
    state: State,
    router: Router,
    product: str,
    now: datetime,
    *,
    trigger: float | None = None,
) -> Acted | None:
    """Carry out the alarm that a look has stored; ``None`` when there is nothing to do.

    May be called again at any time: a process that was killed here is finished by the next call.

    Args:
        state: The database.
        router: Where the rollback takes effect.
        product: Name of the product.
        now: The present moment.
        trigger: ``time.monotonic()`` of the alarm; the start of this call by default.
    """
    started = time.monotonic() if trigger is None else trigger
    watch = read_watch(state, product)
    alarm = None if watch is None or watch.status == "stopped" else watch.memory.alarm
    if watch is None or alarm is None or alarm.done:
        return None
    if alarm.target is None:
        return _leave_to_people(state, watch, alarm, now)
    with state.begin() as connection:
        freeze_promotions(connection, product, alarm.target, alarm.reason, now)
    fault("promotions frozen")
    try:
        result = roll_back(
            state,
            router,
            product,
            alarm.target,
            actor=OWNER,
            reason=alarm.reason,
            expected_mixes=(alarm.mix_digest,),
            now=now,
            trigger=started,
        )
    except FencedError as error:
        # Wanted already or not yet: the router has not shown it, so it is tried again.
        if require_production(state, product).mix_digest in (alarm.mix_digest, alarm.target):
            return _failed(state, product, alarm, str(error), now)
        # Somebody moved production off the bad mix meanwhile: that stands.
        return _moved(state, watch, alarm, str(error), now)
    except (GateError, RefusedError) as error:
        return _failed(state, product, alarm, str(error), now)
    return _rolled_back(state, watch, alarm, result, now)


def _rolled_back(
    state: State, watch: Watch, alarm: Alarm, result: RolloutResult, now: datetime
) -> Acted:
    product = watch.product
    bad = kept_mix(state, alarm.mix_digest).mix.name
    sentence = (
        f"{product} serves {result.mix_name} again, verified at the router "
        f"{result.seconds:.1f} s after the alarm"
    )
    with state.begin() as connection:
        _done(connection, watch, alarm, now)
        raise_alarm(
            connection,
            incident_key(product),
            title=f"ROLLED BACK: {product} serves {result.mix_name} again",
            severity="page",
            product=product,
            lines=(
                f"Found: {bad}: {alarm.reason}.",
                "Users get pictures of the mix before it again.",
                f"Verified: {result.seconds:.1f} s after the alarm (epoch {result.epoch})",
                "Promotions are frozen until a person closes this.",
            ),
            asked=(
                f"See why {bad} got worse; then `imagegate watch close --product {product} "
                "--why '…'`",
            ),
            brief=f"{product} was rolled back to {result.mix_name}: {alarm.reason}",
            now=now,
        )
        fault("incident written")
    fault("incident kept")
    return Acted("rolled_back", sentence, result)


def _leave_to_people(state: State, watch: Watch, alarm: Alarm, now: datetime) -> Acted:
    """Tell that a mix is bad that the watch does not roll back."""
    product = watch.product
    name = kept_mix(state, alarm.mix_digest).mix.name
    with state.begin() as connection:
        freeze_promotions(connection, product, alarm.mix_digest, alarm.reason, now)
        _done(connection, watch, alarm, now)
        restored = any(past.how == "alarm" for past in watch.memory.past[-1:])
        why = (
            "It was put back by the watch itself, so what is wrong may not be the mix: look at "
            "the providers first."
            if restored
            else "Nothing was rolled back: there is no earlier mix that was good, or the policy "
            "leaves it to you."
        )
        raise_alarm(
            connection,
            restored_key(product) if restored else incident_key(product),
            title=f"NOT ROLLED BACK: {name} of {product} is above its limits",
            severity="page",
            product=product,
            lines=(f"Found: {alarm.reason}.", why, "Promotions are frozen until you close this."),
            asked=(
                f"Decide: `imagegate rollback --product {product} --to MIX --reason '…'`, or mend "
                f"the cause and `imagegate watch close --product {product} --why '…'`",
            ),
            now=now,
        )
    return Acted("told", f"{product}: {alarm.reason}; {why}")


def _moved(state: State, watch: Watch, alarm: Alarm, why: str, now: datetime) -> Acted:
    with state.begin() as connection:
        _done(connection, watch, alarm, now)
        raise_alarm(
            connection,
            incident_key(watch.product),
            title=f"{watch.product}: a bad mix was taken out of production by somebody else",
            severity="warning",
            product=watch.product,
            lines=(f"Found: {alarm.reason}.", why),
            asked=(
                f"Close it with `imagegate watch close --product {watch.product} --why '…'`; "
                "promotions are frozen until then",
            ),
            now=now,
        )
    return Acted("told", f"{watch.product}: {why}")


def _failed(state: State, product: str, alarm: Alarm, why: str, now: datetime) -> Acted:
    """Tell that the rollback did not go; the alarm stays undone, so the next look tries again."""
    raise_alarm(
        state,
        incident_key(product),
        title=f"ROLLBACK FAILED: {product} still serves a bad mix",
        severity="page",
        product=product,
        lines=(
            f"Found: {alarm.reason}.",
            f"The rollback did not go: {why}",
            "It is tried again at every look.",
        ),
        asked=(f"See to the router, or `imagegate rollback --product {product}` by hand",),
        now=now,
    )
    return Acted("failed", f"{product} was not rolled back: {why}")


def _done(connection: Connection, watch: Watch, alarm: Alarm, now: datetime) -> None:
    after = replace(
        watch,
        memory=replace(watch.memory, alarm=replace(alarm, done=True)),
        updated_at=stamp(now),
    )
    write_watch(connection, after, watch)
