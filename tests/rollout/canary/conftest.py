"""A canary of two mixes, and walks of it through simulated traffic."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tasks.canary_rules import CanaryRule, CanaryStep
from tasks.rollout.canary.decide import Decision, decide
from tasks.rollout.canary.progress import CanaryPlan, Progress, fold
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NEW, OLD = "sha256:" + "c" * 64, "sha256:" + "b" * 64
QUICK = (
    CanaryStep(weight=0.01, soak_minutes=1, images=50, promote_below=0.10),
    CanaryStep(weight=0.05, soak_minutes=1, images=100, promote_below=0.06),
    CanaryStep(weight=0.25, soak_minutes=1, images=200, promote_below=0.04),
    CanaryStep(weight=0.50, soak_minutes=1, images=300, promote_below=0.03),
)


def plan_with(**rule: Any) -> CanaryPlan:
    return CanaryPlan(
        canary_id="canary-1",
        product="shop",
        candidate_digest=NEW,
        candidate_name="summer",
        baseline_digest=OLD,
        baseline_name="winter",
        rule=CanaryRule(**({"steps": QUICK} | rule)),
        policy_digest="sha256:0",
        journal_id=1,
    )


@pytest.fixture
def make_plan() -> Callable[..., CanaryPlan]:
    return plan_with


@pytest.fixture
def begun() -> Progress:
    return Progress(counted_until=NOW.isoformat(), applied=True)


@pytest.fixture
def seen() -> Callable[..., Outcomes]:
    """A window of one minute after what was counted."""

    def window(progress: Progress, candidate: ArmOutcomes, baseline: ArmOutcomes) -> Outcomes:
        since = datetime.fromisoformat(progress.counted_until)
        return Outcomes(since, since + timedelta(minutes=1), {NEW: candidate, OLD: baseline})

    return window


class Walk:
    """Looks every minute at simulated traffic until the canary ends or ``looks`` are over."""

    def __init__(self, plan: CanaryPlan, per_minute: int, seed: int) -> None:
        self.plan, self.per_minute = plan, per_minute
        self.random = np.random.default_rng(seed)
        self.progress = Progress(counted_until=NOW.isoformat(), applied=True)
        self.step, self.started = 0, NOW
        self.looks = self.exposed = self.harmed = 0

    def __call__(
        self, candidate: Callable[[int], float], baseline: Callable[[int], float], looks: int = 400
    ) -> Decision:
        decision = Decision("wait", "")
        for look in range(looks):
            self.looks = look + 1
            decision = self.look(candidate(self.step), baseline(look))
            if decision.act == "roll_back":
                break
            if decision.act == "advance":
                if self.step + 1 == len(self.plan.rule.steps):
                    break
                self.step += 1
                self.started = datetime.fromisoformat(self.progress.counted_until)
        return decision

    def look(self, candidate: float, baseline: float) -> Decision:
        since = datetime.fromisoformat(self.progress.counted_until)
        weight = self.plan.rule.steps[self.step].weight
        new = int(self.random.binomial(self.per_minute, weight))
        old = self.per_minute - new
        failed = int(self.random.binomial(new, candidate))
        arms = {
            NEW: ArmOutcomes(new, failed),
            OLD: ArmOutcomes(old, int(self.random.binomial(old, baseline))),
        }
        self.exposed, self.harmed = self.exposed + new, self.harmed + failed
        window = Outcomes(since, since + timedelta(minutes=1), arms)
        self.progress = fold(self.plan, self.progress, self.step, window)
        return decide(self.plan, self.progress, self.step, self.started)


@pytest.fixture
def make_walk() -> type[Walk]:
    return Walk
