"""Plans with slices and a reserve, and runs of them whose pictures are already made and checked."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tasks.checks.counts import ANY, CheckHealth, CleanHealth, DefectHealth
from tasks.checks.live import Planted, write_planted
from tasks.context import RunContext
from tasks.harness.journal import Journal
from tasks.harness.route import steps
from tasks.plan import RunPlan
from tasks.policy import Policy, Sampling, SliceRule
from tasks.records import Arm, Case, Finding, Generation, ImageReport
from tasks.settings import Settings
from tasks.state import State
from tests.fakes import mixes

LOCALES = ("en", "de", "th")


def cases(count: int, prefix: str = "c", locales: tuple[str, ...] = LOCALES) -> tuple[Case, ...]:
    return tuple(
        Case(
            case_id=f"{prefix}{number}",
            prompt=f"{prefix} {number}",
            subtask="fast",
            locale=locales[number % len(locales)],
        )
        for number in range(count)
    )


def plan(
    headline: int = 90, reserve: int = 30, shard: int = 12, *, run_id: str = "run", **changes: Any
) -> RunPlan:
    policy = changes.pop("policy", None) or Policy(
        sampling=Sampling(cases=max(1, headline), shard_size=shard),
        slices=SliceRule(min_images=12),
    )
    fields: dict[str, Any] = {
        "run_id": run_id,
        "product": mixes.PRODUCT,
        "created_at": "2026-11-01T00:00:00.000Z",
        "baseline": mixes.mix("winter", "folio-1"),
        "candidate": mixes.mix("summer", "folio-2"),
        "policy": policy,
        "seed": 7,
        "budget_microusd": 10**9,
        "day_budget_microusd": 10**9,
        "inputs": "log.csv",
        "cases": cases(headline),
        "reserve": cases(reserve, "x"),
        "coverage": {},
    }
    return RunPlan(**(fields | changes))


def context_of(root: Path, state: State, run_plan: RunPlan) -> RunContext:
    settings = Settings(
        home=root, state_url=SecretStr("unused"), routing_file=root / "routing.json"
    )
    context = RunContext(settings, state, run_plan.run_id, threading.Event())
    context.folder.write_plan(run_plan)
    write_planted(context.folder, seeing())
    return context


def seeing(
    found: int = 10**6, planted: int = 10**6, today: tuple[int, int] = (10, 10), alarms: int = 0
) -> Planted:
    """What a run knows of its one check, of which nearly everything is known by default."""

    def counts(some: int, most: int) -> CheckHealth:
        kind = DefectHealth("wrong size", "geometry.size", 1.0, some, most)
        return CheckHealth("geometry.size", CleanHealth("geometry.size", 0, most), (kind,))

    flagged = CheckHealth(ANY, CleanHealth(ANY, alarms, planted))
    return Planted(
        version="sha256:test",
        pictures=planted,
        record=(counts(found, planted), flagged),
        counting=("geometry.size",),
        asked=today[1],
        done=today[1],
        today=(counts(*today),),
    )


def finish(
    context: RunContext,
    run_plan: RunPlan,
    bad: dict[Arm, set[str]],
    *,
    faults: frozenset[str] = frozenset(),
    only: set[str] | None = None,
) -> None:
    """Write pictures and reports of all cases, or of some: the bad ones fail a check.

    Args:
        context: The run.
        run_plan: Its plan.
        bad: Cases by arm that fail.
        faults: Cases of the candidate on which a check broke.
        only: Cases that are finished; all by default.
    """
    journal = Journal(context.state, run_plan.run_id)
    for arm in ("candidate", "baseline"):
        mix = run_plan.mix(arm)
        for case_id, case in run_plan.by_id.items():
            if only is not None and case_id not in only:
                continue
            data = b"a picture"  # One for all: the store keeps it once.
            journal.record(
                Generation(
                    run_id=run_plan.run_id,
                    arm=arm,
                    mix_digest=mix.digest,
                    case_id=case_id,
                    seed=run_plan.case_seed(case),
                    models=tuple(step.model.name for step in steps(mix, case)),
                    status="ok",
                    image_digest=context.images.put(data),
                    image_bytes=len(data),
                    cost_microusd=20_000,
                    latency_s=1.0,
                    ttfb_s=0.5,
                )
            )
            verdict: Any = "fail" if case_id in bad.get(arm, set()) else "pass"
            if arm == "candidate" and case_id in faults:
                verdict = "fault"
            finding = Finding(check="geometry.size", version="1", verdict=verdict)
            journal.set_report(arm, case_id, ImageReport(findings=(finding,)))
