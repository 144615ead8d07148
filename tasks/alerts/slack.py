"""Sending through Slack's own SDK: the message, then the contact sheet into its thread."""

from __future__ import annotations

import logging
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.http_retry.builtin_interval_calculators import FixedValueRetryIntervalCalculator
from slack_sdk.http_retry.handler import RetryHandler
from slack_sdk.http_retry.request import HttpRequest
from slack_sdk.http_retry.response import HttpResponse
from slack_sdk.http_retry.state import RetryState
from slack_sdk.web.file_upload_v2_result import FileUploadV2Result

from tasks.alerts.kit import drawn
from tasks.alerts.parcel import AlertError, Anchor, Parcel, Receipt, Trouble
from tasks.errors import ConfigError
from tasks.settings import Settings

#: Slack's words for too much at a time.
_LIMITED = ("ratelimited", "rate_limited", "message_limit_exceeded")
#: Seconds that one request to Slack may be silent.
TIMEOUT_S = 5
#: Seconds between the two tries of a request.
_PAUSE_S = 0.2
#: A longer Retry-After is left to a later delivery.
_PATIENCE_S = 2
#: Seconds to wait when Slack limits without saying for how long, and at the most.
DEFAULT_RETRY_S = 30.0
LONGEST_RETRY_S = 3600.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: Answers that mean: Slack dislikes the blocks, not the message.
_BLOCK_ERRORS = ("invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long")
#: Answers that no other try can change before a person mends token, scopes or channel.
TOKEN_ERRORS = frozenset(
    {
        "invalid_auth",
        "not_authed",
        "token_revoked",
        "token_expired",
        "account_inactive",
        "not_allowed_token_type",
        "no_permission",
        "missing_scope",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "org_login_required",
        "team_access_not_granted",
        "two_factor_setup_required",
        "access_denied",
        "channel_not_found",
        "not_in_channel",
        "is_archived",
        "restricted_action",
        "restricted_action_read_only_channel",
        "restricted_action_thread_locked",
    }
)
#: Answers of Slack about itself.
_OUTAGES = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"}
)
_CODE = re.compile(r"^[a-z0-9_]{1,80}$")
#: The message to be changed is gone, or may not be changed any more.
_UNCHANGEABLE = ("message_not_found", "cant_update_message", "edit_window_closed")
#: The message to be answered is gone.
_NO_THREAD = ("thread_not_found", "cannot_reply_to_message", "message_not_found")
#: What the SDK lets through when Slack refuses, is away, or answers with something else.
_TROUBLE = (SlackClientError, HTTPException, OSError, ValueError)


class ShortRateLimit(RateLimitErrorRetryHandler):
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
        wait = retry_after(response.headers)
        return wait is not None and wait <= _PATIENCE_S


class _ServerError(ServerErrorRetryHandler):
    """Tries once more after any answer that says: I am ill."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        return response is not None and response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR


def retry_after(headers: Any) -> float | None:
    """Return the seconds of a Retry-After header; ``None`` when there is none that is a number."""
    for name, value in headers.items():
        if str(name).lower() == "retry-after":
            text = str(value[0] if isinstance(value, list) and value else value)
            if text.isascii() and text.isdigit():
                return float(text)
    return None


def retry_handlers() -> list[RetryHandler]:
    """Return the SDK's handlers for broken connections, rate limits and server errors."""
    pause = FixedValueRetryIntervalCalculator(fixed_internal=_PAUSE_S)
    return [
        ConnectionErrorRetryHandler(max_retry_count=1, interval_calculator=pause),
        ShortRateLimit(max_retry_count=1),
        _ServerError(max_retry_count=1, interval_calculator=pause),
    ]


def silent_logger() -> logging.Logger:
    """Return a logger that says nothing: the SDK's lines hold whole requests and addresses."""
    return logging.Logger("imagegate.slack", logging.CRITICAL + 1)


def origin(address: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of an address; empty ones when it is none."""
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return "", "", None


def is_safe(address: str) -> bool:
    """Tell whether a secret may be sent there: over TLS, or not over a network at all."""
    scheme, host, _ = origin(address)
    return bool(host) and (scheme == "https" or (scheme == "http" and is_local(address)))


def is_local(address: str) -> bool:
    """Tell whether an address is on this machine's loopback."""
    return origin(address)[1] in _LOOPBACK


class _GuardedClient(WebClient):
    """The SDK's client, whose uploads go to Slack's own hosts alone.

    The SDK posts to whatever address the answer names, and follows redirects from there.
    """

    home = ""

    def _upload_file(self, *, url: str, data: bytes, **_more: Any) -> FileUploadV2Result:
        scheme, host, _ = origin(url)
        home_host = origin(self.home)[1]
        same = origin(url) == origin(self.home)
        under = scheme == "https" and host.endswith(f".{home_host}")
        if not same and not under:
            raise AlertError(
                f"the upload address is on host {host!r}, not on {home_host!r}: not followed",
                "message",
            )
        with httpx.Client(
            timeout=TIMEOUT_S, follow_redirects=False, trust_env=not is_local(self.home)
        ) as client:
            answer = client.post(url, content=data)
        if answer.status_code != httpx.codes.OK:
            raise AlertError(f"the upload address answered with status {answer.status_code}")
        return FileUploadV2Result(status=answer.status_code, body="")


class SlackCarrier:
    """Carries messages with a bot token.

    Args:
        token: The bot token.
        base_url: Address of Slack's API, from the settings and from nowhere else.

    Raises:
        ConfigError: The address would carry the token over the open network.
    """

    name = "slack"

    def __init__(self, token: SecretStr, base_url: str) -> None:
        if not is_safe(base_url):
            scheme, host, port = origin(base_url)
            raise ConfigError(
                "IMAGEGATE_SLACK_URL must be an https:// address, or http:// on this machine's "
                f"loopback; got scheme {scheme!r}, host {host!r} and port {port}"
            )
        self._token = token
        self._client = _GuardedClient(
            token=token.get_secret_value(),
            base_url=base_url,
            timeout=TIMEOUT_S,
            logger=silent_logger(),
            retry_handlers=retry_handlers(),
        )
        self._client.home = base_url
        if is_local(base_url):
            self._client.proxy = None

    def send(self, parcel: Parcel) -> Receipt:
        """Post, reply or rewrite, and put the contact sheet into the thread.

        A sheet that cannot be uploaded does not undo the message: the receipt says so.

        Raises:
            AlertError: The message was not posted.
        """
        if not parcel.target:
            raise AlertError(
                "no channel; set IMAGEGATE_SLACK_CHANNEL, or channel in alerts.yaml", "token"
            )
        try:
            receipt = self._post(parcel)
        except _TROUBLE as error:
            raise self._failure(error) from None
        sheet = parcel.message.payload.get("contact_sheet")
        if sheet:
            thread = parcel.anchor.ts if parcel.anchor else receipt.details["ts"]
            try:
                done = self._client.files_upload_v2(
                    filename="failures.png",
                    file=Path(sheet).read_bytes(),
                    title="Pictures that failed",
                    alt_txt="Pictures that failed",
                    channel=receipt.details["channel"],
                    thread_ts=thread,
                )
                receipt.details["file"] = str((done.get("file") or {}).get("id", ""))
            except (*_TROUBLE, httpx.HTTPError, AlertError, TypeError) as error:
                receipt.details["file_error"] = self._explain(error)
        return receipt

    def check(self) -> str:
        """Return which bot of which team the token is, by ``auth.test``.

        Raises:
            AlertError: The token is not good, or Slack is away.
        """
        try:
            answer = self._client.auth_test()
        except _TROUBLE as error:
            raise self._failure(error) from None
        return f"{answer.get('user', '?')} of {answer.get('team', '?')}"

    def _post(self, parcel: Parcel) -> Receipt:
        message = parcel.message
        fields: dict[str, Any] = {
            "channel": parcel.target,
            # Nothing in a text becomes a mention, a channel or a link by itself.
            "parse": "none",
            "link_names": False,
            # Tells a second copy of one message from a second event.
            "metadata": {
                "event_type": "imagegate_alert",
                "event_payload": {"key": message.dedup_key, "run_id": message.run_id or ""},
            },
        }
        content = drawn(message.payload, mention=parcel.mention, interactive=parcel.interactive)
        if message.kind == "update" and parcel.anchor is not None:
            try:
                self._say(self._client.chat_update, content, ts=parcel.anchor.ts, **fields)
            except SlackApiError as error:
                if error.response.get("error") not in _UNCHANGEABLE:
                    raise
            else:
                details = {"channel": parcel.anchor.channel, "ts": parcel.anchor.ts}
                return Receipt("slack", details, parcel.anchor)
        fields |= {"unfurl_links": False, "unfurl_media": False}
        reply = message.kind == "reply" and parcel.anchor is not None
        if reply and parcel.anchor is not None:
            fields["thread_ts"] = parcel.anchor.ts
            # A page, or a question to people, must not hide in a thread that began hours ago.
            fields["reply_broadcast"] = parcel.wakes or bool(message.payload.get("broadcast"))
        try:
            answer = self._say(self._client.chat_postMessage, content, **fields)
        except SlackApiError as error:
            if not reply or error.response.get("error") not in _NO_THREAD:
                raise
            # Somebody deleted the first message: the reply must be seen all the same.
            fields = {k: v for k, v in fields.items() if k not in ("thread_ts", "reply_broadcast")}
            answer = self._say(self._client.chat_postMessage, content, **fields)
        details = {"channel": str(answer.get("channel", "")), "ts": str(answer.get("ts", ""))}
        # A reply whose thread has no first message here stands alone; an update becomes the first.
        is_root = message.kind != "reply"
        return Receipt("slack", details, Anchor(**details) if is_root else None)

    @staticmethod
    def _say(method: Any, content: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Call a method of the API; without the blocks when they are what it dislikes."""
        try:
            answer = method(text=content["text"], blocks=content["blocks"], **fields)
        except SlackApiError as error:
            if error.response.get("error") not in _BLOCK_ERRORS:
                raise
            # People must hear of a rollback even when the layout is at fault.
            answer = method(text=content["text"], **fields)
        return dict(answer.data) if isinstance(answer.data, dict) else {}

    def _failure(self, error: Exception) -> AlertError:
        """Return what a failure means for this message and the next ones."""
        trouble: Trouble = "outage"
        wait = None
        if isinstance(error, SlackApiError):
            code = str(error.response.get("error") or "")
            status = getattr(error.response, "status_code", None) or 0
            if code in _LIMITED or status == httpx.codes.TOO_MANY_REQUESTS:
                trouble, wait = "limited", retry_after(getattr(error.response, "headers", {}) or {})
                wait = min(DEFAULT_RETRY_S if wait is None else wait, LONGEST_RETRY_S)
            elif code in TOKEN_ERRORS:
                trouble = "token"
            elif (
                # Anything else than a code is not Slack speaking, e.g. a proxy's page.
                _CODE.match(code)
                and code not in _OUTAGES
                and status < httpx.codes.INTERNAL_SERVER_ERROR
            ):
                trouble = "message"
        return AlertError(self._explain(error), trouble, wait)

    def _explain(self, error: Exception) -> str:
        """Return what went wrong, in words and without the token."""
        if isinstance(error, SlackApiError):
            status = getattr(error.response, "status_code", None)
            text = f"Slack answered {error.response.get('error') or 'without a reason'}"
            text += f" (HTTP {status})" if status else ""
        elif isinstance(error, AlertError):
            text = str(error)
        else:
            text = f"{type(error).__name__}: {error}"
        return text.replace(self._token.get_secret_value(), "(redacted)")


def slack_carrier(settings: Settings) -> SlackCarrier | None:
    """Return the carrier that the settings ask for, ``None`` without a token.

    Raises:
        ConfigError: The address is not safe.
    """
    if settings.slack_token is None:
        return None
    return SlackCarrier(settings.slack_token, settings.slack_base_url)
