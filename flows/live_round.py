"""One round of the watch over what serves: look at each product, act, deliver. No Prefect."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tasks.alerts.delivery import deliver_all
from tasks.alerts.incidents import raise_alarm, resolve_alarm
from tasks.errors import ConfigError, FencedError, ImagegateError, RefusedError, known
from tasks.mix.production import kept_mix, products
from tasks.mix.selection import find_file
from tasks.policy import Policy, load_policy
from tasks.rollout.config import RolloutConfig, load_rollout, open_router
from tasks.rollout.outcomes.base import OutcomeSource
from tasks.rollout.outcomes.sources import open_sources
from tasks.rollout.watch.act import Acted, act
from tasks.rollout.watch.look import gate_samples, look
from tasks.rollout.watch.signals import limits
from tasks.rollout.watch.store import Watch
from tasks.settings import Settings
from tasks.state import State

#: The policy that production is watched by, as a gate's.
POLICY = "deployments/policies/default.yaml"
#: Seconds that one round spends on delivering alerts.
DELIVERY_S = 8.0
#: Why nothing can be watched.
NO_SOURCES = (
    "nothing says how live requests end, so nothing can be watched: name at least one source under "
    "`outcomes` in the rollout file (IMAGEGATE_ROLLOUT_FILE; see deployments/rollout.example.yaml)"
)
#: Longest pause after rounds that failed, in seconds.
MOST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One product in one round."""

    product: str
    #: ``watching``, ``alarm``, ``blind``, ``stopped``, or ``fault``: the watch itself broke.
    status: str
    reason: str = ""
    watch: Watch | None = None
    mix_name: str = ""
    warning: str = ""
    notes: tuple[str, ...] = ()
    acted: Acted | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "product": self.product,
            "status": self.status,
            "reason": self.reason,
            "mix_name": self.mix_name,
            "watch": None if self.watch is None else watch_json(self.watch),
            "warning": self.warning,
            "notes": list(self.notes),
            "acted": None
            if self.acted is None
            else {"what": self.acted.what, "sentence": self.acted.sentence},
        }


@dataclass(slots=True)
class Round:
    """What one round saw and did."""

    at: str
    seen: list[Seen] = field(default_factory=list)
    delivered: int = 0
    undelivered: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "at": self.at,
            "products": [seen.to_dict() for seen in self.seen],
            "delivered": self.delivered,
            "undelivered": self.undelivered,
        }


def watch_json(watch: Watch) -> dict[str, Any]:
    """Return a stored watch as people and programs read it."""
    memory = watch.memory
    return {
        "mix_digest": watch.mix_digest,
        "status": watch.status,
        "reason": watch.reason,
        "since": watch.since,
        "counted_until": watch.counted_until.isoformat(),
        "updated_at": watch.updated_at,
        "images": memory.images,
        "signals": {
            name: {
                "images": found.images,
                "bad": found.failures,
                "rate": found.rate,
                "limit": found.limit,
                # 0 or more is an alarm; far below is good.
                "log_evidence": _finite(found.evidence),
                "images_between_false_alarms": found.run_length,
            }
            for name, found in memory.detectors.items()
        },
        "all_failures": {
            "judged": memory.whole.seen.judged,
            "defects": memory.whole.seen.defects,
            "rate": memory.whole.seen.rate,
            "limit": memory.whole.limit,
            "log_evidence": _finite(memory.whole.evidence),
            "images_between_false_alarms": memory.whole.run_length,
        },
        "gate_run": None if memory.sample is None else memory.sample.run_id,
        "incident": None
        if memory.alarm is None
        else {
            "mix_digest": memory.alarm.mix_digest,
            "reason": memory.alarm.reason,
            "at": memory.alarm.at,
            "rolled_back_to": memory.alarm.target if memory.alarm.done else None,
        },
    }


def _finite(evidence: float) -> float | None:
    """Return the evidence, or ``None`` before the first image: JSON has no infinity."""
    return None if math.isinf(evidence) else evidence


def policy_of(path: str) -> Policy:
    """Return the policy in a file.

    Raises:
        ConfigError: The file is missing or wrong.
    """
    # As a gate finds it: a served flow has another current folder.
    return load_policy(find_file(path))


def watched_products(state: State, wanted: Collection[str]) -> tuple[str, ...]:
    """Return the products to look at: those asked for, or all that serve.

    Raises:
        RefusedError: One that was asked for has no production mix.
    """
    there = products(state)
    for product in wanted:
        if product not in there:
            raise RefusedError(f"product {product!r} has no production mix {known(there)}")
    return tuple(wanted) or there


def has_sources(settings: Settings) -> bool:
    """Tell whether the rollout file says where live outcomes come from.

    Raises:
        ConfigError: The rollout file is wrong.
    """
    return bool(load_rollout(settings).outcomes)


def sources_for(config: RolloutConfig, settings: Settings, product: str) -> Sequence[OutcomeSource]:
    """Return the sources of outcomes that know a product."""
    return open_sources([s for s in config.outcomes if s.concerns(product)], settings)


def look_at(state: State, settings: Settings, product: str, policy: Policy, now: datetime) -> Seen:
    """Look at a product and carry out what the look found; the watch's own faults are told."""
    key = f"watch-broken:{product}"
    try:
        config = load_rollout(settings)
        looked = look(
            state,
            product,
            policy,
            sources_for(config, settings, product),
            now,
            gate_samples(state, settings, product),
        )
        trigger = time.monotonic()
        acted = act(state, open_router(settings), product, now, trigger=trigger)
    except FencedError as error:
        return Seen(product, "watching", str(error))
    except ImagegateError as error:
        raise_alarm(
            state,
            key,
            title=f"{product}: the watch itself is broken",
            severity="warning",
            product=product,
            lines=(str(error), "What serves is not watched until this is mended."),
            asked=("Mend the cause; the next look closes this.",),
            now=now,
        )
        return Seen(product, "fault", str(error))
    resolve_alarm(state, key, how="The watch looks again.", now=now)
    return Seen(
        product,
        looked.watch.status,
        looked.watch.reason,
        looked.watch,
        kept_mix(state, looked.watch.mix_digest).mix.name,
        looked.judged.warning,
        looked.notes,
        acted,
    )


def run_round(
    settings: Settings,
    wanted: Collection[str],
    policy: Policy,
    now: datetime | None = None,
) -> Round:
    """Look at every product once, act, and deliver what people are told.

    Raises:
        StateError: The state database does not answer.
        RefusedError: A product that was asked for has no production mix.
        ConfigError: The rollout file is wrong or names no source of outcomes.
    """
    now = now or datetime.now(UTC)
    if not has_sources(settings):
        raise ConfigError(NO_SOURCES)
    state = State(settings.state_url.get_secret_value(), home=settings.home)
    try:
        done = Round(at=now.isoformat(timespec="seconds"))
        for product in watched_products(state, wanted):
            done.seen.append(look_at(state, settings, product, policy, now))
        sent = deliver_all(state, settings, DELIVERY_S)
        done.delivered, done.undelivered = len(sent.delivered), sent.left
        return done
    finally:
        state.close()


def run_rounds(
    settings: Settings,
    wanted: Collection[str],
    policy: Policy,
    stop: threading.Event,
    every_s: float,
    *,
    on_round: Callable[[Round], None],
    on_error: Callable[[str], None],
) -> None:
    """Watch until ``stop`` is set; a round that fails is told to ``on_error`` and repeated."""
    failures = 0
    while not stop.is_set():
        try:
            done = run_round(settings, wanted, policy)
        except Exception as error:  # noqa: BLE001 - a watch that ends by an error watches nothing
            failures += 1
            on_error(f"the watch could not look: {type(error).__name__}: {error}")
        else:
            failures = 0
            on_round(done)
        stop.wait(min(every_s * 2**failures, max(MOST_PAUSE_S, every_s)))


def lines(done: Round, before: Mapping[str, str] | None = None) -> list[str]:
    """Return a round in lines; only what changed when the statuses before are given."""
    found = []
    for seen in done.seen:
        if before is None or before.get(seen.product) != f"{seen.status} {seen.mix_name}":
            found.append(line(seen))
        if before is None:
            found += [f"  note: {note}" for note in seen.notes]
            if seen.warning:
                found.append(f"  inputs: {seen.warning}")
        if seen.acted is not None:
            found.append(f"  {seen.acted.sentence}")
    if before is None and done.undelivered:
        found.append(f"{done.undelivered} messages wait; see `imagegate alerts`")
    return found or ([] if before is not None else ["no product serves yet; `imagegate run`"])


def line(seen: Seen) -> str:
    """Return one product in a line."""
    if seen.watch is None:
        return f"{seen.product}: {seen.status}: {seen.reason}"
    failures = seen.watch.memory.detectors["failures"]
    rate = (
        "none failed yet" if not failures.images else f"{100 * (failures.rate or 0):.2f} % failed"
    )
    tail = f": {seen.reason}" if seen.reason else ""
    return (
        f"{seen.product}: {seen.status}, {seen.mix_name}, {seen.watch.memory.images:,} images, "
        f"{rate}{tail}"
    )


def explain_limits(policy: Policy) -> str:
    """Return what is watched by a policy, in a line."""
    shown = ", ".join(f"{name} {100 * limit:g} %" for name, limit in limits(policy).items())
    return f"limits: {shown}; a false alarm in {policy.watch.false_alarm_images:,} images at most"
