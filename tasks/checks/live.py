"""Planted defects in every run: do the workers of this run see today what the record promises?

A few drawings of this run alone, by its id, go through the run's own workers, with defects planted
in them, while pictures are generated. What comes out lies in the run's folder beside the record
that the decision uses, so the verdict can be worked out again without today's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from tasks.check_rules import GROUP_KINDS, CheckRules
from tasks.checks.counts import CheckHealth, OwnHealth, together
from tasks.checks.pool import CheckPool, DrawingReport
from tasks.errors import EvidenceError
from tasks.plan import RunFolder, RunPlan
from tasks.records import Case

#: The file in a run's folder.
FILE = "planted.json"
#: What a case must have for a check to judge its picture; a check that is not named judges all.
Need = Literal["text", "brand", "upload", "mask", "source", "campaign", "repeat"]
_NEEDS: Mapping[str, tuple[Need, ...]] = {
    "typography.text": ("text",),
    "colour.palette": ("brand",),
    "composition.logo": ("brand",),
    "composition.margins": ("brand", "text"),
    "composition.subject": ("brand",),
    "geometry.orientation": ("upload",),
    "edit.outside": ("upload", "mask"),
}
#: Checks that count where the policy lets them fail a picture or hold a build, and what they need.
_BY_POLICY: Mapping[str, Need] = {
    "typography.extra": "text",
    "consistency.campaign": "campaign",
    "consistency.repeat": "repeat",
    "consistency.seed": "repeat",
}
_FAMILY_NEEDS: Mapping[str, tuple[Need, ...]] = {"edit": ("upload",), "upscale": ("source",)}


@dataclass(frozen=True)
class Planted:
    """What is known of the checks in a run: the record, and today's drawings.

    Lies in the run's folder as :data:`FILE`.
    """

    #: Version of the checks and libraries, as :func:`tasks.checks.health.version` has it.
    version: str
    #: Drawings that the record counts, and its counts.
    pictures: int
    record: tuple[CheckHealth, ...]
    #: Checks that can judge a picture of this run, by its plan.
    counting: tuple[str, ...]
    #: Drawings of this run that were to be measured, that were, and what was found in them.
    asked: int
    done: int = 0
    today: tuple[CheckHealth, ...] = ()
    #: Why drawings were not measured, each reason once.
    problems: tuple[str, ...] = ()
    #: What the policy's own checks made in this run of what they plant and know.
    own: tuple[OwnHealth, ...] = ()


_PLANTED: TypeAdapter[Planted] = TypeAdapter(Planted)


def counting(names: Collection[str], plan: RunPlan) -> tuple[str, ...]:
    """Return the checks that can judge a picture of a run.

    By the plan, before the first image: were it by what was seen, the threshold of a proof would
    change while it is made.

    Args:
        names: All checks.
        plan: The plan; extra cases of slices count too.
    """
    has: set[frozenset[Need]] = {_has(case, plan) for case in plan.by_id.values()}
    told = _told_only(plan.policy.checks)
    return tuple(
        name
        for name in names
        if name not in told and any(each >= set(_needs(name)) for each in has)
    )


def _told_only(rules: CheckRules) -> frozenset[str]:
    """Return the checks of which, by the policy, findings are only shown."""
    shown = {f"consistency.{k}" for k in GROUP_KINDS if getattr(rules.consistency, k) == "warn"}
    if rules.extra_text == "report":
        shown.add("typography.extra")
    return frozenset(shown & _BY_POLICY.keys())


def _needs(check: str) -> tuple[Need, ...]:
    if check in _BY_POLICY:
        return (_BY_POLICY[check],)
    return _NEEDS.get(check) or _FAMILY_NEEDS.get(check.partition(".")[0], ())


def _has(case: Case, plan: RunPlan) -> frozenset[Need]:
    routes = (mix.mix.routes[case.subtask] for mix in (plan.baseline, plan.candidate))
    stages = (stage for route in routes for way in route for stage in way.stages)
    found: dict[Need, bool] = {
        "text": bool(case.expected_text),
        "brand": case.brand is not None,
        "upload": case.upload is not None,
        "mask": case.mask is not None,
        "source": any(stage.operation == "upscale" for stage in stages),
        "campaign": case.campaign is not None,
        "repeat": case.repeat is not None,
    }
    return frozenset(need for need, there in found.items() if there)


def seed_of(run_id: str) -> int:
    """Return the seed of a run's drawings: those of no other run."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4])


class LiveLook:
    """Plants defects among the first pictures of a run.

    Args:
        folder: The run's folder; what lies there from before, of the same version, is kept.
        known: What is known before: the record, and no drawing of today.
        pool: The run's workers.
        without: Checks of the suite that nothing is planted for today: the run asks for none.
        idle: Checks of the policy's own that can judge no picture of the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        known: Planted,
        pool: CheckPool,
        without: Collection[str] = (),
        idle: Collection[str] = (),
    ) -> None:
        self._folder = folder
        self._known = known
        self._pool, self._seed = pool, seed_of(folder.run_id)
        self._without, self._idle = frozenset(without), frozenset(idle)
        self._jobs: list[Future[DrawingReport]] = []
        before = read_planted(folder)
        if before is not None and _finished(before, known):
            return
        write_planted(folder, known)
        self._jobs = [self._submit(number) for number in range(known.asked)]

    def _submit(self, number: int) -> Future[DrawingReport]:
        return self._pool.submit_drawing(self._seed, number, self._known.asked, self._without)

    def finish(self) -> None:
        """Wait for the workers and keep what they found; nothing when that is done already.

        Raises:
            EvidenceError: The disk is full.
        """
        if not self._jobs:
            return
        today: tuple[CheckHealth, ...] = ()
        own: tuple[OwnHealth, ...] = ()
        problems: list[str] = []
        done = 0
        for number, job in enumerate(self._jobs):
            report = _report(job)
            if report.problem and not job.cancelled():
                # Once more: a machine that was short of memory or time is no blind check.
                report = _report(self._submit(number))
            if report.problem:
                problems.append(report.problem)
                continue
            pairs = zip(today, report.checks, strict=True)
            today = tuple(a.plus(b) for a, b in pairs) if today else report.checks
            own = together(own, report.own)
            done += 1
        self._jobs = []
        reasons = tuple(dict.fromkeys(problems))
        asked = tuple(one for one in own if one.health.check not in self._idle)
        found = replace(self._known, done=done, today=today, problems=reasons, own=asked)
        write_planted(self._folder, found)


def _report(job: Future[DrawingReport]) -> DrawingReport:
    try:
        return job.result()
    except CancelledError:
        return DrawingReport(problem="the run ended before")


def _finished(before: Planted, known: Planted) -> bool:
    """Tell whether a run measured its drawings before, with the same record."""
    same = replace(before, done=0, today=(), problems=(), own=()) == known
    return same and before.done == before.asked


def write_planted(folder: RunFolder, found: Planted) -> None:
    """Keep what is known of the checks in the run's folder.

    Raises:
        EvidenceError: The disk is full.
    """
    folder.write(FILE, _PLANTED.dump_json(found, indent=1) + b"\n")


def read_planted(folder: RunFolder) -> Planted | None:
    """Return what a run knows of the checks, ``None`` when nothing was planted in it.

    Raises:
        EvidenceError: The file cannot be read.
    """
    path: Path = folder.path / FILE
    try:
        return _PLANTED.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EvidenceError(
            f"{path}: what was found in planted defects is damaged ({where}: {first['msg']}); "
            "remove the file and resume the run, and it is measured again"
        ) from None
