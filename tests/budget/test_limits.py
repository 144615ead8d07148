"""The file of limits: strict, and nothing is spent without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.budget.limits import load_budgets
from tasks.errors import ConfigError
from tasks.settings import DEPLOYMENTS

RAISER = {"name": "Dana", "contact": "#releases"}


def written(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "budgets.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
    return path


def file(**more: Any) -> dict[str, Any]:
    return {"raised_by": RAISER, "all": {"month_usd": {"soft": 80, "hard": 100}}} | more


def test_the_shipped_limits_leave_room_for_the_default_gate() -> None:
    budgets = load_budgets(DEPLOYMENTS / "budgets.yaml")
    assert "storefront" in budgets.products
    for scope in budgets.of_product("storefront").values():
        for kind in ("day", "week", "month"):
            limits = scope.limits(kind)
            assert limits is not None
            # A first run costs some $13, later ones $4.50.
            assert 13 + 10 * 4.5 < limits.soft <= limits.hard < 10_000


def test_scopes_and_who_raises_them(tmp_path: Path) -> None:
    own = {"day_usd": {"hard": 5}, "raised_by": {"name": "Kim", "contact": "kim@example.org"}}
    budgets = load_budgets(written(tmp_path, file(products={"shop": own})))
    assert list(budgets.scopes) == ["all", "shop"]
    assert list(budgets.of_product("other")) == ["all"]
    assert budgets.raiser("shop").words == "Kim (kim@example.org)"
    assert budgets.raiser("all").words == budgets.raiser("other").words == "Dana (#releases)"
    assert budgets.of_product("shop")["shop"].day_usd.hard_microusd == 5_000_000


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", ["holds no limits", "nothing may be spent"]),
        ("{}", ["holds no limits"]),
        ("- 1", ["expected a mapping"]),
        ("all: {month_usd: {soft: 1}\n", ["not valid YAML"]),
        (file(all=None), ["'all'"]),
        (file(al={}), ["'al'", "unknown field"]),
        (file(raised_by={"name": "Dana"}), ["raised_by.contact"]),
        (file(all={}), ["names no limit"]),
        (file(all={"month_usd": {}}), ["soft, hard or both"]),
        (file(all={"month_usd": {"soft": 101, "hard": 100}}), ["soft (101)", "above hard (100)"]),
        (file(all={"month_usd": {"hard": -1}}), ["month_usd.hard", "-1"]),
        (file(all={"month_usd": {"hard": float("nan")}}), ["month_usd.hard"]),
        (file(all={"month_usd": {"hard": float("inf")}}), ["month_usd.hard"]),
        (file(all={"year_usd": {"hard": 1}}), ["year_usd", "unknown field"]),
        (file(all={"day_usd": {"hard": 0.4}}), ["0.4", "least_run_usd"]),
        (file(timezone="Europe/Berln"), ["timezone", "Europe/Berlin", "Europe/Berln"]),
        (file(timezone="../../etc/passwd"), ["timezone", "IANA"]),
        (file(timezone="Europe"), ["timezone", "IANA"]),
        (file(products={"all": {"day_usd": {"hard": 9}}}), ["all products together"]),
        (file(products={"a b": {"day_usd": {"hard": 9}}}), ["'a b'", "name of a product"]),
        (file(products={"a:b": {"day_usd": {"hard": 9}}}), ["'a:b'", "name of a product"]),
        ("all: {}\nall: {}\n", ["stands here twice"]),
    ],
)
def test_a_damaged_file_is_named_with_its_field(
    value: Any, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_budgets(written(tmp_path, value))
    assert "budgets.yaml" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_budgets(tmp_path / "nowhere.yaml")


def test_zero_stops_all_spending(tmp_path: Path) -> None:
    budgets = load_budgets(written(tmp_path, file(all={"day_usd": {"hard": 0}})))
    assert budgets.all.day_usd.hard_microusd == 0
