"""What a click in Slack means and whether it may be carried out: pure, from a payload to a word.

A payload is foreign even though Slack brought it: nothing in it is believed but the ids that Slack
itself puts there (workspace, user, channel, message). Who may do what stands in ``alerts.yaml``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.alerts.config import Action, AlertsConfig
from tasks.alerts.text import mrkdwn

#: Longest value of a button; Slack's own limit.
MAX_VALUE = 2000
#: What each of our buttons asks for; rejecting is part of the right to approve.
BUTTONS: Mapping[str, Action] = {
    "imagegate_acknowledge": "acknowledge",
    "imagegate_roll_back": "roll_back",
    "imagegate_approve": "approve",
    "imagegate_reject": "approve",
}
_WORDS: Mapping[str, str] = {
    "imagegate_acknowledge": "acknowledge alerts",
    "imagegate_roll_back": "roll production back",
    "imagegate_approve": "approve runs",
    "imagegate_reject": "reject runs",
}
_FIELDS = ("run_id", "product", "key", "to")
_MOST_FIELD = 200
_USER = re.compile(r"^[UW][A-Z0-9]{6,20}$")
_CHANNEL = re.compile(r"^[CDG][A-Z0-9]{6,20}$")
_TS = re.compile(r"^[0-9]{1,12}\.[0-9]{1,9}$")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The workspace that the bot token belongs to, as ``auth.test`` names it."""

    team_id: str
    enterprise_id: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What a button is about; empty fields were not in its value."""

    run_id: str = ""
    product: str = ""
    #: Key of an incident.
    key: str = ""
    #: Digest of the mix to put back.
    to: str = ""


@dataclass(frozen=True, slots=True)
class Click:
    """One press of one of our buttons."""

    action_id: str
    about: About
    #: The button's value as it came.
    value: str
    user_id: str
    channel: str
    #: Message that holds the button, and the thread that the answer goes into.
    message_ts: str
    thread_ts: str
    action_ts: str

    @property
    def action(self) -> Action:
        """What it asks for."""
        return BUTTONS[self.action_id]

    @property
    def key(self) -> str:
        """The same for every delivery of this click and for no other click."""
        return ":".join(
            (self.channel, self.message_ts, self.action_id, self.user_id, self.action_ts)
        )

    @property
    def sent_at(self) -> float:
        """When the message with the button was sent, in seconds since 1970."""
        return float(self.message_ts)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A payload that is none of ours or was tampered with; nobody is answered."""

    why: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """The click may be carried out by this person."""

    #: Their name in ``alerts.yaml``: what requester and approvers are compared with.
    name: str
    #: Name and Slack id, as journals keep it.
    actor: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The click may not be carried out; the sentence is shown to the one who clicked."""

    sentence: str


@dataclass(frozen=True, slots=True)
class RunFact:
    """What our records say about the run that a button names."""

    product: str
    candidate_digest: str
    baseline_digest: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What our own records say about a click."""

    run: RunFact | None = None
    #: Whether the alarm that the button names is known, and its product.
    incident: bool = False
    incident_product: str | None = None
    #: Name of the thread that the message is in, e.g. ``run:<run_id>``; empty when unknown.
    thread: str = ""
    #: Digest that serves the product, the one before it, and all that ever served it.
    serves: str | None = None
    before: str | None = None
    served: frozenset[str] = frozenset()
    epoch: int = 0
    #: When production last changed, in seconds since 1970.
    changed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Aim:
    """A rollback to one mix, fenced by what production may be on for it to hold."""

    product: str
    to: str
    epoch: int | None = None
    mixes: tuple[str, ...] = ()


def read_click(payload: Any, workspace: Workspace) -> Click | Ignored:
    """Return the click that a payload tells of, or why it is none of ours."""
    if not isinstance(payload, Mapping) or payload.get("type") != "block_actions":
        return Ignored("not a press of a button")
    if not _ours(payload, workspace):
        return Ignored("from another workspace")
    actions = payload.get("actions")
    # Slack sends one action a press; more than one is not from a button of ours.
    if not isinstance(actions, list) or len(actions) != 1 or not isinstance(actions[0], Mapping):
        return Ignored("not exactly one action")
    action = actions[0]
    if action.get("type") != "button" or str(action.get("action_id")) not in BUTTONS:
        return Ignored("an action that imagegate does not know")
    about = read_value(action.get("value"))
    return about if isinstance(about, Ignored) else _click(payload, action, about)


def _click(payload: Mapping[str, Any], action: Mapping[str, Any], about: About) -> Click | Ignored:
    container = _part(payload, "container")
    found = {
        "user": (str(_part(payload, "user").get("id", "")), _USER),
        "channel": (str(container.get("channel_id", "")), _CHANNEL),
        "message": (str(container.get("message_ts", "")), _TS),
        "thread": (str(container.get("thread_ts") or container.get("message_ts", "")), _TS),
        "moment": (str(action.get("action_ts", "")), _TS),
    }
    for name, (text, shape) in found.items():
        if not shape.fullmatch(text):
            return Ignored(f"its {name} is not an id of Slack")
    return Click(
        action_id=str(action["action_id"]),
        about=about,
        value=str(action["value"]),
        user_id=found["user"][0],
        channel=found["channel"][0],
        message_ts=found["message"][0],
        thread_ts=found["thread"][0],
        action_ts=found["moment"][0],
    )


def read_value(value: Any) -> About | Ignored:
    """Return what the value of a button is about; strict, since only we write them."""
    if not isinstance(value, str) or len(value) > MAX_VALUE:
        return Ignored("its value is no text of ours")
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        return Ignored("its value is not JSON")
    if not isinstance(fields, dict) or set(fields) - set(_FIELDS):
        return Ignored("its value has fields that imagegate does not write")
    for text in fields.values():
        if not isinstance(text, str) or not 0 < len(text) <= _MOST_FIELD or not text.isprintable():
            return Ignored("its value has something else than short texts")
    return About(**fields)


def authorize(click: Click, config: AlertsConfig, product: str | None) -> Allowed | Refused:
    """Return whether the person who clicked may do what they ask for.

    Args:
        click: The click.
        config: Holds who may do what.
        product: The product that the click is really about, as our own records say.
    """
    routing = config.routing(product)
    person = routing.person(click.user_id, click.action)
    if person is not None:
        return Allowed(person.name, f"{person.name} (Slack {click.user_id})")
    may = [f"<@{user}>" for user, known in routing.authority.items() if click.action in known.may]
    of = f" of {product}" if product else ""
    who = (
        f"These may{of}: {', '.join(may)}."
        if may
        else f"Nobody may{of} from Slack: `authority` in alerts.yaml names nobody for it."
    )
    return Refused(f"You may not {_WORDS[click.action_id]} from here. {who} Nothing was changed.")


def identify(click: Click, facts: Facts) -> str | Refused | None:
    """Return the product that a click is about by our own records, ``None`` for no product.

    The value of the button only points at records; where it contradicts them it was not written
    by us for this message.
    """
    about = click.about
    if about.run_id and facts.run is None:
        return Refused(f"I know no run {mrkdwn(about.run_id, 120)}. Nothing was changed.")
    if about.key and not facts.incident:
        return Refused(f"I know no alarm {mrkdwn(about.key, 120)}. Nothing was changed.")
    products = {facts.run.product} if facts.run else set()
    products |= {facts.incident_product} if facts.incident_product else set()
    products |= {about.product} if about.product else set()
    strays = facts.thread.startswith("run:") and about.run_id not in ("", facts.thread[4:])
    if len(products) > 1 or strays:
        return Refused("This button does not fit its message. Nothing was changed.")
    return products.pop() if products else None


def aim(click: Click, facts: Facts, product: str | None) -> Aim | Refused:
    """Return what a press of "Roll back" does now, so that a second press does nothing more.

    A message stays for ever and so does its button. It means: undo what this message is about, and
    not: go one further back from wherever production is when somebody presses it.
    """
    if product is None or facts.serves is None:
        return Refused(
            "This message does not say which product; use `imagegate rollback --product NAME`. "
            "Nothing was changed."
        )
    to = click.about.to or (facts.run.baseline_digest if facts.run else facts.before)
    if to is None or to not in facts.served:
        return Refused(
            f"{mrkdwn(product, 120)} never served the mix that this button would put back. "
            "Nothing was changed."
        )
    if facts.run is not None:
        # Production may also be there already: then the router is only read back once more.
        return Aim(product, to, mixes=(facts.run.candidate_digest, to))
    if facts.serves == to:
        return Aim(product, to, epoch=facts.epoch)
    if facts.changed_at > click.sent_at:
        return Refused(
            f"Production of {mrkdwn(product, 120)} changed after this message was sent, so its "
            "button is out of date. See `imagegate status`; `imagegate rollback` still works. "
            "Nothing was changed."
        )
    return Aim(product, to, epoch=facts.epoch)


def _ours(payload: Mapping[str, Any], workspace: Workspace) -> bool:
    team = str(_part(payload, "team").get("id", ""))
    if team:
        return team == workspace.team_id
    # An app installed for a whole organisation: there is no single workspace.
    enterprise = str(_part(payload, "enterprise").get("id", ""))
    return bool(enterprise) and enterprise == workspace.enterprise_id


def _part(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = payload.get(name)
    return value if isinstance(value, Mapping) else {}
