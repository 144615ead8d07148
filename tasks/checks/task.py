"""Prefect task: the checks of one shard, while the next shards are generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.checks.base import Role
from tasks.checks.pool import CheckPool
from tasks.checks.shard import check_shard
from tasks.context import RunContext
from tasks.harness.journal import Journal
from tasks.plan import Shard
from tasks.records import Arm, Case, Generation, ImageReport
from tasks.settings import DATASETS
from tasks.telemetry import stage


@task(
    name="check_images",
    task_run_name="check_images {arm} {shard.number}",
    cache_policy=NO_CACHE,
)
@stage
def check_images(
    context: RunContext,
    arm: Arm,
    shard: Shard,
    pool: CheckPool,
    on_report: Callable[[Arm, ImageReport], None],
) -> int:
    """Check the pictures of one shard and return how many were checked now.

    Pictures whose report is in the journal already are not checked again.

    Args:
        context: The run.
        arm: Whose pictures.
        shard: Which shard.
        pool: The worker processes.
        on_report: Called with each report, from this thread.
    """
    if context.decided.is_set():
        return 0
    journal = Journal(context.state, context.run_id)
    known_cases = context.folder.load_plan().by_id
    cases = {case_id: known_cases[case_id] for case_id in shard.case_ids}
    # A check that broke is tried again when the run is resumed: the fault may have been ours.
    known = {
        key
        for key, report in journal.reports(arm, shard.case_ids).items()
        if all(finding.verdict != "fault" for finding in report.findings)
    }
    before = journal.generations("baseline", shard.case_ids) if arm == "candidate" else {}
    items = [
        (
            cases[case_id],
            generation,
            context.images.path(generation.image_digest),
            _references(context, cases[case_id], generation, before.get(("baseline", case_id))),
        )
        for (_, case_id), generation in journal.generations(arm, shard.case_ids).items()
        if generation.status == "ok"
        and generation.image_digest is not None
        and (arm, case_id) not in known
    ]

    def keep(case_id: str, report: ImageReport) -> None:
        journal.set_report(arm, case_id, report)
        on_report(arm, report)

    return len(check_shard(items, pool, keep))


def _references(
    context: RunContext, case: Case, generation: Generation, before: Generation | None
) -> dict[Role, Path]:
    """Return the files that a picture is judged against.

    Args:
        context: The run.
        case: What was asked for.
        generation: What came.
        before: What the baseline made of the same case: the reference of a new picture, which has
            no other.
    """
    found: dict[Role, Path] = {}
    if case.upload is not None:
        found["upload"] = DATASETS / case.upload
    if case.mask is not None:
        found["mask"] = DATASETS / case.mask
    if generation.source_digest is not None:
        found["source"] = context.images.path(generation.source_digest)
    if not found and before is not None and before.status == "ok" and before.image_digest:
        path = context.images.path(before.image_digest)
        if path.is_file():  # Without it the picture is judged by itself.
            found["baseline"] = path
    return found
