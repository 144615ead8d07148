"""The verdict: evidence against, missing evidence, and that nothing unknown is ever a PROMOTE."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.metrics.rates import rate
from tasks.policy import FailureRule, Limit, Policy, SliceRule
from tasks.records import (
    Accounts,
    Arm,
    ArmMetrics,
    CheckSlice,
    ExpectationResult,
    Metrics,
    Paired,
    Slice,
)
from tasks.verdict import GateState, decide

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
        "finished_cases": n,
        "baseline_finished": n,
    }
    return GateState(**(whole | state))


def said(state: GateState) -> str:
    verdict = decide(state)
    return "\n".join((verdict.verdict, *verdict.reasons))


def test_a_good_candidate_is_promoted_with_its_gain() -> None:
    verdict = decide(gate())

    assert verdict.verdict == "PROMOTE"
    assert verdict.warnings == ()
    assert verdict.reasons == (
        "0.4 % of 240 images failed (0.0 % to 2.3 % with 95 % confidence); with 95 % confidence "
        "fewer than 2.0 % fail, and the policy promotes below 3 %.",
        "Failures 12.5 % → 0.4 % on the same cases.",
        "Effective cost $42.00 → $17.10 per 1,000 usable images.",
    )


def test_a_bad_candidate_is_rolled_back_with_the_failing_checks() -> None:
    failed = CheckSlice(
        arm="candidate",
        dimension="subtask",
        value="typography",
        check="typography.text",
        rate=rate(21, 96),
    )
    verdict = decide(gate(29, metrics={"check_failures": (failed,)}))

    assert verdict.verdict == "ROLLBACK"
    assert verdict.reasons[0].startswith("12.1 % of 240 images failed (8.2 % to 16.9 % with 95 %")
    assert "the policy rolls back above 2 %" in verdict.reasons[0]
    assert "typography.text failed 21 of 96 in subtask=typography." in verdict.reasons


def test_too_little_evidence_says_how_many_clean_images_would_decide() -> None:
    state = gate(3)
    verdict = decide(state)

    assert verdict.verdict == "HOLD"
    more = int(verdict.reasons[0].split(" more clean images")[0].split()[-1])
    assert decide(gate(3, 240 + more)).verdict == "PROMOTE"
    assert decide(gate(3, 240 + more - 1)).verdict == "HOLD"


def test_unmeasured_images_count_against_promote_and_never_for_rollback() -> None:
    assert decide(gate(0, 240)).verdict == "PROMOTE"
    assert decide(gate(0, 240, unmeasured=40)).verdict == "HOLD"
    assert "taking 40 that could not be judged for failures" in said(gate(0, 240, unmeasured=40))
    assert decide(gate(0, 240, unmeasured=240)).verdict == "HOLD"


def test_half_of_alpha_is_for_the_headline() -> None:
    n = 240
    for failures in range(n + 1):
        bound = binomtest(failures, n, alternative="greater").proportion_ci(0.975, "exact").low
        rolled_back = decide(gate(failures, n)).verdict == "ROLLBACK"
        assert rolled_back == (bound > 0.02)
        if failures > 20:
            break


def test_a_bad_slice_is_rolled_back_at_its_share_of_alpha() -> None:
    clean = tuple(piece(f"locale=l{i}", 0, 30) for i in range(9))
    for failures in range(31):
        state = gate(1, slices=(*clean, piece("locale=th", failures, 30)))
        share = 0.05 / 2 / 10
        bound = binomtest(failures, 30, alternative="greater").proportion_ci(1 - share, "exact")
        assert (decide(state).verdict == "ROLLBACK") == (bound.low > 0.10)
    assert "Slice locale=th: 30 of 30 images failed (100.0 %)" in said(state)


def test_small_slices_and_other_dimensions_are_not_judged() -> None:
    slices = (
        piece("locale=th", 11, 11),
        piece("check=typography.text", 60, 60),
        piece("theme=sale", 60, 60),
        piece("subtask=fast", 60, 60).model_copy(update={"arm": "baseline"}),
    )
    assert decide(gate(1, slices=slices)).verdict == "PROMOTE"


def test_unlucky_slices_of_a_build_at_the_limit_rarely_roll_back() -> None:
    """Exact: the chance that any of 20 slices fires is below half of alpha."""
    n, k = 40, 20
    fires = next(
        f
        for f in range(n + 1)
        if decide(
            gate(1, slices=tuple(piece(f"locale=l{i}", f if i == 0 else 0, n) for i in range(k)))
        ).verdict
        == "ROLLBACK"
    )
    chance = 1 - (1 - binomtest(fires, n, 0.10, alternative="greater").pvalue) ** k
    assert chance <= 0.025


def test_an_amber_slice_is_a_warning() -> None:
    clean = tuple(piece(f"locale=l{i}", 0, 30) for i in range(9))
    verdict = decide(gate(1, slices=(*clean, piece("locale=th", 7, 30))))

    assert verdict.verdict == "PROMOTE"
    assert any(w.startswith("Slice locale=th looks bad: 7 of 30") for w in verdict.warnings)


def test_a_critical_slice_needs_its_own_proof() -> None:
    policy = Policy(slices=SliceRule(critical=("subtask=typography",)))

    missing = gate(1, policy=policy)
    few = gate(1, policy=policy, slices=(piece("subtask=typography", 0, 20),))
    enough = gate(1, policy=policy, slices=(piece("subtask=typography", 0, 29),))
    unknown = gate(1, policy=policy, slices=(piece("subtask=typography", 0, 29, 2),))

    assert "subtask=typography is not covered" in said(missing)
    assert said(few).startswith("HOLD")
    assert "9 more clean images would decide" in said(few)
    assert decide(enough).verdict == "PROMOTE"
    assert decide(unknown).verdict == "HOLD"


def test_restricted_origins_are_told() -> None:
    policy = Policy(failure=FailureRule(origins=("production", "stress")))
    assert "240 images from production and stress inputs failed" in said(gate(policy=policy))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stopped": "the run's cap of $0.50 is reached."}, "ended early: the run's cap of $0.50"),
        ({"finished_cases": 239}, "239 of 240 cases finished with the candidate"),
        ({"finished_cases": 241}, "241 of 240 cases finished with the candidate"),
        ({"baseline_finished": 238}, "238 of 240 cases finished with the baseline"),
        ({"planned_cases": 241, "finished_cases": 241, "baseline_finished": 241}, "count 240"),
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
    ],
)
def test_what_is_missing_holds(change: dict[str, Any], sentence: str) -> None:
    text = said(gate(**change))
    assert text.startswith("HOLD")
    assert sentence in text


def test_a_stopped_run_can_still_be_rolled_back_and_says_what_is_missing() -> None:
    state = gate(20, 60, planned_cases=240, stopped="Ctrl-C")
    verdict = decide(state)

    assert verdict.verdict == "ROLLBACK"
    assert "The run ended early: Ctrl-C." in verdict.warnings


def test_no_images_hold() -> None:
    verdict = decide(gate(0, 0))
    assert verdict.verdict == "HOLD"
    assert "No image was judged: there is no failure rate." in verdict.reasons


def test_expectations_decide_by_what_a_breach_means() -> None:
    def with_result(**changes: Any) -> str:
        return decide(gate(expectations=(answer(), answer("limits[0]", **changes)))).verdict

    assert with_result(on_breach="rollback", success=False) == "ROLLBACK"
    assert with_result(on_breach="rollback", success=False, unmeasured=True) == "HOLD"
    assert with_result(on_breach="hold", success=False) == "HOLD"
    assert with_result(on_breach="warn", success=False) == "PROMOTE"
    warned = decide(gate(expectations=(answer(), answer(on_breach="warn", success=False))))
    assert warned.warnings == ("structure.rows is as it is.",)


def test_worse_than_the_baseline_in_pairs_is_a_warning() -> None:
    def warnings(worse: int, better: int) -> tuple[str, ...]:
        paired = Paired(pairs=240, candidate_only=worse, baseline_only=better)
        return decide(gate(metrics={"paired": paired})).warnings

    assert warnings(0, 0) == ()
    assert warnings(3, 3) == ()
    assert warnings(4, 0) == ()  # one half to the fourth is more than 5 %
    assert warnings(5, 0) == (
        "The candidate is worse than the baseline: 5 of 240 paired cases failed only with the "
        "candidate, 0 only with the baseline.",
    )


def test_text_that_nobody_read_and_broken_checks_are_warnings() -> None:
    unread = {"text_unjudged": 12, "text_cases": 96, "text_unjudged_locales": ("ar", "th")}
    verdict = decide(gate(candidate=unread, checker_faults=2, notes=("Third run of this mix.",)))

    assert verdict.verdict == "PROMOTE"
    assert verdict.warnings[0].endswith("no reader covers the script (ar, th).")
    assert verdict.warnings[1].startswith("A check broke on 2 images")
    assert verdict.warnings[2] == "Third run of this mix."


counts = st.integers(1, 600).flatmap(
    lambda n: st.tuples(st.integers(0, min(n - 1, 40)), st.just(n), st.integers(0, 3))
)


@settings(max_examples=60, deadline=None)
@given(counts, st.integers(0, 12))
def test_one_more_failure_never_helps(count: tuple[int, int, int], in_slice: int) -> None:
    failures, n, unmeasured = count
    unmeasured = min(unmeasured, n - failures - 1)
    slices = (piece("locale=th", in_slice, 13), piece("locale=de", 0, 20))
    worse_slices = (piece("locale=th", in_slice + 1, 13), piece("locale=de", 0, 20))

    before = decide(gate(failures, n, unmeasured, slices=slices)).verdict
    after = decide(gate(failures + 1, n, unmeasured, slices=slices)).verdict
    after_slice = decide(gate(failures, n, unmeasured, slices=worse_slices)).verdict

    assert RANK[after] >= RANK[before]
    assert RANK[after_slice] >= RANK[before]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            "cost_per_1k_usd",
            "effective_cost_per_1k_usd",
            "latency_p50_s",
            "latency_p95_s",
            "latency_p99_s",
            "retries_per_image",
            "spend_usd",
        ]
    ),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
    st.integers(0, 240),
)
def test_a_figure_that_is_none_is_never_promoted(
    name: str, value: float | None, failures: int
) -> None:
    # These two are never None: the record refuses it.
    assume(value is not None or name not in {"retries_per_image", "spend_usd"})
    assert decide(gate(failures, candidate={name: value})).verdict != "PROMOTE"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            answer,
            st.sampled_from(["limits[0]", "limits[1]", "structure.rows"]),
            on_breach=st.sampled_from(["rollback", "hold", "warn"]),
            success=st.booleans(),
            unmeasured=st.booleans(),
        ),
        max_size=4,
    )
)
def test_only_answered_and_kept_expectations_are_promoted(results: list[ExpectationResult]) -> None:
    verdict = decide(gate(expectations=tuple(results))).verdict
    blocking = [r for r in results if r.on_breach != "warn"]

    whole = bool(results) and all(r.success and not r.unmeasured for r in blocking)
    breached = any(
        r.on_breach == "rollback" and not r.success and not r.unmeasured for r in results
    )

    assert verdict == ("ROLLBACK" if breached else "PROMOTE" if whole else "HOLD")


def test_impossible_counts_are_an_error_and_no_verdict() -> None:
    wrong = rate(0, 240).model_copy(update={"failures": 300})
    with pytest.raises(ValueError, match="failures must be"):
        decide(gate(candidate={"failure_rate": wrong}))


def test_the_verdict_needs_no_heavy_library() -> None:
    code = (
        "import sys, tasks.verdict;"
        "heavy = {'pandas', 'prefect', 'great_expectations', 'scipy', 'cv2', 'httpx'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
