"""What people do about the watch: look at it, close, stop, begin anew, let a mix return."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flows.live_round import policy_of, watch_json
from flows.operate import opened
from tasks.settings import Settings


def shown_watch(settings: Settings, product: str) -> dict[str, Any]:
    """Return what the watch knows of a product; ``watch`` is ``None`` when it never looked."""
    from tasks.mix.production import kept_mix, require_production
    from tasks.rollout.watch.store import read_watch

    with opened(settings) as state:
        require_production(state, product)
        watch = read_watch(state, product)
        if watch is None:
            return {"product": product, "watch": None}
        name = kept_mix(state, watch.mix_digest).mix.name
    return {"product": product, "mix_name": name, "watch": watch_json(watch)}


def render_watch(shown: dict[str, Any]) -> str:
    """Return it in lines."""
    watch = shown["watch"]
    if watch is None:
        return f"{shown['product']} is not watched; start with `imagegate watch`"
    lines = [
        f"{shown['product']}: {watch['status']} since {watch['since']}, {shown['mix_name']}, "
        f"{watch['images']:,} images, counted until {watch['counted_until'][:19]}"
    ]
    if watch["reason"]:
        lines.append(f"  {watch['reason']}")
    for name, found in watch["signals"].items():
        rate = "not measured" if found["rate"] is None else f"{100 * found['rate']:.2f} %"
        evidence = (
            "" if found["log_evidence"] is None else f", evidence {found['log_evidence']:.1f}"
        )
        lines.append(
            f"  {name:<9} {rate} of {found['images']:,.0f}, limit "
            f"{100 * found['limit']:g} %{evidence} (alarm at 0)"
        )
    whole = watch["all_failures"]
    if whole["judged"]:
        lines.append(
            f"  with {whole['defects']:,.0f} defects in {whole['judged']:,.0f} judged images: "
            f"{100 * whole['rate']:.2f} %, limit {100 * whole['limit']:g} %, evidence "
            f"{whole['log_evidence']:.1f} (alarm at 0)"
        )
    lines.append(
        "  inputs: compared with gate run " + watch["gate_run"]
        if watch["gate_run"]
        else "  inputs: no gate run of this mix is known here, new kinds are not seen"
    )
    if watch["incident"] is not None:
        lines.append(
            f"  incident since {watch['incident']['at']}: {watch['incident']['reason']}; "
            f"`imagegate watch close --product {shown['product']} --why '…'`"
        )
    return "\n".join(lines)


def close_incident(
    settings: Settings, product: str, policy: str, actor: str, why: str, *, cleared: bool
) -> dict[str, Any]:
    """Close the incident of a product and return the watch."""
    from tasks.rollout.watch.store import close

    with opened(settings) as state:
        watch = close(
            state,
            product,
            policy_of(policy),
            actor=actor,
            why=why,
            cleared=cleared,
            now=datetime.now(UTC),
        )
    return {"product": product, "closed": True, "watch": watch_json(watch)}


def stop_watch(settings: Settings, product: str, actor: str, why: str) -> dict[str, Any]:
    """Stop the watch of a product and return it."""
    from tasks.rollout.watch.store import stop

    with opened(settings) as state:
        watch = stop(state, product, actor=actor, why=why, now=datetime.now(UTC))
    return {"product": product, "watch": watch_json(watch)}


def restart_watch(settings: Settings, product: str, policy: str) -> dict[str, Any]:
    """Begin the watch of a product anew and return it."""
    from tasks.rollout.watch.store import restart

    with opened(settings) as state:
        restart(state, product, policy_of(policy), now=datetime.now(UTC))
    return shown_watch(settings, product)


def restore_mix(
    settings: Settings, product: str, reference: str, policy: str, actor: str, why: str
) -> dict[str, Any]:
    """Put a mix of the rollback window into production again, verified at the router.

    Raises:
        RefusedError: The mix never served, served too long ago, or was found bad.
        FrozenError: A freeze or a freeze window is in force.
    """
    from tasks.alerts.messages import change_message
    from tasks.alerts.outbox import enqueue
    from tasks.mix.production import find_mix, require_production
    from tasks.rollout.calendar import assert_may_change
    from tasks.rollout.change import promote
    from tasks.rollout.config import load_rollout, open_router
    from tasks.rollout.watch.window import assert_may_return

    now, rules = datetime.now(UTC), policy_of(policy)
    with opened(settings) as state:
        serving = require_production(state, product)
        mix = find_mix(state, reference)
        allowed = assert_may_return(state, product, mix.digest, rules, now)
        assert_may_change(load_rollout(settings).calendar, product, now)
        done = promote(
            state,
            open_router(settings),
            product,
            mix,
            actor=actor,
            reason=f"{why} ({allowed})",
            expected_epoch=serving.epoch,
            now=now,
        )
        message = change_message(
            title="Returned without a gate",
            product=product,
            mix_name=done.mix_name,
            actor=actor,
            reason=f"{why}; {allowed}",
            epoch=done.epoch,
            seconds=done.seconds,
        )
        enqueue(
            state,
            f"restore:{product}:{done.epoch}",
            None,
            message.payload(),
            thread=f"change:{product}:{done.epoch}",
            product=product,
            severity="warning",
            topic="change.restore",
        )
    return done.model_dump(mode="json") | {"allowed": allowed}
