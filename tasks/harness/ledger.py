"""The spend ledger: money is reserved before a request and booked after it.

A row counts with what it may cost (``reserved``: in flight; ``unknown``: nobody knows whether it
was billed) or with what it did cost (``booked``). The sums of a run and of a UTC day are kept in
``spend_totals`` and change in the transaction of their rows, so that a reservation costs the same
at the first request and at the hundred-thousandth. The hard limits on days, weeks and months of a
product and of all products are looked at in that transaction too, see :mod:`tasks.budget.spend`:
runs at the same time share what is left and none passes a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from tasks.budget.hard import HardLimit, hard_limits
from tasks.budget.limits import ALL, Budgets
from tasks.budget.spend import (
    AMOUNT,
    BOOKED,
    EVERYTHING,
    RESERVED,
    UNKNOWN,
    add_to_windows,
    count_again,
    kept_totals,
)
from tasks.budget.windows import Window, stamp
from tasks.database import repeated
from tasks.errors import BudgetExhausted, StateError
from tasks.runs import assert_drives
from tasks.state import State
from tasks.tables import ledger, meta, runs, spend_totals


def _dollars(amount: int) -> str:
    return f"${amount / 1_000_000:,.4f}"


class SpendLedger:
    """The money of one run. Safe to use from several threads and processes.

    Args:
        state: The state database.
        run_id: The run.
        cap_microusd: Most that the run may spend.
        day_cap_microusd: Most that all runs together may spend in a UTC day.
        budgets: Hard limits on what all runs together may spend; ``None``: there are none.
        driver: Token of the process that drives the run; one that lost the run reserves nothing.
        now: Returns the present moment.
    """

    def __init__(
        self,
        state: State,
        run_id: str,
        cap_microusd: int,
        day_cap_microusd: int,
        budgets: Budgets | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        driver: str | None = None,
    ) -> None:
        self._driver = driver
        self.state, self.run_id, self._now = state, run_id, now
        self.cap_microusd, self.day_cap_microusd = cap_microusd, day_cap_microusd
        self._budgets = budgets
        self._product: str | None = None

    @repeated
    def reserve(
        self,
        key: str,
        *,
        arm: str,
        case_id: str,
        stage: int,
        attempt: int,
        model: str,
        microusd: int,
    ) -> None:
        """Set money aside for one request, in one transaction with the look at the caps.

        A key that was reserved before is a repetition of the same request: it is not counted
        twice, and what it was known or feared to have cost stays counted whatever comes of the
        repetition.

        Args:
            key: Idempotency key of the request.
            arm: Arm of the run.
            case_id: The case.
            stage: 0-based stage.
            attempt: 1-based attempt.
            model: The model asked.
            microusd: Worst price of the request.

        Raises:
            BudgetExhausted: A cap leaves no room; nothing was reserved.
            TakenOverError: Another process drives the run; the key may be in its hands.
            StateError: The database failed, or the key belongs to another run.
        """
        if microusd < 0:
            raise ValueError(f"a price must not be negative, got {microusd}")
        with self.state.begin() as connection:
            self._lock(connection)
            if self._driver is not None:
                assert_drives(connection, self.run_id, self._driver)
            # Read under the lock, so that rows are written in the order of their moments.
            now = self._now()
            today = _day(now)
            row = self._row(connection, key)
            if row is not None and row.run_id != self.run_id:
                raise StateError(f"idempotency key {key!r} belongs to run {row.run_id!r}")
            known = 0 if row is None else _amount(row)
            amount = max(known, microusd)
            if row is not None and amount == known:
                day, at = str(row.day), str(row.at)
            else:
                # More money is spent now: all of the row then counts now, never on a day or in a
                # month whose cap nobody looks at any more.
                day, at = today, stamp(now)
                more_today = amount - (known if row is not None and row.day == today else 0)
                self._check(connection, today, amount - known, more_today)
                self._check_budgets(connection, now, amount, known, row)
            values = {
                "status": RESERVED,
                "reserved_microusd": amount,
                # Of a reserved row: the least that it will be booked with.
                "booked_microusd": known,
                # The UTC day of ``at``.
                "day": day,
                "at": at,
            }
            product = self._product_of_run(connection)
            if row is None:
                connection.execute(
                    sa.insert(ledger).values(
                        idempotency_key=key,
                        run_id=self.run_id,
                        arm=arm,
                        case_id=case_id,
                        stage=stage,
                        attempt=attempt,
                        model=model,
                        **values,
                    )
                )
                _add(connection, _day_scope(day), amount)
                add_to_windows(connection, product, at, amount)
            else:
                connection.execute(
                    sa.update(ledger).where(ledger.c.idempotency_key == key).values(**values)
                )
                _add(connection, _day_scope(str(row.day)), -known)
                _add(connection, _day_scope(day), amount)
                if amount != known:
                    add_to_windows(connection, product, str(row.at), -known)
                    add_to_windows(connection, product, at, amount)
            _add(connection, self._run_scope, amount - known)

    @repeated
    def book(self, key: str, microusd: int) -> int:
        """Replace a reservation by the actual cost, 0 when nothing was billed.

        Returns:
            What was booked: the cost, or what an earlier send of the same key cost or may have
            cost, whichever is more.

        Raises:
            StateError: The key was never reserved, or the database failed.
        """
        if microusd < 0:
            raise ValueError(f"a cost must not be negative, got {microusd}")
        with self.state.begin() as connection:
            self._lock(connection)
            row = self._row(connection, key)
            if row is None:
                raise StateError(f"idempotency key {key!r} is booked but was never reserved")
            # An unknown row is feared to have cost its reservation; an answer to a later send
            # does not tell what the earlier one cost.
            floor = row.reserved_microusd if row.status == UNKNOWN else row.booked_microusd or 0
            cost = max(int(floor), microusd)
            self._settle(connection, row, BOOKED, cost)
            return cost

    @repeated
    def mark_unknown(self, key: str) -> int:
        """Keep a reservation counted because nobody knows whether the request was billed.

        Returns:
            The amount that stays counted; 0 when the key was never reserved.
        """
        with self.state.begin() as connection:
            self._lock(connection)
            row = self._row(connection, key)
            if row is None:
                return 0
            if row.status == RESERVED:
                connection.execute(
                    sa.update(ledger)
                    .where(ledger.c.idempotency_key == key)
                    .values(status=UNKNOWN, booked_microusd=None)
                )
            return _amount(row)

    @repeated
    def release(self, key: str) -> None:
        """Give back a reservation whose request was never sent; nothing happens without one."""
        with self.state.begin() as connection:
            self._lock(connection)
            row = self._row(connection, key)
            if row is not None and row.status == RESERVED:
                self._settle(connection, row, BOOKED, int(row.booked_microusd or 0))

    def recover(self) -> int:
        """Count what was in flight when the run died, and rebuild the sums from the rows.

        Call it once before a run is resumed, while none of its shards is running.

        Returns:
            How many requests were in flight; they are ``unknown`` and stay counted.
        """
        with self.state.begin() as connection:
            self._lock(connection)
            found = connection.execute(
                sa.update(ledger)
                .where(ledger.c.run_id == self.run_id, ledger.c.status == RESERVED)
                .values(status=UNKNOWN, booked_microusd=None)
            ).rowcount
            query = sa.select(ledger.c.day).where(ledger.c.run_id == self.run_id).distinct()
            days = connection.execute(query).scalars().all()
            count_again(connection, days)
            for scope in (self._run_scope, *(_day_scope(day) for day in days)):
                connection.execute(sa.delete(spend_totals).where(spend_totals.c.scope == scope))
                _total(connection, scope)
            return int(found)

    @repeated
    def spent_microusd(self) -> int:
        """Return what this run has spent or may have spent."""
        with self.state.begin() as connection:
            return _total(connection, self._run_scope)

    @repeated
    def spent_today(self) -> int:
        """Return what all runs have spent or may have spent in this UTC day."""
        with self.state.begin() as connection:
            return _total(connection, _day_scope(_day(self._now())))

    def by_arm(self) -> dict[str, int]:
        """Return what each arm of this run has spent or may have spent, from the rows."""
        query = (
            sa.select(ledger.c.arm, sa.func.sum(AMOUNT))
            .where(ledger.c.run_id == self.run_id)
            .group_by(ledger.c.arm)
        )
        with self.state.begin() as connection:
            return {str(arm): int(total) for arm, total in connection.execute(query)}

    @property
    def _run_scope(self) -> str:
        return f"run:{self.run_id}"

    def _lock(self, connection: Connection) -> None:
        """Let one transaction at a time look at the caps and change them.

        SQLite took its write lock when the transaction opened; other databases hold this row.
        """
        if not self.state.sqlite:
            connection.execute(
                sa.select(meta.c.value).where(meta.c.key == "state_version").with_for_update()
            )

    @staticmethod
    def _row(connection: Connection, key: str) -> Row[tuple[object, ...]] | None:
        return connection.execute(
            sa.select(ledger).where(ledger.c.idempotency_key == key)
        ).one_or_none()

    def _check(self, connection: Connection, today: str, more: int, more_today: int) -> None:
        """Raise when the run or the day has no room for more."""
        for what, scope, cap, asked, cure in (
            (
                "run",
                self._run_scope,
                self.cap_microusd,
                more,
                "start a new run with a larger --budget-usd (pictures of the baseline are kept)",
            ),
            (
                "day",
                _day_scope(today),
                self.day_cap_microusd,
                more_today,
                f"raise budget.day_usd in the policy, or resume after {today} (UTC)",
            ),
        ):
            spent = _total(connection, scope)
            if spent + asked > cap:
                raise BudgetExhausted(
                    f"the {what}'s spend cap leaves no room: cap {_dollars(cap)}, spent or "
                    f"reserved {_dollars(spent)}, the next request may cost {_dollars(asked)}; "
                    + cure
                )

    def _check_budgets(
        self,
        connection: Connection,
        now: datetime,
        amount: int,
        known: int,
        row: Row[tuple[object, ...]] | None,
    ) -> None:
        """Raise when a hard limit of a product or of all products has no room for more."""
        if self._budgets is None:
            return
        limits = hard_limits(self._budgets, self._product_of_run(connection))
        windows: dict[HardLimit, Window] = {limit: limit.window(now) for limit in limits}
        keys = {
            limit: (EVERYTHING if limit.who == ALL else limit.who, window)
            for limit, window in windows.items()
        }
        totals = kept_totals(connection, keys.values())
        for limit, window in windows.items():
            counted = row is not None and window.start_at <= str(row.at) < window.end_at
            asked = amount - (known if counted else 0)
            spent = totals[keys[limit]]
            if spent + asked > limit.microusd:
                raise BudgetExhausted(
                    f"{limit.sentence(spent, window)}; the next request may cost "
                    f"{_dollars(asked)}. {limit.cure}; then, or after that moment, resume the run"
                )

    def _product_of_run(self, connection: Connection) -> str | None:
        """Return the product of the run, ``None`` for a run that is not in the book of runs."""
        if self._product is None:
            query = sa.select(runs.c.product).where(runs.c.run_id == self.run_id)
            self._product = connection.execute(query).scalar()
        return self._product

    def _settle(
        self, connection: Connection, row: Row[tuple[object, ...]], status: str, amount: int
    ) -> None:
        connection.execute(
            sa.update(ledger)
            .where(ledger.c.idempotency_key == row.idempotency_key)
            .values(status=status, booked_microusd=amount)
        )
        change = amount - _amount(row)
        _add(connection, self._run_scope, change)
        _add(connection, _day_scope(row.day), change)
        add_to_windows(connection, self._product_of_run(connection), str(row.at), change)


def _amount(row: Row[tuple[object, ...]]) -> int:
    """Return what a row counts with."""
    return int(row.booked_microusd or 0) if row.status == BOOKED else int(row.reserved_microusd)


def _day(moment: datetime) -> str:
    """Return the UTC day of a moment as ``YYYY-MM-DD``."""
    return moment.astimezone(UTC).date().isoformat()


def _day_scope(day: str) -> str:
    return f"day:{day}"


def _total(connection: Connection, scope: str) -> int:
    """Return the sum of a scope; a sum that is not kept yet is made from the rows."""
    kept = connection.execute(
        sa.select(spend_totals.c.microusd).where(spend_totals.c.scope == scope)
    ).scalar()
    if kept is not None:
        return int(kept)
    kind, _, name = scope.partition(":")
    column = ledger.c.run_id if kind == "run" else ledger.c.day
    total = int(
        connection.execute(
            sa.select(sa.func.coalesce(sa.func.sum(AMOUNT), 0)).where(column == name)
        ).scalar_one()
    )
    connection.execute(sa.insert(spend_totals).values(scope=scope, microusd=total))
    return total


def _add(connection: Connection, scope: str, change: int) -> None:
    """Change a kept sum; one that is not kept yet will be made from the rows, this one included."""
    if change:
        connection.execute(
            sa.update(spend_totals)
            .where(spend_totals.c.scope == scope)
            .values(microusd=spend_totals.c.microusd + change)
        )
