"""Text that nobody asked for: a finding only where the policy says that it fails a picture."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.check_rules import CheckRules
from tasks.records import CheckVerdict, Finding, ImageReport

CHECK, VERSION = "typography.extra", "2"
_TEXT = "typography.text"
#: Lines that the message names.
_MOST = 4


def extra_text(asked: Sequence[str], report: ImageReport, rules: CheckRules) -> tuple[Finding, ...]:
    """Return the finding on unrequested text, or nothing where the policy only wants it shown.

    It is judged where text was asked for and read: elsewhere nobody read the picture.

    Args:
        asked: The texts that were asked for.
        report: What the checks found on the picture.
        rules: What the policy says.
    """
    if rules.extra_text != "failure" or not asked:
        return ()
    if not any(f.check == _TEXT and f.verdict in ("pass", "fail") for f in report.findings):
        return (_finding("skip", 0, "the picture was not read"),)
    return (finding(report),)


def finding(report: ImageReport) -> Finding:
    """Return what is said of the text that nobody asked for in a picture that was read."""
    count = len(report.extra_text)
    if not count:
        return _finding("pass", 0, "")
    named = ", ".join(repr(" ".join(line.split())[:60]) for line in report.extra_text[:_MOST])
    more = f" and {count - _MOST} more" if count > _MOST else ""
    found = _finding("fail", count, f"text that nobody asked for: {named}{more}")
    if not report.extra_regions:
        return found
    return found.model_copy(update={"region": report.extra_regions[0]})


def _finding(verdict: CheckVerdict, lines: int, message: str) -> Finding:
    """Return a finding; the score is the number of lines."""
    return Finding(
        check=CHECK,
        version=VERSION,
        verdict=verdict,
        score=None if verdict == "skip" else float(lines),
        limit=0.0,
        higher_is_better=False,
        message=message,
    )
