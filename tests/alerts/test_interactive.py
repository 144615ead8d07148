"""Presses by the real SDK: acknowledged first, heard through breaks, ended cleanly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from flows.cli_slack import listen_until
from flows.slack_deeds import CommandDeeds
from tasks.alerts.interactive.decide import (
    Click,
)
from tasks.alerts.interactive.listener import Listener, _check_address, find_workspace
from tasks.alerts.interactive.speaker import SlackSpeaker, web_client
from tasks.alerts.interactive.store import LISTENER
from tasks.alerts.outbox import messages
from tasks.errors import ConfigError, GateError
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import heartbeats
from tests.alerts.clicks import EVE, MIA, OURS, ROUTING, UNDO, Ear, Shop
from tests.fakes.socket_mode_server import (
    APP_TOKEN,
    BOT_TOKEN,
    CHANNEL,
    SocketModeServer,
    block_actions,
)


@pytest.fixture
def shop(state: State, make_settings: Callable[..., Settings]) -> Shop:
    return Shop(state, make_settings(ROUTING))


# ------------------------------------------------------------------ the real SDK


@pytest.fixture
def server() -> Iterator[SocketModeServer]:
    with SocketModeServer() as running:
        yield running


@contextmanager
def listening(
    shop: Shop, server: SocketModeServer, speaker: Any = None
) -> Iterator[threading.Event]:
    """Run a listener in a thread until the block ends, and then end it cleanly."""
    web = web_client(SecretStr(BOT_TOKEN), server.base_url)
    assert find_workspace(web) == OURS
    handler = shop.handler_with(speaker or SlackSpeaker(web, shop.state, shop.log.append))
    listener = Listener(
        SecretStr(APP_TOKEN), web, shop.state, handler.handle, shop.log.append, ping_s=0.3
    )
    stop = threading.Event()
    thread = threading.Thread(target=listener.run, args=(stop,), kwargs={"beat_s": 0.1})
    thread.start()
    try:
        server.wait(server.connected)
        yield stop
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_presses_reach_us_through_slacks_own_client(shop: Shop, server: SocketModeServer) -> None:
    with listening(shop, server):
        first = server.press("imagegate_roll_back", UNDO, user=EVE, action_ts="1.1")
        server.wait(lambda: server.said("chat.postEphemeral"))
        second = server.press("imagegate_roll_back", UNDO)
        server.send_payload(block_actions("imagegate_roll_back", UNDO), envelope=second)
        server.wait(lambda: server.said("chat.postMessage"))
        for payload, kind in (
            (block_actions("imagegate_roll_back", UNDO, team="T9999999"), "interactive"),
            (block_actions("imagegate_roll_back", "x" * 200_000), "interactive"),
            ({"command": "/imagegate"}, "slash_commands"),
            ("junk", "interactive"),
        ):
            server.send_payload(payload, kind)
        server.wait(lambda: len(server.acks) == 7)
    assert server.acks[:3] == [first, second, second]
    (whisper,) = server.said("chat.postEphemeral")
    assert (whisper["user"], whisper["channel"]) == (EVE, CHANNEL)
    assert "These may" in whisper["text"]
    (reply,) = server.said("chat.postMessage")
    assert (reply["channel"], reply["thread_ts"]) == (CHANNEL, "1700000000.000100")
    assert "shop serves winter" in reply["text"]
    assert shop.serves == "winter"
    assert shop.clicks() == [("roll_back", EVE, "refused"), ("roll_back", MIA, "done")]


def test_an_envelope_is_acknowledged_before_it_is_carried_out(
    shop: Shop, server: SocketModeServer
) -> None:
    go_on = threading.Event()

    class Slow(CommandDeeds):
        def roll_back(self, *arguments: Any) -> str:
            assert go_on.wait(60)
            return super().roll_back(*arguments)

    web = web_client(SecretStr(BOT_TOKEN), server.base_url)
    handler = shop.handler_with(shop.ear, Slow(shop.state, shop.settings, shop.log.append))
    listener = Listener(SecretStr(APP_TOKEN), web, shop.state, handler.handle, shop.log.append)
    stop = threading.Event()
    thread = threading.Thread(target=listener.run, args=(stop,))
    thread.start()
    names = [
        server.press("imagegate_roll_back", UNDO, action_ts=f"{number}.1") for number in range(3)
    ]
    server.wait(lambda: len(server.acks) == 3)
    assert sorted(server.acks) == names
    assert shop.serves == "summer"
    # What was acknowledged is still carried out when the listener is told to end.
    stop.set()
    go_on.set()
    thread.join(60)
    assert not thread.is_alive()
    assert shop.serves == "winter"
    assert len(shop.ear.replies) == 3


def test_a_press_that_breaks_us_does_not_make_us_deaf(shop: Shop, server: SocketModeServer) -> None:
    heard = threading.Event()

    class Fragile(Ear):
        def whisper(self, click: Click, text: str) -> None:
            if click.action_ts == "1.1":
                raise KeyError("xoxb-1-secret")
            heard.set()

    with listening(shop, server, Fragile()):
        for moment in ("1.1", "1.2"):
            server.press("imagegate_roll_back", UNDO, user=EVE, action_ts=moment)
        assert heard.wait(60)
    assert [line for line in shop.log if "broke" in line] == [
        "a click broke imagegate: KeyError: '(redacted)'"
    ]


def test_the_connection_is_renewed_when_slack_asks_and_after_a_break(
    shop: Shop, server: SocketModeServer
) -> None:
    with listening(shop, server):
        server.ask_to_reconnect()
        server.wait(lambda: server.opened == 2)
        server.press("imagegate_roll_back", UNDO, user=EVE, action_ts="1.1")
        server.wait(lambda: len(server.said("chat.postEphemeral")) == 1)
        server.cut()
        server.wait(lambda: server.opened == 3)
        server.press("imagegate_roll_back", UNDO, user=EVE, action_ts="1.2")
        server.wait(lambda: len(server.said("chat.postEphemeral")) == 2)
    assert len(shop.clicks()) == 2


def test_it_gives_a_sign_of_life_only_while_it_hears(shop: Shop, server: SocketModeServer) -> None:
    def beats() -> list[str]:
        with shop.state.begin() as connection:
            return list(connection.execute(sa.select(heartbeats.c.name)).scalars())

    with listening(shop, server):
        server.press("imagegate_roll_back", UNDO, user=EVE)
        server.wait(lambda: server.said("chat.postEphemeral"))
        assert beats() == [LISTENER]
    assert beats() == []
    assert shop.log[0] == "connected to Slack"


def test_an_answer_that_slack_does_not_take_waits_in_the_outbox(
    shop: Shop, server: SocketModeServer
) -> None:
    server.errors["chat.postMessage"] = "internal_error"
    with listening(shop, server):
        server.press("imagegate_roll_back", UNDO)
        server.wait(lambda: server.said("chat.postMessage"))
    assert shop.serves == "winter"
    kept = [m for m in messages(shop.state) if m.dedup_key.startswith("click:")]
    assert [m.status for m in kept] == ["pending"]
    assert "Rolled back by mia" in str(kept[0].payload["text"])


@pytest.mark.parametrize(
    ("method", "error", "kind", "says"),
    [
        ("apps.connections.open", "invalid_auth", ConfigError, "refuses SLACK_APP_TOKEN"),
        ("auth.test", "token_revoked", ConfigError, "refuses SLACK_BOT_TOKEN"),
        ("auth.test", "fatal_error", GateError, "does not say whose token"),
    ],
)
def test_a_token_that_slack_refuses_ends_it_with_a_sentence(
    shop: Shop, server: SocketModeServer, method: str, error: str, kind: type, says: str
) -> None:
    server.errors[method] = error
    settings = shop.settings.model_copy(
        update={
            "slack_app_token": SecretStr(APP_TOKEN),
            "slack_token": SecretStr(BOT_TOKEN),
            "slack_base_url": server.base_url,
        }
    )
    with pytest.raises(kind, match=says) as caught:
        listen_until(settings, threading.Event())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("missing", ["slack_app_token", "slack_token"])
def test_without_a_token_it_says_which(shop: Shop, missing: str) -> None:
    tokens = {"slack_app_token": SecretStr(APP_TOKEN), "slack_token": SecretStr(BOT_TOKEN)}
    settings = shop.settings.model_copy(update=tokens | {missing: None})
    name = {"slack_app_token": "SLACK_APP_TOKEN", "slack_token": "SLACK_BOT_TOKEN"}[missing]
    with pytest.raises(ConfigError, match=rf"listen: {name} is not set"):
        listen_until(settings, threading.Event())


@pytest.mark.parametrize(
    ("url", "base", "good"),
    [
        ("wss://wss-primary.slack.com/link/?ticket=1", "https://slack.com/api/", True),
        ("wss://wss-primary.slack.com:443/link", "https://www.slack.com/api/", True),
        ("wss://wss-primary.slack.com:8443/link", "https://slack.com/api/", False),
        ("ws://wss-primary.slack.com/link", "https://slack.com/api/", False),
        ("wss://slack.com.evil.example/link", "https://slack.com/api/", False),
        ("wss://evilslack.com/link", "https://slack.com/api/", False),
        ("ws://127.0.0.1:9000/link", "https://slack.com/api/", False),
        ("ws://127.0.0.1:9000/link", "http://127.0.0.1:8000/api/", True),
        ("ws://10.0.0.1:9000/link", "http://127.0.0.1:8000/api/", False),
        ("", "https://slack.com/api/", False),
        ("ws://[", "https://slack.com/api/", False),
    ],
)
def test_the_address_of_a_connection_is_followed_to_slack_only(
    url: str, base: str, good: bool
) -> None:
    if good:
        _check_address(url, base)
    else:
        with pytest.raises(ConnectionError, match="not followed"):
            _check_address(url, base)
