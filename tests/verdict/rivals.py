"""Our rule beside what others do, on the same simulated images: errors, images and money.

All rules see the same streams, and a worse build's stream holds every failure of a better one's
(common random numbers), so differences between rows are the rules' and not luck.

``python -m tests.verdict.rivals`` prints the table, ``--markdown`` as the README wants it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.verdict import rivals_kayenta as kayenta
from tests.verdict.rivals_rules import CAP, Ints, Rule, rules

PRICE = 0.04
RATES = (0.01, 0.02, 0.03, 0.05, 0.12)
RUNS = 20_000
CHUNK = 500


@dataclass
class Row:
    """What one rule did at each true rate: shares of runs, mean images, mean dollars."""

    name: str
    promoted: dict[float, float] = field(default_factory=dict)
    rolled_back: dict[float, float] = field(default_factory=dict)
    images: dict[float, float] = field(default_factory=dict)
    dollars: dict[float, float] = field(default_factory=dict)

    def add(
        self, rate: float, promoted: float, rolled_back: float, images: float, dollars: float
    ) -> None:
        """Take in what it did at one rate."""
        self.promoted[rate], self.rolled_back[rate] = promoted, rolled_back
        self.images[rate], self.dollars[rate] = images, dollars

    def held(self, rate: float) -> float:
        """Return the share of runs that ended without a decision."""
        return abs(1 - self.promoted[rate] - self.rolled_back[rate])


# The streams, and playing the rules on them.


def streams(
    runs: int, seed: int, rates: Sequence[float] = RATES
) -> Iterator[tuple[float, NDArray[np.int16]]]:
    """Yield (rate, failures so far), the latter int16 of shape (up to CHUNK, CAP).

    The same uniform draws stand behind every rate.
    """
    for chunk, start in enumerate(range(0, runs, CHUNK)):
        draws = np.random.default_rng([seed, chunk])
        luck = draws.random((min(CHUNK, runs - start), CAP), dtype=np.float32)
        for rate in rates:
            yield rate, np.cumsum(luck < rate, axis=1, dtype=np.int16)


def play(rule: Rule, failures: NDArray[np.int16]) -> tuple[NDArray[np.int8], Ints]:
    """Return (1 PROMOTE, -1 ROLLBACK, 0 HOLD; images seen) of each run."""
    verdict = np.zeros(len(failures), dtype=np.int8)
    images = np.full(len(failures), rule.looks[-1])
    open_ = np.arange(len(failures))
    # Most runs end early: the later looks are worked out only for those that do not.
    parts = np.searchsorted(rule.looks, (0, 400, 1600, rule.looks[-1] + 1))
    for start, end in pairwise(parts):
        looks = rule.looks[start:end]
        if not len(looks) or not len(open_):
            continue
        if looks[-1] - looks[0] == len(looks) - 1:
            seen = failures[open_, looks[0] - 1 : looks[-1]]
        else:
            seen = failures[np.ix_(open_, looks - 1)]
        back = seen >= rule.rollback[start:end]
        hit = back | (seen <= rule.promote[start:end])
        first = hit.argmax(1)
        row = np.arange(len(open_))
        decided = hit[row, first]
        who = open_[decided]
        images[who] = looks[first[decided]]
        verdict[who] = np.where(back[row, first][decided], -1, 1)
        open_ = open_[~decided]
    return verdict, images


@dataclass(frozen=True)
class Canary:
    """Kayenta's judge beside a production that fails at ``level`` (``None``: as the build does)."""

    name: str
    level: float | None
    size: int = kayenta.POINT_IMAGES

    @property
    def images(self) -> int:
        """Return the candidate's images of one judgement."""
        return kayenta.POINTS * self.size


CANARIES = (
    Canary("Kayenta, production at 1 %", 0.01),
    Canary("Kayenta, production as the build", None),
    Canary("Kayenta, production at 12 %", 0.12),
)


def baseline_points(runs: int, seed: int, rate: float, size: int) -> Ints:
    """Return the baseline's failures of each point, the same luck at every rate."""
    from scipy.stats import binom

    luck = np.random.default_rng([seed, 10**6]).random((runs, kayenta.POINTS))
    return np.searchsorted(binom.cdf(np.arange(size), size, rate), luck)


def table(
    runs: int = RUNS,
    seed: int = 4,
    contestants: Sequence[Rule] | None = None,
    canaries: Sequence[Canary] = CANARIES,
    rates: Sequence[float] = RATES,
) -> tuple[list[Row], str]:
    """Play every rule on the same streams.

    Returns:
        The rows, and their text, for which ``rates`` must hold those of RATES. Dollars of Kayenta
        include its baseline, which it wants to run at the same time as the candidate.
    """
    contestants = rules() if contestants is None else contestants
    rows = [Row(rule.name) for rule in contestants]
    totals = {
        (rule.name, rate): np.zeros(3, dtype=np.int64) for rule in contestants for rate in rates
    }
    sizes = sorted({canary.size for canary in canaries})
    points: dict[tuple[float, int], list[Ints]] = {(r, size): [] for r in rates for size in sizes}
    for rate, failures in streams(runs, seed, rates):
        for rule in contestants:
            verdict, images = play(rule, failures)
            found = ((verdict == 1).sum(), (verdict == -1).sum(), images.sum())
            totals[rule.name, rate] += np.array(found)
        for size in sizes:
            ends = failures[:, size - 1 : kayenta.POINTS * size : size].astype(np.int64)
            points[rate, size].append(np.diff(ends, axis=1, prepend=0))
    for row in rows:
        for rate in rates:
            promoted, rolled_back, images = (totals[row.name, rate] / runs).tolist()
            row.add(rate, promoted, rolled_back, images, PRICE * images)
    for canary in canaries:
        row = Row(canary.name)
        for rate in rates:
            level = rate if canary.level is None else canary.level
            beside = baseline_points(runs, seed, level, canary.size)
            share = kayenta.fails(np.concatenate(points[rate, canary.size]), beside, canary.size)
            failed = float(share.mean())
            row.add(rate, 1 - failed, failed, canary.images, 2 * PRICE * canary.images)
        rows.append(row)
    return rows, render(rows)


HEADINGS = (
    "rule",
    "false rollback at 1 / 2 %",
    "false promotion at 3 / 5 / 12 %",
    "no decision at 1 / 2 / 3 / 5 %",
    "images at 1 / 2 / 3 / 5 / 12 %",
    "dollars at 1 / 12 %",
    "mean images",
    "mean dollars",
)


def cells(row: Row) -> list[str]:
    """Return one row's texts; shares in per cent, means over RATES."""

    def shares(of: Callable[[float], float], rates: Sequence[float]) -> str:
        return " / ".join(f"{100 * of(rate):.1f}" for rate in rates)

    return [
        row.name,
        shares(row.rolled_back.__getitem__, (0.01, 0.02)),
        shares(row.promoted.__getitem__, (0.03, 0.05, 0.12)),
        shares(row.held, (0.01, 0.02, 0.03, 0.05)),
        " / ".join(f"{row.images[rate]:,.0f}" for rate in RATES),
        " / ".join(f"{row.dollars[rate]:,.2f}" for rate in (0.01, 0.12)),
        f"{np.mean([row.images[rate] for rate in RATES]):,.0f}",
        f"{np.mean([row.dollars[rate] for rate in RATES]):,.2f}",
    ]


def render(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Return the rows as text in columns, or as a table in markdown."""
    lines = [list(HEADINGS), *(cells(row) for row in rows)]
    if markdown:
        rule = ["---"] + ["---:"] * (len(HEADINGS) - 1)
        return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def render_by_rate(rows: Sequence[Row], rates: Sequence[float]) -> str:
    """Return what every rule did at every rate: rollbacks, promotions, images."""
    wide = max(len(row.name) for row in rows)
    kinds: dict[str, Callable[[Row, float], str]] = {
        "rolled back, %": lambda row, rate: f"{100 * row.rolled_back[rate]:.1f}",
        "promoted, %": lambda row, rate: f"{100 * row.promoted[rate]:.1f}",
        "mean images": lambda row, rate: f"{row.images[rate]:,.0f}",
    }
    lines: list[str] = []
    for title, text in kinds.items():
        heading = [title, *(f"{100 * rate:g} %" for rate in rates)]
        body = [[row.name, *(text(row, rate) for rate in rates)] for row in rows]
        lines += [
            first.ljust(wide) + "".join(cell.rjust(8) for cell in rest)
            for first, *rest in [heading, *body, [""]]
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    rows, text = table()
    sys.stdout.write((render(rows, markdown=True) if "--markdown" in sys.argv else text) + "\n")
