"""Counts of logged requests by mix.

A row that cannot be understood is no failure and no success: it is counted apart, and too many of
them make the whole look unusable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError, Outcomes
from tasks.rollout.outcomes.rows import BadRowError, Request, RowRules, mix_named

#: Request ids that are remembered, a third of a gigabyte.
MOST_IDS: Final = 1_000_000
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class _Arm:
    images: int = 0
    failures: int = 0
    slow: int = 0
    timed: int = 0
    cost: int = 0
    costed: int = 0
    bad: int = 0


class Tally:
    """Counts requests by mix; a request id counts once, with what its last row says.

    That holds for repeats within half of :data:`MOST_IDS` requests.

    Args:
        digests: Mixes that are counted, each apart.
        since: Start of the window, included.
        until: Its end, excluded.
        product: Rows of other products are passed over.
        rules: Limits.
        measures: Which of ``images``, ``latency`` and ``cost`` the source is asked for.
    """

    def __init__(
        self,
        digests: Sequence[str],
        since: datetime,
        until: datetime,
        product: str,
        rules: RowRules,
        measures: Sequence[str] = ("images", "latency", "cost"),
    ) -> None:
        self.since, self.until, self.product = since, until, product
        self._digests, self._rules, self._measures = tuple(digests), rules, frozenset(measures)
        self._arms = {digest: _Arm() for digest in digests}
        self._others = _Arm()
        self._names: dict[str, _Arm] = {}
        self._seen: dict[str, Request] = {}
        self._twice = 0
        self._problems: dict[str, int] = {}

    def wants(self, request: Request) -> bool:
        """Tell whether a request lies in the window and belongs to the product."""
        return self.since <= request.at < self.until and request.product in (None, self.product)

    def add(self, request: Request) -> None:
        """Count a request, if it is wanted."""
        if not self.wants(request):
            return
        if request.request_id is not None:
            before = self._seen.get(request.request_id)
            if before is not None:
                self._twice += 1
                if request.at < before.at:
                    return
                self._count(before, -1)
            # Without the raw row: a window may hold millions.
            self._seen[request.request_id] = Request(
                request.at,
                request.mix,
                None,
                None,
                request.failed,
                request.latency_ms,
                request.cost_microusd,
                _NOTHING,
            )
            if len(self._seen) > MOST_IDS:
                # Repeats come soon after; the older half is forgotten before memory is full.
                for old in list(islice(self._seen, MOST_IDS // 2)):
                    del self._seen[old]
        self._count(request, 1)

    def bad(self, error: BadRowError) -> None:
        """Count a row that cannot be understood, unless it is known to lie outside the window."""
        if error.at is not None and not self.since <= error.at < self.until:
            return
        self._arm(error.mix or "").bad += 1
        problem = str(error)
        if len(self._problems) < 20 or problem in self._problems:
            self._problems[problem] = self._problems.get(problem, 0) + 1

    def _arm(self, mix: str) -> _Arm:
        known = self._names.get(mix)
        if known is None:
            digest = mix_named(mix, self._digests)
            known = self._others if digest is None else self._arms[digest]
            if len(self._names) < 10_000:
                self._names[mix] = known
        return known

    def _count(self, request: Request, sign: int) -> None:
        arm = self._arm(request.mix)
        if request.failed is not None:
            arm.images += sign
            arm.failures += sign * request.failed
        # How long a failure took says nothing about waiting for an image.
        if request.latency_ms is not None and request.failed is not True:
            arm.timed += sign
            limit = self._rules.slow_above_ms
            arm.slow += sign * (limit is not None and request.latency_ms > limit)
        if request.cost_microusd is not None:
            arm.costed += sign
            arm.cost += sign * request.cost_microusd

    def outcomes(self, source: str) -> Outcomes:
        """Return the counts.

        Raises:
            OutcomeError: Too many rows of an arm, or of all, cannot be understood.
        """
        self._refuse_unreadable(source)
        bad = sum(arm.bad for arm in (*self._arms.values(), self._others))
        notes = []
        if bad:
            notes.append(f"{source}: {bad:,} unreadable rows left out ({self._worst()})")
        if self._twice:
            notes.append(f"{source}: {self._twice:,} rows repeat a request id; the last one counts")
        if self._others.images:
            notes.append(
                f"{source}: {self._others.images:,} requests name another mix than those looked at"
            )
        return Outcomes(
            self.since,
            self.until,
            {digest: self._public(arm) for digest, arm in self._arms.items()},
            tuple(notes),
            others=self._others.images,
        )

    def _refuse_unreadable(self, source: str) -> None:
        everything = [*self._arms.values(), self._others]
        counted = [(arm.bad, max(arm.images, arm.timed)) for arm in self._arms.values()]
        counted.append(
            (
                sum(arm.bad for arm in everything),
                sum(max(arm.images, arm.timed) for arm in everything),
            )
        )
        for wrong, right in counted:
            if wrong > self._rules.unreadable_share * (wrong + right):
                raise OutcomeError(
                    f"{wrong:,} of {wrong + right:,} rows cannot be understood (allowed: "
                    f"{self._rules.unreadable_share:.2%}): {self._worst()}; name the fields under "
                    f"'names' of {source!r} or mend the log"
                )

    def _worst(self) -> str:
        return max(self._problems, key=lambda problem: self._problems[problem], default="?")

    def _public(self, arm: _Arm) -> ArmOutcomes:
        arms = self._arms.values()
        images = "images" in self._measures
        # Images of which not one has a latency or a price: not measured, rather than quick or free.
        timed = (
            "latency" in self._measures
            and self._rules.slow_above_ms is not None
            and (any(a.timed for a in arms) or all(a.images == a.failures for a in arms))
        )
        costed = "cost" in self._measures and (
            any(a.costed for a in arms) or not any(a.images for a in arms)
        )
        return ArmOutcomes(
            images=arm.images if images else 0,
            failures=arm.failures if images else 0,
            slow=arm.slow if timed else None,
            timed=arm.timed if timed else None,
            cost_microusd=arm.cost if costed else None,
            costed=arm.costed if costed else None,
        )
