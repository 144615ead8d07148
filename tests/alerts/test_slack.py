"""The real SDK against a Slack on loopback, well and ill."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.alerts.blocks import GateSummary, gate_message
from tasks.alerts.outbox import deliver, enqueue, messages, pending
from tasks.alerts.slack import SlackSender, slack_sender
from tasks.errors import ConfigError
from tasks.settings import load_settings
from tasks.state import State

ROOT = Path(__file__).parents[2]
TOKEN = "xoxb-test-000-secret"
NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n not looked at here"


@pytest.fixture
def sender(slack: Any) -> SlackSender:
    return SlackSender(SecretStr(TOKEN), "C0123456789", slack.base_url)


def put(state: State, summary: GateSummary, key: str = "gate:run-1", sheet: str = "") -> None:
    enqueue(state, key, "run-1", gate_message(summary).payload(sheet or None))


def test_message_and_contact_sheet_arrive_in_one_thread(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    put(state, summary, sheet=str(sheet))
    assert deliver(state, sender, now=NOW).delivered == ["gate:run-1"]
    (message,) = slack.messages
    assert message["channel"] == "C0123456789"
    assert message["blocks"][0]["text"]["text"] == "⛔ ROLLBACK: summer for shop"
    assert message["metadata"]["event_payload"] == {"key": "gate:run-1", "run_id": "run-1"}
    assert (message["parse"], message["unfurl_links"], message["link_names"]) == (
        "none",
        False,
        False,
    )
    assert list(slack.files.values()) == [PNG]
    (shared,) = slack.shared
    assert (shared["channel_id"], shared["thread_ts"]) == ("C0123456789", "1700000000.000001")
    receipt = json.loads(str(messages(state)[0].receipt))
    assert receipt == {"channel": "C0123456789", "file": "F0000000000", "ts": "1700000000.000001"}


def test_the_token_goes_to_the_api_and_not_to_the_upload_address(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    put(state, summary, sheet=str(sheet))
    deliver(state, sender, now=NOW)
    (headers,) = slack.upload_headers
    assert "authorization" not in headers
    assert TOKEN not in json.dumps(headers)


def test_slack_down_then_back_loses_nothing_and_repeats_nothing(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary
) -> None:
    slack.stop()
    put(state, summary)
    put(state, summary, "gate:run-2")
    report = deliver(state, sender, now=NOW)
    assert report.delivered == []
    assert report.left == 2
    assert "URLError" in report.failed["gate:run-1"]
    slack.start()
    assert deliver(state, sender, now=NOW).delivered == ["gate:run-1", "gate:run-2"]
    assert deliver(state, sender, now=NOW).delivered == []
    keys = [m["metadata"]["event_payload"]["key"] for m in slack.messages]
    assert keys == ["gate:run-1", "gate:run-2"]


@pytest.mark.parametrize(("mode", "text"), [("error", "HTTP 500"), ("html", "Slack answered")])
def test_a_slack_that_is_ill_is_told_apart_from_one_that_is_well(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary, mode: str, text: str
) -> None:
    put(state, summary)
    slack.mode = mode
    report = deliver(state, sender, now=NOW)
    assert text in report.failed["gate:run-1"]
    slack.mode = "ok"
    assert deliver(state, sender, now=NOW).delivered == ["gate:run-1"]
    assert len(slack.messages) == 1


def test_one_bad_answer_is_overcome_within_a_delivery(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    slack.mode, slack.bad_calls = "error", 1
    assert deliver(state, sender, now=NOW).delivered == ["gate:run-1"]
    put(state, summary, "gate:run-2")
    slack.mode, slack.bad_calls, slack.retry_after = "rate-limit", 1, "0"
    assert deliver(state, sender, now=NOW).delivered == ["gate:run-2"]


@pytest.mark.parametrize("wait", ["3600", "", "tomorrow", "-1"])
def test_a_long_rate_limit_is_left_to_the_next_delivery(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary, wait: str
) -> None:
    put(state, summary)
    slack.mode, slack.retry_after = "rate-limit", wait
    report = deliver(state, sender, now=NOW)
    assert report.failed["gate:run-1"] == "AlertError: Slack answered ratelimited (HTTP 429)"
    assert slack.calls == ["chat.postMessage"], "it was not tried again at once"


def test_a_slack_that_hangs_does_not_hold_up_its_caller(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    slack.mode = "hang"
    report = deliver(state, sender, now=NOW, deadline_s=0.3)
    assert slack.hanging.wait(20)
    assert report.late
    assert report.left == 1
    slack.stop()


@pytest.mark.parametrize(
    ("token", "channel", "error"),
    [
        ("xoxb-wrong", "C0123456789", "invalid_auth"),
        (TOKEN, "C0000000000", "channel_not_found"),
    ],
)
def test_wrong_settings_are_said_in_slacks_words_without_the_token(
    slack: Any, state: State, summary: GateSummary, token: str, channel: str, error: str
) -> None:
    put(state, summary)
    sender = SlackSender(SecretStr(token), channel, slack.base_url)
    report = deliver(state, sender, now=NOW)
    assert error in report.failed["gate:run-1"]
    assert token not in str(pending(state))


def test_blocks_that_slack_dislikes_do_not_silence_a_rollback(
    slack: Any, sender: SlackSender, state: State
) -> None:
    broken = {"text": "⛔ ROLLBACK", "blocks": [{"type": "hologram"}]}
    enqueue(state, "a", "run-1", broken)
    assert deliver(state, sender, now=NOW).delivered == ["a"]
    (message,) = slack.messages
    assert message["text"] == "⛔ ROLLBACK"
    assert "blocks" not in message


@pytest.mark.parametrize("trouble", ["missing", "foreign", "length"])
def test_a_sheet_that_cannot_be_uploaded_does_not_undo_the_message(
    slack: Any,
    sender: SlackSender,
    state: State,
    summary: GateSummary,
    tmp_path: Path,
    trouble: str,
) -> None:
    sheet = tmp_path / "sheet.png"
    if trouble != "missing":
        sheet.write_bytes(b"" if trouble == "length" else PNG)
    if trouble == "foreign":
        slack.upload_base = "http://169.254.169.254"
    put(state, summary, sheet=str(sheet))
    assert deliver(state, sender, now=NOW).delivered == ["gate:run-1"]
    receipt = json.loads(str(messages(state)[0].receipt))
    assert "file" not in receipt
    wanted = {"missing": "No such file", "foreign": "169.254.169.254", "length": "invalid_arg"}
    assert wanted[trouble] in receipt["file_error"]
    assert slack.files == {}


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://files.slack.com/upload/v1/A", True),
        ("https://slack.com/upload", True),
        ("http://files.slack.com/upload", False),
        ("https://files.slack.com.evil.example/upload", False),
        ("https://evilslack.com/upload", False),
        ("https://127.0.0.1/upload", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_only_slacks_own_hosts_get_the_sheet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str, good: bool
) -> None:
    asked: list[str] = []

    def post(_client: httpx.Client, url: str, **_more: object) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200)

    sender = SlackSender(SecretStr(TOKEN), "C0123456789", "https://slack.com/api/")
    monkeypatch.setattr(httpx.Client, "post", post)
    monkeypatch.setattr(
        sender._client,
        "files_getUploadURLExternal",
        lambda **_more: {"upload_url": address, "file_id": "F1"},
    )
    monkeypatch.setattr(sender._client, "files_completeUploadExternal", lambda **_more: {})
    monkeypatch.setattr(sender, "_post", lambda _message: {"channel": "C1", "ts": "1"})
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)

    class One:
        payload: dict[str, object] = {"text": "x", "blocks": [], "contact_sheet": str(sheet)}  # noqa: RUF012

    receipt = json.loads(sender.send(One()))  # type: ignore[arg-type]
    assert asked == ([address] if good else [])
    assert ("file" in receipt) is good


@pytest.mark.parametrize(
    "address",
    [
        "http://slack.com/api/",
        "ftp://127.0.0.1/",
        "slack.com/api/",
        "file:///tmp/x",
        "",
        "https://",
        "https://[x/",
    ],
)
def test_an_address_that_would_show_the_token_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="IMAGEGATE_SLACK_URL") as caught:
        SlackSender(SecretStr(TOKEN), "C1", address)
    assert TOKEN not in str(caught.value)


def test_the_settings_give_the_sender(tmp_path: Path) -> None:
    home = {"IMAGEGATE_HOME": str(tmp_path)}
    assert slack_sender(load_settings(home)) is None
    with pytest.raises(ConfigError, match="IMAGEGATE_SLACK_CHANNEL"):
        slack_sender(load_settings(home | {"SLACK_BOT_TOKEN": TOKEN}))
    sender = slack_sender(
        load_settings(home | {"SLACK_BOT_TOKEN": TOKEN, "IMAGEGATE_SLACK_CHANNEL": " #ops "})
    )
    assert sender is not None
    assert sender.channel == "#ops"


def test_no_log_line_holds_the_token(
    slack: Any,
    sender: SlackSender,
    state: State,
    summary: GateSummary,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    put(state, summary)
    slack.mode, slack.bad_calls = "error", 3
    deliver(state, sender, now=NOW)
    deliver(state, sender, now=NOW)
    assert len(slack.messages) == 1
    assert TOKEN not in caplog.text
    assert TOKEN not in (tmp_path / "slack.jsonl").read_text(encoding="utf-8")
    assert TOKEN not in repr(vars(sender)["_token"])


VICTIM = """
import os, signal, sys
from pydantic import SecretStr
from tasks.alerts.outbox import deliver
from tasks.alerts.slack import SlackSender
from tasks.state import State

class Dies(SlackSender):
    def send(self, message):
        super().send(message)
        os.kill(os.getpid(), signal.SIGKILL)

deliver(State(sys.argv[1]), Dies(SecretStr(sys.argv[3]), "C0123456789", sys.argv[2]))
"""


def test_kill_between_sending_and_booking_sends_again_with_the_same_key(
    slack: Any, sender: SlackSender, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    url = state.engine.url.render_as_string()
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, url, slack.base_url, TOKEN],
        capture_output=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    assert [m.status for m in messages(state)] == ["sending"]
    assert deliver(state, sender).left == 1, "the claim is young: it may still be alive"
    later = datetime.now(UTC) + timedelta(minutes=5)
    assert deliver(state, sender, now=later).delivered == ["gate:run-1"]
    keys = [m["metadata"]["event_payload"]["key"] for m in slack.messages]
    assert keys == ["gate:run-1", "gate:run-1"]
