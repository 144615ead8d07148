"""What the policy says of pictures that are judged together, answered: pure.

Great Expectations sees outcomes and figures. A group is neither: where its findings fail no
picture, they are told, or hold a promotion, as an expectation of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasks.check_rules import GROUP_KINDS, ConsistencyRules
from tasks.checks.groups import Tally, tally
from tasks.records import Arm, ExpectationResult, ImageReport

#: What holds of pictures that pass, and what is said of those that do not.
_WORDS = {
    "near_duplicate": ("different prompts get different pictures", "repeat another prompt's"),
    "campaign": ("campaigns share colours and layout", "stray from their campaign"),
    "repeat": ("repeats of a prompt look alike", "stray from the other repeats"),
    "seed": ("another seed gives another picture", "are one picture whatever the seed"),
}
#: Cases that a sentence names.
_MOST = 3


def group_results(
    rules: ConsistencyRules, reports: Mapping[tuple[Arm, str], ImageReport]
) -> Iterator[ExpectationResult]:
    """Yield an answer for each kind that was judged on the candidate and fails no picture.

    A kind that counts as failures is in the failure rate already and is not told twice.

    Args:
        rules: What each kind counts as.
        reports: The reports of the run, group findings included.
    """
    for kind in GROUP_KINDS:
        counts_as = getattr(rules, kind)
        check = f"consistency.{kind}"
        seen = tally(reports, "candidate", check)
        if counts_as == "failure" or not seen.judged + seen.faults:
            continue
        yield ExpectationResult(
            name=f"{check} fails no picture",
            source=f"checks.consistency.{kind}",
            on_breach=counts_as,
            # What broke was not judged: that is no good news.
            success=not seen.failed and not seen.faults,
            observed=float(len(seen.failed)),
            sentence=_sentence(kind, seen, tally(reports, "baseline", check)),
        )


def _sentence(kind: str, seen: Tally, before: Tally) -> str:
    good, bad = _WORDS[kind]
    broken = f"; the check broke on {seen.faults:,} more" if seen.faults else ""
    if not seen.failed:
        return f"In {seen.judged:,} pictures that belong together, {good}{broken}"
    named = ", ".join(map(repr, seen.failed[:_MOST]))
    more = "" if len(seen.failed) <= _MOST else f" and {len(seen.failed) - _MOST:,} more"
    return (
        f"{len(seen.failed):,} of the candidate's {seen.judged:,} pictures {bad} "
        f"({len(before.failed):,} of the baseline's {before.judged:,}): {named}{more}; the first: "
        f"{seen.said}{broken}"
    )
