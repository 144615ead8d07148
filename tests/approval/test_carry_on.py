"""How a run goes on after its answer, without a Prefect server; with one: tests/real."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from flows import approval_resume
from flows.approval_resume import COMMAND_S, CarriedOn, carry_on, resume_decided
from flows.approval_words import report_place, tell
from tasks.alerts.outbox import pending as undelivered
from tasks.approval import store
from tasks.approval.rules import Approval
from tasks.runs import end_run
from tasks.settings import Settings
from tasks.state import State
from tasks.tables import runs
from tests.approval.conftest import RUN, Ask

TODAY = datetime.now(UTC)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture
def folder(settings: Settings) -> None:
    """The run's folder is on this machine."""
    plan = settings.runs / RUN / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{}", encoding="utf-8")


def approved(state: State, via: str = "slack", now: datetime = TODAY) -> Approval:
    return store.decide(state, RUN, decision="approved", by="grace", reason="ok", via=via, now=now)


def book(state: State, **values: Any) -> None:
    with state.begin() as connection:
        connection.execute(sa.update(runs).where(runs.c.run_id == RUN).values(**values))


@pytest.mark.usefixtures("folder")
def test_a_run_that_ended_as_hold_is_resumed_by_who_asks(
    shop: State, ask: Ask, settings: Settings
) -> None:
    ask(now=TODAY)
    assert carry_on(shop, settings, approved(shop)).way == "here"


def test_a_run_of_another_machine_is_not_tried_here(
    shop: State, ask: Ask, settings: Settings
) -> None:
    ask(now=TODAY)
    carried = carry_on(shop, settings, approved(shop))
    assert carried.way == "later"
    assert f"imagegate run --resume {RUN}" in carried.sentence


@pytest.mark.usefixtures("folder")
def test_what_waits_in_prefect_is_never_resumed_beside_it(
    shop: State, ask: Ask, settings: Settings
) -> None:
    ask(now=TODAY)
    store.suspended_in(shop, RUN, "00000000-0000-0000-0000-000000000001")
    carried = carry_on(shop, settings, approved(shop))
    assert carried.way == "later"
    assert "PREFECT_API_URL" in carried.sentence


@pytest.mark.usefixtures("folder")
def test_a_server_that_is_down_delays_the_run_and_loses_nothing(
    shop: State, ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(now=TODAY)
    store.suspended_in(shop, RUN, "00000000-0000-0000-0000-000000000001")
    # Port 9 (discard) is closed: the connection is refused at once.
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    carried = carry_on(shop, settings, approved(shop))
    assert carried.way == "later"
    assert "the decision is kept" in carried.sentence
    assert "watchdog" in carried.sentence
    found = store.read(shop, RUN)
    assert found is not None
    assert found.status == "approved"


def test_a_run_that_has_ended_is_over(shop: State, ask: Ask, settings: Settings) -> None:
    ask(now=TODAY)
    end_run(shop, RUN, "finished", "PROMOTE")
    carried = carry_on(shop, settings, approved(shop))
    assert carried.way == "over"
    assert "PROMOTE" in carried.sentence


def test_a_run_that_is_under_way_is_left_alone(shop: State, ask: Ask, settings: Settings) -> None:
    ask(now=TODAY)
    book(shop, status="running")  # By this process, which lives.
    assert carry_on(shop, settings, approved(shop)).way == "going"


@pytest.mark.usefixtures("folder")
def test_a_run_whose_process_died_goes_on(shop: State, ask: Ask, settings: Settings) -> None:
    ask(now=TODAY)
    book(shop, status="running", host="elsewhere", heartbeat_at="2026-01-01T00:00:00.000Z")
    assert carry_on(shop, settings, approved(shop)).way == "here"


@pytest.mark.usefixtures("folder")
def test_the_watchdog_ends_what_is_answered_and_what_expired(
    shop: State, ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: Any) -> SimpleNamespace:
        started.append(command)
        end_run(shop, RUN, "finished", "HOLD")
        return SimpleNamespace(returncode=3, stderr="")

    monkeypatch.setattr(approval_resume.subprocess, "run", run)
    ask(now=TODAY - timedelta(hours=25), hours=24)
    (done,) = resume_decided(shop, settings)
    assert done.way == "here"
    assert list(started[0][-4:]) == ["run", "--resume", RUN, "--json"]
    assert resume_decided(shop, settings) == ()
    texts = [str(m.payload["text"]) for m in undelivered(shop)]
    assert any("EXPIRED" in text and "nobody decided" in text for text in texts)


def test_the_watchdog_leaves_open_questions_alone(
    shop: State, ask: Ask, settings: Settings
) -> None:
    ask(now=TODAY)
    assert resume_decided(shop, settings) == ()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("age", [0.0, COMMAND_S + 1])
def test_the_watchdog_lets_the_command_that_decided_end_the_run(
    shop: State, ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    started: list[Sequence[str]] = []

    def run(command: Sequence[str], **_: Any) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(approval_resume.subprocess, "run", run)
    ask(now=TODAY - timedelta(hours=1))
    approved(shop, "command", datetime.now(UTC) - timedelta(seconds=age))
    (done,) = resume_decided(shop, settings)
    # A command that died meanwhile is not waited for for ever.
    assert done.way == ("here" if age else "going")
    assert len(started) == (1 if age else 0)


@pytest.mark.usefixtures("folder")
def test_a_run_that_cannot_go_on_is_said_and_not_raised(
    shop: State, ask: Ask, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(now=TODAY)
    approved(shop)
    broken = SimpleNamespace(returncode=4, stderr="error: the router is gone\n")
    monkeypatch.setattr(approval_resume.subprocess, "run", lambda *_, **__: broken)
    (done,) = resume_decided(shop, settings)
    assert done == CarriedOn(RUN, "later", f"Run {RUN} could not go on: error: the router is gone")

    def hang(command: Sequence[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(approval_resume.subprocess, "run", hang)
    (done,) = resume_decided(shop, settings)
    assert "did not end" in done.sentence


def test_people_are_told_question_and_answer_once(
    shop: State, ask: Ask, settings: Settings
) -> None:
    asked = ask(now=TODAY, because="It costs <!channel> more.")
    tell(shop, settings, asked)
    tell(shop, settings, asked)
    tell(shop, settings, approved(shop))
    told = [m.payload for m in undelivered(shop) if m.kind == "reply"]
    assert len(told) == 2
    question, answer = (f"{payload['text']} {payload['blocks']}" for payload in told)
    assert f"imagegate approve {RUN}" in question
    assert f"imagegate reject {RUN}" in question
    assert "<!channel>" not in question
    assert "APPROVED" in answer
    assert "grace" in answer


def test_a_report_that_is_served_is_a_link(settings: Settings) -> None:
    assert f"imagegate report {RUN}" in report_place(settings, RUN)
    served = settings.model_copy(update={"report_base_url": "https://gates.example.com/"})
    assert report_place(served, RUN) == f"<https://gates.example.com/runs/{RUN}/report.html>"
