"""Checks that miss defects: exact risks over the planted measurement and the images together."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from tasks.verdict.checkers import (
    Flags,
    Sensitivity,
    adjusted_fail,
    adjusted_pass,
    blind,
    confirm,
    split,
    true_rate,
)
from tasks.verdict.sequential import fail_bets, first_pass, pass_bets
from tests.verdict.slice_runs import alarm_boundary, chance_of_alarm

IMAGES = 5_000


@cache
def proofs(
    rate: float, thresholds: tuple[float, ...], log_at: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Exact chance of a proof within IMAGES images, and mean images, for each PASS threshold.

    Looks after every image; ``rate`` is the rate of measured failures.
    """
    most = np.arange(400)
    needed = np.stack(
        [
            first_pass(pass_bets(threshold), at, most, IMAGES)
            for threshold, at in zip(thresholds, log_at, strict=True)
        ]
    )
    needed = needed[:, : int((needed <= IMAGES).sum(axis=1).max())]
    alive = np.zeros(needed.shape)  # By failures so far; with more of them no proof is possible.
    alive[:, 0] = 1.0
    proven, images = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for n in range(1, IMAGES + 1):
        images += 1 - proven
        alive[:, 1:] = alive[:, 1:] * (1 - rate) + alive[:, :-1] * rate
        alive[:, 0] *= 1 - rate
        through = needed <= n
        proven += np.where(through, alive, 0).sum(axis=1)
        alive[through] = 0.0
    return proven, images


def over_planted(
    rate: float, *, below: float, beta: float, sensitivity: float, planted: int
) -> tuple[float, float]:
    """Exact chance of a proof and mean images, over what the planted defects may give, too."""
    found = np.arange(planted + 1)
    chance = binom.pmf(found, planted, sensitivity)
    found = found[chance > 1e-9]
    adjusted = [adjusted_pass(below, [Sensitivity("all", int(k), planted)], beta) for k in found]
    assert all(adjusted)
    proven, images = proofs(
        rate * sensitivity,
        tuple(one.threshold for one in adjusted if one),
        tuple(-math.log(one.error) for one in adjusted if one),
    )
    weights = chance[chance > 1e-9]
    return float(weights @ proven), float(weights @ images)


@pytest.mark.parametrize("beta", [0.05, 0.01])
@pytest.mark.parametrize(("sensitivity", "planted"), [(0.8, 300), (0.6, 60), (0.95, 100)])
def test_a_build_at_the_threshold_is_rarely_promoted(
    sensitivity: float, planted: int, beta: float
) -> None:
    risk, _ = over_planted(0.02, below=0.02, beta=beta, sensitivity=sensitivity, planted=planted)
    assert 0 < risk <= beta


def test_a_good_build_is_promoted_within_350_images() -> None:
    chance, images = over_planted(0.001, below=0.02, beta=0.05, sensitivity=0.8, planted=300)
    assert chance > 0.999
    assert images <= 350


def test_without_the_adjustment_bad_builds_would_be_promoted() -> None:
    [risk], _ = proofs(0.02 * 0.8, (0.02,), (-math.log(0.05),))
    assert risk > 0.3


def test_the_worst_of_several_checks_needs_no_correction() -> None:
    # All defects are of the kind that the worst check has to find; the other's bound is smaller
    # by chance now and then, which only lowers the threshold.
    planted, beta = 60, 0.05
    spent = split(beta, planted)
    found = np.arange(planted + 1)
    lower = np.array([Sensitivity("any", int(k), planted).lower(spent) for k in found])
    worst, other = 0.7, 0.75
    wrong = sum(
        binom.pmf(k, planted, worst)
        * binom.pmf(found, planted, other)[np.minimum(lower, lower[k]) > worst].sum()
        for k in found
    )
    assert 0 < wrong <= spent
    checks = [Sensitivity("text", 40, planted), Sensitivity("colour", 50, planted)]
    both, alone = adjusted_pass(0.02, checks, beta), adjusted_pass(0.02, checks[:1], beta)
    assert both == alone


@given(st.integers(1, 2_000), st.floats(0.001, 0.2))
def test_the_risks_of_bound_and_test_sum_to_beta(planted: int, beta: float) -> None:
    adjusted = adjusted_pass(0.02, [Sensitivity("text", planted, planted)], beta)
    assert adjusted is not None
    assert adjusted.spent + adjusted.error == pytest.approx(beta)
    assert 0 < adjusted.spent < beta
    assert adjusted.threshold == pytest.approx(0.02 * adjusted.bound)
    assert adjusted.spent == split(beta, planted)


def test_the_split_is_planned_without_the_data_and_is_a_good_one() -> None:
    # It depends on the plan alone; 300 defects: no other split promotes a clean build 1 % sooner.
    check = Sensitivity("text", 240, 300)
    ours = adjusted_pass(0.02, [check], 0.05)
    assert ours is not None
    assert adjusted_pass(0.02, [Sensitivity("text", 180, 300)], 0.05).spent == ours.spent  # type: ignore[union-attr]

    def clean_images(spent: float) -> int:
        bets = pass_bets(0.02 * check.lower(spent))
        return int(first_pass(bets, -math.log(0.05 - spent), np.array([0]), IMAGES)[0])

    best = min(clean_images(0.05 * part) for part in np.linspace(0.001, 0.5, 200))
    assert clean_images(ours.spent) <= 1.01 * best


# --- FAIL -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alarms", [0.0, 0.01])
@pytest.mark.parametrize("sensitivity", [0.7, 1.0])
def test_flags_nobody_confirmed_rarely_roll_back_a_build_at_the_limit(
    alarms: float, sensitivity: float
) -> None:
    limit, alpha, clean = 0.02, 0.05, 200
    flagged = limit * sensitivity + (1 - limit) * alarms
    risk = 0.0
    for seen in range(20):
        chance = binom.pmf(seen, clean, alarms)
        if chance < 1e-6:
            continue
        check = Sensitivity("all", 90, 100, seen, clean)
        adjusted = adjusted_fail(limit, [check], alpha, confirmed=False)
        boundary = alarm_boundary(fail_bets(adjusted.threshold), -math.log(adjusted.error), 2_000)
        risk += chance * chance_of_alarm(flagged, boundary)
    assert risk <= alpha


def test_confirmed_flags_are_tested_against_the_limit_itself() -> None:
    adjusted = adjusted_fail(0.02, [], 0.05, confirmed=True)
    assert (adjusted.threshold, adjusted.error, adjusted.spent) == (0.02, 0.05, 0.0)


def test_unconfirmed_flags_without_clean_pictures_prove_nothing() -> None:
    adjusted = adjusted_fail(0.02, [Sensitivity("text", 9, 10)], 0.05, confirmed=False)
    assert adjusted.bound == 1.0
    assert adjusted.threshold == pytest.approx(1.0)


def test_false_alarms_of_several_checks_add_up() -> None:
    one = Sensitivity("text", 9, 10, 0, 300)
    single = adjusted_fail(0.02, [one], 0.05, confirmed=False)
    double = adjusted_fail(0.02, [one, Sensitivity("colour", 9, 10, 0, 300)], 0.05, confirmed=False)
    assert double.bound > 2 * single.bound


# --- what the planted pictures say ------------------------------------------------------------


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_are_exact(counts: tuple[int, int]) -> None:
    some, most = counts
    check = Sensitivity("text", some, most, some, most)
    below = binomtest(some, most, alternative="greater").proportion_ci(0.99, "exact").low
    above = binomtest(some, most, alternative="less").proportion_ci(0.99, "exact").high
    assert check.lower(0.01) == check.alarms_lower(0.01) == pytest.approx(below, abs=1e-9)
    assert check.upper(0.01) == check.alarms_upper(0.01) == pytest.approx(above, abs=1e-9)


def test_a_check_that_misses_its_defects_is_blind() -> None:
    good = Sensitivity("text", 28, 30)
    missing = Sensitivity("colour", 15, 30)
    unplanted = Sensitivity("licence", 0, 0)
    few = Sensitivity("layout", 3, 3)  # All found, and that proves too little.
    assert blind([good, missing, unplanted, few]) == (missing, unplanted, few)
    assert blind([]) == ()
    assert blind([few], floor=0.3) == ()


def test_a_check_at_the_floor_is_let_through_with_its_risk_at_most() -> None:
    for planted in (5, 30, 300):
        through = [k for k in range(planted + 1) if not blind([Sensitivity("text", k, planted)])]
        assert binom.pmf(through, planted, 0.5).sum() <= 0.05


def test_nothing_found_or_nothing_planted_proves_nothing() -> None:
    assert adjusted_pass(0.02, [Sensitivity("text", 0, 50)], 0.05) is None
    assert adjusted_pass(0.02, [Sensitivity("text", 0, 0)], 0.05) is None
    good = Sensitivity("colour", 50, 50)
    assert adjusted_pass(0.02, [good, Sensitivity("text", 0, 0)], 0.05) is None


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=4),
        st.sampled_from(["yes", "no", "unreadable", "unasked"]),
        max_size=12,
    )
)
def test_every_flag_counts_once(said: dict[str, str]) -> None:
    answers = {flag: answer for flag, answer in said.items() if answer != "unasked"}
    flags = confirm(list(said), answers)  # type: ignore[arg-type]
    assert sorted(flags.confirmed + flags.cleared + flags.doubtful) == sorted(said)
    assert all(said[flag] == "yes" for flag in flags.confirmed)
    assert all(said[flag] == "no" for flag in flags.cleared)
    assert flags.for_fail == list(said.values()).count("yes")
    assert flags.for_pass == len(said) - list(said.values()).count("no")


def test_flags_without_an_answer_speak_against_promotion_only() -> None:
    flags = confirm(["a", "b", "c", "d"], {"a": "yes", "b": "no", "c": "unreadable"})
    assert flags == Flags(confirmed=("a",), cleared=("b",), doubtful=("c", "d"))
    assert (flags.for_fail, flags.for_pass) == (1, 3)


@pytest.mark.parametrize(
    ("flags", "answers", "said"),
    [
        (["a", "a"], {}, "flagged once"),
        (["a"], {"b": "yes"}, "'b'"),
        (["a"], {"a": "maybe"}, "'maybe'"),
        (["a"], {"a": "unasked"}, "known: no, unreadable, yes"),
    ],
)
def test_answers_that_make_no_sense_are_refused(
    flags: list[str], answers: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        confirm(flags, answers)  # type: ignore[arg-type]


@given(st.floats(0, 1), st.integers(1, 40), st.integers(0, 40))
def test_the_estimate_undoes_what_the_checks_do(rate: float, found: int, alarms: int) -> None:
    check = Sensitivity("text", found, 40, alarms, 40)
    flagged = (rate * found + (1 - rate) * alarms) / 40
    estimate = true_rate(flagged, check)
    if found <= alarms:
        assert estimate is None
    else:
        assert estimate == pytest.approx(rate, abs=1e-9)


def test_the_estimate_is_a_share() -> None:
    check = Sensitivity("text", 80, 100, 5, 100)
    assert true_rate(0.01, check) == 0.0
    assert true_rate(0.9, check) == 1.0
    assert true_rate(0.4, Sensitivity("text", 80, 100)) == pytest.approx(0.5)
    assert true_rate(0.4, Sensitivity("text", 0, 0)) is None
    with pytest.raises(ValueError, match="share"):
        true_rate(math.nan, check)


@pytest.mark.parametrize(
    "row", [(-1, 3), (4, 3), (1.5, 3), (math.nan, 3), (1, math.inf), (0, 0, 1, 0), (0, 0, -1, 2)]
)
def test_impossible_counts_are_refused(row: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="check 'text'"):
        Sensitivity("text", *row)


def test_rates_and_risks_out_of_range_are_refused() -> None:
    check = Sensitivity("text", 9, 10)
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="promote_below"):
            adjusted_pass(bad, [check], 0.05)
        with pytest.raises(ValueError, match="beta"):
            adjusted_pass(0.02, [check], bad)
        with pytest.raises(ValueError, match="limit"):
            adjusted_fail(bad, [check], 0.05, confirmed=True)
        with pytest.raises(ValueError, match="alpha"):
            adjusted_fail(0.02, [check], bad, confirmed=False)
        with pytest.raises(ValueError, match="floor"):
            blind([check], floor=bad)
    with pytest.raises(ValueError, match="no check"):
        adjusted_pass(0.02, [], 0.05)
    with pytest.raises(ValueError, match="no check"):
        adjusted_fail(0.02, [], 0.05, confirmed=False)


def test_mixed_defects_are_judged_together_and_the_worst_kind_alone() -> None:
    checks = [Sensitivity("rare", 19, 20), Sensitivity("common", 980, 1000)]
    worst = adjusted_pass(0.03, checks, 0.05)
    mixed = adjusted_pass(0.03, checks, 0.05, mixed=True)
    alone = adjusted_pass(0.03, [Sensitivity("all", 999, 1020)], 0.05)
    assert worst is not None
    assert mixed is not None
    assert mixed == alone
    assert worst.bound < 0.8 < 0.96 < mixed.bound < 999 / 1020


def test_a_check_that_found_nothing_is_not_hidden_by_the_others() -> None:
    checks = [Sensitivity("blind", 0, 20), Sensitivity("sharp", 1000, 1000)]
    assert adjusted_pass(0.03, checks, 0.05, mixed=True) is None
    assert blind(checks) == (checks[0],)
