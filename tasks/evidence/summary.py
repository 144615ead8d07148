"""The report in short, for Prefect's artifacts: markdown and a table. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.approval.rules import sentence
from tasks.evidence import present
from tasks.evidence.growth import decided_words, saved_words
from tasks.evidence.text import markdown, shorten
from tasks.evidence.view import ReportView

_SIGN = {"PROMOTE": "✅", "ROLLBACK": "⛔", "HOLD": "⏸️"}
_SLICES = 8
_CHECKS = 8


def markdown_summary(view: ReportView) -> str:
    """Return verdict, reasons, before → after, worst slices and failing checks as markdown.

    All text of the run is escaped: it shows as it is and makes no links, images or HTML.
    """
    plan, verdict = view.plan, view.verdict
    candidate, product = markdown(plan.candidate.mix.name), markdown(plan.product)
    lines = [f"# {_SIGN[verdict.verdict]} {verdict.verdict}: {candidate} → {product}", ""]
    lines += [f"- {_line(reason)}" for reason in verdict.reasons]
    if verdict.warnings:
        lines += ["", "**Warnings**", "", *(f"- {_line(text)}" for text in verdict.warnings)]
    if view.actions:
        lines += ["", "**What was done**", "", *(f"- {_line(text)}" for text in view.actions)]
    if view.approval is not None:
        lines += ["", f"**Approval**: {_line(sentence(view.approval))}"]
    lines += ["", "## Before → after", ""]
    before, after = (markdown(view.plan.mix(arm).mix.name) for arm in ("baseline", "candidate"))
    lines += _table(
        ("", f"baseline {before}", f"candidate {after}"),
        [tuple(map(markdown, row)) for row in present.arm_rows(view)],
    )
    lines += _slices(view) + _checks(view) + _breaches(view)
    lines += [
        "",
        f"Run `{_code(plan.run_id)}` · {markdown(_cases(view))} · policy "
        f"{markdown(plan.policy.name)} · decided {markdown(view.finished_at or plan.created_at)}",
        "",
        f"Report and evidence: `report.html` in the folder of run `{_code(plan.run_id)}`; "
        f"`imagegate report {_code(plan.run_id)}` says where it lies.",
    ]
    return "\n".join(lines) + "\n"


def _cases(view: ReportView) -> str:
    """Return how many cases decided, and what that saved."""
    candidate, saved = view.metrics.candidate, saved_words(view.verdict.savings)
    if saved:
        return saved
    return decided_words(
        view.verdict, candidate.images, len(view.plan.cases), candidate.extra_images
    )


def metrics_rows(view: ReportView) -> list[dict[str, str]]:
    """Return the figures of both arms as rows for a table artifact."""
    return [
        {"figure": label, "baseline": before, "candidate": after}
        for label, before, after in present.arm_rows(view)
    ]


def _slices(view: ReportView) -> list[str]:
    rows = [row for row in present.slices(view) if row["candidate"]["share"] > 0][:_SLICES]
    if not rows:
        return []
    return [
        "",
        "## Worst slices of the candidate",
        "",
        *_table(
            ("slice", "baseline", "candidate"),
            [
                (
                    markdown(f"{row['dimension']}={row['value']}"),
                    _share(row["baseline"]),
                    _share(row["candidate"]),
                )
                for row in rows
            ],
        ),
    ]


def _share(cell: dict[str, object]) -> str:
    counts = f" ({cell['counts']})" if cell["counts"] else ""
    return markdown(f"{cell['text']}{counts}")


def _checks(view: ReportView) -> list[str]:
    counting = [row for row in present.checks(view) if not row["told"]]
    failing = [row for row in counting if row["arms"]["candidate"]["fail"]][:_CHECKS]
    if not failing:
        return []
    return [
        "",
        "## What failed most",
        "",
        *_table(
            ("check", "baseline", "candidate"),
            [
                (
                    markdown(row["name"]),
                    str(row["arms"]["baseline"]["fail"]),
                    str(row["arms"]["candidate"]["fail"]),
                )
                for row in failing
            ],
        ),
    ]


def _breaches(view: ReportView) -> list[str]:
    rows = [row for row in present.expectations(view.expectations) if row["state"] != "kept"]
    kept = len(view.expectations) - len(rows)
    if not view.expectations:
        return []
    return [
        "",
        f"## Expectations: {kept} of {len(view.expectations)} kept",
        "",
        *(f"- **{row['state']}** ({row['on_breach']}): {_line(row['sentence'])}" for row in rows),
    ]


def _line(text: str) -> str:
    return markdown(shorten(text, 500))


def _code(text: str) -> str:
    """Return text for a code span: a backtick would end it, and nothing can escape one there."""
    return text.replace("`", "'").replace("\n", " ").replace("|", "¦")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
