"""The list of schedules without a server, and how it reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.schedule_list import list_schedules, render_schedules
from tasks.settings import Settings, load_settings
from tests.conftest import Command


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    file = tmp_path / "schedules.yaml"
    file.write_text(
        "timezone: Europe/Berlin\nproducts:\n  shop: {gate: {cron: '0 2 * * *'}}\n  demo: {}\n",
        encoding="utf-8",
    )
    return load_settings({"IMAGEGATE_SCHEDULES_FILE": str(file)}, home=tmp_path / "home")


def test_next_runs_are_told_in_their_time_zone_without_a_server(settings: Settings) -> None:
    now = datetime(2026, 11, 25, 0, 30, tzinfo=UTC)
    rows = {r["name"]: r for r in list_schedules(settings, now)["schedules"]}
    assert rows["release-gate/shop"]["next"] == "2026-11-25 02:00:00 Europe/Berlin"
    assert rows["release-gate/demo"]["next"] is None
    # What cannot be known is not told as "nothing missed".
    assert rows["release-gate/shop"]["missed"] is None


def test_a_missed_night_is_said_in_capitals() -> None:
    row = {
        "name": "release-gate/shop",
        "schedule": "0 2 * * *",
        "timezone": "UTC",
        "next": "2026-11-26 02:00:00 UTC",
        "active": False,
        "last": {"started_at": "2026-11-23T02:00:03Z", "state": "HOLD", "name": "judge x"},
        "missed": ["2026-11-24T02:00:00Z"],
    }
    text = render_schedules({"schedules": [row], "server": "http://x", "file": "s.yaml"})
    assert "MISSED  2026-11-24T02:00:00Z" in text
    assert "(paused)" in text
    assert "HOLD" in text


def test_the_commands_refuse_in_sentences(light_imagegate: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("products: {shop: {gate: {cron: 'every night'}}}", encoding="utf-8")
    for command in (("schedules",), ("serve",)):
        refused = light_imagegate(*command, IMAGEGATE_SCHEDULES_FILE=str(bad))
        assert refused.code == 2
        flat = " ".join(refused.err.split())
        assert "products.shop.gate.cron" in flat
        assert "Traceback" not in flat
    alone = light_imagegate("deploy", "--pool", "gates")
    assert alone.code == 2
    assert "PREFECT_API_URL" in alone.err
    for flags in (("--type", "cloud"), ("--type", "docker"), ("--env", "NOVALUE")):
        wrong = light_imagegate(
            "deploy", "--pool", "gates", *flags, PREFECT_API_URL="http://127.0.0.1:9/api"
        )
        assert wrong.code == 2, flags
        assert "Traceback" not in wrong.err


def test_a_server_that_is_away_is_said(light_imagegate: Command) -> None:
    for command in (("serve",), ("deploy", "--pool", "gates")):
        away = light_imagegate(*command, PREFECT_API_URL="http://127.0.0.1:9/api")
        assert away.code == 4
        flat = " ".join(away.err.split())
        assert "no Prefect server answers at http://127.0.0.1:9/api" in flat
