"""The thread of a gate run, from its quiet start to its end, in the fake Slack."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.alerts.blocks import GateSummary
from tasks.alerts.delivery import deliver_all
from tasks.alerts.incidents import acknowledge, read_incident
from tasks.alerts.links import prefect_run, rollback_command
from tasks.alerts.outbox import messages, pending
from tasks.alerts.run_approval import run_answered, run_waits
from tasks.alerts.run_thread import (
    run_ended,
    run_failed,
    run_progress,
    run_started,
)
from tasks.runs import begin_run
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import transitions

NOW = datetime(2026, 9, 14, 2, tzinfo=UTC)
ON_CALL = "default: {on_call: S0123456789}\n"
ROOT = "1700000000.000001"


@pytest.fixture
def settings(in_slack: Callable[..., Settings]) -> Settings:
    return in_slack(ON_CALL)


def start(state: State, settings: Settings) -> bool:
    return run_started(
        state,
        settings,
        run_id="run-1",
        product="shop",
        candidate="summer",
        baseline="winter",
        requester="mia@desk",
        cases=240,
        budget_usd=25.0,
        now=NOW,
    )


def mentioned(slack: Any) -> list[str]:
    return [m["text"].split(":")[0] for m in slack.messages if "!subteam" in json.dumps(m)]


def wait(state: State) -> bool:
    return run_waits(
        state,
        "run-1",
        product="shop",
        because="The policy asks a person before each promotion.",
        until="2026-09-14T06:00:00.000Z",
        links=(("Decide", "https://prefect.example/runs/flow-run/1"),),
    )


def broadcast(slack: Any) -> list[str]:
    return [m["text"].split(":")[0] for m in slack.messages if m.get("reply_broadcast")]


def buttons(slack: Any, ts: str) -> list[str]:
    block = slack.shown[ts]["blocks"][-1]
    return [b["action_id"] for b in block["elements"]] if block["type"] == "actions" else []


def test_a_run_is_one_thread_whose_first_message_shows_its_state(
    slack: Any, state: State, settings: Settings, summary: GateSummary
) -> None:
    assert start(state, settings)
    deliver_all(state, settings)
    (root,) = slack.thread(ROOT)
    assert root.startswith("🔎 CHECKING: summer for shop. Users: nothing changes for them")
    shown = json.dumps(slack.shown[ROOT], ensure_ascii=False)
    for part in ("2026-09-14 02:00 UTC, asked by", "240 cases, at most $25.00", "Run run-1"):
        assert part in shown
    run_progress(state, "run-1", product="shop", step="harness", title="MADE 480 pictures")
    wait(state)
    deliver_all(state, settings)
    assert slack.thread(ROOT)[0].startswith(
        "🙋 WAITING FOR APPROVAL: shop production is unaffected"
    )
    run_ended(state, settings, summary)
    deliver_all(state, settings)
    texts = slack.thread(ROOT)
    assert [text.split(":")[0] for text in texts] == [
        "⛔ ROLLBACK",
        "ℹ️ MADE 480 pictures",
        "🙋 WAITING FOR APPROVAL",
        "⛔ ROLLBACK",
    ]
    assert mentioned(slack) == ["⛔ ROLLBACK"]
    assert broadcast(slack) == ["🙋 WAITING FOR APPROVAL", "⛔ ROLLBACK"]
    assert "WAITING" not in json.dumps(slack.shown[ROOT])
    waiting = json.dumps(slack.messages[2], ensure_ascii=False)
    assert "`imagegate approve run-1 --why" in waiting
    assert "<https://prefect.example/runs/flow-run/1|Decide>" in waiting
    assert pending(state) == ()


@pytest.mark.parametrize("on_call", [ON_CALL, "schema_version: 1\n"])
def test_the_channel_sees_pages_and_questions_and_nothing_else_of_a_thread(
    slack: Any,
    state: State,
    in_slack: Callable[..., Settings],
    summary: GateSummary,
    on_call: str,
) -> None:
    settings = in_slack(on_call)
    start(state, settings)
    run_progress(state, "run-1", product="shop", step="harness", title="MADE 480 pictures")
    wait(state)
    run_answered(
        state, "run-1", product="shop", step="approval-approved", title="APPROVED", lines=("x",)
    )
    for verdict in ("HOLD", "PROMOTE", "ROLLBACK"):
        run_ended(state, settings, replace(summary, verdict=verdict))  # type: ignore[arg-type]
    run_failed(state, settings, run_id="run-1", product="shop", what="disk full")
    acknowledge(state, "run:run-1", "mia", now=NOW)
    deliver_all(state, settings)
    assert len(slack.messages) == 9
    # With or without somebody on call.
    assert broadcast(slack) == ["🙋 WAITING FOR APPROVAL", "⛔ ROLLBACK", "🚨 GATE FAILED"]


def test_a_run_that_waits_says_so_on_top_until_somebody_decides(
    slack: Any, state: State, in_slack: Callable[..., Settings], summary: GateSummary
) -> None:
    settings = in_slack(ON_CALL, SLACK_APP_TOKEN="xapp-1")
    start(state, settings)
    assert wait(state)
    assert not wait(state)
    # Started by the command it ends as HOLD; its first message goes on to say that it waits.
    waiting = replace(summary, verdict="HOLD", waiting=True)
    held = run_ended(state, settings, waiting)
    deliver_all(state, settings)
    root = json.dumps(slack.shown[ROOT]["blocks"], ensure_ascii=False)
    for part in (
        "WAITING FOR APPROVAL: summer for shop",
        "*Until:* 2026-09-14 06:00 UTC; without an answer it is not promoted.",
        "`imagegate approve run-1 --why",
        "`imagegate reject run-1 --why",
        "|Decide>",
    ):
        assert part in root
    assert buttons(slack, ROOT) == ["imagegate_approve", "imagegate_reject"]
    assert [buttons(slack, ts) for ts in slack.shown if ts != ROOT] == [[], []]
    assert mentioned(slack) == []
    run_answered(
        state,
        "run-1",
        product="shop",
        step="approval-rejected",
        title="REJECTED",
        lines=("Users: nothing changes for them.",),
    )
    deliver_all(state, settings)
    assert slack.thread(ROOT)[0].startswith("ℹ️ REJECTED: summer for shop")
    assert buttons(slack, ROOT) == []
    # The same verdict after the answer is news.
    assert run_ended(state, settings, replace(waiting, waiting=False)) != held
    deliver_all(state, settings)
    assert slack.thread(ROOT)[0].startswith("⏸️ HOLD: shop production is unaffected")
    assert slack.thread(ROOT)[-1].startswith("⏸️ HOLD")


def test_an_answer_that_comes_late_does_not_hide_the_end(
    slack: Any, state: State, settings: Settings, summary: GateSummary
) -> None:
    wait(state)
    run_ended(state, settings, summary)
    run_answered(state, "run-1", product="shop", step="approval-expired", title="VOID", lines=())
    deliver_all(state, settings)
    texts = slack.thread(ROOT)
    assert texts[0].startswith("⛔ ROLLBACK")
    assert texts[-1].startswith("ℹ️ VOID: summer for shop")


def test_who_gets_only_warnings_has_the_buttons_of_a_question_too(
    slack: Any, state: State, in_slack: Callable[..., Settings]
) -> None:
    settings = in_slack("default: {least_severity: warning}\n", SLACK_APP_TOKEN="xapp-1")
    start(state, settings)
    wait(state)
    deliver_all(state, settings)
    assert slack.thread(ROOT)[0].startswith("🙋 WAITING")
    assert buttons(slack, ROOT) == ["imagegate_approve", "imagegate_reject"]
    assert broadcast(slack) == ["🙋 WAITING FOR APPROVAL"]


def test_where_no_report_is_served_the_command_stands_for_it(
    state: State, make_settings: Callable[..., Settings], summary: GateSummary
) -> None:
    settings = make_settings(IMAGEGATE_REPORT_URL="")
    run_ended(state, settings, replace(summary, report="/srv/runs/run-1/report.html"))
    for message in messages(state):
        shown = json.dumps(message.payload, ensure_ascii=False)
        assert "imagegate report run-1" in shown
        assert "/srv/runs" not in shown


def test_a_resumed_run_tells_nothing_twice_but_another_verdict_anew(
    slack: Any, state: State, settings: Settings, summary: GateSummary
) -> None:
    hold = replace(summary, verdict="HOLD")
    for verdict in (hold, hold, summary):
        start(state, settings)
        run_progress(state, "run-1", product="shop", step="harness", title="MADE 480 pictures")
        run_ended(state, settings, verdict)
        deliver_all(state, settings)
    assert [text.split(":")[0] for text in slack.thread(ROOT)] == [
        "⛔ ROLLBACK",
        "ℹ️ MADE 480 pictures",
        "⏸️ HOLD",
        "⛔ ROLLBACK",
    ]


def test_the_end_opens_a_thread_that_nobody_opened(
    slack: Any, state: State, settings: Settings, summary: GateSummary
) -> None:
    key = run_ended(state, settings, replace(summary, report="/srv/runs/run-1/report.html"))
    assert key in deliver_all(state, settings).delivered
    assert len(slack.thread(ROOT)) == 2
    footer = json.dumps(slack.messages[1]["blocks"][-1])
    assert "<https://reports.example/runs/run-1/report.html|Report>" in footer


def test_a_gate_that_breaks_pages_once_a_failure_and_shows_it_on_top(
    slack: Any, state: State, settings: Settings
) -> None:
    start(state, settings)

    def fail(event: str) -> bool:
        return run_failed(
            state,
            settings,
            run_id="run-1",
            product="shop",
            candidate="summer",
            what="worker 7 is dead <!channel>",
            event=event,
            now=NOW,
        )

    assert fail("dead:1")
    assert not fail("dead:1")
    deliver_all(state, settings)
    assert mentioned(slack) == ["🚨 GATE FAILED"]
    page = slack.messages[1]
    texts = json.dumps(page, ensure_ascii=False)
    for part in (
        "production is unaffected",
        "worker 7 is dead &lt;!channel&gt;",
        "`imagegate status --product shop`",
        "`imagegate run --resume run-1`",
    ):
        assert part in texts
    assert slack.thread(ROOT)[0].startswith("🚨 GATE FAILED: shop production is unaffected")
    assert fail("dead:2")


def test_a_failure_after_a_promotion_says_who_suffers_and_how_to_end_it(
    slack: Any, state: State, in_slack: Callable[..., Settings]
) -> None:
    settings = in_slack(ON_CALL, SLACK_APP_TOKEN="xapp-1")
    begin_run(state, "run-1", "shop", "sha256:2", "sha256:7cc1a0b2c3d4e5f6")
    with state.begin() as connection:
        connection.execute(
            sa.insert(transitions).values(
                product="shop",
                epoch=2,
                kind="promote",
                from_digest="sha256:1",
                to_digest="sha256:2",
                actor="gate",
                reason="x",
                run_id="run-1",
                at="2026-09-14T02:00:00.000Z",
            )
        )
    run_failed(state, settings, run_id="run-1", product="shop", what="disk full")
    deliver_all(state, settings)
    page = slack.messages[1]
    assert page["text"].startswith("🚨 GATE FAILED: shop users may get broken images; disk full")
    *_, asked, small, actions = page["blocks"]
    assert asked["text"]["text"].startswith(
        "*Asked of you*\n• if users get broken images, roll production back: "
        "`imagegate rollback --product shop --to 7cc1a0b2c3d4`"
    )
    assert "If you must" not in json.dumps(small)
    undo = actions["elements"][1]
    assert json.loads(undo["value"])["to"] == "sha256:7cc1a0b2c3d4e5f6"
    assert undo["confirm"]["text"]["text"] == "All users of shop get 7cc1a0b2c3d4 again, at once."


def test_a_page_of_a_run_can_be_acknowledged_in_its_thread(
    slack: Any, state: State, settings: Settings, summary: GateSummary
) -> None:
    start(state, settings)
    run_ended(state, settings, summary)
    deliver_all(state, settings)
    assert acknowledge(state, "run:run-1", "mia", now=NOW)
    deliver_all(state, settings)
    texts = slack.thread(ROOT)
    assert texts[0].startswith("⛔ ROLLBACK: summer for shop. Acknowledged by mia 2026-09-14 02:00")
    assert broadcast(slack) == ["⛔ ROLLBACK"]
    assert texts[-1].startswith("👀 Acknowledged by mia")
    assert mentioned(slack) == ["⛔ ROLLBACK"], "the acknowledgement wakes nobody"
    # A good end of the resumed run closes what was open.
    run_ended(state, settings, replace(summary, verdict="PROMOTE"))
    found = read_incident(state, "run:run-1")
    assert found is not None
    assert found.status == "resolved"


def test_a_hostile_run_pings_nobody(
    slack: Any, state: State, settings: Settings, summary: GateSummary, fake: Any
) -> None:
    evil = "<!channel> <@U0000000000> `x` *y* <https://evil.example|here> @here"
    run_started(
        state,
        settings,
        run_id="run-1",
        product=evil,
        candidate=evil,
        baseline=evil,
        requester=evil,
    )
    run_progress(state, "run-1", product=evil, step="x", title=evil, lines=(evil,), asked=(evil,))
    run_ended(
        state,
        settings,
        replace(summary, product=evil, candidate_name=evil, reasons=(evil,), report=""),
    )
    run_failed(state, settings, run_id="run-1", product=evil, what=evil, candidate=evil)
    assert deliver_all(state, settings).failed == {}
    marks = {mark for body in slack.shown.values() for mark in fake.markup_of(body)}
    assert {m for m in marks if "|" not in m} == {"!subteam^S0123456789"}
    assert all(m.startswith("https://reports.example/") for m in marks if "|" in m)


@pytest.mark.parametrize(
    ("flow_run", "api", "page"),
    [
        (None, "http://prefect:4200/api", None),
        ("1-2", None, None),
        ("1-2", "http://prefect:4200/api", "http://prefect:4200/runs/flow-run/1-2"),
        ("1-2", "https://ops:pw@prefect/api", "https://prefect/runs/flow-run/1-2"),
        (
            "1-2",
            "https://api.prefect.cloud/api/accounts/A/workspaces/W",
            "https://app.prefect.cloud/account/A/workspace/W/runs/flow-run/1-2",
        ),
    ],
)
def test_the_page_of_a_run_is_where_its_server_shows_it(
    flow_run: str | None, api: str | None, page: str | None
) -> None:
    assert prefect_run(flow_run, api) == page


def test_the_command_to_roll_back_is_one_line_of_a_shell() -> None:
    assert rollback_command("shop", "sha256:7cc1a0b2c3d4e5f6") == (
        "imagegate rollback --product shop --to 7cc1a0b2c3d4"
    )
    assert rollback_command("my shop; rm -rf /\n", "") == (
        "imagegate rollback --product 'my shop; rm -rf /'"
    )


def test_a_failure_of_a_booked_run_carries_the_command_to_roll_back(
    state: State, settings: Settings
) -> None:
    begin_run(state, "run-1", "shop", "sha256:2222", "sha256:7cc1a0b2c3d4e5f6")
    run_failed(state, settings, run_id="run-1", product="shop", what="disk full")
    links = json.dumps(messages(state)[1].payload["blocks"][-1])
    must = "If you must: roll back production"
    assert f"{must} `imagegate rollback --product shop --to 7cc1a0b2c3d4`" in links
