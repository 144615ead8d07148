"""Scheduled gates and gates from Prefect's UI: a real ``imagegate serve``, server and browser."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasks.errors import FrozenError
from tasks.mix.freeze import acquire_for_run
from tasks.state import State
from tests.conftest import ROOT, clean_environment, free_port
from tests.fakes.held_models import HeldModels

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

CHROMIUM = Path("/usr/bin/chromium")
GATE = "release-gate"


class World:
    """One machine with ``imagegate serve`` on it."""

    def __init__(self, folder: Path, models: HeldModels) -> None:
        self.folder = folder
        self.models = models
        self.port = free_port()
        self.ui = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self.env = clean_environment() | {
            # Relative on purpose: the runs must find it too.
            "IMAGEGATE_HOME": "home",
            "IMAGEGATE_SCHEDULES_FILE": "schedules.yaml",
            "PYTHONPATH": str(ROOT),
            # A queued gate asks for its turn every second instead of every 30.
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        }
        self.process: subprocess.Popen[bytes] | None = None
        # No kept connections: the server closes idle ones, and a restart all of them.
        self._client = httpx.Client(
            base_url=f"{self.ui}/api",
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._write()

    def _write(self) -> None:
        products: dict[str, Any] = {
            "storefront": {
                "owner": "team",
                "gate": {"cron": "0 2 * * *"},
                "parameters": {"policy": self._file("lenient.yaml", yaml.safe_dump(LENIENT))},
            }
        }
        for product, collision in (("held", "refuse"), ("queued", "wait")):
            files = self.models.files(product)
            products[product] = {
                "collision": collision,
                "parameters": {
                    field: self._file(f"{product}-{field}.yaml", text)
                    for field, text in files.items()
                },
            }
        products["held"]["gate"] = {"every_seconds": 15}
        quiet = {"cron": "0 3 1 1 *"}
        self._file(
            "schedules.yaml",
            yaml.safe_dump(
                {
                    "timezone": "Europe/Berlin",
                    "products": products,
                    "production_watch": quiet,
                    "budget_alarm": quiet,
                    "freeze_reminder": quiet,
                    "live_watch": quiet,
                    "rollback_drill": quiet,
                }
            ),
        )

    def _file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows", "serve", "--port", str(self.port)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.env,
            )
        marker = self.said().count("Ctrl-C stops.")
        self.wait(lambda: self.said().count("Ctrl-C stops.") > marker, 240)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(120)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Callable[[], Any], seconds: float = 90) -> Any:
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

    def api(self, method: str, path: str, **json: Any) -> Any:
        answer = self._ask(method, path, json or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/deployments/name/{name}")
        return found

    def start_run(self, name: str, **request: Any) -> httpx.Response:
        deployment = self.deployment(name)
        asked = deployment["parameters"]["request"] | {"owner": "kim"} | request
        path = f"/deployments/{deployment['id']}/create_flow_run"
        body = {"parameters": {"request": asked}, "state": {"type": "SCHEDULED"}}
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Any) -> httpx.Response:
        """Ask until the server is not busy: 503 says that SQLite was locked for a moment."""
        deadline = time.monotonic() + 30
        while True:
            answer = self._client.request(method, path, json=body)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer

    def started(self, name: str, **request: Any) -> str:
        """Start a run and return its id."""
        answer = self.start_run(name, **request)
        assert answer.status_code in (200, 201), answer.text
        run_id: str = answer.json()["id"]
        return run_id

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/flow_runs/{run_id}")
        return found

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(
            "POST",
            "/flow_runs/filter",
            deployments={"id": {"any_": [self.deployment(deployment)["id"]]}},
            sort="EXPECTED_START_TIME_ASC",
        )
        return found

    def close(self) -> None:
        self._client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


LENIENT = {
    "schema_version": 1,
    "name": "lenient",
    "failure": {"limit": 0.1, "promote_below": 0.35},
    "slices": {"limit": 0.5, "critical": []},
    "limits": [{"measure": "effective_cost_per_1k_usd", "max": 30.0, "on_breach": "hold"}],
    "sampling": {"cases": 28, "shard_size": 7, "stop_early": False},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with HeldModels() as models:
        world = World(tmp_path_factory.mktemp("machine"), models)
        try:
            world.start()
            yield world
        finally:
            models.release("held")
            models.release("queued")
            world.close()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_schedule_fires_by_itself_and_a_second_gate_is_refused_by_name(world: World) -> None:
    name = f"{GATE}/held"
    world.wait(world.models.seen("held").is_set)
    (first,) = [r for r in world.runs(name) if r["state"]["name"] == "Running"]
    assert first["auto_scheduled"] is True
    assert first["parameters"]["request"]["owner"] == "schedule (imagegate)"

    second = world.started(name)
    refused = world.wait(
        lambda: (r := world.run(second))["state"]["name"] == "Refused" and r, seconds=18
    )
    # Nothing of it was started; its state says which run is in the way.
    assert refused["run_count"] == 0
    assert refused["state"]["type"] == "CANCELLED"
    assert first["name"] in refused["state"]["message"]
    assert first["id"] in refused["state"]["message"]
    world.wait(lambda: f"refused: {name} {refused['name']}" in world.said())
    (schedule,) = world.deployment(name)["schedules"]
    path = f"/deployments/{world.deployment(name)['id']}/schedules/{schedule['id']}"
    world.api("PATCH", path, active=False)
    world.models.release("held")


def test_a_second_gate_waits_for_the_first_when_the_file_says_so(world: World) -> None:
    name = f"{GATE}/queued"
    first = world.started(name)
    world.wait(world.models.seen("queued").is_set)
    second = world.started(name)
    # A gate from elsewhere, that Prefect does not see, is stopped by the freeze of the first.
    state = State(f"sqlite:///{world.folder / 'home' / 'state.db'}")
    with pytest.raises(FrozenError, match=r"run '[\w-]+-queued-candidate-\w+' of kim"):
        acquire_for_run(
            state,
            "queued",
            run_id="another",
            owner="lee",
            reason="release gate",
            days=1,
            now=datetime.now(UTC),
        )
    state.close()
    world.wait(lambda: world.run(second)["state"]["name"] == "AwaitingConcurrencySlot", seconds=18)
    world.models.release("queued")
    ended = world.wait(lambda: (r := world.run(second))["state"]["name"] == "Refused" and r)
    before = world.run(first)
    assert at(ended["start_time"]) >= at(before["end_time"])
    # Its models are not served: the gate says so itself, in one state and without a traceback.
    assert before["state"]["type"] == ended["state"]["type"] == "FAILED"
    assert "preflight refuses" in ended["state"]["message"]
    assert "Traceback" not in ended["state"]["message"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"cases": 0}, "cases"),
        ({"candidate": "nosuch.yaml"}, "candidate"),
        ({"owner": ""}, "owner"),
    ],
)
def test_the_server_refuses_a_wrong_value(world: World, wrong: dict[str, Any], word: str) -> None:
    answer = world.start_run(f"{GATE}/storefront", **wrong)
    assert answer.status_code == 409
    assert word in answer.json()["detail"]


def test_the_flow_refuses_what_only_it_can_see(world: World) -> None:
    started = world.started(f"{GATE}/storefront", inputs="no/such/log.csv")
    run = world.wait(lambda: (r := world.run(started))["end_time"] and r)
    assert (run["state"]["name"], run["state"]["type"]) == ("Refused", "FAILED")
    assert "no/such/log.csv" in run["state"]["message"]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium (Debian: chromium)")
def test_a_gate_is_started_watched_and_read_in_the_ui(world: World, tmp_path: Path) -> None:
    from playwright.sync_api import TimeoutError as Late
    from playwright.sync_api import sync_playwright

    name = f"{GATE}/storefront"
    here = f"{world.ui}/v2/deployments/deployment/{world.deployment(name)['id']}"
    before = {run["id"] for run in world.runs(name)}

    def new_runs() -> list[dict[str, Any]]:
        """Return what a person started: Prefect plans nights ahead at any time."""
        found = world.runs(name)
        return [r for r in found if r["id"] not in before and not r["auto_scheduled"]]

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(60_000)
        page.goto(here)
        page.get_by_role("tab", name="Description").click()
        page.get_by_text("Two gates of storefront never run at once").wait_for()

        page.goto(f"{here}/run")
        submit = page.get_by_role("button", name="Submit")
        cases = page.get_by_label("Cases (Optional)")
        cases.fill("0")
        # The browser itself refuses a number out of the limits, …
        assert cases.evaluate("field => field.validationMessage")
        cases.fill("12")
        submit.click()
        # … and the form what is missing, next to the field.
        page.get_by_text("'owner' is a required property").first.wait_for()
        assert new_runs() == []

        page.get_by_label("Who asks").fill("kim@example.com")
        page.locator("button", has_text="deployments/mixes/candidate.yaml").click()
        offered = page.get_by_role("option").all_inner_texts()
        assert "deployments/mixes/candidate-broken.yaml" in offered
        page.get_by_role("option", name="deployments/mixes/candidate.yaml").click()
        page.get_by_label("Budget in dollars (Optional)").fill("2")
        _shoot(page, tmp_path / "form.png")
        submit.click()
        with contextlib.suppress(Late):
            page.wait_for_url(lambda url: not url.endswith("/run"), timeout=3_000)
        if page.url.endswith("/run"):
            submit.click()  # After a refused attempt Prefect's form only checks at the first click.
        (run,) = world.wait(new_runs)

        page.goto(f"{world.ui}/v2/runs/flow-run/{run['id']}")
        page.get_by_text("judge candidate").first.wait_for()
        ended = world.wait(lambda: (r := world.run(run["id"]))["end_time"] and r, seconds=200)
        assert ended["state"]["name"] == "PROMOTE", ended["state"]["message"]
        # The page that is open shows it by itself.
        page.get_by_text("PROMOTE", exact=True).first.wait_for()
        page.get_by_text("draw_sample: 12 cases").first.wait_for()
        _shoot(page, tmp_path / "run.png")
        artifacts = world.api("POST", "/artifacts/filter", flow_runs={"id": {"any_": [run["id"]]}})
        (summary,) = [a for a in artifacts if a["key"] and a["key"].startswith("summary-")]
        page.goto(f"{world.ui}/v2/artifacts/artifact/{summary['id']}")
        page.get_by_role("heading", name="Before → after").wait_for()
        for text in ("Failure rate", "Effective cost per 1,000 usable images", "What was done"):
            page.get_by_text(text).first.wait_for()
        _shoot(page, tmp_path / "artifact.png")
        browser.close()
    asked = ended["parameters"]["request"]
    assert (asked["cases"], asked["owner"], asked["budget_usd"]) == (12, "kim@example.com", 2)
    assert list((world.folder / "home" / "runs").iterdir()), "the run has to use serve's home"
    world.wait(lambda: f"ended: {name} judge candidate: PROMOTE" in world.said())


def _shoot(page: Any, path: Path) -> None:
    """Take a picture for people; ``IMAGEGATE_TEST_SHOTS`` names a folder to keep it in."""
    kept = os.environ.get("IMAGEGATE_TEST_SHOTS")  # noqa: TID251 - of the tests alone
    page.screenshot(path=Path(kept) / path.name if kept else path, full_page=True)


def test_deploy_moves_everything_to_a_pool_and_tells_what_changed(world: World) -> None:
    def deploy(*more: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "flows", "deploy", "--pool", "gates", "--json", *more],
            capture_output=True,
            text=True,
            check=False,
            cwd=world.folder,
            env=world.env | {"PREFECT_API_URL": f"{world.ui}/api"},
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    ids = {f"{GATE}/{p}": world.deployment(f"{GATE}/{p}")["id"] for p in ("storefront", "held")}
    first, second = deploy(), deploy()
    assert (first["pool"], second["pool"]) == ("created", "there")
    products = ("storefront", "held", "queued")
    chores = "production-watch", "budget-alarm", "freeze-reminder", "live-watch", "rollback-drill"
    assert {one["name"] for one in first["deployments"]} == {
        *(f"{flow}/{product}" for flow in (GATE, "canary") for product in products),
        *(f"{chore}/imagegate" for chore in chores),
    }
    for one in first["deployments"]:
        assert "work pool" in one["change"]
        assert one["id"] == ids.get(one["name"], one["id"])
    assert {one["change"] for one in second["deployments"]} == {"unchanged"}
    gate = world.deployment(f"{GATE}/storefront")
    assert gate["work_pool_name"] == "gates"
    assert gate["job_variables"]["env"]["IMAGEGATE_HOME"] == str(world.folder / "home")


def test_a_restart_goes_on_with_the_same_schedules(world: World) -> None:
    names = [f"{GATE}/{product}" for product in ("storefront", "held", "queued")]
    before = {name: world.deployment(name) for name in names}
    # A person's pause was kept by the server, and has to be by the restart.
    assert before[f"{GATE}/held"]["schedules"][0]["active"] is False
    assert before[f"{GATE}/storefront"]["work_pool_name"] == "gates"
    assert world.stop() == 0
    assert "Traceback" not in world.said()
    world.start()
    for name in names:
        after = world.deployment(name)
        assert after["id"] == before[name]["id"]
        assert after["work_pool_name"] is None
        assert [_plan(s) for s in after["schedules"]] == [
            _plan(s) for s in before[name]["schedules"]
        ]
        for field in ("concurrency_options", "paused", "parameter_openapi_schema", "parameters"):
            assert after[field] == before[name][field], (name, field)
    held = before[f"{GATE}/held"]
    known = {run["id"] for run in world.runs(f"{GATE}/held") if run["start_time"]}
    path = f"/deployments/{held['id']}/schedules/{held['schedules'][0]['id']}"
    world.api("PATCH", path, active=True)
    world.wait(
        lambda: any(
            run["start_time"] and run["id"] not in known for run in world.runs(f"{GATE}/held")
        )
    )


def _plan(schedule: dict[str, Any]) -> tuple[Any, ...]:
    """Return what makes a schedule, without when it was last written."""
    plan = schedule["schedule"]
    when = (plan.get("cron"), plan.get("interval"), plan.get("timezone"))
    return schedule["id"], schedule["slug"], schedule["active"], when, schedule["parameters"]


def test_a_killed_serve_leaves_no_server_behind(world: World) -> None:
    assert world.process is not None
    world.process.kill()
    world.process.wait()
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{world.ui}/api/health", timeout=2, trust_env=False)
        except httpx.TransportError:
            return
        assert time.monotonic() < deadline, "Prefect's server outlived imagegate serve"
