"""What each test of a gate has to reach, by the policy and by what is known of the checks.

The gate (:mod:`tasks.verdict.proofs`), a plan (:mod:`tasks.verdict.planning`) and a simulation
(:mod:`tasks.verdict.simulate`) all take their boundaries from :func:`boundaries`, so that none of
them can promise what another does not keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.policy import Policy
from tasks.records import PriorRun
from tasks.verdict.calibration import calibrate
from tasks.verdict.checkers import (
    Adjusted,
    Sensitivity,
    adjusted_fail,
    adjusted_pass,
    blind,
    true_lower,
)
from tasks.verdict.retest import remaining_beta
from tasks.verdict.sequential import Mode

#: Share of ``alpha`` that the headline failure rate has for itself.
HEADLINE_SHARE = 0.5
#: Highest limit that a test can have.
_MOST_LIMIT = 0.9999


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What each test of a gate has to reach; all logarithms are natural ones."""

    limit: float
    promote_below: float
    mode: Mode
    #: Risk of the headline's FAIL test and of every PASS test.
    alpha_headline: float
    beta: float
    #: Evidence of the headline that proves FAIL, and PASS.
    fail_at: float
    pass_at: float
    #: Risk of each of the other FAIL tests (slices, guards, the paired test), and its evidence.
    share: float
    shared_fail_at: float
    #: Evidence of a slice that looks bad: its FAIL test without any correction.
    amber_at: float
    #: Evidence that proves a critical slice.
    critical_pass_at: float


def thresholds(
    policy: Policy, slices: Sequence[str], guards: int, *, beta: float | None = None
) -> Thresholds:
    """Return the thresholds of a gate by its policy, with perfect checks.

    Half of ``alpha`` is for the headline failure rate. The other half goes in equal parts to the
    slices that are judged, the guards (limits whose breach means ROLLBACK) and the paired test
    (Bonferroni). PROMOTE needs all its proofs at once, so each may use the whole of ``beta``.

    Args:
        policy: The policy.
        slices: Names of the slices that are judged, fixed before the first image.
        guards: Number of limits whose breach means ROLLBACK.
        beta: Risk that earlier runs of the same build left; the policy's by default.

    Raises:
        ValueError: ``guards`` is negative, a slice is named twice, or ``beta`` is no risk.
    """
    rule = policy.failure
    if guards < 0:
        raise ValueError(f"guards must be 0 or more; got {guards}")
    if len(set(slices)) != len(slices):
        raise ValueError(f"a slice is named twice among {', '.join(slices)}")
    left = rule.beta if beta is None else beta
    headline = rule.alpha * HEADLINE_SHARE
    fail_at, pass_at = headline_thresholds(
        rule.limit, rule.promote_below, headline, left, rule.mode, policy.sampling.cases
    )
    share = rule.alpha * (1 - HEADLINE_SHARE) / (len(slices) + guards + 1)
    return Thresholds(
        limit=rule.limit,
        promote_below=rule.promote_below,
        mode=rule.mode,
        alpha_headline=headline,
        beta=left,
        fail_at=fail_at,
        pass_at=pass_at,
        share=share,
        shared_fail_at=-math.log(share),
        amber_at=-math.log(rule.alpha),
        critical_pass_at=-math.log(left),
    )


def headline_thresholds(
    limit: float, promote_below: float, alpha: float, beta: float, mode: Mode, n_max: int
) -> tuple[float, float]:
    """Return the log evidence that proves FAIL and PASS of the headline rate.

    Args:
        limit: ROLLBACK above.
        promote_below: PROMOTE below.
        alpha: Risk of the FAIL test alone.
        beta: Risk of the PASS test.
        mode: ``anytime``: 1/risk (Ville's inequality); ``calibrated``: the exact risk by ``n_max``.
        n_max: Most images of the headline sample.

    Raises:
        ValueError: A risk is not between 0 and 1, or the mode is unknown.
    """
    for name, risk in (("alpha", alpha), ("beta", beta)):
        if not 0 < risk < 1:
            raise ValueError(f"{name} must be between 0 and 1; got {risk}")
    if mode == "anytime":
        return -math.log(alpha), -math.log(beta)
    if mode == "calibrated":
        log_pass, log_fail = calibrate(limit, promote_below, alpha, beta, n_max)
        return log_fail, log_pass
    raise ValueError(f"mode {mode!r} is unknown (known: anytime, calibrated)")


@dataclass(frozen=True, slots=True)
class Sight:
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


@dataclass(frozen=True, slots=True)
class Sees:
    """How the checks see a build on average: point estimates, for a forecast and no decision.

    ``sensitivity`` is the share of true failures that is flagged, ``false_alarms`` that of good
    pictures.
    """

    sensitivity: float = 1.0
    false_alarms: float = 0.0

    def flagged(self, rate: float) -> float:
        """Return the share of all pictures that is flagged at a true failure rate, 0 to 1."""
        return rate * self.sensitivity + (1 - rate) * self.false_alarms


#: Checks that neither miss a defect nor accuse a good picture.
PERFECT = Sees()


def sees(checks: Sequence[Sensitivity], alarms: Sensitivity | None) -> Sees:
    """Return what the checks see of defects that come mixed as they were planted.

    Args:
        checks: What planted defects say of the checks; none for perfect ones.
        alarms: Good pictures that any of the checks called bad; ``None`` for none.
    """
    planted = sum(check.planted for check in checks)
    return Sees(
        sensitivity=sum(check.found for check in checks) / planted if planted else 1.0,
        false_alarms=alarms.alarms / alarms.clean if alarms is not None and alarms.clean else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Boundaries:
    """Every boundary of a gate, once the errors of the checks are allowed for."""

    #: The policy, with its limits raised where it allows for false alarms.
    policy: Policy
    at: Thresholds
    sight: Sight
    #: What planted defects, and good pictures, say of the checks.
    checks: tuple[Sensitivity, ...]
    alarms: Sensitivity | None

    @property
    def blind(self) -> tuple[Sensitivity, ...]:
        """Checks that hold the gate, as they are not proven to see."""
        return blind(self.checks)

    @property
    def sees(self) -> Sees:
        """What the checks see on average."""
        return sees(self.checks, self.alarms)

    @property
    def below(self) -> float:
        """Rate of flags that the headline's PASS test is about."""
        return self.sight.below * self.sight.share

    @property
    def critical_below(self) -> float:
        """Rate of flags that the PASS test of a critical slice is about."""
        return self.policy.slices.critical_below * self.sight.share

    @property
    def pass_at(self) -> float:
        """Log evidence that proves PASS of the headline."""
        # Thresholds calibrated for another boundary hold for none: back to Ville's.
        return -math.log(self.sight.risk) if self.sight.planted else self.at.pass_at

    @property
    def promotes(self) -> bool:
        """Whether any number of images can be a proof for the candidate."""
        return self.sight.proves and not self.blind


def boundaries(
    policy: Policy,
    judged: Sequence[str],
    guards: int,
    *,
    left: float | None = None,
    checks: Sequence[Sensitivity] = (),
    alarms: Sensitivity | None = None,
) -> Boundaries:
    """Return what every test of a gate is tested against.

    Args:
        policy: The policy; the calibrated mode is made for its number of cases.
        judged: Slices, as ``dimension=value``, that may roll back; fixed before the first image.
        guards: Number of limits whose breach means ROLLBACK.
        left: Risk of a wrong PROMOTE that earlier tests of the same build left; the policy's by
            default.
        checks: What planted defects say of the checks; none when nothing was planted.
        alarms: Good pictures that any of the checks called bad; ``None`` when none were shown.

    Raises:
        ValueError: A count or a risk is impossible.
    """
    beta = policy.failure.beta if left is None else left
    if not 0 <= beta <= policy.failure.beta:
        raise ValueError(
            f"beta must be 0 to {policy.failure.beta}, the policy's; got {beta}: earlier tests "
            "cannot leave more"
        )
    allowing, doubt = raised(policy, alarms)
    # No risk left: no evidence is enough any more.
    at = thresholds(allowing, judged, guards, beta=beta or None)
    sight = _sight(policy, beta, checks, doubt)
    return Boundaries(allowing, at, sight, tuple(checks), alarms)


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


def pass_bound(
    policy: Policy, checks: Sequence[Sensitivity], risk: float | None = None
) -> Adjusted | None:
    """Return what the headline's PASS test is tested against.

    ``None`` stands for the policy's own boundary when nothing was planted, and for no boundary at
    all when the checks found nothing of what was.

    Args:
        policy: The policy.
        checks: What planted defects say of the checks.
        risk: Risk of a wrong PROMOTE, of which the bound takes a part; the policy's by default.
    """
    if not checks:
        return None
    rule = policy.failure
    mixed = policy.checks.sensitivity == "mixed"
    return adjusted_pass(rule.promote_below, checks, risk or rule.beta, mixed=mixed)


def left_by(
    policy: Policy, prior: Sequence[PriorRun], checks: Sequence[Sensitivity], n_max: int
) -> float:
    """Return the risk of a wrong PROMOTE that earlier tests of the same build left.

    What an earlier run showed is weighed at the boundary of today's test, the one that the checks'
    sensitivity lowered: at the policy's own it would look like less evidence for a bad build.

    Args:
        policy: The policy.
        prior: Earlier tests, oldest first.
        checks: What planted defects say of the checks.
        n_max: Images of earlier runs of which the plan is not known.
    """
    rule = policy.failure
    below, mode = rule.promote_below, rule.mode
    adjusted = pass_bound(policy, checks)
    # Checks that found nothing hold the run, whatever is left.
    if adjusted is not None:
        below, mode = adjusted.threshold, "anytime"
    return remaining_beta(prior, promote_below=below, beta=rule.beta, mode=mode, n_max=n_max)


def _sight(policy: Policy, left: float, checks: Sequence[Sensitivity], doubt: float) -> Sight:
    below, risk = policy.failure.promote_below, left or policy.failure.beta
    if not checks:
        return Sight(proves=left > 0, risk=risk, below=below, doubt=doubt)
    adjusted = pass_bound(policy, checks, risk)
    if adjusted is None:
        return Sight(proves=False, risk=risk, below=below, blind=True, doubt=doubt)
    return Sight(
        proves=left > 0, risk=adjusted.error, below=below, share=adjusted.bound, doubt=doubt
    )
