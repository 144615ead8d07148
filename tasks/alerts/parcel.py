"""One message ready to go, who carries it, and how carrying fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tasks.alerts.config import Severity
from tasks.alerts.outbox import Message

#: What the sender of a message does about a failure.
#:
#: ``outage``: the way is down, try again later. ``token``: the way is closed until a person mends
#: the settings. ``limited``: the way asks for a pause. ``message``: this message was refused.
Trouble = Literal["outage", "token", "limited", "message"]


class AlertError(Exception):
    """A message was not delivered; the text has no secrets in it.

    Args:
        text: What went wrong.
        trouble: What follows from it.
        retry_after: Seconds that the receiver asked to wait, for ``limited``.
    """

    def __init__(
        self, text: str, trouble: Trouble = "outage", retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.trouble: Trouble = trouble
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the first message of a thread lies in Slack."""

    channel: str
    ts: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message with everything that its routing adds."""

    message: Message
    severity: Severity
    #: Slack channel by the routing; the anchor's channel goes before it.
    channel: str = ""
    anchor: Anchor | None = None
    #: Markup that calls on-call; only for pages.
    mention: str | None = None
    #: Somebody listens for buttons.
    interactive: bool = False
    mail_to: tuple[str, ...] = ()

    @property
    def wakes(self) -> bool:
        """Whether it is a page that still calls for somebody, also when nobody is on call."""
        return self.severity == "page" and bool(self.message.payload.get("mention", True))

    @property
    def target(self) -> str:
        """The Slack channel that it goes to."""
        return self.anchor.channel if self.anchor is not None else self.channel


@dataclass(frozen=True, slots=True)
class Receipt:
    """How a message was delivered."""

    #: ``slack``, ``webhook``, ``mail`` or ``skipped``.
    via: str
    details: dict[str, Any] = field(default_factory=dict)
    #: Where a thread's first message lies now, when this message is it.
    anchor: Anchor | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON, as the outbox keeps it."""
        return {"via": self.via, **self.details}


class Carrier(Protocol):
    """A way to people."""

    #: ``slack``, ``webhook`` or ``mail``.
    name: str

    def send(self, parcel: Parcel) -> Receipt:
        """Send it.

        Raises:
            AlertError: It was not sent.
        """
        ...


def skipped_update(parcel: Parcel) -> Receipt | None:
    """Return the receipt for an update on a way that cannot change what it sent."""
    if parcel.message.kind != "update":
        return None
    why = "the first message cannot be changed there; the replies tell the same"
    return Receipt("skipped", {"why": why})
