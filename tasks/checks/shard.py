"""The checks of one shard, with no more pictures in flight than the workers can use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from tasks.checks.base import Role
from tasks.checks.pool import CheckPool
from tasks.checks.suite import expected_for
from tasks.records import Case, Generation, ImageReport

#: Pictures waiting for each worker: enough to keep it busy, few enough for flat memory.
_WAITING = 3


def check_shard(
    items: Iterable[tuple[Case, Generation, Path, Mapping[Role, Path]]],
    pool: CheckPool,
    on_report: Callable[[str, ImageReport], None],
) -> dict[str, ImageReport]:
    """Check pictures and return their reports by case.

    Args:
        items: Case, generation, where its picture lies, and what it is judged against.
        pool: The workers, which other shards may use at the same time.
        on_report: Called with case id and report as each ends, from this thread.
    """
    reports: dict[str, ImageReport] = {}
    under_way: dict[Future[ImageReport], str] = {}

    def collect() -> None:
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            case_id = under_way.pop(future)
            if future.cancelled():
                continue  # The run ends early; the picture stays unchecked.
            reports[case_id] = future.result()
            on_report(case_id, reports[case_id])

    for case, generation, path, references in items:
        while len(under_way) >= _WAITING * pool.workers:
            collect()
        under_way[pool.submit(path, expected_for(case, generation), references)] = case.case_id
    while under_way:
        collect()
    return reports
