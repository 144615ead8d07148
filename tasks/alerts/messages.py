"""What people are told apart from a verdict: alarms, progress, changes by hand. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.alerts.config import Severity
from tasks.alerts.kit import (
    MAX_SECTION,
    MAX_STORED,
    MAX_TEXT,
    Button,
    bullets,
    context,
    header,
    joined,
    link,
    section,
)
from tasks.alerts.text import clean, mrkdwn, prose

_EMOJI = {"info": "ℹ️", "warning": "⚠️", "page": "🚨"}
#: One to three words of plain letters that name what follows.
_LABEL = re.compile(r"([A-Z][a-z]{1,9}(?: [a-z]{1,9}){0,2}): ")
#: Lines of a notice shown in a message.
MOST_LINES = 12


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people are told, in plain words; foreign text may stand in every field."""

    #: What is the matter; its first word is seen first.
    title: str
    severity: Severity
    product: str | None = None
    #: What users feel, since when, what was done, one sentence each. Backticks mark commands.
    lines: tuple[str, ...] = ()
    #: What is asked of on-call, with the exact command; empty means nothing.
    asked: tuple[str, ...] = ()
    #: Words and where they lead: a web address, a path, or a command.
    links: tuple[tuple[str, str], ...] = ()
    run_id: str | None = None
    #: What became of it, e.g. ``repeated 3 times``; shown above the lines.
    status: tuple[str, ...] = ()
    #: Stands before the title; by default one for the severity.
    emoji: str = ""
    buttons: tuple[Button, ...] = ()
    #: ``False`` for a page that calls nobody any more, e.g. one that is resolved.
    mention: bool = True
    #: A reply that the channel sees too; a page always is one.
    broadcast: bool = False
    #: What a lock screen shows: verdict, what users feel, the figure; by default from the above.
    brief: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON; :meth:`from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Notice:
        """Return the notice that :meth:`to_dict` wrote."""
        return cls(
            **{
                **value,
                "lines": tuple(value["lines"]),
                "asked": tuple(value["asked"]),
                "links": tuple((str(word), str(target)) for word, target in value["links"]),
                "status": tuple(value["status"]),
                "buttons": tuple(Button(**fields) for fields in value["buttons"]),
            }
        )


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """A message: blocks, and the plain text of notifications and of clients without blocks."""

    text: str
    blocks: tuple[dict[str, Any], ...]
    buttons: tuple[Button, ...] = ()
    #: Whether on-call may be mentioned; the severity decides beside it.
    mention: bool = True
    #: Whether the channel sees a reply too; it always sees a page.
    broadcast: bool = False
    #: The notice it was made from, to make it anew with another state.
    notice: Notice | None = None
    #: The same in plain words, for mail.
    plain: str = ""
    #: What stands behind the mention of on-call; by default that they look now.
    call: str = ""

    def payload(self, contact_sheet: str | None = None) -> dict[str, Any]:
        """Return what goes into the outbox, with the path of the contact sheet, if any."""
        return {
            "text": self.text,
            "blocks": list(self.blocks),
            "contact_sheet": contact_sheet,
            "buttons": [asdict(button) for button in self.buttons],
            "mention": self.mention,
            "broadcast": self.broadcast,
            "notice": None if self.notice is None else self.notice.to_dict(),
            "plain": self.plain,
            "call": self.call,
        }


def notice_message(notice: Notice) -> SlackMessage:
    """Return a notice as a message: its title first, then state, facts and duties."""
    head = f"{notice.emoji or _EMOJI[notice.severity]} {clean(notice.title)}"
    blocks = [header(head)]
    if notice.status:
        blocks.append(section("*" + joined(notice.status, MAX_SECTION - 2) + "*"))
    if notice.lines:
        # Each line bounded, so that a long one does not push the others out.
        room = MAX_SECTION // min(len(notice.lines), MOST_LINES) - 1
        shown = [_line(line, room) for line in notice.lines[:MOST_LINES]]
        blocks.append(section("\n".join(line for line in shown if line) or "…"))
    if notice.asked:
        blocks += bullets("Asked of you", notice.asked)
    small = [f"Product {mrkdwn(notice.product, 120)}"] if notice.product else []
    small += [f"Run {mrkdwn(notice.run_id, 120)}"] if notice.run_id else []
    small += [link(target, word) for word, target in notice.links]
    if small:
        blocks.append(context(small))
    parts = (head, *notice.status[:1], *notice.lines[:1])
    if notice.brief and not notice.status:
        parts = (f"{notice.emoji or _EMOJI[notice.severity]} {notice.brief}",)
    text = ". ".join(part.rstrip(".") for part in parts if part)
    return SlackMessage(
        text=mrkdwn(text, MAX_TEXT),
        blocks=tuple(blocks[:MAX_STORED]),
        buttons=notice.buttons,
        mention=notice.mention,
        broadcast=notice.broadcast,
        notice=notice,
        plain=plain_text(head, notice),
    )


def _line(line: str, room: int) -> str:
    """Return a line with its first words in bold when they name what follows (``Since: …``)."""
    label = _LABEL.match(line)
    if label is None or room < 3 * len(label[0]):
        return prose(line, room)
    return f"*{label[1]}:* {prose(line[label.end() :], room - label.end() - 2)}"


def plain_text(head: str, notice: Notice) -> str:
    """Return a notice in lines of plain text, for mail and terminals."""
    lines = [head, ""]
    lines += [clean(text) for text in notice.status]
    lines += [clean(text) for text in notice.lines]
    if notice.asked:
        lines += ["", "Asked of you", *(f"  - {clean(text)}" for text in notice.asked)]
    lines += [""]
    lines += [f"Product  {clean(notice.product)}"] if notice.product else []
    lines += [f"Run      {clean(notice.run_id)}"] if notice.run_id else []
    lines += [f"{clean(word)}: {clean(target)}" for word, target in notice.links]
    return "\n".join(lines).rstrip()


def with_status(notice: Notice, status: Sequence[str], **changes: Any) -> Notice:
    """Return the notice with what became of it, for the update of a first message."""
    return replace(notice, status=tuple(status), **changes)


def change_message(
    *,
    title: str,
    product: str,
    mix_name: str,
    actor: str,
    reason: str,
    epoch: int,
    seconds: float,
) -> SlackMessage:
    """Return the message about a change of production made by a person.

    Args:
        title: What happened, e.g. ``Rollback``.
        product: Name of the product.
        mix_name: The mix that serves now.
        actor: Who did it.
        reason: Why.
        epoch: Epoch of production after the change.
        seconds: From the trigger until the router was read back.
    """
    return notice_message(
        Notice(
            title=f"{title}: {product} serves {mix_name}",
            severity="warning",
            product=product,
            emoji="↩️",
            lines=(
                f"Users get pictures of {mix_name} again.",
                f"By: {actor}",
                f"Why: {reason}",
                f"Verified: {seconds:.1f} s after the command (epoch {epoch})",
            ),
            links=(("State now", f"imagegate status --product {_word(product)}"),),
        )
    )


def _word(text: str) -> str:
    """Return a name as one word of a command line."""
    import shlex

    return shlex.quote(clean(text))
