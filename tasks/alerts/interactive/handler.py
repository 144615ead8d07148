"""Carrying out clicks, one after the other: facts, authority, deed, answer, book."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from tasks.alerts.config import AlertsConfig
from tasks.alerts.interactive.decide import (
    Aim,
    Allowed,
    Click,
    Facts,
    Ignored,
    Refused,
    Workspace,
    aim,
    authorize,
    identify,
    read_click,
)
from tasks.alerts.interactive.store import Outcome, book, facts_of, take
from tasks.alerts.outbox import redact
from tasks.alerts.text import prose
from tasks.errors import ConfigError, ImagegateError, RefusedError
from tasks.state import State

#: Characters of an answer.
_MOST_ANSWER = 2500


class Deeds(Protocol):
    """What clicks can do; the same functions that the command line calls.

    Each returns what was done as a sentence, in which backticks mark commands.
    """

    def acknowledge(self, key: str, actor: str) -> str:
        """Note that a person takes care of an alarm; its thread is told by the alarm itself.

        Raises:
            RefusedError: Nothing is open, or somebody takes care already.
        """
        ...

    def roll_back(self, aim: Aim, actor: str, reason: str) -> str:
        """Put a mix back, verified at the router.

        Raises:
            ImagegateError: Production moved meanwhile, or the router did not take it.
        """
        ...

    def decide(
        self, run_id: str, decision: Literal["approved", "rejected"], by: str, reason: str
    ) -> str:
        """Decide about a run that waits, and let it go on.

        Raises:
            RefusedError: It waits for nobody, or not for this person.
        """
        ...

    def deliver(self) -> None:
        """Send what the deed left in the outbox, within seconds; never raises."""
        ...


class Speaker(Protocol):
    """Answers in Slack; a text that cannot be sent is kept for later or logged, never raised."""

    def reply(self, click: Click, facts: Facts, text: str) -> None:
        """Answer in the thread of the message, for everybody to see."""
        ...

    def whisper(self, click: Click, text: str) -> None:
        """Tell only the one who clicked."""
        ...


class Handler:
    """Carries out the clicks of one workspace.

    Args:
        state: The database.
        config: Reads who may do what; at every click, so that a change needs no restart.
        workspace: The workspace that is ours.
        deeds: What clicks can do.
        speaker: Answers.
        log: Takes one line an event; nothing secret in it.
    """

    def __init__(
        self,
        state: State,
        config: Callable[[], AlertsConfig],
        workspace: Workspace,
        deeds: Deeds,
        speaker: Speaker,
        log: Callable[[str], None],
    ) -> None:
        self._state, self._config, self._workspace = state, config, workspace
        self._deeds, self._speaker, self._log = deeds, speaker, log

    def handle(self, payload: object) -> None:
        """Carry out what a payload asks for, at most once, and answer; never raises."""
        click = read_click(payload, self._workspace)
        if isinstance(click, Ignored):
            self._log(f"ignored: {click.why}")
            return
        try:
            if not take(self._state, click):
                self._log(f"ignored: a second delivery of a click of {click.user_id}")
                return
            facts = facts_of(self._state, click)
        except ImagegateError as error:
            # Without the database nobody may do anything; the person can press again.
            self._log(f"a click of {click.user_id} failed: {redact(str(error))}")
            self._whisper(click, f"Nothing was done: {error}")
            return
        outcome, sentence = self._carry_out(click, facts)
        try:
            book(self._state, click, outcome, sentence)
        except ImagegateError as error:
            self._log(f"the end of a click was not kept: {error}")
        self._log(f"{click.action_id} by {click.user_id}: {outcome}: {sentence}")
        self._deeds.deliver()

    def _carry_out(self, click: Click, facts: Facts) -> tuple[Outcome, str]:
        """Do it and answer; return how it ended, as a word and as a sentence."""
        try:
            done = self._do(click, facts)
        except (RefusedError, ConfigError) as error:
            done = Refused(prose(redact(str(error)), _MOST_ANSWER))
        except ImagegateError as error:
            return self._failed(click, facts, f"{_failed(click)}: {error}")
        except Exception as error:  # noqa: BLE001 - the listener lives on; people hear of it
            return self._failed(
                click, facts, f"{_failed(click)}, imagegate broke: {type(error).__name__}: {error}"
            )
        if isinstance(done, Refused):
            self._speaker.whisper(click, done.sentence)
            return "refused", done.sentence
        # An acknowledgement is told by the alarm itself.
        if click.action != "acknowledge":
            self._reply(click, facts, done)
        return "done", done

    def _failed(self, click: Click, facts: Facts, text: str) -> tuple[Outcome, str]:
        sentence = redact(text)
        self._reply(click, facts, f"⚠️ {sentence}")
        return "failed", sentence

    def _do(self, click: Click, facts: Facts) -> str | Refused:
        product = identify(click, facts)
        if isinstance(product, Refused):
            return product
        person = authorize(click, self._config(), product)
        if isinstance(person, Refused):
            return person
        if click.action == "acknowledge":
            return self._deeds.acknowledge(_incident(click), person.actor)
        if click.action == "roll_back":
            aimed = aim(click, facts, product)
            if isinstance(aimed, Refused):
                return aimed
            return self._deeds.roll_back(aimed, person.actor, _why(click))
        return self._decide(click, person)

    def _decide(self, click: Click, person: Allowed) -> str | Refused:
        if not click.about.run_id:
            return Refused("This button names no run. Nothing was changed.")
        approves = click.action_id == "imagegate_approve"
        # By the plain name: the requester and the policy's approvers are compared with it.
        return self._deeds.decide(
            click.about.run_id,
            "approved" if approves else "rejected",
            person.name,
            f"{'Approve' if approves else 'Reject'} pressed in Slack by {click.user_id}",
        )

    def _reply(self, click: Click, facts: Facts, text: str) -> None:
        self._speaker.reply(click, facts, prose(redact(text), _MOST_ANSWER))

    def _whisper(self, click: Click, text: str) -> None:
        self._speaker.whisper(click, prose(redact(text), _MOST_ANSWER))


def _incident(click: Click) -> str:
    """Return the key of the alarm that a click acknowledges; a run that paged is one too."""
    return click.about.key or f"run:{click.about.run_id}"


def _why(click: Click) -> str:
    about = click.about
    what = f"run {about.run_id}" if about.run_id else f"alarm {about.key}" if about.key else ""
    return "button pressed in Slack" + (f" at the message about {what}" if what else "")


def _failed(click: Click) -> str:
    return {
        "imagegate_acknowledge": "Not acknowledged",
        "imagegate_roll_back": "NOT rolled back",
        "imagegate_approve": "Not approved",
        "imagegate_reject": "Not rejected",
    }[click.action_id]
