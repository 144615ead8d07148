"""Weighted samples keep production's failure rate and the promised risks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.verdict.betting import (
    Bets,
    bounded_fail_bets,
    bounded_pass_bets,
    log_e_counts,
    log_factors,
    log_mixture,
)
from tasks.verdict.weights import (
    MAX_WEIGHT,
    StratumWeights,
    fail_evidence_weighted,
    pass_evidence_weighted,
    weighted_observations,
)

POPULATION = {"photo": 0.7, "typography": 0.2, "faces": 0.1}
SAMPLE = {"photo": 0.56, "typography": 0.24, "faces": 0.2}
WEIGHTS = StratumWeights(POPULATION, SAMPLE)
#: Failure rates by stratum; production's is 3 %.
RATES = {"photo": 0.01, "typography": 0.08, "faces": 0.07}
RUNS, IMAGES = 20_000, 300


def shares(sizes: list[int]) -> dict[str, float]:
    return {f"s{k}": size / sum(sizes) for k, size in enumerate(sizes)}


def test_the_rates_are_those_of_the_test() -> None:
    assert sum(POPULATION[s] * RATES[s] for s in RATES) == pytest.approx(0.03)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=6),
    st.data(),
)
def test_observations_are_unbiased(sizes: list[int], data: st.DataObject) -> None:
    sample = shares(sizes)
    # A population within reach: a mixture of the sample with itself tilted by at most 25 %.
    tilt = [data.draw(st.floats(0.8, 1.0)) for _ in sizes]
    total = sum(t * q for t, q in zip(tilt, sample.values(), strict=True))
    population = {s: t * q / total for (s, q), t in zip(sample.items(), tilt, strict=True)}
    rates = {s: data.draw(st.floats(0, 1)) for s in sample}

    weights = StratumWeights(population, sample)

    ones = weighted_observations([True] * len(sample), list(sample), weights)
    mean = sum(sample[s] * rates[s] * z for s, z in zip(sample, ones, strict=True))
    assert mean == pytest.approx(sum(population[s] * rates[s] for s in sample), abs=1e-12)
    assert 0 <= ones.min() <= ones.max() == weights.hi <= MAX_WEIGHT


def crossed(bets: Bets, kinds: NDArray[np.intp], values: NDArray[np.float64]) -> float:
    """Share of the runs, shape (runs, images), whose evidence ever reaches 20."""
    table = log_factors(bets, values)
    wealth = np.zeros((len(kinds), table.shape[1]))
    ever = np.zeros(len(kinds), bool)
    for n in range(kinds.shape[1]):
        wealth += table[kinds[:, n]]
        ever |= log_mixture(bets, wealth) >= math.log(20)
    return float(ever.mean())


@pytest.mark.parametrize("drawn", ["at random", "by quota, in random order"])
def test_risks_hold_at_the_threshold(drawn: str) -> None:
    """Looked at after every image; a quota for each stratum instead of chance is no worse."""
    rng = np.random.default_rng(11)
    names = list(SAMPLE)
    share = np.array([SAMPLE[s] for s in names])
    if drawn == "at random":
        strata = rng.choice(len(names), size=(RUNS, IMAGES), p=share)
    else:
        quota = np.repeat(np.arange(len(names)), np.round(share * IMAGES).astype(int))
        strata = rng.permuted(np.tile(quota, (RUNS, 1)), axis=1)
    failed = rng.random(strata.shape) < np.array([RATES[s] for s in names])[strata]
    values = np.array([0.0, *(WEIGHTS.by_stratum[s] for s in names)])
    kinds = np.where(failed, strata + 1, 0)

    assert crossed(bounded_pass_bets(0.03, 0.0, WEIGHTS.hi), kinds, values) <= 0.05
    assert crossed(bounded_fail_bets(0.03, 0.0, WEIGHTS.hi), kinds, values) <= 0.05


def test_evidence_is_that_of_the_engine() -> None:
    failed = [True, False, None, False]
    strata = ["faces", "photo", "photo", "typography"]
    heavy, light = WEIGHTS.by_stratum["photo"], WEIGHTS.by_stratum["faces"]
    assert (heavy, light) == (pytest.approx(1.25), pytest.approx(0.5))
    assert pass_evidence_weighted(failed, strata, WEIGHTS, 0.03) == pytest.approx(
        log_e_counts(bounded_pass_bets(0.03, 0, WEIGHTS.hi), [0, light, heavy], [2, 1, 1])
    )
    assert fail_evidence_weighted(failed, strata, WEIGHTS, 0.03) == pytest.approx(
        log_e_counts(bounded_fail_bets(0.03, 0, WEIGHTS.hi), [0, light], [3, 1])
    )
    assert pass_evidence_weighted([], [], WEIGHTS, 0.03) == pytest.approx(0.0)


def test_equal_shares_are_plain_indicators() -> None:
    equal = StratumWeights(POPULATION, POPULATION)
    assert equal.hi == 1
    z = weighted_observations([True, False], ["photo", "faces"], equal)
    assert z.tolist() == [1.0, 0.0]


def test_repeats_of_a_prompt_are_one_observation() -> None:
    z = weighted_observations(
        [True, False, False, True, None],
        ["photo", "faces", "photo", "faces", "faces"],
        WEIGHTS,
        prompts=["a", "b", "a", "b", "b"],
    )
    assert z.tolist() == pytest.approx([1.25 / 2, 0.5 * 2 / 3])


def test_ten_repeats_are_no_ten_images() -> None:
    """Identical repeats give the evidence of one image a prompt, not ten times as much."""
    once = fail_evidence_weighted([True] * 5, ["photo"] * 5, WEIGHTS, 0.02)
    repeated = fail_evidence_weighted(
        [True] * 50,
        ["photo"] * 50,
        WEIGHTS,
        0.02,
        prompts=[f"p{k % 5}" for k in range(50)],
    )
    assert repeated == pytest.approx(once)


def test_a_weight_above_the_bound_names_the_stratum() -> None:
    with pytest.raises(ValueError, match=r"'faces' has the weight 2: .* draw at least 0.08"):
        StratumWeights({"photo": 0.9, "faces": 0.1}, {"photo": 0.95, "faces": 0.05})
    with pytest.raises(ValueError, match="'faces' has the weight infinite"):
        StratumWeights({"photo": 0.9, "faces": 0.1}, {"photo": 1.0})
    # Exactly the bound is allowed, whatever the rounding of the shares.
    at_bound = StratumWeights({"a": 0.25, "b": 0.75}, {"a": 0.2, "b": 0.8})
    assert at_bound.hi == MAX_WEIGHT


def test_a_stratum_out_of_production_counts_for_nothing() -> None:
    weights = StratumWeights({"photo": 1.0}, {"photo": 0.9, "stress": 0.1})
    z = weighted_observations([True, True], ["stress", "photo"], weights)
    assert z.tolist() == pytest.approx([0.0, 1 / 0.9])


@pytest.mark.parametrize(
    ("population", "sample"),
    [
        ({"a": 0.5}, {"a": 1.0}),
        ({"a": 1.0}, {"a": 0.9}),
        ({"a": 1.5, "b": -0.5}, {"a": 1.0}),
        ({"a": float("nan")}, {"a": 1.0}),
        ({}, {}),
    ],
)
def test_shares_that_are_none_are_refused(
    population: dict[str, float], sample: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="share"):
        StratumWeights(population, sample)


def test_hostile_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="'cats' has no share"):
        weighted_observations([True], ["cats"], WEIGHTS)
    with pytest.raises(ValueError, match="one entry an image"):
        weighted_observations([True], ["photo", "photo"], WEIGHTS)
    with pytest.raises(ValueError, match="in two strata"):
        weighted_observations([True, True], ["photo", "faces"], WEIGHTS, prompts=["a", "a"])
    for wrong in (1, 0.0, "yes", float("nan")):
        with pytest.raises(ValueError, match="True, False or None"):
            weighted_observations([wrong], ["photo"], WEIGHTS)  # type: ignore[list-item]  # on purpose
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="failure rate"):
            fail_evidence_weighted([True], ["photo"], WEIGHTS, rate)
