"""Counts of planted defects and of good pictures, check by check: plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

#: Checks that, as the suite runs them, only tell and never fail: nothing can be planted for them.
NEVER_FAIL = frozenset({"colour.profile"})
#: Every name that a finding can carry and for which the suite plants nothing, and why. A name that
#: ends with a full stop stands for all that begin with it.
NOT_PLANTED: Mapping[str, str] = {
    "colour.profile": "as the suite runs it, it only tells and fails no picture",
    "safety.provenance": (
        "only where a policy asks: its runs show it pictures that nobody trusted has signed, and "
        "doctor plants in pictures signed by an authority of its own (planted_signed.py)"
    ),
    "delivery.": "no look at a picture: what the provider answered, or did not",
    "plugin.": "stands for a check that could not be loaded: a fault, or a skip",
}
#: The name under which a record counts good pictures that any check called bad: what counts
#: against a build is a flag, whichever check raised it.
ANY = "any check"


@dataclass(frozen=True)
class DefectHealth:
    """What a check made of one kind of defect at one strength."""

    name: str
    check: str
    strength: float
    found: int = 0
    planted: int = 0
    #: Of the planted: the check did not find it, and another check calls the picture bad for it.
    elsewhere: int = 0
    #: Of the planted: the check broke or said that it cannot judge. Not found.
    unjudged: int = 0
    #: CPU seconds of the check itself, over all planted.
    seconds: float = 0.0
    #: Pictures in which the defect was missed, the first few.
    missed: tuple[str, ...] = ()

    def plus(self, other: DefectHealth) -> DefectHealth:
        """Return both counts together."""
        return replace(
            self,
            found=self.found + other.found,
            planted=self.planted + other.planted,
            elsewhere=self.elsewhere + other.elsewhere,
            unjudged=self.unjudged + other.unjudged,
            seconds=self.seconds + other.seconds,
            missed=(*self.missed, *other.missed)[:8],
        )


@dataclass(frozen=True)
class CleanHealth:
    """What a check made of good pictures; those it does not apply to are not counted."""

    check: str
    alarms: int = 0
    clean: int = 0
    faults: int = 0
    seconds: float = 0.0
    #: Pictures that were called bad, and why, the first few.
    accused: tuple[str, ...] = ()

    def plus(self, other: CleanHealth) -> CleanHealth:
        """Return both counts together."""
        return replace(
            self,
            alarms=self.alarms + other.alarms,
            clean=self.clean + other.clean,
            faults=self.faults + other.faults,
            seconds=self.seconds + other.seconds,
            accused=(*self.accused, *other.accused)[:8],
        )


@dataclass(frozen=True)
class CheckHealth:
    """Everything about one check."""

    check: str
    clean: CleanHealth
    defects: tuple[DefectHealth, ...] = ()

    @property
    def found(self) -> int:
        """Planted defects that the check found, all kinds together."""
        return sum(defect.found for defect in self.defects)

    @property
    def caught(self) -> int:
        """Planted defects with which no picture passed, whichever check found them."""
        return self.found + sum(defect.elsewhere for defect in self.defects)

    @property
    def planted(self) -> int:
        """Planted defects, all kinds together."""
        return sum(defect.planted for defect in self.defects)

    def plus(self, other: CheckHealth) -> CheckHealth:
        """Return both measurements together, kind by kind.

        Raises:
            ValueError: They are not of the same check, kinds and strengths.
        """
        mine, theirs = ([(d.name, d.strength) for d in h.defects] for h in (self, other))
        if self.check != other.check or mine != theirs:
            raise ValueError(f"{self.check!r} was measured in another way than {other.check!r}")
        pairs = zip(self.defects, other.defects, strict=True)
        return replace(
            self,
            clean=self.clean.plus(other.clean),
            defects=tuple(one.plus(two) for one, two in pairs),
        )


@dataclass(frozen=True)
class OwnHealth:
    """What is known of a check that the policy asks for: no record can ship for it."""

    health: CheckHealth
    #: Whether the gate holds when it is blind.
    required: bool = True
    #: Why it was not measured, or not to the end.
    problem: str = ""

    def plus(self, other: OwnHealth) -> OwnHealth:
        """Return both measurements together.

        Raises:
            ValueError: They are not of the same check.
        """
        return replace(
            self, health=self.health.plus(other.health), problem=self.problem or other.problem
        )


def together(one: tuple[OwnHealth, ...], two: tuple[OwnHealth, ...]) -> tuple[OwnHealth, ...]:
    """Return two measurements of the same checks together; either may be of nothing yet.

    Raises:
        ValueError: They are not of the same checks.
    """
    if not one or not two:
        return one or two
    return tuple(a.plus(b) for a, b in zip(one, two, strict=True))
