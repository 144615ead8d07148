"""What the providers did instead of what they were asked, as sentences for a verdict.

A case that ends without a picture counts against its mix whatever the cause. The cause is what the
reader must act on: another version than pinned, an ignored seed, a silent fallback or a picture
blurred by a filter is no bad luck of the wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from tasks.records import Arm, Attempt, FailureClass, Generation

#: Causes that are named in a verdict; the report has every attempt.
MOST_CAUSES = 5
#: Letters of a provider's words in one sentence.
_MOST_TEXT = 300

#: What a class means to the reader, the gravest first; also the order of the sentences.
_MEANS: dict[FailureClass, str] = {
    FailureClass.DRIFT: "did something else than was asked",
    FailureClass.REFUSAL: "refused",
    FailureClass.RETIRED: "does not serve the model any more",
    FailureClass.AUTH: "turned the key away",
    FailureClass.BAD_REQUEST: "did not take the request",
    FailureClass.ASSET_URL: "named a picture that cannot be fetched",
    FailureClass.MALFORMED: "sent something that is no picture",
    FailureClass.EMPTY: "sent no picture",
    FailureClass.THROTTLED: "had no capacity",
    FailureClass.SERVER: "failed",
    FailureClass.TRANSPORT: "could not be reached",
}
_GRAVITY = {failure: place for place, failure in enumerate(_MEANS)}
#: Answers that nobody gets to see where a stage was left out: the case was served all the same.
_TOLD_ANYWAY = frozenset({FailureClass.DRIFT, FailureClass.REFUSAL})


def departures(
    generations: Iterable[Generation], arm: Arm = "candidate", right: Collection[str] = ()
) -> tuple[str, ...]:
    """Return what the providers of an arm did instead, a sentence for each model and cause.

    Args:
        generations: The cases that count, of any arm.
        arm: Whose are told.
        right: Cases of the arm, by id, in which a refusal is what was wanted.

    Returns:
        At most :data:`MOST_CAUSES` sentences: first what was not as asked or refused, then what
        failed, each with the number of cases and the words of the first attempt.
    """
    own = [generation for generation in generations if generation.arm == arm]
    counts: Counter[tuple[str, FailureClass]] = Counter()
    said: dict[tuple[str, FailureClass], str] = {}
    for generation in own:
        if generation.case_id in right:
            continue
        ends = {(attempt.model, failure): attempt for attempt, failure in _ends(generation)}
        for cause, attempt in ends.items():
            counts[cause] += 1
            said.setdefault(cause, _words(attempt))
    order = sorted(counts, key=lambda cause: (_GRAVITY[cause[1]], -counts[cause], cause[0]))
    return tuple(
        f"The provider of model {model!r} {_MEANS[failure]} ({failure}) in {counts[model, failure]}"
        f" of {len(own):,} cases: {said[model, failure]}."
        for model, failure in order[:MOST_CAUSES]
    )


def moved(generations: Iterable[Generation]) -> Iterator[str]:
    """Yield which aliases of the candidate were answered by another version than the catalog's."""
    seen = {
        (attempt.model, attempt.model_reported): None
        for generation in generations
        if generation.arm == "candidate"
        for attempt in generation.attempts
        if attempt.pin == "moved"
    }
    for model, reported in list(seen)[:MOST_CAUSES]:
        yield (
            f"Model {model!r} is an alias that moved: {(reported or '')[:_MOST_TEXT]!r} answered, "
            "which the catalog does not name."
        )


def _ends(generation: Generation) -> Iterator[tuple[Attempt, FailureClass]]:
    """Yield the attempts of a case that cost it its picture, or a stage of its route."""
    last = None if generation.status == "ok" else len(generation.attempts) - 1
    for place, attempt in enumerate(generation.attempts):
        failure = attempt.failure
        if failure in _MEANS and (place == last or failure in _TOLD_ANYWAY):
            yield attempt, failure


def _words(attempt: Attempt) -> str:
    """Return what was said of an attempt in one line, without its full stop."""
    return " ".join(attempt.message.split())[:_MOST_TEXT].rstrip(". ") or "nothing was said"
