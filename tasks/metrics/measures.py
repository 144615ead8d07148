"""What a policy can put a limit on, answered from the metrics."""

from __future__ import annotations

import math

from tasks.records import ArmMetrics, Metrics


def measures(metrics: Metrics) -> dict[str, float | None]:
    """Return every name of :data:`tasks.policy.MEASURES` with its figure for the candidate.

    ``None`` means that the data cannot answer; NaN and infinity are turned into it, so that
    nothing that is no figure can be compared with a limit.
    """
    candidate, baseline = metrics.candidate, metrics.baseline
    accounts = candidate.accounts
    images = candidate.images
    figures: dict[str, float | None] = {
        "failure_rate": candidate.failure_rate.estimate,
        "defect_rate": _ratio(accounts.defect, images),
        "refusal_rate": _ratio(accounts.refused, images),
        "undelivered_rate": _ratio(accounts.undelivered, images),
        "unmeasured_rate": _ratio(accounts.unmeasured, images),
        "text_unjudged_rate": _ratio(candidate.text_unjudged, candidate.text_cases),
        "cost_per_1k_usd": candidate.cost_per_1k_usd,
        "effective_cost_per_1k_usd": candidate.effective_cost_per_1k_usd,
        "effective_cost_ratio": _ratio(
            candidate.effective_cost_per_1k_usd, baseline.effective_cost_per_1k_usd
        ),
        "spend_usd": candidate.spend_usd + baseline.spend_usd,
        "latency_p50_s": candidate.latency_p50_s,
        "latency_p95_s": candidate.latency_p95_s,
        "latency_p99_s": candidate.latency_p99_s,
        "latency_p95_ratio": _ratio(candidate.latency_p95_s, baseline.latency_p95_s),
        "ttfb_p95_s": candidate.ttfb_p95_s,
        "retries_per_image": _retries(candidate),
        "images": float(images),
    }
    return {name: _finite(value) for name, value in figures.items()}


def _ratio(part: float | None, whole: float | None) -> float | None:
    """Return ``part / whole``, ``None`` when either is missing or the whole is nothing."""
    if part is None or whole is None or not whole > 0:
        return None
    return part / whole


def _retries(arm: ArmMetrics) -> float | None:
    """Return the retries per image; without images there is no such figure."""
    return arm.retries_per_image if arm.images else None


def _finite(value: float | None) -> float | None:
    """Return the value when it is a figure."""
    return float(value) if value is not None and math.isfinite(value) else None
