"""Freeze windows: zones, clocks that jump, exceptions, and what a refused change is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, FrozenError
from tasks.policy import parse_strict
from tasks.rollout.calendar import FreezeWindow, assert_may_change, in_force, opens_at


def window(**fields: Any) -> FreezeWindow:
    return parse_strict(FreezeWindow, {"name": "holidays", "lift": ["dana"]} | fields, "test")


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


CHRISTMAS = window(**{"from": "2026-12-24T18:00", "until": "2026-12-26", "time_zone": "Asia/Tokyo"})


@pytest.mark.parametrize(
    ("moment", "frozen"),
    [
        ("2026-12-24T17:59:59", False),
        ("2026-12-24T18:00", True),
        # A day alone means to its end.
        ("2026-12-26T23:59:59", True),
        ("2026-12-27T00:00", False),
    ],
)
def test_a_window_is_meant_by_the_clock_of_its_own_zone(moment: str, frozen: bool) -> None:
    assert bool(in_force([CHRISTMAS], "shop", at(moment, "Asia/Tokyo"))) == frozen
    # The same moment, asked by somebody elsewhere.
    assert bool(in_force([CHRISTMAS], "shop", at(moment, "Asia/Tokyo").astimezone(UTC))) == frozen


def test_a_refused_change_is_told_until_when_and_who_may_lift_it() -> None:
    with pytest.raises(FrozenError) as error:
        assert_may_change([CHRISTMAS], "shop", at("2026-12-25T03:00"))
    text = str(error.value)
    assert "'holidays' until 2026-12-27 00:00 Asia/Tokyo" in text
    assert "lifted by dana" in text
    assert "a rollback always is" in text
    assert error.value.exit_code == 2


def test_a_window_is_for_its_products() -> None:
    own = window(**{"from": "2026-12-24", "until": "2026-12-24", "products": ["shop"]})
    assert in_force([own], "shop", at("2026-12-24T12:00"))
    assert not in_force([own], "press", at("2026-12-24T12:00"))


def test_an_exception_opens_a_window_and_only_for_its_time() -> None:
    opened = window(
        **{
            "from": "2026-12-20",
            "until": "2026-12-31",
            "except": [
                {
                    "from": "2026-12-22T10:00",
                    "until": "2026-12-22T12:00",
                    "why": "hotfix",
                    "by": "dana",
                }
            ],
        }
    )
    assert_may_change([opened], "shop", at("2026-12-22T10:00"))
    assert_may_change([opened], "shop", at("2026-12-22T11:59"))
    for closed in ("2026-12-22T09:59", "2026-12-22T12:00"):
        with pytest.raises(FrozenError):
            assert_may_change([opened], "shop", at(closed))
    before = in_force([opened], "shop", at("2026-12-21T00:00"))
    assert before[0].until == at("2026-12-22T10:00")


WEEKEND = {
    "weekly": {
        "from_day": "fri",
        "from_time": "16:00",
        "until_day": "mon",
        "until_time": "08:00",
    },
    "time_zone": "Europe/Berlin",
}


def test_weekends_follow_the_clock_through_its_change() -> None:
    """Berlin goes to summer time on Sunday 2026-03-29: that weekend is an hour shorter."""
    weekend = window(**WEEKEND)
    held = in_force([weekend], "shop", at("2026-03-28T12:00", "Europe/Berlin"))
    assert held[0].until == at("2026-03-30T08:00", "Europe/Berlin")
    assert held[0].until - at("2026-03-27T16:00", "Europe/Berlin").astimezone(UTC) == timedelta(
        hours=63
    )
    assert not in_force([weekend], "shop", at("2026-03-30T08:00", "Europe/Berlin"))
    assert not in_force([weekend], "shop", at("2026-03-27T15:59", "Europe/Berlin"))


def test_years_reach_over_new_year() -> None:
    quiet = window(yearly={"first": "12-20", "last": "01-03"})
    for moment in ("2026-12-20T00:00", "2026-12-31T23:59", "2027-01-03T23:59"):
        assert in_force([quiet], "shop", at(moment)), moment
    for moment in ("2026-12-19T23:59", "2027-01-04T00:00", "2026-06-01T00:00"):
        assert not in_force([quiet], "shop", at(moment)), moment


def test_windows_that_touch_open_together() -> None:
    first = window(**{"from": "2026-12-24", "until": "2026-12-25"})
    second = window(name="launch", **{"from": "2026-12-26", "until": "2026-12-27"})
    assert opens_at([first, second], "shop", at("2026-12-24T12:00")) == at("2026-12-28T00:00")
    with pytest.raises(FrozenError, match="possible again from 2026-12-28 00:00"):
        assert_may_change([first, second], "shop", at("2026-12-24T12:00"))


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, "give one of"),
        ({"from": "2026-12-24"}, "from and until come together"),
        ({"from": "2026-12-24", "until": "2026-12-23"}, "ends before it begins"),
        ({"from": "2026-12-24", "until": "2026-12-24", "time_zone": "Mars/Base"}, "time zone"),
        ({"from": "Christmas", "until": "2026-12-24"}, "not a day or local time"),
        ({"from": "2026-12-24T10:00+01:00", "until": "2026-12-25"}, "without a zone"),
        ({"yearly": {"first": "13-01", "last": "01-03"}}, "not a day of the year"),
        ({"from": "2026-12-24", "until": "2026-12-25", "lift": []}, "lift"),
        ({"from": "2026-12-24", "until": "2026-12-25", "lfit": ["x"]}, "unknown field"),
        ({"weekly": {"from_day": "fri", "until_day": "mon", "from_time": "25:00"}}, "time of day"),
    ],
)
def test_a_window_that_says_nothing_clear_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        window(**fields)


def test_yaml_dates_are_read_as_they_are_written() -> None:
    from datetime import date

    as_yaml = window(**{"from": date(2026, 12, 24), "until": datetime(2026, 12, 25, 8)})  # noqa: DTZ001
    assert in_force([as_yaml], "shop", at("2026-12-25T07:59"))
    assert not in_force([as_yaml], "shop", at("2026-12-25T08:00"))


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))  # noqa: DTZ001
def test_a_window_ends_when_it_says(naive: datetime) -> None:
    now = naive.replace(tzinfo=UTC)
    calendar = [window(**WEEKEND), window(yearly={"first": "12-20", "last": "01-03"}), CHRISTMAS]
    opens = opens_at(calendar, "shop", now)
    assert opens is not None
    assert opens >= now
    assert not in_force(calendar, "shop", opens)
    if opens > now:
        assert in_force(calendar, "shop", opens - timedelta(microseconds=1))


def test_the_examples_of_the_rollout_file_can_be_used_as_they_stand() -> None:
    import yaml

    from tasks.rollout.config import RolloutConfig
    from tasks.settings import DEPLOYMENTS

    text = (DEPLOYMENTS / "rollout.example.yaml").read_text(encoding="utf-8")
    blocks = [
        block for block in text.split("\n\n") if block.startswith(("# calendar:", "# shadows:"))
    ]
    whole = "\n".join(line[2:] for block in blocks for line in block.splitlines())
    config = parse_strict(RolloutConfig, yaml.safe_load(whole), "example")
    assert [w.name for w in config.calendar] == ["Christmas", "weekends", "season's end"]
    assert config.shadows == {"shop": "shop-drill"}
    assert in_force(config.calendar, "shop", at("2026-12-24T12:00"))
    assert not in_force(config.calendar, "shop", at("2026-12-15T12:00"))
