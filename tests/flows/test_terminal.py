"""The closing table: what was decided on, of how much, and what that saved."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.request import GateResult
from flows.terminal import before_after, show_result
from tasks.records import Accounts, Rate, Savings


@pytest.fixture
def result() -> GateResult:
    rate = Rate(estimate=0.097, lower=0.024, upper=0.237, n=72, failures=7)
    return GateResult(
        run_id="r",
        verdict="ROLLBACK",
        reasons=("9.7 % of 72 images failed.",),
        warnings=(),
        product="shop",
        candidate="new",
        baseline="old",
        production="old",
        images=72,
        incomplete=False,
        failure_rate=rate,
        baseline_failure_rate=rate,
        cost_per_1k_usd=1.0,
        effective_cost_per_1k_usd=1.0,
        baseline_effective_cost_per_1k_usd=1.0,
        spend_usd=5.09,
        savings=Savings(planned=600, decided=72, used=96, images=1008, usd=26.71),
        looks=6,
        latency_s={"p50": 1.0, "p95": 1.0, "p99": 1.0},
        accounts=Accounts(defect=7, refused=0, undelivered=0, unmeasured=0),
        slices=(),
        actions=(),
        evidence="/runs/r",
        report="/runs/r/report.html",
        seconds=47.0,
    )


def shown(result: GateResult) -> str:
    out = io.StringIO()
    show_result(result, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def test_an_early_decision_tells_of_how_many_images_and_what_it_saved(result: GateResult) -> None:
    assert before_after(result)[-1] == ("images", "72", "72 of 600 planned")
    assert "Saved  $26.71 and 1,008 images by deciding at look 6" in shown(result)
    assert "Resume" not in shown(result)


def test_a_whole_plan_saves_nothing(result: GateResult) -> None:
    whole = result.model_copy(update={"savings": None})
    assert before_after(whole)[-1] == ("images", "72", "72")
    assert "Saved" not in shown(whole)
