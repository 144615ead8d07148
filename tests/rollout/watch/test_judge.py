"""What a look means, without a database."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tasks.errors import RefusedError, StateError
from tasks.policy import Policy, parse_strict
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.watch.detector import longest_delay
from tasks.rollout.watch.inputs import new_in
from tasks.rollout.watch.judge import Judged, Look, judge, with_limits
from tasks.rollout.watch.memory import (
    Memory,
    Past,
    Sample,
    begin,
    begin_next,
    memory_from,
    with_traffic,
)
from tasks.rollout.watch.signals import SHARES
from tasks.rollout.watch.window import Served, judge_return

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
MIX = "sha256:" + "a" * 64
POLICY = Policy()
#: Asks for everything that can be watched.
FULL = parse_strict(
    Policy,
    {"watch": {"cost_per_1k_usd": 40, "worst_image_usd": 0.2, "tickets_per_1k": 2}},
    "test",
)


def a_look(since: datetime, until: datetime, inputs: Any = None, **counts: Any) -> Look:
    others = counts.pop("others", 0)
    arms = {MIX: ArmOutcomes(**counts)}
    return Look(Outcomes(since, until, arms, others=others), inputs=inputs)


def watched(policy: Policy, *windows: dict[str, Any], memory: Memory | None = None) -> Judged:
    """Windows of five minutes, one after the other."""
    memory = memory or begin(policy, NOW)
    judged = Judged(memory, "watching")
    at = memory.began
    for counts in windows:
        until = at + timedelta(minutes=5)
        judged = judge(judged.memory, a_look(at, until, **counts), MIX, policy, until)
        at = until
    return judged


def test_good_traffic_is_watched_in_silence() -> None:
    judged = watched(POLICY, *[{"images": 200, "failures": 3}] * 50)
    assert judged.status == "watching"
    assert judged.reason == ""
    assert judged.memory.images == 10_000


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"images": 200, "failures": 20}, "got no image"),
        ({"images": 200, "judged": 100, "defects": 12}, "12.0 % .limit 2 %"),
        ({"images": 1000, "failures": 18, "judged": 300, "defects": 6}, "together 3.8 %"),
        ({"images": 200, "timed": 200, "slow": 40}, "too slow"),
        ({"images": 200, "costed": 200, "cost_microusd": 200 * 90_000}, r"cost \$90.00"),
        ({"images": 200, "tickets": 6}, "30.0 tickets"),
    ],
)
def test_each_signal_can_raise_the_alarm(counts: dict[str, int], words: str) -> None:
    import re

    judged = watched(FULL, *[counts] * 20)
    assert judged.status == "alarm"
    assert re.search(words, judged.reason)


def test_what_is_not_measured_is_no_evidence_and_what_is_not_limited_not_judged() -> None:
    dear = {"images": 200, "costed": 200, "cost_microusd": 200 * 190_000, "tickets": 50}
    assert watched(POLICY, *[dear] * 20).status == "watching"
    assert watched(FULL, *[{"images": 200}] * 20).status == "watching"


def test_cost_given_as_a_sum_is_never_more_evidence_than_the_single_prices() -> None:
    from tasks.verdict.betting import bounded_fail_bets, fail_bets, log_factors

    prices = [0.01, 0.05, 0.2, 0.0, 0.13]
    bets = fail_bets(0.04 / 0.2)
    single = log_factors(bets, [p / 0.2 for p in prices]).sum(axis=0)
    bad = sum(prices) / 0.2
    good, lost = log_factors(bets, [0.0, 1.0])
    assert ((len(prices) - bad) * good + bad * lost <= single + 1e-12).all()
    assert bounded_fail_bets(0.2, 0, 1).hi == bets.hi


def test_the_promise_is_shared_among_the_signals() -> None:
    promised = FULL.watch.false_alarm_images
    memory = begin(FULL, NOW)
    assert set(memory.detectors) == {"failures", "slow", "cost", "tickets"}
    all_of_them = (*memory.detectors.values(), memory.whole)
    assert sum(promised / d.run_length for d in all_of_them) == pytest.approx(1)


# ── blindness ────────────────────────────────────────────────────────────────────────────────────


def test_traffic_that_stops_is_not_all_good() -> None:
    busy = watched(POLICY, *[{"images": 200, "failures": 2}] * 4).memory
    late = busy.seen_at + timedelta(minutes=31)
    judged = judge(busy, a_look(busy.seen_at, late), MIX, POLICY, late)
    assert judged.status == "blind"
    assert judged.stopped
    assert "traffic has stopped" in judged.reason
    early = busy.seen_at + timedelta(minutes=29)
    assert judge(busy, a_look(busy.seen_at, early), MIX, POLICY, early).status == "watching"


def test_sources_that_cannot_be_read_are_blindness_and_no_failure() -> None:
    memory = begin(POLICY, NOW)
    for minute in range(5, 30, 5):
        judged = judge(
            memory, Look(None, "prometheus: refused"), MIX, POLICY, NOW + timedelta(minutes=minute)
        )
        assert judged.status == "watching"
        assert judged.memory == memory
    late = NOW + timedelta(minutes=31)
    judged = judge(memory, Look(None, "prometheus: refused"), MIX, POLICY, late)
    assert (judged.status, judged.stopped) == ("blind", False)
    assert "prometheus: refused" in judged.reason


def test_data_that_ends_is_blindness() -> None:
    late = NOW + timedelta(minutes=40)
    judged = judge(begin(POLICY, NOW), a_look(NOW, NOW), MIX, POLICY, late)
    assert (judged.status, judged.stopped) == ("blind", False)
    assert "the data ends at 2026-11-25 12:00 UTC" in judged.reason


def test_traffic_of_another_mix_alone_is_blindness() -> None:
    late = NOW + timedelta(minutes=40)
    judged = judge(begin(POLICY, NOW), a_look(NOW, late, others=500), MIX, POLICY, late)
    assert judged.status == "blind"
    assert "500 of another mix" in judged.reason


def test_a_clock_that_went_back_is_told() -> None:
    busy = watched(POLICY, *[{"images": 200}] * 4).memory
    back = busy.seen_at - timedelta(hours=1)
    judged = judge(busy, Look(None, "nothing is newer"), MIX, POLICY, back)
    assert judged.status == "blind"
    assert "clock went back" in judged.reason


def test_traffic_that_falls_to_a_trickle_is_told() -> None:
    memory = begin(POLICY, NOW - timedelta(days=5))
    hours: dict[str, int] = {}
    start = NOW - timedelta(days=5)
    for hour in range(5 * 24):
        at = start + timedelta(hours=hour)
        hours = with_traffic(hours, at, at + timedelta(hours=1), 500)
    memory = replace(memory, hours=hours, seen_at=NOW)
    after = NOW + timedelta(hours=1)
    trickle = judge(memory, a_look(NOW, after, images=9), MIX, POLICY, after)
    assert trickle.status == "blind"
    assert "9 images in the hour before 2026-11-25 13:00 UTC" in trickle.reason
    usual = judge(memory, a_look(NOW, after, images=300), MIX, POLICY, after)
    assert usual.status == "watching"
    # The watch itself was off for hours: one long window is not one full hour and empty ones.
    gap = NOW + timedelta(hours=6)
    assert judge(memory, a_look(NOW, gap, images=3000), MIX, POLICY, gap).status == "watching"


def test_a_shop_that_is_always_quiet_at_night_is_not_called_blind_every_night() -> None:
    """Two images an hour by night, 60 by day: half an hour of silence is usual, a day is not."""
    start = NOW - timedelta(days=5)
    hours: dict[str, int] = {}
    for hour in range(5 * 24):
        at = start + timedelta(hours=hour)
        images = 60 if 8 <= at.hour < 20 else 2
        hours = with_traffic(hours, at, at + timedelta(hours=1), images)
    night = NOW + timedelta(hours=10)
    memory = replace(begin(POLICY, start), hours=hours, seen_at=night)
    for minutes, status in ((40, "watching"), (120, "watching"), (170, "blind")):
        late = night + timedelta(minutes=minutes)
        assert judge(memory, a_look(night, late), MIX, POLICY, late).status == status, minutes
    day = NOW
    memory = replace(memory, seen_at=day)
    late = day + timedelta(minutes=31)
    assert judge(memory, a_look(day, late), MIX, POLICY, late).status == "blind"
    # Silence does not become usual, however long it lasts.
    silent = replace(memory, seen_at=NOW)
    for hour in range(1, 12 * 24, 5):
        since, late = silent.seen_at, NOW + timedelta(hours=hour)
        judged = judge(silent, a_look(since, late), MIX, POLICY, late)
        assert judged.status == "blind", hour
        silent = judged.memory
    # A source that fails is blindness at any pace.
    memory = replace(memory, seen_at=night)
    late = night + timedelta(minutes=31)
    assert judge(memory, Look(None, "down"), MIX, POLICY, late).status == "blind"


def test_images_are_spread_over_the_hours_of_their_window_and_none_is_lost() -> None:
    hours = with_traffic({}, NOW + timedelta(minutes=40), NOW + timedelta(minutes=140), 101)
    assert hours == {"2026-11-25T12": 20, "2026-11-25T13": 61, "2026-11-25T14": 20}
    assert with_traffic(hours, NOW, NOW, 0) == hours
    old = with_traffic({"2026-11-01T00": 5}, NOW, NOW + timedelta(minutes=1), 1)
    assert old == {"2026-11-25T12": 1}


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────

SAMPLE = Sample("run-1", ("creative", "fast"), ("de", "en", "fr"))


@pytest.mark.parametrize(
    ("subtask", "locale", "new"),
    [
        ("creative", "de", None),
        ("creative", "de-CH", None),
        ("creative", "DE_ch", None),
        ("creative", "th", "locale th"),
        ("edit", "th", "subtask edit"),
        ("", "", None),
        ("", "en", None),
    ],
)
def test_what_is_new(subtask: str, locale: str, new: str | None) -> None:
    assert new_in(SAMPLE, subtask, locale) == new


def test_new_locales_are_told_by_name_and_are_no_alarm() -> None:
    memory = replace(begin(POLICY, NOW), sample=SAMPLE)
    inputs = {("creative", "de"): 180, ("creative", "th"): 15, ("fast", "vi"): 5}
    judged = watched(POLICY, *[{"images": 200, "inputs": inputs}] * 10, memory=memory)
    assert judged.status == "watching"
    assert "10.0 % of the requests are of kinds that gate run run-1 had no case of" in (
        judged.warning
    )
    assert "locale th (7.5 %), locale vi (2.5 %)" in judged.warning


def test_the_same_mixture_as_the_gate_is_no_drift() -> None:
    memory = replace(begin(POLICY, NOW), sample=SAMPLE)
    inputs = {("creative", "de"): 198, ("creative", "th"): 2, ("", ""): 50}
    judged = watched(POLICY, *[{"images": 250, "inputs": inputs}] * 40, memory=memory)
    assert judged.warning == ""


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


def test_a_stored_memory_goes_on_the_same() -> None:
    memory = replace(begin(FULL, NOW), sample=SAMPLE, past=(Past(MIX, "a", "b", 3, "alarm"),))
    counts = {"images": 200, "failures": 5, "timed": 100, "slow": 7, "tickets": 1}
    first = watched(FULL, counts, memory=memory).memory
    assert memory_from(first.to_json(), "shop") == first
    again = watched(FULL, counts, memory=memory_from(first.to_json(), "shop"))
    assert again.memory == watched(FULL, counts, memory=first).memory


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"detectors": 3}'])
def test_a_damaged_memory_is_an_error_and_no_fresh_start(damage: str) -> None:
    with pytest.raises(StateError, match="watch restart"):
        memory_from(damage, "shop")


def test_an_impossible_number_in_the_memory_is_an_error() -> None:
    value = json.loads(begin(POLICY, NOW).to_json())
    value["detectors"]["failures"]["log_m"] = [1.0, 2.0]
    with pytest.raises(StateError):
        memory_from(json.dumps(value), "shop")


def test_new_rules_keep_what_they_did_not_change() -> None:
    first = watched(POLICY, {"images": 200, "failures": 5, "timed": 10, "slow": 1}).memory
    tighter = POLICY.model_copy(
        update={"watch": POLICY.watch.model_copy(update={"slow_limit": 0.01})}
    )
    after = with_limits(first, tighter)
    assert after.detectors["failures"] == first.detectors["failures"]
    assert after.detectors["slow"].images == 0
    assert after.detectors["slow"].limit == 0.01


# ── the rollback window ──────────────────────────────────────────────────────────────────────────


def _served(**ago: float) -> list[Served]:
    return [Served(MIX, NOW - timedelta(days=60), NOW - timedelta(**ago))]


def test_a_mix_that_served_well_lately_may_return() -> None:
    assert "within the rollback window" in judge_return("winter", _served(days=3), [], POLICY, NOW)


@pytest.mark.parametrize(
    ("served", "past", "why"),
    [
        ([], [], "never served"),
        (_served(days=15), [], "longer ago than the rollback window of 14 days"),
        (_served(days=1), [Past(MIX, "a", "b", 9, "alarm")], "found mix 'winter' bad"),
    ],
)
def test_others_need_a_full_gate(served: list[Served], past: list[Past], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        judge_return("winter", served, past, POLICY, NOW)


def test_a_mix_that_a_person_cleared_may_return() -> None:
    past = [Past(MIX, "a", "b", 9, "alarm"), Past(MIX, "c", "d", 9, "cleared")]
    assert judge_return("winter", _served(days=1), past, POLICY, NOW)


def test_the_next_mix_remembers_how_the_one_before_ended() -> None:
    memory = watched(POLICY, {"images": 200}).memory
    after = begin_next(memory, MIX, POLICY, NOW + timedelta(hours=1))
    assert after.past[-1].how == "replaced"
    assert after.past[-1].images == 200
    assert after.images == 0


# ── whole weeks ──────────────────────────────────────────────────────────────────────────────────


def a_week(
    rng: np.random.Generator, rate: float, step: timedelta, pace: float, until: datetime
) -> tuple[Memory, int, int, set[str]]:
    """All signals within their limits, quiet nights; return memory, images, alarms, statuses."""
    memory, at = begin(FULL, NOW), NOW
    images = alarms = 0
    statuses = set()
    part = rng.uniform()
    while at < until:
        end = at + step
        busy = 0.15 + 0.85 * max(0.0, math.sin(math.pi * (at.hour - 5) / 18))
        n = int(rng.poisson(pace * busy * step.total_seconds() / 60))
        f = int(rng.binomial(n, rate * part))
        judged = (n - f) // 20
        arm = ArmOutcomes(
            images=n,
            failures=f,
            judged=judged,
            defects=int(rng.binomial(judged, rate * (1 - part))),
            timed=n,
            slow=int(rng.binomial(n, 0.04)),
            costed=n,
            cost_microusd=n * 35_000,
            tickets=min(n, int(rng.poisson(n * 0.0015))),
        )
        judged_now = judge(memory, Look(Outcomes(at, end, {MIX: arm})), MIX, FULL, end)
        memory, at, images = judged_now.memory, end, images + n
        statuses.add(judged_now.status)
        if judged_now.status == "alarm":
            alarms, memory = alarms + 1, begin(FULL, end)
    return memory, images, alarms, statuses


def test_good_weeks_stay_within_the_promise_and_are_never_called_blind() -> None:
    rng = np.random.default_rng(21)
    images = alarms = 0
    for rate in (0.008, 0.015, 0.019):
        _, n, count, statuses = a_week(
            rng, rate, timedelta(minutes=20), 30, NOW + timedelta(days=7)
        )
        images, alarms = images + n, alarms + count
        assert "blind" not in statuses
    assert images > 300_000
    assert alarms <= images / FULL.watch.false_alarm_images


def test_after_a_good_day_two_to_five_percent_is_found_within_the_delay() -> None:
    rng = np.random.default_rng(22)
    delays = []
    for _ in range(12):
        memory, _, alarms, _ = a_week(
            rng, 0.018, timedelta(minutes=20), 30, NOW + timedelta(days=1)
        )
        assert alarms == 0
        at, seen, window = NOW + timedelta(days=1), 0, 25
        while True:
            until = at + timedelta(minutes=1)
            bad = int(rng.binomial(window, 0.05))
            judged = judge(memory, a_look(at, until, images=window, failures=bad), MIX, FULL, until)
            memory, at, seen = judged.memory, until, seen + window
            if judged.status == "alarm":
                break
            assert seen < 10_000
        delays.append(seen)
    promised = FULL.watch.false_alarm_images / SHARES["failures"]
    assert np.mean(delays) <= longest_delay(0.02, 0.05, promised) + 25
