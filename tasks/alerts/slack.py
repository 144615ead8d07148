"""Sending through Slack's own SDK: the message, then the contact sheet into its thread."""

from __future__ import annotations

import json
import logging
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.http_retry.builtin_interval_calculators import FixedValueRetryIntervalCalculator
from slack_sdk.http_retry.request import HttpRequest
from slack_sdk.http_retry.response import HttpResponse
from slack_sdk.http_retry.state import RetryState

from tasks.alerts.outbox import Message
from tasks.errors import ConfigError
from tasks.settings import Settings

#: Seconds that one request to Slack may be silent.
TIMEOUT_S = 5
#: Seconds between the two tries of a request.
_PAUSE_S = 0.2
#: A longer Retry-After is left to the next delivery.
_PATIENCE_S = 2
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: Answers that mean: Slack dislikes the blocks, not the message.
_BLOCK_ERRORS = ("invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long")
#: What the SDK lets through when Slack refuses, is away, or answers with something else.
_TROUBLE = (SlackApiError, HTTPException, OSError, ValueError)


class AlertError(Exception):
    """A message was not delivered; the text has no secrets in it."""


class _ShortRateLimit(RateLimitErrorRetryHandler):
    """Waits for a rate limit only when the wait is short; the outbox has the patience."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        if response is None or response.status_code != httpx.codes.TOO_MANY_REQUESTS:
            return False
        values = [v for k, v in response.headers.items() if k.lower() == "retry-after"]
        wait = values[0][0] if values and values[0] else ""
        return wait.isascii() and wait.isdigit() and int(wait) <= _PATIENCE_S


class SlackSender:
    """Sends messages of the outbox to one Slack channel.

    Args:
        token: The bot token.
        channel: Id or name of the channel.
        base_url: Address of Slack's API, from the settings and from nowhere else.

    Raises:
        ConfigError: No channel, or the address would carry the token over the open network.
    """

    def __init__(self, token: SecretStr, channel: str, base_url: str) -> None:
        scheme, self._host, port = self._origin = _origin(base_url)
        local = self._host in _LOOPBACK
        safe = scheme == "https" or (scheme == "http" and local)
        if not safe or not self._host:
            raise ConfigError(
                "IMAGEGATE_SLACK_URL must be an https:// address, or http:// on this machine's "
                f"loopback; got scheme {scheme!r}, host {self._host!r} and port {port}"
            )
        if not channel.strip():
            raise ConfigError(
                "a Slack token is set but no channel; set IMAGEGATE_SLACK_CHANNEL to the id or "
                "name of the channel of on-call"
            )
        self.channel = channel.strip()
        self._local = local
        self._token = token
        pause = FixedValueRetryIntervalCalculator(fixed_internal=_PAUSE_S)
        # A logger of its own that says nothing: errors are kept with the message, and the SDK's
        # debug lines hold whole requests.
        self._client = WebClient(
            token=token.get_secret_value(),
            base_url=base_url,
            timeout=TIMEOUT_S,
            logger=logging.Logger("imagegate.slack", logging.CRITICAL),
            retry_handlers=[
                ConnectionErrorRetryHandler(max_retry_count=1, interval_calculator=pause),
                _ShortRateLimit(max_retry_count=1),
                ServerErrorRetryHandler(max_retry_count=1, interval_calculator=pause),
            ],
        )
        if local:
            self._client.proxy = None

    def send(self, message: Message) -> str:
        """Post the message and, in its thread, the contact sheet; return channel and timestamp.

        A sheet that cannot be uploaded does not undo the message: the receipt says so.

        Raises:
            AlertError: The message was not posted.
        """
        try:
            posted = self._post(message)
        except _TROUBLE as error:
            raise AlertError(self._explain(error)) from None
        receipt = {"channel": str(posted.get("channel", "")), "ts": str(posted.get("ts", ""))}
        sheet = message.payload.get("contact_sheet")
        if sheet:
            try:
                receipt["file"] = self._upload(Path(sheet), receipt["channel"], receipt["ts"])
            except (*_TROUBLE, httpx.HTTPError, AlertError) as error:
                receipt["file_error"] = self._explain(error)
        return json.dumps(receipt, sort_keys=True)

    def _post(self, message: Message) -> dict[str, Any]:
        text = str(message.payload["text"])
        fields: dict[str, Any] = {
            "channel": self.channel,
            "text": text,
            # Nothing in a text becomes a mention, a channel or a link by itself.
            "parse": "none",
            "link_names": False,
            "unfurl_links": False,
            "unfurl_media": False,
            # Tells a second copy of one message from a second event.
            "metadata": {
                "event_type": "imagegate_alert",
                "event_payload": {"key": message.dedup_key, "run_id": message.run_id or ""},
            },
        }
        try:
            answer = self._client.chat_postMessage(blocks=message.payload["blocks"], **fields)
        except SlackApiError as error:
            if error.response.get("error") not in _BLOCK_ERRORS:
                raise
            # People must hear of a rollback even when the layout is at fault.
            answer = self._client.chat_postMessage(**fields)
        return dict(answer.data) if isinstance(answer.data, dict) else {}

    def _upload(self, sheet: Path, channel: str, thread: str) -> str:
        """Upload in Slack's three steps; the middle one with no token and no redirect.

        The SDK's own ``files_upload_v2`` posts to whatever address the answer names.
        """
        data = sheet.read_bytes()
        ticket = self._client.files_getUploadURLExternal(
            filename="failures.png", length=len(data), alt_txt="Pictures that failed"
        )
        address, file_id = str(ticket.get("upload_url", "")), str(ticket.get("file_id", ""))
        self._check_upload_address(address)
        with httpx.Client(
            timeout=TIMEOUT_S, follow_redirects=False, trust_env=not self._local
        ) as client:
            answer = client.post(address, content=data)
        if answer.status_code != httpx.codes.OK:
            raise AlertError(f"the upload address answered with status {answer.status_code}")
        self._client.files_completeUploadExternal(
            files=[{"id": file_id, "title": "Pictures that failed"}],
            channel_id=channel,
            thread_ts=thread,
        )
        return file_id

    def _check_upload_address(self, address: str) -> None:
        origin = scheme, host, _ = _origin(address)
        same = origin == self._origin
        under = scheme == "https" and host.endswith(f".{self._host}")
        if not same and not under:
            raise AlertError(
                f"the upload address is on host {host!r}, not on {self._host!r}: not followed"
            )

    def _explain(self, error: Exception) -> str:
        """Return what went wrong, in words and without the token."""
        if isinstance(error, SlackApiError):
            status = getattr(error.response, "status_code", None)
            text = f"Slack answered {error.response.get('error') or 'without a reason'}"
            text += f" (HTTP {status})" if status else ""
        else:
            text = f"{type(error).__name__}: {error}"
        return text.replace(self._token.get_secret_value(), "(redacted)")


def _origin(address: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address; empty ones when it is none."""
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return "", "", None


def slack_sender(settings: Settings) -> SlackSender | None:
    """Return the sender that the settings ask for, ``None`` without a token.

    Raises:
        ConfigError: A token is set but the channel is not, or the address is not safe.
    """
    if settings.slack_token is None:
        return None
    return SlackSender(settings.slack_token, settings.slack_channel, settings.slack_base_url)
