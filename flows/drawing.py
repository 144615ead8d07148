"""The middle of the gate: shards are drawn, generated and checked until the evidence decides."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefect.futures import PrefectFuture

from flows.artifacts import ProgressArtifact
from flows.check_health import begin_look
from flows.progress import ARMS, GateProgress
from flows.watcher import Watcher
from tasks.check_rules import Extras
from tasks.checks.pool import CheckPool
from tasks.checks.task import check_images
from tasks.context import RunContext
from tasks.harness.run import ShardResult
from tasks.harness.task import run_harness
from tasks.plan import Drawn, RunPlan, Shard
from tasks.records import Look, usd
from tasks.verdict.drawing import Drawer
from tasks.verdict.looks import Looker
from tasks.verdict.task import look

#: Shards under way: one is generated while the pictures of the one before it are checked.
IN_FLIGHT = 2


@dataclass(frozen=True)
class Drawing:
    """What was drawn."""

    #: Cases that count.
    drawn: Drawn
    looks: Sequence[Look]


@dataclass
class _UnderWay:
    """A shard that was chosen, and its work once that was started."""

    shard: Shard
    made: tuple[PrefectFuture[ShardResult], ...] = ()
    checked: tuple[PrefectFuture[int], ...] = ()


def draw_until_decided(
    context: RunContext, plan: RunPlan, endpoints: Mapping[str, str], watcher: Watcher
) -> Drawing:
    """Run both arms shard by shard and look after each, until the evidence decides or all is done.

    Two shards are under way at a time. Which one comes next is chosen by the look before the last
    finished shard, and looks take shards in the order in which they were drawn: so a resumed run,
    whose finished shards cost nothing, goes the same way to the same end.
    """
    progress = GateProgress(watcher, ProgressArtifact(plan.run_id), len(plan.cases))
    drawer, looker = Drawer(plan), Looker(context, plan)
    flight: deque[_UnderWay] = deque()
    extra: dict[str, str | None] = {}
    spend = pictures = 0
    try:
        extras = Extras(plan.policy.checks, context.settings.plugins)
        with CheckPool(extras=extras) as pool:
            today = begin_look(context, plan, pool, watcher)
            while _fill(context, plan, flight, drawer, looker, endpoints, pool, progress):
                done = flight.popleft()
                if done.shard.top_up is not None:
                    extra |= dict.fromkeys(done.shard.case_ids, done.shard.top_up)
                    what = f"{len(done.shard.case_ids)} more cases of {done.shard.top_up}"
                    watcher.step("top_up", f"{what}, which looked bad")
                spend += sum(each.result().spend_microusd for each in done.made)
                pictures += sum(each.result() for each in done.checked)
                progress.update_artifact()
                if not context.halt.is_set():
                    # The first look needs to know what the checks see today.
                    today.finish()
                if not context.halt.is_set() and _settled(
                    plan, done, flight, drawer, looker, progress
                ):
                    # At the end of the plan there is nothing to save, and nothing to add: no
                    # extra cases are paid for a build that is proven bad.
                    if flight or drawer.left:
                        context.decided.set()
                    break
    except BaseException:
        # Nothing is paid any more for a run that broke.
        context.decided.set()
        raise
    finally:
        # What was under way when the evidence decided ends by itself and breaks nothing any more.
        for each in flight:
            for made in each.made:
                made.wait()
            for checked in each.checked:
                checked.wait()
    decided = context.decided.is_set()
    count = f"{len(looker.drawn) if decided else len(plan.cases) + len(extra)} cases"
    of = f", which decided it, of {len(plan.cases)}" if decided else ""
    watcher.step("run_harness", f"{count} through each mix for ${usd(spend):.2f}{of}")
    watcher.step("check_images", f"{pictures} pictures")
    if decided:
        return Drawing(looker.drawn, looker.looks)
    return Drawing(dict.fromkeys(case.case_id for case in plan.cases) | extra, looker.looks)


def _settled(
    plan: RunPlan,
    done: _UnderWay,
    flight: deque[_UnderWay],
    drawer: Drawer,
    looker: Looker,
    progress: GateProgress,
) -> bool:
    """Take a finished shard in, and return whether the evidence decides."""
    if not plan.policy.sampling.stop_early:
        looker.take(done.shard)
        return False
    seen = look(looker, done.shard)
    progress.on_look(seen, looker.tests)
    if seen.verdict != "PROMOTE" or looker.patient:
        return seen.verdict == "ROLLBACK"
    # A slice that looks bad is looked into, to the last extra case, before anything is promoted.
    looked_into = any(each.shard.top_up is not None for each in flight)
    return not looked_into and drawer.tops_up(looker.tests) is None


def _fill(
    context: RunContext,
    plan: RunPlan,
    flight: deque[_UnderWay],
    drawer: Drawer,
    looker: Looker,
    endpoints: Mapping[str, str],
    pool: CheckPool,
    progress: GateProgress,
) -> bool:
    """Choose and start shards until enough are under way; return whether any is."""
    while len(flight) < IN_FLIGHT and not context.halt.is_set():
        shard = drawer.next(looker.tests if plan.policy.sampling.stop_early else ())
        if shard is None:
            break
        flight.append(_UnderWay(shard))
    for place, each in enumerate(flight):
        # Of a resumed run the look at what is there already may decide: it goes before new money.
        if place and context.resumes and looker.generated(flight[0].shard):
            break
        if not each.made:
            _submit(context, each, endpoints, pool, progress)
    return bool(flight)


def _submit(
    context: RunContext,
    each: _UnderWay,
    endpoints: Mapping[str, str],
    pool: CheckPool,
    progress: GateProgress,
) -> None:
    """Start a shard of both arms; its pictures are checked as soon as they are there.

    The candidate's are judged beside the baseline's of the same cases, so they wait for both.
    """
    made = {
        arm: run_harness.submit(context, arm, each.shard, endpoints, IN_FLIGHT, progress.on_event)
        for arm in ARMS
    }
    each.made = tuple(made.values())
    each.checked = tuple(
        check_images.submit(
            context,
            arm,
            each.shard,
            pool,
            progress.on_report,
            wait_for=[made[arm]] if arm == "baseline" else [*made.values()],
            return_state=False,
        )
        for arm in ARMS
    )
