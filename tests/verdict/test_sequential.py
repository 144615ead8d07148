from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.verdict import betting
from tasks.verdict.sequential import (
    Bets,
    FailureTest,
    Wealth,
    bounded_fail_bets,
    bounded_pass_bets,
    fail_bets,
    images_needed,
    log_e,
    log_e_counts,
    lower_limit,
    pass_bets,
    upper_limit,
)

RATES = st.sampled_from([0.001, 0.01, 0.02, 0.03, 0.1, 0.3, 0.5, 0.96])
COUNTS = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def product(bets: Bets, values: list[float]) -> float:
    """The design's formula, word for word."""
    weights, lambdas = np.exp(bets.log_weights), bets.lambdas
    return float(
        sum(
            w * math.prod(1 + lam * (z - bets.mean) for z in values)
            for w, lam in zip(weights, lambdas, strict=True)
        )
    )


@given(st.lists(st.integers(0, 1), max_size=40), st.sampled_from([0.01, 0.02, 0.03, 0.2]))
def test_the_wealth_is_the_formula_of_the_design(values: list[int], rate: float) -> None:
    for bets in (pass_bets(rate), fail_bets(rate), bounded_pass_bets(rate, -1, 1)):
        expected = product(bets, [float(z) for z in values])
        wealth = Wealth(bets)
        wealth.update(values)
        assert math.exp(wealth.log_e) == pytest.approx(expected, rel=1e-9)


def test_the_factors_are_likelihood_ratios_of_the_rates_of_the_design() -> None:
    for rate in (0.001, 0.02, 0.04):
        good, bad = np.exp(betting.log_factors(pass_bets(rate), [0.0, 1.0]))
        bet_on = rate * (1 - np.array(betting.PASS_THETAS))
        np.testing.assert_allclose(good, (1 - bet_on) / (1 - rate))
        np.testing.assert_allclose(bad, bet_on / rate, atol=1e-15)
        good, bad = np.exp(betting.log_factors(fail_bets(rate), [0.0, 1.0]))
        bet_on = np.minimum(rate * np.array(betting.FAIL_RATIOS), 0.95)
        np.testing.assert_allclose(good, (1 - bet_on) / (1 - rate))
        np.testing.assert_allclose(bad, bet_on / rate)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3000), RATES, RATES, st.booleans())
def test_stream_and_counts_agree(
    seed: int, size: int, boundary: float, true: float, promote: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.random(size) < true
    bets = (pass_bets if promote else fail_bets)(boundary)
    wealth = Wealth(bets)
    for part in np.array_split(values, rng.integers(1, 60)):
        wealth.update(part)
    one_by_one = Wealth(bets)
    for value in values[:200]:
        one_by_one.update(float(value))

    assert wealth.n == size
    assert wealth.log_e == pytest.approx(log_e(bets, size, int(values.sum())), abs=1e-8)
    failures = int(values[:200].sum())
    assert one_by_one.log_e == pytest.approx(log_e(bets, min(size, 200), failures), abs=1e-8)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3000), st.sampled_from([-0.3, 0.0, 0.02]))
def test_stream_and_counts_agree_for_differences(seed: int, size: int, mean: float) -> None:
    values = np.random.default_rng(seed).integers(-1, 2, size)
    counts = [int((values == v).sum()) for v in (-1, 0, 1)]
    for bets in (bounded_pass_bets(mean, -1, 1), bounded_fail_bets(mean, -1, 1)):
        wealth = Wealth(bets)
        wealth.update(values)
        assert wealth.log_e == pytest.approx(log_e_counts(bets, [-1, 0, 1], counts), abs=1e-8)


def test_evidence_depends_on_counts_only_and_the_right_way() -> None:
    n = np.arange(0, 400)
    f = np.arange(0, 30)[:, None]
    with np.errstate(invalid="raise"):
        good = log_e(pass_bets(0.02), np.maximum(n, f), f)
        bad = log_e(fail_bets(0.02), np.maximum(n, f), f)
    assert (np.diff(good, axis=1) >= 0).all()  # more good images
    assert (np.diff(bad, axis=1) <= 0).all()
    same_n = (n >= 30)[None, :].repeat(29, axis=0)
    assert (np.diff(good, axis=0)[same_n] < 0).all()  # more failures among as many
    assert (np.diff(bad, axis=0)[same_n] > 0).all()


@pytest.mark.parametrize("make", [pass_bets, fail_bets])
@pytest.mark.parametrize("rate", [1e-6, 0.02, 0.5, 0.97, 1 - 1e-9])
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.02, 0.5, 1.0])
def test_hundred_million_images_neither_overflow_nor_vanish(
    make: Any, rate: float, share: float
) -> None:
    n = 100_000_000
    value = log_e(make(rate), n, round(n * share))
    assert math.isfinite(value)
    json.dumps(value, allow_nan=False)


def test_ten_million_observations_fold_in_within_a_second() -> None:
    rng = np.random.default_rng(7)
    indicators = (rng.random(10_000_000) < 0.01).astype(float)
    costs = rng.random(10_000_000) * 10
    for bets, values in (
        (pass_bets(0.02), indicators),
        (fail_bets(0.02), indicators),
        (bounded_fail_bets(0.04, 0, 10), costs),
        (bounded_pass_bets(9.99, 0, 10), costs),
    ):
        wealth = Wealth(bets)
        wealth.update(values[:1000])
        began = time.process_time()
        wealth.update(values)
        assert time.process_time() - began < 1
        assert math.isfinite(wealth.log_e)
        if values is indicators:
            failures = int(values.sum() + values[:1000].sum())
            expected = log_e(bets, values.size + 1000, failures)
            assert wealth.log_e == pytest.approx(expected, abs=1e-6, rel=1e-10)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([0, 0.5, 1.01], "observation 2 is 1.01"),
        ([0, -1e-9], "observation 1 is -1e-09"),
        ([math.nan] * 3, "observation 0 is nan"),
        ([0.0] * 100 + [math.inf], "observation 100 is inf"),
        (math.nan, "observation 0 is nan"),
        ([[0.1]], "2 dimensions"),
        (["bad"], "could not convert"),
        ([None], "observation 0 is nan"),
        ([{}], "must be numbers"),
    ],
)
def test_an_impossible_observation_is_named_and_nothing_is_folded_in(
    values: Any, named: str
) -> None:
    wealth = Wealth(bounded_fail_bets(0.5, 0, 1))
    wealth.update([1.0, 1.0])
    before = wealth.log_e
    with pytest.raises(ValueError, match=named):
        wealth.update(values)
    assert (wealth.n, wealth.log_e) == (2, before)


def test_a_promised_range_that_makes_no_sense_is_refused() -> None:
    for mean, lo, hi in ((0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (math.nan, 0, 1), (0.5, 0, math.inf)):
        for make in (bounded_pass_bets, bounded_fail_bets):
            with pytest.raises(ValueError, match="inside the range"):
                make(mean, lo, hi)
    for rate in (0.0, 1.0, -1.0, math.nan):
        for single in (pass_bets, fail_bets):
            with pytest.raises(ValueError, match="between 0 and 1"):
                single(rate)
    with pytest.raises(ValueError, match="as many counts"):
        log_e_counts(bounded_fail_bets(0, -1, 1), [0, 1], [1])
    with pytest.raises(ValueError, match="counts must be 0 or more"):
        log_e_counts(bounded_fail_bets(0, -1, 1), [0, 1], [1, -1])
    with pytest.raises(ValueError, match="6 failures of 5 images"):
        log_e(pass_bets(0.02), [5, 5], [5, 6])
    with pytest.raises(ValueError, match="nan"):
        log_e(pass_bets(0.02), math.nan, 0)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.sampled_from([0.05, 0.01, 1e-4]), st.floats(0.001, 0.999))
def test_the_limits_invert_the_tests(counts: tuple[int, int], risk: float, rate: float) -> None:
    failures, images = counts
    lower, upper = lower_limit(failures, images, risk), upper_limit(failures, images, risk)
    enough = -math.log(risk)

    assert 0 <= lower <= (failures / images if images else 0) <= upper <= 1
    assert (upper <= rate) == (log_e(pass_bets(rate), images, failures) >= enough)
    assert (lower > rate) == (log_e(fail_bets(rate), images, failures) >= enough)


def test_the_limits_cover_the_true_rate_at_every_look_at_once() -> None:
    """Exact: the runs whose limits ever miss the true rate weigh no more than the two risks."""
    most, risk = 150, 0.1
    every = [np.arange(n + 1) for n in range(most + 1)]
    uppers = [upper_limit(failures, n, risk) for n, failures in enumerate(every)]
    lowers = [lower_limit(failures, n, risk) for n, failures in enumerate(every)]
    for rate in (0.01, 0.05, 0.2, 0.5, 0.9):
        covered, too_high, too_low = np.ones(1), 0.0, 0.0
        for n in range(1, most + 1):
            covered = np.convolve(covered, [1 - rate, rate])
            below, above = uppers[n] < rate, lowers[n] > rate
            assert not (below & above).any()
            too_low += covered[below].sum()
            too_high += covered[above].sum()
            covered[below | above] = 0
        assert too_low <= risk
        assert too_high <= risk


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 600).flatmap(lambda n: st.tuples(st.integers(0, min(n, 9)), st.just(n))),
    st.sampled_from([0.02, 0.03, 0.1]),
    st.sampled_from([None, 0.0, 0.001, 0.01]),
    st.sampled_from([0.05, 0.01]),
)
def test_the_forecast_is_the_first_number_of_images_that_is_enough(
    counts: tuple[int, int], below: float, rate: float | None, risk: float
) -> None:
    failures, images = counts
    enough = -math.log(risk)
    needed = images_needed(failures, images, below=below, log_threshold=enough, rate=rate)

    shown = (failures + 0.5) / (images + 1 / below) if rate is None else rate
    if needed is None:
        assert shown > below / 2
        return
    more = np.arange(needed + 1)
    failing = np.minimum(np.floor(shown * more + 0.5), more)
    evidence = log_e(pass_bets(below), images + more, failures + failing)
    assert evidence[-1] >= enough
    assert (evidence[:-1] < enough).all()


def test_a_forecast_of_what_never_comes_is_none() -> None:
    assert images_needed(0, 0, below=0.02, log_threshold=3.0, rate=0.02) is None
    assert images_needed(0, 0, below=0.02, log_threshold=3.0, rate=1.0) is None
    assert images_needed(100, 100, below=0.02, log_threshold=3.0) is None
    assert images_needed(0, 0, below=0.02, log_threshold=math.inf, rate=0.0) is None
    assert images_needed(0, 400, below=0.02, log_threshold=3.0) == 0
    for wrong in ({"rate": -0.1}, {"rate": math.nan}, {"log_threshold": math.nan}):
        arguments: dict[str, Any] = {"below": 0.02, "log_threshold": 3.0} | wrong
        with pytest.raises(ValueError):
            images_needed(0, 0, **arguments)


def test_increments_are_looked_at_together_and_the_first_decision_stays() -> None:
    test = FailureTest(0.02, 0.03)
    decisions = [test.update(0, 4) for _ in range(40)]
    first = decisions.index("PROMOTE")
    assert decisions == [None] * first + ["PROMOTE"] * (40 - first)
    assert log_e(pass_bets(0.03), 4 * (first + 1), 0) >= test.pass_at
    assert log_e(pass_bets(0.03), 4 * first, 0) < test.pass_at
    assert test.update(500, 500) == "PROMOTE"
    assert (test.failures, test.images) == (500, 660)
    assert test.log_e_fail > test.fail_at


def test_above_the_limit_is_a_rollback_even_below_promote_below() -> None:
    assert FailureTest(0.02, 0.03).update(2500, 100_000) == "ROLLBACK"
    assert FailureTest(0.02, 0.02).update(4, 20) == "ROLLBACK"


def test_no_images_are_no_look_and_no_decision() -> None:
    test = FailureTest()
    assert test.update(0, 0) is None
    assert test.interval() == (0.0, 1.0)
    assert (test.log_e_pass, test.log_e_fail) == (0.0, 0.0)
    assert test.update(0, 200) == "PROMOTE"


def test_beyond_n_max_only_the_anytime_mode_decides() -> None:
    assert FailureTest(n_max=100).update(0, 5000) == "PROMOTE"
    late = FailureTest(n_max=100, mode="calibrated")
    assert late.update(0, 101) is None
    assert late.update(1000, 1000) is None
    early = FailureTest(0.02, 0.1, n_max=100, mode="calibrated")
    assert early.update(0, 90) == "PROMOTE"
    assert early.update(90, 90) == "PROMOTE"


def test_numbers_of_numpy_are_counts_too() -> None:
    test = FailureTest()
    for failed in np.array([True, True, False, True]):
        decision = test.update(failed, 1)
    assert decision == "ROLLBACK"
    assert (test.failures, test.images) == (3, 4)


@pytest.mark.parametrize(
    ("failures", "images"),
    [(-1, 5), (6, 5), (1, 0), (0, -1), (math.nan, 5), (0, math.nan), (0.5, 5), ("1", 5), (0, None)],
)
def test_impossible_counts_are_refused(failures: Any, images: Any) -> None:
    test = FailureTest()
    with pytest.raises(ValueError):
        test.update(failures, images)
    assert (test.failures, test.images, test.decision) == (0, 0, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0.0},
        {"limit": 0.04},
        {"promote_below": 1.0},
        {"alpha": 0.0},
        {"beta": 1.0},
        {"limit": math.nan},
        {"alpha": math.nan},
        {"n_max": 0},
        {"n_max": 2.5},
        {"mode": "fixed"},
    ],
)
def test_senseless_arguments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        FailureTest(**wrong)
    for limit in (lower_limit, upper_limit):
        with pytest.raises(ValueError):
            limit(0, 10, 1.0)
        with pytest.raises(ValueError):
            limit(11, 10, 0.05)
        with pytest.raises(ValueError):
            limit([0, math.nan], 10, 0.05)


def test_limits_of_many_slices_are_those_of_each() -> None:
    images = np.random.default_rng(3).integers(0, 500, 200)
    failures = np.random.default_rng(4).binomial(images, 0.02)
    for limit in (lower_limit, upper_limit):
        together = limit(failures, images, 0.05)
        alone = [limit(int(f), int(n), 0.05) for f, n in zip(failures, images, strict=True)]
        np.testing.assert_allclose(together, alone, rtol=1e-12)
