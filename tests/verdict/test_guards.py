"""Limits whose breach means ROLLBACK: which have a test of their own, and on what it rests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics.compute import compute_metrics
from tasks.policy import MEASURES, FailureRule, Limit, Policy
from tasks.records import Accounts, Case, Metrics, Outcome
from tasks.verdict.betting import fail_bets, log_e
from tasks.verdict.guards import guarded, guards_of
from tasks.verdict.mean import fail_evidence_effective, fail_evidence_mean
from tests.verdict.test_decide import gate

TESTED = {
    "failure_rate",
    "defect_rate",
    "refusal_rate",
    "undelivered_rate",
    "unmeasured_rate",
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
    "ttfb_p95_s",
    "cost_per_1k_usd",
    "effective_cost_per_1k_usd",
}


def end(number: int, name: str = "ok", **changes: Any) -> Outcome:
    figures: dict[str, Any] = {
        "run_id": "r",
        "arm": "candidate",
        "case_id": f"c{number}",
        "outcome": name,
        "failed": name in {"defect", "undelivered", "refused"},
        "subtask": "fast",
        "locale": "en",
        "origin": "production",
        "model": "m",
        "cost_microusd": 20_000,
        "latency_s": 1.0,
        "ttfb_s": 0.5,
    }
    return Outcome(**(figures | changes))


def metrics_of(outcomes: list[Outcome], policy: Policy) -> Metrics:
    cases = [Case(case_id=o.case_id, prompt="p", subtask="fast") for o in outcomes]
    return compute_metrics(cases, outcomes, policy, baseline_digest="b", candidate_digest="c")


def evidence(outcomes: list[Outcome], *limits: Limit, **rule: Any) -> list[tuple[int, float]]:
    policy = Policy(limits=limits, failure=FailureRule(**rule))
    found = guards_of(policy, metrics_of(outcomes, policy), outcomes)
    return [(one.images, one.log_e_fail) for one in found]


def upper(measure: str, most: float, **changes: Any) -> Limit:
    return Limit(**({"measure": measure, "max": most, "on_breach": "rollback"} | changes))


def test_rates_percentiles_and_means_have_tests_and_nothing_else() -> None:
    limits = tuple(upper(measure, 0.5) for measure in MEASURES)
    places = guarded(Policy(limits=limits))
    assert {limits[int(place[7:-1])].measure for place in places} == TESTED


@pytest.mark.parametrize(
    "limit",
    [
        upper("failure_rate", 0.02, on_breach="hold"),
        upper("failure_rate", 0.02, on_breach="warn"),
        upper("latency_p95_s", 2.0, min=0.1),
        upper("latency_p95_s", 0.0),
        upper("defect_rate", 1.0),
        upper("defect_rate", 0.0),
        upper("cost_per_1k_usd", -1.0),
        Limit(measure="failure_rate", min=0.1, on_breach="rollback"),
    ],
)
def test_other_limits_have_none_and_leave_the_places_as_they_are(limit: Limit) -> None:
    policy = Policy(limits=(limit, upper("latency_p95_s", 2.0)))
    assert guarded(policy) == ("limits[1]",)
    outcomes = [end(1)]
    (only,) = guards_of(policy, metrics_of(outcomes, policy), outcomes)
    assert (only.source, only.limit, only.images) == ("limits[1]", 2.0, 1)


def test_no_images_are_no_evidence() -> None:
    limits = tuple(upper(measure, 0.5) for measure in TESTED)
    assert evidence([], *limits) == [(0, pytest.approx(0.0, abs=1e-12))] * len(TESTED)


def test_rates_count_what_their_measure_counts() -> None:
    outcomes = [
        *(end(i, "defect") for i in range(3)),
        *(end(10 + i, "refused") for i in range(2)),
        *(end(20 + i, "undelivered") for i in range(4)),
        *(end(30 + i, "unmeasured", failed=False) for i in range(5)),
        *(end(40 + i, origin="adversarial") for i in range(6)),
    ]
    expected = {
        "failure_rate": (9, 14),
        "defect_rate": (3, 20),
        "refusal_rate": (2, 20),
        "undelivered_rate": (4, 20),
        "unmeasured_rate": (5, 20),
    }
    found = evidence(
        outcomes, *(upper(measure, 0.1) for measure in expected), origins=("production",)
    )
    for (images, log_evidence), (bad, of) in zip(found, expected.values(), strict=True):
        assert images == of
        assert log_evidence == pytest.approx(float(log_e(fail_bets(0.1), of, bad)))


def test_what_was_not_delivered_is_not_slow() -> None:
    """That it is missing is for the failure rate to judge."""
    slow = [end(i, latency_s=5.0, ttfb_s=5.0) for i in range(20)]
    gone = [end(100 + i, "undelivered", latency_s=900.0, ttfb_s=None) for i in range(50)]
    lost = [end(200 + i, latency_s=1.0, ttfb_s=None) for i in range(50)]
    limits = (upper("latency_p95_s", 2.0), upper("ttfb_p95_s", 2.0))
    assert evidence(slow, *limits) == evidence(slow + gone, *limits)
    assert evidence(slow, *limits)[0][1] > math.log(1000)
    assert evidence(slow + lost, *limits)[0][0] == 70
    # A first byte that nobody measured is none that was late.
    assert evidence(slow + lost, *limits)[1][1] < evidence(slow, *limits)[1][1]
    assert evidence([end(1, latency_s=2.0)], limits[0])[0][1] < 0  # Just kept.


def test_money_is_by_image_and_unknown_usability_counts_for_the_candidate() -> None:
    limits = (upper("cost_per_1k_usd", 15.0), upper("effective_cost_per_1k_usd", 25.0))
    mixed = [end(i, "ok" if i % 2 else "defect", cost_microusd=20_000 + 100 * i) for i in range(60)]
    costs = [o.cost_microusd for o in mixed]
    usable = [o.outcome == "ok" for o in mixed]
    assert evidence(mixed, *limits) == [
        (60, pytest.approx(fail_evidence_mean(costs, 15_000))),
        (60, pytest.approx(fail_evidence_effective(costs, usable, 25_000))),
    ]
    unknown = [o.model_copy(update={"outcome": "unmeasured", "failed": False}) for o in mixed]
    assert evidence(unknown, limits[1])[0][1] < evidence(mixed, limits[1])[0][1]
    within = [end(i, cost_microusd=15_000) for i in range(500)]
    assert all(log_evidence <= 1e-12 for _, log_evidence in evidence(within, *limits))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from(sorted(TESTED - {"latency_p95_s", "latency_p99_s", "ttfb_p95_s"})),
)
def test_at_its_limit_a_guard_rarely_has_evidence(seed: int, measure: str) -> None:
    """E has mean 1 at most; here as the mean over the two equally likely next images."""
    random = np.random.default_rng(seed)
    n = int(random.integers(0, 40))
    if measure.endswith("_rate"):
        limit, bad, good = 0.5, {}, {}
    elif measure == "latency_p50_s":
        limit, bad, good = 2.0, {"latency_s": 3.0}, {"latency_s": 2.0}
    else:
        limit, bad, good = 30.0, {"cost_microusd": 50_000}, {"cost_microusd": 10_000}
    policy = Policy(limits=(upper(measure, limit),))

    def e(images: list[bool]) -> float:
        counts = Accounts(
            **{name: sum(images) for name in ("defect", "refused", "undelivered", "unmeasured")}
        )
        # The figures by hand: working them out thousands of times would take minutes.
        whole = gate(sum(images), len(images), candidate={"accounts": counts}).metrics
        outcomes = [end(i, **(bad if one else good)) for i, one in enumerate(images)]
        (found,) = guards_of(policy, whole, outcomes)
        return math.exp(found.log_e_fail)

    past = [bool(one) for one in random.random(n) < 0.5]
    assert (e([*past, True]) + e([*past, False])) / 2 <= e(past) * (1 + 1e-9)


def test_limits_on_what_the_checks_say_allow_for_their_false_alarms() -> None:
    """One picture in eight is bad; the limit of a tenth is passed unless the checks cry wolf."""
    outcomes = [end(n, "defect" if n % 8 == 0 else "ok") for n in range(800)]
    limits = {
        name: Limit(measure=name, max=most, on_breach="rollback")
        for name, most in (
            ("failure_rate", 0.10),
            ("defect_rate", 0.10),
            ("refusal_rate", 0.10),
            ("latency_p95_s", 0.5),
            ("effective_cost_per_1k_usd", 22.0),
        )
    }
    policy = Policy(limits=tuple(limits.values()))
    metrics = metrics_of(outcomes, policy)
    plain = {g.source: g.log_e_fail for g in guards_of(policy, metrics, outcomes)}
    wary = {g.source: g.log_e_fail for g in guards_of(policy, metrics, outcomes, doubt=0.05)}
    lower = [name for place, name in enumerate(limits) if _less(wary, plain, place)]
    assert lower == ["failure_rate", "defect_rate", "effective_cost_per_1k_usd"]
    assert wary["limits[0]"] == pytest.approx(float(log_e(fail_bets(0.145), 800, 100)))
    assert {k: wary[k] for k in ("limits[2]", "limits[3]")} == {
        k: plain[k] for k in ("limits[2]", "limits[3]")
    }
    # Checks that call every good picture bad prove nothing.
    assert guards_of(policy, metrics, outcomes, doubt=1.0)[0].log_e_fail <= 0


def _less(one: dict[str, float], other: dict[str, float], place: int) -> bool:
    return one[f"limits[{place}]"] < other[f"limits[{place}]"]
