"""The outbox worker in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tasks.alerts import worker as worker_module
from tasks.alerts.delivery import DeliveryReport
from tasks.alerts.outbox import enqueue, pending
from tasks.alerts.worker import OutboxWorker
from tasks.errors import StateError
from tasks.settings import Settings
from tasks.state import State


def test_it_delivers_what_comes_while_it_runs_and_ends(
    slack: Any, in_slack: Callable[..., Settings], state: State
) -> None:
    enqueue(state, "before", None, {"text": "before"})
    reports: list[DeliveryReport] = []
    told = threading.Event()

    def seen(report: DeliveryReport) -> None:
        reports.append(report)
        if "after" in report.delivered:
            told.set()

    # An hour between two looks: only the wake-up can bring the second message.
    with OutboxWorker(state, in_slack(), every_s=3600, seen=seen) as worker:
        enqueue(state, "after", None, {"text": "after"})
        worker.wake()
        assert told.wait(30)
    assert slack.keys == ["before", "after"]
    assert pending(state) == ()
    assert not any(t.name == "imagegate-outbox" for t in threading.enumerate())


def test_it_outlives_a_database_that_is_away(
    state: State, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    again = threading.Event()

    def away(*_: object, **__: object) -> DeliveryReport:
        asked.append(1)
        if len(asked) == 3:
            again.set()
        raise StateError("the database is away")

    monkeypatch.setattr(worker_module, "deliver_all", away)
    with OutboxWorker(state, make_settings(), every_s=0.001):
        assert again.wait(30)
