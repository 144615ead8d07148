"""Hard limits on windows in the ledger's own transaction: no run passes one, nor two together."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tasks.budget.limits import Budgets
from tasks.budget.spend import EVERYTHING, kept_totals, spent_in
from tasks.budget.windows import KINDS, window_at
from tasks.errors import BudgetExhausted
from tasks.harness.ledger import SpendLedger
from tasks.runs import begin_run
from tasks.state import State
from tasks.tables import ledger, spend_windows

ANY = 10**12
#: Micro-dollars in a dollar.
USD = 1_000_000


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def limits(**scopes: Any) -> Budgets:
    return Budgets.model_validate(
        {
            "timezone": "Europe/Berlin",
            "raised_by": {"name": "Dana", "contact": "#releases"},
            "least_run_usd": 0,
            "all": {"month_usd": {"hard": 1000}},
        }
        | scopes
    )


class Clock:
    """A clock that is set by hand."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = datetime.fromisoformat(text)

    def __call__(self) -> datetime:
        return self.now


def book_of(
    state: State, run_id: str, product: str, budgets: Budgets | None, clock: Clock
) -> SpendLedger:
    begin_run(state, run_id, product, "c", "b")
    return SpendLedger(state, run_id, ANY, ANY, budgets=budgets, now=clock)


def take(book: SpendLedger, key: str, usd: int) -> None:
    book.reserve(
        key, arm="candidate", case_id="c", stage=0, attempt=1, model="m", microusd=usd * USD
    )


def test_the_refusal_says_window_sum_limit_end_and_who_can_raise_it(state: State) -> None:
    clock = Clock("2026-11-25T12:00Z")
    file = limits(products={"shop": {"month_usd": {"hard": 10}}})
    book = book_of(state, "run", "shop", file, clock)
    take(book, "a", 9)
    with pytest.raises(BudgetExhausted) as caught:
        take(book, "b", 2)
    said = str(caught.value)
    for words in (
        "month's hard limit of product 'shop'",
        "$9.00 of $10.00",
        "November 2026",
        "2026-12-01 00:00 (Europe/Berlin)",
        "Dana (#releases)",
        "month_usd of shop",
        "resume",
    ):
        assert words in said
    assert book.spent_microusd() == 9 * USD
    take(book, "c", 1)  # to the cent


def test_the_window_turns_at_midnight_of_its_zone(state: State) -> None:
    clock = Clock("2026-11-30T22:59:59Z")
    book = book_of(state, "run", "shop", limits(all={"month_usd": {"hard": 10}}), clock)
    take(book, "a", 10)
    with pytest.raises(BudgetExhausted):
        take(book, "b", 1)
    clock.set("2026-11-30T23:00:00Z")
    take(book, "b", 10)
    # What the last month's request did cost changes the last month.
    assert book.book("a", 3 * USD) == 3 * USD
    with pytest.raises(BudgetExhausted):
        take(book, "c", 1)
    clock.set("2026-11-30T22:00:00Z")  # a clock that goes back finds the room of that month
    take(book, "c", 7)


def test_a_repeated_request_moves_with_its_whole_sum(state: State) -> None:
    clock = Clock("2026-11-25T12:00Z")
    book = book_of(state, "run", "shop", limits(all={"day_usd": {"hard": 10}}), clock)
    take(book, "a", 4)
    book.book("a", 4 * USD)
    take(book, "a", 4)  # the same amount: it stays where and when it is
    clock.set("2026-11-26T12:00Z")
    take(book, "a", 4)
    with state.begin() as connection:
        assert connection.execute(sa.select(ledger.c.at)).scalar() == "2026-11-25T12:00:00.000Z"
    take(book, "a", 9)  # dearer now: all of it counts today
    with pytest.raises(BudgetExhausted):
        take(book, "b", 2)
    clock.set("2026-11-25T13:00Z")
    take(book, "b", 10)


def test_released_and_cheaper_requests_give_their_room_back(state: State) -> None:
    book = book_of(
        state, "run", "shop", limits(all={"week_usd": {"hard": 10}}), Clock("2026-11-25T12:00Z")
    )
    take(book, "a", 6)
    take(book, "b", 4)
    book.release("b")
    book.book("a", 1 * USD)
    take(book, "c", 9)
    book.mark_unknown("c")  # nobody knows: it stays counted
    with pytest.raises(BudgetExhausted):
        take(book, "d", 1)
    assert book.recover() == 0
    with pytest.raises(BudgetExhausted):
        take(book, "d", 1)


def test_soft_limits_stop_nothing_and_other_products_are_not_mine(state: State) -> None:
    clock = Clock("2026-11-25T12:00Z")
    file = limits(all={"day_usd": {"soft": 1}}, products={"blog": {"day_usd": {"hard": 1}}})
    take(book_of(state, "run", "shop", file, clock), "a", 50)
    with pytest.raises(BudgetExhausted, match="'blog'"):
        take(book_of(state, "other", "blog", file, clock), "b", 2)


def test_a_run_that_knows_no_limits_counts_for_those_that_do(state: State) -> None:
    clock = Clock("2026-11-25T12:00Z")
    file = limits(all={"day_usd": {"hard": 10}})
    strict = book_of(state, "strict", "shop", file, clock)
    take(strict, "a", 1)  # the sum is kept from now on
    take(book_of(state, "free", "blog", None, clock), "b", 8)
    # The same hours under another name: limits of another zone see the same rows.
    take(book_of(state, "utc", "shop", limits(timezone="UTC"), clock), "c", 1)
    with pytest.raises(BudgetExhausted):
        take(strict, "d", 1)


def test_two_products_at_once_never_pass_the_limit_of_both(state: State) -> None:
    clock = Clock("2026-11-25T12:00Z")
    file = limits(
        all={"day_usd": {"hard": 100}, "month_usd": {"hard": 100}},
        products={"shop": {"week_usd": {"hard": 60}}, "blog": {"week_usd": {"hard": 60}}},
    )
    books = {p: book_of(state, p, p, file, clock) for p in ("shop", "blog")}

    def spend(number: int) -> tuple[str, int]:
        product = "shop" if number % 2 else "blog"
        try:
            take(books[product], f"k{number}", 3)
        except BudgetExhausted:
            return product, 0
        # Two thirds of the reservation are spent, so the room that comes back is fought over too.
        return product, books[product].book(f"k{number}", 2 * USD) // USD

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(spend, range(160)))
    # One that was refused while others held reservations is asked for again when none does.
    done += [spend(number) for number in range(160, 200)]
    spent = {p: sum(usd for name, usd in done if name == p) for p in books}
    # The next request reserves $3: at most $2 stay unused, and nobody is above.
    assert 98 <= sum(spent.values()) <= 100
    assert max(spent.values()) <= 60
    window = window_at("month", clock.now, file.zone)
    with state.begin() as connection:
        kept = kept_totals(connection, [(EVERYTHING, window), ("shop", window)])
    rows = spent_in(state, window)
    assert kept[EVERYTHING, window] == sum(s.total for s in rows.values())
    assert kept[EVERYTHING, window] == sum(spent.values()) * USD
    assert kept["shop", window] == rows["shop"].total == spent["shop"] * USD


class WindowMachine(RuleBasedStateMachine):
    """Any order of operations, over days: the kept sums are the sums of the rows, none above."""

    @initialize()
    def open(self) -> None:
        self.state = State("sqlite://")
        self.clock = Clock("2026-11-29T12:00Z")
        self.file = limits(
            all={"day_usd": {"hard": 20}, "month_usd": {"hard": 45}},
            products={"shop": {"week_usd": {"hard": 25}}},
        )
        self.books = [
            book_of(self.state, "one", "shop", self.file, self.clock),
            book_of(self.state, "two", "blog", self.file, self.clock),
            book_of(self.state, "free", "shop", None, self.clock),
        ]
        self.free_spent = False

    @rule(hours=st.integers(-30, 40))
    def time_passes(self, hours: int) -> None:
        self.clock.now += timedelta(hours=hours)

    @rule(who=st.integers(0, 1), key=st.sampled_from("abcdef"), usd=st.integers(0, 9))
    def reserve(self, who: int, key: str, usd: int) -> None:
        try:
            take(self.books[who], f"{who}{key}", usd)
        except BudgetExhausted:
            return

    @rule(usd=st.integers(0, 3), key=st.sampled_from("ab"))
    def reserve_without_limits(self, usd: int, key: str) -> None:
        take(self.books[2], f"2{key}", usd)
        self.free_spent = True

    @rule(who=st.integers(0, 2), key=st.sampled_from("abcdef"), part=st.floats(0, 1))
    def settle(self, who: int, key: str, part: float) -> None:
        with self.state.begin() as connection:
            query = sa.select(ledger.c.reserved_microusd).where(
                ledger.c.idempotency_key == f"{who}{key}", ledger.c.status != "booked"
            )
            reserved = connection.execute(query).scalar()
        if reserved is not None:
            self.books[who].book(f"{who}{key}", int(part * reserved))

    @rule(who=st.integers(0, 2), key=st.sampled_from("abcdef"), lost=st.booleans())
    def give_up(self, who: int, key: str, lost: bool) -> None:
        book = self.books[who]
        (book.mark_unknown if lost else book.release)(f"{who}{key}")

    @rule(who=st.integers(0, 2))
    def crash(self, who: int) -> None:
        self.books[who].recover()

    @invariant()
    def kept_sums_are_the_sums_of_the_rows(self) -> None:
        if not hasattr(self, "books"):
            return
        with self.state.begin() as connection:
            kept = connection.execute(sa.select(spend_windows)).all()
            windows = {
                window.start_at + window.end_at: window
                for row in kept
                for kind in KINDS
                for window in [
                    window_at(kind, datetime.fromisoformat(row.start_at), self.file.zone)
                ]
            }
            for row in kept:
                rows = spent_in(connection, windows[row.start_at + row.end_at])
                sums = {p: s.total for p, s in rows.items()}
                expected = sum(sums.values()) if row.who == EVERYTHING else sums.get(row.who, 0)
                assert row.microusd == expected, row

    @invariant()
    def no_limit_is_passed(self) -> None:
        if not hasattr(self, "books") or self.free_spent:
            return
        zone = self.file.zone
        for kind, who, usd in (("day", None, 20), ("month", None, 45), ("week", "shop", 25)):
            rows = spent_in(self.state, window_at(kind, self.clock.now, zone))
            total = sum(s.total for p, s in rows.items() if who in (None, p))
            assert total <= usd * USD, (kind, who)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
