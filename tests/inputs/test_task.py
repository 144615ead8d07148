"""The plan of a run holds the reserve and the earlier tests of the candidate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from tasks import retests
from tasks.inputs.task import build_plan, draw_sample
from tasks.mix.selection import Selection
from tasks.plan import PriorRun, RunFolder
from tasks.policy import Policy, Sampling, SliceRule
from tasks.state import State
from tests.fakes import mixes

SELECTION = Selection(
    baseline=mixes.mix("winter", "folio-1"),
    candidate=mixes.mix("summer", "folio-2"),
    policy=Policy(sampling=Sampling(cases=20), slices=SliceRule(top_up=0.5)),
)
CHOICES = {"inputs": None, "cases": None, "seed": None, "budget_usd": None}


def test_a_plan_has_its_reserve_and_no_prior_unless_told() -> None:
    plan = build_plan("r1", SELECTION, **CHOICES)
    assert (len(plan.cases), len(plan.reserve), plan.prior) == (20, 10, ())
    assert len(plan.by_id) == 30
    prior = (PriorRun(run_id="r0", images=240, failures=31),)
    assert build_plan("r1", SELECTION, **CHOICES, prior=prior).prior == prior


def test_the_task_looks_up_the_earlier_tests_but_not_itself(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    first = build_plan("r0", SELECTION, **CHOICES)
    retests.record(state, first, "ROLLBACK", 20, 5)
    retests.record(state, first.model_copy(update={"run_id": "r1"}), "HOLD", 3, 0)
    context = SimpleNamespace(state=state, run_id="r1", folder=RunFolder(tmp_path / "r1"))
    plan = draw_sample.fn(context, SELECTION, **CHOICES)
    assert plan.prior == (PriorRun(run_id="r0", images=20, failures=5, planned=len(first.cases)),)
    assert context.folder.load_plan() == plan
    state.close()
