"""``imagegate budget``, and the refusal of runs, as a user meets them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tasks.budget.windows import stamp
from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.state import State
from tests.budget.rows import add_row, add_run
from tests.conftest import Command


def limits(tmp_path: Path, **scopes: Any) -> dict[str, str]:
    value = {
        "raised_by": {"name": "Dana", "contact": "#releases"},
        "all": {"month_usd": {"soft": 4000, "hard": 9000}},
        "products": {"storefront": {"week_usd": {"soft": 10, "hard": 50}}},
    }
    path = tmp_path / "budgets.yaml"
    path.write_text(yaml.safe_dump(value | scopes), encoding="utf-8")
    return {"IMAGEGATE_BUDGETS_FILE": str(path)}


@pytest.fixture
def ledger(light_imagegate: Command) -> State:
    """$40 of the storefront now, and some every day of three weeks before."""
    state = State(f"sqlite:///{light_imagegate.home / 'state.db'}")
    now = datetime.now(UTC)
    add_run(state, "a", "storefront", stamp(now - timedelta(days=21)))
    for days in range(1, 22):
        # Of another product, so that no day of the week changes what the test expects.
        add_row(state, "b", stamp(now - timedelta(days=days)), 3 + days % 5)
    add_row(state, "a", stamp(now), 30)
    add_row(state, "a", stamp(now), 10, "reserved")
    state.close()
    return state


def test_the_table_and_its_json_say_the_same(
    light_imagegate: Command, ledger: State, tmp_path: Path
) -> None:
    env = limits(tmp_path)
    done = light_imagegate("budget", **env)
    assert done.code == 0, done.err
    line = next(text for text in done.out.splitlines() if text.startswith("storefront  week"))
    for words in ("$40.00", "$10.00", "$50.00", "80 %", "█", "soft"):
        assert words in line
    assert "Dana (#releases) can raise the limits" in done.out
    assert "$10.00 is reserved by requests under way" in done.out
    shown = light_imagegate("budget", "--json", "--product", "storefront", **env).json
    rows = {(row["scope"], row["window"]): row for row in shown["windows"]}
    week = rows["storefront", "week"]
    assert (week["spent_usd"], week["reserved_usd"], week["soft_reached"]) == (40, 10, True)
    assert (week["hard_reached"], week["share"]) == (False, 0.8)
    assert rows["all", "month"]["spent_usd"] >= 40


def test_the_picture_is_drawn_and_shows_the_limits(
    light_imagegate: Command, ledger: State, tmp_path: Path
) -> None:
    env = limits(tmp_path, all={"day_usd": {"soft": 20, "hard": 45}})
    target = tmp_path / "spend.png"
    done = light_imagegate("budget", "--plot", str(target), **env)
    assert done.code == 0, done.err
    picture = decode(target.read_bytes(), Expected()).picture
    assert picture is not None
    pixels = picture.rgb.reshape(-1, 3)
    for colour in ((74, 122, 184), (196, 132, 0), (190, 40, 46)):  # bars, soft, hard
        assert np.all(pixels == colour, axis=1).sum() > 500, colour


def test_over_the_hard_limit_nothing_is_started(
    light_imagegate: Command, ledger: State, tmp_path: Path
) -> None:
    env = limits(tmp_path, products={"storefront": {"week_usd": {"hard": 40}}})
    for arguments in (["run", "--dry-run"], ["run", "--json"]):
        done = light_imagegate(*arguments, **env)
        flat = " ".join(done.err.split())
        assert done.code == 2, done.err
        for words in (
            "over budget, nothing was spent",
            "week's hard limit of product 'storefront'",
            "$40.00 of $40.00",
            "Dana (#releases) can raise it",
        ):
            assert words in flat
        assert "Traceback" not in done.err
    assert json.loads(done.out)["kind"] == "RefusedError"
    status = light_imagegate("status", "--json").json
    assert (status["production"], status["freezes"]) == (None, [])
    assert not (light_imagegate.home / "prefect").exists()
    # Raised: the dry run goes on, and says what is left.
    env = limits(tmp_path, products={"storefront": {"week_usd": {"hard": 41}}})
    done = light_imagegate("run", "--dry-run", "--cases", "40", **env)
    assert done.code == 0, done.err
    flat = " ".join(done.out.split())
    assert "this run may spend $1.00 of the $40.00 of its own budget" in flat
    assert "would pass the budget and end as HOLD" in flat


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--product", "nothing"], "no limits and no runs of such a product"),
        (["--plot", "spend.svg"], "ends in .png"),
        (["--days", "2"], "--days"),
    ],
)
def test_wrong_flags(
    arguments: list[str], words: str, light_imagegate: Command, tmp_path: Path
) -> None:
    done = light_imagegate("budget", *arguments, **limits(tmp_path))
    assert done.code == 2
    assert words in " ".join(done.err.split())


def test_a_new_installation_and_a_damaged_file(light_imagegate: Command, tmp_path: Path) -> None:
    done = light_imagegate("budget", "--plot", str(tmp_path / "empty.png"))
    assert done.code == 0, done.err
    assert "too few" in done.out
    assert (tmp_path / "empty.png").stat().st_size > 1000
    broken = tmp_path / "broken.yaml"
    broken.write_text("all: {", encoding="utf-8")
    for command in (["budget"], ["run"]):
        done = light_imagegate(*command, IMAGEGATE_BUDGETS_FILE=str(broken))
        assert done.code == 2
        assert "broken.yaml" in " ".join(done.err.split()).replace(" ", "")
