"""The reasons of a verdict as sentences that a release engineer understands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.metrics.rates import images_needed, lower_bound, upper_bound
from tasks.policy import Policy
from tasks.records import (
    ORIGINS,
    ArmMetrics,
    CheckSlice,
    ExpectationResult,
    Metrics,
    Rate,
    Slice,
    slice_name,
)

#: Failing checks named in a verdict; the report has all of them.
MOST_CHECKS = 5

#: Figures of the candidate without which nothing is promoted.
REQUIRED = (
    "cost_per_1k_usd",
    "effective_cost_per_1k_usd",
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
)


def percent(share: float) -> str:
    """Return a measured share, e.g. ``1.1 %``."""
    return f"{100 * share:.1f} %"


def threshold(share: float) -> str:
    """Return a share that a person chose, with the digits it was given, e.g. ``2 %``."""
    return f"{100 * share:.4g} %"


def images(count: int) -> str:
    """Return a number of images, e.g. ``1 image``."""
    return f"{count:,} image" + ("" if count == 1 else "s")


def below_promote(rate: Rate, policy: Policy) -> str:
    """Return the headline of a candidate that may serve."""
    rule = policy.failure
    bound = upper_bound(rate.failures + rate.unmeasured, rate.n, rule.beta)
    return (
        f"{_seen(rate, policy)}; with {threshold(1 - rule.beta)} confidence fewer than "
        f"{_ceil(bound)} fail, and the policy promotes below {threshold(rule.promote_below)}."
    )


def above_limit(rate: Rate, policy: Policy, alpha: float) -> str:
    """Return why the headline failure rate is a ROLLBACK."""
    bound = lower_bound(rate.failures, rate.n, alpha)
    return (
        f"{_seen(rate, policy)}; the policy rolls back above {threshold(policy.failure.limit)}, "
        f"and at least {_floor(bound)} fail with {threshold(1 - alpha)} confidence."
    )


def not_proven(rate: Rate, policy: Policy) -> str:
    """Return why the headline failure rate is no PROMOTE, and what would decide."""
    rule = policy.failure
    if rate.n == 0:
        return f"No image{_origins(policy)} was judged: there is no failure rate."
    counted = rate.failures + rate.unmeasured
    bound = upper_bound(counted, rate.n, rule.beta)
    return (
        f"{_seen(rate, policy)}; the policy promotes below {threshold(rule.promote_below)}, and "
        f"with {threshold(1 - rule.beta)} confidence it is only known that fewer than "
        f"{_ceil(bound)} fail. {_more(rate, rule.promote_below, rule.beta)}"
    )


def critical_not_proven(name: str, rate: Rate, bound: float, policy: Policy) -> str:
    """Return why a critical slice is not proven, and what would decide."""
    below, beta = policy.slices.critical_below, policy.failure.beta
    if rate.n == 0:
        found = f"Critical slice {name} is not covered: no case of it was judged"
    else:
        found = (
            f"Critical slice {name}: {rate.failures} of {images(rate.n)} failed"
            f"{_unmeasured(rate)}, so up to {_ceil(bound)} may fail"
        )
    return f"{found}; it must be below {threshold(below)}. {_more(rate, below, beta)}"


def bad_slice(piece: Slice, metrics: Metrics, policy: Policy, alpha: float) -> str:
    """Return why a slice is a ROLLBACK."""
    bound = lower_bound(piece.rate.failures, piece.rate.n, alpha)
    return (
        f"Slice {_name(piece)}: {_count(piece)}; the policy rolls back above "
        f"{threshold(policy.slices.limit)} in a slice, and at least {_floor(bound)} fail with "
        f"{threshold(1 - alpha)} confidence{_mostly(piece, metrics)}."
    )


def amber_slice(piece: Slice, metrics: Metrics) -> str:
    """Return the warning of a slice that looks bad, with too few images to be sure."""
    return (
        f"Slice {_name(piece)} looks bad: {_count(piece)}; that is not enough to roll back, with "
        f"all slices looked at{_mostly(piece, metrics)}."
    )


def failing_checks(metrics: Metrics) -> Iterator[str]:
    """Yield which checks failed most in which subtasks."""
    failed = [c for c in metrics.check_failures if _of_candidate(c) and c.dimension == "subtask"]
    failed.sort(key=lambda c: (-c.rate.failures, c.check, c.value))
    for check in failed[:MOST_CHECKS]:
        yield f"{check.check} failed {check.rate.failures} of {check.rate.n} in {_name(check)}."


def breach(result: ExpectationResult) -> str:
    """Return why an expectation does not hold."""
    unknown = " (the data cannot answer, and unknown is never a pass)" if result.unmeasured else ""
    return f"{_end(result.sentence)}{unknown}."


def unanswered(policy: Policy, results: Iterable[ExpectationResult]) -> Iterator[str]:
    """Yield the limits of the policy that no validation answered."""
    answered = {result.source for result in results}
    if not answered:
        yield "No expectation was validated."
        return
    for place, limit in enumerate(policy.limits):
        if f"limits[{place}]" not in answered and limit.on_breach != "warn":
            yield f"The policy's limit on {limit.measure} (limits[{place}]) was not validated."


def incomplete(
    stopped: str | None, *, planned: int, finished: int, baseline: int, images: int
) -> Iterator[str]:
    """Yield what the run did not do."""
    if stopped is not None:
        yield f"The run ended early: {_end(stopped)}."
    if planned < 1:
        yield "The plan has no cases."
    if finished != planned:
        yield f"{finished:,} of {planned:,} cases finished with the candidate."
    if baseline != planned:
        yield f"{baseline:,} of {planned:,} cases finished with the baseline."
    if images != finished:
        yield f"The metrics count {images:,} cases, though {finished:,} finished."


def no_figures(metrics: Metrics) -> Iterator[str]:
    """Yield the figures that are no numbers, and those of the candidate that are missing."""
    broken = list(_broken(metrics.model_dump(), ""))
    missing = [f"candidate.{name}" for name in REQUIRED if getattr(metrics.candidate, name) is None]
    if broken:
        yield f"Not a number: {', '.join(broken)}."
    if missing:
        yield f"Not measured: {', '.join(missing)}."


def before_and_after(metrics: Metrics) -> Iterator[str]:
    """Yield what changes with the candidate."""
    before, after = metrics.baseline, metrics.candidate
    if before.failure_rate.estimate is not None and after.failure_rate.estimate is not None:
        yield (
            f"Failures {percent(before.failure_rate.estimate)} → "
            f"{percent(after.failure_rate.estimate)} on the same cases."
        )
    old, new = before.effective_cost_per_1k_usd, after.effective_cost_per_1k_usd
    if old is not None and new is not None:
        yield f"Effective cost ${old:,.2f} → ${new:,.2f} per 1,000 usable images."


def worse_than_baseline(metrics: Metrics, policy: Policy) -> Iterator[str]:
    """Yield a warning when the candidate fails on cases that the baseline can do.

    The exact sign test on the cases that differ: under no difference either arm is as likely
    to be the one that failed.
    """
    paired = metrics.paired
    if paired is None:
        return
    worse, better = paired.candidate_only, paired.baseline_only
    if lower_bound(worse, worse + better, policy.failure.alpha) > 0.5:
        yield (
            f"The candidate is worse than the baseline: {worse} of {paired.pairs:,} paired cases "
            f"failed only with the candidate, {better} only with the baseline."
        )


def not_covered(arm: ArmMetrics) -> Iterator[str]:
    """Yield the locales whose text nobody read."""
    if arm.text_unjudged:
        where = ", ".join(arm.text_unjudged_locales)
        yield (
            f"Text was not judged in {arm.text_unjudged} of {arm.text_cases} cases that ask for "
            f"it: no reader covers the script" + (f" ({where})." if where else ".")
        )


def broken_checks(faults: int) -> Iterator[str]:
    """Yield on how many images the checks themselves broke."""
    if faults:
        yield (
            f"A check broke on {images(faults)}: these count neither as good nor as bad, and "
            "PROMOTE takes them for failures."
        )


def _seen(rate: Rate, policy: Policy) -> str:
    """Return the headline: estimate, images, interval, and what could not be judged."""
    share = "An unknown share" if rate.estimate is None else percent(rate.estimate)
    return (
        f"{share} of {images(rate.n)}{_origins(policy)} failed ({_floor(rate.lower)} to "
        f"{_ceil(rate.upper)} with 95 % confidence{_unmeasured(rate)})"
    )


def _more(rate: Rate, below: float, beta: float) -> str:
    """Return how many more images would prove the rate to be below."""
    needed = images_needed(rate.failures + rate.unmeasured, below, beta)
    if needed is None:
        return "No affordable number of clean images would decide."
    more = max(needed - rate.n, 1)
    return f"{more:,} more clean image{'' if more == 1 else 's'} would decide."


def _unmeasured(rate: Rate) -> str:
    """Return how many images nobody could judge."""
    if not rate.unmeasured:
        return ""
    return f", taking {rate.unmeasured} that could not be judged for failures"


def _origins(policy: Policy) -> str:
    """Return which origins the headline counts, when these are not all."""
    counted = policy.failure.origins
    return "" if set(counted) == set(ORIGINS) else f" from {' and '.join(counted)} inputs"


def _count(piece: Slice) -> str:
    """Return the failures of a slice."""
    rate = piece.rate
    return f"{rate.failures} of {images(rate.n)} failed ({percent(rate.failures / rate.n)})"


def _mostly(piece: Slice, metrics: Metrics) -> str:
    """Return the checks that failed most in a slice."""
    here = [
        c
        for c in metrics.check_failures
        if _of_candidate(c) and (c.dimension, c.value) == (piece.dimension, piece.value)
    ]
    here.sort(key=lambda c: (-c.rate.failures, c.check))
    named = ", ".join(f"{c.check} {c.rate.failures} of {c.rate.n}" for c in here[:3])
    return f"; failing: {named}" if named else ""


def _of_candidate(check: CheckSlice) -> bool:
    """Tell whether a check's count is the candidate's."""
    return check.arm == "candidate"


def _name(piece: Slice) -> str:
    """Return the display name of a slice."""
    return slice_name((piece.dimension, piece.value))


def _floor(share: float) -> str:
    """Return a lower bound, rounded down: rounding must not claim more than is known."""
    return percent(math.floor(share * 1000) / 1000)


def _ceil(share: float) -> str:
    """Return an upper bound, rounded up."""
    return percent(math.ceil(share * 1000) / 1000)


def _end(sentence: str) -> str:
    """Return a sentence without its full stop, so that one can be set."""
    return sentence.rstrip(". ")


def _broken(value: Any, name: str) -> Iterator[str]:
    """Yield the dotted names of the figures that are NaN or infinite."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _broken(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _broken(item, f"{name}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield name
