"""The ways to people in their order: bot token, webhook, mail; and when to take the next one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.alerts.claims import Health, note_failure, note_success, read_health
from tasks.alerts.config import Severity
from tasks.alerts.mail import mail_carrier
from tasks.alerts.parcel import AlertError, Carrier, Parcel, Receipt, Trouble
from tasks.alerts.slack import slack_carrier
from tasks.alerts.webhook import webhook_carrier
from tasks.errors import ConfigError
from tasks.settings import Settings
from tasks.state import State

#: Failed tries of the first way before a page takes the next one.
PAGE_TRIES = 2
#: How long the first way is away before anything else than a page takes the next one.
PATIENCE = timedelta(minutes=15)


def may_fall_back(urgency: Severity, *, tries: int, health: Health, now: datetime) -> bool:
    """Tell whether a message leaves the first way for the next one after an outage.

    Args:
        urgency: Of the most urgent message in its thread.
        tries: How often this message was tried.
        health: How the first way works.
        now: The present moment.
    """
    if urgency == "page":
        return tries >= PAGE_TRIES or health.failures >= PAGE_TRIES
    return health.failing_since is not None and now - health.failing_since >= PATIENCE


class Chain:
    """The ways to people that the settings give, with their health.

    Args:
        state: The database; it holds the health for all processes.
        carriers: The ways, the best first.
        force: A person asks: pauses after failures are overruled, a receiver's wish is not.
        broken: Ways whose settings cannot be used, with the reason.
    """

    def __init__(
        self,
        state: State,
        carriers: Sequence[Carrier],
        *,
        force: bool = False,
        broken: dict[str, str] | None = None,
    ) -> None:
        self._state = state
        self.carriers = tuple(carriers)
        self._force = force
        self.broken = dict(broken or {})
        self._health: dict[str, Health] = {}
        #: Why a way is closed until a person mends the settings; tried anew by the next delivery.
        self._closed: dict[str, str] = {}

    def refresh(self) -> None:
        """Read the health anew: other processes write it too."""
        self._health = read_health(self._state)

    def can_carry(self, target: str, urgency: Severity, now: datetime) -> bool:
        """Tell whether any way is open for a message to the Slack channel ``target`` now."""
        return bool(self._open(target, urgency, now))

    def why_closed(self, target: str) -> str:
        """Return why no way is open for such a message, in words."""
        if not self.carriers:
            named = "; ".join(self.broken.values())
            return named or (
                "no SLACK_BOT_TOKEN is set, nor IMAGEGATE_SLACK_WEBHOOK or IMAGEGATE_SMTP_URL"
            )
        said = []
        for way in self.carriers:
            name = self._name(way, target)
            if name in self._closed:
                said.append(f"{way.name}: {self._closed[name]}")
                continue
            for at in (name, way.name):
                health = self._health.get(at)
                if health is not None and health.not_before is not None:
                    again = f"next try {health.not_before:%H:%M:%S} UTC"
                    said.append(f"{way.name}: {health.last_error}; {again}")
                    break
        return "; ".join(said) or "every way is paused"

    def send(self, parcel: Parcel, urgency: Severity, now: datetime) -> Receipt:
        """Send by the first way that takes it.

        Args:
            parcel: The message.
            urgency: Of the most urgent message in its thread.
            now: The present moment.

        Raises:
            AlertError: No way took it; the error of the last one, with what it means.
        """
        errors: list[AlertError] = []
        ways = self._open(parcel.channel, urgency, now)
        for position, way in enumerate(ways):
            try:
                receipt = self._try(way, parcel, urgency, now, last=position == len(ways) - 1)
            except AlertError as error:
                errors.append(error)
                leaves = error.trouble in ("token", "message") or way.name != "slack"
                if not leaves and not self._falls_back(way, parcel, urgency, now):
                    break
            else:
                if errors:
                    receipt.details["instead_of"] = str(errors[0])
                return receipt
        if not errors:
            raise AlertError("every way is paused")
        raise self._told(errors)

    def _try(
        self, way: Carrier, parcel: Parcel, urgency: Severity, now: datetime, *, last: bool
    ) -> Receipt:
        """Try one way; a page that could take another one tries twice without waiting."""
        name = self._name(way, parcel.channel)
        while True:
            try:
                receipt = way.send(parcel)
            except AlertError as error:
                if error.trouble == "token":
                    self._closed[name] = str(error)
                elif error.trouble != "message":
                    at = name if error.trouble == "limited" else way.name
                    self._health[at] = note_failure(self._state, at, error, now)
                    again = urgency == "page" and not last and error.trouble == "outage"
                    if again and not self._falls_back(way, parcel, urgency, now):
                        continue
                raise
            for at in {name, way.name}:
                if at in self._health:
                    note_success(self._state, at)
                    del self._health[at]
            return receipt

    def _falls_back(self, way: Carrier, parcel: Parcel, urgency: Severity, now: datetime) -> bool:
        name = self._name(way, parcel.channel)
        limited = self._health.get(name, Health())
        if limited.limited and urgency == "page":
            return True  # asked to wait longer than a page can
        health = self._health.get(way.name, limited)
        return may_fall_back(urgency, tries=parcel.message.attempts, health=health, now=now)

    def _open(self, target: str, urgency: Severity, now: datetime) -> list[Carrier]:
        """Return the ways that may be tried for such a message now, in order."""
        found: list[Carrier] = []
        for way in self.carriers:
            name = self._name(way, target)
            if name in self._closed:
                continue
            healths = [self._health[at] for at in {name, way.name} if at in self._health]
            held = [h for h in healths if h.held(now, force=self._force)]
            if not held:
                found.append(way)
            elif way.name == "slack" and not any(
                urgency == "page" or may_fall_back(urgency, tries=0, health=h, now=now)
                for h in held
            ):
                break  # A way that pauses is waited for, until it has been away for long.
        return found

    @staticmethod
    def _name(way: Carrier, target: str) -> str:
        """Return under which name a way's limits and closures are kept: Slack's by channel."""
        return f"slack:{target}"[:120] if way.name == "slack" else way.name

    @staticmethod
    def _told(errors: Sequence[AlertError]) -> AlertError:
        """Return one error that says what each way said and means what the mildest means."""
        text = "; ".join(dict.fromkeys(str(error) for error in errors))
        # Refused by all: the message is at fault. Otherwise another try may help.
        trouble: Trouble = next((e.trouble for e in errors if e.trouble != "message"), "message")
        return AlertError(text, trouble)


def ways_of(settings: Settings) -> tuple[list[Carrier], dict[str, str]]:
    """Return the ways that the settings give, and what is wrong with those that cannot be used."""
    ways: list[Carrier] = []
    broken: dict[str, str] = {}
    for name, make in (
        ("slack", slack_carrier),
        ("webhook", webhook_carrier),
        ("mail", mail_carrier),
    ):
        try:
            way: Carrier | None = make(settings)
        except ConfigError as error:
            broken[name] = str(error)
        else:
            if way is not None:
                ways.append(way)
    return ways, broken


def chain_of(state: State, settings: Settings, *, force: bool = False) -> Chain:
    """Return the ways that the settings give, ready to send."""
    ways, broken = ways_of(settings)
    return Chain(state, ways, force=force, broken=broken)
