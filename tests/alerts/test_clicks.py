"""What a press means, who may do what, and that it is done once; apart from the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flows.slack_deeds import CommandDeeds
from tasks.alerts.config import AlertsConfig, load_alerts
from tasks.alerts.incidents import raise_alarm, read_incident, resolve_alarm
from tasks.alerts.interactive.decide import (
    Click,
    Ignored,
    Refused,
    Workspace,
    authorize,
    read_click,
    read_value,
)
from tasks.alerts.outbox import messages
from tasks.approval import store as approval_store
from tasks.errors import RolloutError
from tasks.mix.production import keep_mix
from tasks.policy import ApprovalRule
from tasks.records import Verdict
from tasks.rollout.shares import set_share
from tasks.runs import begin_run, end_run
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import alert_threads
from tests.alerts.clicks import (
    AUTUMN,
    EVE,
    LEO,
    MIA,
    NOW_TS,
    OURS,
    ROUTING,
    RUN,
    SUMMER,
    UNDO,
    WINTER,
    Shop,
    value,
)
from tests.fakes.socket_mode_server import (
    CHANNEL,
    TEAM,
    block_actions,
)


@pytest.fixture
def shop(state: State, make_settings: Callable[..., Settings]) -> Shop:
    return Shop(state, make_settings(ROUTING))


# ------------------------------------------------------------------ reading a payload


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": "view_submission"}, "not a press"),
        ({"team": {"id": "T9999999"}}, "another workspace"),
        ({"team": None}, "another workspace"),
        ({"team": {}, "enterprise": {"id": "E1"}}, "another workspace"),
        ({"actions": []}, "not exactly one"),
        ({"actions": [{}, {}]}, "not exactly one"),
        ({"actions": ["x"]}, "not exactly one"),
        ({"actions": {"type": "button"}}, "not exactly one"),
        ({"user": {"id": "U1' OR 1=1"}}, "user is not an id"),
        ({"user": None}, "user is not an id"),
        ({"container": {"channel_id": "#ops", "message_ts": "1.0"}}, "channel is not an id"),
        ({"container": {"channel_id": CHANNEL, "message_ts": "now"}}, "message is not an id"),
        ({"container": {"channel_id": CHANNEL, "message_ts": "1.0\n"}}, "message is not an id"),
    ],
)
def test_a_payload_that_is_not_ours_is_ignored(change: dict[str, Any], why: str) -> None:
    payload = block_actions("imagegate_roll_back", UNDO) | change
    found = read_click(payload, OURS)
    assert isinstance(found, Ignored)
    assert why in found.why


@pytest.mark.parametrize(
    "change",
    [
        {"action_id": "imagegate_delete_everything"},
        {"action_id": ["imagegate_roll_back"]},
        {"type": "static_select"},
        {"action_ts": "yesterday"},
        {"value": None},
        {"value": {"run_id": RUN}},
        {"value": "x" * 2001},
        {"value": "[" * 1999},
        {"value": "not json"},
        {"value": "[]"},
        {"value": '{"run_id": 7}'},
        {"value": '{"run_id": ""}'},
        {"value": '{"run_id": "a\\u0000b"}'},
        {"value": json.dumps({"run_id": "x" * 201})},
        {"value": '{"run_id": "r", "actor": "root"}'},
    ],
)
def test_an_action_that_we_did_not_write_is_ignored(change: dict[str, Any]) -> None:
    payload = block_actions("imagegate_roll_back", UNDO)
    payload["actions"][0] |= change
    assert isinstance(read_click(payload, OURS), Ignored)


def test_a_press_is_read_as_what_slack_and_we_wrote() -> None:
    payload = block_actions("imagegate_reject", UNDO, thread_ts="1699999999.000001")
    click = read_click(payload, OURS)
    assert isinstance(click, Click)
    assert (click.action, click.about.run_id, click.about.to) == ("approve", RUN, WINTER.digest)
    assert click.thread_ts == "1699999999.000001"
    assert isinstance(
        read_value(value("acknowledge", key="budget:shop:month:hard")), type(click.about)
    )
    in_grid = payload | {"team": None, "enterprise": {"id": "E1"}}
    assert isinstance(read_click(in_grid, Workspace(TEAM, "E1")), Click)


def test_authority_is_by_product_and_says_who_may(shop: Shop) -> None:
    config = load_alerts(shop.settings.alerts_file)
    click = read_click(block_actions("imagegate_roll_back", UNDO, user=LEO), OURS)
    assert isinstance(click, Click)
    refused = authorize(click, config, "shop")
    assert isinstance(refused, Refused)
    assert f"These may of shop: <@{MIA}>." in refused.sentence
    nobody = authorize(click, config, "other")
    assert isinstance(nobody, Refused)
    assert "Nobody may of other from Slack" in nobody.sentence
    assert isinstance(authorize(click, AlertsConfig(), None), Refused)


# ------------------------------------------------------------------ roll back


def test_roll_back_undoes_the_run_of_the_message_and_is_told_in_the_thread(shop: Shop) -> None:
    shop.press("roll_back", UNDO)
    assert shop.serves == "winter"
    (reply,) = shop.ear.replies
    assert "Rolled back by mia" in reply
    assert "shop serves winter verified at the router" in reply
    query = "select actor, reason from transitions where kind = 'rollback'"
    with shop.state.begin() as connection:
        assert [tuple(row) for row in connection.execute(sa.text(query))] == [
            (
                f"mia@example.org (Slack {MIA})",
                f"button pressed in Slack at the message about run {RUN}",
            )
        ]
    assert shop.clicks() == [("roll_back", MIA, "done")]
    # The channel is told by the same message as after `imagegate rollback`.
    assert "shop serves winter" in str(messages(shop.state)[-1].payload["text"])


def test_the_same_delivery_twice_acts_once(shop: Shop) -> None:
    shop.press("roll_back", UNDO)
    shop.press("roll_back", UNDO)
    assert len(shop.ear.replies) == 1
    assert "second delivery" in shop.log[-1]


def test_a_second_press_verifies_but_goes_no_further_back(shop: Shop) -> None:
    shop.promote(AUTUMN)
    run_2 = value("roll_back", run_id="run-2", product="shop", to=SUMMER.digest)
    begin_run(shop.state, "run-2", "shop", AUTUMN.digest, SUMMER.digest)
    for moment in ("1700000100.1", "1700000100.2"):
        shop.press("roll_back", run_2, action_ts=moment)
    assert shop.serves == "summer"
    assert "already, nothing had to change" in shop.ear.replies[1]


def test_a_press_after_production_went_on_changes_nothing(shop: Shop) -> None:
    shop.promote(AUTUMN)
    before = shop.changes
    shop.press("roll_back", UNDO)
    assert (shop.serves, shop.changes) == ("autumn", before)
    (reply,) = shop.ear.replies
    assert "NOT rolled back" in reply
    assert "somebody moved production meanwhile" in reply
    assert shop.clicks() == [("roll_back", MIA, "failed")]


def test_a_button_of_an_alarm_during_a_canary_ends_the_canary_and_no_more(shop: Shop) -> None:
    set_share(shop.state, shop.router, "shop", AUTUMN, 0.25, actor="ann", reason="canary")
    raise_alarm(shop.state, "watch:shop", title="Failures rise", severity="page", product="shop")
    about = value("roll_back", product="shop", key="watch:shop")
    shop.press("roll_back", about, message_ts=NOW_TS)
    shown = shop.router.read("shop")
    assert shown is not None
    assert shown.weights == {SUMMER.digest: 1.0}


def test_a_button_of_an_alarm_rolls_back_once_and_not_from_what_came_later(shop: Shop) -> None:
    shop.promote(AUTUMN)
    raise_alarm(shop.state, "watch:shop", title="Failures rise", severity="page", product="shop")
    about = value("roll_back", product="shop", key="watch:shop")
    shop.press("roll_back", about, message_ts="1700000000.000100")
    assert "changed after this message was sent" in shop.ear.whispers[0][1]
    assert shop.serves == "autumn"
    shop.press("roll_back", about, message_ts=NOW_TS, action_ts="1.1")
    assert shop.serves == "summer"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"run_id": "run-9", "product": "shop"}, "I know no run run-9"),
        ({"run_id": RUN, "product": "other"}, "does not fit its message"),
        ({"product": "shop", "key": "no:such"}, "I know no alarm"),
        ({"product": "nonesuch"}, "does not say which product"),
        ({"key": "general"}, "does not say which product"),
        ({"run_id": RUN, "to": "sha256:" + "0" * 64}, "never served the mix"),
        # Judged and kept, but it never served: a rollback is not a promotion.
        ({"run_id": RUN, "to": AUTUMN.digest}, "never served the mix"),
    ],
)
def test_a_forged_value_changes_nothing(shop: Shop, fields: dict[str, str], says: str) -> None:
    raise_alarm(shop.state, "general", title="Something", severity="warning")
    keep_mix(shop.state, AUTUMN)
    before = shop.changes
    shop.press("roll_back", value("roll_back", **fields), message_ts=NOW_TS)
    assert (shop.serves, shop.changes) == ("summer", before)
    ((user, sentence),) = shop.ear.whispers
    # A product that nobody knows has the default's authority, and still no production.
    assert user == MIA
    assert says in sentence
    assert shop.ear.replies == []


def test_a_value_that_belongs_to_another_thread_is_refused(shop: Shop) -> None:
    with shop.state.begin() as connection:
        connection.execute(
            sa.insert(alert_threads).values(
                thread="run:run-8", channel=CHANNEL, ts="1700000000.000100", opened_at="x"
            )
        )
    shop.press("roll_back", UNDO)
    assert shop.serves == "summer"
    assert "does not fit its message" in shop.ear.whispers[0][1]


@pytest.mark.parametrize("user", [LEO, EVE])
def test_without_authority_nothing_is_done_and_only_the_presser_hears(
    shop: Shop, user: str
) -> None:
    shop.press("roll_back", UNDO, user=user)
    assert shop.serves == "summer"
    ((heard, sentence),) = shop.ear.whispers
    assert heard == user
    assert "You may not roll production back" in sentence
    assert MIA in sentence
    assert shop.clicks() == [("roll_back", user, "refused")]


def test_authority_counts_as_the_file_stands_now(shop: Shop) -> None:
    shop.settings.alerts_file.write_text("schema_version: 1\n")
    shop.press("roll_back", UNDO)
    shop.settings.alerts_file.write_text("nonsense: [")
    shop.press("roll_back", UNDO, action_ts="2.2")
    assert shop.serves == "summer"
    assert "Nobody may" in shop.ear.whispers[0][1]
    assert "alerts.yaml" in shop.ear.whispers[1][1]


def test_what_breaks_is_told_and_the_next_press_is_heard(shop: Shop) -> None:
    class Broken(CommandDeeds):
        def roll_back(self, *_: Any) -> str:
            raise (RolloutError if not shop.ear.replies else ZeroDivisionError)(
                "xoxb-1-secret <!here>"
            )

    handler = shop.handler_with(shop.ear, Broken(shop.state, shop.settings, shop.log.append))
    for moment in ("1.1", "1.2"):
        handler.handle(block_actions("imagegate_roll_back", UNDO, action_ts=moment))
    assert [r.startswith("⚠️ NOT rolled back") for r in shop.ear.replies] == [True, True]
    assert "imagegate broke: ZeroDivisionError" in shop.ear.replies[1]
    assert "<!here>" not in "".join(shop.ear.replies)
    assert "xoxb" not in "".join([*shop.ear.replies, *shop.log])


# ------------------------------------------------------------------ acknowledge


def test_acknowledge_is_kept_and_told_by_the_alarm_itself(shop: Shop) -> None:
    raise_alarm(shop.state, "watch:shop", title="Failures", severity="page", product="shop")
    about = value("acknowledge", product="shop", key="watch:shop")
    shop.press("acknowledge", about, user=LEO)
    found = read_incident(shop.state, "watch:shop")
    assert found is not None
    assert found.acknowledged_by == f"leo@example.org (Slack {LEO})"
    assert shop.ear.replies == []
    assert "Acknowledged by leo" in str(messages(shop.state)[-2].payload["text"])
    shop.press("acknowledge", about, action_ts="2.2")
    assert "leo" in shop.ear.whispers[0][1]
    resolve_alarm(shop.state, "watch:shop", how="It is over.")
    shop.press("acknowledge", about, action_ts="3.3")
    assert "This alarm is over" in shop.ear.whispers[1][1]


# ------------------------------------------------------------------ approve


def ask(shop: Shop, requester: str, **rules: Any) -> str:
    """Let run-2 ask a person."""
    begin_run(shop.state, "run-2", "shop", AUTUMN.digest, SUMMER.digest, requester=requester)
    approval_store.request(
        shop.state,
        "run-2",
        "shop",
        requester,
        "The policy asks.",
        datetime.now(UTC) + timedelta(hours=1),
        rules=ApprovalRule(require=("always",), **rules),
        verdict=Verdict(verdict="PROMOTE", reasons=("good",)),
    )
    end_run(shop.state, "run-2", "waiting")
    return value("approve", run_id="run-2", product="shop")


@pytest.mark.parametrize(("action", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_a_decision_is_the_same_as_on_the_command_line(
    shop: Shop, action: str, status: str
) -> None:
    shop.press(action, ask(shop, "ann@host"))
    found = approval_store.read(shop.state, "run-2")
    assert found is not None
    assert (found.status, found.decided_by, found.decided_via) == (
        status,
        "mia@example.org",
        "slack",
    )
    assert MIA in str(found.reason)
    (reply,) = shop.ear.replies
    assert reply.startswith(f"{status.capitalize()} by mia")
    # The other button, pressed by somebody later, undoes nothing.
    shop.press("reject" if action == "approve" else "approve", found_value(), action_ts="2.2")
    assert "was decided already" in shop.ear.whispers[0][1]
    again = approval_store.read(shop.state, "run-2")
    assert again is not None
    assert again.status == status


def found_value() -> str:
    return value("approve", run_id="run-2", product="shop")


@pytest.mark.parametrize(
    ("requester", "rules", "says"),
    [
        ("mia@laptop", {}, "may not approve it"),
        ("MIA", {}, "may not approve it"),
        ("ann@host", {"approvers": ("zoe",)}, "may be approved by zoe"),
    ],
)
def test_the_rules_of_the_policy_hold_in_slack_too(
    shop: Shop, requester: str, rules: dict[str, Any], says: str
) -> None:
    shop.press("approve", ask(shop, requester, **rules))
    found = approval_store.read(shop.state, "run-2")
    assert found is not None
    assert found.status == "pending"
    assert says in shop.ear.whispers[0][1]


def test_a_run_that_asks_nobody_cannot_be_approved(shop: Shop) -> None:
    shop.press("approve", value("approve", run_id=RUN, product="shop"))
    shop.press("approve", value("approve", product="shop"), action_ts="2.2")
    assert "asks nobody" in shop.ear.whispers[0][1]
    assert "names no run" in shop.ear.whispers[1][1]
