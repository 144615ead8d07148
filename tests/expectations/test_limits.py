"""Limits answered from the figures alone: the answers of Great Expectations, without it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.expectations import validate as validation
from tasks.expectations.compile import compile_rules
from tasks.expectations.limits import limits_by_figures
from tasks.metrics.measures import measures
from tasks.metrics.tables import outcomes_frame
from tasks.policy import MEASURES, Limit, Policy
from tasks.records import ExpectationResult
from tests.verdict.test_decide import gate

ROOT = Path(__file__).resolve().parents[2]


def answers(limit: Limit, **candidate: Any) -> ExpectationResult:
    metrics = gate(7, candidate=candidate).metrics
    _, found = limits_by_figures(Policy(limits=(limit,)), metrics)
    return found


def test_every_limit_is_answered_in_its_place_and_the_headline_as_a_warning() -> None:
    limits = tuple(Limit(measure=name, max=10**9, on_breach="rollback") for name in MEASURES)
    policy = Policy(limits=limits)
    found = limits_by_figures(policy, gate(7).metrics)
    rules = [rule for rule in compile_rules(policy) if rule.limit is not None]
    assert [(r.name, r.source, r.on_breach) for r in found] == [
        (r.name, r.source, r.on_breach) for r in rules
    ]
    assert (found[0].source, found[0].on_breach) == ("failure.promote_below", "warn")
    assert [r.source for r in found[1:]] == [f"limits[{i}]" for i in range(len(limits))]
    assert all(r.success for r in found[1:])


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 10),
    st.one_of(st.none(), st.floats(0, 10)),
    st.one_of(st.none(), st.floats(0, 10)),
)
def test_a_figure_at_its_limit_keeps_it(
    value: float, low: float | None, high: float | None
) -> None:
    if low is None and high is None:
        return
    if low is not None and high is not None and low > high:
        low, high = high, low
    found = answers(Limit(measure="latency_p95_s", min=low, max=high), latency_p95_s=value)
    assert found.success == ((low is None or low <= value) and (high is None or value <= high))
    assert not found.unmeasured
    assert found.observed == value


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_figure_keeps_no_limit(value: float | None) -> None:
    for limit in (
        Limit(measure="latency_p95_s", max=10),
        Limit(measure="latency_p95_s", min=0),
        Limit(measure="latency_p95_ratio", min=0, max=10),
    ):
        found = answers(limit, latency_p95_s=value)
        assert not found.success
        assert found.unmeasured
        assert found.observed is None
        assert found.sentence.startswith(f"{limit.measure} is unknown; the policy wants at ")


def test_the_sentence_has_the_units_of_the_measure() -> None:
    text = answers(Limit(measure="cost_per_1k_usd", max=15), cost_per_1k_usd=17.0).sentence
    assert text == "cost_per_1k_usd is $17.00; the policy wants at most $15.00."
    text = answers(Limit(measure="failure_rate", max=0.02)).sentence
    assert text == "failure_rate is 2.917 %; the policy wants at most 2 %."


def test_great_expectations_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_publish", lambda context, folder: None)
    monkeypatch.setattr(validation, "self_contained", lambda folder, held: None)
    metrics = gate(7, candidate={"ttfb_p95_s": None, "latency_p99_s": math.nan}).metrics
    limits = []
    for place, (name, value) in enumerate(measures(metrics).items()):
        at = 1.0 if value is None else value
        near = [
            Limit(measure=name, max=at),
            Limit(measure=name, min=at),
            Limit(measure=name, max=at * (1 - 1e-9) - 1e-12),
            Limit(measure=name, min=at * (1 + 1e-9) + 1e-12, on_breach="rollback"),
            Limit(measure=name, min=at - 1, max=at + 1, on_breach="warn"),
        ]
        # Great Expectations takes a fifth of a second for each.
        limits += [near[place % 5], near[(place + 2) % 5]]
    policy = Policy(limits=tuple(limits))
    quick = limits_by_figures(policy, metrics)
    slow = {
        result.source: result
        for result in validation.validate(policy, metrics, outcomes_frame([]), tmp_path)
    }
    assert len(quick) == 1 + 2 * len(MEASURES)
    assert {found.success for found in quick} == {True, False}
    for found in quick:
        assert found == slow[found.source]


def test_a_look_needs_no_great_expectations() -> None:
    code = (
        "import sys; from tasks.expectations.limits import limits_by_figures;"
        "assert 'great_expectations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
