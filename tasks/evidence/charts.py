"""Small inline SVG drawings, positioned in per cent so that they stretch without distortion.

Colours come from the style sheet by class, so that light, dark and print share one drawing.
Everything drawn is a number or escaped text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from tasks.evidence.view import ARMS
from tasks.records import Rate


def nice_ceiling(value: float) -> float:
    """Return the next round number at or above ``value``: 1, 2, 2.5 or 5 times a power of ten."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    for step in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0):
        if value <= step * power * (1 + 1e-9):
            return step * power
    return 10 * power


def at(value: float, top: float) -> str:
    """Return where ``value`` lies on an axis from 0 to ``top``, as an SVG per cent figure."""
    share = 0.0 if top <= 0 else min(1.0, max(0.0, value / top))
    return f"{100 * share:.2f}%"


def span(low: float, high: float, top: float) -> str:
    """Return the length from ``low`` to ``high`` on an axis from 0 to ``top``."""
    start, end = (min(1.0, max(0.0, v / top)) if top > 0 else 0.0 for v in (low, high))
    return f"{100 * max(0.0, end - start):.2f}%"


_INTERVAL = Markup(
    '<rect class="interval {arm}" x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}"/>'
)
_DOT = Markup('<circle class="dot {arm}" cx="{x}" cy="{y}" r="{r}"/>')
_LIMIT = Markup('<line class="limit {kind}" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
_TICK = Markup('<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{label}</text>')


def _anchor(share: float) -> str:
    return "start" if share < 0.06 else "end" if share > 0.94 else "middle"


def percent(share: float, digits: int | None = None) -> str:
    """Return a share as a per cent text with as many digits as it deserves."""
    value = 100 * share
    if digits is None:
        digits = 0 if value >= 99.95 or value == 0 else 1 if value >= 0.995 else 2
    return f"{value:.{digits}f} %"


def round_percent(share: float) -> str:
    """Return a share that somebody chose (a limit, a mark on an axis) without idle zeros."""
    return f"{100 * share:.4g} %"


def rate_chart(rates: Sequence[tuple[str, Rate]], limits: Iterable[tuple[str, float]]) -> Markup:
    """Return the failure rates as interval bars with the limits drawn through them.

    Args:
        rates: Arm and rate, drawn from above.
        limits: Kind (a class of the style sheet) and place of each limit line.
    """
    lines = list(limits)
    highest = max(
        [rate.upper if rate.n else 0.0 for _, rate in rates] + [v for _, v in lines] + [0.005]
    )
    top = min(1.0, nice_ceiling(1.08 * highest))
    row, axis = 34, 22
    height = row * len(rates) + axis
    parts = [
        Markup(
            '<svg class="chart rate" width="100%" height="{h}" role="img" aria-label="{a}">'
        ).format(h=height, a="; ".join(f"{arm}: {rate_words(rate)}" for arm, rate in rates))
    ]
    for number, (arm, rate) in enumerate(rates):
        y = row * number + row / 2
        parts.append(
            Markup('<rect class="track" x="0" y="{y}" width="100%" height="16" rx="8"/>').format(
                y=y - 8
            )
        )
        if rate.n:
            parts.append(
                _INTERVAL.format(
                    arm=arm,
                    x=at(rate.lower, top),
                    y=y - 8,
                    w=span(rate.lower, rate.upper, top),
                    h=16,
                    r=8,
                )
            )
        if rate.estimate is not None:
            parts.append(_DOT.format(arm=arm, x=at(rate.estimate, top), y=y, r=6))
    for kind, value in lines:
        parts.append(_LIMIT.format(kind=kind, x=at(value, top), top=1, bottom=height - axis + 4))
    parts += [
        _TICK.format(
            x=at(tick, top), y=height - 4, anchor=_anchor(tick / top), label=round_percent(tick)
        )
        for tick in (0.0, top / 2, top)
    ]
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def rate_words(rate: Rate) -> str:
    """Return a rate in words: estimate, interval and counts."""
    if rate.estimate is None:
        return "no cases"
    unknown = f", {rate.unmeasured} unmeasured" if rate.unmeasured else ""
    return (
        f"{percent(rate.estimate)} ({percent(rate.lower)} to {percent(rate.upper)}), "
        f"{rate.failures} of {rate.n}{unknown}"
    )


def slice_bar(baseline: Rate | None, candidate: Rate | None, limit: float) -> Markup:
    """Return the intervals of both arms of one slice on the axis from 0 to 100 %."""
    parts = [Markup('<svg class="chart slice" width="100%" height="22" aria-hidden="true">')]
    for (arm, rate), y in zip(
        zip(ARMS, (baseline, candidate), strict=True), (5.5, 16.5), strict=True
    ):
        parts.append(
            Markup('<rect class="track" x="0" y="{y}" width="100%" height="5" rx="2.5"/>').format(
                y=y - 2.5
            )
        )
        if rate is None or rate.estimate is None:
            continue
        parts.append(
            _INTERVAL.format(
                arm=arm,
                x=at(rate.lower, 1),
                y=y - 2.5,
                w=span(rate.lower, rate.upper, 1),
                h=5,
                r=2.5,
            )
        )
        parts.append(_DOT.format(arm=arm, x=at(rate.estimate, 1), y=y, r=3.5))
    parts.append(_LIMIT.format(kind="slice-limit", x=at(limit, 1), top=0, bottom=22))
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def value_bars(
    values: Sequence[tuple[str, float | None]], limits: Iterable[tuple[str, float]]
) -> Markup:
    """Return one plain bar an arm on a common axis, with limit lines."""
    lines = list(limits)
    highest = max([v for _, v in values if v is not None] + [v for _, v in lines] + [0.0])
    top = highest * 1.06 if highest > 0 else 1.0
    row = 16
    height = row * len(values)
    parts = [
        Markup('<svg class="chart bars" width="100%" height="{h}" aria-hidden="true">').format(
            h=height
        )
    ]
    for number, (arm, value) in enumerate(values):
        y = row * number + 3
        parts.append(
            Markup('<rect class="track" x="0" y="{y}" width="100%" height="10" rx="5"/>').format(
                y=y
            )
        )
        if value is not None:
            parts.append(
                Markup(
                    '<rect class="bar {arm}" x="0" y="{y}" width="{w}" height="10" rx="5"/>'
                ).format(arm=arm, y=y, w=at(value, top))
            )
    parts += [_LIMIT.format(kind=k, x=at(v, top), top=0, bottom=height) for k, v in lines]
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def share_bars(values: Sequence[tuple[str, float | None]]) -> Markup:
    """Return shares as thin bars on an axis from 0 to 100 %."""
    parts = [Markup('<svg class="chart slice" width="100%" height="18" aria-hidden="true">')]
    for number, (arm, value) in enumerate(values):
        y = 2 + 9 * number
        parts.append(
            Markup('<rect class="track" x="0" y="{y}" width="100%" height="5" rx="2.5"/>').format(
                y=y
            )
        )
        if value:
            parts.append(
                Markup(
                    '<rect class="bar {arm}" x="0" y="{y}" width="{w}" height="5" rx="2.5"/>'
                ).format(arm=arm, y=y, w=at(max(value, 0.012), 1))
            )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def part_of(values: Sequence[tuple[str, float]], whole: float) -> Markup:
    """Return how much of a whole (a cap) the arms took together."""
    parts = [
        Markup('<svg class="chart bars" width="100%" height="16" aria-hidden="true">'),
        Markup('<rect class="track" x="0" y="3" width="100%" height="10" rx="5"/>'),
    ]
    reached = 0.0
    for arm, value in values:
        parts.append(
            Markup('<rect class="bar {arm}" x="{x}" y="3" width="{w}" height="10"/>').format(
                arm=arm, x=at(reached, whole), w=span(reached, reached + value, whole)
            )
        )
        reached += value
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def stacked(parts_of: Sequence[tuple[str, int]], label: str) -> Markup:
    """Return one stacked bar: class name and count of each part."""
    total = sum(count for _, count in parts_of)
    out = [
        Markup(
            '<svg class="chart stack" width="100%" height="30" role="img" aria-label="{a}">'
        ).format(a=label),
        Markup('<rect class="track" x="0" y="2" width="100%" height="26"/>'),
    ]
    reached = 0
    for kind, count in parts_of:
        if not count:
            continue
        out.append(
            Markup(
                '<rect class="part {k}" x="{x}" y="2" width="{w}" height="26"><title>{t}</title>'
                "</rect>"
            ).format(
                k=kind,
                x=at(reached, total),
                w=span(reached, reached + count, total),
                t=f"{kind}: {count} of {total} ({percent(count / total)})",
            )
        )
        if count / total >= 0.035:
            out.append(
                Markup(
                    '<text class="in-part {k}" x="{x}" y="20" text-anchor="middle">{c}</text>'
                ).format(k=kind, x=at(reached + count / 2, total), c=count)
            )
        reached += count
    out.append(Markup("</svg>"))
    return Markup("").join(out)


def ecdf_chart(samples: Sequence[tuple[str, Sequence[float]]], limit: float | None) -> Markup:
    """Return the share of images delivered within t seconds, one line an arm.

    Args:
        samples: Arm and its latencies in seconds.
        limit: Limit on the 95th percentile, drawn where it must not be crossed below 95 %.
    """
    drawn = [(arm, sorted(values)) for arm, values in samples if values]
    if not drawn:
        return Markup("")
    # The slowest half per cent would press everything else against the axis.
    reach = max(_quantile(values, 0.995) for _, values in drawn)
    top = nice_ceiling(1.05 * max([reach] + ([limit] if limit is not None else [])))
    height, axis = 240, 24
    plot = height - axis
    parts = [
        Markup(
            '<svg class="chart ecdf" width="100%" height="{h}" role="img" aria-label="{a}">'
        ).format(h=height, a="Share of images delivered within a number of seconds, by arm")
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 0.95, 1.0):
        y = 8 + (1 - share) * (plot - 8)
        parts.append(
            Markup('<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>').format(y=f"{y:.1f}")
        )
        if share < 1:  # its label would stand on the one of 95 %
            parts.append(
                _TICK.format(x="0%", y=f"{y - 3:.1f}", anchor="start", label=percent(share, 0))
            )
    if limit is not None:
        parts.append(_LIMIT.format(kind="fail", x=at(limit, top), top=8, bottom=plot))
    parts.append(
        Markup(
            '<svg x="0" y="8" width="100%" height="{h}" viewBox="0 0 1000 1000" '
            'preserveAspectRatio="none">'
        ).format(h=plot - 8)
    )
    for arm, values in drawn:
        parts.append(
            Markup('<path class="line {arm}" d="{d}"/>').format(arm=arm, d=_steps(values, top))
        )
    parts.append(Markup("</svg>"))
    for tick in range(5):
        value = top * tick / 4
        parts.append(
            _TICK.format(
                x=at(value, top), y=height - 6, anchor=_anchor(tick / 4), label=f"{value:.3g} s"
            )
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def _steps(ordered: Sequence[float], top: float) -> str:
    """Return the path of an ECDF with at most some 200 points, on a field of 1000 × 1000."""
    count = len(ordered)
    step = max(1, count // 200)
    points = [(0.0, 1000.0)]
    for index in [*range(0, count - 1, step), count - 1]:
        x = 1000 * min(1.0, ordered[index] / top)
        y = 1000 * (1 - (index + 1) / count)
        points += [(x, points[-1][1]), (x, y)]
    points.append((1000.0, points[-1][1]))
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
