"""From policies to rules, without Great Expectations."""

from __future__ import annotations

import pytest

from tasks.expectations.compile import OUTCOME_COLUMNS, allowed, compile_rules, figure
from tasks.metrics.tables import outcomes_frame
from tasks.policy import MEASURES, Limit, Policy

LIMITS = tuple(Limit(measure=name, max=1.0) for name in MEASURES)


def test_every_limit_is_a_rule_with_its_place_in_the_policy() -> None:
    rules = compile_rules(Policy(limits=LIMITS))
    by_source = {rule.source: rule for rule in rules}

    assert len(by_source) == len(rules)
    for place, limit in enumerate(LIMITS):
        rule = by_source[f"limits[{place}]"]
        assert rule.limit == limit
        kinds = dict(rule.expectations)
        assert kinds["ExpectColumnValuesToNotBeNull"] == {"column": limit.measure}
        assert kinds["ExpectColumnValuesToBeBetween"] == {
            "column": limit.measure,
            "min_value": None,
            "max_value": 1.0,
        }


@pytest.mark.parametrize(
    ("on_breach", "severity"),
    [("rollback", "critical"), ("hold", "critical"), ("warn", "warning")],
)
def test_severity_follows_what_a_breach_means(on_breach: str, severity: str) -> None:
    limit = Limit(measure="images", min=100, on_breach=on_breach)  # type: ignore[arg-type]
    rule = compile_rules(Policy(limits=(limit,)))[-1]
    assert (rule.on_breach, rule.severity) == (on_breach, severity)


def test_the_headline_is_for_information_and_bad_data_holds() -> None:
    rules = compile_rules(Policy())
    headline = next(r for r in rules if r.source == "failure.promote_below")
    assert (headline.on_breach, headline.severity) == ("warn", "info")
    shape = [r for r in rules if r.table == "outcomes"]
    assert {(r.on_breach, r.severity) for r in shape} == {("hold", "critical")}


def test_the_columns_are_those_of_the_table() -> None:
    assert set(OUTCOME_COLUMNS) <= set(outcomes_frame([]).columns)


def test_figures_read_by_their_unit() -> None:
    assert figure(0.0204, "failure_rate") == "2.04 %"
    assert figure(17.104, "effective_cost_per_1k_usd") == "$17.10"
    assert figure(1.25, "latency_p95_s") == "1.25 s"
    assert figure(240, "images") == "240"
    assert figure(12_500, "images") == "12,500"
    assert allowed(Limit(measure="images", min=100, max=2000)) == "at least 100 and at most 2,000"
