"""The e-detector against its definition, its promise, and the delay it is allowed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rollout.watch.detector import (
    Detector,
    Rise,
    fold,
    log_evidence,
    longest_delay,
    nothing_seen,
)
from tasks.verdict.betting import Floats, fail_bets, log_e

LIMIT = 0.02
RUN_LENGTH = 50_000
BETS = fail_bets(LIMIT)

windows = st.lists(
    st.tuples(st.integers(0, 400), st.floats(0, 1)).map(lambda p: (p[0], round(p[0] * p[1]))),
    max_size=12,
)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_image_by_image_it_is_the_sum_of_the_e_processes_that_began_at_every_image(
    failed: list[bool],
) -> None:
    log_m = nothing_seen(BETS)
    for one in failed:
        log_m = fold(BETS, log_m, 1, int(one))
    by_hand = np.logaddexp.reduce(
        [log_e(BETS, len(failed) - start, sum(failed[start:])) for start in range(len(failed))]
    )
    assert float(log_evidence(BETS, log_m)) == pytest.approx(float(by_hand), abs=1e-9)


@given(windows)
def test_windows_add_up_e_processes_that_began_with_them_once_an_image(
    seen: list[tuple[int, int]],
) -> None:
    detector = Detector(LIMIT, RUN_LENGTH)
    for images, failures in seen:
        detector = detector.seen(images, failures)
    terms = [
        math.log(seen[i][0]) + log_e(BETS, sum(n for n, _ in seen[i:]), sum(f for _, f in seen[i:]))
        for i in range(len(seen))
        if seen[i][0]
    ]
    expected = float(np.logaddexp.reduce(terms)) - math.log(RUN_LENGTH) if terms else -math.inf
    assert detector.evidence == pytest.approx(expected, abs=1e-9)


@given(windows, st.floats(0.001, 0.5))
def test_one_more_failure_is_never_less_evidence(seen: list[tuple[int, int]], limit: float) -> None:
    better, worse = Detector(limit, RUN_LENGTH), Detector(limit, RUN_LENGTH)
    for images, failures in seen:
        better = better.seen(images, failures)
        worse = worse.seen(images, min(images, failures + 1))
        assert worse.evidence >= better.evidence - 1e-9


@given(windows)
def test_stored_and_read_it_goes_on_the_same(seen: list[tuple[int, int]]) -> None:
    import json

    straight = stored = Detector(LIMIT, RUN_LENGTH)
    for images, failures in seen:
        straight = straight.seen(images, failures)
        stored = Detector.from_dict(json.loads(json.dumps(stored.to_dict()))).seen(images, failures)
    assert stored == straight


def test_the_mean_of_m_is_at_most_the_images_seen() -> None:
    """The supermartingale itself: exact over all outcomes of windows, at the limit and below."""
    from itertools import product
    from math import comb

    sizes = (3, 1, 4)
    for rate in (LIMIT, 0.01):
        for upto in range(1, len(sizes) + 1):
            mean = 0.0
            for counts in product(*(range(n + 1) for n in sizes[:upto])):
                log_m = nothing_seen(BETS)
                chance = 1.0
                for n, f in zip(sizes, counts, strict=False):
                    log_m = fold(BETS, log_m, n, f)
                    chance *= comb(n, f) * rate**f * (1 - rate) ** (n - f)
                mean += chance * math.exp(float(log_evidence(BETS, log_m)))
            assert mean <= sum(sizes[:upto]) * (1 + 1e-9)
            if rate == LIMIT:
                assert mean == pytest.approx(sum(sizes[:upto]), rel=1e-9)


def test_no_images_are_no_news() -> None:
    detector = Detector(LIMIT, RUN_LENGTH).seen(100, 3)
    assert detector.seen(0, 0) == detector


@pytest.mark.parametrize(("images", "failures"), [(1, 2), (-1, 0), (math.nan, 0), (10, -1)])
def test_impossible_counts_are_refused(images: float, failures: float) -> None:
    with pytest.raises(ValueError, match="failures must be 0 to images"):
        Detector(LIMIT, RUN_LENGTH).seen(images, failures)


@pytest.mark.parametrize("damage", [{"log_m": [1.0]}, {"log_m": None}, {"run_length": 0}])
def test_damaged_state_is_refused_and_never_a_fresh_start(damage: dict[str, object]) -> None:
    stored = Detector(LIMIT, RUN_LENGTH).seen(10, 1).to_dict() | damage
    with pytest.raises(ValueError):
        Detector.from_dict(stored)


def _weeks(
    rng: np.random.Generator, rates: Floats, window: int, windows: int
) -> tuple[int, Floats]:
    """Return false alarms (each starts the detector anew) and images of many streams."""
    streams = rates.size
    log_m, alarms = nothing_seen(BETS, (streams,)), 0
    images = np.zeros(streams)
    for turn in range(windows):
        # The traffic of a day: 0.2 to 1.8 of the mean.
        n = rng.poisson(window * (1 + 0.8 * math.sin(2 * math.pi * turn / (windows / 7))), streams)
        log_m = fold(BETS, log_m, n, rng.binomial(n, rates))
        images += n
        over = log_evidence(BETS, log_m) >= math.log(RUN_LENGTH)
        alarms += int(over.sum())
        log_m[over] = -np.inf
    return alarms, images


def test_fifty_good_weeks_stay_within_the_promise_of_false_alarms() -> None:
    rng = np.random.default_rng(7)
    at_limit, images = _weeks(rng, np.full(50, LIMIT), window=115, windows=2016)
    # 231,840 images a week on average; the promise is one false alarm in 50,000 at most.
    assert images.sum() > 50 * 200_000
    assert at_limit <= images.sum() / RUN_LENGTH
    good, images = _weeks(rng, rng.uniform(0.005, 0.018, 50), window=115, windows=2016)
    assert good <= images.sum() / RUN_LENGTH / 10


@pytest.mark.parametrize("before", [0, 20_000])
def test_two_to_five_percent_is_found_within_the_delay(before: int) -> None:
    rng = np.random.default_rng(11)
    streams, window = 400, 25
    log_m = nothing_seen(BETS, (streams,))
    for _ in range(before // window):
        log_m = fold(BETS, log_m, window, rng.binomial(window, LIMIT, streams))
        log_m[log_evidence(BETS, log_m) >= math.log(RUN_LENGTH)] = -np.inf
    found = np.zeros(streams)
    for turn in range(1, 400):
        log_m = fold(BETS, log_m, window, rng.binomial(window, 0.05, streams))
        over = log_evidence(BETS, log_m) >= math.log(RUN_LENGTH)
        found[over & (found == 0)] = turn * window
    assert (found > 0).all()
    # A window is looked at when it ends, so up to one window comes on top of the delay.
    assert found.mean() <= longest_delay(LIMIT, 0.05, RUN_LENGTH) + window
    if before:
        assert found.mean() < 500


def test_the_limit_of_the_delay_is_what_walds_equation_says() -> None:
    assert longest_delay(0.02, 0.05, 50_000) == pytest.approx(848.7, abs=0.1)
    assert longest_delay(0.02, 0.02, 50_000) == math.inf
    assert longest_delay(0.02, 0.12, 50_000) < longest_delay(0.02, 0.05, 50_000)


def test_what_people_are_told_is_the_rate_since_it_rose() -> None:
    detector = Detector(LIMIT, RUN_LENGTH)
    for minute in range(200):
        detector = detector.seen(100, 1, at=f"good {minute}")
    for minute in range(10):
        detector = detector.seen(100, 5, at=f"bad {minute}")
    assert detector.rise.since == "bad 0"
    assert (detector.rise.images, detector.rise.failures) == (1000, 50)
    # A good hour undoes it.
    for minute in range(60):
        detector = detector.seen(100, 1, at=f"good again {minute}")
    assert detector.rise == Rise()
