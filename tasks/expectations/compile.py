"""From a policy to rules, and from rules to Great Expectations suites.

Great Expectations judges only values that are there: ``between`` over a column of nulls succeeds.
Every rule on a figure therefore carries its own ``not null``, and the validation looks at the
figure once more itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.policy import MEASURES, Limit, OnBreach, Policy
from tasks.records import ORIGINS

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

Table = Literal["outcomes", "metrics"]
Severity = Literal["critical", "warning", "info"]

TABLES: tuple[Table, ...] = ("outcomes", "metrics")
#: Columns of the outcomes that the suite looks at; lists are nothing for Great Expectations.
OUTCOME_COLUMNS = (
    "run_id",
    "arm",
    "case_id",
    "outcome",
    "failed",
    "subtask",
    "locale",
    "origin",
    "model",
    "weight",
    "cost_microusd",
    "latency_s",
    "retries",
)

_ARMS = ("baseline", "candidate")
_OUTCOMES = ("ok", "defect", "refused", "undelivered", "unmeasured")


@dataclass(frozen=True)
class Rule:
    """One thing that must hold, with the Great Expectations classes that check it."""

    name: str
    #: Which part of the policy asks for it, e.g. ``limits[2]``; unique among the rules.
    source: str
    table: Table
    on_breach: OnBreach
    severity: Severity
    #: What must hold, in words.
    sentence: str
    #: Class name and arguments; the rule holds when all do.
    expectations: tuple[tuple[str, Mapping[str, Any]], ...]
    #: For rules on a figure of the metrics.
    limit: Limit | None = None


def compile_rules(policy: Policy) -> tuple[Rule, ...]:
    """Return the rules of a policy: the shape of the data first, then the limits in their order."""
    headline = Limit(measure="failure_rate", max=policy.failure.promote_below, on_breach="warn")
    return (
        *_structure(),
        # For the reader: the verdict judges the failure rate by its exact bounds.
        _on_limit(headline, "failure.promote_below", "info"),
        *(_on_limit(limit, f"limits[{i}]") for i, limit in enumerate(policy.limits)),
    )


def build_suite(rules: Iterable[Rule], table: Table) -> ExpectationSuite:
    """Return the Great Expectations suite of one table; imports Great Expectations."""
    import great_expectations as gx

    expectations = [
        getattr(gx.expectations, kind)(
            **arguments,
            severity=rule.severity,
            meta={
                "source": rule.source,
                "on_breach": rule.on_breach,
                "sentence": rule.sentence,
            },
        )
        for rule in rules
        if rule.table == table
        for kind, arguments in rule.expectations
    ]
    return gx.ExpectationSuite(name=table, expectations=expectations)


def figure(value: float, measure: str) -> str:
    """Return a figure of the metrics for a person, by the unit of its measure."""
    unit = MEASURES[measure]
    if unit.startswith("share"):
        return f"{100 * value:.4g} %"
    if unit.startswith("dollars"):
        return f"${value:,.2f}"
    if unit == "seconds":
        return f"{value:.4g} s"
    return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def allowed(limit: Limit) -> str:
    """Return what a limit allows, e.g. ``at most $25.00``."""
    parts = []
    if limit.min is not None:
        parts.append(f"at least {figure(limit.min, limit.measure)}")
    if limit.max is not None:
        parts.append(f"at most {figure(limit.max, limit.measure)}")
    return " and ".join(parts)


def seen(limit: Limit, value: float | None) -> str:
    """Return a limit's sentence with the figure."""
    shown = "unknown" if value is None else figure(value, limit.measure)
    return f"{limit.measure} is {shown}; the policy wants {allowed(limit)}."


def _on_limit(limit: Limit, source: str, severity: Severity | None = None) -> Rule:
    """Return the rule of one limit."""
    between = {"column": limit.measure, "min_value": limit.min, "max_value": limit.max}
    return Rule(
        name=f"{limit.measure} {allowed(limit)}",
        source=source,
        table="metrics",
        on_breach=limit.on_breach,
        severity=severity or ("warning" if limit.on_breach == "warn" else "critical"),
        sentence=f"{limit.measure} must be {allowed(limit)} ({MEASURES[limit.measure]}).",
        expectations=(
            ("ExpectColumnValuesToNotBeNull", {"column": limit.measure}),
            ("ExpectColumnValuesToBeBetween", between),
        ),
        limit=limit,
    )


def _structure() -> Iterable[Rule]:
    """Yield the rules on the shape of the outcomes: without them no figure means anything."""
    yield _shape(
        "rows",
        "there is at least one outcome",
        ("ExpectTableRowCountToBeBetween", {"min_value": 1}),
    )
    yield _shape(
        "arms",
        "both arms are there",
        (
            "ExpectColumnDistinctValuesToContainSet",
            {"column": "arm", "value_set": list(_ARMS)},
        ),
    )
    yield _shape(
        "one_run",
        "all outcomes are of one run",
        (
            "ExpectColumnUniqueValueCountToBeBetween",
            {"column": "run_id", "min_value": 1, "max_value": 1},
        ),
    )
    yield _shape(
        "counted_once",
        "every case counts once in each arm",
        ("ExpectCompoundColumnsToBeUnique", {"column_list": ["arm", "case_id"]}),
    )
    for column, values in (("arm", _ARMS), ("outcome", _OUTCOMES), ("origin", ORIGINS)):
        yield _shape(
            f"{column}_known",
            f"{column} is one of {', '.join(values)}",
            ("ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)}),
        )
    for column in ("weight", "cost_microusd", "latency_s", "retries"):
        yield _shape(
            f"{column}_not_negative",
            f"{column} is 0 or more",
            ("ExpectColumnValuesToBeBetween", {"column": column, "min_value": 0}),
        )
    for column in OUTCOME_COLUMNS:
        yield _shape(
            f"{column}_present",
            f"{column} is never missing",
            ("ExpectColumnValuesToNotBeNull", {"column": column}),
        )


def _shape(name: str, sentence: str, *expectations: tuple[str, Mapping[str, Any]]) -> Rule:
    """Return a rule on the shape of the outcomes: data that breaks it is unusable, so HOLD."""
    return Rule(
        name=f"outcomes: {sentence}",
        source=f"structure.{name}",
        table="outcomes",
        on_breach="hold",
        severity="critical",
        sentence=f"In the table of outcomes, {sentence}.",
        expectations=expectations,
    )
