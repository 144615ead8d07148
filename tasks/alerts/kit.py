"""Parts of a message as Slack's Block Kit; its limits hold by construction.

Pure: plain values in, JSON out. Limits: https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from tasks.alerts.text import clean, clip, code, mrkdwn, prose, units

MAX_BLOCKS = 50
MAX_SECTION = 3000
MAX_HEADER = 150
MAX_BUTTON = 75
MAX_BUTTON_VALUE = 2000
#: Elements of one context block.
MAX_CONTEXT = 10
#: Blocks of a stored message; the mention and the buttons come on top when it is sent.
MAX_STORED = MAX_BLOCKS - 2
#: Characters of one sentence in a list.
SENTENCE = 280
#: Sentences of one list shown in a message, each; the report has all.
MOST_SENTENCES = 8
#: Text of notifications and of clients without blocks: a phone shows 150 characters of it, and
#: room is left for a mention.
MAX_TEXT = 125
#: Fields of one section, and characters of each.
MAX_FIELDS = 10
MAX_FIELD = 2000

ButtonName = Literal["acknowledge", "roll_back", "approve", "reject"]

_LABELS: dict[ButtonName, tuple[str, str | None]] = {
    "acknowledge": ("Acknowledge", "primary"),
    "roll_back": ("Roll back", "danger"),
    "approve": ("Approve", "primary"),
    "reject": ("Reject", "danger"),
}


@dataclass(frozen=True, slots=True)
class Button:
    """What a person may do about a message by a press; drawn only when somebody listens."""

    name: ButtonName
    run_id: str | None = None
    product: str | None = None
    #: Key of the incident, for ``acknowledge``.
    key: str | None = None
    #: Digest of the mix that ``roll_back`` puts back.
    to: str | None = None
    #: Name of that mix, for the question before it is done; it decides nothing.
    mix: str | None = None

    @property
    def value(self) -> str:
        """The button's value: JSON of everything that is set and decides something."""
        shown = ("name", "mix")
        fields = {name: text for name, text in asdict(self).items() if text and name not in shown}
        return json.dumps(fields, sort_keys=True, ensure_ascii=False)


def header(text: str) -> dict[str, Any]:
    """Return a header; plain text, so only its length matters."""
    shown = {"type": "plain_text", "text": mrkdwn(text, MAX_HEADER) or "…", "emoji": False}
    return {"type": "header", "text": shown}


def section(text: str) -> dict[str, Any]:
    """Return a section of text that is markup already."""
    # ``verbatim`` keeps Slack from making links, channels and mentions out of plain words.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def fields(parts: Iterable[str]) -> dict[str, Any]:
    """Return a section of short texts, markup already: side by side where there is room."""
    shown = [{"type": "mrkdwn", "text": part, "verbatim": True} for part in parts]
    return {"type": "section", "fields": shown[:MAX_FIELDS]}


def bullets(title: str, sentences: Iterable[str]) -> list[dict[str, Any]]:
    """Return a titled list, or nothing without sentences."""
    lines = [f"• {prose(sentence, SENTENCE)}" for sentence in few(list(sentences))]
    return [section(f"*{title}*\n" + "\n".join(lines))] if lines else []


def context(parts: Iterable[str]) -> dict[str, Any]:
    """Return a line of small print of parts that are markup already."""
    shown = [{"type": "mrkdwn", "text": part, "verbatim": True} for part in parts if part]
    return {"type": "context", "elements": shown[:MAX_CONTEXT]}


def few(sentences: Sequence[str]) -> list[str]:
    """Return the first sentences, and how many more there are."""
    shown = list(sentences[:MOST_SENTENCES])
    if len(sentences) > len(shown):
        shown.append(f"and {len(sentences) - len(shown)} more in the report")
    return shown


def joined(sentences: Sequence[str], room: int) -> str:
    """Return sentences in one line of markup, cut between two of them."""
    parts = [prose(text, SENTENCE) for text in few(sentences)]
    if units("; ".join(parts)) <= room:
        return "; ".join(parts)
    while parts and units("; ".join([*parts, "…"])) > room:
        parts.pop()
    return "; ".join([*parts, "…"])


def link(target: str, label: str) -> str:
    """Return a web address as a link, a path as text, a command as code.

    Args:
        target: ``https://…``, a path, or ``imagegate …``.
        label: Our own word for it; one with a colon in it is followed by none.
    """
    if is_web(target):
        safe = quote(clean(target), safe="/:?=#%+,;@[]~!$()*'&-._")
        if len(safe) <= 1500:
            return f"<{safe.replace('&', '&amp;')}|{mrkdwn(label, 80)}>"
    if target.startswith("imagegate "):
        return f"{mrkdwn(label, 80)}{'' if ': ' in label else ':'} {code(target)}"
    return f"{mrkdwn(label, 80)}: {mrkdwn(target, 600)}"


def is_web(target: str) -> bool:
    """Tell whether a text is an address that a browser opens."""
    try:
        parts = urlsplit(target)
    except ValueError:  # e.g. a bracket that is never closed
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def drawn(
    payload: Mapping[str, Any], *, mention: str | None = None, interactive: bool = False
) -> dict[str, Any]:
    """Return text and blocks of a stored message as they are sent.

    Args:
        payload: The stored message.
        mention: Markup that calls on-call; from our configuration and nowhere else.
        interactive: Draw the buttons: somebody listens for them.
    """
    text, blocks = str(payload["text"]), list(payload.get("blocks") or [])[:MAX_STORED]
    if mention:
        # At the end of the text, so that a notification begins with the verdict.
        text = f"{text} {mention}"
        if blocks:
            call = str(payload.get("call") or "please look at this now.")
            blocks.insert(1, section(f"{mention} {call}"))
    buttons = [Button(**fields) for fields in payload.get("buttons") or []]
    # One that does not fit could not do what it says; the command in the message can.
    buttons = [button for button in buttons if units(button.value) <= MAX_BUTTON_VALUE]
    if interactive and buttons and blocks:
        blocks.append(_actions(buttons))
    return {"text": text, "blocks": blocks}


def _actions(buttons: Sequence[Button]) -> dict[str, Any]:
    elements = []
    for button in buttons[:5]:
        label, style = _LABELS[button.name]
        element: dict[str, Any] = {
            "type": "button",
            "action_id": f"imagegate_{button.name}",
            "text": {"type": "plain_text", "text": label},
            "value": button.value,
        }
        if style:
            element["style"] = style
        if button.name == "roll_back":
            element["confirm"] = _confirm(button)
        elements.append(element)
    return {"type": "actions", "block_id": "imagegate", "elements": elements}


def _confirm(button: Button) -> dict[str, Any]:
    what = clip(clean(button.product or "this product"), 100)
    mix = button.mix or (button.to or "").removeprefix("sha256:")[:12] or "the mix before"
    return {
        "title": {"type": "plain_text", "text": "Roll back?"},
        "text": {
            "type": "plain_text",
            "text": f"All users of {what} get {clip(clean(mix), 100)} again, at once.",
        },
        "confirm": {"type": "plain_text", "text": "Roll back"},
        "deny": {"type": "plain_text", "text": "Leave it"},
    }
