"""What holds for any figures: worse never helps, unknown is no proof, sentences are whole."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.policy import FailureRule, PairedRule, Policy, SliceRule
from tasks.records import (
    ExpectationResult,
    Verdict,
)
from tasks.verdict import decide
from tasks.verdict.checkers import Sensitivity
from tests.verdict.test_decide import (
    RANK,
    STRICT_PAIRS,
    answer,
    gate,
    guard,
    named,
    paired,
    piece,
    said,
)

forecast = st.integers(20, 900).flatmap(
    lambda n: st.tuples(st.integers(0, max(0, n // 60)), st.just(n), st.integers(0, 2))
)


@settings(max_examples=60, deadline=None)
@given(forecast, st.sampled_from(["anytime", "calibrated"]), st.sampled_from([None, 0.01]))
def test_the_images_needed_decide_when_they_come_at_the_rate_shown(
    count: tuple[int, int, int], mode: Any, beta_left: float | None
) -> None:
    failures, n, unmeasured = count
    assume(failures + unmeasured <= n)
    policy = Policy(failure=FailureRule(mode=mode))
    seen: dict[str, Any] = {"policy": policy, "beta_left": beta_left}
    test = decide(gate(failures, n, unmeasured, planned_cases=5000, **seen), bounds=False).tests[0]
    assume(not test.passed and not test.failed and test.images_needed is not None)
    needed, bad = int(test.images_needed or 0), failures + unmeasured
    rate_shown = (bad + 0.5) / (n + 1 / 0.03) if bad else 0.0
    more = max(0, math.ceil(rate_shown * needed - 0.5))

    def after(images: int, extra: int) -> Verdict:
        state = gate(failures + extra, n + images, unmeasured, planned_cases=5000, **seen)
        return decide(state, bounds=False)

    assert needed > 0
    assume(mode == "anytime" or n + needed <= 5000)
    assert after(needed, more).tests[0].passed
    if rate_shown <= 0.02:
        assert after(needed, more).verdict == "PROMOTE"
    if not bad:
        assert after(needed - 1, 0).verdict == "HOLD"
        assert f"{needed:,} more clean image" in said(gate(0, n, planned_cases=5000, **seen))


counts = (
    st.integers(1, 600)
    .flatmap(lambda n: st.tuples(st.integers(0, min(n, 40)), st.just(n), st.integers(0, 30)))
    .map(lambda c: (c[0], c[1], min(c[2], c[1] - c[0])))
)


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(0, 12), st.integers(0, 20), st.sampled_from(["anytime", "calibrated"]))
def test_one_more_failure_never_helps(
    count: tuple[int, int, int], in_slice: int, worse: int, mode: Any
) -> None:
    failures, n, unmeasured = count
    assume(failures + unmeasured < n)
    policy = Policy(
        failure=FailureRule(mode=mode),
        slices=SliceRule(critical=("locale=th",), critical_below=0.2),
        paired=PairedRule(required=True, margin=0.05),
    )

    def verdict(more: int = 0, slice_more: int = 0, pair_more: int = 0) -> int:
        slices = (piece("locale=th", in_slice + slice_more, 40), piece("locale=de", 0, 20))
        return RANK[
            named(
                gate(
                    failures + more,
                    n,
                    unmeasured,
                    slices=slices,
                    metrics=paired(worse + pair_more, 2),
                    policy=policy,
                )
            )
        ]

    before = verdict()
    assert verdict(more=1) >= before
    assert verdict(slice_more=1) >= before
    assert verdict(pair_more=1) >= before
    assert verdict(1, 1, 1) >= before


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(0, 20), st.integers(0, 5))
def test_losing_an_image_never_helps_the_candidate_nor_proves_it_bad(
    count: tuple[int, int, int], worse: int, better: int
) -> None:
    failures, n, unmeasured = count
    assume(n >= 30 and failures >= 1)

    def verdict(failed: int, lost: int, pairs: int, only: int) -> str:
        return named(
            gate(failed, n, lost, metrics=paired(only, better, pairs), policy=STRICT_PAIRS)
        )

    worse = min(worse, n - better - unmeasured)
    pairs = n - unmeasured
    assume(pairs > worse + better)
    before = verdict(failures, unmeasured, pairs, worse)
    # A good one, alike in both arms, is lost: against a PROMOTE, never for a ROLLBACK.
    if failures + unmeasured < n:
        after = verdict(failures, unmeasured + 1, pairs - 1, worse)
        assert after == "HOLD" or after == before
    # One that failed with the candidate alone is lost: that must not be a way to pass.
    if worse:
        after = verdict(failures - 1, unmeasured + 1, pairs - 1, worse - 1)
        assert after == "HOLD" or (after == before != "PROMOTE") or before == "PROMOTE"
        assert not (after == "PROMOTE" and before != "PROMOTE")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            "cost_per_1k_usd",
            "effective_cost_per_1k_usd",
            "latency_p50_s",
            "latency_p95_s",
            "latency_p99_s",
            "retries_per_image",
            "spend_usd",
        ]
    ),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
    st.integers(0, 240),
)
def test_a_figure_that_is_none_is_never_promoted(
    name: str, value: float | None, failures: int
) -> None:
    # These two are never None: the record refuses it.
    assume(value is not None or name not in {"retries_per_image", "spend_usd"})
    assert decide(gate(failures, candidate={name: value})).verdict != "PROMOTE"


answers = st.lists(
    st.builds(
        answer,
        st.sampled_from(["limits[0]", "limits[1]", "structure.rows"]),
        on_breach=st.sampled_from(["rollback", "hold", "warn"]),
        success=st.booleans(),
        unmeasured=st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(answers, st.booleans())
def test_only_answered_and_kept_expectations_are_promoted(
    results: list[ExpectationResult], final: bool
) -> None:
    verdict = decide(gate(expectations=tuple(results), final=final)).verdict
    blocking = [r for r in results if r.on_breach != "warn"]

    whole = bool(results) and all(r.success and not r.unmeasured for r in blocking)
    breached = final and any(
        r.on_breach == "rollback" and not r.success and not r.unmeasured for r in results
    )

    assert verdict == ("ROLLBACK" if breached else "PROMOTE" if whole else "HOLD")


@settings(max_examples=80, deadline=None)
@given(
    counts,
    st.integers(0, 30),
    st.integers(0, 40),
    answers,
    st.sampled_from([None, 0.0, 0.003]),
    st.sampled_from(["anytime", "calibrated"]),
    st.sampled_from([(), (Sensitivity("a.b", 3, 9),), (Sensitivity("a.b", 290, 300),)]),
    st.booleans(),
)
def test_every_sentence_is_whole_and_said_once(
    count: tuple[int, int, int],
    in_slice: int,
    worse: int,
    results: list[ExpectationResult],
    beta_left: float | None,
    mode: Any,
    checks: tuple[Sensitivity, ...],
    final: bool,
) -> None:
    failures, n, unmeasured = count
    policy = Policy(
        failure=FailureRule(mode=mode),
        slices=SliceRule(critical=("locale=th", "locale=fr")),
        paired=PairedRule(required=True),
    )
    state = gate(
        failures,
        n,
        unmeasured,
        slices=(piece("locale=th", in_slice, 30), piece("locale=de", 30 - in_slice, 30)),
        metrics=paired(worse, 3),
        expectations=tuple(results),
        policy=policy,
        beta_left=beta_left,
        checks=checks,
        final=final,
        guards=(guard(9.0, "limits[0]"), guard(0.0, "limits[1]")),
    )
    slow, quick = decide(state), decide(state, bounds=False)
    # What a reader is told on top decides nothing.
    assert slow.verdict == quick.verdict
    for verdict in (slow, quick):
        told = (*verdict.reasons, *verdict.warnings)
        assert verdict.reasons
        assert len(set(told)) == len(told)
        for sentence in told:
            assert sentence.endswith(".")
            assert not sentence.endswith("..")
            assert "  " not in sentence
            assert not {"None", "nan", "inf"} & set(sentence.replace(",", " ").split())
    assert slow.tests[0].kind == "headline"
    if slow.verdict == "PROMOTE":
        assert all(test.passed for test in slow.tests if test.below is not None)
    if any(test.failed for test in slow.tests):
        assert slow.verdict == "ROLLBACK"
