"""On which day a limit will be reached at the present pace; pure.

Method. The pace is the mean spend m of the last 14 whole local days (fewer since the first run;
fewer than three say nothing), days without spend included. n further days cost n·m: the *likely*
day is the first at whose end the limit is reached. Days differ, with standard deviation s, and the
mean of k days is itself uncertain: n further days cost up to n·m + 1.645·s·√(n + n²/k) in 95 of 100
cases (prediction of a sum of independent days), which gives the *earliest* day. Today counts with
what it has cost already, or with the pace when that is more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from tasks.budget.windows import Window

#: Whole days that the pace looks back.
MOST_DAYS = 14
#: Fewer whole days say nothing.
FEWEST_DAYS = 3
#: One-sided 95 % quantile of the normal distribution.
_Z = 1.645


@dataclass(frozen=True, slots=True)
class Pace:
    """Spend a day, in micro-dollars."""

    mean: float
    #: Standard deviation of a day.
    spread: float
    #: Whole days looked at.
    days: int

    def cost(self, days: int, *, at_most: bool) -> float:
        """Return what further days cost: the mean, or what 95 of 100 stay below."""
        expected = days * self.mean
        if not at_most:
            return expected
        return expected + _Z * self.spread * math.sqrt(days + days * days / self.days)


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a limit will be reached; a day is ``None`` when it is not before the window's end."""

    likely: date | None
    #: 19 of 20 times it is not before this day.
    earliest: date | None


def pace_of(days: Sequence[int]) -> Pace | None:
    """Return the pace of whole days, or ``None`` when they are fewer than three.

    Args:
        days: Micro-dollars of each whole day before today since the first run, oldest first, days
            without spend included; the last 14 count.
    """
    looked_at = days[-MOST_DAYS:]
    count = len(looked_at)
    if count < FEWEST_DAYS:
        return None
    mean = sum(looked_at) / count
    variance = sum((day - mean) ** 2 for day in looked_at) / (count - 1)
    return Pace(mean, math.sqrt(variance), count)


def forecast(
    limit: int, spent: int, spent_today: int, today: date, window: Window, pace: Pace | None
) -> Forecast | None:
    """Return when the limit of a window will be reached.

    Args:
        limit: The limit, in micro-dollars.
        spent: What the window has cost until now, today included.
        spent_today: What today has cost of it until now.
        today: The local day.
        window: The window; it holds ``today``.
        pace: What a day costs; ``None`` when that is not known.

    Returns:
        The days, never before ``today``; ``None`` when nothing can be said.
    """
    if spent >= limit:
        return Forecast(today, today)
    if pace is None:
        return None
    before = spent - spent_today
    found: dict[bool, date | None] = {False: None, True: None}
    for at_most in found:
        for ahead in range((window.after - today).days):
            further = max(
                spent_today + pace.cost(ahead, at_most=at_most),
                pace.cost(ahead + 1, at_most=at_most),
            )
            if before + further >= limit:
                found[at_most] = today + timedelta(days=ahead)
                break
    return Forecast(likely=found[False], earliest=found[True])
