"""The journal, the baseline cache and the counters of progress."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tasks.errors import StateError
from tasks.harness.journal import Journal
from tasks.harness.progress import HarnessEvent, RunProgress
from tasks.records import FailureClass, Finding, Generation, ImageReport
from tasks.state import State
from tasks.tables import journal

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def ended(case_id: str = "c1", **changes: Any) -> Generation:
    fields: dict[str, Any] = {
        "run_id": "run",
        "arm": "baseline",
        "mix_digest": "sha256:mix",
        "case_id": case_id,
        "seed": 7,
        "models": ("m",),
        "status": "ok",
        "image_digest": DIGEST,
        "cost_microusd": 40,
    }
    return Generation(**(fields | changes))


def test_generations_come_back_by_arm_and_case(state: State) -> None:
    book = Journal(state, "run")
    first, other = ended(), ended("c2", arm="candidate")
    book.record(first)
    book.record(other)
    Journal(state, "run2").record(ended(run_id="run2"))
    assert book.generations() == {("baseline", "c1"): first, ("candidate", "c2"): other}
    assert book.generations("candidate") == {("candidate", "c2"): other}
    assert book.generations("baseline", ["c2", "c3"]) == {}
    assert book.generations("baseline", ["c1", "c3"]) == {("baseline", "c1"): first}


def test_what_is_recorded_stays(state: State) -> None:
    book = Journal(state, "run")
    book.record(ended(cost_microusd=1))
    book.record(ended(cost_microusd=2))
    assert book.generations()["baseline", "c1"].cost_microusd == 1


def test_another_runs_generation_is_refused(state: State) -> None:
    with pytest.raises(ValueError, match="'other'"):
        Journal(state, "run").record(ended(run_id="other"))


def test_reports_belong_to_finished_generations(state: State) -> None:
    book = Journal(state, "run")
    report = ImageReport(
        findings=(Finding(check="decode.whole", version="1", verdict="pass"),),
        read_text=("Grüße", "店"),
    )
    with pytest.raises(StateError, match="no finished generation"):
        book.set_report("baseline", "c1", report)
    book.record(ended())
    assert book.reports() == {}
    book.set_report("baseline", "c1", report)
    assert book.reports() == {("baseline", "c1"): report}
    later = report.model_copy(update={"read_text": ()})
    book.set_report("baseline", "c1", later)
    assert book.reports("baseline") == {("baseline", "c1"): later}
    assert book.reports("candidate") == {}


def test_a_damaged_row_is_an_error_that_names_it(state: State) -> None:
    book = Journal(state, "run")
    book.record(ended())
    with state.begin() as connection:
        connection.execute(sa.update(journal).values(generation='{"run_id": 3}'))
    with pytest.raises(StateError, match="baseline/c1"):
        book.generations()


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"status": "refused", "failure": FailureClass.REFUSAL, "image_digest": None}, True),
        ({"status": "undelivered", "failure": FailureClass.SERVER, "image_digest": None}, False),
        ({"arm": "candidate"}, True),
        ({"cached": True}, False),
    ],
)
def test_only_what_models_answered_is_kept_for_later_runs(
    state: State, changes: dict[str, Any], kept: bool
) -> None:
    book = Journal(state, "run")
    generation = ended(**changes)
    book.record(generation, "sha256:case")
    found = Journal(state, "later").cached("sha256:mix", "sha256:case", 7)
    assert found == (generation if kept else None)
    assert book.cached("sha256:mix", "sha256:case", 8) is None
    assert book.cached("sha256:mix2", "sha256:case", 7) is None


def test_remembering_twice_keeps_the_first(state: State) -> None:
    book = Journal(state, "run")
    book.remember(ended(cost_microusd=1), "sha256:case")
    book.remember(ended(cost_microusd=2), "sha256:case")
    found = book.cached("sha256:mix", "sha256:case", 7)
    assert found is not None
    assert found.cost_microusd == 1


def test_progress_counts_and_foretells() -> None:
    now = [100.0]
    progress = RunProgress({"baseline": 2, "candidate": 4}, clock=lambda: now[0])
    assert progress.snapshot().left_s is None
    assert progress.snapshot().fraction == 0.0
    progress(HarnessEvent("reused", "baseline", 0, "a", status="ok"))
    progress(HarnessEvent("case", "baseline", 0, "b", status="ok", cached=True))
    failed = HarnessEvent(
        "attempt", "candidate", 0, "a", failure=FailureClass.SERVER, cost_microusd=5
    )
    progress(failed)
    progress(HarnessEvent("attempt", "candidate", 0, "a", cost_microusd=40))
    progress(HarnessEvent("attempt", "candidate", 0, "b", failure=FailureClass.COST_UNKNOWN))
    progress(HarnessEvent("case", "candidate", 0, "a", status="refused"))
    progress(HarnessEvent("held", "candidate", 0, message="no money"))
    progress(HarnessEvent("held", "candidate", 1, message="no money"))
    now[0] = 110.0
    seen = progress.snapshot()
    assert (seen.done, seen.total, seen.spend_microusd, seen.failed_attempts) == (3, 6, 45, 1)
    assert (seen.elapsed_s, seen.left_s) == (10.0, 15.0)  # two fresh cases in ten seconds
    assert seen.arms["baseline"].reused == seen.arms["baseline"].cached == 1
    assert seen.arms["candidate"].refused == 1
    assert seen.held == ("no money",)


def test_progress_of_nothing_is_complete() -> None:
    assert RunProgress({}).snapshot().fraction == 1.0


def test_progress_loses_nothing_between_threads() -> None:
    progress = RunProgress({"candidate": 4000})
    event = HarnessEvent("case", "candidate", 0, "c", status="ok")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: progress(event), range(4000)))
    assert progress.snapshot().done == 4000
