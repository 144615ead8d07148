"""Defects planted in a run by its own workers: what counts, what is kept, and what goes wrong."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.check_rules import CheckRules, ConsistencyRules
from tasks.checks.counts import ANY, CheckHealth, CleanHealth, DefectHealth, OwnHealth
from tasks.checks.live import LiveLook, counting, read_planted, seed_of
from tasks.checks.planted import BY_POLICY, check_names
from tasks.checks.pool import CheckPool, DrawingReport
from tasks.plan import RunFolder
from tasks.policy import Policy
from tasks.records import Case
from tests.verdict import plans
from tests.verdict.plans import seeing


class Pool:
    """Workers that answer as they are told."""

    def __init__(self, *answers: DrawingReport | list[DrawingReport] | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, int]] = []
        self.without: list[frozenset[str]] = []

    def submit_drawing(
        self, seed: int, number: int, of: int, without: frozenset[str]
    ) -> Future[DrawingReport]:
        assert number < of == len(self.answers)
        self.without.append(without)
        self.asked.append((seed, number))
        future: Future[DrawingReport] = Future()
        answer = self.answers[number]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if answer is None:
            future.cancel()
        else:
            future.set_result(answer)
        return future


def known(asked: int) -> Any:
    return replace(seeing(), asked=asked, done=0, today=())


def found(some: int, most: int) -> DrawingReport:
    return DrawingReport(seeing(some, most).record)


def test_the_drawings_of_a_run_are_its_own_and_counted_together(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    pool: Any = Pool(found(2, 2), found(1, 2))
    look = LiveLook(folder, known(2), pool)
    before = read_planted(folder)
    assert before == known(2)
    look.finish()
    kept = read_planted(folder)
    assert kept is not None
    assert (kept.done, kept.problems) == (2, ())
    assert [(one.check, one.found, one.planted) for one in kept.today] == [
        ("geometry.size", 3, 4),
        (ANY, 0, 0),
    ]
    assert pool.asked == [(seed_of("run-1"), 0), (seed_of("run-1"), 1)]
    assert seed_of("run-1") != seed_of("run-2")
    # A resumed run looks once; with another record it looks again.
    again: Any = Pool()
    LiveLook(folder, known(2), again).finish()
    assert (again.asked, read_planted(folder)) == ([], kept)
    LiveLook(folder, replace(known(2), version="sha256:new"), pool).finish()
    assert len(pool.asked) == 4


def test_drawings_that_were_lost_are_told_and_measured_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    died = DrawingReport(problem="the check process died by signal 9")
    pool: Any = Pool(found(2, 2), died, died, None)
    LiveLook(folder, known(4), pool).finish()
    kept = read_planted(folder)
    assert kept is not None
    assert (kept.done, kept.today[0].planted) == (1, 2)
    assert kept.problems == ("the check process died by signal 9", "the run ended before")
    whole: Any = Pool([died, found(2, 2)], *[found(2, 2)] * 3)
    LiveLook(folder, known(4), whole).finish()
    kept = read_planted(folder)
    assert kept is not None
    assert (kept.done, kept.problems) == (4, ())
    assert [number for _, number in whole.asked] == [0, 1, 2, 3, 0]


def test_checks_count_that_can_judge_a_case_of_the_plan() -> None:
    def names(*cases: Case, **changes: Any) -> set[str]:
        plan = plans.plan(0, 0).model_copy(update={"cases": cases, **changes})
        return set(counting(check_names(), plan))

    plain = names(Case(case_id="a", prompt="p", subtask="fast"))
    assert {"decode.file", "geometry.size", "composition.blank", "colour.exposure"} <= plain
    assert "colour.profile" in plain
    text = names(Case(case_id="a", prompt="p", subtask="fast", expected_text=("SALE",)))
    assert text - plain == {"typography.text"}
    edit = Case(case_id="b", prompt="p", subtask="edit", upload="uploads/a.png")
    masked = edit.model_copy(update={"mask": "uploads/a-mask.png"})
    assert names(edit) - plain == {
        "geometry.orientation",
        "edit.kept",
        "edit.noise",
        "edit.light",
    }
    assert names(masked) - names(edit) == {"edit.outside"}
    brand = Case(case_id="c", prompt="p", subtask="fast", brand="aurora")
    assert "composition.margins" not in names(brand)
    with_both = brand.model_copy(update={"expected_text": ("SALE",)})
    assert names(with_both) - names(brand) == {"typography.text", "composition.margins"}
    # Extra cases of slices count as well.
    assert "edit.kept" in names(Case(case_id="a", prompt="p", subtask="fast"), reserve=(edit,))
    assert not any(name.startswith("upscale.") for name in names(edit, with_both))
    assert not BY_POLICY & names(edit, with_both)


def test_what_only_some_policies_ask_for_counts_by_the_policy() -> None:
    def names(rules: CheckRules, *cases: Case) -> set[str]:
        plan = plans.plan(0, 0, policy=Policy(checks=rules)).model_copy(update={"cases": cases})
        return set(counting(check_names(), plan)) & BY_POLICY

    plain = Case(case_id="a", prompt="p", subtask="fast")
    grouped = plain.model_copy(update={"campaign": "spring", "expected_text": ("SALE",)})
    repeated = plain.model_copy(update={"repeat": 0})
    strict = CheckRules(
        extra_text="failure",
        consistency=ConsistencyRules(campaign="hold", repeat="failure", seed="failure"),
    )
    assert names(CheckRules(), plain, grouped, repeated) == set()
    assert names(strict, plain) == set()
    assert names(strict, grouped) == {"consistency.campaign", "typography.extra"}
    assert names(strict, repeated) == {"consistency.repeat", "consistency.seed"}


def test_the_policys_own_checks_are_counted_together_and_idle_ones_left_out(
    tmp_path: Path,
) -> None:
    def own(name: str, found: int) -> OwnHealth:
        kind = DefectHealth("known bad pictures", name, 1.0, found, 2)
        return OwnHealth(CheckHealth(name, CleanHealth(name), (kind,)))

    def report() -> DrawingReport:
        return replace(found(1, 1), own=(own("safety.nsfw", 2), own("acme.idle", 0)))

    pool: Any = Pool(report(), report())
    LiveLook(
        RunFolder(tmp_path / "run-1"), known(2), pool, {"typography.extra"}, {"acme.idle"}
    ).finish()
    kept = read_planted(RunFolder(tmp_path / "run-1"))
    assert kept is not None
    (counted,) = kept.own
    assert (counted.health.check, counted.health.found, counted.health.planted) == (
        "safety.nsfw",
        4,
        4,
    )
    assert pool.without == [frozenset({"typography.extra"})] * 2
    again: Any = Pool()
    LiveLook(RunFolder(tmp_path / "run-1"), known(2), again).finish()
    assert again.asked == []


def test_a_worker_plants_and_judges_and_one_that_dies_is_replaced() -> None:
    with CheckPool(workers=1) as pool:
        report = pool.submit_drawing(5, 0).result()
        assert report.problem == ""
        by_name = {one.check: one for one in report.checks}
        assert set(by_name) == {*check_names(), ANY}
        assert report.own == ()
        assert by_name["geometry.size"].found == by_name["geometry.size"].planted == 1
        assert by_name[ANY].clean.clean == 1
        usual = pool.submit_drawing(5, 0, 1, BY_POLICY).result()
        assert {one.check for one in usual.checks} == {*check_names(), ANY} - BY_POLICY
        assert pool.submit_drawing(5, 0, 1, None).result() == DrawingReport()
        busy = pool.submit_drawing(5, 1)
        (worker,) = [p for p in _children() if p != os.getpid()]
        os.kill(worker, signal.SIGKILL)
        assert "died by signal 9" in busy.result().problem
        assert pool.submit_drawing(5, 0).result().problem == ""
    assert pool.submit_drawing(5, 0).cancelled()


def _children() -> list[int]:
    import multiprocessing

    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def test_a_drawing_that_cannot_be_made_is_a_problem_and_no_exception(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tasks.checks import health, pool

    def broken(*_: object) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(health, "measure_unit", broken)
    report = pool._DRAWING.validate_json(pool._planted(1, 2))
    assert report == DrawingReport(problem="planting broke: RuntimeError: no font")
