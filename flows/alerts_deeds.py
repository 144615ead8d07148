"""What ``imagegate alerts`` does: list, deliver, test, acknowledge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import ConfigError, RefusedError, known
from tasks.settings import Settings

if TYPE_CHECKING:
    from datetime import datetime

    from tasks.alerts.outbox import Message

#: Seconds of one pass of ``deliver``; another one follows while messages get through.
_PASS_S = 60.0
#: Seconds that ``ack`` tries to tell the thread.
_ACK_S = 10.0


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
    from tasks.alerts.outbox import as_message, packed
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
            "payload": packed(notice_message(notice).payload()),
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
