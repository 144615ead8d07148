"""Extra cases of a slice that looked bad: they count there, in the money, and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics.compute import compute_metrics
from tasks.metrics.measures import measures
from tasks.metrics.rates import rate
from tasks.policy import Policy
from tasks.records import Case, Metrics, Outcome
from tests.metrics.test_compute import defect, end, find


def compute(outcomes: Sequence[Outcome], extra: Mapping[str, str]) -> Metrics:
    cases = [
        Case(case_id=name, prompt="a", subtask="typography")
        for name in dict.fromkeys(o.case_id for o in outcomes)
    ]
    return compute_metrics(
        cases, outcomes, Policy(), baseline_digest="b", candidate_digest="c", extra=extra
    )


def slices_of(metrics: Metrics) -> dict[tuple[str, str, str], Any]:
    return {(one.arm, one.dimension, one.value): one.rate for one in metrics.slices}


def test_extra_cases_count_in_the_slice_that_they_were_drawn_for() -> None:
    plain = [end("a"), defect("b", "typography.text", locale="th"), end("a", "baseline")]
    more = [
        defect("x1", "typography.text", locale="th", latency_s=99.0),
        end("x2", locale="th", outcome="unmeasured", judged=()),
        end("x1", "baseline", locale="th"),
    ]
    drawn = dict.fromkeys(("x1", "x2"), "locale=th")
    before, after = compute(plain, {}), compute(plain + more, drawn)

    assert find(after, "locale", "th").rate == rate(2, 3, unmeasured=1)
    assert find(after, "locale", "th", "baseline").rate == rate(0, 1)
    changed = {("candidate", "locale", "th"), ("baseline", "locale", "th")}
    assert {key: value for key, value in slices_of(after).items() if key not in changed} == {
        key: value for key, value in slices_of(before).items() if key not in changed
    }
    assert after.paired == before.paired
    # What failed in the slice is told of its extra cases too, and of no other slice.
    told = {(c.dimension, c.value): c.rate for c in after.check_failures if c.arm == "candidate"}
    assert told["locale", "th"] == rate(2, 2)
    assert told["subtask", "typography"] == rate(1, 2)

    arm, old = after.candidate, before.candidate
    assert (arm.images, arm.extra_images) == (2, 2)
    assert arm.spend_usd == pytest.approx(old.spend_usd + 0.04)
    free = {"spend_usd": 0.0, "extra_images": 0}
    assert arm.model_copy(update=free) == old.model_copy(update=free)


def test_a_route_of_two_models_counts_for_the_one_it_was_drawn_for() -> None:
    metrics = compute(
        [end("a", model="m + up"), defect("x", "a.b", model="m + up")], {"x": "model=up"}
    )
    assert find(metrics, "model", "up").rate == rate(1, 2)
    assert find(metrics, "model", "m").rate == rate(0, 1)
    assert find(metrics, "subtask", "typography").rate == rate(0, 1)


def test_extra_cases_alone_are_no_headline() -> None:
    metrics = compute([end("x", locale="th")], {"x": "locale=th"})
    assert metrics.candidate.failure_rate == rate(0, 0)
    assert metrics.candidate.images == 0
    figures = measures(metrics)
    assert {name for name, value in figures.items() if value is not None} == {
        "spend_usd",
        "images",
    }


ends = st.tuples(
    st.sampled_from(["ok", "defect", "refused", "undelivered", "unmeasured"]),
    st.sampled_from(["production", "stress"]),
    st.sampled_from(["en", "th"]),
    st.sampled_from(["m", "m + up"]),
    st.integers(0, 50_000),
    st.booleans(),
    st.sampled_from(["", "", "locale=th", "model=up", "origin=stress"]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(ends, max_size=20), st.lists(ends, max_size=20))
def test_no_extra_case_moves_a_figure_but_its_slice_and_the_spend(
    candidate: list[tuple[Any, ...]], baseline: list[tuple[Any, ...]]
) -> None:
    outcomes, extra = [], {}
    for arm, rows in (("candidate", candidate), ("baseline", baseline)):
        for number, (name, origin, locale, model, cost, cached, drawn_for) in enumerate(rows):
            outcomes.append(
                end(
                    f"c{number}",
                    arm,
                    outcome=name,
                    failed=name in {"defect", "refused", "undelivered"},
                    reasons=("x.y",) if name == "defect" else (),
                    judged=("x.y",) if name in {"ok", "defect"} else (),
                    origin=origin,
                    locale=locale,
                    model=model,
                    cost_microusd=cost,
                    cached=cached,
                )
            )
            if drawn_for:
                extra[f"c{number}"] = drawn_for
    whole = compute(outcomes, extra)
    headline = [o for o in outcomes if o.case_id not in extra]
    plain = compute(headline, {})

    for mine, theirs in ((whole.candidate, plain.candidate), (whole.baseline, plain.baseline)):
        own = [o for o in outcomes if o.arm == mine.arm]
        assert mine.images + mine.extra_images == len(own)
        paid = sum(o.cost_microusd for o in own if not o.cached)
        assert math.isclose(mine.spend_usd, paid / 1e6, abs_tol=1e-9)
        free = {"spend_usd": 0.0, "extra_images": 0}
        assert mine.model_copy(update=free) == theirs.model_copy(update=free)
    assert whole.paired == plain.paired
    assert whole.forecast_usd_per_month == plain.forecast_usd_per_month
    before, after = slices_of(plain), slices_of(whole)
    for (arm, dimension, value), counted in after.items():
        mine = [
            o
            for o in outcomes
            if o.arm == arm
            and extra.get(o.case_id) == f"{dimension}={value}"
            and (
                value in o.model.split(" + ")
                if dimension == "model"
                else getattr(o, dimension, None) == value
            )
        ]
        old = before.get((arm, dimension, value), rate(0, 0))
        assert counted.n == old.n + len(mine)
        assert counted.failures == old.failures + sum(o.failed for o in mine)
        if dimension == "check":
            assert counted == old
    assert set(before) <= set(after)
