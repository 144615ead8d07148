"""What planted defects say of the checks, for the report: one row a check that counted."""

from __future__ import annotations

from typing import Any

from tasks.checks.counts import ANY, NEVER_FAIL, CheckHealth
from tasks.checks.live import Planted
from tasks.evidence.present import NONE
from tasks.evidence.text import visible
from tasks.verdict.checkers import Sensitivity, blind
from tasks.verdict.eyes import RISK, eyes


def eyesight(found: Planted | None) -> dict[str, Any] | None:
    """Return the table of the checks with its words, ``None`` for a run without planted defects.

    Returns:
        ``rows`` with the name, counts and one-sided 95 % bounds as text, worst eyes first, and
        ``blind`` where the check holds the gate; ``any`` for good pictures that any check called
        bad; ``words`` on how it was measured; ``problem`` when drawings of this run were lost.
    """
    if found is None:
        return None
    seen = eyes(found)
    named = {one.name.partition(" (")[0] for one in blind(seen.checks)}
    today = {one.check: one for one in found.today}
    counted = [
        one
        for one in found.record
        if one.check in found.counting and one.check != ANY and one.check not in NEVER_FAIL
    ]
    bounds = {one.name: one.lower(RISK) for one in seen.checks}
    rows = [
        _row(one, today.get(one.check), bounds[one.check], one.check in named) for one in counted
    ]
    alarms = seen.alarms
    return {
        "rows": sorted(rows, key=lambda row: (not row["blind"], row["sort"], row["name"])),
        "any": None
        if alarms is None
        else f"{_up(alarms.alarms_upper(RISK))} ({alarms.alarms:,} of {alarms.clean:,})",
        "words": (
            f"Before this run the checks were shown {found.pictures:,} drawings, as they are and "
            f"with defects planted in them, and now {found.done:,} drawings of this run alone, by "
            "the very processes that judged its pictures."
        ),
        "problem": None if seen.problem is None else visible(seen.problem),
    }


def _row(
    one: CheckHealth, today: CheckHealth | None, lower: float, blinded: bool
) -> dict[str, Any]:
    own = Sensitivity(one.check, one.found, one.planted, one.clean.alarms, one.clean.clean)
    elsewhere = one.caught - one.found
    return {
        "name": visible(one.check),
        "blind": blinded,
        "sort": lower,
        "lower": f"{lower * 1000 // 1 / 10:.1f} %",
        "found": f"{own.found:,} of {own.planted:,}",
        "elsewhere": f"{elsewhere:,} more by another check" if elsewhere else "",
        "alarms": f"{_up(own.alarms_upper(RISK))}",
        "alarm_counts": f"{own.alarms:,} of {own.clean:,}",
        "today": NONE if today is None else f"{today.found:,} of {today.planted:,}",
    }


def _up(share: float) -> str:
    """Return an upper bound in percent, rounded up."""
    return f"{-(-share * 1000 // 1) / 10:.1f} %"
