"""How ``imagegate check`` shows what was found: for programs, for one picture, for many. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.checks.truth import Miss, Score, Seen, region_of, seen
from tasks.evidence.letters import closest, compare, differs
from tasks.evidence.rules import rule_words
from tasks.evidence.text import shorten, visible
from tasks.records import Finding, ImageReport, Region

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from tasks.checks.manifest import Entry

#: Whether a second, independent reader finds the same as a failing check.
Second = Literal["agreed", "disagreed", "absent"]
#: Checks that another reader looks at again.
_READ = ("typography.text", "upscale.text")
_STYLES = {"pass": "green", "fail": "red", "unmeasured": "yellow"}
_SECOND_WORDS = {
    "agreed": "a second reader agrees",
    "disagreed": "a second reader disagrees: a person should look",
    "absent": "no second reader could say",
}
#: How the letters of a comparison are drawn: missing or changed, added, beside it.
_LETTERS = {"-": "red", "~": "red", "x": "red", "+": "magenta", ".": "dim"}
_MOST_READ = 4
_MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class Checked:
    """One picture after all checks."""

    entry: Entry
    report: ImageReport
    verdict: Seen
    #: Where a person says something else.
    miss: Miss | None = None
    #: Checks that, by the policy, fail no picture.
    told_only: frozenset[str] = frozenset()

    @property
    def told_by_label(self) -> bool:
        """Whether what a person says is about what the picture does not pass for."""
        truth = self.entry.truth
        return truth is not None and seen(truth.of, self.report, self.verdict) != "pass"


def second(finding: Finding) -> Second | None:
    """Return what a second reader says of a failure; ``None`` of what is none."""
    if finding.verdict != "fail":
        return None
    if finding.confirmed is None:
        return "absent"
    return "agreed" if finding.confirmed else "disagreed"


def line(one: Checked) -> dict[str, Any]:
    """Return what ``--json`` prints for a picture."""
    entry, report = one.entry, one.report
    return {
        "id": entry.id,
        "file": entry.file,
        "verdict": one.verdict,
        "text": [
            {"expected": text, "severity": severity, "read": closest(text, report.read_text)}
            for text, severity in _texts(one)
        ],
        "read_text": list(report.read_text),
        "extra_text": list(report.extra_text),
        "extra_regions": [_region(region) for region in report.extra_regions],
        "findings": [
            {
                "check": finding.check,
                "version": finding.version,
                "verdict": finding.verdict,
                "counts": finding.check not in one.told_only,
                "score": finding.score,
                "limit": finding.limit,
                "message": finding.message,
                "region": _region(finding.region),
                "confirmed": second(finding),
            }
            for finding in report.findings
        ],
        "truth": None if entry.truth is None else entry.truth.said,
        "miss": None if one.miss is None else miss_line(one, one.miss),
    }


def miss_line(one: Checked, found: Miss) -> dict[str, Any]:
    """Return a row of the table of misses for programs."""
    return {
        "kind": found.kind,
        "file": one.entry.file,
        "truth": "" if one.entry.truth is None else one.entry.truth.said,
        "verdict": found.verdict,
        "expected": list(one.entry.expected.intended_text),
        "read": _read(one),
        "severity": [severity for _, severity in _texts(one)],
        "region": _region(region_of(found)),
        "confirmed": None if found.finding is None else second(found.finding),
        "reason": found.reason,
    }


def _region(region: Region | None) -> dict[str, int] | None:
    return None if region is None else region.model_dump()


def _texts(one: Checked) -> list[tuple[str, str]]:
    """Return each text asked for with its severity, once it was read."""
    asked, words = one.entry.expected.intended_text, one.report.text_severity
    return list(zip(asked, words, strict=False)) if words else [(t, "not judged") for t in asked]


def _read(one: Checked) -> list[str]:
    """Return what was read nearest to each text, or simply what was read."""
    lines = one.report.read_text
    near = [closest(text, lines) for text in one.entry.expected.intended_text]
    return [text for text in near if text is not None] or list(lines[:_MOST_READ])


def card(one: Checked) -> Iterator[Text]:
    """Yield the lines for people about one picture: what failed, the texts, what was judged."""
    from rich.text import Text

    report = one.report
    head = Text()
    head.append(f"{one.verdict:<11}", style=f"bold {_STYLES[one.verdict]}")
    head.append(_name(one.entry.file), style="bold")
    if report.width and report.height:
        head.append(f"  {report.width} × {report.height}", style="dim")
    yield head
    for finding in report.findings:
        if finding.verdict in ("fail", "fault"):
            yield from _failure(finding, told=finding.check in one.told_only)
    for text, severity in _texts(one):
        yield from _text(text, severity, report)
    if report.extra_text:
        shown = ", ".join(repr(visible(t)) for t in report.extra_text[:_MOST_READ])
        more = len(report.extra_text) - _MOST_READ
        yield _row("not asked", f"{shown}{f' and {more} more lines' if more > 0 else ''}", "dim")
    for label, names in _groups(report.findings):
        yield _row(label, names, "dim")


def _name(text: str) -> str:
    """Return a name as one line: a line break in it must not pass for a line of ours."""
    return visible(text).replace("\n", "⟨U+000A⟩")


def _failure(finding: Finding, *, told: bool) -> Iterator[Text]:
    from rich.text import Text

    mark, style = ("✗", "red") if finding.verdict == "fail" else ("!", "yellow")
    if told:
        mark, style = "•", "yellow"
    shown = Text(f"  {mark} ", style=style)
    shown.append(finding.check, style=style)
    shown.append(f"  {rule_words(finding.check)}", style="dim")
    yield shown
    said = [visible(finding.message) or "it does not hold"]
    if finding.score is not None and finding.limit is not None:
        sign = "≥" if finding.higher_is_better else "≤"
        said.append(f"score {finding.score:g}, asked {sign} {finding.limit:g}")
    if (region := finding.region) is not None:
        said.append(f"at {region.x},{region.y}, {region.width} × {region.height} px")
    if finding.check in _READ and (reader := second(finding)) is not None:
        said.append(_SECOND_WORDS[reader])
    if told:
        said.append("told only, by the policy")
    for part in said:
        yield Text(f"      {part}")


def _text(expected: str, severity: str, report: ImageReport) -> Iterator[Text]:
    """Yield a text with its severity, and what stands in its place, letter by letter."""
    from rich.text import Text

    good = severity == "exact"
    shown = Text(f"  {'text':<11}", style="dim")
    shown.append(f"{severity:<11}", style="green" if good else "yellow")
    near = closest(expected, report.read_text)
    pieces = compare(expected, near or "")
    if good or severity == "not judged" or near is None or not differs(pieces):
        yield shown.append(visible(shorten(" ".join(expected.split()), 200)))
        return
    read = Text(f"  {'':<11}{'read':<11}", style="dim")
    for piece in pieces:
        style = _LETTERS.get(piece.kind, "")
        shown.append(piece.expected, style=f"bold {style}" if style else "")
        read.append(piece.read, style=f"bold {style}" if style else "")
    yield shown
    yield read


def _groups(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """Yield which checks passed, which nothing was asked of, and which skipped for a reason."""
    passed = [f.check for f in findings if f.verdict == "pass"]
    reasons: dict[str, list[str]] = {}
    idle = []
    for finding in findings:
        if finding.verdict != "skip":
            continue
        why = visible(finding.message)
        if not why or why.startswith("no "):  # No text, no brand, no upload was given.
            idle.append(finding.check)
        else:
            reasons.setdefault(why, []).append(finding.check)
    if passed:
        yield "passed", ", ".join(passed)
    for why, names in reasons.items():
        yield "skipped", f"{_listed(names)}: {why}"
    if idle:
        yield "no matter", f"{_listed(idle)}: nothing was asked of them"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} checks"


def _row(label: str, said: str, style: str) -> Text:
    from rich.text import Text

    row = Text(f"  {label:<11}", style="dim")
    return row.append(said, style=style)


def row(one: Checked) -> tuple[str, ...]:
    """Return verdict, picture and what was found, for the table of many."""
    wanted = ("fail",) if one.verdict == "fail" else ("fault", "skip")
    told = [
        f"{finding.check}: {visible(finding.message)}"
        + (
            f" ({_SECOND_WORDS[reader]})"
            if finding.check in _READ and (reader := second(finding)) is not None
            else ""
        )
        for finding in one.report.findings
        if finding.verdict in wanted
        and (finding.verdict != "skip" or finding.message.startswith(("not covered", "not sure")))
    ]
    return one.verdict, _name(one.entry.id), "\n".join(told)


def misses_table(missed: Sequence[Checked]) -> Table:
    """Return the table of the pictures of which people say something else, with the reason."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    for name in ("file", "truth", "checks say", "expected", "read", "reason"):
        table.add_column(name, overflow="fold")
    for one in missed:
        if one.miss is None:
            continue
        found = miss_line(one, one.miss)
        style = "yellow" if one.miss.kind == "not judged" else "red"
        cells = (
            _name(found["file"]),
            found["truth"],
            found["verdict"],
            " | ".join(shorten(" ".join(t.split()), 120) for t in found["expected"]),
            " | ".join(shorten(t, 120) for t in found["read"]) or "nothing",
            _reason(found, one.miss),
        )
        # Names and texts are not ours: no markup is read in them.
        table.add_row(
            *(Text(visible(cell), style=style if n == 2 else "") for n, cell in enumerate(cells))
        )
    return table


def _reason(found: dict[str, Any], one: Miss) -> str:
    parts = [f"{one.kind}: {found['reason']}"]
    bad = [s for s in found["severity"] if s not in ("exact", "not judged")]
    if bad and not one.reason.startswith(tuple(bad)):
        parts.append(f"severity {', '.join(dict.fromkeys(bad))}")
    if (region := found["region"]) is not None:
        parts.append(f"at {region['x']},{region['y']}, {region['width']} × {region['height']} px")
    if found["confirmed"] is not None:
        parts.append(_SECOND_WORDS[found["confirmed"]])
    return "\n".join(parts)


def score_words(found: Score, total: int) -> str:
    """Return how often the checks agree with people, in a sentence.

    Args:
        found: The counts.
        total: Pictures that were checked, those without a label among them.
    """
    said = [
        f"{found.good_passed} of {found.good} good pictures pass, {found.good_failed} fail",
        f"{found.bad_failed} of {found.bad} bad ones fail, {found.bad_passed} pass",
    ]
    if found.unjudged:
        said.append(f"{found.unjudged} not judged")
    if found.balanced is not None:
        said.append(f"balanced accuracy {found.balanced:.3f} of those judged")
    if left := total - found.good - found.bad:
        said.append(f"{left} without a label, or with strict 0, not counted")
    return "against the labels: " + "; ".join(said)
