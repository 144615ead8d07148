"""Whether production asks for what the gate judged: which subtasks and locales are new. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from tasks.policy import Policy
from tasks.records import Case
from tasks.rollout.watch.memory import NAMES_KEPT, Memory, Sample

#: New names that a sentence gives.
_SHOWN = 6


def sample_of(run_id: str, cases: Iterable[Case]) -> Sample:
    """Return which subtasks and locales the cases of a gate run had."""
    listed = list(cases)
    return Sample(
        run_id,
        tuple(sorted({case.subtask for case in listed})),
        tuple(sorted({_language(case.locale) for case in listed})),
    )


def _language(locale: str) -> str:
    """Return the language of a locale: ``de-CH`` was judged when ``de`` was."""
    return locale.replace("_", "-").split("-")[0].lower()


def new_in(sample: Sample, subtask: str, locale: str) -> str | None:
    """Return what of an input the gate had no case of, ``None`` when it had.

    What a log does not say cannot be told to be new.
    """
    if subtask and subtask not in sample.subtasks:
        return f"subtask {subtask}"
    if locale and _language(locale) not in sample.locales:
        return f"locale {locale}"
    return None


def fold_inputs(memory: Memory, inputs: Mapping[tuple[str, str], int] | None) -> Memory:
    """Return the memory with the inputs of one more window in it."""
    if inputs is None or memory.sample is None:
        return memory
    new = Counter(memory.new_inputs)
    seen = unseen = 0
    for (subtask, locale), requests in inputs.items():
        if not (subtask or locale):
            continue
        seen += requests
        name = new_in(memory.sample, subtask, locale)
        if name is not None:
            unseen += requests
            # Names come from a log: as many as somebody likes, as long as they like.
            new[name[:80]] += requests
    return replace(
        memory,
        unseen=memory.unseen.seen(seen, unseen),
        new_inputs=dict(new.most_common(NAMES_KEPT)),
    )


def unseen_words(memory: Memory, policy: Policy) -> str:
    """Return that the gate's cases do not cover production any more, or nothing."""
    if memory.sample is None or not memory.unseen.alarm:
        return ""
    most = Counter(memory.new_inputs).most_common()
    named = ", ".join(
        f"{name} ({100 * n / memory.unseen.images:.1f} %)" for name, n in most[:_SHOWN]
    )
    more = f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else ""
    return (
        f"{100 * (memory.unseen.rate or 0):.1f} % of the requests are of kinds that gate run "
        f"{memory.sample.run_id} had no case of (limit {100 * policy.watch.unseen_limit:g} %): "
        f"{named}{more}"
    )
