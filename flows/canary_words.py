"""A canary in words for Prefect's UI. Pure."""

from __future__ import annotations

from tasks.rollout.canary.decide import evidence, pass_evidence
from tasks.rollout.canary.store import Canary


def markdown(canary: Canary) -> str:
    """Return how far a canary is: what it waits for, and what each step has counted."""
    plan, progress = canary.plan, canary.progress
    rows = []
    for number, step in enumerate(plan.rule.steps):
        begun = number < len(progress.tallies)
        new = progress.tallies[number].candidate if begun else None
        old = progress.tallies[number].baseline if begun else None
        here = canary.live and number == canary.step
        proof = "–" if new is None else f"{pass_evidence(plan.rule, new, number):.1f}"
        rows.append(
            f"| {'**' if here else ''}{100 * step.weight:g} %{'**' if here else ''} "
            f"| {'–' if new is None else f'{new.failures:,} of {new.images:,}'} "
            f"| {'–' if old is None else f'{old.failures:,} of {old.images:,}'} "
            f"| fewer than {100 * step.promote_below:g} % | {proof} |"
        )
    against = [
        f"| {proof.name} | {proof.log_e:.2f} | {proof.enough:.2f} |"
        for proof in evidence(plan.rule, progress)
    ]
    lines = [
        f"# {_plain(plan.candidate_name)} walks into {_plain(plan.product)}",
        f"**{canary.status}**: {_plain(canary.reason or 'begins')}",
        "",
        f"Beside {_plain(plan.baseline_name)}; counted until {progress.counted_until}; "
        f"{progress.looks} looks.",
        "",
        "| Traffic | Candidate failed | Baseline failed | Passed with a proof of | Evidence |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        "Evidence against the candidate; a test that reaches its threshold rolls it back.",
        "",
        "| Test | Evidence | Threshold |",
        "| --- | --- | --- |",
        *against,
    ]
    for said in (*progress.skipped, *progress.notes):
        lines += ["", f"- {_plain(said)}"]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return foreign text without what Markdown or HTML would make of it."""
    marks = "\\`*_{}[]<>()#+-!|&~"
    return "".join(f"\\{c}" if c in marks else c for c in " ".join(text.split()))
