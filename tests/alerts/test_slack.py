"""The real SDK against a Slack on loopback, well and ill."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from tasks.alerts.blocks import GateSummary, gate_message
from tasks.alerts.chain import Chain
from tasks.alerts.delivery import Routes, deliver, deliver_all, deliver_pending
from tasks.alerts.outbox import as_message, enqueue, messages, packed, pending
from tasks.alerts.parcel import AlertError, Anchor, Parcel
from tasks.alerts.slack import SlackCarrier, slack_carrier
from tasks.errors import ConfigError
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import alert_channels
from tests.fakes.slack_server import CHANNEL, TOKEN

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n not looked at here"
ROUTES = Routes(channel=CHANNEL)


@pytest.fixture
def chain(slack: Any, state: State) -> Chain:
    return Chain(state, [SlackCarrier(SecretStr(TOKEN), slack.base_url)])


def put(
    state: State, summary: GateSummary, key: str = "gate:run-1", sheet: str = "", **more: Any
) -> None:
    enqueue(state, key, "run-1", gate_message(summary).payload(sheet or None), **more)


def parcel(payload: dict[str, Any], **more: Any) -> Parcel:
    row = {
        "id": 1,
        "dedup_key": "k",
        "run_id": None,
        "channel": "slack",
        "payload": packed(payload),
        "status": "sending",
        "attempts": 1,
        "last_error": None,
        "created_at": "",
        "claimed_at": None,
        "delivered_at": None,
        "receipt": None,
    }
    kind = more.pop("kind", "open")
    return Parcel(as_message(row | {"kind": kind}), "info", channel=CHANNEL, **more)


def test_message_and_contact_sheet_arrive_in_one_thread(
    slack: Any, chain: Chain, state: State, summary: GateSummary, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    put(state, summary, sheet=str(sheet))
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["gate:run-1"]
    (message,) = slack.messages
    assert message["channel"] == CHANNEL
    assert message["blocks"][0]["text"]["text"] == "⛔ ROLLBACK: summer for shop"
    assert message["metadata"]["event_payload"] == {"key": "gate:run-1", "run_id": "run-1"}
    assert (message["parse"], message["unfurl_links"], message["link_names"]) == (
        "none",
        False,
        False,
    )
    assert list(slack.files.values()) == [PNG]
    (shared,) = slack.shared
    assert (shared["channel_id"], shared["thread_ts"]) == (CHANNEL, "1700000000.000001")
    assert json.loads(str(messages(state)[0].receipt)) == {
        "channel": CHANNEL,
        "file": "F0000000000",
        "ts": "1700000000.000001",
        "via": "slack",
    }


def test_replies_go_into_the_thread_and_updates_rewrite_its_first_message(
    slack: Any, chain: Chain, state: State
) -> None:
    enqueue(state, "root", None, {"text": "CHECKING"}, thread="t")
    enqueue(state, "other", None, {"text": "another"})
    deliver(state, chain, ROUTES, now=NOW)
    enqueue(state, "reply", None, {"text": "half"}, kind="reply", thread="t")
    enqueue(state, "page", None, {"text": "ROLLBACK!"}, kind="reply", thread="t", severity="page")
    enqueue(state, "final", None, {"text": "ROLLBACK"}, kind="update", thread="t")
    deliver(state, chain, ROUTES, now=NOW)
    assert slack.keys == ["root", "other", "reply", "page"]
    assert slack.thread("1700000000.000001") == ["ROLLBACK", "half", "ROLLBACK!"]
    assert [u["ts"] for u in slack.updates] == ["1700000000.000001"]


def test_a_page_mentions_on_call_and_is_shown_in_the_channel_too(
    slack: Any, in_slack: Callable[..., Settings], state: State, summary: GateSummary, fake: Any
) -> None:
    settings = in_slack("default: {on_call: S0123456789}\n", SLACK_APP_TOKEN="xapp-1")
    enqueue(state, "root", None, {"text": "CHECKING", "blocks": []}, thread="t")
    put(state, summary, kind="reply", thread="t", severity="page")
    deliver_all(state, settings)
    root, page = slack.messages
    assert fake.markup_of(root) == []
    assert fake.markup_of(page).count("!subteam^S0123456789") == 2
    assert page["text"].startswith("⛔ ROLLBACK"), "a notification begins with the verdict"
    assert page["reply_broadcast"] is True
    buttons = page["blocks"][-1]["elements"]
    assert [b["action_id"] for b in buttons] == ["imagegate_acknowledge"]
    assert json.loads(buttons[0]["value"]) == {
        "key": "run:run-1",
        "product": "shop",
        "run_id": "run-1",
    }


def test_buttons_are_only_drawn_when_somebody_listens(
    slack: Any, chain: Chain, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    deliver(state, chain, ROUTES, now=NOW)
    assert "actions" not in {block["type"] for block in slack.messages[0]["blocks"]}


@pytest.mark.parametrize("error", ["message_not_found", "cant_update_message"])
def test_a_first_message_that_is_gone_is_written_anew(
    slack: Any, chain: Chain, state: State, error: str
) -> None:
    enqueue(state, "root", None, {"text": "CHECKING"}, thread="t")
    deliver(state, chain, ROUTES, now=NOW)
    slack.script("chat.update", f"refuse:{error}")
    enqueue(state, "final", None, {"text": "PROMOTE"}, kind="update", thread="t")
    enqueue(state, "reply", None, {"text": "more"}, kind="reply", thread="t")
    deliver(state, chain, ROUTES, now=NOW)
    assert slack.thread("1700000000.000002") == ["PROMOTE", "more"]


def test_a_reply_to_a_deleted_message_is_seen_all_the_same(slack: Any, chain: Chain) -> None:
    lost = parcel(
        {"text": "ROLLBACK"}, kind="reply", anchor=Anchor(CHANNEL, "1.9"), mention="<@U1>"
    )
    chain.send(lost, "page", NOW)
    (message,) = slack.messages
    assert "thread_ts" not in message
    assert "reply_broadcast" not in message


def test_the_token_goes_to_the_api_and_not_to_the_upload_address(
    slack: Any, chain: Chain, state: State, summary: GateSummary, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    put(state, summary, sheet=str(sheet))
    deliver(state, chain, ROUTES, now=NOW)
    (headers,) = slack.upload_headers
    assert "authorization" not in headers
    assert TOKEN not in json.dumps(headers)


def test_slack_down_then_back_loses_nothing_and_repeats_nothing(
    slack: Any, chain: Chain, state: State, summary: GateSummary
) -> None:
    slack.stop()
    put(state, summary)
    put(state, summary, "gate:run-2")
    report = deliver(state, chain, ROUTES, now=NOW)
    assert report.delivered == []
    assert report.left == 2
    assert "URLError" in report.failed["gate:run-1"]
    slack.start()
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["gate:run-1", "gate:run-2"]
    assert deliver(state, chain, ROUTES, now=NOW).delivered == []
    assert slack.keys == ["gate:run-1", "gate:run-2"]


@pytest.mark.parametrize(("mode", "text"), [("error:502", "HTTP 502"), ("html", "Slack answered")])
def test_a_slack_that_is_ill_is_told_apart_from_one_that_is_well(
    slack: Any, chain: Chain, state: State, summary: GateSummary, mode: str, text: str
) -> None:
    put(state, summary)
    slack.mode = mode
    report = deliver(state, chain, ROUTES, now=NOW)
    assert text in report.failed["gate:run-1"]
    slack.mode = "ok"
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["gate:run-1"]
    assert len(slack.messages) == 1


def test_one_bad_answer_is_overcome_within_a_delivery(
    slack: Any, chain: Chain, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    slack.script("chat.postMessage", "error")
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["gate:run-1"]
    put(state, summary, "gate:run-2")
    slack.script("chat.postMessage", "rate-limit:0")
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["gate:run-2"]


@pytest.mark.parametrize(
    ("wait", "seconds"), [("3600", 3600), ("999999", 3600), ("tomorrow", 30), ("-1", 30)]
)
def test_a_long_rate_limit_holds_the_channel_and_is_not_waited_for(
    slack: Any, chain: Chain, state: State, summary: GateSummary, wait: str, seconds: int
) -> None:
    put(state, summary)
    put(state, summary, "gate:run-2")
    slack.mode, slack.retry_after = "rate-limit", wait
    report = deliver(state, chain, ROUTES, now=NOW)
    assert report.failed["gate:run-1"] == "AlertError: Slack answered ratelimited (HTTP 429)"
    assert slack.calls == ["chat.postMessage"], "neither this nor the next was tried again"
    slack.mode = "ok"
    before, after = (NOW + timedelta(seconds=seconds + s) for s in (-1, 1))
    assert deliver(state, chain, ROUTES, now=before).delivered == []
    assert len(deliver(state, chain, ROUTES, now=after).delivered) == 2


def test_a_slack_that_hangs_does_not_hold_up_its_caller(
    slack: Any, chain: Chain, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    slack.mode = "hang"
    report = deliver(state, chain, ROUTES, now=NOW, deadline_s=0.3)
    assert slack.hanging.wait(20)
    assert report.late
    assert report.left == 1
    slack.stop()


@pytest.mark.parametrize(
    "error", ["invalid_auth", "token_revoked", "not_in_channel", "missing_scope"]
)
def test_wrong_settings_are_said_in_slacks_words_and_close_the_way(
    slack: Any, chain: Chain, state: State, summary: GateSummary, error: str
) -> None:
    put(state, summary)
    put(state, summary, "gate:run-2")
    slack.mode = f"refuse:{error}"
    report = deliver(state, chain, ROUTES, now=NOW)
    assert error in report.failed["gate:run-1"]
    assert slack.calls == ["chat.postMessage"], "the next message would hear the same"
    assert [m.status for m in pending(state)] == ["pending", "pending"]


def test_a_wrong_token_is_not_repeated_in_the_error(
    slack: Any, state: State, summary: GateSummary
) -> None:
    put(state, summary)
    chain = Chain(state, [SlackCarrier(SecretStr("xoxb-wrong"), slack.base_url)])
    report = deliver(state, chain, ROUTES, now=NOW)
    assert "invalid_auth" in report.failed["gate:run-1"]
    assert "xoxb-wrong" not in str(pending(state))


def test_a_message_that_slack_refuses_is_at_fault_itself(
    slack: Any, chain: Chain, state: State
) -> None:
    enqueue(state, "long", None, {"text": "x" * 50_000})
    enqueue(state, "b", None, {"text": "b"})
    report = deliver(state, chain, ROUTES, now=NOW)
    assert report.delivered == ["b"]
    assert "msg_too_long" in report.failed["long"]
    assert pending(state)[0].not_before is not None


def test_blocks_that_slack_dislikes_do_not_silence_a_rollback(
    slack: Any, chain: Chain, state: State
) -> None:
    broken = {"text": "⛔ ROLLBACK", "blocks": [{"type": "hologram"}]}
    enqueue(state, "a", "run-1", broken)
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["a"]
    (message,) = slack.messages
    assert message["text"] == "⛔ ROLLBACK"
    assert "blocks" not in message


@pytest.mark.parametrize("trouble", ["missing", "foreign", "length", "refused"])
def test_a_sheet_that_cannot_be_uploaded_does_not_undo_the_message(
    slack: Any, chain: Chain, state: State, summary: GateSummary, tmp_path: Path, trouble: str
) -> None:
    sheet = tmp_path / "sheet.png"
    if trouble != "missing":
        sheet.write_bytes(b"" if trouble == "length" else PNG)
    if trouble == "foreign":
        slack.upload_base = "http://169.254.169.254"
    if trouble == "refused":
        slack.script("files.completeUploadExternal", "refuse:missing_scope")
    put(state, summary, sheet=str(sheet))
    assert deliver(state, chain, ROUTES, now=NOW).delivered == ["gate:run-1"]
    receipt = json.loads(str(messages(state)[0].receipt))
    assert "file" not in receipt
    wanted = {
        "missing": "No such file",
        "foreign": "169.254.169.254",
        "length": "invalid_arg",
        "refused": "missing_scope",
    }
    assert wanted[trouble] in receipt["file_error"]
    assert slack.shared == []


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
    asked: list[tuple[str, object]] = []

    def send(client: httpx.Client, url: str, **_more: object) -> httpx.Response:
        asked.append((url, client.follow_redirects))
        return httpx.Response(200)

    carrier = SlackCarrier(SecretStr(TOKEN), "https://slack.com/api/")
    client = carrier._client
    monkeypatch.setattr(httpx.Client, "post", send)

    class Answer(dict[str, Any]):
        data: dict[str, Any] = {"channel": "C1", "ts": "1"}  # noqa: RUF012

    monkeypatch.setattr(client, "chat_postMessage", lambda **_more: Answer())
    monkeypatch.setattr(
        client,
        "files_getUploadURLExternal",
        lambda **_more: {"upload_url": address, "file_id": "F1"},
    )
    done = Answer(files=[{"id": "F1"}])
    monkeypatch.setattr(client, "files_completeUploadExternal", lambda **_more: done)
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(PNG)
    receipt = carrier.send(parcel({"text": "x", "blocks": [], "contact_sheet": str(sheet)}))
    assert asked == ([(address, False)] if good else [])
    assert ("file" in receipt.details) is good, receipt


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
        SlackCarrier(SecretStr(TOKEN), address)
    assert TOKEN not in str(caught.value)


def test_the_settings_give_the_way_and_its_channel(
    slack: Any, in_slack: Callable[..., Settings], make_settings: Callable[..., Settings]
) -> None:
    assert slack_carrier(make_settings()) is None
    carrier = slack_carrier(in_slack())
    assert carrier is not None
    assert carrier.check() == "imagegate of Acme"
    nowhere = parcel({"text": "x"})
    with pytest.raises(AlertError, match="IMAGEGATE_SLACK_CHANNEL"):
        carrier.send(Parcel(nowhere.message, "info", channel=""))


def test_a_product_has_its_own_channel(
    slack: Any, in_slack: Callable[..., Settings], state: State
) -> None:
    settings = in_slack("products: {shop: {channel: '#releases'}}\n")
    enqueue(state, "a", None, {"text": "a"}, product="shop", thread="t")
    enqueue(state, "b", None, {"text": "b"}, product="other")
    deliver_all(state, settings)
    assert [m["channel"] for m in slack.messages] == ["#releases", CHANNEL]
    # An update needs the id, which the first answer gave.
    enqueue(state, "u", None, {"text": "u"}, product="shop", thread="t", kind="update")
    deliver_all(state, settings)
    assert [u["channel"] for u in slack.updates] == [CHANNEL]


def test_a_mistake_in_the_routing_file_silences_nothing(
    slack: Any, in_slack: Callable[..., Settings], state: State
) -> None:
    enqueue(state, "a", None, {"text": "a"}, severity="page")
    report = deliver_all(state, in_slack("default: {chanel: x}\n"))
    assert report.delivered == ["a"]
    assert "'default.chanel': unknown field" in report.failed["alerts.yaml"]


def test_a_gate_waits_for_its_own_thread_and_says_where_it_is(
    slack: Any, in_slack: Callable[..., Settings], state: State, summary: GateSummary
) -> None:
    enqueue(state, "old", None, {"text": "old"})
    enqueue(state, "root", None, {"text": "CHECKING"}, thread="t")
    put(state, summary, "end", kind="reply", thread="t", severity="page")
    enqueue(state, "final", None, {"text": "x"}, thread="t", kind="update")
    said, delivered = deliver_pending(state, in_slack(), "end")
    assert (said, delivered) == (f"Slack was told in {CHANNEL}.", True)
    assert slack.keys == ["root", "end"]
    assert [m.dedup_key for m in pending(state)] == ["old"]
    slack.mode = "refuse:invalid_auth"
    put(state, summary, "next", severity="page")
    said, delivered = deliver_pending(state, in_slack(), "next")
    assert not delivered
    assert "invalid_auth" in said
    assert "imagegate alerts deliver" in said


def test_no_log_line_holds_the_token(
    slack: Any,
    chain: Chain,
    state: State,
    summary: GateSummary,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    put(state, summary)
    slack.script("chat.postMessage", *["error"] * 3)
    deliver(state, chain, ROUTES, now=NOW)
    deliver(state, chain, ROUTES, now=NOW)
    assert len(slack.messages) == 1
    assert TOKEN not in caplog.text
    assert TOKEN not in (tmp_path / "slack.jsonl").read_text(encoding="utf-8")
    assert TOKEN not in repr(vars(chain.carriers[0])["_token"])


VICTIM = """
import os, signal, sys
from tasks.alerts.chain import chain_of
from tasks.alerts.delivery import deliver, routes_of
from tasks.settings import load_settings
from tasks.state import State
from tasks.tables import alert_channels

settings, left = load_settings(), int(sys.argv[1])
state = State(settings.state_url.get_secret_value())
chain = chain_of(state, settings)
send = chain.carriers[0].send

def dies(parcel):
    global left
    receipt = send(parcel)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt

chain.carriers[0].send = dies
deliver(state, chain, routes_of(settings)[0], deadline_s=60)
"""


def kill_while_sending(settings_of: dict[str, str], number: int) -> None:
    """Deliver in a process that is killed after message ``number`` went, before it is booked."""
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, str(number)],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=settings_of,
        timeout=120,
    )
    assert done.returncode == -9, done.stderr


@pytest.fixture
def environment(slack: Any, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "alerts.yaml").write_text("schema_version: 1\n", encoding="utf-8")
    return {
        "PATH": "/usr/bin:/bin",
        "IMAGEGATE_HOME": str(tmp_path),
        "IMAGEGATE_ALERTS_FILE": str(tmp_path / "alerts.yaml"),
        "SLACK_BOT_TOKEN": TOKEN,
        "IMAGEGATE_SLACK_CHANNEL": CHANNEL,
        "IMAGEGATE_SLACK_URL": slack.base_url,
    }


def test_kill_between_sending_and_booking_sends_again_with_the_same_key(
    slack: Any,
    chain: Chain,
    state: State,
    summary: GateSummary,
    environment: dict[str, str],
) -> None:
    put(state, summary)
    kill_while_sending(environment, 1)
    assert [m.status for m in messages(state)] == ["sending"]
    assert deliver(state, chain, ROUTES).left == 1, "the claim is young: it may still be alive"
    later = datetime.now(UTC) + timedelta(minutes=5)
    assert deliver(state, chain, ROUTES, now=later).delivered == ["gate:run-1"]
    assert slack.keys == ["gate:run-1", "gate:run-1"]


def test_a_thousand_alerts_while_slack_is_down_and_a_kill_lose_nothing(
    slack: Any, in_slack: Callable[..., Settings], state: State, environment: dict[str, str]
) -> None:
    """250 runs tell three things each, and one cause is raised 250 times."""
    from tasks.alerts.incidents import raise_alarm

    slack.stop()
    told = []
    with state.begin() as connection:
        for number in range(250):
            thread = f"run:{number}"
            severity = "page" if number % 10 == 0 else "info"
            for kind, what in (("open", "start"), ("reply", "end"), ("update", "final")):
                key = f"{number}:{what}"
                enqueue(
                    connection,
                    key,
                    None,
                    {"text": key},
                    kind=kind,  # type: ignore[arg-type]
                    thread=thread,
                    severity=severity if what == "end" else "info",  # type: ignore[arg-type]
                )
                told.append(key)
            raise_alarm(connection, "worker:1", title="WORKER is dead", severity="warning")
    settings = in_slack()
    down = deliver_all(state, settings)
    assert down.delivered == []
    # 250 repetitions are one message and its count; the three that were tried say by now what
    # their updates said.
    assert down.left == 250 * 3 + 2 - 3
    assert max(m.attempts for m in pending(state)) == 1, "a Slack that is down is not hammered"
    slack.start()
    # Slack is back and asks for patience now and then.
    slack.rule = lambda _method, number: "rate-limit:0" if number % 150 == 149 else None
    with state.begin() as connection:  # the pause after the outage is over
        connection.execute(sa.update(alert_channels).values(not_before=None))
    kill_while_sending(environment, 100)
    assert len(slack.messages) == 100
    clock = datetime.now(UTC) + timedelta(minutes=2)  # by then the claim of the dead is old
    while (report := deliver_all(state, settings, now=clock)).left:
        assert report.delivered, report
    by_status = {m.status for m in messages(state)}
    assert by_status == {"delivered", "superseded"}
    expected = {key for key in told if not key.endswith("final")}
    seen = [key for key in slack.keys if not key.startswith("incident")]
    assert set(seen) == expected, "nothing is lost"
    assert len(seen) == len(expected) + 1, "only the one of the kill came twice"
    pages = [f"{n}:end" for n in range(0, 250, 10)]
    assert set(pages) <= set(seen[:60]), "pages go first"
    for number in range(250):
        assert seen.index(f"{number}:start") < seen.index(f"{number}:end")
    roots = [b["text"] for b in slack.shown.values() if "thread_ts" not in b]
    assert {t for t in roots if "WORKER" not in t} == {f"{n}:final" for n in range(250)}
    (alarm,) = [t for t in roots if "WORKER" in t]
    assert "Came 250 times" in alarm
