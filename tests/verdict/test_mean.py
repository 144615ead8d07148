"""Mean costs: the risks at the limit, by simulation looked at after every image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.verdict.betting import (
    Bets,
    Wealth,
    bounded_fail_bets,
    bounded_pass_bets,
    log_factors,
    log_mixture,
)
from tasks.verdict.mean import (
    cost_interval,
    fail_evidence_cost_ratio,
    fail_evidence_effective,
    fail_evidence_mean,
    pass_evidence_cost_ratio,
    pass_evidence_effective,
    pass_evidence_mean,
)

HI = 160_000
COSTS = st.lists(st.one_of(st.none(), st.integers(0, HI)), max_size=60)
RUNS, IMAGES = 20_000, 300
ENOUGH = math.log(20)

#: Prices of one image in micro-dollars and how often: one attempt, two, four, and a free refusal.
PRICES = np.array([40_000, 80_000, 160_000, 0])
ODDS = np.array([0.85, 0.08, 0.02, 0.05])
MEAN = float(PRICES @ ODDS)


def ever(bets: Bets, values: NDArray[np.float64], odds: NDArray[np.float64]) -> float:
    """Share of the runs whose evidence reaches 20 at any of the images."""
    rng = np.random.default_rng(17)
    kinds = rng.choice(len(odds), size=(RUNS, IMAGES), p=odds)
    table = log_factors(bets, values)
    wealth = np.zeros((RUNS, table.shape[1]))
    crossed = np.zeros(RUNS, bool)
    for n in range(IMAGES):
        wealth += table[kinds[:, n]]
        crossed |= log_mixture(bets, wealth) >= ENOUGH
    return float(crossed.mean())


def test_risks_of_the_mean_cost_at_the_limit() -> None:
    assert ever(bounded_fail_bets(MEAN, 0, HI), PRICES, ODDS) <= 0.05
    assert ever(bounded_pass_bets(MEAN, 0, HI), PRICES, ODDS) <= 0.05


def test_risks_of_the_effective_cost_at_the_limit() -> None:
    """9 of 10 images are usable, dear ones less often; the limit is the true effective cost."""
    usable = np.array([0.95, 0.9, 0.6, 0.0])
    limit = MEAN / float(ODDS @ usable)
    values = np.concatenate([PRICES - limit, PRICES])
    odds = np.concatenate([ODDS * usable, ODDS * (1 - usable)])
    assert values @ odds == pytest.approx(0, abs=1e-6)
    assert ever(bounded_fail_bets(0, -limit, HI), values, odds) <= 0.05
    assert ever(bounded_pass_bets(0, -limit, HI), values, odds) <= 0.05


def test_risks_against_the_baseline_at_the_ratio() -> None:
    ratio = MEAN / 40_000
    values = PRICES - ratio * 40_000
    assert ever(bounded_fail_bets(0, -ratio * 40_000, HI), values, ODDS) <= 0.05
    assert ever(bounded_pass_bets(0, -ratio * 40_000, HI), values, ODDS) <= 0.05


def images_to(evidence: Callable[[list[int]], float]) -> int:
    """Images of the usual prices until the evidence is a proof; a thousand at most."""
    costs = np.random.default_rng(2).choice(PRICES, size=1000, p=ODDS).tolist()
    return next(n for n in range(1, 1001) if evidence(costs[:n]) >= ENOUGH)


def test_clear_cases_are_decided_with_few_images() -> None:
    assert images_to(lambda costs: fail_evidence_mean(costs, MEAN / 1.5)) < 60
    assert images_to(lambda costs: pass_evidence_mean(costs, MEAN * 1.5, HI)) < 60
    assert (
        images_to(lambda costs: fail_evidence_effective(costs, [True] * len(costs), MEAN / 1.5))
        < 60
    )
    assert (
        images_to(lambda costs: pass_evidence_effective(costs, [True] * len(costs), MEAN * 1.5, HI))
        < 100
    )
    assert (
        images_to(lambda costs: fail_evidence_cost_ratio(costs, [30_000] * len(costs), 1.0, 40_000))
        < 100
    )
    assert (
        images_to(lambda costs: pass_evidence_cost_ratio(costs, [60_000] * len(costs), 1.0, HI))
        < 150
    )


@settings(deadline=None)
@given(COSTS, st.integers(1, HI - 1))
def test_mean_evidence_is_that_of_the_stream(costs: list[int | None], limit: int) -> None:
    fail, passing = Wealth(bounded_fail_bets(limit, 0, HI)), Wealth(bounded_pass_bets(limit, 0, HI))
    for cost in costs:
        fail.update(0 if cost is None else cost)
        passing.update(HI if cost is None else cost)
    assert fail_evidence_mean(costs, limit) == pytest.approx(fail.log_e, abs=1e-8)
    assert pass_evidence_mean(costs, limit, HI) == pytest.approx(passing.log_e, abs=1e-8)


@settings(deadline=None)
@given(COSTS, st.data())
def test_effective_evidence_is_that_of_the_stream(
    costs: list[int | None], data: st.DataObject
) -> None:
    usable = [data.draw(st.sampled_from([True, False, None])) for _ in costs]
    limit = 45_000.5
    fail, passing = (
        Wealth(bounded_fail_bets(0, -limit, HI)),
        Wealth(bounded_pass_bets(0, -limit, HI)),
    )
    for cost, good in zip(costs, usable, strict=True):
        fail.update((cost or 0) - limit * (good is not False))
        passing.update((HI if cost is None else cost) - limit * (good is True))
    assert fail_evidence_effective(costs, usable, limit) == pytest.approx(fail.log_e, abs=1e-8)
    assert pass_evidence_effective(costs, usable, limit, HI) == pytest.approx(
        passing.log_e, abs=1e-8
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, HI), st.integers(0, 90_000)), max_size=40))
def test_ratio_evidence_is_that_of_the_stream(pairs: list[tuple[int, int]]) -> None:
    ours, theirs = [c for c, _ in pairs], [b for _, b in pairs]
    fail = Wealth(bounded_fail_bets(0, -1.1 * 90_000, HI))
    passing = Wealth(bounded_pass_bets(0, -1.1 * 90_000, HI))
    for cost, base in pairs:
        fail.update(cost - 1.1 * base)
        passing.update(cost - 1.1 * base)
    assert fail_evidence_cost_ratio(ours, theirs, 1.1, 90_000) == pytest.approx(
        fail.log_e, abs=1e-8
    )
    assert pass_evidence_cost_ratio(ours, theirs, 1.1, HI) == pytest.approx(passing.log_e, abs=1e-8)


@settings(deadline=None)
@given(COSTS, st.integers(0, 59), st.integers(0, HI))
def test_an_unknown_cost_never_helps(costs: list[int | None], place: int, cost: int) -> None:
    if place >= len(costs):
        return
    known, unknown = list(costs), list(costs)
    known[place], unknown[place] = cost, None
    base, usable = [50_000] * len(costs), [True] * len(costs)
    pairs: Sequence[tuple[Callable[[list[int | None]], float], str]] = (
        (lambda c: fail_evidence_mean(c, 50_000), "mean, fail"),
        (lambda c: pass_evidence_mean(c, 50_000, HI), "mean, pass"),
        (lambda c: fail_evidence_effective(c, usable, 50_000), "effective, fail"),
        (lambda c: pass_evidence_effective(c, usable, 50_000, HI), "effective, pass"),
        (lambda c: fail_evidence_cost_ratio(c, base, 1.2, 60_000), "ratio, fail"),
        (lambda c: pass_evidence_cost_ratio(c, base, 1.2, HI), "ratio, pass"),
        (lambda c: fail_evidence_cost_ratio(base, c, 1.2, HI), "baseline, fail"),
        (lambda c: pass_evidence_cost_ratio(base, c, 1.2, HI), "baseline, pass"),
    )
    for evidence, name in pairs:
        assert evidence(unknown) <= evidence(known) + 1e-9, name


def test_one_very_dear_image_is_no_proof_of_its_own() -> None:
    """A price of a hundred times the limit wins its bets, but they were small ones."""
    cheap = [40_000] * 100
    assert fail_evidence_mean([*cheap, 4_000_000], 50_000) < ENOUGH
    assert fail_evidence_mean([*cheap, *[4_000_000] * 6], 50_000) > ENOUGH  # mean 264,151


def test_a_limit_above_the_worst_price_is_kept_and_still_wants_images() -> None:
    assert pass_evidence_mean([], 200_000, HI) == pytest.approx(0)
    assert pass_evidence_mean([40_000], 200_000, HI) < ENOUGH
    assert pass_evidence_mean([40_000] * 30, 200_000, HI) > ENOUGH
    assert pass_evidence_mean([40_000] * 30, HI, HI) > ENOUGH


@settings(deadline=None, max_examples=40)
@given(COSTS, st.integers(1, HI - 1))
def test_interval_agrees_with_the_tests(costs: list[int | None], limit: int) -> None:
    lower, upper = cost_interval(costs, HI)
    assert 0 <= lower <= upper <= HI
    if abs(limit - lower) > 1e-6:
        assert (fail_evidence_mean(costs, limit) >= ENOUGH) == (limit < lower)
    if abs(limit - upper) > 1e-6:
        assert (pass_evidence_mean(costs, limit, HI) >= ENOUGH) == (limit > upper)


def test_prices_above_the_worst_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"costs\[1\] is 160001 .* above the worst price 160000"):
        pass_evidence_mean([40_000, HI + 1], 50_000, HI)
    with pytest.raises(ValueError, match="above the worst price"):
        pass_evidence_effective([HI + 1], [True], 50_000, HI)
    with pytest.raises(ValueError, match=r"candidate costs\[0\]"):
        pass_evidence_cost_ratio([HI + 1], [40_000], 1.0, HI)
    with pytest.raises(ValueError, match=r"baseline costs\[0\]"):
        fail_evidence_cost_ratio([40_000], [HI + 1], 1.0, HI)
    with pytest.raises(ValueError, match="above the worst price"):
        cost_interval([HI + 1], HI)


@pytest.mark.parametrize("cost", [-1, 0.04, True, "40000", math.nan, math.inf])
def test_money_is_whole_micro_dollars(cost: int) -> None:
    with pytest.raises(ValueError, match="whole micro-dollars"):
        fail_evidence_mean([40_000, cost], 50_000)
    with pytest.raises(ValueError, match="whole micro-dollars"):
        pass_evidence_cost_ratio([40_000], [cost], 1.0, HI)


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_impossible_limits_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        fail_evidence_mean([1], limit)
    with pytest.raises(ValueError, match="positive"):
        pass_evidence_effective([1], [True], limit, HI)
    with pytest.raises(ValueError, match="positive"):
        fail_evidence_cost_ratio([1], [1], limit, HI)
    with pytest.raises(ValueError, match="worst price"):
        pass_evidence_mean([1], 50_000, limit)  # type: ignore[arg-type]  # wrong on purpose


def test_other_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="one entry a cost"):
        fail_evidence_effective([1, 2], [True], 5)
    with pytest.raises(ValueError, match=r"usable\[0\]"):
        fail_evidence_effective([1], [1], 5)  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(ValueError, match="1 of the candidate and 2 of the baseline"):
        fail_evidence_cost_ratio([1], [1, 2], 1.0, HI)
    for risk in (0.0, math.nan):
        with pytest.raises(ValueError, match="risks"):
            cost_interval([1], HI, alpha=risk)
