"""Messages to look at: those of the outbox with their threads, or samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tasks.alerts.config import AlertsConfig, load_alerts
from tasks.alerts.kit import drawn
from tasks.alerts.outbox import Message, messages
from tasks.alerts.preview import Shown
from tasks.errors import ConfigError, known
from tasks.settings import Settings
from tasks.state import State

#: Largest contact sheet that is put into a page, in bytes.
_MOST_PICTURE = 8 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


def kept(settings: Settings, run_id: str | None, key: str | None) -> tuple[list[Shown], str]:
    """Return the messages of a run with their thread, or one message; and their channel.

    Args:
        settings: Where the outbox lies.
        run_id: The run; without it and without a key, the newest thread.
        key: Key of one message.

    Raises:
        ConfigError: There are none.
    """
    state = State(settings.state_url.get_secret_value())
    try:
        found = messages(state)
    finally:
        state.close()
    chosen = _choose(found, run_id, key)
    config = load_alerts(settings.alerts_file)
    channel = config.routing(chosen[-1].product).channel or settings.slack_channel
    shown = as_shown(chosen, config, interactive=settings.slack_app_token is not None)
    return shown, channel


def _choose(found: Sequence[Message], run_id: str | None, key: str | None) -> list[Message]:
    if key is not None:
        chosen = [message for message in found if message.dedup_key == key]
        names = {message.dedup_key for message in found[-12:]}
        what = f"no message has the key {key!r} {known(names)}"
    elif run_id is not None:
        chosen = [message for message in found if run_id == message.run_id]
        names = {message.run_id for message in found[-200:] if message.run_id}
        what = f"no message is about run {run_id!r} {known(names)}"
    else:
        chosen = [m for m in found if m.thread == found[-1].thread] if found else []
        chosen = chosen if found and found[-1].thread else list(found[-1:])
        what = "the outbox never held a message; look at one with --sample rollback"
    if not chosen:
        raise ConfigError(what)
    return chosen


def as_shown(found: Sequence[Message], config: AlertsConfig, *, interactive: bool) -> list[Shown]:
    """Return messages as a channel shows them in the end: threads put together, updates applied.

    Args:
        found: Messages of the outbox, oldest first.
        config: Whom a page mentions.
        interactive: Whether buttons are drawn.
    """
    roots: dict[str, Shown] = {}
    for message in found:
        if message.status == "superseded":
            continue
        thread = message.thread or message.dedup_key
        shown = _shown(message, config, interactive)
        root = roots.get(thread)
        if root is None:
            roots[thread] = shown
        elif message.kind == "update":
            # A changed message sends no notification: the one of its first words was sent.
            roots[thread] = replace(root, payload=shown.payload, edited=True)
        else:
            # A phone shows the newest on top: the page, not the quiet first words.
            newest = shown.notification or root.notification
            reply = replace(shown, notification="")
            roots[thread] = replace(root, notification=newest, replies=(*root.replies, reply))
    return list(roots.values())


def _shown(message: Message, config: AlertsConfig, interactive: bool) -> Shown:
    routing = config.routing(message.product)
    severity = routing.severity(message.topic, message.severity)
    pages = severity == "page" and bool(message.payload.get("mention", True))
    mention = routing.mention if pages else None
    payload = drawn(message.payload, mention=mention, interactive=interactive)
    remarks = []
    if message.status != "delivered":
        error = f", last error: {message.last_error}" if message.last_error else ""
        remarks.append(f"Not delivered yet (tried {message.attempts} times{error}).")
    if message.kind == "reply" and (pages or message.payload.get("broadcast")):
        remarks.append("Also shown in the channel.")
    if pages and mention is None:
        remarks.append("This should wake somebody and mentions nobody: set on_call in alerts.yaml.")
    # What is only in a thread notifies nobody who does not follow it.
    notifies = message.kind == "open" or pages or bool(message.payload.get("broadcast"))
    return Shown(
        payload,
        message.delivered_at or message.created_at,
        picture=_picture(message.payload.get("contact_sheet")),
        notification=str(payload["text"]) if notifies else "",
        remark=" ".join(remarks),
    )


def _picture(path: object) -> bytes | None:
    """Return the contact sheet of a message when it is there and is a PNG of sensible size."""
    if not isinstance(path, str):
        return None
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_PICTURE + 1)
    except OSError:
        return None
    return data if data.startswith(_PNG) and len(data) <= _MOST_PICTURE else None


def sample(settings: Settings, name: str) -> tuple[list[Shown], str]:
    """Return one sample with its thread, made by the functions that make the real messages.

    Args:
        settings: Whose routing is used.
        name: One of :data:`flows.slack_samples.SAMPLES`.

    Raises:
        ConfigError: No such sample.
    """
    from flows.slack_samples import PRODUCT, SAMPLES

    if name not in SAMPLES:
        raise ConfigError(f"--sample {name}: no such sample {known(SAMPLES)}")
    config = load_alerts(settings.alerts_file)
    with tempfile.TemporaryDirectory(prefix="imagegate-sample-") as folder:
        state = State(f"sqlite:///{Path(folder, 'sample.db')}")
        try:
            SAMPLES[name](state, settings, datetime.now(UTC))
            found = messages(state)
        finally:
            state.close()
    # As it looks once it is delivered; buttons are part of what there is to see.
    delivered = [_delivered(message) for message in found]
    channel = config.routing(PRODUCT).channel or settings.slack_channel or "sample"
    return as_shown(delivered, config, interactive=True), channel


def _delivered(message: Message) -> Message:
    status = "superseded" if message.status == "superseded" else "delivered"
    return replace(message, status=status, delivered_at=message.created_at)
