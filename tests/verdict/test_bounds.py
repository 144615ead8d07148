"""The promised risks, summed exactly over every possible number of failures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from tasks.verdict import FailureTest

RULES = [
    (0.02, 0.02, 0.05, 0.05),
    (0.02, 0.03, 0.05, 0.05),
    (0.01, 0.02, 0.01, 0.01),
    (0.02, 0.03, 0.025, 0.05),
    (0.10, 0.10, 0.05, 0.01),
]
SIZES = (*range(1, 201), *range(201, 601, 7), 600)


def look(rule: tuple[float, float, float, float], failures: int, n: int) -> str | None:
    return FailureTest(*rule).update(failures, n)


def most_failures_of_a_promote(rule: tuple[float, float, float, float], n: int) -> int:
    """Highest number of failures that is a PROMOTE; -1 when none is. Found by halving."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if look(rule, middle, n) == "PROMOTE" else (low, middle)
    return low


def fewest_failures_of_a_rollback(rule: tuple[float, float, float, float], n: int) -> int:
    """Lowest number of failures that is a ROLLBACK; n + 1 when none is."""
    low, high = -1, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if look(rule, middle, n) == "ROLLBACK" else (middle, high)
    return high


@pytest.mark.parametrize("rule", RULES)
def test_exact_risks_hold_for_every_number_of_images(
    rule: tuple[float, float, float, float],
) -> None:
    limit, promote_below, alpha, beta = rule
    sizes = np.array(SIZES)
    promote = np.array([most_failures_of_a_promote(rule, n) for n in SIZES])
    rollback = np.array([fewest_failures_of_a_rollback(rule, n) for n in SIZES])

    false_promote = binom.cdf(promote, sizes, promote_below)
    false_rollback = binom.sf(rollback - 1, sizes, limit)

    assert false_promote.max() <= beta
    assert false_rollback.max() <= alpha
    # The test is not just timid: with the images it can spend the risk it was given.
    assert false_promote.max() > beta / 2
    assert false_rollback.max() > alpha / 2


@pytest.mark.parametrize("rule", RULES[:2])
def test_decisions_are_monotone_in_the_failures(rule: tuple[float, float, float, float]) -> None:
    order = {"PROMOTE": 0, None: 1, "ROLLBACK": 2}
    for n in (1, 50, 150, 240, 412):
        seen = [order[look(rule, k, n)] for k in range(n + 1)]
        assert seen == sorted(seen)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 5000), st.sampled_from([0.05, 0.01, 0.025, 1e-4]))
def test_bounds_agree_with_scipy(data: st.DataObject, n: int, risk: float) -> None:
    failures = data.draw(st.integers(0, n))
    test = FailureTest(0.02, 0.03, risk, risk)
    test.update(failures, n)

    lower, upper = test.interval()

    over = binomtest(failures, n, alternative="greater").proportion_ci(1 - risk, "exact")
    under = binomtest(failures, n, alternative="less").proportion_ci(1 - risk, "exact")
    assert lower == pytest.approx(over.low, abs=1e-9)
    assert upper == pytest.approx(under.high, abs=1e-9)


def test_known_decisions() -> None:
    assert look((0.02, 0.03, 0.05, 0.05), 0, 99) == "PROMOTE"  # 0.97**99 = 0.049
    assert look((0.02, 0.03, 0.05, 0.05), 0, 98) is None  # 0.97**98 = 0.0505
    assert look((0.02, 0.03, 0.05, 0.05), 29, 240) == "ROLLBACK"
    assert look((0.02, 0.03, 0.05, 0.05), 3, 240) is None


def test_above_the_limit_is_a_rollback_even_below_promote_below() -> None:
    assert look((0.02, 0.03, 0.05, 0.05), 2500, 100_000) == "ROLLBACK"


def test_a_second_look_is_refused() -> None:
    test = FailureTest()
    assert test.update(0, 50) is None
    with pytest.raises(ValueError, match="looks at its images once"):
        test.update(0, 50)


def test_no_images_are_no_look_and_no_decision() -> None:
    test = FailureTest()
    assert test.update(0, 0) is None
    assert test.interval() == (0.0, 1.0)
    assert test.update(0, 200) == "PROMOTE"


@pytest.mark.parametrize(("failures", "images"), [(-1, 5), (6, 5), (1, 0), (0, -1)])
def test_impossible_counts_are_refused(failures: int, images: int) -> None:
    with pytest.raises(ValueError, match="failures must be"):
        FailureTest().update(failures, images)


def test_more_images_than_planned_are_refused() -> None:
    with pytest.raises(ValueError, match="more than n_max"):
        FailureTest(n_max=100).update(0, 101)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0.0},
        {"limit": 0.04},
        {"promote_below": 1.0},
        {"alpha": 0.0},
        {"beta": 1.0},
        {"limit": float("nan")},
        {"alpha": float("nan")},
        {"n_max": 0},
        {"mode": "anytime"},
    ],
)
def test_senseless_arguments_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        FailureTest(**wrong)  # type: ignore[arg-type]  # wrong on purpose
