"""The metrics against figures counted by hand, and against plain counting over drawn outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import GateError
from tasks.metrics.compute import compute_metrics
from tasks.metrics.measures import measures
from tasks.metrics.rates import rate
from tasks.policy import MEASURES, FailureRule, Policy
from tasks.records import Case, Metrics, Outcome, Rate, Slice


def end(case_id: str = "c1", arm: str = "candidate", **changes: Any) -> Outcome:
    figures: dict[str, Any] = {
        "run_id": "r1",
        "arm": arm,
        "case_id": case_id,
        "outcome": "ok",
        "failed": False,
        "judged": ("decode.complete", "typography.text"),
        "subtask": "typography",
        "locale": "en",
        "origin": "production",
        "model": "folio-2",
        "cost_microusd": 20_000,
        "latency_s": 1.0,
        "ttfb_s": 0.5,
    }
    return Outcome(**(figures | changes))


def defect(case_id: str, *reasons: str, **changes: Any) -> Outcome:
    return end(case_id, outcome="defect", failed=True, reasons=reasons, **changes)


def compute(
    outcomes: Sequence[Outcome], policy: Policy | None = None, text: Sequence[str] = ()
) -> Metrics:
    names = dict.fromkeys(o.case_id for o in outcomes)
    cases = [
        Case(
            case_id=name,
            prompt="a",
            subtask="typography",
            expected_text=("x",) if name in text else (),
        )
        for name in names
    ]
    return compute_metrics(
        cases,
        outcomes,
        policy or Policy(),
        baseline_digest="sha256:b",
        candidate_digest="sha256:c",
    )


def find(metrics: Metrics, dimension: str, value: str, arm: str = "candidate") -> Slice:
    return next(
        s for s in metrics.slices if (s.arm, s.dimension, s.value) == (arm, dimension, value)
    )


def test_four_accounts_and_money_by_hand() -> None:
    metrics = compute(
        [
            end("ok1"),
            end("ok2", cost_microusd=40_000, retries=1),
            defect("bad", "typography.text"),
            end("no", outcome="refused", failed=True, reasons=("safety.refusal",), judged=()),
            end("right", outcome="refused", judged=()),
            end("gone", outcome="undelivered", failed=True, reasons=("delivery.server",)),
            end("unknown", outcome="unmeasured"),
            end("ok1", "baseline", cached=True, cost_microusd=40_000),
        ]
    )
    arm = metrics.candidate

    assert arm.accounts.model_dump() == {
        "defect": 1,
        "refused": 1,
        "undelivered": 1,
        "unmeasured": 1,
    }
    assert (arm.images, arm.right_refusals, arm.mix_digest) == (7, 1, "sha256:c")
    assert arm.failure_rate == rate(3, 7, unmeasured=1)
    # 0.16 $ for 7 cases, of which 2 are usable.
    assert arm.spend_usd == pytest.approx(0.16)
    assert arm.cost_per_1k_usd == pytest.approx(0.16 / 7 * 1000)
    assert arm.effective_cost_per_1k_usd == pytest.approx(80.0)
    assert arm.retries_per_image == pytest.approx(1 / 7)
    assert metrics.forecast_usd_per_month == pytest.approx(80_000.0)
    # The cached baseline cost nothing now, and its mix costs what it costs.
    assert metrics.baseline.spend_usd == 0.0
    assert metrics.baseline.cost_per_1k_usd == pytest.approx(40.0)
    assert measures(metrics)["effective_cost_ratio"] == pytest.approx(2.0)


def test_latency_is_over_delivered_pictures() -> None:
    metrics = compute(
        [
            *(end(f"c{i}", latency_s=float(i), ttfb_s=float(i) / 2) for i in range(101)),
            end("late", outcome="undelivered", failed=True, latency_s=900.0, ttfb_s=None),
            end("no", outcome="refused", failed=True, latency_s=900.0),
        ]
    )
    arm = metrics.candidate
    assert (arm.latency_p50_s, arm.latency_p95_s, arm.latency_p99_s) == (50.0, 95.0, 99.0)
    assert (arm.ttfb_p50_s, arm.ttfb_p95_s) == (25.0, 47.5)


def test_a_missing_latency_is_not_skipped() -> None:
    metrics = compute([end("a"), end("b", latency_s=math.nan), end("c", ttfb_s=None)])
    assert metrics.candidate.latency_p95_s is None
    assert metrics.candidate.ttfb_p95_s is None


def test_headline_counts_the_origins_of_the_policy() -> None:
    outcomes = [end("a"), defect("b", "x.y", origin="adversarial"), end("c", origin="stress")]
    rule = FailureRule(origins=("production", "stress"))

    assert compute(outcomes, Policy(failure=rule)).candidate.failure_rate == rate(0, 2)
    assert compute(outcomes).candidate.failure_rate == rate(1, 3)


def test_slices_count_every_dimension_and_both_models_of_a_route() -> None:
    metrics = compute(
        [
            end("a", model="folio-2 + acnet-x2", locale="th"),
            defect("b", "typography.text", model="muse-2", locale="th", origin="stress"),
            end("c", outcome="unmeasured", locale="th", judged=()),
            end("a", "baseline", model="folio-1", locale="th"),
        ]
    )
    assert find(metrics, "locale", "th").rate == rate(1, 3, unmeasured=1)
    assert find(metrics, "model", "folio-2").rate == rate(0, 2, unmeasured=1)
    assert find(metrics, "model", "acnet-x2").rate == rate(0, 1)
    assert find(metrics, "origin", "stress").rate == rate(1, 1)
    assert find(metrics, "subtask", "typography", "baseline").rate == rate(0, 1)


def test_checks_count_the_images_they_judged_and_delivery_counts_all() -> None:
    metrics = compute(
        [
            end("a"),
            defect("b", "typography.text", locale="th"),
            end("c", judged=("decode.complete",)),
            end("d", outcome="undelivered", failed=True, reasons=("delivery.server",), judged=()),
        ]
    )
    assert find(metrics, "check", "typography.text").rate == rate(1, 2)
    assert find(metrics, "check", "decode.complete").rate == rate(0, 3)
    assert find(metrics, "check", "delivery.server").rate == rate(1, 4)

    failed = {(c.check, c.dimension, c.value): c.rate for c in metrics.check_failures}
    assert failed["typography.text", "locale", "th"] == rate(1, 1)
    assert failed["typography.text", "subtask", "typography"] == rate(1, 2)
    assert failed["delivery.server", "locale", "en"] == rate(1, 3)
    assert ("decode.complete", "subtask", "typography") not in failed


def test_refusals_count_over_all_cases_also_beside_a_check_of_that_name() -> None:
    refused = {"outcome": "refused", "failed": True, "reasons": ("safety.refusal",)}
    metrics = compute(
        [end("a", judged=("safety.refusal",)), end("b", judged=(), **refused), end("c")]
    )
    assert find(metrics, "check", "safety.refusal").rate == rate(1, 3)


def test_pairs_leave_out_what_either_arm_did_not_measure() -> None:
    metrics = compute(
        [
            defect("a", "x.y"),
            end("a", "baseline"),
            end("b"),
            defect("b", "x.y", arm="baseline"),
            end("c", outcome="unmeasured"),
            defect("c", "x.y", arm="baseline"),
            end("d"),
        ]
    )
    assert metrics.paired is not None
    assert metrics.paired.model_dump() == {"pairs": 2, "candidate_only": 1, "baseline_only": 1}


def test_text_that_nobody_read_is_counted_by_locale() -> None:
    metrics = compute(
        [end("a", text_unjudged=True, locale="th"), end("b"), end("c")], text=("a", "b")
    )
    arm = metrics.candidate
    assert (arm.text_unjudged, arm.text_cases, arm.text_unjudged_locales) == (1, 2, ("th",))
    assert measures(metrics)["text_unjudged_rate"] == 0.5


def test_a_case_counted_twice_or_out_of_nowhere_is_refused() -> None:
    with pytest.raises(GateError, match="twice"):
        compute([end("a"), end("a")])
    with pytest.raises(GateError, match="belong to no case"):
        compute_metrics([], [end("a")], Policy(), baseline_digest="b", candidate_digest="c")


def test_no_outcomes_answer_nothing() -> None:
    answered = {name: v for name, v in measures(compute([])).items() if v is not None}
    assert answered == {"spend_usd": 0.0, "images": 0.0}


def test_every_measure_of_the_policy_is_answered_and_no_other() -> None:
    good = [end("a"), end("a", "baseline")]
    figures = measures(compute(good, text=("a",)))

    assert set(figures) == set(MEASURES)
    assert all(value is not None for value in figures.values())


def test_nothing_unmeasured_becomes_a_figure() -> None:
    metrics = compute([end("a", outcome="unmeasured"), end("a", "baseline")])
    figures = measures(metrics)
    assert figures["failure_rate"] is None
    assert figures["unmeasured_rate"] == 1.0
    broken = metrics.model_copy(
        update={"candidate": metrics.candidate.model_copy(update={"latency_p95_s": math.nan})}
    )
    assert measures(broken)["latency_p95_s"] is None
    assert measures(broken)["latency_p95_ratio"] is None


drawn = st.lists(
    st.tuples(
        st.sampled_from(["ok", "defect", "refused", "undelivered", "unmeasured"]),
        st.sampled_from(["production", "stress", "adversarial"]),
        st.sampled_from(["en", "th"]),
        st.integers(0, 50_000),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=20, deadline=None)
@given(drawn)
def test_counts_agree_with_plain_counting(rows: list[tuple[Any, ...]]) -> None:
    outcomes = [
        end(
            f"c{i}",
            outcome=name,
            failed=name in {"defect", "refused", "undelivered"},
            reasons=("x.y",) if name == "defect" else (),
            judged=("x.y",) if name in {"ok", "defect"} else (),
            origin=origin,
            locale=locale,
            cost_microusd=cost,
            cached=cached,
        )
        for i, (name, origin, locale, cost, cached) in enumerate(rows)
    ]
    metrics = compute(outcomes)
    arm = metrics.candidate

    assert arm.images == len(outcomes)
    assert arm.failure_rate.failures == sum(o.failed for o in outcomes)
    assert sum(arm.accounts.model_dump().values()) + arm.right_refusals == sum(
        o.outcome != "ok" for o in outcomes
    )
    assert arm.spend_usd == pytest.approx(
        sum(o.cost_microusd for o in outcomes if not o.cached) / 1e6
    )
    for dimension in ("subtask", "locale", "origin", "model"):
        parts = [s.rate for s in metrics.slices if s.dimension == dimension]
        assert sum(p.n for p in parts) == len(outcomes)
        assert sum(p.failures for p in parts) == arm.failure_rate.failures
    checks = [s.rate for s in metrics.slices if s.dimension == "check"]
    judged = sum(bool(o.judged) for o in outcomes)
    defects = arm.accounts.defect
    assert checks == ([rate(defects, judged)] if judged else [])
    assert all(isinstance(r, Rate) and r.lower <= r.upper for r in checks)
