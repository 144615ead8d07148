"""Daily spend and its limits as a PNG: bars a day above, the sum of each month below."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from PIL import Image, ImageDraw, ImageFont

from tasks.budget.forecast import Pace
from tasks.budget.limits import ALL, Scope
from tasks.budget.windows import WindowKind

_SIZE = (1200, 700)
_LEFT, _RIGHT, _TOP, _GAP, _PANEL = 78, 160, 108, 62, 240
_PAPER, _INK, _DIM, _GRID = (255, 255, 255), (28, 32, 38), (110, 118, 128), (228, 231, 235)
_BAR, _TODAY, _SOFT, _HARD = (74, 122, 184), (150, 182, 222), (196, 132, 0), (190, 40, 46)
_BAND = (216, 226, 240)
#: A limit this many times above everything that is drawn is named, not drawn: bars stay readable.
_FAR = 3.0


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn."""

    who: str
    timezone: str
    #: Local days without gaps and their micro-dollars, oldest first; the last one is today.
    days: Sequence[tuple[date, int]]
    limits: Scope | None
    pace: Pace | None


def draw(plot: Plot) -> bytes:
    """Return the PNG."""
    image = Image.new("RGB", _SIZE, _PAPER)
    pen = ImageDraw.Draw(image)
    first, today = plot.days[0][0], plot.days[-1][0]
    end = (today.replace(day=1) + timedelta(days=31)).replace(day=1)
    across = (end - first).days
    scope = "all products" if plot.who == ALL else plot.who
    _text(pen, (_LEFT, 16), f"imagegate: spend of {scope}", 22)
    _text(
        pen,
        (_LEFT, 48),
        f"{first.isoformat()} to {today.isoformat()}, days of {plot.timezone}; costs that are not "
        "known yet count at their worst price",
        13,
        _DIM,
    )
    daily = _Panel(pen, _TOP, across, first)
    daily.frame("a day", [amount for _, amount in plot.days], _limits(plot, "day"))
    for day, amount in plot.days:
        daily.bar(day, amount, _TODAY if day == today else _BAR)
    daily.draw_limits()
    monthly = _Panel(pen, _TOP + _PANEL + _GAP, across, first)
    sums = _month_sums(plot.days)
    ahead = _ahead(sums[-1][1], today, (end - today).days - 1, plot.pace)
    seen = [amount for _, amount in sums] + [round(likely) for _, likely, _ in ahead]
    monthly.frame("since the month began", seen, _limits(plot, "month"))
    monthly.band(ahead)
    monthly.line(sums)
    monthly.draw_limits()
    monthly.months(end)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _limits(plot: Plot, kind: WindowKind) -> dict[str, int]:
    limits = None if plot.limits is None else plot.limits.limits(kind)
    if limits is None:
        return {}
    pairs = {"soft": limits.soft_microusd, "hard": limits.hard_microusd}
    return {name: value for name, value in pairs.items() if value is not None}


def _month_sums(days: Sequence[tuple[date, int]]) -> list[tuple[date, int]]:
    """Return the running sum of each month at the end of each day."""
    found, total = [], 0
    for day, amount in days:
        total = amount if day.day == 1 else total + amount
        found.append((day, total))
    return found


def _ahead(
    spent: int, today: date, days: int, pace: Pace | None
) -> list[tuple[date, float, float]]:
    """Return what the month will have cost at the end of each day to come: likely, at most."""
    if pace is None:
        return []
    return [
        (
            today + timedelta(days=n),
            spent + pace.cost(n, at_most=False),
            spent + pace.cost(n, at_most=True) if n else float(spent),
        )
        for n in range(days + 1)
    ]


class _Panel:
    """One field of the picture with its scale."""

    def __init__(self, pen: ImageDraw.ImageDraw, top: int, across: int, first: date) -> None:
        self._pen, self._top, self._first = pen, top, first
        self._wide = (_SIZE[0] - _LEFT - _RIGHT) / across
        self._high = 1.0
        self._limits: Mapping[str, int] = {}

    def frame(self, name: str, amounts: Sequence[int], limits: Mapping[str, int]) -> None:
        """Set the scale and draw the grid."""
        most = max([*amounts, 1])
        self._limits = limits
        near = [value for value in limits.values() if value <= _FAR * most]
        step = _step(1.06 * max([most, *near]) / 4)
        self._high = step * math.ceil(1.06 * max([most, *near]) / step)
        for n in range(round(self._high / step) + 1):
            y = self._y(n * step)
            self._pen.line((_LEFT, y, _SIZE[0] - _RIGHT, y), fill=_GRID)
            _text(self._pen, (_LEFT - 8, y), _short(n * step), 13, _DIM, "rm")
        _text(self._pen, (_LEFT, self._top - 16), name, 14, _INK, "lm")

    def bar(self, day: date, amount: int, colour: tuple[int, int, int]) -> None:
        """Draw the spend of a day."""
        if amount > 0:
            x, gap = self._x(day), min(2.0, self._wide / 5)
            top = min(self._y(amount), self._y(0) - 1)
            self._pen.rectangle((x + gap, top, x + self._wide - gap, self._y(0)), fill=colour)

    def line(self, sums: Sequence[tuple[date, int]]) -> None:
        """Draw the running sums; each month begins at nothing."""
        points: list[tuple[float, float]] = []
        for day, amount in sums:
            if day.day == 1 or not points:
                if len(points) > 1:
                    self._pen.line(points, fill=_BAR, width=3, joint="curve")
                # A month whose beginning is not drawn starts where its first day begins.
                points = [(self._x(day), self._y(0 if day.day == 1 else amount))]
            points.append((self._x(day) + self._wide, self._y(amount)))
        self._pen.line(points, fill=_BAR, width=3, joint="curve")

    def band(self, ahead: Sequence[tuple[date, float, float]]) -> None:
        """Draw the days to come: what is likely, dashed, below what 95 of 100 stay below."""
        if len(ahead) < 2:
            return
        likely = [(self._x(d) + self._wide, self._y(v)) for d, v, _ in ahead]
        most = [(self._x(d) + self._wide, self._y(v)) for d, _, v in ahead]
        self._pen.polygon([*likely, *reversed(most)], fill=_BAND)
        for start, stop in itertools.pairwise(likely):
            middle = ((start[0] + stop[0]) / 2, (start[1] + stop[1]) / 2)
            self._pen.line((*start, *middle), fill=_BAR, width=2)

    def draw_limits(self) -> None:
        """Draw the limits with their names; one that is far above is only named."""
        taken: list[float] = []
        right = _SIZE[0] - _RIGHT
        for name, value in sorted(self._limits.items(), key=lambda item: item[1]):
            colour = _HARD if name == "hard" else _SOFT
            if value > self._high:
                y, words = self._top + 8.0, f"{name} {_short(value)}, above"
            else:
                y, words = self._y(value), f"{name} {_short(value)}"
                self._pen.line((_LEFT, y, right, y), fill=colour, width=2)
            while any(abs(y - other) < 17 for other in taken):
                y += 17 if value > self._high else -17
            taken.append(y)
            _text(self._pen, (right + 8, y), words, 14, colour, "lm")

    def months(self, end: date) -> None:
        """Write the months below."""
        day = self._first.replace(day=1)
        while day < end:
            x = max(self._x(day), _LEFT)
            if day >= self._first:
                self._pen.line((x, self._y(0), x, self._y(0) + 6), fill=_DIM)
            if self._x((day + timedelta(days=31)).replace(day=1)) - x > 60:
                _text(self._pen, (x + 4, self._y(0) + 16), f"{day:%Y-%m}", 13, _DIM, "lm")
            day = (day + timedelta(days=31)).replace(day=1)

    def _x(self, day: date) -> float:
        return _LEFT + (day - self._first).days * self._wide

    def _y(self, amount: float) -> float:
        share = min(1.0, max(0.0, amount / self._high))
        return self._top + (1 - share) * _PANEL


def _step(amount: float) -> float:
    """Return a round number at or above an amount of micro-dollars: 1, 2 or 5 times 10ⁿ."""
    power: float = 10.0 ** math.floor(math.log10(max(amount, 1.0)))
    return next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= amount * (1 - 1e-9))


def _short(amount: float) -> str:
    value = amount / 1_000_000
    return f"${value:,.0f}" if value >= 10 or value == int(value) else f"${value:.4g}"


def _text(
    pen: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int] = _INK,
    anchor: str = "la",
) -> None:
    # Pillow's own font holds ASCII, and nothing else is written here.
    pen.text(at, text, fill=colour, font=ImageFont.load_default(size), anchor=anchor)
