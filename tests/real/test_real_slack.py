"""Messages drawn by a real browser, and the listener as a real process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from tasks.alerts.picture import find_browser
from tasks.alerts.preview import DESKTOP, PHONE
from tasks.checks.base import Expected
from tasks.checks.decode import decode
from tasks.state import State
from tasks.tables import heartbeats
from tests.conftest import ROOT, clean_environment
from tests.fakes.socket_mode_server import APP_TOKEN, BOT_TOKEN, SocketModeServer

pytestmark = pytest.mark.real
needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium or Chrome on this machine"
)
ROUTING = 'schema_version: 1\ndefault: {channel: "#night", on_call: S0123456789}\n'


def run(home: Path, *arguments: str) -> str:
    routing = home / "alerts.yaml"
    routing.write_text(ROUTING, encoding="utf-8")
    env = clean_environment() | {
        "IMAGEGATE_HOME": str(home),
        "IMAGEGATE_ALERTS_FILE": str(routing),
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=ROOT,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_browser
def test_a_sample_becomes_a_picture_that_can_be_read(tmp_path: Path) -> None:
    wide, narrow, html = tmp_path / "wide.png", tmp_path / "phone.png", tmp_path / "p.html"
    sample = ("slack", "preview", "--sample", "rollback")
    assert run(tmp_path, *sample, "--png", str(wide), "--html", str(html)) == f"{html}\n{wide}\n"
    run(tmp_path, *sample, "--phone", "--png", str(narrow))
    pictures = [decode(path.read_bytes(), Expected()).picture for path in (wide, narrow)]
    for picture, width in zip(pictures, (DESKTOP, PHONE), strict=True):
        assert picture is not None
        height = picture.rgb.shape[0]
        assert picture.rgb.shape[1] == 2 * width
        # Cut below the last line, and everything above it is there: a thread of two messages.
        assert width < height / 2 < 6000
        inked = (picture.rgb < 128).all(axis=2).mean()
        assert 0.01 < inked < 0.2
        # The red of ROLLBACK, the green of a button, the amber of a mention.
        for colour in ((213, 50, 59), (0, 122, 90), (255, 241, 201)):
            assert (np.abs(picture.rgb.astype(int) - colour).sum(axis=2) < 6).sum() > 200
    assert pictures[0] is not None
    assert pictures[1] is not None
    assert pictures[1].rgb.shape[0] > pictures[0].rgb.shape[0]


@needs_browser
def test_the_browser_shows_every_word_and_loads_nothing(tmp_path: Path) -> None:
    html = tmp_path / "p.html"
    run(tmp_path, "slack", "preview", "--sample", "rollback", "--html", str(html))
    browser = find_browser()
    assert browser is not None
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--dump-dom",
            html.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    dom = unescape(done.stdout)
    for words in ("ROLLBACK: aurora for storefront", "@S0123456789", "Acknowledge", "1 reply"):
        assert words in dom
    # A refused resource or script would be an error on the console.
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


@pytest.fixture
def server() -> Iterator[SocketModeServer]:
    with SocketModeServer() as running:
        yield running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_listener_ends_cleanly(
    number: signal.Signals, server: SocketModeServer, tmp_path: Path
) -> None:
    env = clean_environment() | {
        "IMAGEGATE_HOME": str(tmp_path),
        "IMAGEGATE_SLACK_URL": server.base_url,
        "SLACK_APP_TOKEN": APP_TOKEN,
        "SLACK_BOT_TOKEN": BOT_TOKEN,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "slack", "listen"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=env,
    )
    try:
        server.wait(server.connected)
        server.press("imagegate_approve", {"run_id": "run-1"}, user="U0000EVE")
        server.wait(lambda: server.said("chat.postEphemeral"))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert out == ""
    assert "imagegate_approve by U0000EVE: refused" in err
    assert err.rstrip().endswith("slack: stopped")
    assert "secret" not in err
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    with state.begin() as connection:
        assert connection.execute(heartbeats.select()).all() == []
    state.close()


def test_the_browser_is_found_by_its_usual_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/x/chrome" if name == "chrome" else None)
    assert find_browser() == "/x/chrome"
