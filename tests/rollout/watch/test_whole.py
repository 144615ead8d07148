"""The detector of undelivered and defective images together: its null, its promise, its power."""

from __future__ import annotations

import json
import math
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rollout.watch.whole import BETS, WholeDetector, alternatives, log_gains, nearest

LIMIT, RUN_LENGTH = 0.02, 50_000


def expectation(n: int, m: int, u: float, d: float) -> np.ndarray:
    """The mean of each bet's e-value of a window when the rates are u and d; exact."""
    total = np.zeros(BETS)
    for f, x in product(range(n + 1), range(m + 1)):
        chance = comb(n, f) * u**f * (1 - u) ** (n - f) * comb(m, x) * d**x * (1 - d) ** (m - x)
        total += chance * np.exp(log_gains(LIMIT, n, f, m, x))
    return total


@given(
    st.integers(0, 12),
    st.integers(0, 6),
    st.floats(0, 1),
    st.floats(0.3, 1),
)
def test_on_all_of_the_null_no_bet_gains_on_average(
    n: int, m: int, part: float, size: float
) -> None:
    """u + (1 - u) d is ``size`` times the limit, in any split."""
    lost = -math.log1p(-size * LIMIT)
    u, d = -math.expm1(-lost * (1 - part)), -math.expm1(-lost * part)
    assert u + (1 - u) * d == pytest.approx(size * LIMIT, rel=1e-6)
    assert (expectation(n, m, u, d) <= 1 + 1e-7).all()


@given(st.floats(0.5, 5_000), st.floats(0.5, 5_000))
def test_the_nearest_point_lies_on_the_edge_and_is_nearest(n: float, m: float) -> None:
    u, d = alternatives(LIMIT)
    u0, d0 = nearest(LIMIT, u, d, n, m)
    assert np.allclose(u0 + (1 - u0) * d0, LIMIT, atol=1e-12)

    def far(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        def divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
            return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

        return n * divergence(u, a) + m * divergence(d, b)

    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        other = np.full_like(u, LIMIT * share)
        rest = (LIMIT - other) / (1 - other)
        assert (far(u0, d0) <= far(other, rest) + 1e-7).all()


def test_requests_alone_are_judged_as_before() -> None:
    """Without a judged image the nearest point is u = limit, the bound of an ordinary bet."""
    u, d = alternatives(LIMIT)
    u0, _ = nearest(LIMIT, u, d, 100, 0)
    above = u > LIMIT
    assert np.allclose(u0[above], LIMIT)
    assert np.allclose(log_gains(LIMIT, 100, 3, 0, 0)[~above], 0)


def play(
    rng: np.random.Generator, u: float, d: float, windows: int, n: int = 200, m: int = 20
) -> int | None:
    """Return after how many requests the alarm comes, ``None`` when not at all."""
    detector = WholeDetector(LIMIT, RUN_LENGTH)
    for turn in range(1, windows + 1):
        detector = detector.then(n, rng.binomial(n, u), m, rng.binomial(m, d))
        if detector.alarm:
            return turn * n
    return None


def test_half_and_half_above_the_limit_together_is_found() -> None:
    """1.8 % without an image and 1.8 % with a defect: each alone is within its limit."""
    rng = np.random.default_rng(3)
    found = [play(rng, 0.018, 0.018, 1_500) for _ in range(4)]
    assert all(found)
    alone = [play(rng, 0.018, 0.0, 500) for _ in range(4)]
    assert not any(alone)


def test_defects_alone_are_found() -> None:
    rng = np.random.default_rng(4)
    assert all(play(rng, 0.005, 0.08, 400) for _ in range(5))


def test_at_the_limit_false_alarms_stay_within_the_promise() -> None:
    rng = np.random.default_rng(5)
    windows, streams = 500, 6
    alarms = sum(play(rng, 0.012, 0.0081, windows) is not None for _ in range(streams))
    # 600,000 requests at the limit; 12 alarms are promised at most.
    assert alarms <= streams * windows * 200 / RUN_LENGTH


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 9)).flatmap(
            lambda p: st.tuples(
                st.just(p[0]), st.integers(0, p[0]), st.just(p[1]), st.integers(0, p[1])
            )
        ),
        max_size=8,
    )
)
def test_stored_and_read_it_goes_on_the_same(seen: list[tuple[int, int, int, int]]) -> None:
    straight = stored = WholeDetector(LIMIT, RUN_LENGTH)
    for window in seen:
        straight = straight.then(*window, at="now")
        stored = WholeDetector.from_dict(json.loads(json.dumps(stored.to_dict())))
        stored = stored.then(*window, at="now")
    assert stored == straight


@pytest.mark.parametrize("counts", [(1, 2, 0, 0), (5, 0, 1, 2), (-1, 0, 0, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError):
        WholeDetector(LIMIT, RUN_LENGTH).then(*counts)


@pytest.mark.parametrize("damage", [{"log_m": [1.0]}, {"seen": None}, {"limit": 0}])
def test_damaged_state_is_refused(damage: dict[str, object]) -> None:
    stored = WholeDetector(LIMIT, RUN_LENGTH).then(10, 1, 2, 0).to_dict() | damage
    with pytest.raises(ValueError):
        WholeDetector.from_dict(stored)
