from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from tasks.verdict.betting import FAIL_RATIOS, FAIL_WEIGHTS, PASS_THETAS, PASS_WEIGHTS
from tasks.verdict.finite import FiniteTest, finite_log_e_fail, finite_log_e_pass

#: Size, limit, promote below.
SETS = [(200, 0.02, 0.03), (400, 0.02, 0.02), (50, 0.02, 0.1), (29, 0.1, 0.1), (100, 0.07, 0.07)]


def followed(test: FiniteTest, failing: int, reject: Any) -> tuple[dict[str, float], float]:
    """Exact probability of each end, and mean images, when ``failing`` cases of the set fail.

    Args:
        test: The test; only its numbers are used.
        failing: Failing cases of the set.
        reject: From images and failures (array) to masks by name, the first name wins.
    """
    size = test.size
    alive, ends, images = np.zeros(size + 1), {"open": 0.0}, 0.0
    alive[0] = 1
    failures = np.arange(size + 1)
    for n in range(1, size + 1):
        fails = np.clip((failing - failures) / (size - n + 1), 0, 1)
        hit = alive * fails
        alive = alive - hit
        alive[1:] += hit[:-1]
        for name, mask in reject(n, failures[: n + 1]).items():
            mass = float(alive[: n + 1][mask].sum())
            ends[name] = ends.get(name, 0.0) + mass
            images += n * mass
            alive[: n + 1][mask] = 0
    ends["open"] = float(alive.sum())
    return ends, images + size * ends["open"]


def decisions(test: FiniteTest) -> Any:
    def reject(n: int, failures: Any) -> dict[str, Any]:
        bad = finite_log_e_fail(test.size, test.at_limit, n, failures) >= test.fail_at
        good = finite_log_e_pass(test.size, test.not_below, n, failures) >= test.pass_at
        return {"ROLLBACK": bad, "PROMOTE": good}

    return reject


@pytest.mark.parametrize("risk", [0.05, 0.01])
@pytest.mark.parametrize(("size", "limit", "below"), SETS)
def test_exact_errors_hold_at_the_boundary_and_beyond(
    size: int, limit: float, below: float, risk: float
) -> None:
    test = FiniteTest(size, limit, below, risk, risk)
    reject = decisions(test)
    for failing in (test.not_below, test.not_below + 1, test.not_below + 7, size):
        ends, _ = followed(test, failing, reject)
        assert ends.get("PROMOTE", 0.0) <= risk
        # One boundary alone: the other one does not hide errors.
        alone, _ = followed(test, failing, lambda n, f: {"PROMOTE": reject(n, f)["PROMOTE"]})
        assert alone["PROMOTE"] <= risk
    for failing in {test.at_limit, max(test.at_limit - 1, 0), 0}:
        ends, _ = followed(test, failing, reject)
        assert ends.get("ROLLBACK", 0.0) <= risk
        alone, _ = followed(test, failing, lambda n, f: {"ROLLBACK": reject(n, f)["ROLLBACK"]})
        assert alone["ROLLBACK"] <= risk


@pytest.mark.parametrize(("size", "limit", "below"), SETS)
def test_the_whole_set_decides_for_sure(size: int, limit: float, below: float) -> None:
    for failing in range(size + 1):
        test = FiniteTest(size, limit, below)
        test.update(failing, size)
        share = failing / size
        if share > limit:
            assert test.decision == "ROLLBACK"
        elif share < below:
            assert test.decision == "PROMOTE"
        else:
            assert share == limit == below
            assert test.decision is None
        assert test.interval() == (share, share)
    for failing in {test.at_limit, test.at_limit + 1, test.not_below - 1, size // 3}:
        ends, _ = followed(test, failing, decisions(test))
        assert ends["open"] < 1e-12 or failing / size == limit == below


def test_a_small_set_needs_fewer_images_than_an_endless_stream() -> None:
    sizes = [100, 200, 1000, 20_000]
    clean = []
    for size in sizes:
        test = FiniteTest(size)
        clean.append(next(n for n in range(1, size + 1) if test.update(0, 1) == "PROMOTE"))
    assert clean == sorted(clean)
    assert clean[0] <= 75
    assert clean[-1] <= 125


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(SETS))
def test_evidence_is_a_mixture_of_hypergeometric_likelihood_ratios(
    data: st.DataObject, rule: tuple[int, float, float]
) -> None:
    size, limit, below = rule
    test = FiniteTest(size, limit, below)
    n = data.draw(st.integers(0, size))
    f = data.draw(st.integers(0, min(n, test.at_limit, test.not_below)))
    if n - f > size - test.not_below:
        return  # certain, no ratio
    edge = test.not_below
    bets = [min(round(edge * (1 - theta)), edge - 1) for theta in PASS_THETAS]
    ratios = hypergeom.pmf(f, size, bets, n) / hypergeom.pmf(f, size, edge, n)
    expected = np.average(ratios, weights=PASS_WEIGHTS)
    assert math.exp(finite_log_e_pass(size, edge, n, f)) == pytest.approx(expected, rel=1e-6)

    edge = test.at_limit
    tops = [max(round(min(edge * ratio, 0.95 * size)), edge + 1) for ratio in FAIL_RATIOS]
    ratios = hypergeom.pmf(f, size, tops, n) / hypergeom.pmf(f, size, edge, n)
    expected = np.average(ratios, weights=FAIL_WEIGHTS)
    assert math.exp(finite_log_e_fail(size, edge, n, f)) == pytest.approx(expected, rel=1e-6)


def test_the_interval_covers_at_every_look_at_once() -> None:
    size, risk = 60, 0.1
    test = FiniteTest(size, 0.05, 0.1, risk, risk)
    limits = {}
    for n in range(size + 1):
        for f in range(n + 1):
            test.images, test.failures = n, f
            limits[n, f] = test.interval()
    for failing in (0, 1, 3, 6, 20, 59, 60):
        share = failing / size

        def misses(n: int, failures: Any, share: float = share) -> dict[str, Any]:
            return {
                "above": np.array([limits[n, int(f)][0] > share + 1e-12 for f in failures]),
                "below": np.array([limits[n, int(f)][1] < share - 1e-12 for f in failures]),
            }

        ends, _ = followed(test, failing, misses)
        assert ends["above"] <= risk
        assert ends["below"] <= risk


def test_sets_are_counted_without_errors_of_rounding() -> None:
    test = FiniteTest(100, 0.07, 0.07)  # 0.07 * 100 = 7.000000000000001
    assert (test.at_limit, test.not_below) == (7, 7)
    test = FiniteTest(150, 0.02, 0.03)
    assert (test.at_limit, test.not_below) == (3, 5)


def test_increments_and_latch() -> None:
    test = FiniteTest(200, 0.02, 0.1)
    assert test.update(0, 0) is None
    assert test.interval() == (0.0, 1.0)
    seen = [test.update(0, 10) for _ in range(10)]
    assert seen[-1] == "PROMOTE"
    assert test.update(50, 50) == "PROMOTE"
    assert math.isfinite(test.log_e_pass)
    assert math.isfinite(test.log_e_fail)


@pytest.mark.parametrize(
    ("failures", "images"), [(-1, 5), (6, 5), (0, 51), (math.nan, 5), (0.5, 5), (0, -1)]
)
def test_impossible_counts_are_refused(failures: Any, images: Any) -> None:
    test = FiniteTest(50)
    with pytest.raises(ValueError):
        test.update(failures, images)
    assert (test.failures, test.images) == (0, 0)
    with pytest.raises(ValueError):
        finite_log_e_pass(50, 2, 51, 0)
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError):
            FiniteTest(size)  # type: ignore[arg-type]
