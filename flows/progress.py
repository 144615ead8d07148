"""How far a gate is, told to the terminal and to Prefect while pictures are made and checked."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flows.artifacts import ProgressArtifact
from flows.watcher import Watcher
from tasks.harness.progress import HarnessEvent, RunProgress
from tasks.records import Arm, ImageReport, Look, SequentialResult, usd

ARMS: tuple[Arm, Arm] = ("candidate", "baseline")


class GateProgress:
    """Counts what shards and checks tell from their threads.

    Args:
        watcher: Hears of every change.
        artifact: Prefect's progress bar.
        total: Cases of each arm.
    """

    def __init__(self, watcher: Watcher, artifact: ProgressArtifact, total: int) -> None:
        self._watcher = watcher
        self._artifact = artifact
        self._harness = RunProgress(dict.fromkeys(ARMS, total))
        self._lock = threading.Lock()
        self._checked: dict[Arm, int] = dict.fromkeys(ARMS, 0)
        self._bad: dict[Arm, int] = dict.fromkeys(ARMS, 0)

    def on_event(self, event: HarnessEvent) -> None:
        """Count an event of the harness."""
        self._harness(event)
        self._tell()

    def on_report(self, arm: Arm, report: ImageReport) -> None:
        """Count a checked picture."""
        with self._lock:
            self._checked[arm] += 1
            self._bad[arm] += any(f.verdict == "fail" for f in report.findings)
        self._tell()

    def on_look(self, look: Look, tests: Sequence[SequentialResult]) -> None:
        """Show how near the evidence is to a decision."""
        seen = f"{look.failures} of {look.images} failed"
        bad = f", looks bad: {', '.join(look.amber)}" if look.amber else ""
        headline = tests[0]
        self._watcher.progress(
            {
                "proof: promote": (_share(look.log_e_pass, headline.pass_at), 100, seen),
                "proof: roll back": (_share(look.log_e_fail, headline.fail_at), 100, seen + bad),
            }
        )

    def update_artifact(self) -> None:
        """Show Prefect how far the run is; called from the flow's own thread."""
        seen = self._harness.snapshot()
        with self._lock:
            checked = sum(self._checked.values())
        pictures = sum(a.ok for a in seen.arms.values())
        share = checked / pictures if pictures else 1.0
        # Generation and checks each stand for half of the work.
        self._artifact.show(0.5 * seen.fraction + 0.5 * seen.fraction * min(1.0, share))

    def _tell(self) -> None:
        seen = self._harness.snapshot()
        left = "" if seen.left_s is None else f", {seen.left_s:.0f} s left"
        with self._lock:
            bars = {}
            for arm in ARMS:
                counts = seen.arms[arm]
                lost = counts.undelivered + counts.refused
                bars[f"{arm}: generate"] = (
                    counts.done,
                    counts.total,
                    f"{lost} not delivered, ${usd(counts.spend_microusd):.2f}{left}",
                )
                bars[f"{arm}: check"] = (self._checked[arm], counts.ok, f"{self._bad[arm]} bad")
        self._watcher.progress(bars)


def _share(log_e: float, at: float | None) -> int:
    """Return how much of a proof is there, 0 to 100."""
    return 0 if not at else int(100 * min(1.0, max(0.0, log_e / at)))
