"""Intervals over a run that ends when its evidence is strong: exact coverage, and the rival's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics.rates import rate
from tasks.records import CheckSlice, Rate
from tasks.verdict.boundaries import headline_thresholds
from tasks.verdict.intervals import RISK, any_look, with_limits
from tasks.verdict.sequential import fail_bets, log_e, pass_bets
from tests.verdict.test_decide import gate, piece

CASES, SHARD = 600, 12
LOOKS = tuple(range(SHARD, CASES + 1, SHARD))
RATES = (0.001, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.06, 0.12)
Ends = Callable[[int, int], tuple[float, float]]


@lru_cache
def endings(true: float) -> tuple[tuple[int, int, float], ...]:
    """Where a gate's headline ends: images, failures, and the exact chance of ending there."""
    fail_at, pass_at = headline_thresholds(0.02, 0.03, 0.025, 0.05, "anytime", CASES)
    alive, found = np.array([1.0]), []
    for n in range(1, CASES + 1):
        alive = np.append(alive * (1 - true), 0.0) + np.append(0.0, alive * true)
        if n not in LOOKS:
            continue
        failures = np.arange(n + 1)
        over = (
            (log_e(fail_bets(0.02), n, failures) >= fail_at)
            | (log_e(pass_bets(0.03), n, failures) >= pass_at)
            | (n == CASES)
        )
        found += [(n, int(f), float(alive[f])) for f in failures[over] if alive[f] > 1e-9]
        alive = np.where(over, 0.0, alive)
    return tuple(found)


def coverage(true: float, ends: Ends) -> float:
    """Exact chance that the interval at the end of the run holds the true rate."""
    held = 0.0
    for n, failures, chance in endings(true):
        low, high = ends(n, failures)
        held += chance * (low <= true <= high)
    return held


def at_any_look() -> Ends:
    cells = sorted({(n, f) for true in RATES for n, f, _ in endings(true)})
    rates = any_look([_plain(f, n) for n, f in cells])
    table = {cell: (one.lower, one.upper) for cell, one in zip(cells, rates, strict=True)}
    return lambda n, f: table[n, f]


def _plain(failures: int, n: int, unmeasured: int = 0) -> Rate:
    return Rate(
        estimate=failures / n if n else None,
        lower=0.0,
        upper=1.0,
        n=n,
        failures=failures,
        unmeasured=unmeasured,
    )


@cache
def for_a_fixed_number(n: int, failures: int) -> tuple[float, float]:
    found = rate(failures, n)
    return found.lower, found.upper


def test_the_rate_lies_between_the_ends_however_the_run_came_to_its_end() -> None:
    ends = at_any_look()
    found = {true: coverage(true, ends) for true in RATES}
    assert all(sum(chance for _, _, chance in endings(t)) > 0.999 for t in RATES)
    assert min(found.values()) >= 1 - 2 * RISK, found


def test_an_interval_for_a_fixed_number_misses_more_than_it_says() -> None:
    found = {true: coverage(true, for_a_fixed_number) for true in RATES}
    assert min(found.values()) < 0.93, found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.floats(0, 1), st.floats(0, 1))
def test_what_nobody_could_judge_widens_and_the_estimate_lies_inside(
    n: int, bad: float, lost: float
) -> None:
    failures = round(bad * n)
    unmeasured = round(lost * (n - failures))
    plain, torn = any_look([_plain(failures, n), _plain(failures, n, unmeasured)])
    assert torn.lower == plain.lower <= (failures / n if n else 0.0)
    assert plain.upper <= torn.upper <= 1.0
    if n:
        assert (failures + unmeasured) / n <= torn.upper
    else:
        assert (plain.lower, plain.upper) == (0.0, 1.0)
    # More careful than an interval that nobody looked at before.
    fixed = rate(failures, n, unmeasured=unmeasured)
    assert torn.lower <= fixed.lower + 1e-9
    assert torn.upper >= fixed.upper - 1e-9


def test_every_rate_of_the_figures_gets_its_own_ends_and_nothing_else_changes() -> None:
    check = CheckSlice(
        arm="candidate", dimension="locale", value="th", check="a.b", rate=rate(3, 11)
    )
    before = gate(
        7,
        240,
        2,
        slices=(piece("locale=th", 3, 17, 1), piece("locale=de", 0, 30)),
        metrics={"check_failures": (check,)},
    ).metrics
    after = with_limits(before)
    places = [
        lambda m: m.candidate.failure_rate,
        lambda m: m.baseline.failure_rate,
        lambda m: m.slices[0].rate,
        lambda m: m.slices[1].rate,
        lambda m: m.check_failures[0].rate,
    ]
    for place in places:
        old, new = place(before), place(after)
        assert new == any_look([old])[0]
        assert new.model_copy(update={"lower": old.lower, "upper": old.upper}) == old
        assert (new.lower, new.upper) != (old.lower, old.upper)

    def blank(value: object) -> object:
        if isinstance(value, dict):
            return {k: 0 if k in {"lower", "upper"} else blank(v) for k, v in value.items()}
        return [blank(v) for v in value] if isinstance(value, list | tuple) else value

    assert blank(after.model_dump()) == blank(before.model_dump())


def test_impossible_counts_are_refused() -> None:
    for wrong in (_plain(5, 4), _plain(3, 4, 2)):
        with pytest.raises(ValueError, match="failures"):
            any_look([wrong])
