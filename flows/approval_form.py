"""The form that Prefect's UI shows for a run that waits for a person. Words only, no decision."""

from __future__ import annotations

from typing import Literal

from prefect.input import RunInput
from pydantic import Field

from tasks.approval.rules import Approval, commands, moment
from tasks.evidence.text import markdown, shorten
from tasks.plan import RunPlan
from tasks.records import Metrics

#: Longest text of the machine or of a person in the form's description.
_MOST = 600


class ApprovalForm(RunInput):
    """What a person says about a run."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision",
        description="approve puts the candidate into production; reject keeps what serves now.",
    )
    who: str = Field(
        title="Your name",
        min_length=2,
        max_length=120,
        pattern=r"\S",
        description="Kept with the decision; the policy may name who may decide.",
    )
    why: str = Field(
        title="Why",
        min_length=3,
        max_length=2000,
        pattern=r"\S",
        description="For those who look at this decision later.",
    )


def answer(approval: Approval) -> dict[str, str]:
    """Return a decided approval as the form's data, to resume a flow run that waits for it."""
    by = f"{approval.decided_by or 'imagegate'} ({approval.decided_via})"
    why = f"decided: {approval.reason or 'no reason was given'}"
    return {
        "decision": "approve" if approval.status == "approved" else "reject",
        "who": by[:120],
        "why": why[:2000],
    }


def describe(
    plan: RunPlan, metrics: Metrics, approval: Approval, *, report: str, refused: str = ""
) -> str:
    """Return the form's description as markdown; all text of the run shows literally.

    Args:
        plan: What was planned.
        metrics: The figures.
        approval: The question.
        report: Address of the HTML report, or the command that says where it lies.
        refused: Why the answer before did not count, if there was one.
    """
    verdict = approval.verdict
    candidate, baseline = markdown(plan.candidate.mix.name), markdown(plan.baseline.mix.name)
    lines = []
    if refused:
        lines += [f"**That answer did not count:** {_text(refused)}", ""]
    lines += [
        f"**{candidate}** asks to replace **{baseline}** in **{markdown(plan.product)}**; without "
        f"an answer by **{moment(approval.expires_at)}** it does not. Report: {report}.",
        "",
        f"{_text(approval.asked_because)} The machine says **{verdict.verdict}**:",
        "",
        *(f"- {_text(reason)}" for reason in verdict.reasons[:5]),
        "",
        f"| | {baseline} | {candidate} |",
        "| --- | --- | --- |",
        *(f"| {name} | {before} | {after} |" for name, before, after in figures(metrics)),
        "",
        f"Asked for by {_text(approval.requester)}. On the command line: "
        + " or ".join(f"`{command}`" for command in commands(plan.run_id))
        + ".",
    ]
    return "\n".join(lines)


def figures(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return the figures that matter for the decision: name, before, after."""
    before, after = metrics.baseline, metrics.candidate

    def percent(value: float | None) -> str:
        return "unknown" if value is None else f"{100 * value:.1f} %"

    def dollars(value: float | None) -> str:
        return "unknown" if value is None else f"${value:.2f}"

    def seconds(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.2f} s"

    return [
        (
            "failure rate",
            percent(before.failure_rate.estimate),
            percent(after.failure_rate.estimate),
        ),
        (
            "effective cost / 1,000",
            dollars(before.effective_cost_per_1k_usd),
            dollars(after.effective_cost_per_1k_usd),
        ),
        ("latency p95", seconds(before.latency_p95_s), seconds(after.latency_p95_s)),
        ("images", f"{before.images:,}", f"{after.images:,}"),
    ]


def _text(text: str) -> str:
    return markdown(shorten(text, _MOST))
