"""Simulated gates: the same decisions as the tests they stand for, and the odds that are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.policy import FailureRule, Limit, Policy, Sampling, SliceRule
from tasks.verdict.planning import Plan, expect, look_ends
from tasks.verdict.sequential import FailureTest, fail_bets, log_e, pass_bets
from tasks.verdict.simulate import (
    BLOCK,
    HOLD,
    PROMOTE,
    ROLLBACK,
    Played,
    failures_that_fail,
    failures_that_pass,
    next_slice,
    prepare,
    simulate,
)
from tasks.verdict.slices import SliceCount, SliceTests, judge, next_top_up
from tasks.verdict.traffic import MOST_CELLS, SliceSpec, traffic

#: Five standard errors of a share: a test with a fixed seed must not be a matter of luck.
SIGMAS = 5.0


def a_policy(
    cases: int = 600,
    shard: int = 40,
    *,
    critical: tuple[str, ...] = (),
    top_up: float = 0.0,
    slice_limit: float = 0.10,
    failure: FailureRule | None = None,
    limits: tuple[Limit, ...] = (),
    stop_early: bool = True,
) -> Policy:
    return Policy(
        failure=failure or FailureRule(),
        slices=SliceRule(critical=critical, top_up=top_up, limit=slice_limit),
        sampling=Sampling(cases=cases, shard_size=shard, stop_early=stop_early),
        limits=limits,
    )


def near(played: Played, code: int, odds: float) -> None:
    error = math.sqrt(max(odds * (1 - odds), 1 / played.runs) / played.runs)
    assert abs(played.count(code) / played.runs - odds) <= SIGMAS * error


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.02, 0.03, 0.05, 0.12])
@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
def test_without_slices_20_000_gates_agree_with_the_exact_course(rate: float, mode: str) -> None:
    failure = FailureRule(mode="calibrated" if mode == "calibrated" else "anytime")
    policy = a_policy(failure=failure)
    rules = prepare(policy, traffic(rate))
    played = simulate(rules, 20_000, seed=3)
    marks = rules.edges.at
    row = expect(Plan(0.02, 0.03, marks.fail_at, marks.pass_at, 600, 40), rate)
    near(played, PROMOTE, row.promote)
    near(played, ROLLBACK, row.rollback)
    near(played, HOLD, row.hold)
    error = played.images.std() / math.sqrt(played.runs)
    assert abs(played.images.mean() - row.images) <= SIGMAS * max(error, 1e-9)
    assert played.quantiles() == (row.p10, row.median, row.p90)
    assert not played.extra.any()


@settings(deadline=None, max_examples=40)
@given(st.floats(0.005, 0.5), st.floats(0.5, 8.0), st.integers(1, 400))
def test_the_tables_hold_the_counts_that_decide(rate: float, log_at: float, images: int) -> None:
    n = np.arange(images + 1)
    above, below = fail_bets(rate), pass_bets(rate)
    most = failures_that_fail(above, log_at, images)
    few = failures_that_pass(below, log_at, images)
    can, cannot = most <= n, most > 0
    assert (log_e(above, n[can], most[can]) >= log_at).all()
    assert (log_e(above, n[cannot], most[cannot] - 1) < log_at).all()
    can, cannot = few >= 0, few < n
    assert (log_e(below, n[can], few[can]) >= log_at).all()
    assert (log_e(below, n[cannot], few[cannot] + 1) < log_at).all()


def test_one_gate_is_decided_as_the_failure_test_decides_it() -> None:
    rules = prepare(a_policy(), traffic(0.02))
    rng = np.random.default_rng(8)
    for _ in range(200):
        test, failed = FailureTest(alpha=0.025), 0
        for start, end in zip((0, *look_ends(600, 40)), look_ends(600, 40), strict=False):
            new = int(rng.binomial(end - start, rng.choice([0.005, 0.02, 0.05])))
            failed += new
            decision = test.update(new, end - start)
            assert (failed >= rules.fail[end]) == (decision == "ROLLBACK")
            if decision is None:
                assert failed > rules.passes[end]
            else:
                break


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 90), st.floats(0, 0.6)), min_size=4, max_size=4))
def test_slices_are_judged_and_topped_up_as_the_gate_does_it(
    seen: list[tuple[int, float]],
) -> None:
    policy = a_policy(critical=("locale=l0",), top_up=0.25)
    names = [f"locale=l{n}" for n in range(4)]
    rules = prepare(policy, traffic(0.02, [SliceSpec(name, 0.25) for name in names]))
    counts = [SliceCount(name, n, int(n * f)) for name, (n, f) in zip(names, seen, strict=True)]
    marks = rules.edges.at
    tests = SliceTests(
        tuple(names), 0.10, marks.share * 4, 0.05, critical=("locale=l0",), critical_below=0.10
    )
    results = judge(tests, counts, bounds=False)
    n, f = (np.array([[getattr(c, field) for c in counts]]) for field in ("images", "failures"))
    fails = f >= rules.slice_fail[n]
    # Holm hands shares on only when something failed already, and then the run is over.
    assert fails.any() == any(one.failed for one in results)
    assert bool((f <= rules.slice_pass[n])[0, 0]) == results[0].passed
    if not fails.any():
        assert [bool(a) for a in (f >= rules.slice_amber[n])[0]] == [r.amber for r in results]
        wanted = next_top_up(results, dict.fromkeys(names, 10))
        assert next_slice(rules, n, f, np.zeros(1))[0] == (names.index(wanted) if wanted else -1)


@pytest.mark.parametrize("rate", [0.02, 0.06, 0.10])
def test_a_slice_of_all_cases_gives_what_counting_by_hand_gives(rate: float) -> None:
    """Headline, one judged and critical slice, the same count: an exact course with all rules."""
    policy = a_policy(
        300,
        20,
        critical=("locale=th",),
        failure=FailureRule(limit=0.08, promote_below=0.12),
        limits=(Limit(measure="images", min=120),),
    )
    rules = prepare(policy, traffic(rate, [SliceSpec("locale=th", 1.0)]))
    assert rules.judged == rules.critical == (0,)
    promote = rollback = 0.0
    alive, step = np.array([1.0]), 20
    binomial = np.array(
        [math.comb(step, k) * rate**k * (1 - rate) ** (step - k) for k in range(21)]
    )
    slice_at = -math.log(0.025 / 2)
    for n in range(step, 301, step):
        alive = np.convolve(alive, binomial)
        f = np.arange(alive.size)
        bad = (log_e(fail_bets(0.08), n, f) >= -math.log(0.025)) | (
            log_e(fail_bets(0.10), n, f) >= slice_at
        )
        good = (
            (log_e(pass_bets(0.12), n, f) >= -math.log(0.05))
            & (log_e(pass_bets(0.10), n, f) >= -math.log(0.05))
            & (n >= 120)
            & ~bad
        )
        rollback += alive[bad].sum()
        promote += alive[good].sum()
        alive = np.where(bad | good, 0.0, alive)
    played = simulate(rules, 20_000, seed=4)
    near(played, PROMOTE, promote)
    near(played, ROLLBACK, rollback)


@pytest.mark.parametrize("top_up", [0.0, 0.25])
def test_twenty_slices_at_their_limit_keep_the_shared_risk(top_up: float) -> None:
    """Also with extra cases for those that look bad; the headline's own limit is far away."""
    policy = a_policy(2_000, 25, top_up=top_up, failure=FailureRule(limit=0.3, promote_below=0.98))
    # A PROMOTE would end runs early, and with them the chance of a wrong ROLLBACK.
    policy = policy.model_copy(update={"limits": (Limit(measure="images", min=2_000),)})
    specs = [SliceSpec(f"locale=l{n}", 0.05) for n in range(20)]
    played = simulate(prepare(policy, traffic(0.10, specs)), 4_000, seed=5)
    share = played.slice_failed.any(axis=1).mean()
    assert share <= 0.025 + SIGMAS * math.sqrt(0.025 / played.runs)
    assert (played.extra > 0).any() == (top_up > 0)
    assert played.extra.max() <= 500


def test_a_bad_slice_is_caught_by_name() -> None:
    specs = [SliceSpec("locale=th", 0.10, 0.40), SliceSpec("subtask=edit", 0.2)]
    played = simulate(prepare(a_policy(top_up=0.25), traffic(0.005, specs)), 2_000, seed=6)
    assert played.count(ROLLBACK) > 0.9 * played.runs
    assert played.slice_failed[:, 0].sum() > 0.8 * played.count(ROLLBACK)
    # The other slice is bad as well where its cases are Thai, but far less.
    assert played.slice_failed[:, 1].sum() < 0.05 * played.runs
    # Whoever was rolled back was rolled back by something.
    caught = played.headline_failed | played.slice_failed.any(axis=1)
    assert (caught == (played.verdict == ROLLBACK)).all()


def test_extra_cases_make_catching_faster() -> None:
    specs = [SliceSpec("locale=th", 0.04, 0.5)]
    means = [
        simulate(prepare(a_policy(top_up=t), traffic(0.005, specs)), 2_000, seed=7).count(ROLLBACK)
        for t in (0.0, 0.25)
    ]
    assert means[1] > means[0]


def test_a_critical_slice_without_a_case_never_promotes() -> None:
    policy = a_policy(critical=("subtask=typography",))
    rules = prepare(policy, traffic(0.001))
    assert rules.uncovered == ("subtask=typography",)
    assert simulate(rules, 500, seed=1).count(PROMOTE) == 0


def test_small_and_foreign_slices_are_not_judged() -> None:
    policy = a_policy(100)
    specs = [
        SliceSpec("locale=xx", 0.11, 1.0),
        SliceSpec("locale=de", 0.12),
        SliceSpec("check=ocr", 0.5, 1.0),
        SliceSpec("3", 0.5),
    ]
    assert prepare(policy, traffic(0.01, specs)).judged == (1, 3)


def test_without_early_stops_every_case_is_drawn() -> None:
    played = simulate(prepare(a_policy(stop_early=False), traffic(0.12)), 300, seed=1)
    assert (played.images == 600).all()
    assert played.count(ROLLBACK) == 300


def test_the_same_seed_gives_the_same_runs_and_more_runs_begin_alike() -> None:
    rules = prepare(a_policy(), traffic(0.02, [SliceSpec("locale=th", 0.2, 0.1)]))
    heard: list[int] = []
    long = simulate(rules, BLOCK + 100, 9, heard.append)
    short = simulate(rules, BLOCK, 9)
    assert heard == [BLOCK, 100]
    assert (long.verdict[:BLOCK] == short.verdict).all()
    assert (long.images[:BLOCK] == short.images).all()
    assert not (simulate(rules, BLOCK, 10).images == short.images).all()


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0.01, 1), st.one_of(st.none(), st.floats(0, 1))), max_size=5),
    st.lists(st.tuples(st.floats(0.01, 1), st.none()), max_size=4),
)
def test_traffic_has_the_shares_that_were_asked_for(
    rate: float,
    first: list[tuple[float, float | None]],
    second: list[tuple[float, None]],
) -> None:
    specs = []
    for dimension, members in (("locale", first), ("subtask", second)):
        total = max(1.0, sum(share for share, _ in members))
        specs += [
            SliceSpec(f"{dimension}={n}", share / total, own)
            for n, (share, own) in enumerate(members)
        ]
    found = traffic(rate, specs)
    assert found.shares.sum() == pytest.approx(1)
    for number, spec in enumerate(specs):
        assert found.slice_share(number) == pytest.approx(spec.share)
        if spec.rate is not None:
            # No other dimension has rates of its own here.
            assert found.slice_rate(number) == pytest.approx(spec.rate)
    rates = [s.rate for s in specs if s.rate is not None]
    assert min([rate, *rates]) - 1e-9 <= found.rate <= max([rate, *rates]) + 1e-9


@pytest.mark.parametrize(
    ("rate", "specs", "words"),
    [
        (-0.1, [], "0 to 1"),
        (math.nan, [], "0 to 1"),
        (0.01, [SliceSpec("a=b", 0.5, 1.5)], "0 to 1"),
        (0.01, [SliceSpec("a=b", 0.0)], "share"),
        (0.01, [SliceSpec("a=b", math.nan)], "share"),
        (0.01, [SliceSpec("a=b", 0.6), SliceSpec("a=c", 0.6)], "sum to 1.2"),
        (0.01, [SliceSpec("a=b", 0.1), SliceSpec("a=b", 0.1)], "twice"),
        (0.01, [SliceSpec(f"d{n}=x", 0.5) for n in range(11)], f"{MOST_CELLS}"),
    ],
)
def test_impossible_traffic_is_refused(rate: float, specs: list[SliceSpec], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        traffic(rate, specs)


@pytest.mark.parametrize(("runs", "seed"), [(0, 1), (-5, 1), (10, -1)])
def test_impossible_simulations_are_refused(runs: int, seed: int) -> None:
    with pytest.raises(ValueError, match="got"):
        simulate(prepare(a_policy(), traffic(0.01)), runs, seed)
