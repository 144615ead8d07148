"""Sums and limits → where each window stands, and what people must be told; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from tasks.budget.forecast import Forecast, Pace, forecast, pace_of
from tasks.budget.hard import hard_limits
from tasks.budget.limits import ALL, Budgets
from tasks.budget.money import Spent, dollars, scope_words
from tasks.budget.windows import KINDS, Window, WindowKind, local_day, window_at

FindingKind = Literal["soft", "hard", "forecast"]
#: Prefix of the keys of the alarms.
PREFIX = "budget:"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger says at one moment."""

    now: datetime
    #: By scope (a product, or ``all``) and kind of window.
    spent: Mapping[tuple[str, WindowKind], Spent]
    #: Micro-dollars of each whole day before today since the scope's first run, oldest first.
    days: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one window of one scope stands."""

    who: str
    window: Window
    spent: Spent
    soft: int | None
    hard: int | None
    #: Less than this left of ``hard`` counts as nothing left.
    least: int
    #: Of the hard limit, or of the soft one when there is no hard one.
    forecast: Forecast | None
    pace: Pace | None
    #: Who may raise the limits, in words.
    raised_by: str

    @property
    def soft_reached(self) -> bool:
        """Whether people must be told."""
        return self.soft is not None and self.spent.total >= self.soft

    @property
    def hard_reached(self) -> bool:
        """Whether no run starts any more."""
        return self.hard is not None and self.hard - self.spent.total < max(1, self.least)

    @property
    def share(self) -> float | None:
        """Spent part of the hard (or else the soft) limit; ``None`` of a limit of 0."""
        limit = self.hard if self.hard is not None else self.soft
        return self.spent.total / limit if limit else None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that people must be told."""

    kind: FindingKind
    who: str
    window: Window
    #: The first line of the message.
    title: str
    lines: tuple[str, ...]
    #: What is asked of the reader.
    asked: tuple[str, ...] = field(default=())
    #: What a lock screen shows; by default title and first line.
    brief: str = ""

    @property
    def key(self) -> str:
        """Key of the alarm: the same as long as the cause is the same."""
        return f"{PREFIX}{self.who}:{self.window.kind}:{self.kind}"

    @property
    def product(self) -> str | None:
        """The product, ``None`` for all together."""
        return None if self.who == ALL else self.who


def standings(budgets: Budgets, facts: Facts, product: str | None = None) -> tuple[Standing, ...]:
    """Return where every limited window stands.

    Args:
        budgets: The limits.
        facts: What was spent.
        product: Only this product and all together.
    """
    today = local_day(facts.now, budgets.zone)
    scopes = budgets.scopes if product is None else budgets.of_product(product)
    found = []
    for who, scope in scopes.items():
        pace = pace_of(facts.days.get(who, ()))
        spent_today = facts.spent.get((who, "day"), Spent()).total
        least = {(h.who, h.kind): h.least_microusd for h in hard_limits(budgets, who)}
        for kind in KINDS:
            limits = scope.limits(kind)
            if limits is None:
                continue
            window = window_at(kind, facts.now, budgets.zone)
            spent = facts.spent.get((who, kind), Spent())
            soft, hard = limits.soft_microusd, limits.hard_microusd
            aim = hard if hard is not None else soft
            found.append(
                Standing(
                    who=who,
                    window=window,
                    spent=spent,
                    soft=soft,
                    hard=hard,
                    least=least.get((who, kind), 0),
                    forecast=None
                    if aim is None
                    else forecast(aim, spent.total, spent_today, today, window, pace),
                    pace=pace,
                    raised_by=budgets.raiser(who).words,
                )
            )
    return tuple(found)


def findings(standing: Standing, today: date) -> tuple[Finding, ...]:
    """Return what people must be told about one window: the worst it has come to, and the outlook.

    Args:
        standing: Where the window stands.
        today: The local day.
    """
    found = []
    if standing.hard_reached:
        found.append(_hard(standing))
    if standing.soft_reached:
        found.append(_soft(standing))
    if not found and _outlook(standing):
        found.append(_forecast(standing, today))
    return tuple(found)


def forecast_words(standing: Standing, today: date) -> str:
    """Return the forecast in a few words, e.g. ``not this month``."""
    if standing.hard_reached or (standing.hard is None and standing.soft_reached):
        return "reached"
    if standing.forecast is None:
        return "too few days to say"
    likely, earliest = standing.forecast.likely, standing.forecast.earliest
    this = "today" if standing.window.kind == "day" else f"this {standing.window.kind}"
    if likely is None:
        early = "" if earliest is None else f", at the earliest {_day_words(earliest, today)}"
        return f"not {this}{early}" if standing.window.kind != "day" else "not today"
    if earliest is None or earliest == likely:
        return _day_words(likely, today)
    return f"{_day_words(likely, today)}, at the earliest {_day_words(earliest, today)}"


def _day_words(day: date, today: date) -> str:
    return "today" if day == today else day.isoformat()


def _outlook(standing: Standing) -> bool:
    """Tell whether the hard limit of a week or month will likely be reached before its end."""
    # A day is over before a warning about it helps anybody.
    return (
        standing.hard is not None
        and standing.window.kind != "day"
        and standing.forecast is not None
        and standing.forecast.likely is not None
    )


def _hard(standing: Standing) -> Finding:
    kind, hard = standing.window.kind, standing.hard or 0
    return Finding(
        kind="hard",
        who=standing.who,
        window=standing.window,
        title=f"BUDGET ALARM: hard limit of the {kind} reached for {scope_words(standing.who)}",
        lines=(
            "Users: not affected; production serves as before. New gates are refused.",
            f"Spent: {standing.spent.words} of {dollars(hard)} in {standing.window.name}.",
            f"Refused: new and resumed runs, until {standing.window.ends} or until the limit is "
            "raised; runs under way stop as HOLD. Rollbacks go on as ever.",
        ),
        asked=(
            f"decide whether gates may wait; if not, {standing.raised_by} can raise "
            f"{kind}_usd.hard of {standing.who} in the budgets file",
        ),
        brief="BUDGET ALARM: users are not affected, new gates refused; "
        f"{standing.who} spent {dollars(standing.spent.total)} of {dollars(hard)} "
        + ("today" if kind == "day" else f"this {kind}"),
    )


def _soft(standing: Standing) -> Finding:
    kind = standing.window.kind
    lines = [
        "Users: not affected; gates go on.",
        f"Spent: {standing.spent.words} in {standing.window.name}; the soft limit is "
        f"{dollars(standing.soft or 0)}.",
    ]
    if standing.hard is not None:
        left = dollars(max(0, standing.hard - standing.spent.total))
        lines.append(
            f"Left: {left} to the hard limit of {dollars(standing.hard)}, at which runs are "
            f"refused until {standing.window.ends}."
        )
    return Finding(
        kind="soft",
        who=standing.who,
        window=standing.window,
        title=f"BUDGET WARNING: soft limit of the {kind} reached for {scope_words(standing.who)}",
        lines=tuple(lines),
        asked=("see what spends it: `imagegate budget` and `imagegate history`",),
    )


def _forecast(standing: Standing, today: date) -> Finding:
    pace = standing.pace
    rate = (
        ""
        if pace is None
        else (
            f" at the pace of the last {pace.days} days ({dollars(round(pace.mean))} a day, "
            f"give or take {dollars(round(pace.spread))})"
        )
    )
    return Finding(
        kind="forecast",
        who=standing.who,
        window=standing.window,
        title=f"BUDGET FORECAST: the {standing.window.kind}'s hard limit of "
        f"{scope_words(standing.who)} will likely be reached",
        lines=(
            "Users: not affected; gates go on.",
            f"Likely day: {forecast_words(standing, today)}{rate}.",
            f"Spent: {standing.spent.words} of {dollars(standing.hard or 0)} in "
            f"{standing.window.name}, which ends {standing.window.ends}.",
        ),
        asked=(f"plan fewer runs, or ask {standing.raised_by} for a higher limit in time",),
    )
