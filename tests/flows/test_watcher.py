"""Who hears of a gate, and how it is shown."""

from __future__ import annotations

import io
import logging
import signal
import threading
from typing import Any

import pytest
from rich.console import Console

from flows.terminal import TerminalWatcher
from flows.watcher import LoggedWatcher, Watcher, current_watcher, watched_by


class Ear(Watcher):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, ...]] = []

    def step(self, name: str, detail: str) -> None:
        self.heard.append(("step", name, detail))

    def progress(self, snapshot: Any) -> None:
        self.heard.append(("progress", str(snapshot)))

    def message(self, title: str, text: str) -> None:
        self.heard.append(("message", title, text))


def test_the_watcher_is_that_of_the_context() -> None:
    ear = Ear()
    with watched_by(ear):
        assert current_watcher() is ear
    assert current_watcher() is not ear


def test_steps_reach_the_flow_log_and_the_watcher(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    logged = LoggedWatcher(ear, logging.getLogger("gate"))
    with caplog.at_level(logging.INFO, logger="gate"):
        logged.step("decide", "HOLD")
        logged.progress({"candidate": 1})
        logged.message("Slack", "text")
    assert [entry[0] for entry in ear.heard] == ["step", "progress", "message"]
    assert "decide: HOLD" in caplog.text
    assert logged.stop is ear.stop


def test_without_a_terminal_progress_is_a_line_a_quarter() -> None:
    out = io.StringIO()
    watcher = TerminalWatcher(Console(file=out, width=120))
    for done in range(41):
        watcher.progress({"candidate: check": (done, 40, f"{done} [red]seen[/red]")})
    watcher.step("decide", "[bold]PROMOTE[/bold]")
    watcher.close()
    lines = out.getvalue().splitlines()
    assert len([line for line in lines if "candidate: check" in line]) == 4
    # What comes from prompts and providers is text, never markup of the console.
    assert "[red]seen[/red]" in out.getvalue()
    assert "[bold]PROMOTE[/bold]" in lines[-1]


def test_without_a_terminal_the_first_interrupt_ends_in_order_and_the_second_at_once() -> None:
    watcher = Watcher()
    before = signal.getsignal(signal.SIGINT)
    with watcher.signals():
        signal.raise_signal(signal.SIGINT)
        assert watcher.stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    watcher, before = Watcher(), signal.getsignal(signal.SIGINT)

    def inside() -> None:
        with watcher.signals():
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[object] = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
