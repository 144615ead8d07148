from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.rollout.outcomes.base import (
    ArmOutcomes,
    OutcomeError,
    Outcomes,
    combine,
    nothing,
    read_all,
)

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
T1 = T0 + timedelta(minutes=10)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def window(arms: dict[str, ArmOutcomes], until: datetime = T1, **more: Any) -> Outcomes:
    return Outcomes(T0, until, arms, **more)


class Fixed:
    """A source that says the same of every window, complete up to a moment."""

    def __init__(self, name: str, arm: ArmOutcomes, complete: datetime = T1) -> None:
        self.name, self._arm, self._complete = name, arm, complete
        self.asked: list[datetime] = []

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        self.asked.append(until)
        return Outcomes(since, min(until, self._complete), dict.fromkeys(digests, self._arm))


class Broken:
    name = "desk"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        raise OutcomeError("answered 503")


@pytest.mark.parametrize(
    "fields",
    [
        {"images": -1},
        {"images": 1, "failures": 2},
        {"slow": 1},
        {"slow": 2, "timed": 1},
        {"judged": 1, "defects": 2},
        {"cost_microusd": 3},
    ],
)
def test_counts_that_cannot_be_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        ArmOutcomes(**fields)


def test_a_window_needs_zones_and_order() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Outcomes(T0.replace(tzinfo=None), T1, {})
    with pytest.raises(ValueError, match="ends before"):
        Outcomes(T1, T0, {})


def test_windows_add_up_and_unmeasured_is_not_zero() -> None:
    total = ArmOutcomes(10, 1, slow=2, timed=9) + ArmOutcomes(5, 5, tickets=1)
    assert total == ArmOutcomes(15, 6, slow=2, timed=9, tickets=1)
    assert total.cost_microusd is None


def test_two_sources_of_the_same_requests_are_not_added() -> None:
    proxy = window({A: ArmOutcomes(100, 3), B: ArmOutcomes(5, 0)}, others=4)
    logs = window(
        {A: ArmOutcomes(99, 2, slow=1, timed=97), B: ArmOutcomes(5, 0, slow=0, timed=5)},
        notes=("one row unreadable",),
    )
    desk = window({A: ArmOutcomes(tickets=2), B: ArmOutcomes(tickets=0)})
    both = combine([desk, proxy, logs])
    assert both.arms[A] == ArmOutcomes(100, 3, slow=1, timed=97, tickets=2)
    assert both.arms[B] == ArmOutcomes(5, 0, slow=0, timed=5, tickets=0)
    assert (both.notes, both.others) == (("one row unreadable",), 4)


def test_both_arms_come_from_one_source() -> None:
    # The first source saw only the baseline: its zero for the candidate is what it says.
    first = window({A: ArmOutcomes(100, 3), B: ArmOutcomes()})
    second = window({A: ArmOutcomes(90, 0), B: ArmOutcomes(7, 7)})
    assert combine([first, second]).arms[B] == ArmOutcomes(0, 0)


def test_different_windows_cannot_be_combined() -> None:
    with pytest.raises(ValueError, match="different windows"):
        combine([nothing([A], T0, T1), nothing([A], T0, T0)])
    with pytest.raises(ValueError, match="no outcomes"):
        combine([])


def test_all_sources_are_read_up_to_where_the_latest_is_complete() -> None:
    late = T0 + timedelta(minutes=7)
    one, other = Fixed("proxy", ArmOutcomes(10, 1)), Fixed("logs", ArmOutcomes(tickets=0), late)
    whole = read_all([one, other], "shop", [A], T0, T1)
    assert whole.until == late
    assert one.asked == [T1, late]
    assert whole.arms[A] == ArmOutcomes(10, 1, tickets=0)


def test_a_broken_guard_hides_no_failures() -> None:
    whole = read_all([Broken(), Fixed("logs", ArmOutcomes(10, 9))], "shop", [A], T0, T1)
    assert whole.arms[A] == ArmOutcomes(10, 9)
    assert whole.errors == ("desk: answered 503",)


def test_silence_and_a_failure_together_are_blindness() -> None:
    with pytest.raises(OutcomeError, match="503"):
        read_all([Broken(), Fixed("logs", ArmOutcomes(tickets=1))], "shop", [A], T0, T1)


def test_without_sources_there_is_nothing_to_read() -> None:
    with pytest.raises(OutcomeError, match="outcomes"):
        read_all([], "shop", [A], T0, T1)


def test_sources_that_agree_on_no_window_are_told() -> None:
    class Receding:
        name = "receding"

        def read(
            self, product: str, digests: Sequence[str], since: datetime, until: datetime
        ) -> Outcomes:
            return nothing(digests, since, until - timedelta(seconds=1))

    with pytest.raises(OutcomeError, match="no window"):
        read_all([Receding(), Fixed("logs", ArmOutcomes(1))], "shop", [A], T0, T1)


def test_a_source_far_behind_holds_nobody_up() -> None:
    stuck = Fixed("replica", ArmOutcomes(tickets=1), T0 - timedelta(hours=3))
    since, until = T0 - timedelta(hours=4), T1
    whole = read_all([stuck, Fixed("logs", ArmOutcomes(10, 9))], "shop", [A], since, until)
    assert whole.until == T1
    assert whole.arms[A] == ArmOutcomes(10, 9)
    assert len(whole.errors) == 1
    assert "far behind" in whole.errors[0]


def test_the_only_one_that_counts_images_is_waited_for() -> None:
    logs = Fixed("logs", ArmOutcomes(10, 9), T0 - timedelta(hours=3))
    desk = Fixed("desk", ArmOutcomes(tickets=1))
    whole = read_all([desk, logs], "shop", [A], T0 - timedelta(hours=4), T1)
    assert (whole.until, whole.errors) == (T0 - timedelta(hours=3), ())


def test_a_long_window_is_read_in_parts() -> None:
    whole = read_all([Fixed("logs", ArmOutcomes(1))], "shop", [A], T0 - timedelta(days=3), T1)
    assert whole.until == T0 - timedelta(days=3) + timedelta(hours=6)


def test_a_source_that_had_something_goes_before_one_that_had_nothing() -> None:
    quiet = window({A: ArmOutcomes(slow=0, timed=0, cost_microusd=0, costed=0, tickets=0)})
    busy = window({A: ArmOutcomes(9, 1, 2, 8, 50, 4, costed=9)})
    assert combine([quiet, busy]).arms[A] == ArmOutcomes(9, 1, 2, 8, 50, 0, costed=9)
    assert combine([quiet, nothing([A], T0, T1)]).arms[A].timed == 0


def test_sources_that_disagree_are_told() -> None:
    proxy, logs = Fixed("proxy", ArmOutcomes(1_000, 1)), Fixed("requests", ArmOutcomes(400, 0))
    whole = read_all([proxy, logs], "shop", [A], T0, T1)
    assert whole.arms[A] == ArmOutcomes(1_000, 1)
    assert whole.notes == (
        "the sources disagree on how many images sha256:aaaaaaaaaaaa served: proxy 1,000, "
        "requests 400",
    )
    near = Fixed("requests", ArmOutcomes(900, 0))
    assert read_all([proxy, near], "shop", [A], T0, T1).notes == ()
