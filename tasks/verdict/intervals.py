"""Intervals of failure rates that hold although a run was looked at many times."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.records import Metrics, Rate
from tasks.verdict.limits import lower_limit, upper_limit

#: Risk of each end: 95 % confidence with both.
RISK = 0.025


def with_limits(metrics: Metrics) -> Metrics:
    """Return the metrics with the ends of confidence sequences in every rate.

    The exact interval of Clopper and Pearson is made for a number of images that was fixed before.
    A run that ends when its evidence is strong enough ends on an extreme: there the interval
    misses the true rate more often than it says. A confidence sequence holds at every look.
    """
    arms = (metrics.candidate, metrics.baseline)
    rates = any_look(
        [
            *(arm.failure_rate for arm in arms),
            *(piece.rate for piece in metrics.slices),
            *(piece.rate for piece in metrics.check_failures),
        ]
    )
    slices = rates[2 : 2 + len(metrics.slices)]
    checks = rates[2 + len(metrics.slices) :]
    return metrics.model_copy(
        update={
            "candidate": arms[0].model_copy(update={"failure_rate": rates[0]}),
            "baseline": arms[1].model_copy(update={"failure_rate": rates[1]}),
            "slices": tuple(
                piece.model_copy(update={"rate": rate})
                for piece, rate in zip(metrics.slices, slices, strict=True)
            ),
            "check_failures": tuple(
                piece.model_copy(update={"rate": rate})
                for piece, rate in zip(metrics.check_failures, checks, strict=True)
            ),
        }
    )


def any_look(rates: Sequence[Rate]) -> list[Rate]:
    """Return the rates between ends that hold at every look at once.

    What nobody could judge counts as good for the lower end and as failed for the upper one.
    """
    images = [rate.n for rate in rates]
    lower = lower_limit([rate.failures for rate in rates], images, RISK)
    upper = upper_limit([rate.failures + rate.unmeasured for rate in rates], images, RISK)
    return [
        rate.model_copy(update={"lower": float(low), "upper": float(high)})
        for rate, low, high in zip(rates, lower, upper, strict=True)
    ]
