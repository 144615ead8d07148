"""The candidate's rate corrected by the baseline: unbiased, within its risks, with fewer images."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.verdict.betting import fail_bets, log_e, log_factors, pass_bets
from tasks.verdict.control_variate import ControlVariate, planned_gamma
from tasks.verdict.paired import PairedCounts
from tests.verdict.pair_runs import RUNS, joint, simulated

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3000)).map(
    lambda c: PairedCounts(sum(c), c[0], c[1])
)
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

    for side in ("pass", "fail"):
        bets = control.bets(threshold, side=side)
        factors = np.exp(log_factors(bets, values))
        # Every bet is exactly fair at the threshold, so the risk is kept for ever (Ville) ...
        assert np.array(odds(threshold)) @ factors == pytest.approx(np.ones(10), abs=1e-12)
        # ... and the simulation agrees within its own error (three standard errors).
        risk, _ = simulated(bets, values, odds(threshold), 0.05, 1500)
        assert risk <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)

    passes = control.bets(threshold)
    decided, mean = simulated(passes, values, odds(rate), 0.05, 20_000, runs=5000)
    plain = [1 - rate, rate]
    _, alone = simulated(pass_bets(threshold), [0.0, 1.0], plain, 0.05, 20_000, runs=5000)
    assert decided > 0.999
    assert mean < {0.002: 0.97, 0.01: 0.85, 0.02: 0.75, 0.05: 0.75}[rate] * alone


@settings(deadline=None)
@given(COUNTS, st.integers(0, 20), st.sampled_from([0.01, 0.03, 0.2]))
def test_without_gamma_it_is_the_plain_test(
    counts: PairedCounts, both: int, threshold: float
) -> None:
    counts = PairedCounts(counts.pairs + both, counts.worse, counts.better)
    plain = ControlVariate(0.1, 0.0)
    failures = counts.worse + both
    for side, bets in (("pass", pass_bets(threshold)), ("fail", fail_bets(threshold))):
        assert plain.log_e(counts, both, threshold, side=side) == pytest.approx(
            log_e(bets, counts.pairs, failures), abs=1e-8
        )


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
        evidence = control.log_e_drawn(
            ours[order], theirs[order], failures / size, population=size, side=side
        )
        crossed += int((evidence.max(axis=1) >= math.log(20)).sum())
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
    with pytest.raises(ValueError, match="between 0 and 1"):
        control.log_e(PairedCounts(5, 1, 1), 0, 0.0)
    with pytest.raises(ValueError, match="cases drawn"):
        control.log_e_drawn([True, False], [True, False], 0.1, population=1)
