"""What the evidence costs: folding observations in, a decision over many slices, thresholds.

Rows of a group do the same work on the same data, so their ratios hold on any machine; the two
promises in seconds (10 million observations in one, 200 slices in 5 ms) are asserted on the best
round.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.verdict.calibration import calibrate
from tasks.verdict.decide import decide
from tasks.verdict.paired import PairedTest
from tasks.verdict.sequential import (
    Bets,
    FailureTest,
    Wealth,
    bounded_fail_bets,
    bounded_pass_bets,
    fail_bets,
    log_e,
    log_e_counts,
)
from tasks.verdict.slices import SliceCount, SliceTests, judge
from tests.conftest import Command
from tests.verdict import rivals, rivals_rules
from tests.verdict.test_decide import gate, piece

MANY = 10_000_000
FEW = 20_000
SLICES = 200
FOLD_S = 1.0
DECISION_S = 0.005


def best_is_below(benchmark: Any, seconds: float) -> None:
    """Check the best round, where rounds were measured at all."""
    if benchmark.stats is not None:
        best = benchmark.stats.stats.min
        assert best < seconds, f"took {best:.4f} s; promised is below {seconds} s"


# Ten million observations.


@pytest.fixture(scope="module")
def failed() -> NDArray[np.bool_]:
    return np.random.default_rng(1).random(MANY, dtype=np.float32) < 0.0205


@pytest.fixture(scope="module")
def costs() -> NDArray[np.float64]:
    return np.random.default_rng(2).random(MANY)


@pytest.fixture(scope="module")
def differences() -> NDArray[np.int8]:
    luck = np.random.default_rng(3).random(MANY, dtype=np.float32)
    return (luck < 0.02).astype(np.int8) - (luck > 0.98).astype(np.int8)


def bench_failures_in_one_look(benchmark: Any, failed: NDArray[np.bool_]) -> None:
    benchmark.group = "10 million observations"

    def fold() -> float:
        test = FailureTest()
        test.update(int(np.count_nonzero(failed)), len(failed))
        return test.log_e_fail

    assert math.isfinite(benchmark(fold))
    best_is_below(benchmark, FOLD_S)


def bench_failures_in_1_000_looks(benchmark: Any, failed: NDArray[np.bool_]) -> None:
    benchmark.group = "10 million observations"
    shards = failed.reshape(1_000, -1)

    def fold() -> int:
        test = FailureTest()
        for shard in shards:
            test.update(int(np.count_nonzero(shard)), len(shard))
            # A decided test stops working out its evidence; here every look shall pay for it.
            assert math.isfinite(test.log_e_pass + test.log_e_fail)
        return test.images

    assert benchmark.pedantic(fold, rounds=3, warmup_rounds=1) == MANY
    best_is_below(benchmark, FOLD_S)


def bench_bounded_floats(benchmark: Any, costs: NDArray[np.float64]) -> None:
    benchmark.group = "10 million observations"

    def fold() -> float:
        wealth = Wealth(bounded_pass_bets(0.5, 0.0, 1.0))
        wealth.update(costs)
        return wealth.log_e

    assert math.isfinite(benchmark.pedantic(fold, rounds=5, warmup_rounds=1))
    best_is_below(benchmark, FOLD_S)


def bench_paired_differences_as_floats(benchmark: Any, differences: NDArray[np.int8]) -> None:
    benchmark.group = "10 million observations"

    def fold() -> float:
        wealth = Wealth(bounded_fail_bets(0.02, -1.0, 1.0))
        wealth.update(differences)
        return wealth.log_e

    assert math.isfinite(benchmark.pedantic(fold, rounds=5, warmup_rounds=1))
    best_is_below(benchmark, FOLD_S)


def bench_paired_test(benchmark: Any, differences: NDArray[np.int8]) -> None:
    benchmark.group = "10 million observations"

    def fold() -> float:
        test = PairedTest()
        test.update(differences)
        return test.log_e_pass

    assert math.isfinite(benchmark.pedantic(fold, rounds=5, warmup_rounds=1))
    best_is_below(benchmark, FOLD_S)


# The same engine, four ways.


def plain_python(bets: Bets, values: list[float]) -> float:
    """Return log E by the formula as it stands, one observation and one bet at a time."""
    stakes, mean = bets.lambdas.tolist(), bets.mean
    logs = [0.0] * len(stakes)
    for value in values:
        for k, stake in enumerate(stakes):
            logs[k] += math.log1p(stake * (value - mean))
    terms = [log + weight for log, weight in zip(logs, bets.log_weights.tolist(), strict=True)]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def by_wealth(bets: Bets, values: NDArray[np.float64]) -> float:
    wealth = Wealth(bets)
    wealth.update(values)
    return wealth.log_e


def by_wealth_one_at_a_time(bets: Bets, values: list[float]) -> float:
    wealth = Wealth(bets)
    for value in values:
        wealth.update(value)
    return wealth.log_e


def by_counts(bets: Bets, values: NDArray[np.float64]) -> float:
    return float(log_e(bets, len(values), int(np.count_nonzero(values))))


def by_values(bets: Bets, values: NDArray[np.float64]) -> float:
    seen, counts = np.unique(values, return_counts=True)
    return log_e_counts(bets, seen.tolist(), counts.tolist())


WAYS: dict[str, tuple[Callable[..., float], bool]] = {
    "plain Python": (plain_python, True),
    "Wealth, one at a time": (by_wealth_one_at_a_time, True),
    "Wealth": (by_wealth, False),
    "log_e_counts": (by_values, False),
    "log_e": (by_counts, False),
}


@pytest.mark.parametrize("way", WAYS)
def bench_engine(benchmark: Any, way: str) -> None:
    benchmark.group = f"{FEW:,} indicators: the same evidence, another way"
    fold, listed = WAYS[way]
    bets = fail_bets(0.02)
    values = (np.random.default_rng(4).random(FEW) < 0.021).astype(float)
    found = benchmark.pedantic(
        fold, args=(bets, values.tolist() if listed else values), rounds=3, warmup_rounds=1
    )
    assert found == pytest.approx(by_counts(bets, values), abs=1e-8)


# A decision over many slices.


def counts_of_slices() -> tuple[SliceTests, list[SliceCount]]:
    """Return 200 slices of a good build, five of them critical, one bad."""
    names = tuple(f"locale={number:03d}" for number in range(SLICES))
    tests = SliceTests(names, limit=0.05, alpha=0.025, amber_alpha=0.05, critical=names[:5])
    failures = np.random.default_rng(5).binomial(60, 0.01, SLICES)
    failures[7] = 30
    counts = [SliceCount(name, 60, int(bad)) for name, bad in zip(names, failures, strict=True)]
    return tests, counts


def bench_200_slices(benchmark: Any) -> None:
    benchmark.group = "200 slices"
    tests, counts = counts_of_slices()
    results = benchmark(judge, tests, counts, bounds=False)
    assert [one.name for one in results if one.failed] == ["locale=007"]
    best_is_below(benchmark, DECISION_S)


def bench_200_slices_with_their_limits(benchmark: Any) -> None:
    """What the report asks for on top: confidence limits of slices that failed or are critical."""
    benchmark.group = "200 slices"
    tests, counts = counts_of_slices()
    results = benchmark(judge, tests, counts)
    assert sum(one.failed for one in results) == 1


def bench_200_slices_one_test_each(benchmark: Any) -> None:
    """The yardstick: the same evidence by one test a slice."""
    benchmark.group = "200 slices"
    tests, counts = counts_of_slices()
    shares = tests.shares()

    def one_by_one() -> list[str]:
        return [
            count.name
            for count, share in zip(counts, shares, strict=True)
            if FailureTest(tests.limit, tests.limit, tests.alpha * share).update(
                count.failures, count.images
            )
            == "ROLLBACK"
        ]

    assert benchmark(one_by_one) == ["locale=007"]


@pytest.mark.parametrize("bounds", [False, True], ids=["at a look", "for a reader"])
@pytest.mark.parametrize("verdict", ["PROMOTE", "ROLLBACK"])
def bench_decide(benchmark: Any, verdict: str, bounds: bool) -> None:
    """The whole decision; the ends of confidence sequences are only worked out for a reader."""
    benchmark.group = "200 slices"
    tests, counts = counts_of_slices()
    pieces = tuple(
        piece(count.name, count.failures if verdict == "ROLLBACK" else 0, count.images)
        for count in counts
    )
    images = sum(count.images for count in counts)
    state = gate(
        sum(one.rate.failures for one in pieces),
        images,
        slices=pieces,
        judged=tests.names,
        drawn_cases=images,
    )
    assert benchmark(decide, state, bounds=bounds).verdict == verdict
    if not bounds:
        best_is_below(benchmark, DECISION_S)


# Thresholds, the command that plans, and the rivals.


@pytest.mark.parametrize("n_max", [500, 5000])
@pytest.mark.parametrize("rule", [(0.02, 0.03), (0.02, 0.02)], ids=["2 and 3 %", "2 and 2 %"])
def bench_calibrate(benchmark: Any, rule: tuple[float, float], n_max: int) -> None:
    benchmark.group = "calibrated thresholds, once a process"

    def anew() -> tuple[float, float]:
        calibrate.cache_clear()
        return calibrate(*rule, 0.05, 0.05, n_max)

    log_pass, log_fail = benchmark.pedantic(anew, rounds=3)
    assert 0 < log_pass <= math.log(20)
    assert 0 < log_fail <= math.log(20)


@pytest.mark.parametrize(
    "what", ["--help", "plan --help", "plan --limit 2% --promote-below 3% --price 0.04"]
)
def bench_plan(benchmark: Any, light_imagegate: Command, what: str) -> None:
    benchmark.group = "imagegate plan, whole processes"
    done = benchmark.pedantic(light_imagegate, args=tuple(what.split()), rounds=3)
    assert done.code == 0, done


FULL = (0.001, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.08, 0.12)


def bench_rivals(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables of tests/verdict/rivals.py over more rates, with two more rivals, printed."""
    benchmark.group = "rivals, 20,000 runs a rate"
    looks = rivals_rules.every_shard()
    contestants = [
        *rivals_rules.rules(),
        rivals_rules.ours("calibrated", looks, "imagegate calibrated, shards of 64"),
        rivals_rules.clopper_pearson_at(looks, "Clopper-Pearson at every shard"),
    ]
    canaries = [*rivals.CANARIES, rivals.Canary("Kayenta, points of 16, production 1 %", 0.01, 16)]
    rows, _ = benchmark.pedantic(
        rivals.table,
        kwargs={"contestants": contestants, "canaries": canaries, "rates": FULL},
        rounds=1,
    )
    with capsys.disabled():
        sys.stdout.write("\n\n" + rivals.render(rows) + "\n\n")
        sys.stdout.write(rivals.render_by_rate(rows, FULL) + "\n")
    found = {row.name: row for row in rows}
    again, once = found["Clopper-Pearson at every shard"], found["imagegate anytime, shards of 64"]
    assert again.rolled_back[0.02] > 2 * rivals_rules.ALPHA > 2 * once.rolled_back[0.02]
