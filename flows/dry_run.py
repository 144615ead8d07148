"""``imagegate run --dry-run``: read and check everything, say what it would cost, spend nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flows.operate import opened
from flows.request import GateRequest
from tasks.errors import ConfigError
from tasks.mix.selection import select
from tasks.plan import RunPlan
from tasks.records import Arm, usd
from tasks.settings import Settings


def check_request(request: GateRequest, settings: Settings) -> None:
    """Refuse what can be seen to be wrong before Prefect is started.

    Raises:
        ConfigError: A file is missing or wrong, or the run cannot be resumed.
        RefusedError: A hard limit on spend is reached.
    """
    from tasks.budget.task import refuse_over_budget, refuse_resume_over_budget
    from tasks.evidence.remote import folder_of
    from tasks.inputs.sources import open_log
    from tasks.runs import check_resumable

    with opened(settings) as state:
        if request.resume is not None:
            check_resumable(state, request.resume)
            folder = folder_of(settings, request.resume)
            if folder.has_plan():  # without a plan here, the flow refuses
                refuse_resume_over_budget(state, settings, folder.load_plan())
            return
        selection = select(
            state, request.candidate, request.baseline, request.policy, request.catalog
        )
        refuse_over_budget(state, settings, selection.product)
    if request.inputs is not None:
        open_log(request.inputs)


def dry_run_gate(request: GateRequest, settings: Settings) -> dict[str, Any]:
    """Return what the run would do and the most that it could cost in one attempt a stage.

    Raises:
        ConfigError: A file or the inputs are missing or wrong.
        RefusedError: A hard limit on spend is reached.
    """
    from tasks.budget.task import refuse_over_budget
    from tasks.inputs.task import build_plan
    from tasks.retests import prior_runs
    from tasks.verdict.retest import remaining_beta, sentence

    if request.resume is not None:
        raise ConfigError("--dry-run plans a new run; leave out --resume")
    with opened(settings) as state:
        selection = select(
            state, request.candidate, request.baseline, request.policy, request.catalog
        )
        room = refuse_over_budget(state, settings, selection.product)
        prior = prior_runs(state, selection.product, selection.candidate.digest)
    plan = build_plan(
        "dry-run",
        selection,
        inputs=request.inputs,
        cases=request.cases,
        seed=request.seed,
        budget_usd=request.budget_usd,
        prior=prior,
    )
    rule = plan.policy.failure
    left = remaining_beta(
        prior,
        promote_below=rule.promote_below,
        beta=rule.beta,
        mode=rule.mode,
        n_max=len(plan.cases),
    )
    unpriced = [
        m.name for mix in (plan.baseline, plan.candidate) for m in mix.models if m.price is None
    ]
    return {
        "product": plan.product,
        "candidate": {"name": plan.candidate.mix.name, "digest": plan.candidate.digest},
        "baseline": {"name": plan.baseline.mix.name, "digest": plan.baseline.digest},
        "policy": {"name": plan.policy.name, "digest": plan.policy.digest},
        "inputs": plan.inputs,
        "cases": len(plan.cases),
        "cases_by_origin": dict(Counter(case.origin for case in plan.cases)),
        "cases_by_subtask": dict(Counter(case.subtask for case in plan.cases)),
        "cost_usd": {
            arm: None if unpriced else round(usd(list_cost(plan, arm)), 4)
            for arm in ("baseline", "candidate")
        },
        "budget_usd": usd(plan.budget_microusd),
        # What the hard limits on all runs leave, and the tightest of them.
        "hard_limit_left_usd": None if room.left is None else usd(room.left),
        "capped": room.caps(plan.budget_microusd),
        "models_without_price": sorted(set(unpriced)),
        # Earlier tests of the same mix, and what they left of the risk of a wrong PROMOTE.
        "tested_before": sentence(prior, rule.beta, left),
        "coverage": plan.coverage,
    }


def list_cost(plan: RunPlan, arm: Arm) -> int:
    """Return the most micro-dollars for one attempt at every stage of every case."""
    from tasks.harness.route import steps
    from tasks.providers.cost import worst_case

    mix = plan.mix(arm)
    return sum(
        worst_case(step.model, step.stage.prompt(case.prompt), step.width, step.height) or 0
        for case in plan.cases
        for step in steps(mix, case)
    )


def render_dry_run(preview: dict[str, Any]) -> str:
    """Return the preview in lines."""
    cost = preview["cost_usd"]
    total = None if None in cost.values() else sum(cost.values())
    origins = ", ".join(f"{n} {name}" for name, n in preview["cases_by_origin"].items())
    capped = "" if preview["capped"] is None else f"; {preview['capped']}"
    lines = [
        f"candidate  {preview['candidate']['name']}  {preview['candidate']['digest'][:19]}…",
        f"baseline   {preview['baseline']['name']}  {preview['baseline']['digest'][:19]}…",
        f"policy     {preview['policy']['name']}  {preview['policy']['digest'][:19]}…",
        f"inputs     {preview['inputs']}",
        f"cases      {preview['cases']} ({origins})",
        "cost       "
        + (
            "unknown: no price for " + ", ".join(preview["models_without_price"])
            if total is None
            else f"${total:.2f} for all cases at list prices, without retries and extra cases "
            f"(baseline ${cost['baseline']:.2f}, candidate ${cost['candidate']:.2f})"
        ),
        f"budget     ${preview['budget_usd']:.2f}" + capped,
        *([] if preview["tested_before"] is None else [preview["tested_before"] + "."]),
        "Nothing was spent, frozen or changed.",
    ]
    left = preview["hard_limit_left_usd"]
    if total is not None and total > min(preview["budget_usd"], left or total):
        lines.append("A run that needs all of these cases would pass the budget and end as HOLD.")
    return "\n".join(lines)
