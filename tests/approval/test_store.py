from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tasks.approval import store
from tasks.approval.rules import Approval
from tasks.errors import RefusedError, StateError
from tasks.policy import ApprovalRule
from tasks.records import Verdict
from tasks.state import State
from tasks.tables import approvals
from tests.approval.conftest import NOW, PROMOTE, RUN, Ask

HOUR = timedelta(hours=1)


def approve(state: State, **changes: Any) -> Approval:
    fields: dict[str, Any] = {
        "decision": "approved",
        "by": "Grace",
        "reason": "seen with the brand team",
        "via": "command",
        "now": NOW + HOUR,
    }
    return store.decide(state, changes.pop("run_id", RUN), **(fields | changes))


def test_a_question_is_asked_once(shop: State, ask: Ask) -> None:
    first = ask()
    again = ask(hours=48, because="another reason", requester="Mallory")
    assert again == first
    assert first.status == "pending"
    assert first.verdict == PROMOTE
    assert first.expires_at == "2026-11-26T12:00:00.000Z"
    assert [found.run_id for found in store.pending(shop)] == [RUN]
    assert store.pending(shop, "another") == ()
    assert store.read(shop, "no such run") is None


def test_the_answer_is_kept_with_name_way_reason_and_time(shop: State, ask: Ask) -> None:
    ask()
    done = approve(shop, by="  Grace\n Hopper ", via="slack")
    assert (done.status, done.decided_by, done.decided_via) == ("approved", "Grace Hopper", "slack")
    assert done.decided_at == "2026-11-25T13:00:00.000Z"
    assert done.reason == "seen with the brand team"
    assert store.read(shop, RUN) == done
    assert store.pending(shop) == ()
    assert ask() == done


def test_the_first_answer_stands(shop: State, ask: Ask) -> None:
    ask()
    approve(shop, decision="rejected", by="Linus", reason="too blue")
    with pytest.raises(RefusedError, match=r"decided already: rejected by Linus .*too blue"):
        approve(shop)
    found = store.read(shop, RUN)
    assert found is not None
    assert found.status == "rejected"


def test_a_refused_answer_leaves_the_question_open(shop: State, ask: Ask) -> None:
    ask(rules=ApprovalRule(require=("always",), approvers=("Grace",)))
    with pytest.raises(RefusedError, match="may not approve it"):
        approve(shop, by="ada@desk")
    with pytest.raises(RefusedError, match=r"Linus may not decide .*Grace"):
        approve(shop, by="Linus")
    assert approve(shop, by="grace").status == "approved"


def test_an_answer_to_nothing_names_what_waits(shop: State, ask: Ask) -> None:
    ask()
    with pytest.raises(RefusedError, match=rf"'other' asks nobody .*{RUN}"):
        approve(shop, run_id="other")


def test_silence_expires_and_the_late_answer_is_refused(shop: State, ask: Ask) -> None:
    ask(hours=2)
    assert store.expire_due(shop, NOW + HOUR) == ()
    assert store.expire_due(shop, NOW + 2 * HOUR) == (RUN,)
    assert store.expire_due(shop, NOW + 3 * HOUR) == ()
    with pytest.raises(RefusedError, match="expired at 2026-11-25 14:00 UTC: nobody decided"):
        approve(shop, now=NOW + 3 * HOUR)


def test_whoever_comes_too_late_closes_the_question(shop: State, ask: Ask) -> None:
    ask(hours=2)
    with pytest.raises(RefusedError, match="expired"):
        approve(shop, now=NOW + 2 * HOUR)
    found = store.read(shop, RUN)
    assert found is not None
    assert (found.status, found.decided_via) == ("expired", "expiry")


def test_a_question_that_lost_its_ground_is_closed(shop: State, ask: Ask) -> None:
    ask()
    closed = store.withdraw(
        shop, product="shop", via="rollback", by="kim", reason="rolled back by kim", now=NOW
    )
    assert closed == (RUN,)
    assert store.withdraw(shop, run_id=RUN, via="run", by="x", reason="y") == ()
    with pytest.raises(RefusedError, match="rolled back by kim"):
        approve(shop)
    assert [found.run_id for found in store.closed_waiting(shop, "shop")] == [RUN]
    assert store.closed_waiting(shop, "another") == ()


def test_of_two_deciders_at_once_one_wins(shop: State, ask: Ask) -> None:
    ask()
    names = [f"person {number}" for number in range(8)]
    start = threading.Barrier(len(names))
    won: list[str] = []
    refused: list[str] = []

    def run(name: str, number: int) -> None:
        start.wait()
        try:
            approve(shop, by=name, decision="approved" if number % 2 else "rejected")
            won.append(name)
        except RefusedError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run, args=(n, i)) for i, n in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(refused) == 7
    assert all("decided already" in text and won[0] in text for text in refused)
    found = store.read(shop, RUN)
    assert found is not None
    assert found.decided_by == won[0]


def test_a_damaged_row_is_an_error_of_the_database_not_a_yes(shop: State, ask: Ask) -> None:
    ask()
    with shop.begin() as connection:
        connection.execute(sa.update(approvals).values(rules="{"))
    for call in (lambda: store.read(shop, RUN), lambda: approve(shop)):
        with pytest.raises(StateError, match="cannot be read"):
            call()


class Questions(RuleBasedStateMachine):
    """Questions, answers, silence and rollbacks in any order, against a model of one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.state = State(f"sqlite:///{Path(self.folder.name) / 'state.db'}")
        self.now: datetime = NOW
        self.model: dict[str, tuple[str, datetime]] = {}

    def teardown(self) -> None:
        self.state.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        self.model = {}

    @rule(hours=st.floats(0.1, 30))
    def time_passes(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @rule(run=st.sampled_from("abc"), hours=st.integers(1, 24))
    def request(self, run: str, hours: int) -> None:
        ends = self.now + timedelta(hours=hours)
        store.request(
            self.state,
            run,
            "shop",
            "ada",
            "asked",
            ends,
            rules=ApprovalRule(require=("always",), approvers=("ada", "grace")),
            verdict=Verdict(verdict="PROMOTE", reasons=("good",)),
            now=self.now,
        )
        self.model.setdefault(run, ("pending", ends))

    @rule(
        run=st.sampled_from("abc"),
        decision=st.sampled_from(["approved", "rejected"]),
        by=st.sampled_from(["Ada", "grace@x", "linus", ""]),
    )
    def decide(self, run: str, decision: Any, by: str) -> None:
        status, ends = self.model.get(run, ("none", self.now))
        open_ = status == "pending" and self.now < ends
        allowed = by == "grace@x" or (by == "Ada" and decision == "rejected")
        answer: Callable[[], Approval] = lambda: store.decide(  # noqa: E731
            self.state, run, decision=decision, by=by, reason="r", via="command", now=self.now
        )
        if open_ and allowed:
            assert answer().status == decision
            self.model[run] = (decision, ends)
            return
        with pytest.raises(RefusedError):
            answer()
        if status == "pending" and not open_:
            self.model[run] = ("expired", ends)

    @rule()
    def expire(self) -> None:
        due = {r for r, (s, e) in self.model.items() if s == "pending" and e <= self.now}
        assert set(store.expire_due(self.state, self.now)) == due
        self.model |= {run: ("expired", self.model[run][1]) for run in due}

    @rule()
    def roll_back(self) -> None:
        store.withdraw(
            self.state, product="shop", via="rollback", by="kim", reason="back", now=self.now
        )
        for run, (status, ends) in self.model.items():
            if status == "pending":
                self.model[run] = ("expired", ends)

    @invariant()
    def agrees(self) -> None:
        for run in "abc":
            found = store.read(self.state, run)
            assert (found.status if found else None) == (self.model.get(run, (None, None))[0])
        waiting = {run for run, (status, _) in self.model.items() if status == "pending"}
        assert {found.run_id for found in store.pending(self.state)} == waiting


TestQuestions = Questions.TestCase
TestQuestions.settings = hypothesis_settings(max_examples=25, stateful_step_count=20, deadline=None)
