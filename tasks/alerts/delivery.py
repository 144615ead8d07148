"""One pass of the outbox: plan, claim, send, mark; safe in several processes at once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tasks.alerts.chain import Chain, chain_of
from tasks.alerts.claims import (
    CLAIM_S,
    claim,
    kept,
    mark_delivered,
    mark_failed,
    mark_muted,
    retry_refused,
    waiting_rows,
)
from tasks.alerts.config import AlertsConfig, load_or_default
from tasks.alerts.outbox import Message, pending, redact
from tasks.alerts.parcel import AlertError, Anchor, Parcel, Receipt
from tasks.alerts.queue import Ready, plan
from tasks.errors import ImagegateError
from tasks.settings import Settings
from tasks.state import State

#: Seconds that a gate waits for delivery at the most; what is not delivered by then waits.
GATE_DEADLINE_S = 10.0
#: Other messages that a gate sends beside its own.
GATE_LIMIT = 20
#: Seconds after which a pass plans anew, so that a page that came meanwhile goes first.
_PLAN_S = 1.0

_log = logging.getLogger("imagegate.alerts")


@dataclass(slots=True)
class DeliveryReport:
    """What one delivery did."""

    delivered: list[str] = field(default_factory=list)
    #: The way that each delivered message took: ``slack``, ``webhook``, ``mail``.
    via: dict[str, str] = field(default_factory=dict)
    #: Error by key of the message; ``slack``, ``webhook``, ``mail`` and ``alerts.yaml`` name
    #: settings that cannot be used.
    failed: dict[str, str] = field(default_factory=dict)
    #: Messages that are still to be sent, the failed ones among them.
    left: int = 0
    #: True when the time ran out while a message was on its way; it may still arrive.
    late: bool = False


@dataclass(frozen=True, slots=True)
class Routes:
    """Where messages go: the routing, and what the settings add to it."""

    config: AlertsConfig = field(default_factory=AlertsConfig)
    #: Channel where the routing names none.
    channel: str = ""
    #: Somebody listens for the buttons in messages.
    interactive: bool = False

    def parcel(self, message: Message, ready: Ready, anchor: Anchor | None) -> Parcel:
        """Return a message with its channel, mention and recipients."""
        routing = ready.routing
        wakes = ready.severity == "page" and message.payload.get("mention", True)
        return Parcel(
            message=message,
            severity=ready.severity,
            channel=routing.channel or self.channel,
            anchor=anchor,
            mention=routing.mention if wakes else None,
            interactive=self.interactive,
            mail_to=routing.mail_to,
        )


def deliver(
    state: State,
    chain: Chain,
    routes: Routes | None = None,
    *,
    now: datetime | None = None,
    limit: int | None = None,
    deadline_s: float = 10.0,
    claim_s: float = CLAIM_S,
    until_sent: str | None = None,
) -> DeliveryReport:
    """Send what may be sent, and come back within ``deadline_s`` seconds whatever Slack does.

    Each message is tried once a call. The sending goes on in a thread of its own: when the time
    is over that thread is left to finish or to fail alone, and its message stays claimed until
    then.

    Args:
        state: The database.
        chain: The ways to people.
        routes: Where messages go.
        now: The present moment; the system's clock by default.
        limit: Messages to send at the most.
        deadline_s: Seconds until the call returns at the latest.
        claim_s: Claims older than this are taken over, in seconds.
        until_sent: Stop when the message of this key went, and the rest of its thread.
    """
    work = _Pass(
        state,
        chain,
        routes or Routes(),
        now=now,
        limit=limit,
        until=time.monotonic() + deadline_s,
        claim_s=claim_s,
        until_sent=until_sent,
    )
    thread = threading.Thread(target=work.run, name="imagegate-alerts", daemon=True)
    thread.start()
    thread.join(deadline_s)
    report = work.leave()
    report.left = len(pending(state))
    return report


class _Pass:
    """One pass, run in its own thread."""

    def __init__(
        self,
        state: State,
        chain: Chain,
        routes: Routes,
        *,
        now: datetime | None,
        limit: int | None,
        until: float,
        claim_s: float,
        until_sent: str | None,
    ) -> None:
        self._state, self._chain, self._routes = state, chain, routes
        self._fixed, self._limit, self._until = now, limit, until
        self._claim_s, self._until_sent = claim_s, until_sent
        self._report = DeliveryReport()
        self._lock = threading.Lock()
        self._busy = True
        self._tried: set[int] = set()
        self._ready: deque[Ready] = deque()
        self._planned = -_PLAN_S
        #: After the message that is waited for: the rest of its thread, and no more.
        self._only: str | None = None

    @property
    def _now(self) -> datetime:
        return self._fixed or datetime.now(UTC)

    def run(self) -> None:
        """Send one message after the other until nothing or no time is left."""
        try:
            while self._goes_on():
                ready = self._next()
                if ready is None:
                    break
                self._send(ready)
        except ImagegateError as error:
            with self._lock:
                self._report.failed["outbox"] = redact(str(error))
        finally:
            with self._lock:
                self._busy = False

    def leave(self) -> DeliveryReport:
        """Return the report as it stands; what comes later is only in the database."""
        with self._lock:
            report = self._report
            return DeliveryReport(
                list(report.delivered), dict(report.via), dict(report.failed), late=self._busy
            )

    def _goes_on(self) -> bool:
        if self._limit is not None and len(self._tried) >= self._limit:
            return False
        return time.monotonic() < self._until

    def _next(self) -> Ready | None:
        """Return the next message to try; ``None`` when there is none that could go now."""
        if self._ready and time.monotonic() - self._planned < _PLAN_S:
            return self._ready.popleft()
        rows, updated_at = waiting_rows(self._state)
        self._chain.refresh()
        now = self._now
        found = plan(
            rows,
            self._routes.config,
            updated_at,
            now=now,
            stale=now - timedelta(seconds=self._claim_s),
        )
        mark_muted(self._state, found.muted)
        self._ready = deque(
            ready
            for ready in found.ready
            if ready.id not in self._tried and self._only in (None, ready.thread)
        )
        self._planned = time.monotonic()
        return self._ready.popleft() if self._ready else None

    def _send(self, ready: Ready) -> None:
        now = self._now
        target = ready.routing.channel or self._routes.channel
        if not self._chain.can_carry(target, ready.urgency, now):
            self._tried.add(ready.id)  # not claimed: a way that is paused costs it no try
            with self._lock:
                self._report.failed.setdefault("ways", redact(self._chain.why_closed(target)))
            return
        stale = now - timedelta(seconds=self._claim_s)
        taken = claim(self._state, ready.id, now=now, stale=stale)
        self._tried.add(ready.id)
        if taken is None:
            return
        message, anchor = taken
        parcel = self._routes.parcel(message, ready, anchor)
        try:
            with kept(self._state, message):
                receipt = self._carry(parcel, ready)
        except AlertError as error:
            text = mark_failed(self._state, message, error, self._now)
            with self._lock:
                self._report.failed[message.dedup_key] = text
            return
        mark_delivered(self._state, message, receipt)
        with self._lock:
            self._report.delivered.append(message.dedup_key)
            self._report.via[message.dedup_key] = receipt.via
        if message.dedup_key == self._until_sent:
            self._only = message.thread or message.dedup_key
            self._planned = -_PLAN_S
        elif ready.more and ready.urgency == "page":
            self._planned = -_PLAN_S  # the page is still behind it

    def _carry(self, parcel: Parcel, ready: Ready) -> Receipt:
        try:
            return self._chain.send(parcel, ready.urgency, self._now)
        except AlertError:
            raise
        except ImagegateError as error:
            # Our own database or settings are in trouble, not the message.
            raise AlertError(f"{type(error).__name__}: {error}", "outage") from error
        except Exception as error:
            # Whatever a way does, the next message is sent.
            raise AlertError(f"{type(error).__name__}: {error}", "message") from error


def routes_of(settings: Settings) -> tuple[Routes, str | None]:
    """Return the routes, and what is wrong with the routing file, if anything."""
    config, problem = load_or_default(settings.alerts_file)
    if problem is not None:
        _log.warning("alerts are sent by the defaults: %s", problem)
    interactive = settings.slack_app_token is not None
    return Routes(config, settings.slack_channel.strip(), interactive), problem


def deliver_all(
    state: State,
    settings: Settings,
    deadline_s: float = 60.0,
    *,
    now: datetime | None = None,
    limit: int | None = None,
    force: bool = False,
    until_sent: str | None = None,
) -> DeliveryReport:
    """Send what waits; where nobody can be reached everything stays and the report says why.

    Args:
        state: The database.
        settings: The ways to people.
        deadline_s: Seconds until the call returns at the latest.
        now: The present moment; the system's clock by default.
        limit: Messages to send at the most.
        force: A person asks: what was given up on is tried again, pauses are overruled.
        until_sent: Stop when the message of this key went.
    """
    chain = chain_of(state, settings, force=force)
    routes, problem = routes_of(settings)
    if not chain.carriers:
        why = chain.why_closed("")
        report = DeliveryReport(failed={"slack": why}, left=len(pending(state)))
    else:
        if force:
            retry_refused(state)
        report = deliver(
            state,
            chain,
            routes,
            now=now,
            limit=limit,
            deadline_s=deadline_s,
            until_sent=until_sent,
        )
    report.failed |= chain.broken
    if problem is not None:
        report.failed["alerts.yaml"] = problem
    return report


def deliver_pending(state: State, settings: Settings, key: str) -> tuple[str, bool]:
    """Try to send what waits and return a sentence on the message ``key``, and whether it went."""
    report = deliver_all(state, settings, GATE_DEADLINE_S, limit=GATE_LIMIT, until_sent=key)
    # Not by the report alone: a resumed run may have told Slack before it was killed.
    if key not in {message.dedup_key for message in pending(state)}:
        return _told_by(report.via.get(key, "slack"), settings), True
    why = report.failed.get(key) or report.failed.get("slack") or report.failed.get("ways")
    why = why or "it did not answer in time"
    kept_text = "the message is kept, send it with `imagegate alerts deliver`"
    return f"Slack was not told ({why}); {kept_text}.", False


def _told_by(via: str, settings: Settings) -> str:
    if via == "webhook":
        return "Slack was told by the webhook."
    if via == "mail":
        return "On-call was told by mail."
    return f"Slack was told in {settings.slack_channel or 'the channel of alerts.yaml'}."
