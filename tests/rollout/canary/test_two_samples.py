"""The comparison with the baseline keeps its promise exactly, on every null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tasks.rollout.canary.two_samples import GRID, LOG_WEIGHTS, Side, expected_rate, log_gains

rates = st.floats(0, 1)


def mean_e(
    new: np.ndarray, old: np.ndarray, *, expected: float, ratio: float, margin: float
) -> np.ndarray:
    """The exact expectation of each bet's e-value; ``new`` and ``old`` are laws of the failures."""
    total = np.zeros(GRID)
    for bad_new, chance_new in enumerate(new):
        for bad_old, chance_old in enumerate(old):
            gains = log_gains(
                Side(len(new) - 1, bad_new),
                Side(len(old) - 1, bad_old),
                expected=expected,
                ratio=ratio,
                margin=margin,
            )
            total += chance_new * chance_old * np.exp(gains)
    return total


@settings(max_examples=60)
@given(
    n_new=st.integers(1, 7),
    n_old=st.integers(1, 12),
    old=rates,
    below=st.floats(0, 1),
    expected=st.floats(0.0005, 0.6),
    ratio=st.sampled_from([1.0, 1.25, 3.0]),
    margin=st.sampled_from([0.0, 0.02, 0.2]),
)
def test_no_null_lets_any_bet_grow(
    n_new: int, n_old: int, old: float, below: float, expected: float, ratio: float, margin: float
) -> None:
    new = below * min(ratio * old + margin, 1.0)
    e = mean_e(
        binom.pmf(np.arange(n_new + 1), n_new, new),
        binom.pmf(np.arange(n_old + 1), n_old, old),
        expected=expected,
        ratio=ratio,
        margin=margin,
    )
    assert e.max() <= 1 + 1e-8


def law(chances: list[float]) -> np.ndarray:
    """The law of the number of failures of images that fail with different chances."""
    out = np.ones(1)
    for chance in chances:
        out = np.convolve(out, [1 - chance, chance])
    return out


@settings(max_examples=40)
@given(
    old=st.lists(rates, min_size=1, max_size=8),
    new=st.lists(rates, min_size=1, max_size=6),
    expected=st.floats(0.001, 0.5),
)
def test_rates_may_move_within_a_window_while_their_means_keep_the_null(
    old: list[float], new: list[float], expected: float
) -> None:
    allowed = float(np.mean(old)) + 0.02
    scale = min(1.0, allowed / max(float(np.mean(new)), 1e-12))
    e = mean_e(
        law([scale * rate for rate in new]), law(old), expected=expected, ratio=1.0, margin=0.02
    )
    assert e.max() <= 1 + 1e-8


@settings(max_examples=60)
@given(
    costs=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    theirs=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    expected=st.floats(0.01, 0.5),
)
def test_a_sum_of_amounts_never_says_more_than_the_amounts(
    costs: list[float], theirs: list[float], expected: float
) -> None:
    """The evidence from sums is at most what the single amounts, each a window's part, give."""
    new, old = Side(len(costs), sum(costs)), Side(len(theirs), sum(theirs))

    def gains(bad_new: float, bad_old: float) -> np.ndarray:
        sides = Side(new.images, bad_new), Side(old.images, bad_old)
        return log_gains(*sides, expected=expected, ratio=1.25)

    none = gains(0, 0)
    # What one amount of hi adds to the logarithm, by arm.
    up_new = (gains(new.images, 0) - none) / new.images
    up_old = (gains(0, old.images) - none) / old.images
    exact = none + sum(np.log1p(z * np.expm1(up_new)) for z in costs)
    exact = exact + sum(np.log1p(z * np.expm1(up_old)) for z in theirs)
    assert (gains(new.bad, old.bad) <= exact + 1e-7).all()


def test_a_bad_candidate_is_proven_and_a_common_incident_is_not() -> None:
    random = np.random.default_rng(5)
    worse, alike = np.zeros(GRID), np.zeros(GRID)
    seen = Side(0, 0)
    for _ in range(20):
        expected = expected_rate(seen, 0.01)
        old = Side(1900, int(random.binomial(1900, 0.30)))
        bad, same = int(random.binomial(100, 0.45)), int(random.binomial(100, 0.30))
        worse += log_gains(Side(100, bad), old, expected=expected, margin=0.02)
        alike += log_gains(Side(100, same), old, expected=expected, margin=0.02)
        seen = Side(seen.images + old.images, seen.bad + old.bad)
    assert np.logaddexp.reduce(worse + LOG_WEIGHTS) > np.log(1000)
    assert np.logaddexp.reduce(alike + LOG_WEIGHTS) < 0


def test_without_both_arms_nothing_is_compared() -> None:
    assert not log_gains(Side(0, 0), Side(50, 3), expected=0.01).any()
    assert not log_gains(Side(50, 3), Side(0, 0), expected=0.01).any()


def test_a_null_that_allows_everything_gives_no_evidence() -> None:
    gains = log_gains(Side(50, 50), Side(50, 48), expected=0.9, ratio=1.25)
    assert not gains.any()


@pytest.mark.parametrize(("images", "bad"), [(1, 2), (-1, 0), (float("inf"), 0), (3, float("nan"))])
def test_impossible_counts_are_refused(images: float, bad: float) -> None:
    with pytest.raises(ValueError, match="0 to images"):
        Side(images, bad)


def test_an_impossible_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="0 < expected < 1"):
        log_gains(Side(1, 0), Side(1, 0), expected=0.0)
