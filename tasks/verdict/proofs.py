"""The sequential tests of one look, from the figures of a run: what is proven, and what is not.

The risk ``alpha`` of a wrong ROLLBACK is shared: half for the headline failure rate, the other half
in equal parts over the slices that are judged, the guarded limits and the paired comparison.
PROMOTE needs every proof at once, so each may use the whole of ``beta``. Whatever is unknown speaks
against PROMOTE and never for ROLLBACK: unmeasured images count as failures there and as good ones
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.policy import Policy
from tasks.records import Metrics, Paired, SequentialResult
from tasks.verdict.checkers import Sensitivity, adjusted_pass
from tasks.verdict.guards import GuardEvidence
from tasks.verdict.paired import PairedCounts, paired_evidence, paired_interval
from tasks.verdict.planning import Thresholds, thresholds
from tasks.verdict.sequential import (
    fail_bets,
    images_needed,
    log_e,
    lower_limit,
    pass_bets,
    upper_limit,
)
from tasks.verdict.slices import SliceCount, SliceTests
from tasks.verdict.slices import judge as judge_slices


def prove(
    policy: Policy,
    metrics: Metrics,
    *,
    planned_cases: int,
    judged: Sequence[str],
    guards: Sequence[GuardEvidence] = (),
    beta: float | None = None,
    checks: Sequence[Sensitivity] = (),
    bounds: bool = True,
) -> tuple[SequentialResult, ...]:
    """Return every test: the headline, the paired comparison, the guards, then the slices.

    Args:
        policy: The policy.
        metrics: The figures so far.
        planned_cases: Cases of the plan, for which the calibrated mode is made.
        judged: Slices, as ``dimension=value``, that may roll back; fixed before the first image.
        guards: Evidence on the guarded limits.
        beta: Risk of a wrong PROMOTE that earlier tests of the same build left; the policy's when
            there were none.
        checks: What planted defects say of the checks; none when nothing was planted.
        bounds: Compute the ends of confidence sequences; the decision does not need them.

    Raises:
        ValueError: A count is impossible.
    """
    left = policy.failure.beta if beta is None else beta
    # No risk left: no evidence is enough any more.
    sampling = policy.sampling.model_copy(update={"cases": max(1, planned_cases)})
    policy = policy.model_copy(update={"sampling": sampling})
    at = thresholds(policy, judged, len(guards), beta=left or None)
    return (
        _headline(policy, metrics, at, left, checks, bounds),
        *_paired(policy, metrics.paired, at, left, bounds),
        *(_guard(guard, at) for guard in guards),
        *_slices(policy, metrics, at, judged, left, bounds),
    )


def _headline(
    policy: Policy,
    metrics: Metrics,
    at: Thresholds,
    beta: float,
    checks: Sequence[Sensitivity],
    bounds: bool,
) -> SequentialResult:
    rate, below, pass_at, proves = (
        metrics.candidate.failure_rate,
        at.promote_below,
        at.pass_at,
        True,
    )
    if checks and beta > 0:
        adjusted = adjusted_pass(at.promote_below, checks, beta)
        if adjusted is None:
            proves = False
        else:
            # Thresholds calibrated for another boundary hold for none: back to Ville's.
            below, pass_at = adjusted.threshold, -math.log(adjusted.error)
    bad = rate.failures + rate.unmeasured
    log_fail = float(log_e(fail_bets(at.limit), rate.n, rate.failures))
    log_pass = float(log_e(pass_bets(below), rate.n, bad))
    # A calibrated threshold promises its risk for the planned number of images, not for more.
    over = at.mode == "calibrated" and rate.n > policy.sampling.cases
    passed = proves and beta > 0 and not over and rate.n > 0 and log_pass >= pass_at
    needed = None
    if not passed and proves and beta > 0:
        needed = images_needed(bad, rate.n, below=below, log_threshold=pass_at)
    return SequentialResult(
        name="failure_rate",
        kind="headline",
        images=rate.n,
        failures=rate.failures,
        limit=at.limit,
        log_e_fail=log_fail,
        fail_at=at.fail_at,
        below=below,
        log_e_pass=log_pass,
        pass_at=pass_at,
        lower=lower_limit(rate.failures, rate.n, at.alpha_headline) if bounds else None,
        upper=upper_limit(bad, rate.n, policy.failure.beta) if bounds else None,
        failed=rate.n > 0 and not over and log_fail >= at.fail_at,
        passed=passed,
        images_needed=needed,
    )


def _paired(
    policy: Policy, paired: Paired | None, at: Thresholds, beta: float, bounds: bool
) -> list[SequentialResult]:
    """Return the comparison with the baseline; ``amber`` when it is proven worse at all."""
    if paired is None:
        return []
    rule = policy.paired
    counts = PairedCounts(paired.pairs, paired.candidate_only, paired.baseline_only)
    found = paired_evidence(counts, margin=rule.margin)
    lower, upper = (
        paired_interval(counts, at.share, policy.failure.beta) if bounds else (None, None)
    )
    pass_at = -math.log(beta) if rule.required and beta > 0 else None
    return [
        SequentialResult(
            name="paired",
            kind="paired",
            images=paired.pairs,
            failures=paired.candidate_only - paired.baseline_only,
            limit=rule.margin,
            log_e_fail=found.log_e_fail,
            fail_at=at.shared_fail_at,
            below=rule.margin if rule.required else None,
            log_e_pass=found.log_e_pass,
            pass_at=pass_at,
            lower=lower,
            upper=upper,
            failed=found.log_e_fail >= at.shared_fail_at,
            passed=pass_at is not None and found.log_e_pass >= pass_at,
            amber=found.log_e_zero >= at.amber_at,
        )
    ]


def _guard(guard: GuardEvidence, at: Thresholds) -> SequentialResult:
    return SequentialResult(
        name=guard.source,
        kind="guard",
        images=guard.images,
        limit=guard.limit,
        log_e_fail=guard.log_e_fail,
        fail_at=at.shared_fail_at,
        failed=guard.log_e_fail >= at.shared_fail_at,
    )


def _slices(
    policy: Policy,
    metrics: Metrics,
    at: Thresholds,
    judged: Sequence[str],
    beta: float,
    bounds: bool,
) -> tuple[SequentialResult, ...]:
    rule = policy.slices
    wanted = {*judged, *rule.critical}
    tests = SliceTests(
        names=tuple(judged),
        limit=rule.limit,
        alpha=at.share * max(1, len(judged)),
        amber_alpha=policy.failure.alpha,
        critical=rule.critical,
        critical_below=rule.critical_below,
        beta=beta or policy.failure.beta,
    )
    counts = [
        SliceCount(name, piece.rate.n, piece.rate.failures, piece.rate.unmeasured)
        for piece in metrics.slices
        if piece.arm == "candidate" and (name := f"{piece.dimension}={piece.value}") in wanted
    ]
    found = judge_slices(tests, counts, bounds=bounds)
    if beta > 0:
        return found
    return tuple(one.model_copy(update={"passed": False}) for one in found)
