"""The verdict: evidence against, missing evidence, and that nothing unknown is ever a PROMOTE."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.metrics.rates import rate
from tasks.policy import FailureRule, Limit, PairedRule, Policy
from tasks.records import (
    Accounts,
    Arm,
    ArmMetrics,
    ExpectationResult,
    Metrics,
    Paired,
    Slice,
)
from tasks.verdict import GateState, decide
from tasks.verdict.guards import GuardEvidence

ROOT = Path(__file__).resolve().parents[2]
RANK = {"PROMOTE": 0, "HOLD": 1, "ROLLBACK": 2}


def arm_metrics(arm: Arm, failures: int, n: int, unmeasured: int = 0, **other: Any) -> ArmMetrics:
    figures: dict[str, Any] = {
        "arm": arm,
        "mix_digest": f"sha256:{arm}",
        "images": n,
        "failure_rate": rate(failures, n, unmeasured=unmeasured),
        "accounts": Accounts(defect=failures, refused=0, undelivered=0, unmeasured=unmeasured),
        "right_refusals": 0,
        "text_unjudged": 0,
        "text_cases": n,
        "spend_usd": 4.0,
        "cost_per_1k_usd": 17.0,
        "effective_cost_per_1k_usd": 17.1 if arm == "candidate" else 42.0,
        "latency_p50_s": 0.5,
        "latency_p95_s": 1.0,
        "latency_p99_s": 1.5,
        "ttfb_p50_s": 0.3,
        "ttfb_p95_s": 0.6,
        "retries_per_image": 0.1,
    }
    return ArmMetrics(**(figures | other))


def piece(name: str, failures: int, n: int, unmeasured: int = 0) -> Slice:
    dimension, _, value = name.partition("=")
    counted = rate(failures, n, unmeasured=unmeasured)
    return Slice(arm="candidate", dimension=dimension, value=value, rate=counted)


def answer(source: str = "structure.rows", **changes: Any) -> ExpectationResult:
    figures: dict[str, Any] = {
        "name": source,
        "source": source,
        "on_breach": "hold",
        "success": True,
        "sentence": f"{source} is as it is.",
    }
    return ExpectationResult(**(figures | changes))


def gate(
    failures: int = 1,
    n: int = 240,
    unmeasured: int = 0,
    *,
    slices: tuple[Slice, ...] = (),
    candidate: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    **state: Any,
) -> GateState:
    """A whole run; every slice that is given is judged unless ``judged`` says which are."""
    figures: dict[str, Any] = {
        "candidate": arm_metrics("candidate", failures, n, unmeasured, **(candidate or {})),
        "baseline": arm_metrics("baseline", n // 8, n),
        "slices": slices,
        "forecast_usd_per_month": 17_100.0,
        "baseline_forecast_usd_per_month": 42_000.0,
    }
    whole: dict[str, Any] = {
        "policy": Policy(),
        "metrics": Metrics(**(figures | (metrics or {}))),
        "expectations": (answer(),),
        "planned_cases": n,
        "drawn_cases": n,
        "finished_cases": n,
        "baseline_finished": n,
        "judged": tuple(f"{one.dimension}={one.value}" for one in slices),
    }
    return GateState(**(whole | state))


def said(state: GateState) -> str:
    verdict = decide(state)
    return "\n".join((verdict.verdict, *verdict.reasons))


def named(state: GateState) -> str:
    """The verdict alone, as a look has it."""
    return decide(state, bounds=False).verdict


def guard(log_e: float, source: str = "limits[0]") -> GuardEvidence:
    return GuardEvidence(source=source, limit=2.0, images=240, log_e_fail=log_e)


def paired(worse: int, better: int = 0, pairs: int = 240) -> dict[str, Any]:
    return {"paired": Paired(pairs=pairs, candidate_only=worse, baseline_only=better)}


CALIBRATED = Policy(failure=FailureRule(mode="calibrated"))
STRICT_PAIRS = Policy(paired=PairedRule(required=True))


def test_unmeasured_images_count_against_promote_and_never_for_rollback() -> None:
    assert named(gate(0, 240)) == "PROMOTE"
    assert named(gate(0, 240, unmeasured=40)) == "HOLD"
    assert "and 40 could not be judged, which PROMOTE takes for failures" in said(gate(0, 240, 40))
    text = said(gate(0, 240, unmeasured=240))
    assert text.startswith("HOLD\nIt is unknown how many of 240 images failed: nobody could judge")


def test_slices_outside_the_plan_do_not_roll_back() -> None:
    slices = (
        piece("locale=th", 60, 60),
        piece("check=typography.text", 60, 60),
        piece("subtask=fast", 60, 60).model_copy(update={"arm": "baseline"}),
    )
    assert named(gate(1, slices=slices, judged=())) == "PROMOTE"
    assert named(gate(1, slices=slices, judged=("subtask=fast",))) == "PROMOTE"
    text = said(gate(1, slices=slices, judged=("locale=th",)))
    assert text.startswith("ROLLBACK\nSlice locale=th: 60 of 60 images failed (100.0 %)")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stopped": "the run's cap of $0.50 is reached."}, "ended early: the run's cap of $0.50"),
        ({"finished_cases": 239}, "239 of 240 cases finished with the candidate"),
        ({"finished_cases": 241}, "241 of 240 cases finished with the candidate"),
        ({"baseline_finished": 238}, "238 of 240 cases finished with the baseline"),
        ({"drawn_cases": 241, "finished_cases": 241, "baseline_finished": 241}, "count 240"),
        (
            {"drawn_cases": 0, "finished_cases": 0, "baseline_finished": 0},
            "The plan has no cases",
        ),
        ({"candidate": {"failure_rate": rate(0, 300)}}, "The failure rate counts 300 images"),
        ({"expectations": ()}, "No expectation was validated"),
        ({"expectations": (answer(success=False),)}, "structure.rows is as it is"),
        (
            {"expectations": (answer(success=True, unmeasured=True),)},
            "unknown is never a pass",
        ),
        (
            {"policy": Policy(limits=(Limit(measure="spend_usd", max=1),))},
            "(limits[0]) was not validated",
        ),
        ({"candidate": {"latency_p95_s": None}}, "Not measured: candidate.latency_p95_s"),
        ({"candidate": {"ttfb_p95_s": math.nan}}, "Not a number: candidate.ttfb_p95_s"),
        ({"metrics": {"forecast_usd_per_month": math.inf}}, "forecast_usd_per_month"),
        (
            {"candidate": {"failure_rate": rate(0, 240).model_copy(update={"estimate": None})}},
            "Not measured: candidate.failure_rate",
        ),
    ],
)
def test_what_is_missing_holds(change: dict[str, Any], sentence: str) -> None:
    text = said(gate(**change))
    assert text.startswith("HOLD")
    assert sentence in text


def test_extra_cases_of_a_bad_slice_are_no_missing_cases() -> None:
    extra = {"drawn_cases": 260, "finished_cases": 260, "baseline_finished": 260}
    assert named(gate(candidate={"extra_images": 20}, **extra)) == "PROMOTE"
    assert named(gate(candidate={"extra_images": 19}, **extra)) == "HOLD"


def test_a_stopped_run_can_still_be_rolled_back_and_says_what_is_missing() -> None:
    state = gate(20, 60, planned_cases=240, drawn_cases=240, stopped="Ctrl-C")
    verdict = decide(state)

    assert verdict.verdict == "ROLLBACK"
    assert "The run ended early: Ctrl-C." in verdict.warnings
    assert "60 of 240 cases finished with the candidate." in verdict.warnings


def test_no_images_hold() -> None:
    verdict = decide(gate(0, 0))
    assert verdict.verdict == "HOLD"
    assert "No image was judged: there is no failure rate." in verdict.reasons
    production = Policy(failure=FailureRule(origins=("production",)))
    assert "No image from production inputs was judged" in said(gate(0, 0, policy=production))


def test_expectations_decide_by_what_a_breach_means() -> None:
    def with_result(**changes: Any) -> str:
        return decide(gate(expectations=(answer(), answer("limits[0]", **changes)))).verdict

    assert with_result(on_breach="rollback", success=False) == "ROLLBACK"
    assert with_result(on_breach="rollback", success=False, unmeasured=True) == "HOLD"
    assert with_result(on_breach="hold", success=False) == "HOLD"
    assert with_result(on_breach="warn", success=False) == "PROMOTE"
    warned = decide(gate(expectations=(answer(), answer(on_breach="warn", success=False))))
    assert warned.warnings == ("structure.rows is as it is.",)


@pytest.mark.parametrize(
    "changes",
    [{"failures": 300}, {"failures": -1}, {"unmeasured": -5}, {"unmeasured": 241}, {"n": -1}],
)
def test_impossible_counts_are_an_error_and_no_verdict(changes: dict[str, int]) -> None:
    wrong = rate(0, 240).model_copy(update=changes)
    with pytest.raises(ValueError, match=r"failure rate|failures must be"):
        decide(gate(candidate={"failure_rate": wrong}))
    in_slice = piece("locale=th", 0, 240).model_copy(update={"rate": wrong})
    with pytest.raises(ValueError, match="slice 'locale=th'"):
        decide(gate(slices=(in_slice,)))


def test_the_verdict_needs_no_heavy_library() -> None:
    code = (
        "import sys, tasks.verdict;"
        "heavy = {'pandas', 'prefect', 'great_expectations', 'scipy', 'cv2', 'httpx'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
