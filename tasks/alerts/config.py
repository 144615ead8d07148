"""Whom to tell, where and when: ``deployments/alerts.yaml``. Holds no secret.

One block of defaults and one a product; what a product does not say comes from the defaults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tasks.errors import ConfigError
from tasks.policy import Strict, parse_strict, read_yaml

Severity = Literal["info", "warning", "page"]
#: What a person may do from Slack.
Action = Literal["acknowledge", "roll_back", "approve"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "page")
#: Higher is more urgent.
RANK: dict[str, int] = {name: rank for rank, name in enumerate(SEVERITIES)}

_CHANNEL = re.compile(r"^(#[^\s#@,<>]{1,79}|[CDG][A-Z0-9]{6,20})$")
_GROUP = re.compile(r"^S[A-Z0-9]{6,20}$")
_USER = re.compile(r"^[UW][A-Z0-9]{6,20}$")
_ADDRESS = re.compile(r"^[^@\s,;:<>\"\\\x00-\x1f\x7f]+@[^@\s,;:<>\"\\\x00-\x1f\x7f]+$")
_CLOCK = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)$")


def as_severity(text: str) -> Severity:
    """Return a severity by its name; an unknown one is heard at once, never lost."""
    return next((name for name in SEVERITIES if name == text), "page")


def is_address(text: str) -> bool:
    """Tell whether a text is one plain mail address, with nothing that could end a header."""
    return _ADDRESS.match(text) is not None


def _channel(text: str) -> str:
    if not _CHANNEL.match(text):
        raise ValueError("write the id of a channel (C0123456789) or its name with # (#releases)")
    return text


def _on_call(text: str) -> str:
    if not _GROUP.match(text) and not _USER.match(text):
        raise ValueError(
            "write the id of a Slack user group (S0123456789) or of a user (U0123456789), "
            "not a name: only ids can be mentioned"
        )
    return text


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError("write one mail address, e.g. oncall@example.org")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone; write a name like Europe/Berlin or UTC") from None
    return name


def _clock(value: Any) -> str:
    # YAML 1.1 reads an unquoted 22:00 as the number 1320, in minutes.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 24 * 60:
        value = f"{value // 60:02d}:{value % 60:02d}"
    if not isinstance(value, str) or not _CLOCK.match(value):
        raise ValueError('write hours and minutes in quotes, e.g. "22:00"')
    return value


Channel = Annotated[str, AfterValidator(_channel)]
OnCall = Annotated[str, AfterValidator(_on_call)]
MailAddress = Annotated[str, AfterValidator(_address)]
Clock = Annotated[str, BeforeValidator(_clock)]


class QuietHours(Strict):
    """Hours in which only pages are sent; over midnight when ``until`` is before ``from``."""

    since: Clock = Field(alias="from")
    until: Clock
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"

    @model_validator(mode="after")
    def _some(self) -> QuietHours:
        if self.since == self.until:
            raise ValueError("from and until are the same; leave quiet_hours out for none")
        return self

    def end(self, now: datetime) -> datetime | None:
        """Return when the quiet hours end that ``now`` is in, in UTC; ``None`` outside of them.

        Wall clocks decide: on the day of a change of time they are an hour longer or shorter.
        """
        zone = ZoneInfo(self.time_zone)
        local = now.astimezone(zone)
        begin, end = time.fromisoformat(self.since), time.fromisoformat(self.until)
        clock = local.time().replace(tzinfo=None)
        over_midnight = end < begin
        inside = clock >= begin or clock < end if over_midnight else begin <= clock < end
        if not inside:
            return None
        day = local.date()
        if over_midnight and clock >= begin:
            day += timedelta(days=1)
        # ``fold=1``: of an hour that comes twice, its second end; never an end in the past.
        return datetime.combine(day, end, zone).replace(fold=1).astimezone(UTC)


class Person(Strict):
    """A person whom Slack knows by an id, and what they may do from there."""

    name: str = Field(min_length=1, max_length=120)
    may: tuple[Action, ...] = ()


class Routing(Strict):
    """Where messages of a product go."""

    channel: Channel | None = None
    on_call: OnCall | None = None
    quiet_hours: QuietHours | None = None
    least_severity: Severity = "info"
    severities: Mapping[str, Severity] = Field(default_factory=dict)
    authority: Mapping[str, Person] = Field(default_factory=dict)
    repeat_minutes: float = Field(default=10.0, ge=1, le=24 * 60)
    mail_to: tuple[MailAddress, ...] = ()

    @model_validator(mode="after")
    def _users(self) -> Routing:
        for user in self.authority:
            if not _USER.match(user):
                raise ValueError(
                    f"authority names {user!r}: write ids of Slack users (U0123456789)"
                )
        return self

    @property
    def mention(self) -> str | None:
        """The mention of on-call in Slack's markup, ``None`` when nobody is named."""
        if self.on_call is None:
            return None
        return f"<!subteam^{self.on_call}>" if self.on_call[0] == "S" else f"<@{self.on_call}>"

    def severity(self, topic: str, severity: str) -> Severity:
        """Return how severe a message is here.

        Args:
            topic: What it is about, e.g. ``gate.hold``; the longest name in ``severities`` that
                is the topic, or its beginning up to a dot or colon, decides.
            severity: What its sender takes it for.
        """
        fitting = [
            name
            for name in self.severities
            if topic == name or topic.startswith((f"{name}.", f"{name}:"))
        ]
        if fitting:
            return self.severities[max(fitting, key=len)]
        return as_severity(severity)

    def person(self, user_id: str, action: Action) -> Person | None:
        """Return who a Slack user is when they may do ``action``, else ``None``."""
        found = self.authority.get(user_id)
        return found if found is not None and action in found.may else None


class AlertsConfig(Strict):
    """The file ``alerts.yaml``."""

    schema_version: Literal[1] = 1
    default: Routing = Routing()
    products: Mapping[str, Routing] = Field(default_factory=dict)

    def routing(self, product: str | None) -> Routing:
        """Return the routing of a product: what it does not say comes from the defaults."""
        own = self.products.get(product or "")
        if own is None:
            return self.default
        given = {name: getattr(own, name) for name in own.model_fields_set}
        return self.default.model_copy(update=given)


def load_alerts(path: Path) -> AlertsConfig:
    """Read the routing of alerts.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    value = read_yaml(path)
    if value is None:
        raise ConfigError(
            f"{path}: the file is empty; write at least `schema_version: 1`, or start from "
            "deployments/alerts.yaml"
        )
    return parse_strict(AlertsConfig, value, path)


def load_or_default(path: Path) -> tuple[AlertsConfig, str | None]:
    """Return the routing, and what is wrong with its file, if anything.

    A file with a mistake must not silence an alert: then the defaults decide.
    """
    try:
        return load_alerts(path), None
    except ConfigError as error:
        return AlertsConfig(), str(error)
