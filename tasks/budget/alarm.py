"""Alarms about money: opened, counted and closed as the windows stand; I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.alerts.incidents import open_incidents, raise_alarm, resolve_alarm
from tasks.budget.check import PREFIX, Finding, Standing
from tasks.budget.money import dollars
from tasks.budget.windows import WindowKind
from tasks.state import State

#: Key of the alarm about a file of limits that cannot be read.
FILE_KEY = f"{PREFIX}file"


@dataclass(frozen=True, slots=True)
class Told:
    """What one look changed."""

    #: Titles of alarms that people are told now.
    opened: tuple[str, ...]
    #: How many alarms go on.
    lasting: int
    #: Keys of alarms that are over.
    resolved: tuple[str, ...]


def tell(
    state: State,
    standings: Sequence[Standing],
    found: Sequence[Finding],
    *,
    now: datetime,
    product: str | None = None,
) -> Told:
    """Open an alarm for each new finding and close those whose cause is gone.

    Args:
        state: The database.
        standings: Where every window stands.
        found: What people must be told of them.
        now: The present moment.
        product: Only alarms of this product and of all together are closed.
    """
    windows: dict[tuple[str, WindowKind], Standing] = {(s.who, s.window.kind): s for s in standings}
    current = {finding.key: finding for finding in found}
    opened, resolved = [], []
    # One transaction: two looks at the same time tell nothing twice.
    with state.begin() as connection:
        for incident in open_incidents(connection):
            ours = incident.key.startswith(PREFIX) and incident.key != FILE_KEY
            if not ours or (product is not None and incident.product not in (None, product)):
                continue
            how = _over(incident.key, incident.opened_at, current, windows)
            if how is not None and resolve_alarm(connection, incident.key, how=how, now=now):
                resolved.append(incident.key)
        for finding in current.values():
            new = raise_alarm(
                connection,
                finding.key,
                title=finding.title,
                severity="page" if finding.kind == "hard" else "warning",
                product=finding.product,
                lines=finding.lines,
                asked=finding.asked,
                links=(("Spend now", "imagegate budget"),),
                brief=finding.brief,
                now=now,
            )
            if new:
                opened.append(finding.title)
        if resolve_alarm(
            connection, FILE_KEY, how="The file of limits can be read again.", now=now
        ):
            resolved.append(FILE_KEY)
    return Told(tuple(opened), len(current) - len(opened), tuple(resolved))


def tell_damaged(state: State, error: str, *, now: datetime) -> None:
    """Open the alarm that the file of limits cannot be read, so that no run can start."""
    raise_alarm(
        state,
        FILE_KEY,
        title="BUDGET ALARM: the file of limits cannot be read, new runs are refused",
        severity="page",
        lines=("Users: not affected; new gates are refused.", f"What broke: {error}"),
        asked=("mend the file; `imagegate budget` says whether it is whole",),
        now=now,
    )


def _over(
    key: str,
    opened_at: str,
    current: Mapping[str, Finding],
    windows: Mapping[tuple[str, WindowKind], Standing],
) -> str | None:
    """Return what ended an alarm, or ``None`` while its cause lasts."""
    who, kind, what = key.removeprefix(PREFIX).rsplit(":", 2)
    standing = next((s for (w, k), s in windows.items() if (w, k) == (who, kind)), None)
    if standing is None:
        return f"There is no limit on the {kind} of {who} any more."
    if opened_at < standing.window.start_at:
        # Also when the new window is full already: that is another alarm.
        return f"A new {kind} began: {standing.window.name}."
    if key in current:
        return None
    if what == "forecast":
        if standing.soft_reached or standing.hard_reached:
            return "A limit is reached by now; that has an alarm of its own."
        return f"At the present pace the limit is not reached in {standing.window.name}."
    limit = standing.soft if what == "soft" else standing.hard
    now = "there is no such limit any more" if limit is None else f"the limit is {dollars(limit)}"
    return f"{dollars(standing.spent.total)} is spent in {standing.window.name}; {now}."
