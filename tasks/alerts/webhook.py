"""The second way: an incoming webhook of Slack. Its address is a secret."""

from __future__ import annotations

from http.client import HTTPException

import httpx
from pydantic import SecretStr
from slack_sdk.errors import SlackClientError
from slack_sdk.webhook import WebhookClient

from tasks.alerts.kit import drawn
from tasks.alerts.parcel import AlertError, Parcel, Receipt, skipped_update
from tasks.alerts.slack import (
    DEFAULT_RETRY_S,
    LONGEST_RETRY_S,
    TIMEOUT_S,
    is_local,
    is_safe,
    retry_after,
    retry_handlers,
    silent_logger,
)
from tasks.errors import ConfigError
from tasks.settings import Settings

#: Answers that mean: the webhook is gone or may not post any more.
_CLOSED = (401, 403, 404, 410)


class WebhookCarrier:
    """Carries messages to the one channel of an incoming webhook.

    A webhook gives no address of what it posted: there are no threads and no updates, so each
    reply is a message of its own and updates are left out.

    Args:
        address: The webhook's address.

    Raises:
        ConfigError: The address would show the messages to the open network.
    """

    name = "webhook"

    def __init__(self, address: SecretStr) -> None:
        secret = address.get_secret_value()
        if not is_safe(secret):
            raise ConfigError(
                "IMAGEGATE_SLACK_WEBHOOK must be an https:// address, or http:// on this "
                "machine's loopback (the address is a secret and not shown)"
            )
        self._address = address
        self._client = WebhookClient(
            secret, timeout=TIMEOUT_S, logger=silent_logger(), retry_handlers=retry_handlers()
        )
        if is_local(secret):
            self._client.proxy = None

    def send(self, parcel: Parcel) -> Receipt:
        """Post the message.

        Raises:
            AlertError: It was not posted.
        """
        skipped = skipped_update(parcel)
        if skipped is not None:
            return skipped
        # No buttons: they would answer to another app than the one that listens.
        content = drawn(parcel.message.payload, mention=parcel.mention)
        status, body = self._post(content["text"], content["blocks"])
        if status == httpx.codes.BAD_REQUEST and "block" in body:
            status, body = self._post(content["text"], None)
        if status == httpx.codes.OK and body.strip() == "ok":
            return Receipt("webhook")
        raise self._failure(status, body)

    def _post(self, text: str, blocks: list[object] | None) -> tuple[int, str]:
        try:
            answer = self._client.send(
                text=text,
                blocks=blocks,  # type: ignore[arg-type]
                unfurl_links=False,
                unfurl_media=False,
            )
        except (SlackClientError, HTTPException, OSError, ValueError) as error:
            raise AlertError(self._hidden(f"{type(error).__name__}: {error}")) from None
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            wait = retry_after(answer.headers)
            raise AlertError(
                "the webhook answered HTTP 429",
                "limited",
                min(DEFAULT_RETRY_S if wait is None else wait, LONGEST_RETRY_S),
            )
        return answer.status_code, answer.body or ""

    def _failure(self, status: int, body: str) -> AlertError:
        word = self._hidden(" ".join(body.split())[:80])
        text = f"the webhook answered {word!r} (HTTP {status})"
        if status in _CLOSED:
            return AlertError(text, "token")
        if httpx.codes.is_client_error(status):
            return AlertError(text, "message")
        return AlertError(text)

    def _hidden(self, text: str) -> str:
        return text.replace(self._address.get_secret_value(), "(the webhook)")


def webhook_carrier(settings: Settings) -> WebhookCarrier | None:
    """Return the carrier that the settings ask for, ``None`` without a webhook.

    Raises:
        ConfigError: The address is not safe.
    """
    return None if settings.slack_webhook is None else WebhookCarrier(settings.slack_webhook)
