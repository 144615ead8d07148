"""Our rule beside what others do, on the same simulated images: errors, images and money.

Every rule is a pair of boundaries over the number of failures, looked at after the images that it
looks at; all of them see the same streams, and a worse build's stream holds every failure of a
better one's (common random numbers), so differences between rows are the rules' and not luck.

``python -m tests.verdict.rivals`` prints the table, ``--markdown`` as the README wants it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.sequential import FailureTest, Mode, fail_bets, log_e, pass_bets
from tests.verdict import rivals_kayenta as kayenta

LIMIT, PROMOTE_BELOW = 0.02, 0.03
ALPHA = BETA = 0.05
GOOD, BAD = 0.01, 0.05  # what the fixed-size designs are sized for
POWER = 0.80
CAP = 5000
SHARD = 64
PRICE = 0.04
RATES = (0.01, 0.02, 0.03, 0.05, 0.12)
RUNS = 20_000
CHUNK = 500
NEVER = np.int16(np.iinfo(np.int16).max)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """What a rule does with the failures among the images at each of its looks.

    Attributes:
        name: Its name in the table.
        looks: After how many images it looks, rising, shape (L,). After the last one it holds.
        promote: Most failures that are a PROMOTE at each look; -1 for none.
        rollback: Fewest failures that are a ROLLBACK at each look; NEVER for none.
    """

    name: str
    looks: Ints
    promote: NDArray[np.int16]
    rollback: NDArray[np.int16]


@dataclass
class Row:
    """What one rule did at each true rate: shares of runs, mean images, mean dollars."""

    name: str
    promoted: dict[float, float] = field(default_factory=dict)
    rolled_back: dict[float, float] = field(default_factory=dict)
    images: dict[float, float] = field(default_factory=dict)
    dollars: dict[float, float] = field(default_factory=dict)

    def held(self, rate: float) -> float:
        """Return the share of runs that ended without a decision."""
        return abs(1 - self.promoted[rate] - self.rolled_back[rate])


# The rules.


def every_image(last: int = CAP, first: int = 1) -> Ints:
    """Return looks after each image."""
    return np.arange(first, last + 1)


def every_shard(last: int = CAP) -> Ints:
    """Return looks after each shard, the last one shorter where need be."""
    looks = np.arange(SHARD, last + 1, SHARD)
    return looks if looks[-1] == last else np.append(looks, last)


def ours(mode: Mode, looks: Ints, name: str) -> Rule:
    """Return our rule's boundaries, found by halving: evidence is monotone in the failures."""
    test = FailureTest(LIMIT, PROMOTE_BELOW, ALPHA, BETA, n_max=CAP, mode=mode)
    passing, failing = pass_bets(PROMOTE_BELOW), fail_bets(LIMIT)
    promote = _most(looks, lambda k: log_e(passing, looks, k) >= test.pass_at)
    rollback = _most(looks, lambda k: log_e(failing, looks, k) < test.fail_at) + 1
    return Rule(name, looks, _small(promote), _small(rollback))


def _most(looks: Ints, holds: Callable[[Ints], NDArray[np.bool_]]) -> Ints:
    """Return the most failures, up to all images, for which it holds; -1 when for none."""
    low, high = np.full(len(looks), -1), looks + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        # Neighbours are settled: ask about a possible number and keep what is known.
        open_ = high - low > 1
        yes = holds(np.clip(middle, 0, looks)) & open_
        low, high = np.where(yes, middle, low), np.where(yes | ~open_, high, middle)
    return low


def _small(numbers: Ints) -> NDArray[np.int16]:
    return np.minimum(numbers, NEVER).astype(np.int16)


def clopper_pearson(n: int | None = None) -> Rule:
    """Return exact one-sided bounds at one number of images (Clopper and Pearson 1934).

    Args:
        n: Images; by default the fewest with which a build at GOOD is promoted and one at BAD is
            rolled back with POWER.
    """
    n = fixed_size() if n is None else n
    promote, rollback = _exact_bounds(np.array([n]))
    return Rule(f"Clopper-Pearson at n = {n}", np.array([n]), _small(promote), _small(rollback))


def _exact_bounds(n: Ints) -> tuple[Ints, Ints]:
    """Return most failures with upper bound < b, and fewest with lower bound > g, at each n."""
    from scipy.stats import binom

    promote = binom.ppf(BETA, n, PROMOTE_BELOW).astype(int)
    promote = np.where(binom.cdf(promote, n, PROMOTE_BELOW) < BETA, promote, promote - 1)
    # P(X >= k) < alpha first at k = ppf(1 - alpha) + 1, unless it only just equals alpha.
    rollback = binom.ppf(1 - ALPHA, n, LIMIT).astype(int) + 1
    rollback = np.where(binom.sf(rollback - 1, n, LIMIT) < ALPHA, rollback, rollback + 1)
    return promote, rollback


@lru_cache
def fixed_size() -> int:
    """Return the least n with both powers; they saw, so some n above have less again."""
    from scipy.stats import binom

    n = np.arange(1, CAP + 1)
    promote, rollback = _exact_bounds(n)
    good = binom.cdf(promote, n, GOOD) >= POWER
    bad = binom.sf(rollback - 1, n, BAD) >= POWER
    return int(n[good & bad][0])


def point_estimate(looks: Ints, name: str) -> Rule:
    """Return the rule of thumb: ROLLBACK at any look above 2 %, PROMOTE if the last is not."""
    most = np.floor(LIMIT * looks + 1e-9).astype(int)
    promote = np.full(len(looks), -1)
    promote[-1] = most[-1]
    return Rule(name, looks, _small(promote), _small(most + 1))


def wald(p0: float, p1: float) -> Rule:
    """Return Wald's SPRT of p0 against p1 with his approximate thresholds (Wald 1945)."""
    looks = every_image()
    up = math.log(p1 * (1 - p0) / (p0 * (1 - p1)))  # what a failure adds beyond a success
    drift = looks * math.log((1 - p1) / (1 - p0))
    promote = np.floor((math.log(BETA / (1 - ALPHA)) - drift) / up + 1e-12)
    rollback = np.ceil((math.log((1 - BETA) / ALPHA) - drift) / up - 1e-12)
    name = f"Wald's SPRT, {100 * p0:g} % against {100 * p1:g} %"
    return Rule(name, looks, _small(np.maximum(promote, -1).astype(int)), _small(rollback))


def obrien_fleming(looks: int = 5) -> Rule:
    """Return a group-sequential design: z at look j against C sqrt(looks / j), both ways.

    O'Brien and Fleming 1979; z from the normal approximation at the boundary rate, as in
    Jennison and Turnbull 2000, chapters 2.3 and 12.1. Sized as ``clopper_pearson``, times the
    design's inflation.
    """
    constant = boundary_constant(looks, ALPHA)
    last = math.ceil(fixed_size() * inflation(looks, ALPHA, POWER) / looks) * looks
    n = np.arange(1, looks + 1) * last // looks
    edge = constant * np.sqrt(looks / np.arange(1, looks + 1))
    rollback = np.ceil(n * LIMIT + edge * np.sqrt(n * LIMIT * (1 - LIMIT)))
    below = np.sqrt(n * PROMOTE_BELOW * (1 - PROMOTE_BELOW))
    promote = np.maximum(np.floor(n * PROMOTE_BELOW - edge * below), -1)
    name = f"O'Brien-Fleming, {looks} looks to {last}"
    return Rule(name, n, _small(promote.astype(int)), _small(rollback.astype(int)))


def crossing(constant: float, looks: int, drift: float = 0.0) -> float:
    """Return the probability that a walk of ``looks`` N(drift, 1) steps reaches C sqrt(looks).

    By the recursion of Armitage, McPherson and Rowe 1969 on Gauss-Legendre points.
    """
    edge = constant * math.sqrt(looks)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low = -9.0 * math.sqrt(looks)
    places, weights = (edge - low) / 2 * nodes + (edge + low) / 2, (edge - low) / 2 * weights

    def bell(x: Floats) -> Floats:
        return np.exp(-((x - drift) ** 2) / 2) / math.sqrt(2 * math.pi)

    step = bell(places[:, None] - places[None, :])
    alive = bell(places)
    for _ in range(looks - 1):
        alive = step @ (weights * alive)
    return 1 - float(weights @ alive)


@lru_cache
def boundary_constant(looks: int, alpha: float) -> float:
    """Return O'Brien and Fleming's one-sided C for that many looks."""
    from scipy.optimize import brentq

    return float(brentq(lambda c: crossing(c, looks) - alpha, 0.5, 6, xtol=1e-10))


def inflation(looks: int, alpha: float, power: float) -> float:
    """Return largest sample of the design over the fixed sample of the same power."""
    from scipy.optimize import brentq

    constant = boundary_constant(looks, alpha)
    drift = brentq(lambda d: crossing(constant, looks, d) - power, 0.0, 6, xtol=1e-10)
    normal = NormalDist()
    fixed = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return looks * float(drift) ** 2 / fixed**2


def rules() -> list[Rule]:
    """Return ours and the rivals that are boundaries, in the table's order."""
    n = fixed_size()
    return [
        ours("anytime", every_image(), "imagegate anytime, each image"),
        ours("calibrated", every_image(), "imagegate calibrated, each image"),
        ours("anytime", every_shard(), f"imagegate anytime, shards of {SHARD}"),
        clopper_pearson(),
        point_estimate(np.array([n]), f"over 2 %, one look at {n}"),
        point_estimate(every_shard(n), f"over 2 %, shards of {SHARD} to {n}"),
        point_estimate(every_image(n, 50), f"over 2 %, each image, 50 to {n}"),
        wald(GOOD, PROMOTE_BELOW),
        wald(LIMIT, PROMOTE_BELOW),
        obrien_fleming(),
    ]


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


def baseline_points(runs: int, seed: int, rate: float) -> Ints:
    """Return the baseline's failures of each point for Kayenta, the same luck at every rate."""
    from scipy.stats import binom

    luck = np.random.default_rng([seed, 10**6]).random((runs, kayenta.POINTS))
    size = kayenta.POINT_IMAGES
    return np.searchsorted(binom.cdf(np.arange(size), size, rate), luck)


KAYENTA: dict[str, float | None] = {
    "Kayenta, production at 1 %": 0.01,
    "Kayenta, production as the build": None,
    "Kayenta, production at 12 %": 0.12,
}


def table(
    runs: int = RUNS,
    seed: int = 4,
    contestants: Sequence[Rule] | None = None,
    rates: Sequence[float] = RATES,
) -> tuple[list[Row], str]:
    """Play every rule on the same streams.

    Returns:
        The rows, and their text. Dollars of Kayenta include its baseline, which it wants to run
        at the same time as the candidate.
    """
    contestants = rules() if contestants is None else contestants
    rows = {rule.name: Row(rule.name) for rule in contestants}
    promoted = {(rule.name, rate): 0 for rule in contestants for rate in rates}
    rolled, paid = dict(promoted), dict(promoted)
    ends = np.arange(1, kayenta.POINTS + 1) * kayenta.POINT_IMAGES - 1
    points: dict[float, list[Ints]] = {rate: [] for rate in rates}
    for rate, failures in streams(runs, seed, rates):
        for rule in contestants:
            verdict, images = play(rule, failures)
            promoted[rule.name, rate] += int((verdict == 1).sum())
            rolled[rule.name, rate] += int((verdict == -1).sum())
            paid[rule.name, rate] += int(images.sum())
        points[rate].append(np.diff(failures[:, ends].astype(np.int64), axis=1, prepend=0))
    for name, row in rows.items():
        for rate in rates:
            row.promoted[rate] = promoted[name, rate] / runs
            row.rolled_back[rate] = rolled[name, rate] / runs
            row.images[rate] = paid[name, rate] / runs
            row.dollars[rate] = PRICE * row.images[rate]
    for name, level in KAYENTA.items():
        rows[name] = row = Row(name)
        for rate in rates:
            beside = baseline_points(runs, seed, rate if level is None else level)
            failed = kayenta.fails(np.concatenate(points[rate]), beside)
            row.rolled_back[rate] = float(failed.mean())
            row.promoted[rate] = 1 - row.rolled_back[rate]
            row.images[rate] = kayenta.POINTS * kayenta.POINT_IMAGES
            row.dollars[rate] = 2 * PRICE * row.images[rate]
    found = list(rows.values())
    return found, render(found)


HEADINGS = (
    "rule",
    "false rollback at 1 / 2 %",
    "false promotion at 3 / 5 / 12 %",
    "no decision at 1 / 2 / 3 / 5 %",
    "images at 1 / 3 / 5 / 12 %",
    "dollars at 1 / 12 %",
    "mean images",
    "mean dollars",
)


def cells(row: Row) -> list[str]:
    """Return one row's texts; shares in per cent, means over all true rates."""

    def shares(of: Callable[[float], float], rates: Sequence[float]) -> str:
        return " / ".join(f"{100 * of(rate):.1f}" for rate in rates)

    return [
        row.name,
        shares(row.rolled_back.__getitem__, (0.01, 0.02)),
        shares(row.promoted.__getitem__, (0.03, 0.05, 0.12)),
        shares(row.held, (0.01, 0.02, 0.03, 0.05)),
        " / ".join(f"{row.images[rate]:,.0f}" for rate in (0.01, 0.03, 0.05, 0.12)),
        " / ".join(f"{row.dollars[rate]:,.2f}" for rate in (0.01, 0.12)),
        f"{sum(row.images.values()) / len(row.images):,.0f}",
        f"{sum(row.dollars.values()) / len(row.dollars):,.2f}",
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


if __name__ == "__main__":
    rows, text = table()
    sys.stdout.write((render(rows, markdown=True) if "--markdown" in sys.argv else text) + "\n")
