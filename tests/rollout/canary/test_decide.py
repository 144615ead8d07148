"""When a canary goes on, waits, holds and is rolled back; with its exact odds."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from scipy.stats import binom

from tasks.canary_rules import CanaryRule, CanaryStep
from tasks.policy import Policy
from tasks.rollout.canary.decide import SHARES, decide, evidence
from tasks.rollout.canary.progress import Arm, CanaryPlan, Progress, Tally, failed_look, fold
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.verdict.sequential import images_needed

Make = Callable[..., CanaryPlan]
Seen = Callable[[Progress, ArmOutcomes, ArmOutcomes], Outcomes]
GOOD_OLD = ArmOutcomes(4950, 50)


def at(progress: Progress) -> datetime:
    return datetime.fromisoformat(progress.counted_until)


def test_a_good_candidate_goes_on_when_soak_images_and_proof_are_there(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    plan, start = make_plan(), at(begun)
    one = fold(plan, begun, 0, seen(begun, ArmOutcomes(45, 0), GOOD_OLD))
    # 45 images without a failure would prove 10 %, but the step asks for 50.
    assert decide(plan, one, 0, start).act == "wait"
    two = fold(plan, one, 0, seen(one, ArmOutcomes(45, 0), GOOD_OLD))
    decision = decide(plan, two, 0, start)
    assert decision.act == "advance"
    assert "0 of 90 images at 1 % of the traffic failed" in decision.reason


def test_soak_is_waited_for_whatever_the_figures_say(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    plan = make_plan(
        steps=(CanaryStep(weight=0.5, soak_minutes=30, images=10, promote_below=0.03),)
    )
    one = fold(plan, begun, 0, seen(begun, ArmOutcomes(5000, 10), GOOD_OLD))
    decision = decide(plan, one, 0, at(begun))
    assert (decision.act, decision.ready_at) == ("wait", at(begun) + timedelta(minutes=30))
    assert "soaks until 2026-11-29T12:30:00Z" in decision.reason


def test_a_bad_candidate_is_rolled_back_during_its_soak(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    one = fold(make_plan(), begun, 0, seen(begun, ArmOutcomes(60, 12), GOOD_OLD))
    decision = decide(make_plan(), one, 0, at(begun) + timedelta(hours=9))
    assert decision.act == "roll_back"
    assert "fails more often than 2 %" in decision.reason
    assert "12 of 60" in decision.reason


def test_low_traffic_holds_with_a_forecast(make_plan: Make, begun: Progress, seen: Seen) -> None:
    plan, progress = make_plan(), begun
    for _ in range(6):
        progress = fold(plan, progress, 0, seen(progress, ArmOutcomes(0, 0), GOOD_OLD))
    nothing = decide(plan, progress, 0, at(begun))
    assert nothing.act == "hold"
    assert "no image of the candidate" in nothing.reason
    one = fold(plan, progress, 0, seen(progress, ArmOutcomes(1, 0), GOOD_OLD))
    rare = make_plan(
        steps=(CanaryStep(weight=0.01, soak_minutes=1, images=50, promote_below=0.10, max_hours=2),)
    )
    slow = decide(rare, one, 0, at(begun))
    assert slow.act == "hold"
    assert "too little traffic" in slow.reason
    # One image in seven minutes, and what the gate's own forecast says that the proof takes.
    more = images_needed(0, 1, below=0.10, log_threshold=math.log(20))
    assert more is not None
    assert slow.ready_at == at(one) + timedelta(minutes=7 * more)
    assert f"there is enough at {slow.ready_at:%Y-%m-%dT%H:%M:%SZ}" in slow.reason
    assert decide(plan, one, 0, at(begun)).act == "wait"


def test_a_rate_that_is_never_proven_is_for_a_person(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    plan, progress = make_plan(limit=0.029), begun
    for _ in range(10):
        window = seen(progress, ArmOutcomes(1000, 30), ArmOutcomes(1000, 29))
        progress = fold(plan, progress, 3, window)
    decision = decide(plan, progress, 3, at(begun))
    assert decision.act == "hold"
    assert "never proven" in decision.reason


def test_query_errors_are_no_failures_and_hold_at_their_own_limit(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    plan = make_plan(query_errors=2)
    ready = fold(plan, begun, 0, seen(begun, ArmOutcomes(500, 2), GOOD_OLD))
    assert decide(plan, ready, 0, at(begun)).act == "advance"
    progress = ready
    for expected in ("wait", "wait", "hold"):
        progress = failed_look(progress, "Prometheus answers 503")
        decision = decide(plan, progress, 0, at(begun))
        assert decision.act == expected
        assert "503" in decision.reason
    assert progress.counted_until == ready.counted_until
    again = fold(plan, progress, 0, seen(progress, ArmOutcomes(10, 0), GOOD_OLD))
    assert decide(plan, again, 0, at(begun)).act == "advance"


def test_a_partial_failure_counts_what_was_read_and_advances_nothing(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    plan = make_plan()
    whole = seen(begun, ArmOutcomes(500, 2), GOOD_OLD)
    partial = Outcomes(whole.since, whole.until, whole.arms, errors=("tickets: no answer",))
    progress = fold(plan, begun, 0, partial)
    assert progress.tallies[0].candidate.images == 500
    assert decide(plan, progress, 0, at(begun)).act == "wait"
    bad = Outcomes(
        at(progress), at(progress) + timedelta(minutes=1),
        {plan.candidate_digest: ArmOutcomes(200, 60)}, errors=("tickets: no answer",),
    )  # fmt: skip
    assert decide(plan, fold(plan, progress, 0, bad), 0, at(begun)).act == "roll_back"


def test_what_the_policy_requires_and_nobody_measured_holds(
    make_plan: Make, begun: Progress, seen: Seen
) -> None:
    plan = make_plan(required=("slow", "cost"))
    seen_cost = ArmOutcomes(500, 2, cost_microusd=5_000_000, costed=500)
    progress = fold(plan, begun, 0, seen(begun, seen_cost, GOOD_OLD))
    decision = decide(plan, progress, 0, at(begun))
    assert decision.act == "hold"
    assert decision.reason.startswith("slow of the candidate is required")


@pytest.mark.parametrize(
    ("worse", "same", "words"),
    [
        ({"slow": 90, "timed": 400}, {"slow": 60, "timed": 4000}, "slow images"),
        (
            {"cost_microusd": 400 * 90_000, "costed": 400},
            {"cost_microusd": 4000 * 20_000, "costed": 4000},
            "cost of an image",
        ),
        ({"tickets": 40}, {"tickets": 4}, "support tickets"),
        ({"judged": 300, "defects": 45}, {"judged": 2000, "defects": 40}, "defects found"),
    ],
)
def test_each_guard_rolls_back_against_the_baseline_in_the_same_windows(
    make_plan: Make, begun: Progress, seen: Seen, worse: Any, same: Any, words: str
) -> None:
    plan = make_plan()
    bad, good = begun, begun
    like = {k: v * 400 // 4000 for k, v in same.items()}
    if "judged" in like:
        like = {"judged": 300, "defects": 6}
    for _ in range(4):
        bad = fold(
            plan, bad, 1, seen(bad, ArmOutcomes(400, 2, **worse), ArmOutcomes(4000, 20, **same))
        )
        good = fold(
            plan, good, 1, seen(good, ArmOutcomes(400, 2, **like), ArmOutcomes(4000, 20, **same))
        )
    decision = decide(plan, bad, 1, at(begun))
    assert decision.act == "roll_back"
    assert words in decision.reason
    assert decide(plan, good, 1, at(begun)).act == "advance"


def test_a_window_is_counted_once(make_plan: Make, begun: Progress, seen: Seen) -> None:
    window = seen(begun, ArmOutcomes(50, 1), GOOD_OLD)
    once = fold(make_plan(), begun, 0, window)
    with pytest.raises(ValueError, match="does not follow"):
        fold(make_plan(), once, 0, window)
    assert Progress.model_validate_json(once.model_dump_json()) == once


def test_false_rollbacks_are_within_alpha_exactly(make_plan: Make) -> None:
    """All outcomes of two steps with looks every 25 images, at the limit: the exact risk."""
    alpha = 0.2
    rule = make_plan(alpha=alpha, limit=0.05, steps=(
        CanaryStep(weight=0.1, images=1, promote_below=0.2),
        CanaryStep(weight=0.5, images=1, promote_below=0.2),
    )).rule  # fmt: skip
    every = 25

    def risk(rate: float, starts_at: int = 0) -> tuple[float, float]:
        alive, rolled_back = {(0, 0): 1.0}, 0.0
        for look in range(1, 9):
            step = 0 if look <= 4 else 1
            moved: dict[tuple[int, int], float] = {}
            here = rate if step >= starts_at else 0.01
            for failures, chance in alive.items():
                for more in range(every + 1):
                    share = chance * float(binom.pmf(more, every, here))
                    if share < 1e-13:
                        continue
                    now = list(failures)
                    now[step] += more
                    key = (now[0], now[1])
                    moved[key] = moved.get(key, 0.0) + share
            alive = {}
            for (first, second), chance in moved.items():
                arms = [Arm(images=every * min(look, 4), failures=first)]
                arms += [Arm(images=every * (look - 4), failures=second)] if step else []
                progress = Progress(
                    counted_until="", tallies=tuple(Tally(candidate=arm) for arm in arms)
                )
                if evidence(rule, progress)[0].proven:
                    rolled_back += chance
                else:
                    alive[first, second] = chance
        return rolled_back, rolled_back + sum(alive.values())

    at_limit, everything = risk(0.05)
    assert everything == pytest.approx(1, abs=1e-9)
    assert 0 < at_limit <= alpha * SHARES["limit"]
    assert risk(0.02)[0] < at_limit
    assert risk(0.25)[0] > 0.999
    # A candidate that only breaks in the second step is not hidden behind the first.
    assert risk(0.25, starts_at=1)[0] > 0.97


def test_the_shares_of_alpha_are_one_alpha() -> None:
    assert math.fsum(SHARES.values()) == pytest.approx(1)


def test_good_candidates_arrive_and_bad_ones_do_not(
    make_plan: Make, make_walk: Callable[..., Any]
) -> None:
    ends, harmed = [], []
    for seed in range(12):
        good = make_walk(make_plan(), 4000, seed)
        ends.append(good(lambda _: 0.008, lambda _: 0.008).act)
        bad = make_walk(make_plan(), 4000, 100 + seed)
        decision = bad(lambda step: 0.008 if step == 0 else 0.12, lambda _: 0.008)
        assert decision.act == "roll_back"
        assert bad.step == 1
        harmed.append(bad.harmed)
    assert ends == ["advance"] * 12
    assert max(harmed) < 60


def test_an_incident_that_hits_both_arms_is_no_failure_against_the_baseline(
    make_plan: Make, make_walk: Callable[..., Any]
) -> None:
    for seed in range(6):
        walk = make_walk(make_plan(limit=0.6, steps=(
            CanaryStep(weight=0.2, soak_minutes=30, images=50, promote_below=0.9),
        )), 2000, seed)  # fmt: skip
        decision = walk(lambda _: 0.3, lambda _: 0.3, looks=29)
        assert decision.act == "wait"


def test_the_default_policy_keeps_its_digest() -> None:
    assert "canary" not in Policy().model_dump(mode="json")
    other = Policy.model_validate({"canary": {"alpha": 0.01}})
    assert other.digest != Policy().digest
    assert Policy.model_validate(other.model_dump(mode="json")) == other


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"steps": [{"weight": 0.5, "promote_below": 0.1}, {"weight": 0.5, "promote_below": 0.1}]},
         "must rise"),
        ({"steps": [{"weight": 0.1, "promote_below": 0.1}, {"weight": 0.5, "promote_below": 0.2}]},
         "must not rise"),
        ({"limit": 0.5}, "below limit"),
        ({"steps": [{"weight": 1, "promote_below": 0.1}]}, "less than 1"),
        ({"steps": []}, "at least 1"),
        ({"soak": 3}, "Extra"),
    ],
)  # fmt: skip
def test_senseless_rules_are_refused(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CanaryRule.model_validate(rule)
