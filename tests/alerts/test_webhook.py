"""The real SDK's webhook client against the fake Slack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.alerts.blocks import GateSummary, gate_message
from tasks.alerts.delivery import deliver_all
from tasks.alerts.outbox import enqueue, messages, pending
from tasks.alerts.webhook import WebhookCarrier, webhook_carrier
from tasks.errors import ConfigError
from tasks.settings import Settings
from tasks.state import State


@pytest.fixture
def hook(slack: Any, make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        "default: {on_call: S0123456789}\n",
        IMAGEGATE_SLACK_WEBHOOK=slack.webhook,
        SLACK_APP_TOKEN="xapp-1",
    )


def test_a_webhook_alone_carries_messages_and_leaves_updates_out(
    slack: Any, hook: Settings, state: State, summary: GateSummary, fake: Any
) -> None:
    enqueue(state, "root", None, {"text": "CHECKING"}, thread="t")
    deliver_all(state, hook)
    payload = gate_message(summary).payload()
    enqueue(state, "page", None, payload, kind="reply", thread="t", severity="page")
    enqueue(state, "final", None, {"text": "ROLLBACK"}, kind="update", thread="t")
    report = deliver_all(state, hook)
    assert report.via == {"page": "webhook", "final": "skipped"}
    assert [body["text"].split(":")[0] for body in slack.hooked] == ["CHECKING", "⛔ ROLLBACK"]
    assert "!subteam^S0123456789" in fake.markup_of(slack.hooked[1])
    assert "actions" not in {b["type"] for b in slack.hooked[1]["blocks"]}, "nobody would hear them"
    assert pending(state) == ()
    assert "cannot be changed" in str(messages(state)[2].receipt)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("refuse:no_service", "'no_service' (HTTP 404)"),
        ("error:rollup_error", "'rollup_error' (HTTP 500)"),
        ("rate-limit:600", "HTTP 429"),
    ],
)
def test_its_errors_are_said_without_its_address(
    slack: Any, hook: Settings, state: State, behaviour: str, said: str
) -> None:
    slack.script("webhook", *[behaviour] * 2)
    enqueue(state, "a", None, {"text": "a"})
    report = deliver_all(state, hook)
    assert said in report.failed["a"]
    assert "hook-secret" not in str(report)
    assert "hook-secret" not in str(pending(state))


def test_a_webhook_that_is_away_does_not_show_its_address(
    slack: Any, hook: Settings, state: State
) -> None:
    slack.stop()
    enqueue(state, "a", None, {"text": "a"})
    report = deliver_all(state, hook)
    assert "URLError" in report.failed["a"]
    assert "hook-secret" not in str(report)


def test_blocks_that_it_dislikes_do_not_silence_the_text(
    slack: Any, hook: Settings, state: State
) -> None:
    enqueue(state, "a", None, {"text": "ROLLBACK", "blocks": [{"type": "hologram"}]})
    assert deliver_all(state, hook).via == {"a": "webhook"}
    assert slack.hooked == [{"text": "ROLLBACK", "unfurl_links": False, "unfurl_media": False}]


@pytest.mark.parametrize(
    "address",
    ["http://hooks.slack.com/services/hook-secret", "hook-secret", "ftp://127.0.0.1/hook-secret"],
)
def test_an_address_in_the_open_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ConfigError, match="IMAGEGATE_SLACK_WEBHOOK") as caught:
        WebhookCarrier(SecretStr(address))
    assert "hook-secret" not in str(caught.value)


def test_without_a_webhook_there_is_none(make_settings: Callable[..., Settings]) -> None:
    assert webhook_carrier(make_settings()) is None
