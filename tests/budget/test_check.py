"""Where windows stand, what people are told of it, and who is refused."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from tasks.budget.check import Facts, Finding, Standing, findings, forecast_words, standings
from tasks.budget.hard import HardLimit, hard_limits, refusal, room
from tasks.budget.money import Spent
from tests.budget.rows import budgets, moment

USD = 1_000_000
NOW = moment("2026-11-25T11:00Z")
TODAY = date(2026, 11, 25)


def standing(
    spent_usd: float, *, file: Any = None, days: tuple[int, ...] = (), kind: str = "month"
) -> Standing:
    """Return where the only window of all products stands."""
    facts = Facts(
        now=NOW,
        spent={("all", kind): Spent(booked=round(spent_usd * USD))},
        days={"all": tuple(n * USD for n in days)},
    )
    (found,) = standings(file or budgets(), facts)
    return found


def told(one: Standing) -> list[Finding]:
    return list(findings(one, TODAY))


def test_below_the_limits_nobody_is_told() -> None:
    assert told(standing(79.99)) == []


def test_soft_is_told_with_what_is_left() -> None:
    (soft,) = told(standing(80))
    assert soft.kind == "soft"
    assert soft.key == "budget:all:month:soft"
    assert soft.product is None
    text = " ".join((soft.title, *soft.lines))
    for words in ("all products together", "$80.00", "Left: $20.00", "$100.00", "2026-12-01"):
        assert words in text


@pytest.mark.parametrize("spent", [99.51, 100, 130])
def test_hard_is_reached_when_no_run_fits_any_more(spent: float) -> None:
    # Whole requests never meet a limit to the cent: half a dollar left is nothing left.
    soft_too = told(standing(spent))
    assert [finding.kind for finding in soft_too] == ["hard", "soft"]
    hard = soft_too[0]
    assert hard.key == "budget:all:month:hard"
    text = " ".join((hard.title, *hard.lines, *hard.asked))
    for words in (f"${spent:.2f}", "$100.00", "refused", "Dana (#releases)", "month_usd.hard"):
        assert words in text
    assert [f.kind for f in told(standing(99.49))] == ["soft"]


def test_the_outlook_warns_of_weeks_and_months_only_before_a_limit_is_reached() -> None:
    pace = (10,) * 14
    (warning,) = told(standing(60, days=pace))
    assert (warning.kind, warning.key) == ("forecast", "budget:all:month:forecast")
    assert "2026-11-28" in " ".join(warning.lines)  # 60 → 100 in four days, today included
    assert "$10.00 a day" in " ".join(warning.lines)
    assert told(standing(30, days=pace)) == []  # not before the month ends
    assert [f.kind for f in told(standing(85, days=pace))] == ["soft"]
    day = budgets(all={"day_usd": {"hard": 8}})
    assert told(standing(2, file=day, days=pace, kind="day")) == []
    only_soft = budgets(all={"month_usd": {"soft": 70}})
    assert told(standing(60, file=only_soft, days=pace)) == []


def test_the_forecast_in_words() -> None:
    steady = (10,) * 14
    uneven = (0, 20) * 7
    assert forecast_words(standing(60, days=steady), TODAY) == "2026-11-28"
    assert forecast_words(standing(92, days=steady), TODAY) == "today"
    assert forecast_words(standing(5, days=steady), TODAY) == "not this month"
    assert forecast_words(standing(100, days=steady), TODAY) == "reached"
    assert forecast_words(standing(5), TODAY) == "too few days to say"
    words = forecast_words(standing(60, days=uneven), TODAY)
    assert words == "2026-11-28, at the earliest 2026-11-26"
    assert "not this month, at the earliest" in forecast_words(standing(35, days=uneven), TODAY)


def test_a_limit_of_nothing_is_reached_at_once() -> None:
    stop = budgets(all={"month_usd": {"hard": 0}}, least_run_usd=0)
    one = standing(0, file=stop)
    assert one.hard_reached
    assert one.share is None
    assert [f.kind for f in told(one)] == ["hard"]


def test_a_product_is_looked_at_with_the_sum_over_all() -> None:
    file = budgets(products={"shop": {"day_usd": {"soft": 1}}, "blog": {"week_usd": {"hard": 5}}})
    facts = Facts(NOW, {("shop", "day"): Spent(booked=2 * USD)}, {})
    assert [s.who for s in standings(file, facts)] == ["all", "blog", "shop"]
    found = standings(file, facts, "shop")
    assert [(s.who, s.soft_reached) for s in found] == [("all", False), ("shop", True)]
    assert [f.product for s in found for f in findings(s, TODAY)] == ["shop"]


# --- the refusal -----------------------------------------------------------------------------


def spent_of(file: Any, *usd: float) -> dict[HardLimit, int]:
    limits = hard_limits(file, "shop")
    return {limit: round(n * USD) for limit, n in zip(limits, usd, strict=True)}


def test_every_limit_that_is_reached_is_named() -> None:
    file = budgets(
        products={
            "shop": {
                "day_usd": {"soft": 1, "hard": 10},
                "raised_by": {"name": "Kim", "contact": "kim@example.org"},
            }
        }
    )
    assert refusal(spent_of(file, 50, 5), NOW) is None
    said = refusal(spent_of(file, 100, 10), NOW)
    for words in (
        "nothing was spent",
        "month's hard limit of all products together",
        "$100.00 of $100.00",
        "2026-12-01 00:00 (UTC)",
        "day's hard limit of product 'shop'",
        "2026-11-26 00:00 (UTC)",
        "Dana (#releases) can raise it: month_usd of all",
        "Kim (kim@example.org) can raise it: day_usd of shop",
    ):
        assert words in said


def test_the_tightest_limit_caps_a_run() -> None:
    file = budgets(products={"shop": {"day_usd": {"hard": 10}}})
    left = room(spent_of(file, 95, 2), NOW)
    assert left.left == 5 * USD
    assert left.caps(5 * USD) is None
    said = left.caps(25 * USD)
    assert "$5.00 of the $25.00" in said
    assert "month's hard limit of all" in said
    assert room({}, NOW).caps(10**15) is None


def test_least_run_must_be_left() -> None:
    file = budgets(all={"month_usd": {"hard": 10}})
    assert refusal(spent_of(file, 9.5), NOW) is None
    assert refusal(spent_of(file, 9.51), NOW) is not None
