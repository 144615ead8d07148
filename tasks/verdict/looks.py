"""Looks at a run while it goes on: what the finished shards prove so far."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.context import RunContext
from tasks.expectations.limits import limits_by_figures
from tasks.harness.journal import Journal
from tasks.metrics.task import judge_cases, metrics_of
from tasks.plan import Drawn, RunPlan, Shard
from tasks.records import (
    Arm,
    ExpectationResult,
    Generation,
    ImageReport,
    Look,
    Metrics,
    Outcome,
    PriorRun,
    Savings,
    SequentialResult,
    VerdictName,
    usd,
)
from tasks.retests import prior_runs, record
from tasks.verdict.boundaries import alarm_bound, left_by
from tasks.verdict.decide import GateState, decide
from tasks.verdict.drawing import slices_of_plan
from tasks.verdict.eyes import Eyes, eyes_of
from tasks.verdict.guards import guards_of
from tasks.verdict.retest import sentence

ARMS: tuple[Arm, Arm] = ("candidate", "baseline")


class Looker:
    """Looks at the shards of a run in the order in which they were drawn.

    Args:
        context: The run.
        plan: Its plan.
    """

    def __init__(self, context: RunContext, plan: RunPlan) -> None:
        self._context = context
        self._plan = plan
        self._drawn: dict[str, str | None] = {}
        self._generations: dict[tuple[Arm, str], Generation] = {}
        self._reports: dict[tuple[Arm, str], ImageReport] = {}
        self.looks: list[Look] = []
        #: Once all proofs were there and a limit without a test of its own did not hold, nothing
        #: is promoted before the end of the plan: trying such a limit again after every shard
        #: would wait for a lucky look.
        self.patient = False
        self._prior = prior_of(context, plan)
        self._eyes: Eyes | None = None
        self.tests: tuple[SequentialResult, ...] = ()

    @property
    def drawn(self) -> Drawn:
        """The cases of all shards that were looked at."""
        return dict(self._drawn)

    def _eyes_now(self) -> Eyes:
        """Return what is known of the checks; final as soon as today's drawings were judged."""
        if self._eyes is None or self._eyes.problem is not None:
            self._eyes = eyes_of(self._context.folder)
        return self._eyes

    def generated(self, shard: Shard) -> bool:
        """Tell whether both arms have finished every case of a shard, so that it costs nothing."""
        journal = Journal(self._context.state, self._plan.run_id)
        return all(
            len(journal.generations(arm, shard.case_ids)) == len(shard.case_ids) for arm in ARMS
        )

    def take(self, shard: Shard) -> tuple[Metrics, list[Outcome]]:
        """Take a finished shard in, and return what is known of all so far.

        Raises:
            StateError: The journal cannot be read or the ledger of retests not be written.
        """
        plan, journal = self._plan, Journal(self._context.state, self._plan.run_id)
        for arm in ARMS:
            self._generations |= journal.generations(arm, shard.case_ids)
            self._reports |= journal.reports(arm, shard.case_ids)
        self._drawn |= dict.fromkeys(shard.case_ids, shard.top_up)
        cases = [case for case_id, case in plan.by_id.items() if case_id in self._drawn]
        judged = judge_cases(
            self._context,
            cases,
            self._generations,
            self._reports,
            plan.policy.checks,
            told=False,
        )
        metrics = metrics_of(plan, cases, judged.outcomes, self._drawn)
        # Written after every shard: a run that is killed because it looks bad has spent its risk.
        record_test(self._context, plan, "HOLD", metrics)
        return metrics, judged.outcomes

    def look(self, shard: Shard) -> Look:
        """Take a finished shard in and look at everything so far; errors as :meth:`take`."""
        plan = self._plan
        metrics, outcomes = self.take(shard)
        limits = limits_by_figures(plan.policy, metrics)
        verdict = decide(
            state_of(
                plan,
                metrics,
                outcomes,
                self._drawn,
                expectations=limits,
                final=False,
                prior=self._prior,
                eyes=self._eyes_now(),
            ),
            bounds=False,
        )
        proven = all(t.passed for t in verdict.tests if t.kind == "headline" or t.below is not None)
        self.patient = self.patient or (proven and any(_fails_by_chance(r) for r in limits))
        self.tests = verdict.tests
        headline = verdict.tests[0]
        rate = metrics.candidate.failure_rate
        look = Look(
            shards=len(self.looks) + 1,
            images=rate.n,
            failures=rate.failures,
            log_e_fail=headline.log_e_fail or 0.0,
            log_e_pass=headline.log_e_pass or 0.0,
            verdict=verdict.verdict,
            amber=tuple(t.name for t in verdict.tests if t.kind == "slice" and t.amber),
        )
        self.looks.append(look)
        return look


def state_of(
    plan: RunPlan,
    metrics: Metrics,
    outcomes: Sequence[Outcome],
    drawn: Drawn,
    *,
    expectations: Sequence[ExpectationResult],
    final: bool,
    stopped: str | None = None,
    savings: Savings | None = None,
    departures: Sequence[str] = (),
    notes: Sequence[str] = (),
    prior: Sequence[PriorRun] = (),
    eyes: Eyes | None = None,
) -> GateState:
    """Return what the decision looks at.

    Args:
        plan: The plan.
        metrics: The figures of the drawn cases.
        outcomes: The outcomes behind them, both arms.
        drawn: The cases that count.
        expectations: The limits of the policy with their answers.
        final: Whether no more cases will come.
        stopped: Why the run ended early, if it did.
        savings: What an early decision saved, if it did.
        departures: What providers did instead of what was asked, as sentences.
        notes: What else a reader should know, as sentences.
        prior: Earlier tests of the same mix.
        eyes: What is known of the checks; by default they are taken for perfect.
    """
    rule = plan.policy.failure
    own = [o for o in outcomes if o.arm == "candidate"]
    seen = eyes or Eyes()
    left = _left(plan, prior, seen)
    told = None if left is None else sentence(prior, rule.beta, left)
    return GateState(
        policy=plan.policy,
        metrics=metrics,
        expectations=tuple(expectations),
        planned_cases=len(plan.cases),
        drawn_cases=len(drawn),
        finished_cases=len(own),
        baseline_finished=len(outcomes) - len(own),
        final=final,
        judged=slices_of_plan(plan),
        guards=guards_of(
            plan.policy,
            metrics,
            [o for o in own if drawn.get(o.case_id) is None],
            doubt=0.0 if (found := alarm_bound(plan.policy, seen.alarms)) is None else found.bound,
        ),
        beta_left=left,
        checks=seen.checks,
        alarms=seen.alarms,
        unseen=seen.problem,
        unmeasured=seen.unmeasured,
        stopped=stopped,
        unjudged=sum(1 for o in own if o.outcome == "unmeasured"),
        savings=savings,
        departures=tuple(departures),
        notes=(*(() if told is None else (f"{told}.",)), *seen.notes, *notes),
    )


def _left(plan: RunPlan, prior: Sequence[PriorRun], eyes: Eyes) -> float | None:
    """Return the risk of a wrong PROMOTE that earlier tests left, ``None`` without any."""
    return left_by(plan.policy, prior, eyes.checks, max(1, len(plan.cases))) if prior else None


def _fails_by_chance(result: ExpectationResult) -> bool:
    """Tell whether a limit blocks a PROMOTE now and may hold at another look by luck alone."""
    counted = result.name.startswith("images ")  # It only grows.
    return result.on_breach != "warn" and not result.success and not counted


def prior_of(context: RunContext, plan: RunPlan) -> tuple[PriorRun, ...]:
    """Return the earlier tests of the mix as the ledger has them now.

    Not as they were when the run was planned: a run that was paused meanwhile must not come back
    with the risk that other tests of the same mix have spent.
    """
    return prior_runs(context.state, plan.product, plan.candidate.digest, but=plan.run_id)


def record_test(context: RunContext, plan: RunPlan, verdict: VerdictName, metrics: Metrics) -> None:
    """Write into the ledger of retests what this run showed so far; HOLD until it is decided."""
    rate = metrics.candidate.failure_rate
    record(context.state, plan, verdict, rate.n, rate.failures + rate.unmeasured)


def savings_of(context: RunContext, plan: RunPlan, decided: int) -> Savings:
    """Return what an early decision did not generate, at what a case cost this run.

    Args:
        context: The run.
        plan: Its plan.
        decided: Headline cases that the decision rests on.
    """
    journal = Journal(context.state, plan.run_id)
    images, money, used = 0, 0.0, 0
    for arm in ARMS:
        done = [g for (_, c), g in journal.generations(arm).items()]
        left = max(0, len(plan.cases) - len(done))
        paid = sum(g.cost_microusd for g in done if not g.cached)
        images += left
        money += left * paid / len(done) if done else 0.0
        if arm == "candidate":
            used = len(done)
    return Savings(
        planned=len(plan.cases),
        decided=decided,
        used=used,
        images=images,
        usd=round(usd(money), 2),
    )
