"""JUnit XML of a gate, for the test reports of CI servers. A pure function.

The shape is the one that Jenkins, GitLab and GitHub's reporters read: ``testsuites`` with summed
counts, a ``testsuite`` for each group, and ``testcase`` with at most one of ``failure``, ``error``
and ``skipped``. What each outcome means is decided in :mod:`tasks.evidence.ci_cases`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from tasks.evidence.ci_cases import SUITES, CiCase, CiFacts, ci_cases
from tasks.evidence.text import shorten, visible

NAME = "imagegate"
#: Cuts for what a policy or a log can make as long as it likes.
_LONGEST_NAME, _LONGEST_MESSAGE, _LONGEST_TEXT = 300, 1_000, 8_000
#: Everything that XML 1.0 cannot hold, not even escaped (its production ``Char``).
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(
    cases: Sequence[CiCase], *, properties: Mapping[str, str], seconds: float, timestamp: str
) -> bytes:
    """Return the document.

    Args:
        cases: The test cases, in order; each suite that has one is written.
        properties: Figures of the run by name: run id, verdict, digests, spend.
        seconds: Wall-clock time of the gate; it stands at the first case, since a slice and a
            check have no time of their own.
        timestamp: When the gate ended, UTC ISO-8601.
    """
    root = ET.Element("testsuites", {"name": NAME, **_counts(cases), "time": _time(seconds)})
    first = cases[0].suite if cases else None
    for suite in SUITES:
        own = [case for case in cases if case.suite == suite]
        if not own:
            continue
        took = seconds if suite == first else 0.0
        element = ET.SubElement(
            root,
            "testsuite",
            {
                "name": f"{NAME}.{suite}",
                **_counts(own),
                "time": _time(took),
                # Readers of xs:dateTime without a zone take it for UTC; some refuse a zone.
                "timestamp": timestamp[:19],
            },
        )
        listed = ET.SubElement(element, "properties")
        for name, value in properties.items():
            ET.SubElement(
                listed,
                "property",
                {"name": _safe(name, _LONGEST_NAME), "value": _safe(value, _LONGEST_MESSAGE)},
            )
        for number, case in enumerate(own):
            element.append(_case(case, took if number == 0 else 0.0))
    ET.indent(root, " ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def properties_of(facts: CiFacts) -> dict[str, str]:
    """Return what a reader needs to find the run and to repeat it."""
    return {
        "run_id": facts.run_id,
        "verdict": facts.verdict.verdict,
        "product": facts.product,
        "candidate": facts.candidate,
        "baseline": facts.baseline,
        "policy": facts.policy.name,
        "images": str(facts.metrics.candidate.images),
        **_savings(facts),
        "spend_usd": f"{facts.spend_usd:.6f}",
        "report": facts.report,
        **{f"digest.{name}": digest for name, digest in facts.digests.items()},
    }


def _savings(facts: CiFacts) -> dict[str, str]:
    """Return what an early decision saved, where there was one."""
    saved = facts.verdict.savings
    if saved is None:
        return {}
    return {
        "images_planned": str(saved.planned),
        "saved_usd": f"{saved.usd:.2f}",
        "saved_images": str(saved.images),
    }


def gate_junit(facts: CiFacts, timestamp: str) -> bytes:
    """Return the document of a finished gate."""
    return junit_xml(
        ci_cases(facts),
        properties=properties_of(facts),
        seconds=facts.seconds,
        timestamp=timestamp,
    )


def _case(case: CiCase, seconds: float) -> ET.Element:
    element = ET.Element(
        "testcase",
        {
            "classname": _safe(f"{NAME}.{case.suite}.{case.group}", _LONGEST_NAME),
            "name": _safe(case.name, _LONGEST_NAME),
            "time": _time(seconds),
        },
    )
    told = _safe("\n".join(case.details), _LONGEST_TEXT)
    message = _safe(case.sentence, _LONGEST_MESSAGE)
    if case.outcome in ("failure", "error"):
        inner = ET.SubElement(
            element, case.outcome, {"type": case.kind or case.outcome, "message": message}
        )
        inner.text = f"{message}\n{told}".rstrip()
        return element
    if case.outcome == "skipped":
        ET.SubElement(element, "skipped", {"type": case.kind or "skipped", "message": message})
    out = ET.SubElement(element, "system-out")
    out.text = f"{message}\n{told}".rstrip()
    return element


def _counts(cases: Sequence[CiCase]) -> dict[str, str]:
    found = Counter(case.outcome for case in cases)
    return {
        "tests": str(len(cases)),
        "failures": str(found["failure"]),
        "errors": str(found["error"]),
        "skipped": str(found["skipped"]),
    }


def _time(seconds: float) -> str:
    return f"{max(0.0, seconds):.3f}"


def _safe(text: str, most: int) -> str:
    """Return text that XML 1.0 can hold and people can see: nothing hidden, nothing too long."""
    shown = _NOT_XML.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", visible(text))
    return shorten(shown, most)
