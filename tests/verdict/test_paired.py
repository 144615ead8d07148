"""The comparison with the baseline: risks and images needed, exact where the counts allow it."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from tasks.verdict.betting import (
    Bets,
    Wealth,
    bounded_fail_bets,
    bounded_pass_bets,
    log_factors,
    log_mixture,
)
from tasks.verdict.control_variate import ControlVariate, planned_gamma
from tasks.verdict.paired import (
    PairedCounts,
    PairedTest,
    count_pairs,
    paired_evidence,
    paired_interval,
    paired_log_e,
)

MARGIN = 0.02
RATES = (0.002, 0.01, 0.02, 0.05, 0.12)
CORRELATIONS = (0.0, 0.5)
RUNS = 20_000

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3000)).map(
    lambda c: PairedCounts(sum(c), c[0], c[1])
)


def joint(baseline: float, candidate: float, correlation: float) -> tuple[float, float, float]:
    """Probabilities of worse, better and both; the correlation is lowered to a feasible one."""
    spread = math.sqrt(baseline * (1 - baseline) * candidate * (1 - candidate))
    both = min(baseline * candidate + correlation * spread, baseline, candidate)
    return candidate - both, baseline - both, both


def cells_log_e(bets: Bets, values: list[float], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log E of counts of the values, shape (..., V) -> (...)."""
    return log_mixture(bets, counts @ log_factors(bets, values))


def crossings(side: str, eps: float, shape: tuple[int, int], most: int) -> NDArray[np.int64]:
    """By worse and better: the fewest pairs that PASS there, or the most pairs that FAIL there."""
    worse, better = np.indices(shape)
    bets = (bounded_pass_bets if side == "pass" else bounded_fail_bets)(MARGIN, -1, 1)
    low, high = worse + better - 1, np.full(shape, most + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        pairs = np.maximum(middle, worse + better)
        counts = np.stack([better, pairs - worse - better, worse], axis=-1)
        enough = cells_log_e(bets, [-1.0, 0.0, 1.0], counts) >= -math.log(eps)
        up = enough if side == "pass" else ~enough
        low, high = np.where(up, low, middle), np.where(up, middle, high)
    return high if side == "pass" else low


def exact_course(
    side: str, eps: float, worse: float, better: float, most: int
) -> tuple[float, float]:
    """Probability of a decision within so many pairs, and the mean pairs to it or the end.

    Every pair is a look. The state is the two counts; what leaves the table counts as decided in
    the probability and as never decided in the mean, and is next to nothing.
    """

    def reach(rate: float, pairs: int) -> int:
        return int(rate * pairs + 8 * math.sqrt(rate * pairs) + 12)

    shape = (reach(worse, most) + 2, reach(better, most) + 2)
    edge = crossings(side, eps, shape, most)
    alive = np.zeros(shape)
    alive[0, 0] = 1.0
    decided, mean = 0.0, 0.0
    for n in range(1, most + 1):
        mean += (total := alive.sum())
        if total < 1e-9:
            break
        rows, columns = reach(worse, n) + 1, reach(better, n) + 1
        part = alive[:rows, :columns]
        new = part * (1 - worse - better)
        new[1:] += part[:-1] * worse
        new[:, 1:] += part[:, :-1] * better
        stop = n >= edge[:rows, :columns] if side == "pass" else n <= edge[:rows, :columns]
        new[stop] = 0.0
        decided += total - new.sum()
        alive[:rows, :columns] = new
    return decided, mean


def simulated(
    bets: Bets, values: list[float], odds: list[float], eps: float, most: int, *, runs: int = RUNS
) -> tuple[float, float]:
    """Share of runs decided within so many observations, and the mean observations to that.

    The first value is the quiet one: it moves PASS evidence up and FAIL evidence down, so runs of
    it are leapt over and the look of the crossing is found by halving. Nothing is rounded.
    """
    rng = np.random.default_rng(20_260_914)
    loud = np.array(odds[1:])
    upward = bets.lambdas[0] < 0
    n = np.zeros(runs, np.int64)
    counts = np.zeros((runs, len(values)), np.int64)
    ends: list[NDArray[np.int64]] = []
    while n.size:
        quiet = np.minimum(rng.geometric(loud.sum(), n.size) - 1, most - n)
        if upward:
            after = counts.copy()
            after[:, 0] += quiet
            done = cells_log_e(bets, values, after) >= -math.log(eps)
            low, high, before = np.zeros(done.sum(), np.int64), quiet[done], counts[done]
            while (high - low > 1).any():
                middle = (low + high) // 2
                probe = before.copy()
                probe[:, 0] += middle
                enough = cells_log_e(bets, values, probe) >= -math.log(eps)
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
            ends.append(n[done] + high)
            n, counts, quiet = n[~done], counts[~done], quiet[~done]
        more = n + quiet < most
        n, counts = n[more] + quiet[more] + 1, counts[more]
        counts[:, 0] += quiet[more]
        kind = rng.choice(len(loud), size=n.size, p=loud / loud.sum()) + 1
        counts[np.arange(n.size), kind] += 1
        done = cells_log_e(bets, values, counts) >= -math.log(eps)
        ends.append(n[done])
        n, counts = n[~done], counts[~done]
    found = np.concatenate(ends)
    return found.size / runs, (found.sum() + (runs - found.size) * most) / runs


def kl_inf(values: list[float], odds: list[float], mean: float, hi: float) -> float:
    """Most evidence that a bet on a lower mean can win per observation (Honda, Takemura 2010)."""
    z, p = np.array(values), np.array(odds)
    best = minimize_scalar(
        lambda theta: -(p * np.log1p(-theta * (z - mean) / (hi - mean))).sum(),
        bounds=(0, 1 - 1e-12),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return -float(best.fun)


def pairs_to_pass(rate: float, correlation: float, share: float, eps: float) -> tuple[float, float]:
    """Mean pairs until PASS with a candidate at ``share`` of the baseline's rate, and the bound."""
    worse, better, _ = joint(rate, share * rate, correlation)
    odds = [1 - worse - better, better, worse]
    bound = -math.log(eps) / kl_inf([0.0, -1.0, 1.0], odds, MARGIN, 1.0)
    if (worse + better) * bound < 50:
        decided, mean = exact_course("pass", eps, worse, better, int(12 * bound))
    else:
        bets = bounded_pass_bets(MARGIN, -1, 1)
        decided, mean = simulated(bets, [0.0, -1.0, 1.0], odds, eps, int(30 * bound))
    assert decided > 0.9999
    return mean, bound


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("rate", RATES)
def test_exact_risks_at_the_margin(rate: float, correlation: float) -> None:
    worse, better, _ = joint(rate, rate + MARGIN, correlation)
    assert worse - better == pytest.approx(MARGIN)
    for eps, most in ((0.05, 1500), (0.01, 700)):
        for side in ("pass", "fail"):
            decided, _ = exact_course(side, eps, worse, better, most)
            assert decided <= eps, (side, eps)


@pytest.mark.parametrize("rate", [0.02, 0.12])
def test_equal_arms_are_not_rolled_back(rate: float) -> None:
    worse, better, _ = joint(rate, rate, 0.5)
    assert exact_course("fail", 0.05, worse, better, 1500)[0] <= 0.05


def test_pairs_needed_against_the_best_possible_bet() -> None:
    ratios = []
    for rate in RATES:
        for correlation in CORRELATIONS:
            for share in (1.0, 0.5):
                mean, bound = pairs_to_pass(rate, correlation, share, 0.05)
                ratios.append(mean / bound)

    assert np.mean(ratios) <= 1.40
    assert np.mean(ratios[::2]) <= 1.40  # candidate = baseline alone
    assert max(ratios) <= 1.60


def test_exact_and_simulated_courses_agree() -> None:
    worse, better, _ = joint(0.02, 0.02, 0.0)
    exact = exact_course("pass", 0.05, worse, better, 6000)
    odds = [1 - worse - better, better, worse]
    simulation = simulated(bounded_pass_bets(MARGIN, -1, 1), [0.0, -1.0, 1.0], odds, 0.05, 6000)
    assert simulation == (pytest.approx(exact[0], abs=0.002), pytest.approx(exact[1], rel=0.02))


@given(st.lists(st.sampled_from([-1, 0, 0, 0, 1]), max_size=300), st.sampled_from([0.0, 0.02, 0.1]))
def test_evidence_of_counts_is_that_of_the_stream(stream: list[int], margin: float) -> None:
    counts = (stream.count(1), stream.count(-1), len(stream))
    for side, make in (("pass", bounded_pass_bets), ("fail", bounded_fail_bets)):
        wealth = Wealth(make(margin, -1, 1))
        for value in stream:
            wealth.update(value)
        assert paired_log_e(*counts, margin, side=side) == pytest.approx(wealth.log_e, abs=1e-8)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60), st.integers(0, 60))
def test_order_and_shards_do_not_matter(stream: list[int], cut: int) -> None:
    whole, parts = PairedTest(), PairedTest()
    whole.update(sorted(stream))
    parts.update(stream[:cut])
    parts.update(np.array(stream[cut:], dtype=np.int8))
    assert whole.counts == parts.counts
    assert whole.log_e_pass == parts.log_e_pass
    assert whole.log_e_fail == parts.log_e_fail


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.sampled_from([0.0, 0.02, 0.1]))
def test_interval_agrees_with_the_tests(counts: PairedCounts, margin: float) -> None:
    lower, upper = paired_interval(counts)
    evidence = paired_evidence(counts, margin=margin)
    assert -1 <= lower < upper <= 1
    assert (evidence.log_e_pass >= math.log(20)) == (upper <= margin)
    assert (evidence.log_e_fail >= math.log(20)) == (lower >= margin)
    if counts.difference is not None:
        assert lower < counts.difference < upper or abs(counts.difference) == 1


@given(COUNTS)
def test_one_more_failure_never_helps(counts: PairedCounts) -> None:
    if counts.worse + counts.better == counts.pairs:
        return
    worse = PairedCounts(counts.pairs, counts.worse + 1, counts.better)
    before, after = paired_evidence(counts), paired_evidence(worse)
    assert after.log_e_pass <= before.log_e_pass
    assert after.log_e_fail >= before.log_e_fail
    assert before.log_e_zero >= before.log_e_fail  # what exceeds the margin exceeds 0


def test_decisions_and_the_warning_stay() -> None:
    test = PairedTest()
    assert test.update([]) is None
    assert test.interval() == (-1.0, 1.0)
    assert test.update([0] * 400) == "PROMOTE"
    assert not test.warning
    # 8 more failures among 400: not more than the margin, but proven to be more than none.
    other = PairedTest()
    other.update([0] * 390 + [1] * 10)
    assert (other.decision, other.warning) == (None, True)
    assert other.update([-1] * 10) is None
    assert other.warning
    assert test.update([1] * 200) == "PROMOTE"
    assert PairedTest().update([1] * 20) == "ROLLBACK"


@pytest.mark.parametrize(
    "wrong",
    [[2], [0.0], [float("nan")], ["1"], [None], [[0, 1]], 1, [True], [0, 10**30], "101"],
)
def test_anything_but_differences_is_refused(wrong: object) -> None:
    test = PairedTest()
    with pytest.raises(ValueError):
        test.update(wrong)  # type: ignore[arg-type]  # wrong on purpose
    assert test.counts.pairs == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": -0.01},
        {"margin": 1.0},
        {"margin": float("nan")},
        {"alpha": 0.0},
        {"beta": float("nan")},
    ],
)
def test_senseless_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        PairedTest(**wrong)
    with pytest.raises(ValueError):
        paired_log_e(1, 1, 1, 0.02)
    with pytest.raises(ValueError):
        PairedCounts(5, -1, 0)
    with pytest.raises(ValueError, match="side"):
        paired_log_e(1, 1, 2, 0.02, side="both")  # type: ignore[arg-type]  # wrong on purpose


def test_unmeasured_cases_count_against_each_proof() -> None:
    outcomes = (True, False, None)
    candidate = {f"{c}{b}": c for c in outcomes for b in outcomes}
    baseline = {f"{c}{b}": b for c in outcomes for b in outcomes} | {"not drawn": True}

    for_pass, for_fail = count_pairs(candidate, baseline)

    # PASS: candidate T T T F F F T T T (None is T), baseline T F F T F F T F F (None is F)
    assert for_pass == PairedCounts(9, worse=4, better=1)
    assert for_fail == PairedCounts(9, worse=1, better=4)
    with pytest.raises(ValueError, match="'not drawn'"):
        count_pairs(baseline, candidate)


GAMMAS = st.floats(0, 1)


@given(st.floats(0, 1), GAMMAS, st.floats(0, 1), st.floats(0, 1))
def test_control_variate_is_unbiased(rate: float, gamma: float, ours: float, link: float) -> None:
    both = max(0.0, rate + ours - 1) + link * (min(rate, ours) - max(0.0, rate + ours - 1))
    odds = np.array([1 - rate - ours + both, ours - both, rate - both, both])
    control = ControlVariate(rate, gamma)
    z = control.values(np.array([False, True, False, True]), np.array([False, False, True, True]))
    assert odds @ z == pytest.approx(ours, abs=1e-12)
    assert control.lo <= z.min()
    assert z.max() <= control.hi


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.02, 0.05])
def test_control_variate_keeps_its_risks_and_saves_images(rate: float) -> None:
    threshold = max(0.03, 1.5 * rate)
    control = ControlVariate(rate, 0.5)
    known = control.gamma * rate
    values = [known, 1 + known, control.lo, 1 + control.lo]

    def odds(candidate: float) -> list[float]:
        worse, better, both = joint(rate, candidate, 0.5)
        return [1 - worse - better - both, worse, better, both]

    passes = bounded_pass_bets(threshold, control.lo, control.hi)
    fails = bounded_fail_bets(threshold, control.lo, control.hi)
    for bets in (passes, fails):
        assert simulated(bets, values, odds(threshold), 0.05, 1500)[0] <= 0.05

    decided, mean = simulated(passes, values, odds(rate), 0.05, 20_000, runs=5000)
    alone = bounded_pass_bets(threshold, 0, 1)
    _, mean_alone = simulated(alone, [0.0, 1.0], [1 - rate, rate], 0.05, 20_000, runs=5000)
    assert decided > 0.999
    assert mean < {0.002: 0.97, 0.01: 0.92, 0.02: 0.85, 0.05: 0.85}[rate] * mean_alone


def frozen_set(size: int, failures: int, overlap: int) -> tuple[NDArray[np.bool_], ...]:
    """Candidate and baseline both fail so many cases of a set, of which ``overlap`` are shared."""
    ours, theirs = np.zeros(size, bool), np.zeros(size, bool)
    ours[:failures] = True
    theirs[failures - overlap : 2 * failures - overlap] = True
    return ours, theirs


@pytest.mark.parametrize("side", ["pass", "fail"])
@pytest.mark.parametrize(("size", "failures", "overlap"), [(400, 12, 6), (100, 3, 2), (60, 12, 0)])
def test_risks_of_cases_drawn_without_replacement(
    size: int, failures: int, overlap: int, side: str
) -> None:
    ours, theirs = frozen_set(size, failures, overlap)
    control = ControlVariate(failures / size, 0.5)
    rng = np.random.default_rng(7)
    crossed, runs = 0, 0
    while runs < RUNS:
        order = rng.permuted(np.tile(np.arange(size), (2000, 1)), axis=1)
        log_e = control.log_e_drawn(
            ours[order], theirs[order], failures / size, population=size, side=side
        )
        crossed += int((log_e.max(axis=1) >= math.log(20)).sum())
        runs += len(order)
    assert crossed / runs <= 0.05


def test_evidence_without_replacement_is_exactly_fair_and_ends_in_the_truth() -> None:
    ours, theirs = frozen_set(6, 2, 1)
    control = ControlVariate(2 / 6, 0.5)
    order = np.array(list(permutations(range(6))))
    for side in ("pass", "fail"):
        at_truth = control.log_e_drawn(ours[order], theirs[order], 2 / 6, population=6, side=side)
        assert np.exp(at_truth).mean(axis=0) == pytest.approx(np.ones(6))
    above = control.log_e_drawn(ours[order], theirs[order], 3 / 6, population=6, side="pass")
    assert np.isinf(above[:, -1]).all()  # the whole set is known: the rate is below 3/6
    below = control.log_e_drawn(ours[order], theirs[order], 1 / 6, population=6, side="fail")
    assert np.isinf(below[:, -1]).all()


def test_a_large_set_is_as_with_replacement() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(500) < 0.03, rng.random(500) < 0.04
    control = ControlVariate(0.04, 0.3)
    both = int((ours & theirs).sum())
    counts = PairedCounts(500, int(ours.sum()) - both, int(theirs.sum()) - both)
    for side in ("pass", "fail"):
        drawn = control.log_e_drawn(ours, theirs, 0.02, population=10**9, side=side)
        assert drawn[-1] == pytest.approx(control.log_e(counts, both, 0.02, side=side), abs=1e-4)


def test_planned_gamma_is_the_slope() -> None:
    assert planned_gamma(PairedCounts(1000, 10, 10), 10) == pytest.approx(
        (1000 * 10 - 20 * 20) / (20 * 980)
    )
    assert planned_gamma(PairedCounts(1000, 10, 0), 0) == 0.0
    assert planned_gamma(PairedCounts(10, 5, 5), 0) == 0.0


def test_control_variate_refuses_nonsense() -> None:
    for arguments in ((-0.1, 0.5), (0.1, 1.5), (float("nan"), 0.5), (0.1, float("nan"))):
        with pytest.raises(ValueError):
            ControlVariate(*arguments)
    control = ControlVariate(0.1, 0.5)
    with pytest.raises(ValueError, match="truth values"):
        control.values([0, 1], [True, False])
    with pytest.raises(ValueError, match="one shape"):
        control.values([True], [True, False])
    with pytest.raises(ValueError, match="both"):
        control.log_e(PairedCounts(5, 1, 1), 4, 0.02)
    with pytest.raises(ValueError, match="threshold"):
        control.log_e(PairedCounts(5, 1, 1), 0, 0.0)
    with pytest.raises(ValueError, match="cases drawn"):
        control.log_e_drawn([True, False], [True, False], 0.1, population=1)
