"""What ``imagegate plan`` and ``imagegate simulate`` know of the checks, and say of them.

They reckon with the record of planted defects that a gate on this machine would use. No check is
run and no picture drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flows.figures import chosen, odds
from tasks.policy import Policy
from tasks.settings import Settings
from tasks.verdict.boundaries import Boundaries, alarm_bound, pass_bound
from tasks.verdict.checkers import Sensitivity

#: Blind checks that a sentence names.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What a gate on this machine would know of its checks before the first image.

    Without ``checks`` they are taken for perfect.
    """

    checks: tuple[Sensitivity, ...] = ()
    #: Good pictures that any of the checks called bad.
    alarms: Sensitivity | None = None
    #: Drawings that the record counts.
    pictures: int = 0
    #: Why there is no record; ``None`` where there is one, or nobody wanted it.
    missing: str | None = None

    @property
    def found(self) -> int:
        """Planted defects that were found, over all checks."""
        return sum(check.found for check in self.checks)

    @property
    def planted(self) -> int:
        """Planted defects, over all checks."""
        return sum(check.planted for check in self.checks)


#: Checks that neither miss a defect nor accuse a good picture, because the user asked for them.
PERFECT = Known()


def known_checks(settings: Settings) -> Known:
    """Return what a gate by these settings would know of its checks; reads files only.

    All checks count. A gate leaves out those that can judge no picture of its plan, and looks at a
    few drawings of its own besides.
    """
    from tasks.checks.health import FIRST, known_record
    from tasks.checks.live import Planted
    from tasks.verdict.eyes import eyes

    record = known_record(settings.home, settings.planted_file)
    if record is None:
        file = settings.planted_file
        why = (
            "is of other versions of the checks or libraries, has no counts for the readers that "
            "are installed, or cannot be read"
            if file.exists()
            else "is missing"
        )
        return Known(
            missing=f"the record of planted defects {file} {why}, and no gate has measured the "
            f"checks on this machine yet (the first one does, in {FIRST} drawings)"
        )
    counted = tuple(one.check for one in record.checks)
    seen = eyes(Planted(record.version, record.pictures, record.checks, counted, asked=0))
    return Known(seen.checks, seen.alarms, record.pictures)


def checks_told(
    policy: Policy,
    edges: Boundaries,
    known: Known,
    rate: float,
    at_limit: float | None = None,
) -> Iterator[str]:
    """Yield what a reader should know of the checks, as sentences.

    Args:
        policy: The policy as it was given, before any limit was raised.
        edges: What its gate tests against.
        known: What is known of the checks.
        rate: True failure rate for which the rate of flags is told.
        at_limit: Share of the gates that roll back a build at the limit, where that is known.
    """
    if not known.checks:
        why = "as asked" if known.missing is None else f"as {known.missing}"
        yield f"Reckoned with perfect checks, {why}: a real gate needs more images than this."
        return
    yield _seen(policy, edges, known, rate)
    if names := [f"{one.name} ({one.found:,} of {one.planted:,})" for one in edges.blind]:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield (
            f"Blind to what was planted: {', '.join(names[:_NAMED])}{more}. A gate that uses such "
            "a check never promotes."
        )
    yield from _alarms(policy, edges, known, at_limit)


def _seen(policy: Policy, edges: Boundaries, known: Known, rate: float) -> str:
    rule, sight = policy.failure, edges.sight
    of = (
        "at least, all together"
        if policy.checks.sensitivity == "mixed"
        else "at least, the check that sees least"
    )
    test = (
        "nothing proves PASS"
        if sight.blind
        else f"PASS is tested against {chosen(edges.below)} instead of "
        f"{chosen(rule.promote_below)}, with {_points(sight.risk)} of the {chosen(rule.beta)} risk"
    )
    if rule.mode == "calibrated" and not sight.blind:
        test += " and the thresholds that hold at any time"
    alarms = known.alarms
    accused = (
        f" and call {_rough(edges.sees.false_alarms)} of good pictures bad "
        f"({alarms.alarms:,} of {alarms.clean:,})"
        if alarms is not None
        else ""
    )
    return (
        f"The checks find {_rough(edges.sees.sensitivity)} of planted defects "
        f"({known.found:,} of {known.planted:,}; {_rough(sight.share)} {of}){accused}: {test}, and "
        f"of a build that truly fails {chosen(rate)} they flag "
        f"{_rough(edges.sees.flagged(rate))} (--perfect-checks leaves this out)."
    )


def _alarms(
    policy: Policy, edges: Boundaries, known: Known, at_limit: float | None
) -> Iterator[str]:
    """Say what false alarms do to a ROLLBACK."""
    if not edges.sees.false_alarms:
        return
    limit = policy.failure.limit
    fail = alarm_bound(policy, known.alarms)
    flagged = _rough(edges.sees.flagged(limit))
    if fail is not None:
        yield (
            "The policy allows for false alarms: ROLLBACK is tested against "
            f"{chosen(edges.at.limit)} flagged pictures instead of {chosen(limit)}; of a build at "
            f"that limit {flagged} are flagged."
        )
        return
    back = "" if at_limit is None else f" and rolled back in {odds(at_limit)} of the gates"
    yield (
        f"False alarms count against a build: one that truly fails {chosen(limit)} is flagged "
        f"{flagged}{back}, so the {chosen(policy.failure.alpha)} risk of a wrong ROLLBACK is no "
        "promise for it; checks: {false_alarms: allow} in the policy makes it one, for more images."
    )


def checks_json(policy: Policy, edges: Boundaries, known: Known) -> dict[str, Any]:
    """Return what is known of the checks and what it does to the tests; shares from 0 to 1."""
    adjusted = pass_bound(policy, known.checks)
    fail = alarm_bound(policy, known.alarms)
    alarms = known.alarms
    return {
        "perfect": not known.checks,
        "missing": known.missing,
        "drawings": known.pictures,
        "rule": policy.checks.sensitivity,
        "found": known.found,
        "planted": known.planted,
        "sensitivity": edges.sees.sensitivity,
        "sensitivity_lower": None if adjusted is None else adjusted.bound,
        "beta_for_sensitivity": 0.0 if adjusted is None else adjusted.spent,
        "false_alarms": edges.sees.false_alarms,
        "alarms": 0 if alarms is None else alarms.alarms,
        "clean": 0 if alarms is None else alarms.clean,
        "false_alarms_rule": policy.checks.false_alarms,
        "false_alarms_upper": None if fail is None else fail.bound,
        "blind": [one.name for one in edges.blind],
        "pass_tested_below": edges.below if edges.promotes else None,
        "pass_risk": edges.sight.risk,
        "fail_tested_above": edges.at.limit,
    }


def checks_words(edges: Boundaries, known: Known) -> str:
    """Return what the checks see in a few words, for a picture."""
    if not known.checks:
        return "perfect checks"
    return f"checks find {_rough(edges.sees.sensitivity)}, accuse {_rough(edges.sees.false_alarms)}"


def _rough(share: float) -> str:
    """Return a measured share with three digits: ``99.7 %``, ``0.471 %``."""
    return ">99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.3g} %"


def _points(risk: float) -> str:
    return f"{100 * risk:.3g} points"
