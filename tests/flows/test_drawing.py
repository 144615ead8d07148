"""The middle of the gate: what is drawn, when it ends, and what an error or a stop makes of it.

Generation and checks are played by threads that write what a test decides into the run's real
journal; looks, drawing and decisions are the gate's own. tests/real drives the same with Prefect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows import drawing
from flows.drawing import IN_FLIGHT, draw_until_decided
from flows.watcher import Watcher
from tasks.context import RunContext
from tasks.errors import StateError
from tasks.expectations.limits import limits_by_figures
from tasks.harness.run import ShardResult
from tasks.metrics.task import compute_metrics
from tasks.plan import RunPlan, Shard
from tasks.policy import FailureRule, Policy, Sampling, SliceRule
from tasks.records import Verdict
from tasks.retests import ledger_of
from tasks.state import State
from tasks.verdict.task import decide
from tests.verdict import plans


class Ear(Watcher):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str]] = []

    def step(self, name: str, detail: str) -> None:
        self.steps.append((name, detail))


class Waiting:
    """A future that can be waited for without its error, as Prefect's can."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def wait(self) -> None:
        self._future.exception()

    def result(self) -> Any:
        return self._future.result()


@dataclass
class Stage:
    """Plays generation and checks of a run on the state database."""

    context: RunContext
    plan: RunPlan
    bad: set[str] = field(default_factory=set)
    #: Called with arm and shard before a shard of an arm ends.
    before: Callable[[str, Shard], None] = lambda _arm, _shard: None
    begun: list[Shard] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    looked: list[int] = field(default_factory=list)
    #: For how many generations the checks of an arm wait.
    waited: set[tuple[str, int]] = field(default_factory=set)
    lock: Any = field(default_factory=threading.Lock)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    def generate(self, arm: str, shard: Shard) -> ShardResult:
        self.before(arm, shard)
        if self.context.halt.is_set():
            return ShardResult(arm=arm, shard=shard.number, held=True, reason="stopped")  # type: ignore[arg-type]
        with self.lock:
            # One arm at a time: both are written when the second ends.
            self.ended.append(shard.number)
            if self.ended.count(shard.number) == 2:
                plans.finish(
                    self.context, self.plan, {"candidate": self.bad}, only=set(shard.case_ids)
                )
        return ShardResult(arm=arm, shard=shard.number, spend_microusd=1_000_000)  # type: ignore[arg-type]

    def draw(self) -> drawing.Drawing:
        self.ear = Ear()
        return draw_until_decided(self.context, self.plan, {}, self.ear)

    def verdict(self, drawn: drawing.Drawing) -> Verdict:
        measured = compute_metrics.fn(self.context, self.plan, drawn.drawn)
        limits = limits_by_figures(self.plan.policy, measured.metrics)
        return decide.fn(self.context, self.plan, measured, limits, drawn.drawn, drawn.looks)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    made: list[Stage] = []

    def begin(plan: RunPlan, **changes: Any) -> Stage:
        one = Stage(plans.context_of(tmp_path, state, plan), plan, **changes)
        made.append(one)

        class Harness:
            @staticmethod
            def submit(_: Any, arm: str, shard: Shard, *rest: Any) -> Waiting:
                if arm == "candidate":
                    one.begun.append(shard)
                return Waiting(one.pool.submit(one.generate, arm, shard))

        class Checks:
            @staticmethod
            def submit(
                _: Any, arm: str, *rest: Any, wait_for: list[Waiting], **more: Any
            ) -> Waiting:
                def checked() -> int:
                    for generated in wait_for:
                        generated.result()
                    return 7

                one.waited.add((arm, len(wait_for)))

                return Waiting(one.pool.submit(checked))

        def look(looker: Any, shard: Shard) -> Any:
            one.looked.append(shard.number)
            return looker.look(shard)

        for name, fake in (
            ("run_harness", Harness),
            ("check_images", Checks),
            ("look", look),
            ("ProgressArtifact", lambda _run_id: Silent()),
            ("CheckPool", Silent),
            ("begin_look", lambda *_: Silent()),
        ):
            monkeypatch.setattr(drawing, name, fake)
        return one

    yield begin
    for one in made:
        one.pool.shutdown()
    state.close()


class Silent:
    """No progress in Prefect, and no worker processes."""

    def __init__(self, *_: object, **__: object) -> None:
        return None

    def finish(self) -> None:
        return None

    def show(self, fraction: float) -> None:
        assert 0 <= fraction <= 1

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def small(headline: int = 60, reserve: int = 0, **sampling: Any) -> RunPlan:
    policy = Policy(
        sampling=Sampling(cases=headline, shard_size=6, **sampling),
        slices=SliceRule(min_images=6),
    )
    return plans.plan(headline, reserve, policy=policy)


def with_a_bad_slice() -> tuple[RunPlan, set[str]]:
    """A plan of ten locales, of which Thai is bad at first: too few images to roll back at once."""
    locales = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "fi", "th")
    plan = small(120).model_copy(
        update={
            "cases": plans.cases(120, locales=locales),
            "reserve": plans.cases(12, "x", ("th",)),
        }
    )
    thai = [c.case_id for c in plan.by_id.values() if c.locale == "th"]
    return plan, {case_id for place, case_id in enumerate(thai) if place % 5 < 2}


def every(plan: RunPlan) -> set[str]:
    return {case.case_id for case in plan.cases}


Stages = Callable[..., Stage]


def test_a_good_run_is_drawn_to_its_end_and_looked_at_after_each_shard(stage: Stages) -> None:
    run = stage(small())
    found = run.draw()
    assert set(found.drawn) == every(run.plan)
    assert [shard.number for shard in run.begun] == list(range(10))
    assert run.looked == list(range(10))
    assert [look.images for look in found.looks] == list(range(6, 61, 6))
    assert not run.context.decided.is_set()
    # The candidate's pictures are judged beside the baseline's.
    assert run.waited == {("candidate", 2), ("baseline", 1)}
    assert run.ear.steps == [
        ("run_harness", "60 cases through each mix for $20.00"),
        ("check_images", "140 pictures"),
    ]
    verdict = run.verdict(found)
    assert (verdict.verdict, verdict.savings) == ("HOLD", None)


def test_a_bad_run_ends_when_the_evidence_does_and_saves_the_rest(stage: Stages) -> None:
    run = stage(small(), bad=every(small()))
    found = run.draw()
    assert run.context.decided.is_set()
    decided = len(found.drawn)
    assert found.looks[-1].verdict == "ROLLBACK"
    assert [look.verdict for look in found.looks[:-1]] == ["HOLD"] * (len(found.looks) - 1)
    assert found.looks[-1].images == decided < 30
    # No more than what was under way was begun after it.
    assert len(run.begun) <= len(found.looks) + IN_FLIGHT - 1
    name, detail = run.ear.steps[0]
    assert name == "run_harness"
    assert f"{decided} cases" in detail
    assert "which decided it, of 60" in detail
    verdict = run.verdict(found)
    assert verdict.verdict == "ROLLBACK"
    assert verdict.savings is not None
    assert verdict.savings.decided == decided
    assert verdict.savings.used + verdict.savings.images // 2 == 60


def test_without_early_stops_nothing_is_looked_at_and_all_is_drawn(stage: Stages) -> None:
    run = stage(small(stop_early=False), bad=every(small()))
    found = run.draw()
    assert run.looked == []
    assert found.looks == []
    assert set(found.drawn) == every(run.plan)
    assert not run.context.decided.is_set()
    # Whoever kills it has spent its risk all the same.
    (test,) = ledger_of(run.context.state, run.plan.product)
    assert (test.verdict, test.images, test.failures) == ("HOLD", 60, 60)
    assert run.verdict(found).verdict == "ROLLBACK"


def test_a_slice_that_looks_bad_gets_its_extra_cases_before_the_rest(stage: Stages) -> None:
    plan, bad = with_a_bad_slice()
    run = stage(plan, bad=bad)
    found = run.draw()
    extra = [shard for shard in run.begun if shard.top_up]
    assert {shard.top_up for shard in extra} == {"locale=th"}
    assert {plan.by_id[i].locale for shard in extra for i in shard.case_ids} == {"th"}
    assert next(step for step in run.ear.steps if step[0] == "top_up")[1] == (
        f"{len(extra[0].case_ids)} more cases of locale=th, which looked bad"
    )
    assert {i: name for i, name in found.drawn.items() if name} == {
        i: "locale=th" for shard in extra for i in shard.case_ids
    }
    assert set(found.drawn) == every(plan) | {i for shard in extra for i in shard.case_ids}
    # Extra cases come as soon as a look that saw the slice has passed.
    amber = next(number for number, look in enumerate(found.looks) if look.amber)
    assert run.begun[amber + IN_FLIGHT].top_up == "locale=th"


def test_nothing_is_promoted_while_extra_cases_of_a_bad_slice_are_under_way(
    stage: Stages,
) -> None:
    """The last extra cases are begun when the headline is proven: they are waited for."""
    thai, rest = plans.cases(12, "t", ("th",)), list(plans.cases(108, "c", ("en",)))
    mixed = [case for one in thai for case in (one, rest.pop(), rest.pop())]
    policy = Policy(
        failure=FailureRule(limit=0.30, promote_below=0.36),
        sampling=Sampling(cases=120, shard_size=12),
        slices=SliceRule(min_images=6, limit=0.10),
    )
    plan = plans.plan(120, 12, policy=policy).model_copy(
        update={"cases": (*mixed, *rest), "reserve": plans.cases(12, "x", ("th",))}
    )
    bad = {case.case_id for case in thai[::2]} | {case.case_id for case in plan.reserve}
    run = stage(plan, bad=bad)
    found = run.draw()
    promoted = next(n for n, look in enumerate(found.looks) if look.verdict == "PROMOTE")
    begun = next(n for n, shard in enumerate(run.begun) if shard.top_up)
    assert promoted < len(found.looks) or begun < promoted
    assert {i for i, name in found.drawn.items() if name} == {c.case_id for c in plan.reserve}


def test_a_proven_bad_build_gets_no_extra_cases_at_the_end_of_its_plan(stage: Stages) -> None:
    """The last planned shard proves it, while a slice with cases left looks bad."""
    plan = small(18, 30)
    bad = {"c2", "c5", "c8", "c11", "c0"}
    policy = plan.policy.model_copy(
        update={"sampling": plan.policy.sampling.model_copy(update={"shard_size": 18})}
    )
    run = stage(plan.model_copy(update={"policy": policy}), bad=bad)
    found = run.draw()
    assert found.looks[-1].verdict == "ROLLBACK"
    assert found.looks[-1].amber
    assert [shard.top_up for shard in run.begun] == [None]
    assert set(found.drawn) == every(plan)
    # Nothing was left to save.
    assert run.verdict(found).savings is None


def test_a_resumed_run_draws_the_same(stage: Stages) -> None:
    plan, bad = with_a_bad_slice()
    run = stage(plan, bad=bad)
    first, begun = run.draw(), list(run.begun)
    # Everything is in the journal now, and ends at once in whatever order.
    again = stage(plan, bad=run.bad)
    second = again.draw()
    assert (second.drawn, second.looks) == (first.drawn, first.looks)
    assert again.begun[: len(first.looks)] == begun[: len(first.looks)]


def test_a_resumed_run_that_was_decided_begins_nothing_new(stage: Stages) -> None:
    """A person approved it, perhaps over budget: its verdict needs no picture more."""
    plan = small()
    run = stage(plan, bad=every(plan))
    first = run.draw()
    assert run.context.decided.is_set()
    again = stage(plan, bad=run.bad)
    again.context.resumes = True
    second = again.draw()
    assert (second.drawn, second.looks) == (first.drawn, first.looks)
    assert len(again.begun) == len(first.looks)


def test_the_order_in_which_shards_end_changes_nothing(stage: Stages) -> None:
    plan, bad = with_a_bad_slice()
    plain = stage(plan, bad=bad)
    first = plain.draw()
    later = {number: threading.Event() for number in range(99)}

    def even_after_odd(arm: str, shard: Shard) -> None:
        if shard.number % 2 == 0 and shard.number + 1 in [s.number for s in crossed.begun]:
            assert later[shard.number + 1].wait(20)
        elif arm == "baseline":
            later[shard.number].set()

    crossed = stage(plan, bad=bad, before=even_after_odd)
    second = crossed.draw()
    assert (second.drawn, second.looks) == (first.drawn, first.looks)


def test_a_shard_that_breaks_stops_the_others_and_is_raised(stage: Stages) -> None:
    def broken(arm: str, shard: Shard) -> None:
        if (arm, shard.number) == ("baseline", 2):
            raise StateError("the disk is full")

    run = stage(small(), before=broken)
    with pytest.raises(StateError, match="the disk is full"):
        run.draw()
    assert run.context.decided.is_set()
    assert run.context.stopped is None
    assert len(run.begun) <= 2 + IN_FLIGHT
    assert run.looked == [0, 1]


def test_a_look_that_breaks_is_no_verdict(stage: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage(small())

    def broken(_looker: Any, _shard: Shard) -> Any:
        raise StateError("the journal cannot be read")

    monkeypatch.setattr(drawing, "look", broken)
    with pytest.raises(StateError, match="journal"):
        run.draw()
    assert run.context.decided.is_set()
    assert len(run.begun) == IN_FLIGHT


def test_what_breaks_after_the_decision_breaks_nothing(stage: Stages) -> None:
    plan = small(60)
    decided = threading.Event()

    def breaks_late(arm: str, shard: Shard) -> None:
        if shard.number >= 3:
            assert run.context.halt is not None
            assert decided.wait(20)
            raise StateError("the provider is gone")

    run = stage(plan, bad=every(plan), before=breaks_late)
    run.context.decided = Told(decided)
    run.context.halt._other = run.context.decided
    found = run.draw()
    assert found.looks[-1].verdict == "ROLLBACK"
    assert len(run.begun) > len(found.looks)
    assert run.verdict(found).verdict == "ROLLBACK"


class Told(threading.Event):
    """An event that sets another one."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self.other = other

    def set(self) -> None:
        super().set()
        self.other.set()


def test_a_stop_ends_as_hold_with_the_whole_plan_asked_for(stage: Stages) -> None:
    def stop(arm: str, shard: Shard) -> None:
        if (arm, shard.number) == ("candidate", 4):
            run.context.hold("the run's cap is reached")

    run = stage(small(60, 12), before=stop)
    found = run.draw()
    assert not run.context.decided.is_set()
    assert set(found.drawn) == every(run.plan)
    assert len(run.begun) <= 4 + IN_FLIGHT
    verdict = run.verdict(found)
    assert verdict.verdict == "HOLD"
    assert verdict.savings is None
    assert verdict.reasons[0] == "The run ended early: the run's cap is reached."
    assert "of 60 cases finished with the candidate" in verdict.reasons[1]


def test_a_stop_before_the_first_shard_draws_nothing(stage: Stages) -> None:
    run = stage(small())
    run.context.stop.set()
    found = run.draw()
    assert run.begun == []
    assert set(found.drawn) == every(run.plan)
    verdict = run.verdict(found)
    assert verdict.verdict == "HOLD"
    assert "0 of 60 cases finished with the candidate." in verdict.reasons
