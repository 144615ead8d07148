"""A person's word on real gates: a real ``imagegate serve``, Prefect's API and form, the command.

All gates are started at once and wait side by side; each test answers its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasks.approval import store
from tasks.errors import RefusedError
from tasks.policy import ApprovalRule
from tasks.records import Verdict
from tasks.state import State
from tests.conftest import ROOT, Done, clean_environment, free_port
from tests.real.test_real_deployments import CHROMIUM

pytestmark = [pytest.mark.real, pytest.mark.timeout(700)]

#: A policy that six cases satisfy and that asks a person; ``expires_hours`` is filled in.
POLICY = {
    "schema_version": 1,
    "name": "ask",
    "failure": {"limit": 0.5, "promote_below": 0.8},
    "slices": {"limit": 0.9, "critical": []},
    "sampling": {"cases": 6, "shard_size": 6},
}
#: Products whose gate waits for a person, and how long.
HOURS = {"browser": 24.0, "command": 24.0, "late": 60 / 3600, "undone": 24.0}
#: The product of the run that no deployment started.
BY_HAND = "by-hand"


class World:
    """One machine with ``imagegate serve`` on it, and several products that wait for a person."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.ui = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "serve.log"
        self.env = clean_environment() | {
            "IMAGEGATE_HOME": str(self.home),
            "IMAGEGATE_SCHEDULES_FILE": str(folder / "schedules.yaml"),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.runs: dict[str, str] = {}
        # No kept connections: the server closes idle ones just when the next request is sent.
        self._client = httpx.Client(
            base_url=f"{self.ui}/api",
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._write_schedules()

    def _write_schedules(self) -> None:
        quiet = {"cron": "0 3 1 1 *"}
        plan = {
            "products": {product: {"parameters": self.files(product)} for product in HOURS},
            # The watch is what ends a run whose question is closed.
            "production_watch": quiet,
            "budget_alarm": quiet,
            "freeze_reminder": quiet,
            "live_watch": quiet,
            "rollback_drill": quiet,
        }
        self._file("schedules.yaml", plan)

    def files(self, product: str) -> dict[str, str]:
        """Write mixes and policy of a product and return their paths by parameter."""
        given = {}
        for field, name in (("baseline", "production"), ("candidate", "candidate")):
            text = (ROOT / "deployments" / "mixes" / f"{name}.yaml").read_text(encoding="utf-8")
            mix = yaml.safe_load(text) | {"product": product}
            given[field] = self._file(f"{product}-{field}.yaml", mix)
        hours = HOURS.get(product, 24.0)
        asks = POLICY | {"approval": {"require": ["always"], "expires_hours": hours}}
        if product == BY_HAND:
            # A limit that no mix keeps: the machine holds, and a person may overrule it.
            limit = {"measure": "effective_cost_per_1k_usd", "max": 1.0, "on_breach": "hold"}
            asks |= {"limits": [limit], "approval": {"require": ["hold"]}}
        return given | {"policy": self._file(f"{product}-policy.yaml", asks)}

    def _file(self, name: str, value: Any) -> str:
        path = self.folder / name
        path.write_text(yaml.safe_dump(value), encoding="utf-8")
        return str(path)

    def start(self) -> None:
        port = self.ui.rpartition(":")[2]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows", "serve", "--port", port, "--limit", "3"],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=self.env,
                start_new_session=True,
            )
        self.wait(lambda: "Ctrl-C stops." in self.said(), 240)
        for product in HOURS:
            # A busy server may reset a connection; the key makes a second try the same run.
            self.runs[product] = self.wait(lambda product=product: self._asked(product))["id"]

    def _asked(self, product: str) -> dict[str, Any]:
        """Ask for a gate of a product; again, it is the same one."""
        found = self.api("GET", f"/deployments/name/release-gate/{product}")
        made: dict[str, Any] = self.api(
            "POST",
            f"/deployments/{found['id']}/create_flow_run",
            parameters={"request": found["parameters"]["request"] | {"owner": "ada"}},
            state={"type": "SCHEDULED"},
            idempotency_key=f"test-{product}",
        )
        return made

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Callable[[], Any], seconds: float = 300) -> Any:
        """Wait until the condition holds and return it; fail when serve ends before that."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if found := condition():
                    return found
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"it never came to that\n{self.said()}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)

    def api(self, method: str, path: str, **body: Any) -> Any:
        answer = self._sent(method, path, body)
        while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            # Prefect on SQLite says so when its database is busy, and its clients ask again.
            answer = self._sent(method, path, body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _sent(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
        for _ in range(3 if method == "GET" else 0):
            # A busy server may reset a connection; reading twice does no harm.
            with contextlib.suppress(httpx.TransportError):
                return self._client.request(method, path, json=body or None)
        return self._client.request(method, path, json=body or None)

    def state(self, product: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/flow_runs/{self.runs[product]}")["state"]
        return found

    def last_event(self, product: str) -> str | None:
        """Return the newest event of the flow run that Prefect's server knows."""
        resource = {"id": [f"prefect.flow-run.{self.runs[product]}"]}
        page = self.api("POST", "/events/filter", filter={"resource": resource}, limit=1)
        return page["events"][0]["event"] if page["events"] else None

    def suspended(self, product: str, number: int = 1) -> dict[str, Any]:
        """Wait until the gate asks for the given time; return its state in Prefect."""

        def asks() -> Any:
            state = self.state(product)
            over = state["type"] in ("FAILED", "CRASHED", "COMPLETED")
            assert not over, f"it ended as {state['name']}: {state.get('message')}"
            key = state["state_details"].get("pause_key")
            return state["name"] == "Suspended" and key == f"approval-{number}" and state

        found: dict[str, Any] = self.wait(asks)
        return found

    def ended(self, product: str) -> dict[str, Any]:
        """Wait until the flow run has ended; return its state."""

        def over() -> Any:
            state = self.state(product)
            return state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and state

        found: dict[str, Any] = self.wait(over)
        return found

    def form(self, product: str, number: int = 1) -> str:
        """Return what the form says above its fields."""
        flow_run = self.runs[product]
        text = self.api(
            "GET", f"/flow_runs/{flow_run}/input/suspended-approval-{number}-description"
        )
        return str(text)

    def answer(self, product: str, **form: str) -> dict[str, Any]:
        """Resume the flow run as Prefect's UI does; return what the server says."""
        path = f"/flow_runs/{self.runs[product]}/resume"
        said: dict[str, Any] = self.api("POST", path, run_input=form)
        return said

    def query(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.home / "state.db", timeout=30) as database:
            return database.execute(sql, values).fetchall()

    def approval(self, product: str) -> tuple[Any, ...]:
        """Return run, status, who decided and the way."""
        (row,) = self.query(
            "SELECT run_id, status, decided_by, decided_via FROM approvals WHERE product = ?",
            product,
        )
        return row

    def run_status(self, product: str) -> tuple[Any, ...]:
        (row,) = self.query("SELECT status, verdict FROM runs WHERE product = ?", product)
        return row

    def paid(self, product: str) -> list[tuple[Any, ...]]:
        run_id = self.approval(product)[0]
        return self.query(
            "SELECT idempotency_key, status, booked_microusd FROM ledger WHERE run_id = ? "
            "ORDER BY idempotency_key",
            run_id,
        )

    def serves(self, product: str) -> str:
        routing = json.loads((self.home / "routing.json").read_text(encoding="utf-8"))
        return str(routing["products"][product]["mix_name"])

    def imagegate(self, *arguments: str, **env: str) -> Done:
        """Run the command as somebody at this machine does."""
        done = subprocess.run(
            [sys.executable, "-m", "flows", *arguments],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            cwd=ROOT,
            env=self.env | {"PREFECT_API_URL": f"{self.ui}/api"} | env,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def evidence(self, product: str) -> dict[str, Any]:
        folder = self.home / "runs" / str(self.approval(product)[0])
        found: dict[str, Any] = json.loads((folder / "approval.json").read_text(encoding="utf-8"))
        return found

    def close(self) -> None:
        self._client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                # With the gates that it started.
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, migrated_prefect: Path) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("machine"))
    shutil.copytree(migrated_prefect, world.home / "prefect")
    try:
        world.start()
        yield world
    finally:
        world.close()


def test_a_suspended_gate_shows_the_question_and_keeps_production(world: World) -> None:
    # The one with the short time may be over before the last gate has come to its question.
    for product in HOURS.keys() - {"late"}:
        world.suspended(product)
        assert world.serves(product) == "production"
        assert world.run_status(product)[0] == "waiting"
        # A heartbeat as the last sign would read as a dead process after a minute and a half.
        word = "prefect.flow-run.waits-for-a-person"
        world.wait(lambda product=product, word=word: world.last_event(product) == word)
    text = world.form("browser")
    for word in ("asks to replace", "says **PROMOTE**", "failure rate", "imagegate approve", "ada"):
        assert word in text, word
    listed = world.imagegate("approvals", "--json").json["pending"]
    # The one with the short time may be over by now.
    assert {one["product"] for one in listed} >= {"browser", "command", "undone"}
    report = world.home / "runs" / str(world.approval("browser")[0]) / "report.html"
    assert "Waits for a person" in report.read_text(encoding="utf-8")


def test_a_wrong_form_is_refused_by_the_server(world: World) -> None:
    world.suspended("browser")
    for wrong in ({}, {"decision": "maybe"}, {"who": " "}, {"why": ""}):
        form = {"decision": "approve", "who": "grace", "why": "fine"} | wrong if wrong else {}
        assert world.answer("browser", **form)["status"] == "REJECT"
    assert world.state("browser")["name"] == "Suspended"
    assert world.approval("browser")[1] == "pending"


def test_the_requesters_own_answer_does_not_count(world: World) -> None:
    world.suspended("browser")
    own = world.answer("browser", decision="approve", who="ADA@laptop", why="it is mine")
    assert own["status"] == "ACCEPT"
    # Prefect starts the gate again, which asks again; the test in the browser goes on there.
    assert world.approval("browser")[1] == "pending"


def test_a_rollback_goes_through_at_once_and_voids_the_question(world: World) -> None:
    world.suspended("undone")
    run_id = world.approval("undone")[0]
    (digest,) = world.query("SELECT mix_digest FROM production WHERE product = 'undone'")[0]
    back = world.imagegate(
        "rollback", "--product", "undone", "--to", digest, "--reason", "garbled", "--json"
    )
    assert back.code == 0, back.err
    late = world.imagegate("approve", run_id, "--why", "fine", "--by", "grace")
    assert late.code == 2, late.err
    assert "production was rolled back by" in " ".join(late.err.split())
    assert world.ended("undone")["name"] == "HOLD"
    assert "rolled back" in world.ended("undone")["message"]
    assert world.serves("undone") == "production"
    assert world.run_status("undone") == ("finished", "HOLD")
    assert world.approval("undone")[1::2] == ("expired", "rollback")


def test_the_command_decides_even_while_prefect_is_away(world: World) -> None:
    world.suspended("command")
    run_id = world.approval("command")[0]
    own = world.imagegate("approve", run_id, "--why", "mine", "--by", "Ada")
    assert own.code == 2, own.err
    assert "second person" in " ".join(own.err.split())

    # With the server out of reach the decision is kept and the command says how it goes on.
    away = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    said = ("--why", "too blue", "--by", "grace", "--json")
    kept = world.imagegate("reject", run_id[:-2], *said, **away)
    assert kept.code == 0, kept.err
    assert kept.json["way"] == "later"
    assert "watchdog" in kept.json["next"]
    assert world.approval("command")[1:] == ("rejected", "grace", "command")

    # The watchdog of `imagegate serve` may be first; either way the run goes on once.
    again = world.imagegate("reject", run_id, *said)
    assert again.code in (0, 2), again.err
    ended = world.ended("command")
    assert ended["name"] == "HOLD"
    assert "rejected by grace" in ended["message"]
    assert "too blue" in ended["message"]
    assert world.serves("command") == "production"
    assert world.run_status("command") == ("finished", "HOLD")


def test_a_second_person_promotes_in_the_browser(world: World) -> None:
    before = world.paid("browser")
    world.suspended("browser", 2)
    assert "second person" in world.form("browser", 2)
    assert world.approval("browser")[1] == "pending"

    if CHROMIUM.exists():
        fill_in(world, "approve", "Grace", "seen with the brand team")
    else:
        world.answer("browser", decision="approve", who="Grace", why="seen with the brand team")
    assert world.ended("browser")["name"] == "PROMOTE"
    assert world.approval("browser")[1:] == ("approved", "Grace", "prefect")
    assert world.run_status("browser") == ("finished", "PROMOTE")
    assert world.serves("browser") == "candidate"
    # Started three times, paid once.
    assert world.paid("browser") == before
    kept = world.evidence("browser")
    assert kept["verdict"]["verdict"] == "PROMOTE"
    assert (kept["decided_by"], kept["reason"]) == ("Grace", "seen with the brand team")


def fill_in(world: World, decision: str, who: str, why: str) -> None:
    """Answer in Prefect's own form, in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{world.ui}/runs/flow-run/{world.runs['browser']}")
        page.get_by_role("button", name="Resume").first.click()
        page.get_by_text("Your name").wait_for()
        # Above the fields stand the refusal of the answer before, and the figures.
        page.get_by_text("That answer did not count").wait_for()
        page.screenshot(path=world.folder / "form.png")
        page.get_by_role("button", name="Submit").click()
        page.get_by_text("'who' is a required property").wait_for()
        page.locator(".p-modal .p-select-button__control").first.press("ArrowDown")
        page.locator(".p-select-option", has_text=decision).click()
        fields = page.locator(".p-modal textarea.p-textarea__control")
        fields.nth(0).fill(who)
        fields.nth(1).fill(why)
        submit = page.get_by_role("button", name="Submit")
        resumed = page.get_by_text("Flow run resumed").or_(page.get_by_text("Resuming"))
        failed = page.get_by_text("Failed to resume flow run")
        for _ in range(5):
            submit.click()
            resumed.or_(failed).first.wait_for()
            # Prefect's database on SQLite may be busy; people press the button again.
            if resumed.first.is_visible():
                break
        browser.close()


def test_silence_ends_as_not_promoted_by_itself(world: World) -> None:
    ended = world.ended("late")
    assert ended["name"] == "HOLD"
    assert "the approval expired" in ended["message"]
    assert world.serves("late") == "production"
    assert world.approval("late")[1::2] == ("expired", "expiry")
    (told,) = world.query(
        "SELECT count(*) FROM outbox WHERE kind = 'reply' "
        "AND payload LIKE '%EXPIRED, nobody decided:% for late%'"
    )[0]
    assert told == 1


def test_a_hold_without_a_deployment_is_overruled_by_the_command(world: World) -> None:
    files = [f"--{field}={path}" for field, path in world.files(BY_HAND).items()]
    held = world.imagegate("run", *files, "--owner", "ada", "--json")
    assert held.code == 3, held.err
    result = held.json
    assert result["approval"]["status"] == "pending"
    assert "imagegate approve" in result["reasons"][0]
    assert world.run_status(BY_HAND) == ("waiting", "HOLD")
    assert world.serves(BY_HAND) == "production"
    before = world.paid(BY_HAND)

    ended = world.imagegate(
        "approve", result["run_id"], "--why", "worth it", "--by", "grace", "--json"
    )
    assert ended.code == 0, ended.err
    assert ended.json["verdict"] == "PROMOTE"
    first = ended.json["reasons"][0]
    for word in ("Approved by grace", "worth it", "although the machine holds", "cost"):
        assert word in first, first
    assert world.evidence(BY_HAND)["verdict"]["verdict"] == "HOLD"
    assert world.run_status(BY_HAND) == ("finished", "PROMOTE")
    assert world.serves(BY_HAND) == "candidate"
    assert world.paid(BY_HAND) == before


def test_on_postgresql_one_of_many_deciders_wins(postgres_url: str) -> None:
    state = State(postgres_url)
    now = datetime.now(UTC)
    store.request(
        state,
        "run-1",
        "shop",
        "ada",
        "The policy asks.",
        now + timedelta(hours=1),
        rules=ApprovalRule(require=("always",)),
        verdict=Verdict(verdict="PROMOTE", reasons=("good",)),
    )
    names = [f"person {number}" for number in range(6)]
    start = threading.Barrier(len(names))

    def answer(name: str) -> str | None:
        start.wait()
        try:
            decided = store.decide(
                state, "run-1", decision="approved", by=name, reason="fine", via="command"
            )
        except RefusedError:
            return None
        return decided.decided_by

    try:
        with ThreadPoolExecutor(len(names)) as pool:
            won = [name for name in pool.map(answer, names) if name is not None]
        found = store.read(state, "run-1")
        assert found is not None
        assert won == [found.decided_by]
        assert store.expire_due(state, now + timedelta(hours=2)) == ()
        assert store.withdraw(state, product="shop", via="rollback", by="x", reason="y") == ()
    finally:
        state.close()
