"""A Slack message as a picture of itself: its blocks as one HTML page that stands alone.

Everything foreign is escaped; the page has no script, loads nothing and says so to the browser.
What this module cannot draw it shows as a box with the name of the block, never as nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from tasks.alerts.preview_style import AVATAR, CSS
from tasks.alerts.preview_text import literal, mrkdwn_html, plain_html, unmarked

#: What a phone shows of a message on its lock screen, in characters, at the least.
LOCK_SCREEN = 110
#: Widths of a page in CSS pixels: the desktop's channel, and a phone held upright.
DESKTOP, PHONE = 760, 400
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_BUTTONS = {"primary": "primary", "danger": "danger"}


@dataclass(frozen=True, slots=True)
class Shown:
    """One message as people see it in a channel."""

    #: ``text`` and ``blocks``, as they go to Slack.
    payload: Mapping[str, Any]
    #: When it was sent, UTC ISO-8601.
    at: str
    edited: bool = False
    replies: tuple[Shown, ...] = ()
    #: A PNG that is attached to the message, e.g. the contact sheet.
    picture: bytes | None = None
    #: Plain text of the notification that phones get for it; empty when it sends none.
    notification: str = ""
    #: A remark of ours below the message, e.g. that it is not delivered; empty for none.
    remark: str = ""


def page(
    messages: Sequence[Shown],
    *,
    channel: str,
    app_name: str = "imagegate",
    width: int = DESKTOP,
) -> str:
    """Return the HTML page of messages in a channel, with their threads below them.

    Args:
        messages: The messages, oldest first.
        channel: Name of the channel, with or without ``#``.
        app_name: Name under which the app posts.
        width: Width of the page in CSS pixels, e.g. :data:`PHONE`.
    """
    place = "#" + channel.lstrip("#") if channel else "(no channel is set)"
    body = "".join(_with_thread(message, place, app_name) for message in messages)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{literal(place)} as Slack shows it</title><style>{CSS}"
        f"body{{width:{width:d}px}}</style></head><body>"
        f'<div class="bar">{literal(place)}</div><main>{body}</main>'
        "<footer>Drawn by imagegate from the message's own blocks. Slack's fonts and spacing "
        "differ a little; words, order and marks do not.</footer></body></html>\n"
    )


def _with_thread(message: Shown, place: str, app_name: str) -> str:
    opened = _lock_screen(message, place, app_name) + _message(message, app_name)
    if not message.replies:
        return opened
    count = len(message.replies)
    head = f'<div class="count">{count} {"reply" if count == 1 else "replies"}</div>'
    replies = "".join(
        _lock_screen(reply, place, app_name) + _message(reply, app_name)
        for reply in message.replies
    )
    return f'{opened}<div class="thread">{head}{replies}</div>'


def _lock_screen(message: Shown, place: str, app_name: str) -> str:
    """Return what a phone shows before it is unlocked: the first words of the plain text."""
    words = unmarked(message.notification)
    if not words:
        return ""
    cut = words if len(words) <= LOCK_SCREEN else words[:LOCK_SCREEN].rstrip() + "…"
    return (
        f'<div class="lock"><b>On the lock screen · Slack · {literal(place)}</b> '
        f"<span>{literal(app_name)}: {plain_html(cut, emoji=False)}</span></div>"
    )


def _message(message: Shown, app_name: str) -> str:
    blocks = message.payload.get("blocks")
    if isinstance(blocks, list | tuple) and blocks:
        body = "".join(_block(block) for block in blocks)
    else:
        words = mrkdwn_html(str(message.payload.get("text", "")))
        body = f'<div class="section"><div class="words">{words}</div></div>'
    edited = ' <span class="edited">(edited)</span>' if message.edited else ""
    picture = _picture(message.picture) if message.picture is not None else ""
    remark = f'<div class="remark">{literal(message.remark)}</div>' if message.remark else ""
    return (
        f'<article class="message">{AVATAR}<div class="body"><div class="who">'
        f'<b>{literal(app_name)}</b><span class="badge">APP</span>'
        f"<time>{literal(_clock(message.at))}</time></div>"
        f"{body}{edited}{picture}{remark}</div></article>"
    )


def _clock(at: str) -> str:
    """Return the time of day in UTC; Slack shows it in the reader's own zone."""
    try:
        return datetime.fromisoformat(at).strftime("%H:%M UTC")
    except ValueError:
        return at


def _picture(data: bytes) -> str:
    source = "data:image/png;base64," + b64encode(data).decode("ascii")
    return (
        '<figure class="file"><figcaption>Pictures that failed</figcaption>'
        f'<img src="{source}" alt="Pictures that failed"></figure>'
    )


def _block(block: Any) -> str:
    if not isinstance(block, Mapping):
        return _unknown("not a block")
    draw = _DRAW.get(str(block.get("type")))
    return _unknown(str(block.get("type"))) if draw is None else draw(block)


def _header(block: Mapping[str, Any]) -> str:
    return f"<h1>{_text(block.get('text'))}</h1>"


def _divider(_block: Mapping[str, Any]) -> str:
    return "<hr>"


def _context(block: Mapping[str, Any]) -> str:
    parts = "".join(f"<span>{_element(e)}</span>" for e in _items(block, "elements"))
    return f'<div class="context">{parts}</div>'


def _image(block: Mapping[str, Any]) -> str:
    title = f"<div>{_text(block.get('title'))}</div>" if block.get("title") else ""
    return title + _placeholder(block)


def _section(block: Mapping[str, Any]) -> str:
    text = f"<div>{_text(block.get('text'))}</div>" if block.get("text") else ""
    fields = "".join(f"<div>{_text(field)}</div>" for field in _items(block, "fields"))
    grid = f'<div class="fields">{fields}</div>' if fields else ""
    beside = block.get("accessory")
    side = f'<div class="accessory">{_element(beside)}</div>' if beside else ""
    return f'<div class="section"><div class="words">{text}{grid}</div>{side}</div>'


def _actions(block: Mapping[str, Any]) -> str:
    elements = _items(block, "elements")
    buttons = "".join(_element(element) for element in elements)
    asks = "".join(_confirm(e) for e in elements if isinstance(e, Mapping) and e.get("confirm"))
    return f'<div class="actions">{buttons}</div>{asks}'


def _confirm(button: Mapping[str, Any]) -> str:
    """Return what a button asks before it acts; Slack shows it only after the click."""
    asked = button["confirm"] if isinstance(button["confirm"], Mapping) else {}
    title, text = _text(asked.get("title")), _text(asked.get("text"))
    return f'<div class="confirm">“{_text(button.get("text"))}” asks first: {title} {text}</div>'


def _element(element: Any) -> str:
    if not isinstance(element, Mapping):
        return _unknown("not an element")
    kind = str(element.get("type"))
    if kind in ("mrkdwn", "plain_text"):
        return _text(element)
    if kind == "button":
        style = _BUTTONS.get(str(element.get("style")), "")
        return f'<span class="button {style}" role="button">{_text(element.get("text"))}</span>'
    if kind == "image":
        return _placeholder(element)
    return _unknown(kind)


def _placeholder(image: Mapping[str, Any]) -> str:
    """Return a box for a picture that lies elsewhere: the page loads nothing."""
    return (
        f'<span class="image" role="img">picture: {literal(str(image.get("alt_text", "")))}</span>'
    )


def _text(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _unknown("no text")
    text = str(value.get("text", ""))
    if value.get("type") == "mrkdwn":
        return mrkdwn_html(text)
    return plain_html(text, emoji=value.get("emoji", True) is not False)


def _items(block: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = block.get(name)
    return value if isinstance(value, list | tuple) else ()


def _unknown(what: str) -> str:
    return f'<span class="unknown">{literal(what)}: not drawn here</span>'


_DRAW: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "header": _header,
    "divider": _divider,
    "section": _section,
    "context": _context,
    "actions": _actions,
    "image": _image,
}
