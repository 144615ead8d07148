"""Which cases the report shows, and what it says about each: the data behind the gallery."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.evidence.findings import crops, shown_report
from tasks.evidence.rules import rule_words
from tasks.evidence.text import shorten, visible
from tasks.evidence.view import ARMS, ReportView, picture_key
from tasks.records import Arm, Case, Generation, ImageReport, Outcome, Region

#: Failures that get thumbnails, and failures that are listed at all.
MOST_PICTURED = 600
MOST_LISTED = 8_000
#: Passing pictures shown as a sample.
MOST_PASSING = 24
#: Characters of a prompt that the report holds; the evidence holds all of them.
PROMPT_PICTURED = 2_000
PROMPT_LISTED = 240

Change = Literal["new", "both", "fixed", "unmeasured"]
_ORDER: tuple[Change, ...] = ("new", "both", "unmeasured", "fixed")


@dataclass(frozen=True, slots=True)
class Entry:
    """One case with what both arms made of it."""

    case: Case
    change: Change
    outcomes: Mapping[Arm, Outcome]


@dataclass(frozen=True, slots=True)
class Selection:
    """What the report shows of a run."""

    #: Cases that failed or could not be measured in an arm, new failures first.
    failing: tuple[Entry, ...]
    #: How many there are, listed or not.
    total: int
    #: A sample of cases that the candidate served well.
    passing: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture, or the part of one, that the report would like to show."""

    #: In the image store; empty for a picture that came in.
    digest: str = ""
    region: Region | None = None
    #: Of a picture that came in, an upload or a mask: its path below the folder of the inputs.
    file: str = ""

    @property
    def key(self) -> str:
        """Name of the thumbnail."""
        return picture_key(self.digest, self.region) if self.digest else f"input:{self.file}"


def select(view: ReportView) -> Selection:
    """Return the cases that the report shows, in its order."""
    outcomes: dict[str, dict[Arm, Outcome]] = {}
    for outcome in view.outcomes:
        outcomes.setdefault(outcome.case_id, {})[outcome.arm] = outcome
    failing: list[Entry] = []
    passing: list[Entry] = []
    for case in view.plan.by_id.values():
        both = outcomes.get(case.case_id, {})
        change = _change(both)
        if change is not None:
            failing.append(Entry(case, change, both))
        elif "candidate" in both and case.expect == "image":
            passing.append(Entry(case, "fixed", both))
    failing.sort(key=lambda entry: _ORDER.index(entry.change))
    return Selection(
        failing=tuple(failing[:MOST_LISTED]),
        total=len(failing),
        passing=_sample(passing, MOST_PASSING),
    )


def _change(outcomes: Mapping[Arm, Outcome]) -> Change | None:
    """Return how the candidate's failure relates to the baseline's, ``None`` without either."""
    candidate, baseline = outcomes.get("candidate"), outcomes.get("baseline")
    if candidate is not None and candidate.failed:
        return "both" if baseline is not None and baseline.failed else "new"
    if any(outcome.outcome == "unmeasured" for outcome in outcomes.values()):
        return "unmeasured"
    if baseline is not None and baseline.failed:
        return "fixed"
    return None


def _sample(entries: Iterable[Entry], most: int) -> tuple[Entry, ...]:
    """Return a sample spread over subtasks and locales, the same at every call."""

    def lot(entry: Entry) -> bytes:
        return hashlib.sha256(entry.case.case_id.encode("utf-8", "surrogatepass")).digest()

    strata: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lot):
        strata.setdefault((entry.case.subtask, entry.case.locale), []).append(entry)
    chosen: list[Entry] = []
    depth = 0
    while len(chosen) < most and any(len(group) > depth for group in strata.values()):
        chosen += [group[depth] for _, group in sorted(strata.items()) if len(group) > depth]
        depth += 1
    return tuple(chosen[:most])


def wanted_pictures(view: ReportView, selection: Selection) -> list[Wanted]:
    """Return the pictures to draw, the most telling first, each once.

    First every failing picture, then what the findings mark on it, then what it was made from,
    then the passing sample, then the other arm's picture beside each failure.
    """
    generations = by_arm_and_case(view.generations)
    first: list[Wanted] = []
    marked: list[Wanted] = []
    origins: list[Wanted] = []
    beside: list[Wanted] = []
    for entry in selection.failing[:MOST_PICTURED]:
        for arm, outcome in entry.outcomes.items():
            generation = generations.get((arm, entry.case.case_id))
            digest = _digest(generation)
            amiss = outcome.failed or outcome.outcome == "unmeasured"
            if amiss:
                origins += [Wanted(file=f) for f in (entry.case.upload, entry.case.mask) if f]
            if generation is None or digest is None:
                continue
            if not amiss:
                beside.append(Wanted(digest))
                continue
            first.append(Wanted(digest))
            report = view.reports.get((arm, entry.case.case_id))
            marked += [Wanted(digest, region) for region in crops(report)]
            if generation.source_digest is not None:
                origins.append(Wanted(generation.source_digest))
    sample = [
        Wanted(digest)
        for entry in selection.passing
        if (digest := _digest(generations.get(("candidate", entry.case.case_id)))) is not None
    ]
    return list(dict.fromkeys([*first, *marked, *origins, *sample, *beside]))


def by_arm_and_case(generations: Iterable[Generation]) -> dict[tuple[Arm, str], Generation]:
    """Return the generations by arm and case."""
    return {(g.arm, g.case_id): g for g in generations}


def _digest(generation: Generation | None) -> str | None:
    return None if generation is None else generation.image_digest


def gallery(view: ReportView, selection: Selection) -> dict[str, Any]:
    """Return the data of the gallery as plain JSON values; every text in it is made visible."""
    generations = by_arm_and_case(view.generations)
    names = sorted({f.check for report in view.reports.values() for f in report.findings})
    index = {name: number for number, name in enumerate(names)}
    items = []
    used: set[str] = set()
    for position, entry in enumerate(selection.failing):
        pictured = position < MOST_PICTURED
        sides = {}
        for arm in ARMS:
            key = (arm, entry.case.case_id)
            if key in generations or arm in entry.outcomes:
                sides[arm] = _side(
                    view, entry, arm, generations.get(key), view.reports.get(key), index, pictured
                )
        item = _item(entry, position, pictured) | {"arms": sides}
        used.update(key for key in _keys(item) if key in view.thumbs)
        items.append(item)
    reasons = {r for entry in selection.failing for o in entry.outcomes.values() for r in o.reasons}
    return {
        "checks": names,
        "words": {visible(name): rule_words(visible(name)) for name in sorted({*names, *reasons})},
        "items": items,
        "thumbs": {key: _thumb(view, key) for key in sorted(used)},
        "pictured": min(MOST_PICTURED, len(selection.failing)),
        "total": selection.total,
    }


def _keys(item: Mapping[str, Any]) -> list[str]:
    """Return the names of all pictures that an item shows."""
    keys = [item[name] for name in ("upload", "mask") if name in item]
    for side in item["arms"].values():
        keys += [side[name] for name in ("img", "source") if name in side]
        keys += [f["crop"] for f in side["findings"] if "crop" in f]
    return keys


def _thumb(view: ReportView, key: str) -> Any:
    import base64

    thumb = view.thumbs[key]
    if thumb.problem:
        return {"problem": visible(thumb.problem), "head": thumb.head}
    return base64.b64encode(thumb.data).decode("ascii")


def _item(entry: Entry, position: int, pictured: bool) -> dict[str, Any]:
    case = entry.case
    prompt = visible(case.prompt)
    item: dict[str, Any] = {
        "n": position,
        "id": visible(case.case_id),
        "prompt": shorten(prompt, PROMPT_PICTURED if pictured else PROMPT_LISTED),
        "length": len(prompt),
        "subtask": case.subtask,
        "locale": visible(case.locale),
        "origin": case.origin,
        "change": entry.change,
        "size": f"{case.width} × {case.height}",
    }
    if case.theme:
        item["theme"] = visible(case.theme)
    if case.expect != "image":
        item["expect"] = case.expect
    if case.expected_text:
        item["expected"] = [shorten(visible(t), 400) for t in case.expected_text[:12]]
    if case.upload:
        item["upload"] = Wanted(file=case.upload).key
    if case.mask:
        item["mask"] = Wanted(file=case.mask).key
    return item


def _side(
    view: ReportView,
    entry: Entry,
    arm: Arm,
    generation: Generation | None,
    report: ImageReport | None,
    index: Mapping[str, int],
    pictured: bool,
) -> dict[str, Any]:
    """Return what one arm made of a case."""
    outcome = entry.outcomes.get(arm)
    side: dict[str, Any] = {"findings": []}
    if outcome is not None:
        side |= {
            "outcome": outcome.outcome,
            "failed": outcome.failed,
            "reasons": [visible(r) for r in outcome.reasons],
            "model": visible(outcome.model),
        }
    if generation is not None:
        side |= {
            "model": visible(" → ".join(generation.models)),
            "latency": round(generation.latency_s, 3),
            "cost": generation.cost_microusd,
            "attempts": len(generation.attempts),
        }
        if generation.cached:
            side["cached"] = True
        if generation.failure is not None or generation.message:
            side["failure"] = shorten(visible(_failure(generation)), 300)
        if generation.image_digest is not None:
            side["img"] = picture_key(generation.image_digest)
            if generation.image_digest in view.links:
                side["link"] = view.links[generation.image_digest]
        if generation.source_digest is not None:
            side["source"] = picture_key(generation.source_digest)
    if report is not None:
        side |= shown_report(
            entry.case,
            generation,
            report,
            index,
            compared=pictured,
            told_only=view.plan.policy.checks.consistency.told_only,
        )
    return side


def _failure(generation: Generation) -> str:
    """Return why there is no picture: the failure class, unless the reason says the same."""
    if generation.failure is None or generation.status == "refused":
        return generation.message or generation.status
    return f"{generation.failure.value}: {generation.message}".rstrip(": ")
