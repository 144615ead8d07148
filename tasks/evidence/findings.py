"""What the report says of one picture's checks: the rule, its figures, where, and letter by letter.

Plain JSON values only; every text in them is made visible.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tasks.evidence.letters import Piece, closest, compare, differs
from tasks.evidence.text import shorten, visible
from tasks.evidence.view import picture_key
from tasks.records import Case, Finding, Generation, ImageReport, Region

#: Marked parts of one picture that are cut out and enlarged.
MOST_CROPS = 3
#: A marked part that is most of the picture needs no enlargement.
_NEARLY_ALL = 0.6
#: What is cut out around a marked part: pixels, and that share of its longer side.
_MARGIN, _MARGIN_SHARE = 10, 1 / 12
#: Texts of one picture that are compared, and lines nobody asked for that are shown.
_MOST_TEXTS, _MOST_EXTRA = 6, 6
#: Checks whose flags a second reader looks at again.
_TEXT = ("typography.", "upscale.text")


def told(report: ImageReport | None) -> list[Finding]:
    """Return the findings that a person must see: failures first, then broken checks."""
    if report is None:
        return []
    found = [f for f in report.findings if f.verdict in {"fail", "fault"}]
    return sorted(found, key=lambda f: f.verdict == "fault")


def crop_frame(region: Region, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Return what is cut out around a region: left, top, right, bottom in pixels.

    Returns:
        ``None`` when the region lies outside the picture.
    """
    margin = _MARGIN + int(max(region.width, region.height) * _MARGIN_SHARE)
    left, top = max(0, region.x - margin), max(0, region.y - margin)
    right = min(width, region.x + region.width + margin)
    bottom = min(height, region.y + region.height + margin)
    return (left, top, right, bottom) if right > left and bottom > top else None


def crops(report: ImageReport | None) -> list[Region]:
    """Return the marked parts that are worth cutting out, each once, in the order told."""
    found: list[Region] = []
    for region in dict.fromkeys(f.region for f in told(report)):
        if region is None or report is None:
            continue
        if report.width and report.height:
            frame = crop_frame(region, report.width, report.height)
            if frame is None:
                continue
            left, top, right, bottom = frame
            if (right - left) * (bottom - top) > _NEARLY_ALL * report.width * report.height:
                continue
        found.append(region)
    return found[:MOST_CROPS]


def shown_report(
    case: Case,
    generation: Generation | None,
    report: ImageReport,
    index: Mapping[str, int],
    *,
    compared: bool,
    told_only: Collection[str] = (),
) -> dict[str, Any]:
    """Return what the checks said of a picture.

    Args:
        case: What was asked for.
        generation: Where the picture comes from; its digest names the marked parts.
        report: What the checks found.
        index: Number of each check's name.
        compared: Whether the read text is compared letter by letter.
        told_only: Checks that, by the policy, fail no picture.
    """
    found: dict[str, Any] = {}
    if report.width and report.height:
        found["w"], found["h"] = report.width, report.height
    digest = None if generation is None else generation.image_digest
    left = crops(report) if digest is not None else []
    found["findings"] = [
        _finding(f, index, digest, left) | ({"told": True} if f.check in told_only else {})
        for f in told(report)
    ]
    for verdict in ("pass", "skip"):
        found[verdict] = [index[f.check] for f in report.findings if f.verdict == verdict]
    if report.read_text:
        found["read"] = [shorten(visible(line), 200) for line in report.read_text[:12]]
    if case.expected_text:
        found |= _text(case, report, compared)
    if report.extra_text:
        found["extra"] = [shorten(visible(line), 200) for line in report.extra_text[:_MOST_EXTRA]]
        if len(report.extra_text) > _MOST_EXTRA:
            found["extra_more"] = len(report.extra_text) - _MOST_EXTRA
    return found


def _finding(
    finding: Finding, index: Mapping[str, int], digest: str | None, left: list[Region]
) -> dict[str, Any]:
    """Return one finding; takes its marked part out of those left."""
    shown: dict[str, Any] = {
        "check": index[finding.check],
        "version": visible(finding.version),
        "message": shorten(visible(finding.message), 400),
    }
    if finding.verdict == "fault":
        return shown | {"fault": True}
    if finding.score is not None:
        shown["score"] = float(f"{finding.score:.4g}")
    if finding.limit is not None:
        shown["limit"] = float(f"{finding.limit:.4g}")
    if not finding.higher_is_better:
        shown["lower"] = True
    if finding.confirmed is not None:
        shown["confirmed"] = finding.confirmed
    elif finding.check.startswith(_TEXT):
        shown["confirmed"] = None
    if finding.region is not None:
        region = finding.region
        shown["region"] = [region.x, region.y, region.width, region.height]
        if digest is not None and region in left:
            left.remove(region)
            shown["crop"] = picture_key(digest, region)
    return shown


def _text(case: Case, report: ImageReport, compared: bool) -> dict[str, Any]:
    """Return what became of the expected text: compared, as asked, or not judged and why."""
    verdicts = [f for f in report.findings if f.check.startswith(_TEXT[0])]
    judged = [f for f in verdicts if f.verdict != "skip"]
    if not judged:
        # Without a reader, "nothing was read" would blame the model.
        why = next((f.message for f in verdicts if f.message), "")
        return {"unjudged": shorten(visible(why), 200)} if why and report.width else {}
    if all(f.verdict == "pass" for f in judged):
        # Read right at a second look perhaps: the lines of the first would show false marks.
        return {"right": True}
    if not compared:
        return {}
    failed = [f for f in judged if f.verdict == "fail"]
    return {
        "texts": [
            [piece.plain() for piece in _compared(text, report.read_text, failed)]
            for text in case.expected_text[:_MOST_TEXTS]
        ]
    } | ({"severity": list(report.text_severity[:_MOST_TEXTS])} if report.text_severity else {})


def _compared(expected: str, read: tuple[str, ...], failed: list[Finding]) -> list[Piece]:
    nearest = closest(expected, read)
    pieces = compare(expected, nearest or "")
    if differs(pieces) and failed and not any(_accuses(f.message, expected) for f in failed):
        found = visible(" ".join(expected.split()))
        return [Piece("=", found, found)]
    return pieces


def _accuses(message: str, expected: str) -> bool:
    """Say whether a message may be about this string: one that it does not name was found.

    A check may find a string at a second look, which the lines of the first do not show.
    """
    flat = " ".join(expected.split())
    named = repr(flat)[1:40].rstrip("'\"")
    return "'" not in message or " more" in message or named in message
