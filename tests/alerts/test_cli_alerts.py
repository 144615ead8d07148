"""``imagegate alerts`` as a command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli, cli_alerts
from tasks.alerts.incidents import raise_alarm
from tasks.alerts.outbox import enqueue, pending
from tasks.settings import Settings
from tasks.state import State

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process with given settings; exit code, stdout, stderr."""

    def command(settings: Settings, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(cli_alerts, "load_settings", lambda: settings)
        code = cli._main(["alerts", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_what_waits_is_listed_with_its_age_tries_and_reason(
    state: State, make_settings: Callable[..., Settings], run: Callable[..., tuple[int, str, str]]
) -> None:
    settings = make_settings()
    assert run(settings)[:2] == (0, "the outbox is empty, and no alarm lasts\n")
    enqueue(state, "root", "run-1", {"text": "CHECKING \x1b[2J"}, thread="run:run-1")
    enqueue(state, "end", "run-1", {"text": "ROLLBACK"}, thread="run:run-1", kind="reply")
    raise_alarm(state, "worker:1", title="WORKER is dead", severity="warning")
    code, out, _ = run(settings, "--json")
    shown = json.loads(out)
    assert code == 0
    first, second, _alarm = shown["pending"]
    assert (first["key"], first["kind"], first["attempts"], first["waits"]) == (
        "root",
        "open",
        0,
        None,
    )
    assert second["waits"] == "waits for the message before it in its thread"
    assert first["age_s"] >= 0
    assert [alarm["key"] for alarm in shown["alarms"]] == ["worker:1"]
    code, out, _ = run(settings, "list")
    assert "imagegate alerts ack worker:1" in out
    assert "\x1b" not in out


def test_deliver_sends_and_says_what_is_left(
    slack: Any,
    state: State,
    in_slack: Callable[..., Settings],
    make_settings: Callable[..., Settings],
    run: Callable[..., tuple[int, str, str]],
) -> None:
    enqueue(state, "a", None, {"text": "a"})
    code, out, _ = run(make_settings(), "deliver")
    assert code == 4
    assert "no SLACK_BOT_TOKEN is set" in out
    settings = in_slack()
    assert run(settings, "deliver")[:2] == (
        0,
        "delivered by slack: a\n",
    )
    slack.mode = "refuse:token_revoked"
    enqueue(state, "b", None, {"text": "b"})
    code, out, _ = run(settings, "deliver", "--json")
    assert code == 4
    assert "token_revoked" in json.loads(out)["failed_now"]["b"]


def test_quiet_hours_are_no_failure(
    slack: Any,
    state: State,
    in_slack: Callable[..., Settings],
    run: Callable[..., tuple[int, str, str]],
) -> None:
    # Quiet the whole day but for the minute after the present one's hour.
    hours = "{from: '00:00', until: '23:59'}"
    settings = in_slack(f"default: {{quiet_hours: {hours}}}\n")
    enqueue(state, "a", None, {"text": "a"})
    code, out, _ = run(settings, "deliver")
    if "delivered" not in out:  # in the one minute of the day that is not quiet
        assert code == 0
        assert "quiet hours until" in out


def test_a_test_goes_by_the_real_ways_and_says_which(
    slack: Any,
    state: State,
    in_slack: Callable[..., Settings],
    make_settings: Callable[..., Settings],
    run: Callable[..., tuple[int, str, str]],
) -> None:
    routing = "products: {shop: {channel: '#releases', on_call: S0123456789}}\n"
    settings = in_slack(routing, IMAGEGATE_SLACK_WEBHOOK=slack.webhook)
    code, out, _ = run(settings, "test", "--severity", "page", "--product", "shop")
    assert code == 0
    assert "sent by slack to channel C0123456789" in out
    assert "mentioned on-call: <!subteam^S0123456789>" in out
    (message,) = slack.messages
    assert message["channel"] == "#releases"
    assert message["blocks"][0]["text"]["text"] == "🧪 TEST: imagegate can reach you"
    slack.mode = "refuse:invalid_auth"
    slack.script("webhook", "ok")
    code, out, _ = run(settings, "test", "--json")
    told = json.loads(out)
    assert (code, told["via"], told["ways"]) == (0, "webhook", ["slack", "webhook"])
    assert "invalid_auth" in told["receipt"]["instead_of"]
    slack.script("webhook", "refuse:no_service")
    code, out, _ = run(settings, "test", "--json")
    told = json.loads(out)
    assert (code, told["via"]) == (4, None)
    assert "no_service" in told["error"]
    assert run(make_settings(), "test")[0] == 4
    assert pending(state) == (), "a test leaves nothing behind"


@pytest.mark.parametrize(
    ("arguments", "routing", "said"),
    [
        (("test", "--severity", "loud"), "schema_version: 1\n", "--severity: got 'loud'"),
        (("test",), "default: {chanel: x}\n", "'default.chanel': unknown field"),
        (("ack", "nothing"), "schema_version: 1\n", "no alarm 'nothing' is open"),
    ],
)
def test_a_mistake_is_a_sentence(
    make_settings: Callable[..., Settings],
    run: Callable[..., tuple[int, str, str]],
    arguments: tuple[str, ...],
    routing: str,
    said: str,
) -> None:
    code, _, err = run(make_settings(routing), *arguments)
    assert code == 2
    assert said in " ".join(err.split())


def test_who_takes_care_is_seen_and_only_one_does(
    state: State, make_settings: Callable[..., Settings], run: Callable[..., tuple[int, str, str]]
) -> None:
    raise_alarm(state, "worker:1", title="WORKER is dead", severity="warning")
    settings = make_settings()
    assert run(settings, "ack", "worker:1", "--owner", "mia")[:2] == (
        0,
        "worker:1: acknowledged by mia\n",
    )
    code, _, err = run(settings, "ack", "worker:1")
    assert code == 2
    assert "acknowledged by mia" in " ".join(err.split())


def test_watch_delivers_until_it_is_told_to_end(
    slack: Any, state: State, in_slack: Callable[..., Settings], tmp_path: Path
) -> None:
    enqueue(state, "a", None, {"text": "a"})
    in_slack()  # writes the routing file
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "alerts", "deliver", "--watch"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={
            "PATH": "/usr/bin:/bin",
            "IMAGEGATE_HOME": str(tmp_path),
            "IMAGEGATE_ALERTS_FILE": str(tmp_path / "alerts.yaml"),
            "SLACK_BOT_TOKEN": slack.token,
            "IMAGEGATE_SLACK_CHANNEL": "C0123456789",
            "IMAGEGATE_SLACK_URL": slack.base_url,
        },
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "delivered by slack: a\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert slack.keys == ["a"]
