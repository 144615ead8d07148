"""Where a run stands: counters that shards feed from their threads, and one look at them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tasks.records import Arm, FailureClass


@dataclass(frozen=True, slots=True)
class HarnessEvent:
    """Something that a shard tells while it runs.

    ``attempt``: one request has ended. ``case``: a case has ended now. ``reused``: a case had ended
    before this shard started. ``held``: the shard stopped early, ``message`` says why.
    """

    kind: Literal["attempt", "case", "reused", "held"]
    arm: Arm
    shard: int
    case_id: str = ""
    status: Literal["ok", "refused", "undelivered", ""] = ""
    failure: FailureClass | None = None
    #: Of an attempt: what it cost.
    cost_microusd: int = 0
    cached: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class ArmProgress:
    """How far one arm is."""

    total: int
    done: int = 0
    ok: int = 0
    refused: int = 0
    undelivered: int = 0
    cached: int = 0
    reused: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    spend_microusd: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the run is."""

    arms: Mapping[Arm, ArmProgress]
    done: int
    total: int
    spend_microusd: int
    failed_attempts: int
    undelivered: int
    elapsed_s: float
    #: Seconds until the last case at the pace so far; ``None`` until a case has ended.
    left_s: float | None
    #: Why shards stopped early, each reason once.
    held: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """Share of the cases that have ended, 0 to 1; 1 for a run without cases."""
        return self.done / self.total if self.total else 1.0


@dataclass(slots=True)
class _Counts:
    total: int
    count: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, amount: int = 1) -> None:
        self.count[name] = self.count.get(name, 0) + amount


class RunProgress:
    """Counters of a run. Safe to feed and to read from several threads.

    Args:
        totals: Cases of each arm.
        clock: Monotonic seconds.
    """

    def __init__(
        self, totals: Mapping[Arm, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._began = clock()
        self._arms: dict[Arm, _Counts] = {arm: _Counts(total) for arm, total in totals.items()}
        self._held: dict[str, None] = {}

    def __call__(self, event: HarnessEvent) -> None:
        """Count an event; fits the ``on_progress`` of a shard."""
        with self._lock:
            arm = self._arms.setdefault(event.arm, _Counts(0))
            if event.kind == "held":
                self._held.setdefault(event.message, None)
            elif event.kind == "attempt":
                arm.add("attempts")
                arm.add("spend_microusd", event.cost_microusd)
                # A picture without a sure price is still a picture.
                if event.failure not in (None, FailureClass.COST_UNKNOWN):
                    arm.add("failed_attempts")
            else:
                arm.add("done")
                arm.add(event.status)
                if event.cached:
                    arm.add("cached")
                if event.kind == "reused":
                    arm.add("reused")

    def snapshot(self) -> Snapshot:
        """Return where the run stands now."""
        with self._lock:
            arms = {
                arm: ArmProgress(
                    total=counts.total,
                    **{name: n for name, n in counts.count.items() if name},
                )
                for arm, counts in self._arms.items()
            }
            held = tuple(self._held)
            elapsed = max(0.0, self._clock() - self._began)
        done, total = sum(a.done for a in arms.values()), sum(a.total for a in arms.values())
        # Cases of an earlier process took no time of this one.
        fresh = done - sum(a.reused for a in arms.values())
        return Snapshot(
            arms=arms,
            done=done,
            total=total,
            spend_microusd=sum(a.spend_microusd for a in arms.values()),
            failed_attempts=sum(a.failed_attempts for a in arms.values()),
            undelivered=sum(a.undelivered for a in arms.values()),
            elapsed_s=elapsed,
            left_s=max(0, total - done) * elapsed / fresh if fresh > 0 else None,
            held=held,
        )
