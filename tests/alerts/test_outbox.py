from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.alerts.chain import Chain
from tasks.alerts.claims import claim, overdue, retry_refused
from tasks.alerts.config import AlertsConfig
from tasks.alerts.delivery import Routes, deliver
from tasks.alerts.outbox import enqueue, messages, pending, redact
from tasks.alerts.parcel import AlertError, Parcel, Receipt
from tasks.errors import StateError
from tasks.policy import parse_strict
from tasks.state import State
from tasks.tables import alert_channels, alert_threads, outbox
from tests.fakes.ways import Post, by

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)


def fill(state: State, *keys: str) -> None:
    for key in keys:
        assert enqueue(state, key, "run-1", {"text": key})


def refused(parcel: Parcel) -> Exception | None:
    return AlertError("bad blocks", "message") if "poison" in parcel.message.dedup_key else None


def test_a_message_is_told_once_however_often_it_is_put_in(state: State) -> None:
    assert enqueue(state, "gate:1", "run-1", {"text": "first"})
    assert not enqueue(state, "gate:1", "run-1", {"text": "second"})
    post = Post()
    assert deliver(state, by(state, post), now=NOW).delivered == ["gate:1"]
    assert not enqueue(state, "gate:1", "run-1", {"text": "third"})
    assert deliver(state, by(state, post), now=NOW).delivered == []
    assert post.sent == ["gate:1"]
    (message,) = messages(state, "run-1")
    assert message.payload == {"text": "first"}
    assert (message.status, message.attempts) == ("delivered", 1)
    assert message.receipt == '{"of": "gate:1", "via": "slack"}'


def test_a_message_is_only_there_when_its_transaction_is(state: State) -> None:
    def tell_and_fail() -> None:
        with state.begin() as connection:
            enqueue(connection, "gate:1", "run-1", {"text": "x"})
            raise KeyError("the change failed")

    with pytest.raises(KeyError):
        tell_and_fail()
    assert messages(state) == ()


def test_a_failed_message_stays_with_its_error_and_goes_out_later(state: State) -> None:
    fill(state, "a")
    down = Post(lambda _p: AlertError("refused, token xoxb-1-secret"))
    report = deliver(state, by(state, down), now=NOW)
    assert report.delivered == []
    assert report.failed == {"a": "AlertError: refused, token (redacted)"}
    assert report.left == 1
    (message,) = pending(state)
    assert (message.status, message.attempts) == ("pending", 1)
    assert message.last_error == "AlertError: refused, token (redacted)"
    report = deliver(state, by(state, Post()), now=NOW)
    assert (report.delivered, report.left) == (["a"], 0)
    assert messages(state)[0].last_error is None


def test_a_key_that_is_too_long_for_its_column_is_still_one_key(state: State) -> None:
    long = "incident:" + "x" * 500
    assert enqueue(state, long + "1", None, {"text": "a"})
    assert enqueue(state, long + "2", None, {"text": "b"})
    assert not enqueue(state, long + "1", None, {"text": "a"})
    assert all(len(message.dedup_key) <= 200 for message in messages(state))


# --- a message that can never be sent ---------------------------------------------------------


def test_a_message_that_can_never_go_holds_up_no_other(state: State) -> None:
    fill(state, "poison", "b", "c")
    post = Post(refused)
    assert deliver(state, by(state, post), now=NOW).delivered == ["b", "c"]
    fill(state, "d")
    assert deliver(state, by(state, post), now=NOW).delivered == ["d"]
    assert [m.attempts for m in pending(state)] == [1], "it waits for its next try"


def test_an_outage_does_not_count_as_refusals(state: State) -> None:
    """Tried often while Slack was down, then refused once: the page is not given up on."""
    fill(state, "page")
    post = Post(lambda _parcel: AlertError("away", "outage"))
    later = NOW
    for _ in range(6):
        deliver(state, Chain(state, (post,), force=True), now=later)
        later += timedelta(hours=1)
    post.fails = lambda _parcel: AlertError("bad", "message")
    deliver(state, Chain(state, (post,), force=True), now=later)
    (message,) = pending(state)
    assert (message.status, message.refusals) == ("pending", 1)
    assert message.attempts >= 6
    post.fails = lambda _parcel: None
    assert deliver(state, by(state, post), now=later + timedelta(hours=1)).delivered == ["page"]


def test_trouble_of_our_own_database_is_not_the_messages(state: State) -> None:
    fill(state, "page")
    post = Post(lambda _parcel: StateError("locked"))
    deliver(state, by(state, post), now=NOW)
    assert [(m.status, m.refusals) for m in pending(state)] == [("pending", 0)]


def test_a_message_refused_again_and_again_is_given_up_on_and_its_thread_goes_on(
    state: State,
) -> None:
    enqueue(state, "poison", None, {"text": "x"}, thread="t")
    enqueue(state, "after", None, {"text": "y"}, kind="reply", thread="t")
    post = Post(refused)
    later = NOW
    for _ in range(4):
        assert deliver(state, by(state, post), now=later).delivered == []
        later += timedelta(hours=1)
    assert deliver(state, by(state, post), now=later).delivered == ["after"]
    (message,) = pending(state)
    assert (message.dedup_key, message.status, message.attempts) == ("poison", "refused", 5)
    post.fails = lambda _parcel: None
    assert deliver(state, by(state, post), now=later).delivered == []
    retry_refused(state)  # a person asks for it
    assert deliver(state, by(state, post), now=later).delivered == ["poison"]


def test_a_way_that_breaks_in_itself_fails_that_message_alone(state: State) -> None:
    fill(state, "a", "b")
    broken = Post(lambda p: KeyError("text") if p.message.dedup_key == "a" else None)
    report = deliver(state, by(state, broken), now=NOW)
    assert report.delivered == ["b"]
    assert "KeyError" in report.failed["a"]


# --- order -------------------------------------------------------------------------------------


def test_pages_go_before_warnings_before_info_then_by_age(state: State) -> None:
    for key, severity in (("i1", "info"), ("w1", "warning"), ("p1", "page"), ("i2", "info")):
        enqueue(state, key, None, {"text": key}, severity=severity)  # type: ignore[arg-type]
    enqueue(state, "p2", None, {"text": "p2"}, severity="page")
    post = Post()
    deliver(state, by(state, post), now=NOW)
    assert post.sent == ["p1", "p2", "w1", "i1", "i2"]


def test_a_page_lifts_the_quiet_messages_before_it_in_its_thread(state: State) -> None:
    enqueue(state, "other", None, {"text": "x"}, severity="warning")
    enqueue(state, "root", None, {"text": "x"}, thread="t")
    enqueue(state, "page", None, {"text": "x"}, kind="reply", thread="t", severity="page")
    post = Post()
    deliver(state, by(state, post), now=NOW)
    assert post.sent == ["root", "page", "other"]
    assert post.parcels[1].anchor is not None


def test_nothing_in_a_thread_overtakes_what_is_on_its_way(state: State) -> None:
    enqueue(state, "root", None, {"text": "x"}, thread="t")
    enqueue(state, "reply", None, {"text": "x"}, kind="reply", thread="t", severity="page")
    stale = NOW - timedelta(seconds=60)
    assert claim(state, 2, now=NOW, stale=stale) is None, "its root is not sent"
    assert claim(state, 1, now=NOW, stale=stale) is not None
    assert claim(state, 1, now=NOW, stale=stale) is None, "another process has it"
    post = Post()
    assert deliver(state, by(state, post), now=NOW).delivered == []


def test_an_update_that_nobody_saw_is_dropped_for_a_newer_one(state: State) -> None:
    post = Post()
    enqueue(state, "root", None, {"text": "1"}, thread="t")
    deliver(state, by(state, post), now=NOW)
    for number in (2, 3, 4):
        enqueue(state, f"u{number}", None, {"text": str(number)}, kind="update", thread="t")
    deliver(state, by(state, post), now=NOW)
    assert post.sent == ["root", "u4"]
    assert [m.status for m in messages(state)] == [
        "delivered",
        "superseded",
        "superseded",
        "delivered",
    ]


def test_a_root_that_nobody_saw_says_what_its_updates_say(state: State) -> None:
    enqueue(state, "root", None, {"text": "CHECKING"}, thread="t")
    enqueue(state, "reply", None, {"text": "ROLLBACK!"}, kind="reply", thread="t")
    enqueue(state, "final", None, {"text": "ROLLBACK"}, kind="update", thread="t")
    post = Post()
    deliver(state, by(state, post), now=NOW)
    assert [p.message.payload["text"] for p in post.parcels] == ["ROLLBACK", "ROLLBACK!"]
    assert pending(state) == ()


# --- time --------------------------------------------------------------------------------------

NIGHT = {"quiet_hours": {"from": "22:00", "until": "07:00", "time_zone": "Europe/Berlin"}}


def night(**more: object) -> Routes:
    return Routes(parse_strict(AlertsConfig, {"default": NIGHT | more}, "test"))


def test_quiet_hours_hold_all_but_pages_until_they_end(state: State) -> None:
    for severity in ("info", "warning", "page"):
        enqueue(state, severity, None, {"text": "x"}, severity=severity)  # type: ignore[arg-type]
    post = Post()
    at_night = datetime(2026, 9, 14, 1, tzinfo=UTC)  # 03:00 in Berlin
    report = deliver(state, by(state, post), night(), now=at_night)
    assert (post.sent, report.left) == (["page"], 2)
    morning = datetime(2026, 9, 14, 5, tzinfo=UTC)
    deliver(state, by(state, post), night(), now=morning)
    assert post.sent == ["page", "warning", "info"]


def test_only_what_waits_without_a_reason_is_overdue(state: State) -> None:
    start = datetime.now(UTC)
    for severity in ("warning", "page"):
        enqueue(state, severity, None, {"text": "x"}, severity=severity)  # type: ignore[arg-type]
    enqueue(state, "old update", None, {"text": "x"}, kind="update", thread="t")
    enqueue(state, "update", None, {"text": "x"}, kind="update", thread="t")
    age, config = timedelta(minutes=5), AlertsConfig()

    def late(minutes: float, config: AlertsConfig = config) -> list[str]:
        now = start + timedelta(minutes=minutes)
        return [m.dedup_key for m in overdue(state, config, now=now, age=age)]

    assert late(4) == []
    assert late(6) == ["warning", "page", "update"]
    soon = (start + timedelta(minutes=30)).strftime("%H:%M")
    quiet = {"from": (start - timedelta(minutes=30)).strftime("%H:%M"), "until": soon}
    held = parse_strict(AlertsConfig, {"default": {"quiet_hours": quiet}}, "test")
    assert late(6, held) == ["page"]
    assert late(32, held) == ["page"], "the night is over, and it has its time anew"
    assert late(36, held) == ["warning", "page", "update"]


def test_what_is_below_the_least_severity_is_muted_and_not_owed(state: State) -> None:
    enqueue(state, "root", None, {"text": "x"}, thread="t")
    enqueue(state, "hold", None, {"text": "x"}, kind="reply", thread="t", severity="warning")
    enqueue(state, "final", None, {"text": "x"}, kind="update", thread="t")
    post = Post()
    routes = Routes(parse_strict(AlertsConfig, {"default": {"least_severity": "warning"}}, "x"))
    deliver(state, by(state, post), routes, now=NOW)
    assert post.sent == ["hold"]
    assert pending(state) == ()
    assert [m.status for m in messages(state)] == ["muted", "delivered", "muted"]


def test_the_limit_bounds_one_delivery(state: State) -> None:
    fill(state, *"abcde")
    report = deliver(state, by(state, Post()), now=NOW, limit=2)
    assert (report.delivered, report.left) == (["a", "b"], 3)


def test_a_claim_of_a_dead_process_is_taken_over_when_it_is_old(state: State) -> None:
    fill(state, "a")
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox).values(
                status="sending", attempts=1, claimed_at="2026-09-14T12:00:00.000Z"
            )
        )
    chain = by(state, Post())
    assert deliver(state, chain, now=NOW + timedelta(seconds=59)).left == 1
    assert deliver(state, chain, now=NOW + timedelta(seconds=61)).delivered == ["a"]
    assert messages(state)[0].attempts == 2


def test_a_way_that_hangs_does_not_hold_its_caller(state: State) -> None:
    fill(state, "a", "b")
    go, gone = threading.Event(), threading.Event()

    class Hanging(Post):
        def send(self, parcel: Parcel) -> Receipt:
            go.wait(30)
            gone.set()
            return super().send(parcel)

    report = deliver(state, by(state, Hanging()), now=NOW, deadline_s=0.05)
    assert report.late
    assert (report.delivered, report.left) == ([], 2)
    assert [m.status for m in messages(state)] == ["sending", "pending"]
    # What arrives late is still delivered, and booked as such; nothing more is begun.
    go.set()
    assert gone.wait(30)
    for thread in threading.enumerate():
        if thread.name == "imagegate-alerts":
            thread.join(30)
    assert [m.status for m in messages(state)] == ["delivered", "pending"]


def test_no_time_means_nothing_is_begun(state: State) -> None:
    fill(state, "a")
    report = deliver(state, by(state, Post()), now=NOW, deadline_s=0)
    assert (report.delivered, report.left) == ([], 1)


def test_a_late_failure_does_not_undo_a_delivery_by_another(state: State) -> None:
    fill(state, "a")

    class Overtaken(Post):
        def send(self, parcel: Parcel) -> Receipt:
            with state.begin() as connection:  # The claim grew old; another process sent it.
                connection.execute(sa.update(outbox).values(status="delivered", attempts=2))
            raise AlertError("time-out")

    deliver(state, by(state, Overtaken()), now=NOW)
    assert messages(state)[0].status == "delivered"


# --- a way that is down, or asks for a pause ---------------------------------------------------


def test_a_way_that_is_down_is_not_asked_for_every_message(state: State) -> None:
    fill(state, *(f"m{n}" for n in range(50)))
    asked: list[str] = []

    def down(parcel: Parcel) -> Exception:
        asked.append(parcel.message.dedup_key)
        return AlertError("connection refused")

    report = deliver(state, by(state, Post(down)), now=NOW)
    assert len(asked) == 3
    assert report.left == 50
    assert "connection refused" in report.failed["ways"]
    assert max(m.attempts for m in pending(state)) == 1
    post = Post()
    assert deliver(state, by(state, post), now=NOW).left == 50, "the pause is not over"
    assert deliver(state, by(state, post), now=NOW + timedelta(seconds=61)).left == 0
    assert post.sent == [f"m{n}" for n in range(50)]
    with state.begin() as connection:
        assert connection.execute(sa.select(alert_channels)).all() == []


def test_a_long_rate_limit_holds_its_channel_and_no_other(state: State) -> None:
    fill(state, "a", "b")
    enqueue(state, "c", None, {"text": "x"}, product="shop")
    routes = Routes(
        parse_strict(AlertsConfig, {"products": {"shop": {"channel": "#shop"}}}, "test"), "C1"
    )

    def limit(parcel: Parcel) -> Exception | None:
        busy = parcel.channel == "C1"
        return AlertError("429", "limited", retry_after=300) if busy else None

    post = Post(limit)
    deliver(state, by(state, post), routes, now=NOW)
    assert post.sent == ["c"]
    post.fails = lambda _parcel: None
    again = deliver(state, by(state, post), routes, now=NOW + timedelta(seconds=299))
    assert again.delivered == []
    deliver(state, by(state, post), routes, now=NOW + timedelta(seconds=301))
    assert post.sent == ["c", "a", "b"]


# --- several at once ---------------------------------------------------------------------------


def test_deliveries_at_once_send_everything_once_and_each_thread_in_order(
    state: State, tmp_path: Path
) -> None:
    for thread in range(6):
        for number in range(4):
            kind = "open" if number == 0 else "reply"
            key = f"{thread}.{number}"
            enqueue(state, key, None, {"text": "x"}, kind=kind, thread=f"t{thread}")  # type: ignore[arg-type]
    sent: list[str] = []
    lock = threading.Lock()

    class Shared(Post):
        def send(self, parcel: Parcel) -> Receipt:
            with lock:
                sent.append(parcel.message.dedup_key)
            return super().send(parcel)

    start = threading.Barrier(3)

    def work() -> None:
        own = State(f"sqlite:///{tmp_path / 'state.db'}")
        start.wait()
        # A pass ends when all it could take is with the others: another one looks again.
        while deliver(own, by(own, Shared()), now=NOW).left:
            pass
        own.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent) == sorted(f"{t}.{n}" for t in range(6) for n in range(4))
    for number in range(6):
        mine = [key for key in sent if key.startswith(f"{number}.")]
        assert mine == sorted(mine)


def test_broken_unicode_from_a_prompt_does_not_stop_an_alert(state: State) -> None:
    enqueue(state, "a", None, {"text": "half \ud800 pair"})
    assert pending(state)[0].payload == {"text": "half \ud800 pair"}


FATE = st.sampled_from(["ok", "outage", "message", "limited", "bug"])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["reply", "update"]),
            st.sampled_from(["info", "warning", "page"]),
        ),
        min_size=1,
        max_size=10,
    ),
    st.lists(FATE, max_size=14),
)
def test_whatever_fails_when_all_arrives_once_and_each_thread_in_order(
    state: State,
    told: list[tuple[int, str, str]],
    weather: list[str],
) -> None:
    database = state
    with state.begin() as connection:
        for table in (outbox, alert_channels, alert_threads):
            connection.execute(sa.delete(table))
    opened: set[int] = set()
    for number, (thread, kind, severity) in enumerate(told):
        first = thread not in opened
        opened.add(thread)
        enqueue(
            database,
            f"{number:02d}",
            None,
            {"text": f"{number:02d}"},
            kind="open" if first else kind,  # type: ignore[arg-type]
            thread=f"t{thread}",
            severity=severity,  # type: ignore[arg-type]
        )
    luck = iter(weather)
    errors = {
        "ok": None,
        "outage": AlertError("down"),
        "message": AlertError("refused", "message"),
        "limited": AlertError("slow", "limited", 5),
        "bug": KeyError("text"),
    }
    post = Post(lambda _p: errors[next(luck, "ok")])
    clock = NOW
    for _ in range(len(weather) + 2):
        deliver(database, by(database, post), now=clock)
        clock += timedelta(minutes=11)
    owed = [m for m in messages(database) if m.status not in ("superseded", "refused")]
    assert [m.status for m in owed] == ["delivered"] * len(owed)
    assert sorted(post.sent) == sorted(m.dedup_key for m in owed)
    for thread in opened:
        mine = [p.message for p in post.parcels if p.message.thread == f"t{thread}"]
        assert [m.id for m in mine] == sorted(m.id for m in mine)
    # Whatever was dropped, the first message of a thread ends with what the last update said.
    for thread in opened:
        states = [m for m in messages(database) if m.thread == f"t{thread}" and m.kind == "update"]
        shown = [
            p.message.payload["text"]
            for p in post.parcels
            if p.message.thread == f"t{thread}" and p.message.kind in ("open", "update")
        ]
        if states and shown and all(m.status != "refused" for m in messages(database)):
            assert shown[-1] == states[-1].dedup_key


@pytest.mark.parametrize(
    "secret", ["xoxb-12-34-abcDEF", "xoxp-1-2", "xoxe.xoxp-1-Mi0", "xapp-1-A-b", "Bearer abc.def"]
)
def test_what_looks_like_a_token_is_cut_out_of_errors(secret: str) -> None:
    shown = redact(f"POST failed: headers {{'Authorization': {secret}}}")
    assert secret not in shown
    assert "(redacted)" in shown
    assert len(redact("x" * 9999)) == 500
