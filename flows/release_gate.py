"""The release gate as a Prefect flow; it reads as the story, top to bottom.

Freeze → preflight → sample → harness and checks, shard by shard until the evidence decides →
metrics → expectations → decision → a person's approval where the policy asks for it → promote or
roll back → tell on-call → publish the evidence.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import hooks
from flows.approval import await_approval
from flows.artifacts import publish_artifacts
from flows.drawing import IN_FLIGHT, draw_until_decided
from flows.opening import open_run, plan_of, serving
from flows.prefect_env import end_server_with_us
from flows.refusal import refusals_as_states
from flows.request import GateRequest, GateResult
from flows.results import build_result, canary_sentence, production_sentence, rate_sentence
from flows.watcher import LoggedWatcher, current_watcher
from tasks.alerts.task import announce, notify
from tasks.alerts.worker import OutboxWorker
from tasks.approval.rules import outcome, waits
from tasks.check_rules import Extras
from tasks.checks.rehearsal import rehearse
from tasks.context import RunContext
from tasks.errors import EvidenceError, FencedError, RefusedError
from tasks.evidence.task import publish_evidence, record_evidence, share_evidence
from tasks.expectations.task import validate_expectations
from tasks.harness.task import recover_spend, spent_usd
from tasks.metrics.task import Measured, compute_metrics
from tasks.mix.production import production_mix
from tasks.mix.task import freeze_mix, preflight
from tasks.plan import RunPlan
from tasks.providers.task import served_versions
from tasks.records import ExpectationResult, Verdict
from tasks.rollout.task import promote, roll_back, settle_production, start_canary
from tasks.runs import end_run
from tasks.telemetry import note
from tasks.verdict.task import decide, valid_at_any_look

#: Tasks at one time: both arms of the shards under way, about half of them being checked.
PARALLEL = 2 * IN_FLIGHT


def flow_run_name() -> str:
    """Return what Prefect's UI calls the run: the candidate's file, or the run that goes on."""
    request = GateRequest.model_validate(flow_run.parameters["request"])
    if request.resume is not None:
        return f"resume {request.resume}"
    return f"judge {Path(request.candidate).stem}"


@flow(
    name="release-gate",
    description="Judge a candidate mix against production; promote it, or roll back.",
    flow_run_name=flow_run_name,
    # Prefect types its runners by their own future class, its flows by the base class.
    task_runner=cast("TaskRunner[PrefectFuture[object]]", ThreadPoolTaskRunner(PARALLEL)),
    persist_result=False,
    on_failure=[hooks.on_failure],
    on_crashed=[hooks.on_crashed],
    on_cancellation=[hooks.on_cancellation],
)
@refusals_as_states
def release_gate(request: GateRequest) -> State[GateResult]:
    """Return a completed state named after the verdict, with the :class:`GateResult` as data."""
    began = time.monotonic()
    end_server_with_us()
    watcher = LoggedWatcher(current_watcher(), get_run_logger())
    # Prefect takes SIGTERM when the flow starts; the watcher takes it back, to end as HOLD.
    opening = open_run(request, watcher, flow_run_id(), deployment_name())
    with watcher.signals(), opening as (context, selection):
        watcher.step("run", context.run_id)
        until = freeze_mix(context, selection, request.owner)
        watcher.step("freeze_mix", f"{selection.baseline.mix.name} frozen until {until}")

        with serving(context, selection) as endpoints:
            served = served_versions(context, selection, endpoints)
            models = preflight(context, selection, served)
            watcher.step("preflight", f"{models} models: licence, price, version, safety, keys")

            plan = plan_of(context, selection, request)
            rehearse(Extras(plan.policy.checks, context.settings.plugins))
            settle_production(context, plan.product)
            recover_spend(context, plan)
            watcher.step("draw_sample", f"{len(plan.cases)} cases from {plan.inputs}")

            announce(context, plan, request.owner)
            with OutboxWorker(context.state, context.settings):
                drawing = draw_until_decided(context, plan, endpoints, watcher)

        measured = compute_metrics(context, plan, drawing.drawn)
        watcher.step("compute_metrics", rate_sentence(measured.metrics))

        expectations = validate_expectations(context, plan, measured)
        holding = sum(1 for e in expectations if e.success)
        watcher.step("validate_expectations", f"{holding} of {len(expectations)} hold")

        measured = valid_at_any_look(measured)
        verdict = decide(context, plan, measured, expectations, drawing.drawn, drawing.looks)
        watcher.step("decide", verdict.verdict)

        verdict, approval = await_approval(context, plan, measured, expectations, verdict)
        if approval is not None:
            watcher.step("await_approval", outcome(approval))

        context.check_driver()
        verdict, actions = act(context, plan, measured, expectations, verdict)
        watcher.step("promote / roll_back", "; ".join(actions))

        told = notify(context, plan, measured, verdict, actions)
        watcher.step("notify", told.action)
        if not told.delivered:
            watcher.message("What Slack would be told", told.text)

        view, report = publish_evidence(
            context, plan, measured, expectations, verdict, (*actions, told.action)
        )
        watcher.step("publish_evidence", str(report))
        if context.remote is not None:
            watcher.step("share_evidence", share_later(context))
        publish_artifacts(view, report)

        result = build_result(
            plan,
            measured.metrics,
            verdict,
            production=production_mix(context.state, plan.product).mix.name,
            actions=(*actions, told.action),
            evidence=context.folder.path,
            report=report,
            seconds=time.monotonic() - began,
            spend_usd=spent_usd(context, plan),
            approval=approval,
        )
        note({"imagegate.verdict": verdict.verdict, "imagegate.cost_usd": result.spend_usd})
        end_run(
            context.state,
            plan.run_id,
            "waiting" if waits(approval) else "finished",
            verdict.verdict,
            result.model_dump_json(),
            driver=context.driver,
        )
    return Completed(
        name=verdict.verdict, message=f"{verdict.verdict}: {verdict.reasons[0]}", data=result
    )


def flow_run_id() -> str | None:
    """Return the id of Prefect's flow run that this is."""
    return str(flow_run.id) if flow_run.id else None


def deployment_name() -> str | None:
    """Return the deployment that this run comes from, as ``flow/deployment``."""
    return f"{flow_run.flow_name}/{deployment.name}" if deployment.name else None


def act(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: tuple[ExpectationResult, ...],
    verdict: Verdict,
) -> tuple[Verdict, tuple[str, ...]]:
    """Do what the verdict says; return what came of it and what was done, in sentences.

    A promotion waits for the evidence to be kept where all workers find it, and becomes a HOLD
    when it cannot be, or when people froze or changed production meanwhile. Where the policy says
    so it begins a canary, which walks on when the run is over. A rollback waits for
    nothing.
    """
    why = verdict.reasons[0]
    if verdict.verdict == "ROLLBACK":
        done = roll_back(context, plan, why)
        record_evidence(context, plan, measured, expectations, verdict)
        return verdict, (production_sentence(done),)
    record_evidence(context, plan, measured, expectations, verdict)
    if verdict.verdict == "PROMOTE":
        try:
            share_evidence(context)
            if plan.policy.canary.after_gate:
                begun = start_canary(context, plan, return_state=True)
                return verdict, (canary_sentence(begun.result()),)
            promoted = promote(context, plan, why, return_state=True)
            return verdict, (production_sentence(promoted.result()),)
        except (EvidenceError, RefusedError, FencedError) as error:
            why = f"The figures allow a promotion, but {error}"
            verdict = verdict.model_copy(
                update={"verdict": "HOLD", "reasons": (why, *verdict.reasons)}
            )
    serves = production_mix(context.state, plan.product).mix.name
    return verdict, (f"Production of {plan.product} stays {serves}, and frozen.",)


def share_later(context: RunContext) -> str:
    """Push the sealed evidence, or say how to do it later: what was decided stands either way."""
    try:
        return share_evidence(context)
    except EvidenceError as error:
        return f"only here; push it by `imagegate evidence push {context.run_id}`: {error}"


def run_gate(request: GateRequest) -> GateResult:
    """Run the flow in this process and return its result; its errors are raised as they are."""
    # The flow hands its own state over, which Prefect then returns instead of a new one.
    state = cast("State[GateResult]", release_gate(request, return_state=True))
    return state.result()
