"""A verdict as test cases for CI: what passed, what failed the build, what is not proven.

How outcomes and verdicts hang together, so that no CI server colours a build differently from the
gate:

- PROMOTE has neither failures nor errors.
- ROLLBACK has at least one failure. Only a ROLLBACK has failures.
- HOLD has at least one error: each proof that is missing.
- A gate that refused, broke or was killed is one error, see :func:`broken`.

``skipped`` is what the policy does not judge: slices with too few images, checks that applied to
nothing, and limits that only warn. Slices and the headline are judged here by the tests of the
decision itself, never by other ones. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tasks.evidence.charts import rate_words, round_percent
from tasks.metrics.rates import lower_bound, upper_bound
from tasks.policy import Policy
from tasks.records import ArmMetrics, ExpectationResult, Metrics, Rate, Slice, Verdict
from tasks.verdict.bounds import FailureTest

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
    return (
        *_verdict(facts),
        *_slices(facts),
        *_checks(facts),
        *(_expectation(result) for result in facts.expectations),
    )


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
    rate, rule = facts.metrics.candidate.failure_rate, facts.policy.failure
    fails, passes = headline(rate, facts.policy)
    found = f"failure rate {rate_words(rate)}"
    details = _arms(facts.metrics.baseline, facts.metrics.candidate)
    limits = (
        f"rolled back above {round_percent(rule.limit)}, "
        f"promoted below {round_percent(rule.promote_below)}"
    )
    if fails:
        yield _headline("failure", f"{found}; above the limit: {limits}", details, "above_limit")
    elif passes:
        yield _headline("passed", f"{found}; {limits}", details, "")
    else:
        yield _headline("error", f"{found}; not proven either way: {limits}", details, "not_proven")
    if facts.incomplete:
        yield CiCase(
            "verdict",
            "gate",
            "all cases finished",
            "error",
            f"cases are missing; go on with `imagegate run --resume {facts.run_id}`",
            kind="incomplete",
        )


def headline(rate: Rate, policy: Policy) -> tuple[bool, bool]:
    """Return whether the rate is proven above the limit, and proven below ``promote_below``."""
    rule = policy.failure

    def looked(failures: int) -> str | None:
        test = FailureTest(rule.limit, rule.promote_below, rule.alpha / 2, rule.beta)
        return test.update(failures, rate.n)

    return (
        looked(rate.failures) == "ROLLBACK",
        # What nobody could judge counts as failed where a pass is to be proven.
        looked(rate.failures + rate.unmeasured) == "PROMOTE",
    )


def _headline(outcome: CiOutcome, sentence: str, details: tuple[str, ...], kind: str) -> CiCase:
    return CiCase("verdict", "gate", "failure rate", outcome, sentence, details, kind)


def _slices(facts: CiFacts) -> Iterator[CiCase]:
    """Yield the candidate's slices, and the critical ones that have no case at all."""
    rule = facts.policy.slices
    pieces = [p for p in facts.metrics.slices if p.arm == "candidate" and p.dimension != "check"]
    before = {(p.dimension, p.value): p.rate for p in facts.metrics.slices if p.arm == "baseline"}
    judged = sum(1 for p in pieces if _judged(p, facts.policy))
    share = facts.policy.failure.alpha / 2 / max(1, judged)
    for piece in pieces:
        yield _slice(piece, before.get((piece.dimension, piece.value)), facts.policy, share)
    seen = {f"{p.dimension}={p.value}" for p in pieces}
    for name in rule.critical:
        if name not in seen:
            dimension = name.partition("=")[0]
            yield CiCase(
                "slices",
                dimension,
                name,
                "error",
                f"not covered: the policy calls {name} critical, and no case of it was judged",
                kind="not_covered",
            )


def _judged(piece: Slice, policy: Policy) -> bool:
    rule = policy.slices
    return piece.dimension in rule.dimensions and piece.rate.n >= rule.min_images


def _slice(piece: Slice, before: Rate | None, policy: Policy, share: float) -> CiCase:
    """Return the case of one slice.

    Args:
        piece: The candidate's failures in it.
        before: The baseline's, if it has the slice.
        policy: The limits.
        share: The part of alpha that each judged slice may use.
    """
    rule, rate, name = policy.slices, piece.rate, f"{piece.dimension}={piece.value}"
    found = rate_words(rate)
    details = (f"candidate: {found}", f"baseline: {rate_words(before) if before else 'no cases'}")

    def case(outcome: CiOutcome, sentence: str, kind: str = "") -> CiCase:
        return CiCase("slices", piece.dimension, name, outcome, sentence, details, kind)

    if _judged(piece, policy) and lower_bound(rate.failures, rate.n, share) > rule.limit:
        return case(
            "failure",
            f"{found} failed; the policy rolls back above {round_percent(rule.limit)} in a slice",
            "above_limit",
        )
    if name in rule.critical:
        bound = upper_bound(rate.failures + rate.unmeasured, rate.n, policy.failure.beta)
        if not bound < rule.critical_below:
            return case(
                "error",
                f"{found} failed; critical, and not proven to be below "
                f"{round_percent(rule.critical_below)}",
                "not_proven",
            )
        return case("passed", f"{found}; critical, below {round_percent(rule.critical_below)}")
    if piece.dimension not in rule.dimensions:
        return case("skipped", f"{found}; the policy does not judge this dimension", "not_judged")
    if rate.n < rule.min_images:
        return case(
            "skipped",
            f"{found}; too few images to judge, the policy asks for {rule.min_images}",
            "too_few_images",
        )
    return case("passed", f"{found}; limit {round_percent(rule.limit)}")


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
    if rate is None or rate.n == 0:
        why = "the check itself broke on the only ones" if faults else "it applied to none"
        return case("skipped", f"no picture judged: {why}", "not_covered")
    tolerated = f"; broke on {faults} pictures, within the policy" if faults else ""
    return case("passed", f"{found}{tolerated}")


def _expectation(result: ExpectationResult) -> CiCase:
    """Return the case of one expectation of the policy."""

    def case(outcome: CiOutcome, kind: str, sentence: str = result.sentence) -> CiCase:
        details = (f"observed: {result.observed}", f"on breach: {result.on_breach}")
        # The same limit can stand in the policy twice: its place keeps the names apart.
        name = f"{result.name} ({result.source})"
        group = result.source.partition("[")[0].partition(".")[0]
        return CiCase("expectations", group, name, outcome, sentence, details, kind)

    if result.success and not result.unmeasured:
        return case("passed", "")
    if result.on_breach == "warn":
        return case("skipped", "warning", f"warning only: {result.sentence}")
    if result.unmeasured:
        return case("error", "unmeasured", f"the data cannot answer: {result.sentence}")
    return case("failure" if result.on_breach == "rollback" else "error", result.on_breach)


def _arms(before: ArmMetrics, after: ArmMetrics) -> tuple[str, ...]:
    return tuple(
        f"{arm.arm}: {rate_words(arm.failure_rate)}; {arm.accounts.defect} defect, "
        f"{arm.accounts.refused} refused, {arm.accounts.undelivered} undelivered, "
        f"{arm.accounts.unmeasured} unmeasured of {arm.images} images"
        for arm in (after, before)
    )
