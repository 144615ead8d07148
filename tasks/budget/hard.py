"""Hard limits as a run meets them: which windows it spends from, and how full they are; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from tasks.budget.limits import ALL, Budgets
from tasks.budget.money import dollars, scope_words
from tasks.budget.windows import KINDS, Window, WindowKind, window_at
from tasks.records import microusd


@dataclass(frozen=True, slots=True)
class HardLimit:
    """A hard limit on one window of one scope."""

    #: A product, or ``all``.
    who: str
    kind: WindowKind
    microusd: int
    #: Less than this left counts as nothing left.
    least_microusd: int
    #: Who may raise it, in words.
    raised_by: str
    timezone: str

    def window(self, now: datetime) -> Window:
        """Return the window that holds a moment."""
        return window_at(self.kind, now, ZoneInfo(self.timezone))

    def left(self, spent: int) -> int:
        """Return what may still be spent, in micro-dollars; never below 0."""
        return max(0, self.microusd - spent)

    def reached(self, spent: int) -> bool:
        """Tell whether no run should start any more."""
        return self.left(spent) < max(1, self.least_microusd)

    def sentence(self, spent: int, window: Window) -> str:
        """Return sum, limit, end of the window and who can raise it."""
        left = dollars(self.left(spent))
        return (
            f"the {self.kind}'s hard limit of {scope_words(self.who)} leaves {left}: "
            f"{dollars(spent)} of {dollars(self.microusd)} is spent or reserved in {window.name}, "
            f"which ends {window.ends}"
        )

    @property
    def cure(self) -> str:
        """How to go on before the window ends."""
        return f"{self.raised_by} can raise it: {self.kind}_usd of {self.who} in the budgets file"


@dataclass(frozen=True, slots=True)
class Room:
    """What the hard limits leave to the runs of a product."""

    #: Micro-dollars of the tightest limit; ``None`` when no hard limit applies.
    left: int | None = None
    #: The tightest limit, its window and its sum, as a sentence.
    because: str = ""

    def caps(self, asked: int) -> str | None:
        """Return a sentence when a run may not spend all that it asks for, micro-dollars."""
        if self.left is None or asked <= self.left:
            return None
        return (
            f"this run may spend {dollars(self.left)} of the {dollars(asked)} of its own budget: "
            f"{self.because}"
        )


def hard_limits(budgets: Budgets, product: str | None) -> tuple[HardLimit, ...]:
    """Return the hard limits that a run of the product spends from, ``all`` first.

    Args:
        budgets: The limits.
        product: The product; ``None`` when it is not known: only ``all`` applies.
    """
    scopes = {ALL: budgets.all} if product is None else budgets.of_product(product)
    return tuple(
        HardLimit(
            who=who,
            kind=kind,
            microusd=hard,
            least_microusd=microusd(budgets.least_run_usd),
            raised_by=budgets.raiser(who).words,
            timezone=budgets.timezone,
        )
        for who, scope in scopes.items()
        for kind in KINDS
        if (limits := scope.limits(kind)) is not None and (hard := limits.hard_microusd) is not None
    )


def refusal(limits: Mapping[HardLimit, int], now: datetime) -> str | None:
    """Return why no run may start, or ``None``.

    Args:
        limits: Micro-dollars spent in the present window of each limit.
        now: The present moment.
    """
    full = [(limit, spent) for limit, spent in limits.items() if limit.reached(spent)]
    if not full:
        return None
    # All that are reached are named: raising one of two would not help.
    told = "; ".join(limit.sentence(spent, limit.window(now)) for limit, spent in full)
    cures = "; ".join(dict.fromkeys(limit.cure for limit, _ in full))
    return f"over budget, nothing was spent: {told}. To go on before that, {cures}"


def room(limits: Mapping[HardLimit, int], now: datetime) -> Room:
    """Return what the tightest limit leaves."""
    if not limits:
        return Room()
    limit, spent = min(limits.items(), key=lambda item: item[0].left(item[1]))
    return Room(limit.left(spent), limit.sentence(spent, limit.window(now)))
