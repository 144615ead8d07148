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
from dataclasses import dataclass

from tasks.policy import Policy
from tasks.records import Metrics, Paired, SequentialResult
from tasks.verdict.checkers import Adjusted, Sensitivity, adjusted_fail, adjusted_pass, true_lower
from tasks.verdict.guards import GuardEvidence
from tasks.verdict.paired import PairedCounts, paired_evidence, paired_interval, paired_log_e
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

#: Highest limit that a test can have.
_MOST_LIMIT = 0.9999


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
    left = policy.failure.beta if beta is None else beta
    if not 0 <= left <= policy.failure.beta:
        raise ValueError(
            f"beta must be 0 to {policy.failure.beta}, the policy's; got {left}: earlier tests "
            "cannot leave more"
        )
    # No risk left: no evidence is enough any more.
    sampling = policy.sampling.model_copy(update={"cases": max(1, planned_cases)})
    policy = policy.model_copy(update={"sampling": sampling})
    below = policy.failure.promote_below
    policy, doubt = raised(policy, alarms)
    at = thresholds(policy, judged, len(guards), beta=left or None)
    mixed = policy.checks.sensitivity == "mixed"
    sight = _sight(at, left, below, checks, doubt, mixed=mixed)
    return (
        _headline(policy, metrics, at, sight, bounds),
        *_paired(policy, metrics, at, sight, bounds),
        *(_guard(guard, at) for guard in guards),
        *_slices(policy, metrics, at, judged, sight, bounds),
    )


def raised(policy: Policy, alarms: Sensitivity | None) -> tuple[Policy, float]:
    """Return a policy whose limits allow for false alarms, and the bound of these.

    ``alpha`` is what the bound leaves of it. ``promote_below`` is not below ``limit``, and means
    nothing where that had to be raised: PASS has a boundary of its own.
    """
    fail = alarm_bound(policy, alarms)
    if fail is None:
        return policy, 0.0
    rule = policy.failure
    # A limit of 1 is no hypothesis; nothing is above this one either.
    limit = min(_MOST_LIMIT, fail.threshold)
    failure = rule.model_copy(
        update={
            "limit": limit,
            "promote_below": max(rule.promote_below, limit),
            "alpha": fail.error,
        }
    )
    in_slice = policy.slices.limit + (1 - policy.slices.limit) * fail.bound
    slices = policy.slices.model_copy(update={"limit": min(_MOST_LIMIT, in_slice)})
    return policy.model_copy(update={"failure": failure, "slices": slices}), fail.bound


def alarm_bound(policy: Policy, alarms: Sensitivity | None) -> Adjusted | None:
    """Return what the headline's FAIL test is tested against; ``None`` for the limit as it is."""
    if alarms is None or policy.checks.false_alarms == "confirm":
        return None
    return adjusted_fail(policy.failure.limit, [alarms], policy.failure.alpha, confirmed=False)


@dataclass(frozen=True)
class _Sight:
    """What a proof for PROMOTE may rest on, and one for ROLLBACK.

    ``risk`` is that of each test, at its boundary times ``share``, the part of the failures that
    the checks find at least. Without ``proves`` no evidence is enough: the risk is used up, or the
    checks found nothing of what was planted and are ``blind``. ``below`` is the policy's own
    boundary, ``doubt`` the share of good pictures that is flagged at most.
    """

    proves: bool
    risk: float
    below: float
    share: float = 1.0
    blind: bool = False
    doubt: float = 0.0

    @property
    def planted(self) -> bool:
        """Whether the boundaries are others than the policy's."""
        return self.share < 1 or self.doubt > 0

    def upper(self, measured: float) -> float:
        """Return the upper end of what is truly failing, for that of what the checks see."""
        return 1.0 if self.blind else min(1.0, measured / self.share)

    def lower(self, measured: float) -> float:
        """Return the lower end of what is truly failing, for that of what the checks flag."""
        return true_lower(measured, self.doubt) if self.doubt else measured


def _sight(
    at: Thresholds,
    left: float,
    below: float,
    checks: Sequence[Sensitivity],
    doubt: float,
    *,
    mixed: bool,
) -> _Sight:
    risk = left or at.beta
    if not checks:
        return _Sight(proves=left > 0, risk=risk, below=below, doubt=doubt)
    adjusted = adjusted_pass(below, checks, risk, mixed=mixed)
    if adjusted is None:
        return _Sight(proves=False, risk=risk, below=below, blind=True, doubt=doubt)
    return _Sight(
        proves=left > 0, risk=adjusted.error, below=below, share=adjusted.bound, doubt=doubt
    )


def _headline(
    policy: Policy, metrics: Metrics, at: Thresholds, sight: _Sight, bounds: bool
) -> SequentialResult:
    rate = metrics.candidate.failure_rate
    if not 0 <= rate.unmeasured <= rate.n - rate.failures:
        raise ValueError(
            f"failure rate: {rate.failures} failures and {rate.unmeasured} unmeasured do not fit "
            f"{rate.n} images"
        )
    below, pass_at = sight.below * sight.share, at.pass_at
    if sight.planted:
        # Thresholds calibrated for another boundary hold for none: back to Ville's.
        pass_at = -math.log(sight.risk)
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
    policy: Policy, metrics: Metrics, at: Thresholds, sight: _Sight, bounds: bool
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
    policy: Policy,
    metrics: Metrics,
    at: Thresholds,
    judged: Sequence[str],
    sight: _Sight,
    bounds: bool,
) -> tuple[SequentialResult, ...]:
    rule = policy.slices
    # A policy may name a slice twice; that asks for nothing more.
    critical = tuple(dict.fromkeys(rule.critical))
    wanted = {*judged, *critical}
    tests = SliceTests(
        names=tuple(judged),
        limit=rule.limit,
        alpha=at.share * max(1, len(judged)),
        amber_alpha=policy.failure.alpha,
        critical=critical,
        critical_below=rule.critical_below * sight.share,
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


def _seen_by(one: SequentialResult, sight: _Sight) -> SequentialResult:
    """Return a slice's result for checks that miss some of its failures, or for no proof at all."""
    changes: dict[str, object] = {}
    if one.upper is not None:
        changes["upper"] = sight.upper(one.upper)
    if one.lower is not None:
        changes["lower"] = sight.lower(one.lower)
    if not sight.proves:
        changes |= {"passed": False, "images_needed": None}
    return one.model_copy(update=changes)
