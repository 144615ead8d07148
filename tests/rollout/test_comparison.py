"""Our rollout against Argo's and Flagger's rules on the same traffic; few traces, and each rule.

The table in tasks/rollout/README.md has many: `python -m tests.benchmarks.bench_rollout_rules`.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.rollout.rivals import (
    DAY,
    SCENARIOS,
    Argo,
    Flagger,
    Ours,
    Scenario,
    Trace,
    add_up,
    compare,
    play,
    steady,
)

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


class Steady(Trace):
    """A trace without luck: so many requests a minute for the candidate, so many failures."""

    def __init__(self, requests: int, failures: int, blind: range = range(0)) -> None:
        super().__init__(Scenario("steady", True, steady(0.0), 0), 0)
        self._n, self._f = np.full(DAY, requests), np.full(DAY, failures)
        self.blind[list(blind)] = True

    def counted(self, share: float):  # type: ignore[no-untyped-def]
        return self._n, self._f, self._n, self._f


@pytest.mark.parametrize(
    ("failures", "end", "minutes"),
    # 4 of 200 are 98 % success: a success. Four measurements below it abort at the fourth.
    [(4, "promoted", 40), (5, "rolled_back", 20)],
)
def test_argo_aborts_when_more_than_its_limit_failed(failures: int, end: str, minutes: int) -> None:
    done = play(Argo(), Steady(200, failures))
    assert (done.end, done.minutes) == (end, minutes)


@pytest.mark.parametrize(
    ("blind", "end"),
    # Five errors of the query in a row abort, four do not.
    [(range(25), "rolled_back"), (range(24), "promoted")],
)
def test_argo_aborts_on_errors_in_a_row(blind: range, end: str) -> None:
    assert play(Argo(), Steady(200, 1, blind)).end == end


def test_argo_takes_no_requests_for_errors_before_the_first_and_for_failures_after() -> None:
    assert play(Argo(), Steady(0, 0)).minutes == 25
    quiet = Steady(0, 0)
    quiet._n = np.where(np.arange(DAY) < 5, 10, 0)
    assert play(Argo(), quiet).minutes == 25


@pytest.mark.parametrize(("failures", "end"), [(4, "promoted"), (5, "rolled_back")])
def test_flagger_counts_failed_checks_in_all(failures: int, end: str) -> None:
    done = play(Flagger(), Steady(200, failures))
    assert done.end == end
    # Ten passed checks lead from 5 % to 50 % and on; ten failed ones back.
    assert done.minutes == (10 if end == "promoted" else 11)


def test_flagger_takes_silence_and_errors_for_failed_checks() -> None:
    assert play(Flagger(), Steady(0, 0)).end == "rolled_back"
    assert play(Flagger(), Steady(200, 1, range(10))).end == "rolled_back"
    assert play(Flagger(), Steady(200, 1, range(9))).end == "promoted"


def test_ours_takes_neither_for_a_verdict() -> None:
    assert play(Ours(every=5), Steady(0, 0)).end == "open"
    assert play(Ours(), Steady(200, 1, range(30))).end == "promoted"


def test_all_rules_see_the_same_requests() -> None:
    trace = Trace(BY_NAME["5 %, busy"], 3)
    small, _, rest, _ = trace.counted(0.05)
    large, _, _, _ = trace.counted(0.25)
    assert (small + rest == trace.requests).all()
    # Sticky keys: who is with the candidate at 5 % is with it at 25 %.
    assert (small <= large).all()
    again = Trace(BY_NAME["5 %, busy"], 3)
    assert (again.counted(0.05)[1] == trace.counted(0.05)[1]).all()


def test_in_one_run_of_a_few_traces_ours_takes_out_the_bad_and_keeps_the_good() -> None:
    names = ("1.0 %, metrics down half an hour", "5 %, busy", "12 % from the 5 % step")
    sums = {s.rule: s for s in add_up(compare([BY_NAME[name] for name in names], range(3)))}
    ours = sums["imagegate"]
    assert (ours.good_out, ours.bad_serving) == (0, 0)
    assert ours.good_serving == 1
    assert ours.bad_out == 1
    # Failed queries alone make the examples' rules roll a good candidate back.
    assert sums["Argo Rollouts"].good_out == 1
    assert sums["Flagger"].good_out == 1
    assert ours.exposed < min(sums["Argo Rollouts"].exposed, sums["Flagger"].exposed)
