from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.config import AlertsConfig, QuietHours, Routing, is_address, load_alerts
from tasks.errors import ConfigError
from tasks.policy import parse_strict
from tasks.settings import DEPLOYMENTS

FULL = """
schema_version: 1
default:
  channel: "#releases"
  on_call: S0123456789
  quiet_hours: {from: 22:00, until: "07:00", time_zone: Europe/Berlin}
  severities: {gate.hold: warning, incident.budget: page, incident: info}
  authority:
    U0123456789: {name: mia@example.org, may: [acknowledge, approve]}
  mail_to: [oncall@example.org]
products:
  shop:
    channel: C0123456789
    on_call: U0123456789
    least_severity: warning
"""


def read(tmp_path: Path, text: str) -> AlertsConfig:
    file = tmp_path / "alerts.yaml"
    file.write_text(text, encoding="utf-8")
    return load_alerts(file)


def test_the_shipped_file_is_valid_and_names_nobody() -> None:
    config = load_alerts(DEPLOYMENTS / "alerts.yaml")
    assert config.routing("storefront") == Routing()


def test_what_a_product_does_not_say_comes_from_the_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, FULL)
    shop, other = config.routing("shop"), config.routing("other")
    assert (shop.channel, other.channel) == ("C0123456789", "#releases")
    assert (shop.mention, other.mention) == ("<@U0123456789>", "<!subteam^S0123456789>")
    assert (shop.least_severity, other.least_severity) == ("warning", "info")
    assert shop.quiet_hours == other.quiet_hours
    assert shop.quiet_hours is not None
    assert shop.quiet_hours.since == "22:00", "YAML reads 22:00 as 1320"
    assert shop.mail_to == ("oncall@example.org",)


def test_the_longest_topic_decides_the_severity(tmp_path: Path) -> None:
    routing = read(tmp_path, FULL).routing(None)
    assert routing.severity("gate.hold", "info") == "warning"
    assert routing.severity("gate.holdout", "info") == "info"
    assert routing.severity("incident.budget:shop:month", "warning") == "page"
    assert routing.severity("incident.worker:1", "page") == "info"
    assert routing.severity("gate.rollback", "unheard-of") == "page"


def test_authority_is_by_person_and_deed(tmp_path: Path) -> None:
    routing = read(tmp_path, FULL).routing("shop")
    person = routing.person("U0123456789", "approve")
    assert person is not None
    assert person.name == "mia@example.org"
    assert routing.person("U0123456789", "roll_back") is None
    assert routing.person("U9999999999", "approve") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("default: {channel: releases}", "'default.channel': write the id of a channel"),
        ("default: {channel: '#a <!channel>'}", "'default.channel'"),
        ("default: {on_call: '@mia'}", "'default.on_call': write the id of a Slack user group"),
        ("default: {on_call: '<!channel>'}", "'default.on_call'"),
        ("default: {quiet_hours: {from: '22', until: '07:00'}}", "'default.quiet_hours.from'"),
        ("default: {quiet_hours: {from: '22:00', until: '22:00'}}", "are the same"),
        (
            "default: {quiet_hours: {from: '22:00', until: '07:00', time_zone: Mars}}",
            "no such time zone",
        ),
        ("default: {least_severity: loud}", "'info', 'warning' or 'page'"),
        ("default: {authority: {mia: {name: mia}}}", "authority names 'mia'"),
        ("default: {authority: {U0123456789: {name: mia, may: [fly]}}}", "'roll_back'"),
        ("default: {repeat_minutes: 0}", "'default.repeat_minutes'"),
        ("default: {mail_to: ['a@b, c@d']}", "write one mail address"),
        ("default: {token: xoxb-1}", "unknown field"),
        ("products: {shop: {chanel: '#x'}}", "'products.shop.chanel': unknown field"),
        ("default: {channel: '#a'}\ndefault: {channel: '#b'}", "stands here twice"),
    ],
)
def test_a_mistake_names_file_field_and_fix(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "alerts.yaml" in str(caught.value)


def quiet(since: str, until: str, zone: str = "UTC") -> QuietHours:
    value = {"from": since, "until": until, "time_zone": zone}
    return parse_strict(QuietHours, value, "test")


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (quiet("22:00", "07:00"), "2026-09-14T21:59:00Z", None),
        (quiet("22:00", "07:00"), "2026-09-14T22:00:00Z", "2026-09-15T07:00:00Z"),
        (quiet("22:00", "07:00"), "2026-09-15T06:59:59Z", "2026-09-15T07:00:00Z"),
        (quiet("22:00", "07:00"), "2026-09-15T07:00:00Z", None),
        (quiet("12:00", "13:00"), "2026-09-15T12:30:00Z", "2026-09-15T13:00:00Z"),
        # 22:00 to 07:00 in Berlin, also in the nights in which the clocks change.
        (quiet("22:00", "07:00", "Europe/Berlin"), "2026-09-14T20:00:00Z", "2026-09-15T05:00:00Z"),
        (quiet("22:00", "07:00", "Europe/Berlin"), "2026-10-24T21:00:00Z", "2026-10-25T06:00:00Z"),
        (quiet("22:00", "07:00", "Europe/Berlin"), "2026-03-28T22:00:00Z", "2026-03-29T05:00:00Z"),
        (quiet("22:00", "07:00", "Asia/Tokyo"), "2026-09-14T13:00:00Z", "2026-09-14T22:00:00Z"),
    ],
)
def test_quiet_hours_end_by_the_wall_clock(hours: QuietHours, now: str, end: str | None) -> None:
    found = hours.end(datetime.fromisoformat(now))
    assert found == (None if end is None else datetime.fromisoformat(end))


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_an_end_lies_ahead_and_is_outside(now: datetime, zone: str) -> None:
    hours = quiet("22:30", "06:15", zone)
    end = hours.end(now)
    if end is not None:
        assert end > now
        assert hours.end(end) is None


@pytest.mark.parametrize("text", ["a@b\nBcc: x@y", "a@b,c@d", "a b@c", "<a@b>", "a", "", "@"])
def test_an_address_is_one_address(text: str) -> None:
    assert not is_address(text)
