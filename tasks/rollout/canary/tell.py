"""What people are told of a canary; every message is queued in the transaction of what it tells."""

from __future__ import annotations

import shlex

from sqlalchemy.engine import Connection

from tasks.alerts.config import Severity
from tasks.alerts.incidents import raise_alarm, resolve_alarm
from tasks.alerts.kit import Button
from tasks.alerts.messages import Notice, notice_message
from tasks.alerts.outbox import Kind, enqueue
from tasks.rollout.canary.store import Canary
from tasks.rollout.decision import RolloutResult


def thread(canary: Canary) -> str:
    """Return the name of a canary's thread."""
    return f"canary:{canary.id}"


def tell_start(connection: Connection, canary: Canary) -> None:
    """Open the thread."""
    rule = canary.plan.rule
    steps = " → ".join(f"{100 * step.weight:g} %" for step in rule.steps)
    _queue(
        connection,
        canary,
        "started",
        Notice(
            title=f"Canary: {canary.plan.candidate_name} walks into {canary.plan.product}",
            severity="info",
            product=canary.plan.product,
            emoji="🐤",
            lines=(
                f"Steps: {steps} → 100 % of the traffic.",
                f"Beside: {canary.plan.baseline_name}",
                f"By: {canary.actor}",
            ),
            links=(("State now", _status(canary)),),
            run_id=canary.plan.run_id,
        ),
        kind="open",
        topic="canary.started",
    )


def tell_step(connection: Connection, canary: Canary, done: RolloutResult) -> None:
    """Tell that the router shows a step's share."""
    _queue(
        connection,
        canary,
        f"step:{canary.step}",
        Notice(
            title=f"{canary.plan.candidate_name} has {100 * canary.weight:g} % of the traffic",
            severity="info",
            product=canary.plan.product,
            emoji="🐤",
            lines=(
                *((canary.reason,) if canary.reason else ()),
                f"Verified: {done.seconds:.2f} s after the decision (epoch {done.epoch})",
            ),
        ),
        topic="canary.step",
    )


def tell_end(
    connection: Connection, canary: Canary, done: RolloutResult | None, asked_by: str | None = None
) -> None:
    """Tell how a canary ended, after the router was read back to show it.

    Args:
        connection: The transaction that books the end.
        canary: The canary, ended.
        done: The change that ended it; ``None`` when others changed production.
        asked_by: The person who aborted it.
    """
    plan = canary.plan
    severity: Severity = "page" if canary.status == "rolled_back" else "warning"
    titles = {
        "promoted": f"PROMOTED: {plan.candidate_name} serves all of {plan.product}",
        "rolled_back": f"ROLLED BACK: {plan.candidate_name} left {plan.product}",
        "aborted": f"Aborted: the canary of {plan.candidate_name} in {plan.product}",
        "failed": f"The canary of {plan.candidate_name} in {plan.product} did not begin",
    }
    serves = plan.candidate_name if canary.status == "promoted" else plan.baseline_name
    lines = [f"Why: {canary.reason}"]
    if done is not None:
        lines.insert(0, f"Users get pictures of {serves} only.")
        lines.append(f"Verified: {done.seconds:.2f} s after the decision (epoch {done.epoch})")
    if asked_by:
        lines.append(f"By: {asked_by}")
    buttons: tuple[Button, ...] = ()
    if canary.status == "promoted":
        severity = "info"
        undo = Button(
            "roll_back", product=plan.product, to=plan.baseline_digest, mix=plan.baseline_name
        )
        buttons = (undo,)
    _queue(
        connection,
        canary,
        f"ended:{canary.status}",
        Notice(
            title=titles[canary.status],
            severity=severity,
            product=plan.product,
            emoji={"promoted": "✅", "rolled_back": "↩️"}.get(canary.status, ""),
            lines=tuple(lines),
            links=(("State now", f"imagegate status --product {shlex.quote(plan.product)}"),),
            run_id=plan.run_id,
            buttons=buttons,
            broadcast=True,
        ),
        severity=severity,
        topic=f"canary.{canary.status}",
    )
    resolve_alarm(connection, _holds(canary), how=f"The canary is over: {canary.status}.")
    resolve_alarm(connection, _router(canary), how="The router was read back to show the end.")


def tell_hold(connection: Connection, canary: Canary) -> None:
    """Open the alarm of a canary that needs people or traffic."""
    share = f"{100 * canary.weight:g} %"
    raise_alarm(
        connection,
        _holds(canary),
        title=f"HOLD: the canary of {canary.plan.candidate_name} in {canary.plan.product}",
        severity="warning",
        product=canary.plan.product,
        lines=(
            f"Why: {canary.reason}",
            f"Users: at most {share} of them get its pictures; it goes on being judged.",
        ),
        asked=(
            "nothing, if it can wait: it goes on by itself when the cause is gone; else "
            f"`{_command(canary, 'skip')}` or `{_command(canary, 'abort')}`",
        ),
    )


def tell_goes_on(connection: Connection, canary: Canary) -> None:
    """Close what was told of a hold."""
    resolve_alarm(connection, _holds(canary), how=f"It goes on: {canary.reason}")


def tell_router(connection: Connection, canary: Canary, what: str, error: str) -> None:
    """Open the alarm that the router does not show what was decided; the worst there is."""
    raise_alarm(
        connection,
        _router(canary),
        title=f"NOT VERIFIED: {what} of {canary.plan.candidate_name} in {canary.plan.product}",
        severity="page",
        product=canary.plan.product,
        lines=(
            f"Users: up to {100 * canary.weight:g} % of them may still get its pictures.",
            f"Router: {error}",
            "Done: it is tried again at every look.",
        ),
        asked=(
            f"see to the router, then `imagegate rollback --product "
            f"{shlex.quote(canary.plan.product)}`",
        ),
    )


def tell_router_well(connection: Connection, canary: Canary) -> None:
    """Close the alarm about the router."""
    resolve_alarm(connection, _router(canary), how="The router shows what was decided.")


def _queue(
    connection: Connection,
    canary: Canary,
    key: str,
    notice: Notice,
    *,
    kind: Kind = "reply",
    severity: Severity = "info",
    topic: str,
) -> None:
    enqueue(
        connection,
        f"{thread(canary)}:{key}",
        canary.plan.run_id,
        notice_message(notice).payload(),
        kind=kind,
        thread=thread(canary),
        product=canary.plan.product,
        severity=severity,
        topic=topic,
    )


def _holds(canary: Canary) -> str:
    return f"canary:{canary.id}:hold"


def _router(canary: Canary) -> str:
    return f"canary:{canary.id}:router"


def _status(canary: Canary) -> str:
    return f"imagegate canary status --product {shlex.quote(canary.plan.product)}"


def _command(canary: Canary, word: str) -> str:
    return f"imagegate canary {word} --product {shlex.quote(canary.plan.product)}"
