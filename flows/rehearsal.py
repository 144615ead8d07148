"""The rehearsal of a rollback, and what `imagegate status` says of canary, watch and drill."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from flows.live_round import watch_json
from flows.operate import opened
from tasks.alerts.incidents import raise_alarm, resolve_alarm
from tasks.errors import StateError
from tasks.rollout.calendar import explain, in_force
from tasks.rollout.config import load_rollout, open_router
from tasks.rollout.drill import Drill, newest_drill, rehearse
from tasks.rollout.watch.store import read_watch
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import canaries

#: A rehearsal older than this says little about today.
OLD = timedelta(days=31)
#: A watch that has not looked for this long is none.
SILENT = timedelta(minutes=10)


def run_drill(
    settings: Settings,
    product: str,
    actor: str,
    *,
    shadow: str | None = None,
    dry: bool = False,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Rehearse a rollback and return what was found; one that would not go is an alarm."""
    with opened(settings) as state:
        done = drill_with(state, settings, product, actor, shadow=shadow, dry=dry, now=now)
    return drill_json(done, now or datetime.now(UTC))


def drill_with(
    state: State,
    settings: Settings,
    product: str,
    actor: str,
    *,
    shadow: str | None = None,
    dry: bool = False,
    now: datetime | None = None,
) -> Drill:
    """Rehearse a rollback; one that would not go opens an alarm, one that goes closes it."""
    config = load_rollout(settings)
    route = None if dry else shadow or config.shadows.get(product)
    done = rehearse(
        state,
        open_router(settings),
        config.router.kind,
        product,
        "dry" if route is None else "shadow",
        actor=actor,
        shadow=route or "",
        now=now,
    )
    key = f"drill:{product}"
    if done.ok:
        resolve_alarm(
            state, key, how=f"A rehearsal went, {done.seconds:.2f} s to verified.", now=now
        )
        return done
    wrong = [step for step in done.steps if not step.ok]
    raise_alarm(
        state,
        key,
        title=f"{product}: a rollback would not go ({wrong[0].name})",
        severity="warning",
        product=product,
        lines=(
            *(f"{step.name}: {step.said}" for step in wrong),
            "Found by a rehearsal: users feel nothing.",
        ),
        asked=(f"Mend it, then `imagegate drill --product {product}`",),
        now=now,
    )
    return done


def drill_json(done: Drill, now: datetime) -> dict[str, Any]:
    """Return a rehearsal as people and programs read it."""
    age = now - datetime.fromisoformat(done.at)
    return asdict(done) | {
        "steps": [asdict(step) for step in done.steps],
        "age_days": max(0.0, age.total_seconds() / 86_400),
    }


def render_drill(done: dict[str, Any]) -> str:
    """Return a rehearsal in lines."""
    lines = [
        f"{'ok  ' if step['ok'] else 'FAIL'} {step['seconds']:7.3f} s  {step['name']}: "
        f"{step['said']}"
        for step in done["steps"]
    ]
    what = (
        f"verified rollback in {done['seconds']:.2f} s on the shadow route"
        if done["kind"] == "shadow"
        else f"all but the change itself took {done['seconds']:.2f} s; name a shadow route to "
        "rehearse that too"
    )
    end = "a rollback would go" if done["ok"] else "a rollback would NOT go"
    return "\n".join([*lines, f"{done['product']} on {done['router']}: {end}; {what}"])


def windows_now(settings: Settings, product: str) -> list[str]:
    """Return the freeze windows that are in force, each with its end and who may lift it."""
    held = in_force(load_rollout(settings).calendar, product, datetime.now(UTC))
    return [explain(one) for one in held]


def rollout_status(state: State, product: str, now: datetime) -> dict[str, Any]:
    """Return what is known of canary, watch and drill of a product."""
    with state.begin() as connection:
        row = (
            connection.execute(
                sa.select(canaries)
                .where(canaries.c.product == product)
                .order_by(canaries.c.started_at.desc(), canaries.c.canary_id.desc())
                .limit(1)
            )
            .mappings()
            .first()
        )
        drill = newest_drill(connection, product)
    try:
        watch = read_watch(state, product)
        shown = None if watch is None else watch_json(watch)
    except StateError as error:
        shown = {"status": "fault", "reason": str(error)}
    return {
        "canary": None
        if row is None
        else {
            "canary_id": row["canary_id"],
            "candidate_digest": row["candidate_digest"],
            "status": row["status"],
            "step": row["step"],
            "reason": row["reason"],
            "started_at": row["started_at"],
            "ended_at": row["ended_at"],
        },
        "watch": shown,
        "drill": None if drill is None else drill_json(drill, now),
    }


def rollout_lines(shown: dict[str, Any], now: datetime) -> list[str]:
    """Return canary, watch and drill in a line each."""
    lines = []
    canary = shown["canary"]
    if canary is not None:
        tail = f": {canary['reason']}" if canary["reason"] else ""
        lines.append(
            f"canary {canary['canary_id']}: {canary['status']}, step {canary['step'] + 1}{tail}"
        )
    lines.append(_watch_line(shown["watch"], now))
    drill = shown["drill"]
    if drill is None:
        lines.append("rollback never rehearsed; `imagegate drill`")
    else:
        days = drill["age_days"]
        age = "today" if days < 1 else f"{days:.0f} days ago"
        went = f"{drill['seconds']:.2f} s ({drill['kind']})" if drill["ok"] else "it did NOT go"
        old = "; too long ago, `imagegate drill`" if days > OLD / timedelta(days=1) else ""
        lines.append(f"rollback rehearsed {age}: {went}{old}")
    return lines


def _watch_line(watch: dict[str, Any] | None, now: datetime) -> str:
    if watch is None:
        return "not watched; start with `imagegate watch`"
    if watch["status"] == "fault":
        return f"the watch is broken: {watch['reason']}"
    silent = now - datetime.fromisoformat(watch["updated_at"])
    failures = watch["signals"]["failures"]
    rate = "" if failures["rate"] is None else f", {100 * failures['rate']:.2f} % failed"
    told = f": {watch['reason']}" if watch["reason"] else ""
    line = f"watched ({watch['status']}): {watch['images']:,} images{rate}{told}"
    if watch["status"] != "stopped" and silent > SILENT:
        minutes = silent.total_seconds() / 60
        line += f"; NOBODY HAS LOOKED for {minutes:,.0f} minutes, start `imagegate watch`"
    if watch["incident"] is not None:
        line += f"; open incident since {watch['incident']['at']}, promotions are frozen"
    return line
