"""What people and flows do about a canary: start, look at it, drive it, tell it something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.operate import opened
from tasks.errors import ConfigError, ImagegateError, RefusedError
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.canary_rules import CanaryRule
    from tasks.mix.manifest import ResolvedMix
    from tasks.policy import Policy
    from tasks.rollout.canary.look import Surroundings
    from tasks.rollout.canary.store import Canary, Control
    from tasks.state import State

#: Exit codes by how a canary ended; one that is under way was left in between.
EXITS = {"promoted": 0, "rolled_back": 1, "aborted": 1, "failed": 4}
UNDER_WAY = 3
#: Seconds that a command waits for a living driver to do what it was asked.
HEEDED_S = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person starts a canary with."""

    actor: str
    candidate: str | None = None
    run_id: str | None = None
    policy: str | None = None
    catalog: str = "deployments/catalog.yaml"
    without_gate: str | None = None


DEFAULT_POLICY = "deployments/policies/default.yaml"


def start(state: State, settings: Settings, wanted: Wanted) -> Canary:
    """Book a canary; whoever drives it next gives the candidate its first share.

    Raises:
        ConfigError: A file is missing or wrong, or no source of live outcomes is named.
        RefusedError: The candidate may not meet users, or a canary is under way.
        FrozenError: Production is frozen.
    """
    from tasks.rollout.canary.begin import begin_canary
    from tasks.rollout.config import load_rollout

    rollout = load_rollout(settings)
    if not rollout.outcomes:
        raise ConfigError(
            "no source of live outcomes is named, so a canary would hold for ever at its first "
            "step: name one under `outcomes` in the rollout file (IMAGEGATE_ROLLOUT_FILE; see "
            "deployments/rollout.example.yaml)"
        )
    candidate, policy = _chosen(state, settings, wanted)
    return begin_canary(
        state,
        candidate,
        policy.canary,
        policy.digest,
        actor=wanted.actor,
        now=datetime.now(UTC),
        run_id=wanted.run_id,
        without_gate=wanted.without_gate,
        calendar=rollout.calendar,
    )


def _chosen(state: State, settings: Settings, wanted: Wanted) -> tuple[ResolvedMix, Policy]:
    """Return the candidate and the rules: by the run, else by the files."""
    import sqlalchemy as sa

    from tasks.mix.catalog import load_catalog
    from tasks.mix.manifest import load_mix
    from tasks.mix.production import kept_mix
    from tasks.mix.selection import find_file
    from tasks.plan import RunFolder
    from tasks.policy import load_policy
    from tasks.tables import runs

    folder = None if wanted.run_id is None else RunFolder(settings.runs / wanted.run_id)
    if wanted.policy is None and folder is not None and folder.has_plan():
        policy = folder.load_plan().policy
    else:
        policy = load_policy(find_file(wanted.policy or DEFAULT_POLICY))
    if wanted.candidate is not None:
        return load_mix(
            find_file(wanted.candidate), load_catalog(find_file(wanted.catalog))
        ), policy
    if wanted.run_id is None:
        raise ConfigError("name what is to walk: --candidate FILE, or --run RUN of a gate")
    with state.begin() as connection:
        query = sa.select(runs.c.candidate_digest).where(runs.c.run_id == wanted.run_id)
        digest = connection.execute(query).scalar()
    if digest is None:
        raise ConfigError(f"--run {wanted.run_id}: no such run; see `imagegate history`")
    return kept_mix(state, digest), policy


def surroundings(state: State, settings: Settings) -> Surroundings:
    """Return what a canary needs of the world, by the rollout file, and a new driver's token.

    Raises:
        ConfigError: The rollout file is wrong.
    """
    from tasks.rollout.canary.look import Surroundings
    from tasks.rollout.canary.store import new_driver
    from tasks.rollout.config import load_rollout, open_router
    from tasks.rollout.outcomes.sources import open_sources

    rollout = load_rollout(settings)
    sources = open_sources(rollout.outcomes, settings)
    return Surroundings(
        state, open_router(settings), sources, new_driver(), calendar=rollout.calendar
    )


def the_live(state: State, product: str) -> Canary:
    """Return the canary of a product that is not over.

    Raises:
        RefusedError: There is none.
    """
    from tasks.rollout.canary.store import live_of

    canary = live_of(state, product)
    if canary is None:
        raise RefusedError(
            f"no canary of {product!r} is under way; start one with `imagegate canary start`"
        )
    return canary


def drive(
    settings: Settings,
    product: str,
    stop: threading.Event,
    *,
    on_look: Callable[[Canary], None],
    on_error: Callable[[str], None],
) -> Canary:
    """Drive the canary of a product to its end, and deliver what people are told meanwhile.

    Raises:
        RefusedError: None is under way, or a living process drives it.
        TakenOverError: Another process took it over.
    """
    from tasks.alerts.worker import OutboxWorker
    from tasks.rollout.canary.store import claim
    from tasks.rollout.canary.walk import walk

    with opened(settings) as state:
        around = surroundings(state, settings)
        canary = claim(state, the_live(state, product).id, around.driver)
        with OutboxWorker(state, settings) as outbox:

            def looked(seen: Canary) -> None:
                on_look(seen)
                outbox.wake()

            ended = walk(around, canary, stop, on_look=looked, on_error=on_error)
        deliver(state, settings)
        return ended


def deliver(state: State, settings: Settings) -> None:
    """Try to deliver what waits; what does not go stays for others."""
    from tasks.alerts.delivery import deliver_all

    with suppress(ImagegateError):
        deliver_all(state, settings, 8.0)


def ask(
    settings: Settings, product: str, control: Control, *, by: str, reason: str
) -> tuple[Canary, str]:
    """Tell the canary of a product something; without a living driver it is done here.

    Returns:
        The canary, and what became of the wish, as a sentence.

    Raises:
        RefusedError: No canary is under way, or there is nothing to resume.
    """
    from tasks.rollout.canary import store

    with opened(settings) as state:
        canary = store.ask(state, the_live(state, product).id, control, by=by, reason=reason)
        if canary.driven:
            return _heeded(state, canary.id)
        done = look_once(state, settings, canary)
        deliver(state, settings)
        return done, f"done here, nobody drives canary {canary.id}"


def _heeded(state: State, canary_id: str) -> tuple[Canary, str]:
    """Wait until the driver has done what it was asked."""
    from tasks.rollout.canary import store

    waited = threading.Event()
    for _ in range(int(HEEDED_S / 0.2)):
        canary = store.read(state, canary_id)
        if not canary.live or (canary.control is None and canary.progress.order is None):
            return canary, f"done by its driver, {canary.driver or 'which has ended'}"
        waited.wait(0.2)
    return canary, f"asked; its driver {canary.driver} does it when its present look is over"


def look_once(state: State, settings: Settings, canary: Canary) -> Canary:
    """Take one look at a canary that nobody drives, and let go of it."""
    from tasks.rollout.canary import store
    from tasks.rollout.canary.look import look

    around = surroundings(state, settings)
    store.claim(state, canary.id, around.driver)
    try:
        return look(around, canary.id)
    finally:
        store.let_go(state, canary.id, around.driver)


def look_after(state: State, settings: Settings) -> Sequence[str]:
    """Take one look at each canary whose driver died, so that none is left unwatched.

    The watch calls this; a canary walks on by it, only slower.

    Returns:
        What was done, in sentences.
    """
    from tasks.rollout.canary.store import all_live

    done = []
    for canary in all_live(state):
        if canary.driven:
            continue
        try:
            seen = look_once(state, settings, canary)
        except ImagegateError as error:
            done.append(f"canary {canary.id} could not be looked after: {error}")
            continue
        done.append(f"canary {canary.id}, which nobody drives: {sentence(seen)}")
    return done


def sentence(canary: Canary) -> str:
    """Return how a canary stands, in a line."""
    if not canary.live:
        return f"{canary.status}: {canary.reason}"
    steps = len(canary.plan.rule.steps)
    return (
        f"{canary.status}, step {canary.step + 1} of {steps} ({100 * canary.weight:g} % of the "
        f"traffic): {canary.reason or 'begins'}"
    )


def as_json(canary: Canary) -> dict[str, Any]:
    """Return a canary as programs read it."""
    plan, progress = canary.plan, canary.progress
    return {
        "canary_id": canary.id,
        "product": plan.product,
        "status": canary.status,
        "reason": canary.reason,
        "candidate": plan.candidate_name,
        "candidate_digest": plan.candidate_digest,
        "baseline": plan.baseline_name,
        "baseline_digest": plan.baseline_digest,
        "run_id": plan.run_id,
        "without_gate": plan.without_gate,
        "policy_digest": plan.policy_digest,
        "step": canary.step + 1,
        "weight": canary.weight if canary.live and progress.applied else None,
        "step_started_at": canary.step_started_at,
        "counted_until": progress.counted_until,
        "looks": progress.looks,
        "query_errors": progress.errors,
        "notes": list(progress.notes),
        "skipped": list(progress.skipped),
        "asked": canary.control,
        "actor": canary.actor,
        "started_at": canary.started_at,
        "ended_at": canary.ended_at,
        "verified_s": progress.verified_s,
        "driven": canary.driven,
        "steps": [
            {
                "weight": step.weight,
                "candidate": tally.candidate.model_dump(),
                "baseline": tally.baseline.model_dump(),
            }
            for step, tally in zip(plan.rule.steps, progress.tallies, strict=False)
        ],
        "evidence": _evidence(plan.rule, canary),
    }


def _evidence(rule: CanaryRule, canary: Canary) -> dict[str, dict[str, float]]:
    from tasks.rollout.canary.decide import evidence

    return {
        proof.name: {"log_e": proof.log_e, "enough": proof.enough}
        for proof in evidence(rule, canary.progress)
    }


def render(canary: Canary) -> str:
    """Return a canary in lines."""
    plan = canary.plan
    lines = [
        f"{plan.product}: {plan.candidate_name} beside {plan.baseline_name}, {sentence(canary)}",
        f"  {canary.id}, started {canary.started_at} by {canary.actor}"
        + (
            f", gate run {plan.run_id}" if plan.run_id else f", without a gate: {plan.without_gate}"
        ),
    ]
    tallies = canary.progress.tallies
    for number, step in enumerate(plan.rule.steps):
        mark = "→" if canary.live and number == canary.step else " "
        line = f"  {mark} {100 * step.weight:>5g} %"
        if number < len(tallies):
            new, old = tallies[number].candidate, tallies[number].baseline
            line += (
                f"  {plan.candidate_name} {new.failures:,} of {new.images:,} failed, "
                f"{plan.baseline_name} {old.failures:,} of {old.images:,}"
            )
        lines.append(line)
    lines += [f"  {said}" for said in (*canary.progress.skipped, *canary.progress.notes)]
    if canary.control is not None:
        lines.append(f"  asked by {canary.control_by}: {canary.control}")
    if canary.live and not canary.driven:
        lines.append(
            f"  nobody drives it: `imagegate canary run --product {plan.product}`, or the watchdog "
            "takes a look at it now and then"
        )
    return "\n".join(lines)
