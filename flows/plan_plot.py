"""The pictures of ``imagegate plan`` and ``imagegate simulate``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.canvas import DIM, GRID, INK, Canvas, Point, canvas
from flows.figures import chosen
from tasks.evidence.charts import nice_ceiling
from tasks.verdict.planning import Row

_WIDE, _HIGH = 1200, 780
_LEFT, _RIGHT = 86, 96
_BLUE, _BAND, _RED, _GREEN = "#2f62a8", "#d8e2f0", "#be282e", "#1f7a3d"
#: Fields of the odds: promoted below, held between, rolled back above.
_FIELDS = (("PROMOTE", "#8cc79b"), ("HOLD", "#f0d58c"), ("ROLLBACK", "#e39a94"))
#: True rates that the axis may name.
_NAMED = tuple(digit * 10.0**power for power in range(-6, 0) for digit in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Panel:
    """A field of the picture with its two scales."""

    top: float
    bottom: float
    #: From a value on the horizontal axis to 0 .. 1.
    across: Callable[[float], float]
    #: The value at the upper edge; the lower one is 0.
    most: float

    def at(self, x: float, y: float) -> Point:
        """Return the place of a point, inside the panel."""
        share = min(1.0, max(0.0, self.across(x)))
        rise = min(1.0, max(0.0, y / self.most))
        return (
            _LEFT + share * (_WIDE - _LEFT - _RIGHT),
            self.bottom - rise * (self.bottom - self.top),
        )


def draw_plan(
    rows: Sequence[Row],
    *,
    kind: str,
    limit: float,
    promote_below: float,
    expected: Row | None,
    cap: int,
    price: float,
    what: str,
) -> bytes:
    """Return images and odds over the true failure rate.

    Args:
        rows: By rising true rates, all above 0.
        kind: ``.svg`` or ``.png``.
        limit: Threshold of ROLLBACK.
        promote_below: Threshold of PROMOTE.
        expected: The row that the user expects.
        cap: Most images of a run.
        price: Dollars an image.
        what: Line below the title.
    """
    pen = canvas(kind, _WIDE, _HIGH)
    low, high = math.log(rows[0].rate), math.log(rows[-1].rate)

    def across(rate: float) -> float:
        return (math.log(max(rate, 1e-12)) - low) / (high - low)

    pen.text((_LEFT, 30), "imagegate plan: images and odds by the true failure rate", 22, INK)
    pen.text((_LEFT, 60), what, 14)
    images = Panel(124, 400, across, nice_ceiling(max(row.p90 for row in rows)))
    odds = Panel(476, 700, across, 1.0)
    _levels(pen, images, price)
    pen.field(
        [images.at(r.rate, r.p90) for r in rows]
        + [images.at(r.rate, r.p10) for r in reversed(rows)],
        _BAND,
    )
    _grid(pen, images)
    pen.line([images.at(row.rate, row.images) for row in rows], _BLUE, 3)
    pen.text((_LEFT, 104), "images to a decision: mean, and 8 of 10 gates (band)", 14, INK)
    pen.text((_WIDE - _RIGHT, 104), f"dollars of the candidate at ${price:g}", 14, DIM, "end")
    pen.text((_LEFT, 456), f"how gates end, with {cap:,} images at most", 14, INK)
    _stack(pen, odds, [(r.rate, r.promote, r.rollback) for r in rows])
    _shares(pen, odds)
    for rate in _NAMED:
        if rows[0].rate * 0.999 <= rate <= rows[-1].rate * 1.001:
            x, y = odds.at(rate, 0)
            pen.line([(x, y), (x, y + 6)], DIM)
            pen.text((x, y + 18), chosen(rate), 13, DIM, "middle")
    pen.text(((_LEFT + _WIDE - _RIGHT) / 2, _HIGH - 30), "true failure rate", 14, DIM, "middle")
    _marks(pen, images, odds, limit, promote_below, expected)
    return pen.data()


def _marks(
    pen: Canvas, images: Panel, odds: Panel, limit: float, promote_below: float, mine: Row | None
) -> None:
    """Draw the thresholds and the expected rate through both panels, with their names between."""
    strict = promote_below - limit < 1e-12
    first = f"ROLLBACK above, PROMOTE below {chosen(limit)}" if strict else None
    for rate, colour, words, anchor in (
        (limit, _RED, first or f"ROLLBACK above {chosen(limit)}", "end"),
        (promote_below, _GREEN, None if strict else f"PROMOTE below {chosen(promote_below)}", ""),
    ):
        if words is None:
            continue
        for panel in (images, odds):
            pen.line([panel.at(rate, 0), panel.at(rate, panel.most)], colour, 2, dashed=True)
        x = images.at(rate, 0)[0]
        side = -6 if anchor else 6
        pen.text((x + side, 418), words, 13, colour, "end" if anchor else "start")
    if mine is None or not 0 <= images.across(mine.rate) <= 1:
        return
    for panel in (images, odds):
        pen.line([panel.at(mine.rate, 0), panel.at(mine.rate, panel.most)], _BLUE, 2, dashed=True)
    x, y = images.at(mine.rate, mine.images)
    pen.field([(x - 6, y), (x, y - 6), (x + 6, y), (x, y + 6)], _BLUE)
    words = f"{chosen(mine.rate)}: {mine.images:,.0f} images"
    pen.text(
        (x - 12, y - 16), words, 15, INK, "end" if images.across(mine.rate) > 0.25 else "start"
    )


def draw_ended(
    ended: Sequence[tuple[int, float, float]], *, kind: str, cap: int, title: str, what: str
) -> bytes:
    """Return how many gates have been promoted and rolled back by each number of images.

    Args:
        ended: Images, share promoted by then, share rolled back by then; rising.
        kind: ``.svg`` or ``.png``.
        cap: Right end of the axis at least.
        title: First line.
        what: Line below it.
    """
    pen = canvas(kind, _WIDE, _HIGH)
    top = max(cap, ended[-1][0])
    panel = Panel(124, 690, lambda images: images / top, 1.0)
    pen.text((_LEFT, 30), title, 22, INK)
    pen.text((_LEFT, 60), what, 14)
    pen.text((_LEFT, 104), "verdicts by then; HOLD is what has not decided yet", 14, INK)
    steps: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)]
    for count, promote, rollback in ended:
        # Nothing happens between two looks.
        steps += [(count, *steps[-1][1:]), (count, promote, rollback)]
    steps.append((top, *steps[-1][1:]))
    _stack(pen, panel, steps)
    _shares(pen, panel)
    step = nice_ceiling(top / 8)
    for n in range(int(top / step) + 1):
        x, y = panel.at(n * step, 0)
        pen.line([(x, y), (x, y + 6)], DIM)
        pen.text((x, y + 18), f"{n * step:,.0f}", 13, DIM, "middle")
    middle = (_LEFT + _WIDE - _RIGHT) / 2
    pen.text((middle, _HIGH - 36), "images of the candidate", 14, DIM, "middle")
    return pen.data()


def _stack(pen: Canvas, panel: Panel, points: Sequence[tuple[float, float, float]]) -> None:
    """Fill the shares: promoted from below, rolled back from above, the rest between.

    Names with their colours stand above the panel at the right.
    """
    edges = [(x, 0.0, low, 1 - high, 1.0) for x, low, high in points]
    right = float(_WIDE - _RIGHT)
    for number, (name, colour) in reversed(list(enumerate(_FIELDS))):
        lower = [panel.at(edge[0], edge[number + 1]) for edge in edges]
        upper = [panel.at(edge[0], edge[number + 2]) for edge in edges]
        pen.field([*upper, *reversed(lower)], colour)
        y = panel.top - 20
        pen.text((right, y), name, 14, INK, "end")
        right -= 9.0 * len(name) + 12
        pen.field(
            [(right - 14, y - 7), (right, y - 7), (right, y + 7), (right - 14, y + 7)], colour
        )
        right -= 34


def _levels(pen: Canvas, panel: Panel, price: float) -> None:
    for n in range(5):
        value = panel.most * n / 4
        y = panel.at(0, value)[1]
        pen.text((_LEFT - 10, y), f"{value:,.0f}", 13, DIM, "end")
        cost = value * price
        words = f"${cost:,.0f}" if cost >= 100 or cost == int(cost) else f"${cost:,.2f}"
        pen.text((_WIDE - _RIGHT + 10, y), words, 13, DIM)


def _shares(pen: Canvas, panel: Panel) -> None:
    for n in range(5):
        y = panel.at(0, n / 4)[1]
        pen.text((_LEFT - 10, y), f"{25 * n} %", 13, DIM, "end")
    _grid(pen, panel)


def _grid(pen: Canvas, panel: Panel) -> None:
    for n in range(5):
        y = panel.at(0, panel.most * n / 4)[1]
        pen.line([(_LEFT, y), (_WIDE - _RIGHT, y)], GRID)
