"""How often the whole decision is wrong, looked at after every shard, with everything at its limit.

The runs are worked out thousands at once by the functions under the decision; that these give what
``decide`` says is checked on hundreds of their looks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tasks.policy import FailureRule, PairedRule, Policy, SliceRule
from tasks.records import Paired
from tasks.verdict import decide
from tasks.verdict.betting import log_e, log_e_counts
from tasks.verdict.calibration import course
from tasks.verdict.guards import GuardEvidence
from tasks.verdict.sequential import bounded_fail_bets, fail_bets
from tests.verdict.test_decide import gate, piece

RUNS, CASES, SHARD, SLICES = 6000, 960, 48, 12
LOOKS = range(SHARD, CASES + 1, SHARD)
RATE = 0.02
NAMES = tuple(f"locale=l{number}" for number in range(SLICES))


def policy(**failure: Any) -> Policy:
    return Policy(
        failure=FailureRule(limit=RATE, **failure),
        slices=SliceRule(limit=RATE),
        paired=PairedRule(margin=RATE),
    )


class Runs:
    """Counts of every run at every look, shape (runs, looks) or (runs, looks, slices).

    The baseline never fails, so the difference is at the margin as the rate is at the limit; one
    image in twenty is slower than a p95 may be.
    """

    def __init__(self, rate: float) -> None:
        random = np.random.default_rng(20_260_914)
        # The order of the cases is drawn, so what a shard holds of a slice is a matter of luck.
        where = random.permuted(np.tile(np.arange(CASES) % SLICES, (RUNS, 1)), axis=1)
        failed = random.random((RUNS, CASES)) < rate
        slow = random.random((RUNS, CASES)) < 0.05
        ends = np.array(LOOKS) - 1

        def upto(values: np.ndarray) -> np.ndarray:
            return np.cumsum(values, axis=1, dtype=np.int32)[:, ends]

        self.images = np.array(LOOKS)
        self.failures, self.slow = upto(failed), upto(slow)
        masks = [where == number for number in range(SLICES)]
        self.slice_images = np.stack([upto(mask) for mask in masks], axis=-1)
        self.slice_failures = np.stack([upto(mask & failed) for mask in masks], axis=-1)

    def state(self, run: int, look: int, rule: Policy) -> Any:
        n, failures = int(self.images[look]), int(self.failures[run, look])
        slices = tuple(
            piece(name, int(bad), int(images))
            for name, bad, images in zip(
                NAMES, self.slice_failures[run, look], self.slice_images[run, look], strict=True
            )
            if images
        )
        slow = float(log_e(fail_bets(0.05), n, self.slow[run, look]))
        return gate(
            failures,
            n,
            slices=slices,
            metrics={"paired": Paired(pairs=n, candidate_only=failures, baseline_only=0)},
            policy=rule,
            judged=NAMES,
            planned_cases=CASES,
            guards=(GuardEvidence(source="limits[0]", limit=2.0, images=n, log_e_fail=slow),),
        )


@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
def test_with_everything_at_its_limit_a_rollback_is_as_rare_as_promised(mode: str) -> None:
    runs, rule = Runs(RATE), policy(mode=mode)
    tests = decide(runs.state(0, 0, rule), bounds=False).tests
    at = {test.kind: test.fail_at or math.inf for test in tests}
    assert len(tests) == 3 + SLICES

    table = np.array(
        [
            [
                log_e_counts(
                    bounded_fail_bets(RATE, -1.0, 1.0), (0.0, 1.0), (int(n) - min(f, n), min(f, n))
                )
                for f in range(runs.failures.max() + 1)
            ]
            for n in runs.images
        ]
    )
    bets = fail_bets(RATE)
    alarms = {
        "headline": log_e(bets, runs.images, runs.failures) >= at["headline"],
        "paired": table[np.arange(len(LOOKS)), runs.failures] >= at["paired"],
        "guard": log_e(fail_bets(0.05), runs.images, runs.slow) >= at["guard"],
        "slice": (log_e(bets, runs.slice_images, runs.slice_failures) >= at["slice"]).any(axis=2),
    }
    either = np.logical_or.reduce(list(alarms.values()))
    shares = {kind: float(alarm.any(axis=1).mean()) for kind, alarm in alarms.items()}
    wrong = float(either.any(axis=1).mean())

    # Three standard errors are .008; nothing of this is empty.
    assert 0.004 < wrong <= 0.05 - 0.008
    assert shares["headline"] <= 0.025
    assert max(shares["slice"], shares["guard"] + shares["paired"]) <= 0.025

    random = np.random.default_rng(1)
    bad = np.argwhere(either)
    picked = [*bad[random.choice(len(bad), min(60, len(bad)), replace=False)]]
    picked += [(random.integers(RUNS), random.integers(len(LOOKS))) for _ in range(60)]
    for run, look in picked:
        verdict = decide(runs.state(int(run), int(look), rule), bounds=False).verdict
        assert (verdict == "ROLLBACK") == either[run, look]


@pytest.mark.parametrize("mode", ["anytime", "calibrated"])
@pytest.mark.parametrize("beta_left", [None, 0.01])
def test_at_the_threshold_a_promotion_is_as_rare_as_promised(
    mode: str, beta_left: float | None
) -> None:
    """Exact; all other proofs are taken to be there, which can only make it more frequent."""
    rule = policy(mode=mode)
    test = decide(
        gate(0, SHARD, policy=rule, planned_cases=CASES, beta_left=beta_left), bounds=False
    ).tests[0]
    found = course(
        0.03,
        limit=RATE,
        promote_below=0.03,
        log_pass=test.pass_at or 0.0,
        log_fail=math.inf,
        n_max=CASES,
        looks=tuple(LOOKS),
    )
    beta = beta_left or 0.05
    wrong = float(found.promote.sum())
    assert 0.2 * beta < wrong <= beta
    # And that is what the decision does: the fewest images that promote are the same.
    first = int(np.flatnonzero(found.promote > 0)[0])

    def verdict(n: int) -> str:
        state = gate(0, n, policy=rule, planned_cases=CASES, beta_left=beta_left)
        return decide(state, bounds=False).verdict

    assert (verdict(first - SHARD), verdict(first)) == ("HOLD", "PROMOTE")
