"""Exact bounds against scipy's, their coverage, and the images that a proof needs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.metrics.rates import images_needed, lower_bound, rate, upper_bound


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 3000), st.sampled_from([0.95, 0.99, 0.8]))
def test_the_interval_is_scipys(data: st.DataObject, n: int, confidence: float) -> None:
    failures = data.draw(st.integers(0, n))
    ours = rate(failures, n, confidence)
    theirs = binomtest(failures, n).proportion_ci(confidence, "exact")

    assert ours.lower == pytest.approx(theirs.low, abs=1e-10)
    assert ours.upper == pytest.approx(theirs.high, abs=1e-10)
    assert ours.estimate == failures / n


def test_unmeasured_images_only_widen_the_interval() -> None:
    measured, partly = rate(3, 100), rate(3, 100, unmeasured=5)
    assert partly.lower == measured.lower
    assert partly.upper == rate(8, 100).upper
    assert (partly.estimate, partly.unmeasured) == (0.03, 5)


@pytest.mark.parametrize(("n", "unmeasured"), [(0, 0), (7, 7)])
def test_nothing_measured_is_no_estimate(n: int, unmeasured: int) -> None:
    nothing = rate(0, n, unmeasured=unmeasured)
    assert nothing.estimate is None
    assert (nothing.lower, nothing.upper) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("failures", "n", "unmeasured"), [(-1, 3, 0), (4, 3, 0), (2, 3, 2), (1, 3, -1), (0, -1, 0)]
)
def test_impossible_counts_are_refused(failures: int, n: int, unmeasured: int) -> None:
    with pytest.raises(ValueError):
        rate(failures, n, unmeasured=unmeasured)


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, float("nan")])
def test_senseless_risks_are_refused(error: float) -> None:
    with pytest.raises(ValueError, match="risk"):
        lower_bound(1, 2, error)
    with pytest.raises(ValueError, match="risk"):
        upper_bound(1, 2, error)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.sampled_from([0.005, 0.02, 0.03, 0.1]), st.sampled_from([0.05, 0.01]))
def test_images_needed_is_the_smallest_number_that_proves_it(
    failures: int, below: float, error: float
) -> None:
    needed = images_needed(failures, below, error)

    assert needed is not None
    assert upper_bound(failures, needed, error) < below
    assert needed == 1 or upper_bound(failures, needed - 1, error) >= below


def test_images_needed_gives_up() -> None:
    assert images_needed(5, 1e-9, 0.05) is None
    assert images_needed(0, 0.03, 0.05) == 99  # 0.97**99 < 0.05 < 0.97**98
