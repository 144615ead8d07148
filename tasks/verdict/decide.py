"""The decision: what speaks against the candidate, what is missing, and the three branches.

The risk ``alpha`` of a wrong ROLLBACK is shared: half for the headline failure rate, the other
half in equal parts over the slices that are judged (Bonferroni). PROMOTE needs every proof at
once, so each may use the whole of ``beta``. Whatever is unknown speaks against PROMOTE and never
for ROLLBACK: unmeasured images count as failures there and as good ones here.
"""

from __future__ import annotations

from tasks.metrics.rates import lower_bound, upper_bound
from tasks.policy import Policy
from tasks.records import (
    ExpectationResult,
    Metrics,
    Rate,
    Record,
    Slice,
    Verdict,
    VerdictName,
)
from tasks.verdict import reasons
from tasks.verdict.bounds import FailureTest


class GateState(Record):
    """Everything that the decision looks at, fixed."""

    policy: Policy
    metrics: Metrics
    expectations: tuple[ExpectationResult, ...]
    #: Cases of the plan, and how many of them each arm finished.
    planned_cases: int
    finished_cases: int
    baseline_finished: int
    #: Why the run ended early (a spend cap, a provider down, Ctrl-C); ``None`` when it did not.
    stopped: str | None = None
    #: Pictures of the candidate that nobody could judge because a check itself broke.
    checker_faults: int = 0
    #: More warnings for the reader, as sentences.
    notes: tuple[str, ...] = ()


def decide(state: GateState) -> Verdict:
    """Return the verdict with its reasons, most important first.

    A run that ended early can still be a ROLLBACK, when what it saw is proof enough.

    Raises:
        ValueError: A count of the metrics is impossible.
    """
    against, missing, warnings = _against(state), _missing(state), _warnings(state)
    # The headline is told in every verdict; it leads when it is what decides.
    told = (_headline(state), *reasons.failing_checks(state.metrics))
    if against:
        return _verdict("ROLLBACK", [*against, *told], [*missing, *warnings])
    if missing:
        return _verdict("HOLD", [*missing, *told], warnings)
    return _verdict("PROMOTE", [*told[:1], *reasons.before_and_after(state.metrics)], warnings)


def _verdict(name: VerdictName, because: list[str], warnings: list[str]) -> Verdict:
    """Return the verdict with every sentence once."""
    said = tuple(dict.fromkeys(because))
    rest = tuple(w for w in dict.fromkeys(warnings) if w not in said)
    return Verdict(verdict=name, reasons=said, warnings=rest)


def _against(state: GateState) -> list[str]:
    """Return what proves that the candidate must not serve."""
    policy = state.policy
    found = [_headline(state)] if _headline_fails(state) else []
    judged = _judged(state)
    for piece in judged:
        share = policy.failure.alpha / 2 / len(judged)
        if lower_bound(piece.rate.failures, piece.rate.n, share) > policy.slices.limit:
            found.append(reasons.bad_slice(piece, state.metrics, policy, share))
    found += [
        reasons.breach(result)
        for result in state.expectations
        if result.on_breach == "rollback" and not result.success and not result.unmeasured
    ]
    return found


def _missing(state: GateState) -> list[str]:
    """Return what a PROMOTE still needs."""
    return [
        *reasons.incomplete(
            state.stopped,
            planned=state.planned_cases,
            finished=state.finished_cases,
            baseline=state.baseline_finished,
            images=state.metrics.candidate.images,
        ),
        *_unproven(state),
        *(
            reasons.breach(result)
            for result in state.expectations
            if result.on_breach != "warn" and (result.unmeasured or not result.success)
        ),
        *reasons.unanswered(state.policy, state.expectations),
        *reasons.no_figures(state.metrics),
    ]


def _unproven(state: GateState) -> list[str]:
    """Return the failure rates, headline and critical slices, that are not proven low enough."""
    policy = state.policy
    found = [] if _headline_passes(state) else [_headline(state)]
    for name in policy.slices.critical:
        rate = _critical(state, name)
        bound = upper_bound(_pessimistic(rate), rate.n, policy.failure.beta)
        if not bound < policy.slices.critical_below:
            found.append(reasons.critical_not_proven(name, rate, bound, policy))
    return found


def _warnings(state: GateState) -> list[str]:
    """Return what a reader should know and what does not decide."""
    metrics, policy = state.metrics, state.policy
    share = policy.failure.alpha
    corrected = share / 2 / max(1, len(_judged(state)))
    amber = [
        reasons.amber_slice(piece, metrics)
        for piece in _judged(state)
        if lower_bound(piece.rate.failures, piece.rate.n, corrected)
        <= policy.slices.limit
        < lower_bound(piece.rate.failures, piece.rate.n, share)
    ]
    return [
        *amber,
        *reasons.worse_than_baseline(metrics, policy),
        *(
            reasons.breach(result)
            for result in state.expectations
            if result.on_breach == "warn" and (result.unmeasured or not result.success)
        ),
        *reasons.not_covered(metrics.candidate),
        *reasons.broken_checks(state.checker_faults),
        *state.notes,
    ]


def _headline(state: GateState) -> str:
    """Return the sentence on the headline failure rate."""
    rate, policy = state.metrics.candidate.failure_rate, state.policy
    if _headline_fails(state):
        return reasons.above_limit(rate, policy, policy.failure.alpha / 2)
    if _headline_passes(state):
        return reasons.below_promote(rate, policy)
    return reasons.not_proven(rate, policy)


def _headline_fails(state: GateState) -> bool:
    """Tell whether the failure rate is proven to be above the limit."""
    rate = state.metrics.candidate.failure_rate
    return _test(state.policy).update(rate.failures, rate.n) == "ROLLBACK"


def _headline_passes(state: GateState) -> bool:
    """Tell whether the failure rate is proven to be below ``promote_below``."""
    rate = state.metrics.candidate.failure_rate
    return _test(state.policy).update(_pessimistic(rate), rate.n) == "PROMOTE"


def _test(policy: Policy) -> FailureTest:
    """Return a new test of the headline, with its half of alpha."""
    rule = policy.failure
    return FailureTest(rule.limit, rule.promote_below, rule.alpha / 2, rule.beta)


def _judged(state: GateState) -> list[Slice]:
    """Return the candidate's slices that the policy judges: chosen by size, never by outcome."""
    rule = state.policy.slices
    return [
        piece
        for piece in state.metrics.slices
        if piece.arm == "candidate"
        and piece.dimension in rule.dimensions
        and piece.rate.n >= rule.min_images
    ]


def _critical(state: GateState, name: str) -> Rate:
    """Return the rate of a critical slice; without a case in it, nothing is known."""
    for piece in state.metrics.slices:
        if piece.arm == "candidate" and f"{piece.dimension}={piece.value}" == name:
            return piece.rate
    return Rate(estimate=None, lower=0.0, upper=1.0, n=0, failures=0)


def _pessimistic(rate: Rate) -> int:
    """Return the failures with every unmeasured image taken for one."""
    return rate.failures + rate.unmeasured
