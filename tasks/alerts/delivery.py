"""Delivery of what waits in the outbox, with the sender that the settings give."""

from __future__ import annotations

from tasks.alerts.outbox import DeliveryReport, deliver, pending
from tasks.alerts.slack import SlackSender
from tasks.errors import ConfigError
from tasks.settings import Settings
from tasks.state import State

#: Seconds that a gate waits for Slack at the most; what is not delivered by then waits.
GATE_DEADLINE_S = 10.0


def deliver_all(state: State, settings: Settings, deadline_s: float = 60.0) -> DeliveryReport:
    """Send what waits; without a token everything stays and the report says so.

    Raises:
        ConfigError: The token is set but no channel, or Slack's address is wrong.
    """
    token = settings.slack_token
    if token is None:
        return DeliveryReport(
            failed={"slack": "no SLACK_BOT_TOKEN is set"}, left=len(pending(state))
        )
    sender = SlackSender(token, settings.slack_channel, settings.slack_base_url)
    return deliver(state, sender, deadline_s=deadline_s)


def deliver_pending(state: State, settings: Settings, key: str) -> tuple[str, bool]:
    """Try to send what waits and return a sentence on the message ``key``, and whether it went."""
    try:
        report = deliver_all(state, settings, GATE_DEADLINE_S)
    except ConfigError as error:
        # A wrong Slack setting must not undo a verdict that was carried out already.
        report = DeliveryReport(failed={"slack": str(error)})
    # Not by the report alone: a resumed run may have told Slack before it was killed.
    if key not in {message.dedup_key for message in pending(state)}:
        return f"Slack was told in {settings.slack_channel}.", True
    why = report.failed.get(key) or report.failed.get("slack") or "it did not answer in time"
    kept = "the message is kept, send it with `imagegate alerts deliver`"
    return f"Slack was not told ({why}); {kept}.", False
