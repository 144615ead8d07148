"""The limits of a policy answered from the figures alone, for a look while the run goes on.

Great Expectations takes seconds and judges once, when no more images come; what it says then
counts. A look must only know whether a limit would hold.
"""

from __future__ import annotations

from tasks.expectations.compile import compile_rules, seen
from tasks.metrics.measures import measures
from tasks.policy import Policy
from tasks.records import ExpectationResult, Metrics


def limits_by_figures(policy: Policy, metrics: Metrics) -> tuple[ExpectationResult, ...]:
    """Return one result a limit of the policy; a figure that is missing is no success."""
    figures = measures(metrics)
    found = []
    for rule in compile_rules(policy):
        limit = rule.limit
        if limit is None:
            continue
        value = figures.get(limit.measure)
        holds = (
            value is not None
            and (limit.min is None or value >= limit.min)
            and (limit.max is None or value <= limit.max)
        )
        found.append(
            ExpectationResult(
                name=rule.name,
                source=rule.source,
                on_breach=rule.on_breach,
                success=holds,
                unmeasured=value is None,
                observed=value,
                sentence=seen(limit, value),
            )
        )
    return tuple(found)
