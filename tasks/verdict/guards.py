"""Evidence that a guard metric is above its limit: limits whose breach means ROLLBACK.

A figure that is above its limit by chance must not roll a build back, least of all when it is
looked at after every shard. So such a limit gets a sequential test of its own wherever its measure
is a rate, a percentile or a mean of independent images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tasks.policy import Limit, Policy
from tasks.records import Metrics, Outcome, Record
from tasks.verdict.mean import fail_evidence_effective, fail_evidence_mean
from tasks.verdict.quantile import fail_evidence_latency
from tasks.verdict.sequential import fail_bets, log_e

#: Highest limit that a share can be tested against.
_NO_LIMIT = 0.9999
_DELIVERED = ("ok", "defect", "unmeasured")
#: Dollars for 1,000 images as micro-dollars an image.
_MICROUSD_AN_IMAGE = 1000

Evidence = Callable[[Limit, Metrics, Sequence[Outcome], float], tuple[int, float]]


class GuardEvidence(Record):
    """What speaks for one limit being passed."""

    #: Place of the limit in the policy, e.g. ``limits[2]``.
    source: str
    limit: float
    images: int
    log_e_fail: float


def guarded(policy: Policy) -> tuple[str, ...]:
    """Return the places of the limits that have a test; by the policy alone, before any image."""
    return tuple(f"limits[{place}]" for place, _, _ in _tests(policy))


def guards_of(
    policy: Policy, metrics: Metrics, outcomes: Sequence[Outcome], doubt: float = 0.0
) -> tuple[GuardEvidence, ...]:
    """Return the evidence on every guarded limit.

    Args:
        policy: The policy.
        metrics: The figures.
        outcomes: The candidate's outcomes in the headline sample.
        doubt: Share of good pictures that the checks call bad at most: limits on what the checks
            say allow for it.

    Raises:
        ValueError: A latency or a cost that is no figure.
    """
    found = []
    for place, limit, evidence in _tests(policy):
        images, log_e_fail = evidence(limit, metrics, outcomes, doubt)
        found.append(
            GuardEvidence(
                source=f"limits[{place}]",
                limit=_most(limit),
                images=images,
                log_e_fail=log_e_fail,
            )
        )
    return tuple(found)


def _tests(policy: Policy) -> list[tuple[int, Limit, Evidence]]:
    return [
        (place, limit, _EVIDENCE[limit.measure])
        for place, limit in enumerate(policy.limits)
        if limit.on_breach == "rollback"
        and limit.measure in _EVIDENCE
        # A lower limit has no test; a share of nothing or of everything is no hypothesis.
        and limit.min is None
        and _most(limit) > 0
        and not (limit.measure.endswith("_rate") and _most(limit) >= 1)
    ]


def _most(limit: Limit) -> float:
    return 0.0 if limit.max is None else limit.max


def _share(count: Callable[[Metrics], tuple[int, int]], *, by_checks: bool = False) -> Evidence:
    def evidence(
        limit: Limit, metrics: Metrics, _: Sequence[Outcome], doubt: float
    ) -> tuple[int, float]:
        failures, images = count(metrics)
        most = _most(limit)
        if by_checks:
            most = min(most + (1 - most) * doubt, _NO_LIMIT)
        return images, float(log_e(fail_bets(most), images, failures))

    return evidence


def _latency(percentile: float, field: str = "latency_s") -> Evidence:
    def evidence(
        limit: Limit, _: Metrics, outcomes: Sequence[Outcome], __: float
    ) -> tuple[int, float]:
        seen = [getattr(o, field) for o in outcomes if o.outcome in _DELIVERED]
        return len(seen), fail_evidence_latency(seen, _most(limit), percentile)

    return evidence


def _cost(limit: Limit, _: Metrics, outcomes: Sequence[Outcome], __: float) -> tuple[int, float]:
    costs = [o.cost_microusd for o in outcomes]
    return len(costs), fail_evidence_mean(costs, _most(limit) * _MICROUSD_AN_IMAGE)


def _effective(
    limit: Limit, _: Metrics, outcomes: Sequence[Outcome], doubt: float
) -> tuple[int, float]:
    costs = [o.cost_microusd for o in outcomes]
    usable = [None if o.outcome == "unmeasured" else o.outcome == "ok" for o in outcomes]
    # Good pictures that are called bad make the usable ones fewer, and each of them dearer.
    per_image = _most(limit) * _MICROUSD_AN_IMAGE / (1 - min(doubt, _NO_LIMIT))
    return len(costs), fail_evidence_effective(costs, usable, per_image)


_EVIDENCE: dict[str, Evidence] = {
    "failure_rate": _share(
        lambda m: (m.candidate.failure_rate.failures, m.candidate.failure_rate.n), by_checks=True
    ),
    "defect_rate": _share(
        lambda m: (m.candidate.accounts.defect, m.candidate.images), by_checks=True
    ),
    "refusal_rate": _share(lambda m: (m.candidate.accounts.refused, m.candidate.images)),
    "undelivered_rate": _share(lambda m: (m.candidate.accounts.undelivered, m.candidate.images)),
    "unmeasured_rate": _share(lambda m: (m.candidate.accounts.unmeasured, m.candidate.images)),
    "latency_p50_s": _latency(50),
    "latency_p95_s": _latency(95),
    "latency_p99_s": _latency(99),
    "ttfb_p95_s": _latency(95, "ttfb_s"),
    "cost_per_1k_usd": _cost,
    "effective_cost_per_1k_usd": _effective,
}
