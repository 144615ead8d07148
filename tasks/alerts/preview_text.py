"""Slack's ``mrkdwn`` as HTML, the way Slack shows it. Pure: text in, escaped HTML out.

Whatever is not known markup comes out as escaped text, so a hostile text shows as what it is. The
rules are Slack's: https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from urllib.parse import urlsplit

from tasks.alerts.preview_emoji import DRAWN, SHORT_NAMES, drawing

_FENCE = re.compile(r"```\n?(.*?)\n?```", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
#: What Slack acts on: angle brackets that are not escaped.
_ENTITY = re.compile(r"<([^<>\n]+)>")
_SHORT = re.compile(r":([a-z0-9_+-]+):")
_PICTURED = re.compile("|".join(re.escape(char) + "\ufe0f?" for char in DRAWN))
#: A pair of marks around words, on one line, at the edges of words.
_MARKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?<![\w{mark}]){mark}(?=\S)([^{mark}\n]+?)(?<=\S){mark}(?![\w{mark}])"), tag)
    for mark, tag in ((r"\*", "b"), ("_", "i"), ("~", "s"))
)
#: Stands for a finished piece of HTML while the text around it is worked on; foreign text cannot
#: hold it, since it is taken out first.
_OPEN, _CLOSE = "\ue000", "\ue001"
_KEPT = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_ALL = {"channel", "here", "everyone"}


def mrkdwn_html(text: str) -> str:
    """Return the HTML of a ``mrkdwn`` text: bold, italic, strike, code, quotes, links, mentions."""
    pieces: list[str] = []

    def keep(html: str) -> str:
        pieces.append(html)
        return f"{_OPEN}{len(pieces) - 1}{_CLOSE}"

    text = text.replace(_OPEN, "\ufffd").replace(_CLOSE, "\ufffd")
    text = _FENCE.sub(lambda m: keep(f"<pre>{literal(m[1])}</pre>"), text)
    text = _CODE.sub(lambda m: keep(f"<code>{literal(m[1])}</code>"), text)
    text = _ENTITY.sub(lambda m: keep(_entity(m[1])), text)
    text = _emoji(literal(text), keep)
    for pattern, tag in _MARKS:
        text = pattern.sub(rf"<{tag}>\1</{tag}>", text)
    html = "".join(_line(line) for line in text.split("\n"))
    # A code block stands on lines of its own; the breaks around it are in its margins.
    html = _restore(html.removesuffix("<br>"), pieces)
    return re.sub(r"(?:<br>)?(<pre>.*?</pre>)(?:<br>)?", r"\1", html, flags=re.DOTALL)


def plain_html(text: str, *, emoji: bool = True) -> str:
    """Return the HTML of a ``plain_text``: no markup; ``:names:`` become pictures if asked."""
    pieces: list[str] = []

    def keep(html: str) -> str:
        pieces.append(html)
        return f"{_OPEN}{len(pieces) - 1}{_CLOSE}"

    safe = literal(text.replace(_OPEN, "\ufffd").replace(_CLOSE, "\ufffd"))
    shown = _emoji(safe, keep, names=emoji).replace("\n", "<br>")
    return _restore(shown, pieces)


def literal(text: str) -> str:
    """Return text escaped for HTML, after the three escapes that Slack knows were undone."""
    bare = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    # Half a surrogate pair cannot be written to a file.
    return escape(bare.encode("utf-8", "replace").decode("utf-8"), quote=True)


def unmarked(text: str) -> str:
    """Return a ``mrkdwn`` text as a phone's lock screen shows it: no markup, links as labels."""

    def entity(match: re.Match[str]) -> str:
        target, _, label = match[1].partition("|")
        if target.startswith("!subteam^"):
            return "@" + (label or target.removeprefix("!subteam^")).lstrip("@")
        return label or target.lstrip("@#!")

    flat = _ENTITY.sub(entity, text.replace("```", "").replace("\n", " "))
    return flat.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


def _restore(html: str, pieces: list[str]) -> str:
    """Put the finished pieces back; one may stand within another (an emoji within a link)."""
    while _KEPT.search(html):
        html = _KEPT.sub(lambda m: pieces[int(m[1])], html)
    return html


def _emoji(text: str, keep: Callable[[str], str], *, names: bool = True) -> str:
    if names:
        text = _SHORT.sub(lambda m: SHORT_NAMES.get(m[1], m[0]), text)
    return _PICTURED.sub(lambda m: keep(drawing(m[0])), text)


def _line(line: str) -> str:
    if line.startswith("&gt;"):
        quoted = line.removeprefix("&gt;").lstrip()
        return f"<blockquote>{quoted}</blockquote>"
    return f"{line}<br>"


def _entity(inside: str) -> str:
    """Return what Slack makes of ``<…>``: a mention, a channel, a date, or a link."""
    target, _, label = inside.partition("|")
    kind, rest = target[:1], target[1:]
    if kind in ("@", "#"):
        return _chip("mention", f"{kind}{label or rest}")
    if kind == "!":
        return _command(rest, label)
    return _link(target, label or target)


def _command(command: str, label: str) -> str:
    """Return what stands for ``<!…>``: everybody, a group, or a date's fallback."""
    name, *more = command.split("^")
    if name in _ALL:
        return _chip("mention loud", f"@{name}")
    if name == "subteam":
        # Slack shows the handle of the group by itself; the message holds only its id.
        group = label or (more[0] if more else "group")
        return _chip("mention loud", f"@{group.lstrip('@')}")
    return literal(label or command)


def _link(target: str, label: str) -> str:
    shown = literal(label)
    try:
        scheme = urlsplit(target.replace("&amp;", "&")).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("http", "https", "mailto"):
        return shown
    return f'<a href="{literal(target)}" rel="noreferrer noopener">{shown}</a>'


def _chip(kind: str, text: str) -> str:
    return f'<span class="{kind}">{literal(text)}</span>'
