"""From the counts of planted defects to what a decision may believe of the checks.

All kinds of defects of a check count together, as defects come mixed. That could hide a kind that
the check never sees, and a check that fell blind today behind good counts of old. So these get
entries of their own, which :func:`tasks.verdict.checkers.blind` finds.

For the checks that a policy brings itself there is no record, only what this run showed them. Such
a check is blind when it missed some of that and is not proven to find half. One that missed nothing
of very little is no worse than one of which nothing is known: both are named as not measured.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.checks.counts import ANY, NEVER_FAIL, CheckHealth, DefectHealth, OwnHealth
from tasks.checks.live import FILE, Planted, read_planted
from tasks.metrics.rates import lower_bound
from tasks.plan import RunFolder
from tasks.records import Record
from tasks.verdict.checkers import FLOOR, Sensitivity, blind

#: Risk of each bound that a person reads, and of calling a kind blind that is at the floor.
RISK = 0.05
#: Risk of holding a run although every check sees today as well as its record says; all checks.
TODAY_RISK = 0.01


class Eyes(Record):
    """What is known of the checks of a run; without anything, they are taken for perfect."""

    checks: tuple[Sensitivity, ...] = ()
    #: Good pictures that any of the checks called bad.
    alarms: Sensitivity | None = None
    #: Why too little is known of the checks to promote anything; ``None`` when enough is.
    problem: str | None = None
    #: What a reader should know of the checks that the policy brings itself, as sentences.
    notes: tuple[str, ...] = ()
    #: Those of which it is not known what they see.
    unmeasured: tuple[str, ...] = ()


def eyes_of(folder: RunFolder) -> Eyes:
    """Return what a run knows of its checks, from its folder.

    Raises:
        EvidenceError: The file cannot be read.
    """
    found = read_planted(folder)
    if found is None:
        return Eyes(problem=f"no defects were planted in this run ({FILE} is missing)")
    return eyes(found)


def eyes(found: Planted) -> Eyes:
    """Return what the decision may believe, from what was counted."""
    problem = None
    if found.done < found.asked:
        why = "; ".join(found.problems) or "the run ended before"
        problem = f"{found.asked - found.done} of {found.asked} drawings were not judged: {why}"
    own = own_eyes(found.own)
    problem = problem or next((one.broken for one in own if one.broken and one.required), None)
    flagged = next((one.clean for one in found.record if one.check == ANY), None)
    return Eyes(
        checks=(
            *sensitivities(found.record, found.today, found.counting),
            *(one.counts for one in own if one.counts is not None),
        ),
        alarms=(None if flagged is None else Sensitivity(ANY, 0, 0, flagged.alarms, flagged.clean)),
        problem=problem,
        notes=tuple(note for one in own for note in one.notes),
        unmeasured=tuple(one.name for one in own if one.unmeasured),
    )


@dataclass(frozen=True, slots=True)
class OwnEyes:
    """What is known of a check that the policy brings itself."""

    name: str
    required: bool
    #: Its counts, where they say something: that it sees, or, if it is required, that it is blind.
    counts: Sensitivity | None
    #: ``sees``, ``blind``, or ``not measured``.
    state: Literal["sees", "blind", "not measured"]
    #: Why it could not be measured, as a sentence without its end; empty when it could.
    broken: str = ""
    notes: tuple[str, ...] = ()

    @property
    def unmeasured(self) -> bool:
        """Whether it is not known what the check sees."""
        return self.state == "not measured" and not self.broken


def own_eyes(own: Sequence[OwnHealth]) -> tuple[OwnEyes, ...]:
    """Return what is known of the checks that the policy brings itself."""
    return tuple(_own(one) for one in own)


def _own(one: OwnHealth) -> OwnEyes:
    health = one.health
    name, clean = health.check, (health.clean.alarms, health.clean.clean)
    counts = Sensitivity(name, health.found, health.planted, *clean)
    sees = counts.lower(RISK) >= FLOOR
    missed = health.planted > health.found
    state: Literal["sees", "blind", "not measured"] = (
        "sees" if sees else "blind" if missed else "not measured"
    )
    broken = f"check {name} was not measured: {one.problem}" if one.problem else ""
    notes = []
    if state == "not measured" and not broken:
        why = (
            f"it found all {health.planted} of its known defects, too few to prove that it sees"
            if health.planted
            else "no defect was planted for it and no bad picture is known"
        )
        notes.append(f"Check {name} is not measured: {why}.")
    if state == "blind" and not one.required:
        notes.append(
            f"Check {name}, which the policy can do without, is blind: it found {health.found:,} "
            f"of {health.planted:,} known defects."
        )
    if broken and not one.required:
        notes.append(f"C{broken[1:]}.")
    if clean[0]:
        notes.append(
            f"Check {name} called {clean[0]:,} of {clean[1]:,} pictures bad that are known to be "
            "good."
        )
    told = sees or (state == "blind" and one.required)
    return OwnEyes(name, one.required, counts if told else None, state, broken, tuple(notes))


def sensitivities(
    record: Sequence[CheckHealth],
    now: Sequence[CheckHealth] = (),
    checks: Collection[str] | None = None,
) -> tuple[Sensitivity, ...]:
    """Return the counts of every check, and an entry for what is blind in a part.

    These are a kind whose sensitivity is proven to be below the floor, and a check that missed
    half of what was planted in this run, where its record makes that no accident.

    Args:
        record: What was counted before.
        now: This run alone.
        checks: Which checks; all by default.
    """
    counted = {
        one.check: one
        for one in record
        if one.check not in NEVER_FAIL
        and one.check != ANY
        and (checks is None or one.check in checks)
    }
    found = []
    for one in counted.values():
        found.append(_whole(one))
        found += [
            Sensitivity(f"{one.check} ({kind.name})", kind.found, kind.planted)
            for kind in one.defects
            if not _sees(kind)
        ]
    risk = TODAY_RISK / max(1, len(counted))
    found += [
        Sensitivity(f"{one.check} (today)", one.found, one.planted)
        for one in now
        if one.check in counted and _fell_blind(one, counted[one.check], risk)
    ]
    return tuple(found)


def _whole(one: CheckHealth) -> Sensitivity:
    """Return the counts of a check, of which a picture failed whoever saw why.

    A check that is blind itself has its own counts: others must not hide it.
    """
    clean = (one.clean.alarms, one.clean.clean)
    own = Sensitivity(one.check, one.found, one.planted, *clean)
    return own if blind([own]) else Sensitivity(one.check, one.caught, one.planted, *clean)


def _sees(kind: DefectHealth) -> bool:
    """Say whether a kind may be seen; nothing is said against one that was hardly planted."""
    return Sensitivity(kind.name, kind.found, kind.planted).upper(RISK) >= FLOOR


def _fell_blind(today: CheckHealth, record: CheckHealth, risk: float) -> bool:
    """Say whether a check missed half of today's defects, which its record does not explain.

    Two missed of two can be bad luck for a check that finds 19 of 20, and must not hold one run
    in a hundred; for one that found a thousand of a thousand it cannot.
    """
    if not today.planted or today.found * 2 > today.planted:
        return False
    sees = lower_bound(record.found, record.planted, RISK)
    chance = math.fsum(
        math.comb(today.planted, k) * sees**k * (1 - sees) ** (today.planted - k)
        for k in range(today.found + 1)
    )
    return chance <= risk
