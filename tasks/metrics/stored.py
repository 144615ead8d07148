"""Reports back from the tables of a run, so that its evidence can be judged again.

What the checks found on a picture alone is read as it was found. What is found on pictures
together, and what the policy makes of unrequested text, follows from the reports and the policy:
:func:`judged_again` computes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from tasks.check_rules import GROUP_KINDS, CheckRules
from tasks.checks.groups import group_findings
from tasks.checks.unrequested import CHECK as EXTRA
from tasks.checks.unrequested import extra_text
from tasks.records import Arm, Case, Finding, ImageReport, Region

if TYPE_CHECKING:
    import pandas as pd

Reports = dict[tuple[Arm, str], ImageReport]

#: Checks whose findings follow from the reports of a run and its policy.
DERIVED = frozenset({EXTRA, *(f"consistency.{kind}" for kind in GROUP_KINDS)})
_LISTS = ("read_text", "text_severity", "extra_text", "extra_regions", "colour")


def reports_of(reports: pd.DataFrame, findings: pd.DataFrame) -> Reports:
    """Return the reports of a run, all findings included, by arm and case id.

    Args:
        reports: The table ``reports``.
        findings: The table ``findings``.

    Raises:
        ValueError: A row is no report or no finding, or a finding is of a picture without report.
    """
    found: dict[tuple[Arm, str], list[Finding]] = {}
    for row in _rows(findings):
        found.setdefault(_owner(row), []).append(_finding(row))
    complete: Reports = {}
    for row in _rows(reports):
        key = _owner(row)
        values = row | {name: json.loads(row[name]) for name in _LISTS}
        values = {name: values[name] for name in ImageReport.model_fields if name in values}
        values["look"] = values.get("look") or ""
        complete[key] = ImageReport.model_validate(values | {"findings": found.pop(key, [])})
    if found:
        arm, case_id = next(iter(found))
        raise ValueError(f"the {arm}'s case {case_id!r} has findings and no report")
    return complete


def judged_again(cases: Iterable[Case], reports: Reports, rules: CheckRules) -> Reports:
    """Return the reports with the derived findings computed anew by a policy.

    Args:
        cases: The cases that count.
        reports: As they are stored; findings that a policy once derived are dropped.
        rules: What the policy asks of the checks.
    """
    listed = list(cases)
    by_id = {case.case_id: case for case in listed}
    plain = {
        key: report.model_copy(
            update={"findings": tuple(f for f in report.findings if f.check not in DERIVED)}
        )
        for key, report in reports.items()
    }
    together = group_findings(listed, plain, rules.consistency)
    return {
        key: report.model_copy(
            update={
                "findings": (
                    *report.findings,
                    *extra_text(by_id[key[1]].expected_text, report, rules),
                    *together.get(key, ()),
                )
            }
        )
        for key, report in plain.items()
        if key[1] in by_id
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of plain values, ``None`` where a cell holds nothing."""
    cells = frame.astype(object).where(frame.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in cells.to_dict("records")]


def _owner(row: dict[str, Any]) -> tuple[Arm, str]:
    return cast("Arm", row["arm"]), str(row["case_id"])


def _finding(row: dict[str, Any]) -> Finding:
    values = {name: row[name] for name in Finding.model_fields if name in row}
    if row.get("region_x") is not None:
        sides = {side: int(row[f"region_{side}"]) for side in Region.model_fields}
        values["region"] = Region(**sides)
    values["message"] = values.get("message") or ""
    return Finding.model_validate(values)
