"""Which way a message takes when the first one fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tasks.alerts.chain import Chain, chain_of
from tasks.alerts.claims import Health, read_health
from tasks.alerts.delivery import Routes, deliver
from tasks.alerts.outbox import enqueue, messages, pending
from tasks.alerts.parcel import AlertError, Parcel, Trouble
from tasks.state import State
from tests.fakes.ways import Post

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
ROUTES = Routes(channel="C1")


def put(state: State, key: str, severity: str, *, kind: str = "open", thread: str = "") -> None:
    enqueue(
        state,
        key,
        None,
        {"text": key},
        kind=kind,  # type: ignore[arg-type]
        thread=thread or None,
        severity=severity,  # type: ignore[arg-type]
    )


class Ill(Post):
    """Slack in some trouble; counts how often it is asked."""

    def __init__(self, trouble: Trouble, retry_after: float | None = None) -> None:
        super().__init__(self._fail)
        self.trouble, self.retry_after, self.asked = trouble, retry_after, 0

    def _fail(self, _parcel: Parcel) -> Exception:
        self.asked += 1
        return AlertError(f"slack is in {self.trouble}", self.trouble, self.retry_after)


@pytest.mark.parametrize("severity", ["info", "page"])
def test_a_token_that_fails_falls_back_at_once_and_is_asked_once_a_delivery(
    state: State, severity: str
) -> None:
    for number in range(20):
        put(state, f"m{number}", severity)
    slack, hook = Ill("token"), Post(name="webhook")
    report = deliver(state, Chain(state, [slack, hook]), ROUTES, now=NOW)
    assert (slack.asked, len(hook.sent), report.left) == (1, 20, 0)
    assert set(report.via.values()) == {"webhook"}
    assert messages(state)[0].receipt == (
        '{"instead_of": "slack is in token", "of": "m0", "via": "webhook"}'
    )


def test_in_an_outage_a_page_falls_back_after_two_tries(state: State) -> None:
    put(state, "page", "page")
    put(state, "info", "info")
    slack, mail = Ill("outage"), Post(name="mail")
    deliver(state, Chain(state, [slack, mail]), ROUTES, now=NOW)
    assert mail.sent == ["page"]
    assert [m.dedup_key for m in pending(state)] == ["info"]
    assert slack.asked == 3, "twice for the page, once for the other"
    put(state, "page 2", "page")
    deliver(state, Chain(state, [slack, mail]), ROUTES, now=NOW)
    assert mail.sent == ["page", "page 2"]
    assert slack.asked == 3, "Slack has a pause, the page has none"


def test_in_an_outage_the_rest_falls_back_after_a_quarter_of_an_hour(state: State) -> None:
    put(state, "warning", "warning")
    put(state, "info", "info")
    slack, mail = Ill("outage"), Post(name="mail")
    clock = NOW
    while clock < NOW + timedelta(minutes=15):
        deliver(state, Chain(state, [slack, mail]), ROUTES, now=clock)
        assert mail.sent == []
        clock += timedelta(minutes=3)
    deliver(state, Chain(state, [slack, mail]), ROUTES, now=clock)
    assert mail.sent == ["warning", "info"]


def test_a_quiet_root_goes_with_the_page_that_falls_back(state: State) -> None:
    put(state, "root", "info", thread="t")
    put(state, "rollback", "page", kind="reply", thread="t")
    put(state, "final", "info", kind="update", thread="t")
    mail = Post(name="mail")
    report = deliver(state, Chain(state, [Ill("outage"), mail]), ROUTES, now=NOW)
    assert mail.sent == ["root", "rollback"]
    assert report.left == 0, "the update is folded into the root"


def test_when_slack_is_back_the_thread_begins_there_anew(state: State) -> None:
    put(state, "root", "page", thread="t")
    mail = Post(name="mail")
    deliver(state, Chain(state, [Ill("outage"), mail]), ROUTES, now=NOW)
    slack = Post()
    put(state, "reply", "info", kind="reply", thread="t")
    put(state, "final", "info", kind="update", thread="t")
    put(state, "later", "info", kind="reply", thread="t")
    deliver(state, Chain(state, [slack, mail]), ROUTES, now=NOW)
    assert slack.sent == ["reply", "final", "later"]
    reply, final, later = slack.parcels
    assert (reply.anchor, final.anchor) == (None, None)
    assert later.anchor is not None, "the update became the first message there"


@pytest.mark.parametrize(("wait", "severity", "by"), [(600, "page", "mail"), (600, "info", None)])
def test_a_long_rate_limit_is_respected_and_a_page_goes_round_it(
    state: State, wait: float, severity: str, by: str | None
) -> None:
    put(state, "a", severity)
    put(state, "b", severity)
    slack, mail = Ill("limited", wait), Post(name="mail")
    report = deliver(state, Chain(state, [slack, mail]), ROUTES, now=NOW)
    assert slack.asked == 1
    assert set(report.via.values()) == ({by} if by else set())
    assert read_health(state)["slack:C1"].not_before == NOW + timedelta(seconds=wait)
    # Not even a person who asks for it goes against the receiver's wish.
    deliver(state, Chain(state, [slack, mail], force=True), ROUTES, now=NOW)
    assert slack.asked == 1


def test_a_person_who_asks_overrules_a_pause_after_failures(state: State) -> None:
    for number in range(4):
        put(state, f"m{number}", "info")
    slack = Ill("outage")
    deliver(state, Chain(state, [slack]), ROUTES, now=NOW)
    assert slack.asked == 3
    deliver(state, Chain(state, [slack]), ROUTES, now=NOW)
    assert slack.asked == 3
    deliver(state, Chain(state, [slack], force=True), ROUTES, now=NOW)
    assert slack.asked > 3


def test_what_slack_refuses_goes_by_mail_and_what_all_refuse_stays(state: State) -> None:
    put(state, "a", "info")
    mail = Post(name="mail")
    deliver(state, Chain(state, [Ill("message"), mail]), ROUTES, now=NOW)
    assert mail.sent == ["a"]
    put(state, "b", "info")
    report = deliver(
        state, Chain(state, [Ill("message"), Post(lambda _p: AlertError("full"))]), ROUTES, now=NOW
    )
    assert report.failed["b"] == "AlertError: slack is in message; full"
    assert pending(state)[0].not_before is None, "mail was only down: no refusal of the message"


@pytest.mark.parametrize("names", [("webhook",), ("mail",), ("webhook", "mail")])
def test_without_a_token_the_other_ways_are_used_directly(
    state: State, names: tuple[str, ...]
) -> None:
    put(state, "a", "info")
    ways = [Post(name=name) for name in names]
    report = deliver(state, Chain(state, ways), ROUTES, now=NOW)
    assert report.via == {"a": names[0]}


def test_the_second_way_fails_into_the_third(state: State) -> None:
    put(state, "a", "info")
    hook, mail = Post(lambda _p: AlertError("down"), "webhook"), Post(name="mail")
    report = deliver(state, Chain(state, [Ill("token"), hook, mail]), ROUTES, now=NOW)
    assert report.via == {"a": "mail"}
    assert read_health(state)["webhook"].failures == 1


def test_a_way_with_wrong_settings_is_named_and_left_out(state: State, make_settings) -> None:  # type: ignore[no-untyped-def]
    settings = make_settings(
        SLACK_BOT_TOKEN="xoxb-1",
        IMAGEGATE_SLACK_URL="http://slack.example/api/",
        IMAGEGATE_SLACK_WEBHOOK="http://hooks.example/services/secret-part",
        IMAGEGATE_SMTP_URL="smtp://user:secret-part@mail.example",
        IMAGEGATE_MAIL_FROM="gate@example.org",
        IMAGEGATE_MAIL_TO="a@example.org",
    )
    chain = chain_of(state, settings)
    assert [way.name for way in chain.carriers] == ["mail"]
    assert set(chain.broken) == {"slack", "webhook"}
    assert "secret-part" not in str(chain.broken)


def test_nobody_to_be_told_is_said(state: State, make_settings) -> None:  # type: ignore[no-untyped-def]
    chain = chain_of(state, make_settings())
    assert "no SLACK_BOT_TOKEN is set" in chain.why_closed("C1")


def test_health_knows_a_pause_from_a_wish() -> None:
    until = NOW + timedelta(seconds=5)
    assert Health(3, NOW, until).held(NOW)
    assert not Health(3, NOW, until).held(NOW, force=True)
    assert Health(1, NOW, until, limited=True).held(NOW, force=True)
    assert not Health(3, NOW, until).held(until)
