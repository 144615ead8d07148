"""What Prefect's UI shows of a gate: live progress, the summary, the figures, the report's link."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from tasks.evidence.growth import decided_words, saved_words
from tasks.evidence.summary import markdown_summary, metrics_rows
from tasks.evidence.view import ReportView


def artifact_key(kind: str, run_id: str) -> str:
    """Return a key that Prefect accepts: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{run_id}".lower()).strip("-")


class ProgressArtifact:
    """The share of the cases that have ended, as Prefect shows it.

    Args:
        run_id: The run.
    """

    def __init__(self, run_id: str) -> None:
        self._id: UUID = create_progress_artifact(  # type: ignore[assignment]
            progress=0.0,
            key=artifact_key("progress", run_id),
            description="Cases generated and checked",
        )
        self._shown = 0

    def show(self, fraction: float) -> None:
        """Update the share, 0 to 1; steps below a percent are left out."""
        percent = int(100 * fraction)
        if percent > self._shown:
            update_progress_artifact(self._id, progress=float(percent))
            self._shown = percent


def publish_artifacts(view: ReportView, report: Path) -> None:
    """Give Prefect the summary, the figures before → after and the link to the report."""
    run_id = view.plan.run_id
    saved = saved_words(view.verdict.savings)
    if saved:
        # Cases that were not needed would leave the bar where it stopped, for good.
        create_progress_artifact(
            progress=100.0, key=artifact_key("progress", run_id), description=saved
        )
    create_markdown_artifact(
        markdown_summary(view),
        key=artifact_key("summary", run_id),
        description=f"{view.verdict.verdict}: {view.plan.candidate.mix.name} for "
        f"{view.plan.product}; {_cases(view)}; why, before → after, worst slices, what was done",
    )
    create_table_artifact(
        metrics_rows(view),
        key=artifact_key("metrics", run_id),
        description=f"Figures of {view.plan.baseline.mix.name} (before) and "
        f"{view.plan.candidate.mix.name} (after)",
    )
    create_link_artifact(
        report.as_uri(),
        link_text="HTML report (opens on the machine that ran the gate)",
        key=artifact_key("report", run_id),
        description="The whole report: every failed picture, every slice; opens offline",
    )


def _cases(view: ReportView) -> str:
    """Return how many cases the verdict rests on."""
    images = view.metrics.candidate.images
    return decided_words(view.verdict, images, len(view.plan.cases))
