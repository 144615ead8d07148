"""The decision: what speaks against the candidate, what is missing, and the three branches."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.policy import Policy
from tasks.records import (
    ExpectationResult,
    Metrics,
    Record,
    Savings,
    SequentialResult,
    Verdict,
    VerdictName,
)
from tasks.verdict import reasons
from tasks.verdict.checkers import Sensitivity
from tasks.verdict.guards import GuardEvidence, guarded
from tasks.verdict.proofs import prove

#: The rule on the bare failure rate, which Great Expectations answers for the Data Docs.
HEADLINE = "failure.promote_below"


class GateState(Record):
    """Everything that the decision looks at, fixed."""

    policy: Policy
    metrics: Metrics
    expectations: tuple[ExpectationResult, ...]
    #: Cases of the plan.
    planned_cases: int
    #: Cases that were drawn up to this look, and how many of them each arm finished.
    drawn_cases: int
    finished_cases: int
    baseline_finished: int
    #: No more cases will come: the plan is done, or the run was stopped.
    final: bool = True
    #: Slices, as ``dimension=value``, that are judged; fixed before the first image.
    judged: tuple[str, ...] = ()
    #: Evidence on the limits whose breach means ROLLBACK.
    guards: tuple[GuardEvidence, ...] = ()
    #: Risk of a wrong PROMOTE that earlier tests of the same mix left, 0 when they used it up;
    #: ``None`` without such.
    beta_left: float | None = None
    #: What planted defects say of the checks.
    checks: tuple[Sensitivity, ...] = ()
    #: Good pictures that any of the checks called bad.
    alarms: Sensitivity | None = None
    #: Why too little is known of the checks to promote anything; ``None`` when enough is.
    unseen: str | None = None
    #: Checks of the policy's own of which it is not known what they see.
    unmeasured: tuple[str, ...] = ()
    #: Why the run ended early (a spend cap, a provider down, Ctrl-C); ``None`` when it did not.
    stopped: str | None = None
    #: Pictures of the candidate that nobody could judge: a check broke, or two readers disagree.
    unjudged: int = 0
    #: What was not generated, when the evidence decided before the end of the plan.
    savings: Savings | None = None
    #: What providers did instead of what the candidate asked, as sentences.
    departures: tuple[str, ...] = ()
    #: More warnings for the reader, as sentences.
    notes: tuple[str, ...] = ()


def decide(state: GateState, *, bounds: bool = True) -> Verdict:
    """Return the verdict with its reasons, most important first.

    Valid at any look. A run that ended early can still be a ROLLBACK, when what it saw is proof
    enough.

    Args:
        state: What is known.
        bounds: Compute the ends of confidence sequences, for whoever reads the verdict.

    Raises:
        ValueError: A count of the metrics is impossible.
    """
    tests = prove(
        state.policy,
        state.metrics,
        planned_cases=state.planned_cases,
        judged=state.judged,
        guards=state.guards,
        beta=state.beta_left,
        checks=state.checks,
        alarms=state.alarms,
        bounds=bounds,
    )
    against = list(_against(state, tests))
    incomplete = list(_incomplete(state))
    warnings = list(_warnings(state, tests))
    # The headline is told in every verdict; it leads when it is what decides.
    headline = reasons.headline(state, tests[0])
    told = [headline, *state.departures, *reasons.failing_checks(state.metrics)]
    saved = reasons.saved(state.savings)
    if against:
        return _verdict(
            "ROLLBACK", [*against, *told, *saved], [*incomplete, *warnings], state, tests
        )
    missing = [*incomplete, *_missing(state, tests)]
    if missing:
        return _verdict("HOLD", [*missing, *told], warnings, state, tests)
    gain = reasons.before_and_after(state.metrics)
    because = [headline, *gain, *state.departures, *saved]
    return _verdict("PROMOTE", because, warnings, state, tests)


def _verdict(
    name: VerdictName,
    because: list[str],
    warnings: list[str],
    state: GateState,
    tests: tuple[SequentialResult, ...],
) -> Verdict:
    """Return the verdict with every sentence once."""
    said = tuple(dict.fromkeys(because))
    rest = tuple(w for w in dict.fromkeys(warnings) if w not in said)
    return Verdict(verdict=name, reasons=said, warnings=rest, tests=tests, savings=state.savings)


def _against(state: GateState, tests: tuple[SequentialResult, ...]) -> Iterator[str]:
    """Yield what proves that the candidate must not serve."""
    for test in tests:
        if test.failed:
            yield reasons.proven_bad(state, test)
    # Limits without a test of their own are looked at once, when the plan is done: a figure that
    # may be looked at after every shard would pass any limit by chance one day, and one of a run
    # that was cut short rests on however few images there were.
    if state.final and not any(_incomplete(state)):
        # A guarded limit needs its proof, also when nobody brought the evidence.
        tested = {*guarded(state.policy), *(guard.source for guard in state.guards)}
        for result in state.expectations:
            if _breached(result) and result.on_breach == "rollback" and result.source not in tested:
                yield reasons.breach(result)


def _incomplete(state: GateState) -> Iterator[str]:
    """Yield what the run did not do."""
    yield from reasons.incomplete(
        state.stopped,
        drawn=state.drawn_cases,
        finished=state.finished_cases,
        baseline=state.baseline_finished,
        metrics=state.metrics,
    )


def _missing(state: GateState, tests: tuple[SequentialResult, ...]) -> Iterator[str]:
    """Yield the proofs that a PROMOTE still needs."""
    yield from reasons.unprovable(state)
    for test in tests:
        if not test.passed and (test.kind == "headline" or test.below is not None):
            yield reasons.not_proven(state, test)
    for result in state.expectations:
        if result.on_breach != "warn" and (result.unmeasured or not result.success):
            yield reasons.breach(result)
    yield from reasons.unanswered(state.policy, state.expectations)
    yield from reasons.no_figures(state.metrics)


def _warnings(state: GateState, tests: tuple[SequentialResult, ...]) -> Iterator[str]:
    """Yield what a reader should know and what does not decide."""
    for test in tests:
        if test.amber and not test.failed:
            yield reasons.amber(state, test)
    for result in state.expectations:
        # The headline is told by its proof; its bare figure beside it would say the same again.
        told = result.source == HEADLINE
        if not told and result.on_breach == "warn" and (result.unmeasured or not result.success):
            yield reasons.breach(result)
    yield from reasons.not_covered(state.metrics.candidate)
    yield from reasons.unjudged(state.unjudged)
    yield from state.notes


def _breached(result: ExpectationResult) -> bool:
    """Tell whether a limit is known to be passed."""
    return not result.success and not result.unmeasured
