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
from tasks.verdict.boundaries import HEADLINE_SHARE, alarm_bound
from tasks.verdict.checkers import blind

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
    """Return a measured share, e.g. ``1.1 %``; small ones with more digits, as 2 of 5,000 are."""
    return f"{100 * share:.{_decimals(share)}f} %"


def surety(risk: float) -> str:
    """Return a confidence by its risk; never ``100 %``, which no number of images gives."""
    return "more than 99.99 %" if risk < 1e-4 else threshold(math.floor(1e6 * (1 - risk)) / 1e6)


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
    below = state.policy.failure.promote_below
    fewer = threshold(below)
    if test.upper is not None and math.ceil(test.upper * 1000) < below * 1000:
        fewer = _ceil(test.upper)
    return (
        f"{_seen(state)}; with {_confidence(state)} confidence fewer than {fewer} fail, and the "
        f"policy promotes below {threshold(below)}."
    )


def proven_bad(state: GateState, test: SequentialResult) -> str:
    """Return why a test is a ROLLBACK."""
    if test.kind == "headline":
        return (
            f"{_seen(state)}; the policy rolls back above {threshold(state.policy.failure.limit)}"
            f"{_at_least(state, test, state.policy.failure.limit)}."
        )
    if test.kind == "slice":
        return (
            f"Slice {test.name}: {_count(test)}; the policy rolls back above "
            f"{threshold(state.policy.slices.limit)} in a slice"
            f"{_at_least(state, test, state.policy.slices.limit)}{_mostly(test, state.metrics)}."
        )
    if test.kind == "paired":
        return (
            f"The candidate's failure rate is more than {_margin(state.policy)} above the "
            f"baseline's: {_pairs(state.metrics)}."
        )
    limit = next((r for r in state.expectations if r.source == test.name), None)
    found = f"limit {test.name}" if limit is None else _end(limit.sentence)
    return f"{found}; proven over {images(test.images)}, however often one looks."


def not_proven(state: GateState, test: SequentialResult) -> str:
    """Return why a test is no PROMOTE, and what would decide."""
    rule, policy = state.policy.failure, state.policy
    if test.kind == "paired":
        return (
            f"It is not proven that the candidate's failure rate is less than {_margin(policy)} "
            f"above the baseline's: {_pairs(state.metrics)}."
        )
    if test.kind == "slice":
        below = policy.slices.critical_below
        if test.images == 0:
            found = f"Critical slice {test.name} is not covered: no case of it was judged"
        else:
            found = (
                f"Critical slice {test.name} is not covered yet: {_count(test)}"
                f"{_unmeasured(_rate_of(state.metrics, test.name))}{_up_to(test.upper)}"
            )
        return f"{found}; it must be below {threshold(below)}.{_more(state, test)}"
    if test.images == 0:
        return f"No image{_origins(policy)} was judged: there is no failure rate."
    known = (
        ""
        if test.upper is None or not rule.promote_below < test.upper < 1
        else (
            f", and with {_confidence(state)} confidence it is only known that fewer than "
            f"{_ceil(test.upper)} fail"
        )
    )
    return (
        f"{_seen(state)}; the policy promotes below {threshold(rule.promote_below)}{known}."
        f"{_more(state, test)}"
    )


def unprovable(state: GateState) -> Iterator[str]:
    """Yield why no number of images would be a proof for the candidate."""
    for check in blind(state.checks):
        yield (
            f"Check {check.name} is blind: it found {check.found:,} of {check.planted:,} planted "
            "defects, so nothing can be said of what it misses."
        )
    if state.unseen is not None:
        yield (
            f"It is not known what the checks see today: {_end(state.unseen)}. Resume the run, or "
            "look with `imagegate doctor --checks`."
        )
    if state.unmeasured and state.policy.checks.unmeasured == "hold":
        names = ", ".join(state.unmeasured)
        yield (
            f"It is not known what {names} would see, and the policy holds then: give known bad "
            "pictures (`known_bad`), or let the plug-in plant defects."
        )
    if state.beta_left is not None and state.beta_left <= 0:
        yield (
            "Earlier tests of this build used up the risk of a wrong PROMOTE: no number of images "
            "promotes it."
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
    if savings is None or savings.images < 1:
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
    stopped: str | None, *, drawn: int, finished: int, baseline: int, metrics: Metrics
) -> Iterator[str]:
    """Yield what the run did not do, and what its figures rest on instead."""
    candidate = metrics.candidate
    images, judged = candidate.images + candidate.extra_images, candidate.failure_rate.n
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
    if judged > candidate.images:
        yield f"The failure rate counts {judged:,} images, though {candidate.images:,} were judged."


def no_figures(metrics: Metrics) -> Iterator[str]:
    """Yield the figures that are no numbers, and those of the candidate that are missing."""
    broken = list(_broken(metrics.model_dump(), ""))
    missing = [f"candidate.{name}" for name in REQUIRED if getattr(metrics.candidate, name) is None]
    rate = metrics.candidate.failure_rate
    if rate.estimate is None and rate.n > rate.unmeasured:
        missing.append("candidate.failure_rate")
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
            f"it: no reader covers the script, or is sure of it"
            + (f" ({where})." if where else ".")
        )


def unjudged(count: int) -> Iterator[str]:
    """Yield how many images nobody could judge."""
    if count:
        who, them = ("it counts", "it for a failure") if count == 1 else ("they count", "them for")
        them += "" if count == 1 else " failures"
        yield (
            f"{images(count)} could not be judged, because a check broke or two readers disagree: "
            f"{who} neither as good nor as bad, and PROMOTE takes {them}."
        )


def _seen(state: GateState) -> str:
    """Return the headline: estimate, images, and what could not be judged."""
    rate = state.metrics.candidate.failure_rate
    of = f"of {images(rate.n)}{_origins(state.policy)} failed"
    if rate.estimate is None:
        return f"It is unknown how many {of}: nobody could judge them"
    return f"{percent(rate.estimate)} {of}{_unmeasured(rate)}"


def _confidence(state: GateState) -> str:
    """Return the confidence of a proof for the candidate, by the risk that earlier tests left."""
    beta = state.policy.failure.beta
    return surety(min(state.beta_left or beta, beta))


def _up_to(upper: float | None) -> str:
    """Return how bad a slice may still be."""
    return "" if upper is None else f", so up to {_ceil(upper)} may fail"


def _at_least(state: GateState, test: SequentialResult, limit: float) -> str:
    """Return what is proven of a rate that is too high."""
    if test.lower is None or test.fail_at is None:
        return ""
    doubt = alarm_bound(state.policy, state.alarms)
    alpha, spent = (
        (state.policy.failure.alpha, 0.0) if doubt is None else (doubt.error, doubt.spent)
    )
    # A calibrated threshold is lower than its risk says; the limit itself is what it proves.
    risk = alpha * HEADLINE_SHARE if test.kind == "headline" else math.exp(-test.fail_at)
    risk += spent
    return f", and at least {_floor(max(test.lower, limit))} fail with {surety(risk)} confidence"


def _more(state: GateState, test: SequentialResult) -> str:
    """Return how many more images would be the proof; nothing where none would."""
    if any(unprovable(state)):
        return ""
    if test.images_needed is None:
        return " At the rate seen so far no affordable number of images would decide."
    more = max(test.images_needed, 1)
    bad = test.failures or _unknown(state, test)
    if test.kind == "headline" and state.policy.failure.mode == "calibrated":
        total = test.images + more
        if total > state.planned_cases:
            at = "at this rate" if bad else "without a failure"
            return f" A run that plans {'about ' if bad else ''}{total:,} images would decide {at}."
    if not bad:
        if test.kind == "slice":
            return f" {test.images:,} of {test.images + more:,} clean images needed are there."
        return f" {more:,} more clean image{'' if more == 1 else 's'} would decide."
    return f" About {more:,} more image{'' if more == 1 else 's'} at this rate would decide."


def _unknown(state: GateState, test: SequentialResult) -> int:
    """Return the images of a test that nobody could judge."""
    if test.kind == "headline":
        return state.metrics.candidate.failure_rate.unmeasured
    return _rate_of(state.metrics, test.name).unmeasured


def _margin(policy: Policy) -> str:
    """Return the margin to the baseline, a difference of two percentages."""
    return f"{100 * policy.paired.margin:.4g} points"


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
    return f" and {rate.unmeasured:,} could not be judged, which PROMOTE takes for failures"


def _origins(policy: Policy) -> str:
    """Return which origins the headline counts, when these are not all."""
    counted = policy.failure.origins
    return "" if set(counted) == set(ORIGINS) else f" from {' and '.join(counted)} inputs"


def _count(test: SequentialResult) -> str:
    """Return the failures of a slice."""
    failures = test.failures or 0
    share = failures / test.images if test.images else 0.0
    return f"{failures:,} of {images(test.images)} failed ({percent(share)})"


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


def _decimals(share: float) -> int:
    """Return the decimals of a percentage that tell a small share from none."""
    return 1 if share >= 0.001 or not share > 0 else 2 if share >= 0.0001 else 3


def _floor(share: float) -> str:
    """Return a lower bound, rounded down: rounding must not claim more than is known."""
    # 0.57 * 100 is 56.99999999999999: the error of the product is no part of the bound.
    return percent(math.floor(round(share * 1000, 9)) / 1000)


def _ceil(share: float) -> str:
    """Return an upper bound, rounded up."""
    return percent(math.ceil(round(share * 1000, 9)) / 1000)


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
