"""Listening for clicks through Socket Mode, with Slack's own client: nothing of us is reachable.

The client holds one connection that it opens itself. It acknowledges each envelope at once (Slack
wants that within 3 s) and a second thread carries out one click after the other.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode import SocketModeClient
from slack_sdk.socket_mode.client import BaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from tasks.alerts.interactive.decide import Workspace
from tasks.alerts.interactive.speaker import TROUBLE, explain
from tasks.alerts.interactive.store import beat, leave
from tasks.alerts.outbox import redact
from tasks.alerts.slack import (
    DEFAULT_RETRY_S,
    LONGEST_RETRY_S,
    is_local,
    origin,
    retry_after,
    silent_logger,
)
from tasks.errors import ConfigError, GateError, ImagegateError
from tasks.state import State

#: Seconds between two signs of life.
BEAT_S = 10.0
#: Seconds between two pings to Slack.
PING_S = 5.0
#: Seconds between two tries to connect for the first time.
_RETRY_S = 5.0
#: Clicks that may wait for the one that is carried out; more come from no person.
_MOST_WAITING = 100
#: Bytes read at once; the SDK's reader calls itself once a piece, so pieces must not be small.
_PIECE = 65_536
#: Answers of Slack that no waiting mends.
_HOPELESS = frozenset(
    {
        "invalid_auth",
        "not_authed",
        "account_inactive",
        "token_revoked",
        "token_expired",
        "not_allowed_token_type",
        "missing_scope",
        "no_permission",
        "access_denied",
        "forbidden_team",
        "team_access_not_granted",
    }
)


class _Client(SocketModeClient):
    """The SDK's client, which keeps to Slack's hosts and to its rate limit."""

    def __init__(self, app_token: SecretStr, web: WebClient, ping_s: float) -> None:
        super().__init__(
            app_token=app_token.get_secret_value(),
            web_client=web,
            logger=silent_logger(),
            concurrency=4,
            ping_interval=ping_s,
            receive_buffer_size=_PIECE,
        )
        if is_local(web.base_url):
            self.proxy = None
        self._not_before = 0.0

    def issue_new_wss_url(self) -> str:
        """Ask Slack for the address of a new connection.

        The SDK's own method sleeps through a rate limit in a thread that then cannot be ended.
        """
        left = self._not_before - time.monotonic()
        if left > 0:
            raise ConnectionError(f"Slack asked to wait {left:.0f} s more")
        try:
            answer = self.web_client.apps_connections_open(app_token=self.app_token)
        except SlackApiError as error:
            if error.response.get("error") == "ratelimited":
                wait = retry_after(error.response.headers)
                wait = DEFAULT_RETRY_S if wait is None else min(wait, LONGEST_RETRY_S)
                self._not_before = time.monotonic() + wait
            raise
        url = str(answer.get("url", ""))
        _check_address(url, self.web_client.base_url)
        return url


class Listener:
    """Brings clicks to a handler until it is stopped.

    Args:
        app_token: The app-level token of Socket Mode.
        web: A client of Slack's API.
        state: The database, for the sign of life.
        handle: Carries out the payload of one envelope.
        log: Takes one line an event.
        ping_s: Seconds between two looks at the connection; one that is silent for four of them
            is given up for a new one.
    """

    def __init__(
        self,
        app_token: SecretStr,
        web: WebClient,
        state: State,
        handle: Callable[[object], None],
        log: Callable[[str], None],
        ping_s: float = PING_S,
    ) -> None:
        self._state, self._handle, self._log = state, handle, log
        self._jobs: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._worker = threading.Thread(target=self._work, name="imagegate-clicks", daemon=True)
        self._detail = f"{socket.gethostname()}:{os.getpid()}"
        self._client = _Client(app_token, web, ping_s)
        self._client.socket_mode_request_listeners.append(self._take)

    def run(self, stop: threading.Event, *, beat_s: float = BEAT_S) -> None:
        """Listen until ``stop`` is set; the click that is being carried out is finished.

        Args:
            stop: Ends the listening.
            beat_s: Seconds between two signs of life.

        Raises:
            ConfigError: Slack refuses the app-level token.
        """
        self._worker.start()
        try:
            self._connect(stop)
            connected = None
            while not stop.is_set():
                before, connected = connected, self._client.is_connected()
                if connected != before:
                    self._log("connected to Slack" if connected else "no connection to Slack")
                if connected:
                    # A listener without a connection hears nothing: it must be missed.
                    self._beat()
                stop.wait(beat_s)
        finally:
            self._end()

    def _connect(self, stop: threading.Event) -> None:
        """Connect for the first time; from then on the SDK connects again by itself."""
        while not stop.is_set():
            try:
                self._client.connect()
            except SlackApiError as error:
                refuse_hopeless(error, "SLACK_APP_TOKEN", "an app-level token (xapp-…)")
                self._log(f"not connected: {explain(error)}")
            except TROUBLE as error:
                self._log(f"not connected: {explain(error)}")
            else:
                return
            stop.wait(_RETRY_S)

    def _take(self, client: BaseSocketModeClient, request: SocketModeRequest) -> None:
        """Acknowledge an envelope at once, then queue what it holds."""
        client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        if request.type != "interactive":
            self._log(f"ignored: an envelope of type {request.type[:40]!r}")
            return
        try:
            self._jobs.put_nowait(request.payload)
        except queue.Full:
            self._log(f"ignored: more than {_MOST_WAITING} clicks are waiting")

    def _work(self) -> None:
        while (payload := self._jobs.get()) is not None:
            try:
                self._handle(payload)
            except Exception as error:  # noqa: BLE001 - the next click is somebody's rollback
                self._log(f"a click broke imagegate: {redact(f'{type(error).__name__}: {error}')}")

    def _beat(self) -> None:
        try:
            beat(self._state, self._detail)
        except ImagegateError as error:
            self._log(f"no sign of life could be given: {error}")

    def _end(self) -> None:
        # First the ear, then the hands: what was acknowledged is still carried out.
        self._client.close()
        self._jobs.put(None)
        if self._worker.is_alive():
            self._worker.join()
        try:
            leave(self._state, self._detail)
        except ImagegateError as error:
            self._log(f"the sign of life was not taken away: {error}")


def find_workspace(web: WebClient) -> Workspace:
    """Return the workspace that the bot token belongs to.

    Raises:
        ConfigError: Slack refuses the token.
        GateError: Slack cannot be reached.
    """
    try:
        answer = web.auth_test()
    except SlackApiError as error:
        refuse_hopeless(error, "SLACK_BOT_TOKEN", "a bot token (xoxb-…)")
        raise GateError(f"Slack does not say whose token this is: {explain(error)}") from None
    except TROUBLE as error:
        raise GateError(
            f"Slack cannot be reached at {origin(web.base_url)[1]}: {explain(error)}"
        ) from None
    return Workspace(str(answer.get("team_id") or ""), str(answer.get("enterprise_id") or ""))


def refuse_hopeless(error: SlackApiError, name: str, what: str) -> None:
    """Pass over what waiting may mend.

    Raises:
        ConfigError: Slack refuses the token for good.
    """
    word = str(error.response.get("error"))
    if word in _HOPELESS:
        raise ConfigError(
            f"Slack refuses {name}: {word}; it must be {what} of an app as in "
            "deployments/slack-app.yaml, with the scope connections:write (app-level) or "
            "chat:write (bot)"
        ) from None


def _check_address(url: str, base_url: str) -> None:
    """Pass when the address leads where the API is: the SDK would follow it anywhere.

    Raises:
        ConnectionError: It leads elsewhere, or over the open network unencrypted.
    """
    scheme, host, port = origin(url)
    home = origin(base_url)[1]
    # For the SDK every port but 443 means: no TLS.
    below = host == home or host.endswith(f".{home.removeprefix('www.')}")
    safe = scheme == "wss" and port in (None, 443) and bool(home) and below
    local = scheme == "ws" and is_local(base_url) and is_local(url)
    if not safe and not local:
        raise ConnectionError(f"Slack named an address on host {host!r}: not followed")
