"""Exact operating characteristics: what issue 4 asks to show, items 1 and 2."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest

from tasks.verdict.calibration import calibrate, course, fail_error, pass_error, spent
from tasks.verdict.sequential import FailureTest, Mode, fail_bets, log_e, pass_bets

PAIRS = [(0.02, 0.02), (0.02, 0.03), (0.01, 0.02)]
RISKS = [0.05, 0.01]
MODES: list[Mode] = ["anytime", "calibrated"]
N_MAX = 5000


def thresholds(mode: Mode, limit: float, below: float, risk: float, n_max: int) -> dict[str, float]:
    test = FailureTest(limit, below, risk, risk, n_max=n_max, mode=mode)
    return {"limit": limit, "promote_below": below, "log_pass": test.pass_at} | {
        "log_fail": test.fail_at
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(("limit", "below"), PAIRS)
def test_exact_errors_hold_when_looking_after_every_image(
    limit: float, below: float, risk: float, mode: Mode
) -> None:
    rule = thresholds(mode, limit, below, risk, N_MAX)
    false_promote = pass_error(below, rule["log_pass"], N_MAX)
    false_rollback = fail_error(limit, rule["log_fail"], N_MAX)
    assert false_promote <= risk
    assert false_rollback <= risk
    # The other boundary takes runs away: the errors of the whole test are no higher.
    at_below, at_limit = (course(rate, **rule, n_max=N_MAX) for rate in (below, limit))
    assert at_below.promote.sum() <= false_promote + 1e-12
    assert at_limit.rollback.sum() <= false_rollback + 1e-12
    if mode == "calibrated":  # and the promised risk is really used
        assert false_promote > 0.98 * risk
        assert false_rollback > 0.98 * risk
    # Beyond the boundaries errors are rarer still.
    assert pass_error(below, rule["log_pass"], N_MAX, 1.2 * below) < 0.6 * false_promote
    assert fail_error(limit, rule["log_fail"], N_MAX, 0.8 * limit) < 0.6 * false_rollback


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(("limit", "below"), PAIRS)
def test_exact_errors_hold_at_random_looks(
    limit: float, below: float, risk: float, mode: Mode
) -> None:
    rule = thresholds(mode, limit, below, risk, N_MAX)
    for seed, number in enumerate((1, 5, 78, 400)):
        rng = np.random.default_rng(seed)
        looks = rng.choice(np.arange(1, N_MAX + 1), number, replace=False).tolist()
        at_below = course(below, **rule, n_max=N_MAX, looks=looks)
        at_limit = course(limit, **rule, n_max=N_MAX, looks=looks)
        assert at_below.promote.sum() <= risk
        assert at_limit.rollback.sum() <= risk
        decided = at_below.promote + at_below.rollback
        assert not decided[np.setdiff1d(np.arange(N_MAX + 1), looks)].any()


def wald(rate: float, limit: float, below: float, risk: float) -> float:
    """Images that no test can beat by much on average: ln(1/risk) over the divergence."""
    edge = limit if rate > limit else below
    divergence = rate * math.log(rate / edge) + (1 - rate) * math.log((1 - rate) / (1 - edge))
    return math.log(1 / risk) / divergence


@pytest.mark.parametrize(
    ("mode", "mean", "worst"), [(MODES[0], 1.35, 1.85), (MODES[1], 1.25, 1.65)]
)
@pytest.mark.parametrize(("limit", "below"), PAIRS[:2])
def test_mean_images_are_close_to_the_wald_bound(
    limit: float, below: float, mode: Mode, mean: float, worst: float
) -> None:
    # With 20,000 images at most, runs without a decision are rarer than 1 in a million.
    n_max = 20_000
    rule = thresholds(mode, limit, below, 0.05, n_max)
    images, ratios = {}, []
    for rate in (0.001, 0.005, 0.01, 0.03, 0.05, 0.12):
        found = course(rate, **rule, n_max=n_max)
        assert found.undecided < 1e-6
        images[rate] = found.mean_images
        ratios.append(found.mean_images / wald(rate, limit, below, 0.05))
    assert np.mean(ratios) <= mean
    assert max(ratios) <= worst
    assert images[0.12] <= 45
    assert images[0.001] <= 230


@pytest.mark.parametrize(
    "rule", [(0.02, 0.03, 2.4, 2.2), (0.1, 0.2, 3.0, 3.0), (0.3, 0.3, 1.0, 1.5)]
)
@pytest.mark.parametrize("looks", [None, [1, 7, 30, 31, 64, 150]])
def test_course_equals_the_plain_recursion(
    rule: tuple[float, float, float, float], looks: list[int] | None
) -> None:
    limit, below, log_pass, log_fail = rule
    most = 160
    for rate in (0.0, 0.01, limit, below, 0.6, 1.0):
        alive, promote, rollback = np.ones(1), np.zeros(most + 1), np.zeros(most + 1)
        for n in range(1, most + 1):
            alive = np.convolve(alive, [1 - rate, rate])
            if looks is None or n in looks:
                bad = log_e(fail_bets(limit), n, np.arange(n + 1)) >= log_fail
                good = (log_e(pass_bets(below), n, np.arange(n + 1)) >= log_pass) & ~bad
                promote[n], rollback[n] = alive[good].sum(), alive[bad].sum()
                alive[good | bad] = 0
        found = course(
            rate,
            limit=limit,
            promote_below=below,
            log_pass=log_pass,
            log_fail=log_fail,
            n_max=most,
            looks=looks,
        )
        np.testing.assert_allclose(found.promote, promote, atol=1e-13)
        np.testing.assert_allclose(found.rollback, rollback, atol=1e-13)
        assert found.undecided == pytest.approx(alive.sum(), abs=1e-13)
        ends = np.arange(most + 1) @ (promote + rollback) + most * alive.sum()
        assert found.mean_images == pytest.approx(ends)


@pytest.mark.parametrize("rate", [0.0, 0.005, 0.02, 0.05, 1.0])
@pytest.mark.parametrize("most", [1, 40, 700])
def test_one_sided_errors_equal_the_course_without_the_other_boundary(
    rate: float, most: int
) -> None:
    both = {"limit": 0.02, "promote_below": 0.03, "n_max": most}
    passing = course(rate, **both, log_pass=1.5, log_fail=math.inf)  # type: ignore[arg-type]
    failing = course(rate, **both, log_pass=math.inf, log_fail=1.7)  # type: ignore[arg-type]
    assert pass_error(0.03, 1.5, most, rate) == pytest.approx(passing.promote.sum(), abs=1e-12)
    assert fail_error(0.02, 1.7, most, rate) == pytest.approx(failing.rollback.sum(), abs=1e-12)


@pytest.mark.parametrize(
    ("limit", "below", "alpha", "beta", "n_max"),
    [
        (0.02, 0.03, 0.05, 0.01, 600),
        (0.02, 0.02, 0.025, 0.05, 512),
        (0.1, 0.1, 0.05, 0.05, 90),
    ],
)
def test_lower_thresholds_would_break_the_risks(
    limit: float, below: float, alpha: float, beta: float, n_max: int
) -> None:
    log_pass, log_fail = calibrate(limit, below, alpha, beta, n_max)
    assert log_pass < -math.log(beta)
    assert log_fail < -math.log(alpha)
    assert pass_error(below, log_pass, n_max) <= beta < pass_error(below, log_pass - 2e-7, n_max)
    assert fail_error(limit, log_fail, n_max) <= alpha < fail_error(limit, log_fail - 2e-7, n_max)


@pytest.mark.parametrize("mode", MODES)
def test_errors_of_the_public_test_itself(mode: Mode) -> None:
    """The same errors, every decision asked of ``FailureTest``."""
    limit, below, risk, most = 0.05, 0.1, 0.1, 70
    for rate in (limit, below):
        alive, errors = np.ones(1), {"PROMOTE": 0.0, "ROLLBACK": 0.0}
        for n in range(1, most + 1):
            alive = np.convolve(alive, [1 - rate, rate])
            for f in np.flatnonzero(alive):
                test = FailureTest(limit, below, risk, risk, n_max=most, mode=mode)
                decision = test.update(int(f), n)
                if decision:
                    errors[decision] += alive[f]
                    alive[f] = 0
        assert errors["ROLLBACK" if rate == limit else "PROMOTE"] <= risk
        assert errors["ROLLBACK" if rate == limit else "PROMOTE"] > risk / 3


def test_calibrating_is_quick() -> None:
    calibrate.cache_clear()
    began = time.process_time()
    calibrate(0.02, 0.03, 0.05, 0.05, 5000)
    assert time.process_time() - began < 1


def test_tiny_plans_have_thresholds_too() -> None:
    for n_max, risk in itertools.product((1, 2, 5), (0.5, 0.05)):
        log_pass, log_fail = calibrate(0.02, 0.02, risk, risk, n_max)
        assert 0 < log_pass <= -math.log(risk)
        assert 0 < log_fail <= -math.log(risk)
        assert pass_error(0.02, log_pass, n_max) <= risk
        assert fail_error(0.02, log_fail, n_max) <= risk


def test_what_a_run_spent_grows_to_the_risk() -> None:
    log_pass, _ = calibrate(0.02, 0.03, 0.05, 0.05, 600)
    parts = [spent(0.03, n, log_pass) for n in (0, 50, 200, 400, 600)]
    assert parts[0] == 0
    assert parts == sorted(parts)
    assert 0.049 < parts[-1] <= 0.05


def test_senseless_arguments_are_refused() -> None:
    rule = {"limit": 0.02, "promote_below": 0.03, "log_pass": 3.0, "log_fail": 3.0}
    wrong: list[dict[str, object]] = [
        {"rate": -0.1},
        {"rate": math.nan},
        {"n_max": 0},
        {"looks": [0, 5]},
        {"looks": [101]},
        {"looks": [1.5]},
        {"log_pass": math.nan},
        {"limit": 0.0},
        {"promote_below": 1.0},
    ]
    for change in wrong:
        arguments: dict[str, object] = {"rate": 0.02, "n_max": 100} | rule | change
        with pytest.raises(ValueError):
            course(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        calibrate(0.02, 0.03, 0.05, 1.0, 100)
    with pytest.raises(ValueError):
        spent(0.03, -1, 3.0)
