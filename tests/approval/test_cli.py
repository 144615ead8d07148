"""``imagegate approve``, ``reject``, ``approvals`` in this process; whole gates: tests/real."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from flows import cli, operate
from flows.cli_approval import render
from tasks.alerts.outbox import pending as undelivered
from tasks.approval import store
from tasks.mix.manifest import ResolvedMix
from tasks.records import Verdict
from tasks.runs import begin_run, end_run
from tasks.settings import Settings
from tasks.state import State
from tests.approval.conftest import RUN, Ask
from tests.approval.test_rules import approval

TODAY = datetime.now(UTC)
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def imagegate(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    monkeypatch.setenv("IMAGEGATE_HOME", str(settings.home))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return call


@pytest.fixture
def resumed(settings: Settings, shop: State, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for the gate that is resumed in this process; has the requests it was given."""
    import flows.terminal

    (settings.runs / RUN).mkdir(parents=True)
    (settings.runs / RUN / "plan.json").write_text("{}", encoding="utf-8")
    requests: list[Any] = []

    def gate(request: Any, _: Settings, *, quiet: bool) -> SimpleNamespace:
        requests.append(request)
        found = store.read(shop, request.resume)
        assert found is not None
        verdict = "PROMOTE" if found.status == "approved" else "HOLD"
        end_run(shop, request.resume, "finished", verdict)  # type: ignore[arg-type]
        return SimpleNamespace(verdict=verdict, to_json=lambda: {"verdict": verdict})

    monkeypatch.setattr(flows.terminal, "run_with_terminal", gate)
    return requests


def test_what_waits_is_listed_with_the_commands(imagegate: Said, ask: Ask) -> None:
    assert imagegate("approvals") == (0, "no run waits for a person\n", "")
    ask(now=TODAY)
    for command in ("approve", "reject", "approvals"):
        code, out, _ = imagegate(command)
        assert code == 0
        for word in (RUN, "Ada@laptop", "PROMOTE", "imagegate approve", "imagegate reject"):
            assert word in out, word
    code, out, _ = imagegate("approvals", "--json")
    (shown,) = json.loads(out)["pending"]
    assert (shown["run_id"], shown["status"]) == (RUN, "pending")


def test_others_text_cannot_steer_the_terminal() -> None:
    nasty = "\x1b[2J\u202eevil\x07"
    shown = render(
        (
            approval(
                asked_because=nasty,
                requester=nasty,
                verdict=Verdict(verdict="HOLD", reasons=(nasty,)),
            ),
        )
    )
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


def test_approve_ends_the_run_here_with_its_exit_code(
    imagegate: Said, ask: Ask, resumed: list[Any], shop: State
) -> None:
    ask(now=TODAY)
    code, out, err = imagegate("approve", RUN[:20], "--why", "fine", "--by", "grace", "--json")
    assert code == 0, err
    assert json.loads(out) == {"verdict": "PROMOTE"}
    assert [request.resume for request in resumed] == [RUN]
    found = store.read(shop, RUN)
    assert found is not None
    assert (found.decided_by, found.decided_via, found.reason) == ("grace", "command", "fine")
    # Said again, it does nothing and says what there is.
    code, _, err = imagegate("approve", RUN, "--why", "fine", "--by", "grace")
    assert code == 2
    assert "decided already: approved by grace" in err
    assert "has ended with PROMOTE" in err
    assert len(resumed) == 1


def test_reject_did_what_was_asked(imagegate: Said, ask: Ask, resumed: list[Any]) -> None:
    ask(now=TODAY)
    code, _, err = imagegate("reject", RUN, "--why", "too blue", "--by", "grace")
    assert code == 0, err
    assert len(resumed) == 1


def test_an_approval_that_was_stored_before_goes_on_when_asked_again(
    imagegate: Said, ask: Ask, resumed: list[Any], shop: State
) -> None:
    ask(now=TODAY)
    store.decide(shop, RUN, decision="approved", by="grace", reason="ok", via="slack", now=TODAY)
    code, _, err = imagegate("approve", RUN, "--why", "go on", "--by", "linus")
    assert code == 0, err
    assert len(resumed) == 1


def test_the_other_answer_after_the_first_is_refused(
    imagegate: Said, ask: Ask, resumed: list[Any], shop: State
) -> None:
    ask(now=TODAY)
    store.decide(shop, RUN, decision="rejected", by="linus", reason="no", via="slack", now=TODAY)
    code, _, err = imagegate("approve", RUN, "--why", "fine", "--by", "grace")
    assert code == 2
    assert "rejected by linus" in err
    assert resumed == []


def test_who_may_not_is_told_who_may_and_until_when(imagegate: Said, ask: Ask) -> None:
    asked = ask(now=TODAY)
    code, out, err = imagegate("approve", RUN, "--why", "mine", "--by", "ada@desk", "--json")
    assert code == 2
    assert json.loads(out)["kind"] == "RefusedError"
    assert "second person" in err
    assert asked.expires_at[:10] in err


def test_too_late_is_refused_and_told(imagegate: Said, ask: Ask, shop: State) -> None:
    ask(now=TODAY - timedelta(hours=3), hours=2)
    code, _, err = imagegate("approve", RUN, "--why", "fine", "--by", "grace")
    assert code == 2
    assert "expired" in err
    assert any("EXPIRED" in str(m.payload["text"]) for m in undelivered(shop))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("approve", "nope", "--why", "x"), "no run 'nope' asked a person"),
        (("approve", RUN), "--why: give the reason"),
        (("approve", RUN, "--why", "  "), "--why: give the reason"),
        (("approve", RUN, "--why", "x", "--by", " @ "), "needs the name"),
        (("approve", "2026", "--why", "x"), "begins the names of 2 runs"),
    ],
)
def test_wrong_usage_is_a_sentence(
    imagegate: Said, ask: Ask, shop: State, arguments: tuple[str, ...], problem: str
) -> None:
    ask(now=TODAY)
    begin_run(shop, "20261125-130000-other", "shop", "sha256:a", "sha256:b")
    ask("20261125-130000-other", now=TODAY)
    code, _, err = imagegate(*arguments)
    assert code == 2
    assert problem in err
    assert {found.status for found in store.pending(shop)} == {"pending"}


def test_a_run_on_a_server_that_is_not_named_is_decided_and_goes_on_later(
    imagegate: Said, ask: Ask, shop: State
) -> None:
    ask(now=TODAY)
    store.suspended_in(shop, RUN, "00000000-0000-0000-0000-000000000001")
    code, out, _ = imagegate("approve", RUN, "--why", "fine", "--by", "grace", "--json")
    assert code == 0
    shown = json.loads(out)
    assert (shown["way"], shown["approval"]["status"]) == ("later", "approved")
    assert "PREFECT_API_URL" in shown["next"]


def test_a_rollback_closes_what_waits_and_says_so_in_its_thread(
    imagegate: Said, ask: Ask, shop: State, settings: Settings, winter: ResolvedMix
) -> None:
    ask(now=TODAY)
    operate.rollback(settings, "shop", winter.digest, "kim", "garbled text")
    code, _, err = imagegate("approve", RUN, "--why", "fine", "--by", "grace")
    assert code == 2
    assert "production was rolled back by kim: garbled text" in err
    (told,) = [m for m in undelivered(shop) if m.run_id == RUN and "VOID" in m.payload["text"]]
    assert "kim" in str(told.payload["blocks"])
