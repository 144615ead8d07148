"""Looks at a run on a real state database: prefixes, resumed runs, the ledger, the last word."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tasks import retests as ledger
from tasks.check_rules import CheckRules
from tasks.checks.live import write_planted
from tasks.context import RunContext
from tasks.expectations.limits import limits_by_figures
from tasks.harness.journal import Journal
from tasks.metrics.task import compute_metrics, judge_cases, metrics_of
from tasks.plan import RunPlan, Shard
from tasks.policy import Limit, Policy, Sampling, SliceRule
from tasks.records import Look, PriorRun
from tasks.state import State
from tasks.tables import retests
from tasks.verdict.betting import fail_bets, log_e, pass_bets
from tasks.verdict.boundaries import alarm_bound
from tasks.verdict.checkers import Sensitivity, adjusted_pass
from tasks.verdict.decide import decide
from tasks.verdict.drawing import Drawer
from tasks.verdict.eyes import Eyes, eyes, eyes_of
from tasks.verdict.guards import guards_of
from tasks.verdict.looks import Looker, savings_of, state_of
from tasks.verdict.task import decide as decide_task
from tests.verdict import plans

#: A third of the Thai cases fail with the candidate, too few for the slice's share of alpha.
THAI = {f"{kind}{number}" for kind in "cx" for number in range(2, 90, 9)}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


@pytest.fixture
def run_plan() -> RunPlan:
    return plans.plan(90, 30, 9)


def started(root: Path, state: State, plan: RunPlan, **finished: Any) -> RunContext:
    context = plans.context_of(root, state, plan)
    plans.finish(context, plan, finished.pop("bad", {"candidate": THAI}), **finished)
    return context


def play(context: RunContext, plan: RunPlan) -> tuple[Looker, list[Shard]]:
    """Draw and look to the end, one shard at a time."""
    looker, drawer, shards = Looker(context, plan), Drawer(plan), []
    while (shard := drawer.next(looker.tests)) is not None:
        shards.append(shard)
        looker.look(shard)
    return looker, shards


def booked(state: State) -> tuple[str, int, int]:
    with state.begin() as connection:
        row = connection.execute(sa.select(retests)).one()
    return row.verdict, row.images, row.failures


def from_scratch(context: RunContext, plan: RunPlan, shards: list[Shard]) -> Any:
    """The same look by the whole journal, as the end of a run works it out."""
    drawn = {i: shard.top_up for shard in shards for i in shard.case_ids}
    cases = [case for case_id, case in plan.by_id.items() if case_id in drawn]
    journal = Journal(context.state, plan.run_id)
    judged = judge_cases(context, cases, journal.generations(), journal.reports())
    metrics = metrics_of(plan, cases, judged.outcomes, drawn)
    limits = limits_by_figures(plan.policy, metrics)
    seen = {"final": False, "eyes": eyes_of(context.folder)}
    return decide(state_of(plan, metrics, judged.outcomes, drawn, expectations=limits, **seen))


def test_a_look_at_a_prefix_is_that_of_the_prefix_alone(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    context = started(tmp_path, state, run_plan)
    looker, shards = play(context, run_plan)
    # Some shards are extra cases of the slice that looked bad.
    assert {shard.top_up for shard in shards} == {None, "locale=th"}

    again = Looker(context, run_plan)
    for number, shard in enumerate(shards):
        seen = again.look(shard)
        whole = from_scratch(context, run_plan, shards[: number + 1])
        headline = whole.tests[0]
        assert seen == looker.looks[number]
        assert (seen.shards, seen.verdict) == (number + 1, whole.verdict)
        assert (seen.images, seen.failures) == (headline.images, headline.failures)
        assert (seen.log_e_fail, seen.log_e_pass) == (headline.log_e_fail, headline.log_e_pass)
        assert seen.amber == tuple(t.name for t in whole.tests if t.kind == "slice" and t.amber)
        own = [i for one in shards[: number + 1] for i in one.case_ids if one.top_up is None]
        assert seen.images == len(own)
        assert seen.failures == len(THAI & set(own))
    assert [t.name for t in again.tests] == [t.name for t in looker.tests]
    thai = next(t for t in looker.tests if t.name == "locale=th")
    extra = [i for shard in shards if shard.top_up for i in shard.case_ids]
    assert thai.images == 30 + len(extra)
    model = next(t for t in looker.tests if t.name == "model=folio-2")
    assert model.images == 90


def test_a_resumed_run_comes_to_the_same_looks(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    context = started(tmp_path, state, run_plan)
    looker, shards = play(context, run_plan)
    # The other process was killed after its first looks; this one begins again.
    killed = Looker(context, run_plan)
    for shard in shards[:4]:
        killed.look(shard)
    resumed = plans.context_of(tmp_path, state, run_plan)
    after, same = play(resumed, run_plan)
    assert same == shards
    assert after.looks == looker.looks
    assert after.tests == looker.tests
    assert after.drawn == looker.drawn


def test_the_last_word_is_that_of_the_look_that_decided(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    bad = {case.case_id for case in run_plan.cases[::4]}
    context = started(tmp_path, state, run_plan, bad={"candidate": bad})
    looker, drawer = Looker(context, run_plan), Drawer(run_plan)
    while not looker.looks or looker.looks[-1].verdict != "ROLLBACK":
        shard = drawer.next(looker.tests)
        assert shard is not None
        looker.look(shard)
    assert booked(state) == ("HOLD", looker.looks[-1].images, looker.looks[-1].failures)
    context.decided.set()
    measured = compute_metrics.fn(context, run_plan, looker.drawn)
    verdict = decide_task.fn(
        context,
        run_plan,
        measured,
        limits_by_figures(run_plan.policy, measured.metrics),
        looker.drawn,
        looker.looks,
    )
    assert verdict.verdict == "ROLLBACK"
    assert verdict.looks == tuple(looker.looks)
    assert [(t.name, t.log_e_fail, t.fail_at, t.failed) for t in verdict.tests] == [
        (t.name, t.log_e_fail, t.fail_at, t.failed) for t in looker.tests
    ]
    assert booked(state) == ("ROLLBACK", looker.looks[-1].images, looker.looks[-1].failures)
    assert len(measured.generations) == 2 * len(looker.drawn)
    # What was generated besides is kept in the tables and judges nobody.
    assert len(measured.tables["generations"]) == 2 * 120
    assert len(measured.tables["outcomes"]) == 2 * len(looker.drawn)


def test_every_look_is_booked_before_anything_is_decided(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    """A run that is killed because it looks bad has spent its risk as well."""
    lost = frozenset({"c0", "c1"})
    context = started(tmp_path, state, run_plan, faults=lost)
    looker = Looker(context, run_plan)
    for shard in run_plan.shards()[:3]:
        seen = looker.look(shard)
        # What nobody could judge is a failure to a PROMOTE.
        assert booked(state) == ("HOLD", seen.images, seen.failures + 2)


def test_cases_that_are_missing_hold(tmp_path: Path, state: State, run_plan: RunPlan) -> None:
    first = run_plan.shards()[0]
    context = started(tmp_path, state, run_plan, bad={}, only=set(first.case_ids[1:]))
    looker = Looker(context, run_plan)
    seen = looker.look(first)
    assert (seen.images, seen.verdict) == (8, "HOLD")
    # A shard of which nothing came yet changes nothing either.
    seen = looker.look(run_plan.shards()[1])
    assert (seen.images, seen.verdict) == (8, "HOLD")


def test_a_picture_that_is_gone_is_nothing_that_was_judged(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    context = started(tmp_path, state, run_plan)
    for file in context.images.root.rglob("*"):
        if file.is_file():
            file.unlink()
    seen = Looker(context, run_plan).look(run_plan.shards()[0])
    assert (seen.images, seen.failures) == (9, 0)
    assert booked(state) == ("HOLD", 9, 9)


def test_what_earlier_tests_left_decides_how_much_is_asked_for(
    tmp_path: Path, state: State
) -> None:
    def last(failures: int | None, run_id: str) -> tuple[Look, Any]:
        plan = plans.plan(180, 0, 90, run_id=run_id)
        if failures is not None:
            before = plan.model_copy(update={"run_id": "r0"})
            ledger.record(state, before, "HOLD", 240, failures)
        context = started(tmp_path, state, plan, bad={})
        looker = Looker(context, plan)
        for shard in plan.shards():
            seen = looker.look(shard)
        return seen, looker.tests[0]

    fresh, test = last(None, "first")
    assert fresh.verdict == "PROMOTE"
    again, second = last(7, "second")
    assert again.verdict == "HOLD"
    assert second.pass_at > test.pass_at
    spent, _ = last(60, "third")
    assert spent.verdict == "HOLD"


def test_guards_and_finished_cases_of_a_state_leave_extra_cases_out(
    tmp_path: Path, state: State
) -> None:
    policy = Policy(
        sampling=Sampling(cases=30, shard_size=10),
        slices=SliceRule(min_images=5),
        limits=(Limit(measure="defect_rate", max=0.05, on_breach="rollback"),),
        checks=CheckRules(false_alarms="allow"),
    )
    plan = plans.plan(30, 30, policy=policy)
    bad = {case.case_id for case in plan.reserve}
    context = started(tmp_path, state, plan, bad={"candidate": bad})
    looker = Looker(context, plan)
    looker.look(plan.shards()[0])
    extra = tuple(c.case_id for c in plan.reserve if c.locale == "th")
    looker.look(Shard(number=1, case_ids=extra, top_up="locale=th"))
    guard = next(t for t in looker.tests if t.kind == "guard")
    doubt = alarm_bound(policy, eyes_of(context.folder).alarms)
    assert doubt is not None
    none = float(log_e(fail_bets(0.05 + 0.95 * doubt.bound), 10, 0))
    assert (guard.images, guard.log_e_fail) == (10, pytest.approx(none))
    assert not guard.failed
    assert looker.looks[-1].failures == 0
    # Ten bad ones of ten: the slice is proven bad by its own cases.
    assert next(t for t in looker.tests if t.name == "locale=th").failures == 10
    assert looker.looks[-1].verdict == "ROLLBACK"
    assert guards_of(policy, *_figures(context, plan, looker))[0].images == 10


def _figures(context: RunContext, plan: RunPlan, looker: Looker) -> tuple[Any, Any]:
    measured = compute_metrics.fn(context, plan, looker.drawn)
    own = [o for o in measured.outcomes if o.arm == "candidate"]
    return measured.metrics, [o for o in own if looker.drawn[o.case_id] is None]


def test_what_was_not_made_is_saved_at_what_the_rest_cost(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    made = {case.case_id for case in run_plan.cases[:30]}
    context = started(tmp_path, state, run_plan, bad={}, only=made)
    saved = savings_of(context, run_plan, 18)
    assert saved.model_dump() == {
        "planned": 90,
        "decided": 18,
        "used": 30,
        "images": 2 * 60,
        "usd": pytest.approx(2 * 60 * 0.02),
    }


def test_extra_cases_were_paid_and_are_no_saving(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    made = {c.case_id for c in (*run_plan.cases[:30], *run_plan.reserve[:10])}
    context = started(tmp_path, state, run_plan, bad={}, only=made)
    saved = savings_of(context, run_plan, 18)
    assert (saved.used, saved.images) == (40, 2 * 50)


def test_a_paused_run_comes_back_with_the_risk_that_others_left(
    tmp_path: Path, state: State
) -> None:
    plan = plans.plan(180, 0, 90, run_id="paused")
    context = started(tmp_path, state, plan, bad={})
    first = Looker(context, plan)
    first.look(plan.shards()[0])
    other = plan.model_copy(update={"run_id": "other"})
    ledger.record(state, other, "ROLLBACK", 240, 31)

    resumed = Looker(context, plan)
    for shard in plan.shards():
        seen = resumed.look(shard)
    assert seen.verdict == "HOLD"
    # Its own counts are in the ledger too, and are no test before itself.
    ledger.excuse(state, plan.product, "other", by="kim", why="the provider was ill")
    again = Looker(context, plan)
    for shard in plan.shards():
        seen = again.look(shard)
    assert seen.verdict == "PROMOTE"


def test_a_limit_without_a_test_is_not_tried_until_it_holds_by_luck(
    tmp_path: Path, state: State
) -> None:
    def last(limit: Limit, run_id: str) -> Looker:
        policy = Policy(sampling=Sampling(cases=180, shard_size=90), limits=(limit,))
        plan = plans.plan(180, 0, run_id=run_id, policy=policy)
        context = started(tmp_path, state, plan, bad={})
        looker = Looker(context, plan)
        for shard in plan.shards():
            looker.look(shard)
        assert all(t.passed for t in looker.tests if t.kind == "headline")
        return looker

    slow = last(Limit(measure="latency_p95_s", max=1e-9), "slow")
    assert slow.patient
    assert slow.looks[-1].verdict == "HOLD"
    # The number of images only grows: waiting for it is no luck.
    few = last(Limit(measure="images", min=181), "few")
    assert not few.patient
    assert few.looks[-1].verdict == "HOLD"


def test_earlier_tests_are_weighed_at_the_boundary_that_the_checks_lowered(
    tmp_path: Path, state: State, run_plan: RunPlan
) -> None:
    """At 3 % a run of 300 with 7 failures looks like more evidence for the build than at 2.4 %."""
    context = started(tmp_path, state, run_plan, bad={})
    measured = compute_metrics.fn(
        context, run_plan, dict.fromkeys(c.case_id for c in run_plan.cases)
    )
    prior = (PriorRun(run_id="before", images=300, failures=7),)

    def left(seen: Eyes) -> float:
        found = state_of(
            run_plan,
            measured.metrics,
            measured.outcomes,
            {},
            expectations=(),
            final=True,
            prior=prior,
            eyes=seen,
        )
        assert found.beta_left is not None
        return found.beta_left

    plain, lowered = left(Eyes()), left(eyes(plans.seeing(800, 1000)))
    adjusted = adjusted_pass(0.03, (Sensitivity("a.b", 800, 1000),), 0.05)
    assert adjusted is not None
    at = float(log_e(pass_bets(adjusted.threshold), 300, 7))
    assert lowered == pytest.approx(0.05 * math.exp(min(0.0, at)))
    assert lowered < plain
    # Checks that found nothing hold anyway.
    assert left(eyes(plans.seeing(0, 1000))) == plain


def test_a_run_without_planted_defects_promotes_nothing(tmp_path: Path, state: State) -> None:
    plan = plans.plan(300, 0, 60)
    context = started(tmp_path, state, plan, bad={})
    looker, _ = play(context, plan)
    assert looker.looks[-1].verdict == "PROMOTE"
    (context.folder.path / "planted.json").unlink()
    looker, _ = play(context, plan)
    assert {look.verdict for look in looker.looks} == {"HOLD"}
    # As soon as the drawings were judged, the run can go on.
    again = Looker(context, plan)
    shards = plan.shards()
    assert again.look(shards[0]).verdict == "HOLD"
    write_planted(context.folder, plans.seeing())
    assert [again.look(shard).verdict for shard in shards[1:]][-1] == "PROMOTE"
    # A check that fell blind in the run holds it to its end.
    write_planted(context.folder, plans.seeing(today=(3, 10)))
    blind, _ = play(context, plan)
    assert {look.verdict for look in blind.looks} == {"HOLD"}
