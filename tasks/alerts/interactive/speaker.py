"""Answers to clicks, through Slack's own SDK; what cannot be said is kept or logged."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from pydantic import SecretStr
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from tasks.alerts.interactive.decide import Click, Facts
from tasks.alerts.kit import section
from tasks.alerts.outbox import enqueue, redact
from tasks.alerts.slack import TIMEOUT_S, is_local, is_safe, origin, retry_handlers, silent_logger
from tasks.errors import ConfigError, ImagegateError
from tasks.state import State

#: What the SDK lets through when Slack refuses, is away, or answers with something else.
TROUBLE = (SlackClientError, HTTPException, OSError, ValueError)


def web_client(token: SecretStr, base_url: str) -> WebClient:
    """Return a client of Slack's API that logs nothing and tries twice.

    Raises:
        ConfigError: The address would carry the token over the open network.
    """
    if not is_safe(base_url):
        scheme, host, _ = origin(base_url)
        raise ConfigError(
            "IMAGEGATE_SLACK_URL must be an https:// address, or http:// on this machine's "
            f"loopback; got scheme {scheme!r} and host {host!r}"
        )
    client = WebClient(
        token=token.get_secret_value(),
        base_url=base_url,
        timeout=TIMEOUT_S,
        logger=silent_logger(),
        retry_handlers=retry_handlers(),
    )
    if is_local(base_url):
        client.proxy = None
    return client


def explain(error: Exception) -> str:
    """Return what went wrong with Slack, in words and without tokens."""
    if isinstance(error, SlackApiError):
        status = getattr(error.response, "status_code", None)
        text = f"Slack answered {error.response.get('error') or 'without a reason'}"
        return redact(text + (f" (HTTP {status})" if status else ""))
    return redact(f"{type(error).__name__}: {error}")


class SlackSpeaker:
    """Answers clicks with the bot's token.

    Args:
        client: A client of Slack's API.
        state: Keeps an answer that Slack does not take now.
        log: Takes one line an event.
    """

    def __init__(self, client: WebClient, state: State, log: Callable[[str], None]) -> None:
        self._client, self._state, self._log = client, state, log

    def reply(self, click: Click, facts: Facts, text: str) -> None:
        """Answer in the thread; without Slack the answer waits in the outbox."""
        message: dict[str, Any] = {"text": text, "blocks": [section(text)]}
        try:
            self._client.chat_postMessage(
                channel=click.channel,
                thread_ts=click.thread_ts,
                parse="none",
                link_names=False,
                unfurl_links=False,
                unfurl_media=False,
                **message,
            )
        except TROUBLE as error:
            self._log(f"an answer was not sent: {explain(error)}")
            self._keep(click, facts, message)

    def whisper(self, click: Click, text: str) -> None:
        """Tell the one who clicked; an answer that Slack does not take is only in our book."""
        fields: dict[str, Any] = {}
        if click.thread_ts != click.message_ts:
            # Pressed within a thread: the answer belongs there too, or nobody would see it.
            fields["thread_ts"] = click.thread_ts
        try:
            self._client.chat_postEphemeral(
                channel=click.channel,
                user=click.user_id,
                text=text,
                blocks=[section(text)],
                parse="none",
                link_names=False,
                **fields,
            )
        except TROUBLE as error:
            self._log(f"an answer to {click.user_id} was not sent: {explain(error)}")

    def _keep(self, click: Click, facts: Facts, message: dict[str, Any]) -> None:
        try:
            enqueue(
                self._state,
                f"click:{click.key}",
                click.about.run_id or None,
                message,
                kind="reply" if facts.thread else "open",
                thread=facts.thread or None,
                product=click.about.product or None,
                severity="warning",
                topic="click",
            )
        except ImagegateError as error:
            self._log(f"an answer was not kept: {error}")
