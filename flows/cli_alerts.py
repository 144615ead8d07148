"""``imagegate alerts``: what people were not told yet, delivery, a real test, acknowledgement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.errors import ConfigError, RefusedError, known
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.alerts.outbox import Message

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]

alerts = typer.Typer(
    help="Messages to people: what waits, delivery, a test, and who takes care.",
    epilog="Examples:  imagegate alerts  ·  imagegate alerts deliver --watch  ·  "
    "imagegate alerts test --severity page",
    invoke_without_command=True,
)

#: Seconds of one pass of ``deliver``; another one follows while messages get through.
_PASS_S = 60.0
#: Seconds that ``ack`` tries to tell the thread.
_ACK_S = 10.0


@alerts.callback()
def _alerts(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        _show(listed(load_settings()), as_json)


@alerts.command("list")
def list_(as_json: Json = False) -> None:
    """List the messages that wait and the alarms that last."""
    _show(listed(load_settings()), as_json)


@alerts.command()
def deliver(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C or SIGTERM: the outbox worker.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what waits; exit code 4 when something could not be sent."""
    settings = load_settings()
    if watch:
        _watch(settings, as_json)
        return
    shown = deliver_now(settings)
    _show(shown, as_json)
    if shown["pending"] and shown["failed_now"]:
        raise typer.Exit(4)


@alerts.command(
    "test",
    epilog="Exit code 4 when no way took it. Nothing is queued: what this says is what happened.",
)
def try_out(
    severity: Annotated[
        str, typer.Option(help="info, warning or page; a page mentions on-call.")
    ] = "info",
    product: Annotated[str | None, typer.Option(help="Route as for this product.")] = None,
    as_json: Json = False,
) -> None:
    """Send a real message by the real ways, and say which one took it."""
    from flows.cli_io import emit, say

    told = send_test(load_settings(), severity, product)
    if as_json:
        emit(told)
    else:
        say(render_test(told))
    if told["via"] is None:
        raise typer.Exit(4)


@alerts.command(epilog="Example:  imagegate alerts ack run:20261125-031500-summer-1f2e")
def ack(
    key: Annotated[str, typer.Argument(help="Key of the alarm; `imagegate alerts` lists them.")],
    owner: Annotated[str | None, typer.Option(help="Who takes care; default: user@host.")] = None,
    as_json: Json = False,
) -> None:
    """Say that you take care of an alarm: its thread shows it."""
    from flows.cli_io import emit, say, whoami

    done = acknowledge_now(load_settings(), key, owner or whoami())
    if as_json:
        emit(done)
    else:
        say(f"{done['key']}: acknowledged by {done['by']}")


def _show(shown: dict[str, Any], as_json: bool) -> None:
    from flows.cli_io import emit, say

    if as_json:
        emit(shown)
    else:
        say(render(shown))


def _watch(settings: Settings, as_json: bool) -> None:
    """Deliver until a person or the system ends it."""
    import signal
    import threading

    from flows.cli_io import emit, say
    from flows.operate import opened
    from tasks.alerts.delivery import DeliveryReport
    from tasks.alerts.worker import OutboxWorker

    def seen(report: DeliveryReport) -> None:
        shown = {
            "delivered_now": report.delivered,
            "failed_now": report.failed,
            "left": report.left,
        }
        if as_json:
            emit(shown)
            return
        for key in report.delivered:
            say(f"delivered by {report.via.get(key, '?')}: {key}")
        for key, why in report.failed.items():
            say(f"not delivered: {key}: {why}")

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    with opened(settings) as state, OutboxWorker(state, settings, seen=seen):
        stop.wait()


def listed(settings: Settings, now: datetime | None = None) -> dict[str, Any]:
    """Return the messages that wait, with their reasons, and the alarms that last."""
    from datetime import UTC, datetime

    from flows.operate import opened
    from tasks.alerts.claims import read_health, waiting_rows
    from tasks.alerts.delivery import routes_of
    from tasks.alerts.incidents import open_incidents
    from tasks.alerts.outbox import pending
    from tasks.alerts.queue import plan

    moment = now or datetime.now(UTC)
    routes, problem = routes_of(settings)
    with opened(settings) as state:
        waiting, lasting = pending(state), open_incidents(state)
        rows, updated = waiting_rows(state)
        health = read_health(state)
    waits = plan(rows, routes.config, updated, now=moment, stale=moment).waits
    return {
        "pending": [_message(m, waits.get(m.id), moment) for m in waiting],
        "alarms": [
            {
                "key": incident.key,
                "severity": incident.severity,
                "product": incident.product,
                "title": incident.title,
                "count": incident.count,
                "opened_at": incident.opened_at,
                "last_at": incident.last_at,
                "acknowledged_by": incident.acknowledged_by,
            }
            for incident in lasting
        ],
        "ways": {
            name: {
                "failures": found.failures,
                "failing_since": _text(found.failing_since),
                "next_try": _text(found.not_before),
                "last_error": found.last_error,
            }
            for name, found in sorted(health.items())
        },
        "problem": problem,
        "delivered_now": [],
        "failed_now": {},
    }


def _text(moment: datetime | None) -> str | None:
    from tasks.mix.freeze import stamp

    return None if moment is None else stamp(moment)


def _message(message: Message, waits: str | None, now: datetime) -> dict[str, Any]:
    from datetime import datetime

    age = now - datetime.fromisoformat(message.created_at)
    return {
        "key": message.dedup_key,
        "run_id": message.run_id,
        "thread": message.thread,
        "kind": message.kind,
        "product": message.product,
        "severity": message.severity,
        "status": message.status,
        "text": str(message.payload.get("text", "")),
        "attempts": message.attempts,
        "last_error": message.last_error,
        "created_at": message.created_at,
        "age_s": round(max(0.0, age.total_seconds()), 1),
        "waits": waits,
    }


def deliver_now(settings: Settings) -> dict[str, Any]:
    """Send what waits, as long as something gets through, and return what is left."""
    from flows.operate import opened
    from tasks.alerts.delivery import deliver_all

    delivered: list[str] = []
    via: dict[str, str] = {}
    with opened(settings) as state:
        while True:
            report = deliver_all(state, settings, _PASS_S, force=not delivered)
            delivered += report.delivered
            via |= report.via
            if not (report.delivered and report.left) or report.failed:
                break
    return listed(settings) | {
        "delivered_now": delivered,
        "via": via,
        "failed_now": report.failed,
    }


def send_test(settings: Settings, severity: str, product: str | None) -> dict[str, Any]:
    """Send a test message at once, past queue and quiet hours, and return what became of it.

    Raises:
        ConfigError: The severity or the routing file is wrong.
    """
    import secrets
    from datetime import UTC, datetime

    from flows.operate import opened
    from tasks.alerts.chain import chain_of
    from tasks.alerts.config import SEVERITIES, load_alerts
    from tasks.alerts.delivery import routes_of
    from tasks.alerts.messages import Notice, notice_message
    from tasks.alerts.outbox import as_message
    from tasks.alerts.parcel import AlertError
    from tasks.alerts.queue import Ready
    from tasks.records import utc_now

    chosen = next((name for name in SEVERITIES if name == severity), None)
    if chosen is None:
        raise ConfigError(f"--severity: got {severity!r} {known(SEVERITIES)}")
    load_alerts(settings.alerts_file)  # here a mistake in it is the news
    routes, _ = routes_of(settings)
    routing = routes.config.routing(product)
    now = datetime.now(UTC)
    quiet = None if routing.quiet_hours is None else routing.quiet_hours.end(now)
    notice = Notice(
        title="TEST: imagegate can reach you",
        severity=chosen,
        product=product,
        emoji="🧪",
        lines=(
            "Users: nothing happens to them, this is a test of the alerts.",
            f"Sent: {utc_now()[:16].replace('T', ' ')} UTC as {chosen}",
        ),
        links=(("State of alerts", "imagegate alerts"),),
    )
    row = dict.fromkeys(("run_id", "last_error", "claimed_at", "delivered_at", "receipt"))
    message = as_message(
        row
        | {
            "id": 0,
            "dedup_key": f"test:{secrets.token_hex(4)}",
            "channel": "slack",
            "payload": _packed(notice_message(notice).payload()),
            "status": "sending",
            "attempts": 1,
            "created_at": utc_now(),
            "product": product,
            "severity": chosen,
            "topic": "test",
        }
    )
    ready = Ready(0, chosen, chosen, routing, None)
    told: dict[str, Any] = {
        "severity": chosen,
        "product": product,
        "channel": routing.channel or routes.channel or None,
        "mention": routing.mention if chosen == "page" else None,
        "quiet_until": _text(quiet) if quiet is not None and chosen != "page" else None,
        "via": None,
        "receipt": None,
        "error": None,
    }
    with opened(settings) as state:
        chain = chain_of(state, settings, force=True)
        told["ways"] = [way.name for way in chain.carriers]
        told["broken"] = chain.broken
        chain.refresh()
        if not chain.carriers:
            return told | {"error": chain.why_closed("")}
        try:
            receipt = chain.send(routes.parcel(message, ready, None), chosen, now)
        except AlertError as error:
            return told | {"error": str(error)}
    return told | {"via": receipt.via, "receipt": receipt.to_dict()}


def _packed(payload: dict[str, Any]) -> str:
    from tasks.alerts.outbox import packed

    return packed(payload)


def render_test(told: dict[str, Any]) -> str:
    """Return what became of a test in lines."""
    lines = [f"{name} cannot be used: {why}" for name, why in told["broken"].items()]
    if told["via"] is None:
        lines.append(f"NOT sent: {told['error']}")
        return "\n".join(lines)
    receipt = told["receipt"]
    where = {
        "slack": f"channel {receipt.get('channel')}",
        "webhook": "the channel of the webhook",
        "mail": ", ".join(receipt.get("to", [])),
    }[told["via"]]
    lines.append(f"sent by {told['via']} to {where}")
    if "instead_of" in receipt:
        lines.append(f"the way before it failed: {receipt['instead_of']}")
    if told["mention"]:
        lines.append(f"mentioned on-call: {told['mention']}")
    elif told["severity"] == "page":
        lines.append("nobody was mentioned: on_call is not set in alerts.yaml")
    if told["quiet_until"]:
        lines.append(
            f"an alert of this severity would wait for {told['quiet_until']} (quiet hours)"
        )
    return "\n".join(lines)


def acknowledge_now(settings: Settings, key: str, by: str) -> dict[str, Any]:
    """Acknowledge an alarm and tell its thread.

    Raises:
        RefusedError: No alarm of this key lasts, or somebody acknowledged it.
    """
    from flows.operate import opened
    from tasks.alerts.delivery import deliver_all
    from tasks.alerts.incidents import acknowledge, open_incidents, read_incident

    with opened(settings) as state:
        if not acknowledge(state, key, by):
            found = read_incident(state, key)
            if found is not None and found.status == "open":
                raise RefusedError(
                    f"alarm {key!r} was acknowledged by {found.acknowledged_by} at "
                    f"{found.acknowledged_at}"
                )
            keys = [incident.key for incident in open_incidents(state)]
            raise RefusedError(f"no alarm {key!r} is open {known(keys)}")
        report = deliver_all(state, settings, _ACK_S)
    return {"key": key, "by": by, "delivered_now": report.delivered, "failed_now": report.failed}


def render(shown: dict[str, Any]) -> str:
    """Return the outbox and the alarms in lines."""
    from tasks.alerts.text import clean

    via = shown.get("via", {})
    lines = [
        f"delivered by {via[key]}: {key}" if key in via else f"delivered: {key}"
        for key in shown["delivered_now"]
    ]
    lines += [f"not delivered: {key}: {why}" for key, why in shown["failed_now"].items()]
    if shown["problem"]:
        lines.append(f"alerts go by the defaults: {shown['problem']}")
    for name, way in shown["ways"].items():
        again = f", next try {way['next_try']}" if way["next_try"] else ""
        lines.append(f"{name} failed {way['failures']} times{again}: {way['last_error']}")
    for alarm in shown["alarms"]:
        who = alarm["acknowledged_by"]
        care = f"acknowledged by {who}" if who else f"imagegate alerts ack {alarm['key']}"
        lines.append(
            f"{alarm['severity']} since {alarm['opened_at']}, came {alarm['count']} times "
            f"({clean(care)}): {clean(alarm['title'])[:160]}"
        )
    for message in shown["pending"]:
        error = f" (last error: {message['last_error']})" if message["last_error"] else ""
        why = f"; {message['waits']}" if message["waits"] else ""
        thread = f" in {clean(message['thread'])}" if message["thread"] else ""
        lines.append(
            f"{message['severity']} waits {_age(message['age_s'])}, tried {message['attempts']} "
            f"times{error}{thread}{why}: {clean(message['text'])[:160]}"
        )
    return "\n".join(lines) or "the outbox is empty, and no alarm lasts"


def _age(seconds: float) -> str:
    """Return an age as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
