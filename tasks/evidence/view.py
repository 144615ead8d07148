"""What the report and the summary show: plain records, nothing drawn yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.approval.rules import Approval
from tasks.checks.live import Planted
from tasks.plan import RunPlan
from tasks.records import (
    Arm,
    ArmMetrics,
    ExpectationResult,
    Generation,
    ImageReport,
    Metrics,
    Outcome,
    Region,
    Verdict,
)

#: The arms in the order in which people read them: before, after.
ARMS: tuple[Arm, Arm] = ("baseline", "candidate")


@dataclass(frozen=True, slots=True)
class Thumb:
    """A small picture for the report, or why there is none."""

    mime: str = "image/webp"
    data: bytes = field(default=b"", repr=False)
    #: Why the file could not be drawn; empty when ``data`` holds a picture.
    problem: str = ""
    #: The first bytes of a file that could not be drawn, in hex.
    head: str = ""


@dataclass(frozen=True, slots=True)
class ReportView:
    """Everything that a report says, from plain records; the same view gives the same HTML."""

    plan: RunPlan
    metrics: Metrics
    verdict: Verdict
    expectations: Sequence[ExpectationResult]
    outcomes: Sequence[Outcome]
    generations: Sequence[Generation]
    reports: Mapping[tuple[Arm, str], ImageReport]
    #: What was done with production, one sentence each, in order.
    actions: Sequence[str] = ()
    #: What a person was asked and answered, when the policy asked one.
    approval: Approval | None = None
    #: What planted defects say of the checks; ``None`` for a run in which none were planted.
    planted: Planted | None = None
    #: When the verdict fell, UTC ISO-8601.
    finished_at: str = ""
    #: What the ledger counts for the whole run, what was under way at the end included; ``None``
    #: where only the cases that count are known.
    spent_usd: float | None = None
    #: Code version and the like, shown as they are.
    provenance: Mapping[str, str] = field(default_factory=dict)
    #: Thumbnails by :func:`picture_key`; filled by :func:`tasks.evidence.report.write_report`.
    thumbs: Mapping[str, Thumb] = field(default_factory=dict)
    #: Relative links to the full pictures by digest.
    links: Mapping[str, str] = field(default_factory=dict)

    def arm(self, arm: Arm) -> ArmMetrics:
        """Return the figures of an arm."""
        return self.metrics.baseline if arm == "baseline" else self.metrics.candidate


def picture_key(digest: str, region: Region | None = None) -> str:
    """Return the name of a picture, or of the part of it that a finding marks."""
    if region is None:
        return digest
    return f"{digest}#{region.x},{region.y},{region.width},{region.height}"
