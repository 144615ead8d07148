"""The job summary in Markdown and the annotations that GitHub shows at a build. Pure functions.

Prompts, names and messages of others can neither mark anything up here nor give the runner a
command: Markdown, HTML, links and mentions are escaped, and an annotation is one escaped line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Literal

from tasks.approval.rules import commands
from tasks.evidence import present
from tasks.evidence.charts import rate_words
from tasks.evidence.ci_cases import CiCase, CiFacts, ci_cases
from tasks.evidence.growth import saved_words
from tasks.evidence.text import markdown, shorten, visible

#: GitHub shows no more of a kind at one step.
MOST_ANNOTATIONS = 10
_ROWS = 12
_LONGEST = 500
_SIGN = {"PROMOTE": "✅", "ROLLBACK": "⛔", "HOLD": "⏸️"}
_MARK = {"failure": "⛔ failed", "error": "⏸️ not proven"}
#: What GitHub and GitLab make a link or a mention of without any markup.
_LINKS = re.compile(r"://|www\.|@", re.IGNORECASE)
_BROKEN = {"://": "&#58;//", "@": "@<!-- -->"}

Level = Literal["error", "warning", "notice"]


def job_summary(facts: CiFacts) -> str:
    """Return the summary of a finished gate: verdict, why, before → after, what to do."""
    verdict = facts.verdict
    head = f"{plain(facts.candidate)} for {plain(facts.product)}"
    lines = [f"## {_SIGN[verdict.verdict]} {verdict.verdict}: {head}", ""]
    lines += [f"- {plain(reason)}" for reason in verdict.reasons]
    lines += ["", *_before_after(facts), *_bad(ci_cases(facts))]
    if verdict.warnings:
        lines += ["", "### Warnings", "", *(f"- {plain(text)}" for text in verdict.warnings)]
    if facts.actions:
        lines += ["", "### What was done", "", *(f"- {plain(text)}" for text in facts.actions)]
    lines += ["", "### What to do", "", *(f"- {step}" for step in what_to_do(facts))]
    lines += [
        "",
        f"Run {_code(facts.run_id)} · {plain(_images(facts))} · "
        f"\\${facts.spend_usd:,.2f} spent · {facts.seconds:.0f} s · "
        f"policy {plain(facts.policy.name)}",
        "",
        _report(facts.report),
    ]
    return "\n".join(lines) + "\n"


#: How an error without a verdict is called.
_KINDS = {
    # Written before a run, and still there when it was killed.
    "Unfinished": "Unfinished",
    "ConfigError": "wrong input, nothing was spent",
    "DataError": "wrong input, nothing was spent",
    "RefusedError": "refused, nothing was spent",
    "FrozenError": "refused, production is frozen",
    "PreflightError": "refused, nothing was spent",
}


def _images(facts: CiFacts) -> str:
    """Return how many images decided, and what that saved."""
    return saved_words(facts.verdict.savings) or f"{facts.metrics.candidate.images:,} images"


def broken_summary(sentence: str, kind: str) -> str:
    """Return the summary of a gate that gave no verdict."""
    what = _KINDS.get(kind, "the gate itself broke")
    return (
        f"## ❗ No verdict: {what}\n\n"
        + "\n".join(f"> {plain(line)}" for line in sentence.splitlines() if line.strip())
        + "\n\nNothing was promoted by this run. `imagegate status` shows what serves, "
        "`imagegate doctor` checks the machine.\n"
    )


def what_to_do(facts: CiFacts) -> list[str]:
    """Return the next steps for a person, as Markdown."""
    name = facts.verdict.verdict
    product = f" --product {_word(facts.product)}"
    if name == "PROMOTE":
        return [
            f"Nothing. If users report trouble: {_code('imagegate rollback' + product)}",
        ]
    look = f"look at the failing pictures: {_code(f'imagegate report {facts.run_id} --open')}"
    if name == "ROLLBACK":
        return [f"Mend the mix or its models; {look}", "Then start a new run"]
    if facts.waiting:
        approve, reject = commands(facts.run_id)
        return [
            f"A person decides: {_code(approve)}, or {_code(reject)}",
            look[0].upper() + look[1:],
        ]
    steps = []
    if facts.incomplete:
        resume = f"imagegate run --resume {facts.run_id}"
        steps.append(f"Go on with the missing cases: {_code(resume)}")
    return [
        *steps,
        "Read above what is not proven; more cases (`--cases`) decide what is only too uncertain",
        look[0].upper() + look[1:],
    ]


def workflow_commands(facts: CiFacts) -> list[str]:
    """Return the workflow commands of a finished gate, the most important first.

    GitHub takes them from stdout and from stderr.
    """
    verdict = facts.verdict
    first = shorten(visible(verdict.reasons[0]), _LONGEST)
    level: Level = "notice" if verdict.verdict == "PROMOTE" else "error"
    file = facts.candidate_file
    found = [command(level, f"imagegate {verdict.verdict}", first, file)]
    for case in ci_cases(facts):
        # The verdict's own case was told by the line above.
        if case.suite != "verdict" and case.outcome in ("failure", "error"):
            kind: Level = "error" if case.outcome == "failure" else "warning"
            found.append(command(kind, f"imagegate {case.suite}: {case.name}", case.sentence, file))
    found += [command("warning", "imagegate warning", text) for text in verdict.warnings]
    return list(_most(found))


def broken_annotation(sentence: str, kind: str) -> str:
    """Return the workflow command of a gate that gave no verdict."""
    return command("error", f"imagegate: no verdict ({kind})", sentence)


def command(level: Level, title: str, message: str, file: str = "") -> str:
    """Return one workflow command as a line.

    Args:
        level: How bad it is.
        title: Shown in bold.
        message: Shown below; its line ends are kept, escaped.
        file: File of the checkout that it is shown at.
    """
    fields = [f"title={_field(shorten(visible(title), 120))}"]
    if file:
        fields.insert(0, f"file={_field(visible(file))}")
    return f"::{level} {','.join(fields)}::{_data(shorten(visible(message), 2_000))}"


def _most(commands: Sequence[str]) -> Iterator[str]:
    """Yield as many of each level as GitHub shows, and say how many are left out."""
    told: dict[str, int] = {}
    for line in commands:
        level = line[2:].partition(" ")[0]
        told[level] = told.get(level, 0) + 1
        if told[level] < MOST_ANNOTATIONS:
            yield line
    for level, count in told.items():
        if count >= MOST_ANNOTATIONS:
            left = count - MOST_ANNOTATIONS + 1
            kind: Level = "error" if level == "error" else "warning"
            yield command(kind, "imagegate", f"{left} more: see the job summary and the report")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _field(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def plain(text: str) -> str:
    """Return foreign text as one line of Markdown that is shown as it is: no links, no mentions."""
    line = markdown(shorten(text, _LONGEST))
    return _LINKS.sub(lambda m: _BROKEN.get(m[0], m[0].replace(".", "&#46;")), line)


def _code(text: str) -> str:
    """Return a code span; nothing can be escaped in one, so what would end it is replaced."""
    return f"`{visible(text).replace('`', chr(39)).replace(chr(10), ' ').replace('|', '¦')}`"


def _word(text: str) -> str:
    """Return a name as one word of a shell."""
    return shlex.quote(text)


def _before_after(facts: CiFacts) -> list[str]:
    before, after = facts.metrics.baseline, facts.metrics.candidate
    rows = [
        ("Failure rate", rate_words(before.failure_rate), rate_words(after.failure_rate)),
        (
            "Effective cost per 1,000 usable images",
            present.money(before.effective_cost_per_1k_usd),
            present.money(after.effective_cost_per_1k_usd),
        ),
        (
            "p95 latency",
            present.seconds(before.latency_p95_s),
            present.seconds(after.latency_p95_s),
        ),
        ("Images", f"{before.images:,}", f"{after.images:,}"),
    ]
    return [
        f"| | before ({plain(facts.baseline)}) | after ({plain(facts.candidate)}) |",
        "| --- | ---: | ---: |",
        *(f"| {' | '.join(map(plain, row))} |" for row in rows),
    ]


def _bad(cases: Sequence[CiCase]) -> list[str]:
    """Return the failing and unproven slices, checks and expectations as a table."""
    order = {"failure": 0, "error": 1}
    bad = sorted(
        (c for c in cases if c.suite != "verdict" and c.outcome in order),
        key=lambda c: order[c.outcome],
    )
    if not bad:
        return []
    left = len(bad) - _ROWS
    return [
        "",
        "### What speaks against it",
        "",
        "| | what | found |",
        "| --- | --- | --- |",
        *(
            f"| {_MARK[c.outcome]} | {c.suite[:-1]} {plain(c.name)} | {plain(c.sentence)} |"
            for c in bad[:_ROWS]
        ),
        *(["", f"… and {left} more in the JUnit file and in the report."] if left > 0 else []),
    ]


def _report(report: str) -> str:
    """Return the line on the report: a link when it lies at an address of ours."""
    if re.fullmatch(r"https://[A-Za-z0-9._~:/%+-]+", report):
        return f"[Report with all pictures and evidence]({report})"
    return f"Report with all pictures and evidence: {_code(report)}"
