"""The sequential tests of one look, from the figures of a run: what is proven, and what is not.

The risk ``alpha`` of a wrong ROLLBACK is shared: half for the headline failure rate, the other half
in equal parts over the slices that are judged, the guarded limits and the paired comparison.
PROMOTE needs every proof at once, so each may use the whole of ``beta``. Whatever is unknown speaks
against PROMOTE and never for ROLLBACK: unmeasured images count as failures there and as good ones
here.

Where defects were planted, every proof for PROMOTE is about the failures that the checks can see:
its boundary is lowered by one bound of their sensitivity, whose risk is taken off ``beta`` once.
Where the policy asks for it (``checks.false_alarms: allow``) every proof for ROLLBACK allows for
good pictures that the checks call bad: its limit is raised by one bound of their false alarms,
whose risk is taken off ``alpha`` once. The comparison with the baseline needs no such allowance, as
both arms have the same false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.policy import Policy
from tasks.records import Metrics, Paired, SequentialResult
from tasks.verdict.boundaries import Boundaries, Sight, Thresholds, boundaries
from tasks.verdict.checkers import Sensitivity
from tasks.verdict.guards import GuardEvidence
from tasks.verdict.paired import PairedCounts, paired_evidence, paired_interval, paired_log_e
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
    alarms: Sensitivity | None = None,
    bounds: bool = True,
) -> tuple[SequentialResult, ...]:
    """Return every test: the headline, the paired comparison, the guards, then the slices.

    Args:
        policy: The policy.
        metrics: The figures so far.
        planned_cases: Cases of the plan, for which the calibrated mode is made.
        judged: Slices, as ``dimension=value``, that may roll back; fixed before the first image.
        guards: Evidence on the guarded limits.
        beta: Risk of a wrong PROMOTE that earlier tests of the same build left, never more than the
            policy's; ``None`` when there were none.
        checks: What planted defects say of the checks; none when nothing was planted.
        alarms: Good pictures that any of the checks called bad; ``None`` when none were shown. The
            evidence of ``guards`` allows for them already.
        bounds: Compute the ends of confidence sequences; the decision does not need them.

    Raises:
        ValueError: A count or a risk is impossible.
    """
    sampling = policy.sampling.model_copy(update={"cases": max(1, planned_cases)})
    policy = policy.model_copy(update={"sampling": sampling})
    edges = boundaries(policy, judged, len(guards), left=beta, checks=checks, alarms=alarms)
    policy, at, sight = edges.policy, edges.at, edges.sight
    return (
        _headline(metrics, edges, bounds),
        *_paired(policy, metrics, at, sight, bounds),
        *(_guard(guard, at) for guard in guards),
        *_slices(edges, metrics, judged, bounds),
    )


def _headline(metrics: Metrics, edges: Boundaries, bounds: bool) -> SequentialResult:
    policy, at, sight = edges.policy, edges.at, edges.sight
    rate = metrics.candidate.failure_rate
    if not 0 <= rate.unmeasured <= rate.n - rate.failures:
        raise ValueError(
            f"failure rate: {rate.failures} failures and {rate.unmeasured} unmeasured do not fit "
            f"{rate.n} images"
        )
    below, pass_at = edges.below, edges.pass_at
    bad = rate.failures + rate.unmeasured
    log_fail = float(log_e(fail_bets(at.limit), rate.n, rate.failures))
    log_pass = float(log_e(pass_bets(below), rate.n, bad))
    # A calibrated threshold promises its risk for the planned number of images, not for more.
    over = at.mode == "calibrated" and rate.n > policy.sampling.cases
    passed = sight.proves and not over and rate.n > 0 and log_pass >= pass_at
    needed = None
    if not passed and sight.proves:
        needed = _needed(bad, rate.n, below, pass_at)
        if at.mode == "calibrated" and (needed or 0) + rate.n > policy.sampling.cases:
            # Too many for this plan. Ville's evidence is enough for a plan of any size.
            needed = _needed(bad, rate.n, below, -math.log(sight.risk))
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
        lower=(
            sight.lower(lower_limit(rate.failures, rate.n, at.alpha_headline)) if bounds else None
        ),
        upper=sight.upper(upper_limit(bad, rate.n, sight.risk)) if bounds else None,
        failed=rate.n > 0 and not over and log_fail >= at.fail_at,
        passed=passed,
        images_needed=needed,
    )


def _needed(bad: int, images: int, below: float, pass_at: float) -> int | None:
    """Return the images still needed: clean ones while nothing failed, else at the rate shown."""
    return images_needed(bad, images, below=below, log_threshold=pass_at, rate=None if bad else 0.0)


def _paired(
    policy: Policy, metrics: Metrics, at: Thresholds, sight: Sight, bounds: bool
) -> list[SequentialResult]:
    """Return the comparison with the baseline; ``amber`` when it is proven worse at all."""
    rule = policy.paired
    if metrics.paired is None and not rule.required:
        return []
    for_pass, for_fail = _pair_counts(metrics)
    found = paired_evidence(for_pass, for_fail, margin=rule.margin)
    # What the checks miss they miss in both arms: a difference is seen as much smaller as a rate.
    margin = rule.margin * sight.share
    log_pass = paired_log_e(for_pass.worse, for_pass.better, for_pass.pairs, margin)
    lower = upper = None
    if bounds:
        lower, highest = paired_interval(for_fail, at.share, sight.risk)
        if for_pass != for_fail:
            _, highest = paired_interval(for_pass, at.share, sight.risk)
        upper = highest if highest <= 0 else sight.upper(highest)
    pass_at = -math.log(sight.risk) if rule.required else None
    return [
        SequentialResult(
            name="paired",
            kind="paired",
            images=for_fail.pairs,
            failures=0 if metrics.paired is None else _worse(metrics.paired),
            limit=rule.margin,
            log_e_fail=found.log_e_fail,
            fail_at=at.shared_fail_at,
            below=margin if rule.required else None,
            log_e_pass=log_pass,
            pass_at=pass_at,
            lower=lower,
            upper=upper,
            failed=found.log_e_fail >= at.shared_fail_at,
            passed=pass_at is not None and sight.proves and log_pass >= pass_at,
            amber=found.log_e_zero >= at.amber_at,
        )
    ]


def _worse(paired: Paired) -> int:
    return paired.candidate_only - paired.baseline_only


def _pair_counts(metrics: Metrics) -> tuple[PairedCounts, PairedCounts]:
    """Return the pairs as a proof for the candidate reads them, and as one against it.

    Pairs of which one arm was not measured are no pairs in the figures. Leaving them out would let
    the candidate improve by losing its bad images, so each proof takes them for what makes it
    harder; as the figures do not say how the other arm fared, for the hardest.
    """
    paired = metrics.paired or Paired(pairs=0, candidate_only=0, baseline_only=0)
    arms = (metrics.candidate, metrics.baseline)
    known = PairedCounts(paired.pairs, paired.candidate_only, paired.baseline_only)
    # Not more than were lost, nor than both arms have cases for.
    lost = sum(arm.accounts.unmeasured for arm in arms)
    lost = max(0, min(lost, min(arm.images for arm in arms) - paired.pairs))
    pairs = paired.pairs + lost
    return (
        PairedCounts(pairs, known.worse + lost, known.better),
        PairedCounts(pairs, known.worse, known.better + lost),
    )


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
    edges: Boundaries, metrics: Metrics, judged: Sequence[str], bounds: bool
) -> tuple[SequentialResult, ...]:
    policy, sight = edges.policy, edges.sight
    rule = policy.slices
    # A policy may name a slice twice; that asks for nothing more.
    critical = tuple(dict.fromkeys(rule.critical))
    wanted = {*judged, *critical}
    tests = SliceTests(
        names=tuple(judged),
        limit=rule.limit,
        alpha=edges.at.share * max(1, len(judged)),
        amber_alpha=policy.failure.alpha,
        critical=critical,
        critical_below=edges.critical_below,
        beta=sight.risk,
    )
    counts = [
        SliceCount(name, piece.rate.n, piece.rate.failures, piece.rate.unmeasured)
        for piece in metrics.slices
        if piece.arm == "candidate" and (name := f"{piece.dimension}={piece.value}") in wanted
    ]
    found = judge_slices(tests, counts, bounds=bounds)
    if sight.proves and not sight.planted:
        return found
    return tuple(_seen_by(one, sight) for one in found)


def _seen_by(one: SequentialResult, sight: Sight) -> SequentialResult:
    """Return a slice's result for checks that miss some of its failures, or for no proof at all."""
    changes: dict[str, object] = {}
    if one.upper is not None:
        changes["upper"] = sight.upper(one.upper)
    if one.lower is not None:
        changes["lower"] = sight.lower(one.lower)
    if not sight.proves:
        changes |= {"passed": False, "images_needed": None}
    return one.model_copy(update=changes)
