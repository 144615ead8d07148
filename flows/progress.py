"""How far a gate is, told to the terminal and to Prefect while pictures are made and checked."""

from __future__ import annotations

import threading

from flows.artifacts import ProgressArtifact
from flows.watcher import Watcher
from tasks.harness.progress import HarnessEvent, RunProgress
from tasks.records import Arm, ImageReport, usd

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
