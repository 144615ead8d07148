from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.alerts.outbox import Message, deliver, enqueue, messages, pending, redact
from tasks.state import State, outbox

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)


class Post:
    """A sender that keeps what it sends and fails as told."""

    def __init__(self, fails: Callable[[Message], Exception | None] = lambda _message: None):
        self.fails, self.sent = fails, list[str]()

    def send(self, message: Message) -> str:
        error = self.fails(message)
        if error is not None:
            raise error
        self.sent.append(message.dedup_key)
        return f"receipt of {message.dedup_key}"


def fill(state: State, *keys: str) -> None:
    for key in keys:
        assert enqueue(state, key, "run-1", {"text": key})


def test_a_message_is_told_once_however_often_it_is_put_in(state: State) -> None:
    assert enqueue(state, "gate:1", "run-1", {"text": "first"})
    assert not enqueue(state, "gate:1", "run-1", {"text": "second"})
    post = Post()
    assert deliver(state, post, now=NOW).delivered == ["gate:1"]
    assert not enqueue(state, "gate:1", "run-1", {"text": "third"})
    assert deliver(state, post, now=NOW).delivered == []
    assert post.sent == ["gate:1"]
    (message,) = messages(state, "run-1")
    assert message.payload == {"text": "first"}
    assert (message.status, message.attempts, message.receipt) == (
        "delivered",
        1,
        "receipt of gate:1",
    )


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
    report = deliver(state, Post(lambda _m: OSError("refused, token xoxb-1-secret")), now=NOW)
    assert report.delivered == []
    assert report.failed == {"a": "OSError: refused, token (redacted)"}
    assert report.left == 1
    (message,) = pending(state)
    assert (message.status, message.attempts) == ("pending", 1)
    assert message.last_error == "OSError: refused, token (redacted)"
    report = deliver(state, Post(), now=NOW)
    assert (report.delivered, report.left) == (["a"], 0)
    assert messages(state)[0].last_error is None


def test_a_message_that_can_never_go_holds_up_no_other(state: State) -> None:
    fill(state, "poison", "b", "c")
    post = Post(lambda m: ValueError("bad blocks") if m.dedup_key == "poison" else None)
    assert deliver(state, post, now=NOW, limit=2).delivered == ["b"]
    fill(state, "d")
    # The fresh ones come before the one that failed.
    assert deliver(state, post, now=NOW, limit=2).delivered == ["c", "d"]
    assert list(deliver(state, post, now=NOW).failed) == ["poison"]
    assert [m.attempts for m in pending(state)] == [2]


def test_the_limit_bounds_one_delivery(state: State) -> None:
    fill(state, *"abcde")
    report = deliver(state, Post(), now=NOW, limit=2)
    assert (report.delivered, report.left) == (["a", "b"], 3)


def test_a_claim_of_a_dead_process_is_taken_over_when_it_is_old(state: State) -> None:
    fill(state, "a")
    with state.begin() as connection:
        connection.execute(
            sa.update(outbox).values(
                status="sending", attempts=1, claimed_at="2026-09-14T12:00:00.000Z"
            )
        )
    assert deliver(state, Post(), now=NOW + timedelta(seconds=59)).left == 1
    report = deliver(state, Post(), now=NOW + timedelta(seconds=61))
    assert report.delivered == ["a"]
    assert messages(state)[0].attempts == 2


def test_two_deliveries_at_once_send_everything_exactly_once(state: State, tmp_path: Path) -> None:
    keys = [f"m{n}" for n in range(12)]
    fill(state, *keys)
    posts = [Post(), Post()]
    start = threading.Barrier(2)

    def work(post: Post) -> None:
        own = State(f"sqlite:///{tmp_path / 'state.db'}")
        start.wait()
        deliver(own, post, now=NOW)
        own.close()

    threads = [threading.Thread(target=work, args=(post,)) for post in posts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(posts[0].sent + posts[1].sent) == sorted(keys)


def test_a_sender_that_hangs_does_not_hold_its_caller(state: State) -> None:
    fill(state, "a", "b")
    go, gone = threading.Event(), threading.Event()

    class Hanging(Post):
        def send(self, message: Message) -> str:
            go.wait(30)
            gone.set()
            return super().send(message)

    post = Hanging()
    report = deliver(state, post, now=NOW, deadline_s=0.05)
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
    report = deliver(state, Post(), now=NOW, deadline_s=0)
    assert (report.delivered, report.left) == ([], 1)


def test_a_late_failure_does_not_undo_a_delivery_by_another(state: State) -> None:
    fill(state, "a")

    class Overtaken(Post):
        def send(self, message: Message) -> str:
            with state.begin() as connection:  # The claim grew old; another process sent it.
                connection.execute(sa.update(outbox).values(status="delivered", attempts=2))
            raise OSError("time-out")

    deliver(state, Overtaken(), now=NOW)
    assert messages(state)[0].status == "delivered"


def test_broken_unicode_from_a_prompt_does_not_stop_an_alert(state: State) -> None:
    enqueue(state, "a", None, {"text": "half \ud800 pair"})
    assert pending(state)[0].payload == {"text": "half \ud800 pair"}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_whatever_fails_when_each_message_arrives_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, weather: list[bool]
) -> None:
    database = State(f"sqlite:///{tmp_path_factory.mktemp('outbox') / 'state.db'}")
    fill(database, "a", "b", "c")
    luck = iter(weather)
    post = Post(lambda _m: None if next(luck, True) else OSError("down"))
    for _ in range(len(weather) + 1):
        deliver(database, post, now=NOW)
    assert sorted(post.sent) == ["a", "b", "c"]
    assert pending(database) == ()
    database.close()


@pytest.mark.parametrize(
    "secret", ["xoxb-12-34-abcDEF", "xoxp-1-2", "xoxe.xoxp-1-Mi0", "xapp-1-A-b", "Bearer abc.def"]
)
def test_what_looks_like_a_token_is_cut_out_of_errors(secret: str) -> None:
    shown = redact(f"POST failed: headers {{'Authorization': {secret}}}")
    assert secret not in shown
    assert "(redacted)" in shown
    assert len(redact("x" * 9999)) == 500
