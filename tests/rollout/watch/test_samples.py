"""What the gate judged when it judged the mix that serves, found by the journal and the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks.mix.manifest import ResolvedMix
from tasks.plan import RunFolder, RunPlan
from tasks.policy import Policy
from tasks.records import Case, utc_now
from tasks.rollout.change import promote
from tasks.rollout.routers.file import FileRouter
from tasks.rollout.watch.look import gate_samples
from tasks.settings import load_settings
from tasks.state import State
from tasks.tables import runs


def a_case(number: int, subtask: Any, locale: str) -> Case:
    return Case(case_id=f"c{number}", prompt="a poster", subtask=subtask, locale=locale)


def book(state: State, home: Path, run_id: str, candidate: ResolvedMix, *locales: str) -> None:
    """A gate run as it leaves itself behind: its row, and its plan when locales are given."""
    with state.begin() as connection:
        connection.execute(
            sa.insert(runs).values(
                run_id=run_id,
                product="shop",
                status="finished",
                verdict="PROMOTE",
                candidate_digest=candidate.digest,
                baseline_digest=candidate.digest,
                started_at=utc_now(),
                host="here",
                pid=1,
            )
        )
    if locales:
        plan = RunPlan(
            run_id=run_id,
            product="shop",
            created_at=utc_now(),
            baseline=candidate,
            candidate=candidate,
            policy=Policy(),
            seed=1,
            budget_microusd=1,
            day_budget_microusd=1,
            inputs="test",
            cases=tuple(a_case(i, "creative", locale) for i, locale in enumerate(locales)),
            coverage={},
        )
        RunFolder(home / "runs" / run_id).write_plan(plan)


def test_the_run_that_promoted_a_mix_says_what_was_judged(
    shop: State, router: FileRouter, home: Path, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    settings = load_settings({}, home=home)
    book(shop, home, "run-1", summer, "de-CH", "fr")
    book(shop, home, "run-2", summer, "th")
    promote(shop, router, "shop", summer, actor="run run-1", reason="gate", run_id="run-1")
    find = gate_samples(shop, settings, "shop")
    found = find(summer.digest)
    assert found is not None
    assert found.run_id == "run-1"
    assert found.subtasks == ("creative",)
    assert found.locales == ("de", "fr")
    # Adopted, never judged: nothing can be called new.
    assert find(winter.digest) is None


def test_a_plan_that_is_lost_or_damaged_is_passed_over(
    shop: State, home: Path, summer: ResolvedMix
) -> None:
    settings = load_settings({}, home=home)
    book(shop, home, "run-1", summer, "ja")
    book(shop, home, "run-2", summer)
    book(shop, home, "run-3", summer, "ko")
    (home / "runs" / "run-3" / "plan.json").write_text("{half")
    found = gate_samples(shop, settings, "shop")(summer.digest)
    assert found is not None
    assert (found.run_id, found.locales) == ("run-1", ("ja",))
