"""Many slices at one shared risk: exactly where it can be, else 20,000 simulated runs."""

from __future__ import annotations

import math
import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.verdict.sequential import fail_bets, log_e, pass_bets
from tasks.verdict.slices import SliceCount, SliceTests, judge, next_top_up, not_covered
from tests.verdict.slice_runs import (
    ALPHA,
    LIMIT,
    SLICES,
    Runs,
    alarm_boundary,
    chance_of_alarm,
    play,
)

IMAGES = 2_000
RUNS = 20_000
FAIL = fail_bets(LIMIT)
NAMES = tuple(f"locale={number}" for number in range(SLICES))


def rules(names: tuple[str, ...] = NAMES, **changes: object) -> SliceTests:
    values = {"limit": LIMIT, "alpha": ALPHA / 2, "amber_alpha": ALPHA} | changes
    return SliceTests(names, **values)  # type: ignore[arg-type]


@cache
def at_limit(reserve: int) -> Runs:
    return play(
        np.full(SLICES, LIMIT),
        runs=RUNS,
        images=IMAGES,
        fail=FAIL,
        passing=pass_bets(0.03),
        reserve=reserve,
        go_on=reserve > 0,
    )


@cache
def one_bad(reserve: int) -> Runs:
    rates = np.full(SLICES, 0.01)
    rates[7] = 0.15
    return play(
        rates, runs=RUNS, images=IMAGES, fail=FAIL, passing=pass_bets(0.03), reserve=reserve
    )


# --- the shared risk --------------------------------------------------------------------------


@pytest.mark.parametrize("already_failed", [0, 1, 10, 19])
def test_no_order_of_drawing_exceeds_the_slices_share_of_alpha(already_failed: int) -> None:
    # Each slice is a stack of cards shuffled before the run; drawing, adaptive or not, decides
    # only how deep each stack is read. Whatever the order, an alarm needs a stack of which some
    # beginning is an alarm, and the stacks are independent here: this is an exact upper bound
    # over all ways of topping up, with up to 2,000 images of *each* slice. Slices that failed
    # before (rightly) have handed on their shares: the worst that Holm can do.
    rest = SLICES - already_failed
    boundary = alarm_boundary(FAIL, math.log(rest / (ALPHA / 2)), IMAGES)
    one = chance_of_alarm(LIMIT, boundary)
    assert one <= ALPHA / 2 / rest
    any_of_them = 1 - (1 - one) ** rest
    assert 0.005 < any_of_them <= ALPHA / 2


@pytest.mark.parametrize("reserve", [0, IMAGES])
def test_twenty_slices_at_the_limit_are_rarely_rolled_back(reserve: int) -> None:
    runs = at_limit(reserve)
    assert runs.any_slice(IMAGES) <= ALPHA / 2
    assert 0.005 < runs.any_rollback(IMAGES) <= ALPHA
    if reserve:
        assert runs.extra.mean() > 1  # The top-up was at work.


def test_holm_blames_no_good_slice_beside_bad_ones() -> None:
    rates = np.full(SLICES, LIMIT)
    rates[:10] = 0.3
    runs = play(
        rates,
        runs=4_000,
        images=1_500,
        fail=FAIL,
        passing=pass_bets(0.03),
        reserve=1_500,
        go_on=True,
    )
    assert runs.failed[:, :10].mean() > 0.99
    assert runs.failed[:, 10:].any(axis=1).mean() <= ALPHA / 2


@pytest.mark.parametrize(("reserve", "at_least", "mean"), [(0, 0.935, 920), (25, 0.97, 700)])
def test_one_bad_slice_is_caught_and_is_the_right_one(
    reserve: int, at_least: float, mean: float
) -> None:
    # 25 reserve cases of each slice: the default top-up of a plan of 2,000 cases.
    runs = one_bad(reserve)
    caught = runs.slice_at <= IMAGES
    assert (caught & (runs.slice == 7)).mean() >= at_least
    assert (runs.slice[caught] == 7).mean() >= 0.999
    assert runs.slice_at[caught].mean() <= mean


def test_one_bad_slice_is_caught_without_top_up_where_the_plan_is_balanced() -> None:
    # Exact: 100 of 2,000 images are of each slice, instead of about 100.
    boundary = alarm_boundary(FAIL, math.log(SLICES / (ALPHA / 2)), IMAGES // SLICES)
    assert chance_of_alarm(0.15, boundary) >= 0.95


def test_a_case_drawn_for_one_slice_must_not_count_for_another() -> None:
    # Half of the Thai cases are typography and half of typography is Thai; that quarter fails at
    # 18 %, the rest at 2 %. Both slices are at their limit, and Thai is topped up now and then:
    # counted for typography too, five Thai cases to one of the others look like another slice.
    both, rest, limit = 0.18, 0.02, 0.10
    images = 600
    boundary = alarm_boundary(fail_bets(limit), math.log(1 / 0.025), images)
    rightly = chance_of_alarm((both + rest) / 2, boundary)
    wrongly = chance_of_alarm((both * 5 + rest) / 6, boundary)
    assert rightly <= 0.025 < 0.3 < wrongly


# --- the function itself ----------------------------------------------------------------------


counts_of_slices = st.lists(
    st.integers(0, 400).flatmap(
        lambda images: st.tuples(
            st.just(images), st.integers(0, min(images, 40)), st.integers(0, 3)
        ).filter(lambda row: row[1] + row[2] <= row[0])
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(counts_of_slices, st.sets(st.integers(0, 7)))
def test_holm_agrees_with_the_definition(
    rows: list[tuple[int, int, int]], before: set[int]
) -> None:
    names = NAMES[: len(rows)]
    latched = {NAMES[place] for place in before if place < len(rows)}
    counts = [SliceCount(name, *row) for name, row in zip(names, rows, strict=True)]
    weights = {name: (place + 1) for place, name in enumerate(names)}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    failed = set(latched)
    while True:
        rest = [count for count in counts if count.name not in failed]
        whole = sum(shares[count.name] for count in rest)
        worst = max(
            rest,
            key=lambda count: (
                log_e(FAIL, count.images, count.failures) + math.log(shares[count.name])
            ),
            default=None,
        )
        if worst is None or log_e(FAIL, worst.images, worst.failures) < math.log(
            whole / (ALPHA / 2 * shares[worst.name])
        ):
            break
        failed.add(worst.name)
    results = judge(rules(names, weights=shares), counts, latched, bounds=False)
    assert {one.name for one in results if one.failed} == failed
    for one, count in zip(results, counts, strict=True):
        assert one.log_e_fail == pytest.approx(log_e(FAIL, count.images, count.failures))
        assert one.amber == (one.log_e_fail >= math.log(1 / ALPHA) and not one.failed)
        if one.failed and one.name not in latched:
            assert one.log_e_fail >= one.fail_at


def test_the_share_of_a_failed_slice_goes_to_the_others() -> None:
    names = NAMES[:2]
    counts = [SliceCount(names[0], 40, 8), SliceCount(names[1], 60, 6)]
    alone = judge(rules(names), counts[1:])[1]
    assert alone.fail_at == pytest.approx(math.log(2 / 0.025))
    both = judge(rules(names), counts)
    assert both[0].failed
    assert both[1].fail_at == pytest.approx(math.log(1 / 0.025))
    later = judge(rules(names), counts[1:], latched={names[0]})
    assert later[0].failed
    assert later[0].images == 0
    assert later[1] == both[1]


def test_twelve_unlucky_images_do_not_roll_back() -> None:
    results = judge(rules(limit=0.10), [SliceCount(NAMES[3], 12, 4)])
    assert not any(one.failed for one in results)


def test_a_slice_without_images_has_no_evidence() -> None:
    for one in judge(rules(critical=NAMES[:1]), []):
        assert (one.images, one.log_e_fail, one.failed, one.amber) == (0, 0.0, False, False)
    [missing] = not_covered(judge(rules(critical=NAMES[:1]), []))
    assert (missing.name, missing.passed, missing.log_e_pass) == (NAMES[0], False, 0.0)
    assert (missing.upper, missing.lower) == (1.0, 0.0)
    clean = missing.images_needed
    [almost, proven] = [
        judge(rules(critical=NAMES[:1]), [SliceCount(NAMES[0], n, 0)])[0]
        for n in (clean - 1, clean)
    ]
    assert (almost.images_needed, almost.passed) == (1, False)
    assert (proven.images_needed, proven.passed) == (None, True)
    assert clean < 45


def test_unmeasured_images_are_good_for_fail_and_bad_for_pass() -> None:
    tests = rules(NAMES[:1], critical=NAMES[:1])
    [known] = judge(tests, [SliceCount(NAMES[0], 80, 0)])
    [half] = judge(tests, [SliceCount(NAMES[0], 80, 0, 40)])
    assert known.passed
    assert not half.passed
    assert half.log_e_fail == known.log_e_fail < 0
    assert half.upper > known.upper
    assert not not_covered([known])


def test_a_critical_slice_too_small_to_be_tested_still_needs_its_proof() -> None:
    [tested, critical] = judge(rules(NAMES[:1], critical=("locale=th",)), [])
    assert (tested.name, critical.name) == (NAMES[0], "locale=th")
    assert critical.log_e_fail is critical.fail_at is critical.limit is None
    assert not_covered([tested, critical]) == (critical,)
    [_, enough] = judge(rules(NAMES[:1], critical=("locale=th",)), [SliceCount("locale=th", 60, 0)])
    assert enough.passed
    assert enough.upper < 0.10
    assert enough.images_needed is None


def test_bounds_agree_with_the_decision() -> None:
    for failures in range(1, 12):
        [one, *_] = judge(rules(critical=NAMES[:1]), [SliceCount(NAMES[0], 60, failures)])
        assert one.failed == (one.lower >= LIMIT)
        assert one.lower < failures / 60 < one.upper


def test_no_slices_at_all() -> None:
    assert judge(rules(()), []) == ()
    assert next_top_up((), {"locale=th": 5}) is None


# --- top-up -----------------------------------------------------------------------------------


def test_the_amber_slice_nearest_to_its_alarm_comes_first() -> None:
    counts = [
        SliceCount(NAMES[0], 60, 6),
        SliceCount(NAMES[1], 50, 6),
        SliceCount(NAMES[2], 60, 0),
    ]
    results = judge(rules(), counts, bounds=False)
    assert [one.amber for one in results[:3]] == [True, True, False]
    everywhere = dict.fromkeys(NAMES, 10)
    assert next_top_up(results, everywhere) == NAMES[1]
    assert next_top_up(results, everywhere | {NAMES[1]: 0}) == NAMES[0]
    assert next_top_up(results, {NAMES[2]: 10}) is None
    assert next_top_up(results, {}) is None
    with pytest.raises(ValueError, match="negative"):
        next_top_up(results, {NAMES[1]: -1})


def test_weights_decide_which_alarm_is_nearest() -> None:
    names = NAMES[:2]
    counts = [SliceCount(names[0], 51, 5), SliceCount(names[1], 50, 5)]
    assert next_top_up(judge(rules(names), counts), dict.fromkeys(names, 1)) == names[1]
    tilted = rules(names, weights={names[0]: 0.9, names[1]: 0.1})
    assert next_top_up(judge(tilted, counts), dict.fromkeys(names, 1)) == names[0]


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [(-1, 0, 0), (3, 4, 0), (3, 2, 2), (3, -1, 0), (3.5, 1, 0), (math.nan, 0, 0), (3, 0, -1)]
)
def test_impossible_counts_are_refused(row: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="locale=th"):
        SliceCount("locale=th", *row)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 0.0}, "limit"),
        ({"alpha": math.nan}, "alpha"),
        ({"alpha": 0.1}, "must not exceed"),
        ({"beta": 1.0}, "beta"),
        ({"critical": ("a", "a")}, "twice: a"),
        ({"weights": {NAMES[0]: 1.0}}, "name exactly"),
        ({"weights": dict.fromkeys(NAMES, 0.04)}, "sum to 1"),
        ({"weights": dict.fromkeys(NAMES, math.nan)}, "sum to 1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rules(**changes)


def test_slices_cannot_be_added_or_counted_twice() -> None:
    with pytest.raises(ValueError, match="not among the slices fixed"):
        judge(rules(), [SliceCount("locale=xx", 3, 0)])
    with pytest.raises(ValueError, match="not among the slices fixed"):
        judge(rules(), [], latched=["locale=xx"])
    with pytest.raises(ValueError, match="counted twice"):
        judge(rules(), [SliceCount(NAMES[0], 3, 0), SliceCount(NAMES[0], 3, 0)])
    with pytest.raises(ValueError, match="twice"):
        rules(("a", "a"))


def test_a_decision_over_200_slices_takes_under_5_ms() -> None:
    names = tuple(f"locale={number}" for number in range(200))
    tests = rules(names)
    # Also where every seventh slice fails and hands on its share.
    counts = [SliceCount(name, 60, 2 * (place % 7)) for place, name in enumerate(names)]
    judge(tests, counts, bounds=False)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        results = judge(tests, counts, bounds=False)
        next_top_up(results, {})
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005
