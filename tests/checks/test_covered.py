"""Every name that a finding can carry has planted defects, or a reason why it has none."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tasks.check_rules import CHECK_NAME
from tasks.checks.counts import NEVER_FAIL, NOT_PLANTED
from tasks.checks.planted import DEFECTS, check_names
from tasks.checks.suite import CHECKS
from tasks.evidence import rules

ROOT = Path(__file__).parents[2]
#: Constants of the checks' modules that look like names of checks, and what they are.
OTHER_NAMES = {"imagegate.checks": "the group of entry points", "planted.json": "a file of a run"}


def names_in(code: str, *, constants: bool = True) -> set[str]:
    """Names of findings in a module.

    A check is named by a field of its class, by ``check=`` of a finding, or, in the modules of the
    checks, by a constant that either of them takes.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        values: list[ast.expr | None] = []
        given = isinstance(node, ast.keyword) and node.arg == "check"
        if isinstance(node, ast.keyword | ast.AnnAssign) and (given or hasattr(node, "target")):
            values.append(node.value)
        elif isinstance(node, ast.Assign) and constants:
            values += node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.add(value.value)
    return {name for name in found if re.fullmatch(CHECK_NAME, name)}


def test_every_check_has_planted_defects_or_a_reason() -> None:
    planted = {defect.check for defect in DEFECTS}
    assert planted <= set(check_names())
    assert {check.name for check in CHECKS} < set(check_names())
    without = set(check_names()) - planted
    assert without == NEVER_FAIL
    assert without <= NOT_PLANTED.keys()
    # A reason is no excuse for a check that has defects.
    assert planted.isdisjoint(NOT_PLANTED)
    assert all(len(why) > 20 for why in NOT_PLANTED.values())


def test_a_name_that_a_finding_carries_anywhere_is_covered() -> None:
    """A new check, wherever it is written, must come with planted defects or say why not."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "tasks").rglob("*.py")):
        names = names_in(path.read_text(encoding="utf-8"), constants=path.parent.name == "checks")
        found |= dict.fromkeys(names, path.name)
    covered = {*check_names(), *NOT_PLANTED, *OTHER_NAMES}
    families = tuple(name for name in NOT_PLANTED if name.endswith("."))
    assert {"geometry.size", "consistency.campaign", "typography.extra", "safety.provenance"} <= (
        found.keys()
    )
    strangers = {n: f for n, f in found.items() if n not in covered and not n.startswith(families)}
    assert strangers == {}


def test_the_scan_finds_a_new_check() -> None:
    assert names_in('class A:\n    name: str = "new.check"\n') == {"new.check"}
    assert names_in('Finding(check="new.check", version="1")') == {"new.check"}
    assert names_in('ONE, TWO = "new.one", "new.two"') == {"new.one", "new.two"}
    assert names_in('x = "no name"') == set()
    assert names_in('EVENT = "an.event"', constants=False) == set()


def test_the_report_has_words_for_exactly_what_can_be_found() -> None:
    told = {*check_names(), *(name for name in NOT_PLANTED if not name.endswith("."))}
    assert told == rules._WORDS.keys()
