"""The reasons of a verdict as sentences that a release engineer understands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tasks.policy import Policy
from tasks.records import (
    ORIGINS,
    ArmMetrics,
    CheckSlice,
    ExpectationResult,
    Metrics,
    Rate,
    Savings,
    SequentialResult,
    Slice,
    slice_name,
)

if TYPE_CHECKING:
    from tasks.verdict.decide import GateState

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


def headline(state: GateState, test: SequentialResult) -> str:
    """Return the sentence on the headline failure rate."""
    if test.failed:
        return proven_bad(state, test)
    if not test.passed:
        return not_proven(state, test)
    rule = state.policy.failure
    upper = rule.promote_below if test.upper is None else min(test.upper, rule.promote_below)
    return (
        f"{_seen(state)}; with {threshold(1 - rule.beta)} confidence fewer than {_ceil(upper)} "
        f"fail, and the policy promotes below {threshold(rule.promote_below)}."
    )


def proven_bad(state: GateState, test: SequentialResult) -> str:
    """Return why a test is a ROLLBACK."""
    if test.kind == "headline":
        return (
            f"{_seen(state)}; the policy rolls back above {threshold(state.policy.failure.limit)}"
            f"{_at_least(test, test.limit)}."
        )
    if test.kind == "slice":
        return (
            f"Slice {test.name}: {_count(test)}; the policy rolls back above "
            f"{threshold(state.policy.slices.limit)} in a slice{_at_least(test, test.limit)}"
            f"{_mostly(test, state.metrics)}."
        )
    if test.kind == "paired":
        return (
            f"The candidate fails more often than the baseline by more than the margin of "
            f"{threshold(state.policy.paired.margin)}: {_pairs(state.metrics)}."
        )
    limit = next((r for r in state.expectations if r.source == test.name), None)
    found = f"limit {test.name}" if limit is None else _end(limit.sentence)
    return f"{found}; proven over {images(test.images)}, whenever one looks."


def not_proven(state: GateState, test: SequentialResult) -> str:
    """Return why a test is no PROMOTE, and what would decide."""
    rule, policy = state.policy.failure, state.policy
    if test.kind == "paired":
        return (
            f"It is not proven that the candidate fails no more than "
            f"{threshold(policy.paired.margin)} more often than the baseline: "
            f"{_pairs(state.metrics)}."
        )
    if test.kind == "slice":
        below = policy.slices.critical_below
        if test.images == 0:
            found = f"Critical slice {test.name} is not covered: no case of it was judged"
        else:
            bound = 1.0 if test.upper is None else test.upper
            found = (
                f"Critical slice {test.name} is not covered yet: {_count(test)}"
                f"{_unmeasured(_rate_of(state.metrics, test.name))}, so up to {_ceil(bound)} may "
                "fail"
            )
        return f"{found}; it must be below {threshold(below)}. {_more(test)}"
    if test.images == 0:
        return f"No image{_origins(policy)} was judged: there is no failure rate."
    known = (
        ""
        if test.upper is None
        else (
            f", and with {threshold(1 - rule.beta)} confidence it is only known that fewer than "
            f"{_ceil(test.upper)} fail"
        )
    )
    if state.beta_left is not None and state.beta_left <= 0:
        more = (
            "Earlier tests of this build used up the risk of a wrong PROMOTE: no number of images "
            "promotes it."
        )
    else:
        more = _more(test)
    return (
        f"{_seen(state)}; the policy promotes below {threshold(rule.promote_below)}{known}. {more}"
    )


def amber(state: GateState, test: SequentialResult) -> str:
    """Return the warning of a test that looks bad, with too little evidence to be sure."""
    if test.kind == "paired":
        return f"The candidate is worse than the baseline: {_pairs(state.metrics)}."
    return (
        f"Slice {test.name} looks bad: {_count(test)}; that is not enough to roll back, with "
        f"all slices looked at{_mostly(test, state.metrics)}."
    )


def saved(savings: Savings | None) -> list[str]:
    """Return what an early decision saved, or nothing."""
    if savings is None:
        return []
    return [
        f"Decided after {savings.decided:,} of {savings.planned:,} planned cases, with "
        f"{savings.used:,} generated by then: {images(savings.images)} of both mixes did not have "
        f"to be made, which saves ${savings.usd:,.2f}."
    ]


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
    stopped: str | None, *, drawn: int, finished: int, baseline: int, images: int
) -> Iterator[str]:
    """Yield what the run did not do."""
    if stopped is not None:
        yield f"The run ended early: {_end(stopped)}."
    if drawn < 1:
        yield "The plan has no cases."
    if finished != drawn:
        yield f"{finished:,} of {drawn:,} cases finished with the candidate."
    if baseline != drawn:
        yield f"{baseline:,} of {drawn:,} cases finished with the baseline."
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


def _seen(state: GateState) -> str:
    """Return the headline: estimate, images, and what could not be judged."""
    rate = state.metrics.candidate.failure_rate
    share = "An unknown share" if rate.estimate is None else percent(rate.estimate)
    return f"{share} of {images(rate.n)}{_origins(state.policy)} failed{_unmeasured(rate)}"


def _at_least(test: SequentialResult, limit: float | None) -> str:
    """Return what is proven of a rate that is too high."""
    if test.lower is None or limit is None or test.fail_at is None:
        return ""
    sure = 1 - math.exp(-test.fail_at)
    # Under a calibrated threshold the limit itself is what is proven.
    return f", and at least {_floor(max(test.lower, limit))} fail with {threshold(sure)} confidence"


def _more(test: SequentialResult) -> str:
    """Return how many more images would be the proof."""
    if test.images_needed is None:
        return "At the rate seen so far no affordable number of images would decide."
    more = max(test.images_needed, 1)
    if not test.failures:
        if test.kind == "slice":
            return f"{test.images:,} of {test.images + more:,} clean images needed are there."
        return f"{more:,} more clean image{'' if more == 1 else 's'} would decide."
    return f"About {more:,} more image{'' if more == 1 else 's'} at this rate would decide."


def _pairs(metrics: Metrics) -> str:
    """Return how the arms differ."""
    paired = metrics.paired
    if paired is None:
        return "no pair was judged"
    return (
        f"{paired.candidate_only} of {paired.pairs:,} paired cases failed only with the "
        f"candidate, {paired.baseline_only} only with the baseline"
    )


def _rate_of(metrics: Metrics, name: str) -> Rate:
    """Return the candidate's rate in a slice."""
    for piece in metrics.slices:
        if piece.arm == "candidate" and f"{piece.dimension}={piece.value}" == name:
            return piece.rate
    return Rate(estimate=None, lower=0.0, upper=1.0, n=0, failures=0)


def _unmeasured(rate: Rate) -> str:
    """Return how many images nobody could judge."""
    if not rate.unmeasured:
        return ""
    return f", taking {rate.unmeasured} that could not be judged for failures"


def _origins(policy: Policy) -> str:
    """Return which origins the headline counts, when these are not all."""
    counted = policy.failure.origins
    return "" if set(counted) == set(ORIGINS) else f" from {' and '.join(counted)} inputs"


def _count(test: SequentialResult) -> str:
    """Return the failures of a slice."""
    failures = test.failures or 0
    return f"{failures} of {images(test.images)} failed ({percent(failures / test.images)})"


def _mostly(test: SequentialResult, metrics: Metrics) -> str:
    """Return the checks that failed most in a slice."""
    here = [
        c
        for c in metrics.check_failures
        if _of_candidate(c) and f"{c.dimension}={c.value}" == test.name
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
