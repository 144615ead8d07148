"""What ``imagegate alerts`` says, in lines for a terminal."""

from __future__ import annotations

from typing import Any


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
