"""Defaults for Prefect: telemetry off, nothing of the user's overridden."""

from __future__ import annotations

from pathlib import Path

from flows.prefect_env import prefect_defaults


def test_what_the_environment_says_stays(tmp_path: Path) -> None:
    mine = {
        "PREFECT_HOME": "/somewhere",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "7",
        "DO_NOT_TRACK": "0",
    }
    added = prefect_defaults(mine, tmp_path)
    assert not set(added) & set(mine)
    assert added["GX_ANALYTICS_ENABLED"] == "false"
    assert added["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_server_of_ones_own_is_not_prepared(tmp_path: Path) -> None:
    added = prefect_defaults({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, tmp_path)
    assert "PREFECT_HOME" not in added
    assert not any("EPHEMERAL" in name for name in added)


def test_without_a_server_the_files_lie_in_imagegates_home(tmp_path: Path) -> None:
    added = prefect_defaults({}, tmp_path)
    assert added["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert int(added["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"]) >= 120
