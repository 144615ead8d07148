"""Our rule beside others on the same streams: our promises hold, and what theirs are worth here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu, rankdata

from tasks.verdict.sequential import FailureTest, Mode
from tests.verdict import rivals, rivals_kayenta, rivals_rules
from tests.verdict.rivals import RUNS, Row
from tests.verdict.rivals_rules import (
    ALPHA,
    BETA,
    LIMIT,
    PROMOTE_BELOW,
    every_image,
    every_shard,
    point_estimate,
)


def at_most(measured: float, promised: float, runs: int = RUNS) -> bool:
    """Say whether a measured share keeps a promise, but for three standard errors of luck."""
    return measured <= promised + 3 * math.sqrt(promised * (1 - promised) / runs)


@pytest.fixture(scope="module")
def found() -> dict[str, Row]:
    """The table of 20,000 runs."""
    rows, text = rivals.table()
    assert text.count("\n") == len(rows)
    return {row.name: row for row in rows}


def named(found: dict[str, Row], start: str) -> list[Row]:
    rows = [row for name, row in found.items() if name.startswith(start)]
    assert rows, f"{start!r} is not in the table: {list(found)}"
    return rows


def test_ours_keeps_both_promises_however_it_looks(found: dict[str, Row]) -> None:
    rows = named(found, "imagegate")
    assert len(rows) == 3
    for row in rows:
        assert all(at_most(row.rolled_back[rate], ALPHA) for rate in (0.01, 0.02)), row
        assert all(at_most(row.promoted[rate], BETA) for rate in (0.03, 0.05, 0.12)), row


def test_ours_decides_clear_builds_and_soonest_the_broken_one(found: dict[str, Row]) -> None:
    anytime = found["imagegate anytime, each image"]
    calibrated = found["imagegate calibrated, each image"]
    for row in (anytime, calibrated):
        assert row.promoted[0.01] > 0.99
        assert row.rolled_back[0.05] > 0.99
        assert row.images[0.12] < 45
    assert all(calibrated.images[rate] < anytime.images[rate] for rate in rivals.RATES)
    # The one rival that also keeps both promises is the cheapest there is at the two rates that it
    # was told (Wald and Wolfowitz 1948); at all others ours needs fewer images.
    keeper = found["Wald's SPRT, 2 % against 3 %"]
    assert all(anytime.images[rate] < keeper.images[rate] for rate in (0.01, 0.05, 0.12))
    assert all(anytime.images[rate] > keeper.images[rate] for rate in (0.02, 0.03))


def test_a_point_estimate_looked_at_again_and_again_rolls_back_good_builds(
    found: dict[str, Row],
) -> None:
    once, *again = named(found, "over 2 %")
    assert len(again) == 2
    for row in again:
        assert row.rolled_back[0.01] > 4 * ALPHA, "a good build, half the limit"
        assert row.rolled_back[0.02] > 10 * ALPHA
        assert row.rolled_back[0.01] > 3 * once.rolled_back[0.01], "what looking adds"
    assert once.promoted[0.03] > 2 * BETA, "and one look promotes too much"


def test_wald_keeps_his_promises_at_his_two_rates_and_none_between(found: dict[str, Row]) -> None:
    near, far = found["Wald's SPRT, 2 % against 3 %"], found["Wald's SPRT, 1 % against 3 %"]
    promised = ALPHA / (1 - BETA)  # what Wald (1945) proves for his approximate thresholds
    assert at_most(near.rolled_back[0.02], promised)
    assert at_most(near.promoted[0.03], promised)
    assert at_most(far.rolled_back[0.01], promised)
    assert at_most(far.promoted[0.03], promised)
    assert far.rolled_back[0.02] > 8 * ALPHA, "a build at the limit is neither 1 % nor 3 %"


def test_one_fixed_look_keeps_its_promises_and_often_says_nothing(found: dict[str, Row]) -> None:
    (row,) = named(found, "Clopper-Pearson")
    rule = rivals_rules.clopper_pearson()
    n = int(rule.looks[0])
    assert (
        binom.sf(rule.rollback[0] - 1, n, LIMIT) < ALPHA <= binom.sf(rule.rollback[0] - 2, n, LIMIT)
    )
    assert binom.cdf(rule.promote[0], n, PROMOTE_BELOW) < BETA
    assert binom.cdf(rule.promote[0] + 1, n, PROMOTE_BELOW) >= BETA
    assert row.held(0.02) > 0.5
    assert row.images[0.12] == n > 5 * found["imagegate anytime, each image"].images[0.12]


def test_the_fixed_look_has_its_power_with_no_image_to_spare() -> None:
    def powers(n: int) -> tuple[float, float]:
        rule = rivals_rules.clopper_pearson(n)
        good = binom.cdf(rule.promote[0], n, rivals_rules.GOOD)
        return good, binom.sf(rule.rollback[0] - 1, n, rivals_rules.BAD)

    n = rivals_rules.fixed_size()
    assert min(powers(n)) >= rivals_rules.POWER
    assert all(min(powers(fewer)) < rivals_rules.POWER for fewer in range(50, n))


def test_obrien_fleming_stops_early_only_on_clear_builds(found: dict[str, Row]) -> None:
    (row,) = named(found, "O'Brien-Fleming")
    last = int(rivals_rules.obrien_fleming().looks[-1])
    assert row.images[0.12] < row.images[0.05] < row.images[0.02] <= last
    assert row.held(0.02) > 0.5
    # Its constants are for normal observations; the tail of few failures is heavier.
    assert row.rolled_back[0.02] > ALPHA


def test_obrien_flemings_constants_are_the_published_ones() -> None:
    # Jennison and Turnbull 2000, tables 2.3 and 2.4: K = 5, two-sided 5 %, power 80 %.
    assert rivals_rules.boundary_constant(5, 0.025) == pytest.approx(2.040, abs=5e-4)
    assert rivals_rules.inflation(5, 0.025, 0.8) == pytest.approx(1.028, abs=5e-4)
    assert rivals_rules.boundary_constant(1, 0.05) == pytest.approx(1.6449, abs=1e-4)


def test_kayenta_compares_with_production_and_knows_no_limit(found: dict[str, Row]) -> None:
    low = found["Kayenta, production at 1 %"]
    same = found["Kayenta, production as the build"]
    broken = found["Kayenta, production at 12 %"]
    assert all(at_most(same.rolled_back[rate], 0.01) for rate in rivals.RATES)
    assert all(broken.promoted[rate] > 0.99 for rate in (0.03, 0.05, 0.12))
    assert low.promoted[0.03] > 2 * BETA, "three times as bad as production"
    assert low.rolled_back[0.05] > 0.99
    assert low.dollars[0.12] > 50 * found["imagegate anytime, each image"].dollars[0.12]


def test_every_rule_sees_the_same_streams() -> None:
    looks = every_shard(640)
    first, twin = (point_estimate(looks, name) for name in ("first", "twin"))
    other = point_estimate(every_image(300, 50), "other")
    alone, _ = rivals.table(700, contestants=[first])
    among, _ = rivals.table(700, contestants=[other, twin, first])
    one, two = (next(row for row in among if row.name == name) for name in ("first", "twin"))
    assert one == alone[0]
    assert (one.promoted, one.images) == (two.promoted, two.images)
    kayenta = [row for row in among if row.name.startswith("Kayenta")]
    assert kayenta == alone[1:]


def test_a_worse_build_fails_wherever_a_better_one_does() -> None:
    previous = None
    for rate, failures in rivals.streams(300, seed=9):
        new = np.diff(failures, axis=1, prepend=0)
        assert set(np.unique(new)) <= {0, 1}
        assert new.mean() == pytest.approx(rate, rel=0.02)
        if previous is not None:
            assert (new >= previous).all()
        previous = new


@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
def test_our_boundaries_are_what_the_test_itself_decides(mode: Mode) -> None:
    for looks in (every_image(1500), every_shard(1500)):
        rule = rivals_rules.ours(mode, looks, "ours")
        for rate in (0.01, 0.03, 0.12):
            ((_, failures),) = rivals.streams(6, seed=3, rates=(rate,))
            verdict, images = rivals.play(rule, failures)
            for run in range(len(failures)):
                test = FailureTest(
                    LIMIT, PROMOTE_BELOW, ALPHA, BETA, n_max=rivals_rules.CAP, mode=mode
                )
                seen, decision = 0, None
                for look in looks:
                    known = int(failures[run, seen - 1]) if seen else 0
                    decision = test.update(int(failures[run, look - 1]) - known, int(look) - seen)
                    seen = int(look)
                    if decision:
                        break
                assert {1: "PROMOTE", -1: "ROLLBACK", 0: None}[int(verdict[run])] == decision
                assert images[run] == seen


# Kayenta's judge, against the same formulas written plainly.

series = st.lists(st.integers(0, 9), min_size=3, max_size=12)


def plain_z(shift: float, x: np.ndarray, y: np.ndarray) -> float:
    """Mann-Whitney's z of x - shift against y, from the ranks."""
    n, m = len(x), len(y)
    ranks = rankdata(np.concatenate([x - shift, y]))
    off = ranks[:n].sum() - n * (n + 1) / 2 - n * m / 2
    _, ties = np.unique(ranks, return_counts=True)
    variance = n * m / 12 * (n + m + 1 - (ties**3 - ties).sum() / ((n + m) * (n + m - 1)))
    return float((off - np.sign(off) / 2) / math.sqrt(variance)) if variance > 1e-12 else 0.0


@settings(max_examples=60, deadline=None)
@given(x=series, y=series, shift=st.integers(-40, 40))
def test_the_staircase_is_the_z_of_mann_and_whitney(x: list[int], y: list[int], shift: int) -> None:
    stairs = rivals_kayenta.Staircase(np.array([x]), np.array([y]), 64)
    shift_in_shares = np.clip(shift / 4 / 64, stairs.lowest[0], stairs.highest[0])
    plain = plain_z(shift_in_shares, np.array(x) / 64, np.array(y) / 64)
    assert stairs.at(np.array([shift_in_shares]))[0] == pytest.approx(plain, abs=1e-9)


def test_z_without_a_shift_is_scipys() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.binomial(64, 0.04, (50, 50)), rng.binomial(64, 0.03, (50, 50))
    z = rivals_kayenta.Staircase(x, y, 64).at(np.zeros(50))
    p = [mannwhitneyu(a, b, method="asymptotic").pvalue for a, b in zip(x, y, strict=True)]
    assert 2 * (1 - normal_cdf(np.abs(z))) == pytest.approx(np.array(p), abs=1e-9)


def normal_cdf(z: np.ndarray) -> np.ndarray:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z])


def test_brent_finds_roots() -> None:
    low, high = np.array([0.0, 1.0, -3.0]), np.array([4.0, 2.0, 3.0])
    aim = np.array([2.0, 1.5, -0.25])
    roots = rivals_kayenta.brent(lambda x: aim**3 - x**3, low, high)
    assert roots == pytest.approx(aim, abs=rivals_kayenta.ROOT_TOLERANCE)


def test_kayenta_fails_what_is_plainly_worse_and_passes_equals() -> None:
    rng = np.random.default_rng(6)
    good, bad = rng.binomial(64, 0.02, (20, 50)), rng.binomial(64, 0.12, (20, 50))
    assert rivals_kayenta.fails(bad, good).all()
    assert not rivals_kayenta.fails(good, bad).any(), "its direction is: increase"
    assert not rivals_kayenta.fails(good, good[:, ::-1]).any(), "the same values"
    clean = np.zeros((1, 50), dtype=int)
    assert not rivals_kayenta.fails(clean, clean).any()
    assert rivals_kayenta.fails(bad[:1], clean).all(), "no ratio of means is asked for then"
