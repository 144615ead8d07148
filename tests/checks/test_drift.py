import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.checks.drift import FEWEST, Pair, drift


def pairs(count: int, shift: tuple[float, ...], spread: float = 6, seed: int = 1) -> list[Pair]:
    rng = np.random.default_rng(seed)
    baseline = rng.normal((55, 0, 0, 20), 15, (count, 4))
    moved = baseline + rng.normal(shift, spread, (count, 4))
    return [(tuple(b), tuple(c)) for b, c in zip(baseline, moved, strict=True)]


def test_a_run_that_drifts_is_told_with_the_direction() -> None:
    found = drift(pairs(200, (0, 0, 7, 0)))
    assert found.verdict == "fail"
    assert found.pairs == 200
    assert found.delta_e == pytest.approx(7, abs=1.5)
    assert found.p_value < 0.01
    assert found.message.startswith("against the baseline the pictures of 200 pairs are yellower")
    assert "paler" in drift(pairs(200, (0, 0, 0, -8))).message
    assert "darker" in drift(pairs(200, (-8, 0, 0, 0))).message


def test_noise_and_what_nobody_sees_are_no_drift() -> None:
    assert drift(pairs(500, (0, 0, 0, 0), spread=15)).verdict == "pass"
    # Certain, and too small to matter.
    small = drift(pairs(2000, (0, 1.2, 1.2, 0), spread=1))
    assert (small.verdict, small.message) == ("pass", "")
    # Large, and of few wild pictures.
    wild = pairs(100, (0, 0, 0, 0), spread=1)
    wild[:30] = [(b, (b[0], b[1] + 90, b[2], b[3])) for b, _ in wild[:30]]
    assert drift(wild).verdict == "pass"


def test_false_reports_are_rarer_than_alpha_at_the_edge() -> None:
    # A median shift of exactly half the limit in every number: the worst that is no drift.
    alarms = sum(
        drift(pairs(60, (1.5, 1.5, 1.5, 1.5), seed=seed)).p_value <= 0.01 for seed in range(300)
    )
    assert alarms <= 8
    assert sum(drift(pairs(60, (0, 0, 0, 0), seed=s)).verdict == "fail" for s in range(300)) == 0


def test_the_p_value_is_that_of_the_exact_sign_test() -> None:
    found = drift(pairs(50, (0, 4, 0, 0)))
    moves = np.array([np.subtract(c, b) for b, c in pairs(50, (0, 4, 0, 0))])
    beyond = int((moves[:, 1] > 1.5).sum())
    wanted = 8 * binomtest(beyond, 50, 0.5, alternative="greater").pvalue
    assert found.p_value == pytest.approx(min(1.0, wanted), rel=1e-9)


def test_broken_summaries_are_left_out_and_few_pairs_skip() -> None:
    good = pairs(FEWEST, (0, 9, 9, 0), spread=1)
    odd: list[Pair] = [
        ((), good[0][1]),
        (good[0][0], (1.0, 2.0)),
        ((float("nan"),) * 4, (0.0,) * 4),
    ]
    assert drift([*odd, *good]).pairs == FEWEST
    assert drift([*odd, *good]).verdict == "fail"
    few = drift([*odd, *good[1:]])
    assert few.verdict == "skip"
    assert f"{FEWEST} are needed" in few.message
    assert drift([]).verdict == "skip"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-12, 12), st.floats(-12, 12))
def test_exchanging_the_arms_turns_the_drift_round(seed: int, a: float, b: float) -> None:
    found = drift(pairs(40, (0, a, b, 0), seed=seed))
    turned = drift([(c, p) for p, c in pairs(40, (0, a, b, 0), seed=seed)])
    assert turned.verdict == found.verdict
    assert turned.shift == pytest.approx([-value for value in found.shift], abs=1e-3)


def test_senseless_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        drift([], limit=-1)
    with pytest.raises(ValueError, match="alpha"):
        drift([], alpha=0)
