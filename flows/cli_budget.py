"""``imagegate budget``: what was spent against the limits, and the day they will be reached."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.errors import ConfigError

if TYPE_CHECKING:
    from tasks.budget.check import Facts, Standing
    from tasks.budget.limits import Budgets
    from tasks.state import State

#: Width of the bar of a share.
_BAR = 12


def budget(
    product: Annotated[
        str | None, typer.Option(help="Only this product and the sum over all.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the spend of each day with the limits as PNG.", metavar="FILE"),
    ] = None,
    days: Annotated[
        int, typer.Option(min=7, max=366, help="How many days the picture goes back.")
    ] = 92,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.")
    ] = False,
) -> None:
    """Show spend by day, week and month against soft and hard limits, with a forecast."""
    from flows.cli_io import emit, say
    from flows.operate import opened
    from tasks.budget.check import standings
    from tasks.budget.limits import load_budgets
    from tasks.budget.spend import read_facts
    from tasks.budget.windows import local_day
    from tasks.settings import load_settings

    if plot is not None and plot.suffix.lower() != ".png":
        raise ConfigError(f"--plot {plot}: the picture is a PNG; give a name that ends in .png")
    settings, now = load_settings(), datetime.now(UTC)
    budgets = load_budgets(settings.budgets_file)
    today = local_day(now, budgets.zone)
    with opened(settings) as state:
        facts = read_facts(state, budgets, now)
        _known_product(product, budgets, facts)
        stands = standings(budgets, facts, product)
        if plot is not None:
            _draw(state, budgets, facts, product, days, plot)
    if as_json:
        shown = {"timezone": budgets.timezone, "today": today.isoformat()}
        emit(shown | {"windows": [_row(s, today) for s in stands], "plot": str(plot or "") or None})
        return
    say(_table(stands, facts, budgets, product, today))
    if plot is not None:
        say(f"Picture: {plot}")


def _known_product(product: str | None, budgets: Budgets, facts: Facts) -> None:
    from tasks.budget.limits import ALL
    from tasks.errors import known

    names = {*budgets.products, *(who for who in facts.days if who != ALL)}
    if product is not None and product not in names:
        raise ConfigError(
            f"--product {product}: no limits and no runs of such a product {known(names)}"
        )


def _draw(
    state: State, budgets: Budgets, facts: Facts, product: str | None, back: int, target: Path
) -> None:
    from tasks.budget.forecast import pace_of
    from tasks.budget.limits import ALL
    from tasks.budget.plot import Plot, draw
    from tasks.budget.spend import by_scope, daily
    from tasks.budget.windows import local_day
    from tasks.plan import write_atomic

    who, zone = product or ALL, budgets.zone
    today = local_day(facts.now, zone)
    # From the beginning of a month, so that its running sum is right.
    first = (today - timedelta(days=back - 1)).replace(day=1)
    cost = by_scope(daily(state, first, today + timedelta(days=1), zone)).get(who, {})
    spent = [
        (day := first + timedelta(days=n), cost.get(day, 0))
        for n in range((today - first).days + 1)
    ]
    picture = draw(
        Plot(
            who, budgets.timezone, spent, budgets.scopes.get(who), pace_of(facts.days.get(who, ()))
        )
    )
    write_atomic(target, picture)


def _row(standing: Standing, today: date) -> dict[str, Any]:
    """Return one window as JSON; dollars as numbers."""
    from tasks.budget.check import forecast_words
    from tasks.records import usd

    ahead = standing.forecast
    return {
        "scope": standing.who,
        "window": standing.window.kind,
        "name": standing.window.name,
        "start_at": standing.window.start_at,
        "end_at": standing.window.end_at,
        "spent_usd": usd(standing.spent.total),
        "reserved_usd": usd(standing.spent.reserved),
        "unknown_usd": usd(standing.spent.unknown),
        "soft_usd": None if standing.soft is None else usd(standing.soft),
        "hard_usd": None if standing.hard is None else usd(standing.hard),
        "share": standing.share,
        "soft_reached": standing.soft_reached,
        "hard_reached": standing.hard_reached,
        "forecast": forecast_words(standing, today),
        "likely_day": ahead.likely.isoformat() if ahead and ahead.likely else None,
        "earliest_day": ahead.earliest.isoformat() if ahead and ahead.earliest else None,
        "raised_by": standing.raised_by,
    }


def _table(
    stands: tuple[Standing, ...],
    facts: Facts,
    budgets: Budgets,
    product: str | None,
    today: date,
) -> str:
    """Return the windows in lines."""
    from tasks.budget.check import forecast_words
    from tasks.budget.limits import ALL
    from tasks.budget.money import Spent, dollars

    cells = [("", "window", "spent", "soft", "hard", "used", "", "hard limit")]
    for standing in stands:
        share = standing.share
        mark = " HARD" if standing.hard_reached else " soft" if standing.soft_reached else ""
        cells.append(
            (
                standing.who,
                standing.window.name,
                dollars(standing.spent.total),
                "–" if standing.soft is None else dollars(standing.soft),
                "–" if standing.hard is None else dollars(standing.hard),
                "–" if share is None else f"{100 * share:.0f} %",
                _bar(share) + mark,
                forecast_words(standing, today),
            )
        )
    widths = [max(len(line[i]) for line in cells) for i in range(8)]
    right = {2, 3, 4, 5}
    lines = [
        "  ".join(
            f"{cell:>{width}}" if n in right else f"{cell:<{width}}"
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    lines.append("")
    for who in dict.fromkeys(s.who for s in stands):
        own = next(s for s in stands if s.who == who)
        pace = (
            "too few whole days for a forecast"
            if own.pace is None
            else f"{dollars(round(own.pace.mean))} a day over {own.pace.days} days "
            f"(± {dollars(round(own.pace.spread))})"
        )
        lines.append(f"{who}: {pace}; {own.raised_by} can raise the limits")
    if product is not None and product not in budgets.products:
        lines.append(f"{product}: has no limits of its own; those of all products hold")
    unlimited = sorted(
        who for who in facts.days if who not in budgets.products and who not in (ALL, product)
    )
    if unlimited and budgets.products:
        lines.append(f"No limits of their own: {', '.join(unlimited)}; those of all products hold.")
    unused = sorted(who for who in budgets.products if not facts.days.get(who))
    if unused and any(facts.days.get(who) for who in facts.days if who != ALL):
        lines.append(
            f"No run so far of {', '.join(unused)}: look whether the name in the file is right."
        )
    spent = facts.spent.get((ALL, "month"), Spent())
    if spent.reserved + spent.unknown:
        lines.append(
            f"of this month's spend {dollars(spent.reserved)} is reserved by requests under way, "
            f"{dollars(spent.unknown)} of unknown billing; both count at their worst price"
        )
    if any(s.hard_reached for s in stands):
        lines.append("A hard limit is reached: runs that spend from it are refused (exit code 2).")
    return "\n".join(lines)


def _bar(share: float | None) -> str:
    filled = 0 if share is None else min(_BAR, round(_BAR * share))
    return "█" * filled + "░" * (_BAR - filled)
