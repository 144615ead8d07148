"""The health checks of the containers see what is wrong."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy as sa

from deployments import health
from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.tables import heartbeats

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, tmp_path)


def alive(settings: Settings, name: str, at: str) -> None:
    state = State(settings.state_url.get_secret_value())
    with state.begin() as connection:
        connection.execute(sa.insert(heartbeats).values(name=name, at=at))
    state.close()


def test_a_part_that_fell_silent_is_seen(settings: Settings) -> None:
    assert health.beat(settings, "watchdog", 120, now=NOW) == "watchdog: no sign of life yet"
    alive(settings, "watchdog:elsewhere:1", "2026-11-25T11:59:59.000Z")
    assert "no sign" in str(health.beat(settings, "watchdog", 120, now=NOW)), "of another host"
    alive(settings, f"watchdog:{socket.gethostname()}:1", "2026-11-25T11:57:00.000Z")
    assert health.beat(settings, "watchdog", 120, now=NOW) == "watchdog: silent for 180 s"
    alive(settings, f"watchdog:{socket.gethostname()}:2", "2026-11-25T11:59:00.000Z")
    assert health.beat(settings, "watchdog", 120, now=NOW) is None
    alive(settings, "slack-listener", "2026-11-25T11:59:00.000Z")
    assert health.beat(settings, "slack-listener", 120, now=NOW) is None


def test_stores_are_reached_and_named_without_passwords() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        good = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://p:hunter2@127.0.0.1:{port}/p",
            "PREFECT_SERVER_DOCKET_URL": f"redis://:hunter2@127.0.0.1:{port}/1",
        }
        assert health.stores(good) is None
        assert "is not set" in str(health.stores({}))
        wrong = good | {"PREFECT_SERVER_DOCKET_URL": "redis://:hunter2@127.0.0.1:1/1"}
        assert str(health.stores(wrong)).startswith("127.0.0.1:1: ")
        nonsense = good | {"PREFECT_SERVER_DOCKET_URL": "redis://:hunter2@host:port/1"}
        assert health.stores(nonsense) == "PREFECT_SERVER_DOCKET_URL is no address"


def test_an_address_answers_with_200_or_not_at_all() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ready" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        assert health.http(f"{base}/ready") is None
        assert health.http(f"{base}/other") == f"{base}/other: 503"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert health.http(f"{base}/ready") == f"{base}/ready: ConnectError"


def test_wrong_usage_and_errors_are_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert health.main([]) == 1
    assert "deployments.health" in capsys.readouterr().err
    monkeypatch.setenv("IMAGEGATE_STATE_URL", "postgres://gate:hunter2@127.0.0.1:1/x")
    assert health.main(["beat", "watchdog", "1"]) == 1
    said = capsys.readouterr().err
    assert "refused" in said
    assert "hunter2" not in said
