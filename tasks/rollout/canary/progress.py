"""What a canary has counted so far, as it is kept in the state database after each look. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, get_args

from pydantic import Field

from tasks.canary_rules import CanaryRule
from tasks.records import SCHEMA_VERSION, Record
from tasks.rollout.canary.two_samples import GRID, Side, expected_rate, log_gains
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes

#: What is compared with the baseline in the same windows.
Compared = Literal["failures", "defects", "slow", "cost", "tickets"]
COMPARED: tuple[Compared, ...] = get_args(Compared)
Ordered = Literal["advance", "promote", "roll_back", "abort"]


class CanaryPlan(Record):
    """What a canary walks by, fixed before its first image."""

    schema_version: int = SCHEMA_VERSION
    canary_id: str
    product: str
    candidate_digest: str
    candidate_name: str
    baseline_digest: str
    baseline_name: str
    rule: CanaryRule
    policy_digest: str
    #: The gate run whose verdict allows it; ``None`` when ``without_gate`` says why not.
    run_id: str | None = None
    without_gate: str | None = None
    #: Last line of the journal of production when it began: what others wrote later is seen.
    journal_id: int

    def promote_below(self, step: int) -> float:
        """Return the bar of a step."""
        return self.rule.steps[step].promote_below


class Arm(Record):
    """Sums over the windows of one step for one mix."""

    images: int = 0
    failures: int = 0
    judged: int = 0
    defects: int = 0
    timed: int = 0
    slow: int = 0
    costed: int = 0
    cost_microusd: int = 0
    #: Images of the windows in which tickets were counted.
    ticketed: int = 0
    tickets: int = 0

    def plus(self, seen: ArmOutcomes) -> Arm:
        """Return the sums with one window more."""
        return Arm(
            images=self.images + seen.images,
            failures=self.failures + seen.failures,
            judged=self.judged + (seen.judged or 0),
            defects=self.defects + (seen.defects or 0),
            timed=self.timed + (seen.timed or 0),
            slow=self.slow + (seen.slow or 0),
            costed=self.costed + (seen.costed or 0),
            cost_microusd=self.cost_microusd + (seen.cost_microusd or 0),
            ticketed=self.ticketed + (seen.images if seen.tickets is not None else 0),
            tickets=self.tickets + (seen.tickets or 0),
        )

    def side(self, what: Compared, most_microusd: float) -> Side:
        """Return the images that a comparison is about, and the bad ones."""
        if what == "failures":
            return Side(self.images, self.failures)
        if what == "defects":
            return Side(self.judged, self.defects)
        if what == "slow":
            return Side(self.timed, self.slow)
        if what == "cost":
            return Side(self.costed, min(self.cost_microusd / most_microusd, self.costed))
        # An image that several people complain about counts once at most.
        return Side(self.ticketed, min(self.tickets, self.ticketed))


class Tally(Record):
    """What was counted while the candidate had one step's share."""

    candidate: Arm = Arm()
    baseline: Arm = Arm()
    #: Logarithms of the wealth of each bet of each comparison, from this step's windows alone.
    wealth: dict[Compared, tuple[float, ...]] = Field(default_factory=dict)


class Order(Record):
    """A decision that was made and may not be carried out yet: a crash must not forget it."""

    kind: Ordered
    reason: str
    #: When it was made.
    at: str


class Progress(Record):
    """All that a canary knows; replaced as a whole, in one row, after each look."""

    schema_version: int = SCHEMA_VERSION
    #: Outcomes before this moment are counted and are never read again.
    counted_until: str
    looks: int = 0
    #: Looks in a row that could not read the outcomes, and what the last one said.
    errors: int = 0
    last_error: str | None = None
    #: What the last look missed, in sentences.
    notes: tuple[str, ...] = ()
    #: By step.
    tallies: tuple[Tally, ...] = (Tally(),)
    #: Whether the router was read back to show the present step's share.
    applied: bool = False
    order: Order | None = None
    #: Who passed which step without its proof, in sentences.
    skipped: tuple[str, ...] = ()
    #: Seconds from the decision that ended it until the router was read back to show the end.
    verified_s: float | None = None


def fold(plan: CanaryPlan, progress: Progress, step: int, seen: Outcomes) -> Progress:
    """Return the progress with one window more; a window is counted once.

    Args:
        plan: What the canary walks by.
        progress: The progress so far.
        step: Step whose share the candidate had in the window.
        seen: The window's outcomes. A partial failure (``errors``) counts as an error of the
            look, beside what was counted.

    Raises:
        ValueError: The window does not begin where the last one ended: it would count requests
            twice, or none.
    """
    counted = datetime.fromisoformat(progress.counted_until)
    if seen.since != counted:
        raise ValueError(
            f"a window from {seen.since.isoformat()} does not follow what is counted until "
            f"{progress.counted_until}"
        )
    candidate = seen.arms.get(plan.candidate_digest, ArmOutcomes())
    baseline = seen.arms.get(plan.baseline_digest, ArmOutcomes())
    tallies = [*progress.tallies, *(Tally() for _ in range(step + 1 - len(progress.tallies)))]
    before = sums(tallies)["baseline"]
    old = tallies[step]
    tallies[step] = Tally(
        candidate=old.candidate.plus(candidate),
        baseline=old.baseline.plus(baseline),
        wealth={
            what: _wealthier(plan.rule, what, old, before, candidate, baseline) for what in COMPARED
        },
    )
    return progress.model_copy(
        update={
            "counted_until": seen.until.isoformat(),
            "looks": progress.looks + 1,
            "errors": progress.errors + 1 if seen.errors else 0,
            "last_error": "; ".join(seen.errors) or None,
            "notes": seen.notes,
            "tallies": tuple(tallies),
        }
    )


def failed_look(progress: Progress, error: str) -> Progress:
    """Return the progress after a look that could read nothing: nothing is counted."""
    return progress.model_copy(
        update={"looks": progress.looks + 1, "errors": progress.errors + 1, "last_error": error}
    )


def sums(tallies: list[Tally] | tuple[Tally, ...]) -> Mapping[str, Arm]:
    """Return the sums of both arms over all steps, as ``candidate`` and ``baseline``."""

    def total(arms: list[Arm]) -> Arm:
        return Arm(**{name: sum(getattr(a, name) for a in arms) for name in Arm.model_fields})

    return {
        "candidate": total([t.candidate for t in tallies]),
        "baseline": total([t.baseline for t in tallies]),
    }


def _wealthier(
    rule: CanaryRule,
    what: Compared,
    old: Tally,
    before: Arm,
    candidate: ArmOutcomes,
    baseline: ArmOutcomes,
) -> tuple[float, ...]:
    """Return the wealth of one comparison with one window more."""
    most = rule.most_usd * 1_000_000
    ratio, margin, prior = _null(rule, what)
    gains = log_gains(
        Arm().plus(candidate).side(what, most),
        Arm().plus(baseline).side(what, most),
        # Fixed before the window: a bet that looked at the window's own images would be cheating.
        expected=expected_rate(before.side(what, most), prior),
        ratio=ratio,
        margin=margin,
    )
    wealth = old.wealth.get(what, (0.0,) * GRID)
    return tuple(float(w + g) for w, g in zip(wealth, gains, strict=True))


def _null(rule: CanaryRule, what: Compared) -> tuple[float, float, float]:
    """Return ratio and margin of a comparison, and the baseline's rate expected at first."""
    if what in ("failures", "defects"):
        return 1.0, rule.margin, rule.limit / 2
    if what == "slow":
        return 1.0, rule.slow_margin, 0.05
    if what == "cost":
        return rule.cost_ratio, 0.0, 0.05
    # Tickets are rare: one in 1,000 images.
    return rule.ticket_ratio, 0.0, 0.001
