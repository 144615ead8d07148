"""Sums of money and how sentences name them; pure."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.budget.limits import ALL


@dataclass(frozen=True, slots=True)
class Spent:
    """Micro-dollars spent in a span of time."""

    #: Known costs.
    booked: int = 0
    #: Worst prices of requests under way.
    reserved: int = 0
    #: Worst prices of requests of which nobody knows whether they were billed.
    unknown: int = 0

    @property
    def total(self) -> int:
        """What counts against the limits."""
        return self.booked + self.reserved + self.unknown

    def __add__(self, other: Spent) -> Spent:
        """Return the sum of both."""
        return Spent(
            self.booked + other.booked,
            self.reserved + other.reserved,
            self.unknown + other.unknown,
        )

    @property
    def words(self) -> str:
        """The sum, and what of it is not known to be spent."""
        parts = [
            f"{dollars(amount)} {what}"
            for amount, what in (
                (self.reserved, "reserved by requests under way"),
                (self.unknown, "feared: nobody knows whether it was billed"),
            )
            if amount
        ]
        return dollars(self.total) + (f" (of it {', '.join(parts)})" if parts else "")


def dollars(amount: int) -> str:
    """Return micro-dollars as people read them."""
    return f"${amount / 1_000_000:,.2f}"


def scope_words(who: str) -> str:
    """Return a scope as a sentence names it."""
    return "all products together" if who == ALL else f"product {who!r}"
