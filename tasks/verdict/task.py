"""Prefect tasks: a look after each shard, and the decision at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.checks.drift import drift
from tasks.context import RunContext
from tasks.metrics.task import Measured
from tasks.plan import Drawn, RunPlan, Shard
from tasks.records import Arm, ExpectationResult, ImageReport, Look, Verdict
from tasks.telemetry import stage
from tasks.verdict.decide import decide as decide_purely
from tasks.verdict.departures import departures, moved
from tasks.verdict.eyes import eyes_of
from tasks.verdict.intervals import with_limits
from tasks.verdict.looks import Looker, prior_of, record_test, savings_of, state_of


@task(name="look", task_run_name="look after shard {shard.number}", cache_policy=NO_CACHE)
@stage
def look(looker: Looker, shard: Shard) -> Look:
    """Look at all finished shards and return what they prove so far."""
    return looker.look(shard)


def valid_at_any_look(measured: Measured) -> Measured:
    """Return what was measured with intervals that hold although the run ended when it did."""
    measured.metrics = with_limits(measured.metrics)
    return measured


@task(name="decide", task_run_name="decide", cache_policy=NO_CACHE)
@stage
def decide(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: tuple[ExpectationResult, ...],
    drawn: Drawn,
    looks: Sequence[Look],
) -> Verdict:
    """Return PROMOTE, ROLLBACK or HOLD with its reasons."""
    early = context.decided.is_set()
    prior = prior_of(context, plan)
    verdict = decide_purely(
        state_of(
            plan,
            measured.metrics,
            measured.outcomes,
            drawn,
            expectations=expectations,
            final=not early,
            stopped=context.stopped,
            savings=savings_of(context, plan, measured.metrics.candidate.images) if early else None,
            prior=prior,
            eyes=eyes_of(context.folder),
            departures=_departures(measured, "candidate"),
            notes=(
                # The gravest alone: what production fails at is known, and is in the report.
                *(f"Baseline: {text}" for text in _departures(measured, "baseline")[:1]),
                *moved(measured.generations),
                *broken_checks(measured),
                *colour_drift(measured),
            ),
        )
    )
    record_test(context, plan, verdict.verdict, measured.metrics)
    return verdict.model_copy(update={"looks": tuple(looks), "prior": prior})


def _departures(measured: Measured, arm: Arm) -> tuple[str, ...]:
    """Return what the providers of an arm did instead; unsafe prompts are rightly refused."""
    own = [outcome for outcome in measured.outcomes if outcome.arm == arm]
    right = {o.case_id for o in own if o.outcome == "refused" and not o.failed}
    return departures(measured.generations, arm, right)


def broken_checks(measured: Measured) -> Iterator[str]:
    """Yield which checks broke on pictures of the candidate, and what the first of each said."""
    said: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for (arm, _), report in measured.reports.items():
        for finding in report.findings if arm == "candidate" else ():
            if finding.verdict == "fault":
                counts[finding.check] += 1
                said.setdefault(finding.check, finding.message)
    for check, count in counts.most_common(3):
        yield f"Check {check} broke on {count} of the candidate's pictures: {said[check]}"


def colour_drift(measured: Measured) -> Iterator[str]:
    """Yield a warning when the candidate's colours drifted away from the baseline's."""
    before = {case: report.colour for (arm, case), report in _of(measured, "baseline")}
    pairs = [
        (before[case], report.colour)
        for (_, case), report in _of(measured, "candidate")
        if case in before
    ]
    found = drift(pairs)
    if found.verdict == "fail":
        yield f"Colours of the whole run: {found.message}"


def _of(measured: Measured, arm: Arm) -> list[tuple[tuple[Arm, str], ImageReport]]:
    return [(key, report) for key, report in measured.reports.items() if key[0] == arm]
