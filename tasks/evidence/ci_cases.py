"""A verdict as test cases for CI: what passed, what failed the build, what is not proven.

How outcomes and verdicts hang together, so that no CI server colours a build differently from the
gate:

- PROMOTE has neither failures nor errors.
- ROLLBACK has at least one failure. Only a ROLLBACK has failures.
- HOLD has at least one error: each proof that is missing.
- A gate that refused, broke or was killed is one error, see :func:`broken`.

``skipped`` is what the policy does not judge: slices with too few images, checks that applied to
nothing, and limits that only warn; and what a person approved although it was not proven. The
headline, the slices and the guards are read off the sequential tests that the verdict rests on:
nothing is tested again here, and a run that its evidence decided early is a whole run. Pure
functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tasks.evidence.charts import rate_words, round_percent
from tasks.policy import Policy
from tasks.records import (
    ArmMetrics,
    ExpectationResult,
    Metrics,
    Rate,
    SequentialResult,
    Slice,
    Verdict,
)

CiOutcome = Literal["passed", "failure", "error", "skipped"]
Suite = Literal["verdict", "slices", "checks", "expectations"]

SUITES: tuple[Suite, ...] = ("verdict", "slices", "checks", "expectations")


@dataclass(frozen=True, slots=True)
class CiCase:
    """One test case: what was looked at and what came of it."""

    suite: Suite
    #: Group within the suite, e.g. the dimension of a slice.
    group: str
    name: str
    outcome: CiOutcome
    #: What came of it, as one sentence.
    sentence: str
    #: More lines: figures and intervals of both arms.
    details: tuple[str, ...] = ()
    #: Kind of failure, error or skip, for CI servers that group by it.
    kind: str = ""


@dataclass(frozen=True)
class CiFacts:
    """What a finished gate says to CI."""

    run_id: str
    product: str
    candidate: str
    baseline: str
    policy: Policy
    metrics: Metrics
    #: The verdict after acting on it: a freeze or a person can turn PROMOTE into HOLD.
    verdict: Verdict
    expectations: Sequence[ExpectationResult]
    #: Findings of the candidate: check → pass, fail, skip or fault → count.
    findings: Mapping[str, Mapping[str, int]]
    #: True when cases are missing.
    incomplete: bool
    spend_usd: float
    seconds: float
    actions: Sequence[str] = ()
    #: Digests that were fixed before the first image, by name.
    digests: Mapping[str, str] = field(default_factory=dict)
    #: Path or address of the report.
    report: str = ""
    #: File of the candidate as it was asked for; annotations point at it.
    candidate_file: str = ""
    #: True when a person was asked who did not answer yet.
    waiting: bool = False


def ci_cases(facts: CiFacts) -> tuple[CiCase, ...]:
    """Return the test cases of a finished gate, suite by suite."""
    verdict, *told = _verdict(facts)
    found = (
        *told,
        *_slices(facts),
        *_checks(facts),
        *(_expectation(result, facts) for result in facts.expectations),
    )
    return (verdict, *(_in_line(case, facts.verdict) for case in found))


def _in_line(case: CiCase, verdict: Verdict) -> CiCase:
    """Return the case with an outcome that the verdict allows: people can overrule the machine."""
    if verdict.verdict == "PROMOTE" and case.outcome in ("failure", "error"):
        sentence = f"{case.sentence}; a person approved it all the same"
        return replace(case, outcome="skipped", sentence=sentence, kind="approved")
    if verdict.verdict == "HOLD" and case.outcome == "failure":
        return replace(case, outcome="error")
    return case


def broken(sentence: str, kind: str) -> tuple[CiCase, ...]:
    """Return the one case of a gate that gave no verdict.

    Args:
        sentence: What happened and what to do.
        kind: Name of the error.
    """
    return (CiCase("verdict", "gate", "verdict", "error", sentence, kind=kind),)


def _verdict(facts: CiFacts) -> Iterator[CiCase]:
    """Yield the verdict itself, which makes the mapping hold whatever the rest says, and rates."""
    verdict = facts.verdict
    outcome: CiOutcome = (
        "passed"
        if verdict.verdict == "PROMOTE"
        else "failure"
        if verdict.verdict == "ROLLBACK"
        else "error"
    )
    told = (
        f"decided after {facts.metrics.candidate.images:,} images",
        *verdict.reasons[1:],
        *(f"warning: {w}" for w in verdict.warnings),
        *(f"done: {a}" for a in facts.actions),
    )
    yield CiCase(
        "verdict",
        "gate",
        "verdict",
        outcome,
        f"{verdict.verdict}: {verdict.reasons[0]}",
        told,
        kind=verdict.verdict,
    )
    yield _headline(facts)
    yield from (_paired(test, facts) for test in facts.verdict.tests if test.kind == "paired")
    if facts.incomplete:
        yield CiCase(
            "verdict",
            "gate",
            "all cases finished",
            "error",
            f"cases are missing; go on with `imagegate run --resume {facts.run_id}`",
            kind="incomplete",
        )


def tests_of(verdict: Verdict) -> dict[str, SequentialResult]:
    """Return the sequential tests behind a verdict by name; none where it keeps none."""
    return {test.name: test for test in verdict.tests}


def _headline(facts: CiFacts) -> CiCase:
    """Return the case of the headline failure rate."""
    rule = facts.policy.failure
    found = f"failure rate {rate_words(facts.metrics.candidate.failure_rate)}"
    limits = (
        f"rolled back above {round_percent(rule.limit)}, "
        f"promoted below {round_percent(rule.promote_below)}"
    )
    details = _arms(facts.metrics.baseline, facts.metrics.candidate)

    def case(outcome: CiOutcome, sentence: str, kind: str = "") -> CiCase:
        return CiCase("verdict", "gate", "failure rate", outcome, sentence, details, kind)

    test = next((t for t in facts.verdict.tests if t.kind == "headline"), None)
    if test is None:
        return case("skipped", f"{found}; this verdict keeps no tests: {limits}", "no_tests")
    if test.failed:
        return case("failure", f"{found}; above the limit: {limits}", "above_limit")
    if test.passed:
        return case("passed", f"{found}; {limits}")
    return case("error", f"{found}; not proven either way: {limits}", "not_proven")


def _paired(test: SequentialResult, facts: CiFacts) -> CiCase:
    """Return the case of the comparison with the baseline on the same inputs."""
    paired, margin = facts.metrics.paired, round_percent(facts.policy.paired.margin)
    found = "no pair was judged"
    if paired is not None:
        found = (
            f"{paired.candidate_only} of {paired.pairs} pairs failed only with the candidate, "
            f"{paired.baseline_only} only with the baseline"
        )

    def case(outcome: CiOutcome, sentence: str, kind: str = "") -> CiCase:
        return CiCase("verdict", "gate", "against the baseline", outcome, sentence, kind=kind)

    if test.failed:
        return case(
            "failure", f"{found}; proven worse than the baseline by more than {margin}", "worse"
        )
    if test.below is not None and not test.passed:
        return case(
            "error", f"{found}; not proven to be within {margin} of the baseline", "not_proven"
        )
    return case("passed", f"{found}; {'looks worse' if test.amber else f'margin {margin}'}")


def _slices(facts: CiFacts) -> Iterator[CiCase]:
    """Yield the candidate's slices, and the judged and critical ones of which none was drawn."""
    pieces = [p for p in facts.metrics.slices if p.arm == "candidate" and p.dimension != "check"]
    before = {(p.dimension, p.value): p.rate for p in facts.metrics.slices if p.arm == "baseline"}
    tests = tests_of(facts.verdict)
    for piece in pieces:
        name = f"{piece.dimension}={piece.value}"
        old = before.get((piece.dimension, piece.value))
        yield _slice(piece, old, facts.policy, tests.get(name))
    seen = {f"{p.dimension}={p.value}" for p in pieces}
    judged = [test.name for test in facts.verdict.tests if test.kind == "slice"]
    for name in dict.fromkeys((*facts.policy.slices.critical, *judged)):
        if name not in seen:
            yield _not_drawn(name, critical=name in facts.policy.slices.critical)


def _not_drawn(name: str, *, critical: bool) -> CiCase:
    """Return the case of a slice that no judged image is in."""
    dimension = name.partition("=")[0]
    if critical:
        sentence = f"not covered: the policy calls {name} critical, and no case of it was judged"
        return CiCase("slices", dimension, name, "error", sentence, kind="not_covered")
    sentence = "no case of it was judged before the run ended"
    return CiCase("slices", dimension, name, "skipped", sentence, kind="not_drawn")


def _slice(
    piece: Slice, before: Rate | None, policy: Policy, test: SequentialResult | None
) -> CiCase:
    """Return the case of one slice.

    Args:
        piece: The candidate's failures in it.
        before: The baseline's, if it has the slice.
        policy: The limits.
        test: What the decision found of it; ``None`` where it was not judged.
    """
    rule, name = policy.slices, f"{piece.dimension}={piece.value}"
    found = rate_words(piece.rate)
    details = (f"candidate: {found}", f"baseline: {rate_words(before) if before else 'no cases'}")

    def case(outcome: CiOutcome, sentence: str, kind: str = "") -> CiCase:
        return CiCase("slices", piece.dimension, name, outcome, sentence, details, kind)

    if test is None:
        if piece.dimension not in rule.dimensions:
            return case(
                "skipped", f"{found}; the policy does not judge this dimension", "not_judged"
            )
        return case(
            "skipped",
            f"{found}; the plan has too few cases of it to judge, the policy asks for "
            f"{rule.min_images}",
            "too_few_images",
        )
    if test.failed:
        return case(
            "failure",
            f"{found} failed; the policy rolls back above {round_percent(rule.limit)} in a slice",
            "above_limit",
        )
    if test.below is not None:
        below = round_percent(rule.critical_below)
        if not test.passed:
            return case(
                "error", f"{found} failed; critical, and not proven below {below}", "not_proven"
            )
        return case("passed", f"{found}; critical, proven below {below}")
    doubt = "; looks bad, which is not proven" if test.amber else ""
    return case("passed", f"{found}; limit {round_percent(rule.limit)}{doubt}")


def _checks(facts: CiFacts) -> Iterator[CiCase]:
    """Yield every check that looked at a picture, and what the delivery failed with."""
    rates = {
        arm: {
            p.value: p.rate for p in facts.metrics.slices if p.dimension == "check" and p.arm == arm
        }
        for arm in ("candidate", "baseline")
    }
    for name in sorted({*rates["candidate"], *facts.findings}):
        yield _check(
            name,
            rates["candidate"].get(name),
            rates["baseline"].get(name),
            facts.findings.get(name, {}),
            facts,
        )


def _check(
    name: str,
    rate: Rate | None,
    before: Rate | None,
    findings: Mapping[str, int],
    facts: CiFacts,
) -> CiCase:
    """Return the case of one check.

    The policy has no limit for a single check: what it finds counts through the headline and the
    slices. So a check fails the build only together with a ROLLBACK, when its rate lies above the
    headline's limit with the whole of its interval; and a fault that the policy tolerated, because
    it promoted all the same, is told and not held against the build.
    """
    verdict, limit = facts.verdict.verdict, facts.policy.failure.limit
    faults = findings.get("fault", 0)
    found = "no picture judged" if rate is None or rate.n == 0 else rate_words(rate)
    details = (
        f"candidate: {found}; "
        + ", ".join(f"{findings.get(k, 0)} {k}" for k in ("pass", "fail", "skip", "fault")),
        f"baseline: {rate_words(before) if before else 'no picture judged'}",
    )

    def case(outcome: CiOutcome, sentence: str, kind: str = "") -> CiCase:
        return CiCase("checks", name.partition(".")[0], name, outcome, sentence, details, kind)

    if verdict == "ROLLBACK" and rate is not None and rate.lower > limit:
        return case(
            "failure",
            f"{found} failed; the policy's limit is {round_percent(limit)}",
            "above_limit",
        )
    if faults and verdict != "PROMOTE":
        return case(
            "error", f"the check itself broke on {faults} pictures; {found}", "checker_fault"
        )
    if name in facts.policy.checks.consistency.told_only and not faults:
        bad, judged = findings.get("fail", 0), findings.get("fail", 0) + findings.get("pass", 0)
        told = f"told only: by the policy it fails no picture; {bad} of {judged} do not hold"
        return case("skipped", told, "told_only")
    if rate is None or rate.n == 0:
        why = "the check itself broke on the only ones" if faults else "it applied to none"
        return case("skipped", f"no picture judged: {why}", "not_covered")
    tolerated = f"; broke on {faults} pictures, within the policy" if faults else ""
    return case("passed", f"{found}{tolerated}")


def _expectation(result: ExpectationResult, facts: CiFacts) -> CiCase:
    """Return the case of one expectation of the policy.

    A guarded limit fails the build by its test: a figure can be past its limit by chance. Other
    limits that roll back are judged once, at the end of the plan, and not where a run ended early.
    """
    guard = tests_of(facts.verdict).get(result.source)
    early = facts.verdict.savings is not None

    def case(outcome: CiOutcome, kind: str, sentence: str = result.sentence) -> CiCase:
        details = (f"observed: {result.observed}", f"on breach: {result.on_breach}")
        # The same limit can stand in the policy twice: its place keeps the names apart.
        name = f"{result.name} ({result.source})"
        group = result.source.partition("[")[0].partition(".")[0]
        return CiCase("expectations", group, name, outcome, sentence, details, kind)

    if guard is not None and guard.failed:
        return case("failure", result.on_breach, f"proven past its limit: {result.sentence}")
    if result.success and not result.unmeasured:
        return case("passed", "")
    if result.on_breach == "warn":
        return case("skipped", "warning", f"warning only: {result.sentence}")
    if result.unmeasured:
        return case("error", "unmeasured", f"the data cannot answer: {result.sentence}")
    if result.on_breach == "rollback" and (guard is not None or early):
        return case("error", "not_proven", f"past its limit, not proven: {result.sentence}")
    return case("failure" if result.on_breach == "rollback" else "error", result.on_breach)


def _arms(before: ArmMetrics, after: ArmMetrics) -> tuple[str, ...]:
    return tuple(
        f"{arm.arm}: {rate_words(arm.failure_rate)}; {arm.accounts.defect} defect, "
        f"{arm.accounts.refused} refused, {arm.accounts.undelivered} undelivered, "
        f"{arm.accounts.unmeasured} unmeasured of {arm.images} images"
        for arm in (after, before)
    )
