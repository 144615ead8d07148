"""How far the checks can be trusted, and what that does to the thresholds.

Planted defects (pictures known to be bad) and clean pictures (known to be good) go through the
checks in every run. What the checks miss there they also miss among the candidate's images: a
failure rate that the checks measure is below the true one. So PASS is tested against a threshold
that is lowered by a bound of the sensitivity, and a check that misses too much is *blind*.

What is planted must be as hard to see as what really goes wrong, and must go the whole way,
through the second reader too where flags are confirmed: ``found`` are the planted defects that
would count as failures in PASS, ``alarms`` the clean pictures that would count in FAIL.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from tasks.errors import known
from tasks.metrics.rates import lower_bound, upper_bound

#: What the second reader says of a flagged image: bad indeed, good after all, cannot tell.
Answer = Literal["yes", "no", "unreadable"]

#: Lowest bound of the sensitivity at which a check counts as seeing.
FLOOR = 0.5

#: Sensitivity for which the split of a risk is planned; what is measured must not choose it.
PLANNED_SENSITIVITY = 0.8


@dataclass(frozen=True)
class Sensitivity:
    """What one check, or a chain of checks and reader, made of pictures with a known answer.

    Args:
        name: The check.
        found: Planted defects that it found.
        planted: Planted defects shown to it.
        alarms: Clean pictures that it flagged.
        clean: Clean pictures shown to it.

    Raises:
        ValueError: The counts are no whole numbers or do not fit each other.
    """

    name: str
    found: int
    planted: int
    alarms: int = 0
    clean: int = 0

    def __post_init__(self) -> None:
        for part, whole in (("found", "planted"), ("alarms", "clean")):
            some, most = getattr(self, part), getattr(self, whole)
            try:
                sound = 0 <= operator.index(some) <= operator.index(most)
            except TypeError:
                sound = False
            if not sound:
                raise ValueError(
                    f"check {self.name!r}: {part} must be a whole number from 0 to {whole}; "
                    f"got {some!r} of {most!r}"
                )

    def lower(self, error: float) -> float:
        """Return the lower bound of the sensitivity, too high with risk ``error``; 0 unplanted."""
        return lower_bound(self.found, self.planted, error)

    def upper(self, error: float) -> float:
        """Return the upper bound of the sensitivity, too low with risk ``error``; 1 unplanted."""
        return upper_bound(self.found, self.planted, error)

    def alarms_upper(self, error: float) -> float:
        """Return the upper bound of the false alarm rate, too low with risk ``error``."""
        return upper_bound(self.alarms, self.clean, error)

    def alarms_lower(self, error: float) -> float:
        """Return the lower bound of the false alarm rate, too high with risk ``error``."""
        return lower_bound(self.alarms, self.clean, error)


def blind(
    checks: Sequence[Sensitivity], floor: float = FLOOR, error: float = 0.05
) -> tuple[Sensitivity, ...]:
    """Return the checks whose sensitivity is not proven to reach ``floor``; the gate must hold.

    A check with nothing planted is blind: nothing is known of it.

    Args:
        checks: What the checks made of the planted defects.
        floor: Sensitivity that the lower bound must reach.
        error: Risk of each bound. A check below the floor is let through with this risk at most.

    Raises:
        ValueError: ``floor`` or ``error`` out of range.
    """
    if not 0 < floor < 1:
        raise ValueError(f"floor must be between 0 and 1; got {floor}")
    return tuple(check for check in checks if check.lower(error) < floor)


@dataclass(frozen=True)
class Flags:
    """Flagged images by what the second reader said, each in the order of the flags.

    ``confirmed`` ones are failures. ``cleared`` ones are good, which PASS may believe because
    the planted defects went past the same reader: clearing a true defect lowers the measured
    sensitivity and with it the threshold. ``doubtful`` ones have no answer, or an unreadable one:
    good ones for FAIL, failures for PASS, like every image of which nobody knows.
    """

    confirmed: tuple[str, ...]
    cleared: tuple[str, ...]
    doubtful: tuple[str, ...]

    @property
    def for_fail(self) -> int:
        """Failures that speak for a ROLLBACK."""
        return len(self.confirmed)

    @property
    def for_pass(self) -> int:
        """Failures that speak against a PROMOTE."""
        return len(self.confirmed) + len(self.doubtful)


def confirm(flags: Collection[str], answers: Mapping[str, Answer]) -> Flags:
    """Return the flagged images sorted by what a second, independent reader said of them.

    Args:
        flags: Flagged images, e.g. by the id of their case.
        answers: The reader's answers. A flag without one is doubtful.

    Raises:
        ValueError: A flag twice, an unknown answer, or an answer about an image without a flag:
            failures that only the reader saw are not what the planted defects measured.
    """
    if len(set(flags)) != len(flags):
        raise ValueError("an image can be flagged once; take the ids of the images, not of checks")
    strangers = sorted(set(answers) - set(flags))
    if strangers:
        raise ValueError(f"the second reader was asked about flagged images only; {strangers[0]!r}")
    sorted_by: dict[str, list[str]] = {answer: [] for answer in get_args(Answer)}
    for flag in flags:
        answer = answers.get(flag, "unreadable")
        if answer not in sorted_by:
            raise ValueError(f"answer {answer!r} about {flag!r} is unknown {known(sorted_by)}")
        sorted_by[answer].append(flag)
    return Flags(
        confirmed=tuple(sorted_by["yes"]),
        cleared=tuple(sorted_by["no"]),
        doubtful=tuple(sorted_by["unreadable"]),
    )


def true_rate(flagged: float, check: Sensitivity) -> float | None:
    """Return the estimated true failure rate behind a rate of flags, from 0 to 1.

    (flagged - a) / (s - a) with sensitivity s and false alarm rate a, clipped: W. J. Rogan and
    B. Gladen, American Journal of Epidemiology 107, 1978. For display only: its error is that of
    three estimates at once, so no decision is taken on it.

    Args:
        flagged: Share of the images that count as failures. For confirmed flags give a check
            whose ``alarms`` were confirmed too.
        check: What the planted pictures gave. Without clean pictures, no false alarms.

    Returns:
        The estimate, or ``None`` when nothing was planted or defects are flagged no more often
        than good pictures.

    Raises:
        ValueError: ``flagged`` is not a share.
    """
    if not 0 <= flagged <= 1:
        raise ValueError(f"the share of flagged images must be 0 to 1; got {flagged}")
    if not check.planted:
        return None
    sensitivity = check.found / check.planted
    alarms = check.alarms / check.clean if check.clean else 0.0
    if sensitivity <= alarms:
        return None
    return min(1.0, max(0.0, (flagged - alarms) / (sensitivity - alarms)))


@dataclass(frozen=True)
class Adjusted:
    """A threshold for the rate that the checks measure, and the risk left for its test.

    ``bound`` is what was used of the planted pictures (a lower bound of the sensitivity, or an
    upper bound of the false alarm rate), wrong with risk ``spent``.
    """

    threshold: float
    error: float
    bound: float
    spent: float


def adjusted_pass(
    below: float, checks: Sequence[Sensitivity], beta: float, *, mixed: bool = False
) -> Adjusted | None:
    """Return what PASS is tested against: ``below`` times a lower bound of the sensitivity.

    A build that truly fails at ``below`` or more shows measured failures at a rate of
    ``below * s`` or more, where s is its defects' sensitivity. It is promoted wrongly only if the
    bound exceeds s (risk ``spent``) or the test errs (risk ``error``), and the two sum to beta.

    Of several checks the smallest bound is used, unless ``mixed``. A mixture of defects is found at
    least as often as the worst kind, and the bound of that worst kind, at the risk ``spent``, is
    not below the smallest of all; so the risk is not multiplied by the number of checks.

    Args:
        below: ``promote_below`` of the policy.
        checks: What the checks made of the planted defects.
        beta: Risk of a wrong PROMOTE, of which the bound takes a part.
        mixed: Defects are taken to come as they were planted: one bound over all of them together.

    Returns:
        The threshold and the risk of its test, or ``None`` when a check found nothing or nothing
        was planted: then no number of images proves anything.

    Raises:
        ValueError: ``below`` or ``beta`` out of range, or no check at all.
    """
    _sound("promote_below", below)
    _sound("beta", beta)
    if not checks:
        raise ValueError("no check was measured; PASS can only be judged with planted defects")
    if mixed and all(check.found for check in checks):
        found, planted = sum(c.found for c in checks), sum(c.planted for c in checks)
        checks = (Sensitivity("all together", found, planted),)
    spent = split(beta, min(check.planted for check in checks))
    bound = min(check.lower(spent) for check in checks)
    if bound <= 0:
        return None
    return Adjusted(threshold=below * bound, error=beta - spent, bound=bound, spent=spent)


def adjusted_fail(
    limit: float, checks: Sequence[Sensitivity], alpha: float, *, confirmed: bool
) -> Adjusted:
    """Return what FAIL is tested against.

    Confirmed flags are true failures, so they are at most as frequent as those, and ``limit``
    stays as it is, with the whole alpha.

    Where the good pictures that *any* check flagged were counted, give that one count: it needs
    no sum, which for thirty checks is far from what they flag together.

    Unconfirmed flags hold false alarms too. Of images that truly fail at a rate r up to the
    limit at most r + (1 - r) * a are flagged, where a is the false alarm rate of good images; this
    grows with r. So the test is against ``limit + (1 - limit) * bound``, where a is above
    the bound with risk ``spent``. A good image is flagged when any check flags it: the bounds of
    several checks are summed, at an equal part of ``spent`` each.

    Raises:
        ValueError: ``limit`` or ``alpha`` out of range, or no check at all for unconfirmed flags.
    """
    _sound("limit", limit)
    _sound("alpha", alpha)
    if confirmed:
        return Adjusted(threshold=limit, error=alpha, bound=0.0, spent=0.0)
    if not checks:
        raise ValueError("no check was measured; flags nobody confirmed cannot speak for ROLLBACK")
    spent = alpha / 10
    bound = min(1.0, math.fsum(check.alarms_upper(spent / len(checks)) for check in checks))
    return Adjusted(
        threshold=limit + (1 - limit) * bound, error=alpha - spent, bound=bound, spent=spent
    )


def true_lower(flagged: float, alarms: float) -> float:
    """Return the least true failure rate behind a least rate of flags, 0 to 1.

    Of good pictures at most a share ``alarms`` is flagged, so a rate r of bad ones is flagged at
    most at r + (1 - r) * alarms.
    """
    return max(0.0, (flagged - alarms) / (1 - alarms)) if alarms < 1 else 0.0


@lru_cache(maxsize=256)
def split(beta: float, planted: int) -> float:
    """Return the part of beta for the bound of the sensitivity; the rest is the test's.

    The part that needs the fewest images for a build without failures: those are
    -log(beta - part) / (b * bound(part)) to first order, whatever b is. It is found for the
    planned sensitivity: if what was found chose it, the bound's risk would be exceeded.
    """
    _sound("beta", beta)
    found = round(PLANNED_SENSITIVITY * planted)
    parts = [beta * 2 ** (-step / 4) for step in range(4, 49)]

    def images(part: float) -> float:
        bound = lower_bound(found, planted, part)
        return -math.log(beta - part) / bound if bound > 0 else math.inf

    return min(parts, key=images)


def _sound(name: str, value: float) -> None:
    """Refuse a rate or a risk that is none, NaN too."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1; got {value}")
