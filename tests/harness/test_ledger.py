"""The spend ledger: never above a cap, never twice, never forgotten."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tasks.errors import BudgetExhausted, StateError, TakenOverError
from tasks.harness.ledger import SpendLedger
from tasks.runs import begin_run
from tasks.state import State
from tasks.tables import ledger, spend_totals

CAP, DAY_CAP = 1_000, 1_500


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def noon(day: str) -> datetime:
    return datetime.fromisoformat(f"{day}T12:00:00+00:00")


def take(book: SpendLedger, key: str, price: int, arm: str = "candidate") -> None:
    book.reserve(key, arm=arm, case_id="c", stage=0, attempt=1, model="m", microusd=price)


def test_reserve_then_book(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", 400)
    take(book, "b", 400, "baseline")
    assert book.spent_microusd() == 800
    assert book.book("a", 300) == 300
    assert book.book("b", 0) == 0
    assert book.spent_microusd() == book.spent_today() == 300
    assert book.by_arm() == {"candidate": 300, "baseline": 0}


def test_the_cap_is_said_with_what_is_spent_and_how_to_raise_it(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", CAP)
    with pytest.raises(BudgetExhausted, match=r"run's.*cap \$0\.0010.*\$0\.0010.*--budget-usd"):
        take(book, "b", 1)
    assert book.spent_microusd() == CAP


def test_the_day_cap_counts_all_runs_and_only_the_day(state: State) -> None:
    day = ["2026-11-22"]
    first = SpendLedger(state, "one", CAP, DAY_CAP, now=lambda: noon(day[0]))
    second = SpendLedger(state, "two", CAP, DAY_CAP, now=lambda: noon(day[0]))
    take(first, "a", 1_000)
    with pytest.raises(BudgetExhausted, match=r"day's.*budget\.day_usd"):
        take(second, "b", 501)
    take(second, "b", 500)
    day[0] = "2026-11-23"
    assert second.spent_today() == 0
    take(second, "c", 500)
    assert (second.spent_microusd(), second.spent_today()) == (1_000, 500)


def test_a_repeated_key_is_not_counted_twice(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", CAP)
    take(book, "a", CAP)
    assert book.spent_microusd() == CAP


def test_what_was_in_flight_at_a_crash_stays_counted(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", 400)
    take(book, "b", 400)
    book.book("b", 400)
    again = SpendLedger(state, "run", CAP, DAY_CAP)
    assert again.recover() == 1
    assert again.recover() == 0
    assert again.spent_microusd() == 800
    # The same request again; the provider recognises the key and charges nothing for it: the
    # first send may have been charged all the same.
    take(again, "a", 400)
    assert again.book("a", 0) == 400
    assert again.spent_microusd() == 800


def test_a_booked_key_that_is_sent_again_keeps_at_least_its_cost(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", 400)
    book.book("a", 300)
    take(book, "a", 400)
    assert book.spent_microusd() == 400  # the worst that the second send can make of it
    assert book.book("a", 0) == 300
    take(book, "a", 400)
    book.release("a")  # not sent after all
    assert book.spent_microusd() == 300


def test_a_free_failure_that_is_sent_again_the_next_day_counts_that_day(state: State) -> None:
    day = ["2026-11-22"]
    book = SpendLedger(state, "run", CAP, DAY_CAP, now=lambda: noon(day[0]))
    take(book, "a", 400)
    book.book("a", 100)
    day[0] = "2026-11-23"
    take(book, "a", 400)
    assert book.spent_today() == 400
    day[0] = "2026-11-22"
    assert book.spent_today() == 0


def test_unknown_stays_at_its_worst_price_and_release_gives_back(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", 400)
    take(book, "b", 400)
    assert book.mark_unknown("a") == 400
    book.release("b")
    book.release("never reserved")
    assert book.mark_unknown("never reserved") == 0
    assert book.spent_microusd() == 400


def test_more_than_reserved_is_booked_as_it_is(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", 100)
    assert book.book("a", 5_000) == 5_000
    with pytest.raises(BudgetExhausted):
        take(book, "b", 0 + 1)


def test_misuse_is_refused(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    with pytest.raises(ValueError, match="negative"):
        take(book, "a", -1)
    with pytest.raises(StateError, match="never reserved"):
        book.book("a", 1)
    take(book, "a", 1)
    with pytest.raises(ValueError, match="negative"):
        book.book("a", -1)
    with pytest.raises(StateError, match="belongs to run 'run'"):
        take(SpendLedger(state, "other", CAP, DAY_CAP), "a", 1)


def test_lost_sums_are_made_again_from_the_rows(state: State) -> None:
    book = SpendLedger(state, "run", CAP, DAY_CAP)
    take(book, "a", 400)
    book.book("a", 250)
    with state.begin() as connection:
        connection.execute(sa.update(spend_totals).values(microusd=1))
    book.recover()
    assert book.spent_microusd() == book.spent_today() == 250
    with state.begin() as connection:
        connection.execute(sa.delete(spend_totals))
    take(book, "b", 750)
    assert book.spent_microusd() == 1_000
    with pytest.raises(BudgetExhausted):
        take(book, "c", 1)


def test_threads_share_one_cap(state: State) -> None:
    books = [SpendLedger(state, f"run{i}", 10**9, 1_000) for i in range(2)]

    def spend(number: int) -> int:
        try:
            take(books[number % 2], f"k{number}", 7)
        except BudgetExhausted:
            return 0
        return books[number % 2].book(f"k{number}", 7)

    with ThreadPoolExecutor(8) as pool:
        spent = sum(pool.map(spend, range(200)))
    assert spent == 994  # 142 requests of 7; one more would be 1,001
    assert books[0].spent_today() == 994


def _spend_in_a_process(url: str, name: str) -> int:
    state = State(url)
    book = SpendLedger(state, "run", 1_000, 10**9)
    spent = 0
    for number in range(60):
        try:
            take(book, f"{name}-{number}", 13)
        except BudgetExhausted:
            continue
        spent += book.book(f"{name}-{number}", 13 if number % 3 else 0)
    state.close()
    return spent


def test_processes_share_one_cap(state: State, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        spent = sum(pool.starmap(_spend_in_a_process, [(url, name) for name in "xyz"]))
    book = SpendLedger(state, "run", 1_000, 10**9)
    assert spent == book.spent_microusd()
    assert 1_000 - 13 < spent <= 1_000
    assert sum(book.by_arm().values()) == spent


class LedgerMachine(RuleBasedStateMachine):
    """Any order of operations against a model that is a dictionary."""

    @initialize()
    def open(self) -> None:
        # One connection in one thread: an in-memory database is enough here.
        self.state = State("sqlite://")
        self.day = "2026-11-22"
        self.book = SpendLedger(self.state, "run", CAP, DAY_CAP, now=lambda: noon(self.day))
        #: key -> (status, amount, floor)
        self.rows: dict[str, tuple[str, int, int]] = {}

    def total(self) -> int:
        return sum(amount for _, amount, _ in self.rows.values())

    @rule(key=st.sampled_from("abcdefgh"), price=st.integers(0, 400))
    def reserve(self, key: str, price: int) -> None:
        _, known, _ = self.rows.get(key, ("", 0, 0))
        amount = max(known, price)
        fits = self.total() - known + amount <= CAP
        try:
            take(self.book, key, price)
        except BudgetExhausted:
            assert not fits
        else:
            assert fits
            self.rows[key] = ("reserved", amount, known)

    @rule(key=st.sampled_from("abcdefgh"), part=st.floats(0, 1))
    def book_some(self, key: str, part: float) -> None:
        if key in self.rows:
            status, amount, floor = self.rows[key]
            floor = amount if status == "unknown" else floor
            cost = int(amount * part)
            assert self.book.book(key, cost) == max(cost, floor)
            self.rows[key] = ("booked", max(cost, floor), max(cost, floor))

    @rule(key=st.sampled_from("abcdefgh"))
    def unknown(self, key: str) -> None:
        counted = self.book.mark_unknown(key)
        if key in self.rows:
            status, amount, floor = self.rows[key]
            assert counted == amount
            if status == "reserved":
                self.rows[key] = ("unknown", amount, floor)

    @rule(key=st.sampled_from("abcdefgh"))
    def release(self, key: str) -> None:
        self.book.release(key)
        if key in self.rows and self.rows[key][0] == "reserved":
            floor = self.rows[key][2]
            self.rows[key] = ("booked", floor, floor)

    @rule()
    def crash_and_recover(self) -> None:
        flying = [key for key, row in self.rows.items() if row[0] == "reserved"]
        assert self.book.recover() == len(flying)
        for key in flying:
            _, amount, floor = self.rows[key]
            self.rows[key] = ("unknown", amount, floor)

    @invariant()
    def sums_are_the_sum_of_the_rows_and_within_the_cap(self) -> None:
        if not hasattr(self, "rows"):
            return
        assert self.book.spent_microusd() == self.total() <= CAP
        assert self.book.spent_today() == self.total()
        assert sum(self.book.by_arm().values()) == self.total()
        with self.state.begin() as connection:
            found = connection.execute(sa.select(ledger.c.idempotency_key, ledger.c.status)).all()
        assert {tuple(row) for row in found} == {(k, row[0]) for k, row in self.rows.items()}

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_process_that_lost_its_run_reserves_nothing(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'lost.db'}")
    request = {"arm": "candidate", "case_id": "c", "stage": 0, "attempt": 1, "model": "m"}
    books = {d: SpendLedger(state, "run", 100, 100, driver=d) for d in ("one", "two")}
    begin_run(state, "run", "shop", "c", "b", driver="one")
    books["one"].reserve("a", **request, microusd=40)
    begin_run(state, "run", "shop", "c", "b", driver="two")
    books["two"].reserve("a", **request, microusd=40)
    with pytest.raises(TakenOverError):
        books["one"].reserve("a", **request, microusd=40)
    assert books["two"].spent_microusd() == 40
    state.close()
