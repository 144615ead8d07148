"""What planted defects say of the checks, for the report: one row a check that counted."""

from __future__ import annotations

from typing import Any

from tasks.checks.counts import ANY, NEVER_FAIL, CheckHealth, OwnHealth
from tasks.checks.live import Planted
from tasks.evidence.present import NONE
from tasks.evidence.text import visible
from tasks.metrics.rates import lower_bound
from tasks.verdict.checkers import Sensitivity, blind
from tasks.verdict.eyes import RISK, OwnEyes, eyes, own_eyes


def eyesight(found: Planted | None) -> dict[str, Any] | None:
    """Return the table of the checks with its words, ``None`` for a run without planted defects.

    Returns:
        ``rows`` with the name, counts and one-sided 95 % bounds as text, worst eyes first, and
        ``blind`` where it misses what it must see, which holds the gate if the policy requires the
        check, and ``unmeasured`` where nothing is known of one that the policy brings; ``any`` for
        good pictures that any check called bad; ``words`` on how it was measured; ``problem`` when
        drawings of this run were lost.
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
    rows += [_own(one, what) for one, what in zip(found.own, own_eyes(found.own), strict=True)]
    alarms = seen.alarms
    return {
        "rows": sorted(
            rows,
            key=lambda row: (not row["blind"], not row["unmeasured"], row["sort"], row["name"]),
        ),
        "any": None
        if alarms is None
        else f"{_up(alarms.alarms_upper(RISK))} ({alarms.alarms:,} of {alarms.clean:,})",
        "words": (
            f"Before this run the checks were shown {found.pictures:,} drawings, as they are and "
            f"with defects planted in them, and now {found.done:,} drawings of this run alone, by "
            "the very processes that judged its pictures."
            + (
                " The checks that the policy brings were shown what they themselves plant and know."
                if found.own
                else ""
            )
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
        "unmeasured": False,
        "sort": lower,
        "lower": f"{lower * 1000 // 1 / 10:.1f} %",
        "found": f"{own.found:,} of {own.planted:,}",
        "elsewhere": f"{elsewhere:,} more by another check" if elsewhere else "",
        "alarms": f"{_up(own.alarms_upper(RISK))}",
        "alarm_counts": f"{own.alarms:,} of {own.clean:,}",
        "today": NONE if today is None else f"{today.found:,} of {today.planted:,}",
    }


def _own(one: OwnHealth, what: OwnEyes) -> dict[str, Any]:
    """Return the row of a check that the policy brings: all that is known of it is of this run."""
    row = _row(
        one.health,
        one.health,
        lower_bound(one.health.found, one.health.planted, RISK),
        what.state == "blind",
    )
    return row | {
        "unmeasured": what.state == "not measured",
        "elsewhere": visible(one.problem) if one.problem else "",
    }


def _up(share: float) -> str:
    """Return an upper bound in percent, rounded up."""
    return f"{-(-share * 1000 // 1) / 10:.1f} %"
