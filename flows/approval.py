"""The gate waits for a person: between the verdict and what is done about production.

A flow run of a deployment suspends itself with a form and ends; when somebody answers, in
Prefect, on the command line or in Slack, Prefect starts it again and it comes here quickly, over
its journal, with nothing paid twice. A run without a deployment cannot be suspended: it ends as
HOLD, and the answer resumes it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from logging import Logger, LoggerAdapter

from prefect import suspend_flow_run
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import Pause
from prefect.logging import get_run_logger
from pydantic import ValidationError

from flows.approval_form import ApprovalForm, describe
from flows.approval_resume import CarriedOn, carry_on, resume_decided
from flows.approval_words import deliver_question, report_place, tell
from flows.artifacts import publish_artifacts
from tasks.approval import store
from tasks.approval.rules import Approval, decided, is_whole, needed, unasked
from tasks.context import RunContext
from tasks.errors import EvidenceError, RefusedError
from tasks.evidence.task import publish_evidence, record_evidence, share_evidence
from tasks.metrics.task import Measured
from tasks.plan import RunPlan
from tasks.records import ExpectationResult, Verdict
from tasks.runs import end_run, go_on_driving, requester_of

__all__ = ["CarriedOn", "await_approval", "carry_on", "resume_decided"]

Log = Logger | LoggerAdapter[Logger]

#: Prefect fails a suspended run at its own time-out; ours comes first, and is an answer.
PREFECT_WAITS_LONGER = timedelta(days=7)


def await_approval(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: tuple[ExpectationResult, ...],
    verdict: Verdict,
) -> tuple[Verdict, Approval | None]:
    """Return what the machine's verdict becomes by a person's word, and that word, if one is asked.

    A ROLLBACK, and a verdict that the policy trusts the machine with, come back at once. The
    verdict of a run that still waits is HOLD.

    Raises:
        Pause: The flow run is suspended in Prefect; it is started again with the answer.
        EvidenceError: The evidence cannot be kept; nobody is asked about what is not kept.
    """
    because = needed(
        plan.policy.approval,
        verdict,
        measured.metrics,
        complete=_whole(context, plan, measured, expectations),
    )
    if because is None:
        return _nobody_is_asked(context, plan, verdict)
    record_evidence(context, plan, measured, expectations, verdict)
    approval = _ask(context, plan, verdict, because)
    if approval.status == "pending" and _can_suspend():
        approval = _suspended(context, plan, measured, expectations, verdict, approval)
    if approval.status != "pending":
        tell(context.state, context.settings, approval)
    return decided(verdict, approval), approval


def _nobody_is_asked(
    context: RunContext, plan: RunPlan, verdict: Verdict
) -> tuple[Verdict, Approval | None]:
    """Return the machine's verdict; what was asked before about another verdict is closed."""
    verdict = unasked(plan.policy.approval, verdict)
    found = store.read(context.state, plan.run_id)
    if found is not None and verdict.verdict == "HOLD" and context.stopped is not None:
        # Interrupted on the way to its end: question and answer stay for when it goes on.
        return verdict, found
    store.withdraw(
        context.state,
        run_id=plan.run_id,
        via="run",
        by="imagegate",
        reason=f"the run came to {verdict.verdict}, about which nobody is asked.",
    )
    return verdict, None


def _whole(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: tuple[ExpectationResult, ...],
) -> bool:
    return is_whole(
        # Of a run that was to end early and is held all the same, half of the plan is missing.
        planned=len(plan.cases) + measured.metrics.candidate.extra_images,
        finished=measured.finished("candidate"),
        baseline_finished=measured.finished("baseline"),
        stopped=context.stopped,
        unmeasured=sum(1 for o in measured.outcomes if o.outcome == "unmeasured"),
        unanswered=sum(1 for e in expectations if e.unmeasured),
    )


def _ask(context: RunContext, plan: RunPlan, verdict: Verdict, because: str) -> Approval:
    """Return the question of this run: a new one, the open one, or the answered one."""
    now = datetime.now(UTC)
    rules = plan.policy.approval
    store.expire_due(context.state, now)
    approval = store.request(
        context.state,
        plan.run_id,
        plan.product,
        requester_of(context.state, plan.run_id) or "unknown",
        because,
        now + timedelta(hours=rules.expires_hours),
        rules=rules,
        verdict=verdict,
        now=now,
    )
    tell(context.state, context.settings, approval)
    return approval


def _can_suspend() -> bool:
    """Tell whether Prefect can start this flow run again: it comes from a deployment."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    return (
        context.flow_run.deployment_id is not None and context.flow_run.parent_task_run_id is None
    )


def _suspended(
    context: RunContext,
    plan: RunPlan,
    measured: Measured,
    expectations: tuple[ExpectationResult, ...],
    verdict: Verdict,
    approval: Approval,
) -> Approval:
    """Return the decided approval; suspend the flow run as long as there is none."""
    log, refused = get_run_logger(), ""
    # Started again for the answer, it has its report and most likely its answer.
    published = approval.flow_run_id == context.flow_run_id
    for number in count(1):
        store.expire_due(context.state)
        approval = store.read(context.state, plan.run_id) or approval
        if approval.status != "pending":
            break
        if not published:
            # Whoever is asked looks at the report first.
            view, report = publish_evidence(
                context, plan, measured, expectations, decided(verdict, approval), ()
            )
            _share(context, log)
            publish_artifacts(view, report)
            store.suspended_in(context.state, plan.run_id, context.flow_run_id)
            log.info("approval: %s", deliver_question(context.state, context.settings, plan.run_id))
            published = True
        description = describe(
            plan,
            measured.metrics,
            approval,
            report=report_place(context.settings, plan.run_id),
            refused=refused,
        )
        form = _form(context, approval, number, description)
        if form is None:
            refused = "the run was resumed without the form; fill it in."
            log.warning("approval: %s", refused)
            continue
        try:
            approval = store.decide(
                context.state,
                plan.run_id,
                decision="approved" if form.decision == "approve" else "rejected",
                by=form.who,
                reason=form.why,
                via="prefect",
            )
        except RefusedError as error:
            refused = str(error)
            log.warning("approval: %s", refused)
    return approval


def _say_it_waits() -> None:
    """Follow the flow run's heartbeats with a word that it stands still on purpose.

    Heartbeats go on while Prefect suspends the run, and one may reach the server after the state
    did. Silence after a heartbeat means a dead process to the automation ``dead flow run``, so
    the last word, in the same queue as the heartbeats, must be another one.
    """
    running = FlowRunContext.get()
    if running is None or running.flow_run is None or running.flow is None:
        return
    emit_event(
        event="prefect.flow-run.waits-for-a-person",
        resource={
            "prefect.resource.id": f"prefect.flow-run.{running.flow_run.id}",
            "prefect.resource.name": running.flow_run.name,
        },
        related=[
            {
                "prefect.resource.id": f"prefect.flow.{running.flow_run.flow_id}",
                "prefect.resource.role": "flow",
                "prefect.resource.name": running.flow.name,
            }
        ],
    )


def _share(context: RunContext, log: Log) -> None:
    """Let people elsewhere read the report; the answer does not need it."""
    try:
        if context.remote is not None:
            share_evidence(context)
    except EvidenceError as error:
        log.warning("approval: the report is only on this machine: %s", error)


def _form(
    context: RunContext, approval: Approval, number: int, description: str
) -> ApprovalForm | None:
    """Return the form that was filled in, ``None`` when the run was resumed without it.

    The first call for a number suspends the flow run; when Prefect starts it again, the same
    call returns.

    Raises:
        Pause: The flow run is suspended now.
    """
    left = datetime.fromisoformat(approval.expires_at) - datetime.now(UTC)
    timeout = max(left, timedelta()) + PREFECT_WAITS_LONGER
    # Before it is suspended: whoever is started for the answer may go on with the run at once.
    end_run(context.state, approval.run_id, "waiting", driver=context.driver)
    try:
        form = suspend_flow_run(
            wait_for_input=ApprovalForm.with_initial_data(description=description),
            key=f"approval-{number}",
            timeout=int(timeout.total_seconds()),
        )
    except ValidationError:
        form = None
    except Pause:
        _say_it_waits()
        raise
    go_on_driving(context.state, approval.run_id, context.driver)
    return form
